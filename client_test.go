package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

func TestClientHandshake(t *testing.T) {
	mac := &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Platform: "mac"}, User: map[string]any{"age": 30}}
	silent := &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{LibVersion: "4.6.2-", Features: []string{}}}
	tests := []struct {
		name string
		cfg  *pitaya.ClientConfig
		want string
	}{
		{"default", nil, ""},
		{"own data", &pitaya.ClientConfig{Handshake: mac},
			`{"sys":{"platform":"mac","libVersion":"","clientBuildNumber":"","clientVersion":"","features":["inflate","pushcodes","drain"]},"user":{"age":30}}`},
		{"no features", &pitaya.ClientConfig{Handshake: silent},
			`{"sys":{"platform":"","libVersion":"4.6.2-","clientBuildNumber":"","clientVersion":""}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := clientPair(t)
				s := newFakeServer(t, far)
				s.write(pitaya.PacketHeartbeat, nil) // a server may send it that early
				s.write(pitaya.PacketHandshake, []byte(plainAnswer))
				c, err := pitaya.NewClient(t.Context(), near, tt.cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				body := s.wantPacket(pitaya.PacketHandshake)
				if ack := s.wantPacket(pitaya.PacketHandshakeAck); len(ack) > 0 {
					t.Errorf("ack has a body: %x", ack)
				}
				if tt.want != "" && string(body) != tt.want {
					t.Errorf("got  %s\nwant %s", body, tt.want)
				}
				if h, err := pitaya.DecodeHandshake(body); err != nil || tt.cfg == nil && (!h.Inflates() || !h.KnowsPushCodes()) {
					t.Errorf("got %+v, %v", h, err)
				}
				if h := c.Handshake(); h.Sys.Heartbeat != 30 || h.Sys.Dict["onPush"] != 2 {
					t.Errorf("got answer %+v", h)
				}
			})
		})
	}
	if mac.Sys.Features != nil {
		t.Error("the configuration was changed")
	}
}

func TestClientHandshakeFailures(t *testing.T) {
	packet := func(typ pitaya.PacketType, body string) string {
		b, err := pitaya.AppendPacket(nil, typ, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tests := []struct {
		name   string
		server string // what it sends, before it closes
		want   error
		text   string
	}{
		{"refused with a reason", packet(pitaya.PacketHandshake, `{"code":400,"msg":"too old","sys":{}}`), nil,
			"pitaya: server refused the handshake with code 400: too old"},
		{"refused", packet(pitaya.PacketHandshake, `{"code":501}`), nil, "pitaya: server refused the handshake with code 501"},
		{"closed", "", io.EOF, ""},
		{"closed in a packet", "\x01\x00", io.ErrUnexpectedEOF, ""},
		{"kicked", packet(pitaya.PacketKick, `{"reason":"full"}`), pitaya.ErrKicked, "pitaya: kicked: full"},
		{"not JSON", packet(pitaya.PacketHandshake, `x`), pitaya.ErrProtocol, ""},
		{"no packets", "HTTP/1.1 400 Bad Request\r\n\r\n", pitaya.ErrPacketType, ""},
		{"data", packet(pitaya.PacketData, "\x04\x01"), pitaya.ErrProtocol, ""},
		{"bad dictionary", packet(pitaya.PacketHandshake, `{"code":200,"sys":{"dict":{"a":1,"b":1}}}`), pitaya.ErrProtocol, ""},
		{"too large", "\x01\x01\x00\x01", pitaya.ErrPacketTooLarge, ""},
		{"unknown serializer", packet(pitaya.PacketHandshake, `{"code":200,"sys":{"serializer":"xml"}}`), nil,
			`pitaya: handshake: the server's serializer "xml" is unknown and none is configured`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := clientPair(t)
				s := newFakeServer(t, far)
				if _, err := io.WriteString(far, tt.server); err != nil {
					t.Fatal(err)
				}
				if err := far.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				_, err := pitaya.NewClient(t.Context(), near, &pitaya.ClientConfig{MaxPacketSize: 1 << 16})
				if err == nil || !errors.Is(err, tt.want) && tt.want != nil || tt.text != "" && err.Error() != tt.text {
					t.Errorf("got %v, want %v %s", err, tt.want, tt.text)
				}
				s.wantPacket(pitaya.PacketHandshake)
				s.wantEnd()
			})
		})
	}
	t.Run("code", func(t *testing.T) {
		e, ok := errors.AsType[*pitaya.HandshakeError](fmt.Errorf("x: %w", &pitaya.HandshakeError{Code: 501}))
		if !ok || e.Code != 501 {
			t.Errorf("got %v", e)
		}
	})
}

