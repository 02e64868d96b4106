package pitaya_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/pitaya-go/pitaya"
)

func TestHandshakeAbilities(t *testing.T) {
	tests := []struct {
		name, in  string
		inflates  bool
		pushCodes bool
	}{
		{"unknown", `{}`, false, false},
		{"libpitaya", `{"sys":{"platform":"linux","libVersion":"4.6.2-"}}`, true, false},
		{"libpitaya release", `{"sys":{"platform":"ios","libVersion":"4.6.12-release"}}`, true, false},
		{"libpitaya without platform", `{"sys":{"libVersion":"4.6.2-"}}`, false, false},
		{"some other version", `{"sys":{"platform":"x","libVersion":"4.6.2"}}`, false, false},
		{"a version of words", `{"sys":{"platform":"x","libVersion":"a.b.c-d"}}`, false, false},
		{"a version with an empty part", `{"sys":{"platform":"x","libVersion":"4..2-d"}}`, false, false},
		{"Go client", `{"sys":{"platform":"mac","libVersion":"0.3.5-release"}}`, true, true},
		{"JavaScript", `{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}}}`, false, true},
		{"JavaScript with a version", `{"sys":{"type":"js","platform":"x","libVersion":"4.6.2-"}}`, false, true},
		{"JavaScript that inflates", `{"sys":{"type":"js","features":["inflate"]}}`, true, true},
		{"announced", `{"sys":{"features":["x","inflate","pushcodes"]}}`, true, true},
		{"inflate only", `{"sys":{"features":["inflate"]}}`, true, false},
		{"features of another type", `{"sys":{"features":"inflate"}}`, false, false},
		{"features of mixed types", `{"sys":{"features":["inflate",1]}}`, false, false},
		{"features null", `{"sys":{"features":null,"type":null}}`, false, false},
		{"type of another type", `{"sys":{"type":{"a":1}}}`, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := pitaya.DecodeHandshake([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if h.Inflates() != tt.inflates || h.KnowsPushCodes() != tt.pushCodes {
				t.Errorf("got inflates %v, push codes %v, want %v, %v", h.Inflates(), h.KnowsPushCodes(), tt.inflates, tt.pushCodes)
			}
		})
	}
}

func TestHandshakeDataJSON(t *testing.T) {
	h, err := pitaya.DecodeHandshake([]byte(`{"sys":{"platform":"mac","type":"js","features":["inflate"],"clientVersion":"2"},"user":{"a":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"sys":{"platform":"mac","libVersion":"","clientBuildNumber":"","clientVersion":"2"},"user":{"a":1}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAppendHandshake(t *testing.T) {
	tests := []struct {
		name string
		h    pitaya.HandshakeData
		want string
	}{
		{"nothing", pitaya.HandshakeData{}, `{"sys":{"platform":"","libVersion":"","clientBuildNumber":"","clientVersion":""}}`},
		{"all", pitaya.HandshakeData{
			Sys:  pitaya.HandshakeSys{Platform: "p", LibVersion: "l", BuildNumber: "b", Version: "v", Type: "t", Features: []string{"inflate"}},
			User: map[string]any{"age": 30.0},
		}, `{"sys":{"platform":"p","libVersion":"l","clientBuildNumber":"b","clientVersion":"v","type":"t","features":["inflate"]},"user":{"age":30}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pitaya.AppendHandshake(nil, &tt.h)
			if err != nil || string(got) != tt.want {
				t.Fatalf("got  %s, %v\nwant %s", got, err, tt.want)
			}
			again, err := pitaya.DecodeHandshake(got)
			if err != nil || !reflect.DeepEqual(*again, tt.h) {
				t.Errorf("decoded again: got %+v, %v, want %+v", again, err, tt.h)
			}
		})
	}
	if _, err := pitaya.AppendHandshake(nil, &pitaya.HandshakeData{User: map[string]any{"f": func() {}}}); err == nil {
		t.Error("a function is no JSON, but no error")
	}
}

func TestHandshakeResponse(t *testing.T) {
	r := &pitaya.HandshakeResponse{Code: 400, Msg: "too old"}
	got, err := pitaya.AppendHandshakeResponse([]byte("before"), r)
	want := `before{"code":400,"msg":"too old","sys":{"dict":{},"heartbeat":0,"serializer":""}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	r.Sys.Heartbeat = math.NaN()
	if _, err := pitaya.AppendHandshakeResponse(nil, r); err == nil {
		t.Error("NaN is no JSON, but no error")
	}
	for name, in := range map[string]string{
		"empty": "", "not JSON": "x", "bad zlib": "\x78\x9cxxxx", "zlib header alone": "\x78\x9c", "code over 16 bits": `{"sys":{"dict":{"a":65536}}}`,
		"bomb": string(zlibOf(t, 9, make([]byte, 2<<20))),
	} {
		if _, err := pitaya.DecodeHandshakeResponse([]byte(in)); !errors.Is(err, pitaya.ErrProtocol) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `"x"`, `{"sys":null,"user":null}`, `{"sys":{"type":"js","features":["inflate",1]},"user":{"a":{"b":[1,2.5]}}}`,
		`{"SYS":{"PlatForm":"x"}}`, `{"sys":{"platform":1}}`, `{"code":200,"sys":{"dict":{"a":1},"heartbeat":1.5,"serializer":"json"}}`,
		`{"code":400,"msg":"no"}`, "\x78\x9c\xabV\x02\x00\x00\xff", `{} x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if h, err := pitaya.DecodeHandshake(in); err == nil {
			h.Inflates()
			h.KnowsPushCodes()
			b, err := pitaya.AppendHandshake(nil, h)
			if err != nil {
				t.Fatal(err)
			}
			again, err := pitaya.DecodeHandshake(b)
			if err != nil || again.Sys.Platform != h.Sys.Platform || again.Sys.Type != h.Sys.Type || len(again.User) != len(h.User) {
				t.Fatalf("got %+v, %v, want %+v", again, err, h)
			}
		} else if !errors.Is(err, pitaya.ErrProtocol) {
			t.Fatalf("got %v", err)
		}
		if r, err := pitaya.DecodeHandshakeResponse(in); err == nil {
			b, err := pitaya.AppendHandshakeResponse(nil, r)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := pitaya.DecodeHandshakeResponse(b); err != nil || again.Code != r.Code || len(again.Sys.Dict) != len(r.Sys.Dict) {
				t.Fatalf("got %+v, %v, want %+v", again, err, r)
			}
		} else if !errors.Is(err, pitaya.ErrProtocol) {
			t.Fatalf("got %v", err)
		}
	})
}
