package pitaya_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/routedocs"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// DocGame has messages for handlers.
type DocGame struct{}

func (DocGame) Echo(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return nil, nil
}

// docServer sets up a server with the ready-made handlers.
func docServer(o pitaya.DocsOptions, opts ...pitaya.RegisterOption) func(*pitaya.Server) {
	return func(s *pitaya.Server) {
		s.Register(DocGame{}, pitaya.WithName("game"), pitaya.WithNameFunc(strings.ToLower))
		s.RegisterDocs(o, opts...)
	}
}

const docHandlersText = `"gate.docs.descriptors":{"input":{"*protos.ProtoNames":{"name":["string"]}},"output":[{"*protos.ProtoDescriptors":{"desc":["[]byte"]}},"error"]},` +
	`"gate.docs.docs":{"input":null,"output":[{"*protos.Doc":{"doc":"string"}},"error"]},` +
	`"gate.game.echo":{"input":{"*google.protobuf.StringValue":{"value":"string"}},"output":[{"*google.protobuf.StringValue":{"value":"string"}},"error"]}`

// defines reports whether a descriptor defines a message of the given name.
func defines(t *testing.T, descriptor []byte, name string) bool {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(descriptor))
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(plain.Bytes(), &file); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(file.MessageType, func(m *descriptorpb.DescriptorProto) bool { return file.GetPackage()+"."+m.GetName() == name })
}

// TestRegisterDocs asks as the command line client does, with both serializers.
func TestRegisterDocs(t *testing.T) {
	t.Parallel()
	for _, serializer := range []pitaya.Serializer{pitaya.JSON{}, pitaya.Protobuf{}} {
		t.Run(serializer.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := pitayatest.NewServer(t, pitaya.Config{Type: "gate", Serializer: serializer}, docServer(pitaya.DocsOptions{}))
				c := srv.Client(t)
				if got, want := pitayatest.Request[pb.Doc](c, "docs.docs", nil).Doc, `{"handlers":{`+docHandlersText+`},"remotes":{}}`; got != want {
					t.Errorf("docs\n got %s\nwant %s", got, want)
				}
				names := []string{"google.protobuf.StringValue", "protos.Doc", "types.BytesValue", "protos.Doc"}
				got := pitayatest.Request[pb.ProtoDescriptors](c, "gate.docs.descriptors", &pb.ProtoNames{Name: names}).Desc
				if len(got) != len(names) {
					t.Fatalf("%d descriptors, want %d", len(got), len(names))
				}
				for i, name := range names {
					if name = strings.Replace(name, "types.", "google.protobuf.", 1); !defines(t, got[i], name) {
						t.Errorf("descriptor %d does not define %s", i, name)
					}
				}
				if got := pitayatest.Request[pb.ProtoDescriptors](c, "docs.descriptors", &pb.ProtoNames{}).Desc; len(got) != 0 {
					t.Errorf("%d descriptors of nothing", len(got))
				}

				err := c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: []string{"protos.Doc", "protos.Nothing"}}, pitaya.CodeNotFound)
				if want := map[string]string{"name": "protos.Nothing"}; err.Metadata["name"] != want["name"] || !strings.Contains(err.Message, `"protos.Nothing"`) {
					t.Errorf("error %v with metadata %v", err, err.Metadata)
				}
				long := strings.Repeat("é", 10_000)
				if err := c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: []string{long}}, pitaya.CodeNotFound); len(err.Message) > 1000 || len(err.Metadata["name"]) > 1000 {
					t.Errorf("a name of %d bytes comes back", len(long))
				}
				c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: slices.Repeat([]string{"a"}, 10_001)}, pitaya.CodeBadRequest)
				c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: slices.Repeat([]string{"types.FileDescriptorProto"}, 9_999)}, pitaya.CodeBadRequest)
			})
		})
	}
}

func TestRegisterDocsOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upper := pitaya.WithNameFunc(strings.ToUpper)
		srv := pitayatest.NewServer(t, pitaya.Config{Type: "gate"}, docServer(pitaya.DocsOptions{}, pitaya.WithName("api"), upper, pitaya.WithSkip("Descriptors"), pitaya.WithBound()))
		c := srv.Client(t)
		c.ExpectError("api.DOCS", nil, pitaya.CodeUnbound)
		c.ExpectError("docs.docs", nil, pitaya.CodeNotFound)
		for s := range srv.Sessions() {
			if err := s.Bind(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
		}
		c.ExpectError("api.DESCRIPTORS", &pb.ProtoNames{}, pitaya.CodeNotFound)
		if got := pitayatest.Request[pb.Doc](c, "api.DOCS", nil).Doc; !strings.Contains(got, `"gate.api.DOCS":`) {
			t.Error(got)
		}
	})
}

func TestRegisterDocsMistakes(t *testing.T) {
	t.Parallel()
	same := pitaya.WithNameFunc(func(string) string { return "same" })
	for _, tt := range []struct {
		name string
		opts []pitaya.RegisterOption
		want string
	}{
		{"twice", nil, `register docs: there is a service with the name "docs" already`},
		{"a name that is none", []pitaya.RegisterOption{pitaya.WithName("a.b")}, `service name "a.b": contains a dot`},
		{"one name for both", []pitaya.RegisterOption{pitaya.WithName("x"), same}, `two methods have the name "same"`},
		{"nothing to skip", []pitaya.RegisterOption{pitaya.WithName("x"), pitaya.WithSkip("docs")}, "there is no method docs to skip"},
	} {
		s, err := pitaya.NewServer(pitaya.Config{Frontend: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RegisterDocs(pitaya.DocsOptions{}); err != nil {
			t.Fatal(err)
		}
		before := documentation(t, s, false)
		if err := s.RegisterDocs(pitaya.DocsOptions{}, tt.opts...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %s", tt.name, err, tt.want)
		}
		if after := documentation(t, s, false); after != before {
			t.Errorf("%s: something was registered: %s", tt.name, after)
		}
	}
}

// DocRoom is what a backend has.
type DocRoom struct{}

func (DocRoom) Enter(context.Context, *docPlain) (*docMessage, error) { return nil, nil }

// A docPeer is a server that tells of routes and messages that the program does not have. What it says may be wrong.
type docPeer struct {
	doc         string
	descriptors map[string][]byte
	silent      bool
	asked       atomic.Int64
}

func (p *docPeer) HandleNotice(*pitaya.Notice, func([]byte, error)) {}

func (p *docPeer) HandleCall(_ context.Context, body []byte, reply func([]byte)) {
	var req pb.Request
	if err := proto.Unmarshal(body, &req); err != nil || p.silent {
		reply(nil)
		return
	}
	p.asked.Add(1)
	var res pb.Response
	var answer proto.Message
	switch route := req.GetMsg().GetRoute(); {
	case route == "sys.docs" && p.doc != "":
		answer = &pb.Doc{Doc: p.doc}
	case route == "sys.descriptors" && p.descriptors != nil:
		var names pb.ProtoNames
		proto.Unmarshal(req.GetMsg().GetData(), &names)
		list := &pb.ProtoDescriptors{}
		seen := make(map[string]bool)
		for _, name := range names.Name {
			if b, ok := p.descriptors[name]; ok && seen[string(b)] {
				list.Desc = append(list.Desc, nil)
			} else if ok {
				list.Desc = append(list.Desc, b)
				seen[string(b)] = true
			}
		}
		answer = list
	default:
		res.Error = &pb.Error{Code: "PIT-404", Msg: "route not found"}
	}
	if answer != nil {
		res.Data, _ = proto.Marshal(answer)
	}
	b, _ := proto.Marshal(&res)
	reply(b)
}

// join adds a peer to a cluster.
func (p *docPeer) join(t *testing.T, c *pitaya.MemCluster, serverType, features string) {
	t.Helper()
	discovery, transport := c.Node()
	info := &pitaya.ServerInfo{ID: serverType + "-1", Type: serverType, Metadata: map[string]string{"pitaya-go.features": features}}
	err := transport.Listen(t.Context(), info, p)
	if err == nil {
		err = discovery.Join(t.Context(), info, func(pitaya.DiscoveryEvent) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(discovery.Leave(ctx), transport.Drain(ctx), transport.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
}

func fileDescriptor(t *testing.T, file *descriptorpb.FileDescriptorProto) []byte {
	t.Helper()
	b, err := proto.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// routesOf returns the routes of a documentation, in order.
func routesOf(t *testing.T, text string) (list []string) {
	t.Helper()
	var doc map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"handlers", "remotes"} {
		for route := range doc[part] {
			list = append(list, route)
		}
	}
	slices.Sort(list)
	return list
}

// TestDocsCluster has a frontend that tells of other types too: one of this library, and peers of all kinds.
func TestDocsCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitayatest.NewCluster(t)
		for _, id := range []string{"room-1", "room-2"} {
			cluster.NewServer(t, pitaya.Config{Type: "room", ID: id}, func(s *pitaya.Server) {
				s.Register(DocRoom{})
				s.RegisterRemote(DocRemote{}, pitaya.WithName("remote"))
				s.RegisterDocs(pitaya.DocsOptions{Cluster: true}, pitaya.WithSkip("Docs", "Descriptors"))
			})
		}
		cluster.NewServer(t, pitaya.Config{Type: "quiet"}, func(s *pitaya.Server) { s.Register(DocRoom{}) }) // has not been asked to
		foreign := &docPeer{
			doc: `{"handlers":{"foreign.a.b":{"input":{"*foreignproto.Word":{"text":"string"}},"output":[]},` +
				`"foreign.bad.one":5,"foreign.bad.two":{"output":"x"},"foreign.bad.three":{"input":{"*foreignproto.Bad":{}},"output":5},` +
				`"gate.docs.docs":{},"room.x.y":{}},"remotes":{}}`,
			descriptors: map[string][]byte{
				"foreignproto.Word": fileDescriptor(t, &descriptorpb.FileDescriptorProto{
					Name: new("foreign.proto"), Package: new("foreignproto"), Dependency: []string{"foreign_more.proto"},
					MessageType: []*descriptorpb.DescriptorProto{{Name: new("Word"), Field: []*descriptorpb.FieldDescriptorProto{
						{Name: new("more"), Number: new(int32(1)), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: new(".foreignproto.More")}}}},
				}),
				"foreignproto.Bad": []byte("no descriptor"),
				"foreign_more.proto": fileDescriptor(t, &descriptorpb.FileDescriptorProto{
					Name: new("foreign_more.proto"), Package: new("foreignproto"),
					MessageType: []*descriptorpb.DescriptorProto{{Name: new("More")}},
				}),
			},
		}
		foreign.join(t, cluster.MemCluster(), "foreign", "docs")
		broken := &docPeer{doc: `{"handlers":{"broken.a.b":{"input":{"*brokenproto.X":{}},"output":[]}},"remotes":[]}`}
		broken.join(t, cluster.MemCluster(), "broken", "merge,docs")
		few := &docPeer{doc: `{"handlers":{"few.a.b":{"input":{"*fewproto.X":{}},"output":[]}},"remotes":{}}`, descriptors: map[string][]byte{}}
		few.join(t, cluster.MemCluster(), "few", "docs")
		(&docPeer{}).join(t, cluster.MemCluster(), "refusing", "docs")
		(&docPeer{silent: true}).join(t, cluster.MemCluster(), "silent", "docs")
		other := &docPeer{doc: `{"handlers":{"other.a.b":{"input":null,"output":[]}},"remotes":{}}`}
		other.join(t, cluster.MemCluster(), "other", "")

		gate := cluster.NewServer(t, pitaya.Config{Type: "gate", Frontend: true, Logger: errorLogs(t)}, docServer(pitaya.DocsOptions{Cluster: true}))
		page := gate.DocsHandler(pitaya.DocsOptions{Cluster: true})
		c := gate.Client(t)

		// Many ask at once, and the others are asked once. The silent one has 2 s.
		start := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				doc := pitayatest.Request[pb.Doc](gate.Client(t), "docs.docs", nil).Doc
				want := []string{"few.a.b", "foreign.a.b", "gate.docs.descriptors", "gate.docs.docs", "gate.game.echo", "room.DocRoom.Enter", "room.remote.Call"}
				if got := routesOf(t, doc); !slices.Equal(got, want) {
					t.Errorf("routes: got %q, want %q", got, want)
				}
				if !strings.Contains(doc, docHandlersText) {
					t.Errorf("the own routes are not what they were: %s", doc)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
		if n := foreign.asked.Load(); n != 1 {
			t.Errorf("a peer was asked %d times", n)
		}
		if n := other.asked.Load(); n != 0 {
			t.Errorf("a peer that has announced nothing was asked %d times", n)
		}

		names := &pb.ProtoNames{Name: []string{"foreignproto.Word", "protos.Doc", "foreignproto.Word"}}
		got := pitayatest.Request[pb.ProtoDescriptors](c, "docs.descriptors", names).Desc
		if len(got) != 3 || !defines(t, got[0], "foreignproto.Word") || !defines(t, got[1], "protos.Doc") || !defines(t, got[2], "foreignproto.Word") {
			t.Errorf("%d descriptors, not those that were asked for", len(got))
		}
		got = pitayatest.Request[pb.ProtoDescriptors](c, "docs.descriptors", &pb.ProtoNames{Name: []string{"foreign_more.proto"}}).Desc
		if len(got) != 1 || !defines(t, got[0], "foreignproto.More") {
			t.Error("not the descriptor of the file that another imports")
		}
		for _, name := range []string{"brokenproto.X", "foreignproto.Unknown", "unknown.proto"} {
			c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: []string{"protos.Doc", name}}, pitaya.CodeNotFound)
		}
		c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: []string{"fewproto.X"}}, pitaya.CodeInternal)
		if n := foreign.asked.Load(); n != 3 {
			t.Errorf("a peer was asked %d times", n)
		}

		// A server that is asked for itself tells of itself.
		if got, want := routesOf(t, documentation(t, gate.Server, true)), []string{"gate.docs.descriptors", "gate.docs.docs", "gate.game.echo"}; !slices.Equal(got, want) {
			t.Errorf("Documentation: got %q, want %q", got, want)
		}

		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?view=markdown", nil))
		for _, want := range []string{"### `foreign.a.b`\n", "### `room.DocRoom.Enter`\n", "### `gate.game.echo`\n", "message Word {\n  More more = 1;\n}", "message More {\n}"} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("the page lacks %s\n%s", want, w.Body)
			}
		}

		// News comes after ten seconds.
		late := &docPeer{doc: `{"handlers":{"late.a.b":{"input":null,"output":[]}},"remotes":{}}`}
		late.join(t, cluster.MemCluster(), "late", "docs")
		synctest.Wait()
		has := func() bool { return strings.Contains(pitayatest.Request[pb.Doc](c, "docs.docs", nil).Doc, "late.a.b") }
		if has() {
			t.Error("the others were asked again too soon")
		}
		time.Sleep(10 * time.Second)
		if !has() {
			t.Error("the others were not asked again")
		}
	})
}

