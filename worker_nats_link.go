//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsJobsConn keeps the connection of a NATSJobs up, from the first time that it
// is asked for until close. Links are used until they break and are then replaced,
// as those of NATSTransport are; nothing is sent later than it was asked for.
type natsJobsConn struct {
	// Immutable.
	timeout time.Duration // of a call
	log     *slog.Logger
	life    context.Context
	end     context.CancelFunc
	ended   chan struct{} // closed when run has ended
	tried   chan struct{} // closed by run when it has tried once

	servers *natsAddresses // owned by run
	outages sampler

	mu      sync.Mutex // guards the fields below
	started bool       // run was started
	closed  bool
	link    *natsJobsLink // nil while there is none
	err     error         // why there is none
}

// natsJobsLink is one connection. Its context ends with it.
type natsJobsLink struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	ctx context.Context

	setup   chan struct{}                   // holds a value while somebody sets the streams up; of capacity 1
	streams atomic.Pointer[natsJobsStreams] // nil until they are known to exist
}

// natsJobsStreams is what jobs are kept in.
type natsJobsStreams struct {
	queue, dead jetstream.Stream
	lease       time.Duration // that the consumer gives
}

func newNATSJobsConn(cfg NATSConfig, log *slog.Logger) (*natsJobsConn, error) {
	cfg = natsDefaults(cfg)
	servers, err := newNATSAddresses(cfg)
	if err != nil {
		return nil, err
	}
	c := &natsJobsConn{
		timeout: cfg.RequestTimeout, servers: servers, log: log,
		ended: make(chan struct{}), tried: make(chan struct{}), err: errors.New("not connected yet"),
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// get returns the link. The first call connects, and waits for that once.
func (c *natsJobsConn) get(ctx context.Context) (*natsJobsLink, error) {
	c.mu.Lock()
	if !c.started && !c.closed {
		c.started = true
		go c.run()
	}
	c.mu.Unlock()
	select {
	case <-c.tried:
	case <-c.life.Done():
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrJobStoreClosed
	case ctx.Err() != nil:
		return nil, fmt.Errorf("pitaya: job store: %w", ctx.Err())
	case c.link == nil:
		return nil, fmt.Errorf("%w: NATS: %w", ErrUnreachable, c.err)
	}
	return c.link, nil
}

// close ends the connection and waits for that. Calls that are under way end.
func (c *natsJobsConn) close() {
	c.mu.Lock()
	c.closed = true
	started := c.started
	c.mu.Unlock()
	c.end()
	if started {
		<-c.ended
	}
}

// run connects, again and again, until close.
func (c *natsJobsConn) run() {
	defer close(c.ended)
	first := true
	for failures := 0; ; {
		l, closed, err := c.dial()
		since := time.Now()
		if err == nil {
			c.set(l, nil)
			c.log.Info("connected to NATS for jobs", "nats", l.nc.ConnectedUrlRedacted())
		} else {
			failures++
			c.set(nil, err)
			if skipped, ok := c.outages.pass(); ok && c.life.Err() == nil {
				c.log.Warn("NATS is not reached for jobs", "nats", c.servers.hosts(), "attempts", failures, "err", err, "skipped", skipped)
			}
		}
		if first {
			first = false
			close(c.tried)
		}
		if err == nil {
			select {
			case <-closed:
			case <-c.life.Done():
				l.nc.Close()
				<-closed
				return
			}
			err := cmp.Or(l.nc.LastError(), nats.ErrConnectionClosed)
			c.set(nil, err)
			c.servers.learn(l.nc)
			c.log.Warn("connection to NATS for jobs lost", "err", err)
			failures = c.servers.failures(failures, since)
		}
		if !c.servers.pause(c.life, failures) {
			return
		}
	}
}

// set says which link there is, or why there is none.
func (c *natsJobsConn) set(l *natsJobsLink, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.err = l, err
}

// dial connects once. closed is closed when the connection is.
func (c *natsJobsConn) dial() (l *natsJobsLink, closed <-chan struct{}, err error) {
	l = &natsJobsLink{setup: make(chan struct{}, 1)}
	var end context.CancelFunc
	l.ctx, end = context.WithCancel(c.life)
	done := make(chan struct{})
	l.nc, err = c.servers.connect(c.life, c.servers.choice(""),
		nats.Name("pitaya jobs"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if skipped, ok := c.outages.pass(); ok {
				c.log.Warn("NATS reports an error", "err", err, "skipped", skipped)
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			end()
			close(done)
		}))
	if err == nil {
		if l.js, err = jetstream.New(l.nc); err != nil {
			l.nc.Close()
		}
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return l, done, nil
}
