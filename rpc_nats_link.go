package pitaya

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
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
	// natsBackoff is how often the pause between attempts to connect doubles.
	natsBackoff = 2
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
	ready chan struct{}            // closed by run at the first connection
	ended chan struct{}            // closed by run at its end

	// Owned by run.
	servers []string // URLs, those that NATS told us included

	mu  sync.Mutex // guards the field below
	err error      // why there is no link
}

// natsLink is one connection of a natsSide.
type natsLink struct {
	side *natsSide
	nc   *nats.Conn
	prev *natsLink // what this one takes over from, in a planned move; dispatch forgets it

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

// newNATSSide checks the settings, so that what is wrong with them comes back
// at once and not as an outage.
func newNATSSide(t *NATSTransport, cfg NATSConfig, calls, serves bool) (*natsSide, error) {
	s := &natsSide{
		t: t, cfg: cfg, calls: calls, serves: serves,
		ready: make(chan struct{}), ended: make(chan struct{}),
		err: errors.New("not connected yet"),
	}
	if calls {
		s.room += natsAnswers
	}
	if serves {
		s.room += cfg.BufferMessages + cfg.BufferPush
	}
	for i, address := range strings.Split(cfg.URL, ",") {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		// The error of url.Parse would show a password.
		if u, err := url.Parse(address); err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("pitaya: address %d of NATS is not a URL", i+1)
		}
		s.servers = append(s.servers, address)
	}
	if _, err := s.options(); err != nil {
		return nil, fmt.Errorf("pitaya: settings of NATS: %w", err)
	}
	return s, nil
}

// natsDefaults fills in what the settings leave open.
func natsDefaults(c NATSConfig) NATSConfig {
	c.URL = cmp.Or(c.URL, "nats://localhost:4222")
	c.ConnectTimeout = cmp.Or(max(c.ConnectTimeout, 0), 2*time.Second)
	c.ReconnectWait = cmp.Or(max(c.ReconnectWait, 0), time.Second)
	c.ReconnectJitter = max(cmp.Or(c.ReconnectJitter, 100*time.Millisecond), 0)
	c.ReconnectJitterTLS = max(cmp.Or(c.ReconnectJitterTLS, time.Second), 0)
	c.PingInterval = cmp.Or(max(c.PingInterval, 0), 2*time.Minute)
	c.MaxPings = cmp.Or(max(c.MaxPings, 0), 3)
	c.MaxReconnects = max(c.MaxReconnects, 0)
	c.RequestTimeout = cmp.Or(max(c.RequestTimeout, 0), 5*time.Second)
	c.BufferMessages = cmp.Or(max(c.BufferMessages, 0), natsMessages)
	c.BufferPush = cmp.Or(max(c.BufferPush, 0), natsMessages)
	return c
}

// sameNATS reports whether two sides can share a connection.
func sameNATS(a, b NATSConfig) bool {
	for _, c := range []*NATSConfig{&a, &b} {
		// What has nothing to do with the connection.
		c.RequestTimeout, c.BufferMessages, c.BufferPush, c.Services = 0, 0, 0, 0
	}
	return a == b
}

// options reads the files anew, so that renewed certificates and credentials
// are used from the next connection on.
func (s *natsSide) options() ([]nats.Option, error) {
	c := &s.cfg
	opts := []nats.Option{
		nats.NoReconnect(),
		nats.DontRandomize(), // run has the order
		nats.Timeout(c.ConnectTimeout),
		// A NATS server that reads nothing for so long counts as lost; whoever
		// publishes meanwhile may have to wait.
		nats.FlusherTimeout(c.ConnectTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(c.PingInterval),
		nats.MaxPingsOutstanding(c.MaxPings),
		nats.Compression(!c.NoWebSocketCompression),
	}
	if c.CredentialsFile != "" {
		if err := readable(c.CredentialsFile); err != nil {
			return nil, err
		}
		opts = append(opts, nats.UserCredentials(c.CredentialsFile))
	}
	if c.NKeyFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nkey)
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token))
	}
	config, err := natsTLS(c)
	if err != nil {
		return nil, err
	}
	if config != nil {
		opts = append(opts, nats.Secure(config))
	}
	// Combinations that exclude each other are refused by this.
	var o nats.Options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if c.CredentialsFile != "" && c.NKeyFile != "" {
		return nil, nats.ErrNkeyAndUser
	}
	return opts, nil
}

func readable(file string) error {
	f, err := os.Open(file)
	if err == nil {
		f.Close()
	}
	return err
}