// TestDocsForPeers asks servers as others do: one that has been told to tell of itself, and one that has not.
func TestDocsForPeers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitayatest.NewCluster(t)
		room := cluster.NewServer(t, pitaya.Config{Type: "room", ID: "room-1"}, func(s *pitaya.Server) {
			s.RegisterRemote(DocRemote{}, pitaya.WithName("remote"))
			s.RegisterDocs(pitaya.DocsOptions{Cluster: true}, pitaya.WithSkip("Docs", "Descriptors"))
		})
		quiet := cluster.NewServer(t, pitaya.Config{Type: "quiet", ID: "quiet-1"}, nil)
		discovery, transport := cluster.MemCluster().Node()
		info := &pitaya.ServerInfo{ID: "peer-1", Type: "peer"}
		known := make(map[string]string) // features
		err := transport.Listen(t.Context(), info, &docPeer{})
		if err == nil {
			err = discovery.Join(t.Context(), info, func(e pitaya.DiscoveryEvent) { known[e.Server.ID] = e.Server.Metadata["pitaya-go.features"] })
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			ctx := context.WithoutCancel(t.Context())
			if err := errors.Join(discovery.Leave(ctx), transport.Drain(ctx), transport.Close(ctx)); err != nil {
				t.Error(err)
			}
		}()
		if !slices.Contains(strings.Split(known["room-1"], ","), "docs") || slices.Contains(strings.Split(known["quiet-1"], ","), "docs") {
			t.Errorf("announced: %v", known)
		}
		ask := func(to *pitaya.ServerInfo, route string, arg []byte) *pb.Response {
			answers := make(chan *pb.Response, 1)
			transport.Call(t.Context(), to, userRequest(t, route, string(arg), "{}"), func(body []byte, err error) {
				res := &pb.Response{}
				if err = errors.Join(err, proto.Unmarshal(body, res)); err != nil {
					res = &pb.Response{Error: &pb.Error{Msg: err.Error()}}
				}
				answers <- res
			})
			return <-answers
		}
		var doc pb.Doc
		if res := ask(room.Info(), "sys.docs", nil); res.Error != nil || proto.Unmarshal(res.Data, &doc) != nil {
			t.Fatal(res)
		}
		if want := documentation(t, room.Server, true); doc.Doc != want || !strings.Contains(want, `"room.remote.Call"`) {
			t.Errorf("got %s, want %s", doc.Doc, want)
		}
		arg, err := proto.Marshal(&pb.ProtoNames{Name: []string{"protos.KickMsg", "pitaya_test.docPlain", "protos.KickAnswer", "protos.Doc", "protos.KickMsg"}})
		if err != nil {
			t.Fatal(err)
		}
		var list pb.ProtoDescriptors
		if res := ask(room.Info(), "sys.descriptors", arg); res.Error != nil || proto.Unmarshal(res.Data, &list) != nil {
			t.Fatal(res)
		}
		// One file has the first and the third, and is sent once.
		if d := list.Desc; len(d) != 5 || !defines(t, d[0], "protos.KickAnswer") || !defines(t, d[3], "protos.Doc") || len(d[1])+len(d[2])+len(d[4]) != 0 {
			t.Errorf("descriptors: %d", len(d))
		}
		if res := ask(room.Info(), "sys.descriptors", []byte{0xff}); res.Error.GetCode() != pitaya.CodeBadRequest {
			t.Errorf("what is no message: %v", res)
		}
		for _, route := range []string{"sys.docs", "sys.descriptors"} {
			if res := ask(quiet.Info(), route, nil); res.Error.GetCode() != pitaya.CodeNotFound {
				t.Errorf("%s of a server that has not been asked to tell: %v", route, res)
			}
		}
	})
}

