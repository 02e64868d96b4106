package pitaya_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// narrow gives the connections of a TCP listener small send buffers, so that a
// client that does not read is noticed soon.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*net.TCPConn).SetWriteBuffer(16 << 10)
	}
	return c, err
}

// startNarrow is startOn for tcp, with small buffers on both sides.
func startNarrow(t testing.TB, cfg pitaya.Config, setup func(s *pitaya.Server)) (*testServer, func() *rawClient) {
	t.Helper()
	l, open := listenOn(t, "tcp")
	cfg.Listeners = append(cfg.Listeners, narrow{l})
	ts := startServer(t, cfg, setup)
	return ts, func() *rawClient {
		t.Helper()
		c, err := open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.(*net.TCPConn).SetReadBuffer(16 << 10)
		return &rawClient{Conn: c, t: t}
	}
}

// bindHandler binds the session to the uid that is the payload.
func bindHandler(ctx context.Context, b []byte) ([]byte, error) {
	return b, pitaya.SessionFromContext(ctx).Bind(ctx, string(b))
}

func (c *rawClient) bind(uid string) {
	c.t.Helper()
	c.request(1, "test.bind", uid)
	if m := c.message(); m.Err {
		c.t.Fatalf("bind %q: %s", uid, m.Payload)
	}
}

// One member of a group never reads. The others get each push at the moment at
// which it is sent, and the stalled client's stream ends behind a whole packet.
func TestStalledMember(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const members, pushes, size, budget = 100, 200, 4 << 10, 128 << 10
				s, dial := startOn(t, kind, pitaya.Config{QueueBytes: budget}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.bind", bindHandler))
				})
				g := s.Group("all")
				must(t, g.Create(t.Context(), 0))
				var clients [members]*rawClient
				for i := range clients {
					clients[i] = dial()
					// Deadlines are for real sockets: time passes in this test.
					clients[i].SetDeadline(time.Time{})
					clients[i].hello().bind(fmt.Sprint("user", i))
					must(t, g.Add(t.Context(), fmt.Sprint("user", i)))
				}
				stalled := clients[0]
				payload := make([]byte, size)
				var wg sync.WaitGroup
				for _, c := range clients[1:] {
					wg.Go(func() {
						for i := range pushes {
							m := c.message()
							sent := int64(binary.BigEndian.Uint64(m.Payload))
							if n := binary.BigEndian.Uint64(m.Payload[8:]); n != uint64(i) {
								t.Errorf("push %d instead of %d", n, i)
								return
							}
							if d := time.Now().UnixNano() - sent; d != 0 {
								t.Errorf("push %d came after %v", i, time.Duration(d))
								return
							}
						}
					})
				}
				lost := 0
				for i := range pushes {
					binary.BigEndian.PutUint64(payload, uint64(time.Now().UnixNano()))
					binary.BigEndian.PutUint64(payload[8:], uint64(i))
					err := g.Broadcast(t.Context(), "", "news", payload)
					var u *pitaya.UndeliveredError
					switch {
					case errors.As(err, &u) && len(u.UIDs) == 1 && u.UIDs[0] == "user0":
						lost++
					case err != nil:
						t.Fatal(err)
					}
					time.Sleep(time.Millisecond)
				}
				wg.Wait()
				if lost == 0 {
					t.Error("the stalled client took everything")
				}
				if got := s.Stats().SlowClients; got != 1 {
					t.Errorf("%d slow clients, want 1", got)
				}
				list, err := stalled.packets()
				if err != nil {
					t.Errorf("the stalled client's stream: %v", err)
				}
				// Four budgets in a burst, and what the connection itself holds.
				if n := len(list) * size; n == 0 || n > 4*budget+128<<10 {
					t.Errorf("%d bytes were kept for the stalled client", n)
				}
				for i, p := range list {
					m, err := pitaya.DecodeMessage(p.Body, nil)
					if err != nil || len(m.Payload) != size || binary.BigEndian.Uint64(m.Payload[8:]) != uint64(i) {
						t.Fatalf("packet %d: %v, %d bytes", i, err, len(m.Payload))
					}
				}
			})
		})
	}
}

