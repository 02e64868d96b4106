//go:build unix

package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// handleSignals makes the process collect garbage and return memory to the
// system at each SIGUSR1, so that what is measured from outside is what is in
// use, and lets it live on when nobody reads its log any more. It is called
// once, by main; the goroutine ends with the process.
func handleSignals() {
	signal.Ignore(syscall.SIGPIPE)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		for range c {
			debug.FreeOSMemory()
		}
	}()
}
