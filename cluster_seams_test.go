package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// What a server does while its seams are slow: transports whose calls are held, listeners that hang, stores that need a
// moment.

// slowTransport is a transport in memory that can be told to be slow. Its fields are set before the server starts.
type slowTransport struct {
	pitaya.Transport
	unordered bool
	onBind    func(uid string)            // may block
	hangs     func(to, route string) bool // says of which calls nobody hears again; nil: of none
	handler   pitaya.TransportHandler     // set by Listen
}

func (s *slowTransport) Listen(ctx context.Context, self *pitaya.ServerInfo, h pitaya.TransportHandler) error {
	s.handler = h
	return s.Transport.Listen(ctx, self, h)
}

func (s *slowTransport) Ordered() bool { return !s.unordered }

func (s *slowTransport) Bind(ctx context.Context, uid string) error {
	if s.onBind != nil {
		s.onBind(uid)
	}
	return s.Transport.Bind(ctx, uid)
}

func (s *slowTransport) Call(ctx context.Context, to *pitaya.ServerInfo, body []byte, done func([]byte, error)) {
	var r pitaya.RPCRequest
	if s.hangs == nil || r.Decode(body) != nil || !s.hangs(to.ID, string(r.Msg.Route)) {
		s.Transport.Call(ctx, to, body, done)
		return
	}
	if done != nil {
		context.AfterFunc(ctx, func() {
			err := context.Cause(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = pitaya.ErrNoAnswer
			}
			done(nil, err)
		})
	}
}

// bindingTable is what binding stores of several servers share.
type bindingTable struct {
	mu sync.Mutex
	by map[string]string // server ids by uid
}

func (b *bindingTable) get(uid string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.by[uid]
}

// tableStore is the store of one server. The first Put can be held.
type tableStore struct {
	*bindingTable
	id     string
	onPut  func() // may block
	closed atomic.Bool
}

func (s *tableStore) Put(_ context.Context, uid string) error {
	if s.onPut != nil {
		s.onPut()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[uid] = s.id
	return nil
}

func (s *tableStore) Get(_ context.Context, uid, _ string) (string, error) {
	if id := s.get(uid); id != "" {
		return id, nil
	}
	return "", pitaya.ErrNoBinding
}

func (s *tableStore) Delete(_ context.Context, uid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[uid] == s.id {
		delete(s.by, uid)
	}
	return nil
}

func (s *tableStore) Close(context.Context) error { return nil }

// A hold blocks who comes through it, until it is opened.
type hold struct{ came, open chan struct{} }

func newHold() *hold { return &hold{make(chan struct{}, 100), make(chan struct{})} }

func (h *hold) wait() {
	h.came <- struct{}{}
	<-h.open
}

// seamServer starts a server in memory with such a transport.
func seamServer(t testing.TB, c *pitaya.MemCluster, cfg pitaya.Config, tr *slowTransport, setup func(*pitaya.Server)) *pitayatest.Server {
	t.Helper()
	cfg.Cluster, cfg.Logger = true, testLogger(t)
	cfg.Discovery, tr.Transport = c.Node()
	cfg.Transport = tr
	s := pitayatest.NewServer(t, cfg, setup)
	synctest.Wait() // all know it
	return s
}

func seamGate(id string) pitaya.Config {
	return pitaya.Config{Type: "gate", ID: id, Frontend: true, Heartbeat: -1}
}

// seamSession connects a client and returns the session of it.
func seamSession(t testing.TB, s *pitayatest.Server) (*pitaya.Session, *pitayatest.Client) {
	t.Helper()
	before := make(map[*pitaya.Session]bool)
	for session := range s.Sessions() {
		before[session] = true
	}
	c := s.Client(t)
	for session := range s.Sessions() {
		if !before[session] {
			return session, c
		}
	}
	t.Fatal("no session")
	return nil, nil
}

// bindLater binds a session in a goroutine.
func bindLater(ctx context.Context, s *pitaya.Session, uid string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.Bind(ctx, uid) }()
	return done
}

// A frontend that has lost a user while it stored where the user is does not take the winner's place in the store.
func TestClusterStoreBehindClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, table, put := pitaya.NewMemCluster(), &bindingTable{by: make(map[string]string)}, newHold()
		var first sync.Once
		cfg1, cfg2 := seamGate("g1"), seamGate("g2")
		cfg1.Bindings = &tableStore{bindingTable: table, id: "g1", onPut: func() { first.Do(put.wait) }}
		cfg2.Bindings = &tableStore{bindingTable: table, id: "g2"}
		g1 := seamServer(t, cluster, cfg1, new(slowTransport), nil)
		g2 := seamServer(t, cluster, cfg2, new(slowTransport), nil)
		a, _ := seamSession(t, g1)
		b, _ := seamSession(t, g2)
		lost := bindLater(t.Context(), a, "u")
		<-put.came
		won := bindLater(t.Context(), b, "u")
		synctest.Wait()
		close(put.open)
		if err := <-lost; !errors.Is(err, pitaya.ErrReplaced) {
			t.Errorf("the first bind: %v", err)
		}
		must(t, <-won)
		synctest.Wait()
		if id := table.get("u"); id != "g2" {
			t.Errorf("the user is stored to be on %q", id)
		}
	})
}

// A bind that waits for another one of the same user can be given up.
func TestClusterBindGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		put := newHold()
		var first sync.Once
		cfg := seamGate("g")
		cfg.Bindings = &tableStore{bindingTable: &bindingTable{by: make(map[string]string)}, id: "g", onPut: func() { first.Do(put.wait) }}
		g := seamServer(t, pitaya.NewMemCluster(), cfg, new(slowTransport), nil)
		a, _ := seamSession(t, g)
		b, _ := seamSession(t, g)
		held := bindLater(t.Context(), a, "u")
		<-put.came
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := b.Bind(ctx, "u"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		close(put.open)
		<-held
	})
}

