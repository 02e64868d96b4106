package pitayatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// failingPair starts two servers. The second answers calls with "hello", drops those with "drop", and keeps the replies to others.
func failingPair(t testing.TB, n *transporttest.Net) (a, b *transporttest.Peer, replies chan func([]byte)) {
	t.Helper()
	replies = make(chan func([]byte), 10)
	a, b = n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			switch string(body) {
			case "drop":
				reply(nil)
				return
			case "hello":
				reply(body)
				return
			}
			replies <- reply // keeps it
		}
	})
	// Connections are made, so that a call with a short deadline arrives.
	if _, err := a.Ask(t.Context(), b.Self, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	return a, b, replies
}

func transportDeadline(t testing.TB, n *transporttest.Net) {
	a, b, replies := failingPair(t, n)
	for _, body := range []string{"keep", "drop"} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		deadline, _ := ctx.Deadline()
		_, err := a.Ask(ctx, b.Self, []byte(body))
		if !errors.Is(err, pitaya.ErrNoAnswer) {
			t.Errorf("%s: got %v, want ErrNoAnswer", body, err)
		}
		// A transport may tell at once that an answer was dropped.
		if early := time.Until(deadline); early > 0 && body == "keep" {
			t.Errorf("%s: failed %v before its deadline", body, early)
		}
	}
	transporttest.Await(t, replies)([]byte("late")) // nobody waits for it
	if got, err := b.Ask(t.Context(), a.Self, []byte("still")); err != nil || string(got) != "still" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

