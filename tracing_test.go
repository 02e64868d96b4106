package pitaya_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMemTracer(t *testing.T) {
	t.Parallel()
	pitayatest.TestTracer(t, pitayatest.TracerOptions{
		Open: func(testing.TB) (pitaya.Tracer, func() []pitayatest.Span) {
			tracer := new(pitayatest.Tracer)
			return tracer, tracer.Spans
		},
		Synctest: true,
	})
}

// spanTrees puts spans into lines: each trace with the parents before their children, which are indented. A line has the
// name, the kind and, for a span that has failed, the code. Roots are in the order of names.
func spanTrees(spans []pitayatest.Span) string {
	children := make(map[string][]pitayatest.Span)
	ids := make(map[string]bool)
	for _, s := range spans {
		ids[s.ID] = true
	}
	for _, s := range spans {
		parent := s.Parent
		if !ids[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	var b strings.Builder
	var write func(parent, indent, trace string)
	write = func(parent, indent, trace string) {
		list := children[parent]
		slices.SortStableFunc(list, func(a, b pitayatest.Span) int { return cmp.Compare(a.Name, b.Name) })
		for _, s := range list {
			fmt.Fprintf(&b, "%s%s (%s)", indent, s.Name, s.Kind)
			if s.Err != nil {
				b.WriteString(" " + pitaya.ErrorCode(s.Err))
			}
			if trace != "" && s.TraceID != trace {
				b.WriteString(" IN ANOTHER TRACE")
			}
			b.WriteString("\n")
			write(s.ID, indent+"  ", s.TraceID)
		}
	}
	write("", "", "")
	return b.String()
}

// wantTrees compares spans with lines that are indented by tabs.
func wantTrees(t *testing.T, spans []pitayatest.Span, want ...string) {
	t.Helper()
	text := strings.ReplaceAll(strings.Join(want, "\n")+"\n", "\t", "  ")
	if got := spanTrees(spans); strings.TrimSpace(got) != strings.TrimSpace(text) {
		t.Errorf("got the spans\n%swant\n%s", got, text)
	}
}

// traced is a cluster of a gate, a room and a counter whose spans are kept.
type tracedCluster struct {
	*pitayatest.Cluster
	t                   *testing.T
	tracer              *pitayatest.Tracer
	gate, room, counter *pitayatest.Server
	seen                int // spans that were looked at
	block               chan struct{}
}

var errGame = errors.New("no such room")

// remote registers a remote of texts.
func remote(s *pitaya.Server, name string, f func(ctx context.Context, in string) (string, error)) {
	_ = s.RegisterRemote(&E2ERemote{f}, pitaya.WithName(name)) // Run says what is wrong
}

// newTraced starts the cluster. Each server has the Tracer that the function gives for its type; nil is that of the test
// for all.
func newTraced(t *testing.T, tracerOf func(serverType string) pitaya.Tracer) *tracedCluster {
	c := &tracedCluster{Cluster: pitayatest.NewCluster(t), t: t, tracer: new(pitayatest.Tracer), block: make(chan struct{})}
	config := func(serverType, id string) pitaya.Config {
		cfg := pitaya.Config{Type: serverType, ID: id, Frontend: serverType == "gate", Tracer: c.tracer}
		if tracerOf != nil {
			cfg.Tracer = tracerOf(serverType)
		}
		return cfg
	}
	raw := func(s *pitaya.Server, route string, f func(ctx context.Context, in []byte) ([]byte, error)) {
		if err := pitaya.HandleRaw(s, route, f); err != nil {
			t.Error(err)
		}
	}
	handlers := func(s *pitaya.Server) {
		raw(s, "h.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil })
		raw(s, "h.fail", func(context.Context, []byte) ([]byte, error) { return nil, pitaya.NewError(errGame, "GAME-1") })
		raw(s, "h.panic", func(context.Context, []byte) ([]byte, error) { panic("secret") })
		raw(s, "h.exit", func(context.Context, []byte) ([]byte, error) { runtime.Goexit(); return nil, nil })
		raw(s, "h.block", func(ctx context.Context, in []byte) ([]byte, error) {
			select {
			case <-c.block:
			case <-ctx.Done():
			}
			return in, nil
		})
		raw(s, "h.bind", func(ctx context.Context, in []byte) ([]byte, error) {
			return []byte("{}"), pitaya.SessionFromContext(ctx).Bind(ctx, string(in))
		})
		raw(s, "h.call", func(ctx context.Context, in []byte) ([]byte, error) {
			out, err := rpc(ctx, s, "counter.c.Do", string(in))
			return []byte(out), err
		})
		raw(s, "h.self", func(ctx context.Context, in []byte) ([]byte, error) {
			out, err := rpc(ctx, s, s.Type()+".own.Do", string(in))
			return []byte(out), err
		})
		remote(s, "own", func(_ context.Context, in string) (string, error) { return in, nil })
		if err := pitaya.Handle(s, "h.typed", func(context.Context, *struct{ N int }) (*struct{}, error) { return new(struct{}), nil }); err != nil {
			t.Error(err)
		}
		if err := pitaya.HandleNotify(s, "h.notify", func(context.Context, *struct{ N int }) {}); err != nil {
			t.Error(err)
		}
	}
	c.counter = c.NewServer(t, config("counter", "c1"), func(s *pitaya.Server) {
		remote(s, "c", func(ctx context.Context, in string) (string, error) {
			if in == "fail" {
				return "", pitaya.Errorf("COUNT-1", "cannot count")
			}
			return in, nil
		})
	})
	c.room = c.NewServer(t, config("room", "r1"), handlers)
	c.gate = c.NewServer(t, config("gate", "g1"), handlers)
	return c
}

// ended returns the spans that have ended since it was last asked, when everything has come to rest.
func (c *tracedCluster) ended() []pitayatest.Span {
	c.t.Helper()
	synctest.Wait()
	if n := c.tracer.Open(); n != 0 {
		c.t.Errorf("%d spans have not ended", n)
	}
	all := c.tracer.Spans()
	spans := all[c.seen:]
	c.seen = len(all)
	return spans
}

func TestSpans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		client := c.gate.Client(t)
		c.ended()
		request := func(route, in, code string, want ...string) {
			t.Helper()
			if code == "" {
				client.Request(route, []byte(in), nil)
			} else {
				client.ExpectError(route, []byte(in), code)
			}
			wantTrees(t, c.ended(), want...)
		}
		request("gate.h.echo", `"x"`, "", "gate.h.echo (server)", "\tconn write (connection)")
		request("h.echo", `"x"`, "", "h.echo (server)", "\tconn write (connection)")
		request("h.fail", `1`, "GAME-1", "h.fail (server) GAME-1", "\tconn write (connection)")
		request("h.panic", `1`, "PIT-500", "h.panic (server) PIT-500", "\tconn write (connection)")
		request("h.none", `1`, "PIT-404", "h.none (server) PIT-404", "\tconn write (connection)")
		request("nowhere", `1`, "PIT-400", "nowhere (server) PIT-400", "\tconn write (connection)")
		request("none.h.echo", `1`, "PIT-500", "none.h.echo (server) PIT-500", "\tconn write (connection)")
		request("h.notify", `1`, "PIT-400", "h.notify (server) PIT-400", "\tconn write (connection)")
		request("h.self", `"x"`, "", "h.self (server)", "\tRPC Call (client)", "\t\tgate.own.Do (server)", "\tconn write (connection)")
		request("room.h.echo", `"x"`, "",
			"room.h.echo (server)", "\tRPC Call (client)", "\t\troom.h.echo (server)", "\tconn write (connection)")
		request("room.h.fail", `1`, "GAME-1",
			"room.h.fail (server) GAME-1", "\tRPC Call (client) GAME-1", "\t\troom.h.fail (server) GAME-1", "\tconn write (connection)")
		request("room.h.none", `1`, "PIT-404",
			"room.h.none (server) PIT-404", "\tRPC Call (client) PIT-404", "\t\troom.h.none (server) PIT-404", "\tconn write (connection)")
		request("room.h.exit", `1`, "PIT-500",
			"room.h.exit (server) PIT-500", "\tRPC Call (client) PIT-500", "\t\troom.h.exit (server) PIT-500", "\tconn write (connection)")
		request("room.h.call", `"x"`, "",
			"room.h.call (server)", "\tRPC Call (client)", "\t\troom.h.call (server)",
			"\t\t\tRPC Call (client)", "\t\t\t\tcounter.c.Do (server)", "\tconn write (connection)")
		request("room.h.call", `fail`, "COUNT-1",
			"room.h.call (server) COUNT-1", "\tRPC Call (client) COUNT-1", "\t\troom.h.call (server) COUNT-1",
			"\t\t\tRPC Call (client) COUNT-1", "\t\t\t\tcounter.c.Do (server) COUNT-1", "\tconn write (connection)")
		request("room.h.bind", `ada`, "",
			"room.h.bind (server)", "\tRPC Call (client)", "\t\troom.h.bind (server)",
			"\t\t\tRPC Call (client)", "\t\t\t\tsys.bindsession (server)", "\tconn write (connection)")

		notify := func(route string, want ...string) {
			t.Helper()
			client.Notify(route, struct{ N int }{1})
			wantTrees(t, c.ended(), want...)
		}
		notify("h.notify", "h.notify (server)")
		notify("h.panic", "h.panic (server) PIT-500")
		notify("h.none", "h.none (server) PIT-404")
		notify("room.h.notify", "room.h.notify (server)", "\tRPC Call (client)", "\t\troom.h.notify (server)")
		notify("none.h.notify", "none.h.notify (server) PIT-500")

		// A call that nothing has led to begins a trace.
		if _, err := rpc(t.Context(), c.gate.Server, "counter.c.Do", "x"); err != nil {
			t.Error(err)
		}
		wantTrees(t, c.ended(), "RPC Call (client)", "\tcounter.c.Do (server)")
		if err := c.gate.RPCTo(t.Context(), "nobody", "counter.c.Do", new(wrapperspb.StringValue), nil); err == nil {
			t.Error("a server that does not exist was called")
		}
		wantTrees(t, c.ended())
	})
}

