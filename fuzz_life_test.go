package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// FuzzConn (fuzz_conn_test.go) has one client, whose stream is written at once. Here several clients, the application and the
// clock act in turn, and after each act all is at rest, so that the model knows exactly what every client must have read by
// then. The model is a second implementation of the server: it has its own reading of the stream, and knows nothing of
// how the server is built.

const (
	lifeClients   = 4 // a power of two
	lifeSteps     = 120
	lifeHeartbeat = 30 * time.Second
	lifeHandshake = 10 * time.Second
	lifeShutdown  = 10 * time.Second
	lifeReads     = 2 * time.Second // that a server which ends goes on reading
	lifePacket    = 1 << 10         // MaxPacketSize
	lifeHello     = 512             // MaxHandshakeSize
	lifeMailbox   = 64              // messages that wait, by default; the model does not go beyond
)

// FuzzConnLife reads a script in threes: an act, whose act and on what, and an argument.
func FuzzConnLife(f *testing.F) {
	// All begin with clients that work: one on TCP's framing and one on WebSocket.
	begin := []byte{lifeConnect, 0, 0, lifePackets, 0, 0, lifePackets + 1, 0, 0, lifeConnect, 0x41, 0, lifePackets, 1, 0, lifePackets + 1, 1, 0}
	request, wait, bind := byte(lifePackets+2), byte(lifeWait), byte(lifeBind)
	for _, tail := range [][]byte{
		{request, 0, 9, request, 1, 200, request, 0x90, 9, request, 0, 1},
		{wait, 0, 9, request, 0, 9, lifePush, 0, 5, lifeRelease, 0, 0, request, 0, 9},
		{wait, 0, 9, request, 0, 9, lifeKick, 0, 5, lifeRelease, 0, 0, lifeConnect, 0, 0},
		{wait, 0, 9, wait, 1, 9, lifeStop, 0, 0, request, 0, 3, lifeRelease, 0, 0},
		{bind, 0, 1, bind, 1, 1, bind, 1, 2, request, 1, 2},
		{wait, 0, 9, request, 0, 8, lifeHalfClose, 0, 0, lifeRelease, 0, 0},
		{request, 0x20, 9, request, 0x20, 9, request, 0x90, 30, lifeTime, 0, 40, request, 0, 1},
		{lifeTime, 0, 100, request, 0, 1, lifeTime, 0, 100, request, 0, 1, lifeTime, 0, 250},
		{lifeConnect, 2, 0, lifePackets, 2, 0, lifeTime, 0, 18, lifePackets + 1, 2, 0},
		{lifeGarbage, 0, 6, 4, 0, 0, 1, 0, 0, request, 0, 1, lifeClose, 1, 0},
		{lifeEnd, 0, 0, lifePush, 0, 1, lifeConnect, 0x80, 0, lifeStop, 0, 0},
		{request, 0x90, 1, lifeClose, 0, 0, request, 0x90, 1, lifeHalfClose, 1, 0},
	} {
		f.Add(slices.Concat(begin, tail))
	}
	for i := range fuzzPackets {
		f.Add(slices.Concat(begin, []byte{wait, 0, 1, lifePackets + byte(i), 0, 7, lifePackets + byte(i), 1, 7, lifeRelease, 0, 0, request, 0, 1}))
		f.Add(slices.Concat(begin, []byte{request, 0x20, 1, lifePackets + byte(i), 0x20, 7, request, 0, 1}))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 3*lifeSteps {
			return
		}
		synctest.Test(t, func(t *testing.T) { runLife(t, script) })
	})
}

