package pitaya

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// A SessionEventKind says what happened to a session.
type SessionEventKind uint8

const (
	// SessionBound says that a session was bound to a user. When a server that
	// listens to events joins the cluster, it is said again of all sessions
	// that are bound; and of those of a frontend that was lost, if it comes back
	// because it had been missing in discovery only.
	SessionBound SessionEventKind = iota + 1
	// SessionEnded says that a bound session has ended.
	SessionEnded
	// FrontendLost says that a frontend has gone without having said so, and
	// all of its sessions with it. It is reported when discovery notices that,
	// which takes up to the lease's time after a crash.
	FrontendLost
)

// A SessionEvent tells a server about the sessions of a frontend; see
// [Server.OnSessionEvent].
type SessionEvent struct {
	Kind       SessionEventKind
	FrontendID string
	SessionID  int64  // on the frontend; 0 for FrontendLost
	UID        string // empty for FrontendLost
	Reason     string // why the session ended, in words for logs
}

// eventSource tells the servers that listen about the sessions of this
// frontend. Nobody waits for them but the server's end: where the transport does
// not keep the order, each listener has lines of events on their way to it.
type eventSource struct {
	// Immutable.
	node *node
	log  *slog.Logger
	ctx  context.Context // ends when the server leaves: nothing is told again then
	stop context.CancelFunc

	order [eventLines]sync.Mutex // by session: what is said of one is said in the order in which it happens

	mu      sync.Mutex       // guards the fields below, and the lines; taken last
	known   map[int64]string // sessions that were said to be bound, with their users
	lines   map[eventLineKey]*eventLine
	leaving bool
	idle    chan struct{} // closed when there are no lines; nil if nobody waits
}

const (
	// eventLines is how many events are under way to one listener at a time.
	eventLines = 16
	// eventLineLength bounds the events that wait in one line.
	eventLineLength = maxEvents / eventLines
)

// eventLineKey is a listener and one of its lines. A session is always in the
// same one.
type eventLineKey struct {
	listener string
	line     uint64
}

// eventLine are events for one listener: one is under way, the others wait. It
// exists while there is one under way.
type eventLine struct {
	waiting []eventOut
	lost    int // since it began
}

// An eventOut is an event on its way to one listener.
type eventOut struct {
	to   *member
	body []byte
	sent chan<- error // has room; nil: nobody waits
}

