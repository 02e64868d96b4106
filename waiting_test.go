package pitaya_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// heldCalls is a backend that keeps all calls waiting.
type heldCalls struct {
	mu      sync.Mutex // guards replies
	replies []func([]byte)
}

func (h *heldCalls) HandleCall(_ context.Context, _ []byte, reply func([]byte)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replies = append(h.replies, reply)
}

func (h *heldCalls) HandleNotice(_ *pitaya.Notice, reply func([]byte, error)) {
	if reply != nil {
		reply(nil, nil)
	}
}

func (h *heldCalls) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.replies)
}

// release answers what waits.
func (h *heldCalls) release() {
	h.mu.Lock()
	held := h.replies
	h.replies = nil
	h.mu.Unlock()
	for _, reply := range held {
		reply([]byte("\x0a\x02ok"))
	}
}

// TestWaitingForwards counts goroutines while clients' messages wait for a backend's answers. In memory and over NATS a
// message that waits costs none. Over gRPC each call that is under way costs some, on either side, here both in this
// process; but one session has one call under way to one server, and what is behind it costs none.
func TestWaitingForwards(t *testing.T) {
	const sessions, each = 40, 25
	for _, over := range []string{e2eMemory, e2eNATS, e2eGRPC} {
		t.Run(over, func(t *testing.T) {
			backend := new(heldCalls)
			cfg := pitaya.Config{RemoteMessages: each}
			room := vectorRoom()
			var peer pitaya.Transport
			switch over {
			case e2eMemory:
				cluster := pitaya.NewMemCluster()
				_, peer = cluster.Node()
				_, cfg.Transport = cluster.Node()
			case e2eNATS:
				nats := natsAt(pitaya.NATSConfig{RequestTimeout: time.Minute}, startNATS(t).URL())
				peer, cfg.Transport = newNATS(t, nats, nats), newNATS(t, nats, nats)
			case e2eGRPC:
				settings := pitaya.GRPCConfig{Port: -1, RequestTimeout: time.Minute}
				_, room = openGRPC(t, room.ID, settings, backend, nil)
				tr, err := pitaya.NewGRPCTransport(settings, "", testLogger(t))
				if err != nil {
					t.Fatal(err)
				}
				cfg.Transport = tr
			}
			cfg.NATSClient.RequestTimeout, cfg.GRPC.RequestTimeout = time.Minute, time.Minute
			if peer != nil {
				must(t, peer.Listen(t.Context(), room, backend))
				t.Cleanup(func() { peer.Close(context.Background()) })
			}
			cfg.Discovery = knownServers{room}
			front := runCluster(t, vectorFront(), cfg, nil)
			var clients []*rawClient
			for range sessions {
				clients = append(clients, front.connect(t))
			}
			ask := func(first, last int) {
				for _, c := range clients {
					for i := first; i <= last; i++ {
						c.request(uint64(i), "room.h.do", "x")
					}
				}
				until(t, "all are forwarded", func() bool { return front.Stats().Forwards == int64(sessions*last) })
			}
			// goroutines waits until there are no more than so many beside those before. Those that are done rest for
			// two seconds at most.
			before := runtime.NumGoroutine()
			goroutines := func(what string, most int) {
				t.Helper()
				n := 0
				for range 500 {
					if n = runtime.NumGoroutine() - before; n <= most {
						return
					}
					transporttest.Await(t, time.After(10*time.Millisecond))
				}
				t.Errorf("%s: %d goroutines more than before, want at most %d", what, n, most)
			}
			const others = 10 // of the runtime, of tests before this one
			ask(1, 1)
			until(t, "the backend has one of each session", func() bool { return backend.waiting() == sessions })
			perCall := 0
			if over == e2eGRPC {
				perCall = 4
			}
			goroutines(fmt.Sprintf("%d messages wait", sessions), perCall*sessions+others)
			under := runtime.NumGoroutine() - before
			ask(2, each)
			if over != e2eGRPC {
				until(t, "the backend has all", func() bool { return backend.waiting() == sessions*each })
			}
			goroutines(fmt.Sprintf("%d messages wait", sessions*each), under+others)
			t.Logf("%d goroutines for %d messages, %d for %d", under, sessions, runtime.NumGoroutine()-before, sessions*each)
			if n := backend.waiting(); over == e2eGRPC && n != sessions {
				t.Errorf("%d calls are under way, want one of each session", n)
			}
			until(t, "all are answered", func() bool {
				backend.release()
				return front.Stats().Answered == sessions*each
			})
			goroutines("all are answered", others)
		})
	}
}

// unorderedTransport keeps no order, as gRPC does not, so that a frontend has to.
type unorderedTransport struct{ pitaya.Transport }

func (unorderedTransport) Ordered() bool { return false }

// TestWaitingForwardsTimeOut: the time that a message waits for those before it, of the same session and to the same
// server, is part of its time.
func TestWaitingForwardsTimeOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		_, peer := cluster.Node()
		backend := new(heldCalls)
		room := vectorRoom()
		must(t, peer.Listen(t.Context(), room, backend))
		defer peer.Close(context.Background())
		_, tr := cluster.Node()
		front := runCluster(t, vectorFront(), pitaya.Config{Discovery: knownServers{room}, Transport: unorderedTransport{tr}}, nil)
		c := front.connect(t)
		start := time.Now()
		for i := range 5 {
			c.request(uint64(i+1), "room.h.do", "x")
			time.Sleep(time.Second) // the first is over in 5 s, and the others one second after the other
		}
		for i := range 5 {
			m := c.message()
			if m.ID != uint64(i+1) || !m.Err || !strings.Contains(string(m.Payload), pitaya.CodeTimeout) {
				t.Errorf("got the answer %d %s, want a timeout of %d", m.ID, m.Payload, i+1)
			}
			if d, want := time.Since(start), time.Duration(5+i)*time.Second; d != want {
				t.Errorf("answer %d came after %v, want %v", m.ID, d, want)
			}
		}
		synctest.Wait()
		if n := backend.waiting(); n != 5 {
			t.Errorf("the backend got %d calls, want 5", n)
		}
		// Those that are sent together are over together, and nobody is bothered with those that are over.
		for i := range 5 {
			c.request(uint64(i+6), "room.h.do", "x")
		}
		start = time.Now()
		for range 5 {
			c.message()
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("the last answer came after %v, want 5 s", d)
		}
		synctest.Wait()
		if n := backend.waiting(); n != 6 {
			t.Errorf("the backend got %d calls, want one more", n-5)
		}
	})
}
