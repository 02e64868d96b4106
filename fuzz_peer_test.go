package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// FuzzBackend gives a server one message of another server, and asks only that it lives. Here two others call it, notify it,
// send it garbage, give calls up and let their time pass, in any order, while users are on it; after each act all is at
// rest, and a model says what each call was answered, how often it was handled, and what each user has been pushed.

const (
	peerSteps   = 80
	peerUsers   = 3
	peerTimeout = 5 * time.Second
	peerGiven   = "given up" // outcomes beside the payload of an answer
	peerError   = "error"
	peerAny     = "any" // what a call of garbage comes to is not known
)

// A peerCall is a call to the server, and what the model says of it.
type peerCall struct {
	name           string // what its handler is told; no other call has it
	route, payload string
	notify         bool
	lane           string // whose calls are handled in order; "": each by itself
	deadline       time.Time
	cancel         context.CancelFunc
	want           string // "": it is not over

	begun    bool // the first of its lane
	detached bool // nobody waits for the notify when it is handled
	released bool
	handled  int // how often

	mu    sync.Mutex
	got   string
	times int
}

// A peerUser is a client that is bound, with what it has been sent.
type peerUser struct {
	uid     string
	client  *rawClient
	session *pitaya.Session
	reading sync.WaitGroup
	want    []string
	cause   error // why its session has ended; nil: it has not

	mu  sync.Mutex
	got []string
}

type peerModel struct {
	*testing.T
	s     *testServer
	peers [2]pitaya.Transport
	names [2]string
	users [peerUsers]*peerUser
	calls []*peerCall            // that are not over
	lanes map[string][]*peerCall // those of them that are handled in order; the first is at work
	over  []*peerCall

	mu      sync.Mutex // guards the fields below
	release chan struct{}
	handled map[string]int // how often, by the name of the call
}

// PeerRemote has the remotes of the server.
type PeerRemote struct{ m *peerModel }

func (r PeerRemote) Ping(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	r.m.note(in.Msg)
	return &testpb.TestResponse{Msg: in.Msg}, nil
}

func (r PeerRemote) Wait(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	r.m.note(in.Msg)
	return &testpb.TestResponse{Msg: in.Msg}, r.m.await(ctx)
}

func (r PeerRemote) Fail(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	r.m.note(in.Msg)
	panic("fuzz")
}

// The acts.
const (
	peerForward      = iota // a client's message: its argument chooses the route
	peerForwardOther        // the same, of another of its sessions
	peerNotify              // a client's notify
	peerRemote              // a call of a remote
	peerPush                // a notice with a push
	peerKick                // a notice of a kick
	peerKickCall            // a call that kicks
	peerBind                // a notice that a user is elsewhere
	peerGarbage             // a call with what follows in the script
	peerGarbageNote         // a notice of it
	peerGiveUp              // the caller gives a call up
	peerRelease             // those who wait go on
	peerTime                // time passes
	peerBack                // a user comes back
	peerActs
)

// peerRoutes are what clients' messages are for; "wait" is released by peerRelease.
var peerRoutes = [...]string{"connector.fuzz.echo", "connector.fuzz.wait", "connector.fuzz.fail", "connector.no.such", "bad"}

// FuzzPeer reads a script in threes: an act, who acts, and an argument.
func FuzzPeer(f *testing.F) {
	for _, script := range [][]byte{
		{peerForward, 0, 0, peerForward, 1, 1, peerForward, 1, 0, peerRelease, 0, 0, peerForward, 1, 0},
		{peerForward, 0, 1, peerForward, 0, 0, peerForwardOther, 0, 0, peerGiveUp, 0, 0, peerForward, 0, 2},
		{peerForward, 0, 1, peerForward, 0, 1, peerTime, 0, 20, peerForward, 0, 0, peerTime, 0, 40, peerRelease, 0, 0},
		{peerNotify, 0, 1, peerForward, 0, 0, peerTime, 0, 60, peerRelease, 0, 0, peerNotify, 0, 2},
		{peerRemote, 0, 0, peerRemote, 1, 1, peerRemote, 0, 2, peerRemote, 0, 3, peerGiveUp, 0, 0},
		{peerPush, 0, 0, peerPush, 1, 1, peerKick, 0, 0, peerPush, 0, 0, peerBack, 0, 0, peerPush, 1, 0},
		{peerKickCall, 0, 2, peerKickCall, 0, 2, peerBind, 1, 1, peerPush, 0, 1, peerBack, 0, 1},
		{peerGarbage, 0, 3, 1, 2, 3, peerGarbageNote, 0, 4, 8, 1, 8, 1, peerForward, 0, 0},
		{peerGarbage, 0, 6, 0x1a, 4, 0x12, 2, 'a', 'b', peerForward, 0, 0, peerTime, 0, 60},
	} {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 3*peerSteps {
			synctest.Test(t, func(t *testing.T) { runPeer(t, script) })
		}
	})
}

