//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// A peer stands for a server of Pitaya in a cluster over NATS: an entry in etcd,
// subscriptions, and messages that are made and taken apart here, without the
// library (cluster protocol, sections 3 to 5, 9 and 10).
type peer struct {
	t        *testing.T
	nc       *nats.Conn
	id, typ  string
	frontend bool
	calls    chan *nats.Msg // to the server
	others   chan *nats.Msg // to its type and its users
}

// peer adds one to the cluster.
func (f *farm) peer(t *testing.T, id, serverType string, frontend bool, metadata string) *peer {
	t.Helper()
	nc, err := nats.Connect(f.nats.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	p := &peer{t: t, nc: nc, id: id, typ: serverType, frontend: frontend, calls: make(chan *nats.Msg, 100), others: make(chan *nats.Msg, 100)}
	p.subscribe("pitaya/servers/"+serverType+"/"+id, p.calls)
	p.subscribe("pitaya/"+serverType+"/bindings", p.others)
	value := fmt.Sprintf(`{"id":%q,"type":%q,"metadata":%s,"frontend":%v,"hostname":"elsewhere"}`, id, serverType, metadata, frontend)
	if _, err := f.etcdClient(t).Put(t.Context(), f.prefix+"servers/"+serverType+"/"+id, value); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *peer) subscribe(subject string, c chan *nats.Msg) {
	p.t.Helper()
	if _, err := p.nc.ChanSubscribe(subject, c); err != nil {
		p.t.Fatal(err)
	}
	if err := p.nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// user subscribes to what is sent to a user.
func (p *peer) user(uid string) {
	p.t.Helper()
	p.subscribe("pitaya/"+p.typ+"/user/"+uid+"/push", p.others)
	p.subscribe("pitaya/"+p.typ+"/user/"+uid+"/kick", p.others)
}

func (p *peer) message(c chan *nats.Msg, what string) *nats.Msg {
	p.t.Helper()
	select {
	case m := <-c:
		return m
	case <-time.After(patience):
		p.t.Fatalf("%s: no %s", p.id, what)
		return nil
	}
}

// idle fails the test if the server has been sent something that was not looked
// at. What the given server sent before is there: it answers behind it.
func (p *peer) idle(serverType, id string) {
	p.t.Helper()
	p.idleBut(serverType, id, 0)
}

// idleBut lets the server have been sent a number of notices.
func (p *peer) idleBut(serverType, id string, notices int) {
	p.t.Helper()
	p.remote(serverType, id, serverType+".testremotesvc.rpctestnoargs", nil)
	p.nc.Flush()
	for range notices {
		p.message(p.others, "notice")
	}
	for _, c := range []chan *nats.Msg{p.calls, p.others} {
		select {
		case m := <-c:
			p.t.Errorf("%s got %q on %s", p.id, m.Data, m.Subject)
		default:
		}
	}
}

// taken is a call to the server.
type taken struct {
	*pb.Request
	msg      *nats.Msg
	metadata map[string]any
}

// take returns the next call, whose metadata must be in the form that the
// protocol prescribes.
func (p *peer) take() *taken {
	p.t.Helper()
	c := &taken{Request: new(pb.Request), msg: p.message(p.calls, "call")}
	if err := proto.Unmarshal(c.msg.Data, c.Request); err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(c.Metadata, &c.metadata); err != nil {
		p.t.Fatalf("metadata %q: %v", c.Metadata, err)
	}
	d := json.NewDecoder(bytes.NewReader(c.Metadata))
	d.UseNumber()
	exact := make(map[string]any)
	if err := d.Decode(&exact); err != nil {
		p.t.Fatal(err)
	}
	if again, _ := json.Marshal(exact); !bytes.Equal(again, c.Metadata) {
		p.t.Errorf("metadata\n got %s\nwant %s", c.Metadata, again)
	}
	return c
}

// want compares all of the call but its metadata, whose keys are compared.
func (c *taken) want(p *peer, want *pb.Request, keys ...string) {
	p.t.Helper()
	want.Metadata = c.Request.Metadata
	if !proto.Equal(c.Request, want) {
		p.t.Errorf("%s got\n %v, want\n %v", p.id, c.Request, want)
	}
	if b, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(want); !bytes.Equal(b, c.msg.Data) {
		p.t.Errorf("%s got bytes\n %x, want\n %x", p.id, c.msg.Data, b)
	}
	if got := slices.Sorted(maps.Keys(c.metadata)); !slices.Equal(got, keys) {
		p.t.Errorf("metadata has the keys %q, want %q", got, keys)
	}
}

func (c *taken) answer(p *peer, r *pb.Response) {
	p.t.Helper()
	b, err := proto.Marshal(r)
	if err == nil {
		err = c.msg.Respond(b)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// metadata is what the server sends along.
func (p *peer) metadata() []byte {
	return fmt.Appendf(nil, `{"peer.id":%q,"peer.service":%q,"req-start-time":1795325815435100801,"reqTimeout":"5s","request.id":"VkNmZ1JqT2lEc2xQa3Q5aW"}`, p.id, p.typ)
}

// call sends a request to a server and returns the bytes of the answer.
func (p *peer) call(serverType, id string, r *pb.Request) []byte {
	p.t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := p.nc.Request("pitaya/servers/"+serverType+"/"+id, b, patience)
	if err != nil {
		p.t.Fatalf("call of %s: %v", r.GetMsg().GetRoute(), err)
	}
	return m.Data
}

// response is call for an answer to look into.
func (p *peer) response(serverType, id string, r *pb.Request) *pb.Response {
	p.t.Helper()
	response := new(pb.Response)
	if err := proto.Unmarshal(p.call(serverType, id, r), response); err != nil {
		p.t.Fatal(err)
	}
	return response
}

// remote calls a remote.
func (p *peer) remote(serverType, id, route string, arg proto.Message) []byte {
	p.t.Helper()
	return p.call(serverType, id, p.userRequest(route, arg))
}

func (p *peer) userRequest(route string, arg proto.Message) *pb.Request {
	r := &pb.Request{Type: pb.RPCType_User, Metadata: p.metadata(), Msg: &pb.Msg{Route: route}}
	if arg != nil {
		r.Msg.Data = []byte(protobuf(arg))
	}
	if p.frontend {
		r.FrontendID = p.id
	}
	return r
}

// asked is the call of a remote by another server, which is a frontend if it has
// an id here.
func (p *peer) asked(frontendID, route string, arg proto.Message) *pb.Request {
	r := &pb.Request{Type: pb.RPCType_User, FrontendID: frontendID, Msg: &pb.Msg{Route: route}}
	if arg != nil {
		r.Msg.Data = []byte(protobuf(arg))
	}
	return r
}

// forward sends a client's message to a backend, in the background, and returns
// what waits for its answer.
func (p *peer) forward(serverType, id string, session *pb.Session, msg *pb.Msg) (answer func() *pb.Response) {
	p.t.Helper()
	r := &pb.Request{Type: pb.RPCType_Sys, Session: session, Msg: msg, FrontendID: p.id, Metadata: p.metadata()}
	b, err := proto.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	inbox := nats.NewInbox()
	answers := make(chan *nats.Msg, 1)
	p.subscribe(inbox, answers)
	if err := p.nc.PublishRequest("pitaya/servers/"+serverType+"/"+id, inbox, b); err != nil {
		p.t.Fatal(err)
	}
	return func() *pb.Response {
		p.t.Helper()
		response := new(pb.Response)
		if err := proto.Unmarshal(p.message(answers, "answer to "+msg.Route).Data, response); err != nil {
			p.t.Fatal(err)
		}
		return response
	}
}

// wantData checks an answer.
func wantData(t *testing.T, r *pb.Response, want string) {
	t.Helper()
	if r.Error != nil || string(r.Data) != want {
		t.Errorf("answer %v, want data %q", r, want)
	}
}

func wantError(t *testing.T, r *pb.Response, code, msg string) {
	t.Helper()
	if r.Error == nil || r.Error.Code != code || !strings.HasPrefix(r.Error.Msg, msg) {
		t.Errorf("answer %v, want error %s %s", r, code, msg)
	}
}

// notice checks the next message to the server's type or users.
func (p *peer) notice(subject string, got, want proto.Message) {
	p.t.Helper()
	m := p.message(p.others, "message on "+subject)
	if err := proto.Unmarshal(m.Data, got); err != nil || m.Subject != subject || !proto.Equal(got, want) || m.Reply != "" {
		p.t.Errorf("%s got %v on %s (reply %q, %v), want %v on %s", p.id, got, m.Subject, m.Reply, err, want, subject)
	}
}

// notify publishes what nobody answers.
func (p *peer) notify(subject string, m proto.Message) {
	p.t.Helper()
	if err := p.nc.Publish(subject, []byte(protobuf(m))); err != nil {
		p.t.Fatal(err)
	}
}

// ack is the answer of sys remotes, in the form of section 9.1.
var ack = &pb.Response{Data: []byte("\x0a\x03ack")}

// forwardKeys are the keys of the metadata of a client's message, and of a call
// that its handler makes.
var forwardKeys = []string{"peer.id", "peer.service", "req-route", "req-start-time", "reqTimeout", "request.id"}

// A frontend of this library with a backend of Pitaya.
func TestPeerBackend(t *testing.T) {
	f := &farm{etcd: devtest.Etcd(t), nats: devtest.NATS(t), binary: build(t), prefix: "pitaya/"}
	room := f.peer(t, "p1", "room", false, "{}")
	gate := f.peer(t, "pf", "connector", true, "null")
	connect := f.frontend(t, "front")
	c := connect()
	if got, want := keys(t, f.etcdClient(t), "pitaya/servers/connector/front")["pitaya/servers/connector/front"], `{"id":"front","type":"connector","metadata":{`; !strings.HasPrefix(got, want) {
		t.Errorf("entry %s, want %s…", got, want)
	}

	// A request, its answers.
	forward := func(id uint64, payload string) *taken {
		t.Helper()
		m := requestMessage(id, "room.svc.method")
		m.Payload = []byte(payload)
		c.sendMessage(m)
		return room.take()
	}
	first := forward(300, "p\x00")
	session := first.Session.GetId()
	first.want(room, &pb.Request{
		Session:    &pb.Session{Id: session, Data: []byte(`{"ipversion":"ipv4"}`)},
		Msg:        &pb.Msg{Id: 300, Route: "room.svc.method", Data: []byte("p\x00")},
		FrontendID: "front",
	}, forwardKeys...)
	if m := first.metadata; m["peer.id"] != "front" || m["peer.service"] != "connector" || m["req-route"] != "room.svc.method" || m["reqTimeout"] != "5s" || len(m["request.id"].(string)) < 20 {
		t.Errorf("metadata %v", m)
	}
	first.answer(room, &pb.Response{Data: []byte("done")})
	if m := c.message(); m.ID != 300 || string(m.Payload) != "done" || m.Err {
		t.Errorf("client got %+v", m)
	}
	forward(301, "").answer(room, &pb.Response{Data: []byte("ignored"), Error: &pb.Error{Msg: "plain"}})
	if m := c.message(); string(m.Payload) != `{"code":"PIT-000","msg":"plain"}` || !m.Err {
		t.Errorf("client got %s", m.Payload)
	}
	forward(302, "").answer(room, &pb.Response{Error: &pb.Error{Code: "A-1", Msg: "coded", Metadata: map[string]string{"k": "v"}}})
	if m := c.message(); string(m.Payload) != `{"code":"A-1","msg":"coded","metadata":{"k":"v"}}` || !m.Err {
		t.Errorf("client got %s", m.Payload)
	}
	forward(303, "").answer(room, &pb.Response{})
	if m := c.message(); m.ID != 303 || len(m.Payload) != 0 || m.Err {
		t.Errorf("client got %+v", m)
	}
	c.notify("room.svc.notify", "n")
	notify := room.take()
	notify.want(room, &pb.Request{
		Session:    &pb.Session{Id: session, Data: []byte(`{"ipversion":"ipv4"}`)},
		Msg:        &pb.Msg{Route: "room.svc.notify", Data: []byte("n"), Type: pb.MsgType_MsgNotify},
		FrontendID: "front",
	}, forwardKeys...)
	notify.answer(room, &pb.Response{Data: []byte("ack")})

	// The session, from the backend.
	sys := func(route string, arg proto.Message) *pb.Response {
		t.Helper()
		return room.response("connector", "front", room.userRequest(route, arg))
	}
	wantError(t, sys("sys.bindsession", &pb.Session{Id: 99999, Uid: "anne"}), "PIT-000", "session not found")
	wantError(t, sys("sys.pushsession", &pb.Session{Id: 99999, Data: []byte(`{}`)}), "PIT-000", "session not found")
	wantError(t, sys("sys.kick", &pb.KickMsg{UserId: "anne"}), "PIT-000", "session not found")
	if got := room.remote("connector", "front", "sys.bindsession", &pb.Session{Id: session, Uid: "anne"}); string(got) != "\x0a\x05\x0a\x03ack" {
		t.Errorf("answer to a bind %x", got)
	}
	gate.notice("pitaya/connector/bindings", new(pb.BindMsg), &pb.BindMsg{Uid: "anne", Fid: "front"})
	wantError(t, sys("sys.bindsession", &pb.Session{Id: session, Uid: "anne"}), "PIT-000", "session is already bound to an uid")
	if got := room.remote("connector", "front", "sys.pushsession", &pb.Session{Id: session, Uid: "x", Data: []byte(`{"b":9007199254740993,"a":{"x":[1]}}`)}); string(got) != "\x0a\x05\x0a\x03ack" {
		t.Errorf("answer to session data %x", got)
	}
	changed := forward(304, "")
	changed.want(room, &pb.Request{
		Session:    &pb.Session{Id: session, Uid: "anne", Data: []byte(`{"a":{"x":[1]},"b":9007199254740993}`)},
		Msg:        &pb.Msg{Id: 304, Route: "room.svc.method"},
		FrontendID: "front",
	}, forwardKeys...)
	changed.answer(room, &pb.Response{})
	c.message()

	// Pushes, also as the C++ library sends them.
	room.notify("pitaya/connector/user/anne/push", &pb.Push{Route: "on.x", Uid: "anne", Data: []byte("one")})
	c.wantPush(push{"on.x", "one"})
	m, err := room.nc.Request("pitaya/connector/user/anne/push", []byte(protobuf(&pb.Push{Route: "on.x", Uid: "anne", Data: []byte("two")})), patience)
	if err != nil || string(m.Data) != "\x0a\x03ack" {
		t.Errorf("answer to a push %v, %v", m, err)
	}
	c.wantPush(push{"on.x", "two"})

	// Remotes, called with little metadata, and not at all well.
	little := room.userRequest("connector.testremotesvc.rpctestptrreturnsptr", &testpb.TestRequest{Msg: "m"})
	little.Metadata = []byte(`{"peer.id":"p1","peer.service":"room"}`)
	wantData(t, room.response("connector", "front", little), protobuf(&testpb.TestResponse{Code: 200, Msg: "got m"}))
	wantError(t, sys("connector.testremotesvc.rpctestreturnserror", nil), "PIT-433", "test error")
	missing := sys("connector.testremotesvc.nothing", nil)
	wantError(t, missing, "PIT-404", "route not found")
	if missing.Error.Metadata["route"] != "testremotesvc.nothing" {
		t.Errorf("metadata %v", missing.Error.Metadata)
	}
	for metadata, code := range map[string]string{"": "PIT-500", "null": "PIT-500", "[]": "PIT-500", `{"reqTimeout":5}`: "PIT-500", `{"reqTimeout":"x"}`: "PIT-500"} {
		little.Metadata = []byte(metadata)
		wantError(t, room.response("connector", "front", little), code, "")
	}
	little.Metadata = room.metadata()
	little.Msg.Route = "a.b.c.d"
	bad := room.response("connector", "front", little)
	wantError(t, bad, "PIT-400", "cannot decode route")
	if bad.Error.Metadata["route"] != "a.b.c.d" {
		t.Errorf("metadata %v", bad.Error.Metadata)
	}
	little.Type = 7
	little.Msg.Route = "connector.a.b"
	wantError(t, room.response("connector", "front", little), "PIT-400", "invalid rpc type")

	// A call of a handler.
	m3 := requestMessage(305, "interopsvc.rpc")
	m3.Payload = []byte(`{"route":"room.some.remote","msg":"m"}`)
	c.sendMessage(m3)
	called := room.take()
	called.want(room, room.asked("front", "room.some.remote", &testpb.TestRequest{Msg: "m"}), forwardKeys...)
	if got := called.metadata["req-route"]; got != "interopsvc.rpc" {
		t.Errorf("req-route %q, want that of the client", got)
	}
	called.answer(room, &pb.Response{Data: []byte(protobuf(&testpb.TestResponse{Code: 1, Msg: "r"}))})
	if m := c.message(); string(m.Payload) != `{"code":1,"msg":"r"}` {
		t.Errorf("client got %s", m.Payload)
	}

	// Users on a frontend of Pitaya, one by one.
	gate.user("bert")
	gate.user("carl")
	c.check([]row{
		{
			route: "interopsvc.pushto", payload: `{"uids":["bert","anne","carl"],"route":"p","msg":"hi","frontend":"connector"}`,
			want: `{"failed":[],"err":""}`, pushes: []push{{"p", "hi"}},
		},
		{route: "interopsvc.kickto", payload: `{"uids":["carl"],"frontend":"connector"}`, want: `{"failed":[],"err":""}`},
	})
	gate.notice("pitaya/connector/user/bert/push", new(pb.Push), &pb.Push{Route: "p", Uid: "bert", Data: []byte("hi")})
	gate.notice("pitaya/connector/user/carl/push", new(pb.Push), &pb.Push{Route: "p", Uid: "carl", Data: []byte("hi")})
	gate.notice("pitaya/connector/user/carl/kick", new(pb.KickMsg), &pb.KickMsg{UserId: "carl"})

	// A user who comes back on a frontend of Pitaya, and other kicks.
	gate.notify("pitaya/connector/bindings", &pb.BindMsg{Uid: "anne", Fid: "front"}) // says who has it
	gate.notify("pitaya/connector/bindings", &pb.BindMsg{Uid: "nobody", Fid: "pf"})
	gate.idleBut("connector", "front", 2) // its own
	c.must("interopsvc.whoami", "")
	gate.notify("pitaya/connector/bindings", &pb.BindMsg{Uid: "anne", Fid: "pf"})
	c.wantKick()
	gate.message(gate.others, "its own announcement")
	for _, kick := range []func(){
		func() { room.notify("pitaya/connector/user/anne/kick", &pb.KickMsg{UserId: "anne"}) },
		func() {
			if got := room.remote("connector", "front", "sys.kick", &pb.KickMsg{UserId: "anne"}); string(got) != "\x0a\x02\x08\x01" {
				t.Errorf("answer to a kick %x", got)
			}
		},
	} {
		c := connect()
		c.request("testsvc.testbindid", "anne") // the second time with an error: anne is in the group already
		gate.notice("pitaya/connector/bindings", new(pb.BindMsg), &pb.BindMsg{Uid: "anne", Fid: "front"})
		kick()
		c.wantKick()
	}

	// A backend that goes: the frontend learns it from etcd.
	if _, err := f.etcdClient(t).Delete(t.Context(), f.prefix+"servers/room/p1"); err != nil {
		t.Fatal(err)
	}
	last := connect()
	for {
		if got, _ := last.request("interopsvc.rpcto", `{"serverid":"p1","route":"room.a.b"}`); strings.Contains(got, "server not found") {
			break
		}
		<-room.calls
	}
	for { // for a second it is still worth a try
		got, _ := last.request("room.a.b", "")
		if got == `{"code":"PIT-500","msg":"no servers available of this type"}` {
			break
		}
		if !strings.Contains(got, `"PIT-408"`) {
			t.Fatalf("without a backend: got %s", got)
		}
		<-room.calls
	}
	room.idle("connector", "front")
	gate.idle("connector", "front")
}

// A frontend of Pitaya with backends of this library.
func TestPeerFrontend(t *testing.T) {
	f := &farm{etcd: devtest.Etcd(t), nats: devtest.NATS(t), binary: build(t), prefix: "pitaya/"}
	gate := f.peer(t, "pf", "connector", true, `{"k":"v"}`)
	f.backend(t, "room")
	const room = "room"
	session := &pb.Session{Id: 7, Data: []byte(`{"ipversion":"ipv4"}`)}
	request := func(route, payload string) func() *pb.Response {
		t.Helper()
		return gate.forward(room, room, session, &pb.Msg{Id: 9, Route: "room." + route, Data: []byte(payload)})
	}
	ok := `{"code":200,"msg":"ok"}`

	wantData(t, request("testsvc.testrequestreturnsptr", `{"msg":"m"}`)(), `{"code":200,"msg":"m"}`)
	wantData(t, request("interopsvc.reqinfo", "")(), `{"route":"room.interopsvc.reqinfo","requestid":"VkNmZ1JqT2lEc2xQa3Q5aW","peerid":"pf","peerservice":"connector"}`)
	wantData(t, request("interopsvc.getdata", "")(), `{"data":{"ipversion":"ipv4"}}`)
	wantError(t, request("testsvc.testrequestreturnserror", "")(), "PIT-555", "somerror")
	wantError(t, request("testsvc.nothing", "")(), "PIT-404", "pitaya/handler: room.testsvc.nothing not found")
	wantData(t, gate.forward(room, room, session, &pb.Msg{Route: "room.interopsvc.count", Data: []byte(`{"key":"k"}`), Type: pb.MsgType_MsgNotify})(), "ack")
	wantData(t, request("interopsvc.getcount", `{"key":"k"}`)(), `{"n":1}`)
	wantData(t, gate.forward(room, room, session, &pb.Msg{Id: 9, Route: "whatever.interopsvc.reqinfo"})(),
		`{"route":"whatever.interopsvc.reqinfo","requestid":"VkNmZ1JqT2lEc2xQa3Q5aW","peerid":"pf","peerservice":"connector"}`)
	wantError(t, gate.forward(room, room, &pb.Session{Id: 7, Data: []byte("[")}, &pb.Msg{Id: 9, Route: "room.interopsvc.getdata"})(), "PIT-500", "")
	wantData(t, gate.forward(room, room, &pb.Session{Id: 7, Data: []byte("null")}, &pb.Msg{Id: 9, Route: "room.interopsvc.getdata"})(), `{"data":{}}`)

	// What handlers do to the session goes to its frontend.
	var answer func() *pb.Response
	asked := func(route string, arg proto.Message) *taken {
		t.Helper()
		c := gate.take()
		c.want(gate, gate.asked("", route, arg), forwardKeys...)
		if m := c.metadata; m["peer.id"] != room || m["peer.service"] != room || m["request.id"] != "VkNmZ1JqT2lEc2xQa3Q5aW" {
			t.Errorf("metadata %v", m)
		}
		return c
	}
	answer = request("testsvc.testbindid", "anne")
	asked("sys.bindsession", &pb.Session{Id: 7, Uid: "anne"}).answer(gate, &pb.Response{Error: &pb.Error{Msg: "session is already bound to an uid"}})
	wantError(t, answer(), "PIT-444", "session is already bound to an uid")
	answer = request("testsvc.testbindid", "anne")
	asked("sys.bindsession", &pb.Session{Id: 7, Uid: "anne"}).answer(gate, ack)
	wantData(t, answer(), "ack")
	session.Uid = "anne"

	answer = request("interopsvc.setdata", `{"data":{"b":12345678901,"a":"x"}}`)
	asked("sys.pushsession", &pb.Session{Id: 7, Uid: "anne", Data: []byte(`{"a":"x","b":12345678901}`)}).answer(gate, ack)
	wantData(t, answer(), ok)
	answer = request("interopsvc.setdata", `{"data":{}}`)
	asked("sys.pushsession", &pb.Session{Id: 7, Uid: "anne", Data: []byte(`{}`)}).answer(gate, &pb.Response{Error: &pb.Error{Code: "PIT-000", Msg: "session not found"}})
	wantError(t, answer(), "PIT-452", "")

	gate.user("anne")
	gate.user("bert")
	wantData(t, request("interopsvc.pushself", `{"route":"r","msg":"m","count":2}`)(), ok)
	for n := range 2 {
		gate.notice("pitaya/connector/user/anne/push", new(pb.Push), &pb.Push{Route: "r", Uid: "anne", Data: fmt.Append(nil, "m", n)})
	}
	answer = request("testsvc.testrequestkickme", "")
	asked("sys.kick", &pb.KickMsg{UserId: "anne"}).answer(gate, &pb.Response{Data: []byte("\x08\x01")})
	wantData(t, answer(), ok)

	// Users by uid and groups: one message for each user.
	wantData(t, request("interopsvc.pushto", `{"uids":["bert","anne"],"route":"p","msg":"hi","frontend":"connector"}`)(), `{"failed":[],"err":""}`)
	gate.notice("pitaya/connector/user/bert/push", new(pb.Push), &pb.Push{Route: "p", Uid: "bert", Data: []byte("hi")})
	gate.notice("pitaya/connector/user/anne/push", new(pb.Push), &pb.Push{Route: "p", Uid: "anne", Data: []byte("hi")})
	answer = gate.forward(room, room, &pb.Session{Id: 8}, &pb.Msg{Id: 1, Route: "room.testsvc.testbindid", Data: []byte("bert")})
	asked("sys.bindsession", &pb.Session{Id: 8, Uid: "bert"}).answer(gate, ack)
	wantData(t, answer(), "ack")
	gate.forward(room, room, session, &pb.Msg{Route: "room.testsvc.testsendgroupmsg", Data: []byte("g"), Type: pb.MsgType_MsgNotify})
	gate.notice("pitaya/connector/user/anne/push", new(pb.Push), &pb.Push{Route: "route.test", Uid: "anne", Data: []byte("g")})
	gate.notice("pitaya/connector/user/bert/push", new(pb.Push), &pb.Push{Route: "route.test", Uid: "bert", Data: []byte("g")})
	wantData(t, request("interopsvc.kickto", `{"uids":["bert"],"frontend":"connector"}`)(), `{"failed":[],"err":""}`)
	gate.notice("pitaya/connector/user/bert/kick", new(pb.KickMsg), &pb.KickMsg{UserId: "bert"})

	// Calls of remotes, and their errors.
	answer = request("testsvc.testsendrpc", `{"route":"connector.some.remote","data":"d"}`)
	asked("connector.some.remote", &testpb.TestRequest{Msg: "d"}).answer(gate, &pb.Response{Error: &pb.Error{Code: "PIT-433", Msg: "test error", Metadata: map[string]string{"some": "meta"}}})
	if r := answer(); r.Error.GetCode() != "PIT-433" || r.Error.GetMetadata()["some"] != "meta" {
		t.Errorf("answer %v", r)
	}
	answer = request("interopsvc.rpcto", `{"serverid":"pf","route":"connector.some.remote"}`)
	asked("connector.some.remote", nil).answer(gate, &pb.Response{})
	wantData(t, answer(), `{"code":0,"msg":""}`)
	gate.idle(room, room)
}
