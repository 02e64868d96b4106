package pitaya

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
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
// frontend.
type eventSource struct {
	// Immutable.
	node *node
	log  *slog.Logger

	order keyedMutex // by session: what is said of one is said in the order in which it happens

	mu    sync.Mutex       // guards the field below
	known map[int64]string // sessions that were said to be bound, with their users
}

// lock waits for the others that speak of the session.
func (e *eventSource) lock(session int64) (unlock func()) {
	return e.order.lock(strconv.FormatInt(session, 10))
}

func newEventSource(n *node, log *slog.Logger) *eventSource {
	return &eventSource{node: n, log: log, known: make(map[int64]string)}
}

func (e *eventSource) bound(s *Session, uid string) {
	defer e.lock(s.ID())()
	e.mu.Lock()
	e.known[s.ID()] = uid
	e.mu.Unlock()
	e.tell(nil, &rpcEvent{Kind: uint64(SessionBound), Session: s.ID(), UID: uid})
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
	e.tell(nil, &rpcEvent{Kind: uint64(SessionEnded), Session: s.ID(), UID: uid, Reason: reason})
}

// joined tells a server that has come about all bound sessions.
func (e *eventSource) joined(m *member) {
	e.mu.Lock()
	list := slices.Collect(maps.Keys(e.known))
	e.mu.Unlock()
	for _, id := range list {
		e.again(m, id)
	}
}

// again tells a server about a session, if that is bound still.
func (e *eventSource) again(m *member, id int64) {
	defer e.lock(id)()
	e.mu.Lock()
	uid, ok := e.known[id]
	e.mu.Unlock()
	if ok {
		e.tell(m, &rpcEvent{Kind: uint64(SessionBound), Session: id, UID: uid})
	}
}

// ask asks a frontend that was believed to be lost for its sessions.
func (e *eventSource) ask(m *member) {
	ctx := context.Background()
	arg := rpcEvent{FID: e.node.Self().ID}
	body, err := e.node.userRequest(ctx, routeAgain, arg.encode(), e.node.Timeout)
	if err == nil {
		_, err = e.node.ask(ctx, m, routeAgain, e.node.Timeout, body)
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

// tell sends an event to one listener, or to all.
func (e *eventSource) tell(to *member, event *rpcEvent) {
	listeners := e.node.Members.listeners()
	if to != nil {
		listeners = []*member{to}
	}
	if len(listeners) == 0 {
		return
	}
	event.FID = e.node.Self().ID
	ctx := context.Background()
	body, err := e.node.userRequest(ctx, routeEvent, event.encode(), e.node.Timeout)
	if err != nil {
		e.log.Debug("session event not sent", "err", err)
		return
	}
	if e.node.Transport.Ordered() {
		for _, m := range listeners {
			e.node.tell(ctx, m, body)
		}
		return
	}
	// The order of a session's events is kept by waiting.
	var wg sync.WaitGroup
	for _, m := range listeners {
		wg.Go(func() {
			if _, err := e.node.ask(ctx, m, routeEvent, claimTimeout, body); err != nil {
				e.log.Debug("session event not sent", "server", m.Info.ID, "err", err)
			}
		})
	}
	wg.Wait()
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
