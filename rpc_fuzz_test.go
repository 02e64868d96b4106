package pitaya_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// The envelopes between servers are read and written by hand. What these tests hold them to is the library of protobuf:
// the same bytes are refused, and the others mean the same.

// An envelope is one that reads and writes itself.
type envelope interface {
	Encode() []byte
	Decode(b []byte) error
}

// addVectors adds all bytes of vectors, at any depth, as seeds.
func addVectors(f *testing.F, files ...string) {
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, v := range v {
				text, ok := v.(string)
				if !ok || !strings.HasSuffix(k, "hex") && !strings.HasPrefix(k, "answer_to") {
					walk(v)
					continue
				}
				var h hexBytes
				if h.UnmarshalText([]byte(text)) == nil {
					f.Add([]byte(h))
				}
			}
		case []any:
			for _, v := range v {
				walk(v)
			}
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join("testdata", "vectors", file+".json"))
		if err != nil {
			f.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			f.Fatal(err)
		}
		walk(v)
	}
	// Repeated and split sub-messages, fields of other kinds, groups, numbers that do not exist, over-long varints.
	for _, s := range []string{
		"\x12\x02\x08\x01\x12\x03\x12\x01u", "\x12\x02\x08\x01\x12\x02\x08\x02", "\x0d\x01\x02\x03\x04", "\x0a\x01x\x10\x05",
		"\x0b\x08\x01\x0c", "\x0b\x08\x01", "\x0c", "\x00\x01", "\x02\x00", "\x80\x80\x80\x80\x10\x01", "\xf8\xff\xff\xff\x0f\x01",
		"\xf8\xff\xff\xff\x7f\x01", "\x88\x80\x80\x80\x00\x01", "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
		"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "\x08", "\x12\x05\x08\x01", "\x22\x01\xff", "\x1a\x03\x12\x01\xff",
		"\x12\x08\x1a\x06\x0a\x01k\x12\x01\xff", "\x12\x06\x1a\x04\x0a\x00\x12\x00", "\x12\x02\x1a\x00", "\x07\x00", "\x0f\x00",
	} {
		f.Add([]byte(s))
	}
}

// sameVerdict decodes b in both ways. It reports whether it is valid.
func sameVerdict(t *testing.T, b []byte, got envelope, want proto.Message) bool {
	t.Helper()
	wantErr := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, want)
	gotErr := got.Decode(b)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("%x: got %v, the library says %v", b, gotErr, wantErr)
	}
	return gotErr == nil
}

// sameEncoded checks that what was decoded, encoded again, is the message.
func sameEncoded(t *testing.T, got envelope, want proto.Message) {
	t.Helper()
	again := want.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(got.Encode(), again); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again, want) {
		t.Fatalf("got %s, want %s", protojson.Format(again), protojson.Format(want))
	}
}

func FuzzRPCRequest(f *testing.F) {
	addVectors(f, "rpc_request", "rpc_response", "protobuf")
	f.Fuzz(func(t *testing.T, b []byte) {
		var got pitaya.RPCRequest
		var want pb.Request
		if !sameVerdict(t, b, &got, &want) {
			return
		}
		if got.HasMsg != (want.Msg != nil) || got.HasSession != (want.Session != nil) {
			t.Fatalf("%x: got message %v and session %v", b, got.HasMsg, got.HasSession)
		}
		if want.Msg == nil {
			want.Msg = new(pb.Msg) // calls always have one
		}
		want.Msg.Reply = "" // the transport's business
		sameEncoded(t, &got, &want)
		if n := len(got.Encode()); n != cap(got.Encode()) {
			t.Errorf("encoded in %d bytes of %d", n, cap(got.Encode()))
		}
	})
}

