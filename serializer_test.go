package pitaya_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestJSON(t *testing.T) {
	s := pitaya.JSON{}
	b, err := s.Marshal(map[string]any{"b": "<&>", "a": 1})
	if want := `{"a":1,"b":"\u003c\u0026\u003e"}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	var v struct{ Msg string }
	if err := s.Unmarshal([]byte(`{"MSG":"hi","more":1}`), &v); err != nil || v.Msg != "hi" {
		t.Errorf("got %+v, %v", v, err)
	}
	err = s.Unmarshal(nil, &v)
	if _, ok := errors.AsType[*json.SyntaxError](err); !ok {
		t.Errorf("empty data: got %v", err)
	}
	if _, err := s.Marshal(func() {}); err == nil {
		t.Error("a function is no JSON, but no error")
	}
}

func TestProtobuf(t *testing.T) {
	s := pitaya.Protobuf{}
	b, err := s.Marshal(&pb.Doc{Doc: "x"})
	if want := "\x0a\x01x"; err != nil || string(b) != want {
		t.Errorf("got %x, %v, want %x", b, err, want)
	}
	m := &pb.Doc{Doc: "old"}
	if err := s.Unmarshal(b, m); err != nil || m.Doc != "x" {
		t.Errorf("got %v, %v", m, err)
	}
	if err := s.Unmarshal(nil, m); err != nil || m.Doc != "" {
		t.Errorf("empty data: got %v, %v", m, err)
	}
	var none *pb.Doc
	if b, err := s.Marshal(none); err != nil || len(b) != 0 {
		t.Errorf("nil message: got %x, %v", b, err)
	}
	tests := []struct {
		name, want string
		err        error
	}{
		{"marshal of another type", "int is not a proto.Message", errOf(s.Marshal(1))},
		{"marshal of nothing", "<nil> is not a proto.Message", errOf(s.Marshal(nil))},
		{"marshal of invalid UTF-8", "invalid UTF-8", errOf(s.Marshal(&pb.Doc{Doc: "\xff"}))},
		{"unmarshal into another type", "into *int", s.Unmarshal(b, new(int))},
		{"unmarshal into nothing", "into <nil>", s.Unmarshal(b, nil)},
		{"unmarshal into a nil message", "into *pb.Doc", s.Unmarshal(b, none)},
		{"unmarshal of garbage", "proto", s.Unmarshal([]byte("\xff"), m)},
	}
	for _, tt := range tests {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", tt.name, tt.err, tt.want)
		}
	}
}

// Both keep the rules of the interface.
func TestSerializers(t *testing.T) {
	type inner struct{ List []string }
	pitayatest.TestSerializer(t, pitayatest.SerializerOptions{
		Serializer: pitaya.JSON{},
		Values: []any{
			&struct {
				Text   string
				Number int64
				Bytes  []byte
				Map    map[string]float64
				Inner  *inner
			}{"größer <x>", 1 << 60, []byte{0, 255}, map[string]float64{"a": 0.5}, &inner{[]string{"b", ""}}},
			&[]int{1, 2, 3},
		},
		Garbage: [][]byte{nil, []byte("{"), []byte(`{"Text":`), []byte("\xff"), []byte(`"a"`)},
	})
	pitayatest.TestSerializer(t, pitayatest.SerializerOptions{
		Serializer: pitaya.Protobuf{},
		Values: []any{
			&pb.Push{Route: "onX", Uid: "größe", Data: []byte{0, 255}},
			&pb.Error{Code: "X-1", Msg: "m", Metadata: map[string]string{"k": "v"}},
		},
		Equal:   func(a, b any) bool { return proto.Equal(a.(proto.Message), b.(proto.Message)) },
		Garbage: [][]byte{[]byte("\xff"), []byte("\x0a\x05x"), []byte("\x0a\x01\xff")},
	})
}

func errOf(_ []byte, err error) error { return err }
