package pitaya

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// conditionFunc makes a function a Condition.
type conditionFunc func(now time.Time) bool

func (f conditionFunc) Check(now time.Time) bool { return f(now) }

// timerLog records when its record method was called, since it was made. Times are in seconds.
type timerLog struct {
	begin time.Time
	mu    sync.Mutex
	times []float64
}

func newTimerLog() *timerLog { return &timerLog{begin: time.Now()} }

func (l *timerLog) record() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Since(l.begin).Seconds())
}

func (l *timerLog) want(t *testing.T, name string, want ...float64) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.times, want) {
		t.Errorf("%s: called at %v s, want %v s", name, l.times, want)
	}
}

// startedTimers returns timers that run until the test ends, and what they log.
func startedTimers(t *testing.T) (*timers, *bytes.Buffer) {
	var log bytes.Buffer // slog.TextHandler serialises writing; tests read after synctest.Wait
	ts := newTimers(nil, slog.New(slog.NewTextHandler(&log, nil)))
	ts.start()
	t.Cleanup(func() { stopTimers(t, ts) })
	return ts, &log
}

func stopTimers(t *testing.T, ts *timers) {
	t.Helper()
	if err := ts.stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func mustTimer(t *testing.T) func(*Timer, error) *Timer {
	return func(timer *Timer, err error) *Timer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return timer
	}
}

func TestTimerKinds(t *testing.T) {
	tests := []struct {
		name string
		make func(ts *timers, f func()) (*Timer, error)
		want []float64 // seconds until the end at 5.5
	}{
		{"every second", func(ts *timers, f func()) (*Timer, error) { return ts.every(time.Second, f) }, []float64{1, 2, 3, 4, 5}},
		{"every 1.7 seconds", func(ts *timers, f func()) (*Timer, error) { return ts.every(1700*time.Millisecond, f) }, []float64{1.7, 3.4, 5.1}},
		{"three times", func(ts *timers, f func()) (*Timer, error) { return ts.count(time.Second, 3, f) }, []float64{1, 2, 3}},
		{"once counted", func(ts *timers, f func()) (*Timer, error) { return ts.count(time.Second, 1, f) }, []float64{1}},
		{"once", func(ts *timers, f func()) (*Timer, error) { return ts.after(2500*time.Millisecond, f) }, []float64{2.5}},
		{"condition", func(ts *timers, f func()) (*Timer, error) {
			n := 0
			return ts.cond(conditionFunc(func(time.Time) bool { n++; return n%2 == 0 }), f)
		}, []float64{2, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ts, _ := startedTimers(t)
				log := newTimerLog()
				mustTimer(t)(tt.make(ts, log.record))
				time.Sleep(5500 * time.Millisecond)
				log.want(t, "running", tt.want...)
				stopTimers(t, ts)
				time.Sleep(time.Minute)
				log.want(t, "stopped", tt.want...)
			})
		})
		t.Run(tt.name+" made before start", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ts := newTimers(nil, slog.New(slog.DiscardHandler))
				log := newTimerLog()
				mustTimer(t)(tt.make(ts, log.record))
				time.Sleep(time.Minute)
				log.want(t, "before start")
				log.begin = time.Now()
				ts.start()
				ts.start()
				time.Sleep(5500 * time.Millisecond)
				log.want(t, "after start", tt.want...)
				stopTimers(t, ts)
			})
		})
	}
}

