//go:build !nocluster

package pitaya

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// natsCalls are the calls that wait for their answers. Each has a token, the
// last part of the subject that its answer comes to. Who takes a call out by
// its token, under mu, is the one who calls done: that is what makes it exactly
// once, whatever answers, deadlines, cancellations and lost connections do at
// the same time.
//
// Deadlines are a heap that one timer looks after. The timer is set when it
// fires, or for a deadline before the one it is set for: an answered call
// leaves it as it is, so a call usually costs no operation on it.
type natsCalls struct {
	start   time.Time     // what deadlines are counted from
	wake    chan struct{} // has room for one: run has something to do
	stopped chan struct{} // closed by run when it ends
	late    func()        // called by run when a deadline has passed; may be nil

	mu      sync.Mutex // guards the fields below; never held while done is called
	token   uint64     // of the newest call
	waiting map[uint64]*natsCall
	due     natsHeap
	armed   time.Duration // when run looks at the heap again, unless woken
	failed  []natsFailure // taken out already, for run to report
	closed  error         // why there are no more calls; nil while there are
}

// A natsCall is one of them.
type natsCall struct {
	// Immutable once the call waits.
	token uint64
	due   time.Duration
	to    *ServerInfo
	done  func(response []byte, err error)
	stop  func() bool // ends the watch of the context; nil if there is none

	index int // in the heap; guarded by natsCalls.mu
}

// A natsFailure is a call that ended without an answer.
type natsFailure struct {
	call *natsCall
	err  error
}

// natsNever is the deadline of a heap without calls.
const natsNever = time.Duration(math.MaxInt64)

func newNATSCalls() *natsCalls {
	return &natsCalls{
		start:   time.Now(),
		wake:    make(chan struct{}, 1),
		stopped: make(chan struct{}),
		waiting: make(map[uint64]*natsCall),
		armed:   natsNever,
	}
}

// add makes a call wait and returns its token. An error means that done will
// not be called.
func (p *natsCalls) add(ctx context.Context, limit time.Duration, to *ServerInfo, done func([]byte, error)) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, natsContextError(ctx, to)
	}
	now := time.Since(p.start)
	c := &natsCall{due: now + limit, to: to, done: done}
	if deadline, ok := ctx.Deadline(); ok {
		c.due = deadline.Sub(p.start)
	}
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		return 0, p.closed
	}
	p.token++
	c.token = p.token
	p.mu.Unlock()

	// Watched before the call can be found, so that whoever takes it sees stop.
	if ctx.Done() != nil {
		token := c.token
		c.stop = context.AfterFunc(ctx, func() { p.fail(token, natsContextError(ctx, to)) })
	}
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		c.unwatch()
		return 0, p.closed
	}
	p.waiting[c.token] = c
	p.due.push(c)
	sooner := c.due < p.armed
	if sooner {
		p.armed = c.due
	}
	p.mu.Unlock()
	if sooner {
		p.kick()
	}
	if ctx.Err() != nil {
		p.fail(c.token, natsContextError(ctx, to)) // the watch may have looked too early
	}
	return c.token, nil
}

// take takes a call out; nil means that somebody else did.
func (p *natsCalls) take(token uint64) *natsCall {
	p.mu.Lock()
	c := p.takeLocked(token)
	p.mu.Unlock()
	if c != nil {
		c.unwatch()
	}
	return c
}

func (p *natsCalls) takeLocked(token uint64) *natsCall {
	c := p.waiting[token]
	if c != nil {
		delete(p.waiting, token)
		p.due.remove(c.index)
	}
	return c
}

// fail ends a call with an error, unless it has ended. done is called by run.
func (p *natsCalls) fail(token uint64, err error) {
	p.mu.Lock()
	c := p.takeLocked(token)
	if c != nil {
		p.failed = append(p.failed, natsFailure{c, err})
	}
	p.mu.Unlock()
	if c != nil {
		p.kick()
	}
}

// failAll ends all calls with an error.
func (p *natsCalls) failAll(err error) {
	p.mu.Lock()
	p.failAllLocked(err)
	p.mu.Unlock()
	p.kick()
}

func (p *natsCalls) failAllLocked(err error) {
	for _, c := range p.due {
		p.failed = append(p.failed, natsFailure{c, err})
	}
	clear(p.waiting)
	p.due = nil
}

// refuse ends all calls, and run; there are no more from here on.
func (p *natsCalls) refuse(err error) {
	p.mu.Lock()
	if p.closed == nil {
		p.closed = err
		p.failAllLocked(err)
	}
	p.mu.Unlock()
	p.kick()
}

// close is refuse, and waits for the end of run.
func (p *natsCalls) close(err error) {
	p.refuse(err)
	<-p.stopped
}

func (p *natsCalls) kick() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run reports the calls that end without an answer, until close.
func (p *natsCalls) run() {
	defer close(p.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed []natsFailure
	for {
		p.mu.Lock()
		failed, p.failed = append(failed[:0], p.failed...), p.failed[:0]
		clear(p.failed[:cap(p.failed)]) // what has ended is not to be kept alive
		told := len(failed)
		now := time.Since(p.start)
		for len(p.due) > 0 && p.due[0].due <= now {
			c := p.takeLocked(p.due[0].token)
			failed = append(failed, natsFailure{c, fmt.Errorf("%w from %s %s", ErrNoAnswer, c.to.Type, c.to.ID)})
		}
		p.armed = natsNever
		if len(p.due) > 0 {
			p.armed = p.due[0].due
			timer.Reset(p.armed - now)
		}
		closed := p.closed != nil
		p.mu.Unlock()

		if len(failed) > told && p.late != nil {
			p.late()
		}
		for _, f := range failed {
			f.call.unwatch()
			f.call.done(nil, f.err)
		}
		clear(failed)
		if closed {
			return
		}
		select {
		case <-p.wake:
		case <-timer.C:
		}
	}
}

func (c *natsCall) unwatch() {
	if c.stop != nil {
		c.stop()
	}
}

// refuseCall reports a call that could not be made. done is called by run, or by
// a goroutine of its own when there is no run any more: who calls after Close
// waits for the answer to that himself.
func (p *natsCalls) refuseCall(to *ServerInfo, done func([]byte, error), err error) {
	p.mu.Lock()
	closed := p.closed != nil
	if !closed {
		p.failed = append(p.failed, natsFailure{&natsCall{to: to, done: done}, err})
	}
	p.mu.Unlock()
	if closed {
		go done(nil, err)
		return
	}
	p.kick()
}

// natsContextError says why a context ends a call.
func natsContextError(ctx context.Context, to *ServerInfo) error {
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("%w from %s %s", ErrNoAnswer, to.Type, to.ID)
	}
	return fmt.Errorf("pitaya: call to %s %s given up: %w", to.Type, to.ID, context.Cause(ctx))
}

// natsHeap is a binary heap of calls, the earliest deadline first. Calls know
// their places in it.
type natsHeap []*natsCall

func (h *natsHeap) push(c *natsCall) {
	c.index = len(*h)
	*h = append(*h, c)
	h.up(c.index)
}

// remove takes the call at place i out.
func (h *natsHeap) remove(i int) {
	last := len(*h) - 1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h natsHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].due <= h[i].due {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h natsHeap) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if right := child + 1; right < len(h) && h[right].due < h[child].due {
			child = right
		}
		if h[i].due <= h[child].due {
			return
		}
		h.swap(i, child)
		i = child
	}
}

func (h natsHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
