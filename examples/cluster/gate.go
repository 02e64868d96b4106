package main

import (
	"context"
	"encoding/json"

	"github.com/pitaya-go/pitaya"
)

// Types of servers.
const (
	typeGate  = "gate"  // a frontend: clients connect to it
	typeRoom  = "room"  // a backend that has rooms
	typeScore = "score" // a backend that counts points
)

// Player is the service of the gates. Its one route is gate.player.enter.
type Player struct{ pitaya.Base }

type (
	// EnterRequest is the argument of gate.player.enter.
	EnterRequest struct {
		Name string `json:"name"`
	}
	// EnterReply is its answer.
	EnterReply struct {
		You  string `json:"you"`
		Gate string `json:"gate"` // id of the server that the client is connected to
	}
)

// Enter makes the session that of a user. There are no accounts here: who says a name has it, and takes it from whoever
// had it before, on any gate.
func (*Player) Enter(ctx context.Context, in *EnterRequest) (*EnterReply, error) {
	if len(in.Name) > 24 {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "the name is longer than 24 bytes")
	}
	s := pitaya.SessionFromContext(ctx)
	if err := s.Bind(ctx, in.Name); err != nil {
		return nil, pitaya.NewError(err, pitaya.CodeBadRequest)
	}
	gate, _ := pitaya.SessionValue[string](s, "gate")
	return &EnterReply{You: s.UID(), Gate: gate}, nil
}

// setUpGate makes a server a gate.
func setUpGate(srv *pitaya.Server) {
	// Mistakes in all these calls come back from Run.
	_ = srv.Register(&Player{}, pitaya.WithName("player"), pitaya.WithNameFunc(lower))
	// The session's data travels with it to the backends.
	_ = srv.OnSessionBind(func(ctx context.Context, s *pitaya.Session) error { return s.Set("gate", srv.ID()) })
	_ = srv.AddRoute(typeRoom, pitaya.RouteHash(roomOf))
}

// roomOf is the key by which the servers for rooms are chosen, so that all who are in a room are on the server that has
// it, from whichever gate they come. Who wants to enter a room names it; later the session knows.
func roomOf(ctx context.Context, route pitaya.Route, payload []byte) string {
	if route.Short() == "room.join" {
		var in JoinRequest
		_ = json.Unmarshal(payload, &in) // any server can answer that this is no name
		return in.Room
	}
	if s := pitaya.SessionFromContext(ctx); s != nil {
		room, _ := pitaya.SessionValue[string](s, "room")
		return room
	}
	return ""
}
