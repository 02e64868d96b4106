package pitaya_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// sequencer checks that the messages of one session are handled one at a time
// and in order.
type sequencer struct {
	t      testing.TB
	inside atomic.Int32
	last   uint64 // not atomic on purpose: the race detector sees overlapping
	slow   func()
}

func (q *sequencer) handle(ctx context.Context, b []byte) ([]byte, error) {
	if n := q.inside.Add(1); n != 1 {
		q.t.Errorf("%d handlers of one session at once", n)
	}
	defer q.inside.Add(-1)
	n := binary.BigEndian.Uint64(b)
	if n != q.last+1 {
		q.t.Errorf("message %d after %d", n, q.last)
	}
	if n%10 == 0 {
		q.slow()
	}
	q.last = n
	return b, nil
}

// work takes a moment of the processor.
func work() {
	b := make([]byte, 64<<10)
	for range 4 {
		sum := sha256.Sum256(b)
		copy(b, sum[:])
	}
}

// sequence sends n pipelined requests of the given size and wants the answers
// in order.
func sequence(c *rawClient, route string, n, size int) {
	c.t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		payload := make([]byte, size)
		var b []byte
		for i := range n {
			binary.BigEndian.PutUint64(payload, uint64(i+1))
			b = appendRequest(b, uint64(i+1), route, payload)
			if len(b) > 16<<10 || i == n-1 {
				if _, err := c.Write(b); err != nil {
					c.t.Errorf("request %d: %v", i+1, err)
					return
				}
				b = b[:0]
			}
		}
	})
	for i := range n {
		m := c.message()
		if m.Type != pitaya.MessageResponse || m.Err || m.ID != uint64(i+1) || binary.BigEndian.Uint64(m.Payload) != m.ID {
			c.t.Fatalf("answer %d: %v %d, error %v, %q", i+1, m.Type, m.ID, m.Err, m.Payload)
		}
	}
}

func TestOrder(t *testing.T) {
	for _, cores := range []int{0, 1} {
		for _, kind := range []string{"mem", "tcp", "ws"} {
			t.Run(fmt.Sprintf("%s/cores=%d", kind, cores), func(t *testing.T) {
				if cores == 1 {
					onOneCore(t)
				}
				q := &sequencer{t: t, slow: work}
				_, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.seq", q.handle))
				})
				sequence(dial().hello(), "test.seq", 1000, 8)
			})
		}
	}
}

// In time that does not pass by itself a slow handler is as slow as it says.
func TestOrderSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &sequencer{t: t, slow: func() { time.Sleep(5 * time.Millisecond) }}
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.seq", q.handle))
		})
		c := s.connect(t)
		begin := time.Now()
		sequence(c, "test.seq", 1000, 8)
		if d := time.Since(begin); d != 500*time.Millisecond {
			t.Errorf("it took %v, want 500ms", d)
		}
	})
}

func sleeper(d time.Duration) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, b []byte) ([]byte, error) {
		time.Sleep(d)
		return b, nil
	}
}

func TestSessionsRunInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", sleeper(100*time.Millisecond)))
		})
		var clients [8]*rawClient
		for i := range clients {
			clients[i] = s.connect(t)
		}
		begin := time.Now()
		for _, c := range clients {
			c.request(1, "test.slow", "x")
		}
		for _, c := range clients {
			c.message()
		}
		if d := time.Since(begin); d != 100*time.Millisecond {
			t.Errorf("eight sessions took %v, want 100ms", d)
		}
	})
}

func TestFloodDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{SlowHandler: -1}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", sleeper(2*time.Second)), pitaya.HandleRaw(s, "test.fast", sleeper(0)))
		})
		flood, other := s.connect(t), s.connect(t)
		for i := range 60 {
			flood.request(uint64(i+1), "test.slow", "x")
		}
		synctest.Wait()
		begin := time.Now()
		other.request(1, "test.fast", "x")
		other.message()
		if d := time.Since(begin); d != 0 {
			t.Errorf("the other session's request took %v", d)
		}
		flood.Close()
	})
}

// gate is a handler that waits until it is let through, and counts.
type gate struct {
	open          chan struct{}
	inside, after atomic.Int32
	most          atomic.Int32
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) handle(ctx context.Context, b []byte) ([]byte, error) {
	n := g.inside.Add(1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
	<-g.open
	g.inside.Add(-1)
	g.after.Add(1)
	return b, nil
}

func TestWithoutOrder(t *testing.T) {
	tests := []struct {
		name string
		cfg  pitaya.Config
		opts []pitaya.RegisterOption
		want int32 // handlers of one session at once
	}{
		{"ordered", pitaya.Config{}, nil, 1},
		{"WithConcurrent", pitaya.Config{MailboxMessages: 5}, []pitaya.RegisterOption{pitaya.WithConcurrent()}, 5},
		{"Unordered", pitaya.Config{MailboxMessages: 5, Unordered: true}, nil, 5},
		{"WithConcurrent and Dispatch", pitaya.Config{Dispatch: 3}, []pitaya.RegisterOption{pitaya.WithConcurrent()}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate()
				s := startServer(t, tt.cfg, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.gate", g.handle, tt.opts...), pitaya.HandleRaw(s, "test.fast", sleeper(0)))
				})
				c := s.connect(t)
				const n = 20
				for i := range n {
					c.request(uint64(i+1), "test.gate", "x")
				}
				synctest.Wait()
				if got := g.inside.Load(); got != tt.want {
					t.Errorf("%d handlers at once, want %d", got, tt.want)
				}
				close(g.open)
				seen := make(map[uint64]bool)
				for range n {
					seen[c.message().ID] = true
				}
				if len(seen) != n || g.most.Load() != tt.want {
					t.Errorf("%d answers, %d handlers at once", len(seen), g.most.Load())
				}
			})
		})
	}
}

