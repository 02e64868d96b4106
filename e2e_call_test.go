package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

func e2eCallCases() []e2eCase {
	return []e2eCase{
		{"forward", (*e2e).forwards},
		{"forward/other serializer", (*e2e).foreignErrors},
		{"rpc/chain", (*e2e).chain},
		{"rpc/context", (*e2e).propagation},
		{"rpc/long timeout", (*e2e).longTimeout},
		{"rpc/calls", (*e2e).calls},
		{"rpc/loopback", (*e2e).loopback},
		{"rpc/pipeline", (*e2e).remotePipeline},
		{"rpc/cancel", (*e2e).cancelled},
		{"rpc/timeout", (*e2e).timeouts},
		{"rpc/unreachable", (*e2e).unreachable},
	}
}

// A client's messages reach handlers elsewhere, and answers of all kinds come back.
func (e *e2e) forwards() {
	notified := make(chan string, 10)
	gate := e.gate("g", func(s *pitaya.Server) {
		e.raw(s, "h.local", func(context.Context, string) (string, error) { return "local", nil })
	})
	for i := range 2 {
		e.room(fmt.Sprint("r", i), func(s *pitaya.Server) {
			e.raw(s, "h.echo", func(ctx context.Context, in string) (string, error) { return in, nil })
			e.raw(s, "h.coded", func(context.Context, string) (string, error) {
				return "", fmt.Errorf("wrapped: %w", pitaya.NewError(errors.New("no gold"), "SHOP-1", map[string]string{"need": "7"}))
			})
			e.raw(s, "h.plain", func(context.Context, string) (string, error) { return "", errors.New("plain") })
			e.raw(s, "h.panic", func(context.Context, string) (string, error) { panic("secret") })
			e.noError(pitaya.HandleRaw(s, "h.nil", func(context.Context, []byte) ([]byte, error) { return nil, nil }))
			e.raw(s, "h.note", func(_ context.Context, in string) (string, error) {
				notified <- in
				if in == "bad" {
					return "", errors.New("nobody is told")
				}
				return "dropped", nil
			})
			e.noError(pitaya.HandleNotify(s, "h.only", func(_ context.Context, in *string) { notified <- *in }))
		})
	}
	c := gate.Client(e)
	big := strings.Repeat("0123456789", 20_000)
	for _, in := range []string{"hi", "", "\x00\xff", big} {
		e.want("echo", e.ask(c, "room.h.echo", in), in)
	}
	e.want("with the own type", e.ask(c, "gate.h.local", ""), "local")
	for _, in := range []string{"one", "bad", "two"} {
		e.noError(c.NotifyRaw(e.ctx(), "room.h.note", []byte(in)))
		e.want("notify", transporttest.Await(e, notified), in)
	}
	c.Notify("room.h.only", "typed")
	e.want("notify", transporttest.Await(e, notified), "typed")

	if err := e.refused(c, "room.h.coded", "", "SHOP-1", "*"); err.Metadata["need"] != "7" || !strings.HasSuffix(err.Message, "no gold") {
		e.Errorf("got %+v", err)
	}
	e.refused(c, "room.h.plain", "", pitaya.CodeUnknown, "plain")
	err := e.refused(c, "room.h.panic", "", pitaya.CodeInternal, "internal error")
	if err.Metadata["request"] == "" {
		e.Error("a panic without a request id")
	}
	e.refused(c, "room.h.nil", "", pitaya.CodeUnknown, "reply must not be null")
	e.refused(c, "room.h.only", "", pitaya.CodeBadRequest, "tried to request a notify route")
	e.refused(c, "room.h.nope", "", pitaya.CodeNotFound, "pitaya/handler: room.h.nope not found")
	e.refused(c, "gate.h.nope", "", pitaya.CodeNotFound, "pitaya/handler: gate.h.nope not found")
	e.refused(c, "shop.h.buy", "", pitaya.CodeInternal, "no servers available of this type")
	e.want("after all that", e.ask(c, "room.h.echo", "still"), "still")
	s := e.balanced(gate)
	if s.Answered != 6 || s.Failed != 8 || s.Forwards != 15 {
		e.Errorf("got %+v", s)
	}
}

