package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// InteropSvc is the service interopsvc: what two implementations in one cluster
// can be asked to do, and see of each other. It speaks JSON.
type InteropSvc struct {
	server   *pitaya.Server
	frontend bool
	room     *room

	mu     sync.Mutex     // guards counts
	counts map[string]int // by key, how often count was called

	// Broadcasts go on after their answer, until Shutdown.
	broadcasts sync.WaitGroup
	stopping   context.Context
	stop       context.CancelFunc
}

// registerInterop makes the service. Its group needs one name for each process
// only, since groups are in memory.
func registerInterop(s *pitaya.Server, frontend bool) error {
	room, err := newRoom(s, "interop")
	if err != nil {
		return err
	}
	i := &InteropSvc{server: s, frontend: frontend, room: room, counts: make(map[string]int)}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return register(s, "interopsvc", i)
}

// Shutdown ends the broadcasts.
func (i *InteropSvc) Shutdown() {
	i.stop()
	i.broadcasts.Wait()
}

// Reply is what most methods answer.
type Reply struct {
	Code int    `json:"code"`
	Msg  string `json:"msg"`
}

func replyOK() *Reply { return &Reply{Code: 200, Msg: "ok"} }

// Whoami is the answer of InteropSvc.Whoami.
type Whoami struct {
	UID        string `json:"uid"`
	ServerID   string `json:"serverid"`
	ServerType string `json:"servertype"`
	Frontend   bool   `json:"frontend"`
	SessionID  int64  `json:"sessionid"`
}

// Whoami says who the caller is, and which server handles the call.
func (i *InteropSvc) Whoami(ctx context.Context) (*Whoami, error) {
	session := pitaya.SessionFromContext(ctx)
	return &Whoami{
		UID:        session.UID(),
		ServerID:   i.server.ID(),
		ServerType: i.server.Type(),
		Frontend:   i.frontend,
		SessionID:  session.ID(),
	}, nil
}

// Values are session data. Numbers are kept as they are written, so that none
// is rounded on its way through a session.
type Values map[string]any

// UnmarshalJSON implements [json.Unmarshaler].
func (v *Values) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode((*map[string]any)(v))
}

// Data is the argument of SetData and the answer of GetData.
type Data struct {
	Data Values `json:"data"`
}

// SetData replaces the session's data, also on the frontend if this is another
// server.
func (i *InteropSvc) SetData(ctx context.Context, in *Data) (*Reply, error) {
	reply, err := i.SetDataLocal(ctx, in)
	if err != nil || i.frontend {
		return reply, err
	}
	if err := pitaya.SessionFromContext(ctx).PushToFront(ctx); err != nil {
		return nil, pitaya.NewError(err, "PIT-452")
	}
	return reply, nil
}

// SetDataLocal replaces the session's data on this server.
func (i *InteropSvc) SetDataLocal(ctx context.Context, in *Data) (*Reply, error) {
	if err := pitaya.SessionFromContext(ctx).SetData(in.Data); err != nil {
		return nil, pitaya.NewError(err, "PIT-451")
	}
	return replyOK(), nil
}

// GetData returns the session's data.
func (i *InteropSvc) GetData(ctx context.Context) (*Data, error) {
	return &Data{Data: pitaya.SessionFromContext(ctx).Data()}, nil
}

// Handshake returns what the client said in its handshake.
func (i *InteropSvc) Handshake(ctx context.Context) (*pitaya.HandshakeData, error) {
	return pitaya.SessionFromContext(ctx).HandshakeData(), nil
}

// PushSelf is the argument of InteropSvc.PushSelf.
type PushSelf struct {
	Route string `json:"route"`
	Msg   string `json:"msg"`
	Count int    `json:"count"`
	Size  int    `json:"size"`
}

// PushSelf pushes to the caller.
func (i *InteropSvc) PushSelf(ctx context.Context, in *PushSelf) (*Reply, error) {
	session := pitaya.SessionFromContext(ctx)
	payload := []byte(in.Msg)
	if in.Size > 0 {
		var err error
		if payload, err = letters("p", in.Size); err != nil {
			return nil, pitaya.NewError(err, "PIT-453")
		}
	}
	for n := range max(in.Count, 1) {
		b := payload
		if in.Count > 1 && in.Size <= 0 {
			b = strconv.AppendInt(slices.Clip(payload), int64(n), 10)
		}
		if err := session.Push(ctx, in.Route, b); err != nil {
			return nil, pitaya.NewError(err, "PIT-453")
		}
	}
	return replyOK(), nil
}

// letters returns a payload of n times the letter, if one packet could carry it.
func letters(letter string, n int) ([]byte, error) {
	if n < 0 || n > pitaya.MaxPacketSize {
		return nil, fmt.Errorf("no packet has %d bytes", n)
	}
	return bytes.Repeat([]byte(letter), n), nil
}

// PushTo is the argument of the methods that push and kick by uid.
type PushTo struct {
	UIDs     []string `json:"uids"`
	Route    string   `json:"route"`
	Msg      string   `json:"msg"`
	Frontend string   `json:"frontend"`
}

// Delivery says whom a push or a kick by uid did not reach.
type Delivery struct {
	Failed []string `json:"failed"`
	Err    string   `json:"err"`
}

// delivery makes the answer out of an error. One that is about no user in
// particular is about all of them.
func delivery(uids []string, err error) *Delivery {
	d := &Delivery{Failed: []string{}}
	if err == nil {
		return d
	}
	d.Err = err.Error()
	if u, ok := errors.AsType[*pitaya.UndeliveredError](err); ok {
		uids = u.UIDs
	}
	d.Failed = append(d.Failed, uids...)
	return d
}

