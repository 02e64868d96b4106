package pitaya_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/pitaya-go/pitaya"
)

// readVectors decodes testdata/vectors/name.
func readVectors[T any](t testing.TB, name string) []T {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []T }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) == 0 {
		t.Fatalf("%s has no vectors", name)
	}
	return file.Vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wsCode is the close code that err asks for, 0 without an error.
func wsCode(err error) uint16 {
	var coded interface{ Code() uint16 }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return 0
}

// wsFrame builds a frame with any first byte, masked with a fixed key, its length in the shortest form.
func wsFrame(first byte, payload string) []byte {
	b := pitaya.AppendWSHeader(nil, 0, len(payload))
	b[0] = first
	b[1] |= 0x80
	key := []byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// wsDecoded is all that came out of a reader.
type wsDecoded struct {
	data    []byte
	control []string // "9:payload"
	err     error
}

// decodeWS feeds input in pieces: whole where cut is nil, else of the sizes cut returns for what is left.
func decodeWS(r *pitaya.WSReader, input []byte, cut func(left int) int) (d wsDecoded) {
	for len(input) > 0 {
		n := len(input)
		if cut != nil {
			n = cut(n)
		}
		piece := bytes.Clone(input[:n]) // the reader owns and overwrites it
		input = input[n:]
		data, err := r.Decode(piece, func(op byte, payload []byte) error {
			d.control = append(d.control, fmt.Sprintf("%d:%s", op, payload))
			return nil
		})
		if len(data) > 0 && &data[0] != &piece[0] {
			panic("decoded data is not a prefix of the input")
		}
		d.data = append(d.data, data...)
		if err != nil {
			d.err = err
			return d
		}
	}
	return d
}

const (
	fin  = 0x80
	rsv1 = 0x40
)

func TestWSReader(t *testing.T) {
	long := strings.Repeat("0123456789", 7000) // 64-bit length
	masked := func(s string) []byte { return wsFrame(fin|pitaya.WSBinary, s) }
	tests := []struct {
		name    string
		client  bool
		limit   int64
		input   []byte
		data    string
		control []string
		code    uint16 // of the violation, 0: none
	}{
		{name: "hello of RFC 6455 section 5.7", input: unhex(t, "81 85 37fa213d 7f9f4d5158"), data: "Hello"},
		{name: "unmasked hello", client: true, input: unhex(t, "8105 48656c6c6f"), data: "Hello"},
		{name: "fragmented hello", client: true, input: unhex(t, "0103 48656c 8002 6c6f"), data: "Hello"},
		{name: "empty message", input: masked("")},
		{name: "125 bytes", input: masked(long[:125]), data: long[:125]},
		{name: "126 bytes", input: masked(long[:126]), data: long[:126]},
		{name: "65535 bytes", input: masked(long[:65535]), data: long[:65535]},
		{name: "65536 bytes", input: masked(long[:65536]), data: long[:65536]},
		{name: "70000 bytes", input: masked(long), data: long},
		{name: "two messages", input: slices.Concat(masked("abc"), masked("defg")), data: "abcdefg"},
		{name: "empty fragments", input: slices.Concat(wsFrame(pitaya.WSText, ""), wsFrame(0, ""), wsFrame(0, "x"), wsFrame(fin, "")), data: "x"},
		{name: "ping within a message", input: slices.Concat(wsFrame(pitaya.WSText, "a"), wsFrame(fin|pitaya.WSPing, "p"), wsFrame(fin|pitaya.WSPong, ""), wsFrame(fin, "b")),
			data: "ab", control: []string{"9:p", "10:"}},
		{name: "longest ping", input: wsFrame(fin|pitaya.WSPing, long[:125]), control: []string{"9:" + long[:125]}},
		{name: "empty close", input: wsFrame(fin|pitaya.WSClose, ""), control: []string{"8:"}},
		{name: "data after close is ignored", input: slices.Concat(masked("a"), wsFrame(fin|pitaya.WSClose, "\x03\xe8bye"), masked("b"), []byte{0xFF, 0xFF}),
			data: "a", control: []string{"8:\x03\xe8bye"}},
		{name: "close within a message", input: slices.Concat(wsFrame(pitaya.WSBinary, "a"), wsFrame(fin|pitaya.WSClose, "\x0b\xb8")),
			data: "a", control: []string{"8:\x0b\xb8"}},

		{name: "reserved bit", input: wsFrame(fin|rsv1|pitaya.WSBinary, "x"), code: 1002},
		{name: "reserved bit 2", input: []byte{fin | 0x20}, code: 1002},
		{name: "reserved bit 3 on a ping", input: []byte{fin | 0x10 | pitaya.WSPing}, code: 1002},
		{name: "opcode 3", input: wsFrame(fin|3, ""), code: 1002},
		{name: "opcode 11", input: wsFrame(fin|11, ""), code: 1002},
		{name: "first byte decides", input: []byte{0x83}, code: 1002},
		{name: "fragmented ping", input: wsFrame(pitaya.WSPing, ""), code: 1002},
		{name: "ping of 126 bytes", input: wsFrame(fin|pitaya.WSPing, long[:126]), code: 1002},
		{name: "continuation of nothing", input: wsFrame(fin, "x"), code: 1002},
		{name: "continuation after the end", input: slices.Concat(masked("a"), wsFrame(0, "x")), data: "a", code: 1002},
		{name: "message in a message", input: slices.Concat(wsFrame(pitaya.WSText, "a"), wsFrame(fin|pitaya.WSText, "b")), data: "a", code: 1002},
		{name: "unmasked to a server", input: unhex(t, "8201 61"), code: 1002},
		{name: "unmasked ping to a server", input: unhex(t, "8900"), code: 1002},
		{name: "masked to a client", client: true, input: masked("x"), code: 1002},
		{name: "16-bit length of 125", input: unhex(t, "82 fe 007d"), code: 1002},
		{name: "64-bit length of 65535", input: unhex(t, "82 ff 000000000000ffff"), code: 1002},
		{name: "64-bit length of 5", input: unhex(t, "82 ff 0000000000000005"), code: 1002},
		{name: "64th bit of the length", input: unhex(t, "82 ff 8000000000000000"), code: 1002},
		{name: "largest length", input: unhex(t, "82 ff 7fffffffffffffff 00000000 61"), data: "a"},
		{name: "largest length over the limit", limit: 10, input: unhex(t, "82 ff 7fffffffffffffff"), code: 1009},

		{name: "limit reached", limit: 4, input: slices.Concat(masked("abcd"), masked("efgh")), data: "abcdefgh"},
		{name: "limit passed", limit: 4, input: masked("abcde"), code: 1009},
		{name: "limit reached in fragments", limit: 4, input: slices.Concat(wsFrame(pitaya.WSBinary, "ab"), wsFrame(fin|pitaya.WSPing, "12345"), wsFrame(fin, "cd")),
			data: "abcd", control: []string{"9:12345"}},
		{name: "limit passed in fragments", limit: 4, input: slices.Concat(wsFrame(pitaya.WSBinary, "abc"), wsFrame(fin, "de")), data: "abc", code: 1009},

		{name: "text", input: wsFrame(fin|pitaya.WSText, "κόσμε 😀"), data: "κόσμε 😀"},
		{name: "text cut within a rune", input: slices.Concat(wsFrame(pitaya.WSText, "\xf0"), wsFrame(0, "\x9f\x98"), wsFrame(fin, "\x80")), data: "😀"},
		{name: "binary need not be text", input: masked("\xff\xfe"), data: "\xff\xfe"},
		{name: "invalid text", input: wsFrame(fin|pitaya.WSText, "a\xff"), code: 1007},
		{name: "surrogate", input: wsFrame(fin|pitaya.WSText, "\xed\xa0\x80"), code: 1007},
		{name: "overlong", input: wsFrame(fin|pitaya.WSText, "\xc0\xaf"), code: 1007},
		{name: "over U+10FFFF", input: wsFrame(fin|pitaya.WSText, "\xf4\x90\x80\x80"), code: 1007},
		{name: "half a rune at the end", input: wsFrame(fin|pitaya.WSText, "a\xe2\x82"), data: "a\xe2\x82", code: 1007},
		{name: "invalid text fails before its end", input: wsFrame(pitaya.WSText, "\xed\xa0"), code: 1007},
		{name: "invalid across fragments", input: slices.Concat(wsFrame(pitaya.WSText, "a\xf4"), wsFrame(0, "\x90")), data: "a\xf4", code: 1007},
		{name: "next message after text", input: slices.Concat(wsFrame(fin|pitaya.WSText, "é"), wsFrame(fin|pitaya.WSBinary, "\x80")), data: "é\x80"},

		{name: "close with half a code", input: wsFrame(fin|pitaya.WSClose, "\x03"), code: 1002},
		{name: "close with invalid UTF-8", input: wsFrame(fin|pitaya.WSClose, "\x03\xe8\xff"), code: 1007},
		{name: "close with code 0", input: wsFrame(fin|pitaya.WSClose, "\x00\x00"), code: 1002},
		{name: "close with code 999", input: wsFrame(fin|pitaya.WSClose, "\x03\xe7"), code: 1002},
		{name: "close with code 1004", input: wsFrame(fin|pitaya.WSClose, "\x03\xec"), code: 1002},
		{name: "close with code 1005", input: wsFrame(fin|pitaya.WSClose, "\x03\xed"), code: 1002},
		{name: "close with code 1006", input: wsFrame(fin|pitaya.WSClose, "\x03\xee"), code: 1002},
		{name: "close with code 1015", input: wsFrame(fin|pitaya.WSClose, "\x03\xf7"), code: 1002},
		{name: "close with code 2999", input: wsFrame(fin|pitaya.WSClose, "\x0b\xb7"), code: 1002},
		{name: "close with code 5000", input: wsFrame(fin|pitaya.WSClose, "\x13\x88"), code: 1002},
		{name: "close with code 1014", input: wsFrame(fin|pitaya.WSClose, "\x03\xf6"), control: []string{"8:\x03\xf6"}},
		{name: "close with code 4999", input: wsFrame(fin|pitaya.WSClose, "\x13\x87"), control: []string{"8:\x13\x87"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cuts := map[string]func(int) int{"whole": nil, "bytes": func(int) int { return 1 }, "threes": func(n int) int { return min(n, 3) }}
			for name, cut := range cuts {
				r := pitaya.NewWSReader(tt.client, tt.limit)
				got := decodeWS(r, tt.input, cut)
				if code := wsCode(got.err); code != tt.code || (got.err != nil) != (tt.code != 0) {
					t.Fatalf("%s: error %v, want code %d", name, got.err, tt.code)
				}
				if got.err != nil && !errors.Is(got.err, pitaya.ErrProtocol) {
					t.Errorf("%s: %v does not wrap ErrProtocol", name, got.err)
				}
				// Cut finely, the valid beginning of an invalid text chunk comes out before the error.
				if string(got.data) != tt.data && (tt.code != 1007 || !bytes.HasPrefix(got.data, []byte(tt.data))) {
					t.Errorf("%s: data %.40q, want %.40q", name, got.data, tt.data)
				}
				if !slices.Equal(got.control, tt.control) {
					t.Errorf("%s: control frames %q, want %q", name, got.control, tt.control)
				}
				if data, err := r.Decode([]byte("more"), nil); tt.code != 0 && (len(data) != 0 || err != got.err) {
					t.Errorf("%s: after the violation: %q, %v", name, data, err)
				}
			}
		})
	}
}

func TestWSReaderControlError(t *testing.T) {
	errStop := errors.New("stop")
	input := slices.Concat(wsFrame(fin|pitaya.WSBinary, "a"), wsFrame(fin|pitaya.WSPing, ""), wsFrame(fin|pitaya.WSBinary, "b"))
	r := pitaya.NewWSReader(false, 0)
	data, err := r.Decode(input, func(byte, []byte) error { return errStop })
	if string(data) != "a" || err != errStop {
		t.Errorf("got %q, %v", data, err)
	}
	if data, err := r.Decode([]byte("b"), nil); len(data) != 0 || err != nil {
		t.Errorf("afterwards got %q, %v", data, err)
	}
}

// The protocol document maps one message to one packet; here messages carry a byte stream, so that packets may be split
// or joined over them, and the packet layer finds the ends. The words for wrong lengths are therefore its business:
// "two packets in one frame" are two packets, what is missing in a frame may come in the next, an empty one is nothing.
var wsReadOtherwise = map[string]string{
	"two packets in one frame": "packets may be joined: these are two",
	"short body":               "packets may be split: the rest may come in the next message",
	"three bytes":              "packets may be split: the rest may come in the next message",
	"empty":                    "packets may be split, also into nothing and the rest",
	"long body":                "packets may be joined: behind a whole packet the next one begins, here with a type that does not exist",
}

func TestWSReaderVectors(t *testing.T) {
	type vector struct {
		Name    string
		Opcode  string
		Payload string `json:"frame_payload_hex"`
		Message string `json:"message_hex"`
		Error   string
	}
	ops := map[string]byte{"binary": pitaya.WSBinary, "text": pitaya.WSText}
	seen := map[string]bool{}
	for _, v := range readVectors[vector](t, "ws_read.json") {
		seen[v.Name] = true
		t.Run(v.Name, func(t *testing.T) {
			op := ops[v.Opcode]
			if op == 0 {
				t.Fatalf("opcode %q", v.Opcode)
			}
			got := decodeWS(pitaya.NewWSReader(false, 0), pitaya.AppendWSFrame(nil, op, true, unhex(t, v.Payload)), nil)
			err := got.err
			if err == nil {
				var rest []byte
				_, rest, err = pitaya.DecodePacket(got.data, 0)
				if err == nil && len(rest) > 0 {
					err = errors.New("more than one packet")
				}
			}
			if err == nil && v.Error == "" && !bytes.Equal(got.data, unhex(t, v.Message)) {
				err = fmt.Errorf("got %x", got.data)
			}
			matches := wantError(err, v.Error) == nil
			switch reason, otherwise := wsReadOtherwise[v.Name]; {
			case otherwise && matches:
				t.Errorf("matches, but is listed as answered otherwise (%s)", reason)
			case otherwise && !bytes.Equal(got.data, unhex(t, v.Payload)):
				t.Errorf("got %x, %v", got.data, got.err)
			case !otherwise && !matches:
				t.Errorf("got %x, %v, want %s, error %q", got.data, err, v.Message, v.Error)
			}
		})
	}
	for name := range wsReadOtherwise {
		if !seen[name] {
			t.Errorf("there is no vector %q", name)
		}
	}
}

func TestAppendWSFrame(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 125, 126, 127, 1000, 65535, 65536, 100_000} {
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		for _, client := range []bool{false, true} {
			want := bytes.Clone(payload)
			b := pitaya.AppendWSFrame([]byte("x"), pitaya.WSBinary, client, payload)
			if !bytes.Equal(payload, want) {
				t.Fatalf("%d bytes, client %t: the payload was changed", n, client)
			}
			header := map[bool]int{true: 2, false: 4}[n < 126]
			if n > 65535 {
				header = 10
			}
			if client {
				header += 4
			}
			if b[0] != 'x' || len(b) != 1+header+n {
				t.Errorf("%d bytes, client %t: frame of %d", n, client, len(b)-1)
			}
			// The other role reads it.
			got := decodeWS(pitaya.NewWSReader(!client, 0), b[1:], nil)
			if got.err != nil || !bytes.Equal(got.data, want) {
				t.Errorf("%d bytes, client %t: read back %d bytes, %v", n, client, len(got.data), got.err)
			}
		}
	}
	a := pitaya.AppendWSFrame(nil, pitaya.WSPing, true, nil)
	b := pitaya.AppendWSFrame(nil, pitaya.WSPing, true, nil)
	c := pitaya.AppendWSFrame(nil, pitaya.WSPing, true, nil)
	if bytes.Equal(a, b) && bytes.Equal(b, c) {
		t.Errorf("the same key three times: %x", a)
	}
}