// Errors of a backend come in the format that the frontend speaks with its clients.
func (e *e2e) foreignErrors() {
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Serializer: pitaya.Protobuf{}}, nil)
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.fail", func(context.Context, string) (string, error) {
			return "", pitaya.NewError(errors.New("no gold"), "SHOP-1", map[string]string{"need": "7"})
		})
	})
	c := gate.Client(e)
	if name := c.Serializer().Name(); name != "protos" && name != (pitaya.Protobuf{}).Name() {
		e.Fatalf("the client speaks %s", name)
	}
	if err := e.refused(c, "room.h.fail", "", "SHOP-1", "no gold"); err.Metadata["need"] != "7" {
		e.Errorf("got %+v", err)
	}
}

// Errors keep their code, text and metadata over several servers.
func (e *e2e) chain() {
	gate := e.gate("g", nil)
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.go", func(ctx context.Context, in string) (string, error) {
			out, err := rpc(ctx, s, "mid.m.Do", in)
			return "room(" + out + ")", err
		})
	})
	e.start(pitaya.Config{Type: "mid", ID: "m"}, func(s *pitaya.Server) {
		e.remote(s, "m", func(ctx context.Context, in string) (string, error) {
			route := "leaf.l.Do"
			switch in {
			case "unknown":
				route = "leaf.l.Nope"
			case "badroute":
				route = "leaf.l"
			case "argument":
				_, err := pitaya.Call[wrapperspb.StringValue](ctx, s, route, wrapperspb.Bytes([]byte{0xff}))
				return "", err
			}
			out, err := rpc(ctx, s, route, in)
			return "mid(" + out + ")", err
		})
	})
	e.start(pitaya.Config{Type: "leaf", ID: "l"}, func(s *pitaya.Server) {
		e.remote(s, "l", func(ctx context.Context, in string) (string, error) {
			switch in {
			case "coded":
				return "", pitaya.NewError(errors.New("too deep"), "LEAF-7", map[string]string{"depth": "3"})
			case "plain":
				return "", errors.New("plain")
			case "panic":
				panic("secret")
			case "nil":
				return "nil", nil
			}
			return in, nil
		})
	})
	c := gate.Client(e)
	e.want("result", e.ask(c, "room.h.go", "x"), "room(mid(x))")
	if err := e.refused(c, "room.h.go", "coded", "LEAF-7", "too deep"); err.Metadata["depth"] != "3" {
		e.Errorf("got %+v", err)
	}
	e.refused(c, "room.h.go", "plain", pitaya.CodeUnknown, "plain")
	if err := e.refused(c, "room.h.go", "panic", pitaya.CodeInternal, "internal error"); err.Metadata["request"] == "" {
		e.Error("a panic without a request id")
	}
	e.refused(c, "room.h.go", "nil", pitaya.CodeUnknown, "reply must not be null")
	if err := e.refused(c, "room.h.go", "unknown", pitaya.CodeNotFound, "route not found"); err.Metadata["route"] != "l.Nope" {
		e.Errorf("got %+v", err)
	}
	e.refused(c, "room.h.go", "badroute", pitaya.CodeBadRequest, "*")
	e.refused(c, "room.h.go", "argument", pitaya.CodeBadRequest, "*")
}