func TestSpanAttributes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		client := c.gate.Client(t)
		client.Request("h.bind", []byte("ada"), nil)
		c.ended()
		client.Request("room.h.call", []byte("x"), nil)
		client.Notify("h.notify", nil)
		var id string
		got := make(map[string]map[string]string)
		for _, s := range c.ended() {
			key := s.Name + " on " + s.Attributes["local.id"]
			if _, twice := got[key]; twice {
				t.Errorf("two spans %s", key)
			}
			got[key] = s.Attributes
			if key == "room.h.call on g1" {
				id = s.Attributes["request.id"]
			}
		}
		notified := got["h.notify on g1"]
		if len(id) != 22 || notified["request.id"] == id || len(notified["request.id"]) != 22 {
			t.Errorf("request ids %q and %q", id, notified["request.id"])
		}
		delete(notified, "request.id")
		addr := got["conn write on "]["addr"]
		if addr == "" {
			t.Error("the client has no address")
		}
		want := map[string]map[string]string{
			"room.h.call on g1":  {"local.id": "g1", "span.kind": "server", "msg.type": "request", "user.id": "ada", "request.id": id},
			"h.notify on g1":     {"local.id": "g1", "span.kind": "server", "msg.type": "notify", "user.id": "ada"},
			"conn write on ":     {"span.kind": "connection", "addr": addr},
			"RPC Call on g1":     {"local.id": "g1", "span.kind": "client", "peer.serverType": "room", "peer.id": "r1"},
			"room.h.call on r1":  {"local.id": "r1", "span.kind": "server", "peer.id": "g1", "peer.service": "gate", "request.id": id},
			"RPC Call on r1":     {"local.id": "r1", "span.kind": "client", "peer.serverType": "counter", "peer.id": "c1"},
			"counter.c.Do on c1": {"local.id": "c1", "span.kind": "server", "peer.id": "r1", "peer.service": "room", "request.id": id},
		}
		for key := range maps.Keys(want) {
			if !maps.Equal(got[key], want[key]) {
				t.Errorf("%s: got %v, want %v", key, got[key], want[key])
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %d kinds of spans, want %d: %v", len(got), len(want), got)
		}
	})
}

