package pitayatest

import (
	"bytes"
	"context"
	"encoding/binary"
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

// TransportOptions say how [TestTransport] gets at an implementation.
type TransportOptions struct {
	// Open makes what transports meet on, a network without servers, and returns a function that makes the transport of
	// a server, which does not listen yet. The function may complete self, with where the server is to be found; so may
	// Listen. Networks may be one and the same: the names of servers and types are different in each check. What Open
	// starts ends with t; the transports are closed by the checks.
	Open func(t testing.TB) func(self *pitaya.ServerInfo) pitaya.Transport
	// Synctest runs each check in a bubble of its own ([testing/synctest]), which an implementation without sockets
	// and foreign processes should be fit for.
	Synctest bool
}

// TestTransport checks the rules of [pitaya.Transport] on an implementation. The checks are subtests and run in
// parallel, after the function that calls TestTransport has returned: what they share has to end in a
// [testing.TB.Cleanup].
func TestTransport(t *testing.T, opts TransportOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, transportChecks(opts))
}

func transportChecks(opts TransportOptions) []check {
	var checks []check
	for _, c := range []struct {
		name string
		run  func(t testing.TB, n *transporttest.Net)
	}{
		{"call", transportCall},
		{"order", transportOrder},
		{"deadline", transportDeadline},
		{"deadline has passed", transportLate},
		{"cancel", transportCancel},
		{"nobody there", transportNobody},
		{"given up", transportGivenUp},
		{"no answer wanted", transportNoAnswer},
		{"once", transportOnce},
		{"reentrant", transportReentrant},
		{"sizes", transportSizes},
		{"notices", transportNotices},
		{"illegal names", transportNames},
		{"drain", transportDrain},
		{"close", transportClose},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) { c.run(t, transporttest.NewNet(t, opts.Open(t))) }})
	}
	return checks
}

func transportCall(t testing.TB, n *transporttest.Net) {
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			go reply(append([]byte("re: "), body...)) // any goroutine may
		}
	})
	for _, body := range []string{"", "x", "hello", "\x00\r\n\xff", strings.Repeat("long ", 10_000)} {
		got, err := a.Ask(t.Context(), b.Self, []byte(body))
		if err != nil || string(got) != "re: "+body {
			t.Errorf("call with %.20q: got %.20q, %v", body, got, err)
		}
	}
	// A server can call itself and be called back.
	if got, err := a.Ask(t.Context(), a.Self, []byte("self")); err != nil || string(got) != "self" {
		t.Errorf("call to itself: got %q, %v", got, err)
	}
	if got, err := b.Ask(t.Context(), a.Self, []byte("back")); err != nil || string(got) != "back" {
		t.Errorf("call back: got %q, %v", got, err)
	}
	if err := errors.Join(a.Healthy(), b.Healthy()); err != nil {
		t.Errorf("healthy: %v", err)
	}
}

