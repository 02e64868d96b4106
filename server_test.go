package pitaya_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A testServer is a running frontend with a listener in memory. It ends with
// the test.
type testServer struct {
	*pitaya.Server
	Mem *pitaya.MemListener
	end context.CancelFunc
	ran chan error
}

// startServer starts a server. Zero settings are those of a frontend of type
// "conn" that logs to the test.
func startServer(t testing.TB, cfg pitaya.Config, setup func(s *pitaya.Server)) *testServer {
	t.Helper()
	mem := pitaya.ListenMem()
	cfg.Frontend = true
	if cfg.Type == "" {
		cfg.Type = "conn"
	}
	if cfg.Logger == nil {
		cfg.Logger = testLogger(t)
	}
	cfg.Listeners = append(cfg.Listeners, mem)
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ts := &testServer{Server: s, Mem: mem, end: cancel, ran: make(chan error, 1)}
	go func() { ts.ran <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ts.ran:
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(func() { ts.stop(t) })
	return ts
}

// stop ends the server and waits for it. It may be called more than once.
func (ts *testServer) stop(t testing.TB) {
	t.Helper()
	ts.end()
	err, ok := <-ts.ran
	if ok {
		close(ts.ran)
	}
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if n := ts.Stats().QueueBytes; n != 0 {
		t.Errorf("%d bytes are queued when all connections have ended", n)
	}
}

// testLogger logs to the test's output.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// A rawClient speaks the protocol byte by byte.
type rawClient struct {
	net.Conn
	t testing.TB
}

// dial connects to the server's listener in memory.
func (ts *testServer) dial(t testing.TB) *rawClient {
	t.Helper()
	c, err := ts.Mem.DialContext(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawClient{Conn: c, t: t}
}

// connect is dial with a handshake.
func (ts *testServer) connect(t testing.TB) *rawClient {
	t.Helper()
	c := ts.dial(t)
	c.handshake(`{"sys":{}}`)
	return c
}

// handshake does the handshake and returns the server's answer.
func (c *rawClient) handshake(body string) string {
	c.t.Helper()
	c.send(pitaya.PacketHandshake, []byte(body))
	answer := c.expect(pitaya.PacketHandshake)
	c.send(pitaya.PacketHandshakeAck, nil)
	return string(answer)
}

func (c *rawClient) send(t pitaya.PacketType, body []byte) {
	c.t.Helper()
	b, err := pitaya.AppendPacket(nil, t, body)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(b)
}

func (c *rawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// request sends a request, or a notify if the id is 0.
func (c *rawClient) request(id uint64, route, payload string) {
	c.t.Helper()
	m := pitaya.Message{Type: pitaya.MessageRequest, ID: id, Route: route, Payload: []byte(payload)}
	if id == 0 {
		m.Type = pitaya.MessageNotify
	}
	b, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(pitaya.PacketData, b)
}

// next returns the next packet, without heartbeats.
func (c *rawClient) next() pitaya.Packet {
	c.t.Helper()
	for {
		p, err := pitaya.ReadPacket(c, 0)
		if err != nil {
			c.t.Fatalf("no packet: %v", err)
		}
		if p.Type != pitaya.PacketHeartbeat {
			return p
		}
	}
}

func (c *rawClient) expect(t pitaya.PacketType) []byte {
	c.t.Helper()
	p := c.next()
	if p.Type != t {
		c.t.Fatalf("packet of type %v %q, want %v", p.Type, p.Body, t)
	}
	return p.Body
}

// message returns the next message.
func (c *rawClient) message() pitaya.Message {
	c.t.Helper()
	m, err := pitaya.DecodeMessage(c.expect(pitaya.PacketData), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// expectClosed waits for the end of the stream, and fails if anything comes
// before it.
func (c *rawClient) expectClosed() {
	c.t.Helper()
	for {
		p, err := pitaya.ReadPacket(c, 0)
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			c.t.Fatalf("got %v, want the end of the stream", err)
		case p.Type != pitaya.PacketHeartbeat:
			c.t.Fatalf("got a packet of type %v %q, want the end of the stream", p.Type, p.Body)
		}
	}
}

// silent fails if the server sends anything for a while, or closes.
func (c *rawClient) silent(d time.Duration) {
	c.t.Helper()
	var b [64]byte
	c.SetReadDeadline(time.Now().Add(d))
	n, err := c.Read(b[:])
	var timeout net.Error
	if n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		c.t.Fatalf("got %x, %v; want silence", b[:n], err)
	}
	c.SetReadDeadline(time.Time{})
}
