//go:build !linux

package load

import "syscall"

// shareports has nothing to set here.
func shareports(network, address string, c syscall.RawConn) error { return nil }
