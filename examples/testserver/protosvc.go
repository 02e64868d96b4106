package main

import (
	"context"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// ProtoSvc is the service protosvc, for the command line client with protobuf.
type ProtoSvc struct{}

// Echo answers with the message.
func (ProtoSvc) Echo(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: in.Msg}, nil
}

// Push pushes the message to the caller.
func (ProtoSvc) Push(ctx context.Context, in *testpb.TestRequest) {
	err := pitaya.SessionFromContext(ctx).Push(ctx, "on.self", &testpb.TestResponse{Code: 201, Msg: in.Msg})
	logUndelivered(ctx, err)
}

// Fail fails with a code, a text and metadata.
func (ProtoSvc) Fail(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return nil, &pitaya.Error{Code: "PIT-777", Message: "failed on purpose", Metadata: map[string]string{"k": "v"}}
}
