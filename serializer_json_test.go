package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// jsonTargets are what texts are decoded into, new ones for each call.
func jsonTargets() []any {
	return []any{
		new(any), new(string), new(int8), new([]int), new(map[string]any), new(*bool), new(json.RawMessage), new(picky),
		new(struct {
			Name, Content string
			Sub           *struct{ N uint8 }
			List          []string
			Any           any
			Picky         picky
		}),
	}
}

// picky decodes itself, and takes no numbers.
type picky struct{ text string }

func (p *picky) UnmarshalJSON(b []byte) error {
	p.text = string(b)
	if b[0] >= '0' && b[0] <= '9' {
		return &json.SyntaxError{Offset: 1}
	}
	return nil
}

// sameAsJSON checks that text is decoded as json.Unmarshal does it, result and error. Where it is refused because of what
// follows a value, the value may have been stored.
func sameAsJSON(t testing.TB, text []byte) {
	t.Helper()
	want := jsonTargets()
	for i, got := range jsonTargets() {
		kept := string(text)
		wantErr, err := json.Unmarshal(text, want[i]), pitaya.JSON{}.Unmarshal(text, got)
		if !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%q into %T: error %#v, want %#v", text, got, err, wantErr)
		}
		if _, syntax := errors.AsType[*json.SyntaxError](err); !syntax && !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%q: %+v, want %+v", text, got, want[i])
		}
		if string(text) != kept {
			t.Fatalf("%q has become %q", kept, text)
		}
	}
}

var jsonTexts = []string{
	"", " ", "\x00", "null", "true", "tru", "12", "1200", "-1.5e3", "1 ", "1x", "01", `"a"`, `"a" `, `"a`, `"\ud800"`, "\"\xff\"", "\"\n\"",
	"[]", "[1,2]", "[1,2", "[1,,2]", "{}", "{}{}", "{} {}", "{}\n", " \t\r\n{}", "{}]", "{}x", `{"Name":"a","Content":"b"}`,
	`{"name":"a","CONTENT":"b"}`, `{"Name":1}`, `{"Name":1,"Content":"c"}`, `{"Name":1}x`, `{"Sub":{"N":300},"List":["x"]}`, `{"Sub":null,"Any":[{}]}`,
	`{"Picky":1,"Name":"later"}`, `{"Picky":"x"}`, `{"Name":"a"`, `{"Name":"a",}`, "\ufeff{}", strings.Repeat("[", 4000), strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
	`"` + strings.Repeat("x", 5000) + `"`,
}

// What is decoded, and what is said of errors, is the same whoever was decoded before.
func TestJSONUnmarshal(t *testing.T) {
	for _, text := range jsonTexts {
		sameAsJSON(t, []byte(text))
	}
	for _, v := range []any{nil, 1, (*int)(nil)} {
		if err, want := (pitaya.JSON{}).Unmarshal([]byte("1"), v), json.Unmarshal([]byte("1"), v); !reflect.DeepEqual(err, want) {
			t.Errorf("into %T: %v, want %v", v, err, want)
		}
	}
}

// nested decodes what is in it with the serializer, and panics if that is nothing.
type nested struct{ Inner *nested }

func (n *nested) UnmarshalJSON(b []byte) error {
	if string(b) == "0" {
		panic("nothing")
	}
	var v struct{ Inner *nested }
	err := pitaya.JSON{}.Unmarshal(b, &v)
	n.Inner = v.Inner
	return err
}

// Decoding may be called while decoding, and ended by a panic.
func TestJSONUnmarshalNested(t *testing.T) {
	for range 100 {
		var n nested
		if err := (pitaya.JSON{}).Unmarshal([]byte(`{"Inner":{"Inner":{}}}`), &n); err != nil || n.Inner == nil || n.Inner.Inner == nil || n.Inner.Inner.Inner != nil {
			t.Fatalf("%+v, %v", n, err)
		}
		func() {
			defer func() {
				if p := recover(); fmt.Sprint(p) != "nothing" {
					t.Errorf("panicked with %v", p)
				}
			}()
			err := pitaya.JSON{}.Unmarshal([]byte(`{"Inner":{"Inner":0}}`), &n)
			t.Errorf("no panic, %v", err)
		}()
	}
}

// badJSON makes no JSON, in the way that its text says.
type badJSON string

func (b badJSON) MarshalJSON() ([]byte, error) {
	switch b {
	case "panic":
		panic("badJSON")
	case "error":
		return nil, errors.New("badJSON")
	}
	return []byte(b), nil
}

// What answers are made of is what the serializers' Marshal returns, errors and panics included, whatever was marshalled
// before.
func TestMarshalLent(t *testing.T) {
	nested := map[string]any{"html": "<&>\u2028", "list": []int{1, 2}, "raw": json.RawMessage(`{"a": [ 1 ]}`), "nil": nil}
	values := []any{
		nil, 1, "text", nested, []byte("bytes"), badJSON("panic"), badJSON("error"), badJSON("{"), badJSON(` {"a" : 1} `), func() {}, map[int]int{1: 2},
		strings.Repeat("x", 5000), strings.Repeat("<", 1<<20), &pb.Doc{Doc: "d"}, &pb.Doc{}, (*pb.Doc)(nil), &pb.Doc{Doc: "\xff"}, &pb.Doc{Doc: strings.Repeat("y", 9000)},
	}
	for range 3 {
		for _, s := range []pitaya.Serializer{pitaya.JSON{}, pitaya.Protobuf{}} {
			for _, v := range values {
				want, wantPanic, wantErr := marshalled(s.Marshal, v)
				got, panicked, err := marshalled(func(v any) ([]byte, error) { return pitaya.MarshalLent(s, v) }, v)
				if wantErr != nil {
					want = nil
				}
				if !bytes.Equal(got, want) || fmt.Sprint(err, panicked) != fmt.Sprint(wantErr, wantPanic) {
					t.Errorf("%s of %.20v: %.50q, %v, %v, want %.50q, %v, %v", s.Name(), v, got, err, panicked, want, wantErr, wantPanic)
				}
			}
		}
	}
}

// marshalled returns what f returns, or panics with.
func marshalled(f func(any) ([]byte, error), v any) (b []byte, panicked any, err error) {
	defer func() { panicked = recover() }()
	b, err = f(v)
	return b, nil, err
}

// loudJSON is JSON with a Marshal of its own.
type loudJSON struct{ pitaya.JSON }

func (s loudJSON) Marshal(v any) ([]byte, error) {
	b, err := s.JSON.Marshal(v)
	return bytes.ToUpper(b), err
}

// A serializer that embeds one of the library's decides itself what answers are.
func TestSerializerEmbedded(t *testing.T) {
	s := startServer(t, pitaya.Config{Type: "game", Serializer: loudJSON{}}, func(s *pitaya.Server) {
		must(t, pitaya.Handle(s, "game.room.say", func(_ context.Context, in *struct{ Text string }) (*struct{ Text string }, error) { return in, nil }))
	})
	c := s.connect(t)
	c.request(1, "game.room.say", `{"Text":"hello"}`)
	if m := c.message(); string(m.Payload) != `{"TEXT":"HELLO"}` {
		t.Errorf("answered %s", m.Payload)
	}
}

func FuzzJSONUnmarshal(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text), []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		sameAsJSON(t, first)
		sameAsJSON(t, second) // with what the first has left, if there is anything
	})
}
