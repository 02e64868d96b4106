package pitaya_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A client that asks for many handshakes and takes none of the answers is
// stopped as every other one that does not read.
func TestHandshakeFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dict := make(map[string]uint16)
		for i := range 2000 {
			dict[fmt.Sprintf("room.handler.method%d", i)] = uint16(i + 1)
		}
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) { must(t, s.SetDictionary(dict)) })
		c := s.connect(t)
		sent := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 5000; n++ {
				if _, err := c.Write(handshakeOnly); err != nil {
					break
				}
			}
			sent <- n
		}()
		if took := held(synctest.Wait); took > 8<<20 {
			t.Errorf("%d MiB for answers that nobody takes", took>>20)
		}
		time.Sleep(time.Minute)
		if n := s.Stats().Open; n != 0 {
			t.Errorf("the client is still connected")
		}
		c.Close()
		<-sent
	})
}

// The same with pings: RFC 6455 section 5.5.3 lets us skip pongs.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := startOn(t, "memws", pitaya.Config{QueueBytes: 64 << 10}, nil)
		c := dial()
		c.SetDeadline(time.Time{})
		c.hello()
		ping := pitaya.AppendWSFrame(nil, pitaya.WSPing, true, make([]byte, 125))
		raw := c.Conn.(*wsPeer).Conn
		const n = 20_000
		took := held(func() {
			for range n {
				if _, err := raw.Write(ping); err != nil {
					t.Error(err)
					return
				}
			}
			synctest.Wait()
		})
		if took > 1<<20 {
			t.Errorf("%d KiB for pongs that nobody takes", took>>10)
		}
		// Pings are no life signs, and the client takes nothing.
		time.Sleep(11 * time.Second)
		if n := s.Stats().Open; n != 0 {
			t.Errorf("the client is still connected")
		}
	})
}

// Clients that say nothing, or not enough, are gone at the deadline exactly.
func TestHandshakeDeadline(t *testing.T) {
	tests := []struct {
		name string
		send []byte
	}{
		{"nothing", nil},
		{"half a header", []byte{1, 0}},
		{"half a handshake", handshakeOnly[:8]},
		{"no ack", handshakeOnly},
		{"heartbeats", bytes.Repeat([]byte{3, 0, 0, 0}, 3)},
		{"many handshakes", bytes.Repeat(handshakeOnly, 3)},
	}
	for _, kind := range []string{"mem", "memws"} {
		for _, tt := range tests {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var cause atomic.Value
					s, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
						must(t, s.OnSessionClose(func(s *pitaya.Session) { cause.Store(context.Cause(s.Context())) }))
					})
					begin := time.Now()
					c := dial()
					c.SetDeadline(time.Time{})
					if tt.send != nil {
						c.write(tt.send)
					}
					c.packets()
					if d := time.Since(begin); d != 10*time.Second {
						t.Errorf("closed after %v, want 10s", d)
					}
					synctest.Wait()
					if got := cause.Load(); got != pitaya.ErrHandshakeTimeout || s.Stats().Open != 0 {
						t.Errorf("cause %v, %d open", got, s.Stats().Open)
					}
				})
			})
		}
	}
	// And before the upgrade.
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, nil)
		must(t, err)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{ws}}, nil)
		c, err := mem.DialContext(t.Context())
		must(t, err)
		begin := time.Now()
		io.WriteString(c, "GET / HTTP/1.1\r\n")
		io.Copy(io.Discard, c)
		if d := time.Since(begin); d != 10*time.Second || s.SessionCount() != 0 {
			t.Errorf("closed after %v", d)
		}
	})
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd on this system")
	}
	return len(list)
}

// settle waits until the process has no more goroutines and descriptors than
// it had at base.
func settle(t testing.TB, goroutines, files int) {
	t.Helper()
	deadline := time.Now().Add(realTime)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			t.Fatalf("%d goroutines, were %d; %d descriptors, were %d\n%s", runtime.NumGoroutine(), goroutines, openFiles(t), files, buf)
		}
		runtime.Gosched()
	}
}