// TestConnLife runs scripts that are drawn at random; with -seed 0, some that nobody has tried.
func TestConnLife(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	acts := []byte{lifeConnect, lifeWait, lifeWait, lifeClose, lifeHalfClose, lifeRelease, lifeRelease, lifePush, lifePush,
		lifeKick, lifeEnd, lifeBind, lifeTime, lifeStop}
	for range 200 {
		script := make([]byte, 0, 3*lifeSteps)
		for slot := range byte(lifeClients) {
			script = append(script, lifeConnect, slot|byte(r.IntN(256))&0x40, 0, lifePackets, slot, 0, lifePackets+1, slot, 0)
		}
		for len(script) < 3*lifeSteps {
			act := lifePackets + byte(r.IntN(len(fuzzPackets)))
			switch n := r.IntN(20); {
			case n < 8:
				act = acts[r.IntN(len(acts))]
			case n < 17:
				act = lifePackets + 2 + byte(r.IntN(9)) // those that keep to the protocol
			}
			if act == lifeStop && len(script) < 3*lifeSteps*2/3 {
				continue
			}
			slot := byte(r.IntN(lifeClients))
			script = append(script, act, slot|byte(r.IntN(256))&^3, byte(r.IntN(256)))
			if act == lifeConnect {
				script = append(script, lifePackets, slot, 0, lifePackets+1, slot, 0)
			}
		}
		t.Run("", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { runLife(t, script) }) })
	}
}

// The acts. The packets of fuzzPackets stand behind them.
const (
	lifeConnect   = iota // connects a client anew
	lifeWait             // a request whose handler waits for lifeRelease or the end of its session
	lifeGarbage          // what follows in the script, as it is
	lifeClose            // the client closes
	lifeHalfClose        // the client closes its sending half
	lifeRelease          // handlers that wait go on
	lifePush             // the application pushes
	lifeKick             // the application kicks
	lifeEnd              // the application closes a session
	lifeBind             // the application binds a session to a user
	lifeTime             // time passes
	lifeStop             // the server is asked to end
	lifePackets
)

func runLife(t *testing.T, script []byte) {
	m := &lifeModel{T: t, release: make(chan struct{})}
	routes := map[string]uint16{"conn.fuzz.echo": 5}
	m.dict = newDictionary(t, routes)
	cfg := pitaya.Config{Logger: slog.New(slog.DiscardHandler), Heartbeat: lifeHeartbeat, HandshakeTimeout: lifeHandshake, ShutdownTimeout: lifeShutdown,
		MaxPacketSize: lifePacket, MaxHandshakeSize: lifeHello}
	l, open := listenOn(t, "memws")
	cfg.Listeners = append(cfg.Listeners, l)
	m.s = startServer(t, cfg, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "fuzz.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
			pitaya.HandleRaw(s, "fuzz.fail", func(context.Context, []byte) ([]byte, error) { panic("fuzz") }),
			pitaya.HandleRaw(s, "fuzz.push", func(ctx context.Context, b []byte) ([]byte, error) {
				return b, pitaya.SessionFromContext(ctx).Push(ctx, "onFuzz", b)
			}),
			pitaya.HandleRaw(s, "fuzz.leave", func(ctx context.Context, b []byte) ([]byte, error) {
				return b, pitaya.SessionFromContext(ctx).Close()
			}),
			pitaya.HandleRaw(s, "fuzz.wait", func(ctx context.Context, b []byte) ([]byte, error) {
				m.mu.Lock()
				release := m.release
				m.mu.Unlock()
				select {
				case <-release:
					return b, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}),
			s.SetDictionary(routes))
	})
	m.dial[0] = func() *rawClient { return m.s.dial(t) }
	m.dial[1] = func() *rawClient {
		c, err := open(t.Context())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return &rawClient{Conn: c, t: t}
	}
	for n := 0; len(script) >= 3; n++ {
		act, on, arg := script[0]%byte(lifePackets+len(fuzzPackets)), script[1], script[2]
		script = script[3:]
		if act == lifeGarbage {
			k := min(int(arg), len(script))
			m.garbage(m.clients[on&(lifeClients-1)], script[:k])
			script = script[k:]
		} else {
			m.act(act, on, arg, uint64(n)*977+1)
		}
		synctest.Wait()
		m.check()
		m.loose = false
	}
	m.finish()
}

