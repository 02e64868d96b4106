package pitaya_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// oldClient announces nothing, as the clients of Pitaya and pomelo.
var oldClient = &pitaya.ClientConfig{Handshake: &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Features: []string{}}}}

// TestShutdownAnswersWhatArrived sends more than a mailbox holds to a session whose handler does not return, so that
// most of it has arrived but was not read when the server ends.
func TestShutdownAnswersWhatArrived(t *testing.T) {
	t.Parallel()
	const requests = 500
	for name, cfg := range map[string]*pitaya.ClientConfig{"new": nil, "old": oldClient} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				open := make(chan struct{})
				l := pitaya.ListenMem()
				s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}, MailboxMessages: 4, SlowHandler: -1}, func(s *pitaya.Server) {
					pitaya.HandleRaw(s, "room.wait", func(ctx context.Context, in []byte) ([]byte, error) {
						<-open
						return in, nil
					})
				})
				c := dialMem(t, l, cfg)
				var wg sync.WaitGroup
				for i := range requests {
					wg.Go(func() {
						want := fmt.Sprint(i)
						if got, err := c.RequestRaw(t.Context(), "room.wait", []byte(want)); err != nil || string(got) != want {
							t.Errorf("request %s: got %q, %v", want, got, err)
						}
					})
				}
				synctest.Wait()
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(t.Context()) }()
				synctest.Wait()
				close(open)
				wg.Wait()
				<-c.Done()
				if !errors.Is(c.Err(), io.EOF) {
					t.Errorf("the connection ended with %v", c.Err())
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// dialMem connects a client that is closed at the end of the test.
func dialMem(t *testing.T, l *pitaya.MemListener, cfg *pitaya.ClientConfig) *pitaya.Client {
	t.Helper()
	nc, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pitaya.NewClient(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// onSockets runs a test on each kind of socket that clients are connected by. It is given a listener, and what dials it.
func onSockets(t *testing.T, run func(t *testing.T, l net.Listener, dial func(*pitaya.HandshakeData) *pitaya.Client)) {
	for _, scheme := range []string{"tcp", "tls", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var server, client *tls.Config
			var l net.Listener
			var err error
			switch scheme {
			case "tls":
				server, client = testTLS(t)
				fallthrough
			case "tcp":
				l, err = pitaya.ListenTCP("127.0.0.1:0", server)
			case "ws":
				l, err = pitaya.ListenWS("127.0.0.1:0", nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			run(t, l, func(h *pitaya.HandshakeData) *pitaya.Client {
				c, err := pitaya.Dial(t.Context(), scheme+"://"+l.Addr().String(), &pitaya.ClientConfig{TLS: client, Handshake: h})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			})
		})
	}
}

// TestShutdownLosesNoRequest ends a server whose clients never stop to send. Each request is answered, or was never
// sent and the client says so.
func TestShutdownLosesNoRequest(t *testing.T) {
	t.Parallel()
	onSockets(t, func(t *testing.T, l net.Listener, dial func(*pitaya.HandshakeData) *pitaya.Client) {
		var warm sync.WaitGroup
		warm.Add(20)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}, CloseWindow: 50 * time.Millisecond}, func(s *pitaya.Server) {
			pitaya.HandleRaw(s, "room.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil })
		})
		var wg sync.WaitGroup
		var sent atomic.Int64
		for range 20 {
			c := dial(nil)
			wg.Go(func() {
				for i := 0; ; i++ {
					if i == 10 {
						warm.Done()
					}
					_, err := c.RequestRaw(t.Context(), "room.echo", []byte("x"))
					if errors.Is(err, pitaya.ErrServerClosed) {
						return
					}
					if err != nil {
						t.Errorf("a request was lost: %v", err)
						return
					}
					sent.Add(1)
				}
			})
		}
		warm.Wait()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := s.Stats(); n.Requests != sent.Load() || n.Answered != sent.Load() || n.Lost != 0 {
			t.Errorf("%d requests were answered, the server counts %+v", sent.Load(), n)
		}
	})
}

// TestShutdownAnswersWhatComesMeanwhile lets clients that cannot be asked to stop send on while the server that ends is
// at work on what they have sent before.
func TestShutdownAnswersWhatComesMeanwhile(t *testing.T) {
	t.Parallel()
	for name, route := range map[string]string{"local": "gate.h.wait", "beside": "gate.h.beside", "forwarded": "room.h.wait"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cluster := pitaya.NewMemCluster()
				open := make(chan struct{})
				wait := func(ctx context.Context, in []byte) ([]byte, error) {
					<-open
					return in, nil
				}
				setup := func(s *pitaya.Server) {
					if err := errors.Join(pitaya.HandleRaw(s, "h.wait", wait), pitaya.HandleRaw(s, "h.beside", wait, pitaya.WithConcurrent())); err != nil {
						t.Fatal(err)
					}
				}
				memServer(t, cluster, pitaya.Config{Type: "room", ID: "r", SlowHandler: -1}, setup)
				gate, l := memServer(t, cluster, pitaya.Config{Type: "gate", ID: "g", Frontend: true, SlowHandler: -1}, setup)
				synctest.Wait()
				c := dialMem(t, l, oldClient)
				var wg sync.WaitGroup
				ask := func(want string) {
					wg.Go(func() {
						if got, err := c.RequestRaw(t.Context(), route, []byte(want)); err != nil || string(got) != want {
							t.Errorf("request %s: got %q, %v", want, got, err)
						}
					})
					synctest.Wait()
				}
				ask("before")
				start := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- gate.Shutdown(t.Context()) }()
				synctest.Wait()
				ask("meanwhile")
				time.Sleep(time.Second)
				ask("later")
				close(open)
				wg.Wait()
				<-c.Done()
				if !errors.Is(c.Err(), io.EOF) {
					t.Errorf("the connection ended with %v", c.Err())
				}
				if d := time.Since(start); d != time.Second {
					t.Errorf("closed after %v, want 1 s", d)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if n := gate.Stats(); n.Requests != 3 || n.Answered != 3 {
					t.Errorf("got %+v", n)
				}
			})
		})
	}
}

