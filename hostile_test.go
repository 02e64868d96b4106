package pitaya_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// packet returns the bytes of a packet, whose body is given in pieces.
func packet(t pitaya.PacketType, body ...string) []byte {
	b, err := pitaya.AppendPacket(nil, t, []byte(strings.Join(body, "")))
	if err != nil {
		panic(err)
	}
	return b
}

var (
	handshakeOnly = packet(pitaya.PacketHandshake, `{"sys":{}}`)
	handshakeAck  = packet(pitaya.PacketHandshakeAck)
	handshakeAll  = append(bytes.Clone(handshakeOnly), handshakeAck...)
)

// zlibBomb is n zero bytes, compressed.
func zlibBomb(n int) string {
	var b bytes.Buffer
	w, _ := zlib.NewWriterLevel(&b, zlib.BestCompression)
	w.Write(make([]byte, n))
	w.Close()
	return b.String()
}

// Each violation closes its own connection, without an answer, and nothing
// else.
func TestViolations(t *testing.T) {
	data := func(body ...string) []byte {
		return append(bytes.Clone(handshakeAll), packet(pitaya.PacketData, body...)...)
	}
	tests := []struct {
		name string
		send []byte
	}{
		{"the packet that crashes Pitaya", append(bytes.Clone(handshakeAll), 4, 0, 0, 2, 0, 1)},
		{"packet type 0", []byte{0, 0, 0, 0}},
		{"packet type 6", []byte{6, 0, 0, 0}},
		{"TLS hello", []byte("\x16\x03\x01\x02")},
		{"HTTP request", []byte("GET / HTTP/1.1\r\n")},
		{"oversize packet, header only", append(bytes.Clone(handshakeAll), 4, 0x10, 0, 1)},
		{"largest packet, header only", append(bytes.Clone(handshakeAll), 4, 0xff, 0xff, 0xff)},
		{"large handshake, header only", []byte{1, 1, 0, 1}},
		{"large ack, header only", append(bytes.Clone(handshakeOnly), 2, 1, 0, 1)},
		{"large heartbeat, header only", append(bytes.Clone(handshakeAll), 3, 1, 0, 1)},
		{"data at the start", packet(pitaya.PacketData, "\x02\x01a")},
		{"data at the start, header only", []byte{4, 0, 0, 9}},
		{"data before the ack", append(bytes.Clone(handshakeOnly), packet(pitaya.PacketData, "\x02\x01a")...)},
		{"data after a second handshake", append(append(bytes.Clone(handshakeAll), handshakeOnly...), packet(pitaya.PacketData, "\x02\x01a")...)},
		{"ack at the start", handshakeAck},
		{"empty message", data("")},
		{"message of one byte", data("\x00")},
		{"message type 4", data("\x08\x01a.b")},
		{"message type 7", data("\x0e\x01a.b")},
		{"push", data("\x06\x03a.b{}")},
		{"push with a code", data("\x07\x00\x01{}")},
		{"id without end", data("\x00\x80\x80\x80")},
		{"id over 64 bits", data("\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01a")},
		{"no route", data("\x00\x01")},
		{"route cut short", data("\x00\x01\x05abc")},
		{"route not UTF-8", data("\x00\x01\x03a.\xff{}")},
		{"code cut short", data("\x01\x01\x00")},
		{"unknown code", data("\x01\x01\x12\x34{}")},
		{"unknown code in a notify", data("\x03\x12\x34{}")},
		{"not zlib", data("\x10\x01\x09test.echogarbage")},
		{"nothing compressed", data("\x10\x01\x09test.echo")},
		{"zlib bomb", data("\x10\x01\x09test.echo", zlibBomb(8<<20))},
	}
	for _, kind := range []string{"mem", "memws"} {
		synctest.Test(t, func(t *testing.T) {
			s, dial := startOn(t, kind, pitaya.Config{Heartbeat: -1}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)), s.SetDictionary(map[string]uint16{"conn.test.echo": 1}))
			})
			witness := dial()
			witness.SetDeadline(time.Time{})
			witness.hello()
			for i, tt := range tests {
				c := dial()
				c.SetDeadline(time.Time{})
				begin := time.Now()
				c.write(tt.send)
				list, err := c.packets()
				if err != nil {
					t.Errorf("%s/%s: %v", kind, tt.name, err)
				}
				for _, p := range list {
					if p.Type != pitaya.PacketHandshake {
						t.Errorf("%s/%s: answered with %v %q", kind, tt.name, p.Type, p.Body)
					}
				}
				if d := time.Since(begin); d != 0 {
					t.Errorf("%s/%s: closed after %v", kind, tt.name, d)
				}
				if ws, ok := c.Conn.(*wsPeer); ok {
					want := uint16(1008)
					if strings.Contains(tt.name, "header only") && !strings.HasPrefix(tt.name, "data") {
						want = 1009
					}
					if got := ws.closeCode(); got != want {
						t.Errorf("%s/%s: close code %d, want %d", kind, tt.name, got, want)
					}
				}
				c.Close()
				synctest.Wait()
				if got := s.Stats(); got.Violations != int64(i+1) || got.Open != 1 || got.Panics != 0 {
					t.Fatalf("%s/%s: %+v", kind, tt.name, got)
				}
			}
			witness.request(1, "test.echo", "alive")
			if m := witness.message(); string(m.Payload) != "alive" {
				t.Errorf("the witness got %q", m.Payload)
			}
		})
	}
}

