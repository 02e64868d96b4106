//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// natsAnswers is how many answers may wait to be handed on, besides the
	// calls and notices of NATSConfig. They all wait in one channel, which is
	// what keeps an answer behind the pushes that its sender made before it.
	natsAnswers = 1 << 15
	// natsOverlap is how long after a planned move to another NATS server its
	// messages are compared with those of the old one.
	natsOverlap = 5 * time.Second
	// natsLinger is how long the old connection is still listened to.
	natsLinger = 250 * time.Millisecond
)

// natsSide is one connection to NATS that is kept up. A transport has one, or
// two when the calling and the serving side are configured differently.
//
// The connections below it, links, are used until they break and are then
// replaced: nats.go's own reconnecting is off. So there is one way to come
// back, after an outage, after an error that nats.go takes for final, and when
// a NATS server announces its end; and calls can be told at once that their
// connection is gone.
type natsSide struct {
	// Immutable.
	t      *NATSTransport
	cfg    NATSConfig
	calls  bool // answers come in here
	serves bool // calls and notices come in here
	room   int  // how many messages may wait

	link  atomic.Pointer[natsLink] // what is published on; nil while there is none
	doubt chan struct{}            // gets a value when a call was not answered; of capacity 1
	ready chan struct{}            // closed by run at the first connection
	ended chan struct{}            // closed by run at its end

	servers *natsAddresses // owned by run

	mu  sync.Mutex // guards the field below
	err error      // why there is no link
}

// natsLink is one connection of a natsSide.
type natsLink struct {
	side *natsSide
	nc   *nats.Conn
	prev *natsLink // what this one takes over from, in a planned move; dispatch forgets it

	out     *natsOut       // what is sent
	in      chan *nats.Msg // all messages; one without Sub is a mark, nil the end
	marks   sync.Map       // *nats.Msg to chan struct{}, which is closed when dispatch gets there
	lame    chan struct{}  // gets a value when NATS announces the end of the server
	closed  chan struct{}  // closed when the connection is
	handled chan struct{}  // closed when dispatch has ended
	record  atomic.Bool    // dispatch notes in seen what it handles

	// seen counts what was handled, by what makes a message the same. Owned by
	// dispatch, and once that has ended by the dispatch of the next link.
	seen map[natsKey]int

	// Guarded by NATSTransport.mu.
	own   []*nats.Subscription             // of the server
	users map[string][2]*nats.Subscription // by uid: pushes and kicks
	slow  map[*nats.Subscription]int       // those that lost messages, and how many were counted
}

// natsKey tells messages apart that come over two connections. With a reply
// subject, which is used once, that is enough; notices have none, and two that
// are equal may be swapped.
type natsKey struct{ reply, subject, data string }

