package pitaya

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// backend serves what other servers send to this one. It is a
// [TransportHandler].
type backend struct {
	// Immutable.
	node     *node
	host     *sessionHost
	handlers *dispatcher
	remotes  *dispatcher
	sys      map[string]sysRemote
	unique   *claims                   // nil: a user may have several sessions
	events   *eventQueue[SessionEvent] // nil: the application does not listen
	source   *eventSource              // what this server tells of its own sessions
	log      *slog.Logger
	refused  sampler // of log records

	mu    sync.Mutex // guards the fields below
	lanes map[laneKey]*lane
	calls int           // being served
	bytes int           // of the bodies of these calls
	idle  chan struct{} // closed when calls is 0; nil if nobody waits
}

// newBackend returns a backend whose handlers and remotes are called by the two
// dispatchers. unique may be nil.
func newBackend(n *node, handlers, remotes *dispatcher, unique *claims, source *eventSource, events *eventQueue[SessionEvent]) *backend {
	b := &backend{
		node:     n,
		host:     handlers.Host,
		handlers: handlers,
		remotes:  remotes,
		unique:   unique,
		events:   events,
		source:   source,
		log:      n.Log,
		lanes:    make(map[laneKey]*lane),
	}
	b.sys = b.sysRemotes()
	return b
}

// laneKey is a session of a frontend.
type laneKey struct {
	frontend string
	session  int64
}

// lane holds the messages of one such session until its worker handles them,
// one at a time and in order. It exists while it has a worker.
type lane struct {
	waiting []*incoming
}

const (
	// laneMessages bounds what may wait for one session. A frontend of this
	// library has far less under way.
	laneMessages = 1 << 10
	// maxIncoming bounds the calls that are served or wait. Beyond it a flood
	// would end the process for want of memory.
	maxIncoming = 1 << 16
	// maxIncomingBytes bounds what is in them. A single call may always come in.
	maxIncomingBytes = 256 << 20
)

// An incoming is one call from another server.
type incoming struct {
	incomingContext // of the call; begun by limit

	b        *backend
	size     int             // of the body
	outer    context.Context // the transport's
	reply    func(response []byte)
	answered atomic.Bool
	req      rpcRequest
	in       *propagated
	entry    *handlerEntry
	arrived  time.Time
	span     *spanContext // nil if nothing is traced
}

// expireSlack is how far the deadline that a transport carries may be from the
// time in the call's metadata, when both are the same time of the same caller.
const expireSlack = time.Second

// Texts of refusals that other servers know.
const (
	textNoContext   = "no context found"
	textBadRoute    = "cannot decode route"
	textBadRPCType  = "invalid rpc type"
	textNoRemote    = "route not found"
	textOverloaded  = "too many calls are waiting"
	rpcNotifyAnswer = "ack"
)

// HandleCall implements TransportHandler (cluster protocol, section 3.3).
func (b *backend) HandleCall(ctx context.Context, body []byte, reply func(response []byte)) {
	c := &incoming{b: b, size: len(body), outer: ctx, reply: reply, arrived: time.Now()}
	if err := c.req.decode(body); err != nil || !c.req.HasMsg {
		b.drop("call", err)
		reply(nil)
		return
	}
	b.host.Counters.Calls.Add(1)
	if !b.begin(c.size) {
		c.answer(nil, Errorf(CodeInternal, textOverloaded))
		return
	}
	if !c.start() {
		c.close()
	}
}

// drop logs what is not understood. It is the peer's fault, and may come often.
func (b *backend) drop(what string, err error) {
	if n, ok := b.refused.pass(); ok {
		if err == nil {
			err = errEnvelope
		}
		b.log.Warn("message from another server dropped", "kind", what, "err", err, "unlogged", n)
	}
}

// begin counts a call that is served from now on.
func (b *backend) begin(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls >= maxIncoming || b.calls > 0 && b.bytes+size > maxIncomingBytes {
		return false
	}
	b.calls++
	b.bytes += size
	return true
}

