package pitayatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
