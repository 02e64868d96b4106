package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/leaktest"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// errorLogs is a logger that fails the test when something is logged as an error: that would be a mistake of ours, and
// peers' mistakes are none.
func errorLogs(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		t.Errorf("logged: %s", b)
		return len(b), nil
	}), &slog.HandlerOptions{Level: slog.LevelError}))
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// hostileCall is what a peer sends to a server's subject.
type hostileCall struct {
	name string
	body []byte
}

// hostileCalls are calls that no server of the family makes. None of them concerns the user "u-1" in a way that would
// rightly end its session.
func hostileCalls(t testing.TB) (calls []hostileCall) {
	add := func(name string, body []byte) { calls = append(calls, hostileCall{name, body}) }
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		must(t, err)
		return b
	}
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	session := &pb.Session{Id: 1, Uid: "u-1", Data: []byte(`{}`)}

	for i, metadata := range []string{
		"", "null", " null", "[]", "5", `"x"`, "true", "{", "}", "{}{}", "{}x", "\ufeff{}", "\xff", "{\"\xff\":1}", `{"":1}`,
		`{"reqTimeout":5}`, `{"reqTimeout":[]}`, `{"reqTimeout":{}}`, `{"reqTimeout":true}`, `{"reqTimeout":null}`,
		`{"reqTimeout":""}`, `{"reqTimeout":"soon"}`, `{"reqTimeout":"-5s"}`, `{"reqTimeout":"0"}`, `{"reqTimeout":"1ns"}`,
		`{"reqTimeout":"1e9s"}`, `{"reqTimeout":"9999999h"}`, `{"reqTimeout":"2562047h47m16.854775807s"}`,
		`{"reqTimeout":"-2562047h47m16.854775808s"}`, `{"reqTimeout":"` + strings.Repeat("9", 1e5) + `s"}`,
		`{"request.id":5}`, `{"request.id":""}`, `{"request.id":"` + strings.Repeat("x", 1e5) + `"}`, `{"request.id":"\ud800"}`,
		`{"req-start-time":"x","req-route":5,"peer.id":null,"peer.service":[]}`, `{"req-start-time":1e999}`,
		`{"otel-span":5}`, `{"otel-span":{"traceparent":5}}`, `{"metric-tags":[]}`, `{"metric-tags":{"a":1}}`,
		`{"a":` + deep(9_990) + `}`, `{"a":` + deep(100_000) + `}`, deep(100_000), strings.Repeat("[", 200_000),
		`{"a":"` + strings.Repeat("x", 100_000) + `"}`, strings.Repeat(" ", 100_000), strings.Repeat(`{"a":`, 100_000),
		"{" + strings.Repeat(`"a":1,`, 10_000) + `"a":1}`,
	} {
		name := fmt.Sprintf("metadata %d, %.30q", i, metadata)
		add(name+", remote", userRequest(t, "connector.r.probe", "", metadata))
		add(name+", handler", sysRequest(t, session, "connector.h.probe", "x", metadata))
		add(name+", own remote", userRequest(t, "sys.kick", "\x0a\x01x", metadata))
	}

	good := sysRequest(t, session, "connector.h.echo", "x", `{"peer.id":"a"}`)
	for i := range good {
		add(fmt.Sprintf("the first %d bytes", i), good[:i])
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := bytes.Clone(good)
			b[i] ^= flip
			add(fmt.Sprintf("byte %d xor %#x", i, flip), b)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		b := make([]byte, random.IntN(100))
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		add(fmt.Sprintf("noise %d", i), b)
	}
	add("no message", marshal(&pb.Request{Type: pb.RPCType_User, Metadata: []byte("{}")}))
	add("groups in groups", bytes.Repeat([]byte{0x0b}, 20_000))
	add("closed groups", append(bytes.Repeat([]byte{0x33}, 9_000), bytes.Repeat([]byte{0x34}, 9_000)...))
	add("twice", append(bytes.Clone(good), good...))
	add("a thousand times", bytes.Repeat(good, 1000))
	add("two kinds", append(bytes.Clone(good), userRequest(t, "sys.kick", "\x0a\x01x", "{}")...))
	add("metadata twice", append(bytes.Clone(good), "\x2a\x04null"...))
	add("text that is no UTF-8 in the session", marshal(&pb.Request{Session: &pb.Session{Data: []byte("\xff")}, Msg: &pb.Msg{Route: "h.echo"}, Metadata: []byte("{}")}))
	add("uid that is no UTF-8", []byte("\x12\x03\x12\x01\xff\x1a\x08\x12\x06h.echo\x2a\x02{}"))
	add("route that is no UTF-8", []byte("\x08\x01\x1a\x05\x12\x03a.\xff\x2a\x02{}"))
	for _, n := range []int32{-1, 2, 7, 1 << 30, -1 << 31} {
		add(fmt.Sprintf("call type %d", n), marshal(&pb.Request{Type: pb.RPCType(n), Msg: &pb.Msg{Route: "a.b"}, Metadata: []byte("{}")}))
		add(fmt.Sprintf("message type %d", n), marshal(&pb.Request{Msg: &pb.Msg{Route: "h.echo", Type: pb.MsgType(n)}, Metadata: []byte("{}")}))
	}
	for _, data := range []string{
		"null", "[]", "5", "zz", "{", "\xff", `{"a":` + deep(9_990) + `}`, `{"a":` + deep(100_000) + `}`, `{"a":1e999}`, `{"":null}`,
		`{"a":"` + strings.Repeat("x", 100_000) + `"}`,
	} {
		s := &pb.Session{Id: 1, Uid: "\u0000 *", Data: []byte(data)}
		add(fmt.Sprintf("session data %.30q", data), sysRequest(t, s, "connector.h.probe", "x", "{}"))
		for _, route := range []string{"sys.pushsession", "sys.mergesession"} {
			for _, payload := range []string{data, `{"set":` + data + `}`, `{"delete":` + data + `}`, `{"set":{"a":` + data + `}}`} {
				b := marshal(&pb.Session{Id: 1, Data: []byte(payload)})
				add(fmt.Sprintf("%s %.30q", route, payload), userRequest(t, route, string(b), "{}"))
			}
		}
	}
	for _, id := range []int64{0, -1, 99, 1 << 62, -1 << 63} {
		b := string(marshal(&pb.Session{Id: id, Uid: "u-9", Data: []byte("{}")}))
		for _, route := range []string{"sys.bindsession", "sys.pushsession", "sys.mergesession"} {
			add(fmt.Sprintf("%s of session %d", route, id), userRequest(t, route, b, "{}"))
		}
		add(fmt.Sprintf("handler for session %d", id), sysRequest(t, &pb.Session{Id: id}, "connector.h.probe", "x", "{}"))
	}
	for _, uid := range []string{"", " ", "*", "a.>", "a..b", "\x00", strings.Repeat("u", 1e5), "u-1", "u-2"} {
		// The session is bound.
		add(fmt.Sprintf("bind to %.10q", uid), userRequest(t, "sys.bindsession", string(marshal(&pb.Session{Id: 1, Uid: uid})), "{}"))
		if uid != "u-1" {
			add(fmt.Sprintf("kick %.10q", uid), userRequest(t, "sys.kick", string(marshal(&pb.KickMsg{UserId: uid})), "{}"))
		}
	}
	for _, route := range []string{
		"", ".", "..", "a", "a.", ".a", "a.b.c.d", "a..b", " . ", "sys", "sys.", "sys.x", "sys.kick.x", "x.sys.nope", "h.nope", "r.nope",
		"connector.h", "room.h.echo", "sys.bindsession\x00", strings.Repeat("a", 300), strings.Repeat("a.", 100_000),
		strings.Repeat("a", 100_000) + ".b",
	} {
		add(fmt.Sprintf("remote %.20q", route), userRequest(t, route, "", "{}"))
		add(fmt.Sprintf("handler %.20q", route), sysRequest(t, session, route, "", "{}"))
	}
	for _, route := range []string{"bindsession", "pushsession", "mergesession", "kick", "pushusers", "claimuser", "sessionevent", "docs", "descriptors", "nope"} {
		for _, payload := range []string{"", "\xff", "\x0a", "\x0a\x7f", "\x08\x01", "\x0a\x01\xff", "\x12\x01\xff", "null", strings.Repeat("\x0b", 20_000)} {
			add(fmt.Sprintf("sys.%s with %.10q", route, payload), userRequest(t, "sys."+route, payload, "{}"))
			add(fmt.Sprintf("connector.sys.%s with %.10q", route, payload), userRequest(t, "connector.sys."+route, payload, "{}"))
		}
		add("sys."+route+" as a handler", sysRequest(t, session, "sys."+route, "", "{}"))
	}
	many := &pitaya.RPCUsers{Route: []byte("onPush"), Data: []byte("x")}
	for i := range 100_000 {
		many.UIDs = append(many.UIDs, fmt.Sprint(i))
	}
	add("push to 100,000 users", userRequest(t, "sys.pushusers", string(many.Encode()), "{}"))
	many.UIDs = slices.Repeat([]string{""}, 50_000)
	add("push to 50,000 times nobody", userRequest(t, "sys.pushusers", string(many.Encode()), "{}"))
	for _, route := range []string{"", strings.Repeat("r", 256), strings.Repeat("r", 1e5), "\x00"} {
		b := (&pitaya.RPCUsers{Route: []byte(route), UIDs: []string{"u-1", "u-1"}}).Encode()
		add(fmt.Sprintf("push to users on route %.10q", route), userRequest(t, "sys.pushusers", string(b), "{}"))
	}
	for _, claim := range []*pitaya.RPCClaim{
		{}, {UID: "u-1"}, {UID: "u-1", FID: "front-1"}, {UID: "u-1", FID: "front-1", Stamp: 1 << 63}, {UID: "u-9", FID: "front-1", Stamp: 1<<64 - 1}, {UID: "u-9", FID: "nobody", Stamp: 1<<64 - 2},
		{UID: strings.Repeat("u", 1e5), Stamp: 5},
	} {
		add(fmt.Sprintf("claim %.50v", claim), userRequest(t, "sys.claimuser", string(claim.Encode()), "{}"))
	}
	for _, event := range []*pitaya.RPCEvent{
		{}, {Kind: 1}, {Kind: 2, Session: -5, FID: "front-1"}, {Kind: 3, FID: "front-1"}, {Kind: 257}, {Kind: 1<<64 - 1},
		{Kind: 1, UID: "*", FID: "/", Reason: strings.Repeat("x", 1e5)},
	} {
		add(fmt.Sprintf("event %.50v", event), userRequest(t, "sys.sessionevent", string(event.Encode()), "{}"))
	}
	for _, payload := range []string{"\xff", "\x0a\x7f", "\x0a\x01\xff", strings.Repeat("x", 100_000)} {
		add(fmt.Sprintf("argument %.10q", payload), userRequest(t, "connector.r.ping", payload, "{}"))
		add(fmt.Sprintf("typed argument %.10q", payload), sysRequest(t, session, "connector.h.typed", payload, "{}"))
	}
	// Its answer does not fit into a message of NATS.
	add("answer that is too large", sysRequest(t, session, "connector.h.double", strings.Repeat("x", 900_000), "{}"))
	return calls
}