// act does one thing, and says in the model what comes of it.
func (m *lifeModel) act(act, on, arg byte, id uint64) {
	c := m.clients[on&(lifeClients-1)]
	if act < lifePackets {
		m.Logf("act %d %#x %d", act, on, arg)
	} else {
		m.Logf("%s %#x %d", fuzzPackets[act-lifePackets].name, on, arg)
	}
	switch act {
	case lifeConnect:
		m.connect(int(on&(lifeClients-1)), on&0x40 != 0)
		return
	case lifeRelease:
		m.free()
		return
	case lifeTime:
		m.pass(time.Duration(arg) * 500 * time.Millisecond)
		return
	case lifeStop:
		m.stop()
		return
	}
	if c == nil {
		return
	}
	payload := bytes.Repeat([]byte{'a' + arg%26}, int(arg))
	switch act {
	case lifeClose, lifeHalfClose:
		m.leave(c, act == lifeHalfClose)
	case lifePush:
		if err := c.session.Push(m.Context(), "onLife", payload); err == nil {
			m.send(c, fmt.Sprintf("push %q", payload))
		} else if !c.over && c.state == 2 {
			m.Fatalf("push: %v", err)
		}
	case lifeKick:
		err := c.session.KickReason(m.Context(), "life")
		if (err == nil) != !c.over {
			m.Fatalf("kick: %v", err)
		}
		m.send(c, "kick life")
		m.end(c, pitaya.ErrKicked)
	case lifeEnd:
		must(m, c.session.Close())
		m.end(c, pitaya.ErrSessionClosed)
	case lifeBind:
		m.bind(c, fmt.Sprint("u", arg%3))
	case lifeWait:
		m.write(c, appendRequest(nil, id, "fuzz.wait", payload), on, arg)
	default:
		m.write(c, fuzzPackets[act-lifePackets].data(id, payload), on, arg)
	}
}

func (m *lifeModel) connect(slot int, ws bool) {
	if m.stopped {
		return
	}
	if old := m.clients[slot]; old != nil {
		m.leave(old, false)
		synctest.Wait()
	}
	c := &lifeClient{ws: ws, since: time.Now(), seen: time.Now()}
	had := make(map[int64]bool)
	for s := range m.s.Sessions() {
		had[s.ID()] = true
	}
	kind := 0
	if ws {
		kind = 1
	}
	c.conn = m.dial[kind]()
	c.conn.SetDeadline(time.Time{})
	synctest.Wait()
	for s := range m.s.Sessions() {
		if !had[s.ID()] {
			c.session = s
		}
	}
	if c.session == nil {
		m.Fatal("a client without a session")
	}
	m.clients[slot] = c
	m.all = append(m.all, c)
	c.read.Go(func() { c.readAll(m) })
}

