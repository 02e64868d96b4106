package pitaya_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A client that leaves between two packets breaks no rule; within one it does.
func TestClientLeaves(t *testing.T) {
	for _, kind := range []string{"tcp", "tls", "ws", "mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			s, dial := startOn(t, kind, pitaya.Config{}, nil)
			for _, tt := range []struct {
				behind string
				want   error
			}{{"", io.EOF}, {"\x03\x00\x00\x00\x04\x00", pitaya.ErrTruncated}} {
				c := dial().hello()
				x := s.onlySession(t)
				c.write([]byte(tt.behind))
				c.Close()
				<-x.Context().Done()
				for s.Stats().Open > 0 {
					runtime.Gosched()
				}
				if got := context.Cause(x.Context()); got != tt.want {
					t.Errorf("after %q: %v, want %v", tt.behind, got, tt.want)
				}
			}
			if got := s.Stats().Violations; got != 1 {
				t.Errorf("%d violations, want 1", got)
			}
		})
	}
}

// A client that closes its sending half still gets all that was queued for it,
// however slowly it reads.
func TestHalfClose(t *testing.T) {
	halfClose := func(t *testing.T, kind string, wait time.Duration) {
		s, dial := startOn(t, kind, pitaya.Config{QueueBytes: 64 << 20, Heartbeat: time.Second}, nil)
		c := dial().hello()
		x := s.onlySession(t)
		const n = 16 // MiB: more than the socket takes
		for range n {
			must(t, x.Push(t.Context(), "r", make([]byte, 1<<20)))
		}
		must(t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
		<-x.Context().Done()
		if wait > 0 { // in a bubble
			time.Sleep(wait)
		}
		if list, err := c.packets(); err != nil || len(list) != n {
			t.Errorf("%d packets of %d, then %v", len(list), n, err)
		}
	}
	t.Run("tcp", func(t *testing.T) { halfClose(t, "tcp", 0) })
	t.Run("mem", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { halfClose(t, "mem", 5*time.Second) })
	})
}

// A WebSocket client that has closed its side without a close frame gets what was queued for it, and no close frame that
// nobody waits for: most are gone, and their kernel would answer with a reset. One that says goodbye is answered.
func TestWSGoneWithoutClose(t *testing.T) {
	for _, tt := range []struct{ goodbye, answer string }{{}, {string(wsFrame(fin|pitaya.WSClose, "\x03\xe8")), "\x88\x02\x03\xe8"}} {
		s, dial := startOn(t, "ws", pitaya.Config{}, nil)
		c := dial().hello()
		x := s.onlySession(t)
		must(t, x.Push(t.Context(), "r", []byte("queued")))
		c.message()
		peer := c.Conn.(*wsPeer)
		_, err := io.WriteString(peer.Conn, tt.goodbye)
		must(t, err, peer.Conn.(*net.TCPConn).CloseWrite())
		if rest, err := io.ReadAll(peer.br); string(rest) != tt.answer || err != nil {
			t.Errorf("after %q: %q, %v, want %q", tt.goodbye, rest, err, tt.answer)
		}
	}
}

// A handshake validator that ends its goroutine ends the connection, and all
// that belongs to it.
func TestValidatorGoexit(t *testing.T) {
	for _, kind := range []string{"tcp", "mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			ended := make(chan struct{})
			s, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
				must(t, s.OnSessionClose(func(*pitaya.Session) { close(ended) }),
					s.AddHandshakeValidator("exit", func(*pitaya.HandshakeData) error { runtime.Goexit(); return nil }))
			})
			c := dial()
			c.write(handshakeOnly)
			if _, err := c.packets(); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			<-ended
			s.stop(t)
			if st := s.Stats(); st.Sessions != 0 || st.Open != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// What was written is not kept by the connections it was written to.
func TestWrittenIsFreed(t *testing.T) {
	const clients, size = 16, 4 << 20
	s, dial := startOn(t, "tcp", pitaya.Config{QueueBytes: 64 << 20}, nil)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var list []*rawClient
	for range clients {
		list = append(list, dial().hello())
	}
	for s.SessionCount() < clients {
		runtime.Gosched()
	}
	before := heap()
	for x := range s.Sessions() {
		for range 3 {
			must(t, x.Push(t.Context(), "r", make([]byte, size)))
		}
	}
	for _, c := range list {
		for range 3 {
			c.message()
		}
	}
	for begin := time.Now(); ; runtime.Gosched() {
		more := heap() - before
		if more < clients*size/4 {
			break
		}
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("%d bytes are still held", more)
		}
	}
	runtime.KeepAlive(list)
}
