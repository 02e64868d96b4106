package pitaya_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// knownServers is a discovery that knows from the start whom there is: the server itself, and peers that the test plays.
type knownServers []*pitaya.ServerInfo

func (k knownServers) Join(_ context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	for _, s := range append([]*pitaya.ServerInfo{self}, k...) {
		watch(pitaya.DiscoveryEvent{Change: pitaya.ServerJoined, Server: s})
	}
	return nil
}

func (knownServers) Update(context.Context, *pitaya.ServerInfo) error { return nil }
func (knownServers) Leave(context.Context) error                      { return nil }
func (knownServers) Healthy() error                                   { return nil }

// The servers of the cluster's vectors. As peers they have no abilities beyond Pitaya's.
func vectorFront() *pitaya.ServerInfo {
	return &pitaya.ServerInfo{ID: "front-1", Type: "connector", Frontend: true}
}
func vectorRoom() *pitaya.ServerInfo { return &pitaya.ServerInfo{ID: "room-1", Type: "room"} }

func subjectOf(s *pitaya.ServerInfo) string { return "pitaya/servers/" + s.Type + "/" + s.ID }

// natsServer runs a server on NATS that knows the given peers.
func natsServer(t testing.TB, url string, self *pitaya.ServerInfo, cfg pitaya.Config, setup func(*pitaya.Server), peers ...*pitaya.ServerInfo) *testServer {
	t.Helper()
	cfg.NATSClient.URL, cfg.NATSServer.URL = url, url
	cfg.Discovery = knownServers(peers)
	return runCluster(t, self, cfg, setup)
}

// runCluster runs a server of a cluster.
func runCluster(t testing.TB, self *pitaya.ServerInfo, cfg pitaya.Config, setup func(*pitaya.Server)) *testServer {
	t.Helper()
	cfg.ID, cfg.Type, cfg.Frontend, cfg.Cluster = self.ID, self.Type, self.Frontend, true
	cfg.NoCompression, cfg.PushCodes = true, pitaya.PushCodesAlways
	if cfg.Logger == nil {
		cfg.Logger = testLogger(t)
	}
	ts := &testServer{ran: make(chan error, 1)}
	if cfg.Frontend {
		ts.Mem = pitaya.ListenMem()
		cfg.Listeners = append(cfg.Listeners, ts.Mem)
	}
	var err error
	if ts.Server, err = pitaya.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(ts.Server)
	}
	var ctx context.Context
	ctx, ts.end = context.WithCancel(context.Background())
	go func() { ts.ran <- ts.Run(ctx) }()
	select {
	case <-ts.Ready():
	case err := <-ts.ran:
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(func() { ts.stop(t) })
	return ts
}

// A natsPeer plays the other servers: a connection without any of the library's own code. It does not hear itself.
type natsPeer struct {
	t    testing.TB
	nc   *nats.Conn
	seen chan *nats.Msg // what the subjects got
}

func newNATSPeer(t testing.TB, url string, subjects ...string) *natsPeer {
	t.Helper()
	nc, err := nats.Connect(url, nats.NoEcho())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	p := &natsPeer{t: t, nc: nc, seen: make(chan *nats.Msg, 1000)}
	for _, subject := range subjects {
		_, err := nc.ChanSubscribe(subject, p.seen)
		must(t, err)
	}
	must(t, nc.Flush())
	return p
}

// request sends a call and returns where its answers come.
func (p *natsPeer) request(subject string, body []byte) <-chan *nats.Msg {
	p.t.Helper()
	inbox := nats.NewInbox()
	answers := make(chan *nats.Msg, 10)
	_, err := p.nc.ChanSubscribe(inbox, answers)
	must(p.t, err, p.nc.PublishRequest(subject, inbox, body))
	return answers
}

// call is request that waits.
func (p *natsPeer) call(subject string, body []byte) []byte {
	p.t.Helper()
	return transporttest.Await(p.t, p.request(subject, body)).Data
}