// TestDocsClusterLosses has servers that go away while they are asked, and a client that does.
func TestDocsClusterLosses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitayatest.NewCluster(t)
		setUp := func(s *pitaya.Server) {
			s.Register(DocRoom{})
			s.RegisterDocs(pitaya.DocsOptions{})
		}
		one := cluster.NewServer(t, pitaya.Config{Type: "room", ID: "room-1"}, setUp)
		cluster.NewServer(t, pitaya.Config{Type: "room", ID: "room-2"}, setUp)
		gate := cluster.NewServer(t, pitaya.Config{Type: "gate", Frontend: true, Logger: errorLogs(t)}, docServer(pitaya.DocsOptions{Cluster: true}))
		cluster.Cut(gate, one) // its place is taken by the other

		impatient := gate.Client(t)
		asked := make(chan error, 1)
		go func() {
			_, err := impatient.RequestRaw(t.Context(), "docs.docs", nil)
			asked <- err
		}()
		time.Sleep(time.Millisecond)
		impatient.Close()
		<-asked // with an answer or without
		synctest.Wait()
		if got := pitayatest.Request[pb.Doc](gate.Client(t), "docs.docs", nil).Doc; !strings.Contains(got, "room.DocRoom.Enter") {
			t.Errorf("no routes of a type of which one server is lost: %s", got)
		}
	})
}

