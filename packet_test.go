package pitaya_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/pitaya-go/pitaya"
)

func TestPacketLimits(t *testing.T) {
	five := []byte("\x04\x00\x00\x05hello")
	tests := []struct {
		name string
		in   []byte
		max  int
		want error
	}{
		{"at the limit", five, 5, nil},
		{"over the limit", five, 4, pitaya.ErrPacketTooLarge},
		{"over the limit, body missing", five[:4], 4, pitaya.ErrPacketTooLarge},
		{"no limit", five, 0, nil},
		{"header incomplete", five[:3], 4, io.ErrUnexpectedEOF},
		{"body incomplete", five[:8], 5, io.ErrUnexpectedEOF},
		{"type before size", []byte("GET "), 4, pitaya.ErrPacketType},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, rest, err := pitaya.DecodePacket(tt.in, tt.max)
			if !errors.Is(err, tt.want) {
				t.Errorf("DecodePacket: got %v, want %v", err, tt.want)
			}
			if err != nil && !bytes.Equal(rest, tt.in) {
				t.Errorf("DecodePacket: got rest %x with an error, want the input", rest)
			}
			if _, err := pitaya.ReadPacket(bytes.NewReader(tt.in), tt.max); !errors.Is(err, tt.want) {
				t.Errorf("ReadPacket: got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestDecodePacketView makes sure that appending to a body cannot reach the next packet.
func TestDecodePacketView(t *testing.T) {
	in := []byte("\x04\x00\x00\x01a\x03\x00\x00\x00")
	p, rest, err := pitaya.DecodePacket(in, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(p.Body, 'x')
	if rest[0] != 3 {
		t.Errorf("the next packet has changed: %x", rest)
	}
}

func TestReadPacketPieces(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 20000) // several chunks
	in, err := pitaya.AppendPacket(nil, pitaya.PacketData, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"whole":        bytes.NewReader(in),
		"half":         iotest.HalfReader(bytes.NewReader(in)),
		"data and EOF": iotest.DataErrReader(bytes.NewReader(in)),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := pitaya.ReadPacket(r, 0)
			if err != nil || p.Type != pitaya.PacketData || !bytes.Equal(p.Body, body) {
				t.Fatalf("got %v, %d bytes, %v", p.Type, len(p.Body), err)
			}
			if _, err := pitaya.ReadPacket(r, 0); err != io.EOF {
				t.Errorf("at the end: got %v, want EOF", err)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		for _, n := range []int{4, 5, 64 << 10, 64<<10 + 4, len(in) - 1} {
			if _, err := pitaya.ReadPacket(bytes.NewReader(in[:n]), 0); !errors.Is(err, pitaya.ErrShortBody) {
				t.Errorf("after %d bytes: got %v", n, err)
			}
		}
	})
	t.Run("error of the reader", func(t *testing.T) {
		r := io.MultiReader(bytes.NewReader(in[:10]), iotest.ErrReader(io.ErrNoProgress))
		if _, err := pitaya.ReadPacket(r, 0); err != io.ErrNoProgress {
			t.Errorf("got %v", err)
		}
	})
}

func TestPutPacketHeader(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 65536, pitaya.MaxPacketSize} {
		var b [4]byte
		pitaya.PutPacketHeader(b[:], pitaya.PacketKick, n)
		typ, got, err := pitaya.DecodePacketHeader(b[:])
		if typ != pitaya.PacketKick || got != n || err != nil {
			t.Errorf("%d: got %v, %d, %v", n, typ, got, err)
		}
	}
}

func TestPacketAllocs(t *testing.T) {
	body := make([]byte, 128)
	buf := make([]byte, 0, 256)
	packet, err := pitaya.AppendPacket(nil, pitaya.PacketData, body)
	if err != nil {
		t.Fatal(err)
	}
	wantAllocs(t, "AppendPacket", 0, func() {
		if _, err := pitaya.AppendPacket(buf, pitaya.PacketData, body); err != nil {
			t.Fatal(err)
		}
	})
	wantAllocs(t, "DecodePacket", 0, func() {
		if _, _, err := pitaya.DecodePacket(packet, 0); err != nil {
			t.Fatal(err)
		}
	})
}

// wantAllocs fails the test if f allocates more or less often than want per call.
func wantAllocs(t *testing.T, what string, want float64, f func()) {
	t.Helper()
	if got := testing.AllocsPerRun(100, f); got != want {
		t.Errorf("%s: got %v allocations, want %v", what, got, want)
	}
}

func BenchmarkAppendPacket(b *testing.B) {
	for _, size := range []int{16, 128, 1024} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			body := make([]byte, size)
			buf := make([]byte, 0, size+pitaya.PacketHeaderSize)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := pitaya.AppendPacket(buf, pitaya.PacketData, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodePacket(b *testing.B) {
	for _, size := range []int{16, 128, 1024} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			in, err := pitaya.AppendPacket(nil, pitaya.PacketData, make([]byte, size))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, _, err := pitaya.DecodePacket(in, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzReadPacket reads a stream both ways and compares.
func FuzzReadPacket(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x04\x00\x00", "\x01\x00\x00\x02{}", "\x03\x00\x00\x00\x04\x00\x00\x01a", "\x04\x00\x00\x05ab",
		"\x00\x00\x00\x00", "\x03\x00\x00\x00\xff\x00\x00\x00", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01",
		"\x04\xff\xff\xff", "\x04\x00\x00\x02\x00\x01", "\x05\x00\x00\x0e{\"reason\":\"x\"}",
	} {
		f.Add([]byte(seed), 1<<10)
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, max int) {
		r := bytes.NewReader(in)
		rest := in
		for {
			p, err := pitaya.ReadPacket(r, max)
			q, after, errView := pitaya.DecodePacket(rest, max)
			if err != nil {
				if errView == nil {
					t.Fatalf("ReadPacket: %v, DecodePacket: %v %x", err, q.Type, q.Body)
				}
				if (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)) != (errView == io.ErrUnexpectedEOF) {
					t.Fatalf("ReadPacket: %v, DecodePacket: %v", err, errView)
				}
				return
			}
			if errView != nil || p.Type != q.Type || !bytes.Equal(p.Body, q.Body) {
				t.Fatalf("ReadPacket: %v %x, DecodePacket: %v %x %v", p.Type, p.Body, q.Type, q.Body, errView)
			}
			if max > 0 && len(p.Body) > max {
				t.Fatalf("body of %d bytes, allowed were %d", len(p.Body), max)
			}
			again, err := pitaya.AppendPacket(nil, p.Type, p.Body)
			if err != nil || !bytes.Equal(again, rest[:len(rest)-len(after)]) {
				t.Fatalf("encoded again: %x %v", again, err)
			}
			rest = after
		}
	})
}