// TestShutdownAnswersWhatComesMeanwhileSockets does it where the connection is a socket: the server goes on reading it.
func TestShutdownAnswersWhatComesMeanwhileSockets(t *testing.T) {
	t.Parallel()
	onSockets(t, func(t *testing.T, l net.Listener, dial func(*pitaya.HandshakeData) *pitaya.Client) {
		entered, open := make(chan string, 2), make(chan struct{})
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}, CloseWindow: -1, SlowHandler: -1}, func(s *pitaya.Server) {
			pitaya.HandleRaw(s, "room.wait", func(ctx context.Context, in []byte) ([]byte, error) {
				entered <- string(in)
				<-open
				return in, nil
			}, pitaya.WithConcurrent())
		})
		c, idle := dial(oldClient.Handshake), dial(oldClient.Handshake)
		answers := make(chan error, 2)
		ask := func(want string) {
			go func() {
				got, err := c.RequestRaw(t.Context(), "room.wait", []byte(want))
				if err == nil && string(got) != want {
					err = fmt.Errorf("request %s: got %q", want, got)
				}
				answers <- err
			}()
			if got := transporttest.Await(t, entered); got != want {
				t.Errorf("got %q handled, want %q", got, want)
			}
		}
		ask("before")
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(t.Context()) }()
		transporttest.Await(t, idle.Done()) // the turn of all has come
		ask("meanwhile")
		close(open)
		for range 2 {
			if err := transporttest.Await(t, answers); err != nil {
				t.Error(err)
			}
		}
		transporttest.Await(t, c.Done())
		if err := transporttest.Await(t, ended); err != nil {
			t.Error(err)
		}
	})
}

