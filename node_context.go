package pitaya

import (
	"context"
	"sync"
	"time"
)

// incomingContext is the context of a call from another server. It does what a
// context with a deadline does, and costs no more than a timer until somebody
// wants to be told of its end: most handlers never do.
type incomingContext struct {
	// Immutable after begin.
	deadline time.Time // zero: none
	timer    *time.Timer
	unlink   func() bool // stops watching the transport's context; may be nil
	expired  func()      // called when the deadline passes, in a goroutine of its own

	mu    sync.Mutex // guards the fields below
	err   error
	done  chan struct{}           // made when it is asked for
	after map[*afterIncoming]bool // to be called at the end
}

// afterIncoming is one function registered by AfterFunc.
type afterIncoming struct{ f func() }

// begin starts the context. parent is that of the transport; limit is how long
// the caller waits, 0 if it does not say.
func (c *incomingContext) begin(parent context.Context, limit time.Duration, expired func()) {
	c.expired = expired
	if d, ok := parent.Deadline(); ok {
		c.deadline = d
	}
	if limit > 0 {
		if d := time.Now().Add(limit); c.deadline.IsZero() || d.Before(c.deadline) {
			c.deadline = d
		}
	}
	if !c.deadline.IsZero() {
		c.mu.Lock() // the timer may fire at once
		c.timer = time.AfterFunc(time.Until(c.deadline), func() {
			if c.end(context.DeadlineExceeded) {
				c.expired()
			}
		})
		c.mu.Unlock()
	}
	if parent.Done() != nil {
		unlink := context.AfterFunc(parent, func() { c.end(parent.Err()) })
		c.mu.Lock()
		c.unlink = unlink
		c.mu.Unlock()
	}
}

// end ends the context, once.
func (c *incomingContext) end(err error) bool {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return false
	}
	c.err = err
	timer, unlink, after := c.timer, c.unlink, c.after
	c.after = nil
	if c.done != nil {
		close(c.done)
	}
	c.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if unlink != nil {
		unlink()
	}
	for a := range after {
		go a.f()
	}
	return true
}

// Deadline implements context.Context.
func (c *incomingContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *incomingContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements context.Context.
func (c *incomingContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements context.Context. Nothing travels with a call but what its
// metadata says.
func (c *incomingContext) Value(any) any { return nil }

// AfterFunc lets package context derive from this one without a goroutine.
func (c *incomingContext) AfterFunc(f func()) (stop func() bool) {
	a := &afterIncoming{f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*afterIncoming]bool)
	}
	c.after[a] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		waiting := c.after[a]
		delete(c.after, a)
		return waiting
	}
}