func FuzzRPCResponse(f *testing.F) {
	addVectors(f, "rpc_response", "protobuf", "frontend_flows")
	f.Fuzz(func(t *testing.T, b []byte) {
		var got pitaya.RPCResponse
		var want pb.Response
		if !sameVerdict(t, b, &got, &want) {
			return
		}
		if !bytes.Equal(got.Data, want.Data) {
			t.Fatalf("got data %x, want %x", got.Data, want.Data)
		}
		if want.Error != nil {
			want.Data = nil // an error stands alone
			if want.Error.Code == "" {
				want.Error.Code = pitaya.CodeUnknown
			}
			if want.Error.Msg == "" {
				want.Error.Msg = got.Err.Message
			}
		}
		sameEncoded(t, &got, &want)
	})
}

func FuzzRPCPush(f *testing.F) {
	addVectors(f, "nats_publish", "backend_flows", "protobuf")
	f.Fuzz(func(t *testing.T, b []byte) {
		var got pitaya.RPCPush
		var want pb.Push
		if sameVerdict(t, b, &got, &want) {
			sameEncoded(t, &got, &want)
		}
	})
}

func FuzzRPCSession(f *testing.F) {
	addVectors(f, "backend_flows", "protobuf")
	f.Fuzz(func(t *testing.T, b []byte) {
		var got pitaya.RPCSession
		var want pb.Session
		if sameVerdict(t, b, &got, &want) {
			sameEncoded(t, &got, &want)
		}
	})
}

// ownMessages describes the envelopes that only servers of this library send.
func ownMessages(t testing.TB) map[string]protoreflect.MessageDescriptor {
	const (
		num   = descriptorpb.FieldDescriptorProto_TYPE_UINT64
		id    = descriptorpb.FieldDescriptorProto_TYPE_INT64
		yes   = descriptorpb.FieldDescriptorProto_TYPE_BOOL
		text  = descriptorpb.FieldDescriptorProto_TYPE_STRING
		data  = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		texts = -text // repeated
	)
	file := &descriptorpb.FileDescriptorProto{Name: new("own.proto"), Syntax: new("proto3"), Package: new("own")}
	for name, types := range map[string][]descriptorpb.FieldDescriptorProto_Type{
		"Users":  {text, texts, data},
		"Claim":  {text, text, num},
		"Answer": {yes, yes, num},
		"Event":  {num, id, text, text, text},
	} {
		m := &descriptorpb.DescriptorProto{Name: &name}
		for i, typ := range types {
			label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
			if typ < 0 {
				typ, label = -typ, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
			}
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: new(string(rune('a' + i))), Number: new(int32(i + 1)), Type: &typ, Label: &label,
			})
		}
		file.MessageType = append(file.MessageType, m)
	}
	d, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	messages := make(map[string]protoreflect.MessageDescriptor)
	for i := range d.Messages().Len() {
		m := d.Messages().Get(i)
		messages[string(m.Name())] = m
	}
	return messages
}

// fuzzOwn compares an envelope of this library's own with its description.
func fuzzOwn(f *testing.F, name string, seed envelope, open func() envelope) {
	addVectors(f, "protobuf")
	f.Add(seed.Encode())
	description := ownMessages(f)[name]
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := open(), dynamicpb.NewMessage(description)
		if sameVerdict(t, b, got, want) {
			sameEncoded(t, got, want)
		}
	})
}

func FuzzRPCUsers(f *testing.F) {
	fuzzOwn(f, "Users", &pitaya.RPCUsers{Route: []byte("onPush"), UIDs: []string{"a", "b"}, Data: []byte("x")},
		func() envelope { return new(pitaya.RPCUsers) })
}

func FuzzRPCClaim(f *testing.F) {
	fuzzOwn(f, "Claim", &pitaya.RPCClaim{UID: "u", FID: "f", Stamp: 1 << 60}, func() envelope { return new(pitaya.RPCClaim) })
}

func FuzzRPCClaimAnswer(f *testing.F) {
	fuzzOwn(f, "Answer", &pitaya.RPCClaimAnswer{Refused: true, Bound: true, Stamp: 7},
		func() envelope { return new(pitaya.RPCClaimAnswer) })
}

func FuzzRPCEvent(f *testing.F) {
	fuzzOwn(f, "Event", &pitaya.RPCEvent{Kind: 1, Session: -2, UID: "u", FID: "f", Reason: "r"},
		func() envelope { return new(pitaya.RPCEvent) })
}

