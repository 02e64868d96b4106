package cli_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/cli"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// evil is text that would colour, move, ring, retitle and reorder, if a terminal got it.
const evil = "\x1b[31mA\x1b]0;title\x07B\u009b2JC\u202eD\u2028E\x00F\rG\nH\x7f"

// deceives reports what of an output a terminal would act on, or its reader be deceived by.
func deceives(s string) string {
	for _, r := range s {
		if r == '\n' {
			continue
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e {
			return fmt.Sprintf("%U", r)
		}
	}
	return ""
}

// runs runs the client and returns what it has written, together.
func runs(t *testing.T, args ...string) (status int, output string) {
	t.Helper()
	var out bytes.Buffer
	status = cli.Main(t.Context(), cli.Process{Args: args, Getenv: noEnv, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out})
	return status, out.String()
}

// evilServer sends evil text wherever a server can.
func evilServer(t *testing.T, serializer pitaya.Serializer) string {
	return serve(t, pitaya.Config{Serializer: serializer}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "evil.text", func(ctx context.Context, _ []byte) ([]byte, error) {
			return []byte(evil), nil
		}))
		must(t, pitaya.HandleRaw(s, "evil.json", func(ctx context.Context, _ []byte) ([]byte, error) {
			// JSON takes these as they are, and escapes of the others.
			return []byte("{\"\u009b2J\":\"\\u001b[31m\u202e\u2028\x7f\"}"), nil
		}))
		must(t, pitaya.HandleRaw(s, "evil.error", func(ctx context.Context, _ []byte) ([]byte, error) {
			return nil, pitaya.NewError(errors.New(evil), "PIT-"+evil, map[string]string{evil: evil})
		}))
		must(t, pitaya.HandleRaw(s, "evil.push", func(ctx context.Context, _ []byte) ([]byte, error) {
			return []byte("ok"), pitaya.SessionFromContext(ctx).Push(ctx, evil, []byte(evil))
		}))
		must(t, pitaya.HandleRaw(s, "evil.kick", func(ctx context.Context, _ []byte) ([]byte, error) {
			return nil, pitaya.SessionFromContext(ctx).KickReason(ctx, evil)
		}))
		must(t, pitaya.HandleRaw(s, "docs.docs", func(ctx context.Context, _ []byte) ([]byte, error) {
			name, err := json.Marshal("*" + evil)
			if err != nil {
				return nil, err
			}
			return fmt.Appendf(nil, `{"handlers":{%s:{"input":{%[1]s:{%[1]s:%[1]s}},"output":[{%[1]s:{}}]}},"remotes":{}}`, name), nil
		}))
		must(t, s.SetDictionary(map[string]uint16{evil: 7}))
	})
}

// Nothing of what a server sends reaches the terminal as it is, in any style.
func TestEvilServer(t *testing.T) {
	t.Parallel()
	addr := evilServer(t, pitaya.JSON{})
	for _, style := range []string{"-shown=10000", "-q", "-json"} {
		t.Run(style, func(t *testing.T) {
			t.Parallel()
			_, out := runs(t, style, "-keep-going", addr, "-e", `
				status; routes; docs; docs -html; docs -json
				request evil.text; expect text x; expect {}; request -raw evil.json; expect {"a":1}; expect {"\u009b2J":1}
				request evil.error; expect error x
				request `+"\u009b\x07"+`; `+"\u009b\x07"+`; set output `+"\u009b\x07"+`
				push a.b `+"\u009b\x07"+`; push
				set docs off; disconnect; connect `+addr+`; routes
				request evil.push; request evil.kick; wait closed; status; request evil.text`)
			if what := deceives(out); what != "" {
				t.Errorf("%s came through:\n%q", what, out)
			}
			for _, want := range []string{`\u001b`, `\u009b`, "kicked"} {
				if !strings.Contains(out, want) {
					t.Errorf("there is no %s in:\n%s", want, out)
				}
			}
			if style == "-json" {
				for line := range strings.Lines(out) {
					if !json.Valid([]byte(line)) {
						t.Errorf("no JSON: %s", line)
					}
				}
			}
		})
	}
}

