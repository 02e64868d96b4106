package pitaya_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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

// A client that asks for many handshakes and takes none of the answers is
// stopped as every other one that does not read.
func TestHandshakeFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dict := make(map[string]uint16)
		for i := range 2000 {
			dict[fmt.Sprintf("room.handler.method%d", i)] = uint16(i + 1)
		}
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) { must(t, s.SetDictionary(dict)) })
		c := s.connect(t)
		sent := make(chan int, 1)
		go func() {
			n := 0
			for ; n < 5000; n++ {
				if _, err := c.Write(handshakeOnly); err != nil {
					break
				}
			}
			sent <- n
		}()
		if took := held(synctest.Wait); took > 8<<20 {
			t.Errorf("%d MiB for answers that nobody takes", took>>20)
		}
		time.Sleep(time.Minute)
		if n := s.Stats().Open; n != 0 {
			t.Errorf("the client is still connected")
		}
		c.Close()
		<-sent
	})
}

// The same with pings: RFC 6455 section 5.5.3 lets us skip pongs.
func TestPingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := startOn(t, "memws", pitaya.Config{QueueBytes: 64 << 10}, nil)
		c := dial()
		c.SetDeadline(time.Time{})
		c.hello()
		ping := pitaya.AppendWSFrame(nil, pitaya.WSPing, true, make([]byte, 125))
		raw := c.Conn.(*wsPeer).Conn
		const n = 20_000
		took := held(func() {
			for range n {
				if _, err := raw.Write(ping); err != nil {
					t.Error(err)
					return
				}
			}
			synctest.Wait()
		})
		if took > 1<<20 {
			t.Errorf("%d KiB for pongs that nobody takes", took>>10)
		}
		// Pings are no life signs, and the client takes nothing.
		time.Sleep(11 * time.Second)
		if n := s.Stats().Open; n != 0 {
			t.Errorf("the client is still connected")
		}
	})
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

// Clients that say nothing, or not enough, are gone at the deadline exactly.
func TestHandshakeDeadline(t *testing.T) {
	tests := []struct {
		name string
		send []byte
	}{
		{"nothing", nil},
		{"half a header", []byte{1, 0}},
		{"half a handshake", handshakeOnly[:8]},
		{"no ack", handshakeOnly},
		{"heartbeats", bytes.Repeat([]byte{3, 0, 0, 0}, 3)},
		{"many handshakes", bytes.Repeat(handshakeOnly, 3)},
	}
	for _, kind := range []string{"mem", "memws"} {
		for _, tt := range tests {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var cause atomic.Value
					s, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
						must(t, s.OnSessionClose(func(s *pitaya.Session) { cause.Store(context.Cause(s.Context())) }))
					})
					begin := time.Now()
					c := dial()
					c.SetDeadline(time.Time{})
					if tt.send != nil {
						c.write(tt.send)
					}
					c.packets()
					if d := time.Since(begin); d != 10*time.Second {
						t.Errorf("closed after %v, want 10s", d)
					}
					synctest.Wait()
					if got := cause.Load(); got != pitaya.ErrHandshakeTimeout || s.Stats().Open != 0 {
						t.Errorf("cause %v, %d open", got, s.Stats().Open)
					}
				})
			})
		}
	}
	// And before the upgrade.
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, nil)
		must(t, err)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{ws}}, nil)
		c, err := mem.DialContext(t.Context())
		must(t, err)
		begin := time.Now()
		io.WriteString(c, "GET / HTTP/1.1\r\n")
		io.Copy(io.Discard, c)
		if d := time.Since(begin); d != 10*time.Second || s.SessionCount() != 0 {
			t.Errorf("closed after %v", d)
		}
	})
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd on this system")
	}
	return len(list)
}

