package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A cutConn breaks when so many bytes have passed through it in one direction.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	in   int // bytes that it still reads; -1: no end
	out  int // bytes that it still writes; likewise
	once sync.Once
}

var errCut = errors.New("cut")

func (c *cutConn) cut() error {
	c.once.Do(func() { c.Conn.Close() })
	return errCut
}

func (c *cutConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	left := c.in
	c.mu.Unlock()
	if left == 0 {
		return 0, c.cut()
	}
	if left > 0 {
		p = p[:min(len(p), left)]
	}
	n, err := c.Conn.Read(p)
	if left > 0 {
		c.mu.Lock()
		c.in -= n
		c.mu.Unlock()
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	left := c.out
	if left >= 0 {
		c.out = max(0, left-len(p))
	}
	c.mu.Unlock()
	if left < 0 || left > len(p) {
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:left])
	return n, c.cut()
}

// TestResumeRandomCuts loses the connection of a client 100 times, at random bytes of either direction, those of
// handshakes included, while several goroutines push to it. No push may be lost, doubled or out of order.
func TestResumeRandomCuts(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) { resumeRandomCuts(t, rand.New(rand.NewPCG(seed, 0))) })
}

func resumeRandomCuts(t *testing.T, r *rand.Rand) {
	const cuts, pushers = 100, 4
	cfg := pitaya.Config{
		Heartbeat: time.Second,
		Resume:    pitaya.ResumeConfig{Window: time.Hour, Messages: 1 << 16, Bytes: 16 << 20},
	}
	var ends sync.Map
	s := startServer(t, cfg, func(s *pitaya.Server) {
		must(t,
			pitaya.HandleRaw(s, "conn.bind", func(ctx context.Context, b []byte) ([]byte, error) {
				return b, pitaya.SessionFromContext(ctx).Bind(ctx, string(b))
			}),
			pitaya.HandleRaw(s, "conn.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
			s.OnSessionClose(func(s *pitaya.Session) {
				if s.UID() != "" {
					ends.Store(s.UID(), context.Cause(s.Context()))
				}
			}),
		)
	})
	conns := 0 // dialling is done by one goroutine at a time
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := s.Mem.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		c := &cutConn{Conn: conn, in: -1, out: -1}
		if conns++; conns > 1 && conns <= cuts+1 || conns == 1 {
			// The first must get to working; others may break in their handshakes, whose answers have some 150 bytes.
			low := 0
			if conns == 1 {
				low = 400
			}
			if r.IntN(2) == 0 {
				c.in = low + r.IntN(600)
			} else {
				c.out = low + r.IntN(400)
			}
		}
		return c, nil
	}
	first, err := dial(t.Context())
	must(t, err)
	var mu sync.Mutex
	got := make([][]int, pushers)
	lost, fresh := 0, 0
	c, err := pitaya.NewClient(t.Context(), first, &pitaya.ClientConfig{
		Resume: true, Redial: dial,
		OnDisconnect: func(error) { lost++ },
		OnReconnect: func(resumed bool) {
			if !resumed {
				fresh++
			}
		},
		OnAnyPush: func(_ string, b []byte) {
			var from, n int
			if _, err := fmt.Sscanf(string(b), "%d:%d", &from, &n); err != nil {
				t.Errorf("push %q: %v", b, err)
			}
			mu.Lock()
			got[from] = append(got[from], n)
			mu.Unlock()
		},
	})
	must(t, err)
	must(t, c.Request(t.Context(), "conn.bind", []byte("u"), nil))
	session := s.SessionByUID("u")

	stop := make(chan struct{})
	sent := make([]int, pushers)
	var work sync.WaitGroup
	for from := range pushers {
		own := rand.New(rand.NewPCG(r.Uint64(), 1))
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					sent[from] = n
					return
				default:
				}
				b := fmt.Appendf(nil, "%d:%d %0*d", from, n, own.IntN(40), 0)
				err := error(nil)
				if from%2 == 0 {
					err = session.Push(t.Context(), "some.push", b)
				} else {
					err = s.Push(t.Context(), "", []string{"u"}, "some.push", b)
				}
				if err != nil {
					t.Errorf("push %s: %v", b, err)
					return
				}
				time.Sleep(time.Duration(own.IntN(10_000)) * time.Microsecond)
			}
		})
	}
	work.Go(func() { // what it asks is answered, or known to be lost
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b, err := c.RequestRaw(t.Context(), "conn.echo", fmt.Append(nil, n))
			if err == nil && string(b) != fmt.Sprint(n) || err != nil && !errors.Is(err, pitaya.ErrConnectionLost) {
				t.Errorf("request %d: %q, %v", n, b, err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	for i := 0; s.Stats().Accepted < cuts+2 && i < 100_000; i++ {
		time.Sleep(100 * time.Millisecond)
	}
	close(stop)
	work.Wait()
	time.Sleep(5 * time.Second) // for the last attempts
	synctest.Wait()
	mu.Lock()
	for from := range got {
		want := make([]int, sent[from])
		for i := range want {
			want[i] = i
		}
		if !slices.Equal(got[from], want) {
			i := 0
			for i < min(len(want), len(got[from])) && got[from][i] == i {
				i++
			}
			t.Errorf("pusher %d: %d pushes, got %d, and from %d on they are %v", from, len(want), len(got[from]), i, got[from][i:min(i+10, len(got[from]))])
		}
	}
	mu.Unlock()
	stats := s.Stats()
	if fresh > 0 || stats.NotResumed > 0 || stats.Resumed < int64(lost) || stats.Accepted < cuts+2 {
		t.Errorf("lost %d times, %d times with a new session; %+v", lost, fresh, stats)
	}
	t.Logf("%d connections, %d lost when they worked, pushes %v", stats.Accepted, lost, sent)
	c.Close()
	synctest.Wait()
	if cause, ok := ends.Load("u"); !ok || !errors.Is(cause.(error), io.EOF) {
		t.Errorf("the session has ended with %v", cause)
	}
}