// hostileNotices are those for the subjects without answers, by their ends.
func hostileNotices(t testing.TB) map[string][][]byte {
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		must(t, err)
		return b
	}
	garbage := [][]byte{nil, {0}, {0xff}, []byte("null"), []byte("{}"), []byte("\x0a\x7f"), []byte("\x0a\x01\xff"), bytes.Repeat([]byte{0x0b}, 20_000)}
	return map[string][][]byte{
		"/bindings": append(slices.Clone(garbage),
			marshal(&pb.BindMsg{Uid: "u-1", Fid: "front-1"}), // its own
			marshal(&pb.BindMsg{Fid: "front-1"}), marshal(&pb.BindMsg{Uid: "nobody", Fid: "x"}), marshal(&pb.BindMsg{Uid: "nobody"}),
			marshal(&pb.BindMsg{Uid: strings.Repeat("u", 1e5), Fid: strings.Repeat("f", 1e5)})),
		"/user/u-1/push": append(slices.Clone(garbage),
			marshal(&pb.Push{Uid: "nobody", Route: "r"}), marshal(&pb.Push{Uid: "u-1", Route: strings.Repeat("r", 256)}),
			marshal(&pb.Push{Route: "r"}), marshal(&pb.Push{Uid: "u-1"}), []byte("\x0a\x01\xff\x12\x03u-1")),
		"/user/u-1/kick": append(slices.Clone(garbage),
			marshal(&pb.KickMsg{UserId: "nobody"}), marshal(&pb.KickMsg{UserId: strings.Repeat("u", 1e5)})),
	}
}