func transportLate(t testing.TB, n *transporttest.Net) {
	a, b, _ := failingPair(t, n)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := a.Ask(ctx, b.Self, []byte("drop")); !errors.Is(err, pitaya.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	if got, err := b.Ask(t.Context(), a.Self, []byte("still")); err != nil || string(got) != "still" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

func transportCancel(t testing.TB, n *transporttest.Net) {
	a, b, replies := failingPair(t, n)
	cause := errors.New("the client has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	result := a.Start(ctx, b.Self, []byte("keep"))
	reply := transporttest.Await(t, replies)
	cancel(cause)
	if r := transporttest.Await(t, result); !errors.Is(r.Err, cause) {
		t.Errorf("got %v, want the cause", r.Err)
	}
	reply([]byte("late"))
	if _, err := a.Ask(ctx, b.Self, []byte("keep")); !errors.Is(err, cause) {
		t.Errorf("cancelled before: got %v, want the cause", err)
	}
	if got, err := b.Ask(t.Context(), a.Self, []byte("still")); err != nil || string(got) != "still" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

func transportNobody(t testing.TB, n *transporttest.Net) {
	a, b, _ := failingPair(t, n)
	nobody := &pitaya.ServerInfo{ID: "nobody", Type: "back", Metadata: b.Self.Metadata}
	if b.Self.Metadata != nil {
		t.Skip("where it would be is in its metadata")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := a.Ask(ctx, nobody, []byte("x")); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	if got, err := b.Ask(t.Context(), a.Self, []byte("still")); err != nil || string(got) != "still" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

// transportArrival is a call as the handler gets it.
type transportArrival struct {
	Ctx   context.Context
	Body  string
	Reply func([]byte)
}

// arrivals makes a server tell of the calls that come in, and leaves the answers to the test.
func arrivals(p *transporttest.Peer) <-chan transportArrival {
	c := make(chan transportArrival, 2000)
	p.OnCall = func(ctx context.Context, body []byte, reply func([]byte)) {
		c <- transportArrival{ctx, string(body), reply}
	}
	return c
}

// transportGivenUp: the context of a call ends with the caller's interest, on transports that can know, and for no
// other reason.
func transportGivenUp(t testing.TB, n *transporttest.Net) {
	var come <-chan transportArrival
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) { come = arrivals(p) })
	if _, nats := a.Transport.(*pitaya.NATSTransport); nats {
		contextNeverEnds(t, a, b, come)
		return
	}
	deadlineComesAlong(t, a, b, come)
	cancellingEndsOne(t, a, b, come)

	// A caller that closes ends it, whatever it has been waiting for.
	caller := n.Server("front", nil)
	caller.Start(t.Context(), b.Self, nil)
	got := transporttest.Await(t, come)
	if err := caller.Close(t.Context()); err != nil {
		t.Error(err)
	}
	transporttest.Await(t, got.Ctx.Done())

	// The own end is none of the caller's doing.
	a.Start(t.Context(), b.Self, nil)
	got = transporttest.Await(t, come)
	if err := errors.Join(b.Drain(t.Context()), got.Ctx.Err()); err != nil {
		t.Errorf("after Drain: %v", err)
	}
	if err := errors.Join(b.Close(t.Context()), got.Ctx.Err()); err != nil {
		t.Errorf("after Close: %v", err)
	}
	got.Reply(nil)
}

// contextNeverEnds is for NATS, which tells nothing of callers.
func contextNeverEnds(t testing.TB, a, b *transporttest.Peer, come <-chan transportArrival) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result := a.Start(ctx, b.Self, nil)
	got := transporttest.Await(t, come)
	cancel()
	transporttest.Await(t, result)
	if _, ok := got.Ctx.Deadline(); ok || got.Ctx.Done() != nil {
		t.Error("the context can end")
	}
}

// deadlineComesAlong: the deadline of the caller ends the context; its values stay behind. The other server counts from
// when it hears of the call.
func deadlineComesAlong(t testing.TB, a, b *transporttest.Peer, come <-chan transportArrival) {
	type key struct{}
	var got transportArrival
	for got.Reply == nil {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "v"), 300*time.Millisecond)
		defer cancel()
		want, _ := ctx.Deadline()
		result := a.Start(ctx, b.Self, nil)
		select {
		case got = <-come:
		case <-result:
			continue // on its way for too long
		}
		late := time.Since(began) + time.Millisecond // and what rounding adds
		if d, ok := got.Ctx.Deadline(); !ok || d.Before(want) || d.Sub(want) > late {
			t.Errorf("deadline %v (%v), want %v and at most %v later", d, ok, want, late)
		}
		if v := got.Ctx.Value(key{}); v != nil {
			t.Errorf("the caller's value %v came along", v)
		}
		transporttest.Await(t, got.Ctx.Done())
		if r := transporttest.Await(t, result); !errors.Is(r.Err, pitaya.ErrNoAnswer) {
			t.Errorf("got %v, want ErrNoAnswer", r.Err)
		}
		got.Reply([]byte("late"))
	}
}

// cancellingEndsOne: who cancels a call ends the context of that one.
func cancellingEndsOne(t testing.TB, a, b *transporttest.Peer, come <-chan transportArrival) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := a.Start(t.Context(), b.Self, []byte("kept"))
	keep := transporttest.Await(t, come)
	a.Start(ctx, b.Self, []byte("cancelled"))
	got := transporttest.Await(t, come)
	if got.Body != "cancelled" || got.Ctx.Err() != nil {
		t.Errorf("got %q with %v", got.Body, got.Ctx.Err())
	}
	cancel()
	transporttest.Await(t, got.Ctx.Done())
	if err := keep.Ctx.Err(); err != nil {
		t.Errorf("another call: %v", err)
	}
	keep.Reply([]byte("x"))
	if r := transporttest.Await(t, kept); r.Err != nil || string(r.Body) != "x" {
		t.Errorf("got %q, %v", r.Body, r.Err)
	}
}

