package pitaya

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Session is what the server knows of one client connection: who is behind
// it, data that the application keeps with it, and the way to send to it. On the
// server that the client is connected to, a frontend, it lives from the moment
// at which the connection is accepted until it ends, or longer with Config.Resume.
//
// A handler of a message that a frontend forwarded gets a session too. It lives
// as long as the call: a copy of what the frontend knew when it sent the
// message, with the way back to it. What is said here of such sessions, those
// of a backend, is also in the methods' comments.
//
// All methods may be called from any goroutine, during and after the session's
// life; once it has ended those that send to an own client return
// [ErrSessionClosed].
type Session struct {
	// Immutable.
	host  *sessionHost
	front sessionFront // where the connection is; nil on the frontend itself
	id    int64
	notes *sessionNotes // for the debug page; nil: nobody looks

	// life is its context, which is made when somebody wants it, or the session
	// ends; not on a backend, where it is the call's.
	life atomic.Pointer[sessionLife]

	// conn is the connection, or the last one; nil on a backend. It is changed
	// when the session is resumed, with the locks of both connections held.
	conn atomic.Pointer[conn]

	box mailbox

	mu          sync.Mutex // guards the fields below; never held across a callback or while sending
	uid         string
	binding     bool // Bind is at work
	over        bool // the session has ended
	leaving     bool // the server ends, and the session with it when it has handled what it was sent
	admitted    bool // it was in the table, so close callbacks are due
	inflates    bool // the client inflates what is compressed
	pushCodes   bool // the client understands route codes in pushes
	replaced    bool // on a backend: SetData was called, so all of it is to be sent
	drains      bool // the client stops sending when it is told that the server ends
	handshaken  *HandshakeData
	values      map[string]any  // made by dataLocked
	encoded     []byte          // the values as JSON; nil after a change. Never written to.
	changed     map[string]bool // on a backend: keys that the frontend does not know the values of
	onClose     []func()
	resume      *resumption   // nil: the session ends with its connection
	deliveries  *deliveries   // made by delivery
	concurrency chan struct{} // bounds handlers that run beside the mailbox; nil until there is one
	forwarded   chan struct{} // bounds messages under way to other servers; nil until there is one
	order       *sendOrder    // of those; nil until there is one
}

// newSession returns the session of an accepted connection.
func newSession(host *sessionHost, nc net.Conn) *Session {
	s := &Session{host: host, id: host.Table.nextID()}
	s.conn.Store(newConn(nc, host.Conn, s))
	if host.Inspect != nil {
		s.notes = &sessionNotes{Began: time.Now()}
	}
	host.Alive.Add(1)
	return s
}

// admit implements connUser: it makes the session known, unless its address has
// too many already or the connection ended meanwhile.
func (s *Session) admit(c *conn) error {
	var limits *sessionLimits
	if s.host.Limits != nil {
		if limits = s.host.Limits.open(s.RemoteAddr()); limits == nil {
			return s.host.Crowded(s.RemoteAddr())
		}
	}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		if limits != nil {
			limits.close()
		}
		return errConnEnded
	}
	s.admitted, c.Limits = true, limits
	s.host.Table.add(s)
	s.mu.Unlock()
	s.host.Count()
	return nil
}

// ID returns the session's number, unique on this server since its start, and in a cluster also among those that servers
// with its id had before. On a backend it is not that of the frontend, which is [Session.FrontendSessionID].
func (s *Session) ID() int64 { return s.id }

// UID returns the user that the session is bound to, or "".
func (s *Session) UID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uid
}

// RemoteAddr returns the client's address, or its last one: of the socket, or what the PROXY
// header or X-Forwarded-For said, if the acceptor was told to believe it. It is
// nil on a backend.
func (s *Session) RemoteAddr() net.Addr {
	c := s.conn.Load()
	if c == nil {
		return nil
	}
	return c.remoteAddr()
}

// serve brings the session's connection to life and returns when it is closed.
func (s *Session) serve(ctx context.Context) { s.conn.Load().serve(ctx) }

// Context returns a context that ends with the session. [context.Cause] tells
// why: [ErrKicked], [ErrReplaced], [ErrSlowClient], [ErrTooManyRequests],
// [ErrHeartbeat], [ErrHandshakeTimeout], [ErrServerClosed], an error wrapping [ErrProtocol],
// [ErrSessionClosed] after Close, [io.EOF] when the client left, or the error
// of the network. A session that has waited for its client (Config.Resume) ends with
// what its connection was lost of, or an error that wraps it. On a backend it is the context of the call, which ends when
// the handler has returned, when the caller's time is over, or when the frontend
// has given up, if the transport can tell.
func (s *Session) Context() context.Context {
	if s.front != nil {
		return s.front.context()
	}
	return s.begun().ctx
}

// A sessionLife is the context of a session on its frontend.
type sessionLife struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// begun returns the session's life. Most sessions that do nothing have none: it is
// a quarter of what they cost.
func (s *Session) begun() *sessionLife {
	if l := s.life.Load(); l != nil {
		return l
	}
	l := new(sessionLife)
	l.ctx, l.end = context.WithCancelCause(context.Background())
	if !s.life.CompareAndSwap(nil, l) {
		return s.life.Load() // somebody was faster; l is garbage, nothing waits for it
	}
	return l
}

// HandshakeData returns what the client sent in its handshake, nil before it and
// on a backend. It must not be changed.
func (s *Session) HandshakeData() *HandshakeData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handshaken
}

// SetHandshakeData replaces the handshake data.
func (s *Session) SetHandshakeData(h *HandshakeData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshaken = h
}

