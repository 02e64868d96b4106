package pitaya_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Rules of RFC 6455 about what we send. Frames are taken apart here by hand, so that a reader of ours cannot forgive what a
// writer of ours does.

// A rawFrame is a frame as it was on the wire.
type rawFrame struct {
	fin, masked bool
	reserved    byte
	op          byte
	key         uint32
	payload     string // unmasked
}

// rawFrames takes a stream of frames apart. An incomplete one, or a length that is not in its shortest form, fails the test.
func rawFrames(t testing.TB, b []byte) (list []rawFrame) {
	t.Helper()
	take := func(n int) []byte {
		if n > len(b) {
			t.Fatalf("%d bytes where %d should be, behind %d frames", len(b), n, len(list))
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	for len(b) > 0 {
		head := take(2)
		f := rawFrame{fin: head[0]&0x80 != 0, reserved: head[0] >> 4 & 7, op: head[0] & 15, masked: head[1]&0x80 != 0}
		n := int(head[1] & 0x7f)
		least := 0
		switch n {
		case 126:
			n, least = int(binary.BigEndian.Uint16(take(2))), 126
		case 127:
			n, least = int(binary.BigEndian.Uint64(take(8))), 1<<16
		}
		if n < least {
			t.Errorf("frame %d: %d bytes with the length of a longer one", len(list), n)
		}
		var key []byte
		if f.masked {
			key = take(4)
			f.key = binary.BigEndian.Uint32(key)
		}
		payload := bytes.Clone(take(n))
		for i := range payload {
			if f.masked {
				payload[i] ^= key[i%4]
			}
		}
		f.payload = string(payload)
		list = append(list, f)
	}
	return list
}

// checkRawFrames holds frames against what both ends keep to: one unfragmented frame for each message, without extensions,
// control frames short, and nothing behind the close frame, which must be the last if there is an end.
func checkRawFrames(t testing.TB, list []rawFrame, masked bool) {
	t.Helper()
	for i, f := range list {
		if !f.fin || f.reserved != 0 || f.masked != masked {
			t.Errorf("frame %d: %+.100v", i, f)
		}
		switch f.op {
		case pitaya.WSBinary:
			if _, err := oneWholePacket([]byte(f.payload)); err != nil {
				t.Errorf("frame %d: %v", i, err)
			}
		case pitaya.WSPing, pitaya.WSPong:
			if len(f.payload) > 125 {
				t.Errorf("frame %d: %d bytes in a control frame", i, len(f.payload))
			}
		case pitaya.WSClose:
			if i != len(list)-1 {
				t.Errorf("%d frames behind the close frame", len(list)-1-i)
			}
			if n := len(f.payload); n == 1 || n > 125 {
				t.Errorf("%d bytes in the close frame", n)
			}
		default:
			t.Errorf("frame %d has opcode %d", i, f.op)
		}
	}
}

// wsRaw is a client of a server on connections in memory, which reads nothing by itself.
func wsRaw(t testing.TB, cfg pitaya.Config, setup func(*pitaya.Server)) (*testServer, net.Conn) {
	t.Helper()
	mem := pitaya.ListenMem()
	ws, err := pitaya.NewWSListener(mem, nil)
	must(t, err)
	cfg.Listeners = append(cfg.Listeners, ws)
	s := startServer(t, cfg, setup)
	c, err := mem.DialContext(t.Context())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, wsRequest)
	_, err = io.ReadFull(c, make([]byte, len(wsSwitching)))
	must(t, err)
	return s, c
}

// All that a server sends, of every size of header and by each way into the queue.
func TestWSFramesOfServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := wsRaw(t, pitaya.Config{QueueBytes: 4 << 20}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)), pitaya.HandleRaw(s, "test.bind", bindHandler))
		})
		send := func(b []byte) { c.Write(wsFrame(fin|pitaya.WSBinary, string(b))) }
		var all []byte
		var wg sync.WaitGroup
		wg.Go(func() { all, _ = io.ReadAll(c) })
		send(handshakeAll)
		send(appendRequest(nil, 1, "test.bind", []byte("u")))
		var pings []string
		for i, size := range []int{0, 1, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 65_520, 65_530, 65_531, 65_532, 65_533, 65_540, 100_000} {
			payload := make([]byte, size)
			rand.Read(payload)
			send(appendRequest(nil, uint64(i+2), "test.echo", payload))
			synctest.Wait()
			must(t, s.onlySession(t).Push(t.Context(), "news", payload))
			must(t, s.Push(t.Context(), "conn", []string{"u"}, "news", payload)) // one frame for many
			ping := string(payload[:min(size, 125)])
			pings = append(pings, ping)
			c.Write(wsFrame(fin|pitaya.WSPing, ping))
			synctest.Wait()
		}
		must(t, s.onlySession(t).KickReason(t.Context(), "enough"))
		c.Write(wsFrame(fin|pitaya.WSPing, "late"))
		wg.Wait()
		list := rawFrames(t, all)
		checkRawFrames(t, list, false)
		var pongs []string
		for _, f := range list {
			if f.op == pitaya.WSPong {
				pongs = append(pongs, f.payload)
			}
		}
		if strings.Join(pongs, "|") != strings.Join(pings, "|") {
			t.Errorf("%d pings and %d pongs, or others", len(pings), len(pongs))
		}
		if last := list[len(list)-1]; last.op != pitaya.WSClose || last.payload != "\x03\xe8" || len(list) < 4*26 {
			t.Errorf("%d frames, the last is %+v", len(list), last)
		}
	})
}