// A session that another one of the same server has replaced while it was bound says so, also where users may have
// several sessions in the cluster.
func TestClusterBindReplacedHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns [3]*hold
		for i := range turns {
			turns[i] = newHold()
		}
		var turn atomic.Int64
		cfg := seamGate("g")
		cfg.NoUniqueSession = true
		g := seamServer(t, pitaya.NewMemCluster(), cfg, &slowTransport{onBind: func(string) {
			if n := turn.Add(1); int(n) <= len(turns) {
				turns[n-1].wait()
			}
		}}, nil)
		var results []<-chan error
		for range 3 {
			s, _ := seamSession(t, g)
			results = append(results, bindLater(t.Context(), s, "u"))
			synctest.Wait() // in the order of the sessions
		}
		// The second one comes in while the first waits behind the third.
		for _, h := range turns {
			<-h.came
			close(h.open)
			synctest.Wait()
		}
		for i, done := range results {
			if err := <-done; i < 2 && !errors.Is(err, pitaya.ErrReplaced) || i == 2 && err != nil {
				t.Errorf("bind %d: %v", i, err)
			}
		}
	})
}

// The listeners hear of the end of each session that they were told of, also of one that ends while it is bound.
func TestClusterEndDuringBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, put := pitaya.NewMemCluster(), newHold()
		var mu sync.Mutex
		var heard []string
		seamServer(t, cluster, pitaya.Config{Type: "room", ID: "r"}, new(slowTransport), func(s *pitaya.Server) {
			must(t, s.OnSessionEvent(func(e pitaya.SessionEvent) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, fmt.Sprint(e.Kind, e.UID))
			}))
		})
		cfg := seamGate("g")
		cfg.NoUniqueSession = true
		cfg.Bindings = &tableStore{bindingTable: &bindingTable{by: make(map[string]string)}, id: "g", onPut: put.wait}
		g := seamServer(t, cluster, cfg, new(slowTransport), nil)
		s, c := seamSession(t, g)
		done := bindLater(t.Context(), s, "u")
		<-put.came
		c.Close()
		synctest.Wait()
		close(put.open)
		if err := <-done; !errors.Is(err, pitaya.ErrSessionClosed) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(heard) > 0 {
			t.Errorf("heard %q", heard)
		}
	})
}

// Nobody waits for a listener that hangs: not who logs in or leaves, not the other listeners, and the end of the server not
// for each session.
func TestClusterListenerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		var heard atomic.Int64
		listen := func(id string, f func()) *pitayatest.Server {
			return seamServer(t, cluster, pitaya.Config{Type: "room", ID: id}, new(slowTransport), func(s *pitaya.Server) {
				must(t, s.OnSessionEvent(func(pitaya.SessionEvent) { f() }))
			})
		}
		listen("good", func() { heard.Add(1) })
		listen("hung", func() { t.Error("it hears") })
		var closed atomic.Int64
		g := seamServer(t, cluster, seamGate("g"), &slowTransport{
			unordered: true,
			hangs:     func(to, _ string) bool { return strings.HasPrefix(to, "hung") },
		}, func(s *pitaya.Server) {
			must(t, s.OnSessionClose(func(*pitaya.Session) { closed.Add(1) }))
		})
		const sessions = 200
		begin := time.Now()
		for i := range sessions {
			s, c := seamSession(t, g)
			must(t, s.Bind(t.Context(), fmt.Sprint("u", i)))
			if i%2 == 0 {
				c.Close()
			}
		}
		synctest.Wait()
		if d := time.Since(begin); d > 0 {
			t.Errorf("logins and logouts took %v", d)
		}
		if n := closed.Load(); n != sessions/2 {
			t.Errorf("%d close callbacks have run", n)
		}
		if n := heard.Load(); n != sessions*3/2 {
			t.Errorf("the other listener has heard %d events", n)
		}
		listen("hung-too", func() {})
		begin = time.Now()
		g.Stop()
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("the server took %v to end", d)
		}
		synctest.Wait()
		if n := heard.Load(); n != sessions*2 {
			t.Errorf("the other listener has heard %d events in the end", n)
		}
	})
}

// What is said of one session arrives in order over transports that keep none, also for who joins meanwhile.
func TestClusterEventLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		g := seamServer(t, cluster, seamGate("g"), &slowTransport{unordered: true}, nil)
		cluster.Delay(10 * time.Millisecond)
		var wg sync.WaitGroup
		for i := range 50 {
			s, c := seamSession(t, g)
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				must(t, s.Bind(t.Context(), fmt.Sprint("u", i)))
				time.Sleep(time.Duration(i%7) * time.Millisecond)
				c.Close()
			})
		}
		time.Sleep(20 * time.Millisecond)
		var mu sync.Mutex
		last := make(map[string]pitaya.SessionEventKind)
		seamServer(t, cluster, pitaya.Config{Type: "room", ID: "r"}, new(slowTransport), func(s *pitaya.Server) {
			must(t, s.OnSessionEvent(func(e pitaya.SessionEvent) {
				mu.Lock()
				defer mu.Unlock()
				last[e.UID] = e.Kind
			}))
		})
		wg.Wait()
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for uid, kind := range last {
			if kind != pitaya.SessionEnded {
				t.Errorf("%s: %v came last", uid, kind)
			}
		}
		if len(last) < 20 {
			t.Errorf("%d users were heard of", len(last))
		}
	})
}