func TestTimerErrors(t *testing.T) {
	f := func() {}
	yes := conditionFunc(func(time.Time) bool { return true })
	tests := []struct {
		name string
		make func(ts *timers) (*Timer, error)
		text string
	}{
		{"zero interval", func(ts *timers) (*Timer, error) { return ts.every(0, f) }, "interval"},
		{"negative interval", func(ts *timers) (*Timer, error) { return ts.every(-time.Second, f) }, "interval"},
		{"nil function", func(ts *timers) (*Timer, error) { return ts.every(1, nil) }, "nil timer function"},
		{"counted, zero interval", func(ts *timers) (*Timer, error) { return ts.count(0, 1, f) }, "interval"},
		{"counted, nil function", func(ts *timers) (*Timer, error) { return ts.count(1, 1, nil) }, "nil timer function"},
		{"count of zero", func(ts *timers) (*Timer, error) { return ts.count(1, 0, f) }, "count"},
		{"negative count", func(ts *timers) (*Timer, error) { return ts.count(1, -1, f) }, "count"},
		{"after zero", func(ts *timers) (*Timer, error) { return ts.after(0, f) }, "interval"},
		{"after, nil function", func(ts *timers) (*Timer, error) { return ts.after(1, nil) }, "nil timer function"},
		{"nil condition", func(ts *timers) (*Timer, error) { return ts.cond(nil, f) }, "nil timer condition"},
		{"condition, nil function", func(ts *timers) (*Timer, error) { return ts.cond(yes, nil) }, "nil timer function"},
		{"after stop", func(ts *timers) (*Timer, error) {
			ts.stop(context.Background())
			return ts.every(1, f)
		}, "stopped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ts := newTimers(nil, slog.New(slog.DiscardHandler))
			timer, err := tt.make(ts)
			if err == nil || timer != nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, %v, want an error about %q", timer, err, tt.text)
			}
		})
	}
	ts := newTimers(nil, slog.New(slog.DiscardHandler))
	if err := ts.setPrecision(time.Millisecond - 1); err == nil {
		t.Error("a precision below a millisecond is accepted")
	}
}

// TestTimerStopAtOnce is about Pitaya's timers that come back when they are stopped soon after their creation.
func TestTimerStopAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, _ := startedTimers(t)
		log := newTimerLog()
		ids := make(map[int64]bool)
		for range 200 {
			timer := mustTimer(t)(ts.every(time.Second, log.record))
			ids[timer.ID()] = true
			timer.Stop()
			timer.Stop()
		}
		if len(ids) != 200 {
			t.Errorf("200 timers have %d ids", len(ids))
		}
		time.Sleep(time.Minute)
		log.want(t, "stopped at once")
		if n := len(ts.active); n != 0 {
			t.Errorf("%d stopped timers are still held", n)
		}
	})
}

func TestTimerStopInside(t *testing.T) {
	tests := []struct {
		name string
		make func(ts *timers, stop, f func()) (*Timer, error)
		want []float64
	}{
		{"function", func(ts *timers, stop, f func()) (*Timer, error) {
			return ts.every(time.Second, func() { f(); stop() })
		}, []float64{1}},
		{"condition", func(ts *timers, stop, f func()) (*Timer, error) {
			return ts.cond(conditionFunc(func(time.Time) bool { stop(); return true }), f)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ts := newTimers(nil, slog.New(slog.DiscardHandler))
				log := newTimerLog()
				var timer *Timer
				timer = mustTimer(t)(tt.make(ts, func() { timer.Stop() }, log.record))
				ts.start() // not before the timer is known
				time.Sleep(time.Minute)
				log.want(t, "stopped by itself", tt.want...)
				stopTimers(t, ts)
			})
		})
	}
}

// TestTimerStopRace stops timers at the moment they fire.
func TestTimerStopRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, _ := startedTimers(t)
		for range 100 {
			var calls atomic.Int64
			timer := mustTimer(t)(ts.every(time.Millisecond, func() { calls.Add(1) }))
			time.Sleep(time.Millisecond)
			timer.Stop()
			synctest.Wait() // a call that had begun has ended
			before := calls.Load()
			time.Sleep(time.Second)
			if n := calls.Load() - before; n != 0 {
				t.Fatalf("a stopped timer fired %d times", n)
			}
		}
	})
}

func TestTimerSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, _ := startedTimers(t)
		slow, counted, quick, cond := newTimerLog(), newTimerLog(), newTimerLog(), newTimerLog()
		mustTimer(t)(ts.every(time.Second, func() {
			slow.record()
			time.Sleep(2500 * time.Millisecond)
		}))
		mustTimer(t)(ts.count(time.Second, 2, func() {
			counted.record()
			time.Sleep(1500 * time.Millisecond)
		}))
		mustTimer(t)(ts.every(3*time.Second, quick.record))
		mustTimer(t)(ts.cond(conditionFunc(func(time.Time) bool { return true }), func() {
			cond.record()
			time.Sleep(3500 * time.Millisecond)
		}))
		time.Sleep(9500 * time.Millisecond)
		slow.want(t, "slow", 1, 4, 7)
		counted.want(t, "counted", 1, 3)
		quick.want(t, "quick", 3, 6, 9)
		cond.want(t, "condition", 1, 5, 9)
	})
}

func TestTimerCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, logged := startedTimers(t)
		if err := ts.setPrecision(250 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		log := newTimerLog()
		checks := 0
		mustTimer(t)(ts.cond(conditionFunc(func(now time.Time) bool {
			if !now.Equal(time.Now()) {
				t.Errorf("asked about %v at %v", now, time.Now())
			}
			checks++
			if checks == 3 {
				panic("cannot decide")
			}
			return checks > 2
		}), log.record))
		time.Sleep(time.Second + 100*time.Millisecond)
		log.want(t, "condition", 1)
		if checks != 4 {
			t.Errorf("%d checks, want 4", checks)
		}
		if !strings.Contains(logged.String(), "cannot decide") {
			t.Errorf("the panic is not logged: %q", logged)
		}
	})
}

func TestTimerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, logged := startedTimers(t)
		log := newTimerLog()
		mustTimer(t)(ts.count(time.Second, 2, func() {
			log.record()
			panic("broken timer")
		}))
		mustTimer(t)(ts.count(time.Second, 2, func() {
			log.record()
			runtime.Goexit()
		}))
		time.Sleep(time.Minute)
		log.want(t, "panicking and leaving", 1, 1, 2, 2)
		if got := logged.String(); strings.Count(got, `panic="broken timer"`) != 2 || !strings.Contains(got, "timer_test.go") {
			t.Errorf("want two panics with their stack in the log, got %q", got)
		}
		stopTimers(t, ts)
	})
}

func TestTimersStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, _ := startedTimers(t)
		log := newTimerLog()
		mustTimer(t)(ts.every(time.Second, func() {
			time.Sleep(10 * time.Second)
			log.record()
		}))
		time.Sleep(1500 * time.Millisecond)

		cause := errors.New("out of patience")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := ts.stop(ctx); !errors.Is(err, cause) {
			t.Errorf("stop with a context that ends: got %v", err)
		}
		log.want(t, "at the end of the context")
		stopTimers(t, ts)
		log.want(t, "after stop", 11)
		stopTimers(t, ts)
	})
}

// TestTimersRun checks that calls go through run, and that one which run leaves out is no obstacle.
func TestTimersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newTimerLog()
		n := 0
		ts := newTimers(func(f func()) {
			if n++; n != 2 {
				f()
			}
		}, slog.New(slog.DiscardHandler))
		ts.start()
		mustTimer(t)(ts.every(time.Second, log.record))
		time.Sleep(3500 * time.Millisecond)
		log.want(t, "run", 1, 3)
		stopTimers(t, ts)
	})
}

// TestTimersConcurrent lets the race detector look at everything at once.
func TestTimersConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTimers(nil, slog.New(slog.DiscardHandler))
		var calls atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					timer, err := ts.every(time.Millisecond, func() { calls.Add(1) })
					if err != nil {
						return // stopped
					}
					time.Sleep(2 * time.Millisecond)
					timer.Stop()
				}
			})
		}
		wg.Go(ts.start)
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond)
			if err := ts.stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		synctest.Wait()
		if n := calls.Load(); n == 0 {
			t.Error("no timer ran")
		}
		if len(ts.active) != 0 || ts.running != 0 {
			t.Errorf("%d timers and %d calls are left", len(ts.active), ts.running)
		}
	})
}