func TestAppendWSClose(t *testing.T) {
	tests := []struct {
		name         string
		code         uint16
		reason, want string // want: payload
	}{
		{"code only", 1000, "", "\x03\xe8"},
		{"with a reason", 1008, "no", "\x03\xf0no"},
		{"no status", pitaya.WSCloseNoStatus, "dropped", ""},
		{"longest reason", 1000, strings.Repeat("r", 123), "\x03\xe8" + strings.Repeat("r", 123)},
		{"cut reason", 1000, strings.Repeat("r", 124), "\x03\xe8" + strings.Repeat("r", 123)},
		{"cut at a rune", 1000, strings.Repeat("r", 122) + "é", "\x03\xe8" + strings.Repeat("r", 122)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, mask := range []bool{false, true} {
				got := decodeWS(pitaya.NewWSReader(!mask, 0), pitaya.AppendWSClose(nil, tt.code, tt.reason, mask), nil)
				if want := []string{"8:" + tt.want}; got.err != nil || !slices.Equal(got.control, want) {
					t.Errorf("mask %t: got %q, %v, want %q", mask, got.control, got.err, want)
				}
			}
			code, reason, err := pitaya.ParseWSClose([]byte(tt.want))
			if err != nil || code != tt.code || tt.code != pitaya.WSCloseNoStatus && !strings.HasPrefix(tt.reason, reason) {
				t.Errorf("parsed %d, %q, %v", code, reason, err)
			}
		})
	}
	if _, _, err := pitaya.ParseWSClose([]byte{3}); wsCode(err) != 1002 {
		t.Errorf("half a code: %v", err)
	}
}

