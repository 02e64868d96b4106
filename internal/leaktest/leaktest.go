// Package leaktest finds the goroutines that tests leave behind: what a test starts has to end with it.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Run runs the tests and returns the code to exit with. It fails a run that passed but left goroutines behind.
func Run(m *testing.M) (code int) {
	before := Goroutines()
	if code = m.Run(); code != 0 {
		return code
	}
	if left := Left(before, 5*time.Second); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines left after the tests: %d\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		return 1
	}
	return 0
}

// Left returns the stacks of goroutines that are not among those of before, which [Goroutines] has returned, and do not end
// within the time given.
// A goroutine that has been told to end may need a moment to do so, hence the wait.
func Left(before map[string]string, wait time.Duration) []string {
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var left []string
		for id, stack := range Goroutines() {
			if _, old := before[id]; !old && !innocent(stack) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			slices.Sort(left)
			return left
		}
		<-tick.C
	}
}

// innocent reports whether a goroutine is one that serves the process as a whole.
func innocent(stack string) bool {
	for _, f := range []string{
		"runtime.ensureSigM",     // started by the first signal.Notify, for good
		"os/signal.signal_recv(", // the same
		"os/signal.loop(",        // the same, where signals are not the runtime's
	} {
		if strings.Contains(stack, f) {
			return true
		}
	}
	return false
}

// Goroutines returns the stacks of all goroutines but the caller's, by their id. The runtime never gives an id again.
func Goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for i, stack := range strings.Split(strings.TrimSpace(string(buf)), "\n\n") {
		if i == 0 {
			continue // the caller comes first
		}
		// "goroutine 17 [chan receive]:" and then the frames.
		if id, _, ok := strings.Cut(stack, " ["); ok {
			stacks[id] = stack
		}
	}
	return stacks
}
