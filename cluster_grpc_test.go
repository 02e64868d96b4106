package pitaya_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// grpcCluster is a cluster whose servers call each other over gRPC and find each other in memory.
type grpcCluster struct {
	*pitaya.MemCluster
	t *testing.T
}

// start starts a server, which must be known to the others before it is called.
func (c grpcCluster) start(cfg pitaya.Config, setup func(*pitaya.Server)) *testServer {
	c.t.Helper()
	cfg.Cluster, cfg.Logger = true, testLogger(c.t)
	cfg.Metadata = pitaya.GRPCMetadata(nil, "", "127.0.0.1", "", "", "")
	cfg.Discovery, _ = c.Node()
	var err error
	if cfg.Transport, err = pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: -1, DialTimeout: eventTime, RequestTimeout: eventTime}, "", cfg.Logger); err != nil {
		c.t.Fatal(err)
	}
	s := startServer(c.t, cfg, setup)
	c.t.Cleanup(func() { s.stop(c.t) })
	return s
}

// silent puts a server into discovery to which one can connect, and that says nothing.
func (c grpcCluster) silent(id, serverType, features string, frontend bool) {
	c.t.Helper()
	info := rawListener(c.t, func(_ int, conn net.Conn) {
		for b := make([]byte, 1<<10); ; {
			if _, err := conn.Read(b); err != nil {
				return
			}
		}
	})
	info.ID, info.Type, info.Frontend = id, serverType, frontend
	info.Metadata["pitaya-go.features"] = features
	d, _ := c.Node()
	if err := d.Join(c.t.Context(), info, func(pitaya.DiscoveryEvent) {}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { d.Leave(context.Background()) })
}

// known waits until a server knows so many.
func known(t *testing.T, s *pitaya.Server, n int) {
	t.Helper()
	poll(t, fmt.Sprint(n, " servers to be known"), func() bool { return len(s.Servers("")) == n })
}

// TestGRPCPushBesideSilent: a push waits for no frontend that its user is not on, such as one that is being connected to.
func TestGRPCPushBesideSilent(t *testing.T) {
	t.Parallel()
	c := grpcCluster{pitaya.NewMemCluster(), t}
	l := pitaya.ListenMem()
	gate := c.start(pitaya.Config{Type: "gate", ID: "gate", Frontend: true, Listeners: []net.Listener{l}}, func(s *pitaya.Server) {
		if err := pitaya.HandleRaw(s, "door.bind", func(ctx context.Context, uid []byte) ([]byte, error) {
			return uid, pitaya.SessionFromContext(ctx).Bind(ctx, string(uid))
		}); err != nil {
			t.Fatal(err)
		}
	})
	room := c.start(pitaya.Config{Type: "room", ID: "room"}, func(s *pitaya.Server) {
		if err := pitaya.HandleRaw(s, "room.tell", func(ctx context.Context, uid []byte) ([]byte, error) {
			return uid, s.Push(ctx, "gate", []string{string(uid)}, "onTell", uid)
		}); err != nil {
			t.Fatal(err)
		}
	})
	known(t, gate.Server, 2)
	nc, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pushed := make(chan []byte, 1)
	client, err := pitaya.NewClient(t.Context(), nc, &pitaya.ClientConfig{
		OnPush: map[string]func([]byte){"onTell": func(b []byte) { pushed <- b }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.RequestRaw(t.Context(), "door.bind", []byte("u")); err != nil {
		t.Fatal(err)
	}
	c.silent("silent", "gate", "merge,users,claim", true)
	known(t, room.Server, 3)
	ctx, cancel := context.WithTimeout(t.Context(), eventTime/2)
	defer cancel()
	if _, err := client.RequestRaw(ctx, "room.room.tell", []byte("u")); err != nil {
		t.Errorf("beside a silent frontend: %v", err)
	}
	if got := transporttest.Await(t, pushed); string(got) != "u" {
		t.Errorf("pushed %q", got)
	}
}

// TestGRPCForwardBesideSilent: while a server is being connected to, the messages go to the others of its type.
func TestGRPCForwardBesideSilent(t *testing.T) {
	t.Parallel()
	c := grpcCluster{pitaya.NewMemCluster(), t}
	l := pitaya.ListenMem()
	gate := c.start(pitaya.Config{Type: "gate", ID: "gate", Frontend: true, Listeners: []net.Listener{l}}, nil)
	c.start(pitaya.Config{Type: "room", ID: "room"}, func(s *pitaya.Server) {
		if err := pitaya.HandleRaw(s, "room.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }); err != nil {
			t.Fatal(err)
		}
	})
	known(t, gate.Server, 2)
	nc, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, err := pitaya.NewClient(t.Context(), nc, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), eventTime/2)
	defer cancel()
	// The first goes to a server that may still be being connected to: there is no other.
	if _, err := client.RequestRaw(ctx, "room.room.echo", nil); err != nil {
		t.Fatal(err)
	}
	c.silent("silent", "room", "", false)
	known(t, gate.Server, 3)
	for range 30 {
		if _, err := client.RequestRaw(ctx, "room.room.echo", nil); err != nil {
			t.Fatalf("beside a silent server: %v", err)
		}
	}
}