// What is in a message stays out of its spans.
func TestSpanNoPayload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		client := c.gate.Client(t)
		client.ExpectError("h.typed", []byte(`{"N":"secret"}`), "PIT-400")
		client.ExpectError("h.panic", []byte(`"secret"`), "PIT-500")
		client.Request("room.h.call", []byte(`"secret"`), nil)
		for _, s := range c.ended() {
			text := fmt.Sprint(s.Attributes, s.Err)
			if strings.Contains(text, "secret") {
				t.Errorf("%s: %s", s.Name, text)
			}
		}
	})
}

// The spans of what nobody waits for any more end too.
func TestSpansOfLeavers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		for _, route := range []string{"h.block", "room.h.block", "h.exit"} {
			client := c.gate.Client(t)
			go client.Client.Request(t.Context(), route, nil, nil)
			synctest.Wait()
			client.Close()
			synctest.Wait()
			spans := c.ended()
			i := slices.IndexFunc(spans, func(s pitayatest.Span) bool { return s.Name == route && s.Attributes["local.id"] == "g1" })
			if i < 0 || spans[i].Err == nil {
				t.Errorf("%s: got the spans %v", route, spans)
			}
		}
		// A server that ends, with a request under way.
		client := c.gate.Client(t)
		done := make(chan error, 1)
		go func() { done <- client.Client.Request(t.Context(), "room.h.block", nil, nil) }()
		synctest.Wait()
		go func() { time.Sleep(time.Second); close(c.block) }()
		c.gate.Stop()
		<-done
		c.room.Stop()
		c.counter.Stop()
		if n := c.tracer.Open(); n != 0 {
			t.Errorf("all servers have ended, and %d spans have not", n)
		}
	})
}