// jsonObject decodes b as encoding/json does, if it is an object and nothing else.
func jsonObject(b []byte, numbers bool) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if numbers {
		d.UseNumber()
	}
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	if v == nil {
		return nil, errors.New("null")
	}
	return v, nil
}

// FuzzPropagated holds Request.metadata against what encoding/json makes of it.
func FuzzPropagated(f *testing.F) {
	addVectors(f, "rpc_request", "context")
	for _, s := range []string{
		`{"reqTimeout":5}`, `{"REQTIMEOUT":5}`, `{"reqTimeout":"1s","reqTimeout":"2s"}`, `{"reqTimeout":null,"request.id":null}`,
		`{"req\u0054imeout":"3s"}`, `{"request.id":"\ud800"}`, `{"request.id":["x"]}`, "{\"request.id\":\"\xff\"}", "\n{ } ",
		`{"a":1e999}`, `{"a":1}{}`, `{"otel-span":1}`, `{"otel-span":{"a":1}}`, `{"otel-span":{"a":"b"}}`, `{"a":{"reqTimeout":5}}`,
		`{"reqTimeout":"-5s"}`, `{"reqTimeout":"0"}`, `{"reqTimeout":"2562047h47m16.854775807s"}`, `{"Request.ID":"a"}`,
		"{\"re\u017fTimeout\":5,\"reque\u017ft.id\":1}", `{"":{"}":"{"},"\"":"\\"}`, `{"a":[[],[1,"]"]]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, wantErr := jsonObject(b, true)
		var id string
		var limit time.Duration
		if wantErr == nil {
			id, _ = all["request.id"].(string)
			switch v := all["reqTimeout"].(type) {
			case nil:
			case string:
				if limit, wantErr = time.ParseDuration(v); limit <= 0 {
					limit = time.Nanosecond // it is over
				}
			default:
				wantErr = errors.New("no text")
			}
		}
		gotID, gotLimit, values, err := pitaya.DecodePropagated(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got error %v, want %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		if gotID != id || gotLimit != limit {
			t.Fatalf("%q: got id %q and timeout %v, want %q and %v", b, gotID, gotLimit, id, limit)
		}
		want, err := jsonObject(b, false)
		if err != nil {
			return // a number that is none for float64
		}
		if _, kept := values["otel-span"]; !kept {
			delete(want, "otel-span") // checked elsewhere
		}
		if !reflect.DeepEqual(values, want) {
			t.Fatalf("%q: got %v, want %v", b, values, want)
		}
	})
}

// FuzzForwardedMetadata writes Request.metadata of clients' messages. It must be what encoding/json writes.
func FuzzForwardedMetadata(f *testing.F) {
	f.Add("front-1", "connector", "room.h.echo", int64(1700000000123456789), int64(5*time.Second), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("<&>", "\"\\\x7f", "\u2028\xff\x00", int64(-1), int64(1), "\xff<&>\"")
	f.Add("", "", "", int64(0), int64(1<<63-1), "")
	f.Fuzz(func(t *testing.T, id, serverType, route string, start, limit int64, parent string) {
		var span map[string]string
		if parent != "" {
			span = map[string]string{"traceparent": parent, parent: "x"}
		}
		got := pitaya.AppendForwarded(id, serverType, route, "request-1", time.Unix(0, start), time.Duration(limit), span)
		var values map[string]json.RawMessage
		if err := json.Unmarshal(got, &values); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		all := map[string]any{
			"peer.id": id, "peer.service": serverType, "req-route": route, "req-start-time": start,
			"reqTimeout": pitaya.LimitText(time.Duration(limit)), "request.id": "request-1",
		}
		if span != nil {
			all["otel-span"] = span
		}
		want, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
		if carrier := pitaya.CarrierOf(got); span != nil && utf8.ValidString(parent) && len(parent) < 100 && !maps.Equal(carrier, span) {
			t.Fatalf("got the trace %q, want %q", carrier, span)
		}
		if limit > 0 {
			if d, err := time.ParseDuration(pitaya.LimitText(time.Duration(limit))); err != nil || d <= 0 {
				t.Fatalf("limit %d travels as %v, %v", limit, d, err)
			}
		}
	})
}

// FuzzSessionData takes any session data, as a whole and as changes.
func FuzzSessionData(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", " null", "[]", "zz", `{"a":1}`, `{"a":1e999}`, `{"a":9007199254740993}`, `{"a":1,"a":2}`, `{"a":1} x`,
		`{"set":{"a":1},"delete":["b"]}`, `{"set":null}`, `{"set":[]}`, `{"delete":[null]}`, `{"set":{"a":null}}`, "{\"\xff\":1}",
		`{"set":{"a":1},"delete":["a"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := map[string]any{"b": "x", "c": json.Number("1")}
		want, wantErr := jsonObject(b, true)
		switch {
		case len(b) == 0:
			want, wantErr = before, nil
		case string(b) == "null":
			want, wantErr = map[string]any{}, nil
		}
		check := func(what string, s pitaya.DataSession, err, wantErr error, want map[string]any) {
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%s %q: got error %v, want %v", what, b, err, wantErr)
			}
			if err != nil {
				want = before
			}
			if got := s.Data(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s %q: got %v, want %v", what, b, got, want)
			}
			encoded, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Encoded(); !bytes.Equal(got, encoded) {
				t.Fatalf("%s %q: goes on as %s, want %s", what, b, got, encoded)
			}
			if err := s.Set("k", 1); err != nil {
				t.Fatal(err)
			}
		}
		whole := pitaya.NewDataSession(maps.Clone(before))
		check("replace", whole, whole.Replace(b), wantErr, want)

		var changes struct {
			Set    map[string]json.RawMessage
			Delete []string
		}
		wantErr = json.Unmarshal(b, &changes)
		want = maps.Clone(before)
		for k, raw := range changes.Set {
			d := json.NewDecoder(bytes.NewReader(raw))
			d.UseNumber()
			var v any
			if err := d.Decode(&v); err != nil {
				wantErr = err
			}
			want[k] = v
		}
		for _, k := range changes.Delete {
			delete(want, k)
		}
		merged := pitaya.NewDataSession(maps.Clone(before))
		check("merge", merged, merged.Merge(b), wantErr, want)
	})
}