// TestPeer runs scripts that are drawn at random.
func TestPeer(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for range 100 {
		script := make([]byte, 3*peerSteps)
		for i := range script {
			script[i] = byte(r.IntN(256))
		}
		t.Run("", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { runPeer(t, script) }) })
	}
}

func runPeer(t *testing.T, script []byte) {
	c := pitaya.NewMemCluster()
	cfg := pitaya.Config{Logger: slog.New(slog.DiscardHandler), Heartbeat: -1}
	cfg.Discovery, cfg.Transport = c.Node()
	m := &peerModel{T: t, release: make(chan struct{}), handled: make(map[string]int), lanes: make(map[string][]*peerCall),
		names: [2]string{"room-1", "front-2"}}
	m.s = runCluster(t, vectorFront(), cfg, func(s *pitaya.Server) {
		handle := func(route string, f func(ctx context.Context) error) error {
			return pitaya.HandleRaw(s, route, func(ctx context.Context, b []byte) ([]byte, error) {
				m.note(string(b))
				return b, f(ctx)
			})
		}
		must(t, handle("fuzz.echo", func(context.Context) error { return nil }),
			handle("fuzz.wait", m.await),
			handle("fuzz.fail", func(context.Context) error { panic("fuzz") }),
			s.RegisterRemote(PeerRemote{m}, pitaya.WithName("r")))
	})
	for i, info := range []*pitaya.ServerInfo{vectorRoom(), {ID: "front-2", Type: "connector", Frontend: true}} {
		_, m.peers[i] = c.Node()
		must(t, m.peers[i].Listen(t.Context(), info, grpcHandler{
			notice: func(_ *pitaya.Notice, reply func([]byte, error)) {
				if reply != nil {
					reply([]byte("\x0a\x03ack"), nil)
				}
			},
		}))
		defer m.peers[i].Close(context.Background())
	}
	for i := range m.users {
		m.back(i)
	}
	for n := 0; len(script) >= 3; n++ {
		act, who, arg := script[0]%peerActs, int(script[1]), int(script[2])
		script = script[3:]
		var raw []byte
		if act == peerGarbage || act == peerGarbageNote {
			raw = script[:min(arg, len(script))]
			script = script[len(raw):]
		}
		m.Logf("act %d %d %d %x", act, who, arg, raw)
		m.act(act, who, arg, raw, fmt.Sprint("p", n))
		synctest.Wait()
		m.check()
	}
	m.pass(2 * peerTimeout)
	synctest.Wait()
	m.check()
	for m.busy() {
		m.free()
		synctest.Wait()
	}
	m.check()
	for _, u := range m.users {
		u.client.Close()
		u.reading.Wait()
	}
	synctest.Wait()
	if st := m.s.Stats(); st.Open != 0 || st.Sessions != 0 || st.Bound != 0 || st.QueueBytes != 0 {
		t.Fatalf("something is left: %+v", st)
	}
}

// note is called by whoever handles a call.
func (m *peerModel) note(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handled[name]++
}