// A call that goes to a second server, because the first cannot be reached, is two spans.
func TestSpansOfRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		second := c.NewServer(t, pitaya.Config{Type: "room", ID: "r2", Tracer: c.tracer}, func(s *pitaya.Server) {
			_ = pitaya.HandleRaw(s, "h.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil })

		})
		c.Cut(c.gate, c.room)
		client := c.gate.Client(t)
		c.ended()
		retried := false
		for range 50 {
			client.Request("room.h.echo", []byte(`"x"`), nil)
			spans := c.ended()
			switch strings.Count(spanTrees(spans), "RPC Call") {
			case 1:
				continue // the other one was chosen first
			case 2:
				retried = true
			}
			for _, s := range spans {
				if s.Name != "RPC Call" {
					continue
				}
				if (s.Attributes["peer.id"] == "r1") != (s.Err != nil) {
					t.Errorf("call of %s: %v", s.Attributes["peer.id"], s.Err)
				}
				if j := slices.IndexFunc(spans, func(r pitayatest.Span) bool { return r.Attributes["local.id"] == "r2" }); s.Err == nil && spans[j].Parent != s.ID {
					t.Errorf("the parent of the span on %s is another call: %v", second.ID(), spans)
				}
			}
			break
		}
		if !retried {
			t.Error("no call was made again")
		}
	})
}

// A server without a Tracer passes the trace on.
func TestTracePassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracer := new(pitayatest.Tracer)
		c := newTraced(t, func(serverType string) pitaya.Tracer {
			if serverType == "room" {
				return nil
			}
			return tracer
		})
		c.tracer = tracer
		c.gate.Client(t).Request("room.h.call", []byte("x"), nil)
		wantTrees(t, c.ended(), "room.h.call (server)", "\tRPC Call (client)", "\t\tcounter.c.Do (server)", "\tconn write (connection)")
	})
}

// What another server sends as the context of a trace is used if it can be, and else ignored.
func TestTraceFromOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTraced(t, nil)
		c.ended()
		const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		d, tr := c.MemCluster().Node() // one that has no Tracer, of which we know what it sends
		stranger, err := pitaya.NewServer(pitaya.Config{Type: "old", ID: "o1", Cluster: true, Discovery: d, Transport: tr})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- stranger.Run(ctx) }()
		<-stranger.Ready()
		for _, tt := range []struct {
			span any
			want string
		}{
			{map[string]string{"traceparent": parent}, "b7ad6b7169203331"},
			{map[string]string{"traceparent": parent, "tracestate": "a=b", "baggage": "c=d", "other": strings.Repeat("x", 1<<20)}, "b7ad6b7169203331"},
			{map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"}, ""},
			{map[string]any{"traceparent": parent, "baggage": 5}, ""},
			{map[string]any{"traceparent": []string{parent}}, ""},
			{[]string{"traceparent", parent}, ""},
			{"traceparent", ""}, {5, ""}, {nil, ""}, {true, ""}, {map[string]string{}, ""},
			{manyKeys(parent), ""},
		} {
			ctx := pitaya.AddToPropagateCtx(t.Context(), "otel-span", tt.span)
			if got, err := rpc(ctx, stranger, "counter.c.Do", "x"); got != "x" || err != nil {
				t.Errorf("with %.100v: got %q, %v", tt.span, got, err)
			}
			spans := c.ended()
			if len(spans) != 1 || spans[0].Name != "counter.c.Do" || spans[0].Parent != tt.want {
				t.Errorf("with %.100v: got the spans %v, want the parent %q", tt.span, spans, tt.want)
			}
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func manyKeys(parent string) map[string]string {
	m := map[string]string{"traceparent": parent}
	for i := range 1000 {
		m[fmt.Sprint("key", i)] = "x"
	}
	return m
}

// badTracer does what a Tracer must not.
type badTracer struct {
	pitayatest.Tracer
	bad   string
	calls atomic.Int64
}

type badSpan struct{ bad string }

func (s badSpan) TraceID() string {
	if s.bad == "TraceID" {
		panic("TraceID")
	}
	return ""
}

func (s badSpan) End(error) {
	if s.bad == "End" {
		panic("End")
	}
}

func (b *badTracer) Start(ctx context.Context, _ string, _ pitaya.SpanKind, _ ...pitaya.Label) (context.Context, pitaya.Span) {
	b.calls.Add(1)
	switch b.bad {
	case "Start":
		panic("Start")
	case "nothing":
		return nil, nil
	case "ended":
		done, cancel := context.WithCancel(ctx)
		cancel()
		return done, badSpan{}
	}
	return ctx, badSpan{b.bad}
}

func (b *badTracer) Inject(_ context.Context, carrier map[string]string) {
	switch b.bad {
	case "Inject":
		panic("Inject")
	case "much":
		carrier["traceparent"] = strings.Repeat("x", 1<<20)
	case "bytes":
		carrier["\xff"] = "\xff\x00"
	}
}

func (b *badTracer) Extract(ctx context.Context, _ map[string]string) context.Context {
	switch b.bad {
	case "Extract":
		panic("Extract")
	case "nothing":
		return nil
	}
	return ctx
}

func TestBadTracer(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"Start", "Inject", "Extract", "End", "TraceID", "nothing", "ended", "much", "bytes"} {
		t.Run(bad, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tracer := &badTracer{bad: bad}
				c := newTraced(t, func(serverType string) pitaya.Tracer { return tracer })
				client := c.gate.Client(t)
				for _, route := range []string{"h.echo", "room.h.echo", "room.h.call"} {
					var got string
					client.Request(route, "x", &got)
					if got != "x" {
						t.Errorf("%s: got %q", route, got)
					}
				}
				client.ExpectError("room.h.fail", nil, "GAME-1")
				client.Notify("room.h.notify", nil)
				synctest.Wait()
				if tracer.calls.Load() == 0 {
					t.Error("the Tracer was not called")
				}
				panics := c.gate.Stats().Panics
				if wants := bad == "Start" || bad == "Inject" || bad == "End"; (panics > 0) != wants && bad != "Extract" && bad != "TraceID" && bad != "nothing" {
					t.Errorf("%d panics", panics)
				}
			})
		})
	}
}