// What travels with calls: values of the application, the request's id, a trace, and the time that is left.
func (e *e2e) propagation() {
	type seen struct {
		who, id, trace, peer, service, route string
		left                                 time.Duration
	}
	look := func(ctx context.Context) (s seen) {
		text := func(key string) string { v, _ := pitaya.GetFromPropagateCtx(ctx, key).(string); return v }
		s.who, s.id, s.peer, s.service, s.route = text("who"), text("request.id"), text("peer.id"), text("peer.service"), text("req-route")
		if span, ok := pitaya.GetFromPropagateCtx(ctx, "otel-span").(map[string]any); ok {
			s.trace, _ = span["traceparent"].(string)
		}
		if deadline, ok := ctx.Deadline(); ok {
			s.left = time.Until(deadline)
		}
		return s
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	hops := make(chan seen, 10)
	gate := e.gate("g", nil)
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.go", func(ctx context.Context, _ string) (string, error) {
			hops <- look(ctx)
			base := pitaya.AddToPropagateCtx(ctx, "otel-span", map[string]string{"traceparent": trace})
			var wg sync.WaitGroup
			var errs [2]error
			for i := range errs {
				wg.Go(func() {
					want := fmt.Sprint("call ", i)
					got, err := rpc(pitaya.AddToPropagateCtx(base, "who", want), s, "mid.m.Do", "")
					if err == nil && got != want {
						err = fmt.Errorf("got %q, want %q", got, want)
					}
					errs[i] = err
				})
			}
			wg.Wait()
			if pitaya.GetFromPropagateCtx(ctx, "who") != nil || pitaya.GetFromPropagateCtx(base, "who") != nil {
				return "", errors.New("the values of the calls are in the handler's context")
			}
			return "", errors.Join(errs[:]...)
		})
	})
	e.start(pitaya.Config{Type: "mid", ID: "m"}, func(s *pitaya.Server) {
		e.remote(s, "m", func(ctx context.Context, in string) (string, error) {
			hops <- look(ctx)
			return rpc(ctx, s, "leaf.l.Do", "")
		})
	})
	e.start(pitaya.Config{Type: "leaf", ID: "l"}, func(s *pitaya.Server) {
		e.remote(s, "l", func(ctx context.Context, in string) (string, error) {
			s1 := look(ctx)
			hops <- s1
			return s1.who, nil
		})
	})
	if e.inMemory() {
		e.mem.Delay(100 * time.Millisecond)
	}
	e.ask(gate.Client(e), "room.h.go", "")
	var all []seen
	for range 5 {
		all = append(all, transporttest.Await(e, hops))
	}
	first := all[0]
	if first.id == "" || first.peer != "g" || first.service != "gate" || first.route != "room.h.go" {
		e.Errorf("in the handler: %+v", first)
	}
	for _, s := range all[1:] {
		if s.id != first.id || s.trace != trace || !strings.HasPrefix(s.who, "call ") {
			e.Errorf("got %+v after %+v", s, first)
		}
		slack := time.Millisecond // texts of durations are rounded up
		if e.inMemory() {
			slack = -100 * time.Millisecond
		}
		before := first
		if s.service == "mid" {
			for _, m := range all[1:] {
				if m.service == "room" && m.who == s.who {
					before = m
				}
			}
			if s.peer != "m" || s.route != "leaf.l.Do" {
				e.Errorf("in the leaf: %+v", s)
			}
		}
		if s.left <= 0 || s.left > before.left+slack {
			e.Errorf("%s has %v left, after %v", s.route, s.left, before.left)
		}
	}
	// In a bubble nothing but the way takes time.
	if e.inMemory() && (first.left != 4900*time.Millisecond || all[1].left != 4800*time.Millisecond || all[4].left != 4700*time.Millisecond) {
		e.Errorf("left are %v, %v, %v", first.left, all[1].left, all[4].left)
	}
}