// An ordered handler overtakes concurrent ones that came before it.
func TestConcurrentDoesNotHoldOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.gate", g.handle, pitaya.WithConcurrent()), pitaya.HandleRaw(s, "test.fast", sleeper(0)))
		})
		c := s.connect(t)
		c.request(1, "test.gate", "x")
		c.request(2, "test.fast", "x")
		if m := c.message(); m.ID != 2 {
			t.Errorf("answer %d first", m.ID)
		}
		close(g.open)
		if m := c.message(); m.ID != 1 {
			t.Errorf("answer %d second", m.ID)
		}
	})
}

func TestDispatchBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := startServer(t, pitaya.Config{Dispatch: 3}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.gate", g.handle))
		})
		var clients [10]*rawClient
		for i := range clients {
			clients[i] = s.connect(t)
			clients[i].request(1, "test.gate", "x")
		}
		synctest.Wait()
		if got := g.inside.Load(); got != 3 {
			t.Errorf("%d handlers at once, want 3", got)
		}
		for range clients {
			g.open <- struct{}{}
			synctest.Wait()
		}
		for _, c := range clients {
			c.message()
		}
		if got := g.most.Load(); got != 3 {
			t.Errorf("%d handlers at once, want 3", got)
		}
	})
}

// A full mailbox stops the reading of its connection. The client is not taken
// for silent meanwhile, and nothing is lost.
func TestFullMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := startServer(t, pitaya.Config{MailboxMessages: 8, Heartbeat: time.Second}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.gate", g.handle))
		})
		c := s.connect(t)
		const n, size = 200, 1 << 10 // more than the connection holds
		var sent atomic.Int32
		go func() {
			for i := range n {
				if _, err := c.Write(appendRequest(nil, uint64(i+1), "test.gate", make([]byte, size))); err != nil {
					t.Errorf("request %d: %v", i+1, err)
					return
				}
				sent.Add(1)
			}
		}()
		var answers atomic.Int32
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range n {
				if m := c.message(); m.ID != uint64(i+1) || len(m.Payload) != size {
					t.Errorf("answer %d: %d", i+1, m.ID)
				}
				answers.Add(1)
			}
		}()
		synctest.Wait()
		// 64 KiB in the connection, 8 in the mailbox, one at work, and what one
		// read takes in.
		if got := sent.Load(); got > 64+8+1+16 {
			t.Errorf("%d messages of %d bytes were taken from the client", got, size)
		}
		if got := s.Stats().Requests; got != 1 {
			t.Errorf("%d requests", got)
		}
		time.Sleep(time.Minute) // sixty heartbeats
		if err := s.onlySession(t).Context().Err(); err != nil {
			t.Fatalf("the session ended: %v", context.Cause(s.onlySession(t).Context()))
		}
		close(g.open)
		<-done
		if got := answers.Load(); got != n {
			t.Errorf("%d answers, want %d", got, n)
		}
		// From here on the client is silent.
		time.Sleep(4 * time.Second)
		if n := s.SessionCount(); n != 0 {
			t.Errorf("%d sessions after the client's silence", n)
		}
	})
}

// Over sockets the client's writes come to a halt.
func TestFullMailboxPushesBack(t *testing.T) {
	for _, kind := range []string{"tcp", "ws", "tls"} {
		t.Run(kind, func(t *testing.T) {
			g := newGate()
			_, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.gate", g.handle), pitaya.HandleRaw(s, "test.fast", sleeper(0)))
			})
			c, other := dial().hello(), dial().hello()
			const size, limit = 60 << 10, 32 << 20
			// The goroutine writes on once there is room again.
			written := make(chan int, 1)
			blocked := make(chan struct{})
			var total atomic.Int64
			go func() {
				n := 0
				for ; total.Load() < limit; n++ {
					select {
					case <-blocked:
						written <- n
						return
					default:
					}
					if _, err := c.Write(appendRequest(nil, uint64(n+1), "test.gate", make([]byte, size))); err != nil {
						if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("request %d: %v", n+1, err)
						}
						break
					}
					total.Add(size)
				}
				written <- n
			}()
			// It is blocked when it makes no progress while another client, who
			// is not to notice, has had many answers.
			const patience = 2000
			for last, since := int64(-1), 0; since < patience; since++ {
				if now := total.Load(); now != last || now == 0 {
					last, since = now, 0
				}
				other.request(1, "test.fast", "x")
				other.message()
			}
			if got := total.Load(); got >= limit {
				t.Errorf("the server took %d bytes while a handler was at work", got)
			}
			close(blocked)
			close(g.open)
			n := -1
			for i := 0; n < 0 || i < n; i++ {
				if m := c.message(); m.ID != uint64(i+1) || len(m.Payload) != size {
					t.Fatalf("answer %d: %d with %d bytes", i+1, m.ID, len(m.Payload))
				}
				if n < 0 {
					n = <-written
				}
			}
		})
	}
}

// A handler that waited for its turn under Config.Dispatch is not slow itself.
func TestWaitIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{Dispatch: 1, SlowHandler: time.Second}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.work", sleeper(800*time.Millisecond)))
		})
		var clients []*rawClient
		for range 3 {
			c := s.connect(t)
			c.request(1, "test.work", "x")
			clients = append(clients, c)
		}
		for _, c := range clients {
			c.message()
		}
		if n := s.Stats().SlowHandlers; n != 0 {
			t.Errorf("%d slow handlers", n)
		}
	})
}
