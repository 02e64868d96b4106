package load

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// A sleeper waits, as precisely as it can. It is for one goroutine.
type sleeper interface {
	sleep(d time.Duration)
	close()
}

// timerSleeper is a sleeper that works everywhere. The timers of the runtime can be a millisecond late when a process
// rests.
type timerSleeper struct{}

func (timerSleeper) sleep(d time.Duration) { <-time.After(d) }
func (timerSleeper) close()                {}

// pace keeps the schedule of an open load: what is due is sent, whatever became of that before. What cannot be sent, since
// too much waits, is an error and not put off.
func (r *run) pace(life context.Context) {
	var s sleeper = timerSleeper{}
	if r.cfg.Dial == nil {
		if precise := newSleeper(); precise != nil {
			s = precise
		}
	}
	defer s.close()
	if r.arrivals != nil {
		defer close(r.arrivals)
	}
	defer func() {
		r.exhausted.Store(true)
		r.pacing.Store(false)
		r.wakeAll()
	}()
	gap := float64(time.Second) / r.cfg.Rate
	next := float64(r.now())
	for turn := 0; life.Err() == nil; turn++ {
		now := r.now()
		for float64(now) < next {
			if r.stopped(now) || life.Err() != nil {
				return
			}
			// Not for long at once: the run may stop.
			s.sleep(min(time.Duration(math.Ceil(next-float64(now))), 100*time.Millisecond))
			now = r.now()
		}
		at := int64(next)
		if r.stopped(at) || !r.spend() {
			return
		}
		if r.arrivals != nil {
			select {
			case r.arrivals <- at:
			default:
				r.unsent(turn, at)
			}
		} else if c := r.pick(turn); c == nil && r.untried.Load() > 0 {
			r.refund() // it is yet to be opened: the load grows with the connections
		} else if c == nil || !c.schedule(at, now) {
			r.unsent(turn, at)
		}
		if r.cfg.Poisson {
			next += rand.ExpFloat64() * gap
		} else {
			next += gap
		}
	}
}

// pick returns the connection whose turn it is, nil if that is not connected. Of arrivals that are independent of each
// other, those that fall to one connection are too.
func (r *run) pick(turn int) *client {
	if r.cfg.Poisson {
		turn = rand.IntN(len(r.slots))
	}
	return r.slots[turn%len(r.slots)].Load()
}

// schedule sends what was to be sent at a time. It reports whether that was possible.
func (c *client) schedule(at, now int64) bool {
	c.shard.mu.Lock()
	c.mu.Lock()
	ok := !c.parting && c.run.load.arrive(c, at, now)
	c.mu.Unlock()
	c.shard.mu.Unlock()
	if ok && !c.writeNow(now) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return ok
}

// unsent counts what could not be sent.
func (r *run) unsent(turn int, at int64) {
	s := r.rec.shards[turn%len(r.rec.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(errUnsent, "", 1)
	if r.rec.measured(at) {
		s.failed++
	}
}
