package pitaya_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A resumeLine is the way of a client to its server, which can be cut.
type resumeLine struct {
	mem  *pitaya.MemListener
	mu   sync.Mutex
	conn net.Conn
	down bool
	told []string

	refuse atomic.Bool // for validators
}

var errNoNetwork = errors.New("no network")

func (l *resumeLine) dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errNoNetwork
	}
	c, err := l.mem.DialContext(ctx)
	l.conn = c
	return c, err
}

// cut breaks the connection. With down the client cannot make another one, until up is called.
func (l *resumeLine) cut(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
	l.conn.Close()
}

func (l *resumeLine) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

func (l *resumeLine) tell(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fmt.Sprintf(format, args...))
}

// want compares what the client has told since the last call, when all rests.
func (l *resumeLine) want(t testing.TB, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.told, want) {
		t.Errorf("the client has told %q, want %q", l.told, want)
	}
	l.told = nil
}

// client connects a client with Resume.
func (l *resumeLine) client(t testing.TB, s *testServer, cfg pitaya.ClientConfig) *pitaya.Client {
	t.Helper()
	l.mem = s.Mem
	cfg.Resume, cfg.Redial = true, l.dial
	cfg.OnDisconnect = func(err error) { l.tell("lost %v", err != nil) }
	cfg.OnReconnect = func(resumed bool) { l.tell("back %v", resumed) }
	cfg.OnAnyPush = func(route string, b []byte) { l.tell("%s %s", route, b) }
	conn, err := l.dial(t.Context())
	must(t, err)
	c, err := pitaya.NewClient(t.Context(), conn, &cfg)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, _, log := startResume(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", func(ctx context.Context, b []byte) ([]byte, error) {
				<-release
				return b, nil
			}))
		})
		var l resumeLine
		c := l.client(t, s, pitaya.ClientConfig{})
		first := c.Handshake().Sys.Resume
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
		session := s.SessionByUID("u")
		pushNumbers(t, session, 0, 2)
		l.want(t, "p 0", "p 1")

		flying := async(func() error { return c.Request(t.Context(), "test.slow", nil, nil) })
		synctest.Wait()
		l.cut(true)
		if err := <-flying; !errors.Is(err, pitaya.ErrConnectionLost) {
			t.Errorf("request under way: %v", err)
		}
		waiting := async(func() error { return c.Request(t.Context(), "test.echo", nil, nil) })
		noted := async(func() error { return c.Notify(t.Context(), "test.echo", nil) })
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Request(short, "test.echo", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("request that does not wait for long: %v", err)
		}
		pushNumbers(t, session, 2, 4)
		log.want(t, "detach u false")
		l.want(t, "lost true")
		if err := c.Err(); err != nil {
			t.Errorf("away, but ended: %v", err)
		}
		time.Sleep(10 * time.Second)
		l.up()
		close(release)
		must(t, <-waiting, <-noted)
		l.want(t, "back true", "p 2", "p 3")
		log.want(t, "resume u true")
		if now := c.Handshake().Sys.Resume; !now.Resumed || now.Token == first.Token || now.Window != 30 {
			t.Errorf("terms %+v", now)
		}
		if got := s.Stats(); got.Lost != 1 || got.Notifies != 1 || got.Answered != 2 {
			t.Errorf("%+v", got)
		}
		must(t, c.Close())
		log.want(t, "close u: EOF")
		if err := c.Request(t.Context(), "test.echo", nil, nil); err != pitaya.ErrSessionClosed || c.Err() != err {
			t.Errorf("closed: %v, %v", err, c.Err())
		}
		<-c.Done()
	})
}

// TestClientResumeNew has a client come back to a server that does not have its session any more.
func TestClientResumeNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, log := startResume(t, "mem", pitaya.Config{}, nil)
		var l resumeLine
		c := l.client(t, s, pitaya.ClientConfig{})
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
		session := s.SessionByUID("u")
		pushNumbers(t, session, 0, 3)
		synctest.Wait()
		must(t, session.Close())
		time.Sleep(time.Second)
		l.want(t, "p 0", "p 1", "p 2", "lost true", "back false")
		log.want(t, "close u: pitaya: session closed")
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
		session = s.SessionByUID("u")
		pushNumbers(t, session, 7, 8)
		l.want(t, "p 7")
		l.cut(false)
		time.Sleep(time.Second)
		pushNumbers(t, session, 8, 9)
		l.want(t, "lost true", "back true", "p 8") // counted from 0
		if r := c.Handshake().Sys.Resume; r.Reason != "" || !r.Resumed {
			t.Errorf("%+v", r)
		}
	})
}

