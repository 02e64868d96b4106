package pitaya

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// forwards are the clients' messages under way to other servers. A message
// holds no goroutine while it waits for its answer.
type forwards struct {
	// Immutable.
	node *node
	d    *dispatcher

	mu    sync.Mutex // guards the field below and the lanes; never held while calling
	lanes map[forwardLaneKey]*forwardLane
}

// forwardLaneKey is a session and one server that it sends to.
type forwardLaneKey struct {
	session int64
	server  string
}

// forwardLane keeps the order of such messages where the transport does not:
// one is under way, the others wait. It exists while there is one under way.
type forwardLane struct {
	waiting []*forward
}

// A forward is one message under way.
type forward struct {
	fs      *forwards
	q       request
	route   Route
	text    string // the route as the client wrote it
	body    []byte // the protos.Request
	to      *member
	lane    bool // it is the one under way in its lane
	tried   []*member
	slots   chan struct{} // it holds one
	order   *sendOrder    // of the session's messages
	number  uint64        // its place there
	begin   time.Time     // when it was sent; only with reporters
	since   time.Time     // when it began to wait for its turn in a lane; zero if it did not
	context context.Context
	span    *spanContext // of the call of to; nil if nothing is traced
}

func newForwards(n *node, d *dispatcher) *forwards {
	return &forwards{node: n, d: d, lanes: make(map[forwardLaneKey]*forwardLane)}
}

// forwardTries is how many servers a message is offered to. Another one is
// tried only if the one before cannot have got it.
const forwardTries = 3

// forward implements forwarder. As many messages of one session as
// Config.RemoteMessages are under way at once; when there are more, the
// session's mailbox waits, and nobody else does.
func (fs *forwards) forward(q request, route Route, text string) {
	s := q.Session
	if q.Watch != nil {
		q.Watch = fs.d.Inspect.forwarded(q.Watch, text)
		s.visit(q.Watch)
	}
	slots, order := s.forwardSlots()
	select {
	case slots <- struct{}{}:
	case <-s.Context().Done():
		fs.d.lost(&q)
		return
	}
	f := &forward{fs: fs, q: q, route: route, text: text, slots: slots, order: order}
	sent := false
	defer func() {
		if !sent { // code of the application panicked or ended the goroutine, which is the caller's matter
			f.span.end(errInternal)
			f.end()
		}
	}()
	// A request is of no more use when the client has left, if that can be
	// told. A notify was sent to be handled whatever comes after it.
	f.context = s.Context()
	if q.Notify || !fs.node.Cancels {
		f.context = context.Background()
	}
	to, err := fs.node.route(f.routing(), route, q.Payload, nil)
	if err != nil {
		sent = true
		f.fail(err)
		return
	}
	q.Meter.delay(delayRemote, time.Since(q.Arrived), nil)
	f.trace(to)
	f.body = f.encode()
	fs.d.Counters.Forwards.Add(1)
	f.q.Payload = nil // the worker moves on
	sent = true
	var rest <-chan struct{}
	if f.number, rest = order.next(to.Info.ID); rest != nil {
		<-rest
	}
	f.send(to)
}

// routing returns the context for a routing function, if there is one.
func (f *forward) routing() context.Context {
	if f.fs.node.Routes[f.route.ServerType] == nil {
		return f.context
	}
	return &callContext{Context: f.q.Span.on(f.context), Session: f.q.Session, Route: f.text, Log: f.fs.d.Log, Start: f.q.Arrived}
}

// trace begins the span of the call of a server.
func (f *forward) trace(to *member) {
	if n := f.fs.node; n.Spans != nil {
		f.span = n.startCall(f.q.Span.on(f.context), n.callSpan, to.Info)
	}
}

// metadata is what travels with the message.
func (f *forward) metadata(b []byte) []byte {
	n, self := f.fs.node, f.fs.node.Self()
	if f.span == nil {
		return appendForwarded(b, self.ID, self.Type, f.text, newRequestID(), f.q.Arrived, n.Timeout, nil)
	}
	return appendForwarded(b, self.ID, self.Type, f.text, f.q.Span.RequestID, f.q.Arrived, n.Timeout, n.Spans.inject(f.span))
}

// encode makes the protos.Request of a client's message (cluster protocol,
// section 3.2).
func (f *forward) encode() []byte {
	self, q := f.fs.node.Self(), &f.q
	var room [256]byte
	r := rpcRequest{
		Type:       rpcSys,
		HasSession: true,
		Session:    rpcSession{ID: q.Session.ID(), UID: []byte(q.Session.UID()), Data: q.Session.encodedData()},
		Msg:        rpcMsg{ID: q.ID, Route: []byte(f.text), Data: q.Payload},
		Metadata:   f.metadata(room[:0]),
	}
	if self.Frontend {
		r.FrontendID = []byte(self.ID)
	}
	if q.Notify {
		r.Msg.ID, r.Msg.Type = 0, rpcMsgNotify
	}
	return r.encode()
}

// send calls the server, or lets the message wait for its turn.
func (f *forward) send(to *member) {
	f.to = to
	f.tried = append(f.tried, to)
	if f.fs.node.Transport.Ordered() || f.fs.d.Unordered {
		f.call()
		return
	}
	fs, key := f.fs, forwardLaneKey{f.q.Session.ID(), to.Info.ID}
	fs.mu.Lock()
	if lane := fs.lanes[key]; lane != nil {
		if f.since.IsZero() {
			f.since = time.Now()
		}
		lane.waiting = append(lane.waiting, f)
		fs.mu.Unlock()
		return
	}
	fs.lanes[key] = new(forwardLane)
	f.lane = true
	fs.mu.Unlock()
	f.call()
}

