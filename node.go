package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// node is this server as a part of its cluster: whom it knows, and the way to
// them.
type node struct {
	// Immutable.
	Transport Transport
	Discovery Discovery
	Bindings  BindingStore // nil: notices find users by themselves
	Routes    map[string]RoutingFunc
	Members   *members
	Timeout   time.Duration // of a call that says nothing else
	Log       *slog.Logger
	Counters  *counters
	Meters    *meters                                 // nil: there are no reporters
	Spans     *spans                                  // nil: nothing is traced
	Guard     func(what string, f func() error) error // calls code of the application
	Finds     bool                                    // the transport finds users by itself, without the server that they are on
	Cancels   bool                                    // the transport can tell the other side that a caller has given up
	ready     func(id string) bool                    // whether a call to a server need not wait for a connection; may be nil
	bounded   bool                                    // the transport keeps to Timeout by itself
	callSpan  string                                  // what spans of calls are called

	self atomic.Pointer[ServerInfo] // as the others know it
}

// callNamer is a transport that says how the spans of its calls are called.
type callNamer interface{ callSpan() string }

// callTimer is a transport that ends a call without a deadline after its own
// time.
type callTimer interface{ requestTimeout() time.Duration }

// cancelTeller is a transport that says whether it tells the other side when a
// caller gives up. Those that are none may.
type cancelTeller interface{ tellsCancel() bool }

// userFinder is a transport that says whether a notice reaches a user without
// the server being known. Those that are none may need it.
type userFinder interface{ findsUsers() bool }

// readyTeller is a transport that connects to each server, and says whether that
// has been done. It is quick.
type readyTeller interface{ ready(id string) bool }

// newNode returns a node. Its exported fields are set by the caller; timeout is
// for transports that have none of their own.
func newNode(t Transport, timeout time.Duration) *node {
	n := &node{Transport: t, Members: newMembers(), Timeout: timeout, Cancels: true, callSpan: spanCall}
	if named, ok := t.(callNamer); ok {
		n.callSpan = named.callSpan()
	}
	if c, ok := t.(cancelTeller); ok {
		n.Cancels = c.tellsCancel()
	}
	if f, ok := t.(userFinder); ok {
		n.Finds = f.findsUsers()
	}
	if r, ok := t.(readyTeller); ok {
		n.ready = r.ready
	}
	if own, ok := t.(callTimer); ok {
		n.Timeout, n.bounded = own.requestTimeout(), true
	}
	return n
}

// Self returns this server as the others know it.
func (n *node) Self() *ServerInfo { return n.self.Load() }

// connected reports whether a call to a server need not wait for a connection.
func (n *node) connected(id string) bool { return n.ready == nil || n.ready(id) }

// SetSelf says how the others are to know this server.
func (n *node) SetSelf(s *ServerInfo) { n.self.Store(s) }

// Texts that other servers know.
const (
	textNoSuchSession = "session not found"
	textUnboundPush   = "you have to bind an UID to the session to do that"
	textCallTimeout   = "rpc client: request timeout"
)

// errNoServers is that there is nobody to call. Nothing was sent.
func errNoServers() error { return Errorf(CodeInternal, textNoServers) }

