//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// natsMessages is how many calls, and as many notices, may wait to be
	// handed on where the settings do not say.
	natsMessages = 1 << 13
	// natsMaxSubject bounds subjects. NATS takes lines of 4096 bytes, with the
	// reply subject in them, and ends connections that send longer ones.
	natsMaxSubject = 1024
	// natsAck is the answer to a notice whose sender waits for one: a
	// protos.Response with the data "ack".
	natsAck = "\x0a\x03ack"
)

// NATSTransport is a [Transport] over NATS, as section 5 of the cluster
// protocol describes it.
//
// Calling and serving share one connection when their settings for it are
// equal, and have one each otherwise. One is better: it halves the connections,
// and keeps the order of all that goes from one server to another. With two, calls
// keep their order among each other, those that nobody answers included, and so
// do pushes and answers; but a push for many users, which is such a call, can be
// overtaken by the answer of the handler that made it, and at a frontend that has
// two connections all pushes can. That is the price: calls and answers would have
// to share a connection for it to be otherwise, because NATS tells only the
// connection that has called that nobody listens, and may let only the one that
// was called answer. Listen logs that there are two.
//
// It outlives outages of NATS, also at the start and also when NATS refuses the
// credentials: it goes on connecting, with pauses that grow from
// NATSConfig.ReconnectWait to four times that, for ever or as often as
// MaxReconnects says. Meanwhile calls fail at once, and nothing is kept to be
// sent later. What was subscribed is subscribed again. When a NATS server announces its end
// (lame duck mode) and another one is known, the transport connects there
// first and then leaves, without losing messages or handling them twice; calls
// made in the moment of the change may overtake each other.
//
// NATSConfig.Services has no meaning here: what comes in is handed on in order,
// and who handles it decides how much runs at once.
type NATSTransport struct {
	// Immutable after NewNATSTransport.
	log     *slog.Logger
	calling *natsSide
	serving *natsSide // may be the same
	sides   []*natsSide
	pending *natsCalls
	inbox   string         // subject of answers, up to the token
	gaveUp  chan *natsSide // sides that do not try to connect any more; has room for all

	// Immutable after Listen.
	self     *ServerInfo
	handler  TransportHandler
	calls    string // subject of calls to this server
	bindings string // subject of announcements of binds
	users    string // what subjects of users begin with

	faults, outages, drops sampler
	reconnects             atomic.Int64 // connections that took the place of ones that were lost

	mu        sync.Mutex         // guards the fields below; held while subscribing, which only fills a buffer
	listening bool               // Listen was called
	draining  bool               // nothing but answers comes in any more
	closed    bool               // Close was called
	cancel    context.CancelFunc // ends the sides; nil before Listen
	links     []*natsLink        // in use; two of one side while it moves
	uids      map[string]struct{}
	lost      map[string]int64 // messages, by the kind of their subscription
}

// Subjects of section 5.1. The separator is a slash, so that each is a single
// token of NATS.
const (
	natsServers  = "pitaya/servers/" // type "/" id
	natsPush     = "/push"
	natsKick     = "/kick"
	natsBindings = "/bindings"
)

func natsServerSubject(s *ServerInfo) string { return natsServers + s.Type + "/" + s.ID }

func natsUsers(frontendType string) string { return "pitaya/" + frontendType + "/user/" }

// NewNATSTransport returns a transport with the settings of the calling and the
// serving side. It does not connect; [NATSTransport.Listen] does. Files that
// the settings name are read, here to find mistakes and then again for each
// connection. A nil logger means [slog.Default].
func NewNATSTransport(client, server NATSConfig, log *slog.Logger) (*NATSTransport, error) {
	client, server = natsDefaults(client), natsDefaults(server)
	t := &NATSTransport{
		log:     cmp.Or(log, slog.Default()),
		pending: newNATSCalls(),
		inbox:   nats.NewInbox() + ".",
		gaveUp:  make(chan *natsSide, 2),
		uids:    make(map[string]struct{}),
		lost:    map[string]int64{natsKindCalls: 0, natsKindBinds: 0, natsKindPushes: 0, natsKindKicks: 0, natsKindAnswers: 0},
	}
	one := sameNATS(client, server)
	var err error
	if t.serving, err = newNATSSide(t, server, one, true); err != nil {
		return nil, err
	}
	t.calling, t.sides = t.serving, []*natsSide{t.serving}
	if !one {
		if t.calling, err = newNATSSide(t, client, true, false); err != nil {
			return nil, err
		}
		t.sides = append(t.sides, t.calling)
	}
	t.calling.cfg.RequestTimeout = client.RequestTimeout
	t.pending.late = func() {
		for _, s := range t.sides {
			signal(s.doubt)
		}
	}
	return t, nil
}