// respond answers a call that came in.
func (p *natsPeer) respond(m *nats.Msg, body []byte) {
	p.t.Helper()
	must(p.t, p.nc.Publish(m.Reply, body))
}

// VectorRemote and VectorHandler have the remotes and handlers that rpc_response.json and backend_flows.json expect.
type VectorRemote struct {
	probe func(context.Context) // called by Probe
}

func (*VectorRemote) Ping(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: "pong " + in.Msg}, nil
}

func (*VectorRemote) Noarg(ctx context.Context) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: "noarg"}, nil
}

func (*VectorRemote) Empty(ctx context.Context) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{}, nil
}

func (*VectorRemote) Nil(ctx context.Context) (*testpb.TestResponse, error) { return nil, nil }

func (*VectorRemote) Err(ctx context.Context) (*testpb.TestResponse, error) {
	return nil, errors.New("oops")
}

func (*VectorRemote) Perr(ctx context.Context) (*testpb.TestResponse, error) {
	return nil, &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
}

func (*VectorRemote) Panic(ctx context.Context) (*testpb.TestResponse, error) { panic("boom") }

// Slow takes 3 s, or as long as somebody waits.
func (*VectorRemote) Slow(ctx context.Context) (*testpb.TestResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	<-ctx.Done()
	return &testpb.TestResponse{}, ctx.Err()
}

func (r *VectorRemote) Probe(ctx context.Context) (*testpb.TestResponse, error) {
	r.probe(ctx)
	return &testpb.TestResponse{}, nil
}

type VectorHandler struct {
	srv   *pitaya.Server
	probe func(context.Context, *pitaya.Session) // called by Probe
}

func (*VectorHandler) Echo(ctx context.Context, b []byte) ([]byte, error) { return b, nil }

func (*VectorHandler) Note(ctx context.Context, b []byte) {}

func (*VectorHandler) Typed(ctx context.Context, in *roomArg) (*roomReply, error) {
	return roomTyped(ctx, in)
}

func (*VectorHandler) Err(ctx context.Context) ([]byte, error) {
	return nil, &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
}

func (*VectorHandler) Plainerr(ctx context.Context) ([]byte, error) { return nil, errors.New("oops") }

func (*VectorHandler) Setpush(ctx context.Context) ([]byte, error) {
	s := pitaya.SessionFromContext(ctx)
	return []byte("ok"), errors.Join(s.Set("score", 42), s.PushToFront(ctx))
}

func (*VectorHandler) Bind(ctx context.Context, uid []byte) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Bind(ctx, string(uid))
}

func (*VectorHandler) Push(ctx context.Context, b []byte) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Push(ctx, "onPush", b)
}

func (*VectorHandler) Kick(ctx context.Context) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Kick(ctx)
}

func (h *VectorHandler) Pushusers(ctx context.Context, b []byte) ([]byte, error) {
	return []byte("ok"), h.srv.Push(ctx, "connector", []string{"u-1", "u-2"}, "onUsers", b)
}

func (h *VectorHandler) Kickusers(ctx context.Context) ([]byte, error) {
	return []byte("ok"), h.srv.Kick(ctx, "connector", []string{"u-1"})
}

func (h *VectorHandler) Rpcto(ctx context.Context) ([]byte, error) {
	var reply testpb.TestResponse
	err := h.srv.RPCTo(ctx, "front-1", "connector.r.ping", &reply, &testpb.TestRequest{Msg: "m"})
	return []byte(reply.Msg), err
}

func (h *VectorHandler) Probe(ctx context.Context) ([]byte, error) {
	h.probe(ctx, pitaya.SessionFromContext(ctx))
	return []byte("ok"), nil
}

