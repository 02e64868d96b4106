package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// ProtobufConnector is the service connector of -suite sdk-protobuf.
type ProtobufConnector struct {
	big *testpb.BigMessage // is only read
}

//go:embed bigmessage.json
var bigMessage []byte

func setUpProtobuf(s *pitaya.Server) error {
	big := &testpb.BigMessage{}
	if err := protojson.Unmarshal(bigMessage, big); err != nil {
		return fmt.Errorf("bigmessage.json: %w", err)
	}
	return errors.Join(
		register(s, "connector", &ProtobufConnector{big: big}),
		s.SetDictionary(map[string]uint16{
			"connector.getsessiondata": 1,
			"connector.setsessiondata": 2,
		}),
	)
}

func theSessionData() *testpb.SessionData {
	return &testpb.SessionData{Data: "THIS IS THE SESSION DATA"}
}

// GetSessionData answers with a constant.
func (c *ProtobufConnector) GetSessionData(ctx context.Context) (*testpb.SessionData, error) {
	return theSessionData(), nil
}

// SetSessionData takes data and forgets it.
func (c *ProtobufConnector) SetSessionData(ctx context.Context, in *testpb.SessionData) (*testpb.Response, error) {
	return &testpb.Response{Code: 200, Msg: "success"}, nil
}

// NotifySessionData pushes a constant to the caller.
func (c *ProtobufConnector) NotifySessionData(ctx context.Context, in *testpb.SessionData) {
	logUndelivered(ctx, pitaya.SessionFromContext(ctx).Push(ctx, "some.push.route", theSessionData()))
}

// GetBigMessage answers with a message of some kilobytes.
func (c *ProtobufConnector) GetBigMessage(ctx context.Context) (*testpb.BigMessage, error) {
	return c.big, nil
}