// A call may be given more time than the settings say.
func (e *e2e) longTimeout() {
	e.timeout = 300 * time.Millisecond
	entered, release := make(chan time.Duration, 2), make(chan struct{})
	caller := e.room("r", nil)
	e.start(pitaya.Config{Type: "leaf", ID: "l"}, func(s *pitaya.Server) {
		e.remote(s, "l", func(ctx context.Context, in string) (string, error) {
			deadline, _ := ctx.Deadline()
			entered <- time.Until(deadline)
			<-release
			return "done", nil
		})
	})
	long := make(chan error, 1)
	go func() {
		_, err := rpc(pitaya.AddToPropagateCtx(e.Context(), "reqTimeout", "18s"), caller.Server.Server, "leaf.l.Do", "")
		long <- err
	}()
	if left := transporttest.Await(e, entered); left < 10*time.Second {
		e.Errorf("the remote has %v", left)
	}
	// While it waits another one runs out of its time.
	_, err := rpc(e.Context(), caller.Server.Server, "leaf.l.Do", "")
	e.want("timeout", e.coded(err, pitaya.CodeTimeout, "*").Metadata["timeout"], "300ms")
	close(release)
	e.noError(transporttest.Await(e, long))
}

func (e *e2e) calls() {
	var rooms []*e2eNode
	gate := e.gate("g", func(s *pitaya.Server) {
		e.remote(s, "x", func(ctx context.Context, in string) (string, error) {
			if pitaya.SessionFromContext(ctx) != nil {
				return "", errors.New("a remote with a session")
			}
			return "gate " + in, nil
		})
	})
	for i := range 2 {
		rooms = append(rooms, e.room(fmt.Sprint("r", i), func(s *pitaya.Server) {
			e.remote(s, "x", func(ctx context.Context, in string) (string, error) { return s.ID() + in, nil })
		}))
	}
	g := gate.Server.Server
	seen := make(map[string]bool)
	for range 60 {
		out, err := rpc(e.ctx(), g, "room.x.Do", "")
		e.noError(err)
		seen[out] = true
	}
	if len(seen) != 2 {
		e.Errorf("60 calls went to %v", seen)
	}
	for _, r := range rooms {
		var out wrapperspb.StringValue
		e.noError(g.RPCTo(e.ctx(), r.ID(), "room.x.Do", &out, wrapperspb.String("!")))
		e.want("RPCTo", out.Value, r.ID()+"!")
		e.noError(g.RPCTo(e.ctx(), r.ID(), "room.x.Bare", &out, nil))
		e.want("without an argument", out.Value, r.ID())
		e.noError(g.RPCTo(e.ctx(), r.ID(), "room.x.Do", &out, nil))
		e.want("with nil", out.Value, r.ID())
	}
	out, err := rpc(e.ctx(), rooms[0].Server.Server, "gate.x.Do", "from a backend")
	e.noError(err)
	e.want("to a frontend", out, "gate from a backend")
	for _, route := range []string{"", "x.Do", "a.b.c.d"} {
		_, err := rpc(e.ctx(), g, route, "")
		if err == nil {
			e.Errorf("route %q was called", route)
		}
	}
	_, err = rpc(e.ctx(), g, "shop.x.Do", "")
	e.coded(err, pitaya.CodeInternal, "no servers available of this type")
	_, err = rpc(e.ctx(), g, "room.sys.nope", "")
	e.coded(err, pitaya.CodeNotFound, "*")
}