// registerVectors registers both on a server.
func registerVectors(t testing.TB, h *VectorHandler, r *VectorRemote) func(*pitaya.Server) {
	return func(s *pitaya.Server) {
		h.srv = s
		lower := pitaya.WithNameFunc(strings.ToLower)
		must(t, s.Register(h, pitaya.WithName("h"), lower), s.RegisterRemote(r, pitaya.WithName("r"), lower))
	}
}

type responseVector struct {
	Name     string
	Request  hexBytes  `json:"request_hex"`
	Response *hexBytes `json:"response_hex"`
	None     bool      `json:"no_response"`
	Crashes  bool      `json:"reference_crashes"`
	Note     string
}

// check compares an answer. The texts of libraries are not compared.
func (v *responseVector) check(t *testing.T, got []byte) error {
	if v.Name == "user: panic" { // ours is another one, and not just any
		var r pb.Response
		err := proto.Unmarshal(got, &r)
		if err != nil || r.Error.GetCode() != pitaya.CodeInternal || r.Error.Msg != "internal error" || r.Error.Metadata["request"] == "" {
			t.Errorf("panic: got %s, %v", protojson.Format(&r), err)
		}
	}
	if v.Response != nil && !strings.Contains(v.Note, "text informative") {
		return wantBytes("response", got, *v.Response)
	}
	var g, w pb.Response
	w.Error = &pb.Error{Code: pitaya.CodeInternal} // instead of crashing
	if v.Response != nil {
		if err := proto.Unmarshal(*v.Response, &w); err != nil {
			return err
		}
	}
	if err := proto.Unmarshal(got, &g); err != nil {
		return err
	}
	if g.Error.GetMsg() == "" {
		return fmt.Errorf("no text in %s", protojson.Format(&g))
	}
	if len(g.Data) > 0 || g.Error.Code != w.Error.Code || !maps.Equal(g.Error.Metadata, w.Error.Metadata) {
		return fmt.Errorf("got %s, want %s", protojson.Format(&g), protojson.Format(&w))
	}
	return nil
}

// TestRPCResponseVectors sends a backend what the vectors say, over NATS.
func TestRPCResponseVectors(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	srv := natsServer(t, url, vectorRoom(), pitaya.Config{}, registerVectors(t, &VectorHandler{}, &VectorRemote{}))
	peer := newNATSPeer(t, url)
	own := subjectOf(vectorRoom())
	var ping hexBytes
	must(t, ping.UnmarshalText([]byte("08011a12120b726f6f6d2e722e70696e671a030a016d2a027b7d")))
	testVectors(t, "rpc_response", func(v responseVector) error {
		answers := peer.request(own, v.Request)
		if v.None {
			// What is dropped is dropped before the next one is looked at.
			peer.call(own, ping)
			select {
			case m := <-answers:
				return fmt.Errorf("got an answer: %x", m.Data)
			default:
				return nil
			}
		}
		return v.check(t, transporttest.Await(t, answers).Data)
	})
	if n := srv.Stats().Panics; n != 1 {
		t.Errorf("%d panics, want that of the remote", n)
	}
}

// TestRPCResponseVectorsMem does the same in memory, where it takes 300 ms to run into a timeout of 300 ms.
func TestRPCResponseVectorsMem(t *testing.T) {
	t.Parallel()
	testVectors(t, "rpc_response", func(v responseVector) (err error) {
		synctest.Test(t, func(t *testing.T) {
			c := pitaya.NewMemCluster()
			cfg := pitaya.Config{}
			cfg.Discovery, cfg.Transport = c.Node()
			runCluster(t, vectorRoom(), cfg, registerVectors(t, &VectorHandler{}, &VectorRemote{}))
			n := transporttest.NewNet(t, func(*pitaya.ServerInfo) pitaya.Transport { _, tr := c.Node(); return tr })
			peer := n.Server("connector", nil)
			ctx, cancel := context.WithTimeout(t.Context(), transporttest.Patience/2)
			defer cancel()
			got, callErr := peer.Ask(ctx, vectorRoom(), v.Request)
			switch {
			case v.None && !errors.Is(callErr, pitaya.ErrNoAnswer):
				err = fmt.Errorf("got %x, %v, want no answer", got, callErr)
			case v.None:
			case callErr != nil:
				err = callErr
			default:
				err = v.check(t, got)
			}
		})
		return err
	})
}

