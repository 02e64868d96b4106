package pitayatest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// Kit has a handler for each thing that a client can expect.
type Kit struct{ pitaya.Base }

type text struct{ Text string }

func (*Kit) Echo(_ context.Context, in *text) (*text, error) { return in, nil }

func (*Kit) Fail(context.Context) ([]byte, error) { return nil, pitaya.Errorf("KIT-1", "failed") }

func (*Kit) Silent(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }

// Push pushes 0, 1, 2 on the routes onA and onB in turns, and is the answer to neither.
func (*Kit) Push(ctx context.Context) {
	for i := range 3 {
		for _, route := range []string{"onA", "onB"} {
			if err := pitaya.SessionFromContext(ctx).Push(ctx, route, text{fmt.Sprint(i)}); err != nil {
				pitaya.LoggerFromContext(ctx).Error("push", "err", err)
			}
		}
	}
}

func (*Kit) Kick(ctx context.Context) { _ = pitaya.SessionFromContext(ctx).KickReason(ctx, "enough") }

func (*Kit) Close(ctx context.Context) { pitaya.SessionFromContext(ctx).Close() }

func newKit(t testing.TB) *pitayatest.Server {
	return pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) { s.Register(&Kit{}) })
}

// inAndOutside runs a test in a bubble and without.
func inAndOutside(t *testing.T, f func(t *testing.T)) {
	t.Run("real time", func(t *testing.T) { t.Parallel(); f(t) })
	t.Run("bubble", func(t *testing.T) { t.Parallel(); synctest.Test(t, f) })
}

func TestClient(t *testing.T) {
	inAndOutside(t, func(t *testing.T) {
		s := newKit(t)
		c := s.Client(t)
		var out text
		c.Request("Kit.Echo", text{"x"}, &out)
		if out.Text != "x" {
			t.Errorf("got %q", out.Text)
		}
		if got := pitayatest.Request[text](c, "Kit.Echo", text{"y"}); got.Text != "y" {
			t.Errorf("got %q", got.Text)
		}
		if err := c.ExpectError("Kit.Fail", nil, "KIT-1"); err.Message != "failed" {
			t.Errorf("got %v", err)
		}
		c.NoPush()
		c.Notify("Kit.Push", nil)
		// What came before it was asked for is there, and each route has its order.
		for _, route := range []string{"onB", "onA"} {
			for i := range 2 {
				if got := pitayatest.Push[text](c, route); got.Text != fmt.Sprint(i) {
					t.Errorf("%s: got %q, want %d", route, got.Text, i)
				}
			}
		}
		if got := c.ExpectPush("onA"); string(got) != `{"Text":"2"}` {
			t.Errorf("got %q", got)
		}
		c.NoPush("onA", "onC")
		c.Notify("Kit.Kick", nil)
		if got := c.ExpectKick(); got != "enough" {
			t.Errorf("kicked for %q", got)
		}
		c.ExpectPush("onB") // not lost with the connection
		c.NoPush()

		c = s.Client(t)
		c.Notify("Kit.Close", nil)
		if err := c.ExpectClosed(); !errors.Is(err, io.EOF) {
			t.Errorf("closed with %v", err)
		}
	})
}

// TestClientFails looks at what the helpers say when what they expect does not happen.
func TestClientFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *pitayatest.Client)
		want string
	}{
		{"request", func(c *pitayatest.Client) { c.Request("Kit.Fail", nil, nil) }, "request Kit.Fail: "},
		{"no answer", func(c *pitayatest.Client) { c.Request("Kit.Silent", nil, nil) }, "request Kit.Silent: "},
		{"answer", func(c *pitayatest.Client) { c.ExpectError("Kit.Echo", text{}, "KIT-1") }, "got an answer, want an error with code KIT-1"},
		{"other error", func(c *pitayatest.Client) { c.ExpectError("Kit.Fail", nil, "KIT-2") }, "KIT-1"},
		{"push", func(c *pitayatest.Client) { c.Notify("Kit.Push", nil); c.ExpectPush("onC") },
			"no push onC came; waiting are pushes onA (3), onB (3); the connection is open"},
		{"push to the dead", func(c *pitayatest.Client) { c.Notify("Kit.Close", nil); c.ExpectPush("onC") }, "the connection has ended: "},
		{"push of another type", func(c *pitayatest.Client) { c.Notify("Kit.Push", nil); pitayatest.Push[int](c, "onA") }, "push onA: "},
		{"no push", func(c *pitayatest.Client) { c.Notify("Kit.Push", nil); c.NoPush("onB") }, `unexpected push onB, 3 of them; the first is "{`},
		{"kick", func(c *pitayatest.Client) { c.Notify("Kit.Close", nil); c.ExpectKick() }, "the client was not kicked: "},
		{"end", func(c *pitayatest.Client) { c.ExpectClosed() }, "the connection has not ended"},
		{"notify", func(c *pitayatest.Client) { c.Close(); c.Notify("Kit.Echo", nil) }, "notify Kit.Echo: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newKit(t)
				got := runFake(t, func(t testing.TB) { tt.do(s.Client(t)) })
				if !strings.Contains(got, tt.want) {
					t.Errorf("got %q, want %q in it", got, tt.want)
				}
			})
		})
	}
}

