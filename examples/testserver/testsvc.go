package main

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// errSessionNotFound has the text that the family's suites know.
var errSessionNotFound = errors.New("session not found")

// TestSvc is the service testsvc: handlers of each shape, and the calls that
// handlers make.
type TestSvc struct{ server *pitaya.Server }

// TestRequestOnlySessionReturnsPtr answers with a constant.
func (t *TestSvc) TestRequestOnlySessionReturnsPtr(ctx context.Context) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: "hello"}, nil
}

// TestRequestOnlySessionReturnsPtrNil returns neither a result nor an error.
func (t *TestSvc) TestRequestOnlySessionReturnsPtrNil(ctx context.Context) (*testpb.TestResponse, error) {
	return nil, nil
}

// TestRequestReturnsPtr answers with the message.
func (t *TestSvc) TestRequestReturnsPtr(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: in.Msg}, nil
}

// TestRequestOnlySessionReturnsRawNil returns neither bytes nor an error.
func (t *TestSvc) TestRequestOnlySessionReturnsRawNil(ctx context.Context) ([]byte, error) {
	return nil, nil
}

// TestRequestReturnsRaw answers with the bytes of the message.
func (t *TestSvc) TestRequestReturnsRaw(ctx context.Context, in *testpb.TestRequest) ([]byte, error) {
	return []byte(in.Msg), nil
}

// TestRequestReceiveReturnsRaw answers with the payload.
func (t *TestSvc) TestRequestReceiveReturnsRaw(ctx context.Context, in []byte) ([]byte, error) {
	return in, nil
}

// TestRequestReturnsError fails with a code of its own.
func (t *TestSvc) TestRequestReturnsError(ctx context.Context, in []byte) ([]byte, error) {
	return nil, pitaya.Errorf("PIT-555", "somerror")
}

// TestRequestKickUser kicks the user whose id is the payload.
func (t *TestSvc) TestRequestKickUser(ctx context.Context, uid []byte) (*testpb.TestResponse, error) {
	return kick(ctx, t.server.SessionByUID(string(uid)))
}

// TestRequestKickMe kicks the caller, who does not get the answer any more.
func (t *TestSvc) TestRequestKickMe(ctx context.Context) (*testpb.TestResponse, error) {
	return kick(ctx, pitaya.SessionFromContext(ctx))
}

func kick(ctx context.Context, session *pitaya.Session) (*testpb.TestResponse, error) {
	if session == nil {
		return nil, pitaya.NewError(errSessionNotFound, pitaya.CodeNotFound)
	}
	if err := session.Kick(ctx); err != nil {
		return nil, err
	}
	return &testpb.TestResponse{Code: 200, Msg: "ok"}, nil
}

// TestBind binds the caller to a user of its own, who joins the group g1.
func (t *TestSvc) TestBind(ctx context.Context) ([]byte, error) {
	return t.TestBindID(ctx, []byte(newUID()))
}

// TestBindID binds the caller to the given user, who joins the group g1.
func (t *TestSvc) TestBindID(ctx context.Context, uid []byte) ([]byte, error) {
	session := pitaya.SessionFromContext(ctx)
	if err := session.Bind(ctx, string(uid)); err != nil {
		return nil, pitaya.NewError(err, "PIT-444")
	}
	if err := t.server.Group("g1").Add(ctx, session.UID()); err != nil {
		return nil, pitaya.NewError(err, "PIT-441")
	}
	return []byte("ack"), nil
}

// TestSendGroupMsg broadcasts the payload to the group g1.
func (t *TestSvc) TestSendGroupMsg(ctx context.Context, msg []byte) {
	logUndelivered(ctx, t.server.Group("g1").Broadcast(ctx, "connector", "route.test", msg))
}

// TestSendGroupMsgPtr broadcasts the message to the group g1.
func (t *TestSvc) TestSendGroupMsgPtr(ctx context.Context, msg *testpb.TestRequest) {
	logUndelivered(ctx, t.server.Group("g1").Broadcast(ctx, "connector", "route.testptr", msg))
}

// SendToUsers is the argument of TestSendToUsers.
type SendToUsers struct {
	UIDs []string `json:"uids"`
	Msg  string   `json:"msg"`
}

// TestSendToUsers pushes the bytes of a text to users.
func (t *TestSvc) TestSendToUsers(ctx context.Context, in *SendToUsers) {
	logUndelivered(ctx, t.server.Push(ctx, "connector", in.UIDs, "route.sendtousers", []byte(in.Msg)))
}

// logUndelivered notes that a notify could not do its work, which nobody waits
// to hear.
func logUndelivered(ctx context.Context, err error) {
	if err != nil {
		pitaya.LoggerFromContext(ctx).Debug("not delivered", "err", err)
	}
}

// SendRPC is the argument of the handlers that call remotes.
type SendRPC struct {
	Route string `json:"route"`
	Data  string `json:"data"`
}

// TestSendRPC calls a remote.
func (t *TestSvc) TestSendRPC(ctx context.Context, in *SendRPC) (*testpb.TestResponse, error) {
	return call(ctx, t.server, "", in.Route, &testpb.TestRequest{Msg: in.Data})
}

// TestSendRPCNoArgs calls a remote without an argument.
func (t *TestSvc) TestSendRPCNoArgs(ctx context.Context, in *SendRPC) (*testpb.TestResponse, error) {
	return call(ctx, t.server, "", in.Route, nil)
}

// call calls a remote: on the server with the given id, or on one of the
// route's type. arg may be nil.
func call(ctx context.Context, s *pitaya.Server, id, route string, arg proto.Message) (*testpb.TestResponse, error) {
	reply := new(testpb.TestResponse)
	err := s.RPCTo(ctx, id, route, reply, arg)
	if errors.Is(err, pitaya.ErrNoCluster) {
		err = noServer(route)
	}
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// noServer is the answer of a server without a cluster to who wants to call a
// remote: a route that makes no sense is refused, and any other leads to no
// server.
func noServer(route string) error {
	r, err := pitaya.ParseRoute(route)
	if err != nil {
		return err
	}
	if r.ServerType == "" {
		return pitaya.Errorf(pitaya.CodeBadRequest, "cannot decode route")
	}
	return pitaya.Errorf(pitaya.CodeInternal, "no servers available of this type")
}
