package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// TestRemoteSvc is the service testremotesvc: remotes of each shape.
type TestRemoteSvc struct{}

// RPCTestRawPtrReturnsPtr answers with the message.
func (TestRemoteSvc) RPCTestRawPtrReturnsPtr(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: "got " + in.Msg}, nil
}

// RPCTestPtrReturnsPtr does the same.
func (t TestRemoteSvc) RPCTestPtrReturnsPtr(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return t.RPCTestRawPtrReturnsPtr(ctx, in)
}

// RPCTestNoArgs answers with a constant.
func (TestRemoteSvc) RPCTestNoArgs(ctx context.Context) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: "got nothing"}, nil
}

// RPCTestReturnsError fails with a code, a text and metadata.
func (TestRemoteSvc) RPCTestReturnsError(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return nil, &pitaya.Error{Code: "PIT-433", Message: "test error", Metadata: map[string]string{"some": "meta"}}
}

// InteropRemote is the service interopremote: what servers can see of each
// other.
type InteropRemote struct{ server *pitaya.Server }

// Echo answers with the message.
func (InteropRemote) Echo(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: in.Msg}, nil
}

// Who says which server answers.
func (r InteropRemote) Who(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: r.server.ID()}, nil
}

// Sleep waits for the number of milliseconds that the message is.
func (InteropRemote) Sleep(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	n, err := strconv.Atoi(in.Msg)
	if err != nil {
		return nil, pitaya.NewError(fmt.Errorf("no number of milliseconds: %w", err), pitaya.CodeBadRequest)
	}
	select {
	case <-time.After(time.Duration(n) * time.Millisecond):
		return &testpb.TestResponse{Code: 200, Msg: "slept"}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Boom panics.
func (InteropRemote) Boom(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	panic("boom")
}
