package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// The game that the servers serve. Its handlers do little beside telling what happened to them, so that bots can compare
// that with what they have sent.

const (
	typeGate = "gate" // the frontends
	typeRoom = "room" // the backends
)

// A Msg is the argument of all handlers. Bot, Session and Seq name it among all messages of a run.
type Msg struct {
	Bot     int    `json:"b"`
	Session int    `json:"g"`           // which session of the bot, 1 for its first; a resumed one is the same
	Seq     int    `json:"s"`           // counts the messages of the bot, in all of its sessions
	UID     string `json:"u"`           // the user that the bot plays
	N       int    `json:"n,omitempty"` // how many, or how long
	To      string `json:"t,omitempty"` // a user or a group
	Pad     string `json:"p,omitempty"`
}

// A Reply is the answer of all handlers.
type Reply struct {
	Bot    int    `json:"b"`
	Seq    int    `json:"s"`
	Server string `json:"i"`             // the process that has answered
	Count  int    `json:"n,omitempty"`   // on a gate: how many messages of the session it has handled, this one included
	Own    int    `json:"o,omitempty"`   // on a gate: how many pushes handlers have made to their own session
	Value  int    `json:"v,omitempty"`   // what was asked for
	Wrong  string `json:"bad,omitempty"` // what the handler found to be other than it must be
	Pad    string `json:"p,omitempty"`
}

// A Push is what all pushes carry.
type Push struct {
	UID   string `json:"u,omitempty"` // whom it is for; "" if it is for a group
	Group string `json:"g,omitempty"`
	From  string `json:"i"` // the process that has made it
	N     int    `json:"n"` // counts those of From for the user or the group, or those of a session's own handlers
	Probe int    `json:"q,omitempty"`
	Pad   string `json:"p,omitempty"`
}

// Routes of pushes.
const (
	pushOwn  = "own"  // by a handler of the gate to its own session
	pushSelf = "self" // by a handler of a room to its own session
	pushTell = "tell" // to a user, by Server.Push
	pushChat = "chat" // to a group
)

// Codes of errors that the handlers return.
const (
	codeWanted = "SOAK-WANTED" // what the bot has asked for
	codeFailed = "SOAK-FAILED" // the library returned an error, which an outage explains
)

// A game is what the handlers of one server share.
type game struct {
	srv     *pitaya.Server
	process string // id and incarnation
	journal *journal

	mu      sync.Mutex
	streams map[string]*stream
}

// A stream counts the pushes to one user or group. Its lock is held while one is made, so that the numbers are in the order
// of the pushes; neither waits for anybody.
type stream struct {
	mu sync.Mutex
	n  int
}

func newGame(process string, j *journal) *game {
	return &game{process: process, journal: j, streams: make(map[string]*stream)}
}

func (g *game) next(key string, push func(n int) error) error {
	g.mu.Lock()
	s := g.streams[key]
	if s == nil {
		s = new(stream)
		g.streams[key] = s
	}
	g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return push(s.n)
}

// begin notes that a message is handled, and checks that it is the session's.
func (g *game) begin(ctx context.Context, in *Msg) (*pitaya.Session, *Reply) {
	g.journal.add(in.Bot, in.Session, in.Seq)
	r := &Reply{Bot: in.Bot, Seq: in.Seq, Server: g.process}
	s := pitaya.SessionFromContext(ctx)
	switch uid := s.UID(); {
	case uid != "" && uid != in.UID:
		r.Wrong = fmt.Sprintf("the session is that of %s", uid)
	case s.FrontendSessionID() == 0:
		r.Wrong = "the session has no id"
	}
	return s, r
}

// failed makes an answer of an error of the library's.
func failed(err error) error { return pitaya.NewError(err, codeFailed) }

func (g *game) tell(ctx context.Context, uid string, probe int) error {
	return g.next("user "+uid, func(n int) error {
		return g.srv.Push(ctx, typeGate, []string{uid}, pushTell, &Push{UID: uid, From: g.process, N: n, Probe: probe})
	})
}

func (g *game) chat(ctx context.Context, group string, probe int, pad string) error {
	return g.next("group "+group, func(n int) error {
		err := g.srv.Group(group).Broadcast(ctx, typeGate, pushChat,
			&Push{Group: group, From: g.process, N: n, Probe: probe, Pad: pad})
		if _, ok := errors.AsType[*pitaya.UndeliveredError](err); ok {
			return nil // members who are away
		}
		return err
	})
}

// Gate has the handlers of frontends.
type Gate struct {
	pitaya.Base
	*game
	sessions sync.Map // session id to *gateSession
}

// gateSession is changed by the session's handlers only, of which one runs at a time.
type gateSession struct{ count, own int }

// local is begin for messages that their gate handles. A session whose first message this is gets its counts.
func (h *Gate) local(ctx context.Context, in *Msg) (*pitaya.Session, *gateSession, *Reply) {
	s, r := h.begin(ctx, in)
	v, ok := h.sessions.Load(s.ID())
	if !ok {
		v = new(gateSession)
		id := s.ID()
		h.sessions.Store(id, v)
		if err := s.OnClose(func() { h.sessions.Delete(id) }); err != nil {
			h.sessions.Delete(id) // it has ended meanwhile
		}
	}
	gs := v.(*gateSession)
	gs.count++
	r.Count, r.Own = gs.count, gs.own
	return s, gs, r
}

// Bind binds the session to the bot's user.
func (h *Gate) Bind(ctx context.Context, in *Msg) (*Reply, error) {
	s, _, r := h.local(ctx, in)
	if s.UID() == in.UID {
		return r, nil
	}
	if err := s.Bind(ctx, in.UID); err != nil {
		return nil, failed(err)
	}
	return r, nil
}