// Good requests before a violation are answered.
func TestGoodBeforeBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
		})
		c := s.connect(t)
		b := appendRequest(nil, 1, "test.echo", []byte("one"))
		b = appendRequest(b, 2, "test.echo", []byte("two"))
		c.write(append(b, packet(pitaya.PacketData, "\x00\x01")...))
		for _, want := range []string{"one", "two"} {
			if m := c.message(); string(m.Payload) != want {
				t.Errorf("%q, want %q", m.Payload, want)
			}
		}
		c.expectClosed()
	})
}

// allocated measures what f allocates in the process.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// held measures what the process holds after f beyond what it held before.
func held(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// What a bomb may take is what a message may inflate to, twice because it is
// not known beforehand.
func TestBombMemory(t *testing.T) {
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
	})
	bomb := append(bytes.Clone(handshakeAll), packet(pitaya.PacketData, "\x10\x01\x09test.echo", zlibBomb(32<<20))...)
	const n = 20
	took := allocated(func() {
		for range n {
			c := s.dial(t)
			c.write(bomb)
			if _, err := c.packets(); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	})
	if took > n*10<<20 {
		t.Errorf("%d bombs took %d MiB", n, took>>20)
	}
}

// A header that announces much costs little until the bytes come.
func TestAnnouncedMemory(t *testing.T) {
	s := startServer(t, pitaya.Config{MaxPacketSize: pitaya.MaxPacketSize}, nil)
	const n = 100
	took := allocated(func() {
		for range n {
			c := s.connect(t)
			c.write(append([]byte{4, 0xff, 0xff, 0xff}, make([]byte, 9<<10)...))
		}
		synchronise(t, s)
	})
	if took > n*200<<10 {
		t.Errorf("%d announcements took %d KiB each", n, took>>10/n)
	}
}

// synchronise makes a round trip on a connection of its own.
func synchronise(t testing.TB, s *testServer) {
	t.Helper()
	c := s.connect(t)
	c.request(1, "no.such", "")
	c.message()
	c.Close()
}

func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := startOn(t, "memws", pitaya.Config{Heartbeat: time.Second}, nil)
		c := dial()
		c.SetDeadline(time.Time{})
		c.hello()
		go c.packets()
		peer := c.Conn.(*wsPeer)
		for range 10 {
			peer.Conn.Write(pitaya.AppendWSFrame(nil, pitaya.WSPing, true, []byte("hi")))
			time.Sleep(500 * time.Millisecond)
		}
		peer.mu.Lock()
		defer peer.mu.Unlock()
		if peer.pongs < 3 || s.Stats().Open != 0 {
			t.Errorf("%d pongs, %d open", peer.pongs, s.Stats().Open)
		}
	})
}

