package pitaya_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

func TestDecodeMessageID(t *testing.T) {
	nine := strings.Repeat("\x80", 9)
	tests := []struct {
		name, id string
		want     uint64
		err      error
	}{
		{"ten bytes, redundant", nine + "\x00", 0, nil},
		{"ten bytes, highest bit", nine + "\x01", 1 << 63, nil},
		{"ten bytes, bit 65", nine + "\x02", 0, pitaya.ErrInvalidMessage},
		{"eleven bytes", nine + "\x80\x00", 0, pitaya.ErrInvalidMessage},
		{"not terminated", nine, 0, pitaya.ErrInvalidMessage},
		{"not terminated, long", nine + nine, 0, pitaya.ErrInvalidMessage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := pitaya.DecodeMessage([]byte("\x04"+tt.id), nil)
			if !errors.Is(err, tt.err) || m.ID != tt.want {
				t.Errorf("got %d, %v, want %d, %v", m.ID, err, tt.want, tt.err)
			}
		})
	}
}

func TestDecodeMessageRoute(t *testing.T) {
	tests := []struct {
		name, in string
		err      error
	}{
		{"nothing behind the id", "\x00\x01", pitaya.ErrInvalidMessage},
		{"invalid UTF-8", "\x02\x03a.\xff", pitaya.ErrInvalidMessage},
		{"code without a dictionary", "\x03\x00\x01", pitaya.ErrRouteCode},
		{"notify that ends with its route", "\x02\x01a", nil},
		{"notify without route and payload", "\x02\x00", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := pitaya.DecodeMessage([]byte(tt.in), nil); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

func TestAppendMessageErrors(t *testing.T) {
	tests := []struct {
		name string
		m    pitaya.Message
		want error
	}{
		{"type", pitaya.Message{Type: 4}, pitaya.ErrMessageType},
		{"longest route", pitaya.Message{Type: pitaya.MessagePush, Route: strings.Repeat("x", 255)}, nil},
		{"route too long", pitaya.Message{Type: pitaya.MessagePush, Route: strings.Repeat("x", 256)}, pitaya.ErrRoute},
		{"route not UTF-8", pitaya.Message{Route: "\xff"}, pitaya.ErrRoute},
		{"route of a response", pitaya.Message{Type: pitaya.MessageResponse, Route: "\xff"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pitaya.AppendMessage([]byte("before"), tt.m, nil)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil && string(got) != "before" {
				t.Errorf("got %q beside an error", got)
			}
		})
	}
}

func TestMessageInflate(t *testing.T) {
	plain := bytes.Repeat([]byte("pitaya "), 100)
	shorter, ok := pitaya.Deflate(nil, plain)
	if !ok {
		t.Fatal("does not shrink")
	}
	m := pitaya.Message{Type: pitaya.MessagePush, Route: "r", Payload: shorter, Compressed: true}
	if err := m.Inflate(len(plain) - 1); !errors.Is(err, pitaya.ErrCompressed) || !m.Compressed {
		t.Fatalf("over the limit: got %v, %+v", err, m)
	}
	for range 2 { // the second one does nothing
		if err := m.Inflate(len(plain)); err != nil || m.Compressed || !bytes.Equal(m.Payload, plain) {
			t.Fatalf("got %v, %+v", err, m)
		}
	}
}

func TestMessageAllocs(t *testing.T) {
	d := newDictionary(t, map[string]uint16{"conn.room.echo": 1})
	payload := make([]byte, 128)
	buf := make([]byte, 0, 512)
	for _, tt := range []struct {
		name  string
		route string
		dict  *pitaya.Dictionary
	}{
		{"code", "conn.room.echo", d},
		{"text", "conn.room.move", d},
		{"text without dictionary", "conn.room.echo", nil},
		{"longest text", strings.Repeat("r", pitaya.MaxRouteLength), nil},
	} {
		m := pitaya.Message{Type: pitaya.MessageRequest, ID: 300, Route: tt.route, Payload: payload}
		in, err := pitaya.AppendMessage(nil, m, tt.dict)
		if err != nil {
			t.Fatal(err)
		}
		wantAllocs(t, tt.name+": AppendMessage", 0, func() {
			if _, err := pitaya.AppendMessage(buf, m, tt.dict); err != nil {
				t.Fatal(err)
			}
		})
		wantAllocs(t, tt.name+": DecodeMessage", 0, func() {
			if _, err := pitaya.DecodeMessage(in, tt.dict); err != nil {
				t.Fatal(err)
			}
		})
		wantAllocs(t, tt.name+": decodeMessageView", 0, func() {
			if _, err := pitaya.DecodeMessageView(in); err != nil {
				t.Fatal(err)
			}
		})
	}
	text, err := pitaya.AppendMessage(nil, pitaya.Message{Route: "conn.room.echo"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantAllocs(t, "DecodeMessage of the text of a dictionary route", 0, func() {
		if _, err := pitaya.DecodeMessage(text, d); err != nil {
			t.Fatal(err)
		}
	})
}

// Routes that have come once are known, but not kept for ever.
func TestRouteFlood(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	in, err := pitaya.AppendMessage(nil, pitaya.Message{Route: strings.Repeat("r", pitaya.MaxRouteLength)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const routes = 20_000 // 5 MiB of text
	for i := range routes {
		copy(in[len(in)-8:], fmt.Sprintf("%08d", i))
		m, err := pitaya.DecodeMessage(in, nil)
		if err != nil || m.Route != string(in[len(in)-len(m.Route):]) {
			t.Fatalf("%q: %v", m.Route, err)
		}
	}
	// What is forgotten is taken out of the table after the collection that found it.
	var grown int64
	for range 100 {
		if grown = int64(heap()) - int64(before); grown < 1<<20 {
			return
		}
	}
	t.Errorf("%d KiB are kept for routes", grown>>10)
}

func benchmarkMessages(b *testing.B, f func(b *testing.B, m pitaya.Message, d *pitaya.Dictionary)) {
	d := newDictionary(b, map[string]uint16{"conn.room.echo": 1})
	for _, route := range []struct {
		kind, route string
	}{{"code", "conn.room.echo"}, {"text", "conn.room.move"}} {
		for _, size := range []int{16, 128, 1024} {
			b.Run(fmt.Sprintf("route=%s/size=%d", route.kind, size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(size))
				f(b, pitaya.Message{Type: pitaya.MessageRequest, ID: 300, Route: route.route, Payload: make([]byte, size)}, d)
			})
		}
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	benchmarkMessages(b, func(b *testing.B, m pitaya.Message, d *pitaya.Dictionary) {
		buf := make([]byte, 0, 2048)
		for b.Loop() {
			if _, err := pitaya.AppendMessage(buf, m, d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeMessage(b *testing.B) {
	benchmarkMessages(b, func(b *testing.B, m pitaya.Message, d *pitaya.Dictionary) {
		in, err := pitaya.AppendMessage(nil, m, d)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := pitaya.DecodeMessage(in, d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	for _, seed := range []string{
		"", "\x02", "\x00\x01", "\x00\x01\x05a.b.chello", "\x00\xac\x02\x05a.b.c", "\x01\x05\x00\x01hello", "\x03\xff\xffhello",
		"\x02\x05a.b", "\x04\x01hello", "\x24\x01{}", "\x05\x01hello", "\x06\x06onChathello", "\x07\x00\x02hello", "\x04\x80\x80",
		"\x08\x01\x02", "\x44\x01hello", "\x14\x01\x78\x9c", "\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x03a.b", "\x02\x01\xff",
		"\x14\x01\x78\x9c\x2a\xc8\x2c\x49\xac\x4c\x54\x18\xa5\xd0\x28\x40\x00\x00\x00\xff\xff\x7b\xd6\x6a\x41",
	} {
		f.Add([]byte(seed))
	}
	d := newDictionary(f, map[string]uint16{"conn.room.echo": 1, "onPush": 2, "big.code.route": 65535, "a.b.c": 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := pitaya.DecodeMessage(in, d)
		if err != nil {
			if !errors.Is(err, pitaya.ErrProtocol) {
				t.Fatalf("got %v", err)
			}
			return
		}
		for _, dict := range []*pitaya.Dictionary{d, nil} {
			b, err := pitaya.AppendMessage(nil, m, dict)
			if err != nil {
				t.Fatalf("%+v: %v", m, err)
			}
			again, err := pitaya.DecodeMessage(b, dict)
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("got %+v, %v, want %+v", again, err, m)
			}
		}
		if err := m.Inflate(1 << 16); err != nil {
			return
		}
		if len(m.Payload) > max(1<<16, len(in)) || m.Compressed {
			t.Fatalf("inflated to %d bytes", len(m.Payload))
		}
	})
}