// HostileRoom has a handler whose answer is twice its argument.
type HostileRoom struct{ *VectorHandler }

func (HostileRoom) Double(ctx context.Context, b []byte) ([]byte, error) { return append(b, b...), nil }

// A peer may send anything: it is answered or ignored, and the server lives, with its clients.
func TestHostilePeers(t *testing.T) {
	url := startNATS(t).URL()
	for name, self := range map[string]*pitaya.ServerInfo{
		"frontend": {ID: "front-1", Type: "connector", Frontend: true},
		"backend":  {ID: "back-1", Type: "connector"},
	} {
		t.Run(name, func(t *testing.T) {
			// What the handlers may do with what came along. Calls to others find nobody.
			probe := func(ctx context.Context, s *pitaya.Session) {
				pitaya.GetFromPropagateCtx(ctx, "a")
				if s == nil {
					return
				}
				s.Data()
				s.Set("k", 1)
				s.Delete("a")
				s.PushToFront(ctx)
			}
			handler := &VectorHandler{probe: probe}
			remote := &VectorRemote{}
			remote.probe = func(ctx context.Context) {
				probe(ctx, nil)
				handler.srv.RPC(ctx, "room.r.ping", new(testpb.TestResponse), nil)
			}
			srv := natsServer(t, url, self, pitaya.Config{Logger: errorLogs(t)}, func(s *pitaya.Server) {
				handler.srv = s
				lower := pitaya.WithNameFunc(strings.ToLower)
				must(t, s.RegisterDocs(pitaya.DocsOptions{Cluster: true}), s.Register(HostileRoom{handler}, pitaya.WithName("h"), lower), s.RegisterRemote(remote, pitaya.WithName("r"), lower))
				if !self.Frontend {
					must(t, s.OnSessionEvent(func(pitaya.SessionEvent) {}))
				}
			}, vectorRoom())
			peer := newNATSPeer(t, url)

			var client *pitaya.Client
			if self.Frontend {
				pitaya.CountSessionsFrom(srv.Server, 0) // the number that the calls have
				nc, err := srv.Mem.DialContext(t.Context())
				must(t, err)
				client, err = pitaya.NewClient(t.Context(), nc, nil)
				must(t, err)
				defer client.Close()
				must(t, sessionOf(t, srv, 1).Bind(t.Context(), "u-1"))
			}
			own, ping := subjectOf(self), userRequest(t, "r.ping", "\x0a\x01m", "{}")
			const pong = "\x0a\x0b\x08\xc8\x01\x12\x06pong m"
			var good, answers hostileAnswers
			good.listen(t, peer)
			answers.listen(t, peer)
			well := func(after string) {
				t.Helper()
				if got := good.call(own, ping); string(got) != pong {
					t.Fatalf("after %s: got %q", after, got)
				}
				if n := srv.Stats().Panics; n > 0 {
					t.Fatalf("after %s: %d panics", after, n)
				}
			}
			well("the start")
			before := leaktest.Goroutines()

			for _, c := range hostileCalls(t) {
				if len(c.body) > 1<<20 {
					t.Fatalf("%s: NATS does not carry %d bytes", c.name, len(c.body))
				}
				must(t, peer.nc.Publish(own, c.body))
				must(t, peer.nc.PublishRequest(own, answers.next(c.name), c.body))
				well(c.name)
			}
			for end, bodies := range hostileNotices(t) {
				for i, body := range bodies {
					name := fmt.Sprintf("notice %d to %s", i, end)
					must(t, peer.nc.Publish("pitaya/connector"+end, body))
					must(t, peer.nc.PublishRequest("pitaya/connector"+end, answers.next(name), body))
					well(name)
				}
			}
			if client != nil {
				got, err := client.RequestRaw(t.Context(), "connector.h.echo", []byte("still here"))
				if err != nil || string(got) != "still here" {
					t.Errorf("the client got %q, %v", got, err)
				}
				if s := srv.SessionByUID("u-1"); s == nil || s.ID() != 1 {
					t.Error("the user is not bound any more")
				}
			}
			if left := leaktest.Left(before, transporttest.Patience/2); len(left) > 0 {
				t.Errorf("%d goroutines left:\n%s", len(left), strings.Join(left, "\n\n"))
			}
			answers.check(t)
		})
	}
}