// Violations of RFC 6455, through the connection engine, each with the status
// of the close frame that answers it.
func TestWSViolationsOfClients(t *testing.T) {
	hs := string(handshakeOnly)
	frame := func(first byte, payload string) []byte { return wsFrame(first, payload) }
	unmasked := func(first byte, payload string) []byte {
		b := pitaya.AppendWSHeader(nil, pitaya.WSBinary, len(payload))
		b[0] = first
		return append(b, payload...)
	}
	tests := []struct {
		name string
		send []byte
		code uint16
	}{
		{"close", frame(fin|pitaya.WSClose, "\x03\xe8bye"), 1000},
		{"close without status", frame(fin|pitaya.WSClose, ""), 1000},
		{"close with another status", frame(fin|pitaya.WSClose, "\x0b\xb8"), 3000},
		{"close of one byte", frame(fin|pitaya.WSClose, "\x03"), 1002},
		{"close with a reserved status", frame(fin|pitaya.WSClose, "\x03\xed"), 1002},
		{"close with a bad reason", frame(fin|pitaya.WSClose, "\x03\xe8\xff"), 1007},
		{"unmasked", unmasked(fin|pitaya.WSBinary, hs), 1002},
		{"reserved bit", frame(fin|0x40|pitaya.WSBinary, hs), 1002},
		{"reserved opcode", frame(fin|3, hs), 1002},
		{"reserved control opcode", frame(fin|11, ""), 1002},
		{"fragmented ping", frame(pitaya.WSPing, "x"), 1002},
		{"long ping", frame(fin|pitaya.WSPing, strings.Repeat("x", 126)), 1002},
		{"continuation of nothing", frame(fin|pitaya.WSContinuation, "x"), 1002},
		{"message within a message", append(frame(pitaya.WSBinary, "\x01"), frame(fin|pitaya.WSBinary, "x")...), 1002},
		{"text that is no UTF-8", frame(fin|pitaya.WSText, "\x01\x00\x00\x02\xff\xff"), 1007},
		{"packet of an unknown type", frame(fin|pitaya.WSBinary, "\x09\x00\x00\x00"), 1008},
		{"packet too large", frame(fin|pitaya.WSBinary, "\x01\xff\xff\xff"), 1009},
		{"refused handshake", frame(fin|pitaya.WSBinary, string(packet(pitaya.PacketHandshake, "["))), 1008},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := startOn(t, "memws", pitaya.Config{}, nil)
				for _, size := range []int{1, len(tt.send)} { // cut in bytes, and in one piece
					c := dial()
					c.SetDeadline(time.Time{})
					peer := c.Conn.(*wsPeer)
					begin := time.Now()
					for i := 0; i < len(tt.send); i += size {
						peer.Conn.Write(tt.send[i:min(i+size, len(tt.send))])
						synctest.Wait()
					}
					if _, err := c.packets(); err != nil && err != io.EOF {
						t.Error(err)
					}
					if peer.closeCode() != tt.code || time.Since(begin) != 0 {
						t.Errorf("closed with %d after %v, want %d", peer.closeCode(), time.Since(begin), tt.code)
					}
					c.Close()
				}
				synctest.Wait()
				if n := s.Stats().Open; n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// Garbage on every kind of listener closes its connection soon.
func TestGarbage(t *testing.T) {
	for _, kind := range []string{"mem", "memws", "tcp", "tls", "ws", "wss", "proxy"} {
		t.Run(kind, func(t *testing.T) {
			l, _ := listenOn(t, kind)
			var open func() (net.Conn, error)
			mem := pitaya.ListenMem()
			switch kind {
			case "mem":
				l = mem
			case "memws":
				var err error
				l, err = pitaya.NewWSListener(mem, nil)
				must(t, err)
			}
			if strings.HasPrefix(kind, "mem") {
				open = func() (net.Conn, error) { return mem.DialContext(t.Context()) }
			} else {
				open = func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
			}
			s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}, HandshakeTimeout: 50 * time.Millisecond}, nil)
			garbage := [][]byte{
				[]byte("\x00"), []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"), []byte("PROXY TCP4 1 2 3 4\r\n"),
				bytes.Repeat([]byte("PROXY "), 100), []byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"),
				bytes.Repeat([]byte{0xff}, 20_000), handshakeOnly, []byte("\x16\x03\x01\x00\x05hello"), {},
			}
			random := make([]byte, 3000)
			for range 20 {
				rand.Read(random)
				garbage = append(garbage, bytes.Clone(random))
			}
			var wg sync.WaitGroup
			for _, b := range garbage {
				wg.Go(func() {
					c, err := open()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(realTime))
					c.Write(b)
					if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%.20q: still open", b)
					}
				})
			}
			wg.Wait()
			for s.Stats().Open > 0 {
				runtime.Gosched()
			}
			if st := s.Stats(); st.Panics != 0 || st.Requests != 0 || st.Accepted != int64(len(garbage)) {
				t.Errorf("%+v", st)
			}
		})
	}
}

