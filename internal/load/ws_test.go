package load

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A cutConn reads from a text, cut anywhere, and keeps what is written.
type cutConn struct {
	net.Conn
	in   io.Reader
	sent bytes.Buffer
}

func (c *cutConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *cutConn) Write(p []byte) (int, error) { return c.sent.Write(p) }

// readIn reads what a server sends, at most n bytes at a time.
func readIn(in string, n int) (data []byte, sent []byte, err error) {
	conn := &cutConn{in: chunks{strings.NewReader(in), n}}
	c := &wsConn{Conn: conn, masks: rand.NewChaCha8([32]byte{}), in: bufio.NewReader(conn)}
	buf := make([]byte, 7)
	for {
		n, err := c.Read(buf)
		data = append(data, buf[:n]...)
		if err != nil {
			return data, conn.sent.Bytes(), err
		}
	}
}

type chunks struct {
	io.Reader
	n int
}

func (c chunks) Read(p []byte) (int, error) { return c.Reader.Read(p[:min(len(p), c.n)]) }

func TestWSRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("y", 300)
	for name, tt := range map[string]struct {
		in, data string
		pong     string
		err      string // empty: io.EOF
	}{
		"frames":           {in: "\x82\x03abc\x82\x00\x82\x02de", data: "abcde"},
		"fragments":        {in: "\x02\x02ab\x00\x01c\x80\x01d", data: "abcd"},
		"text":             {in: "\x81\x02hi", data: "hi"},
		"16 bits":          {in: "\x82\x7e\x01\x2c" + long, data: long},
		"64 bits":          {in: "\x82\x7f\x00\x00\x00\x00\x00\x00\x01\x2c" + long, data: long},
		"ping":             {in: "\x82\x01a\x89\x02hi\x82\x01b", data: "ab", pong: "\x8a\x82\x00\x00\x00\x00hi"},
		"pong":             {in: "\x8a\x01x\x82\x01b", data: "b"},
		"close":            {in: "\x82\x01a\x88\x02\x03\xe8\x82\x01b", data: "a"},
		"close, no code":   {in: "\x88\x00"},
		"close, error":     {in: "\x88\x05\x03\xf3bye", err: `code 1011 ("bye")`},
		"cut in a header":  {in: "\x82", err: "EOF"},
		"cut in a frame":   {in: "\x82\x05ab", data: "ab", err: "EOF"},
		"masked":           {in: "\x82\x81\x00\x00\x00\x00a", err: "must not mask"},
		"reserved":         {in: "\xc2\x00", err: "reserved"},
		"opcode":           {in: "\x83\x00", err: "opcode"},
		"long ping":        {in: "\x89\x7e\x00\x80", err: "control frame"},
		"fragmented close": {in: "\x08\x00", err: "control frame"},
		"too long":         {in: "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", err: "longer than can be"},
	} {
		for _, n := range []int{1, 2, 3, 5, 1000} {
			data, sent, err := readIn(tt.in, n)
			if string(data) != tt.data || string(sent) != tt.pong {
				t.Errorf("%s by %d: got %q, sent %q", name, n, data, sent)
			}
			if err == nil || tt.err == "" && err != io.EOF || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s by %d: error %v, want %q", name, n, err, tt.err)
			}
		}
	}
}

