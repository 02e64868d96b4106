//go:build !unix

package main

// handleSignals does nothing: the signals are those of Unix.
func handleSignals() {}