// FuzzPing is a remote that answers whatever happens.
type FuzzPing struct{}

func (FuzzPing) Ping(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Msg: in.Msg}, nil
}

// A fuzzServer is a frontend at work, and another server that can send it anything.
type fuzzServer struct {
	*testServer
	peer   pitaya.Transport
	ping   []byte
	client net.Conn // of the session that is bound
}

func newFuzzServer(f *testing.F) *fuzzServer {
	f.Helper()
	c := pitaya.NewMemCluster()
	cfg := pitaya.Config{Logger: errorLogs(f)}
	cfg.Discovery, cfg.Transport = c.Node()
	handler := &VectorHandler{probe: func(ctx context.Context, s *pitaya.Session) {
		s.Set("k", 1)
		s.PushToFront(ctx)
	}}
	srv := &fuzzServer{ping: userRequest(f, "r.ping", "\x0a\x01m", "{}")}
	srv.testServer = runCluster(f, vectorFront(), cfg, func(s *pitaya.Server) {
		handler.srv = s
		lower := pitaya.WithNameFunc(strings.ToLower)
		must(f, s.RegisterDocs(pitaya.DocsOptions{}), s.Register(handler, pitaya.WithName("h"), lower), s.RegisterRemote(FuzzPing{}, pitaya.WithName("r"), lower),
			s.OnSessionEvent(func(pitaya.SessionEvent) {}))
	})
	_, srv.peer = c.Node()
	must(f, srv.peer.Listen(f.Context(), vectorRoom(), grpcHandler{}))
	f.Cleanup(func() {
		srv.peer.Close(context.Background())
		if srv.client != nil {
			srv.client.Close()
		}
	})
	return srv
}