// LogValue lets a session stand as one attribute of a log record.
func (s *Session) LogValue() slog.Value {
	return slog.GroupValue(slog.Int64("id", s.id), slog.String("uid", s.UID()))
}

// handshake implements connUser.
func (s *Session) handshake(c *conn, body []byte) ([]byte, *pushRing, error) {
	if c.Limits != nil && !c.Limits.handshake() {
		return s.host.Busy, nil, errHandshakeRate
	}
	h, err := s.host.decodeHandshake(body)
	if err != nil {
		s.host.Counters.MalformedHandshakes.Add(1)
		return s.host.Refuse(""), nil, err
	}
	var ask *resumeRequest // nil: the session is to end with its connection
	if s.host.Resumes != nil {
		ask = h.takeResume()
	}
	for _, v := range s.host.Validators {
		if err := s.host.guard("handshake validator "+v.Name, func() error { return v.Check(h) }); err != nil {
			s.host.Counters.InvalidHandshakes.Add(1)
			s.host.Log.Debug("handshake refused", "session", s, "validator", v.Name, "err", err)
			return s.host.Refuse(wireError(err).Message), nil, err
		}
	}
	s.mu.Lock()
	again := s.handshaken != nil
	s.handshaken = h
	s.drains = h.drains()
	s.inflates = s.host.Compress && h.inflates()
	s.pushCodes = s.host.PushCodes(h.knowsPushCodes())
	inflates := s.inflates
	s.mu.Unlock()
	switch {
	case again:
		s.forgoResume()
	case ask != nil:
		return s.agreeResume(c, ask)
	}
	if inflates {
		return s.host.AcceptDeflated, nil, nil
	}
	return s.host.Accept, nil, nil
}

// errHandshakeRate refuses a handshake that was never looked at.
var errHandshakeRate = fmt.Errorf("%w: too many handshakes", ErrTooManyRequests)

// Close ends the session: what is queued is sent, then the connection is
// closed without a kick packet. Closing a session that has ended does nothing.
// On a backend it returns [ErrBackendSession].
func (s *Session) Close() error {
	if s.front != nil {
		return ErrBackendSession
	}
	s.end(ErrSessionClosed, endFlush, nil)
	return nil
}

// OnClose adds a function that runs when the session has ended. They run once,
// in the order in which they were added, before those of
// [Server.OnSessionClose], in a goroutine of the session's own, and not before
// the session's handler that may be at work is done. By then the session is
// not found by id or uid any more, and its context is over, with those of its
// handlers: what needs a context gets another one ([context.WithoutCancel]).
// OnClose returns [ErrSessionClosed] if the session has ended already, and
// [ErrBackendSession] on a backend, where sessions do not end with their
// clients; see [Server.OnSessionEvent].
func (s *Session) OnClose(f func()) error {
	if s.front != nil {
		return ErrBackendSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return ErrSessionClosed
	}
	s.onClose = append(s.onClose, f)
	return nil
}

// finish runs the close callbacks. It is the last thing that the worker does.
func (s *Session) finish() {
	defer s.host.Alive.Done()
	s.mu.Lock()
	own, admitted, uid, resume := s.onClose, s.admitted, s.uid, s.resume
	s.onClose = nil
	s.mu.Unlock()
	if !admitted {
		return
	}
	if limits := s.conn.Load().Limits; limits != nil {
		limits.close()
	}
	s.host.Count()
	if resume != nil {
		resume.awaitNotices()
	}
	if uid != "" && s.host.Cluster != nil {
		// Beside the callbacks: another server may let it wait.
		s.host.Alive.Go(s.host.unbound(s, uid))
	}
	for _, f := range own {
		s.host.guard("close callback", func() error { f(); return nil })
	}
	for _, f := range s.host.OnClose {
		s.host.guard("close callback", func() error { f(s); return nil })
	}
}

// load returns how many messages wait in the mailbox and how many are under
// way to other servers, whether the session's worker is at work, and what waits
// to be sent to the client.
func (s *Session) load() (local, remote int, busy bool, bytes, packets int) {
	local, busy = s.box.load()
	s.mu.Lock()
	remote = len(s.forwarded)
	s.mu.Unlock()
	bytes, packets = s.conn.Load().queueLoad()
	return local, remote, busy, bytes, packets
}

// slots bounds the calls that run beside the session's mailbox.
func (s *Session) slots() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.concurrency == nil {
		s.concurrency = make(chan struct{}, s.host.MailboxMessages)
	}
	return s.concurrency
}

// forwardSlots bounds the session's messages under way to other servers, and
// knows their order.
func (s *Session) forwardSlots() (chan struct{}, *sendOrder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forwarded == nil {
		s.forwarded, s.order = make(chan struct{}, s.host.RemoteMessages), new(sendOrder)
	}
	return s.forwarded, s.order
}

// awaitBeside waits until the calls that run beside the mailbox and the messages
// under way to other servers are done, or the session has ended. It is called by
// the worker, which alone begins them, and begins none after it.
func (s *Session) awaitBeside() {
	s.mu.Lock()
	beside := [...]chan struct{}{s.concurrency, s.forwarded}
	s.mu.Unlock()
	for _, slots := range beside {
		for range cap(slots) {
			select {
			case slots <- struct{}{}:
			case <-s.Context().Done():
				return
			}
		}
	}
}

// noneBeside reports whether no call runs beside the mailbox. Only the worker
// begins them.
func (s *Session) noneBeside() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.concurrency)+len(s.forwarded) == 0
}

// fail ends the session for a reason that is not the client's. One on a backend
// ends by itself.
func (s *Session) fail(cause error) {
	if s.front == nil {
		s.end(cause, endFlush, nil)
	}
}