// natsTLS returns what the connection is to be encrypted with, nil if only the
// address decides.
func natsTLS(c *NATSConfig) (*tls.Config, error) {
	switch {
	case c.TLSConfig != nil:
		return c.TLSConfig.Clone(), nil
	case c.TLS == TLSFiles{}:
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		pem, err := os.ReadFile(c.TLS.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificates", c.TLS.CA)
		}
	}
	if c.TLS.Cert != "" || c.TLS.Key != "" {
		cert, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// run keeps the side connected until ctx ends, or MaxReconnects are used up.
func (s *natsSide) run(ctx context.Context) {
	defer close(s.ended)
	first := true
	for failures := 0; ; {
		rand.Shuffle(len(s.servers), func(i, j int) { s.servers[i], s.servers[j] = s.servers[j], s.servers[i] })
		l, err := s.open(ctx, nil, s.servers)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			failures++
			if m := s.cfg.MaxReconnects; m > 0 && failures >= m {
				s.lost(fmt.Errorf("given up after %d attempts: %w", failures, err))
				s.t.log.Error("NATS is not reached and will not be tried again", "attempts", failures, "err", err)
				s.t.gaveUp <- s
				return
			}
			s.lost(err)
			if skipped, ok := s.t.outages.pass(); ok {
				s.t.log.Warn("NATS is not reached", "attempts", failures, "err", err, "skipped", skipped)
			}
			if !s.pause(ctx, failures) {
				return
			}
			continue
		}
		failures = 0
		s.link.Store(l)
		s.t.log.Info("connected to NATS", "nats", l.nc.ConnectedUrlRedacted())
		if first {
			first = false
			close(s.ready)
		}
		l = s.use(ctx, l)
		s.link.Store(nil)
		if ctx.Err() != nil {
			s.shut(l)
			return
		}
		err = cmp.Or(l.nc.LastError(), nats.ErrConnectionClosed)
		s.lost(err)
		s.t.log.Warn("connection to NATS lost", "err", err)
		s.t.forget(l)
		l.in <- nil
		<-l.handled
		// Many servers lose their connections at the same moment.
		if !s.pause(ctx, 0) {
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
		case <-l.lame:
			s.learn(l)
			others := slices.DeleteFunc(slices.Clone(s.servers), func(u string) bool {
				return sameHost(u, l.nc.ConnectedUrl())
			})
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
			s.shut(l)
			l = next
		}
	}
}

// learn adds the servers that NATS told of to those that are tried.
func (s *natsSide) learn(l *natsLink) {
	for _, u := range l.nc.DiscoveredServers() {
		if !slices.ContainsFunc(s.servers, func(known string) bool { return sameHost(known, u) }) {
			s.servers = append(s.servers, u)
		}
	}
}

func sameHost(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Host == ub.Host
}

// lost fails what waits for answers: none will come.
func (s *natsSide) lost(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	if s.calls {
		s.t.pending.failAll(s.unreachable())
	}
}

// unreachable is the error while there is no connection.
func (s *natsSide) unreachable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: NATS: %w", ErrUnreachable, s.err)
}