// TestClientResumeGivesUp has clients that do not come back.
func TestClientResumeGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client)
		want error
		told []string
	}{
		{"window over", func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client) {
			l.cut(true)
			synctest.Wait()
			begin := time.Now()
			if err := c.Request(t.Context(), "test.echo", nil, nil); !strings.Contains(fmt.Sprint(err), "not connected again within 30s") {
				t.Errorf("a request that waited: %v", err)
			}
			if d := time.Since(begin); d != 30*time.Second {
				t.Errorf("after %v", d)
			}
		}, net.ErrClosed, []string{"lost true"}},
		{"kicked", func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client) {
			must(t, s.SessionByUID("u").KickReason(t.Context(), "why"))
			synctest.Wait()
			if c.KickReason() != "why" {
				t.Errorf("reason %q", c.KickReason())
			}
		}, pitaya.ErrKicked, nil},
		{"refused", func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client) {
			l.refuse.Store(true)
			l.cut(false)
			time.Sleep(time.Second)
		}, &pitaya.HandshakeError{}, []string{"lost true"}},
		{"closed while away", func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client) {
			l.cut(true)
			synctest.Wait()
			waiting := async(func() error { return c.Request(t.Context(), "test.echo", nil, nil) })
			time.Sleep(time.Second)
			must(t, c.Close())
			if err := <-waiting; err != pitaya.ErrSessionClosed {
				t.Errorf("a request that waited: %v", err)
			}
		}, pitaya.ErrSessionClosed, []string{"lost true"}},
		{"protocol", func(t *testing.T, s *testServer, l *resumeLine, c *pitaya.Client) {
			// More than the client takes.
			b := make([]byte, 2000)
			rand.Read(b)
			must(t, s.SessionByUID("u").Push(t.Context(), "p", b))
		}, pitaya.ErrProtocol, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l resumeLine
				s, _, _ := startResume(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
					s.AddHandshakeValidator("mood", func(h *pitaya.HandshakeData) error {
						if l.refuse.Load() {
							return errors.New("not now")
						}
						return nil
					})
				})
				c := l.client(t, s, pitaya.ClientConfig{MaxPacketSize: 1000})
				must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
				tt.do(t, s, &l, c)
				synctest.Wait()
				select {
				case <-c.Done():
				default:
					t.Fatal("the client has not ended")
				}
				var refused *pitaya.HandshakeError
				err := c.Err()
				if errors.As(tt.want, &refused) && !errors.As(err, &refused) || refused == nil && !errors.Is(err, tt.want) {
					t.Errorf("ended with %v, want %v", err, tt.want)
				}
				l.want(t, tt.told...)
			})
		})
	}
}

// TestClientResumeWithout has a client that wants to resume on a server that does not know it, and one that cannot.
func TestClientResumeWithout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
		})
		var l resumeLine
		c := l.client(t, s, pitaya.ClientConfig{})
		must(t, c.Request(t.Context(), "test.echo", nil, nil))
		if c.Handshake().Sys.Resume != nil {
			t.Error("granted")
		}
		time.Sleep(5 * time.Minute) // heartbeats are as ever
		must(t, c.Request(t.Context(), "test.echo", nil, nil), c.Err())
		l.cut(false)
		<-c.Done()
		if !errors.Is(c.Err(), net.ErrClosed) {
			t.Errorf("ended with %v", c.Err())
		}
		l.want(t)

		conn, err := s.Mem.DialContext(t.Context())
		must(t, err)
		if _, err := pitaya.NewClient(t.Context(), conn, &pitaya.ClientConfig{Resume: true}); err == nil || !strings.Contains(err.Error(), "Redial") {
			t.Errorf("without Redial: %v", err)
		}
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("the connection is open")
		}
	})
}

// TestClientResumeDrain ends a server while another one takes its place.
func TestClientResumeDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, log := startResume(t, "mem", pitaya.Config{}, nil)
		next, _, _ := startResume(t, "mem", pitaya.Config{}, nil)
		var l resumeLine
		c := l.client(t, s, pitaya.ClientConfig{})
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
		l.mu.Lock()
		l.mem = next.Mem
		l.mu.Unlock()
		s.stop(t)
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil)) // waits
		if next.SessionByUID("u") == nil {
			t.Error("the client is not on the other server")
		}
		l.want(t, "lost true", "back false")
		log.want(t, "close u: pitaya: server closed")
	})
}

// TestClientResumeCounts makes sure that the server need not keep much of what a client has received.
func TestClientResumeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{Messages: 1200}}, nil)
		var l resumeLine
		c := l.client(t, s, pitaya.ClientConfig{})
		must(t, c.Request(t.Context(), "test.bind", []byte("u"), nil))
		session := s.SessionByUID("u")
		for n := range 20 { // 200 in a second
			pushNumbers(t, session, 200*n, 200*n+200)
			time.Sleep(time.Second)
		}
		l.cut(true)
		synctest.Wait()
		pushNumbers(t, session, 4000, 4800) // there is room for these
		l.up()
		time.Sleep(10 * time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.told); n != 4802 || l.told[n-1] != "p 4799" || l.told[4000] != "lost true" || l.told[4001] != "back true" {
			t.Errorf("%d told, the last is %s", n, l.told[n-1])
		}
	})
}

// TestClientResumeStress closes clients at any moment of their coming back.
func TestClientResumeStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := startResume(t, "mem", pitaya.Config{}, nil)
		for i := range 200 {
			var l resumeLine
			c := l.client(t, s, pitaya.ClientConfig{})
			l.cut(i%3 == 0)
			time.Sleep(time.Duration(i) * time.Millisecond)
			asked := async(func() error { return c.Request(t.Context(), "test.echo", nil, nil) })
			if i%2 == 0 {
				synctest.Wait()
			}
			must(t, c.Close())
			if err := <-asked; err != nil && err != pitaya.ErrSessionClosed && !errors.Is(err, pitaya.ErrConnectionLost) {
				t.Errorf("request: %v", err)
			}
		}
		time.Sleep(time.Minute)
		if got := s.Stats(); got.Sessions != 0 || got.Open != 0 || got.Waiting != 0 {
			t.Errorf("%+v", got)
		}
	})
}
