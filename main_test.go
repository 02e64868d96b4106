package pitaya_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the files that tests compare with, instead of comparing")

// TestMain fails a run that passed but left goroutines behind: what a test starts has to end with it.
func TestMain(m *testing.M) {
	flag.Parse()
	if *outageChild != "" {
		if err := runOutageChild(*outageChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if *benchChild != "" {
		if err := runBenchChild(*benchChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if *workerChild != "" {
		if err := runWorkerChild(*workerChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	before := goroutines()
	code := m.Run()
	if code == 0 {
		if left := leakedGoroutines(before, 5*time.Second); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "goroutines left after the tests: %d\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// leakedGoroutines returns the stacks of goroutines that were not there before and do not end within the time given.
// A goroutine that has been told to end may need a moment to do so, hence the wait.
func leakedGoroutines(before map[string]string, wait time.Duration) []string {
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var left []string
		for id, stack := range goroutines() {
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

// goroutines returns the stacks of all goroutines but the caller's, by their id.
func goroutines() map[string]string {
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

func TestLeakedGoroutines(t *testing.T) {
	before := goroutines()
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
	if got := mine(leakedGoroutines(before, 0)); got != 1 {
		t.Errorf("%d goroutines found, want 1", got)
	}
	close(stop)
	<-stopped
	if got := mine(leakedGoroutines(before, time.Second)); got != 0 {
		t.Errorf("%d goroutines found after its end, want none", got)
	}
}

func waitForStop(started, stop chan struct{}) {
	close(started)
	<-stop
}
