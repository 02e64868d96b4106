package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/pb"
)

func TestProtoSvc(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1", "-protocli", "-serializer", "protobuf")
	request := func(msg string) string { return protobuf(&testpb.TestRequest{Msg: msg}) }
	transports(t, func(t *testing.T, p protocol) {
		c := ts.connect(t, p)
		c.check([]row{
			{route: "protosvc.echo", payload: request("hi"), want: protobuf(&testpb.TestResponse{Code: 200, Msg: "hi"})},
			{route: "connector.protosvc.fail", payload: request("hi"), isErr: true, want: protobuf(&pb.Error{Code: "PIT-777", Msg: "failed on purpose", Metadata: map[string]string{"k": "v"}})},
			{route: "testsvc.testbind", isErr: true, want: protobuf(&pb.Error{Code: "PIT-404", Msg: "pitaya/handler: connector.testsvc.testbind not found"})},
		})
		c.notify("protosvc.push", request("me"))
		c.wantPush(push{"on.self", protobuf(&testpb.TestResponse{Code: 201, Msg: "me"})})
	})
}

func TestProtoSvcJSON(t *testing.T) {
	c := start(t, "-standalone", "-protocli").connect(t, protocolTCP)
	c.check([]row{
		{route: "protosvc.echo", payload: `{"msg":"hi"}`, want: `{"code":200,"msg":"hi"}`},
		{route: "protosvc.fail", payload: `{}`, want: `{"code":"PIT-777","msg":"failed on purpose","metadata":{"k":"v"}}`, isErr: true},
	})
}

// The command line client learns from docs and descriptors what it needs to
// speak protobuf (client protocol, section 13). This goes the same way.
func TestDocs(t *testing.T) {
	c := start(t, "-standalone", "-protocli", "-serializer", "protobuf").connect(t, protocolTCP)
	var doc pb.Doc
	if err := proto.Unmarshal([]byte(c.must("connector.docs.docs", "")), &doc); err != nil {
		t.Fatal(err)
	}
	want := `{"handlers":{` +
		`"connector.docs.descriptors":{"input":{"*protos.ProtoNames":{"name":["string"]}},"output":[{"*protos.ProtoDescriptors":{"desc":["[]byte"]}},"error"]},` +
		`"connector.docs.docs":{"input":null,"output":[{"*protos.Doc":{"doc":"string"}},"error"]},` +
		`"connector.protosvc.echo":{"input":{"*protos.TestRequest":{"msg":"string"}},"output":[{"*protos.TestResponse":{"code":"int32","msg":"string"}},"error"]},` +
		`"connector.protosvc.fail":{"input":{"*protos.TestRequest":{"msg":"string"}},"output":[{"*protos.TestResponse":{"code":"int32","msg":"string"}},"error"]},` +
		`"connector.protosvc.push":{"input":{"*protos.TestRequest":{"msg":"string"}},"output":[]}` +
		`},"remotes":{}}`
	if doc.Doc != want {
		t.Fatalf("docs\n got %s\nwant %s", doc.Doc, want)
	}
	names := []string{"protos.TestResponse", "protos.Doc", "protos.TestRequest"}
	var descriptors pb.ProtoDescriptors
	if err := proto.Unmarshal([]byte(c.must("docs.descriptors", protobuf(&pb.ProtoNames{Name: names}))), &descriptors); err != nil {
		t.Fatal(err)
	}
	if len(descriptors.Desc) != len(names) {
		t.Fatalf("%d descriptors, want %d", len(descriptors.Desc), len(names))
	}
	for i, name := range names {
		r, err := gzip.NewReader(bytes.NewReader(descriptors.Desc[i]))
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
		if !slices.ContainsFunc(file.MessageType, func(m *descriptorpb.DescriptorProto) bool {
			return file.GetPackage()+"."+m.GetName() == name
		}) {
			t.Errorf("descriptor %d, of %s, does not define %s", i, file.GetName(), name)
		}
	}
	if answer, isErr := c.request("docs.descriptors", protobuf(&pb.ProtoNames{Name: []string{"protos.Nothing"}})); !isErr {
		t.Errorf("descriptor of an unknown message: %q", answer)
	}
	many := slices.Repeat([]string{"types.FileDescriptorProto"}, 20_000)
	if answer, isErr := c.request("docs.descriptors", protobuf(&pb.ProtoNames{Name: many})); !isErr || !strings.Contains(answer, "PIT-400") {
		t.Errorf("descriptors that fit into no packet: answer of %d bytes, error flag %v", len(answer), isErr)
	}
}

func TestDocsJSON(t *testing.T) {
	c := start(t, "-standalone").connect(t, protocolTCP)
	var doc struct{ Doc string }
	if err := json.Unmarshal([]byte(c.must("docs.docs", "")), &doc); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"connector.testsvc.testrequestreturnsptr":{"input":{"*protos.TestRequest":{"msg":"string"}},"output":[{"*protos.TestResponse":{"code":"int32","msg":"string"}},"error"]}`,
		`"connector.interopsvc.echo":{"input":{"*main.Line":{"content":"string","name":"string"}},"output":[{"*main.Line":{"content":"string","name":"string"}},"error"]}`,
		`"connector.testsvc.testsendgroupmsg":{"input":"[]byte","output":[]}`,
	} {
		if !strings.Contains(doc.Doc, want) {
			t.Errorf("docs lack %s\n%s", want, doc.Doc)
		}
	}
}