// settle waits until the process has no more goroutines and descriptors than
// it had at base.
func settle(t testing.TB, goroutines, files int) {
	t.Helper()
	deadline := time.Now().Add(realTime)
	for runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			t.Fatalf("%d goroutines, were %d; %d descriptors, were %d\n%s", runtime.NumGoroutine(), goroutines, openFiles(t), files, buf)
		}
		runtime.Gosched()
	}
}

// Sockets that say nothing are in nobody's way, whether their clients leave
// them or the deadline ends them.
func TestSilentSockets(t *testing.T) {
	const n = 5000
	for _, tt := range []struct {
		name    string
		timeout time.Duration
	}{{"left", time.Hour}, {"ended", 20 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			s, dial := startOn(t, "tcp", pitaya.Config{HandshakeTimeout: tt.timeout}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
			})
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			clients := make([]*rawClient, n)
			for i := range clients {
				clients[i] = dial()
			}
			accepted := int64(n)
			if tt.timeout == time.Hour {
				accepted++
				c := dial().hello()
				c.request(1, "test.echo", "x")
				c.message()
				if open := s.Stats().Open; open != accepted {
					t.Errorf("%d connections are open, want %d", open, accepted)
				}
				c.Close()
			}
			for _, c := range clients {
				if tt.timeout != time.Hour {
					c.expectClosed()
				}
				c.Close()
			}
			settle(t, goroutines, files)
			if st := s.Stats(); st.Open != 0 || st.Accepted != accepted || st.Accepted != st.Closed {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestConnectCycles(t *testing.T) {
	for _, tt := range []struct {
		kind string
		n    int
	}{{"tcp", 10_000}, {"ws", 1000}, {"tls", 200}} {
		t.Run(tt.kind, func(t *testing.T) {
			s, dial := startOn(t, tt.kind, pitaya.Config{}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
			})
			cycle := func(i int) {
				c := dial().hello()
				if i%2 == 0 {
					c.request(1, "test.echo", "x")
					c.message()
				}
				if tcp, ok := c.Conn.(*net.TCPConn); ok && i%3 == 0 {
					tcp.SetLinger(0) // leaves with a reset
				}
				c.Close()
			}
			for i := range 20 {
				cycle(i)
			}
			synchronise(t, s)
			for s.Stats().Open > 0 {
				runtime.Gosched()
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					for i := w; i < tt.n; i += 4 {
						cycle(i)
					}
				})
			}
			wg.Wait()
			settle(t, goroutines, files)
			runtime.GC()
			runtime.ReadMemStats(&after)
			// The test's own clean-up keeps something for each client.
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > int64(tt.n)*1500+8<<20 {
				t.Errorf("the heap has grown by %d KiB", grown>>10)
			}
			if st := s.Stats(); st.Sessions != 0 || st.Accepted != st.Closed || st.Panics != 0 {
				t.Errorf("%+v", st)
			}
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

// A client that stops in the middle of the TLS handshake is gone at the
// deadline, and in nobody's way until then.
func TestHalfOpenTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := testTLS(t)
		mem := pitaya.ListenMem()
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{tls.NewListener(mem, server)}}, nil)
		begin := time.Now()
		raw, err := mem.DialContext(t.Context())
		must(t, err)
		raw.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1})
		other, err := mem.DialContext(t.Context())
		must(t, err)
		c := &rawClient{Conn: tls.Client(other, client), t: t}
		c.hello()
		io.Copy(io.Discard, raw)
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("closed after %v, want 10s", d)
		}
		synctest.Wait()
		if n := s.Stats().Open; n != 1 {
			t.Errorf("%d connections are open, want 1", n)
		}
		c.Close()
		raw.Close()
	})
}

func TestMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{MaxConns: 3}, nil)
		var clients [3]*rawClient
		for i := range clients {
			clients[i] = s.connect(t)
		}
		for range 2 {
			s.dial(t).expectClosed()
		}
		clients[0].Close()
		synctest.Wait()
		s.connect(t)
		if st := s.Stats(); st.Accepted != 6 || st.Open != 3 || st.RefusedConns != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// The limit by address counts what the PROXY header says.
func TestMaxConnsPerIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		l := pitaya.NewProxyListener(mem, pitaya.ProxyOptions{})
		s := startServer(t, pitaya.Config{MaxConnsPerIP: 2, Listeners: []net.Listener{l}}, nil)
		dial := func(ip string, port int) *rawClient {
			c, err := mem.DialContext(t.Context())
			must(t, err)
			family := "TCP4"
			if strings.Contains(ip, ":") {
				family = "TCP6"
			}
			fmt.Fprintf(c, "PROXY %s %s %s %d 3250\r\n", family, ip, ip, port)
			return &rawClient{Conn: c, t: t}
		}
		first := dial("9.8.7.6", 1).hello()
		dial("9.8.7.6", 2).hello()
		dial("9.8.7.6", 3).expectClosed()
		dial("::ffff:9.8.7.6", 4).expectClosed()
		dial("2001:db8::1", 5).hello()
		dial("9.8.7.5", 6).hello()
		first.Close()
		synctest.Wait()
		dial("9.8.7.6", 7).hello()
		dial("9.8.7.6", 8).expectClosed()
		synctest.Wait()
		if st := s.Stats(); st.RefusedConns != 3 || st.Sessions != 4 {
			t.Errorf("%+v", st)
		}
	})
}

// nilError is an error whose nil pointer panics: the commonest mistake with
// error types.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// panicSerializer panics when it meets certain values.
type panicSerializer struct{ pitaya.JSON }

func (s panicSerializer) Marshal(v any) ([]byte, error) {
	if _, ok := v.(*panicValue); ok {
		panic("PANIC TEXT")
	}
	return s.JSON.Marshal(v)
}

func (s panicSerializer) Unmarshal(b []byte, v any) error {
	if _, ok := v.(*panicValue); ok && string(b) == `{"panic":true}` {
		panic("PANIC TEXT")
	}
	return s.JSON.Unmarshal(b, v)
}

type panicValue struct{ Panic bool }

// brokenSerializer panics for everything.
type brokenSerializer struct{ pitaya.JSON }

func (brokenSerializer) Name() string                { return "broken" }
func (brokenSerializer) Marshal(any) ([]byte, error) { panic("PANIC TEXT") }

// panicReporter panics for everything.
type panicReporter struct{}

func (panicReporter) Count(string, float64, ...pitaya.Label)   { panic("PANIC TEXT") }
func (panicReporter) Gauge(string, float64, ...pitaya.Label)   { panic("PANIC TEXT") }
func (panicReporter) Observe(string, float64, ...pitaya.Label) { panic("PANIC TEXT") }

// A reporter or Tracer that is broken panics for each message, and several times. The log says so once a second, or it would
// be the log that takes the server down.
func TestBrokenSeamsLog(t *testing.T) {
	for name, cfg := range map[string]pitaya.Config{
		"reporter": {Reporters: []pitaya.Reporter{panicReporter{}}, Metrics: pitaya.MetricsConfig{Period: time.Hour}},
		"tracer":   {Tracer: panicTracer{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := newLogRecords(slog.LevelError)
				cfg.Logger = slog.New(logs)
				s := startServer(t, cfg, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
				})
				c := s.connect(t)
				logged := func() int { return strings.Count(logs.String(), "where="+name) }
				for round := range 3 {
					before := logged()
					for i := range uint64(50) {
						c.request(i+1, "test.echo", "")
						if m := c.message(); m.Err {
							t.Fatalf("answered with %s", m.Payload)
						}
					}
					if n := logged() - before; n > 1 || n == 0 && round > 0 {
						t.Errorf("round %d: %d records", round, n)
					}
					time.Sleep(time.Second)
				}
				if n := s.Stats().Panics; n < 150 {
					t.Errorf("%d panics were counted", n)
				}
				if !strings.Contains(logs.String(), "unlogged=") {
					t.Errorf("the log does not say how many there were:\n%s", logs)
				}
			})
		})
	}
}