// sentRequest is a call that a server has published.
type sentRequest struct {
	*pb.Request
	values map[string]json.RawMessage // its metadata
}

func decodeSent(b []byte) (r sentRequest, err error) {
	r.Request = new(pb.Request)
	if err := proto.Unmarshal(b, r.Request); err != nil {
		return r, err
	}
	if err := json.Unmarshal(r.Metadata, &r.values); err != nil {
		return r, err
	}
	// It is written as the standard encoder writes it.
	again, err := json.Marshal(r.values)
	if err != nil {
		return r, err
	}
	return r, wantText("metadata", string(r.Metadata), string(again))
}

// wantRequest compares a call with the one of a vector but for the values of the metadata that vary, which must be there.
// A time limit may have shrunk by what has passed since it came in.
func wantRequest(got, want []byte, vary ...string) error {
	g, err := decodeSent(got)
	if err != nil {
		return err
	}
	w, err := decodeSent(want)
	if err != nil {
		return err
	}
	for _, key := range vary {
		if v, ok := g.values[key]; !ok || len(v) < 2 {
			return fmt.Errorf("no %s in %s", key, g.Metadata)
		}
		w.values[key] = g.values[key]
	}
	if err := wantLimit(g.values, w.values); err != nil {
		return err
	}
	if w.Metadata, err = json.Marshal(w.values); err != nil {
		return err
	}
	// All but the metadata's bytes is compared as bytes: fields in order, without defaults.
	exact, err := proto.MarshalOptions{Deterministic: true}.Marshal(w.Request)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, exact) {
		return fmt.Errorf("got %s with %s\nwant %s with %s",
			protojson.Format(g.Request), g.Metadata, protojson.Format(w.Request), w.Metadata)
	}
	return nil
}

// wantLimit checks that a time limit is the wanted one or a little below it, and makes it the wanted one.
func wantLimit(got, want map[string]json.RawMessage) error {
	var g, w string
	if err := errors.Join(json.Unmarshal(got["reqTimeout"], &g), json.Unmarshal(want["reqTimeout"], &w)); err != nil {
		return err
	}
	gd, gerr := time.ParseDuration(g)
	wd, werr := time.ParseDuration(w)
	if gerr != nil || werr != nil || gd > wd || gd <= wd/2 {
		return fmt.Errorf("reqTimeout: got %q, want %q", g, w)
	}
	want["reqTimeout"] = got["reqTimeout"]
	return nil
}

