package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"golang.org/x/net/websocket"
)

const plainAnswer = `{"code":200,"sys":{"dict":{"room.echo":1,"onPush":2},"heartbeat":30,"serializer":"json"}}`

// A fakeServer is the peer of a client under test. It does what the test says, step by step.
type fakeServer struct {
	testing.TB
	conn net.Conn
	in   *bufio.Reader
	dict *pitaya.Dictionary
}

// clientPair connects two ends in memory.
func clientPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l := pitaya.ListenMem()
	defer l.Close()
	client, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func newFakeServer(t testing.TB, conn net.Conn) *fakeServer {
	return &fakeServer{TB: t, conn: conn, in: bufio.NewReader(conn),
		dict: newDictionary(t, map[string]uint16{"room.echo": 1, "onPush": 2})}
}

// dialFake connects a client to a fake server, which answers its handshake. Both ends are closed with the test.
func dialFake(t *testing.T, answer string, cfg *pitaya.ClientConfig) (*pitaya.Client, *fakeServer) {
	t.Helper()
	near, far := clientPair(t)
	s := newFakeServer(t, far)
	t.Cleanup(func() { far.Close() })
	s.write(pitaya.PacketHandshake, []byte(answer))
	c, err := pitaya.NewClient(t.Context(), near, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s.wantPacket(pitaya.PacketHandshake)
	s.wantPacket(pitaya.PacketHandshakeAck)
	return c, s
}

func (s *fakeServer) write(typ pitaya.PacketType, body []byte) {
	s.Helper()
	b, err := pitaya.AppendPacket(nil, typ, body)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.conn.Write(b); err != nil {
		s.Fatal(err)
	}
}

func (s *fakeServer) send(m pitaya.Message) {
	s.Helper()
	b, err := pitaya.AppendMessage(nil, m, s.dict)
	if err != nil {
		s.Fatal(err)
	}
	s.write(pitaya.PacketData, b)
}

func (s *fakeServer) wantPacket(typ pitaya.PacketType) []byte {
	s.Helper()
	p, err := pitaya.ReadPacket(s.in, 0)
	if err != nil {
		s.Fatal(err)
	}
	if p.Type != typ {
		s.Fatalf("got %v packet %x, want %v", p.Type, p.Body, typ)
	}
	return p.Body
}

func (s *fakeServer) wantMessage(typ pitaya.MessageType, route string) pitaya.Message {
	s.Helper()
	m, err := pitaya.DecodeMessage(s.wantPacket(pitaya.PacketData), s.dict)
	if err != nil {
		s.Fatal(err)
	}
	if m.Type != typ || m.Route != route {
		s.Fatalf("got %+v, want %v %s", m, typ, route)
	}
	return m
}

// wantEnd fails the test unless the client has closed the connection.
func (s *fakeServer) wantEnd() {
	s.Helper()
	if p, err := pitaya.ReadPacket(s.in, 0); err != io.EOF {
		s.Fatalf("got %v %x, %v, want the end", p.Type, p.Body, err)
	}
}

// async runs f, which returns an error, beside the test.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// wantClientEnd waits for the end of a client's connection and looks at its cause.
func wantClientEnd(t *testing.T, c *pitaya.Client, want error) {
	t.Helper()
	<-c.Done()
	if err := c.Err(); !errors.Is(err, want) {
		t.Errorf("connection ended with %v, want %v", err, want)
	}
}

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

func TestClientPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string // written by handlers only, which run one at a time
		record := func(name string) func([]byte) {
			return func(p []byte) { got = append(got, name+" "+string(p)) }
		}
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{
			OnPush:    map[string]func([]byte){"onPush": record("configured"), "none": nil},
			OnAnyPush: func(route string, p []byte) { record("any " + route)(p) },
		})
		push := func(route, payload string) {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: route, Payload: []byte(payload)})
			synctest.Wait()
		}
		push("onPush", "1")
		push("other", "2")
		c.OnPush("onPush", record("new"))
		push("onPush", "3")
		c.OnPush("onPush", nil)
		push("onPush", "4")
		c.OnAnyPush(nil)
		push("onPush", "5")
		c.OnPush("late", record("late"))
		push("late", "6")
		s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "late", Payload: zlibOf(t, 9, []byte("7")), Compressed: true})
		synctest.Wait()
		want := []string{"configured 1", "any other 2", "new 3", "any onPush 4", "late 6", "late 7"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestClientPushOrder has a handler that makes a request for each push, while more pushes come in than any buffer holds.
func TestClientPushOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		c, s := dialFake(t, plainAnswer, nil)
		done := make(chan error, 1)
		next := 0
		c.OnPush("onPush", func(p []byte) {
			if string(p) != fmt.Sprint(next) {
				t.Errorf("got push %s, want %d", p, next)
			}
			next++
			err := c.Request(t.Context(), "room.echo", p, nil)
			if err != nil || next == n {
				done <- err
			}
		})
		for i := range n {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: fmt.Append(nil, i)})
		}
		for range n {
			m := s.wantMessage(pitaya.MessageRequest, "room.echo")
			s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID})
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestClientPushBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{MaxPushBacklog: 1000})
		release := make(chan struct{})
		var handled []int
		c.OnPush("onPush", func(p []byte) {
			<-release
			handled = append(handled, len(p))
		})
		push := func(size int) {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: make([]byte, size)})
			synctest.Wait()
		}
		push(5000) // nothing waits: any size is good
		if c.Err() != nil {
			t.Fatalf("one large push: %v", c.Err())
		}
		push(1)
		wantClientEnd(t, c, pitaya.ErrSlowClient)
		close(release)
		synctest.Wait()
		if want := []int{5000}; !slices.Equal(handled, want) {
			t.Errorf("got pushes of %v bytes, want %v", handled, want)
		}
	})
}

