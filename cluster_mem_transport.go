package pitaya

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// memTransport is the Transport of a node.
type memTransport memNode

// memCall is a call under way.
type memCall struct {
	done     func(response []byte, err error) // called by whoever takes the call out of pending
	stop     func() bool                      // releases the context
	end      context.CancelFunc               // ends the context of the handler
	deadline time.Time                        // of the caller; zero: none
}

// late reports whether an answer comes too late. In a bubble the deadline and
// what a handler does at that moment would else be a matter of luck.
func (c *memCall) late() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

// Listen implements Transport.
func (t *memTransport) Listen(ctx context.Context, self *ServerInfo, h TransportHandler) error {
	c := t.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := (*memNode)(t).enterLocked(self); err != nil {
		return err
	}
	t.handler = h
	return nil
}

// findsUsers implements userFinder.
func (t *memTransport) findsUsers() bool { return true }

// Ordered implements Transport.
func (t *memTransport) Ordered() bool { return true }

// reachLocked returns the node with the given id, nil if it cannot be reached.
func (n *memNode) reachLocked(id string) *memNode {
	c := n.cluster
	to := c.nodes[id]
	if to == nil || to.dead || n.dead || to.handler == nil || to.closed || n.self != nil && c.cut[memPair(n.self.ID, id)] {
		return nil
	}
	return to
}

// Call implements Transport.
func (t *memTransport) Call(ctx context.Context, to *ServerInfo, body []byte, done func(response []byte, err error)) {
	n := (*memNode)(t)
	c := n.cluster
	fail := func(err error) {
		if done != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			n.failed.addLocked(&c.mu, 0, func() { done(nil, err) })
		}
	}
	if ctx.Err() != nil {
		err := context.Cause(ctx)
		if ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("%w: %s", ErrNoAnswer, to.ID)
		}
		fail(err)
		return
	}
	if len(body) > memMaxBody {
		fail(fmt.Errorf("pitaya: call of %d bytes, at most %d are carried", len(body), memMaxBody))
		return
	}
	c.mu.Lock()
	target := n.reachLocked(to.ID)
	if target == nil || n.closed {
		c.mu.Unlock()
		fail(fmt.Errorf("%w: %s", ErrUnreachable, to.ID))
		return
	}
	defer c.mu.Unlock()
	if done == nil && ctx.Err() != nil {
		return
	}
	call := &memCall{done: done}
	handling := context.Background() // without the values, as on a network
	if deadline, ok := ctx.Deadline(); ok {
		call.deadline = deadline
		handling, call.end = context.WithDeadline(handling, deadline)
	} else {
		handling, call.end = context.WithCancel(handling)
	}
	if done != nil {
		n.pending[call] = true
		// Set under the lock: whoever finishes the call reads it.
		call.stop = context.AfterFunc(ctx, func() {
			err := context.Cause(ctx)
			if ctx.Err() == context.DeadlineExceeded {
				err = fmt.Errorf("%w: %s", ErrNoAnswer, to.ID)
			}
			n.finish(call, nil, err)
		})
	}
	body = append([]byte{}, body...) // never nil, as on a network
	h := target.handler
	target.inbox.addLocked(&c.mu, c.delay, func() {
		var once sync.Once
		if !c.alive(target) {
			return
		}
		h.HandleCall(handling, body, func(response []byte) {
			once.Do(func() { n.answered(target, call, response) })
		})
	})
}

// alive reports whether a node has not been killed.
func (c *MemCluster) alive(n *memNode) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !n.dead
}

// answered takes an answer on its way back.
func (n *memNode) answered(from *memNode, call *memCall, response []byte) {
	call.end()
	if response == nil || call.done == nil {
		return
	}
	c := n.cluster
	var err error
	if len(response) > memMaxBody {
		err = fmt.Errorf("pitaya: answer of %d bytes, at most %d are carried", len(response), memMaxBody)
		response = nil
	}
	response = slices.Clone(response)
	c.mu.Lock()
	defer c.mu.Unlock()
	if from.dead || n.dead || c.cut[memPair(n.self.ID, from.self.ID)] {
		return // the caller's deadline will tell
	}
	n.inbox.addLocked(&c.mu, c.delay, func() {
		if !call.late() { // or the caller's deadline tells
			n.finish(call, response, err)
		}
	})
}