// hostileAnswers are the answers to calls, each of which has a subject of its own below one.
type hostileAnswers struct {
	peer  *natsPeer
	inbox string
	names []string

	mu    sync.Mutex // guards the fields below
	count []int
	body  chan []byte
}

func (a *hostileAnswers) listen(t testing.TB, peer *natsPeer) {
	a.peer, a.inbox, a.body = peer, nats.NewInbox(), make(chan []byte, 1)
	_, err := peer.nc.Subscribe(a.inbox+".*", func(m *nats.Msg) {
		var n int
		fmt.Sscan(m.Subject[len(a.inbox)+1:], &n)
		a.mu.Lock()
		a.count[n]++
		a.mu.Unlock()
		select {
		case a.body <- m.Data:
		default:
		}
	})
	must(t, err)
}

// next returns the subject for the answer to one more call.
func (a *hostileAnswers) next(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names, a.count = append(a.names, name), append(a.count, 0)
	return fmt.Sprintf("%s.%d", a.inbox, len(a.count)-1)
}

// call makes a call and waits for its answer.
func (a *hostileAnswers) call(subject string, body []byte) []byte {
	must(a.peer.t, a.peer.nc.PublishRequest(subject, a.next("good"), body))
	return transporttest.Await(a.peer.t, a.body)
}

