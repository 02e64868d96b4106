package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// What a server does when others let it down: code of the application that panics or ends its goroutine, stores that
// hang, peers that say what cannot be.

// A gateAndRoom is a frontend and a backend in memory.
type gateAndRoom struct {
	cluster    *pitaya.MemCluster
	gate, room *pitayatest.Server
	tr         *slowTransport // the frontend's
}

// startGateAndRoom starts them. The room echoes.
func startGateAndRoom(t *testing.T, cfg pitaya.Config, gate, room func(*pitaya.Server)) *gateAndRoom {
	t.Helper()
	c := &gateAndRoom{cluster: pitaya.NewMemCluster(), tr: new(slowTransport)}
	cfg.Type, cfg.ID, cfg.Frontend, cfg.Heartbeat = "gate", "g", true, -1
	c.gate = seamServer(t, c.cluster, cfg, c.tr, gate)
	c.room = seamServer(t, c.cluster, pitaya.Config{Type: "room", ID: "r"}, new(slowTransport), func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "room.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }))
		if room != nil {
			room(s)
		}
	})
	return c
}

// A notify that waits for its turn when its client leaves is counted.
func TestClusterNotifyLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHold()
		c := startGateAndRoom(t, pitaya.Config{RemoteMessages: 1}, nil, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "room.hold", func(context.Context, []byte) ([]byte, error) {
				h.wait()
				return nil, nil
			}))
		})
		client := c.gate.Client(t)
		client.Notify("room.room.hold", nil)
		<-h.came
		client.Notify("room.room.hold", nil)
		synctest.Wait()
		client.Close()
		synctest.Wait()
		if s := c.gate.Stats(); s.Notifies != 2 || s.NotifiesLost != 1 || s.Forwards != 1 {
			t.Errorf("%d notifies, %d lost, %d sent on, want 2, 1 and 1", s.Notifies, s.NotifiesLost, s.Forwards)
		}
		close(h.open)
	})
}

// A routing function that ends its goroutine ends the session, as a handler does, and nothing of what it held is kept.
func TestClusterRoutingGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		exit := true
		c := startGateAndRoom(t, pitaya.Config{RemoteMessages: 1}, func(s *pitaya.Server) {
			must(t, s.AddRoute("room", func(ctx context.Context, r pitaya.Route, b []byte, m map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
				if exit {
					runtime.Goexit()
				}
				return m["r"], nil
			}))
		}, nil)
		client := c.gate.Client(t)
		if _, err := client.RequestRaw(t.Context(), "room.room.echo", []byte("x")); err == nil {
			t.Error("answered")
		}
		synctest.Wait()
		if s := c.gate.Stats(); s.Sessions != 0 || s.Lost != 1 {
			t.Errorf("%d sessions are left, %d requests lost, want 0 and 1", s.Sessions, s.Lost)
		}
		exit = false
		if b, err := c.gate.Client(t).RequestRaw(t.Context(), "room.room.echo", []byte("x")); err != nil || string(b) != "x" {
			t.Errorf("another client got %q, %v", b, err)
		}
	})
}

// One that does so when another server is looked for, which is in a goroutine of the transport's, fails the message.
func TestClusterReroutingGoexit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := startGateAndRoom(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, s.AddRoute("room", func(ctx context.Context, r pitaya.Route, b []byte, m map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
				if calls++; calls == 2 {
					runtime.Goexit()
				}
				return m["r"], nil
			}))
		}, nil)
		seamServer(t, c.cluster, pitaya.Config{Type: "room", ID: "other"}, new(slowTransport), nil)
		c.cluster.Cut("g", "r")
		client := c.gate.Client(t)
		if _, err := client.RequestRaw(t.Context(), "room.room.echo", []byte("x")); pitaya.ErrorCode(err) != pitaya.CodeInternal {
			t.Errorf("got %v, want an internal error", err)
		}
		c.cluster.Heal("g", "r")
		if b, err := client.RequestRaw(t.Context(), "room.room.echo", []byte("x")); err != nil || string(b) != "x" {
			t.Errorf("afterwards got %q, %v", b, err)
		}
	})
}