// load returns how many calls are being served or wait.
func (b *backend) load() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// wait returns when no call is served or waits any more, or ctx ends.
func (b *backend) wait(ctx context.Context) error {
	b.mu.Lock()
	if b.calls == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close is begin's other half.
func (c *incoming) close() {
	c.end(context.Canceled)
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls--
	b.bytes -= c.size
	if b.calls == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

// start sends a call on its way. If it reports false the call has been
// answered.
func (c *incoming) start() bool {
	b := c.b
	if len(c.req.Metadata) == 0 {
		return c.refuseContext(Errorf(CodeInternal, textNoContext))
	}
	var err error
	if c.in, err = decodePropagated(c.req.Metadata); err != nil {
		return c.refuseContext(NewError(err, CodeInternal))
	}
	if b.node.Spans != nil {
		c.trace()
	}
	text := c.req.Msg.Route
	metadata := map[string]string{"route": string(text)}
	var route Route
	if c.req.Type == rpcSys {
		c.entry = b.handlers.Registry.Entries[string(text)]
	}
	if c.entry == nil {
		if route, err = ParseRoute(string(text)); err != nil {
			return c.refuse(&Error{Code: CodeBadRequest, Message: textBadRoute, Metadata: metadata, Err: err})
		}
	}
	switch c.req.Type {
	case rpcSys:
		if c.entry == nil {
			c.entry = b.handlers.Registry.Entries[route.Short()]
		}
		if c.entry == nil {
			return c.refuse(b.handlers.notFound(route))
		}
		if err := checkSessionData(c.req.Session.Data); err != nil {
			return c.refuse(NewError(err, CodeInternal))
		}
		c.limit()
		if c.entry.Concurrent || b.handlers.Unordered {
			go c.runBeside((*incoming).handle)
			return true
		}
		return b.file(c)
	case rpcUser:
		if sys, ok := b.sys[route.Short()]; ok {
			c.limit()
			call, inline := sys.Call, sys.Inline
			if sys.Begin != nil {
				var rest func() ([]byte, error)
				rest, inline = sys.Begin(c)
				call = func(*incoming) ([]byte, error) { return rest() }
			}
			if inline {
				c.run(func(c *incoming) { c.answer(call(c)) })
			} else {
				go c.runBeside(func(c *incoming) { c.answer(call(c)) })
			}
			return true
		}
		if c.entry = b.remotes.Registry.Entries[route.Short()]; c.entry == nil {
			return c.refuse(&Error{Code: CodeNotFound, Message: textNoRemote, Metadata: map[string]string{"route": route.Short()}})
		}
		c.limit()
		go c.runBeside((*incoming).callRemote)
		return true
	}
	return c.refuse(&Error{Code: CodeBadRequest, Message: textBadRPCType, Metadata: metadata})
}

// trace begins the span of the call, which answer ends.
func (c *incoming) trace() {
	peer, service := c.in.peer()
	id := cmp.Or(c.in.requestID(), newRequestID())
	c.span = c.b.node.Spans.startAfter(c.outer, c.in.carrier(), string(c.req.Msg.Route), SpanServer,
		Label{"peer.id", peer}, Label{"peer.service", service}, Label{"request.id", id})
	c.span.RequestID = id
	c.span.Context = c
}

// context returns the context of the call, for the application's code.
func (c *incoming) context() context.Context {
	if c.span != nil {
		return c.span
	}
	return c
}

func (c *incoming) refuse(err error) bool {
	c.answer(nil, err)
	return false
}

// callRefuser is the context of a call whose transport has another way than an
// answer to refuse one that cannot be understood (cluster protocol, section
// 6.1).
type callRefuser interface{ refuseCall(err error) }

// refuseContext refuses a call whose context cannot be understood.
func (c *incoming) refuseContext(err error) bool {
	r, ok := c.outer.(callRefuser)
	if !ok {
		return c.refuse(err)
	}
	if !c.answered.Swap(true) {
		r.refuseCall(err)
	}
	return false
}

// limit makes the call end with the time that the caller waits.
func (c *incoming) limit() { c.begin(c.outer, c.in.Timeout, c.expire) }

// expire answers a call whose time is over. What it has begun goes on. A caller
// whose transport carries its deadline, as long as that is not a later one, knows
// that by itself, and better: this answer could come first and take the place of
// its own error.
func (c *incoming) expire() {
	if d, ok := c.outer.Deadline(); !ok || d.After(c.deadline.Add(expireSlack)) {
		c.answer(nil, Errorf(CodeInternal, textCallTimeout))
	}
}

// answer answers the call, if that has not been done: by then its time may be
// over. What fails because it is gets the same answer, whoever is first.
func (c *incoming) answer(data []byte, err error) {
	if c.answered.Swap(true) {
		return
	}
	if err != nil && c.Err() == context.DeadlineExceeded {
		err = Errorf(CodeInternal, textCallTimeout)
	}
	c.span.end(traceable(err))
	r := rpcResponse{Data: data}
	if err != nil {
		r.Err = wireError(err)
	}
	c.reply(r.encode())
}

// file puts a message into its session's lane.
func (b *backend) file(c *incoming) bool {
	b.mu.Lock()
	l := b.lanes[laneKey{string(c.req.FrontendID), c.req.Session.ID}]
	if l != nil {
		full := len(l.waiting) >= laneMessages
		if !full {
			l.waiting = append(l.waiting, c)
		}
		b.mu.Unlock()
		if full {
			return c.refuse(Errorf(CodeInternal, textOverloaded))
		}
		return true
	}
	key := laneKey{string(c.req.FrontendID), c.req.Session.ID}
	l = new(lane)
	b.lanes[key] = l
	b.mu.Unlock()
	go b.work(key, l, c)
	return true
}

// work is the worker of a lane: it handles a message and those that come
// meanwhile, and ends.
func (b *backend) work(key laneKey, l *lane, c *incoming) {
	stretch()
	done := false
	defer func() {
		if done {
			return
		}
		// The handler ended its goroutine. The others must not suffer.
		if next := b.next(key, l); next != nil {
			go b.work(key, l, next)
		}
	}()
	for ; c != nil; c = b.next(key, l) {
		c.run((*incoming).handle)
	}
	done = true
}

// next takes a message out of a lane, and the lane away if there is none.
func (b *backend) next(key laneKey, l *lane) *incoming {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(l.waiting) == 0 {
		delete(b.lanes, key)
		return nil
	}
	c := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	return c
}

// runBeside is run in a goroutine of its own.
func (c *incoming) runBeside(f func(*incoming)) {
	stretch()
	c.run(f)
}

// run calls f and sees to it that the call is answered, whatever f does.
func (c *incoming) run(f func(*incoming)) {
	defer c.close()
	defer func() {
		if v := recover(); v != nil {
			c.answer(nil, c.b.host.panicked(string(c.req.Msg.Route), newRequestID(), v))
		}
		c.answer(nil, errInternalCall)
	}()
	f(c)
}

// errInternalCall answers a call whose handler ended its goroutine.
var errInternalCall = Errorf(CodeInternal, "internal error")

// text returns the route as the other server wrote it, "" if that is how the
// entry is called here: the type in it may be any.
func (c *incoming) text() string {
	if string(c.req.Msg.Route) == c.entry.Route {
		return ""
	}
	return string(c.req.Msg.Route)
}

// handle calls a handler.
func (c *incoming) handle() {
	notify := c.req.Msg.Type == rpcMsgNotify
	ctx := c.context()
	if c.Err() != nil {
		if !notify { // nobody waits any more
			if d, ok := c.Deadline(); ok && !time.Now().Before(d) { // whoever noticed that first
				c.b.host.Counters.refuse(refusedDeadline)
			}
			return
		}
		ctx = context.WithoutCancel(ctx)
	}
	front := &frontLink{node: c.b.node, ctx: ctx, id: string(c.req.FrontendID), number: c.req.Session.ID}
	q := request{
		Session: newBackendSession(c.b.host, front, string(c.req.Session.UID), c.req.Session.Data),
		Entry:   c.entry,
		Text:    c.text(),
		ID:      c.req.Msg.ID,
		Notify:  notify,
		Payload: c.req.Msg.Data,
		Arrived: c.arrived,
		Meter:   c.entry.meter(""),
		Kind:    responseForwarded,
		In:      c.in,
	}
	if in := c.b.handlers.Inspect; in != nil {
		q.Watch = in.begin(c.entry.Route)
		defer q.done(errInternal) // if the handler ends its goroutine
	}
	payload, err := c.b.handlers.handle(&q)
	q.done(err)
	q.report(err)
	if notify {
		payload = []byte(rpcNotifyAnswer)
	}
	c.answer(payload, err)
}

// callRemote calls a remote.
func (c *incoming) callRemote() {
	q := request{Entry: c.entry, Text: c.text(), Payload: c.req.Msg.Data, Arrived: c.arrived, Meter: c.entry.meter(""), Kind: responseRemote, Parent: c.context(), In: c.in}
	if in := c.b.remotes.Inspect; in != nil {
		q.Watch = in.beginRemote(c.entry.Route)
		defer q.done(errInternal) // if the remote ends its goroutine
	}
	payload, err := c.b.remotes.handle(&q)
	q.done(err)
	q.report(err)
	c.answer(payload, err)
}