// check reports calls that were answered more than once.
func (a *hostileAnswers) check(t testing.TB) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, n := range a.count {
		if n > 1 {
			t.Errorf("%s: answered %d times", a.names[i], n)
		}
	}
}

// Whatever stands among the servers in etcd, those that run go on, know each other and are called.
func TestHostileEntries(t *testing.T) {
	t.Parallel()
	etcd, natsURL := startEtcd(t), startNATS(t).URL()
	entries := etcdClient(t, etcd.URL())
	start := func(self *pitaya.ServerInfo) *testServer {
		return runCluster(t, self, pitaya.Config{
			Etcd: etcdConfig(etcd.URL()), NATSClient: pitaya.NATSConfig{URL: natsURL}, NATSServer: pitaya.NATSConfig{URL: natsURL},
			Logger: errorLogs(t),
		}, registerVectors(t, &VectorHandler{}, &VectorRemote{}))
	}
	front, room := start(vectorFront()), start(vectorRoom())
	until(t, "the servers to find each other", func() bool {
		return front.ServerByID("room-1") != nil && room.ServerByID("front-1") != nil
	})
	well := func(after string) {
		t.Helper()
		var reply testpb.TestResponse
		for server, call := range map[*testServer]string{front: "room-1 room", room: "front-1 connector"} {
			id, typ, _ := strings.Cut(call, " ")
			if err := server.RPCTo(t.Context(), id, typ+".r.ping", &reply, nil); err != nil || reply.Msg != "pong " {
				t.Fatalf("after %s: got %v, %v", after, &reply, err)
			}
			if n := server.Stats().Panics; n > 0 {
				t.Fatalf("after %s: %d panics", after, n)
			}
		}
		if s := front.ServerByID("front-1"); s == nil || s.Type != "connector" || !s.Frontend {
			t.Fatalf("after %s: the frontend takes itself for %+v", after, s)
		}
	}
	entry := func(id, typ string, metadata map[string]string) string {
		b, err := json.Marshal(map[string]any{"id": id, "type": typ, "metadata": metadata, "frontend": true, "hostname": ""})
		must(t, err)
		return string(b)
	}
	for i, e := range []struct{ key, value string }{
		{"room/a", "null"}, {"room/a", ""}, {"room/a", "[]"}, {"room/a", "5"}, {"room/a", `"x"`}, {"room/a", "{}"}, {"room/a", "{"}, {"room/a", "\xff"},
		{"room/a", `{"id":5,"type":"room"}`}, {"room/a", `{"id":"a","type":null}`}, {"room/a", `{"id":"a","type":"room","metadata":[]}`},
		{"room/a", `{"id":"a","type":"room","metadata":{"a":5}}`}, {"room/a", strings.Repeat("[", 100_000)},
		{"room/room-1", "null"}, {"connector/front-1", "null"}, {"connector/front-1", "[]"},
		{"room/front-1", entry("front-1", "room", nil)}, {"connector/room-1", entry("room-1", "connector", nil)},
		{"", "null"}, {"room", "null"}, {"room/", "null"}, {"/", "null"}, {"room/a/b/c", "null"}, {"\xff/\xff", "null"},
		{"connector/b", entry("b", "connector", map[string]string{"pitaya-go.features": ",,claim,users,,nonsense,\x00", "pitaya-go.draining": "TRUE"})},
		{"connector/c", entry("c", "connector", map[string]string{"pitaya-go.features": strings.Repeat("events,", 50_000)})},
		{"connector/d", entry("d", "connector", map[string]string{"grpcHost": "", "grpcPort": "-1", "region": "\n"})},
	} {
		_, err := entries.Put(t.Context(), "pitaya/servers/"+e.key, e.value)
		must(t, err)
		// What comes after it has been seen after it.
		mark := fmt.Sprint("mark-", i)
		_, err = entries.Put(t.Context(), "pitaya/servers/mark/"+mark, entry(mark, "mark", nil))
		must(t, err)
		until(t, mark, func() bool { return front.ServerByID(mark) != nil && room.ServerByID(mark) != nil })
		well(fmt.Sprintf("%s = %.40q", e.key, e.value))
	}
	// Servers that are listed and do not listen keep nobody from logging in.
	pitaya.CountSessionsFrom(front.Server, 0)
	c := front.connect(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), transporttest.Patience/2)
	defer cancel()
	must(t, sessionOf(t, front, 1).Bind(ctx, "u-1"))
	for _, id := range []string{"front-1", "room-1"} {
		for _, typ := range []string{"room", "connector"} {
			_, err := entries.Delete(t.Context(), "pitaya/servers/"+typ+"/"+id)
			must(t, err)
		}
	}
	until(t, "the servers to be back", func() bool {
		return front.ServerByID("room-1") != nil && room.ServerByID("front-1") != nil
	})
	var reply testpb.TestResponse
	until(t, "a call", func() bool {
		return errors.Join(front.RPCTo(ctx, "room-1", "room.r.ping", &reply, nil), room.RPCTo(ctx, "front-1", "connector.r.ping", &reply, nil)) == nil
	})
}