// A bomb is a session value whose JSON panics when it is armed, and counts.
type bomb struct {
	armed *atomic.Bool
	made  *atomic.Int64
}

func (b bomb) MarshalJSON() ([]byte, error) {
	if b.made.Add(1); b.armed.Load() {
		panic("bomb")
	}
	return []byte(`"harmless"`), nil
}

// Session data that cannot be made JSON of any more ends the session that it is of, and not the process.
func TestClusterDataPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startGateAndRoom(t, pitaya.Config{RemoteMessages: 1}, nil, nil)
		session, client := seamSession(t, c.gate)
		b := bomb{new(atomic.Bool), new(atomic.Int64)}
		must(t, session.Set("b", b))
		b.armed.Store(true)
		if _, err := client.RequestRaw(t.Context(), "room.room.echo", []byte("x")); err == nil {
			t.Error("answered")
		}
		synctest.Wait()
		if s := c.gate.Stats(); s.Sessions != 0 || s.Lost != 1 || s.Panics != 1 {
			t.Errorf("%d sessions are left, %d requests lost, %d panics, want 0, 1 and 1", s.Sessions, s.Lost, s.Panics)
		}
	})
}

// PushToFront makes JSON of what has changed only; when that panics what has changed is still to be sent, and the session
// can be used.
func TestClusterPushToFrontChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bomb{new(atomic.Bool), new(atomic.Int64)}
		c := startGateAndRoom(t, pitaya.Config{}, nil, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "room.data", func(ctx context.Context, in []byte) ([]byte, error) {
				session := pitaya.SessionFromContext(ctx)
				if err := errors.Join(session.Set("large", b), session.PushToFront(ctx), session.Set("small", 1)); err != nil {
					return nil, err
				}
				before := b.made.Load()
				if err := session.PushToFront(ctx); err != nil {
					return nil, err
				}
				if n := b.made.Load() - before; n != 0 {
					return nil, fmt.Errorf("made JSON of what had not changed %d times", n)
				}
				if err := session.Set("large", b); err != nil {
					return nil, err
				}
				b.armed.Store(true)
				func() {
					defer func() { recover() }()
					err := session.PushToFront(ctx)
					t.Error("PushToFront returned", err)
				}()
				b.armed.Store(false)
				before = b.made.Load()
				err := errors.Join(session.Set("small", 2), session.PushToFront(ctx))
				if b.made.Load() == before {
					return nil, errors.New("what was not sent is forgotten")
				}
				return in, err
			}))
		})
		session, client := seamSession(t, c.gate)
		if _, err := client.RequestRaw(t.Context(), "room.room.data", []byte{}); err != nil {
			t.Error(err)
		}
		if large, small := session.Get("large"), session.Get("small"); large != "harmless" || small != json.Number("2") {
			t.Errorf("on the frontend: %v, %v", large, small)
		}
	})
}

// A bind that fails does not take along an older one of the same user that is under way.
func TestClusterBindFailsBesideOlder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		one := seamServer(t, cluster, seamGate("g1"), new(slowTransport), nil)
		two := seamServer(t, cluster, seamGate("g2"), new(slowTransport), nil)
		cluster.Delay(100 * time.Millisecond) // of claims
		older, _ := seamSession(t, one)
		newer, _ := seamSession(t, one)
		done := bindLater(t.Context(), older, "u")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := newer.Bind(ctx, "u"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the newer one: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the older one: %v", err)
		}
		if one.SessionByUID("u") != older {
			t.Error("the user does not have the older session")
		}
		// It is a bind like any other: a later one elsewhere takes its place, and one here.
		elsewhere, _ := seamSession(t, two)
		must(t, elsewhere.Bind(t.Context(), "u"))
		time.Sleep(time.Second)
		if one.SessionByUID("u") != nil || two.SessionByUID("u") != elsewhere {
			t.Error("the user does not have the session on the other server alone")
		}
		must(t, newer.Bind(t.Context(), "u"))
		time.Sleep(time.Second)
		if one.SessionByUID("u") != newer || two.SessionByUID("u") != nil {
			t.Error("the user does not have the newest session alone")
		}
	})
}