// bound returns the session of the user u-1, anew if the one before was rightly ended.
func (srv *fuzzServer) bound(t *testing.T) *pitaya.Session {
	t.Helper()
	if s := srv.SessionByUID("u-1"); s != nil {
		return s
	}
	if srv.client != nil {
		srv.client.Close()
	}
	// Not closed with t: the session is for the inputs to come as well.
	var err error
	if srv.client, err = srv.Mem.DialContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	(&rawClient{Conn: srv.client, t: t}).handshake(`{"sys":{}}`)
	newest := slices.MaxFunc(slices.Collect(srv.Sessions()), func(a, b *pitaya.Session) int { return cmp.Compare(a.ID(), b.ID()) })
	if err := newest.Bind(t.Context(), "u-1"); err != nil {
		t.Fatal(err)
	}
	return newest
}

// ended checks that a session has ended with a cause, or has not ended.
func (srv *fuzzServer) ended(t *testing.T, s *pitaya.Session, ended bool, cause error) {
	t.Helper()
	if !ended {
		if err := context.Cause(s.Context()); err != nil {
			t.Fatalf("the session has ended: %v", err)
		}
		return
	}
	transporttest.Await(t, s.Context().Done())
	if err := context.Cause(s.Context()); !errors.Is(err, cause) {
		t.Fatalf("the session has ended with %v, want %v", err, cause)
	}
}

// call returns the answer to a call.
func (srv *fuzzServer) call(t *testing.T, body []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), transporttest.Patience)
	defer cancel()
	var answer []byte
	done := make(chan error, 1)
	srv.peer.Call(ctx, vectorFront(), body, func(response []byte, err error) {
		answer = bytes.Clone(response)
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return answer
}

func (srv *fuzzServer) notify(t *testing.T, kind pitaya.NoticeKind, body []byte) {
	t.Helper()
	err := srv.peer.Notify(t.Context(), &pitaya.Notice{
		Kind: kind, FrontendType: "connector", UID: "u-1", Server: vectorFront(), Body: body,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lives checks that the server answers, and behind what it was sent before.
func (srv *fuzzServer) lives(t *testing.T) {
	t.Helper()
	if err := wantBytes("answer", srv.call(t, srv.ping), []byte("\x0a\x03\x12\x01m")); err != nil {
		t.Fatal(err)
	}
	if n := srv.Stats().Panics; n > 0 {
		t.Fatalf("%d panics", n)
	}
}

// FuzzBackend sends a running server anything that another can: calls, pushes, kicks and binds. It must go on.
func FuzzBackend(f *testing.F) {
	add := func(name string, kind byte) {
		b, err := os.ReadFile(filepath.Join("testdata", "vectors", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`hex": *"([0-9a-f]*)"`).FindAllSubmatch(b, -1) {
			var h hexBytes
			if err := h.UnmarshalText(m[1]); err != nil {
				f.Fatal(err)
			}
			f.Add(kind, []byte(h))
		}
	}
	add("rpc_response", 0)
	add("backend_flows", 0)
	for kind := range byte(4) {
		add("nats_publish", kind)
	}
	for _, route := range []string{"bindsession", "pushsession", "mergesession", "kick", "pushusers", "claimuser", "sessionevent", "docs", "descriptors"} {
		f.Add(byte(0), userRequest(f, "sys."+route, "\x08\x01\x12\x03u-1\x1a\x02{}", "{}"))
		f.Add(byte(0), userRequest(f, "sys."+route, "\x0a\x03u-1\x12\x01f\x18\x05", "{}"))
	}
	srv := newFuzzServer(f)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		srv.bound(t)
		if kind %= 4; kind == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), transporttest.Patience)
			defer cancel()
			srv.peer.Call(ctx, vectorFront(), body, nil)
		} else {
			srv.notify(t, pitaya.NoticeKind(kind-1), body)
		}
		srv.lives(t)
	})
}