// waits runs f beside the test and returns where its result comes.
func waits(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// sysRequest is a client's message as a frontend forwards it.
func sysRequest(t testing.TB, session *pb.Session, route, payload, metadata string) []byte {
	b, err := proto.Marshal(&pb.Request{
		Session: session, FrontendID: "front-1", Metadata: []byte(metadata),
		Msg: &pb.Msg{Id: 5, Route: route, Data: []byte(payload)},
	})
	must(t, err)
	return b
}

// userRequest is a call of a remote.
func userRequest(t testing.TB, route, payload, metadata string) []byte {
	b, err := proto.Marshal(&pb.Request{
		Type: pb.RPCType_User, Metadata: []byte(metadata), Msg: &pb.Msg{Route: route, Data: []byte(payload)},
	})
	must(t, err)
	return b
}

// sessionOf returns the session with an id.
func sessionOf(t testing.TB, s *testServer, id int64) *pitaya.Session {
	t.Helper()
	for session := range s.Sessions() {
		if session.ID() == id {
			return session
		}
	}
	t.Fatalf("no session %d", id)
	return nil
}

// TestRPCRequestVectors compares what a server publishes when it calls another.
func TestRPCRequestVectors(t *testing.T) {
	t.Parallel()
	// The frontend and the one who plays the backend, and the other way around: the ids are the same.
	frontURL, roomURL := startNATS(t).URL(), startNATS(t).URL()
	handler := &VectorHandler{}
	front := natsServer(t, frontURL, vectorFront(), pitaya.Config{}, nil, vectorRoom())
	room := natsServer(t, roomURL, vectorRoom(), pitaya.Config{}, registerVectors(t, handler, &VectorRemote{}), vectorFront())
	asRoom := newNATSPeer(t, frontURL, subjectOf(vectorRoom()))
	asFront := newNATSPeer(t, roomURL, subjectOf(vectorFront()))

	pitaya.CountSessionsFrom(front.Server, 0)
	fresh, bound := front.connect(t), front.connect(t)
	session := sessionOf(t, front, 2)
	must(t, session.Bind(t.Context(), "u-1"), session.Set("score", 42))

	testVectors(t, "rpc_request", func(v struct {
		Type    int `json:"rpc_type"`
		Route   string
		Before  json.RawMessage `json:"context_before"`
		From    struct{ ID string }
		To      struct{ ID string }
		Message struct {
			Type string
			ID   uint64   `json:",string"`
			Data hexBytes `json:"data_hex"`
		}
		Session struct {
			ID string
		}
		Subject string
		Request hexBytes `json:"request_hex"`
	}) error {
		srv, peer := front, asRoom
		if v.From.ID == "room-1" {
			srv, peer = room, asFront
		}
		values, err := jsonObject(v.Before, true)
		if err != nil {
			return err
		}
		var vary []string
		var done <-chan error
		var answer []byte
		switch {
		case v.Type == 0:
			c := fresh
			if v.Session.ID == "2" {
				c = bound
			}
			c.request(v.Message.ID, v.Route, string(v.Message.Data))
			// A client's message always has these, a route included that one of the vectors leaves out.
			vary = []string{"request.id", "req-start-time"}
			if values["req-route"] == nil {
				vary = append(vary, "req-route")
			}
			done = waits(func() error {
				if v.Message.ID > 0 {
					c.message()
				}
				return nil
			})
		case strings.HasPrefix(v.Route, "sys."):
			// The handler's own message has given the call an id and a route.
			vary = []string{"request.id", "req-route"}
			sent := &pb.Session{Id: 7, Uid: "u-1"}
			switch v.Route {
			case "sys.bindsession":
				sent.Uid, answer = "", []byte("\x0a\x05\x0a\x03ack")
			case "sys.pushsession":
				sent.Data, answer = []byte(`{"score":42}`), []byte("\x0a\x05\x0a\x03ack")
			case "sys.kick":
				answer = []byte("\x0a\x02\x08\x01")
			}
			failed := make(chan error, 1)
			handler.probe = func(ctx context.Context, s *pitaya.Session) {
				switch v.Route {
				case "sys.bindsession":
					failed <- s.Bind(ctx, "u-1")
				case "sys.pushsession":
					failed <- s.PushToFront(ctx)
				case "sys.kick":
					failed <- s.Kick(ctx)
				}
			}
			ok := peer.request(subjectOf(vectorRoom()), sysRequest(t, sent, "room.h.probe", "", string(v.Before)))
			done = waits(func() error {
				err := transporttest.Await(t, failed)
				transporttest.Await(t, ok)
				return err
			})
		default:
			if strings.Contains(string(v.Request), "traceparent") {
				// There is no tracer to put it there.
				values["otel-span"] = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
			}
			ctx := t.Context()
			for key, value := range values {
				ctx = pitaya.AddToPropagateCtx(ctx, key, value)
			}
			var arg testpb.TestRequest
			if err := proto.Unmarshal(v.Message.Data, &arg); err != nil {
				return err
			}
			done = waits(func() error { return srv.RPCTo(ctx, v.To.ID, v.Route, new(testpb.TestResponse), &arg) })
		}
		m := transporttest.Await(t, peer.seen)
		peer.respond(m, answer)
		if err := transporttest.Await(t, done); err != nil {
			return err
		}
		if v.Session.ID == "1" { // ours differs in the session's data, and in nothing else
			var want pb.Request
			if err := proto.Unmarshal(v.Request, &want); err != nil {
				return err
			}
			want.Session.Data = []byte(`{"ipversion":"ipv4"}`)
			b, err := proto.Marshal(&want)
			if err = errors.Join(err, wantRequest(m.Data, b, vary...)); err != nil {
				t.Error(err)
			}
		}
		return errors.Join(wantText("subject", m.Subject, v.Subject), wantRequest(m.Data, v.Request, vary...))
	})
}

// TestContextVectors looks at what a server sends along for the values of a context, and at what a remote finds in its
// context for what came along.
func TestContextVectors(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	remote := &VectorRemote{}
	front := natsServer(t, url, vectorFront(), pitaya.Config{}, registerVectors(t, &VectorHandler{}, remote), vectorRoom())
	peer := newNATSPeer(t, url, subjectOf(vectorRoom()))
	testVectors(t, "context", func(v struct {
		Name      string
		Direction string
		Error     bool
		Absent    bool
		Text      string `json:"expect_text"`
		Input     string `json:"input_text"`
		Values    json.RawMessage
		Types     map[string]string `json:"value_types"`
	}) error {
		if v.Direction == "decode" {
			var want map[string]any
			if err := json.Unmarshal(v.Values, &want); len(v.Values) > 0 && err != nil {
				return err
			}
			got := make(map[string]any)
			remote.probe = func(ctx context.Context) {
				for key := range want {
					got[key] = pitaya.GetFromPropagateCtx(ctx, key)
				}
			}
			var answer pb.Response
			if err := proto.Unmarshal(peer.call(subjectOf(vectorFront()), userRequest(t, "connector.r.probe", "", v.Input)), &answer); err != nil {
				return err
			}
			refused := v.Error || v.Absent
			if refused != (answer.Error != nil) || refused && answer.Error.Code != pitaya.CodeInternal {
				return fmt.Errorf("got %s", protojson.Format(&answer))
			}
			if !refused && !reflect.DeepEqual(got, want) {
				return fmt.Errorf("got %v, want %v", got, want)
			}
			return nil
		}
		ctx := t.Context()
		want := map[string]json.RawMessage{ // what each call adds
			"peer.id": []byte(`"front-1"`), "peer.service": []byte(`"connector"`), "reqTimeout": []byte(`"5s"`),
		}
		if v.Error {
			err := front.RPC(pitaya.AddToPropagateCtx(ctx, "k", func() {}), "room.r.ping", new(testpb.TestResponse), nil)
			if err == nil || len(peer.seen) > 0 {
				return fmt.Errorf("got %v and %d calls", err, len(peer.seen))
			}
			return nil
		}
		values, err := jsonObject(v.Values, true)
		if err != nil {
			return err
		}
		for key, value := range values {
			switch v.Types[key] {
			case "bytes":
				if value, err = base64.StdEncoding.DecodeString(value.(string)); err != nil {
					return err
				}
			case "int64":
				value, err = value.(json.Number).Int64()
			case "float64":
				value, err = value.(json.Number).Float64()
			}
			if err != nil {
				return err
			}
			ctx = pitaya.AddToPropagateCtx(ctx, key, value)
		}
		if v.Text != "" {
			if err := json.Unmarshal([]byte(v.Text), &want); err != nil {
				return err
			}
		}
		done := waits(func() error { return front.RPC(ctx, "room.r.ping", new(testpb.TestResponse), nil) })
		m := transporttest.Await(t, peer.seen)
		peer.respond(m, nil)
		if err := transporttest.Await(t, done); err != nil {
			return err
		}
		r, err := decodeSent(m.Data)
		if err != nil {
			return err
		}
		text, err := json.Marshal(want)
		if err != nil {
			return err
		}
		return wantText("metadata", string(r.Metadata), string(text))
	})
}

// TestSessionDataVectors looks at session data on a backend: what handlers find in it, and what goes back to the frontend.
func TestSessionDataVectors(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	handler := &VectorHandler{}
	natsServer(t, url, vectorRoom(), pitaya.Config{}, registerVectors(t, handler, &VectorRemote{}), vectorFront())
	peer := newNATSPeer(t, url, subjectOf(vectorFront()))
	testVectors(t, "session_data", func(v struct {
		Name       string
		Direction  string
		Operations []struct {
			Key   string          `json:"set"`
			Type  string          `json:"go_type"`
			Value json.RawMessage `json:"value"`
		}
		Input   string `json:"input_text"`
		Getters map[string]struct {
			Has    bool `json:"HasKey"`
			String string
			Float  float64 `json:"Float64"`
		} `json:"typed_getters"`
		Again string `json:"re_encoded_text"`
		Text  string `json:"expect_text"`
		Error bool
	}) error {
		failed := make(chan error, 1)
		handler.probe = func(ctx context.Context, s *pitaya.Session) {
			for _, op := range v.Operations {
				value := reflect.New(map[string]reflect.Type{
					"string": reflect.TypeFor[string](), "int": reflect.TypeFor[int](), "float64": reflect.TypeFor[float64](),
					"int64": reflect.TypeFor[int64](), "uint8": reflect.TypeFor[uint8](), "[]uint8": reflect.TypeFor[[]byte](),
					"map[string]interface {}": reflect.TypeFor[map[string]any](), "<nil>": reflect.TypeFor[any](),
				}[op.Type])
				err := json.Unmarshal(op.Value, value.Interface())
				if err = errors.Join(err, s.Set(op.Key, value.Elem().Interface())); err != nil {
					failed <- err
					return
				}
			}
			for key, want := range v.Getters {
				text, _ := pitaya.SessionValue[string](s, key)
				if s.Has(key) != want.Has || text != want.String {
					t.Errorf("%s: key %s: got %v, %q", v.Name, key, s.Has(key), text)
				}
				// Integers have their getters as well, and one that is no float64 has no other.
				if f, _ := pitaya.SessionValue[float64](s, key); f != want.Float && key != "big" {
					t.Errorf("%s: key %s: got %v, want %v", v.Name, key, f, want.Float)
				}
			}
			if len(v.Getters) > 0 { // a change, so that it is encoded again
				if err := s.Set("changed", true); err != nil {
					failed <- err
					return
				}
				s.Delete("changed")
			}
			failed <- s.PushToFront(ctx)
		}
		session := &pb.Session{Id: 7, Uid: "u-1", Data: []byte(v.Input)}
		answer := peer.request(subjectOf(vectorRoom()), sysRequest(t, session, "room.h.probe", "", `{"reqTimeout":"5s"}`))
		if v.Error {
			var got pb.Response
			if err := proto.Unmarshal(transporttest.Await(t, answer).Data, &got); err != nil || got.Error.GetCode() != pitaya.CodeInternal {
				return fmt.Errorf("got %s, %v", protojson.Format(&got), err)
			}
			return nil
		}
		m := transporttest.Await(t, peer.seen)
		peer.respond(m, []byte("\x0a\x05\x0a\x03ack"))
		if err := transporttest.Await(t, failed); err != nil {
			return err
		}
		transporttest.Await(t, answer)
		r, err := decodeSent(m.Data)
		if err != nil {
			return err
		}
		var sent pb.Session
		if err := proto.Unmarshal(r.Msg.Data, &sent); err != nil {
			return err
		}
		want := v.Text
		if v.Direction == "decode" {
			want = v.Again
		}
		return wantText("data", string(sent.Data), want)
	})
}

// protobufMessage makes a message of the fields of a vector.
func protobufMessage(m protoreflect.Message, fields map[string]any) error {
	for name, value := range fields {
		short, isBytes := strings.CutSuffix(name, "_hex")
		f := m.Descriptor().Fields().ByName(protoreflect.Name(short))
		if f == nil {
			if strings.HasSuffix(name, "_text") {
				continue // for people
			}
			return fmt.Errorf("no field %s", name)
		}
		one := func(value any) (v protoreflect.Value, err error) {
			switch text, isText := value.(string); {
			case isBytes:
				var b hexBytes
				err = b.UnmarshalText([]byte(text))
				v = protoreflect.ValueOfBytes(b)
			case f.Kind() == protoreflect.EnumKind:
				v = protoreflect.ValueOfEnum(protoreflect.EnumNumber(value.(float64)))
			case f.Kind() == protoreflect.Int64Kind:
				var n int64
				n, err = strconv.ParseInt(text, 10, 64)
				v = protoreflect.ValueOfInt64(n)
			case f.Kind() == protoreflect.Uint64Kind:
				var n uint64
				n, err = strconv.ParseUint(text, 10, 64)
				v = protoreflect.ValueOfUint64(n)
			case isText:
				v = protoreflect.ValueOfString(text)
			default:
				v = protoreflect.ValueOf(value)
			}
			return v, err
		}
		switch {
		case value == nil:
		case f.IsMap():
			for k, v := range value.(map[string]any) {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOf(v))
			}
		case f.IsList():
			for _, v := range value.([]any) {
				v, err := one(v)
				if err != nil {
					return err
				}
				m.Mutable(f).List().Append(v)
			}
		case f.Message() != nil:
			if err := protobufMessage(m.Mutable(f).Message(), value.(map[string]any)); err != nil {
				return err
			}
		default:
			v, err := one(value)
			if err != nil {
				return err
			}
			m.Set(f, v)
		}
	}
	return nil
}

