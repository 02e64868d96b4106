package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"google.golang.org/protobuf/proto"
)

func TestErrorCode(t *testing.T) {
	coded := pitaya.Errorf("APP-7", "denied")
	var typedNil *pitaya.Error
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"nil", nil, ""},
		{"foreign", io.EOF, pitaya.CodeUnknown},
		{"coded", coded, "APP-7"},
		{"wrapped", fmt.Errorf("buying: %w", coded), "APP-7"},
		{"joined", errors.Join(io.EOF, coded), "APP-7"},
		{"outermost wins", pitaya.Errorf("APP-8", "outer: %w", coded), "APP-8"},
		{"no code", &pitaya.Error{Message: "x"}, pitaya.CodeUnknown},
		{"typed nil", typedNil, pitaya.CodeUnknown},
		{"session closed", fmt.Errorf("push: %w", pitaya.ErrSessionClosed), pitaya.CodeClosed},
		{"deadline", fmt.Errorf("call: %w", context.DeadlineExceeded), pitaya.CodeTimeout},
		{"coded deadline", pitaya.NewError(context.DeadlineExceeded, "APP-9"), "APP-9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := pitaya.ErrorCode(tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	tests := []struct {
		name string
		err  *pitaya.Error
		want string
	}{
		{"message", &pitaya.Error{Code: "C", Message: "m", Err: io.EOF}, "m"},
		{"of the error behind", &pitaya.Error{Code: "C", Err: io.EOF}, "EOF"},
		{"code", &pitaya.Error{Code: "C"}, "C"},
		{"nil", nil, "unknown error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestErrorf(t *testing.T) {
	inner := &pitaya.Error{Code: "APP-7", Message: "inner", Metadata: map[string]string{"k": "v"}}
	err := pitaya.Errorf("APP-8", "outer %d: %w", 1, inner)
	if got, want := err.Error(), "outer 1: inner"; got != want {
		t.Errorf("got text %q, want %q", got, want)
	}
	if !errors.Is(err, inner) {
		t.Error("the wrapped error is lost")
	}
	e := err.(*pitaya.Error)
	if e.Metadata["k"] != "v" {
		t.Errorf("got metadata %v, want that of the wrapped error", e.Metadata)
	}
	e.Metadata["k"] = "changed"
	if inner.Metadata["k"] != "v" {
		t.Error("metadata is shared with the wrapped error")
	}
	if e := pitaya.Errorf("C", "plain %v", io.EOF).(*pitaya.Error); e.Err != nil || errors.Is(e, io.EOF) {
		t.Errorf("%%v wraps: %#v", e)
	}
	if err := pitaya.Errorf("C", "%w and %w", io.EOF, inner); !errors.Is(err, io.EOF) || !errors.Is(err, inner) {
		t.Error("one of two wrapped errors is lost")
	}
}

func TestNewError(t *testing.T) {
	inner := &pitaya.Error{Code: "APP-7", Message: "inner", Metadata: map[string]string{"a": "1", "b": "1"}}
	e := pitaya.NewError(fmt.Errorf("outer: %w", inner), "APP-8", map[string]string{"b": "2"}, nil, map[string]string{"c": "3"})
	if e.Code != "APP-8" || e.Error() != "outer: inner" || !errors.Is(e, inner) {
		t.Errorf("got %#v", e)
	}
	if want := map[string]string{"a": "1", "b": "2", "c": "3"}; !maps.Equal(e.Metadata, want) {
		t.Errorf("got metadata %v, want %v", e.Metadata, want)
	}
	if e := pitaya.NewError(nil, "C"); e == nil || e.Error() != "C" {
		t.Errorf("of nil: got %#v", e)
	}
	if e := pitaya.NewError(io.EOF, "C", map[string]string{}); e.Metadata != nil {
		t.Errorf("got metadata %v, want nil", e.Metadata)
	}
}

func TestSentinels(t *testing.T) {
	for _, err := range []error{
		pitaya.ErrPacketType, pitaya.ErrPacketTooLarge, pitaya.ErrMessageType, pitaya.ErrInvalidMessage,
		pitaya.ErrRouteCode, pitaya.ErrCompressed, pitaya.ErrRoute,
	} {
		if !errors.Is(err, pitaya.ErrProtocol) {
			t.Errorf("%v is no ErrProtocol", err)
		}
		if !strings.HasPrefix(err.Error(), "pitaya: ") {
			t.Errorf("%v does not say where it comes from", err)
		}
	}
}

// other is a serializer that clients do not know, and keeps what it was given.
type other struct {
	pitaya.JSON
	got *any
}

func (other) Name() string { return "other" }

func (o other) Marshal(v any) ([]byte, error) {
	*o.got = v
	return o.JSON.Marshal(v)
}

func TestErrorPayload(t *testing.T) {
	denied := &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
	var typedNil *pitaya.Error
	tests := []struct {
		name string
		err  error
		want pitaya.Error
	}{
		{"coded", denied, *denied},
		{"wrapped", fmt.Errorf("outer: %w", denied), pitaya.Error{Code: "APP-7", Message: "outer: denied", Metadata: denied.Metadata}},
		{"foreign", errors.New("oops"), pitaya.Error{Code: "PIT-000", Message: "oops"}},
		{"nothing", nil, pitaya.Error{Code: "PIT-000", Message: "unknown error"}},
		{"typed nil", typedNil, pitaya.Error{Code: "PIT-000", Message: "unknown error"}},
		{"empty text", errors.New(""), pitaya.Error{Code: "PIT-000", Message: "unknown error"}},
		{"empty text and code", &pitaya.Error{}, pitaya.Error{Code: "PIT-000", Message: "unknown error"}},
		{"empty text with code", &pitaya.Error{Code: "APP-7"}, pitaya.Error{Code: "APP-7", Message: "APP-7"}},
		{"empty code", &pitaya.Error{Message: "denied"}, pitaya.Error{Code: "PIT-000", Message: "denied"}},
		{"invalid UTF-8", &pitaya.Error{Code: "C\xff", Message: "a\xff\xfeb", Metadata: map[string]string{"k\xc0": "\x80"}},
			pitaya.Error{Code: "C\ufffd", Message: "a\ufffd\ufffdb", Metadata: map[string]string{"k\ufffd": "\ufffd"}}},
	}
	var got any
	for _, s := range []pitaya.Serializer{pitaya.JSON{}, pitaya.Protobuf{}, other{got: &got}} {
		for _, tt := range tests {
			t.Run(s.Name()+"/"+tt.name, func(t *testing.T) {
				b, err := pitaya.MarshalErrorPayload(s, pitaya.WireError(tt.err))
				if err != nil {
					t.Fatal(err)
				}
				if e := pitaya.DecodeErrorPayload(s, b); !reflect.DeepEqual(*e, tt.want) {
					t.Errorf("got %#v, want %#v", *e, tt.want)
				}
			})
		}
	}
	v := reflect.ValueOf(got).Elem()
	for _, field := range []string{"Code", "Msg", "Metadata"} {
		if f, ok := v.Type().FieldByName(field); !ok || !f.IsExported() {
			t.Errorf("other serializers get no field %s", field)
		}
	}
}

func TestDecodeErrorPayload(t *testing.T) {
	empty, err := proto.Marshal(&pb.Error{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		serializer pitaya.Serializer
		payload    []byte
		text       string
	}{
		{"JSON without keys", pitaya.JSON{}, []byte(`{}`), "unknown error"},
		{"empty message", pitaya.Protobuf{}, empty, "unknown error"},
		{"not JSON", pitaya.JSON{}, []byte(`oops`), "undecodable error answer: "},
		{"odd metadata", pitaya.JSON{}, []byte(`{"msg":"denied","metadata":{"k":1}}`), "denied"},
		{"not protobuf", pitaya.Protobuf{}, []byte("\xff"), "undecodable error answer: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := pitaya.DecodeErrorPayload(tt.serializer, tt.payload)
			if e.Code != pitaya.CodeUnknown || !strings.HasPrefix(e.Message, tt.text) {
				t.Errorf("got %#v", e)
			}
		})
	}
}

func TestWireErrorKeepsGoodOnes(t *testing.T) {
	e := &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
	if got := pitaya.WireError(e); got != e {
		t.Errorf("got a copy of an error that needs no change: %#v", got)
	}
}
