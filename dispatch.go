package pitaya

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// dispatcher finds the handler of a message, calls it and answers. Immutable
// while the server runs; its methods are called by the sessions' workers, and
// by those of sessions on other servers.
type dispatcher struct {
	Registry     *registry
	Pipeline     pipeline
	Host         *sessionHost
	Serializer   Serializer // of arguments and results
	Meters       *meters    // nil: there are no reporters
	Spans        *spans     // nil: nothing is traced
	Counters     *counters
	Log          *slog.Logger
	MaxInflated  int
	Unordered    bool
	Validate     bool
	Timeout      time.Duration // for handlers without a limit of their own; 0 is none
	Slow         time.Duration // handlers that take longer are logged; 0 is never
	Slots        chan struct{} // bounds how many handlers run at once; nil is no bound
	Forward      forwarder     // nil: there are no other servers
	Stamped      bool          // requests know when they were read, which may be long before they are handled
	TooMany      []byte        // payload of the answer to requests over a limit
	Inspect      *inspector    // nil: nobody looks
	slowSampling sampler
	lostSampling sampler
}

// forwarder is the layer that knows other servers.
type forwarder interface {
	// forward sends a message to a server of the route's type and sees to its
	// answer. It is called by the session's worker, and the payload is valid
	// until it returns.
	forward(q request, route Route, text string)
}

// request is a message on its way to a handler.
type request struct {
	Session *Session      // nil for a call of a remote
	From    *conn         // that it came by, which the answer goes to; nil if that is another server
	Entry   *handlerEntry // nil if the handler is not here
	Text    string        // the route as it was received; may be empty if it is the entry's
	ID      uint64
	Notify  bool
	Payload []byte
	Arrived time.Time   // when it came; with reporters before its time in the mailbox
	Meter   *routeMeter // of its route; nil without reporters, or if that is not known yet
	Kind    responseKind
	Lent    *buffer         // where the answer to an own client is until it is queued; nil: not in borrowed memory
	Raw     []byte          // what a handler of bytes returned, if no pipeline had to see it
	Call    *callContext    // what the handler had; nil before, and without reporters
	Parent  context.Context // what the handler's context comes from; nil is the session's
	In      *propagated     // what another server sent along; nil for an own client's message
	Refused bool            // a limit was exceeded; it was never pending
	Settled bool            // it is counted how the request ended
	Span    *spanContext    // of an own client's message; nil if nothing is traced
	Watch   *routeCount     // for the debug page; nil: nobody looks
}

// settle counts how a request ended, err being errLost, what it was answered
// with, or nil. Each is counted once.
func (q *request) settle(c *atomic.Int64, err error) {
	q.Settled = true
	c.Add(1)
	if q.From != nil && q.From.Limits != nil && !q.Refused {
		q.From.Limits.settled()
	}
	q.done(err)
}

// end ends a message that gets no answer: its span, and its count on the debug
// page.
func (q *request) end(err error) {
	if q.Span != nil {
		q.Span.end(traceable(err))
	}
	q.done(err)
}

// done tells the debug page how a message ended. Only the first call counts.
func (q *request) done(err error) {
	if q.Watch != nil {
		q.Watch.end(time.Since(q.Arrived), err, loggable(err))
		q.Watch = nil
	}
}