func TestClientCloseDropsPushes(t *testing.T) {
	for _, byServer := range []bool{false, true} {
		t.Run(fmt.Sprintf("byServer=%v", byServer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, nil)
				release := make(chan struct{})
				handled := 0
				c.OnPush("onPush", func(p []byte) {
					<-release
					handled++
				})
				for range 3 {
					s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush"})
				}
				synctest.Wait()
				want := 1
				if byServer {
					s.conn.Close()
					wantClientEnd(t, c, io.EOF)
					want = 3 // the last words of a server are heard
				} else if err := c.Close(); err != nil {
					t.Error(err)
				}
				close(release)
				synctest.Wait()
				if handled != want {
					t.Errorf("%d pushes handled, want %d", handled, want)
				}
			})
		})
	}
}

func TestClientCloseFromPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		c.OnPush("onPush", func([]byte) { c.Close() })
		s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush"})
		wantClientEnd(t, c, pitaya.ErrSessionClosed)
		s.wantEnd()
	})
}

func TestClientHeartbeat(t *testing.T) {
	tests := []struct {
		name      string
		heartbeat string // seconds
		want      time.Duration
	}{
		{"30 s", "30", 30 * time.Second},
		{"fraction", "1.5", 1500 * time.Millisecond},
		{"absurdly short", "1e-300", 10 * time.Millisecond},
		{"absurdly long", "1e300", 365 * 24 * time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, s := dialFake(t, `{"code":200,"sys":{"heartbeat":`+tt.heartbeat+`}}`, nil)
				start := time.Now()
				for i := range 5 {
					if body := s.wantPacket(pitaya.PacketHeartbeat); len(body) > 0 {
						t.Errorf("heartbeat has a body: %x", body)
					}
					if got, want := time.Since(start), time.Duration(i+1)*tt.want; got != want {
						t.Errorf("heartbeat %d after %v, want %v", i+1, got, want)
					}
					s.write(pitaya.PacketHeartbeat, nil)
				}
			})
		})
	}
}

