package pitaya_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/pitaya-go/pitaya"
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
