package pitaya_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

type (
	docPlain struct {
		A     int `json:"a"`
		NoTag string
	}
	docFields struct {
		Options    int    `json:",omitempty"`
		Named      int    `json:"n,omitempty"`
		Ignored    int    `json:"-"`
		XXX_old    int    //lint:ignore ST1003 the name is what is tested
		unexported string //lint:ignore U1000 it must not show
		Ö          bool
	}
	docTypes struct {
		Bytes   []byte
		Times   []*time.Time
		Pointer **int
		Array   [2]string
		Map     map[string]docPlain
		Any     any
		Nested  docPlain
		Inline  struct{ X float64 }
		Raw     json.RawMessage
	}
	docNode struct {
		Name string
		Next *docNode
		All  []docNode
	}
	docLoop  *docLoop
	docList  []docList
	docOuter struct {
		docPlain
		*docNode
		*docOuter //lint:ignore U1000 it is there to be walked
		Name      int
	}
	docMessage struct {
		Inner *pb.Error `json:"inner"`
	}
	docFakeMessage struct{ proto.Message }
)

// document returns the documentation of one handler as JSON.
func document[In, Out any](t *testing.T, pointerNames bool) string {
	t.Helper()
	s, err := pitaya.NewServer(pitaya.Config{Type: "conn", Frontend: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := pitaya.Handle(s, "s.m", func(context.Context, *In) (*Out, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(documentation(t, s, pointerNames), `{"handlers":{"conn.s.m":{`)
	if !ok {
		t.Fatalf("not one handler: %s", text)
	}
	return strings.TrimSuffix(text, `}},"remotes":{}}`)
}

// documentation returns the documentation of a server as JSON.
func documentation(t *testing.T, s *pitaya.Server, pointerNames bool) string {
	t.Helper()
	doc, err := s.Documentation(pointerNames)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDocumentationTypes(t *testing.T) {
	tests := []struct {
		name  string
		doc   func(*testing.T, bool) string
		plain string
		names string
	}{
		{
			name:  "struct",
			doc:   document[docPlain, docPlain],
			plain: `"input":{"a":"int","noTag":"string"},"output":[{"NoTag":"string","a":"int"},"error"]`,
			names: `"input":{"*pitaya_test.docPlain":{"a":"int","noTag":"string"}},"output":[{"*pitaya_test.docPlain":{"NoTag":"string","a":"int"}},"error"]`,
		}, {
			name:  "field names",
			doc:   document[docFields, docFields],
			plain: `"input":{"n":"int","options":"int","ö":"bool"},"output":[{"Options":"int","n":"int","Ö":"bool"},"error"]`,
		}, {
			name: "kinds of types",
			doc:  document[int, docTypes],
			plain: `"input":"int","output":[{"Any":"interface {}","Array":["string"],"Bytes":"[]byte","Inline":{"X":"float64"},` +
				`"Map":"map[string]pitaya_test.docPlain","Nested":{"NoTag":"string","a":"int"},"Pointer":"int","Raw":"json.RawMessage","Times":["time.Time"]},"error"]`,
			names: `"input":"int","output":[{"*pitaya_test.docTypes":{"Any":"interface {}","Array":["string"],"Bytes":"[]byte","Inline":{"X":"float64"},` +
				`"Map":"map[string]pitaya_test.docPlain","Nested":{"*pitaya_test.docPlain":{"NoTag":"string","a":"int"}},"Pointer":"int","Raw":"json.RawMessage","Times":["time.Time"]}},"error"]`,
		}, {
			name:  "a struct that contains itself",
			doc:   document[docNode, int],
			plain: `"input":{"all":["pitaya_test.docNode"],"name":"string","next":"pitaya_test.docNode"},"output":["int","error"]`,
			names: `"input":{"*pitaya_test.docNode":{"all":["*pitaya_test.docNode"],"name":"string","next":"*pitaya_test.docNode"}},"output":["int","error"]`,
		}, {
			name:  "a pointer and a slice of themselves",
			doc:   document[docLoop, docList],
			plain: `"input":"pitaya_test.docLoop","output":[["pitaya_test.docList"],"error"]`,
			names: `"input":"pitaya_test.docLoop","output":[["pitaya_test.docList"],"error"]`,
		}, {
			name: "embedded structs",
			doc:  document[int, docOuter],
			plain: `"input":"int","output":[{"All":[{"All":["pitaya_test.docNode"],"Name":"string","Next":"pitaya_test.docNode"}],"Name":"int",` +
				`"Next":{"All":["pitaya_test.docNode"],"Name":"string","Next":"pitaya_test.docNode"},"NoTag":"string","a":"int"},"error"]`,
		}, {
			name:  "protobuf messages",
			doc:   document[pb.Error, docMessage],
			plain: `"input":{"code":"string","metadata":"map[string]string","msg":"string"},"output":[{"inner":{"code":"string","metadata":"map[string]string","msg":"string"}},"error"]`,
			names: `"input":{"*protos.Error":{"code":"string","metadata":"map[string]string","msg":"string"}},` +
				`"output":[{"*pitaya_test.docMessage":{"inner":{"*protos.Error":{"code":"string","metadata":"map[string]string","msg":"string"}}}},"error"]`,
		}, {
			name:  "no message behind the interface",
			doc:   document[docFakeMessage, int],
			plain: `"input":{"message":"protoreflect.ProtoMessage"},"output":["int","error"]`,
			names: `"input":{"*pitaya_test.docFakeMessage":{"message":"protoreflect.ProtoMessage"}},"output":["int","error"]`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.doc(t, false); got != test.plain {
				t.Errorf("without names\n got %s\nwant %s", got, test.plain)
			}
			if test.names == "" {
				return
			}
			if got := test.doc(t, true); got != test.names {
				t.Errorf("with names\n got %s\nwant %s", got, test.names)
			}
		})
	}
}

// DocShapes has a handler of each shape.
type DocShapes struct{}

func (DocShapes) Nothing(context.Context)                                  {}
func (DocShapes) Notify(context.Context, *docPlain)                        {}
func (DocShapes) NotifyRaw(context.Context, []byte)                        {}
func (DocShapes) Get(context.Context) (*docPlain, error)                   { return nil, nil }
func (DocShapes) Raw(context.Context, []byte) ([]byte, error)              { return nil, nil }
func (DocShapes) Request(context.Context, *docPlain) (*map[int]int, error) { return nil, nil }

type DocRemote struct{}

func (DocRemote) Call(context.Context, *pb.Error) (*pb.KickAnswer, error) { return nil, nil }

func TestDocumentationShapes(t *testing.T) {
	s, err := pitaya.NewServer(pitaya.Config{Type: "conn", Frontend: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := documentation(t, s, true), `{"handlers":{},"remotes":{}}`; got != want {
		t.Errorf("of an empty server: got %s, want %s", got, want)
	}
	if err := s.Register(DocShapes{}); err != nil {
		t.Fatal(err)
	}
	if err := pitaya.HandleNotify(s, "conn.f.notify", func(context.Context, *docPlain) {}); err != nil {
		t.Fatal(err)
	}
	if err := pitaya.HandleRaw(s, "f.raw", func(context.Context, []byte) ([]byte, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterRemote(DocRemote{}); err != nil {
		t.Fatal(err)
	}
	want := `{"handlers":{` +
		`"conn.DocShapes.Get":{"input":null,"output":[{"NoTag":"string","a":"int"},"error"]},` +
		`"conn.DocShapes.Nothing":{"input":null,"output":[]},` +
		`"conn.DocShapes.Notify":{"input":{"a":"int","noTag":"string"},"output":[]},` +
		`"conn.DocShapes.NotifyRaw":{"input":"[]byte","output":[]},` +
		`"conn.DocShapes.Raw":{"input":"[]byte","output":["[]byte","error"]},` +
		`"conn.DocShapes.Request":{"input":{"a":"int","noTag":"string"},"output":["map[int]int","error"]},` +
		`"conn.f.notify":{"input":{"a":"int","noTag":"string"},"output":[]},` +
		`"conn.f.raw":{"input":"[]byte","output":["[]byte","error"]}` +
		`},"remotes":{` +
		`"conn.DocRemote.Call":{"input":{"code":"string","metadata":"map[string]string","msg":"string"},"output":[{"kicked":"bool"},"error"]}` +
		`}}`
	if got := documentation(t, s, false); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestDescriptor(t *testing.T) {
	tests := []struct {
		name string
		file string // empty: unknown
	}{
		{"protos.Error", "internal/pb/error.proto"},
		{"protos.ProtoNames", "internal/pb/protodescriptor.proto"},
		{"internal/pb/doc.proto", "internal/pb/doc.proto"},
		{"types.FileDescriptorProto", "google/protobuf/descriptor.proto"},
		{"google.protobuf.FileDescriptorProto", "google/protobuf/descriptor.proto"},
		{"google.protobuf.FieldDescriptorProto.Type", ""}, // an enum
		{"protos", ""},
		{"protos.Unknown", ""},
		{"unknown.proto", ""},
		{"*protos.Error", ""},
		{"\xff", ""},
		{"", ""},
	}
	for _, test := range tests {
		b, err := pitaya.Descriptor(test.name)
		if test.file == "" {
			if err == nil {
				t.Errorf("%q: no error", test.name)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(plain, &file); err != nil {
			t.Fatal(err)
		}
		if got := file.GetName(); got != test.file {
			t.Errorf("%q: got file %s, want %s", test.name, got, test.file)
		}
	}
}

// FuzzDocsOfOthers has a server of another type say anything of itself. What this server says of its own routes stays.
func FuzzDocsOfOthers(f *testing.F) {
	const own = `{"handlers":{"conn.h.a":{"input":"x","output":[]}},"remotes":{"conn.r.b":{"input":null,"output":["y","error"]}}}`
	for _, s := range []string{
		own, "", "null", "[]", "{}", `{"handlers":null}`, `{"handlers":{"room.h.a":{}}}`, `{"handlers":{"conn.h.a":1}}`,
		`{"handlers":{"room.h.a":{"output":1}},"remotes":{"room.r.b":null}}`, `{"HANDLERS":{"room.h.a":{"output":[{"*a.B":{"f":"c.D"}}]}}}`,
		`{"handlers":{"room.":{}},"handlers":{"room.x":{}}}`, "{\"handlers\":{\"room.\xff\":{}}}", `{"handlers":{"room.h.a":1e999}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, other string) {
		text, err := pitaya.MergeDocs(own, "room", other)
		if err != nil && text != own {
			t.Fatalf("got %s with %v", text, err)
		}
		var before, after struct{ Handlers, Remotes map[string]any }
		if err := errors.Join(json.Unmarshal([]byte(own), &before), json.Unmarshal([]byte(text), &after)); err != nil {
			t.Fatal(err)
		}
		if len(text) > 8*(len(own)+len(other)) {
			t.Fatalf("%d bytes of %d", len(text), len(other))
		}
		for _, pair := range [][2]map[string]any{{before.Handlers, after.Handlers}, {before.Remotes, after.Remotes}} {
			for route, entry := range pair[1] {
				mine, ok := pair[0][route]
				if ok && !reflect.DeepEqual(entry, mine) || !ok && !strings.HasPrefix(route, "room.") {
					t.Fatalf("%q has become %v", route, entry)
				}
			}
			for route := range pair[0] {
				if _, ok := pair[1][route]; !ok {
					t.Fatalf("%q is gone", route)
				}
			}
		}
	})
}
