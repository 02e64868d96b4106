package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/pitaya-go/pitaya"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// A testServer is the program's server, running in this process on ports of its
// own. It ends with the test.
type testServer struct {
	*pitaya.Server
	addrs map[protocol]string
}

// start runs the server that the arguments describe.
func start(t testing.TB, args ...string) *testServer {
	t.Helper()
	o, err := parse(args, nil, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{addrs: make(map[protocol]string)}
	for _, e := range o.addrs() {
		l, err := o.listenOn(e.Protocol, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Config.Listeners = append(o.Config.Listeners, l)
		ts.addrs[e.Protocol] = l.Addr().String()
	}
	ts.Server = serveOptions(t, o)
	return ts
}

// serveOptions runs a server until the test ends.
func serveOptions(t testing.TB, o *options) *pitaya.Server {
	t.Helper()
	o.Config.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := newServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ran:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// transports runs a test over each transport.
func transports(t *testing.T, test func(t *testing.T, p protocol)) {
	for _, p := range []protocol{protocolTCP, protocolWS} {
		t.Run(string(p), func(t *testing.T) { test(t, p) })
	}
}

// A client speaks the protocol packet by packet.
type client struct {
	net.Conn
	t      testing.TB
	answer string // to the handshake
	lastID uint64
	pushes []push // that came before the last answer, and were not asked for yet
}

// A push is what the server sent by itself.
type push struct{ Route, Payload string }

// connect connects a client and does its handshake.
func (ts *testServer) connect(t testing.TB, p protocol) *client {
	t.Helper()
	return ts.connectWith(t, p, `{"sys":{}}`)
}

func (ts *testServer) connectWith(t testing.TB, p protocol, handshake string) *client {
	t.Helper()
	return connectTo(t, p, ts.addrs[p], handshake)
}

func connectTo(t testing.TB, p protocol, addr, handshake string) *client {
	t.Helper()
	c := &client{t: t}
	var err error
	switch p {
	case protocolWS:
		var ws *websocket.Conn
		if ws, err = websocket.Dial("ws://"+addr+"/", "", "http://localhost/"); err == nil {
			ws.PayloadType = websocket.BinaryFrame
			c.Conn = ws
		}
	case protocolTLS:
		c.Conn, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // made for this test
	default:
		c.Conn, err = net.Dial("tcp", addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	c.send(pitaya.PacketHandshake, []byte(handshake))
	c.answer = string(c.expect(pitaya.PacketHandshake))
	c.send(pitaya.PacketHandshakeAck, nil)
	return c
}

func (c *client) send(typ pitaya.PacketType, body []byte) {
	c.t.Helper()
	b, err := pitaya.AppendPacket(nil, typ, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) sendMessage(m pitaya.Message) {
	c.t.Helper()
	b, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(pitaya.PacketData, b)
}

// next returns the next packet that is no heartbeat.
func (c *client) next() pitaya.Packet {
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

func (c *client) expect(typ pitaya.PacketType) []byte {
	c.t.Helper()
	p := c.next()
	if p.Type != typ {
		c.t.Fatalf("packet of type %v %q, want %v", p.Type, p.Body, typ)
	}
	return p.Body
}

// message returns the next message.
func (c *client) message() pitaya.Message {
	c.t.Helper()
	m, err := pitaya.DecodeMessage(c.expect(pitaya.PacketData), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// request sends a request and returns its answer. Pushes that come before it
// are kept.
func (c *client) request(route, payload string) (answer string, isErr bool) {
	c.t.Helper()
	c.lastID++
	c.sendMessage(pitaya.Message{Type: pitaya.MessageRequest, ID: c.lastID, Route: route, Payload: []byte(payload)})
	for {
		m := c.message()
		if m.Type == pitaya.MessagePush {
			c.pushes = append(c.pushes, push{m.Route, string(m.Payload)})
			continue
		}
		if m.Type != pitaya.MessageResponse || m.ID != c.lastID {
			c.t.Fatalf("%s: message of type %v and id %d, want the answer to %d", route, m.Type, m.ID, c.lastID)
		}
		return string(m.Payload), m.Err
	}
}

// must is request for one that succeeds.
func (c *client) must(route, payload string) string {
	c.t.Helper()
	answer, isErr := c.request(route, payload)
	if isErr {
		c.t.Fatalf("%s: error %s", route, answer)
	}
	return answer
}

func (c *client) notify(route, payload string) {
	c.t.Helper()
	c.sendMessage(pitaya.Message{Type: pitaya.MessageNotify, Route: route, Payload: []byte(payload)})
}

// wantPush takes the next push.
func (c *client) wantPush(want push) {
	c.t.Helper()
	if len(c.pushes) == 0 {
		m := c.message()
		if m.Type != pitaya.MessagePush {
			c.t.Fatalf("message of type %v %q, want push %q", m.Type, m.Payload, want)
		}
		c.pushes = []push{{m.Route, string(m.Payload)}}
	}
	if got := c.pushes[0]; got != want {
		c.t.Errorf("push %q, want %q", got, want)
	}
	c.pushes = c.pushes[1:]
}

// wantKick waits for the kick and the end of the stream behind it.
func (c *client) wantKick() {
	c.t.Helper()
	c.expect(pitaya.PacketKick)
	if _, err := pitaya.ReadPacket(c, 0); !errors.Is(err, io.EOF) {
		c.t.Errorf("after the kick: %v, want the end of the stream", err)
	}
}

// A row is a request with its answer and the pushes that come before it.
type row struct {
	route   string
	payload string
	want    string // exactly
	like    string // instead of want: a regular expression for all of it
	isErr   bool
	pushes  []push
}

// check makes the requests in order.
func (c *client) check(rows []row) {
	c.t.Helper()
	for _, row := range rows {
		got, isErr := c.request(row.route, row.payload)
		if isErr != row.isErr {
			c.t.Errorf("%s %q: error flag %v, want %v; payload %q", row.route, row.payload, isErr, row.isErr, got)
		}
		switch {
		case row.like == "" && got != row.want:
			c.t.Errorf("%s %q:\n got %q\nwant %q", row.route, row.payload, got, row.want)
		case row.like != "" && !regexp.MustCompile("^(?s:"+row.like+")$").MatchString(got):
			c.t.Errorf("%s %q:\n got %q\nwant %s", row.route, row.payload, got, row.like)
		}
		if !slices.Equal(c.pushes, row.pushes) {
			c.t.Errorf("%s %q: pushes %q, want %q", row.route, row.payload, c.pushes, row.pushes)
		}
		c.pushes = nil
	}
}

// requestMessage is a request without payload, for answers that do not come as
// usual.
func requestMessage(id uint64, route string) pitaya.Message {
	return pitaya.Message{Type: pitaya.MessageRequest, ID: id, Route: route}
}

// freePorts returns the first of n neighbouring ports that nobody uses. It is
// out of the range from which systems give ports to who asks for any.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	for range 1000 {
		if first := 20000 + rand.IntN(10000); free(first, n) {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