func TestClientWith(t *testing.T) {
	s := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		s.Register(&Kit{})
		s.AddHandshakeValidator("platform", func(h *pitaya.HandshakeData) error {
			if h.Sys.Platform != "test" {
				return errors.New("not of the test")
			}
			return nil
		})
	})
	if _, err := s.Dial(t, nil); err == nil || !strings.Contains(err.Error(), "not of the test") {
		t.Errorf("got %v, want a refusal", err)
	}
	var mu sync.Mutex
	var also []string
	c := s.ClientWith(t, &pitaya.ClientConfig{
		Handshake: &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Platform: "test"}},
		OnAnyPush: func(route string, payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			also = append(also, route)
			clear(payload)
		},
	})
	c.Notify("Kit.Push", nil)
	for range 3 {
		if got := c.ExpectPush("onB"); !strings.HasPrefix(string(got), "{") {
			t.Errorf("got %q", got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := len(also); n < 5 || !slices.Contains(also, "onA") {
		t.Errorf("the other handler got %q", also)
	}
}

// stuck is a module that does not want to end, or to begin.
type stuck struct{ init, shutdown error }

func (m stuck) Init(context.Context) error     { return m.init }
func (m stuck) Shutdown(context.Context) error { return m.shutdown }

// TestServerFails has servers whose tests must fail.
func TestServerFails(t *testing.T) {
	module := func(m pitaya.Module) func(*pitaya.Server) {
		return func(s *pitaya.Server) { s.AddModule("m", m) }
	}
	for _, tt := range []struct {
		name  string
		cfg   pitaya.Config
		setup func(*pitaya.Server)
		want  string
	}{
		{"settings", pitaya.Config{MaxConns: -1}, nil, "pitaya.conn.max"},
		{"set-up", pitaya.Config{}, func(s *pitaya.Server) { s.Register(nil) }, "has ended before it was ready: "},
		{"start", pitaya.Config{}, module(stuck{init: errors.New("no disk")}), "no disk"},
		{"end", pitaya.Config{}, module(stuck{shutdown: errors.New("disk full")}), "disk full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := runFake(t, func(t testing.TB) { pitayatest.NewServer(t, tt.cfg, tt.setup) })
				if !strings.Contains(got, tt.want) || strings.Count(got, tt.want) > 1 {
					t.Errorf("got %q, want %q in it, once", got, tt.want)
				}
			})
		})
	}
}

func TestRestart(t *testing.T) {
	inAndOutside(t, func(t *testing.T) {
		s := pitayatest.NewServer(t, pitaya.Config{ID: "one"}, func(s *pitaya.Server) { s.Register(&Kit{}) })
		c := s.Client(t)
		next := s.Restart()
		if err := c.ExpectClosed(); err == nil {
			t.Error("the connection outlives its server")
		}
		if s.IsRunning() || !next.IsRunning() || next.ID() != "one" {
			t.Errorf("the old one runs: %v; the new one, %q, runs: %v", s.IsRunning(), next.ID(), next.IsRunning())
		}
		if got := pitayatest.Request[text](next.Client(t), "Kit.Echo", text{"x"}); got.Text != "x" {
			t.Errorf("got %q", got.Text)
		}
		next.Stop()
		next.Stop()
	})
}

// TestBubbleTime has a server's clock run in no time: a client that is silent for two heartbeats is closed.
func TestBubbleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKit(t)
		c := s.Client(t)
		begin := time.Now()
		time.Sleep(time.Hour)
		if got := pitayatest.Request[text](c, "Kit.Echo", text{"still"}); got.Text != "still" || time.Since(begin) != time.Hour {
			t.Errorf("got %q after %v", got.Text, time.Since(begin))
		}
	})
}