// However a connection ends on purpose, its last frame is a close frame with a code that may be on the wire, the socket is
// closed by the server first, and what the client sends behind its own close frame is nothing.
func TestWSEnds(t *testing.T) {
	tests := []struct {
		name string
		end  func(t *testing.T, s *testServer, c net.Conn)
		code uint16
	}{
		{"close", func(t *testing.T, s *testServer, c net.Conn) { s.onlySession(t).Close() }, 1000},
		{"kick", func(t *testing.T, s *testServer, c net.Conn) { must(t, s.onlySession(t).Kick(t.Context())) }, 1000},
		{"server ends", func(t *testing.T, s *testServer, c net.Conn) { s.stop(t) }, 1001},
		{"client closes", func(t *testing.T, s *testServer, c net.Conn) { c.Write(wsFrame(fin|pitaya.WSClose, "\x03\xe9bye")) }, 1001},
		{"client closes and goes on", func(t *testing.T, s *testServer, c net.Conn) {
			more := appendRequest(nil, 7, "test.echo", []byte("late"))
			c.Write(append(wsFrame(fin|pitaya.WSClose, ""), wsFrame(fin|pitaya.WSBinary, string(more))...))
		}, 1000},
		{"reserved code", func(t *testing.T, s *testServer, c net.Conn) { c.Write(wsFrame(fin|pitaya.WSClose, "\x03\xee")) }, 1002},
		{"unmasked and goes on", func(t *testing.T, s *testServer, c net.Conn) {
			more := appendRequest(nil, 7, "test.echo", []byte("late"))
			c.Write(append([]byte("\x82\x01a"), wsFrame(fin|pitaya.WSBinary, string(more))...))
		}, 1002},
		{"text that is none", func(t *testing.T, s *testServer, c net.Conn) { c.Write(wsFrame(fin|pitaya.WSText, "\xff")) }, 1007},
		{"no packet", func(t *testing.T, s *testServer, c net.Conn) {
			c.Write(wsFrame(fin|pitaya.WSBinary, "\x09\x00\x00\x00"))
		}, 1008},
		{"packet too large", func(t *testing.T, s *testServer, c net.Conn) {
			c.Write(wsFrame(fin|pitaya.WSBinary, "\x04\xff\xff\xff"))
		}, 1009},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handled := 0
				s, c := wsRaw(t, pitaya.Config{}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.echo", func(_ context.Context, b []byte) ([]byte, error) {
						handled++
						return b, nil
					}))
				})
				c.Write(wsFrame(fin|pitaya.WSBinary, string(handshakeAll)+string(appendRequest(nil, 1, "test.echo", []byte("good")))))
				synctest.Wait()
				session := s.onlySession(t)
				var all []byte
				var wg sync.WaitGroup
				wg.Go(func() {
					var err error
					if all, err = io.ReadAll(c); err != nil { // the end, although we have closed nothing
						t.Error(err)
					}
					c.Close()
				})
				begin := time.Now()
				tt.end(t, s, c)
				wg.Wait()
				if d := time.Since(begin); d > 0 && tt.name != "server ends" {
					t.Errorf("the end took %v", d)
				}
				if err := session.Push(t.Context(), "news", []byte("x")); err == nil {
					t.Error("a push behind the end is queued")
				}
				list := rawFrames(t, all)
				checkRawFrames(t, list, false)
				last := list[len(list)-1]
				if last.op != pitaya.WSClose || len(last.payload) != 2 || binary.BigEndian.Uint16([]byte(last.payload)) != tt.code {
					t.Errorf("the last frame is %+v, want a close frame with %d", last, tt.code)
				}
				if handled != 1 {
					t.Errorf("%d requests were handled", handled)
				}
			})
		})
	}
}

// What a client did wrong is in the log, at the level of what clients do, without what it sent.
func TestWSViolationIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newLogRecords(slog.LevelDebug)
		_, c := wsRaw(t, pitaya.Config{Logger: slog.New(logs)}, nil)
		c.Write(wsFrame(fin|pitaya.WSText, "SECRET\xff"))
		io.Copy(io.Discard, c)
		c.Close()
		synctest.Wait()
		if text := logs.String(); !strings.Contains(text, "level=DEBUG") || !strings.Contains(text, "text message is not UTF-8 (1007)") || strings.Contains(text, "SECRET") {
			t.Errorf("logged:\n%s", text)
		}
	})
}