// TestProtobufVectors holds the generated messages and the envelopes written by hand against the same bytes.
func TestProtobufVectors(t *testing.T) {
	byHand := map[string]func() envelope{
		"protos.Request":  func() envelope { return new(pitaya.RPCRequest) },
		"protos.Response": func() envelope { return new(pitaya.RPCResponse) },
		"protos.Push":     func() envelope { return new(pitaya.RPCPush) },
		"protos.Session":  func() envelope { return new(pitaya.RPCSession) },
	}
	testVectors(t, "protobuf", func(v struct {
		Message string
		Fields  map[string]any
		Hex     hexBytes
	}) error {
		typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(v.Message))
		if err != nil {
			return err
		}
		want, got := typ.New(), typ.New()
		if err := protobufMessage(want, v.Fields); err != nil {
			return err
		}
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(want.Interface())
		if err != nil {
			return err
		}
		if err := errors.Join(wantBytes("encoded", encoded, v.Hex), proto.Unmarshal(v.Hex, got.Interface())); err != nil {
			return err
		}
		if !proto.Equal(got.Interface(), want.Interface()) {
			return fmt.Errorf("got %s, want %s", protojson.Format(got.Interface()), protojson.Format(want.Interface()))
		}
		open := byHand[v.Message]
		if open == nil {
			return nil
		}
		own := open()
		if err := own.Decode(v.Hex); err != nil {
			return err
		}
		expect := []byte(v.Hex)
		if r, ok := got.Interface().(*pb.Request); ok && (r.Msg == nil || r.Msg.Reply != "") {
			// A call has a message, and leaves the reply subject to the transport.
			if r.Msg == nil {
				r.Msg = new(pb.Msg)
			}
			r.Msg.Reply = ""
			if expect, err = proto.Marshal(r); err != nil {
				return err
			}
		}
		return wantBytes("encoded by hand", own.Encode(), expect)
	})
}