// hangingStore is a binding store whose calls last as long as their contexts.
type hangingStore struct{}

func (hangingStore) wait(ctx context.Context) error            { <-ctx.Done(); return ctx.Err() }
func (s hangingStore) Put(ctx context.Context, _ string) error { return s.wait(ctx) }
func (s hangingStore) Get(ctx context.Context, _, _ string) (string, error) {
	return "", s.wait(ctx)
}
func (s hangingStore) Delete(ctx context.Context, _ string) error { return s.wait(ctx) }
func (hangingStore) Close(context.Context) error                  { return nil }

// A login fails within 5 s while the binding store hangs, whatever its steps are, and so does the next.
func TestClusterBindStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := seamGate("g")
		cfg.Bindings = hangingStore{}
		g := seamServer(t, pitaya.NewMemCluster(), cfg, new(slowTransport), nil)
		s, _ := seamSession(t, g)
		for range 2 {
			begin := time.Now()
			err := s.Bind(t.Context(), "u")
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
				t.Errorf("failed with %v after %v", err, took)
			}
			if g.SessionByUID("u") != nil {
				t.Error("the user has a session")
			}
		}
	})
}

// A user whose frontend is not known is not one who does not exist; and one whose frontend has vanished a moment ago is
// reached, if it lives.
func TestClusterNotifyVanished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &bindingTable{by: map[string]string{"ghost": "nowhere"}}
		cluster := pitaya.NewMemCluster()
		cfg := seamGate("g")
		cfg.Bindings = &tableStore{bindingTable: table, id: "g"}
		g := seamServer(t, cluster, cfg, new(slowTransport), nil)
		room := seamServer(t, cluster, pitaya.Config{Type: "room", ID: "r", Bindings: &tableStore{bindingTable: table, id: "r"}},
			new(slowTransport), nil)
		s, client := seamSession(t, g)
		must(t, s.Bind(t.Context(), "u"))
		push := func(uid string) error { return room.Push(t.Context(), "gate", []string{uid}, "on.x", []byte("hi")) }
		for _, send := range []func(string) error{push,
			func(uid string) error { return room.Kick(t.Context(), "gate", []string{uid}) }} {
			if err := send("ghost"); !errors.Is(err, pitaya.ErrUnreachable) || errors.Is(err, pitaya.ErrUserNotFound) {
				t.Errorf("on a server that is not known: %v", err)
			}
			if err := send("nobody"); !errors.Is(err, pitaya.ErrUserNotFound) {
				t.Errorf("without a binding: %v", err)
			}
		}
		cluster.Expire("g")
		synctest.Wait()
		must(t, push("u"))
		client.ExpectPush("on.x")
	})
}

// An announcement of a bind ends a session only if it can be one.
func TestClusterBindNotice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startGateAndRoom(t, pitaya.Config{}, nil, nil)
		s, client := seamSession(t, c.gate)
		must(t, s.Bind(t.Context(), "u"))
		for _, tt := range []struct {
			fid  string
			ends bool
		}{{"", false}, {"g", false}, {"r", false}, {"of-pitaya", true}} {
			body, err := proto.Marshal(&pb.BindMsg{Uid: "u", Fid: tt.fid})
			must(t, err)
			var answer []byte
			c.tr.handler.HandleNotice(&pitaya.Notice{Kind: pitaya.NoticeBind, FrontendType: "gate", UID: "u", Body: body},
				func(b []byte, err error) { answer = b; must(t, err) })
			if len(answer) == 0 {
				t.Errorf("from %q: not acknowledged", tt.fid)
			}
			synctest.Wait()
			if ended := c.gate.SessionByUID("u") == nil; ended != tt.ends {
				t.Errorf("from %q: ended: %v", tt.fid, ended)
			}
		}
		client.ExpectKick()
	})
}