func TestStalledMemberTCP(t *testing.T) {
	s, dial := startNarrow(t, pitaya.Config{QueueBytes: 256 << 10, WriteTimeout: time.Minute}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.bind", bindHandler))
	})
	g := s.Group("all")
	must(t, g.Create(t.Context(), 0))
	const members, pushes, size = 20, 500, 4 << 10
	var clients [members]*rawClient
	for i := range clients {
		clients[i] = dial().hello()
		clients[i].bind(fmt.Sprint("user", i))
		must(t, g.Add(t.Context(), fmt.Sprint("user", i)))
	}
	ended := s.SessionByUID("user0").Context()
	// Each push waits until the others have the one before, so that nobody but
	// the stalled client falls behind.
	var got sync.WaitGroup
	var readers sync.WaitGroup
	for _, c := range clients[1:] {
		readers.Go(func() {
			for range pushes {
				if m := c.message(); len(m.Payload) != size {
					t.Errorf("push of %d bytes", len(m.Payload))
				}
				got.Done()
			}
		})
	}
	payload := bytes.Repeat([]byte{7}, size)
	for range pushes {
		got.Add(members - 1)
		var u *pitaya.UndeliveredError
		if err := g.Broadcast(t.Context(), "", "news", payload); err != nil && (!errors.As(err, &u) || len(u.UIDs) > 1 || u.UIDs[0] != "user0") {
			t.Fatal(err)
		}
		got.Wait()
	}
	readers.Wait()
	if cause := context.Cause(ended); cause != pitaya.ErrSlowClient {
		t.Errorf("the stalled session's cause is %v", cause)
	}
	list, err := clients[0].packets()
	if err != nil || len(list) == 0 {
		t.Errorf("the stalled client's stream: %d packets, then %v", len(list), err)
	}
	for i, p := range list {
		if m, err := pitaya.DecodeMessage(p.Body, nil); err != nil || !bytes.Equal(m.Payload, payload) {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
}

// A socket that takes nothing for the write timeout ends its session, however
// little is queued, and what reached the client is a prefix of the stream.
func TestWriteTimeout(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := startOn(t, kind, pitaya.Config{WriteTimeout: 5 * time.Second}, nil)
				c := dial()
				c.SetDeadline(time.Time{})
				c.hello()
				synctest.Wait()
				session := s.onlySession(t)
				begin := time.Now()
				must(t, session.Push(t.Context(), "big", make([]byte, 200<<10)))
				<-session.Context().Done()
				if d := time.Since(begin); d != 5*time.Second || context.Cause(session.Context()) != pitaya.ErrSlowClient {
					t.Errorf("ended after %v with %v", d, context.Cause(session.Context()))
				}
				if err := session.Push(t.Context(), "more", []byte("x")); err != pitaya.ErrSessionClosed {
					t.Errorf("push after the end: %v", err)
				}
				synctest.Wait()
				if st := s.Stats(); st.Open != 0 || st.SlowClients != 1 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

func TestWriteTimeoutTCP(t *testing.T) {
	s, dial := startNarrow(t, pitaya.Config{WriteTimeout: 100 * time.Millisecond, QueueBytes: 8 << 20}, nil)
	dial().hello()
	session := s.onlySession(t)
	must(t, session.Push(t.Context(), "big", make([]byte, 8<<20)))
	within(t, "end of the session", session.Context().Done())
	if cause := context.Cause(session.Context()); cause != pitaya.ErrSlowClient {
		t.Errorf("cause %v", cause)
	}
}

// A client that reads slowly but steadily is not taken for a stalled one.
func TestSteadyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{Heartbeat: -1}, nil)
		c := s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		const pushes, size = 200, 4 << 10
		for range pushes {
			must(t, session.Push(t.Context(), "news", make([]byte, size)))
		}
		begin := time.Now()
		for range pushes {
			if m := c.message(); len(m.Payload) != size {
				t.Fatalf("push of %d bytes", len(m.Payload))
			}
			time.Sleep(500 * time.Millisecond)
		}
		if d := time.Since(begin); d < 90*time.Second || session.Context().Err() != nil {
			t.Errorf("after %v: %v", d, context.Cause(session.Context()))
		}
	})
}

// Any progress counts, however small: no write is completed within the timeout
// here, and in no timeout is nothing taken.
func TestSteadyReaderOfLittle(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout, size, piece = 300 * time.Millisecond, 1 << 20, 4 << 10
				s, dial := startOn(t, kind, pitaya.Config{Heartbeat: -1, WriteTimeout: timeout}, nil)
				c := dial()
				c.SetDeadline(time.Time{})
				c.hello()
				synctest.Wait()
				session := s.onlySession(t)
				must(t, session.Push(t.Context(), "big", make([]byte, size)))
				b := make([]byte, piece)
				for total := 0; total < size; {
					time.Sleep(timeout / 3)
					n, err := io.ReadFull(c, b)
					total += n
					if err != nil {
						t.Fatalf("after %d bytes: %v; the cause is %v", total, err, context.Cause(session.Context()))
					}
				}
				if err := context.Cause(session.Context()); err != nil {
					t.Errorf("the session ended: %v", err)
				}
				// What is pushed then is not late by the deadlines that have passed.
				time.Sleep(time.Minute)
				go io.Copy(io.Discard, c)
				must(t, session.Push(t.Context(), "more", []byte("x")))
				synctest.Wait()
				if err := context.Cause(session.Context()); err != nil {
					t.Errorf("then the session ended: %v", err)
				}
			})
		})
	}
}

func TestDropWhenSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{SlowClient: pitaya.SlowClientDrop, QueueBytes: 16 << 10}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
		})
		c := s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		dropped := 0
		const pushes, requests = 300, 50
		for range pushes {
			switch err := session.Push(t.Context(), "news", make([]byte, 1<<10)); err {
			case nil:
			case pitaya.ErrSlowClient:
				dropped++
			default:
				t.Fatal(err)
			}
		}
		for i := range requests {
			c.request(uint64(i+1), "test.echo", "x")
		}
		synctest.Wait()
		st := s.Stats()
		if dropped == 0 || st.PushesDropped != int64(dropped) || st.Pushes != int64(pushes-dropped) || st.SlowClients != 0 {
			t.Errorf("%d dropped, %+v", dropped, st)
		}
		got := 0
		for answers := uint64(0); answers < requests; {
			switch m := c.message(); m.Type {
			case pitaya.MessagePush:
				got++
			case pitaya.MessageResponse:
				if answers++; m.ID != answers {
					t.Fatalf("answer %d instead of %d", m.ID, answers)
				}
			}
		}
		if got != pushes-dropped {
			t.Errorf("%d pushes arrived, want %d", got, pushes-dropped)
		}
		// There is room again.
		must(t, session.Push(t.Context(), "news", []byte("y")))
		if m := c.message(); string(m.Payload) != "y" {
			t.Errorf("then %q", m.Payload)
		}
	})
}

func TestQueueMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{SlowClient: pitaya.SlowClientDrop, QueueMessages: 10}, nil)
		s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		// The first fills the connection, so that the others wait.
		must(t, session.Push(t.Context(), "big", make([]byte, 100<<10)))
		synctest.Wait()
		for range 9 {
			must(t, session.Push(t.Context(), "small", []byte("x")))
		}
		if err := session.Push(t.Context(), "small", []byte("x")); err != pitaya.ErrSlowClient {
			t.Errorf("the eleventh push: %v", err)
		}
	})
}

// A handler that pushes much in a loop must not lose its client because no
// writer has run yet.
func TestBurst(t *testing.T) {
	for _, cores := range []int{0, 1} {
		for _, kind := range []string{"mem", "tcp", "ws", "tls"} {
			t.Run(fmt.Sprintf("%s/cores=%d", kind, cores), func(t *testing.T) {
				if cores == 1 {
					onOneCore(t)
				}
				const pushes = 5000
				_, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.burst", func(ctx context.Context, b []byte) ([]byte, error) {
						session := pitaya.SessionFromContext(ctx)
						for i := range pushes {
							if err := session.Push(ctx, "burst", fmt.Appendf(nil, `{"n":%d,"text":"a small push"}`, i)); err != nil {
								return nil, err
							}
						}
						return b, nil
					}))
				})
				c := dial().hello()
				c.request(1, "test.burst", "x")
				for i := range pushes {
					m := c.message()
					if want := fmt.Sprintf(`{"n":%d,"text":"a small push"}`, i); m.Route != "burst" || string(m.Payload) != want {
						t.Fatalf("%v %q instead of push %d", m.Type, m.Payload, i)
					}
				}
				if m := c.message(); m.Type != pitaya.MessageResponse || m.Err {
					t.Fatalf("then %v %s", m.Type, m.Payload)
				}
			})
		}
	}
}

// A message that is larger than the budget passes when nothing else waits.
func TestLargerThanBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{QueueBytes: 64 << 10}, nil)
		c := s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		for range 3 {
			must(t, session.Push(t.Context(), "big", make([]byte, 512<<10)))
			if m := c.message(); len(m.Payload) != 512<<10 {
				t.Fatalf("%d bytes", len(m.Payload))
			}
			synctest.Wait()
		}
		must(t, session.Push(t.Context(), "big", make([]byte, 512<<10)))
		synctest.Wait() // it is being written, and so will be completed
		if err := session.Push(t.Context(), "small", nil); err != pitaya.ErrSlowClient {
			t.Errorf("behind it: %v", err)
		}
		if list, err := c.packets(); err != nil || len(list) != 1 {
			t.Errorf("%d packets, then %v", len(list), err)
		}
	})
}