func transportOrder(t testing.TB, n *transporttest.Net) {
	const calls = 1000
	var arrived []int // appended to in order, read after the last answer
	var mu sync.Mutex
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			var i int
			fmt.Sscan(string(body), &i)
			mu.Lock()
			arrived = append(arrived, i)
			mu.Unlock()
			reply(body)
		}
	})
	if !a.Ordered() {
		t.Skip("the caller keeps the order")
	}
	results := make([]<-chan transporttest.Result, calls)
	body := make([]byte, 0, 8)
	for i := range calls {
		body = fmt.Append(body[:0], i) // not used once Call has returned
		results[i] = a.Start(t.Context(), b.Self, body)
	}
	for i, c := range results {
		if r := transporttest.Await(t, c); r.Err != nil || string(r.Body) != fmt.Sprint(i) {
			t.Fatalf("call %d: got %q, %v", i, r.Body, r.Err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(arrived) != calls || !slices.IsSorted(arrived) {
		t.Errorf("%d calls arrived, in order: %v", len(arrived), slices.IsSorted(arrived))
	}
}

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

// testTransportGivenUp: the context of a call ends with the caller's interest, on transports that can know, and for no
// other reason.
func transportGivenUp(t testing.TB, n *transporttest.Net) {
	type key struct{}
	var come <-chan transportArrival
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) { come = arrivals(p) })
	if _, nats := a.Transport.(*pitaya.NATSTransport); nats {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		result := a.Start(ctx, b.Self, nil)
		got := transporttest.Await(t, come)
		cancel()
		transporttest.Await(t, result)
		if _, ok := got.Ctx.Deadline(); ok || got.Ctx.Done() != nil {
			t.Error("the context can end")
		}
		return
	}

	// The deadline comes along, and ends the context. The other server counts from when it hears of the call.
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

	// Whoever cancels a call ends the context of that one.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := a.Start(t.Context(), b.Self, []byte("kept"))
	keep := transporttest.Await(t, come)
	a.Start(ctx, b.Self, []byte("cancelled"))
	got = transporttest.Await(t, come)
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

	// So does a caller that closes, whatever it has been waiting for.
	caller := n.Server("front", nil)
	caller.Start(t.Context(), b.Self, nil)
	got = transporttest.Await(t, come)
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

// transportReentrant calls from done and from the handler: neither waits, so neither can stand in the way.
func transportReentrant(t testing.TB, n *transporttest.Net) {
	var a *transporttest.Peer
	b := n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			if string(body) != "ask" {
				reply(body)
				return
			}
			p.Call(t.Context(), a.Self, []byte("back"), func(response []byte, err error) { reply(response) })
		}
	})
	a = n.Server("front", nil)
	depth := make(chan error, 1)
	var next func(left int)
	next = func(left int) {
		a.Call(t.Context(), b.Self, []byte("ask"), func(response []byte, err error) {
			if err != nil || left == 0 {
				depth <- err
				return
			}
			next(left - 1)
		})
	}
	next(100)
	if err := transporttest.Await(t, depth); err != nil {
		t.Error(err)
	}
	// done may need a lock that the caller of Call holds.
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	unlocked := make(chan struct{})
	mu.Lock()
	a.Call(ctx, b.Self, nil, func([]byte, error) { mu.Lock(); defer mu.Unlock(); close(unlocked) })
	mu.Unlock()
	transporttest.Await(t, unlocked)
}

func transportSizes(t testing.TB, n *transporttest.Net) {
	huge := make([]byte, 8<<20)
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			if string(body) == "huge" {
				reply(huge)
				return
			}
			reply(body)
		}
	})
	body := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	if got, err := a.Ask(t.Context(), b.Self, body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes: got %d, %v", len(body), len(got), err)
	}
	// Beyond what the transport takes is an error at once, on either side, and harms nobody else.
	if _, err := a.Ask(t.Context(), b.Self, huge); err == nil || errors.Is(err, pitaya.ErrNoAnswer) {
		t.Errorf("huge call: got %v, want an error at once", err)
	} else {
		t.Log(err)
	}
	if got, err := a.Ask(t.Context(), b.Self, []byte("huge")); errors.Is(err, pitaya.ErrNoAnswer) {
		t.Errorf("huge answer: got %v, want an answer or an error at once", err)
	} else if err == nil && !bytes.Contains(got, []byte("PIT-500")) {
		t.Errorf("huge answer: got %d bytes, want a Response with an error", len(got))
	}
	if got, err := a.Ask(t.Context(), b.Self, []byte("small")); err != nil || string(got) != "small" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

type transportNotice struct {
	Server string
	pitaya.Notice
}