// No record of any level holds what clients send.
func TestLogsHoldNoPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLogRecords(math.MinInt)
		type arg struct {
			Number int
			Time   time.Time
		}
		s := startServer(t, pitaya.Config{Logger: slog.New(log), SlowHandler: time.Nanosecond}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(time.Millisecond)),
				pitaya.HandleRaw(s, "test.fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("failed") }),
				pitaya.HandleRaw(s, "test.panic", func(context.Context, []byte) ([]byte, error) { panic("boom") }),
				pitaya.Handle(s, "test.typed", func(ctx context.Context, in *arg) (*arg, error) { return in, nil }),
				pitaya.HandleNotify(s, "test.note", func(ctx context.Context, in *arg) {}))
		})
		const secret = "SECRET"
		const number = "73573573573573573573573"
		c := s.connect(t)
		id := uint64(0)
		for _, payload := range []string{secret, `"` + secret + `"`, `{"Number":` + number + `}`, `{"Time":"` + secret + `"}`, `{"Number":"` + secret + `"}`} {
			for _, route := range []string{"test.echo", "test.fail", "test.panic", "test.typed", "no.route", "a.b.c.d", "other.a.b"} {
				id++
				c.request(id, route, payload)
				c.message()
			}
			c.request(0, "test.note", payload)
			c.request(0, "test.typed", payload)
			c.request(0, "nowhere.note", payload)
		}
		must(t, s.onlySession(t).Push(t.Context(), "news", []byte(secret)))
		c.message()
		c.write(packet(pitaya.PacketData, "\x00\x01\x09"+secret))
		c.packets()
		for _, b := range []string{secret, string(packet(pitaya.PacketHandshake, secret)), string(packet(pitaya.PacketHandshake, `{"sys":{"platform":`+number+`}}`)),
			string(handshakeAll) + string(packet(pitaya.PacketData, "\x10\x01\x09test.echo"+secret))} {
			c := s.dial(t)
			c.write([]byte(b))
			c.packets()
			c.Close()
		}
		synctest.Wait()
		if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, number) || !strings.Contains(text, "session ended") {
			for line := range strings.Lines(text) {
				if strings.Contains(line, secret) || strings.Contains(line, number) {
					t.Error(line)
				}
			}
			if !t.Failed() {
				t.Error("nothing was logged")
			}
		}
	})
}

// At the level of operators, good and bad requests leave no line.
func TestLogsAreQuiet(t *testing.T) {
	log := newLogRecords(slog.LevelInfo)
	s := startServer(t, pitaya.Config{Logger: slog.New(log)}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
	})
	before := log.String()
	c := s.connect(t)
	var wg sync.WaitGroup
	const n = 10_000
	wg.Go(func() {
		var b []byte
		for i := range n {
			route := "test.echo"
			if i%10 == 0 {
				route = "no.such"
			}
			if b = appendRequest(b, uint64(i+1), route, binary.AppendUvarint(nil, uint64(i))); len(b) > 8<<10 || i == n-1 {
				c.write(b)
				b = b[:0]
			}
		}
	})
	for range n {
		c.message()
	}
	wg.Wait()
	c.write([]byte{9, 9, 9, 9})
	c.expectClosed()
	if got := log.String()[len(before):]; got != "" {
		t.Errorf("logged:\n%s", got)
	}
}