// panicTracer panics for everything.
type panicTracer struct{}

func (panicTracer) Start(context.Context, string, pitaya.SpanKind, ...pitaya.Label) (context.Context, pitaya.Span) {
	panic("PANIC TEXT")
}
func (panicTracer) Inject(context.Context, map[string]string)                  { panic("PANIC TEXT") }
func (panicTracer) Extract(context.Context, map[string]string) context.Context { panic("PANIC TEXT") }

// panicLogs panics for every record.
type panicLogs struct{}

func (panicLogs) Enabled(context.Context, slog.Level) bool  { return true }
func (panicLogs) Handle(context.Context, slog.Record) error { panic("PANIC TEXT") }
func (l panicLogs) WithAttrs([]slog.Attr) slog.Handler      { return l }
func (l panicLogs) WithGroup(string) slog.Handler           { return l }

// wantInternal checks the answer to a request whose handling panicked.
func wantInternal(t testing.TB, m pitaya.Message, log *logRecords) {
	t.Helper()
	text := string(m.Payload)
	if !m.Err || !strings.Contains(text, `"code":"PIT-500"`) || strings.Contains(text, "PANIC") {
		t.Errorf("answer %v %s", m.Err, text)
		return
	}
	_, id, _ := strings.Cut(text, `"request":"`)
	id, _, _ = strings.Cut(id, `"`)
	if logged := log.String(); len(id) < 8 || !strings.Contains(logged, "request="+id) || !strings.Contains(logged, "stack=") {
		t.Errorf("request id %q is not in the log:\n%s", id, logged)
	}
}