// A refusal, and an answer that is no HTTP, are text of the server's too.
func TestEvilRefusal(t *testing.T) {
	t.Parallel()
	addr := serve(t, pitaya.Config{}, func(s *pitaya.Server) {
		must(t, s.AddHandshakeValidator("evil", func(*pitaya.HandshakeData) error { return errors.New(evil) }))
	})
	status, out := runs(t, addr, "-e", "status")
	if status != 3 || deceives(out) != "" || !strings.Contains(out, "code 400") {
		t.Errorf("status %d: %q", status, out)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1))
			c.Write([]byte("HTTP/1.1 500 \x1b[31m\r\nX: \x1b[31m\r\n\r\n"))
			c.Close()
		}
	}()
	defer func() {
		l.Close()
		<-ended
	}()
	status, out = runs(t, l.Addr().String(), "-e", "status")
	if status != 3 || deceives(out) != "" || !strings.Contains(out, "no transport works") {
		t.Errorf("status %d: %q", status, out)
	}
}

// file is a compressed descriptor.
func file(t testing.TB, f *descriptorpb.FileDescriptorProto) []byte {
	t.Helper()
	b, err := proto.Marshal(f)
	must(t, err)
	return gzipped(t, b)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func message(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
}

func field(name, typ string) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{Name: &name, JsonName: &name, Number: new(int32(1)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	if typ == "" {
		f.Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
	} else {
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), &typ
	}
	return f
}

// protobufServer is a server whose documentation has some types, of which a function gives the descriptors.
func protobufServer(t *testing.T, docs string, descriptors func(name string) ([]byte, error)) string {
	return serve(t, pitaya.Config{Serializer: pitaya.Protobuf{}}, func(s *pitaya.Server) {
		must(t, pitaya.Handle(s, "docs.docs", func(ctx context.Context, _ *pb.DocMsg) (*pb.Doc, error) { return &pb.Doc{Doc: docs}, nil }))
		must(t, pitaya.Handle(s, "docs.descriptors", func(ctx context.Context, in *pb.ProtoNames) (*pb.ProtoDescriptors, error) {
			out := new(pb.ProtoDescriptors)
			for _, name := range in.Name {
				b, err := descriptors(name)
				if err != nil {
					return nil, err
				}
				out.Desc = append(out.Desc, b)
			}
			return out, nil
		}))
		must(t, pitaya.HandleRaw(s, "a.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }))
	})
}

// docsWith is a documentation with a route a.echo that takes and returns a message.
func docsWith(names ...string) string {
	var b strings.Builder
	for i, name := range names {
		fmt.Fprintf(&b, `,"game.a.r%d":{"input":{"*%s":{}},"output":[]}`, i, name)
	}
	return fmt.Sprintf(`{"handlers":{"game.docs.descriptors":{"input":{"*protos.ProtoNames":{}},"output":[{"*protos.ProtoDescriptors":{}},"error"]},
		"game.a.echo":{"input":{"*%s":{}},"output":[{"*%[1]s":{}},"error"]}%s},"remotes":{}}`, names[0], b.String())
}

var errUnknown = pitaya.NewError(errors.New("unknown"), pitaya.CodeNotFound)

// Files that import others, types that are no messages, and Google's own: what can be had is used.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{
		"my.A": file(t, &descriptorpb.FileDescriptorProto{Name: new("dir/a.proto"), Package: new("my"), Syntax: new("proto3"),
			Dependency:  []string{"dir/b.proto", "google/protobuf/timestamp.proto", "lost.proto"},
			MessageType: []*descriptorpb.DescriptorProto{message("A", field("b", ".my.B")), message("T", field("at", ".google.protobuf.Timestamp"))}}),
		"dir/b.proto": file(t, &descriptorpb.FileDescriptorProto{Name: new("dir/b.proto"), Package: new("my"), Syntax: new("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{message("B", field("text", ""))}}),
	}
	addr := protobufServer(t, docsWith("my.A", "main.Struct"), func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, errUnknown
	})
	status, out := runs(t, "-push", "x=my.T", addr, "-e", `
		request a.echo {"b":{"text":"deep"}}; expect {"b":{"text":"deep"}}
		request -type my.T a.echo {"at":"2026-01-02T03:04:05Z"}
		! request game.a.r1 {}`)
	if status != 2 || !strings.Contains(out, `{"b":{"text":"deep"}}`) {
		t.Errorf("status %d:\n%s", status, out)
	}
	if !strings.Contains(out, "main.Struct, of which the server has shown no descriptor") || !strings.Contains(out, "no descriptors of main.Struct") {
		t.Errorf("nothing is said of what is missing:\n%s", out)
	}
}

// Descriptors that are wrong, huge or contradict each other cost the messages that need them, and nothing more.
func TestHostileDescriptors(t *testing.T) {
	t.Parallel()
	good := file(t, &descriptorpb.FileDescriptorProto{Name: new("good.proto"), Package: new("my"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{message("Good", field("text", ""))}})
	tests := []struct {
		name  string
		bad   []byte
		works bool // the good message does all the same
	}{
		{"not gzip", []byte("x"), false},
		{"gzip, cut", good[:len(good)/2], false},
		{"not a descriptor", gzipped(t, []byte{0xff, 0xff}), false},
		{"a bomb", gzipped(t, make([]byte, 5<<20)), false},
		{"nothing", nil, true},
		{"a message that is in another file too", file(t, &descriptorpb.FileDescriptorProto{Name: new("other.proto"), Package: new("my"), Syntax: new("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{message("Good")}}), true},
		{"a message that does not exist", file(t, &descriptorpb.FileDescriptorProto{Name: new("bad.proto"), Syntax: new("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{message("Bad", field("x", ".no.Such"))}}), true},
		{"a syntax of the future", file(t, &descriptorpb.FileDescriptorProto{Name: new("bad.proto"), Syntax: new("proto9")}), true},
		{"imports itself", file(t, &descriptorpb.FileDescriptorProto{Name: new("bad.proto"), Syntax: new("proto3"), Dependency: []string{"bad.proto"}}), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			addr := protobufServer(t, docsWith("my.Good", "my.Bad"), func(name string) ([]byte, error) {
				switch name {
				case "my.Good":
					return good, nil
				case "my.Bad":
					return test.bad, nil
				}
				return nil, errUnknown
			})
			status, out := runs(t, addr, "-e", `request a.echo {"text":"x"}; expect {"text":"x"}`)
			if works := status == 0; works != test.works {
				t.Errorf("status %d:\n%s", status, out)
			}
			if status, out := runs(t, addr, "-e", `request -hex a.echo 0a0178`); status != 0 {
				t.Errorf("with bytes: status %d:\n%s", status, out)
			}
		})
	}
}

// Imports that never end are given up.
func TestEndlessImports(t *testing.T) {
	t.Parallel()
	n := 0
	w := gzip.NewWriter(nil) // one for all: making it is what takes time
	addr := protobufServer(t, docsWith("my.A"), func(string) ([]byte, error) {
		n++
		b, err := proto.Marshal(&descriptorpb.FileDescriptorProto{Name: new(fmt.Sprintf("f%d.proto", n)), Syntax: new("proto3"),
			Dependency: []string{fmt.Sprintf("f%d.proto", n+1)}})
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		w.Reset(&out)
		w.Write(b)
		err = w.Close()
		return out.Bytes(), err
	})
	status, out := runs(t, addr, "-e", "status")
	if status != 0 || !strings.Contains(out, "more than 1000 files") {
		t.Errorf("status %d:\n%s", status, out)
	}
}

// Documentation that is none leaves the client without.
func TestHostileDocumentation(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{``, `x`, `[]`, `null`, `{}`, `{"handlers":[]}`, `{"handlers":{"a":1,"b":{"input":[],"output":{}},"c":{"output":[[]]}}}`,
		`{"handlers":` + strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000) + `}`} {
		addr := serve(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "docs.docs", func(context.Context, []byte) ([]byte, error) {
				return json.Marshal(map[string]string{"doc": doc})
			}))
		})
		status, out := runs(t, "-keep-going", addr, "-e", "routes; docs; docs -html; docs -json; request docs.docs")
		if status > 1 || !strings.Contains(out, "doc") {
			t.Errorf("%.40q: status %d:\n%.1000s", doc, status, out)
		}
	}
}