// await waits for peerRelease.
func (m *peerModel) await(ctx context.Context) error {
	m.mu.Lock()
	release := m.release
	m.mu.Unlock()
	select {
	case <-release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *peerModel) act(act byte, who, arg int, raw []byte, payload string) {
	peer, u := who%2, m.users[arg%peerUsers]
	switch act {
	case peerForward, peerForwardOther, peerNotify:
		session := int64(1)
		if act == peerForwardOther {
			session = 2
		}
		msg := &pb.Msg{Id: 7, Route: peerRoutes[arg%len(peerRoutes)], Data: []byte(payload)}
		if act == peerNotify {
			msg.Id, msg.Type = 0, pb.MsgType_MsgNotify
		}
		m.call(peer, &peerCall{name: payload, route: msg.Route, payload: payload, notify: act == peerNotify, lane: fmt.Sprint(m.names[peer], session)},
			&pb.Request{Type: pb.RPCType_Sys, FrontendID: m.names[peer], Session: &pb.Session{Id: session, Data: []byte("{}")}, Msg: msg})
	case peerRemote:
		route := []string{"r.Ping", "r.Wait", "r.Fail", "r.Nothing"}[arg%4]
		in, err := proto.Marshal(&testpb.TestRequest{Msg: payload})
		must(m, err)
		out, err := proto.Marshal(&testpb.TestResponse{Msg: payload})
		must(m, err)
		c := &peerCall{name: payload, route: route, payload: string(out)}
		if route != "r.Nothing" {
			c.handled = 1 // at once: it waits for no other
		}
		m.call(peer, c, &pb.Request{Type: pb.RPCType_User, Msg: &pb.Msg{Route: route, Data: in}})
	case peerPush:
		b, err := proto.Marshal(&pb.Push{Route: "onFuzz", Uid: u.uid, Data: []byte(payload)})
		must(m, err)
		m.notify(peer, pitaya.NoticePush, u.uid, b)
		if u.cause == nil {
			u.want = append(u.want, fmt.Sprintf("push %q", payload))
		}
	case peerKick, peerKickCall:
		b, err := proto.Marshal(&pb.KickMsg{UserId: u.uid})
		must(m, err)
		if act == peerKick {
			m.notify(peer, pitaya.NoticeKick, u.uid, b)
		} else {
			c := &peerCall{route: "kicked", payload: "\x08\x01"}
			if u.cause != nil {
				c.route = "no such user"
			}
			m.call(peer, c, &pb.Request{Type: pb.RPCType_User, Msg: &pb.Msg{Route: "sys.kick", Data: b}})
		}
		u.end(pitaya.ErrKicked)
	case peerBind:
		b, err := proto.Marshal(&pb.BindMsg{Uid: u.uid, Fid: "front-2"})
		must(m, err)
		m.notify(peer, pitaya.NoticeBind, u.uid, b)
		u.end(pitaya.ErrReplaced)
	case peerGarbage:
		var req pb.Request
		c := &peerCall{route: "garbage"}
		switch err := proto.Unmarshal(raw, &req); {
		case err != nil || req.Msg == nil:
			c.route = "dropped"
		case len(req.Metadata) > 0:
			return // as good as any other
		}
		m.send(peer, c, raw)
	case peerGarbageNote:
		kind := pitaya.NoticeKind(who % 5)
		m.notify(peer, kind, u.uid, raw)
	case peerGiveUp:
		if len(m.calls) > 0 {
			c := m.calls[arg%len(m.calls)]
			c.cancel()
			m.settle(c, peerGiven)
			m.handle(c.lane)
		}
	case peerRelease:
		m.free()
	case peerTime:
		m.pass(time.Duration(arg) * 100 * time.Millisecond)
	case peerBack:
		if u.cause != nil {
			u.client.Close()
			u.reading.Wait()
			m.back(arg % peerUsers)
		}
	}
}

// back connects a user.
func (m *peerModel) back(i int) {
	u := &peerUser{uid: fmt.Sprint("u", i), client: m.s.dial(m)}
	u.client.handshake(`{"sys":{}}`)
	synctest.Wait()
	for s := range m.s.Sessions() {
		if u.session == nil || s.ID() > u.session.ID() {
			u.session = s
		}
	}
	must(m, u.session.Bind(m.Context(), u.uid))
	u.reading.Go(func() {
		for {
			p, err := pitaya.ReadPacket(u.client, 0)
			if err != nil {
				return
			}
			if p.Type == pitaya.PacketData {
				text := fuzzText(m.T, p)
				u.mu.Lock()
				u.got = append(u.got, text)
				u.mu.Unlock()
			}
		}
	})
	m.users[i] = u
}

func (u *peerUser) end(cause error) {
	if u.cause == nil {
		u.cause = cause
	}
}

func (m *peerModel) notify(peer int, kind pitaya.NoticeKind, uid string, body []byte) {
	// Who is told of an error, is told of one that may be.
	_ = m.peers[peer].Notify(m.Context(), &pitaya.Notice{Kind: kind, FrontendType: "connector", UID: uid, Server: vectorFront(), Body: body})
}

func (m *peerModel) call(peer int, c *peerCall, req *pb.Request) {
	req.Metadata = []byte("{}")
	b, err := proto.Marshal(req)
	must(m, err)
	m.send(peer, c, b)
}

func (m *peerModel) send(peer int, c *peerCall, body []byte) {
	// No two deadlines are the same: whether the second of two calls in a lane is begun before its own or not would be
	// left to chance.
	c.deadline = time.Now().Add(peerTimeout + time.Duration(len(m.calls)+len(m.over))*time.Nanosecond)
	ctx, cancel := context.WithDeadline(m.Context(), c.deadline)
	c.cancel = cancel
	m.calls = append(m.calls, c)
	if c.lane != "" && c.route != "connector.no.such" && c.route != "bad" {
		m.lanes[c.lane] = append(m.lanes[c.lane], c)
		m.handle(c.lane)
	} else if c.route != "r.Wait" && c.route != "dropped" {
		m.settle(c, c.result())
	}
	m.peers[peer].Call(ctx, vectorFront(), body, func(response []byte, err error) {
		got := peerError
		var r pb.Response
		switch {
		case errors.Is(err, context.Canceled):
			got = peerGiven
		case err != nil:
		case proto.Unmarshal(response, &r) != nil:
			got = fmt.Sprintf("bytes %x", response)
			if bytes.Equal(response, []byte("\x08\x01")) {
				got = "\x08\x01" // a protos.KickAnswer
			}
		case r.Error == nil:
			got = string(r.Data)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got = got
		c.times++
	})
}

// result is what a call comes to that is handled.
func (c *peerCall) result() string {
	switch c.route {
	case "connector.fuzz.echo", "connector.fuzz.wait":
		if c.notify {
			return "ack"
		}
		return c.payload
	case "r.Ping", "r.Wait", "kicked":
		return c.payload
	case "garbage":
		return peerAny
	}
	return peerError
}

// handle handles the calls of a lane, up to one that waits. Requests that nobody waits for any more when their turn comes
// are passed over; notifies are handled nevertheless, and nothing but peerRelease ends their waiting.
func (m *peerModel) handle(lane string) {
	for lane != "" && len(m.lanes[lane]) > 0 {
		c := m.lanes[lane][0]
		if !c.begun {
			c.begun = true
			c.detached = c.want != "" && c.notify
			if c.want == "" || c.notify {
				c.handled = 1
			}
		}
		if c.route == "connector.fuzz.wait" && !c.released && (c.want == "" || c.detached) {
			return
		}
		m.settle(c, c.result())
		m.lanes[lane] = m.lanes[lane][1:]
	}
}

// free lets go on who waits.
func (m *peerModel) free() {
	m.mu.Lock()
	close(m.release)
	m.release = make(chan struct{})
	m.mu.Unlock()
	for _, c := range slices.Clone(m.calls) {
		if c.route == "r.Wait" {
			m.settle(c, c.result())
		}
	}
	for lane, list := range m.lanes {
		if len(list) > 0 {
			list[0].released = true
			m.handle(lane)
		}
	}
}

// busy reports whether a handler waits.
func (m *peerModel) busy() bool {
	for _, list := range m.lanes {
		if len(list) > 0 {
			return true
		}
	}
	return false
}

// settle says what a call comes to.
func (m *peerModel) settle(c *peerCall, want string) {
	if c.want == "" {
		c.want = want
		m.calls = slices.DeleteFunc(m.calls, func(other *peerCall) bool { return other == c })
		m.over = append(m.over, c)
	}
}

// pass lets time pass. Calls end with their time, and those behind them in their lane are handled then.
func (m *peerModel) pass(d time.Duration) {
	time.Sleep(d)
	for len(m.calls) > 0 && !time.Now().Before(m.calls[0].deadline) { // they are in the order of their deadlines
		c := m.calls[0]
		m.settle(c, peerError)
		m.handle(c.lane)
	}
}

func (m *peerModel) check() {
	m.Helper()
	for _, c := range m.calls {
		c.mu.Lock()
		if c.times != 0 {
			m.Fatalf("%s %q was answered with %q, the model says that it waits", c.route, c.payload, c.got)
		}
		c.mu.Unlock()
		m.checkHandled(c)
	}
	for _, c := range m.over {
		c.mu.Lock()
		if c.times != 1 || c.got != c.want && c.want != peerAny {
			m.Fatalf("%s %q was answered %d times with %q, the model says %q", c.route, c.payload, c.times, c.got, c.want)
		}
		c.mu.Unlock()
		m.checkHandled(c)
		c.cancel()
	}
	for _, u := range m.users {
		cause := context.Cause(u.session.Context())
		if !errors.Is(cause, u.cause) || (cause == nil) != (u.cause == nil) {
			m.Fatalf("the session of %s has ended with %v, the model says %v", u.uid, cause, u.cause)
		}
		u.mu.Lock()
		if !slices.Equal(u.got, u.want) {
			m.Fatalf("%s was sent %q, the model says %q", u.uid, u.got, u.want)
		}
		u.mu.Unlock()
	}
}

// checkHandled compares how often a call was handled.
func (m *peerModel) checkHandled(c *peerCall) {
	m.Helper()
	if c.name == "" {
		return // garbage, and what the library itself handles
	}
	m.mu.Lock()
	got := m.handled[c.name]
	m.mu.Unlock()
	if got != c.handled {
		m.Fatalf("%s %q was handled %d times, the model says %d", c.route, c.name, got, c.handled)
	}
}
