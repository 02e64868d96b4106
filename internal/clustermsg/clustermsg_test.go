package clustermsg_test

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

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

// TestLibrary: the functions of the library of protobuf work with messages that have no fields to reflection, and those that
// need fields find none.
func TestLibrary(t *testing.T) {
	t.Parallel()
	for _, m := range []proto.Message{
		&clustermsg.Error{Code: "c", Msg: "m", Metadata: map[string]string{"k": "v"}}, &clustermsg.Doc{Doc: "{}"},
		&clustermsg.ProtoNames{Name: []string{"a", ""}}, &clustermsg.ProtoDescriptors{Desc: [][]byte{{1}}},
	} {
		fresh := m.ProtoReflect().New().Interface()
		if reflect.TypeOf(fresh) != reflect.TypeOf(m) || !reflect.DeepEqual(fresh, reflect.New(reflect.TypeOf(m).Elem()).Interface()) {
			t.Errorf("%T: New is %T %v", m, fresh, fresh)
		}
		if proto.Equal(m, fresh) || proto.Equal(m, &emptypb.Empty{}) {
			t.Errorf("%T is equal to what it is not", m)
		}
		c := proto.Clone(m)
		if !reflect.DeepEqual(c, m) || !proto.Equal(c, m) {
			t.Errorf("%T: a clone is %v, want %v", m, c, m)
		}
		proto.Merge(fresh, m)
		if !reflect.DeepEqual(fresh, m) {
			t.Errorf("%T: merged as %v, want %v", m, fresh, m)
		}
		b, err := proto.Marshal(m)
		if err != nil || proto.Size(m) != len(b) {
			t.Errorf("%T: the size is %d, %v, want %d", m, proto.Size(m), err, len(b))
		}
		if err := proto.CheckInitialized(m); err != nil {
			t.Error(err)
		}
		if text, err := (protojson.MarshalOptions{EmitUnpopulated: true}).Marshal(m); err != nil || string(text) != "{}" {
			t.Errorf("%T: as JSON %s, %v", m, text, err)
		}
		if err := protojson.Unmarshal([]byte(`{"a":1}`), m); err == nil {
			t.Errorf("%T has a field", m)
		}
		if text, err := prototext.Marshal(m); err != nil || len(text) > 0 {
			t.Errorf("%T: as text %s, %v", m, text, err)
		}
		if proto.Reset(m); proto.Size(m) != 0 {
			t.Errorf("%T is not empty: %v", m, m)
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
				g, w := got.Field(i), want.FieldByName(name)
				if g.Kind() == reflect.Map && g.Len() == 0 && w.Len() == 0 {
					continue // the library makes a map for fields of the number that are no pairs
				}
				if !reflect.DeepEqual(g.Interface(), w.Interface()) {
					t.Errorf("%T.%s from %q: got %v, want %v", tt.m, name, b, g, w)
				}
			}
		}
	})
}