func transportNotices(t testing.TB, n *transporttest.Net) {
	frontType := n.TypeName("front")
	notices := make(chan transportNotice, 100)
	listen := func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, reply func([]byte, error)) {
			if reply != nil {
				reply(nil, nil)
			}
			notices <- transportNotice{p.Self.ID, *n}
		}
	}
	f1, f2 := n.Server(frontType, listen), n.Server(frontType, listen)
	other, back := n.Server(n.TypeName("other"), listen), n.Server("back", listen)
	ctx := t.Context()
	for uid, f := range map[string]*transporttest.Peer{"u-1": f1, "a@b.c": f1, "x/y": f2, "ü": f2} {
		for range 2 { // the second is nothing new
			if err := f.Bind(ctx, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := other.Bind(ctx, "u-1"); err != nil { // the same user of another game
		t.Fatal(err)
	}
	// Some transports take the user from the message.
	encode := func(kind pitaya.NoticeKind, uid, text string) []byte {
		if kind == pitaya.NoticeKick {
			return appendText(nil, 1, uid) // KickMsg.userId
		}
		return appendText(appendText(nil, 2, uid), 3, text) // Push.uid and Push.data
	}
	send := func(kind pitaya.NoticeKind, uid string, on *transporttest.Peer, text string) {
		t.Helper()
		err := back.Notify(ctx, &pitaya.Notice{Kind: kind, FrontendType: frontType, UID: uid, Server: on.Self, Body: encode(kind, uid, text)})
		if err != nil {
			t.Errorf("notice to %q: %v", uid, err)
		}
	}
	want := func(kind pitaya.NoticeKind, uid string, on *transporttest.Peer, text string) {
		t.Helper()
		got, body := transporttest.Await(t, notices), encode(kind, uid, text)
		if got.Server != on.Self.ID || got.Kind != kind || got.UID != uid || got.FrontendType != frontType || !bytes.Equal(got.Body, body) {
			t.Errorf("got %+v, want %d for %q with %q at %s", got, kind, uid, body, on.Self.ID)
		}
	}
	for _, tt := range []struct {
		uid string
		on  *transporttest.Peer
	}{{"u-1", f1}, {"a@b.c", f1}, {"x/y", f2}, {"ü", f2}} {
		send(pitaya.NoticePush, tt.uid, tt.on, "hello")
		want(pitaya.NoticePush, tt.uid, tt.on, "hello")
		send(pitaya.NoticeKick, tt.uid, tt.on, "")
		want(pitaya.NoticeKick, tt.uid, tt.on, "")
	}
	// Those for one user stay in order.
	for i := range 50 {
		send(pitaya.NoticePush, "u-1", f1, fmt.Sprint(i))
	}
	for i := range 50 {
		want(pitaya.NoticePush, "u-1", f1, fmt.Sprint(i))
	}

	// A user who has gone is not told anything, and the one behind is.
	if err := f1.Unbind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	if err := f1.Unbind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f1.Ask(ctx, back.Self, nil); err != nil { // the news has arrived
		t.Fatal(err)
	}
	gone := encode(pitaya.NoticePush, "u-1", "")
	back.Notify(ctx, &pitaya.Notice{Kind: pitaya.NoticePush, FrontendType: frontType, UID: "u-1", Server: f1.Self, Body: gone})
	send(pitaya.NoticePush, "a@b.c", f1, "behind")
	want(pitaya.NoticePush, "a@b.c", f1, "behind")
	// And is again when back, on another server perhaps.
	if err := f2.Bind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	send(pitaya.NoticePush, "u-1", f2, "again")
	want(pitaya.NoticePush, "u-1", f2, "again")
	select {
	case extra := <-notices:
		t.Errorf("unexpected notice %+v", extra)
	default:
	}
}

func transportNames(t testing.TB, n *transporttest.Net) {
	a := n.Server("front", nil)
	for _, uid := range []string{"", " ", "a b", "a\tb", "a\r\nPING\r\n", "*", "a.*.b", ">", "a.>", "a..b", ".", "\xff", strings.Repeat("x", 5000)} {
		if err := a.Bind(t.Context(), uid); !errors.Is(err, pitaya.ErrIllegalUID) {
			t.Errorf("Bind(%.20q): got %v, want ErrIllegalUID", uid, err)
		}
		if err := a.Unbind(t.Context(), uid); err != nil {
			t.Errorf("Unbind(%.20q): %v", uid, err)
		}
	}
	// Names from the discovery may be anything.
	for _, s := range []*pitaya.ServerInfo{{ID: "a b", Type: "x"}, {ID: "a\r\nPUB x 0", Type: "x"}, {ID: strings.Repeat("x", 5000), Type: "y"}} {
		if _, err := a.Ask(t.Context(), s, nil); err == nil {
			t.Errorf("call to %.20q succeeded", s.ID)
		}
	}
	if got, err := a.Ask(t.Context(), a.Self, []byte("fine")); err != nil || string(got) != "fine" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

func transportDrain(t testing.TB, n *transporttest.Net) {
	var handled atomic.Int32
	replies := make(chan func([]byte), 100)
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			handled.Add(1)
			replies <- reply
		}
	})
	// Of calls that were accepted none is lost.
	var results []<-chan transporttest.Result
	for range 50 {
		results = append(results, a.Start(t.Context(), b.Self, []byte("x")))
	}
	reply := transporttest.Await(t, replies) // they are arriving
	drained := make(chan error, 1)
	go func() { drained <- b.Drain(t.Context()) }()
	if err := transporttest.Await(t, drained); err != nil {
		t.Fatal(err)
	}
	b.Silent.Store(true)
	if b.Healthy() == nil {
		t.Error("healthy while nothing comes in")
	}
	// Answers and own calls still work.
	if got, err := b.Ask(t.Context(), a.Self, []byte("own")); err != nil || string(got) != "own" {
		t.Errorf("own call: got %q, %v", got, err)
	}
	reply([]byte("y"))
	for range handled.Load() - 1 {
		transporttest.Await(t, replies)([]byte("y"))
	}
	answered := 0
	for _, c := range results {
		switch r := transporttest.Await(t, c); {
		case r.Err == nil:
			answered++
		case !errors.Is(r.Err, pitaya.ErrUnreachable):
			t.Errorf("got %v, want an answer or ErrUnreachable", r.Err)
		}
	}
	if answered != int(handled.Load()) {
		t.Errorf("%d calls handled, %d answered", handled.Load(), answered)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := a.Ask(ctx, b.Self, []byte("x")); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("call afterwards: got %v, want ErrUnreachable", err)
	}
}