// A client that asks for more than it takes is slowed down, not closed, and the
// answers do not pile up.
func TestSlowAsker(t *testing.T) {
	for _, opts := range [][]pitaya.RegisterOption{nil, {pitaya.WithConcurrent()}} {
		synctest.Test(t, func(t *testing.T) {
			const requests, size, budget = 200, 64 << 10, 256 << 10
			var handled, taken atomic.Int32
			s := startServer(t, pitaya.Config{QueueBytes: budget, MailboxMessages: 4}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.large", func(context.Context, []byte) ([]byte, error) {
					if ahead := handled.Add(1) - taken.Load(); ahead > budget/size+12 {
						t.Errorf("%d answers ahead of the client", ahead)
					}
					return make([]byte, size), nil
				}, opts...))
			})
			c := s.connect(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range requests {
					c.request(uint64(i+1), "test.large", "x")
				}
			})
			for i := range requests {
				m := c.message()
				if m.Err || len(m.Payload) != size || opts == nil && m.ID != uint64(i+1) {
					t.Fatalf("answer %d: %d with %d bytes", i+1, m.ID, len(m.Payload))
				}
				taken.Add(1)
				time.Sleep(100 * time.Millisecond)
			}
			wg.Wait()
		})
	}
}

// Kicks under load: the kick packet is the last one on every connection.
func TestKickUnderLoad(t *testing.T) {
	for _, kind := range []string{"tcp", "ws"} {
		t.Run(kind, func(t *testing.T) {
			s, dial := startOn(t, kind, pitaya.Config{}, nil)
			const rounds, each = 20, 50
			for range rounds {
				var clients [each]*rawClient
				var readers, pushers sync.WaitGroup
				for i := range clients {
					clients[i] = dial().hello()
				}
				for _, c := range clients {
					readers.Go(func() {
						list, err := c.packets()
						if err != nil || len(list) == 0 {
							t.Errorf("%d packets, then %v", len(list), err)
							return
						}
						last := list[len(list)-1]
						if last.Type != pitaya.PacketKick || string(last.Body) != `{"reason":"maintenance"}` {
							t.Errorf("the last packet is %v %q", last.Type, last.Body)
						}
						for _, p := range list[:len(list)-1] {
							if p.Type != pitaya.PacketData {
								t.Errorf("%v before the end", p.Type)
							}
						}
						if ws, ok := c.Conn.(*wsPeer); ok && ws.closeCode() != 1000 {
							t.Errorf("closed with code %d", ws.closeCode())
						}
						c.Close()
					})
				}
				stop := make(chan struct{})
				for range 2 {
					pushers.Go(func() {
						for {
							for session := range s.Sessions() {
								session.Push(t.Context(), "load", []byte("some load"))
							}
							select {
							case <-stop:
								return
							default:
								runtime.Gosched()
							}
						}
					})
				}
				for session := range s.Sessions() {
					if err := session.KickReason(t.Context(), "maintenance"); err != nil {
						// It fell behind the pushes, which is another test's
						// matter.
						t.Errorf("kick: %v, the cause is %v", err, context.Cause(session.Context()))
					}
					if cause := context.Cause(session.Context()); !errors.Is(cause, pitaya.ErrKicked) {
						t.Errorf("the session's cause is %v", cause)
					}
				}
				readers.Wait()
				close(stop)
				pushers.Wait()
			}
		})
	}
}

// The kick ends the session at once and the socket soon, whether or not the
// client reads.
func TestKickOfStalledClient(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := startOn(t, kind, pitaya.Config{WriteTimeout: 3 * time.Second}, nil)
				c := dial()
				c.SetDeadline(time.Time{})
				c.hello()
				synctest.Wait()
				session := s.onlySession(t)
				for range 50 {
					must(t, session.Push(t.Context(), "load", make([]byte, 4<<10)))
				}
				begin := time.Now()
				must(t, session.Kick(t.Context()))
				if !errors.Is(context.Cause(session.Context()), pitaya.ErrKicked) || s.SessionCount() != 0 {
					t.Errorf("%d sessions, %v", s.SessionCount(), context.Cause(session.Context()))
				}
				if err := session.Kick(t.Context()); err != pitaya.ErrSessionClosed {
					t.Errorf("second kick: %v", err)
				}
				for s.Stats().Open != 0 && time.Since(begin) < time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				if d := time.Since(begin); d > 3100*time.Millisecond {
					t.Errorf("the socket stayed for %v", d)
				}
			})
		})
	}
}

// A client that was told the end but never closes is left after a while.
func TestLingerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{Heartbeat: -1}, nil)
		for range 50 {
			c := s.dial(t)
			c.send(pitaya.PacketHandshake, []byte(`{}`))
			c.expect(pitaya.PacketHandshake)
			session := s.onlySession(t)
			// At the moment at which the ack takes the deadline off.
			go session.Kick(t.Context())
			c.send(pitaya.PacketHandshakeAck, nil)
			time.Sleep(2100 * time.Millisecond)
			if n := s.Stats().Open; n != 0 {
				t.Fatal("the connection is still open")
			}
		}
	})
}