func TestClientServerTimeout(t *testing.T) {
	const never = 0
	day := 24 * time.Hour
	tests := []struct {
		name   string
		answer string
		cfg    *pitaya.ClientConfig
		want   time.Duration // after the last byte from the server
	}{
		{"default", `{"code":200,"sys":{"heartbeat":30}}`, nil, 90 * time.Second},
		{"configured", `{"code":200,"sys":{"heartbeat":30}}`, &pitaya.ClientConfig{ServerTimeout: 7 * time.Second}, 7 * time.Second},
		{"off", `{"code":200,"sys":{"heartbeat":30}}`, &pitaya.ClientConfig{ServerTimeout: -1}, never},
		{"no heartbeats", `{"code":200,"sys":{}}`, nil, never},
		{"negative heartbeats", `{"code":200,"sys":{"heartbeat":-1}}`, nil, never},
		{"no heartbeats, but configured", `{"code":200,"sys":{}}`, &pitaya.ClientConfig{ServerTimeout: time.Hour}, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, tt.answer, tt.cfg)
				go io.Copy(io.Discard, s.conn) // the client's heartbeats
				time.Sleep(5 * time.Second)
				if _, err := s.conn.Write([]byte("\x03\x00")); err != nil { // half a packet is a life sign
					t.Fatal(err)
				}
				last := time.Now()
				select {
				case <-c.Done():
				case <-time.After(day):
				}
				switch took := time.Since(last); {
				case tt.want == never:
					if c.Err() != nil {
						t.Errorf("ended after %v: %v", took, c.Err())
					}
				case took != tt.want || !errors.Is(c.Err(), pitaya.ErrHeartbeat):
					t.Errorf("ended after %v with %v, want %v", took, c.Err(), tt.want)
				}
			})
		})
	}
}

func TestClientKick(t *testing.T) {
	tests := []struct{ name, body, reason, text string }{
		{"reason", `{"reason":"elsewhere"}`, "elsewhere", "pitaya: kicked: elsewhere"},
		{"empty", "", "", "pitaya: kicked"},
		{"other JSON", `[1]`, "", "pitaya: kicked"},
		{"not JSON", "bye", "", "pitaya: kicked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, nil)
				done := async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) })
				s.wantMessage(pitaya.MessageRequest, "room.echo")
				s.write(pitaya.PacketKick, []byte(tt.body))
				if err := <-done; !errors.Is(err, pitaya.ErrKicked) || err.Error() != tt.text {
					t.Errorf("request: got %v", err)
				}
				wantClientEnd(t, c, pitaya.ErrKicked)
				if c.KickReason() != tt.reason {
					t.Errorf("got reason %q, want %q", c.KickReason(), tt.reason)
				}
				s.wantEnd()
			})
		})
	}
}

func TestClientServerMistakes(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"packet type", "\x00\x00\x00\x00", pitaya.ErrPacketType},
		{"packet too large", "\x04\x00\x10\x01", pitaya.ErrPacketTooLarge},
		{"ack", "\x02\x00\x00\x00", pitaya.ErrProtocol},
		{"empty message", "\x04\x00\x00\x00", pitaya.ErrInvalidMessage},
		{"unknown route code", "\x04\x00\x00\x03\x07\x00\x09", pitaya.ErrRouteCode},
		{"request", "\x04\x00\x00\x05\x00\x01\x01ab", pitaya.ErrProtocol},
		{"notify", "\x04\x00\x00\x04\x02\x01ab", pitaya.ErrProtocol},
		{"end inside a header", "\x04\x00", io.ErrUnexpectedEOF},
		{"end inside a body", "\x04\x00\x00\x04\x02\x01", io.ErrUnexpectedEOF},
		{"end", "\x03\x00\x00\x00", io.EOF},
		{"harmless things before the end", "\x01\x00\x00\x02{}\x04\x00\x00\x02\x04\x09\x04\x00\x00\x04\x06\x01ab", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{
					MaxPacketSize: 1 << 12,
					Handshake:     &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Features: []string{}}},
					Logger:        slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
				})
				done := async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) })
				s.wantMessage(pitaya.MessageRequest, "room.echo")
				if _, err := io.WriteString(s.conn, tt.in); err != nil {
					t.Fatal(err)
				}
				s.conn.(interface{ CloseWrite() error }).CloseWrite()
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("request: got %v, want %v", err, tt.want)
				}
				wantClientEnd(t, c, tt.want)
				s.wantEnd()
				if err := c.Notify(t.Context(), "room.echo", nil); !errors.Is(err, tt.want) {
					t.Errorf("notify after the end: got %v, want %v", err, tt.want)
				}
			})
		})
	}
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

func TestClientClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		if c.Err() != nil {
			t.Errorf("open, but with error %v", c.Err())
		}
		var waiting []<-chan error
		for range 3 {
			waiting = append(waiting, async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) }))
			s.wantMessage(pitaya.MessageRequest, "room.echo")
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, done := range waiting {
			if err := <-done; !errors.Is(err, pitaya.ErrSessionClosed) {
				t.Errorf("request: got %v", err)
			}
		}
		wantClientEnd(t, c, pitaya.ErrSessionClosed)
		s.wantEnd()
		if err := c.Request(t.Context(), "room.echo", nil, nil); pitaya.ErrorCode(err) != pitaya.CodeClosed {
			t.Errorf("after the end: got %v", err)
		}
	})
}

// TestClientStalledServer has a server that reads nothing: callers get away when their contexts end, and all of them
// when the write timeout is over.
func TestClientStalledServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dialFake(t, plainAnswer, &pitaya.ClientConfig{WriteTimeout: 20 * time.Second})
		start := time.Now()
		big := make([]byte, 200<<10)
		blocked := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) }) // writes itself
		synctest.Wait()
		for i := range 2 { // there is room for these behind it
			if err := c.NotifyRaw(t.Context(), "a.b", big); err != nil || time.Since(start) > 0 {
				t.Errorf("notify %d: %v after %v", i, err, time.Since(start))
			}
		}
		patient := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.NotifyRaw(ctx, "a.b", big); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		wantClientEnd(t, c, os.ErrDeadlineExceeded)
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("ended after %v, want 20s", took)
		}
		if err := <-blocked; err != nil { // its bytes were on their way; what became of them Err tells
			t.Errorf("first: %v", err)
		}
		if err := <-patient; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("patient: %v", err)
		}
	})
}

// TestClientCloseFlushes closes while packets are queued behind a write in progress.
func TestClientCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		big := make([]byte, 200<<10)
		first := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) })
		synctest.Wait()
		if err := c.NotifyRaw(t.Context(), "last.words", nil); err != nil {
			t.Fatal(err)
		}
		closed := async(c.Close)
		synctest.Wait()
		if err := c.NotifyRaw(t.Context(), "a.b", nil); !errors.Is(err, pitaya.ErrSessionClosed) {
			t.Errorf("notify while closing: got %v", err)
		}
		if m := s.wantMessage(pitaya.MessageNotify, "a.b"); len(m.Payload) != len(big) {
			t.Errorf("got %d bytes", len(m.Payload))
		}
		s.wantMessage(pitaya.MessageNotify, "last.words")
		s.wantEnd()
		if err := errors.Join(<-first, <-closed); err != nil {
			t.Error(err)
		}
	})
}

// echo answers requests with their payload until the connection ends.
func (s *fakeServer) echo() {
	out := bufio.NewWriter(s.conn)
	for {
		p, err := pitaya.ReadPacket(s.in, 0)
		if err != nil {
			return
		}
		if p.Type != pitaya.PacketData {
			continue
		}
		m, err := pitaya.DecodeMessage(p.Body, s.dict)
		if err != nil {
			s.Error(err)
			return
		}
		b, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: m.Payload}, nil)
		if err == nil {
			b, err = pitaya.AppendPacket(nil, pitaya.PacketData, b)
		}
		if err != nil {
			s.Error(err)
			return
		}
		out.Write(b)
		if s.in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
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