// message implements messageHandler: it decodes a message and handles it
// (client protocol, sections 8.4 and 11.2). Errors are violations of the
// protocol.
func (d *dispatcher) message(s *Session, from mail) error {
	m, err := decodeMessageView(from.Body)
	if err != nil {
		return err
	}
	if m.Type == MessagePush {
		return errClientPush
	}
	if from.Refused != admitted {
		d.refuse(s, from.Conn, m)
		return nil
	}
	var entry *handlerEntry
	var route string // only where it is needed as text
	if m.HasCode {
		var ok bool
		if route, ok = d.Host.Dict.Route(m.Code); !ok {
			return ErrRouteCode
		}
		entry = d.Registry.Entries[route]
	} else {
		entry = d.Registry.Entries[string(m.Route)]
	}
	payload := m.Payload
	if m.Compressed {
		inflated := getBuffer(min(4*len(payload), d.MaxInflated))
		defer inflated.free()
		if inflated.B, err = inflate(inflated.B, payload, d.MaxInflated); err != nil {
			return err
		}
		payload = inflated.B
	}
	q := request{Session: s, From: from.Conn, Entry: entry, Text: route, ID: m.ID, Payload: payload, Arrived: from.Arrived}
	if !d.Stamped {
		q.Arrived = d.Host.now()
	}
	if entry != nil {
		if !m.HasCode {
			// The full route, or it without the type.
			q.Text = entry.Route[len(entry.Route)-len(m.Route):]
		}
		q.Meter = entry.meter(q.Text)
	}
	if d.Inspect != nil {
		q.Watch = d.Inspect.begin(entryRoute(entry))
		s.visit(q.Watch)
	}
	switch m.Type {
	case MessageNotify:
		q.Notify = true
		d.Counters.Notifies.Add(1)
	default:
		d.Counters.Requests.Add(1)
	}
	if entry == nil && route == "" {
		route = string(m.Route)
	}
	if d.Spans != nil {
		d.trace(&q, cmp.Or(q.Text, route))
	}
	if entry == nil {
		d.elsewhere(q, route)
		return nil
	}
	if entry.Concurrent || d.Unordered {
		d.runBeside(q)
		return nil
	}
	d.runGuarded(&q)
	return nil
}

// refuse answers a message that exceeds a limit. It is counted already by which.
func (d *dispatcher) refuse(s *Session, from *conn, m messageView) {
	if d.Inspect != nil {
		d.Inspect.refused()
	}
	if m.Type == MessageNotify {
		d.Counters.Notifies.Add(1)
		return
	}
	d.Counters.Requests.Add(1)
	q := request{Session: s, From: from, ID: m.ID, Refused: true}
	if q.ID == 0 {
		q.settle(&d.Counters.Unanswerable, ErrTooManyRequests)
		return
	}
	d.answerPayload(&q, d.TooMany, ErrTooManyRequests)
}

// errTooMany is what refused requests are answered with.
func errTooMany() error { return Errorf(CodeTooManyRequests, "too many requests") }

// trace begins the span of a client's message. Its end is with its answer, or
// where it is known that there will be none.
func (d *dispatcher) trace(q *request, route string) {
	kind := "request"
	if q.Notify {
		kind = "notify"
	}
	id := newRequestID()
	q.Span = d.Spans.start(q.Session.Context(), route, SpanServer,
		Label{"msg.type", kind}, Label{"user.id", q.Session.UID()}, Label{"request.id", id})
	q.Span.RequestID = id
}

// entryRoute returns the full route of a handler; "" for none.
func entryRoute(e *handlerEntry) string {
	if e == nil {
		return ""
	}
	return e.Route
}

// runGuarded is run, and ends the connection if that does not come to its end:
// if the handler ended its goroutine, or code of the application panicked where
// nothing is left that could be answered.
func (d *dispatcher) runGuarded(q *request) {
	done := false
	defer func() {
		if !done {
			d.broken(q, q.Entry.Route, recover())
		}
	}()
	d.run(q)
	done = true
}

// broken ends the connection of a message that nobody has seen to the end. v is
// what recover has returned.
func (d *dispatcher) broken(q *request, where string, v any) {
	if v != nil {
		d.Host.panicked(where, newRequestID(), v)
	}
	if !q.Notify && !q.Settled {
		q.settle(&d.Counters.Lost, errInternal)
	}
	q.end(errInternal)
	q.Session.fail(errInternal)
}

// errClientPush ends the connection of a client that sends a push.
var errClientPush = fmt.Errorf("%w: push from a client", ErrProtocol)

// elsewhere handles a message that no handler of this server is for. Code of the
// application is called there too: routing functions, and what makes JSON of
// session data.
func (d *dispatcher) elsewhere(q request, text string) {
	done := false
	defer func() {
		if !done {
			d.broken(&q, text, recover())
		}
	}()
	d.sendOn(q, text)
	done = true
}