// Each packet becomes a message that the library's server understands; the end-to-end tests show that it does. Here: one
// write for all, masked, and the bytes are those of the packets.
func TestWSWrite(t *testing.T) {
	t.Parallel()
	conn := new(cutConn)
	c := &wsConn{Conn: conn, masks: rand.NewChaCha8([32]byte{1})}
	var packets []byte
	var bodies []string
	for _, n := range []int{0, 1, 7, 8, 9, 121, 122, 300, 70000} {
		body := strings.Repeat("z", n)
		bodies = append(bodies, body)
		var err error
		if packets, err = pitaya.AppendPacket(packets, pitaya.PacketData, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.Write(packets); n != len(packets) || err != nil {
		t.Fatal(n, err)
	}
	out := conn.sent.Bytes()
	for _, body := range bodies {
		if out[0] != 0x82 || out[1]&0x80 == 0 {
			t.Fatalf("a frame begins with % x", out[:2])
		}
		n, at := int(out[1]&0x7f), 2
		switch n {
		case 126:
			n, at = int(binary.BigEndian.Uint16(out[2:])), 4
		case 127:
			n, at = int(binary.BigEndian.Uint64(out[2:])), 10
		}
		key, payload := out[at:at+4], bytes.Clone(out[at+4:at+4+n])
		for i := range payload {
			payload[i] ^= key[i%4]
		}
		out = out[at+4+n:]
		p, rest, err := pitaya.DecodePacket(payload, 0)
		if err != nil || len(rest) != 0 || string(p.Body) != body {
			t.Fatalf("a message of %d bytes for a body of %d: %v", n, len(body), err)
		}
	}
	if len(out) != 0 {
		t.Errorf("%d bytes are left", len(out))
	}
	if _, err := c.Write([]byte{1, 0, 0, 5}); err == nil {
		t.Error("half a packet is sent")
	}
}

// Reading gives the same however the bytes are cut.
func FuzzWSRead(f *testing.F) {
	f.Add("\x02\x02ab\x00\x01c\x89\x02hi\x80\x01d\x88\x00", uint8(3))
	f.Add("\x82\x7e\x00\x05hello\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01x", uint8(1))
	f.Fuzz(func(t *testing.T, in string, n uint8) {
		if len(in) > 1<<16 {
			return
		}
		data, sent, err := readIn(in, len(in)+1)
		cut, sentCut, errCut := readIn(in, int(n)+1)
		if !bytes.Equal(data, cut) || !bytes.Equal(sent, sentCut) || err.Error() != errCut.Error() {
			t.Errorf("at once %q, %q, %v; cut %q, %q, %v", data, sent, err, cut, sentCut, errCut)
		}
	})
}

// Whatever a server sends, the client takes it or ends.
func FuzzServerBytes(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x03\x04\x01x\x03\x00\x00\x00"))
	f.Add([]byte("\x04\x00\x00\x06\x24\x01{}x}\x05\x00\x00\x0e{\"reason\":\"x\"}"))
	f.Add([]byte("\x02\x00\x00\x00\x04\x00\x00\x04\x06\x01ax"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newLoop(t, 4)
		conn := c.conn.(*loopConn)
		conn.in = b
		for range len(b) + 2 {
			now, err := c.fill()
			if err == nil {
				err = c.take(now)
			}
			if err != nil {
				if kind, _ := endKind(err); kind == "" {
					t.Errorf("%v is of no kind", err)
				}
				return
			}
			if len(c.in) > 2*len(b)+maxReadBuffer {
				t.Fatalf("a buffer of %d bytes for %d", len(c.in), len(b))
			}
		}
	})
}

// A deadline that passes in the middle of a frame loses nothing.
func TestWSDeadline(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	c := &wsConn{Conn: client, masks: rand.NewChaCha8([32]byte{}), in: bufio.NewReader(client)}
	buf := make([]byte, 100)
	wrote := make(chan error, 1)
	for _, part := range []string{"\x82", "\x04a", "bc", "d"} {
		go func() { _, err := server.Write([]byte(part)); wrote <- err }()
		if part != "\x82" {
			if n, err := c.Read(buf); err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if part == "\x82" {
			// All that comes is half a header: the deadline ends the wait.
			go func() { <-wrote; client.SetReadDeadline(time.Unix(1, 0)); wrote <- nil }()
			if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			client.SetReadDeadline(time.Time{})
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a server answers to a handshake, what is taken from it can be worked with, and is the same when it comes again.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"code":200,"sys":{"heartbeat":30,"dict":{"a.b.c":1},"serializer":"protobuf"}}`, `{"code":400}`, `{"code":200,"sys":{"heartbeat":-1e300}}`,
		`{"code":200,"sys":{"heartbeat":1e300,"dict":{"":0}}}`, "\x78\x9c", "x", "null", "",
	} {
		f.Add([]byte(s), []byte(`{"code":"PIT-404"}`))
	}
	f.Fuzz(func(t *testing.T, body, payload []byte) {
		var all servers
		srv, err := all.decode(body)
		if err != nil {
			if kind, _ := endKind(err); kind == "" {
				t.Errorf("%v is of no kind", err)
			}
			return
		}
		if srv.heartbeat < 0 || srv.heartbeat > 1e6*time.Second || srv.dict == nil {
			t.Errorf("got %+v", srv)
		}
		if srv.errorCode(payload) == "" {
			t.Error("an error without a code")
		}
		if again, err := all.decode(bytes.Clone(body)); again != srv || err != nil {
			t.Errorf("the second time: %+v, %v", again, err)
		}
	})
}
