package clustermsg_test

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
	"github.com/pitaya-go/pitaya/internal/pb"
)

type codec interface {
	Encode() ([]byte, error)
	Decode([]byte) error
}

// TestEncode compares what is written with what the library of protobuf makes of the generated messages.
func TestEncode(t *testing.T) {
	t.Parallel()
	names, descs := []string{"a", "", "b"}, [][]byte{{1}, {}, {0xff, 2}}
	pairs := map[string]string{"a": "1", "": "", "b": "2"}
	for _, tt := range []struct {
		m    codec
		want proto.Message
	}{
		{&clustermsg.BindMsg{}, &pb.BindMsg{}},
		{&clustermsg.BindMsg{Uid: "u", Fid: "f"}, &pb.BindMsg{Uid: "u", Fid: "f"}},
		{&clustermsg.BindMsg{Uid: "\xff"}, &pb.BindMsg{Uid: "\xff"}},
		{&clustermsg.BindMsg{Fid: "\xff"}, &pb.BindMsg{Fid: "\xff"}},
		{&clustermsg.KickMsg{UserId: "ü"}, &pb.KickMsg{UserId: "ü"}},
		{&clustermsg.KickMsg{UserId: "\xff"}, &pb.KickMsg{UserId: "\xff"}},
		{&clustermsg.Doc{Doc: "{}"}, &pb.Doc{Doc: "{}"}},
		{&clustermsg.Doc{Doc: "\xff"}, &pb.Doc{Doc: "\xff"}},
		{&clustermsg.ProtoNames{Name: names}, &pb.ProtoNames{Name: names}},
		{&clustermsg.ProtoNames{Name: []string{"\xff"}}, &pb.ProtoNames{Name: []string{"\xff"}}},
		{&clustermsg.ProtoDescriptors{Desc: descs}, &pb.ProtoDescriptors{Desc: descs}},
		{&clustermsg.Error{Code: "c", Msg: "m", Metadata: pairs}, &pb.Error{Code: "c", Msg: "m", Metadata: pairs}},
		{&clustermsg.Error{Code: "\xff"}, &pb.Error{Code: "\xff"}},
		{&clustermsg.Error{Metadata: map[string]string{"\xff": ""}}, &pb.Error{Metadata: map[string]string{"\xff": ""}}},
	} {
		want, wantErr := proto.MarshalOptions{Deterministic: true}.Marshal(tt.want)
		got, err := tt.m.Encode()
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%T %v: encoded as %q, %v, want %q, %v", tt.m, tt.m, got, err, want, wantErr)
		}
		m, ok := tt.m.(proto.Message)
		if !ok {
			continue
		}
		if b, err := proto.Marshal(m); (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(b, want) {
			t.Errorf("%T %v: marshalled as %q, %v, want %q", m, m, b, err, want)
		}
		if name, want := m.ProtoReflect().Descriptor().FullName(), tt.want.ProtoReflect().Descriptor().FullName(); name != want {
			t.Errorf("%T is called %s, want %s", m, name, want)
		}
		if wantErr == nil { // what was in the message before is gone
			back := reflect.New(reflect.TypeOf(m).Elem()).Interface().(proto.Message)
			for range 2 {
				if err := proto.Unmarshal(want, back); err != nil || !reflect.DeepEqual(back, m) {
					t.Errorf("%T: got %v, %v, want %v", m, back, err, m)
				}
			}
		}
	}
}

// TestEmpty: an Empty takes whatever a message has, and gives it back.
func TestEmpty(t *testing.T) {
	t.Parallel()
	want := []byte("\x0a\x01a\x10\x07")
	var m clustermsg.Empty
	if err := proto.Unmarshal(want, &m); err != nil {
		t.Fatal(err)
	}
	if b, err := proto.Marshal(&m); err != nil || !bytes.Equal(b, want) {
		t.Errorf("got %q, %v", b, err)
	}
	if err := proto.Unmarshal([]byte("\x0a\xff"), &m); err == nil {
		t.Error("what is no message is taken")
	}
}

// FuzzDecode: what is read is what the library of protobuf reads.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "\x0a\x01a\x12\x01b", "\x08\x01", "\x0a\xff", "\x0a\x01\xff", "\x1a\x06\x0a\x01k\x12\x01v",
		"\x1a\x00", "\x0b\x0c", "\x0d\x01\x02\x03\x04", "\x00\x01", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, tt := range []struct {
			m interface{ Decode([]byte) error }
			g proto.Message
		}{
			{&clustermsg.BindMsg{}, &pb.BindMsg{}}, {&clustermsg.KickMsg{}, &pb.KickMsg{}}, {&clustermsg.KickAnswer{}, &pb.KickAnswer{}},
			{&clustermsg.Doc{}, &pb.Doc{}}, {&clustermsg.ProtoNames{}, &pb.ProtoNames{}},
			{&clustermsg.ProtoDescriptors{}, &pb.ProtoDescriptors{}}, {&clustermsg.Error{}, &pb.Error{}},
		} {
			err, wantErr := tt.m.Decode(b), proto.Unmarshal(b, tt.g)
			if (err == nil) != (wantErr == nil) {
				t.Errorf("%T from %q: %v, want %v", tt.m, b, err, wantErr)
			}
			if err != nil || wantErr != nil {
				continue
			}
			got, want := reflect.ValueOf(tt.m).Elem(), reflect.ValueOf(tt.g).Elem()
			for i := range got.NumField() {
				name := got.Type().Field(i).Name
				if g, w := got.Field(i).Interface(), want.FieldByName(name).Interface(); !reflect.DeepEqual(g, w) {
					t.Errorf("%T.%s from %q: got %v, want %v", tt.m, name, b, g, w)
				}
			}
		}
	})
}