// pause waits before the next attempt to connect, longer after more failures.
// It returns false if ctx ends.
func (s *natsSide) pause(ctx context.Context, failures int) bool {
	jitter := s.cfg.ReconnectJitter
	if s.cfg.TLSConfig != nil || s.cfg.TLS != (TLSFiles{}) {
		jitter = s.cfg.ReconnectJitterTLS
	}
	var wait time.Duration
	if failures > 0 {
		shift := min(failures-1, natsBackoff)
		wait, jitter = s.cfg.ReconnectWait<<shift, jitter<<shift
	}
	if jitter > 0 {
		wait += rand.N(jitter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// open connects to one of the servers and subscribes to all that the side
// listens to. With prev it takes over: what comes in on both is handled once,
// and what comes in on the new one waits until the old one's is handled.
func (s *natsSide) open(ctx context.Context, prev *natsLink, servers []string) (*natsLink, error) {
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	l := &natsLink{
		side: s, prev: prev,
		in:      make(chan *nats.Msg, s.room),
		lame:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		handled: make(chan struct{}),
		users:   make(map[string][2]*nats.Subscription),
		slow:    make(map[*nats.Subscription]int),
	}
	dialer := &natsDialer{ctx: ctx, timeout: s.cfg.ConnectTimeout}
	opts = append(opts,
		nats.Name("pitaya "+s.t.self.Type+" "+s.t.self.ID),
		nats.SetCustomDialer(dialer),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { s.t.asyncError(l, sub, err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
		nats.LameDuckModeHandler(func(*nats.Conn) {
			select {
			case l.lame <- struct{}{}:
			default:
			}
		}))
	l.nc, err = nats.Connect(strings.Join(servers, ","), opts...)
	if stopped := dialer.release(); err == nil && !stopped {
		err = ctx.Err()
		l.nc.Close()
	}
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
	go l.dispatch()
	return l, nil
}

// shut ends a connection in good order: what was published leaves, and what
// has arrived is handled.
func (s *natsSide) shut(l *natsLink) {
	if !l.nc.IsClosed() {
		// The answer to this comes behind everything that NATS had for us.
		if err := l.nc.FlushTimeout(s.cfg.ConnectTimeout); err != nil {
			s.t.log.Warn("NATS did not take the last messages", "err", err)
		}
	}
	l.in <- nil
	<-l.handled
	s.t.forget(l)
	l.nc.Close()
	<-l.closed
}

// publish sends a message. It returns ErrUnreachable while there is no
// connection, and buffers nothing for later.
func (s *natsSide) publish(subject, reply string, body []byte) error {
	for {
		l := s.link.Load()
		if l == nil {
			return s.unreachable()
		}
		var err error
		if reply == "" {
			err = l.nc.Publish(subject, body)
		} else {
			err = l.nc.PublishRequest(subject, reply, body)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, nats.ErrConnectionClosed):
			if next := s.link.Load(); next != nil && next != l {
				continue // moved meanwhile
			}
		case errors.Is(err, nats.ErrMaxPayload):
			return fmt.Errorf("pitaya: message of %d bytes: NATS takes at most %d: %w", len(body), l.nc.MaxPayload(), err)
		case errors.Is(err, nats.ErrBadSubject):
			return fmt.Errorf("pitaya: %q cannot be a subject of NATS: %w", clipText(subject, natsMaxSubject), err)
		default:
			// Writing failed, perhaps in the midst of a message.
			l.nc.Close()
		}
		return fmt.Errorf("%w: NATS: %w", ErrUnreachable, err)
	}
}

// natsDialer makes connections that end with a context, until released: a NATS
// server that accepts and says nothing must not hold up Close.
type natsDialer struct {
	ctx     context.Context
	timeout time.Duration
	stops   []func() bool // nats.go dials one address after the other
}

// Dial implements [nats.CustomDialer].
func (d *natsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err == nil {
		d.stops = append(d.stops, context.AfterFunc(d.ctx, func() { c.Close() }))
	}
	return c, err
}

// release makes the connections independent of the context. It returns false if
// that had ended already.
func (d *natsDialer) release() bool {
	ok := true
	for _, stop := range d.stops {
		ok = stop() && ok
	}
	return ok
}

// mark waits until what is in the channel now has been handled.
func (l *natsLink) mark(ctx context.Context) error {
	m, done := new(nats.Msg), make(chan struct{})
	l.marks.Store(m, done)
	defer l.marks.Delete(m)
	select {
	case l.in <- m:
	case <-l.handled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-l.handled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dispatch hands the messages of the link on, one after the other.
func (l *natsLink) dispatch() {
	defer close(l.handled)
	var handled map[natsKey]int // by the link before
	var until time.Time
	if prev := l.prev; prev != nil {
		<-prev.handled
		handled, l.prev, prev.seen = prev.seen, nil, nil
		until = time.Now().Add(natsOverlap)
	}
	t := l.side.t
	for m := range l.in {
		if m == nil {
			return
		}
		if m.Sub == nil {
			if done, ok := l.marks.Load(m); ok {
				close(done.(chan struct{}))
			}
			continue
		}
		if handled != nil {
			if time.Now().After(until) {
				handled = nil
			} else if k := keyOf(m); handled[k] > 0 {
				handled[k]--
				continue
			}
		}
		if l.record.Load() {
			if l.seen == nil {
				l.seen = make(map[natsKey]int)
			}
			l.seen[keyOf(m)]++
		} else if l.seen != nil {
			l.seen = nil // the move did not come about
		}
		t.deliver(m)
	}
}

func keyOf(m *nats.Msg) natsKey {
	if m.Reply != "" {
		return natsKey{reply: m.Reply}
	}
	return natsKey{subject: m.Subject, data: string(m.Data)}
}

// asyncError takes what nats.go reports beside its calls.
func (t *NATSTransport) asyncError(l *natsLink, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		t.mu.Lock()
		l.slow[sub] = l.slow[sub] // 0 if it is new
		t.countLocked(l)
		t.mu.Unlock()
		if skipped, ok := t.drops.pass(); ok {
			t.log.Error("messages from NATS are dropped, because those before are not handled in time",
				"dropped", t.Dropped(), "skipped", skipped)
		}
		return
	}
	if skipped, ok := t.faults.pass(); ok {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "NATS reports an error",
			slog.Any("err", err), slog.Int("skipped", skipped))
	}
}

// countLocked adds what subscriptions of a link have lost since the last time.
func (t *NATSTransport) countLocked(l *natsLink) {
	for sub, counted := range l.slow {
		if n, err := sub.Dropped(); err == nil {
			t.dropped += int64(n - counted)
			l.slow[sub] = n
		}
	}
}