// PushTo pushes the bytes of a text to users.
func (i *InteropSvc) PushTo(ctx context.Context, in *PushTo) (*Delivery, error) {
	return delivery(in.UIDs, i.server.Push(ctx, in.Frontend, in.UIDs, in.Route, []byte(in.Msg))), nil
}

// PushToJSON pushes a value to users.
func (i *InteropSvc) PushToJSON(ctx context.Context, in *PushTo) (*Delivery, error) {
	return delivery(in.UIDs, i.server.Push(ctx, in.Frontend, in.UIDs, in.Route, &Reply{Code: 7, Msg: in.Msg})), nil
}

// KickTo kicks users.
func (i *InteropSvc) KickTo(ctx context.Context, in *PushTo) (*Delivery, error) {
	return delivery(in.UIDs, i.server.Kick(ctx, in.Frontend, in.UIDs)), nil
}

// Key names a counter.
type Key struct {
	Key string `json:"key"`
}

// Count adds one to a counter.
func (i *InteropSvc) Count(ctx context.Context, in *Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts[in.Key]++
}

// Number is an argument or a result.
type Number struct {
	N int `json:"n"`
}

// GetCount returns a counter.
func (i *InteropSvc) GetCount(ctx context.Context, in *Key) (*Number, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &Number{N: i.counts[in.Key]}, nil
}

// Sleep waits for a number of milliseconds.
func (i *InteropSvc) Sleep(ctx context.Context, in *Number) (*Reply, error) {
	select {
	case <-time.After(time.Duration(in.N) * time.Millisecond):
		return &Reply{Code: 200, Msg: fmt.Sprintf("slept %d", in.N)}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Big answers with a number of bytes.
func (i *InteropSvc) Big(ctx context.Context, in *Number) ([]byte, error) {
	b, err := letters("x", in.N)
	if err != nil {
		return nil, pitaya.NewError(err, pitaya.CodeBadRequest)
	}
	return b, nil
}

// Boom panics.
func (i *InteropSvc) Boom(ctx context.Context) (*Reply, error) {
	panic("boom")
}

// RPC is the argument of the methods that call a remote.
type RPC struct {
	ServerID string `json:"serverid"`
	Route    string `json:"route"`
	Msg      string `json:"msg"`
}

// RPC calls a remote.
func (i *InteropSvc) RPC(ctx context.Context, in *RPC) (*Reply, error) {
	return i.call(ctx, "", in)
}

// RPCTo calls a remote of one server.
func (i *InteropSvc) RPCTo(ctx context.Context, in *RPC) (*Reply, error) {
	return i.call(ctx, in.ServerID, in)
}

func (i *InteropSvc) call(ctx context.Context, id string, in *RPC) (*Reply, error) {
	r, err := call(ctx, i.server, id, in.Route, &testpb.TestRequest{Msg: in.Msg})
	if err != nil {
		return nil, err
	}
	return &Reply{Code: int(r.Code), Msg: r.Msg}, nil
}

// ReqInfo is the answer of InteropSvc.ReqInfo.
type ReqInfo struct {
	Route       string `json:"route"`
	RequestID   string `json:"requestid"`
	PeerID      string `json:"peerid"`
	PeerService string `json:"peerservice"`
}

// ReqInfo returns what travelled with the call (cluster protocol, section 4).
func (i *InteropSvc) ReqInfo(ctx context.Context) (*ReqInfo, error) {
	text := func(key string) string {
		s, _ := pitaya.GetFromPropagateCtx(ctx, key).(string)
		return s
	}
	return &ReqInfo{Route: text("req-route"), RequestID: text("request.id"), PeerID: text("peer.id"), PeerService: text("peer.service")}, nil
}

// Join puts the caller into the group of this server.
func (i *InteropSvc) Join(ctx context.Context) (*Reply, error) {
	session := pitaya.SessionFromContext(ctx)
	if session.UID() == "" {
		if err := session.Bind(ctx, newUID()); err != nil {
			return nil, err
		}
	}
	enter := func() error { return i.room.enter(ctx, session, nil) }
	if !i.frontend {
		// Nobody tells a backend that the user has left, so it stays.
		enter = func() error { return i.room.add(ctx, session.UID()) }
	}
	if err := enter(); err != nil {
		return nil, err
	}
	return replyOK(), nil
}

// Broadcast is the argument of InteropSvc.Broadcast.
type Broadcast struct {
	Count int `json:"count"`
	Size  int `json:"size"`
}

// Line is what is pushed by Broadcast, and what Echo takes and gives.
type Line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Broadcast pushes messages to the group of this server. The answer does not
// wait for it.
func (i *InteropSvc) Broadcast(ctx context.Context, in *Broadcast) (*Reply, error) {
	if in.Size < 0 || in.Size > pitaya.MaxPacketSize {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "no packet has %d bytes", in.Size)
	}
	const frame = `{"name":"broadcast","content":""}`
	line := &Line{Name: "broadcast", Content: strings.Repeat("x", max(in.Size-len(frame), 0))}
	frontendType := "" // this one's
	if !i.frontend {
		frontendType = "connector"
	}
	log := pitaya.LoggerFromContext(ctx)
	i.broadcasts.Go(func() {
		for range in.Count {
			if n, err := i.room.group.Count(i.stopping); n == 0 || err != nil {
				return // nobody listens, or the server ends
			}
			if err := i.room.group.Broadcast(i.stopping, frontendType, "onbroadcast", line); err != nil {
				log.Debug("not delivered", "err", err)
			}
		}
	})
	return replyOK(), nil
}

// Echo answers with its argument.
func (i *InteropSvc) Echo(ctx context.Context, in *Line) (*Line, error) { return in, nil }