// Listen implements [Transport]. It waits for NATS as long as ctx allows: a
// cluster whose parts start in any order comes up, and a wrong address shows in
// the log. An error means that the transport is of no more use.
func (t *NATSTransport) Listen(ctx context.Context, self *ServerInfo, h TransportHandler) error {
	for _, name := range []string{self.Type, self.ID} {
		if err := checkServerID(name); err != nil {
			return fmt.Errorf("pitaya: %q as server type or id: %w", name, err)
		}
	}
	t.mu.Lock()
	if t.listening || t.closed {
		t.mu.Unlock()
		return errors.New("pitaya: Listen called twice, or after Close")
	}
	t.listening = true
	t.self, t.handler = self, h
	t.calls = natsServerSubject(self)
	t.bindings = "pitaya/" + self.Type + natsBindings
	t.users = natsUsers(self.Type)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	t.mu.Unlock()

	if t.calling != t.serving {
		t.log.Info("the two sides of NATS have different settings and a connection each, so pushes can be overtaken by answers")
	}
	go t.pending.run()
	for _, s := range t.sides {
		go s.run(run)
	}
	for _, s := range t.sides {
		var err error
		select {
		case <-s.ready:
			continue
		case s := <-t.gaveUp:
			err = s.unreachable()
		case <-ctx.Done():
			err = fmt.Errorf("%w (%w)", s.unreachable(), context.Cause(ctx))
		}
		t.Close(context.WithoutCancel(ctx))
		return err
	}
	return nil
}

// Call implements [Transport].
func (t *NATSTransport) Call(ctx context.Context, to *ServerInfo, body []byte, done func([]byte, error)) {
	subject := natsServerSubject(to)
	if done == nil {
		t.send(ctx, subject, body)
		return
	}
	// Not by the caller, who may hold what done needs.
	if err := checkNATSSubject(subject); err != nil {
		t.pending.refuseCall(to, done, err)
		return
	}
	token, err := t.pending.add(ctx, t.calling.cfg.RequestTimeout, to, done)
	if err != nil {
		t.pending.refuseCall(to, done, err)
		return
	}
	var reply [64]byte
	if err := t.calling.publish(subject, string(strconv.AppendUint(append(reply[:0], t.inbox...), token, 36)), token, body); err != nil {
		t.pending.fail(token, err)
	}
}

// send makes a call that nobody waits for: without a reply subject.
func (t *NATSTransport) send(ctx context.Context, subject string, body []byte) {
	if ctx.Err() != nil {
		return
	}
	err := checkNATSSubject(subject)
	if err == nil {
		err = t.calling.publish(subject, "", 0, body) // in the order of the other calls
	}
	if err != nil {
		if skipped, ok := t.faults.pass(); ok {
			t.log.Warn("a call without an answer could not be sent", "err", err, "skipped", skipped)
		}
	}
}

// checkNATSSubject refuses what would end the connection.
func checkNATSSubject(subject string) error {
	if len(subject) > natsMaxSubject {
		return fmt.Errorf("pitaya: server type and id of %d bytes", len(subject))
	}
	return nil
}

// findsUsers implements userFinder: users have subjects.
func (t *NATSTransport) findsUsers() bool { return true }

// tellsCancel implements cancelTeller.
func (t *NATSTransport) tellsCancel() bool { return false }

// callSpan implements callNamer.
func (t *NATSTransport) callSpan() string { return spanNATSCall }

// requestTimeout implements callTimer.
func (t *NATSTransport) requestTimeout() time.Duration { return t.calling.cfg.RequestTimeout }

// Ordered implements [Transport]: NATS keeps the order of one connection.
func (t *NATSTransport) Ordered() bool { return true }