// Sockets that say nothing are in nobody's way, whether their clients leave
// them or the deadline ends them.
func TestSilentSockets(t *testing.T) {
	const n = 5000
	for _, tt := range []struct {
		name    string
		timeout time.Duration
	}{{"left", time.Hour}, {"ended", 20 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			s, dial := startOn(t, "tcp", pitaya.Config{HandshakeTimeout: tt.timeout}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
			})
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			clients := make([]*rawClient, n)
			for i := range clients {
				clients[i] = dial()
			}
			accepted := int64(n)
			if tt.timeout == time.Hour {
				accepted++
				c := dial().hello()
				c.request(1, "test.echo", "x")
				c.message()
				if open := s.Stats().Open; open != accepted {
					t.Errorf("%d connections are open, want %d", open, accepted)
				}
				c.Close()
			}
			for _, c := range clients {
				if tt.timeout != time.Hour {
					c.expectClosed()
				}
				c.Close()
			}
			settle(t, goroutines, files)
			if st := s.Stats(); st.Open != 0 || st.Accepted != accepted || st.Accepted != st.Closed {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestConnectCycles(t *testing.T) {
	for _, tt := range []struct {
		kind string
		n    int
	}{{"tcp", 10_000}, {"ws", 1000}, {"tls", 200}} {
		t.Run(tt.kind, func(t *testing.T) {
			s, dial := startOn(t, tt.kind, pitaya.Config{}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
			})
			cycle := func(i int) {
				c := dial().hello()
				if i%2 == 0 {
					c.request(1, "test.echo", "x")
					c.message()
				}
				if tcp, ok := c.Conn.(*net.TCPConn); ok && i%3 == 0 {
					tcp.SetLinger(0) // leaves with a reset
				}
				c.Close()
			}
			for i := range 20 {
				cycle(i)
			}
			synchronise(t, s)
			for s.Stats().Open > 0 {
				runtime.Gosched()
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					for i := w; i < tt.n; i += 4 {
						cycle(i)
					}
				})
			}
			wg.Wait()
			settle(t, goroutines, files)
			runtime.GC()
			runtime.ReadMemStats(&after)
			// The test's own clean-up keeps something for each client.
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > int64(tt.n)*1500+8<<20 {
				t.Errorf("the heap has grown by %d KiB", grown>>10)
			}
			if st := s.Stats(); st.Sessions != 0 || st.Accepted != st.Closed || st.Panics != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A client that stops in the middle of the TLS handshake is gone at the
// deadline, and in nobody's way until then.
func TestHalfOpenTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := testTLS(t)
		mem := pitaya.ListenMem()
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{tls.NewListener(mem, server)}}, nil)
		begin := time.Now()
		raw, err := mem.DialContext(t.Context())
		must(t, err)
		raw.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1})
		other, err := mem.DialContext(t.Context())
		must(t, err)
		c := &rawClient{Conn: tls.Client(other, client), t: t}
		c.hello()
		io.Copy(io.Discard, raw)
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("closed after %v, want 10s", d)
		}
		synctest.Wait()
		if n := s.Stats().Open; n != 1 {
			t.Errorf("%d connections are open, want 1", n)
		}
		c.Close()
		raw.Close()
	})
}

func TestMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{MaxConns: 3}, nil)
		var clients [3]*rawClient
		for i := range clients {
			clients[i] = s.connect(t)
		}
		for range 2 {
			s.dial(t).expectClosed()
		}
		clients[0].Close()
		synctest.Wait()
		s.connect(t)
		if st := s.Stats(); st.Accepted != 6 || st.Open != 3 || st.RefusedConns != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// The limit by address counts what the PROXY header says.
func TestMaxConnsPerIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		l := pitaya.NewProxyListener(mem, pitaya.ProxyOptions{})
		s := startServer(t, pitaya.Config{MaxConnsPerIP: 2, Listeners: []net.Listener{l}}, nil)
		dial := func(ip string, port int) *rawClient {
			c, err := mem.DialContext(t.Context())
			must(t, err)
			family := "TCP4"
			if strings.Contains(ip, ":") {
				family = "TCP6"
			}
			fmt.Fprintf(c, "PROXY %s %s %s %d 3250\r\n", family, ip, ip, port)
			return &rawClient{Conn: c, t: t}
		}
		first := dial("9.8.7.6", 1).hello()
		dial("9.8.7.6", 2).hello()
		dial("9.8.7.6", 3).expectClosed()
		dial("::ffff:9.8.7.6", 4).expectClosed()
		dial("2001:db8::1", 5).hello()
		dial("9.8.7.5", 6).hello()
		first.Close()
		synctest.Wait()
		dial("9.8.7.6", 7).hello()
		dial("9.8.7.6", 8).expectClosed()
		synctest.Wait()
		if st := s.Stats(); st.RefusedConns != 3 || st.Sessions != 4 {
			t.Errorf("%+v", st)
		}
	})
}
