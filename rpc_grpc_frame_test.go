package pitaya_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

func TestReadGRPCMessage(t *testing.T) {
	t.Parallel()
	frame := func(flags byte, length uint32, text string) string {
		return string([]byte{flags, byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}) + text
	}
	large := strings.Repeat("x", pitaya.GRPCMaxMessage)
	tests := []struct {
		name     string
		in       string
		encoding string
		want     string
		code     uint32
		err      error // where there is no code
	}{
		{name: "message", in: frame(0, 3, "abc"), want: "abc"},
		{name: "message, named encoding", in: frame(0, 3, "abc"), encoding: "gzip", want: "abc"},
		{name: "empty message", in: frame(0, 0, ""), want: ""},
		{name: "largest", in: frame(0, uint32(len(large)), large), want: large},
		{name: "too large", in: frame(0, uint32(len(large)+1), large+"x"), code: 8},
		{name: "announced only", in: frame(0, math.MaxUint32, "x"), code: 8},
		{name: "nothing", in: "", err: io.EOF},
		{name: "part of a header", in: "\x00\x00", code: 13},
		{name: "header only", in: frame(0, 3, ""), code: 13},
		{name: "cut off", in: frame(0, 3, "ab"), code: 13},
		{name: "two messages", in: frame(0, 1, "a") + frame(0, 1, "b"), code: 13},
		{name: "compressed", in: frame(1, 3, "abc"), encoding: "gzip", code: 12},
		{name: "compressed, no encoding", in: frame(1, 3, "abc"), code: 13},
		{name: "compressed, identity", in: frame(1, 3, "abc"), encoding: "identity", code: 13},
		{name: "other flags", in: frame(2, 3, "abc"), code: 13},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"whole":    strings.NewReader(tt.in),
				"data+EOF": iotest.DataErrReader(strings.NewReader(tt.in)),
				"halves":   iotest.HalfReader(strings.NewReader(tt.in)),
			} {
				got, code, err := pitaya.ReadGRPCMessage(r, tt.encoding)
				if string(got) != tt.want || code != tt.code || tt.code == 0 && err != tt.err {
					t.Errorf("%s: %d bytes, status %d, %v, want %d, %d, %v", name, len(got), code, err, len(tt.want), tt.code, tt.err)
				}
			}
		})
	}
	t.Run("error of the connection", func(t *testing.T) {
		broken := errors.New("broken")
		for n := range 9 {
			r := io.MultiReader(strings.NewReader(frame(0, 3, "abc")[:min(n, 8)]), iotest.ErrReader(broken))
			if _, _, err := pitaya.ReadGRPCMessage(r, ""); err != broken {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	})
	t.Run("memory is paid for with bytes", func(t *testing.T) {
		r := &offeredReader{Reader: strings.NewReader(frame(0, pitaya.GRPCMaxMessage, strings.Repeat("x", 100)))}
		if _, code, _ := pitaya.ReadGRPCMessage(r, ""); code != 13 || r.most > 32<<10 {
			t.Errorf("status %d; a buffer of %d bytes for 100", code, r.most)
		}
	})
}

// offeredReader notes the largest buffer that it was offered.
type offeredReader struct {
	io.Reader
	most int
}

func (r *offeredReader) Read(b []byte) (int, error) {
	r.most = max(r.most, len(b))
	return r.Reader.Read(b)
}

func TestAppendGRPCFrame(t *testing.T) {
	t.Parallel()
	got, err := pitaya.AppendGRPCFrame([]byte("before"), []byte("abc"))
	if want := "before\x00\x00\x00\x00\x03abc"; string(got) != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := pitaya.AppendGRPCFrame(nil, make([]byte, pitaya.GRPCMaxMessage+1)); err == nil {
		t.Error("too large a message was framed")
	}
}

func TestGRPCTimeout(t *testing.T) {
	t.Parallel()
	tests := []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "1n"},
		{0, "1n"},
		{1, "1n"},
		{99999999, "99999999n"},
		{100000000, "100000u"},
		{100000001, "100001u"}, // rounded up: never less than asked for
		{5 * time.Second, "5000000u"},
		{2 * time.Hour, "7200000m"},
		{1000 * time.Hour, "3600000S"},
		{100000 * time.Hour, "6000000M"},
		{math.MaxInt64, "2562048H"},
	}
	for _, tt := range tests {
		got := pitaya.GRPCTimeout(tt.d)
		if got != tt.want {
			t.Errorf("%v: %s, want %s", tt.d, got, tt.want)
		}
		if back, err := pitaya.ParseGRPCTimeout(got); err != nil || back < tt.d {
			t.Errorf("%v: %s is read as %v, %v", tt.d, got, back, err)
		}
	}
	if d, err := pitaya.ParseGRPCTimeout("99999999H"); d != math.MaxInt64 || err != nil {
		t.Errorf("99999999H: %v, %v", d, err)
	}
	for _, s := range []string{"", "5", "S", "5s", "-5S", "+5S", "5 S", "1.5S", "123456789S", "5S ", "٣S"} {
		if d, err := pitaya.ParseGRPCTimeout(s); err == nil {
			t.Errorf("%q: %v", s, d)
		}
	}
}