func (d *dispatcher) sendOn(q request, text string) {
	q.Meter = d.Meters.known(text)
	route, err := ParseRoute(text)
	switch {
	case err != nil:
	case route.ServerType == "" || route.ServerType == d.Registry.serverType:
		err = d.notFound(route)
	case d.Forward == nil:
		err = Errorf(CodeInternal, textNoServers)
	default:
		d.Forward.forward(q, route, text)
		return
	}
	d.fail(&q, err)
	if q.Notify {
		q.report(err)
	}
}

// notFound is the error for a route of this server's type that has no handler.
func (d *dispatcher) notFound(route Route) error {
	if route.ServerType == "" {
		route.ServerType = d.Registry.serverType
	}
	return Errorf(CodeNotFound, "pitaya/handler: %s not found", route)
}

// runBeside runs a call in a goroutine of its own. If the session has as many
// of them as it may, it waits, and with it the session's mailbox.
func (d *dispatcher) runBeside(q request) {
	s := q.Session
	slots := s.slots()
	select {
	case slots <- struct{}{}:
	case <-s.Context().Done():
		d.lost(&q)
		return
	}
	q.Payload = append([]byte(nil), q.Payload...) // the worker moves on
	d.Host.Alive.Go(func() {
		defer s.leaveBeside(slots)
		d.runGuarded(&q)
		q.From.flush()
	})
}

// lost counts a message that waited for its turn when its session ended.
func (d *dispatcher) lost(q *request) {
	q.end(errLost)
	if !q.Notify {
		q.settle(&d.Counters.Lost, errLost)
		return
	}
	d.Counters.NotifiesLost.Add(1)
	if n, ok := d.lostSampling.pass(); ok {
		d.Log.Info("notify lost, because its session ended before its turn", "session", q.Session, "unlogged", n)
	}
}