func transportClose(t testing.TB, n *transporttest.Net) {
	replies := make(chan func([]byte), 100)
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) { replies <- reply }
	})
	var results []<-chan transporttest.Result
	for range 10 {
		results = append(results, a.Start(t.Context(), b.Self, []byte("x")))
	}
	for range 10 {
		transporttest.Await(t, replies)
	}
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- a.Close(t.Context()) }()
	}
	for range 2 {
		if err := transporttest.Await(t, closed); err != nil {
			t.Error(err)
		}
	}
	a.Silent.Store(true)
	for i, c := range results {
		select {
		case r := <-c:
			if !errors.Is(r.Err, pitaya.ErrUnreachable) {
				t.Errorf("call %d: got %v, want ErrUnreachable", i, r.Err)
			}
		default:
			t.Errorf("call %d has not ended", i)
		}
	}
	if _, err := a.Ask(t.Context(), b.Self, nil); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("call: got %v, want ErrUnreachable", err)
	}
	if err := a.Notify(t.Context(), &pitaya.Notice{FrontendType: "x", UID: "u"}); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("notice: got %v, want ErrUnreachable", err)
	}
	if err := a.Bind(t.Context(), "u"); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("bind: got %v, want ErrUnreachable", err)
	}
	if a.Healthy() == nil {
		t.Error("healthy after Close")
	}
	// Close is all that Listen needs to have been called for.
	never := n.Open(&pitaya.ServerInfo{ID: "never", Type: "x"})
	if err := never.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// appendText appends a field of a protobuf message, unless it is empty.
func appendText(b []byte, field int, text string) []byte {
	if text == "" {
		return b
	}
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