// readAll reads the stream to its end.
func (c *lifeClient) readAll(m *lifeModel) {
	r := bufio.NewReader(c.conn)
	for {
		p, err := pitaya.ReadPacket(r, 0)
		var text string
		if err == nil && p.Type == pitaya.PacketData {
			text = fuzzText(m.T, p)
		}
		c.mu.Lock()
		switch {
		case err != nil:
			c.end = err
		case p.Type == pitaya.PacketHandshake:
			c.hello++
		case p.Type == pitaya.PacketKick:
			c.got = append(c.got, "kick "+string(bytes.TrimSuffix(bytes.TrimPrefix(p.Body, []byte(`{"reason":"`)), []byte(`"}`))))
		case p.Type == pitaya.PacketData:
			c.got = append(c.got, text)
		case p.Type != pitaya.PacketHeartbeat:
			c.got = append(c.got, fmt.Sprintf("packet %d", p.Type))
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// write puts a packet behind what the client has not written, and writes that: nothing of it if on says so, or all but some
// bytes.
func (m *lifeModel) write(c *lifeClient, b []byte, on, arg byte) {
	c.out = append(c.out, b...)
	n := len(c.out)
	switch {
	case on&0x20 != 0:
		return
	case on&0x80 != 0:
		n -= 1 + int(arg)%len(c.out)
	}
	m.flush(c, n)
}

func (m *lifeModel) garbage(c *lifeClient, b []byte) {
	if c != nil {
		c.out = append(c.out, b...)
		m.flush(c, len(c.out))
	}
}

func (m *lifeModel) flush(c *lifeClient, n int) {
	b := c.out[:n]
	c.out = c.out[n:]
	if c.left {
		return
	}
	// More messages than a mailbox takes stop the reading, which the model does not know.
	if c.blocked != nil && len(c.queue)+n/4 >= lifeMailbox {
		return
	}
	if n > 0 {
		_, _ = c.conn.Write(b)
	}
	m.feed(c, b)
}

// check compares what the clients have read with the model.
func (m *lifeModel) check() {
	m.Helper()
	for i, c := range m.all {
		c.mu.Lock()
		got, hello, end := slices.Clone(c.got), c.hello, c.end
		c.mu.Unlock()
		exact := !m.loose && !c.left
		n := min(len(got), len(c.want))
		if !slices.Equal(got[:n], c.want[:n]) || len(got) > len(c.want) || exact && len(got) < len(c.want) {
			m.Fatalf("client %d has read %.200q, the model says %.200q", i, got, c.want)
		}
		if hello > c.hellos || exact && hello < c.hellos {
			m.Fatalf("client %d has read %d handshakes, the model says %d", i, hello, c.hellos)
		}
		c.want, c.hellos = c.want[:len(got)], hello
		cause := context.Cause(c.session.Context())
		if c.unread && (errors.Is(cause, pitaya.ErrProtocol) || errors.Is(cause, pitaya.ErrServerClosed)) {
			m.end(c)
		}
		switch {
		case !c.over && (cause != nil || end != nil && !c.left):
			m.Fatalf("client %d has ended with %v (the stream with %v), the model says that it goes on", i, cause, end)
		case c.over && !slices.ContainsFunc(c.causes, func(err error) bool { return errors.Is(cause, err) }):
			m.Fatalf("client %d has ended with %v, the model says %v", i, cause, c.causes)
		case c.over && !c.left && end != io.EOF:
			m.Fatalf("the stream of client %d has ended with %v", i, end)
		}
	}
	m.unsure = m.unsure || m.loose
	st := m.s.Stats()
	if settled := st.Answered + st.Failed + st.Unanswerable + st.Lost; st.Requests < settled {
		m.Fatalf("more answers than requests: %+v", st)
	}
}

// finish closes what is left, and adds up.
func (m *lifeModel) finish() {
	for _, c := range m.all {
		m.leave(c, false)
		c.read.Wait()
	}
	synctest.Wait()
	for slices.ContainsFunc(m.all, func(c *lifeClient) bool { return c.blocked != nil }) {
		m.free()
		synctest.Wait()
	}
	m.check()
	st := m.s.Stats()
	var violations int64
	for _, c := range m.all {
		cause := context.Cause(c.session.Context())
		if cause == nil {
			m.Fatal("a session has outlived its client")
		}
		if errors.Is(cause, pitaya.ErrProtocol) {
			violations++
		}
	}
	switch {
	case st.Open != 0 || st.Sessions != 0 || st.Bound != 0 || st.QueueBytes != 0 || st.Accepted != st.Closed:
		m.Fatalf("something is left: %+v", st)
	case st.Requests != st.Answered+st.Failed+st.Unanswerable+st.Lost:
		m.Fatalf("requests do not add up: %+v", st)
	case st.Violations != violations:
		m.Fatalf("%d violations, and %d sessions that ended so", st.Violations, violations)
	case !m.unsure && st.Answered+st.Failed != m.answered:
		m.Fatalf("%d requests answered, the model says %d: %+v", st.Answered+st.Failed, m.answered, st)
	}
}