// The span of a message lasts until its answer is with the client's connection, or cannot get there.
func TestSpanUntilWritten(t *testing.T) {
	t.Parallel()
	const size = 4 << 20 // more than a connection in memory takes without being read
	ends := []struct {
		name string
		do   func(s *testServer, c *rawClient)
		want string // the code of the message's span; several that it can be, with spaces between
	}{
		{"read", func(_ *testServer, c *rawClient) { c.message() }, ""},
		{"closed by the client", func(_ *testServer, c *rawClient) { c.Close() }, "PIT-498 PIT-499"},
		{"never read", func(*testServer, *rawClient) { time.Sleep(time.Minute) }, "PIT-498"},
		{"closed by the server", func(s *testServer, _ *rawClient) {
			for session := range s.Sessions() {
				session.Close()
			}
			time.Sleep(time.Minute)
		}, "PIT-499"},
	}
	for _, end := range ends {
		for _, kind := range []string{"mem", "memws"} {
			t.Run(end.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					tracer := new(pitayatest.Tracer)
					s, dial := startOn(t, kind, pitaya.Config{Tracer: tracer, Heartbeat: -1}, func(s *pitaya.Server) {
						must(t, pitaya.HandleRaw(s, "h.large", func(context.Context, []byte) ([]byte, error) { return make([]byte, size), nil }))
					})
					c := dial()
					c.SetDeadline(time.Time{})
					c.hello()
					c.request(1, "h.large", "")
					synctest.Wait()
					if tracer.Open() != 2 || len(tracer.Spans()) != 0 {
						t.Errorf("before the answer was written %d spans are open, and have ended %v", tracer.Open(), tracer.Spans())
					}
					c.request(2, "h.large", "") // waits behind the first
					synctest.Wait()
					end.do(s, c)
					synctest.Wait()
					spans := tracer.Spans()
					i := slices.IndexFunc(spans, func(s pitayatest.Span) bool { return s.Name == "h.large" })
					if i < 0 {
						t.Fatalf("the span has not ended: %v", spans)
					}
					switch err := spans[i].Err; {
					case end.want == "" && err != nil, end.want != "" && (err == nil || !strings.Contains(end.want, pitaya.ErrorCode(err))):
						t.Errorf("the span has ended with %v, want the code %q", err, end.want)
					}
					c.Close()
					s.stop(t)
					if n := tracer.Open(); n != 0 {
						t.Errorf("%d spans have not ended", n)
					}
				})
			})
		}
	}
}