// waitingLog is a handler of log records that holds those of clients that are too slow.
type waitingLog struct {
	slog.Handler
	hold *hold
}

func (w waitingLog) WithAttrs(a []slog.Attr) slog.Handler {
	return waitingLog{w.Handler.WithAttrs(a), w.hold}
}

func (w waitingLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "client too slow" {
		w.hold.wait()
	}
	return w.Handler.Handle(ctx, r)
}

// A push for many users, however large, does not keep from their handlers the calls that come behind it; for each of the
// users it stays in its place.
func TestClusterLargeBroadcast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHold()
		tr := new(slowTransport)
		cfg := seamGate("g")
		cfg.QueueBytes = 2 << 20
		cfg.Cluster, cfg.Logger = true, slog.New(waitingLog{testLogger(t).Handler(), h})
		cfg.Discovery, tr.Transport = pitaya.NewMemCluster().Node()
		cfg.Transport = tr
		g := pitayatest.NewServer(t, cfg, func(s *pitaya.Server) { must(t, s.RegisterRemote(RoomRemote{})) })
		slow, err := g.Listener().DialContext(t.Context())
		must(t, err)
		defer slow.Close()
		(&rawClient{Conn: slow, t: t}).hello()
		synctest.Wait()
		for s := range g.Sessions() {
			must(t, s.Bind(t.Context(), "slow"))
			for range 25 { // more than it may have for long
				must(t, s.Push(t.Context(), "on.x", make([]byte, 100<<10)))
				synctest.Wait() // what the connection takes it has
			}
			time.Sleep(2 * time.Second)
		}
		fast, client := seamSession(t, g)
		must(t, fast.Bind(t.Context(), "fast"))

		push := &pitaya.RPCUsers{Route: []byte("on.x"), UIDs: []string{"slow", "fast"}, Data: []byte(strings.Repeat("x", 100<<10))}
		call := &pitaya.RPCRequest{Type: 1, Metadata: []byte("{}")}
		came := make(chan string, 100)
		send := func(route string, data []byte) {
			call.Msg = pitaya.RPCMsg{Route: []byte(route), Data: data}
			tr.handler.HandleCall(t.Context(), call.Encode(), func(b []byte) { came <- route })
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 10 {
				send("sys.pushusers", push.Encode())
			}
			send("gate.RoomRemote.Upper", nil)
			push := &pitaya.RPCPush{Route: []byte("on.y"), UID: []byte("fast"), Data: []byte("last")}
			tr.handler.HandleNotice(&pitaya.Notice{Kind: pitaya.NoticePush, UID: "fast", Body: push.Encode()}, nil)
		}()
		<-h.came // a broadcast is stuck
		synctest.Wait()
		select {
		case <-sent:
		default:
			t.Error("the calls behind a broadcast are stuck with it")
		}
		var remote bool
		for len(came) > 0 {
			remote = <-came == "gate.RoomRemote.Upper" || remote
		}
		if !remote {
			t.Error("the remote was not called")
		}
		close(h.open)
		for range 10 {
			client.ExpectPush("on.x")
		}
		if b := client.ExpectPush("on.y"); string(b) != "last" {
			t.Errorf("pushed %q", b)
		}
	})
}

// What could not be sent is reported before the transport's Close returns.
func TestMemCloseWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, tr := pitaya.NewMemCluster().Node()
		must(t, tr.Listen(t.Context(), &pitaya.ServerInfo{ID: "a", Type: "t"}, echoHandler{}))
		h := newHold()
		tr.Call(t.Context(), &pitaya.ServerInfo{ID: "none", Type: "t"}, nil, func(_ []byte, err error) {
			h.wait()
			if !errors.Is(err, pitaya.ErrUnreachable) {
				t.Errorf("failed with %v", err)
			}
		})
		closed := make(chan error)
		go func() { closed <- tr.Close(context.WithoutCancel(t.Context())) }()
		<-h.came
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("closed, while done is called")
		default:
		}
		close(h.open)
		must(t, <-closed)
	})
}