// TestShutdownStopsEndlessClients ends a server with a client that cannot be asked to stop and never lets it come to
// rest. Two seconds are for what it sends; after that, all that was taken in is answered.
func TestShutdownStopsEndlessClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, func(s *pitaya.Server) {
			pitaya.HandleRaw(s, "room.work", func(ctx context.Context, in []byte) ([]byte, error) {
				time.Sleep(5 * time.Millisecond)
				return in, nil
			})
		})
		c := dialMem(t, l, oldClient)
		var wg sync.WaitGroup
		var answered atomic.Int64
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-c.Done():
					return
				}
				wg.Go(func() {
					if _, err := c.RequestRaw(t.Context(), "room.work", nil); err == nil {
						answered.Add(1)
					}
				})
			}
		})
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		// A full mailbox is left, and what is being handled.
		if d := time.Since(start); d < 2*time.Second || d > 2*time.Second+150*5*time.Millisecond {
			t.Errorf("ended after %v", d)
		}
		if n := s.Stats(); n.Requests != n.Answered || n.Answered != answered.Load() || n.Lost != 0 {
			t.Errorf("%d were answered, the server counts %+v", answered.Load(), n)
		}
	})
}

// TestShutdownDoesNotWaitForClients ends a server with clients that were asked for their last packet and do not answer.
func TestShutdownDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, nil)
		nc, err := l.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, p := range []struct {
			typ  pitaya.PacketType
			body string
		}{{pitaya.PacketHandshake, `{"sys":{"features":["drain"]}}`}, {pitaya.PacketHandshakeAck, ""}} {
			b, _ := pitaya.AppendPacket(nil, p.typ, []byte(p.body))
			if _, err := nc.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		start := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- s.Shutdown(t.Context()) }()
		var got []pitaya.PacketType
		for {
			p, err := pitaya.ReadPacket(nc, pitaya.MaxPacketSize)
			if err != nil {
				break
			}
			got = append(got, p.Type)
		}
		if want := fmt.Sprint([]pitaya.PacketType{pitaya.PacketHandshake, pitaya.PacketHandshakeAck}); fmt.Sprint(got) != want {
			t.Errorf("packets: got %v, want %v", got, want)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("closed after %v, want 2 s", d)
		}
		nc.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestShutdownThenBoundElsewhere lets a user come back on another frontend while a request on the first one, which ends,
// is not answered yet.
func TestShutdownThenBoundElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		open := make(chan struct{})
		setup := func(s *pitaya.Server) {
			err := errors.Join(
				pitaya.HandleRaw(s, "room.wait", func(ctx context.Context, in []byte) ([]byte, error) {
					<-open
					return in, nil
				}),
				pitaya.HandleRaw(s, "room.bind", func(ctx context.Context, in []byte) ([]byte, error) {
					return in, pitaya.SessionFromContext(ctx).Bind(ctx, string(in))
				}))
			if err != nil {
				t.Fatal(err)
			}
		}
		first, l1 := memServer(t, cluster, pitaya.Config{Type: "gate", ID: "g1", Frontend: true, SlowHandler: -1}, setup)
		second, l2 := memServer(t, cluster, pitaya.Config{Type: "gate", ID: "g2", Frontend: true}, setup)
		synctest.Wait()
		old, fresh := dialMem(t, l1, nil), dialMem(t, l2, nil)
		if _, err := old.RequestRaw(t.Context(), "room.bind", []byte("ada")); err != nil {
			t.Fatal(err)
		}
		answer := make(chan error, 1)
		go func() {
			_, err := old.RequestRaw(t.Context(), "room.wait", nil)
			answer <- err
		}()
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- first.Shutdown(t.Context()) }()
		synctest.Wait()
		if _, err := old.RequestRaw(t.Context(), "room.wait", nil); !errors.Is(err, pitaya.ErrServerClosed) {
			t.Errorf("request after the announcement: got %v, want %v", err, pitaya.ErrServerClosed)
		}
		if _, err := fresh.RequestRaw(t.Context(), "room.bind", []byte("ada")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if second.SessionByUID("ada") == nil {
			t.Error("not bound on the other frontend")
		}
		close(open)
		if err := <-answer; err != nil {
			t.Errorf("the request that was made before got %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
