package load

import (
	"testing"
	"time"
)

// The timer never ends early, and can be used again.
func TestTimerfd(t *testing.T) {
	t.Parallel()
	s := newSleeper()
	if s == nil {
		t.Fatal("no timer")
	}
	defer s.close()
	for _, d := range []time.Duration{-1, 0, 1, 50 * time.Microsecond, 3 * time.Millisecond, time.Microsecond} {
		begin := time.Now()
		s.sleep(d)
		if took := time.Since(begin); took < d {
			t.Errorf("%v took %v", d, took)
		}
	}
	s.close() // then it makes do with another one
	begin := time.Now()
	if s.sleep(time.Millisecond); time.Since(begin) < time.Millisecond {
		t.Error("a timer that is closed ends early")
	}
}