// newNATSSide returns a side that does not connect yet.
func newNATSSide(t *NATSTransport, cfg NATSConfig, calls, serves bool) (*natsSide, error) {
	s := &natsSide{
		t: t, cfg: cfg, calls: calls, serves: serves,
		doubt: make(chan struct{}, 1), ready: make(chan struct{}), ended: make(chan struct{}),
		err: errors.New("not connected yet"),
	}
	if calls {
		s.room += natsAnswers
	}
	if serves {
		s.room += cfg.BufferMessages + cfg.BufferPush
	}
	var err error
	if s.servers, err = newNATSAddresses(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// run keeps the side connected until ctx ends, or MaxReconnects are used up.
func (s *natsSide) run(ctx context.Context) {
	defer close(s.ended)
	first := true
	for failures := 0; ; {
		l, err := s.open(ctx, nil, s.servers.choice(""))
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			failures++
			if m := s.cfg.MaxReconnects; m > 0 && failures >= m {
				s.lost(fmt.Errorf("given up after %d attempts: %w", failures, err))
				s.t.log.Error("NATS is not reached and will not be tried again", "nats", s.servers.hosts(), "attempts", failures, "err", err)
				s.t.gaveUp <- s
				return
			}
			s.lost(err)
			if skipped, ok := s.t.outages.pass(); ok {
				s.t.log.Warn("NATS is not reached", "nats", s.servers.hosts(), "attempts", failures, "err", err, "skipped", skipped)
			}
			if !s.servers.pause(ctx, failures) {
				return
			}
			continue
		}
		since := time.Now()
		s.link.Store(l)
		s.t.log.Info("connected to NATS", "nats", l.nc.ConnectedUrlRedacted())
		if first {
			first = false
			close(s.ready)
		} else {
			s.t.reconnects.Add(1)
		}
		l = s.use(ctx, l)
		if ctx.Err() != nil {
			s.shut(l) // what it still hands on can be answered
			s.lost(errors.New("transport closed"))
			return // Close ends what waits for answers
		}
		err = cmp.Or(l.nc.LastError(), nats.ErrConnectionClosed)
		s.lost(err)
		if s.calls {
			// No answers will come. What was asked may have been done, so nobody is to
			// be asked again.
			s.t.pending.failAll(fmt.Errorf("%w: connection to NATS lost: %w", ErrNoAnswer, err))
		}
		s.t.log.Warn("connection to NATS lost", "err", err)
		s.servers.learn(l.nc)
		s.t.forget(l)
		l.in <- nil
		<-l.handled
		l.out.close()
		failures = s.servers.failures(failures, since)
		if !s.servers.pause(ctx, failures) {
			return
		}
	}
}

// use waits for the end of a connection, moving on to another if NATS asks for
// it, and returns the one that was used last.
func (s *natsSide) use(ctx context.Context, l *natsLink) *natsLink {
	for {
		select {
		case <-ctx.Done():
			return l
		case <-l.closed:
			return l
		case <-s.doubt:
			// A machine that has vanished is noticed by pings after minutes.
			if err := l.nc.FlushTimeout(s.cfg.ConnectTimeout); errors.Is(err, nats.ErrTimeout) {
				s.t.log.Warn("NATS does not answer", "nats", l.nc.ConnectedUrlRedacted())
				l.nc.Close()
			}
		case <-l.lame:
			s.servers.learn(l.nc)
			others := s.servers.choice(l.nc.ConnectedUrl())
			if len(others) == 0 {
				s.t.log.Warn("the NATS server is about to end, and no other is known", "nats", l.nc.ConnectedUrlRedacted())
				continue
			}
			next, err := s.open(ctx, l, others)
			if err != nil {
				s.t.log.Warn("the NATS server is about to end, and no other is reached", "err", err)
				continue
			}
			s.link.Store(next)
			s.t.log.Info("moved to another NATS server", "nats", next.nc.ConnectedUrlRedacted())
			// The other servers of NATS learn of the new subscriptions a moment later,
			// and send to the old ones alone until then.
			linger := time.NewTimer(natsLinger)
			select {
			case <-linger.C:
			case <-l.closed:
			case <-ctx.Done():
			}
			linger.Stop()
			s.shut(l)
			l = next
		}
	}
}

// lost says that there is no connection, and why.
func (s *natsSide) lost(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.link.Store(nil)
}

// unreachable is the error while there is no connection.
func (s *natsSide) unreachable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: NATS: %w", ErrUnreachable, s.err)
}

// open connects to one of the servers and subscribes to all that the side
// listens to. With prev it takes over: what comes in on both is handled once,
// and what comes in on the new one waits until the old one's is handled.
func (s *natsSide) open(ctx context.Context, prev *natsLink, servers []string) (*natsLink, error) {
	l := &natsLink{
		side: s, prev: prev,
		out:     newNATSOut(),
		in:      make(chan *nats.Msg, s.room),
		lame:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		handled: make(chan struct{}),
		users:   make(map[string][2]*nats.Subscription),
		slow:    make(map[*nats.Subscription]int),
	}
	var err error
	l.nc, err = s.servers.connect(ctx, servers,
		nats.Name("pitaya "+s.t.self.Type+" "+s.t.self.ID),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { s.t.asyncError(l, sub, err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
		nats.LameDuckModeHandler(func(*nats.Conn) {
			select {
			case l.lame <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		return nil, err
	}
	if prev != nil {
		prev.record.Store(true)
	}
	if err := s.t.subscribe(l); err != nil {
		s.t.forget(l)
		l.nc.Close()
		if prev != nil {
			prev.record.Store(false)
		}
		return nil, err
	}
	l.out.limit.Store(l.nc.MaxPayload())
	go l.out.run(l.send)
	go l.dispatch()
	return l, nil
}

// shut ends a connection in good order: what was published leaves, and what
// has arrived is handled.
func (s *natsSide) shut(l *natsLink) {
	if !l.nc.IsClosed() {
		// The answer to this comes behind everything that NATS had for us.
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ConnectTimeout)
		if err := l.flush(ctx); err != nil {
			s.t.log.Warn("NATS did not take the last messages", "err", err)
		}
		cancel()
	}
	l.in <- nil
	<-l.handled
	s.t.forget(l)
	l.out.close()
	l.nc.Close() // which flushes
	<-l.closed
}