// finish ends a call, once.
func (n *memNode) finish(call *memCall, response []byte, err error) {
	n.cluster.mu.Lock()
	waiting := n.pending[call]
	delete(n.pending, call)
	n.cluster.mu.Unlock()
	if waiting {
		call.stop()
		call.end()
		call.done(response, err)
	}
}

// fail ends all calls of a node.
func (n *memNode) fail(err error) {
	n.cluster.mu.Lock()
	calls := slices.Collect(maps.Keys(n.pending))
	n.cluster.mu.Unlock()
	for _, call := range calls {
		n.finish(call, nil, err)
	}
}

// Notify implements Transport.
func (t *memTransport) Notify(ctx context.Context, notice *Notice) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := (*memNode)(t)
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.dead || n.closed {
		return ErrUnreachable
	}
	copied := *notice
	copied.Body = slices.Clone(notice.Body)
	for id, other := range c.nodes {
		if other.self.Type != notice.FrontendType || notice.Kind != NoticeBind && !other.users[notice.UID] {
			continue
		}
		if target := n.reachLocked(id); target != nil {
			h := target.handler
			target.inbox.addLocked(&c.mu, c.delay, func() {
				if c.alive(target) {
					h.HandleNotice(&copied, nil)
				}
			})
		}
	}
	return nil
}

// Bind implements Transport.
func (t *memTransport) Bind(ctx context.Context, uid string) error {
	if err := checkUID(uid, memMaxUID); err != nil {
		return err
	}
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	if t.closed {
		return ErrUnreachable
	}
	t.users[uid] = true
	return nil
}

// Unbind implements Transport.
func (t *memTransport) Unbind(ctx context.Context, uid string) error {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	delete(t.users, uid)
	return nil
}

// ServerSeen implements Transport.
func (t *memTransport) ServerSeen(*ServerInfo) {}

// ServerGone implements Transport.
func (t *memTransport) ServerGone(*ServerInfo) {}

// Healthy implements Transport.
func (t *memTransport) Healthy() error {
	t.cluster.mu.Lock()
	defer t.cluster.mu.Unlock()
	if t.dead || t.handler == nil {
		return ErrUnreachable
	}
	return nil
}

// Drain implements Transport.
func (t *memTransport) Drain(ctx context.Context) error {
	c := t.cluster
	c.mu.Lock()
	t.handler = nil
	c.mu.Unlock()
	return t.inbox.wait(ctx, &c.mu)
}

// Close implements Transport.
func (t *memTransport) Close(ctx context.Context) error {
	n := (*memNode)(t)
	c := n.cluster
	c.mu.Lock()
	n.closed, n.handler = true, nil
	n.forgetLocked()
	c.mu.Unlock()
	n.fail(ErrUnreachable)
	return errors.Join(n.inbox.wait(ctx, &c.mu), n.failed.wait(ctx, &c.mu))
}

// memQueue runs functions one at a time, in order, each not before its time. It
// has a goroutine while there is something to run.
type memQueue struct {
	list    []memTask
	running bool
	idle    chan struct{} // closed when the list is empty; nil if nobody waits
}

type memTask struct {
	due time.Time // zero: at once
	f   func()
}

// addLocked adds a function. mu is the lock that is held.
func (q *memQueue) addLocked(mu *sync.Mutex, delay time.Duration, f func()) {
	t := memTask{f: f}
	if delay > 0 {
		t.due = time.Now().Add(delay)
	}
	q.list = append(q.list, t)
	if !q.running {
		q.running = true
		go q.run(mu)
	}
}

func (q *memQueue) run(mu *sync.Mutex) {
	for {
		mu.Lock()
		if len(q.list) == 0 {
			q.running, q.list = false, nil
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			mu.Unlock()
			return
		}
		t := q.list[0]
		q.list = q.list[1:]
		mu.Unlock()
		if !t.due.IsZero() {
			timer := time.NewTimer(time.Until(t.due))
			<-timer.C
		}
		t.f()
	}
}

// wait returns when everything that was added has run.
func (q *memQueue) wait(ctx context.Context, mu *sync.Mutex) error {
	mu.Lock()
	if !q.running {
		mu.Unlock()
		return nil
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
