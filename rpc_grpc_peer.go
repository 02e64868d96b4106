package pitaya

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// grpcMaxConns is how many connections there are to one peer at most. A further one is opened when all others
	// are at the limit of requests that the peer set; where all are, requests wait for each other.
	grpcMaxConns = 16

	// The pause after a failed attempt to connect doubles from the first of these to the second. A random part of up
	// to a half is taken off, so that a server that returns is not met by all at once.
	grpcFirstPause = 100 * time.Millisecond
	grpcLastPause  = 2 * time.Second
)

// Reasons why there is no connection.
var (
	errGRPCNoAddress = fmt.Errorf("%w: it does not tell its address", ErrUnreachable)
	errGRPCGone      = fmt.Errorf("%w: it has left the cluster", ErrUnreachable)
)

// A grpcPeer is one server at one address, and the connections to it.
type grpcPeer struct {
	c    *grpcClient
	id   string
	addr string        // "" if it does not tell
	left chan struct{} // closed by retire

	// kept says that discovery knows the server. It is set with c.mu held. A connection is then made, and made again,
	// without being asked for, unless connections are lazy.
	kept atomic.Bool

	mu         sync.Mutex
	retired    bool
	conns      []*grpcConn   // those that may take requests
	connecting bool          // a goroutine is in reconnect
	attempt    chan struct{} // closed when its attempt under way ends; nil during a pause
	err        error         // why there is a pause; else nil
	pause      time.Duration // the next one
	since      time.Time     // of the newest connection
	brief      int           // connections in a row that did not last
}

func newGRPCPeer(c *grpcClient, id, addr string) *grpcPeer {
	return &grpcPeer{c: c, id: id, addr: addr, left: make(chan struct{}), pause: grpcFirstPause}
}

// retire ends what there is when the calls under way are done.
func (p *grpcPeer) retire() {
	p.mu.Lock()
	if !p.retired {
		p.retired = true
		close(p.left)
	}
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		c.retire()
	}
}

// conn returns a connection for one request. It waits for an attempt to connect; in a pause between attempts it fails
// at once.
func (p *grpcPeer) conn(ctx context.Context) (*grpcConn, error) {
	if p.addr == "" {
		return nil, errGRPCNoAddress
	}
	for {
		c, attempt, err := p.choose()
		if err != nil || c != nil {
			return c, err
		}
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// choose returns a connection, with a place for a request reserved where there is one, or the attempt to wait for.
func (p *grpcPeer) choose() (*grpcConn, chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return nil, nil, errGRPCGone
	}
	for i := 0; i < len(p.conns); i++ {
		c := p.conns[i]
		if c.Reserve() == nil {
			return c, nil, nil
		}
		if c.InFlight() == 0 { // not full, so closed or told to go away
			p.conns = slices.Delete(p.conns, i, i+1)
			c.retire()
			i--
		}
	}
	// There is none, or all are full. In the second case it is no harm if no other can be had.
	if !p.connecting && len(p.conns) < grpcMaxConns && !p.connectLocked() {
		return nil, nil, errGRPCClosed
	}
	if p.attempt != nil && p.err == nil && len(p.conns) < grpcMaxConns {
		return nil, p.attempt, nil
	}
	if len(p.conns) == 0 {
		return nil, nil, p.err
	}
	return slices.MinFunc(p.conns, func(a, b *grpcConn) int { return a.InFlight() - b.InFlight() }), nil, nil
}

// ready reports that there is a connection, or that the next call is what makes one.
func (p *grpcPeer) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) > 0 || !p.connecting
}

// connect makes a connection, in the background.
func (p *grpcPeer) connect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.retired && !p.connecting && len(p.conns) == 0 {
		p.connectLocked()
	}
}

// connectLocked starts reconnect: with an attempt, or with the pause that p.err asks for.
func (p *grpcPeer) connectLocked() bool {
	if !p.c.start(p.reconnect) {
		return false
	}
	p.connecting = true
	if p.err == nil {
		p.attempt = make(chan struct{})
	}
	return true
}

// reconnect tries until there is a connection, or nobody wants one.
func (p *grpcPeer) reconnect() {
	for p.rest() {
		conn, err := p.dial()
		p.mu.Lock()
		close(p.attempt)
		p.attempt = nil
		if err == nil {
			p.addLocked(conn)
			p.mu.Unlock()
			return
		}
		if p.err == nil && p.c.ctx.Err() == nil {
			p.c.log.Info("gRPC server unreachable", "server", p.id, "address", p.addr, "err", err)
		}
		p.err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		p.mu.Unlock()
	}
}