func newEventSource(n *node, log *slog.Logger) *eventSource {
	e := &eventSource{node: n, log: log, known: make(map[int64]string), lines: make(map[eventLineKey]*eventLine)}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// eventLineOf returns the line that a session is in.
func eventLineOf(session int64) uint64 { return uint64(session) % eventLines }

// lock waits for the others that speak of the session. It is not held while
// anything waits for a listener.
func (e *eventSource) lock(session int64) (unlock func()) {
	mu := &e.order[eventLineOf(session)]
	mu.Lock()
	return mu.Unlock
}

// bound is told of a session that was bound. It says nothing, and reports so, if
// that is over already: here, or else ended would come before it and find
// nothing.
func (e *eventSource) bound(s *Session, uid string, still func() bool) bool {
	defer e.lock(s.ID())()
	if !still() {
		return false
	}
	e.mu.Lock()
	e.known[s.ID()] = uid
	e.mu.Unlock()
	e.tell(&rpcEvent{Kind: uint64(SessionBound), Session: s.ID(), UID: uid})
	return true
}

// ended is told of a session that is not bound any more, if it was.
func (e *eventSource) ended(s *Session) {
	defer e.lock(s.ID())()
	e.mu.Lock()
	uid, ok := e.known[s.ID()]
	delete(e.known, s.ID())
	e.mu.Unlock()
	if !ok {
		return
	}
	reason := ""
	if cause := context.Cause(s.Context()); cause != nil {
		reason = validText(cause.Error())
	}
	e.tell(&rpcEvent{Kind: uint64(SessionEnded), Session: s.ID(), UID: uid, Reason: reason})
}

// joined tells a server that has come about all bound sessions, one by one. It
// gives up when the server cannot be told, or this one leaves.
func (e *eventSource) joined(m *member) {
	e.mu.Lock()
	list := slices.Collect(maps.Keys(e.known))
	e.mu.Unlock()
	for _, id := range list {
		if err := e.again(m, id); err != nil {
			e.log.Debug("session events not said again", "server", m.Info.ID, "err", err)
			return
		}
	}
}

// again tells a server about a session, if that is bound still, and waits until
// it has been told.
func (e *eventSource) again(m *member, id int64) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	sent := make(chan error, 1)
	unlock := e.lock(id)
	e.mu.Lock()
	uid, ok := e.known[id]
	e.mu.Unlock()
	if !ok {
		unlock()
		return nil
	}
	event := &rpcEvent{Kind: uint64(SessionBound), Session: id, UID: uid}
	if body := e.encode(event); body != nil {
		e.send(id, eventOut{m, body, sent})
	} else {
		sent <- nil
	}
	unlock()
	select {
	case err := <-sent:
		return err
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

// ask asks a frontend that was believed to be lost for its sessions.
func (e *eventSource) ask(m *member) {
	arg := rpcEvent{FID: e.node.Self().ID}
	body, err := e.node.userRequest(e.ctx, routeAgain, arg.encode(), e.node.Timeout)
	if err == nil {
		_, err = e.node.ask(e.ctx, m, routeAgain, e.node.Timeout, body)
	}
	if err != nil {
		e.log.Debug("session events not asked for", "server", m.Info.ID, "err", err)
	}
}

// sysAgain tells a server that has asked about all bound sessions.
func (b *backend) sysAgain(c *incoming) ([]byte, error) {
	var arg rpcEvent
	if err := arg.decode(c.req.Msg.Data); err != nil {
		return nil, NewError(err, CodeBadRequest)
	}
	if m := b.node.Members.get(arg.FID); m != nil {
		b.source.joined(m)
	}
	return []byte(ackResponse), nil
}

// encode makes the call that tells an event, nil if it cannot be made.
func (e *eventSource) encode(event *rpcEvent) []byte {
	event.FID = e.node.Self().ID
	body, err := e.node.userRequest(context.Background(), routeEvent, event.encode(), e.node.Timeout)
	if err != nil {
		e.log.Debug("session event not sent", "err", err)
		return nil
	}
	return body
}

// tell sends an event on its way to all listeners. The session's lock is held.
func (e *eventSource) tell(event *rpcEvent) {
	listeners := e.node.Members.listeners()
	if len(listeners) == 0 {
		return
	}
	if body := e.encode(event); body != nil {
		for _, m := range listeners {
			e.send(event.Session, eventOut{to: m, body: body})
		}
	}
}

// send sends an event about a session on its way to one listener.
func (e *eventSource) send(session int64, o eventOut) {
	if e.node.Transport.Ordered() {
		e.node.tell(context.Background(), o.to, o.body)
		o.done(nil)
		return
	}
	key := eventLineKey{o.to.Info.ID, eventLineOf(session)}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines[key]
	switch {
	case l == nil:
		l = new(eventLine)
		e.lines[key] = l
		go e.run(key, l, o)
	case len(l.waiting) >= eventLineLength:
		if l.lost++; l.lost == 1 {
			e.log.Error("session events are lost, because those before are not taken in time", "server", key.listener)
		}
		o.done(ErrNoAnswer)
	default:
		l.waiting = append(l.waiting, o)
	}
}

// done tells who waits for it.
func (o eventOut) done(err error) {
	if o.sent != nil {
		o.sent <- err
	}
}

// run sends the events of a line, one after the other.
func (e *eventSource) run(key eventLineKey, l *eventLine, o eventOut) {
	for ok := true; ok; o, ok = e.next(key, l) {
		_, err := e.node.ask(context.Background(), o.to, routeEvent, claimTimeout, o.body)
		o.done(err)
		if err != nil {
			e.log.Debug("session event not sent", "server", key.listener, "err", err)
			e.failed(l)
		}
	}
}

// next takes an event out of a line, and the line away if there is none.
func (e *eventSource) next(key eventLineKey, l *eventLine) (o eventOut, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(l.waiting) == 0 {
		delete(e.lines, key)
		if len(e.lines) == 0 && e.idle != nil {
			close(e.idle)
			e.idle = nil
		}
		return o, false
	}
	o = l.waiting[0]
	l.waiting[0] = eventOut{}
	l.waiting = l.waiting[1:]
	return o, true
}

// failed gives up a line to a server that does not take events, if this one is
// about to leave and cannot try for long.
func (e *eventSource) failed(l *eventLine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.leaving {
		return
	}
	for _, o := range l.waiting {
		o.done(ErrNoAnswer)
	}
	l.waiting = nil
}

// close returns when nothing is on its way any more. It is called when the
// transport is closed, which fails what was, if leave has not waited for that.
func (e *eventSource) close() { _ = e.leave(context.Background()) }

// leave returns when the events that are on their way have arrived, or ctx ends.
func (e *eventSource) leave(ctx context.Context) error {
	e.stop()
	e.mu.Lock()
	e.leaving = true
	if len(e.lines) == 0 {
		e.mu.Unlock()
		return nil
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// eventQueue gives events to the application, one at a time and in order.
type eventQueue[E any] struct {
	// Immutable.
	what     string // for the log
	handlers []func(E)
	guard    func(what string, f func() error) error
	log      *slog.Logger

	mu      sync.Mutex // guards the fields below
	waiting []E
	running bool
	lost    int
	idle    chan struct{} // closed when there is nothing to do; nil if nobody waits
}

func newEventQueue[E any](what string, handlers []func(E), host *sessionHost) *eventQueue[E] {
	return &eventQueue[E]{what: what, handlers: handlers, guard: host.guard, log: host.Log}
}

// maxEvents bounds the events that wait for the application.
const maxEvents = 1 << 16

// wanted reports whether the application listens.
func (q *eventQueue[E]) wanted() bool { return q != nil && len(q.handlers) > 0 }

// add sends an event on its way. It does not block.
func (q *eventQueue[E]) add(event E) {
	if !q.wanted() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxEvents {
		if q.lost++; q.lost == 1 {
			q.log.Error("events are lost, because those before are not handled in time", "kind", q.what)
		}
		return
	}
	q.waiting = append(q.waiting, event)
	if !q.running {
		q.running = true
		go q.run()
	}
}

func (q *eventQueue[E]) run() {
	done := false
	defer func() {
		if !done {
			go q.run() // a handler ended its goroutine
		}
	}()
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running, q.lost, q.waiting = false, 0, nil
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			q.mu.Unlock()
			done = true
			return
		}
		event := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		for _, f := range q.handlers {
			q.guard(q.what, func() error { f(event); return nil })
		}
	}
}

// wait returns when all events have been handled, or ctx ends.
func (q *eventQueue[E]) wait(ctx context.Context) error {
	q.mu.Lock()
	if !q.running {
		q.mu.Unlock()
		return nil
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sysEvent takes an event from a frontend.
func (b *backend) sysEvent(c *incoming) ([]byte, error) {
	var arg rpcEvent
	if err := arg.decode(c.req.Msg.Data); err != nil {
		return nil, NewError(err, CodeBadRequest)
	}
	kind := SessionEventKind(arg.Kind)
	if kind == SessionBound || kind == SessionEnded {
		b.events.add(SessionEvent{Kind: kind, FrontendID: arg.FID, SessionID: arg.Session, UID: arg.UID, Reason: arg.Reason})
	}
	return []byte(ackResponse), nil
}
