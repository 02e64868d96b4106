package pitaya_test

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// zlibOf compresses without our rules.
func zlibOf(t testing.TB, level int, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDeflate(t *testing.T) {
	noise := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	tests := []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"empty", nil, false},
		{"under the minimum", bytes.Repeat([]byte("a"), pitaya.DeflateMin-1), false},
		{"at the minimum", bytes.Repeat([]byte("a"), pitaya.DeflateMin), true},
		{"text", []byte(strings.Repeat("pitaya ", 1000)), true},
		{"noise", noise, false},
		{"a little noise", noise[:100], false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, ok := pitaya.Deflate([]byte("before"), tt.in)
			if ok != tt.ok {
				t.Fatalf("got %v, want %v", ok, tt.ok)
			}
			rest, found := bytes.CutPrefix(out, []byte("before"))
			if !found || !ok && len(rest) > 0 || ok && len(rest) >= len(tt.in) {
				t.Fatalf("got %d bytes of %d", len(rest), len(tt.in))
			}
			if !ok {
				return
			}
			plain, err := pitaya.Inflate([]byte("before"), rest, 0)
			if err != nil || !bytes.Equal(plain, append([]byte("before"), tt.in...)) {
				t.Errorf("inflated: %d bytes, %v", len(plain), err)
			}
		})
	}
}

func TestInflateLimits(t *testing.T) {
	zeros := make([]byte, 1<<20)
	bomb := zlibOf(t, zlib.BestCompression, zeros)
	floor := zlibOf(t, zlib.BestCompression, zeros[:pitaya.InflateFloor])
	text := zlibOf(t, zlib.DefaultCompression, []byte(strings.Repeat("pitaya ", 1000)))
	// A hundredth of it noise: a ratio of some 80, which is allowed.
	mixed := make([]byte, 1<<20)
	for i := range mixed[:len(mixed)/100] {
		mixed[i] = byte(rand.IntN(256))
	}
	honest := zlibOf(t, zlib.BestCompression, mixed)
	tests := []struct {
		name  string
		in    []byte
		limit int
		want  int // length, or -1 for an error
	}{
		{"at the limit", text, 7000, 7000},
		{"one over the limit", text, 6999, -1},
		{"limit of one byte", text, 1, -1},
		{"no limit given", text, 0, 7000},
		{"a ratio of 1000 up to the floor", floor, 0, pitaya.InflateFloor},
		{"a ratio of 1000 over the floor", bomb, 0, -1},
		{"a ratio of 80 over the floor", honest, 0, 1 << 20},
		{"a ratio of 80 over the limit", honest, 1<<20 - 1, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := pitaya.Inflate(nil, tt.in, tt.limit)
			if tt.want < 0 {
				if !errors.Is(err, pitaya.ErrCompressed) || out != nil {
					t.Fatalf("got %d bytes, %v", len(out), err)
				}
				return
			}
			if err != nil || len(out) != tt.want {
				t.Fatalf("got %d bytes, %v", len(out), err)
			}
			if bound := cmp.Or(tt.limit, 4<<20); cap(out) > bound {
				t.Errorf("took %d bytes, allowed were %d", cap(out), bound)
			}
		})
	}
}

func TestInflateStreams(t *testing.T) {
	plain := []byte("level nine and some more")
	good := zlibOf(t, zlib.BestCompression, plain)
	tests := []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"level 0", zlibOf(t, 0, plain), true},
		{"level 1", zlibOf(t, 1, plain), true},
		{"level 9", good, true},
		{"bytes behind the stream", append(bytes.Clone(good), "trailing"...), true},
		{"empty", nil, false},
		{"header only", good[:2], false},
		{"without checksum", good[:len(good)-4], false},
		{"half a checksum", good[:len(good)-2], false},
		{"wrong checksum", append(bytes.Clone(good[:len(good)-1]), ^good[len(good)-1]), false},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"), false},
		{"wants a dictionary", []byte("\x78\xbb\x00\x00\x00\x01\x00\x00"), false},
	}
	for range 2 { // the second time with readers from the pool
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				for _, limit := range []int{0, len(plain)} {
					out, err := pitaya.Inflate([]byte("x"), tt.in, limit)
					if !tt.ok {
						if !errors.Is(err, pitaya.ErrCompressed) || string(out) != "x" {
							t.Errorf("limit %d: got %q, %v", limit, out, err)
						}
					} else if err != nil || string(out) != "x"+string(plain) {
						t.Errorf("limit %d: got %q, %v", limit, out, err)
					}
				}
			})
		}
	}
}

func TestCompressConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			plain := bytes.Repeat([]byte{byte(i), 1, 2, 3}, 500+i)
			for range 50 {
				b, ok := pitaya.Deflate(nil, plain)
				out, err := pitaya.Inflate(nil, b, 0)
				if !ok || err != nil || !bytes.Equal(out, plain) {
					t.Errorf("got %d bytes, %v", len(out), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzInflate(f *testing.F) {
	for level := range 10 {
		f.Add(zlibOf(f, level, []byte(strings.Repeat("pitaya ", level*10))), 100)
	}
	f.Add(zlibOf(f, 9, make([]byte, 1<<18)), 1<<18)
	f.Add([]byte("\x78\x9c"), 0)
	f.Add([]byte("\x1f\x8b\x08"), 10)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		limit = min(limit, 1<<20)
		out, err := pitaya.Inflate(nil, in, limit)
		if err != nil {
			if !errors.Is(err, pitaya.ErrCompressed) || out != nil {
				t.Fatalf("got %d bytes, %v", len(out), err)
			}
		} else if bound := max(pitaya.InflateFloor, pitaya.InflateRatio*len(in)); len(out) > bound || limit > 0 && cap(out) > limit {
			t.Fatalf("%d bytes from %d, limit %d", cap(out), len(in), limit)
		}
		// And the other way round.
		b, ok := pitaya.Deflate(nil, in)
		if !ok {
			return
		}
		if plain, err := pitaya.Inflate(nil, b, 0); len(b) >= len(in) || err == nil && !bytes.Equal(plain, in) {
			t.Fatalf("%d bytes of %d, %v", len(b), len(in), err)
		}
	})
}
