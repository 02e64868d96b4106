package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// realTime bounds what a test on real sockets waits for. It is only reached
// when something is wrong.
const realTime = 30 * time.Second

// startOn is startServer with one more listener, of the given kind: mem, tcp,
// tls, ws, wss or proxy. dial connects to it without a handshake of the
// protocol.
func startOn(t testing.TB, kind string, cfg pitaya.Config, setup func(s *pitaya.Server)) (ts *testServer, dial func() *rawClient) {
	t.Helper()
	if kind == "mem" {
		ts = startServer(t, cfg, setup)
		return ts, func() *rawClient { t.Helper(); return ts.dial(t) }
	}
	l, open := listenOn(t, kind)
	cfg.Listeners = append(cfg.Listeners, l)
	ts = startServer(t, cfg, setup)
	return ts, func() *rawClient {
		t.Helper()
		c, err := open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(realTime))
		return &rawClient{Conn: c, t: t}
	}
}

// listenOn opens a listener of the given kind, and says how to connect to it.
func listenOn(t testing.TB, kind string) (net.Listener, func(context.Context) (net.Conn, error)) {
	t.Helper()
	var l net.Listener
	var err error
	var client *tls.Config
	switch kind {
	case "mem":
		mem := pitaya.ListenMem()
		return mem, mem.DialContext
	case "memws":
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ws, func(ctx context.Context) (net.Conn, error) {
			c, err := mem.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			return upgradeTo(c)
		}
	case "tcp":
		l, err = pitaya.ListenTCP("127.0.0.1:0", nil)
	case "proxy":
		if l, err = pitaya.ListenTCP("127.0.0.1:0", nil); err == nil {
			l = pitaya.NewProxyListener(l, pitaya.ProxyOptions{})
		}
	case "tls":
		var server *tls.Config
		server, client = testTLS(t)
		l, err = pitaya.ListenTCP("127.0.0.1:0", server)
	case "ws":
		l, err = pitaya.ListenWS("127.0.0.1:0", nil)
	case "wss":
		var server *tls.Config
		server, client = testTLS(t)
		l, err = pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: server})
	default:
		t.Fatalf("no listener %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		c.SetDeadline(time.Now().Add(realTime))
		if client != nil {
			c = tls.Client(c, client)
		}
		if kind == "proxy" {
			_, err = io.WriteString(c, "PROXY UNKNOWN\r\n")
		}
		if kind == "ws" || kind == "wss" {
			return upgradeTo(c)
		}
		return c, err
	}
}

// A wsPeer is the client's end of a WebSocket connection, as a stream: each
// Write is one binary message, Read gives the payload of the messages.
type wsPeer struct {
	net.Conn
	br    *bufio.Reader
	frame *pitaya.WSReader
	rest  []byte
	mu    sync.Mutex // guards the fields below
	code  uint16     // of the close frame; 0 before it
	pongs int
}

func upgradeTo(c net.Conn) (*wsPeer, error) {
	if _, err := io.WriteString(c, wsRequest); err != nil {
		return nil, err
	}
	p := &wsPeer{Conn: c, frame: pitaya.NewWSReader(true, 0)}
	return p, p.answered()
}

// answered reads the answer to the upgrade request.
func (p *wsPeer) answered() error {
	p.br = bufio.NewReader(p.Conn)
	a, err := http.ReadResponse(p.br, nil)
	if err == nil && a.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New("no upgrade: " + a.Status)
	}
	return err
}