// left is the time that the server has for its answer. The wait for a turn is
// part of it, as it is where the server keeps the order: else a client that has
// sent many messages to one that hangs would get the last answer after as many
// timeouts.
func (f *forward) left() time.Duration {
	limit := f.fs.node.Timeout
	if !f.since.IsZero() {
		limit -= time.Since(f.since)
	}
	return limit
}

func (f *forward) call() {
	if f.q.Meter != nil {
		f.begin = time.Now()
	}
	f.fs.node.call(f.context, f.to, f.left(), f.body, f.done)
}

// leave lets the next message of the lane go whose time is not over.
func (f *forward) leave() {
	if !f.lane {
		return
	}
	f.lane = false
	fs, key := f.fs, forwardLaneKey{f.q.Session.ID(), f.to.Info.ID}
	for {
		fs.mu.Lock()
		lane := fs.lanes[key]
		if len(lane.waiting) == 0 {
			delete(fs.lanes, key)
			fs.mu.Unlock()
			return
		}
		next := lane.waiting[0]
		lane.waiting = lane.waiting[1:]
		fs.mu.Unlock()
		if next.left() > 0 {
			next.lane = true
			next.call()
			return
		}
		payload, err := fs.node.result(nil, context.DeadlineExceeded, next.to, next.text, fs.node.Timeout)
		next.deliver(payload, err)
	}
}

// done is called in a goroutine of the transport's when the server has answered
// or cannot.
func (f *forward) done(response []byte, err error) {
	unreachable := errors.Is(err, ErrUnreachable)
	payload, err := f.fs.node.result(response, err, f.to, f.text, f.fs.node.Timeout)
	f.report(err)
	f.span.end(err)
	if unreachable && f.again() {
		return
	}
	if f.q.Watch != nil {
		f.q.Watch = f.fs.d.Inspect.answered(f.q.Watch, f.text, err)
	}
	// The answer first: the next message of the lane may be answered at once.
	f.deliver(payload, err)
	f.leave()
}

// deliver gives the client what came of the message, behind what was sent before.
func (f *forward) deliver(payload []byte, err error) {
	f.q.Session.deliver(len(payload), func() { f.answer(payload, err) })
}

// report tells the reporters of the call to the other server.
func (f *forward) report(err error) {
	if f.q.Meter == nil {
		return
	}
	if provesRoute(err) { // a client can make up any
		f.q.Meter = f.fs.d.Meters.learn(f.text)
	}
	f.q.Meter.response(responseRPC, ErrorCode(err), nil).report(time.Since(f.begin))
}

// again offers the message to another server. The one before has not got it.
func (f *forward) again() bool {
	if len(f.tried) >= forwardTries || !f.q.Notify && f.q.Session.Context().Err() != nil {
		return false
	}
	var r rpcRequest
	if r.decode(f.body) != nil {
		return false
	}
	to, sent := f.next(r.Msg.Data)
	if to == nil {
		return false
	}
	defer sent()
	// First the next one's turn would come, and it could overtake this one.
	left := *f
	f.lane = false
	if f.span != nil {
		f.trace(to)
		r.Metadata = f.metadata(nil) // names the span of this call
		f.body = r.encode()
	}
	f.send(to)
	left.leave()
	return true
}

// next chooses another server that was not sent a later message of the session; nil if there is none. The function
// returned is to be called once it has been sent this one.
func (f *forward) next(payload []byte) (to *member, sent func()) {
	for len(f.tried) < forwardTries {
		to, err := f.reroute(payload)
		if err != nil || slices.ContainsFunc(f.tried, func(m *member) bool { return m.Info.ID == to.Info.ID }) {
			break
		}
		if f.fs.d.Unordered {
			return to, func() {}
		}
		if sent, ok := f.order.repeat(to.Info.ID, f.number); ok {
			return to, sent
		}
		f.tried = append(f.tried, to)
	}
	return nil, nil
}

// reroute chooses another server. It is called in a goroutine of the transport's,
// which a routing function must not end.
func (f *forward) reroute(payload []byte) (to *member, err error) {
	n := f.fs.node
	if n.Routes[f.route.ServerType] == nil {
		return n.route(f.context, f.route, payload, f.tried)
	}
	if !apart(func() { to, err = n.route(f.routing(), f.route, payload, f.tried) }) {
		return nil, errNoServers()
	}
	return to, err
}

// answer gives the client what the server has answered, and ends the forward.
func (f *forward) answer(payload []byte, err error) {
	if err != nil {
		f.fail(err)
		return
	}
	defer f.end()
	if f.q.Notify {
		f.q.end(nil)
		return
	}
	f.fs.d.reply(&f.q, payload)
	f.q.From.start()
}

func (f *forward) fail(err error) {
	defer f.end()
	if !f.q.Notify && f.q.Session.Context().Err() != nil { // nobody is there to be told
		f.q.settle(&f.fs.d.Counters.Lost, errLost)
		f.q.end(err)
		return
	}
	f.fs.d.Log.Debug("message not forwarded", "session", f.q.Session, "route", f.text, "err", err)
	f.fs.d.fail(&f.q, err)
	f.q.From.start()
}

// end lets the session send another message.
func (f *forward) end() { f.q.Session.leaveBeside(f.slots) }