// rest waits for the pause after a failure to pass. It reports whether to try again; if not, connecting has ended.
func (p *grpcPeer) rest() bool {
	p.mu.Lock()
	if p.err == nil {
		p.mu.Unlock()
		return true
	}
	pause := p.pause - rand.N(p.pause/2)
	p.pause = min(2*p.pause, grpcLastPause)
	p.mu.Unlock()

	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.left:
	case <-p.c.ctx.Done():
	}
	p.mu.Lock()
	wanted := p.wantedLocked()
	if wanted {
		p.attempt = make(chan struct{})
	} else {
		p.connecting, p.err = false, nil // the next call tries again
	}
	p.mu.Unlock()
	if !wanted {
		p.c.forget(p)
	}
	return wanted
}

// wantedLocked reports whether a connection is to be made without a call that asks for it.
func (p *grpcPeer) wantedLocked() bool {
	return p.kept.Load() && !p.c.cfg.LazyConnection && !p.retired && p.c.ctx.Err() == nil
}

// dial makes a connection and sees a gRPC server answer on it: the kernel also connects to processes that hang, to ports
// about to be closed, and to servers of another kind. The settings of HTTP/2 are known from then on.
func (p *grpcPeer) dial() (*grpcConn, error) {
	ctx, cancel := context.WithTimeout(p.c.ctx, p.c.cfg.DialTimeout)
	defer cancel()
	cc, err := p.c.http.NewClientConn(ctx, p.c.scheme, p.addr)
	if err != nil {
		return nil, err
	}
	conn := newGRPCConn(cc, p.c.scheme)
	if _, err = conn.ask(ctx, p.addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// addLocked takes a new connection in.
func (p *grpcPeer) addLocked(c *grpcConn) {
	if p.err != nil {
		p.c.log.Info("gRPC server reachable again", "server", p.id, "address", p.addr)
	}
	p.connecting, p.err, p.since = false, nil, time.Now()
	if p.retired || !p.c.start(func() { p.watch(c) }) {
		c.Close()
		return
	}
	p.conns = append(p.conns, c)
}

// watch follows a connection to its end, and tries it when it is quiet.
func (p *grpcPeer) watch(c *grpcConn) {
	defer p.ended(c)
	defer c.Close()
	tick := time.NewTicker(p.c.keepAlive)
	defer tick.Stop()
	heard := c.heard.Load()
	for {
		quiet := false
		select {
		case <-p.c.ctx.Done():
			return
		case <-c.changed:
			if c.Err() != nil || c.retired.Load() && c.InFlight() == 0 {
				return
			}
			continue
		case <-c.doubt:
		case <-tick.C:
			if n := c.heard.Load(); n != heard {
				heard = n
				continue
			}
			quiet = true
		}
		if err := p.probe(c, quiet); err != nil {
			if p.c.ctx.Err() == nil && c.Err() == nil {
				p.c.log.Warn("gRPC connection lost", "server", p.id, "address", p.addr, "err", err)
			}
			return
		}
		heard = c.heard.Load()
	}
}

// probe asks for a sign of life. quiet says that nothing was heard for the time between two probes.
func (p *grpcPeer) probe(c *grpcConn, quiet bool) error {
	ctx, cancel := context.WithTimeout(p.c.ctx, p.c.pingTimeout)
	defer cancel()
	c.Reserve() // if it cannot, because the connection is full, the request waits for its turn
	sent, err := c.ask(ctx, p.addr)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return nil // the connection has come to its end by itself, or is about to
	case !sent && (!quiet || p.c.cfg.RequestTimeout > p.c.keepAlive):
		return nil // full of requests that may just take their time
	}
	return err
}

// ended takes a connection out.
func (p *grpcPeer) ended(c *grpcConn) {
	p.mu.Lock()
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	last := len(p.conns) == 0 && !p.connecting
	if time.Since(p.since) >= grpcLastPause {
		p.pause, p.brief = grpcFirstPause, 0
	} else if p.brief++; p.brief > grpcTries && last && p.wantedLocked() {
		p.err = fmt.Errorf("%w: its connections end at once", ErrUnreachable) // so after a pause
	}
	if last && p.wantedLocked() {
		p.connectLocked()
		last = false
	}
	p.mu.Unlock()
	if last {
		p.c.forget(p)
	}
}