func (p *wsPeer) Write(b []byte) (int, error) {
	if _, err := p.Conn.Write(pitaya.AppendWSFrame(nil, pitaya.WSBinary, true, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *wsPeer) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		var raw [4096]byte
		n, err := p.br.Read(raw[:])
		if n == 0 {
			return 0, err
		}
		data, err := p.frame.Decode(raw[:n], func(op byte, payload []byte) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch op {
			case pitaya.WSClose:
				p.code, _, _ = pitaya.ParseWSClose(payload)
			case pitaya.WSPong:
				p.pongs++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		p.rest = bytes.Clone(data)
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// closeCode returns the status of the server's close frame, 0 before it.
func (p *wsPeer) closeCode() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code
}

// onOneCore runs the rest of the test with GOMAXPROCS=1.
func onOneCore(t *testing.T) {
	old := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// hello does a handshake and fails the test if it is refused.
func (c *rawClient) hello() *rawClient {
	c.t.Helper()
	c.handshake(`{"sys":{}}`)
	return c
}

// packets reads the stream to its end and returns its packets, without
// heartbeats. Anything else than whole packets and then the end is an error.
func (c *rawClient) packets() (list []pitaya.Packet, err error) {
	br := bufio.NewReaderSize(c, 64<<10)
	for {
		p, err := pitaya.ReadPacket(br, 0)
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if p.Type != pitaya.PacketHeartbeat {
			p.Body = bytes.Clone(p.Body)
			list = append(list, p)
		}
	}
}

// appendRequest appends the packet of a request, or of a notify if the id is 0.
func appendRequest(b []byte, id uint64, route string, payload []byte) []byte {
	m := pitaya.Message{Type: pitaya.MessageRequest, ID: id, Route: route, Payload: payload}
	if id == 0 {
		m.Type = pitaya.MessageNotify
	}
	body, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		panic(err)
	}
	b, err = pitaya.AppendPacket(b, pitaya.PacketData, body)
	if err != nil {
		panic(err)
	}
	return b
}

// onlySession waits for the server's only session.
func (ts *testServer) onlySession(t testing.TB) *pitaya.Session {
	t.Helper()
	for s := range ts.Sessions() {
		return s
	}
	t.Fatal("there is no session")
	return nil
}

// must fails the test if one of the set-up calls failed.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// within waits for a channel on real sockets.
func within(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(realTime):
		t.Fatalf("%s: not within %v", what, realTime)
	}
}

// logRecords is a slog.Handler that keeps all records as text.
type logRecords struct {
	mu  *sync.Mutex
	buf *bytes.Buffer
	slog.Handler
}

func newLogRecords(level slog.Level) *logRecords {
	r := &logRecords{mu: new(sync.Mutex), buf: new(bytes.Buffer)}
	r.Handler = slog.NewTextHandler(lockedWriter{r.mu, r.buf}, &slog.HandlerOptions{Level: level})
	return r
}

func (r *logRecords) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

// A client that leaves between two packets has broken no rule, whatever it is
// connected over; one that leaves within a packet has.
func TestLeaving(t *testing.T) {
	for _, kind := range []string{"mem", "memws", "tcp", "ws", "tls"} {
		for _, tt := range []struct {
			name, last string
			want       error
			violations int64
		}{
			{"at rest", "", io.EOF, 0},
			{"behind a packet", "\x03\x00\x00\x00", io.EOF, 0},
			{"within a header", "\x04\x00", pitaya.ErrTruncated, 1},
			{"within a body", "\x04\x00\x00\x05\x00", pitaya.ErrTruncated, 1},
		} {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				s, dial := startOn(t, kind, pitaya.Config{}, nil)
				c := dial().hello()
				c.request(1, "no.such", "")
				c.message()
				session := s.onlySession(t)
				if tt.last != "" {
					c.write([]byte(tt.last))
				}
				var nc net.Conn = c
				for { // below the framing: nobody says goodbye
					if raw, ok := nc.(*rawClient); ok {
						nc = raw.Conn
					} else if peer, ok := nc.(*wsPeer); ok {
						nc = peer.Conn
					} else {
						break
					}
				}
				nc.Close()
				<-session.Context().Done()
				if cause := context.Cause(session.Context()); !errors.Is(cause, tt.want) {
					t.Errorf("the cause is %v, want %v", cause, tt.want)
				}
				if n := s.Stats().Violations; n != tt.violations {
					t.Errorf("%d violations, want %d", n, tt.violations)
				}
			})
		}
	}
}