func TestDial(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	tcp := func(c *tls.Config) func() (net.Listener, error) {
		return func() (net.Listener, error) { return pitaya.ListenTCP("127.0.0.1:0", c) }
	}
	ws := func(c *tls.Config) func() (net.Listener, error) {
		return func() (net.Listener, error) {
			return pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: c, Path: "/game", Origins: []string{"https://good"}})
		}
	}
	tests := []struct {
		scheme string
		listen func() (net.Listener, error)
	}{{"tcp", tcp(nil)}, {"tls", tcp(serverTLS)}, {"ws", ws(nil)}, {"wss", ws(serverTLS)}}
	for _, tt := range tests {
		t.Run(tt.scheme, func(t *testing.T) {
			l, err := tt.listen()
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, err := conn.Write([]byte("\x01\x00\x00\x0c{\"code\":200}")); err != nil {
					t.Error(err)
					return
				}
				newFakeServer(t, conn).echo()
			}()
			c, err := pitaya.Dial(t.Context(), tt.scheme+"://"+l.Addr().String()+"/game?x=1", &pitaya.ClientConfig{
				TLS:    &tls.Config{RootCAs: clientTLS.RootCAs}, // the server name comes from the URL
				Header: http.Header{"Origin": {"https://good"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					payload := bytes.Repeat([]byte{byte(i)}, 10_000*i)
					for range 20 {
						got, err := c.RequestRaw(t.Context(), "room.other", payload)
						if err != nil || !bytes.Equal(got, payload) {
							t.Errorf("got %d bytes, %v, want %d", len(got), err, len(payload))
							return
						}
					}
				})
			}
			wg.Wait()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			<-served
		})
	}
}

// TestDialWSPackets talks to a server that, as old ones do, wants one packet in each message.
func TestDialWSPackets(t *testing.T) {
	const n = 500
	served := make(chan error, 1)
	srv := httptest.NewServer(websocket.Server{Handler: func(ws *websocket.Conn) {
		served <- func() error {
			if err := websocket.Message.Send(ws, []byte("\x01\x00\x00\x0c{\"code\":200}")); err != nil {
				return err
			}
			for range n + 2 {
				var b []byte
				if err := websocket.Message.Receive(ws, &b); err != nil {
					return err
				}
				if _, err := oneWholePacket(b); err != nil {
					return fmt.Errorf("message of %d bytes: %w", len(b), err)
				}
			}
			return nil
		}()
	}})
	defer srv.Close()
	c, err := pitaya.Dial(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range n / 10 {
				if err := c.NotifyRaw(t.Context(), "a.b", []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDialFailures(t *testing.T) {
	serverTLS, _ := testTLS(t)
	l, err := pitaya.ListenTCP("127.0.0.1:0", serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1)) // the handshake, which fails
			c.Close()
		}
	}()
	for _, scheme := range []string{"tls", "wss"} {
		_, err := pitaya.Dial(t.Context(), scheme+"://"+l.Addr().String(), nil)
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
			t.Errorf("%s: got %v, want a certificate error", scheme, err)
		}
	}
	if _, err := pitaya.Dial(t.Context(), "ws://"+l.Addr().String(), nil); err == nil {
		t.Error("ws to a TLS server: no error")
	}
}

func TestDialMistakes(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{"not a URL", "tcp://[", "pitaya: dial: parse"},
		{"no scheme", "localhost:3250", "scheme must be"},
		{"scheme", "udp://localhost:3250", "scheme must be"},
		{"no port", "tcp://localhost", "host or port missing"},
		{"no host", "tcp://:3250", "host or port missing"},
		{"fragment", "ws://127.0.0.1:1/game#room", "fragment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := pitaya.Dial(t.Context(), tt.url, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pitaya.Dial(ctx, "tcp://127.0.0.1:1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("context ended before: got %v", err)
	}
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
