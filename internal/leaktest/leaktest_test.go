package leaktest

import (
	"strings"
	"testing"
	"time"
)

func TestLeft(t *testing.T) {
	before := Goroutines()
	started, stop, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		waitForStop(started, stop)
	}()
	<-started
	// Other tests may be starting goroutines of their own meanwhile; only this one is of interest.
	mine := func(stacks []string) (n int) {
		for _, s := range stacks {
			if strings.Contains(s, "waitForStop(") {
				n++
			}
		}
		return n
	}
	if got := mine(Left(before, 0)); got != 1 {
		t.Errorf("%d goroutines found, want 1", got)
	}
	close(stop)
	<-stopped
	if got := mine(Left(before, time.Second)); got != 0 {
		t.Errorf("%d goroutines found after its end, want none", got)
	}
}

func waitForStop(started, stop chan struct{}) {
	close(started)
	<-stop
}