func TestPanics(t *testing.T) {
	answer := func(ctx context.Context, in *panicValue) (*panicValue, error) { return new(panicValue), nil }
	tests := []struct {
		name string
		cfg  pitaya.Config
		set  func(s *pitaya.Server) error
		in   string
		code string // instead of PIT-500
	}{
		{name: "handler", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { panic("PANIC TEXT") })
		}},
		{name: "concurrent handler", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { panic("PANIC TEXT") }, pitaya.WithConcurrent())
		}},
		{name: "out of range", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(_ context.Context, b []byte) ([]byte, error) { return b[len(b)+1:], nil })
		}},
		{name: "before", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", sleeper(0)),
				s.Before(func(context.Context, any) (context.Context, any, error) { panic("PANIC TEXT") }))
		}},
		{name: "after", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", sleeper(0)),
				s.After(func(context.Context, any, error) (any, error) { panic("PANIC TEXT") }))
		}},
		{name: "unmarshal", cfg: pitaya.Config{Serializer: panicSerializer{}}, in: `{"panic":true}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "marshal", cfg: pitaya.Config{Serializer: panicSerializer{}}, in: `{}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "marshal of the error too", cfg: pitaya.Config{Serializer: brokenSerializer{}}, in: `{}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "text of an error", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { var e *nilError; return nil, e })
		}},
		{name: "text of an error, concurrent", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { var e *nilError; return nil, e }, pitaya.WithConcurrent())
		}},
		{name: "bind callback", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", bindHandler),
				s.OnSessionBind(func(context.Context, *pitaya.Session) error { panic("PANIC TEXT") }))
		}, in: "user"},
		{name: "after-bind callback", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", bindHandler),
				s.OnAfterSessionBind(func(context.Context, *pitaya.Session) error { panic("PANIC TEXT") }))
		}, in: "user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newLogRecords(slog.LevelDebug)
				tt.cfg.Logger = slog.New(log)
				s := startServer(t, tt.cfg, func(s *pitaya.Server) {
					must(t, tt.set(s), pitaya.HandleRaw(s, "other.echo", sleeper(0)))
				})
				c := s.connect(t)
				for i := range 3 {
					c.request(uint64(i+1), "test.it", tt.in)
					wantInternal(t, c.message(), log)
				}
				if s.Stats().Panics < 3 || s.Stats().Failed != 3 {
					t.Errorf("%+v", s.Stats())
				}
			})
		})
	}
}

// A handler that ends its goroutine, as testing.T.FailNow does, does not leave
// its session stuck.
func TestGoexit(t *testing.T) {
	for _, opts := range [][]pitaya.RegisterOption{nil, {pitaya.WithConcurrent()}} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.exit", func(context.Context, []byte) ([]byte, error) {
					runtime.Goexit()
					return nil, nil
				}, opts...))
			})
			c := s.connect(t)
			c.request(1, "test.exit", "x")
			c.expectClosed()
			c.Close()
			begin := time.Now()
			s.stop(t)
			if d := time.Since(begin); d > time.Second {
				t.Errorf("shutdown took %v", d)
			}
			if st := s.Stats(); st.Requests != st.Lost {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Code of the application that is called outside of requests.
func TestPanicsOutside(t *testing.T) {
	boom := func() { panic("PANIC TEXT") }
	tests := []struct {
		name   string
		cfg    pitaya.Config
		set    func(s *pitaya.Server) error
		answer string // to the handshake
	}{
		{"validator", pitaya.Config{}, func(s *pitaya.Server) error {
			return s.AddHandshakeValidator("v", func(*pitaya.HandshakeData) error { boom(); return nil })
		}, `"code":400`},
		{"close callback", pitaya.Config{}, func(s *pitaya.Server) error {
			return s.OnSessionClose(func(*pitaya.Session) { boom() })
		}, `"code":200`},
		{"reporter", pitaya.Config{Reporters: []pitaya.Reporter{panicReporter{}}}, nil, `"code":200`},
		{"logger", pitaya.Config{Logger: slog.New(panicLogs{})}, nil, `"code":200`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.cfg.Logger == nil {
					tt.cfg.Logger = slog.New(slog.DiscardHandler)
				}
				s := startServer(t, tt.cfg, func(s *pitaya.Server) {
					if tt.set != nil {
						must(t, tt.set(s))
					}
					must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)), pitaya.HandleRaw(s, "test.fail", func(context.Context, []byte) ([]byte, error) { panic(1) }))
				})
				for range 2 {
					c := s.dial(t)
					c.send(pitaya.PacketHandshake, []byte(`{}`))
					if got := string(c.expect(pitaya.PacketHandshake)); !strings.Contains(got, tt.answer) || strings.Contains(got, "PANIC") {
						t.Errorf("handshake: %s", got)
					}
					if strings.Contains(tt.answer, "400") {
						c.expectClosed()
						continue
					}
					c.send(pitaya.PacketHandshakeAck, nil)
					c.request(1, "test.echo", "x")
					if m := c.message(); m.Err {
						t.Errorf("answer %s", m.Payload)
					}
					c.request(2, "test.fail", "x")
					if m := c.message(); !m.Err {
						t.Errorf("answer %s", m.Payload)
					}
					c.Close()
				}
				synctest.Wait()
				if s.SessionCount() != 0 {
					t.Error("a session is left")
				}
			})
		})
	}
}

// Code of the application that is called during the upgrade.
func TestPanicInUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, &pitaya.WSOptions{CheckOrigin: func(*http.Request) bool { panic("PANIC TEXT") }})
		must(t, err)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{ws}, Logger: slog.New(slog.DiscardHandler)}, nil)
		c, err := mem.DialContext(t.Context())
		must(t, err)
		io.WriteString(c, wsRequest)
		io.Copy(io.Discard, c)
		synctest.Wait()
		if st := s.Stats(); st.Panics != 1 || st.Open != 0 {
			t.Errorf("%+v", st)
		}
		s.connect(t)
	})
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
