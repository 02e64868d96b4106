package pitaya

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// ErrNoCluster is what calls to other servers return on a server that is in no
// cluster.
var ErrNoCluster = errors.New("pitaya: the server is in no cluster")

// ErrLeftOut is what needs etcd or NATS returns in a program that is built with
// the tag nocluster, which leaves their clients out: the constructors of what
// stands on them, and [NewServer] and [Server.Run] where the settings ask for it.
var ErrLeftOut = errors.New("pitaya: etcd and NATS are left out of this program, which was built with the tag nocluster")

// Reasons for a call not to be made. They have no codes, as in Pitaya.
var (
	errOwnServer      = errors.New("pitaya: RPC to the own server, which Config.NoLoopback rules out")
	errServerNotFound = errors.New("server not found")
)

// rpc calls a remote: on the given server, or on one of the route's type.
func (n *node) rpc(ctx context.Context, own *backend, id, text string, reply, arg proto.Message) error {
	if reply == nil {
		return errors.New("pitaya: RPC without a message for the reply")
	}
	route, err := ParseRoute(text)
	if err != nil {
		return err
	}
	if route.ServerType == "" {
		return Errorf(CodeBadRequest, "pitaya: RPC to %q: the route must begin with a server type", text)
	}
	var payload []byte
	if arg != nil {
		if payload, err = proto.Marshal(arg); err != nil {
			return NewError(err, CodeBadRequest)
		}
	}
	self := n.Self()
	var data []byte
	switch {
	case id == self.ID || id == "" && route.ServerType == self.Type:
		if own == nil {
			return errOwnServer
		}
		data, err = n.loopback(ctx, own, text, payload)
	case id != "":
		m := n.Members.get(id)
		if m == nil {
			return fmt.Errorf("%w: %w", errServerNotFound, ErrUnreachable)
		}
		data, err = n.askRemote(ctx, m, text, payload)
	default:
		data, err = n.askType(ctx, route, text, payload)
	}
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, reply); err != nil {
		return NewError(err, CodeInternal)
	}
	return nil
}

// askType calls a remote of a server type. Another server is tried if the one
// that was chosen cannot have got the call.
func (n *node) askType(ctx context.Context, route Route, text string, payload []byte) ([]byte, error) {
	m, err := n.route(ctx, route, payload, nil)
	if err != nil {
		return nil, err
	}
	var tried []*member
	for {
		data, err := n.askRemote(ctx, m, text, payload)
		if len(tried) >= forwardTries-1 || !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			return data, err
		}
		tried = append(tried, m)
		next, again := n.route(ctx, route, payload, tried)
		if again != nil || slices.ContainsFunc(tried, func(m *member) bool { return m.Info.ID == next.Info.ID }) {
			return nil, err // there is no other
		}
		m = next
	}
}

// loopback serves a call to the own server in the process, as if it had come
// from outside.
func (n *node) loopback(ctx context.Context, own *backend, text string, payload []byte) (data []byte, err error) {
	if n.Spans != nil {
		span := n.startCall(ctx, spanCall, n.Self())
		defer func() { span.end(err) }()
		ctx = span
	}
	limit := callLimit(ctx, n.Timeout)
	body, err := n.userRequest(ctx, text, payload, limit)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// As from outside: the remote sees no value of ctx, but its end.
	deadline, _ := ctx.Deadline()
	inside, end := context.WithDeadline(context.Background(), deadline)
	context.AfterFunc(ctx, end)
	c := make(chan rpcAnswer, 1)
	own.HandleCall(inside, body, func(response []byte) {
		end()
		c <- rpcAnswer{body: response}
	})
	self := &member{Info: n.Self()}
	var answer []byte
	select {
	case a := <-c:
		answer = a.body
	case <-ctx.Done():
	}
	switch ctx.Err() { // also if the remote has noticed the end and answered so
	case nil:
		return n.result(answer, nil, self, text, limit)
	case context.DeadlineExceeded:
		return nil, n.callError(ErrNoAnswer, self, text, limit)
	}
	return nil, context.Cause(ctx)
}