// FuzzRPCKick takes any protos.KickMsg. It ends the session of the user that it names, and nobody else's.
func FuzzRPCKick(f *testing.F) {
	addVectors(f, "nats_publish", "backend_flows", "protobuf")
	f.Add([]byte("\x0a\x03u-1"))
	f.Add([]byte("\x0a\x01x\x0a\x03u-1"))
	f.Add([]byte("\x0a\x03u-1\x0a\x01\xff"))
	srv := newFuzzServer(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var want pb.KickMsg
		valid := sameUser(t, b, &want, want.GetUserId)
		s := srv.bound(t)
		var answer pitaya.RPCResponse
		if err := answer.Decode(srv.call(t, userRequest(t, "sys.kick", string(b), "{}"))); err != nil {
			t.Fatal(err)
		}
		kicked := valid && want.UserId == "u-1"
		if (answer.Err == nil) != kicked || !valid && answer.Err.Code != pitaya.CodeBadRequest {
			t.Fatalf("%x: got data %x and error %v", b, answer.Data, answer.Err)
		}
		srv.ended(t, s, kicked, pitaya.ErrKicked)

		s = srv.bound(t)
		srv.notify(t, pitaya.NoticeKick, b)
		srv.lives(t)
		srv.ended(t, s, kicked, pitaya.ErrKicked)
	})
}

// FuzzRPCBind takes any protos.BindMsg. One that says that the user is elsewhere now ends the session here.
func FuzzRPCBind(f *testing.F) {
	addVectors(f, "nats_publish", "backend_flows", "protobuf")
	f.Add([]byte("\x0a\x03u-1\x12\x07front-1"))
	f.Add([]byte("\x0a\x03u-1\x12\x07front-2"))
	f.Add([]byte("\x12\x07front-2\x0a\x03u-1\x12\x00"))
	srv := newFuzzServer(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var want pb.BindMsg
		valid := sameUser(t, b, &want, want.GetUid)
		s := srv.bound(t)
		srv.notify(t, pitaya.NoticeBind, b)
		srv.lives(t)
		srv.ended(t, s, valid && want.Uid == "u-1" && want.Fid != "" && want.Fid != vectorFront().ID, pitaya.ErrReplaced)
	})
}

// sameUser decodes a notice, and checks that the user whom it is for is found without decoding all of it. It reports
// whether it is valid.
func sameUser(t *testing.T, b []byte, m proto.Message, uid func() string) bool {
	t.Helper()
	if proto.Unmarshal(b, m) != nil {
		return false
	}
	if got, err := pitaya.ProtoString(b, 1); err != nil || got != uid() {
		t.Fatalf("%x: got user %q and error %v, want %q", b, got, err, uid())
	}
	return true
}

// FuzzRPCNoticeAnswer takes what servers answer to notices over gRPC: protos.KickAnswer and protos.Response.
func FuzzRPCNoticeAnswer(f *testing.F) {
	addVectors(f, "rpc_response", "backend_flows", "protobuf")
	f.Add([]byte("\x08\x01"))
	f.Add([]byte("\x08\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var kick pb.KickAnswer
		done := proto.Unmarshal(b, &kick) == nil && kick.Kicked
		if err := pitaya.GRPCNoticeAnswer(pitaya.NoticeKick, b); (err == nil) != done {
			t.Fatalf("%x: got %v, kicked %v", b, err, done)
		}
		for _, kind := range []pitaya.NoticeKind{pitaya.NoticePush, pitaya.NoticeBind} {
			var r pb.Response
			done := proto.Unmarshal(b, &r) == nil && r.Error == nil
			err := pitaya.GRPCNoticeAnswer(kind, b)
			if (err == nil) != done {
				t.Fatalf("%x: got %v, error %v", b, err, r.Error)
			}
			if e, ok := errors.AsType[*pitaya.Error](err); ok && e.Code == "" {
				t.Fatalf("%x: an error without a code", b)
			}
		}
	})
}

// A rpcError is a protos.Error that stands alone.
type rpcError struct{ pitaya.Error }

func (e *rpcError) Decode(b []byte) error { return pitaya.DecodeRPCError(&e.Error, b) }

