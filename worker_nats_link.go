//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
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
	cfg     NATSConfig
	servers []*url.URL
	log     *slog.Logger
	life    context.Context
	end     context.CancelFunc
	ended   chan struct{} // closed when run has ended
	tried   chan struct{} // closed by run when it has tried once

	outages sampler
	told    []*url.URL // further servers, as the last link knew them; owned by run

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
	servers, err := natsURLs(cfg.URL)
	if err != nil {
		return nil, err
	}
	if _, err := natsOptions(&cfg, servers); err != nil {
		return nil, fmt.Errorf("pitaya: settings of NATS: %w", err)
	}
	c := &natsJobsConn{
		cfg: cfg, servers: servers, log: log, ended: make(chan struct{}), tried: make(chan struct{}),
		err: errors.New("not connected yet"),
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
		if err == nil {
			c.set(l, nil)
			failures = 0
			c.log.Info("connected to NATS for jobs", "nats", l.nc.ConnectedUrlRedacted())
		} else {
			failures++
			c.set(nil, err)
			if skipped, ok := c.outages.pass(); ok && c.life.Err() == nil {
				c.log.Warn("NATS is not reached for jobs", "nats", natsHosts(c.servers), "attempts", failures, "err", err, "skipped", skipped)
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
			c.learn(l.nc)
			c.log.Warn("connection to NATS for jobs lost", "err", err)
		}
		wait := c.cfg.ReconnectWait << min(max(failures-1, 0), natsBackoff)
		if failures == 0 {
			wait = 0
		}
		if c.cfg.ReconnectJitter > 0 {
			wait += rand.N(c.cfg.ReconnectJitter)
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-c.life.Done():
			pause.Stop()
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

// learn notes which servers NATS has told of.
func (c *natsJobsConn) learn(nc *nats.Conn) {
	c.told = nil
	for _, address := range nc.DiscoveredServers() {
		if u, err := url.Parse(address); err == nil {
			u.User = c.servers[0].User
			c.told = append(c.told, u)
		}
	}
}

// dial connects once. closed is closed when the connection is.
func (c *natsJobsConn) dial() (l *natsJobsLink, closed <-chan struct{}, err error) {
	opts, err := natsOptions(&c.cfg, c.servers)
	if err != nil {
		return nil, nil, err
	}
	var servers []string
	for _, list := range [][]*url.URL{c.servers, c.told} {
		for _, i := range rand.Perm(len(list)) {
			if address := list[i].String(); !slices.Contains(servers, address) {
				servers = append(servers, address)
			}
		}
	}
	l = &natsJobsLink{setup: make(chan struct{}, 1)}
	var end context.CancelFunc
	l.ctx, end = context.WithCancel(c.life)
	done := make(chan struct{})
	opts = append(opts,
		nats.Name("pitaya jobs"),
		func(o *nats.Options) error { o.Servers = servers; return nil },
		nats.SkipHostLookup(),
		nats.SetCustomDialer(&natsJobsDialer{c.life, c.cfg.ConnectTimeout}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if skipped, ok := c.outages.pass(); ok {
				c.log.Warn("NATS reports an error", "err", err, "skipped", skipped)
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			end()
			close(done)
		}))
	if l.nc, err = nats.Connect("", opts...); err == nil {
		l.js, err = jetstream.New(l.nc)
		if err != nil {
			l.nc.Close()
		}
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return l, done, nil
}

// natsJobsDialer makes connections that end with the store: a NATS server that
// accepts and says nothing must not hold up its end.
type natsJobsDialer struct {
	life    context.Context
	timeout time.Duration
}

// Dial implements [nats.CustomDialer].
func (d *natsJobsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.life, d.timeout)
	defer cancel()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &natsJobsSocket{c, context.AfterFunc(d.life, func() { c.Close() })}, nil
}

// natsJobsSocket is a connection that ends with the store.
type natsJobsSocket struct {
	net.Conn
	release func() bool
}

// Close implements [net.Conn].
func (s *natsJobsSocket) Close() error {
	s.release()
	return s.Conn.Close()
}