// TestDocsClusterAlone has the option on a server that is in no cluster.
func TestDocsClusterAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := pitayatest.NewServer(t, pitaya.Config{Type: "gate"}, docServer(pitaya.DocsOptions{Cluster: true}))
		c := srv.Client(t)
		if got := pitayatest.Request[pb.Doc](c, "docs.docs", nil).Doc; !strings.Contains(got, docHandlersText) {
			t.Error(got)
		}
		c.ExpectError("docs.descriptors", &pb.ProtoNames{Name: []string{"a.B"}}, pitaya.CodeNotFound)
	})
}

func TestDocsHandler(t *testing.T) {
	t.Parallel()
	s, err := pitaya.NewServer(pitaya.Config{Type: "gate", Frontend: true, SerializerType: pitaya.SerializerProtobuf})
	if err != nil {
		t.Fatal(err)
	}
	h := s.DocsHandler(pitaya.DocsOptions{}) // before the routes are there
	docServer(pitaya.DocsOptions{})(s)
	md, err := s.DocsMarkdown()
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.DocsHTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Routes of gate\n", "Payloads are protobuf messages", "### `gate.game.echo`\n", "message StringValue {\n  string value = 1;\n}"} {
		if !strings.Contains(string(md), want) {
			t.Errorf("the page lacks %s\n%s", want, md)
		}
	}
	if want, err := routedocs.HTML(map[string]any{"handlers": 1}, routedocs.Options{}); err == nil || want != nil {
		t.Errorf("a page of nothing: %v", err)
	}
	for _, tt := range []struct {
		name, method, target, accept string
		status                       int
		kind, body                   string // body: all of it
	}{
		{"page", "GET", "/docs/", "text/html,*/*", 200, "text/html; charset=utf-8", string(page)},
		{"no preference", "GET", "/docs", "", 200, "text/html; charset=utf-8", string(page)},
		{"Markdown", "GET", "/docs/?view=markdown", "text/html", 200, "text/markdown; charset=utf-8", string(md)},
		{"JSON", "GET", "/?view=json", "", 200, "application/json", documentation(t, s, true) + "\n"},
		{"JSON by preference", "GET", "/", "application/json", 200, "application/json", documentation(t, s, true) + "\n"},
		{"head", "HEAD", "/", "", 200, "text/html; charset=utf-8", ""},
		{"another view", "GET", "/?view=x", "", 404, "text/plain; charset=utf-8", "no such view\n"},
		{"another method", "POST", "/", "", 405, "text/plain; charset=utf-8", "GET or HEAD\n"},
	} {
		r := httptest.NewRequest(tt.method, tt.target, nil)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status || w.Header().Get("Content-Type") != tt.kind || w.Body.String() != tt.body {
			t.Errorf("%s: %d, %s\n%s", tt.name, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if policy := w.Header().Get("Content-Security-Policy"); w.Code == 200 && !strings.HasPrefix(policy, "default-src 'none';") {
			t.Errorf("%s: policy %q", tt.name, policy)
		}
	}
}