// Notify implements [Transport]. Nobody is told whether a notice arrives.
func (t *NATSTransport) Notify(_ context.Context, n *Notice) error {
	if n.FrontendType == "" || len(n.FrontendType) > natsMaxSubject/2 {
		// The subject would reach nobody, without an error (5.1).
		return fmt.Errorf("pitaya: frontend type of %d bytes", len(n.FrontendType))
	}
	var subject string
	switch n.Kind {
	case NoticePush, NoticeKick:
		if err := checkUID(n.UID, natsMaxSubject/2); err != nil {
			return fmt.Errorf("pitaya: %w", err)
		}
		subject = natsUsers(n.FrontendType) + n.UID + natsPush
		if n.Kind == NoticeKick {
			subject = natsUsers(n.FrontendType) + n.UID + natsKick
		}
	case NoticeBind:
		subject = "pitaya/" + n.FrontendType + natsBindings
	default:
		return fmt.Errorf("pitaya: notice of unknown kind %d", n.Kind)
	}
	// On the connection that answers leave by, so that a push that a handler
	// makes is ahead of its answer.
	return t.serving.publish(subject, "", 0, n.Body)
}

// ServerSeen implements [Transport]; there is nothing to do.
func (t *NATSTransport) ServerSeen(*ServerInfo) {}

// ServerGone implements [Transport]; there is nothing to do.
func (t *NATSTransport) ServerGone(*ServerInfo) {}

// Healthy implements [Transport].
func (t *NATSTransport) Healthy() error {
	t.mu.Lock()
	draining, closed := t.draining, t.closed
	t.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("%w: transport closed", ErrUnreachable)
	case draining:
		return errors.New("pitaya: transport takes no more calls")
	}
	for _, s := range t.sides {
		if s.link.Load() == nil {
			return s.unreachable()
		}
	}
	return nil
}

// Drain implements [Transport].
func (t *NATSTransport) Drain(ctx context.Context) error {
	t.mu.Lock()
	t.draining = true
	links := make([]*natsLink, 0, len(t.links))
	for _, l := range t.links {
		if l.side.serves {
			links = append(links, l)
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, l := range links {
		errs = append(errs, t.drain(ctx, l))
	}
	return errors.Join(errs...)
}

func (t *NATSTransport) drain(ctx context.Context, l *natsLink) error {
	t.mu.Lock()
	for _, sub := range l.own {
		// NATS is told to send no more, and what is on the way is let in.
		if sub.Subject != t.inbox+"*" {
			sub.Drain()
		}
	}
	t.mu.Unlock()
	// nats.go wants a deadline.
	limited, cancel := context.WithTimeout(ctx, l.side.cfg.ConnectTimeout)
	defer cancel()
	err := l.flush(limited)
	t.mu.Lock()
	for uid := range l.users {
		t.unsubscribeUserLocked(l, uid)
	}
	t.mu.Unlock()
	if err != nil && !l.nc.IsClosed() {
		return fmt.Errorf("pitaya: draining: %w", err)
	}
	if err := l.mark(ctx); err != nil {
		return fmt.Errorf("pitaya: draining: %w", err)
	}
	return nil
}

// Close implements [Transport]. Answers that have been given are sent before
// the connections end, unless NATS does not take them within
// NATSConfig.ConnectTimeout.
func (t *NATSTransport) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	cancel := t.cancel
	t.mu.Unlock()
	closed := fmt.Errorf("%w: transport closed", ErrUnreachable)
	if cancel == nil {
		// No goroutine was started that could be waited for.
		t.pending.refuse(closed)
		return nil
	}
	cancel()
	for _, s := range t.sides {
		select {
		case <-s.ended:
		case <-ctx.Done():
			// Do not wait for NATS any longer.
			for _, l := range t.abandon(s) {
				l.nc.Close()
			}
			<-s.ended
		}
	}
	t.pending.close(closed)
	return nil
}

// abandon returns the connections of a side.
func (t *NATSTransport) abandon(s *natsSide) []*natsLink {
	t.mu.Lock()
	defer t.mu.Unlock()
	var links []*natsLink
	for _, l := range t.links {
		if l.side == s {
			links = append(links, l)
		}
	}
	return links
}