// transportNoAnswer makes calls with a nil done.
func transportNoAnswer(t testing.TB, n *transporttest.Net) {
	var come <-chan transportArrival
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) { come = arrivals(p) })

	// They stay in order with the others, if there is one.
	const calls = 100
	var wanted, got []string
	results := make(map[string]<-chan transporttest.Result)
	body := make([]byte, 0, 8)
	for i := range calls {
		body = fmt.Append(body[:0], i) // not used once Call has returned
		wanted = append(wanted, string(body))
		if i%3 == 0 {
			results[string(body)] = a.Start(t.Context(), b.Self, body)
		} else {
			a.Call(t.Context(), b.Self, body, nil)
		}
	}
	for range calls {
		c := transporttest.Await(t, come)
		got = append(got, c.Body)
		c.Reply([]byte("re: " + c.Body)) // which is dropped if nobody wants it
	}
	for body, c := range results {
		if r := transporttest.Await(t, c); r.Err != nil || string(r.Body) != "re: "+body {
			t.Errorf("call %s: got %q, %v", body, r.Body, r.Err)
		}
	}
	if !a.Ordered() {
		slices.Sort(wanted)
		slices.Sort(got)
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("got %v", got)
	}

	// A context counts until Call has returned, but for its deadline.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	a.Call(ctx, b.Self, []byte("sent"), nil)
	cancel()
	a.Call(ctx, b.Self, []byte("not sent"), nil)
	sent := transporttest.Await(t, come)
	if sent.Body != "sent" {
		t.Errorf("got %q", sent.Body)
	}
	// What cannot be sent fails without a word.
	huge := make([]byte, 8<<20)
	a.Call(t.Context(), b.Self, huge, nil)
	for _, id := range []string{"nobody", "a\r\nPUB x 0", strings.Repeat("x", 5000)} {
		a.Call(t.Context(), &pitaya.ServerInfo{ID: id, Type: "back"}, nil, nil)
	}
	result := a.Start(t.Context(), b.Self, []byte("behind"))
	behind := transporttest.Await(t, come)
	if behind.Body != "behind" {
		t.Errorf("got %.20q", behind.Body)
	}
	if err := sent.Ctx.Err(); err != nil {
		t.Errorf("call without an answer whose caller has cancelled: %v", err)
	}
	sent.Reply(nil)
	behind.Reply([]byte("x"))
	if r := transporttest.Await(t, result); r.Err != nil || string(r.Body) != "x" {
		t.Errorf("afterwards: got %q, %v", r.Body, r.Err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	a.Call(t.Context(), b.Self, nil, nil)
	select {
	case c := <-come:
		t.Errorf("unexpected call %.20q", c.Body)
	default:
	}
}

// transportOnce lets answers, deadlines and cancellations race for the end of calls.
func transportOnce(t testing.TB, n *transporttest.Net) {
	const calls, callers = 400, 8
	var late sync.WaitGroup // answers that come after their time
	t.Cleanup(late.Wait)    // once the servers are closed, which take in no more calls
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			switch rand.IntN(4) {
			case 0:
				late.Add(1)
				time.AfterFunc(rand.N(4*time.Millisecond), func() {
					defer late.Done()
					reply(body)
				})
			case 1:
				reply(nil)
			default:
				reply(body)
			}
		}
	})
	var wg sync.WaitGroup
	ends := make([]atomic.Int32, calls*callers)
	var open sync.WaitGroup
	open.Add(len(ends))
	for caller := range callers {
		wg.Go(func() {
			for i := range calls {
				k := caller*calls + i
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond+rand.N(3*time.Millisecond))
				if rand.IntN(3) == 0 {
					time.AfterFunc(rand.N(2*time.Millisecond), cancel)
				}
				a.Call(ctx, b.Self, fmt.Append(nil, k), func(response []byte, err error) {
					cancel()
					if err == nil && string(response) != fmt.Sprint(k) {
						t.Errorf("call %d got %q", k, response)
					}
					if ends[k].Add(1) == 1 {
						open.Done()
					} else {
						t.Errorf("call %d ended again", k)
					}
				})
			}
		})
	}
	wg.Wait()
	ended := make(chan struct{})
	go func() { open.Wait(); close(ended) }()
	transporttest.Await(t, ended)
	// What is late has had the time to come when a further call is through.
	if _, err := b.Ask(t.Context(), a.Self, nil); err != nil {
		t.Error(err)
	}
	a.Close(context.Background())
}
