package pitaya

import (
	"time"
)

// NewTimer returns a timer that runs f again and again, each time after
// interval. Timers run while the server runs, each in a goroutine of its own
// that never overlaps with itself. It may be called before and during Run.
func (s *Server) NewTimer(interval time.Duration, f func()) (*Timer, error) {
	return s.timers.every(interval, f)
}

// NewCountTimer is NewTimer for a number of times.
func (s *Server) NewCountTimer(interval time.Duration, count int, f func()) (*Timer, error) {
	return s.timers.count(interval, count, f)
}

// NewAfterTimer returns a timer that runs f once, after d.
func (s *Server) NewAfterTimer(d time.Duration, f func()) (*Timer, error) {
	return s.timers.after(d, f)
}

// NewCondTimer returns a timer that runs f at each tick of the timer precision
// at which the condition holds.
func (s *Server) NewCondTimer(condition Condition, f func()) (*Timer, error) {
	return s.timers.cond(condition, f)
}

// SetTimerPrecision sets how often the conditions of conditional timers are
// checked, at least every millisecond; it is once a second otherwise. All other
// timers are exact. It may be called before and during Run.
func (s *Server) SetTimerPrecision(d time.Duration) error { return s.timers.setPrecision(d) }

// timerOf returns the timer, or in its place one that never runs. The reason is
// a mistake in the set-up, or logged if that is over.
func (s *Server) timerOf(t *Timer, err error) *Timer {
	if err == nil {
		return t
	}
	if s.setUp(func() error { return err }) != err {
		s.log.Error("timer not made", "err", err)
	}
	return s.timers.none()
}
