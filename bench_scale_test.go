package pitaya_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// BenchmarkScale measures whether what a server does for one session takes
// longer the more sessions there are. The sessions are real ones, each bound to
// a user, of a frontend in a cluster; but their connections are in memory, and
// their clients do no more than a line of a script (scaleConn).
//
// Each operation stands beside a yardstick that is measured in turns with it:
//
//   - Look-ups: the same on a plain map with a mutex, with as many entries and the
//     same keys. Both wait for memory when there are many, and "ratio" tells whether the
//     library's does so longer.
//   - What is more than that, such as the life of a session: the same on a server that has
//     nobody else. Here "ratio" tells the growth.
//
// The sessions stay from one size to the next, so the largest makes a million;
// that takes half a minute and some gigabytes. All of it, in less than two minutes:
//
//	go test -run '^$' -bench Scale -benchtime 0.3s .
func BenchmarkScale(b *testing.B) {
	w := newScaleWorld(b)
	alone := newScaleWorld(b)
	alone.grow(b, 1)
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("sessions=%d", n), func(b *testing.B) {
			w.grow(b, n)
			b.Run("table", func(b *testing.B) { w.benchTable(b, alone) })
			b.Run("group", w.benchGroup)
			b.Run("groups", w.benchGroups)
			b.Run("routing", func(b *testing.B) { w.benchRouting(b, alone) })
		})
	}
}

// scaleWorld is a frontend with many sessions, and a backend.
type scaleWorld struct {
	front, back *testServer
	listener    scaleListener
	sent        scaleCount    // data packets to clients
	gone        scaleCount    // sessions that have ended
	ended       chan struct{} // has a value for one that was not to stay
	group       *pitaya.Group // of all users

	// By the number of the session.
	conns    []*scaleConn
	contexts []context.Context // of the session's first message
	ids      []int64
	uids     []string

	order []int32 // numbers in random order
	byID  scaleMap[int64, *pitaya.Session]
	byUID scaleMap[string, *pitaya.Session]
}

// A scaleMap is the yardstick.
type scaleMap[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
}

func (m *scaleMap[K, V]) get(k K) V {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.m[k]
}

func (m *scaleMap[K, V]) put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[K]V)
	}
	m.m[k] = v
}

func (m *scaleMap[K, V]) remove(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, k)
}