// The same calls over the other transports.
func TestHostileCalls(t *testing.T) {
	run := func(t *testing.T, transport pitaya.Transport, caller func() pitaya.Transport) {
		handler := &VectorHandler{probe: func(ctx context.Context, s *pitaya.Session) { s.Set("k", 1); s.PushToFront(ctx) }}
		remote := &VectorRemote{probe: func(ctx context.Context) { pitaya.GetFromPropagateCtx(ctx, "a") }}
		self := vectorFront()
		srv := runCluster(t, self, pitaya.Config{Discovery: knownServers{vectorRoom()}, Transport: transport, Logger: errorLogs(t)},
			registerVectors(t, handler, remote))
		pitaya.CountSessionsFrom(srv.Server, 0) // the number that the calls have
		c := srv.connect(t)
		defer c.Close()
		must(t, sessionOf(t, srv, 1).Bind(t.Context(), "u-1"))
		if g, ok := transport.(*pitaya.GRPCTransport); ok {
			_, port, err := net.SplitHostPort(g.Addr().String())
			must(t, err)
			self.Metadata = pitaya.GRPCMetadata(nil, "", "127.0.0.1", port, "", "")
		}
		peer := transporttest.NewPeer(t, caller(), vectorRoom())
		ping := userRequest(t, "r.ping", "\x0a\x01m", "{}")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var pending sync.WaitGroup
		for _, call := range hostileCalls(t) {
			pending.Add(1)
			peer.Call(ctx, self, call.body, func([]byte, error) { pending.Done() })
			peer.Call(ctx, self, call.body, nil)
			got, err := peer.Ask(ctx, self, ping)
			if err != nil || !bytes.HasSuffix(got, []byte("pong m")) {
				t.Fatalf("after %s: got %q, %v", call.name, got, err)
			}
			if n := srv.Stats().Panics; n > 0 {
				t.Fatalf("after %s: %d panics", call.name, n)
			}
		}
		c.request(1, "connector.h.echo", "still here")
		m := c.message()
		for m.Type == pitaya.MessagePush { // to users, on odd routes
			m = c.message()
		}
		if string(m.Payload) != "still here" || sessionOf(t, srv, 1).UID() != "u-1" {
			t.Errorf("the client got %q", m.Payload)
		}
		cancel() // those that were dropped
		pending.Wait()
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := pitaya.NewMemCluster()
			_, transport := c.Node()
			run(t, transport, func() pitaya.Transport {
				n := transporttest.NewNet(t, func(*pitaya.ServerInfo) pitaya.Transport { _, tr := c.Node(); return tr })
				return n.Server("room", nil).Transport
			})
		})
	})
	t.Run("gRPC", func(t *testing.T) {
		t.Parallel()
		cfg := pitaya.GRPCConfig{Port: -1, RequestTimeout: transporttest.Patience}
		tr, err := pitaya.NewGRPCTransport(cfg, "", testLogger(t))
		must(t, err)
		run(t, tr, func() pitaya.Transport { return grpcCaller(t, cfg) })
	})
}