func TestXORWSKey(t *testing.T) {
	const key = 0x44332211
	for n := range 200 {
		for shift := range 20 {
			b := make([]byte, shift+n)
			for i := range b {
				b[i] = byte(i * 31)
			}
			want := make([]byte, n)
			for i := range want {
				want[i] = b[shift+i] ^ byte(0x11*(i%4+1))
			}
			if pitaya.XORWSKey(b[:n], b[shift:], key); !bytes.Equal(b[:n], want) {
				t.Fatalf("%d bytes moved by %d: %x, want %x", n, shift, b[:n], want)
			}
		}
	}
}

func TestWSReaderSize(t *testing.T) {
	if got := unsafe.Sizeof(pitaya.WSReader{}); got > 64 {
		t.Errorf("an idle connection keeps %d bytes, want 64", got)
	}
	r := pitaya.NewWSReader(false, 0)
	frame := slices.Concat(wsFrame(fin|pitaya.WSBinary, strings.Repeat("x", 500)), wsFrame(fin|pitaya.WSPing, "p"))
	b := make([]byte, len(frame))
	control := func(byte, []byte) error { return nil }
	if n := testing.AllocsPerRun(100, func() {
		copy(b, frame)
		if data, err := r.Decode(b, control); len(data) != 500 || err != nil {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}); n != 0 {
		t.Errorf("%v allocations to decode", n)
	}
}

// What comes out does not depend on how the input was cut.
func FuzzWSFrame(f *testing.F) {
	f.Add(wsFrame(fin|pitaya.WSText, "κόσμε 😀"), false, uint32(0), uint64(1))
	f.Add(slices.Concat(wsFrame(pitaya.WSBinary, "ab"), wsFrame(fin|pitaya.WSPing, "p"), wsFrame(fin, "cd")), false, uint32(4), uint64(2))
	f.Add(pitaya.AppendWSClose(pitaya.AppendWSFrame(nil, pitaya.WSBinary, false, make([]byte, 130)), 1000, "bye", false), true, uint32(0), uint64(3))
	f.Add(wsFrame(fin|pitaya.WSText, "\xed\xa0\x80"), false, uint32(0), uint64(4))
	f.Add([]byte{0x82, 0xFE, 0, 125, 0, 0, 0, 0}, false, uint32(0), uint64(5))
	f.Fuzz(func(t *testing.T, input []byte, client bool, limit uint32, seed uint64) {
		whole := decodeWS(pitaya.NewWSReader(client, int64(limit)), input, nil)
		rng := rand.New(rand.NewPCG(seed, seed))
		cut := decodeWS(pitaya.NewWSReader(client, int64(limit)), input, func(left int) int { return 1 + rng.IntN(min(left, 16)) })
		if wsCode(whole.err) != wsCode(cut.err) || (whole.err == nil) != (cut.err == nil) {
			t.Fatalf("whole: %v, cut: %v", whole.err, cut.err)
		}
		if !slices.Equal(whole.control, cut.control) {
			t.Errorf("control frames whole: %q, cut: %q", whole.control, cut.control)
		}
		if wsCode(whole.err) == 1007 {
			// The valid beginning of an invalid piece is not given.
			cut.data = cut.data[:min(len(cut.data), len(whole.data))]
		}
		if !bytes.Equal(whole.data, cut.data) {
			t.Errorf("data whole: %q, cut: %q", whole.data, cut.data)
		}
		if len(whole.data) > len(input) {
			t.Errorf("%d bytes out of %d", len(whole.data), len(input))
		}
		if whole.err != nil && wsCode(whole.err) == 0 {
			t.Errorf("error without a code: %v", whole.err)
		}
	})
}

func BenchmarkWSDecode(b *testing.B) {
	for _, size := range []int{32, 128, 1024, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			frame := wsFrame(fin|pitaya.WSBinary, strings.Repeat("x", size))
			// The header stays what it is; unmasking again and again what was unmasked costs the same.
			header := bytes.Clone(frame[:len(frame)-size])
			r := pitaya.NewWSReader(false, 0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(frame, header)
				if data, err := r.Decode(frame, nil); len(data) != size || err != nil {
					b.Fatal(len(data), err)
				}
			}
		})
	}
	b.Run("unmask/size=4096", func(b *testing.B) {
		buf := make([]byte, 4096)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			pitaya.XORWSKey(buf, buf, binary.LittleEndian.Uint32(buf)|1)
		}
	})
}