func (e *e2e) loopback() {
	calls := make(chan string, 10)
	setup := func(s *pitaya.Server) {
		e.remote(s, "x", func(ctx context.Context, in string) (string, error) {
			if in == "wait" {
				calls <- "entered"
				<-ctx.Done()
				calls <- "left"
				return "", ctx.Err()
			}
			who, _ := pitaya.GetFromPropagateCtx(ctx, "who").(string)
			peer, _ := pitaya.GetFromPropagateCtx(ctx, "peer.id").(string)
			return s.ID() + in + who + peer, nil
		})
	}
	r0, r1 := e.room("r0", setup), e.room("r1", setup)
	strict := e.start(pitaya.Config{Type: "strict", ID: "s", NoLoopback: true}, setup)
	ctx := pitaya.AddToPropagateCtx(e.ctx(), "who", " for me from ")
	for range 20 { // never on the other one
		out, err := rpc(ctx, r0.Server.Server, "room.x.Do", "!")
		e.noError(err)
		e.want("own type", out, "r0! for me from r0")
	}
	var out wrapperspb.StringValue
	e.noError(r0.RPCTo(ctx, "r0", "room.x.Do", &out, nil))
	e.want("own id", out.Value, "r0 for me from r0")
	e.noError(r0.RPCTo(ctx, "r1", "room.x.Do", &out, nil))
	e.want("other id", out.Value, "r1 for me from r0")
	_ = r1
	if _, err := rpc(ctx, strict.Server.Server, "strict.x.Do", ""); err == nil {
		e.Error("a call to the own type with NoLoopback")
	}
	if err := strict.RPCTo(ctx, "s", "strict.x.Do", &out, nil); err == nil {
		e.Error("a call to the own id with NoLoopback")
	}
	// The end of the caller's context ends the call and the remote's context.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := rpc(ctx, r0.Server.Server, "room.x.Do", "wait")
		done <- err
	}()
	e.want("remote", transporttest.Await(e, calls), "entered")
	cancel()
	if err := transporttest.Await(e, done); !errors.Is(err, context.Canceled) {
		e.Errorf("cancelled: got %v", err)
	}
	e.want("remote", transporttest.Await(e, calls), "left")
}

func (e *e2e) remotePipeline() {
	caller := e.gate("g", nil)
	e.room("r", func(s *pitaya.Server) {
		e.noError(s.BeforeRemote(func(ctx context.Context, in any) (context.Context, any, error) {
			if in.(*wrapperspb.StringValue).Value == "stop" {
				return ctx, in, pitaya.Errorf("STOP-1", "not this way")
			}
			return ctx, wrapperspb.String(in.(*wrapperspb.StringValue).Value + " before"), nil
		}))
		e.noError(s.AfterRemote(func(ctx context.Context, out any, err error) (any, error) {
			if err != nil {
				return wrapperspb.String("repaired"), nil
			}
			return wrapperspb.String(out.(*wrapperspb.StringValue).Value + " after"), nil
		}))
		e.noError(s.Before(func(ctx context.Context, in any) (context.Context, any, error) {
			return ctx, in, errors.New("this is for handlers")
		}))
		e.remote(s, "x", func(ctx context.Context, in string) (string, error) {
			if strings.HasPrefix(in, "fail") {
				return "", errors.New("failed")
			}
			return in + " remote", nil
		})
	})
	call := func(in string) (string, error) { return rpc(e.ctx(), caller.Server.Server, "room.x.Do", in) }
	out, err := call("x")
	e.noError(err)
	e.want("pipeline", out, "x before remote after")
	out, err = call("fail")
	e.noError(err)
	e.want("after an error", out, "repaired")
	_, err = call("stop")
	e.coded(err, "STOP-1", "not this way")
}

func (e *e2e) cancelled() {
	events := make(chan string, 10)
	release := make(chan struct{})
	caller := e.gate("g", nil)
	e.room("r", func(s *pitaya.Server) {
		e.remote(s, "x", func(ctx context.Context, in string) (string, error) {
			events <- "entered"
			select {
			case <-ctx.Done():
				events <- "cancelled"
			case <-release:
				events <- "released"
			}
			return "", nil
		})
	})
	ctx, cancel := context.WithCancel(e.ctx())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := rpc(ctx, caller.Server.Server, "room.x.Do", "")
		done <- err
	}()
	e.want("remote", transporttest.Await(e, events), "entered")
	cancel()
	if err := transporttest.Await(e, done); !errors.Is(err, context.Canceled) {
		e.Errorf("got %v", err)
	}
	if e.kind == e2eNATS { // which cannot tell the other side
		close(release)
		e.want("remote", transporttest.Await(e, events), "released")
		return
	}
	e.want("remote", transporttest.Await(e, events), "cancelled")
	if _, err := rpc(ctx, caller.Server.Server, "room.x.Do", ""); !errors.Is(err, context.Canceled) {
		e.Errorf("with a context that has ended: got %v", err)
	}
}

