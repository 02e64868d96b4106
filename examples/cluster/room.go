package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/cluster/clusterpb"
)

// CodeNotInRoom is the error of who has not joined a room, or whose room is on another server since servers came or
// went: who gets it joins again.
const CodeNotInRoom = "CLUSTER-NOT-IN-ROOM"

type (
	// JoinRequest is the argument of room.room.join.
	JoinRequest struct {
		Room string `json:"room"`
	}
	// JoinReply is its answer. What happens from then on comes as the pushes onJoin, onLeave, onSay and onMove.
	JoinReply struct {
		Room    string   `json:"room"`
		Server  string   `json:"server"` // that has the room
		Members []Member `json:"members"`
	}
	// Member is somebody in a room.
	Member struct {
		Name string `json:"name"`
		X    int    `json:"x"`
		Y    int    `json:"y"`
	}
	// SayRequest is the argument of room.room.say.
	SayRequest struct {
		Text string `json:"text"`
	}
	// SayReply is its answer.
	SayReply struct {
		Points int64 `json:"points"` // what you have now
	}
	// MoveNotify is the argument of room.room.move, which is not answered.
	MoveNotify struct {
		X int `json:"x"`
		Y int `json:"y"`
	}
	// Said is the push onSay, to all in the room.
	Said struct {
		Name   string `json:"name"`
		Text   string `json:"text"`
		Points int64  `json:"points"` // of who said it
	}
	// Left is the push onLeave.
	Left struct {
		Name string `json:"name"`
	}
)

// Rooms is the service of the servers for rooms.
type Rooms struct {
	pitaya.Base
	srv *pitaya.Server

	// mu guards what is below. It is held while pushing, so that all in a room see the same things in the same order.
	// Over gRPC that means waiting for the gates: a larger game would give each room a lock of its own.
	mu      sync.Mutex
	rooms   map[string]*room
	members map[string]*place // by uid
}

// A room is there while somebody is in it.
type room struct {
	members map[string]*Member // by uid
	group   *pitaya.Group      // the uids again, for pushes
}

// A place is where a user is.
type place struct {
	room     string
	frontend string // the session by which the user came: the server that it is on,
	session  int64  // and its number there
}

func setUpRoom(srv *pitaya.Server) {
	r := &Rooms{srv: srv, rooms: make(map[string]*room), members: make(map[string]*place)}
	_ = srv.Register(r, pitaya.WithName("room"), pitaya.WithNameFunc(lower), pitaya.WithBound())
	_ = srv.RegisterRemote(&Moves{r}, pitaya.WithName("moves"), pitaya.WithNameFunc(lower))
	_ = srv.AddRoute(typeScore, pitaya.RouteByUID)
	_ = srv.OnSessionEvent(r.sessionEvent)
}

// Join takes the user into a room, and out of the one before, which may be on another server.
func (r *Rooms) Join(ctx context.Context, in *JoinRequest) (*JoinReply, error) {
	if in.Room == "" || len(in.Room) > 24 || strings.ContainsFunc(in.Room, unicode.IsControl) {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "a room has a name of 1 to 24 bytes")
	}
	s := pitaya.SessionFromContext(ctx)
	uid := s.UID()
	before, _ := pitaya.SessionValue[string](s, "room")
	server, _ := pitaya.SessionValue[string](s, "roomserver")
	if server != "" && server != r.srv.ID() {
		moved := &clusterpb.Moved{Uid: uid, Room: before}
		if err := r.srv.RPCTo(ctx, server, "room.moves.away", new(clusterpb.Done), moved); err != nil {
			slog.Info("the room before was not told", "room", before, "server", server, "err", err) // it has ended, say
		}
	}
	// From here on the gate leads the session's messages to the server of this room.
	if err := errors.Join(s.Set("room", in.Room), s.Set("roomserver", r.srv.ID())); err != nil {
		return nil, err
	}
	if err := s.PushToFront(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.members[uid]; p == nil || p.room != in.Room {
		r.leave(uid)
		if err := r.enter(uid, in.Room); err != nil {
			return nil, err
		}
	}
	r.members[uid] = &place{room: in.Room, frontend: s.FrontendID(), session: s.FrontendSessionID()}
	reply := &JoinReply{Room: in.Room, Server: r.srv.ID()}
	members := r.rooms[in.Room].members
	for _, uid := range slices.Sorted(maps.Keys(members)) {
		reply.Members = append(reply.Members, *members[uid])
	}
	return reply, nil
}

