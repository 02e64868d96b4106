package load

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"

	"github.com/pitaya-go/pitaya"
)

// A scenario is what lean clients do. Except for prepare, its methods are called with the locks of the client and its
// shard held, and more, arrive and done append what is to be sent to c.out.
type scenario interface {
	// prepare is called after the handshake, before the client counts as connected.
	prepare(ctx context.Context, c *client) error
	// more is called after each batch of packets once the scenario has begun, and at deadlines.
	more(c *client, now int64)
	// arrive sends what the schedule of an open load has for this time. It reports whether there was room.
	arrive(c *client, at, now int64) bool
	// answered is called for each answer that a request still waited for.
	answered(c *client, now, at int64, m *pitaya.Message)
	pushed(c *client, now int64, m *pitaya.Message)
	// done is called when the run has stopped and nothing waits. It reports whether the connection may end.
	done(c *client) bool
	// left is called, without locks, when a prepared connection has ended.
	left(c *client)
}

// result counts one operation, or n that were sent together.
func (c *client) result(now, at int64, n uint64, failed bool) {
	switch {
	case !c.run.rec.measured(at):
	case failed:
		c.shard.failed += int64(n)
	default:
		c.shard.lat.AddN(c.run.since(now, at), n)
	}
}

// resting is the part of a scenario that does nothing.
type resting struct{}

func (resting) prepare(context.Context, *client) error          { return nil }
func (resting) more(*client, int64)                             {}
func (resting) arrive(*client, int64, int64) bool               { return false }
func (resting) answered(*client, int64, int64, *pitaya.Message) {}
func (resting) pushed(*client, int64, *pitaya.Message)          {}
func (resting) done(*client) bool                               { return true }
func (resting) left(*client)                                    {}

// echoLoad makes requests.
type echoLoad struct {
	resting
	run *run
}

func (l *echoLoad) prepare(_ context.Context, c *client) error {
	return c.template(pitaya.MessageRequest, l.run.cfg.Route, l.run.cfg.Body)
}

func (l *echoLoad) more(c *client, now int64) {
	if c.wake != nil {
		return
	}
	for c.pend.open < l.run.cfg.InFlight && !c.parting && !l.run.stopped(now) && l.run.spend() {
		if !l.arrive(c, now, now) {
			l.run.refund()
			return
		}
	}
}

func (l *echoLoad) arrive(c *client, at, now int64) bool {
	if !c.request(c.tmpl, at) {
		return false
	}
	c.shard.counts.Requests++
	return true
}

func (l *echoLoad) answered(c *client, now, at int64, m *pitaya.Message) {
	failed := m.Err
	if !failed && l.run.cfg.Check {
		if m.Inflate(0) != nil || !bytes.Equal(m.Payload, l.run.cfg.Body) {
			failed = true
			c.shard.fail(errMismatch, "", 1)
		}
	}
	c.result(now, at, 1, failed)
}

// notifyLoad sends notifies. In a closed load each batch is followed by a request, whose answer says that the batch has
// been handled, since a server handles the messages of a client in order. In an open load one request comes at the end.
type notifyLoad struct {
	resting
	run *run
}

func (l *notifyLoad) prepare(_ context.Context, c *client) error {
	if err := c.template(pitaya.MessageNotify, l.run.cfg.Route, l.run.cfg.Body); err != nil {
		return err
	}
	c.sync = newTemplate(pitaya.MessageRequest, l.run.cfg.Sync, []byte("{}"), c.srv.dict)
	return c.sync.err
}

func (l *notifyLoad) more(c *client, now int64) {
	if c.wake != nil || c.pend.open > 0 || c.parting {
		return
	}
	c.batch = 0
	for c.batch < l.run.cfg.InFlight && !l.run.stopped(now) && l.run.spend() {
		c.out = c.tmpl.append(c.out, 0)
		c.batch++
	}
	if c.batch > 0 {
		c.shard.counts.Notifies += int64(c.batch)
		l.confirm(c, now)
	}
}

// confirm asks for an answer behind the notifies. Nothing waits, so there is room.
func (l *notifyLoad) confirm(c *client, now int64) {
	c.request(c.sync, now)
	c.shard.counts.Requests++
}

func (l *notifyLoad) arrive(c *client, at, now int64) bool {
	if len(c.out) > 1<<20 {
		return false // the server does not take them
	}
	c.out = c.tmpl.append(c.out, 0)
	c.shard.counts.Notifies++
	c.result(now, at, 1, false)
	return true
}

func (l *notifyLoad) answered(c *client, now, at int64, m *pitaya.Message) {
	if c.wake == nil {
		c.result(now, at, uint64(c.batch), m.Err)
	}
}

func (l *notifyLoad) done(c *client) bool {
	if c.wake == nil || c.confirmed || c.parting {
		return true
	}
	c.confirmed = true
	l.confirm(c, l.run.now())
	return false
}

// template makes the client's message.
func (c *client) template(t pitaya.MessageType, route string, body []byte) error {
	c.tmpl = c.run.template(t, route, body, c.srv)
	return c.tmpl.err
}

// errSetupFailed is the error of a client whose first request was refused.
var errSetupFailed = errors.New("refused")

// call makes a request before the scenario begins, and waits for the answer.
func (c *client) call(ctx context.Context, route string, body []byte) error {
	t := newTemplate(pitaya.MessageRequest, route, body, c.srv.dict)
	if t.err != nil {
		return t.err
	}
	now := c.run.now()
	c.mu.Lock()
	c.request(t, now)
	c.mu.Unlock()
	c.shard.mu.Lock()
	c.shard.counts.Requests++
	c.shard.mu.Unlock()
	if err := c.conn.SetDeadline(c.run.at(now + int64(c.run.cfg.Timeout))); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	for c.pend.open > 0 {
		now, err := c.fill()
		if err != nil {
			return err
		}
		if err := c.take(now); err != nil {
			return err
		}
		if c.drained {
			return errParting
		}
	}
	if c.refused {
		return errSetupFailed
	}
	return ctx.Err()
}

// A templateCache keeps the message of the last server: the next connection's is the same as a rule.
type templateCache struct {
	last atomic.Pointer[cachedTemplate]
}

type cachedTemplate struct {
	srv *server
	t   *template
}

func (r *run) template(t pitaya.MessageType, route string, body []byte, srv *server) *template {
	if c := r.templates.last.Load(); c != nil && c.srv == srv {
		return c.t
	}
	made := newTemplate(t, route, body, srv.dict)
	r.templates.last.Store(&cachedTemplate{srv, made})
	return made
}
