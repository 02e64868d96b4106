//go:build !linux

package main

import "time"

// processUse knows nothing here.
func processUse() (files int, resident uint64, cpu time.Duration) { return -1, 0, 0 }