// Echo answers.
func (h *Gate) Echo(ctx context.Context, in *Msg) (*Reply, error) {
	_, _, r := h.local(ctx, in)
	r.Pad = in.Pad
	return r, nil
}

// Note is a notify.
func (h *Gate) Note(ctx context.Context, in *Msg) { h.local(ctx, in) }

// Burst pushes to its own session.
func (h *Gate) Burst(ctx context.Context, in *Msg) (*Reply, error) {
	s, gs, r := h.local(ctx, in)
	for range in.N {
		gs.own++
		if err := s.Push(ctx, pushOwn, &Push{UID: in.UID, From: h.process, N: gs.own, Pad: in.Pad}); err != nil {
			return nil, failed(err) // the session has ended
		}
	}
	r.Own = gs.own
	return r, nil
}

// Get returns what Room.Put has put.
func (h *Gate) Get(ctx context.Context, in *Msg) (*Reply, error) {
	s, _, r := h.local(ctx, in)
	r.Value, _ = pitaya.SessionValue[int](s, "put")
	return r, nil
}

// Call calls a remote of a room.
func (h *Gate) Call(ctx context.Context, in *Msg) (*Reply, error) {
	_, _, r := h.local(ctx, in)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	sum, err := pitaya.Call[wrapperspb.Int64Value](ctx, h.srv, "room.remotes.next", wrapperspb.Int64(int64(in.N)))
	if err != nil {
		return nil, failed(err)
	}
	r.Value = int(sum.Value)
	return r, nil
}

// Room has the handlers of backends.
type Room struct {
	pitaya.Base
	*game
}

// Bind binds the session on the frontend to the bot's user.
func (h *Room) Bind(ctx context.Context, in *Msg) (*Reply, error) {
	s, r := h.begin(ctx, in)
	err := s.Bind(ctx, in.UID)
	if errors.Is(err, pitaya.ErrAlreadyBound) && s.UID() == in.UID {
		return r, nil
	}
	if err != nil {
		return nil, failed(err)
	}
	return r, nil
}

// Echo answers.
func (h *Room) Echo(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	r.Pad = in.Pad
	return r, nil
}

// Note is a notify.
func (h *Room) Note(ctx context.Context, in *Msg) { h.begin(ctx, in) }

// Slow answers after N milliseconds.
func (h *Room) Slow(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	timer := time.NewTimer(time.Duration(in.N) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return r, nil
}

// Fail returns an error.
func (h *Room) Fail(ctx context.Context, in *Msg) (*Reply, error) {
	h.begin(ctx, in)
	return nil, pitaya.Errorf(codeWanted, "bot %d wants an error", in.Bot)
}

// Join adds the user to a group.
func (h *Room) Join(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	err := h.srv.Group(in.To).Add(ctx, in.UID)
	if err != nil && !errors.Is(err, pitaya.ErrMemberExists) {
		return nil, failed(err)
	}
	return r, nil
}

// Leave takes the user out of a group.
func (h *Room) Leave(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	err := h.srv.Group(in.To).Remove(ctx, in.UID)
	if err != nil && !errors.Is(err, pitaya.ErrMemberNotFound) {
		return nil, failed(err)
	}
	return r, nil
}

// Chat pushes to a group.
func (h *Room) Chat(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	if err := h.chat(ctx, in.To, 0, in.Pad); err != nil {
		return nil, failed(err)
	}
	return r, nil
}

// Tell pushes to a user.
func (h *Room) Tell(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	if err := h.tell(ctx, in.To, 0); err != nil {
		return nil, failed(err)
	}
	return r, nil
}

// Self pushes to its own session.
func (h *Room) Self(ctx context.Context, in *Msg) (*Reply, error) {
	s, r := h.begin(ctx, in)
	for range in.N {
		if err := h.next("self "+in.UID, func(n int) error {
			return s.Push(ctx, pushSelf, &Push{UID: in.UID, From: h.process, N: n})
		}); err != nil {
			return nil, failed(err)
		}
	}
	return r, nil
}

// Put changes the session's data on the frontend.
func (h *Room) Put(ctx context.Context, in *Msg) (*Reply, error) {
	s, r := h.begin(ctx, in)
	if err := s.Set("put", in.Seq); err != nil {
		return nil, failed(err)
	}
	if err := s.PushToFront(ctx); err != nil {
		return nil, failed(err)
	}
	return r, nil
}

// Kick ends the session of a user.
func (h *Room) Kick(ctx context.Context, in *Msg) (*Reply, error) {
	_, r := h.begin(ctx, in)
	err := h.srv.Kick(ctx, typeGate, []string{in.To})
	if _, ok := errors.AsType[*pitaya.UndeliveredError](err); err != nil && !ok {
		return nil, failed(err)
	}
	return r, nil
}

// Remotes is what other servers call.
type Remotes struct{ pitaya.Base }

// Next returns the next number.
func (*Remotes) Next(_ context.Context, in *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
	return wrapperspb.Int64(in.Value + 1), nil
}

// register gives a server its handlers.
func (g *game) register(srv *pitaya.Server) error {
	g.srv = srv
	if srv.Type() == typeGate {
		return errors.Join(
			srv.Register(&Gate{game: g}, pitaya.WithName("game"), pitaya.WithNameFunc(strings.ToLower)),
			// A session stays with one room as long as that is there, so that there is an order to look at.
			srv.AddRoute(typeRoom, pitaya.RouteSticky(pitaya.RouteRandom)),
		)
	}
	return errors.Join(
		srv.Register(&Room{game: g}, pitaya.WithName("game"), pitaya.WithNameFunc(strings.ToLower)),
		srv.RegisterRemote(&Remotes{}, pitaya.WithName("remotes"), pitaya.WithNameFunc(strings.ToLower)),
	)
}
