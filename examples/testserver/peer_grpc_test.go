//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// A grpcPeer is what a frontend of Pitaya is in a cluster over gRPC: an entry
// and bindings in etcd, and a port. It notes what it is sent.
type grpcPeer struct{ got chan string }

func (p *grpcPeer) HandleCall(_ context.Context, body []byte, reply func([]byte)) {
	var r pb.Request
	if err := proto.Unmarshal(body, &r); err != nil {
		p.got <- err.Error()
	}
	p.got <- fmt.Sprintf("%v %s %x", r.Type, r.GetMsg().GetRoute(), r.GetMsg().GetData())
	reply([]byte(protobuf(ack)))
}

func (p *grpcPeer) HandleNotice(n *pitaya.Notice, reply func([]byte, error)) {
	p.got <- fmt.Sprintf("notice %v %x", n.Kind, n.Body)
	if n.Kind == pitaya.NoticeKick {
		reply([]byte(protobuf(&pb.KickAnswer{Kicked: true})), nil)
		return
	}
	reply([]byte(protobuf(&pb.Response{Data: []byte("ack")})), nil)
}

func (p *grpcPeer) want(t *testing.T, format string, args ...any) {
	t.Helper()
	want := fmt.Sprintf(format, args...)
	select {
	case got := <-p.got:
		if got != want {
			t.Errorf("peer got %s, want %s", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("peer did not get %s", want)
	}
}

func TestPeerGRPC(t *testing.T) {
	f := &farm{etcd: devtest.Etcd(t), nats: devtest.NATS(t), binary: build(t), grpc: true, prefix: "pitaya/"}
	port := freePorts(t, 1)
	p := &grpcPeer{got: make(chan string, 100)}
	transport, err := pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: port}, "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	self := &pitaya.ServerInfo{ID: "pf", Type: "connector", Frontend: true}
	if err := transport.Listen(t.Context(), self, p); err != nil {
		t.Fatal(err)
	}
	defer transport.Close(context.Background())
	if err := transport.Bind(t.Context(), "bert"); err != nil {
		t.Fatal(err)
	}
	etcd := f.etcdClient(t)
	for key, value := range map[string]string{
		"servers/connector/pf":    `{"id":"pf","type":"connector","metadata":{"grpcHost":"127.0.0.1","grpcPort":"` + strconv.Itoa(port) + `"},"frontend":true,"hostname":"h"}`,
		"bindings/connector/anne": "pf",
		"bindings/connector/bert": "pf",
	} {
		if _, err := etcd.Put(t.Context(), "pitaya/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	f.backend(t, "room")
	c := f.frontend(t, "front")()
	hex := func(m proto.Message) string { return fmt.Sprintf("%x", protobuf(m)) }

	// A user who was on the other frontend: it is told, and etcd names this one.
	c.must("testsvc.testbindid", "anne")
	p.want(t, "notice %v %s", pitaya.NoticeBind, hex(&pb.BindMsg{Uid: "anne", Fid: "front"}))
	if got := keys(t, etcd, "pitaya/bindings/connector/anne")["pitaya/bindings/connector/anne"]; got != "front" {
		t.Errorf("anne is on %q", got)
	}
	// Users who are there, from a frontend and a backend.
	push := &pb.Push{Route: "p", Uid: "bert", Data: []byte("hi")}
	for _, serverType := range []string{"connector", "room"} {
		c.check([]row{
			{route: serverType + ".interopsvc.pushto", payload: `{"uids":["bert"],"route":"p","msg":"hi","frontend":"connector"}`, want: `{"failed":[],"err":""}`},
			{route: serverType + ".interopsvc.kickto", payload: `{"uids":["bert"],"frontend":"connector"}`, want: `{"failed":[],"err":""}`},
		})
		p.want(t, "notice %v %s", pitaya.NoticePush, hex(push))
		p.want(t, "notice %v %s", pitaya.NoticeKick, hex(&pb.KickMsg{UserId: "bert"}))
	}
	// One of its clients on a backend of this library.
	r := &pb.Request{
		Session: &pb.Session{Id: 7}, FrontendID: "pf", Metadata: []byte(`{"peer.id":"pf","peer.service":"connector"}`),
		Msg: &pb.Msg{Id: 1, Route: "room.testsvc.testbindid", Data: []byte("carl")},
	}
	var room pitaya.ServerInfo
	room.ID, room.Type = "room", "room"
	room.Metadata = map[string]string{"grpcHost": "127.0.0.1", "grpcPort": f.grpcPort["room"]}
	transport.ServerSeen(&room)
	answer := make(chan *pb.Response, 1)
	transport.Call(t.Context(), &room, []byte(protobuf(r)), func(b []byte, err error) {
		response := new(pb.Response)
		if err == nil {
			err = proto.Unmarshal(b, response)
		}
		if err != nil {
			response.Error = &pb.Error{Msg: err.Error()}
		}
		answer <- response
	})
	p.want(t, "%v sys.bindsession %s", pb.RPCType_User, hex(&pb.Session{Id: 7, Uid: "carl"}))
	wantData(t, <-answer, "ack")
	select {
	case got := <-p.got:
		t.Errorf("peer got %s", got)
	default:
	}
}