// enter makes the user a member of the room, and tells those who are. mu is held.
func (r *Rooms) enter(uid, name string) error {
	ctx := context.Background()
	to := r.rooms[name]
	if to == nil {
		// What clients choose stays out of names that may end up in keys and logs.
		to = &room{members: make(map[string]*Member), group: r.srv.Group("room-" + rand.Text())}
		if err := to.group.Create(ctx, 0); err != nil {
			return err
		}
		r.rooms[name] = to
	}
	me := &Member{Name: uid}
	r.tell(name, "onJoin", me) // the others, so before the user is one of them
	to.members[uid] = me
	return to.group.Add(ctx, uid)
}

// Say tells all in the room something, which earns a point.
func (r *Rooms) Say(ctx context.Context, in *SayRequest) (*SayReply, error) {
	if in.Text == "" || len(in.Text) > 1000 {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "a text has 1 to 1000 bytes")
	}
	uid := pitaya.SessionFromContext(ctx).UID()
	if r.roomOf(uid) == "" {
		return nil, pitaya.Errorf(CodeNotInRoom, "join a room first")
	}
	// Not under the lock: one server that is slow must not stop all rooms.
	total, err := pitaya.Call[clusterpb.Total](ctx, r.srv, "score.board.add", &clusterpb.Points{Uid: uid, Points: 1})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.members[uid]; p != nil {
		r.tell(p.room, "onSay", &Said{Name: uid, Text: in.Text, Points: total.Points})
	}
	return &SayReply{Points: total.Points}, nil
}

// Move tells all in the room where the user is.
func (r *Rooms) Move(ctx context.Context, in *MoveNotify) {
	uid := pitaya.SessionFromContext(ctx).UID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.members[uid]; p != nil {
		m := r.rooms[p.room].members[uid]
		m.X, m.Y = in.X, in.Y
		r.tell(p.room, "onMove", m)
	}
}

// Leave takes the user out of the room.
func (r *Rooms) Leave(ctx context.Context) (*Left, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	uid := pitaya.SessionFromContext(ctx).UID()
	r.leave(uid)
	return &Left{Name: uid}, nil
}

// sessionEvent is told what happens on the gates: a backend has no connection whose end it could see.
func (r *Rooms) sessionEvent(e pitaya.SessionEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case pitaya.SessionEnded:
		// The user may have come back with another session meanwhile.
		if p := r.members[e.UID]; p != nil && p.frontend == e.FrontendID && p.session == e.SessionID {
			r.leave(e.UID)
		}
	case pitaya.FrontendLost:
		for uid, p := range r.members {
			if p.frontend == e.FrontendID {
				r.leave(uid)
			}
		}
	}
}

func (r *Rooms) roomOf(uid string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.members[uid]; p != nil {
		return p.room
	}
	return ""
}

// leave takes the user out of its room, if any, and tells those who stay. mu is held.
func (r *Rooms) leave(uid string) {
	p := r.members[uid]
	if p == nil {
		return
	}
	delete(r.members, uid)
	from, ctx := r.rooms[p.room], context.Background()
	delete(from.members, uid)
	if len(from.members) == 0 {
		delete(r.rooms, p.room)
		check(from.group.Delete(ctx))
		return
	}
	check(from.group.Remove(ctx, uid))
	r.tell(p.room, "onLeave", &Left{Name: uid})
}

// tell pushes to all in a room, on whatever gates they are. It has no context of a request: what has begun for many does
// not end because one of them has gone. mu is held.
func (r *Rooms) tell(name, route string, v any) {
	if err := r.rooms[name].group.Broadcast(context.Background(), typeGate, route, v); err != nil {
		slog.Debug("not everybody was reached", "route", route, "err", err) // connections that are just ending
	}
}

// Moves is what servers for rooms say to each other.
type Moves struct{ rooms *Rooms }

// Away takes out a user who has joined a room of another server.
func (m *Moves) Away(ctx context.Context, in *clusterpb.Moved) (*clusterpb.Done, error) {
	r := m.rooms
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.members[in.GetUid()]; p != nil && p.room == in.GetRoom() {
		r.leave(in.GetUid())
	}
	return &clusterpb.Done{}, nil
}

// check logs an error that would be a mistake in this program: the groups are in memory and only used here.
func check(err error) {
	if err != nil {
		slog.Error("room", "err", err)
	}
}

func lower(name string) string { return strings.ToLower(name) }