// route chooses the server for a call to a type, other than those to skip.
func (n *node) route(ctx context.Context, route Route, payload []byte, skip []*member) (*member, error) {
	t := n.Members.forWork(route.ServerType)
	if t == nil {
		return nil, errNoServers()
	}
	f := n.Routes[route.ServerType]
	if f == nil {
		if m := t.pick(skip, n.ready); m != nil {
			return m, nil
		}
		return nil, errNoServers()
	}
	servers := t.choice(skip)
	if len(servers) == 0 {
		return nil, errNoServers()
	}
	var chosen *ServerInfo
	err := n.Guard("routing function", func() (err error) {
		chosen, err = f(ctx, route, payload, servers)
		return err
	})
	switch {
	case err != nil && codedError(err) != nil:
		return nil, err
	case err != nil:
		return nil, NewError(err, CodeInternal)
	case chosen == nil:
		return nil, Errorf(CodeInternal, "no server was chosen")
	}
	// It may be one of another type, or one that has left meanwhile. The
	// latter cannot be reached, and another one is tried.
	if m := n.Members.get(chosen.ID); m != nil {
		return m, nil
	}
	for _, m := range t.All {
		if m.Info.ID == chosen.ID {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%w: server %s", NewError(ErrUnreachable, CodeInternal), chosen.ID)
}

// call sends a request and lets done have the answer, in a goroutine of the
// transport's. ctx may be any; limit is how long the call may take.
func (n *node) call(ctx context.Context, to *member, limit time.Duration, body []byte, done func(response []byte, err error)) {
	deadline, ok := ctx.Deadline()
	switch {
	case !ok && n.bounded && limit == n.Timeout: // the transport sees to it
	case ok && time.Until(deadline) <= limit:
	default:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		inner := done
		done = func(response []byte, err error) {
			cancel()
			inner(response, err)
		}
	}
	to.Pending.Add(1)
	n.Transport.Call(ctx, to.Info, body, func(response []byte, err error) {
		to.Pending.Add(-1)
		done(response, err)
	})
}

// tell sends a request that nobody answers.
func (n *node) tell(ctx context.Context, to *member, body []byte) {
	n.Transport.Call(ctx, to.Info, body, nil)
}

// rpcAnswer is what came back.
type rpcAnswer struct {
	body []byte
	err  error
}

// ask is call for those who wait. Errors of the other side are [*Error]s.
func (n *node) ask(ctx context.Context, to *member, route string, limit time.Duration, body []byte) ([]byte, error) {
	c := make(chan rpcAnswer, 1)
	begin := time.Now()
	n.call(ctx, to, limit, body, func(response []byte, err error) { c <- rpcAnswer{response, err} })
	a := <-c
	data, err := n.result(a.body, a.err, to, route, limit)
	if n.Meters != nil {
		// The route is the application's, or the library's own: no client can make
		// routes up.
		n.Meters.learn(route).response(responseRPC, ErrorCode(err), metricTags(ctx)).report(time.Since(begin))
	}
	return data, err
}

// result makes of an answer what the caller gets.
func (n *node) result(body []byte, err error, to *member, route string, limit time.Duration) ([]byte, error) {
	if err != nil {
		return nil, n.callError(err, to, route, limit)
	}
	var r rpcResponse
	if err := r.decode(body); err != nil {
		return nil, NewError(err, CodeInternal)
	}
	if r.Err != nil {
		if r.Err.Code == CodeInternal && r.Err.Message == textCallTimeout {
			// The other side's clock was first. It measures the same time.
			return nil, n.callError(fmt.Errorf("%w: %w", ErrNoAnswer, r.Err), to, route, limit)
		}
		return nil, r.Err
	}
	return r.Data, nil
}

// callError gives an error of the transport the code and the metadata that the
// callers of the family know (cluster protocol, section 5.3).
func (n *node) callError(err error, to *member, route string, limit time.Duration) error {
	switch {
	case errors.Is(err, ErrNoAnswer):
		return &Error{
			Code:    CodeTimeout,
			Message: textCallTimeout,
			Metadata: map[string]string{
				"timeout": limitText(limit),
				"route":   route,
				"server":  n.Self().ID,
				"peer.id": to.Info.ID,
			},
			Err: err,
		}
	case errors.Is(err, ErrUnreachable) && n.Members.get(to.Info.ID) == nil:
		// One that had vanished, and was tried all the same.
		return &Error{Code: CodeInternal, Message: textNoServers, Err: err}
	case errors.Is(err, ErrUnreachable):
		return NewError(err, CodeInternal)
	}
	return err
}

// userRequest makes the body of a call to a remote.
func (n *node) userRequest(ctx context.Context, route string, arg []byte, limit time.Duration) ([]byte, error) {
	self := n.Self()
	metadata, err := encodePropagated(ctx, self.ID, self.Type, limit, n.Spans.inject(ctx))
	if err != nil {
		return nil, err
	}
	r := rpcRequest{Type: rpcUser, Metadata: metadata, Msg: rpcMsg{Route: []byte(route), Data: arg}}
	if self.Frontend {
		r.FrontendID = []byte(self.ID)
	}
	return r.encode(), nil
}

// startCall begins the span of a call to another server. It is called only if
// there are spans.
func (n *node) startCall(ctx context.Context, name string, to *ServerInfo) *spanContext {
	return n.Spans.start(ctx, name, SpanClient, Label{"peer.serverType", to.Type}, Label{"peer.id", to.ID})
}

// askRemote calls a remote of a certain server and waits.
func (n *node) askRemote(ctx context.Context, to *member, route string, arg []byte) (data []byte, err error) {
	if n.Spans != nil {
		span := n.startCall(ctx, n.callSpan, to.Info)
		defer func() { span.end(err) }()
		ctx = span
	}
	limit := callLimit(ctx, n.Timeout)
	if limit <= 0 {
		return nil, n.callError(ErrNoAnswer, to, route, limit)
	}
	body, err := n.userRequest(ctx, route, arg, limit)
	if err != nil {
		return nil, err
	}
	return n.ask(ctx, to, route, limit, body)
}
