package main

import (
	"context"
	"errors"

	"github.com/pitaya-go/pitaya"
)

// JSONConnector is the service connector of -suite sdk-json.
type JSONConnector struct{}

func setUpJSON(s *pitaya.Server) error {
	return errors.Join(
		register(s, "connector", JSONConnector{}),
		s.SetDictionary(map[string]uint16{
			"connector.getsessiondata": 1,
			"connector.setsessiondata": 2,
			"room.room.getsessiondata": 3,
			"onMessage":                4,
			"onMembers":                5,
			"connector.geterror":       6,
		}),
	)
}

// JSONSessionData is session data as the suite writes it.
type JSONSessionData struct{ Data Values }

// JSONResponse is what most methods answer.
type JSONResponse struct {
	Code int
	Msg  string
}

// GetHandshakeData returns what the client said in its handshake.
func (JSONConnector) GetHandshakeData(ctx context.Context) (*pitaya.HandshakeData, error) {
	return pitaya.SessionFromContext(ctx).HandshakeData(), nil
}

// GetSessionData returns the session's data.
func (JSONConnector) GetSessionData(ctx context.Context) (*JSONSessionData, error) {
	return &JSONSessionData{Data: pitaya.SessionFromContext(ctx).Data()}, nil
}

// SetSessionData replaces the session's data.
func (JSONConnector) SetSessionData(ctx context.Context, in *JSONSessionData) (*JSONResponse, error) {
	if err := pitaya.SessionFromContext(ctx).SetData(in.Data); err != nil {
		return nil, pitaya.NewError(err, "CN-000", map[string]string{"failed": "set data"})
	}
	return &JSONResponse{Code: 200, Msg: "success"}, nil
}

// Pushed is what SendPush pushes.
type Pushed struct {
	Key1 int  `json:"key1"`
	Key2 bool `json:"key2"`
}

// SendPush pushes to the caller.
func (JSONConnector) SendPush(ctx context.Context) (*JSONResponse, error) {
	if err := pitaya.SessionFromContext(ctx).Push(ctx, "some.push.route", &Pushed{Key1: 10, Key2: true}); err != nil {
		return nil, err
	}
	return &JSONResponse{Code: 200, Msg: "Ok"}, nil
}

// GetError fails with an error that has no code.
func (JSONConnector) GetError(ctx context.Context) (*JSONResponse, error) {
	return nil, errors.New("GetError is returning a custom error")
}