func newScaleWorld(b *testing.B) *scaleWorld {
	b.Helper()
	w := &scaleWorld{listener: make(scaleListener), ended: make(chan struct{}, 1)}
	c := pitaya.NewMemCluster()
	config := func(serverType, id string) pitaya.Config {
		cfg := pitaya.Config{Type: serverType, ID: id, Cluster: true, Heartbeat: time.Hour, Logger: slog.New(slog.DiscardHandler)}
		cfg.Discovery, cfg.Transport = c.Node()
		return cfg
	}
	w.back = startServer(b, config("room", "room-1"), func(s *pitaya.Server) {
		must(b, pitaya.HandleRaw(s, "scale.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }))
	})
	w.front = startServer(b, config("conn", "conn-1"), func(s *pitaya.Server) {
		must(b,
			s.AddRoute("room", pitaya.RouteSticky(pitaya.RouteRandom)),
			// The payload is the session's number, or -1 for one that is not to stay.
			pitaya.HandleRaw(s, "scale.bind", func(ctx context.Context, in []byte) ([]byte, error) {
				i, err := strconv.Atoi(string(in))
				if err != nil {
					return nil, err
				}
				session := pitaya.SessionFromContext(ctx)
				if i < 0 {
					return in, session.Bind(ctx, "passer-by")
				}
				w.contexts[i], w.ids[i] = ctx, session.ID()
				return in, session.Bind(ctx, w.uids[i])
			}))
		s.OnSessionClose(func(s *pitaya.Session) {
			if s.UID() == "passer-by" {
				w.ended <- struct{}{}
			} else {
				w.gone.add(1)
			}
		})
	})
	done := make(chan error, 1)
	go func() { done <- w.front.Serve(w.listener) }()
	b.Cleanup(func() {
		close(w.listener)
		if err := <-done; !errors.Is(err, io.EOF) {
			b.Error(err)
		}
	})
	b.Cleanup(func() { // before the server ends
		inSteps(w.conns, func(some []*scaleConn) {
			wait := w.gone.expect(len(some))
			for _, c := range some {
				c.Close()
			}
			<-wait
		})
	})
	w.group = w.front.Group("all")
	must(b, w.group.Create(b.Context(), 0))
	return w
}

// inSteps calls f with some of the connections after the others. What is done
// for all of them at once would need as many goroutines, with large stacks.
func inSteps(conns []*scaleConn, f func(some []*scaleConn)) {
	for some := range slices.Chunk(conns, 1000) {
		f(some)
	}
}

// grow lets the world have n sessions.
func (w *scaleWorld) grow(b *testing.B, n int) {
	b.Helper()
	before := len(w.conns)
	w.contexts = append(w.contexts, make([]context.Context, n-before)...)
	w.ids = append(w.ids, make([]int64, n-before)...)
	for i := before; i < n; i++ {
		w.uids = append(w.uids, "user"+strconv.Itoa(i))
		w.conns = append(w.conns, newScaleConn(&w.sent, i))
		w.order = append(w.order, int32(i))
	}
	inSteps(w.conns[before:], func(some []*scaleConn) {
		wait := w.sent.expect(len(some))
		for _, c := range some {
			w.listener <- c
		}
		<-wait
	})
	rand.Shuffle(n, func(i, j int) { w.order[i], w.order[j] = w.order[j], w.order[i] })
	if got := w.front.SessionCount(); got != n {
		b.Fatalf("%d sessions, want %d", got, n)
	}
	for i := before; i < n; i++ {
		s := w.front.SessionByUID(w.uids[i])
		if s == nil || s != w.front.SessionByID(w.ids[i]) {
			b.Fatalf("user %s is not there", w.uids[i])
		}
		w.byID.put(w.ids[i], s)
		w.byUID.put(w.uids[i], s)
	}
	must(b, w.group.Add(b.Context(), w.uids[before:]...))
}

// compare measures an operation and its yardstick in turns, batch of each at a
// time. Both are given the number of a session, of which no two that follow each
// other are neighbours.
func (w *scaleWorld) compare(b *testing.B, name string, batch int, operation, yardstick func(i int) error) {
	b.Run("op="+name, func(b *testing.B) {
		var spent [2]time.Duration
		// Half a turn apart, so that neither finds in the cache what the other has just used.
		k := [2]int{0, len(w.order) / 2}
		turn := func(which int, f func(int) error) {
			begin := time.Now()
			for range batch {
				if err := f(int(w.order[k[which]])); err != nil {
					b.Fatal(err)
				}
				if k[which]++; k[which] == len(w.order) {
					k[which] = 0
				}
			}
			spent[which] += time.Since(begin)
		}
		rounds := 0
		for b.Loop() {
			turn(0, operation)
			turn(1, yardstick)
			rounds++
		}
		each := func(d time.Duration) float64 { return float64(d) / float64(rounds*batch) }
		b.ReportMetric(each(spent[0]), "ns/op")
		b.ReportMetric(each(spent[1]), "yardstick-ns/op")
		b.ReportMetric(float64(spent[0])/float64(spent[1]), "ratio")
	})
}

var errNotThere = errors.New("what was looked for is not there")

// scaleContains checks the answer about somebody who is a member.
func scaleContains(ok bool, err error) error {
	if !ok && err == nil {
		return errNotThere
	}
	return err
}

func (w *scaleWorld) benchTable(b *testing.B, alone *scaleWorld) {
	found := func(s *pitaya.Session) error {
		if s == nil {
			return errNotThere
		}
		return nil
	}
	w.compare(b, "by-id", 1000,
		func(i int) error { return found(w.front.SessionByID(w.ids[i])) },
		func(i int) error { return found(w.byID.get(w.ids[i])) })
	w.compare(b, "by-uid", 1000,
		func(i int) error { return found(w.front.SessionByUID(w.uids[i])) },
		func(i int) error { return found(w.byUID.get(w.uids[i])) })
	// Accepted, bound, closed: in and out of all there is.
	w.compare(b, "life", 50, func(int) error { return w.passBy() }, func(int) error { return alone.passBy() })
}

// passBy is the life of a session.
func (w *scaleWorld) passBy() error {
	wait := w.sent.expect(1)
	c := newScaleConn(&w.sent, -1)
	w.listener <- c
	<-wait
	c.Close()
	<-w.ended
	return nil
}

// benchGroup measures a group that all users are in.
func (w *scaleWorld) benchGroup(b *testing.B) {
	ctx := b.Context()
	var members scaleMap[string, bool]
	for _, uid := range w.uids {
		members.put(uid, true)
	}
	w.compare(b, "contains", 1000,
		func(i int) error { return scaleContains(w.group.Contains(ctx, w.uids[i])) },
		func(i int) error { return scaleContains(members.get(w.uids[i]), nil) })
	w.compare(b, "leave-join", 1000, func(i int) error {
		if err := w.group.Remove(ctx, w.uids[i]); err != nil {
			return err
		}
		return w.group.Add(ctx, w.uids[i])
	}, func(i int) error {
		members.remove(w.uids[i])
		members.put(w.uids[i], true)
		return nil
	})

	// The whole group at once; so one operation is for all, and what is reported is for each.
	payload := []byte(benchPayload(64))
	packet := benchRequest(b, "onPush", string(payload))
	var conns scaleMap[string, *scaleConn]
	for i, uid := range w.uids {
		conns.put(uid, w.conns[i])
	}
	n := len(w.uids)
	b.Run("op=broadcast", func(b *testing.B) {
		var spent [2]time.Duration
		rounds := 0
		for b.Loop() {
			begin, wait := time.Now(), w.sent.expect(n)
			must(b, w.group.Broadcast(ctx, "", "onPush", payload))
			<-wait
			spent[0] += time.Since(begin)
			begin, wait = time.Now(), w.sent.expect(n)
			for _, uid := range w.uids {
				c := conns.get(uid)
				go c.Write(packet)
			}
			<-wait
			spent[1] += time.Since(begin)
			rounds++
		}
		b.ReportMetric(float64(spent[0])/float64(rounds*n), "ns/op")
		b.ReportMetric(float64(spent[1])/float64(rounds*n), "yardstick-ns/op")
		b.ReportMetric(float64(spent[0])/float64(spent[1]), "ratio")
	})
}

// benchGroups measures small groups, as many as there are sessions.
func (w *scaleWorld) benchGroups(b *testing.B) {
	ctx := b.Context()
	groups := make([]*pitaya.Group, len(w.uids))
	yardstick := scaleMap[string, map[string]bool]{}
	for i, uid := range w.uids {
		groups[i] = w.front.Group("room " + uid)
		must(b, groups[i].Create(ctx, 0), groups[i].Add(ctx, uid))
		yardstick.put(groups[i].Name(), map[string]bool{uid: true})
	}
	b.Cleanup(func() {
		for _, g := range groups {
			must(b, g.Delete(context.Background()))
		}
	})
	w.compare(b, "contains", 1000,
		func(i int) error { return scaleContains(groups[i].Contains(ctx, w.uids[i])) },
		func(i int) error { return scaleContains(yardstick.get(groups[i].Name())[w.uids[i]], nil) })
	w.compare(b, "join-leave", 1000, func(i int) error {
		if err := groups[i].Add(ctx, "guest"); err != nil {
			return err
		}
		return groups[i].Remove(ctx, "guest")
	}, func(i int) error {
		yardstick.mu.Lock()
		yardstick.m[groups[i].Name()]["guest"] = true
		yardstick.mu.Unlock()
		yardstick.mu.Lock()
		delete(yardstick.m[groups[i].Name()], "guest")
		yardstick.mu.Unlock()
		return nil
	})
}

func (w *scaleWorld) benchRouting(b *testing.B, alone *scaleWorld) {
	servers := routeServers(3)
	route := pitaya.Route{ServerType: "room", Service: "scale", Method: "echo"}
	var chosen scaleMap[int64, map[string]*pitaya.ServerInfo] // by session and type
	for i, id := range w.ids {
		chosen.put(id, map[string]*pitaya.ServerInfo{"room": servers[fmt.Sprint("r", i%3)]})
	}
	for _, r := range []struct {
		name string
		f    pitaya.RoutingFunc
	}{{"uid", pitaya.RouteByUID}, {"sticky", pitaya.RouteSticky(pitaya.RouteRandom)}} {
		w.compare(b, "choose-"+r.name, 1000, func(i int) error {
			s, err := r.f(w.contexts[i], route, nil, servers)
			return scaleContains(s != nil, err)
		}, func(i int) error {
			// A program of one's own goes from the context to the session as well.
			s := chosen.get(pitaya.SessionFromContext(w.contexts[i]).ID())[route.ServerType]
			return scaleContains(s != nil, nil)
		})
	}

	// The way to a user from another server, and that of a message to another
	// server and of its answer back.
	ctx := b.Context()
	payload := []byte(benchPayload(64))
	push := func(w *scaleWorld, i int) error {
		wait := w.sent.expect(1)
		if err := w.back.Push(ctx, "conn", []string{w.uids[i]}, "onPush", payload); err != nil {
			return err
		}
		<-wait
		return nil
	}
	w.compare(b, "push-from-backend", 100, func(i int) error { return push(w, i) }, func(int) error { return push(alone, 0) })
	request := benchRequest(b, "room.scale.echo", string(payload))
	forward := func(w *scaleWorld, i int) error {
		wait := w.sent.expect(1)
		w.conns[i].say(request)
		<-wait
		return nil
	}
	w.compare(b, "forward", 100, func(i int) error { return forward(w, i) }, func(int) error { return forward(alone, 0) })
}

// scaleCount counts to what is expected.
type scaleCount struct {
	left atomic.Int64
	done chan struct{}
}

// expect returns a channel that is closed when n more have been counted. All of
// the time before must be over.
func (c *scaleCount) expect(n int) <-chan struct{} {
	c.done = make(chan struct{})
	done := c.done
	c.left.Store(int64(n))
	return done
}

func (c *scaleCount) add(n int) {
	if n > 0 && c.left.Add(int64(-n)) == 0 {
		close(c.done)
	}
}

// A scaleListener accepts what is put into it.
type scaleListener chan *scaleConn

func (l scaleListener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, io.EOF
}

func (l scaleListener) Close() error   { return nil }
func (l scaleListener) Addr() net.Addr { return scaleAddr{} }

type scaleAddr struct{}

func (scaleAddr) Network() string { return "scale" }
func (scaleAddr) String() string  { return "scale" }

// A scaleConn is a connection with a client behind it that says what it is
// given to say and takes in all that it gets.
type scaleConn struct {
	sent *scaleCount

	mu     sync.Mutex // guards the fields below
	more   sync.Cond
	in     []byte
	closed bool
}

// newScaleConn returns a connection whose client does the handshake and binds
// its session; i is its number.
func newScaleConn(sent *scaleCount, i int) *scaleConn {
	c := &scaleConn{sent: sent}
	c.more.L = &c.mu
	in, _ := pitaya.AppendPacket(nil, pitaya.PacketHandshake, []byte(`{"sys":{}}`))
	in, _ = pitaya.AppendPacket(in, pitaya.PacketHandshakeAck, nil)
	bind, _ := pitaya.AppendMessage(nil, pitaya.Message{ID: 1, Route: "scale.bind", Payload: strconv.AppendInt(nil, int64(i), 10)}, nil)
	c.in, _ = pitaya.AppendPacket(in, pitaya.PacketData, bind)
	return c
}

// say lets the client send more.
func (c *scaleConn) say(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in = append(c.in, b...)
	c.more.Signal()
}

func (c *scaleConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 && !c.closed {
		c.more.Wait()
	}
	if c.closed {
		return 0, io.EOF
	}
	n := copy(b, c.in)
	if c.in = c.in[n:]; len(c.in) == 0 {
		c.in = nil
	}
	return n, nil
}

// Write is given whole packets.
func (c *scaleConn) Write(b []byte) (int, error) {
	data := 0
	for p := b; len(p) > 0; p = p[pitaya.PacketHeaderSize+binary.BigEndian.Uint32(p)&0xffffff:] {
		if pitaya.PacketType(p[0]) == pitaya.PacketData {
			data++
		}
	}
	c.sent.add(data)
	return len(b), nil
}

func (c *scaleConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.more.Broadcast()
	return nil
}

func (c *scaleConn) LocalAddr() net.Addr              { return scaleAddr{} }
func (c *scaleConn) RemoteAddr() net.Addr             { return scaleAddr{} }
func (c *scaleConn) SetDeadline(time.Time) error      { return nil }
func (c *scaleConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scaleConn) SetWriteDeadline(time.Time) error { return nil }