func (e *e2e) timeouts() {
	e.timeout = 2 * time.Second // on a busy machine a call has to arrive before
	events, release := make(chan error, 10), make(chan struct{})
	wait := func(ctx context.Context, in string) (string, error) {
		<-ctx.Done()
		events <- ctx.Err()
		if !e.inMemory() { // where an answer at the deadline itself may come first or not
			<-release
		}
		return "late", nil
	}
	gate := e.gate("g", nil)
	e.room("r", func(s *pitaya.Server) {
		e.remote(s, "x", wait)
		e.raw(s, "h.wait", wait)
	})
	check := func(err error, route, timeout string) {
		e.Helper()
		m := e.coded(err, pitaya.CodeTimeout, "*").Metadata
		if timeout != "" {
			e.want("timeout", m["timeout"], timeout)
		}
		e.want("route", m["route"], route)
		e.want("server", m["server"], "g")
		e.want("peer.id", m["peer.id"], "r")
		transporttest.Await(e, events) // the other side sees the deadline, or that the caller has gone
	}
	begin := time.Now()
	_, err := rpc(e.Context(), gate.Server.Server, "room.x.Do", "")
	check(err, "room.x.Do", e.timeout.String())
	if took := time.Since(begin); e.inMemory() && took != e.timeout {
		e.Errorf("took %v", took)
	}
	ctx, cancel := context.WithTimeout(e.Context(), e.timeout/2)
	defer cancel()
	_, err = rpc(ctx, gate.Server.Server, "room.x.Do", "")
	check(err, "room.x.Do", "")
	c := gate.Client(e)
	_, err = c.RequestRaw(e.ctx(), "room.h.wait", nil)
	check(err, "room.h.wait", e.timeout.String())
	if s := e.balanced(gate); s.Failed != 1 {
		e.Errorf("got %+v", s)
	}
	close(release)
}

// Servers that cannot be reached: an error that says so, or another server.
func (e *e2e) unreachable() {
	gate := e.gate("g", func(s *pitaya.Server) {})
	setup := func(s *pitaya.Server) {
		e.raw(s, "h.id", func(context.Context, string) (string, error) { return s.ID(), nil })
		e.remote(s, "x", func(context.Context, string) (string, error) { return s.ID(), nil })
	}
	e.room("r", setup)
	gone := e.room("gone", setup)
	gone.Stop()
	e.settled()
	var out wrapperspb.StringValue
	for _, id := range []string{"gone", "never"} {
		err := gate.RPCTo(e.ctx(), id, "room.x.Do", &out, nil)
		if !errors.Is(err, pitaya.ErrUnreachable) {
			e.Errorf("%s: got %v", id, err)
		}
	}
	e.ghost("room", "ghost")
	if err := gate.RPCTo(e.ctx(), "ghost", "room.x.Do", &out, nil); !errors.Is(err, pitaya.ErrUnreachable) {
		e.Errorf("ghost: got %v", err)
	}
	c := gate.Client(e)
	for range 30 {
		got, err := rpc(e.ctx(), gate.Server.Server, "room.x.Do", "")
		e.noError(err)
		e.want("RPC", got, "r")
		e.want("request", e.ask(c, "room.h.id", ""), "r")
	}
	e.ghost("shop", "ghost-2")
	_, err := rpc(e.ctx(), gate.Server.Server, "shop.x.Do", "")
	if e.coded(err, pitaya.CodeInternal, "*"); !errors.Is(err, pitaya.ErrUnreachable) {
		e.Errorf("only a ghost: got %v", err)
	}
	e.refused(c, "shop.h.id", "", pitaya.CodeInternal, "*")
	e.balanced(gate)
}
