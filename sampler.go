package pitaya

import (
	"sync"
	"time"
)

// sampleInterval is the least time between two log records of one kind that
// clients can cause at will, or that each message may cause.
const sampleInterval = time.Second

// sampler lets one event pass in each interval and counts the others. Its zero
// value is ready.
type sampler struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

// pass reports whether the event should be logged, and how many have not been
// since the last one that was.
func (s *sampler) pass() (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < sampleInterval {
		s.skipped++
		return 0, false
	}
	skipped, s.skipped, s.last = s.skipped, 0, now
	return skipped, true
}