func TestGRPCMessage(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, wire string }{
		{"", ""},
		{"plain text", "plain text"},
		{"100%", "100%25"},
		{"two\nlines", "two%0Alines"},
		{"grüße", "gr%C3%BC%C3%9Fe"},
		{"tilde ~ \x7f", "tilde ~ %7F"},
	}
	for _, tt := range tests {
		if got := pitaya.EncodeGRPCMessage(tt.text); got != tt.wire {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.wire)
		}
		if got := pitaya.DecodeGRPCMessage(tt.wire); got != tt.text {
			t.Errorf("%q: %q, want %q", tt.wire, got, tt.text)
		}
	}
	for wire, want := range map[string]string{"%": "%", "%2": "%2", "%zz": "%zz", "%+1": "%+1", "a%FFb": "a\ufffdb", "%e2%9C%93": "✓"} {
		if got := pitaya.DecodeGRPCMessage(wire); got != want {
			t.Errorf("%q: %q, want %q", wire, got, want)
		}
	}
	if got := pitaya.EncodeGRPCMessage("a\xffb"); got != "a%EF%BF%BDb" {
		t.Errorf("invalid UTF-8: %q", got)
	}
}

func FuzzGRPCFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x03abc"), "", "5S")
	f.Add([]byte("\x01\x00\x00\x00\x03abc"), "gzip", "100m")
	f.Add([]byte("\x00\x00\x40\x00\x00abc"), "identity", "%C3%BC%")
	f.Add([]byte("\x12\x03u-1"), "", "99999999H")
	f.Fuzz(func(t *testing.T, in []byte, encoding, text string) {
		message, code, err := pitaya.ReadGRPCMessage(bytes.NewReader(in), encoding)
		if err == nil {
			again, err := pitaya.AppendGRPCFrame(nil, message)
			if err != nil || !bytes.Equal(again, in) {
				t.Errorf("%x becomes %x, %v", in, again, err)
			}
			if limit := max(2*len(in), 64<<10); cap(message) > limit {
				t.Errorf("%d bytes held for %d", cap(message), len(in))
			}
		} else if code == 0 && err != io.EOF {
			t.Errorf("error without a status: %v", err)
		}
		if d, err := pitaya.ParseGRPCTimeout(text); err == nil {
			if back, err := pitaya.ParseGRPCTimeout(pitaya.GRPCTimeout(d)); err != nil || back < max(d, 1) {
				t.Errorf("%q: %v becomes %v, %v", text, d, back, err)
			}
		}
		wire := pitaya.EncodeGRPCMessage(text)
		if strings.ContainsFunc(wire, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q becomes %q", text, wire)
		}
		if got, want := pitaya.DecodeGRPCMessage(wire), strings.ToValidUTF8(text, string(utf8.RuneError)); got != want {
			t.Errorf("%q becomes %q", want, got)
		}
		pitaya.DecodeGRPCMessage(text)
		pitaya.ProtoString(in, 1)
	})
}

// FuzzGRPCResponse takes any answer of another server: its status, headers, body and trailers.
func FuzzGRPCResponse(f *testing.F) {
	f.Add(200, "application/grpc", "", "", "", []byte("\x00\x00\x00\x00\x01a"), "0", "")
	f.Add(200, "application/grpc+proto", "5", "not%20found", "", []byte(nil), "", "")
	f.Add(200, "application/grpc", "", "", "", []byte(nil), "14", "%")
	f.Add(200, "application/grpc", "", "", "gzip", []byte("\x01\x00\x00\x00\x00"), "0", "")
	f.Add(200, "text/html", "", "", "", []byte("<html>"), "", "")
	f.Add(503, "", "", "", "", []byte(nil), "-1", "")
	f.Add(200, "application/grpc", "99999999999", "", "", []byte("\x00\x00\x00\x00\x00\x00"), "00", "x")
	f.Fuzz(func(t *testing.T, code int, content, status, message, encoding string, body []byte, trailerStatus, trailerMessage string) {
		res := &http.Response{StatusCode: code, Header: make(http.Header), Trailer: make(http.Header), Body: io.NopCloser(bytes.NewReader(body))}
		set := func(h http.Header, name, value string) {
			if value != "" {
				h.Set(name, value)
			}
		}
		set(res.Header, "Content-Type", content)
		set(res.Header, "Grpc-Status", status)
		set(res.Header, "Grpc-Message", message)
		set(res.Header, "Grpc-Encoding", encoding)
		set(res.Trailer, "Grpc-Status", trailerStatus)
		set(res.Trailer, "Grpc-Message", trailerMessage)
		got, kind, err := pitaya.ReadGRPCResponse(res)
		want, _, wantErr := pitaya.ReadGRPCMessage(bytes.NewReader(body), encoding)
		good := code == http.StatusOK && strings.Trim(status, "0") == "" && strings.Trim(trailerStatus, "0") == "" && trailerStatus != "" && wantErr == nil
		switch {
		case err == nil && (!good || !bytes.Equal(got, want)):
			t.Fatalf("took it for the answer %x", got)
		case err != nil && (got != nil || kind == 0):
			t.Fatalf("got %x with %v, which is no status", got, err)
		case err != nil && !utf8.ValidString(err.Error()):
			t.Fatalf("%q is no text", err)
		}
	})
}