// Encode takes the error out of the answer that it is written in.
func (e *rpcError) Encode() []byte {
	b := (&pitaya.RPCResponse{Err: &e.Error}).Encode()
	_, tag := protowire.ConsumeVarint(b)
	_, size := protowire.ConsumeVarint(b[tag:])
	return b[tag+size:]
}

// FuzzRPCError takes any protos.Error, as it comes from other servers and as it goes to clients.
func FuzzRPCError(f *testing.F) {
	addVectors(f, "rpc_response", "protobuf", "frontend_flows")
	for _, s := range []string{
		"\x0a\x07PIT-404\x12\x04gone\x1a\x06\x0a\x01k\x12\x01v", "\x1a\x06\x0a\x01k\x12\x01v\x1a\x03\x0a\x01k", "\x1a\x00", "\x18\x01",
		`{"code":"PIT-404","msg":"gone","metadata":{"k":"v"}}`, `{"code":1,"msg":"x"}`, `{"metadata":null}`, "null",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got rpcError
		var want pb.Error
		valid := sameVerdict(t, b, &got, &want)
		if valid {
			sameEncoded(t, &got, &want)
		}
		for _, s := range []pitaya.Serializer{pitaya.Protobuf{}, pitaya.JSON{}} {
			e := pitaya.DecodeErrorPayload(s, b)
			if e.Code == "" || e.Message == "" {
				t.Fatalf("%x: a client gets %q, %q from %s", b, e.Code, e.Message, s.Name())
			}
			payload, err := pitaya.MarshalErrorPayload(s, e)
			if err != nil {
				t.Fatal(err)
			}
			again := pitaya.DecodeErrorPayload(s, payload)
			if e := pitaya.WireError(e); again.Code != e.Code || again.Message != e.Message || len(again.Metadata) != len(e.Metadata) {
				t.Fatalf("%x: %v became %v in %s", b, e, again, s.Name())
			}
		}
		if e := pitaya.DecodeErrorPayload(pitaya.Protobuf{}, b); valid && want.Code != "" && e.Code != want.Code {
			t.Fatalf("%x: a client gets the code %q, want %q", b, e.Code, want.Code)
		}
	})
}

// FuzzTraceParent holds the value of traceparent against the form that the W3C gives it, and writes it again.
func FuzzTraceParent(f *testing.F) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, s := range []string{
		good, "", "00", strings.ToUpper(good), good + "-", good[:54], "01" + good[2:], "01" + good[2:] + "-more", "01" + good[2:] + "x",
		"ff" + good[2:], "cc" + good[2:55] + "-\xff", strings.ReplaceAll(good, "-", "_"), "00-" + strings.Repeat("0", 32) + good[35:],
		good[:36] + strings.Repeat("0", 16) + "-00", good[:53] + "ff", "01" + good[2:] + "-" + strings.Repeat("x", 1000), "0G" + good[2:],
	} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?s:(-.*)?)$`)
	f.Fuzz(func(t *testing.T, text string) {
		m := form.FindStringSubmatch(text)
		want := m != nil && m[1] != "ff" && (m[1] != "00" || m[5] == "") && strings.Trim(m[2], "0") != "" &&
			strings.Trim(m[3], "0") != "" && len(text) <= 512
		p, err := pitaya.ParseTraceParent(text)
		if (err == nil) != want {
			t.Fatalf("%q: got %v, want it to be good: %v", text, err, want)
		}
		if err != nil {
			if p != (pitaya.TraceParent{}) || p.String() != "" {
				t.Fatalf("%q: got %v with an error", text, p)
			}
			return
		}
		if again := p.String(); again[3:52] != text[3:52] || m[1] == "00" && again != text || len(again) != 55 {
			t.Fatalf("%q is written as %q", text, again)
		}
		child := p.Child()
		if child.TraceID != p.TraceID || child.SpanID == p.SpanID || child.Flags != p.Flags {
			t.Fatalf("%v is no child of %v", child, p)
		}
	})
}
