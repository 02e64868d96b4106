package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// A Condition decides when a conditional [Timer] runs.
type Condition interface {
	// Check tells whether the timer's function is to run now. It is called once per tick of the timer precision
	// (one second by default) and never while an earlier Check or the function of the same timer is running.
	// A panic in it is logged and counts as no.
	Check(now time.Time) bool
}

// A Timer calls a function at intervals, a number of times, once, or when a [Condition] holds. It runs while its server
// runs: the first interval begins when the timer is made or when the server starts, whichever is later, and nothing is
// called once the server has stopped.
//
// Each call has a goroutine of its own, so a slow function delays no other timer. It never overlaps with itself either:
// where it takes longer than the interval, the calls that fall into that time are left out, and do not count. A panic
// in the function is logged, and the timer goes on.
type Timer struct {
	// Immutable.
	id       int64
	owner    *timers
	interval time.Duration // zero: the precision at each tick
	cond     Condition     // nil: always
	f        func()

	// Guarded by owner.mu.
	left    int         // calls still to make; negative: no end
	clock   *time.Timer // nil until armed for the first time
	next    time.Time   // when the next call is due; all calls are whole intervals apart
	stopped bool        // nothing begins from now on
}

// ID identifies the timer among those of its server.
func (t *Timer) ID() int64 { return t.id }

// Stop ends the timer for good. No call begins any more once Stop has returned; one that has begun goes on, and is not
// waited for. It may be called from anywhere, also from the timer's own function, and more than once.
func (t *Timer) Stop() {
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	t.stopLocked()
}

func (t *Timer) stopLocked() {
	t.stopped = true
	if t.clock != nil {
		t.clock.Stop()
	}
	delete(t.owner.active, t)
}

// timerPrecision is how often conditional timers look at their condition unless told otherwise.
const timerPrecision = time.Second

// timers holds the timers of one server. Each rests on a [time.Timer] of the runtime, so there is no goroutine while none
// is due, and no tick that all of them wait for.
type timers struct {
	// Immutable.
	run    func(f func())
	logger *slog.Logger

	mu        sync.Mutex // guards the fields below and those of the timers; never held across a callback
	precision time.Duration
	lastID    int64
	active    map[*Timer]struct{} // those not stopped
	started   bool
	stopped   bool
	running   int           // calls that have begun and not ended
	idle      chan struct{} // closed when stopped and running is zero
}

// newTimers returns timers that rest until start. Each call of a timer function goes through run, which must have called
// its argument, or decided not to, when it returns; nil means to call it at once. Panics of timer functions are logged.
func newTimers(run func(f func()), logger *slog.Logger) *timers {
	if run == nil {
		run = func(f func()) { f() }
	}
	return &timers{
		run:       run,
		logger:    logger,
		precision: timerPrecision,
		active:    make(map[*Timer]struct{}),
		idle:      make(chan struct{}),
	}
}

// setPrecision sets how often conditions are checked, at least every millisecond. It holds from the next check of each
// timer on.
func (ts *timers) setPrecision(d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("pitaya: timer precision %v is below 1ms", d)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.precision = d
	return nil
}

// every makes a timer that calls f after each interval.
func (ts *timers) every(interval time.Duration, f func()) (*Timer, error) {
	return ts.add(interval, -1, f)
}

// count makes a timer that calls f after each of n intervals.
func (ts *timers) count(interval time.Duration, n int, f func()) (*Timer, error) {
	if n <= 0 {
		return nil, fmt.Errorf("pitaya: timer count %d is not positive", n)
	}
	return ts.add(interval, n, f)
}

// after makes a timer that calls f once, after d.
func (ts *timers) after(d time.Duration, f func()) (*Timer, error) {
	return ts.add(d, 1, f)
}

func (ts *timers) add(interval time.Duration, n int, f func()) (*Timer, error) {
	if interval <= 0 {
		return nil, fmt.Errorf("pitaya: timer interval %v is not positive", interval)
	}
	return ts.register(&Timer{owner: ts, interval: interval, left: n, f: f})
}

// cond makes a timer that asks c at each tick of the precision and calls f whenever it says yes.
func (ts *timers) cond(c Condition, f func()) (*Timer, error) {
	if c == nil {
		return nil, errors.New("pitaya: nil timer condition")
	}
	return ts.register(&Timer{owner: ts, left: -1, cond: c, f: f})
}

func (ts *timers) register(t *Timer) (*Timer, error) {
	if t.f == nil {
		return nil, errors.New("pitaya: nil timer function")
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.stopped {
		return nil, errors.New("pitaya: timers have stopped")
	}
	ts.lastID++
	t.id = ts.lastID
	ts.active[t] = struct{}{}
	if ts.started {
		t.next = time.Now()
		t.armLocked()
	}
	return t, nil
}

// start lets the timers run, once.
func (ts *timers) start() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.started || ts.stopped {
		return
	}
	ts.started = true
	now := time.Now()
	for t := range ts.active {
		t.next = now
		t.armLocked()
	}
}

// stop ends all timers for good and waits for the calls that have begun, until ctx ends. It must not be called from a timer
// function, which would wait for itself.
func (ts *timers) stop(ctx context.Context) error {
	ts.mu.Lock()
	if !ts.stopped {
		ts.stopped = true
		for t := range ts.active {
			t.stopLocked()
		}
		if ts.running == 0 {
			close(ts.idle)
		}
	}
	running := ts.running
	ts.mu.Unlock()

	if running == 0 {
		return nil
	}
	select {
	case <-ts.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pitaya: timer functions are still running: %w", context.Cause(ctx))
	}
}

// armLocked moves next to the first due time after now and sets the clock.
func (t *Timer) armLocked() {
	interval := t.interval
	if t.cond != nil {
		interval = t.owner.precision
	}
	now := time.Now()
	t.next = t.next.Add(interval)
	if late := now.Sub(t.next); late > 0 {
		t.next = t.next.Add(late.Truncate(interval) + interval)
	}
	if t.clock == nil {
		t.clock = time.AfterFunc(t.next.Sub(now), t.fire)
	} else {
		t.clock.Reset(t.next.Sub(now))
	}
}

// fire is what the clock calls, in a new goroutine. The clock is set again only after the call has ended, which is why
// a timer cannot overlap with itself.
func (t *Timer) fire() {
	ts := t.owner
	ts.mu.Lock()
	if t.stopped { // after the clock had fired
		ts.mu.Unlock()
		return
	}
	ts.running++
	ts.mu.Unlock()

	// Deferred, so that a function that ends its goroutine does not hang stop.
	defer func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if t.left == 0 {
			t.stopLocked()
		}
		if !t.stopped {
			t.armLocked()
		}
		ts.running--
		if ts.stopped && ts.running == 0 {
			close(ts.idle)
		}
	}()
	if t.cond != nil && !t.holds() {
		return
	}
	if !t.begin() {
		return
	}
	ts.run(func() {
		defer t.recovered()
		t.f()
	})
}

// begin counts a call, unless the timer was stopped while its condition was checked.
func (t *Timer) begin() bool {
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	if t.stopped {
		return false
	}
	if t.left > 0 {
		t.left--
	}
	return true
}

func (t *Timer) holds() (ok bool) {
	defer t.recovered()
	return t.cond.Check(time.Now())
}

// recovered, deferred, keeps a panic of user code from ending the process.
func (t *Timer) recovered() {
	if v := recover(); v != nil {
		t.owner.logger.Error("timer panicked", "timer", t.id, "panic", v, "stack", string(debug.Stack()))
	}
}
