//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// collectOnSignal gives memory that is not used back to the system each time the load generator asks, before it looks
// how much there is.
func collectOnSignal(ctx context.Context) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	defer signal.Stop(c)
	for {
		select {
		case <-c:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}
