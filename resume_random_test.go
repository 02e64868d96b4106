package pitaya_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	r := seeded(t)
	synctest.Test(t, func(t *testing.T) {
		const cuts = 100
		s, ends := startCutServer(t)
		dialled, own := 0, rand.New(rand.NewPCG(r.Uint64(), 0)) // by one goroutine at a time
		dial := func(ctx context.Context) (net.Conn, error) {
			conn, err := s.Mem.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			dialled++
			in, out := nextCut(own, dialled, cuts, 400)
			return &cutConn{Conn: conn, in: in, out: out}, nil
		}
		resumeRandomCuts(t, r, s, ends, cuts, func(cfg *pitaya.ClientConfig) (*pitaya.Client, error) {
			cfg.Redial = dial
			conn, err := dial(t.Context())
			if err != nil {
				return nil, err
			}
			return pitaya.NewClient(t.Context(), conn, cfg)
		})
	})
}

// TestResumeRandomCutsSockets is TestResumeRandomCuts over real sockets, with a proxy between that cuts.
func TestResumeRandomCutsSockets(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"tcp", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			const cuts = 25
			r := seeded(t)
			var l net.Listener
			var err error
			if scheme == "ws" {
				l, err = pitaya.ListenWS("127.0.0.1:0", nil)
			} else {
				l, err = pitaya.ListenTCP("127.0.0.1:0", nil)
			}
			must(t, err)
			s, ends := startCutServer(t, l)
			proxy := startCutProxy(t, l.Addr().String(), rand.New(rand.NewPCG(r.Uint64(), 0)), cuts)
			resumeRandomCuts(t, r, s, ends, cuts, func(cfg *pitaya.ClientConfig) (*pitaya.Client, error) {
				return pitaya.Dial(t.Context(), scheme+"://"+proxy, cfg)
			})
		})
	}
}

// A run of the tests that fails has to fail again, so each draws the same numbers unless it is told otherwise.
var randomSeed = flag.Int64("seed", 1, "what tests with random numbers begin with; 0 is something new each time")

// seeded returns random numbers, and prints from what.
func seeded(t *testing.T) *rand.Rand {
	seed := *randomSeed
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(uint64(seed), 0))
}

// nextCut says after how many bytes to the client or to the server a connection breaks, -1 being never. The first one
// gets to working; others may break in their handshakes, which have some 150 bytes in each direction, and an upgrade
// about as many.
func nextCut(r *rand.Rand, dialled, cuts, span int) (in, out int) {
	least := 0
	if dialled == 1 {
		least = 500
	}
	switch {
	case dialled > cuts:
		return -1, -1
	case r.IntN(2) == 0:
		return least + r.IntN(2*span), -1
	}
	return -1, least + r.IntN(span)
}

// startCutProxy passes connections on to a server, and breaks them.
func startCutProxy(t *testing.T, to string, r *rand.Rand, cuts int) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var all sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		open = nil
		mu.Unlock()
		all.Wait()
	})
	track := func(c net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		if open == nil {
			c.Close()
			return false
		}
		open[c] = true
		return true
	}
	all.Go(func() {
		for dialled := 1; ; dialled++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil || !track(client) || !track(server) {
				client.Close()
				continue
			}
			in, out := nextCut(r, dialled, cuts, 800)
			if r.IntN(2) == 0 { // with a reset, which can destroy what is on its way
				client.(*net.TCPConn).SetLinger(0)
				server.(*net.TCPConn).SetLinger(0)
			}
			pass := func(dst, src net.Conn, n int) {
				if n >= 0 {
					io.CopyN(dst, src, int64(n))
				} else {
					io.Copy(dst, src)
				}
				for _, c := range []net.Conn{client, server} {
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				}
			}
			all.Go(func() { pass(client, server, in) })
			all.Go(func() { pass(server, client, out) })
		}
	})
	return l.Addr().String()
}

func startCutServer(t *testing.T, listeners ...net.Listener) (s *testServer, ends <-chan error) {
	cfg := pitaya.Config{
		Heartbeat: time.Second,
		Resume:    pitaya.ResumeConfig{Window: time.Hour, Messages: 1 << 16, Bytes: 16 << 20},
		Listeners: listeners,
	}
	ended := make(chan error, 1)
	return startServer(t, cfg, func(s *pitaya.Server) {
		must(t,
			pitaya.HandleRaw(s, "conn.bind", bindHandler),
			pitaya.HandleRaw(s, "conn.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
			s.OnSessionClose(func(s *pitaya.Session) {
				if s.UID() != "" {
					ended <- context.Cause(s.Context())
				}
			}),
		)
	}), ended
}

// resumeRandomCuts pushes to a client until it has had as many connections as were to be cut, and one more.
func resumeRandomCuts(t *testing.T, r *rand.Rand, s *testServer, ends <-chan error, cuts int,
	connect func(*pitaya.ClientConfig) (*pitaya.Client, error)) {
	const pushers, ahead = 4, 16
	var mu sync.Mutex
	got := make([][]int, pushers)
	lost, fresh := 0, 0 // of the goroutine that handles pushes, which has done so when arrived says it
	arrived := make(chan struct{}, 1)
	room := make([]chan struct{}, pushers) // so that nobody is far ahead of the client
	for i := range room {
		room[i] = make(chan struct{}, ahead)
	}
	c, err := connect(&pitaya.ClientConfig{
		Resume:       true,
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
			select {
			case <-room[from]:
			default: // a push more than there were
			}
			select {
			case arrived <- struct{}{}:
			default:
			}
		},
	})
	must(t, err)
	defer c.Close()
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
				case room[from] <- struct{}{}:
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
			}
		})
	}
	enough := make(chan struct{})
	work.Go(func() { // what it asks is answered, or known to be lost
		defer close(enough)
		for n := 0; s.Stats().Accepted <= int64(cuts); n++ {
			b, err := c.RequestRaw(t.Context(), "conn.echo", fmt.Append(nil, n))
			if err == nil && string(b) != fmt.Sprint(n) || err != nil && !errors.Is(err, pitaya.ErrConnectionLost) {
				t.Errorf("request %d: %q, %v", n, b, err)
				return
			}
		}
	})
	<-enough
	close(stop)
	work.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	for timeout := time.After(realTime); ; {
		mu.Lock()
		n := 0
		for _, list := range got {
			n += len(list)
		}
		mu.Unlock()
		if n >= total {
			break
		}
		select {
		case <-arrived:
			continue
		case <-timeout:
			t.Errorf("%d pushes of %d", n, total)
		}
		break
	}
	mu.Lock()
	for from, list := range got {
		for i := range max(len(list), sent[from]) {
			if i >= len(list) || i >= sent[from] || list[i] != i {
				t.Errorf("pusher %d: %d pushes, got %d, and from %d on they are %v", from, sent[from], len(list), i, list[min(i, len(list)):min(i+10, len(list))])
				break
			}
		}
	}
	mu.Unlock()
	must(t, c.Close())
	select {
	case cause := <-ends:
		if cause != io.EOF {
			t.Errorf("the session has ended with %v", cause)
		}
	case <-time.After(realTime):
		t.Error("the session has not ended")
	}
	stats := s.Stats()
	// A connection that is cut right behind its acknowledgement may never have had the session: the client was back before
	// the server took that in.
	if fresh > 0 || stats.NotResumed > 0 || stats.Resumed == 0 || stats.Requests != stats.Answered+stats.Lost {
		t.Errorf("lost %d times, %d times with a new session; %+v", lost, fresh, stats)
	}
	t.Logf("%d connections, %d lost when they worked, pushes %v", stats.Accepted, lost, sent)
}