// handle calls the handler, and serializes what it returns. For a notify there
// is no payload.
func (d *dispatcher) handle(q *request) (payload []byte, err error) {
	if d.Slots != nil {
		d.Slots <- struct{}{}
		defer func() { <-d.Slots }()
	}
	waited := time.Duration(0) // in the mailbox and for a slot, which is not the handler's time
	if d.Stamped || d.Slots != nil || q.Meter != nil {
		waited = time.Since(q.Arrived)
	}
	if limit := d.limit(q.Entry); limit > 0 && waited > limit && !q.Notify {
		d.Counters.refuse(refusedDeadline)
		return nil, Errorf(CodeTimeout, "the request has waited longer than its handler may take")
	}
	if q.Meter != nil {
		switch q.Kind {
		case responseHandler:
			q.Meter.delay(delayLocal, waited, nil)
		case responseForwarded:
			q.Meter.delay(delayForwarded, waited, q.In.tags())
		}
	}
	out, err := d.call(q)
	if d.Slow > 0 {
		if took := time.Since(q.Arrived) - waited; took > d.Slow {
			d.Counters.SlowHandlers.Add(1)
			if n, ok := d.slowSampling.pass(); ok {
				d.log(q).Warn("slow handler", "route", q.Entry.Route, "took", took, "unlogged", n)
			}
		}
	}
	if q.Notify {
		if err != nil {
			d.log(q).Debug("notify failed", "route", q.Entry.Route, "err", loggable(err))
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if q.Raw != nil {
		return q.Raw, nil
	}
	if payload, ok := out.([]byte); ok {
		return payload, nil
	}
	if l, ok := lends(d.Serializer); ok && q.From != nil {
		if q.Lent, err = d.Host.marshalLent(l, out); err == nil {
			return q.Lent.B, nil
		}
	} else {
		payload, err = d.Host.marshalWith(d.Serializer, out)
	}
	if err != nil {
		d.Log.Error("result cannot be serialized", "route", q.Entry.Route, "err", err)
	}
	return payload, err
}

// before runs the functions before a handler. What they make of the argument is
// to be of its type.
func (d *dispatcher) before(ctx context.Context, e *handlerEntry, in any) (context.Context, any, error) {
	ctx, in, err := d.Pipeline.before(ctx, in)
	if err == nil && e.Check != nil && !e.Check(in) {
		err = Errorf(CodeInternal, "a function before the handler returned an argument of another type")
	}
	return ctx, in, err
}

// limit returns the time that a handler has for one message, 0 or less if there
// is no limit.
func (d *dispatcher) limit(e *handlerEntry) time.Duration {
	if e.Timeout == 0 {
		return d.Timeout
	}
	return e.Timeout
}

// log returns the logger for what concerns a message.
func (d *dispatcher) log(q *request) *slog.Logger {
	if q.Session == nil {
		return d.Log
	}
	return d.Log.With("session", q.Session)
}

// run calls the handler and answers.
func (d *dispatcher) run(q *request) {
	payload, err := d.handle(q)
	if q.Notify {
		q.done(err)
		q.report(err)
		return
	}
	if err != nil {
		d.fail(q, err)
		return
	}
	d.reply(q, payload)
	if q.Lent != nil {
		q.Lent.free()
	}
}

// Texts that clients of the family know.
const (
	textNotifyRoute = "tried to request a notify route"
	textNilReply    = "reply must not be null"
	textNoServers   = "no servers available of this type"
)

// call decodes the argument and runs pipelines and handler. A panic anywhere in
// it is an error.
func (d *dispatcher) call(q *request) (out any, err error) {
	parent := q.Parent
	switch {
	case parent != nil:
	case q.Span != nil:
		parent = q.Span
	default:
		parent = q.Session.Context()
	}
	call := &callContext{Context: parent, Session: q.Session, Route: q.Entry.Route, Text: q.Text, Log: d.Log, Start: q.Arrived, In: q.In}
	if q.Meter != nil {
		q.Call = call
	}
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, d.Host.panicked(q.Entry.Route, call.RequestID(), v)
		}
	}()
	e := q.Entry
	if e.Notify && !q.Notify {
		return nil, Errorf(CodeBadRequest, textNotifyRoute)
	}
	if e.Bound && q.Session != nil && q.Session.UID() == "" {
		return nil, Errorf(CodeUnbound, "session is not bound to a user")
	}
	// Where nobody else wants to see bytes, they spare being made values of an interface, which costs an allocation each.
	plain := e.Raw != nil && len(d.Pipeline.Before) == 0 && len(d.Pipeline.After) == 0
	var in any
	var raw []byte
	switch e.Arg {
	case argRaw:
		// The handler may keep it, the worker's buffer goes back to its pool.
		if raw = append([]byte{}, q.Payload...); !plain {
			in = raw
		}
	case argTyped:
		in = e.New()
		if err := d.Serializer.Unmarshal(q.Payload, in); err != nil {
			return nil, NewError(argumentError{err}, CodeBadRequest)
		}
	}
	if limit := d.limit(e); limit > 0 {
		var cancel context.CancelFunc
		parent, cancel = context.WithTimeout(parent, limit)
		defer cancel()
		call.Context = parent
	}
	var ctx context.Context = call
	if d.Validate {
		if v, ok := in.(validator); ok {
			if err := v.Validate(); err != nil {
				return nil, err
			}
		}
	}
	if len(d.Pipeline.Before) > 0 {
		if ctx, in, err = d.before(ctx, e, in); err != nil {
			return nil, err
		}
	}
	if plain {
		if q.Raw, err = e.Raw(ctx, raw); err == nil && q.Raw == nil && !e.Notify {
			err = Errorf(CodeUnknown, textNilReply)
		}
		return nil, err
	}
	out, err = e.Call(ctx, in)
	if err == nil && out == nil && !e.Notify {
		err = Errorf(CodeUnknown, textNilReply)
	}
	if len(d.Pipeline.After) > 0 {
		out, err = d.Pipeline.after(ctx, out, err)
		if err == nil && out == nil && !e.Notify {
			err = Errorf(CodeUnknown, textNilReply)
		}
	}
	return out, err
}