func TestClientHandshakeTimeout(t *testing.T) {
	tests := []struct {
		name string
		cfg  *pitaya.ClientConfig
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
		took time.Duration
	}{
		{"default", nil, nil, pitaya.ErrHandshakeTimeout, 10 * time.Second},
		{"configured", &pitaya.ClientConfig{HandshakeTimeout: time.Second}, nil, pitaya.ErrHandshakeTimeout, time.Second},
		{"deadline of the context", nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		}, context.DeadlineExceeded, 3 * time.Second},
		{"context ended before", nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, context.Canceled, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := clientPair(t)
				defer far.Close()
				ctx := t.Context()
				if tt.end != nil {
					var cancel context.CancelFunc
					ctx, cancel = tt.end(ctx)
					defer cancel()
				}
				start := time.Now()
				_, err := pitaya.NewClient(ctx, near, tt.cfg)
				if !errors.Is(err, tt.want) || time.Since(start) != tt.took {
					t.Errorf("got %v after %v, want %v after %v", err, time.Since(start), tt.want, tt.took)
				}
			})
		})
	}
}

type echoMsg struct {
	Msg string `json:"msg"`
}

func TestClientRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		var first, second echoMsg
		one := async(func() error { return c.Request(t.Context(), "room.echo", echoMsg{"one"}, &first) })
		m1 := s.wantMessage(pitaya.MessageRequest, "room.echo")
		two := async(func() error { return c.Request(t.Context(), "room.other", echoMsg{"two"}, &second) })
		m2 := s.wantMessage(pitaya.MessageRequest, "room.other")
		if m1.ID != 1 || m2.ID != 2 || string(m1.Payload) != `{"msg":"one"}` {
			t.Errorf("got %+v and %+v", m1, m2)
		}
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: 2, Payload: m2.Payload})
		if err := <-two; err != nil || second.Msg != "two" {
			t.Errorf("got %+v, %v", second, err)
		}
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: 1, Payload: m1.Payload})
		if err := <-one; err != nil || first.Msg != "one" {
			t.Errorf("got %+v, %v", first, err)
		}
	})
}

func TestClientRequestForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		var raw []byte
		tests := []struct {
			name       string
			arg, reply any
			sent       string
			answer     string
			err        string
		}{
			{"raw", []byte("a\x00b"), &raw, "a\x00b", "c\x00d", ""},
			{"no argument, no result", nil, nil, "", "", ""},
			{"result ignored", nil, nil, "", "not JSON", ""},
			{"result is not what it should be", nil, new(echoMsg), "", "not JSON", "pitaya: answer to room.echo: invalid character"},
		}
		for _, tt := range tests {
			done := async(func() error { return c.Request(t.Context(), "room.echo", tt.arg, tt.reply) })
			m := s.wantMessage(pitaya.MessageRequest, "room.echo")
			if string(m.Payload) != tt.sent {
				t.Errorf("%s: sent %q, want %q", tt.name, m.Payload, tt.sent)
			}
			s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: []byte(tt.answer)})
			if err := <-done; (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
			}
		}
		if string(raw) != "c\x00d" {
			t.Errorf("raw result: got %q", raw)
		}
	})
}

func TestClientRequestMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		tests := []struct {
			name  string
			ctx   context.Context
			route string
			arg   any
			want  error
		}{
			{"route too long", t.Context(), strings.Repeat("x", 256), nil, pitaya.ErrRoute},
			{"payload too large", t.Context(), "a.b", make([]byte, pitaya.MaxPacketSize), pitaya.ErrPacketTooLarge},
			{"argument is no JSON", t.Context(), "a.b", func() {}, nil},
			{"context ended before", canceled, "a.b", nil, context.Canceled},
		}
		for _, tt := range tests {
			if err := c.Request(tt.ctx, tt.route, tt.arg, nil); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: request: got %v, want %v", tt.name, err, tt.want)
			}
			if err := c.Notify(tt.ctx, tt.route, tt.arg); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: notify: got %v, want %v", tt.name, err, tt.want)
			}
		}
		// None of them has left anything behind, not even in the numbering.
		done := async(func() error { return c.Request(t.Context(), "a.b", nil, nil) })
		if m := s.wantMessage(pitaya.MessageRequest, "a.b"); m.ID != 1 {
			t.Errorf("got id %d, want 1", m.ID)
		}
		c.Close()
		if err := <-done; !errors.Is(err, pitaya.ErrSessionClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestClientErrorAnswer(t *testing.T) {
	want := &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
	for _, name := range []string{"json", "protobuf"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, `{"code":200,"sys":{"serializer":"`+name+`"}}`, nil)
				if got := c.Serializer().Name(); got != name {
					t.Errorf("serializer is %s", got)
				}
				for _, compressed := range []bool{false, true} {
					done := async(func() error { return c.Request(t.Context(), "a.b", nil, nil) })
					payload, err := pitaya.MarshalErrorPayload(c.Serializer(), want)
					if err != nil {
						t.Fatal(err)
					}
					if compressed {
						payload = zlibOf(t, 9, payload)
					}
					m := s.wantMessage(pitaya.MessageRequest, "a.b")
					s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Err: true, Payload: payload, Compressed: compressed})
					got, ok := errors.AsType[*pitaya.Error](<-done)
					if !ok || !reflect.DeepEqual(got, want) {
						t.Errorf("got %#v, want %#v", got, want)
					}
				}
			})
		})
	}
}

func TestClientProtobuf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, `{"code":200,"sys":{"serializer":"protobuf"}}`, nil)
		reply := new(pb.Doc)
		done := async(func() error { return c.Request(t.Context(), "a.b", &pb.Doc{Doc: "x"}, reply) })
		m := s.wantMessage(pitaya.MessageRequest, "a.b")
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: m.Payload})
		if err := <-done; err != nil || reply.Doc != "x" {
			t.Errorf("got %v, %v", reply, err)
		}
		if err := c.Request(t.Context(), "a.b", echoMsg{}, nil); err == nil {
			t.Error("an argument that is no message, but no error")
		}
	})
}

func TestClientOwnSerializer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got any
		c, _ := dialFake(t, `{"code":200,"sys":{"serializer":"other"}}`, &pitaya.ClientConfig{Serializer: other{got: &got}})
		if err := c.Notify(t.Context(), "a.b", 7); err != nil || got != 7 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestClientDictionary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pushed := make(chan string, 2)
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{OnAnyPush: func(route string, _ []byte) { pushed <- route }})
		if err := c.Notify(t.Context(), "room.echo", nil); err != nil {
			t.Fatal(err)
		}
		if got, want := string(s.wantPacket(pitaya.PacketData)), "\x03\x00\x01"; got != want {
			t.Errorf("sent %x, want %x", got, want)
		}
		s.write(pitaya.PacketData, []byte("\x07\x00\x02"))
		s.write(pitaya.PacketData, []byte("\x06\x06onPush"))
		for range 2 {
			if route := <-pushed; route != "onPush" {
				t.Errorf("got push %q", route)
			}
		}
	})
}

func TestClientCompression(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("pitaya ", 100)
		c, s := dialFake(t, string(zlibOf(t, 9, []byte(plainAnswer))), &pitaya.ClientConfig{Compress: true})
		for _, tt := range []struct {
			payload    string
			compressed bool
		}{{long, true}, {"short", false}, {"", false}} {
			var got []byte
			done := async(func() error { return c.Request(t.Context(), "room.echo", []byte(tt.payload), &got) })
			m := s.wantMessage(pitaya.MessageRequest, "room.echo")
			if m.Compressed != tt.compressed {
				t.Errorf("%.5s: got compressed %v", tt.payload, m.Compressed)
			}
			s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: m.Payload, Compressed: m.Compressed})
			if err := <-done; err != nil || string(got) != tt.payload {
				t.Errorf("%.5s: got %d bytes, %v", tt.payload, len(got), err)
			}
		}
		// The server may repeat itself as often as it likes.
		var got []byte
		done := async(func() error { return c.Request(t.Context(), "room.echo", nil, &got) })
		m := s.wantMessage(pitaya.MessageRequest, "room.echo")
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: zlibOf(t, 9, make([]byte, 1<<20)), Compressed: true})
		if err := <-done; err != nil || len(got) != 1<<20 {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestClientInflateLimit(t *testing.T) {
	bomb := zlibOf(t, 9, make([]byte, 1001))
	cfg := &pitaya.ClientConfig{MaxInflatedSize: 1000}
	t.Run("answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := dialFake(t, plainAnswer, cfg)
			done := async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) })
			m := s.wantMessage(pitaya.MessageRequest, "room.echo")
			s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: bomb, Compressed: true})
			if err := <-done; !errors.Is(err, pitaya.ErrCompressed) {
				t.Errorf("got %v", err)
			}
			wantClientEnd(t, c, pitaya.ErrCompressed)
		})
	})
	t.Run("push", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, s := dialFake(t, plainAnswer, cfg)
			c.OnPush("onPush", func([]byte) { t.Error("handled") })
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: bomb, Compressed: true})
			wantClientEnd(t, c, pitaya.ErrCompressed)
		})
	})
}

func TestClientRequestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Request(ctx, "room.echo", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if n := c.Pending(); n != 0 {
			t.Errorf("%d requests still wait", n)
		}
		late := s.wantMessage(pitaya.MessageRequest, "room.echo")
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: late.ID, Payload: []byte("late")})
		var got []byte
		done := async(func() error { return c.Request(t.Context(), "room.echo", nil, &got) })
		m := s.wantMessage(pitaya.MessageRequest, "room.echo")
		s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: []byte("good")})
		if err := <-done; err != nil || string(got) != "good" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestClientRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{RequestTimeout: 5 * time.Second})
		start := time.Now()
		err := c.Request(t.Context(), "room.echo", nil, nil)
		if pitaya.ErrorCode(err) != pitaya.CodeClientTimeout || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("got %v with code %q after %v", err, pitaya.ErrorCode(err), time.Since(start))
		}
		s.wantMessage(pitaya.MessageRequest, "room.echo")
		// A context that ends earlier speaks for itself.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Request(ctx, "room.echo", nil, nil); pitaya.ErrorCode(err) != pitaya.CodeTimeout {
			t.Errorf("got %v with code %q", err, pitaya.ErrorCode(err))
		}
		if c.Err() != nil || c.Pending() != 0 {
			t.Errorf("connection: %v, %d requests wait", c.Err(), c.Pending())
		}
	})
}

func TestClientConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		go s.echo()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				payload := bytes.Repeat([]byte{byte(i)}, i*1000)
				for range 100 {
					got, err := c.RequestRaw(t.Context(), "room.echo", payload)
					if err != nil || !bytes.Equal(got, payload) {
						t.Errorf("got %d bytes, %v, want %d", len(got), err, len(payload))
						return
					}
				}
			})
		}
		wg.Wait()
		if n := c.Pending(); n != 0 {
			t.Errorf("%d requests still wait", n)
		}
	})
}

// TestClientPipelines makes sure that packets queued behind a write leave together.
func TestClientPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := clientPair(t)
		gate := &gatedConn{Conn: near}
		s := newFakeServer(t, far)
		s.write(pitaya.PacketHandshake, []byte(plainAnswer))
		c, err := pitaya.NewClient(t.Context(), gate, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s.wantPacket(pitaya.PacketHandshake)
		s.wantPacket(pitaya.PacketHandshakeAck)
		open := gate.shut()
		first := async(func() error { return c.NotifyRaw(t.Context(), "first", nil) })
		synctest.Wait()
		for i := range 10 {
			if err := c.NotifyRaw(t.Context(), fmt.Sprint("r", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		before := gate.count()
		open()
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		s.wantMessage(pitaya.MessageNotify, "first")
		for i := range 10 {
			s.wantMessage(pitaya.MessageNotify, fmt.Sprint("r", i))
		}
		if got := gate.count() - before; got != 1 {
			t.Errorf("%d writes for 10 packets in a queue", got)
		}
	})
}

// A gatedConn counts its writes and can hold them up.
type gatedConn struct {
	net.Conn
	mu     sync.Mutex
	gate   chan struct{} // nil: open
	writes int
}

func (c *gatedConn) shut() (open func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gate := make(chan struct{})
	c.gate = gate
	return func() { close(gate) }
}

func (c *gatedConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return c.Conn.Write(b)
}

func BenchmarkClientRequest(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			near, far := clientPair(b)
			s := newFakeServer(b, far)
			s.write(pitaya.PacketHandshake, []byte(plainAnswer))
			c, err := pitaya.NewClient(b.Context(), near, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			s.wantPacket(pitaya.PacketHandshake)
			s.wantPacket(pitaya.PacketHandshakeAck)
			go s.echo()
			payload := make([]byte, 128)
			b.ReportAllocs()
			var wg sync.WaitGroup
			work := make(chan struct{})
			for range callers {
				wg.Go(func() {
					for range work {
						if _, err := c.RequestRaw(b.Context(), "room.echo", payload); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
		})
	}
}
