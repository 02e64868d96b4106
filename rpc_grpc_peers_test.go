package pitaya_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/pitaya-go/pitaya"
)

// Peers that break the rules, on either side.

// rawGRPCServer serves HTTP/2 with h and returns a description of it.
func rawGRPCServer(t testing.TB, h http.HandlerFunc) *pitaya.ServerInfo {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h, Protocols: protocols}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return grpcServerAt("raw-1", "127.0.0.1", port)
}

// http2Client returns a transport for plain HTTP/2.
func http2Client(t testing.TB) *http.Transport {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func readAll(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	_, err := io.Copy(io.Discard, r)
	return b, err
}

func addrOf(s *pitaya.ServerInfo) string {
	return net.JoinHostPort(s.Metadata["grpcHost"], s.Metadata["grpcPort"])
}

func frameOf(message string) string {
	b, err := pitaya.AppendGRPCFrame(nil, []byte(message))
	if err != nil {
		panic(err)
	}
	return string(b)
}

type rawGRPCAnswer struct {
	http    int
	status  string // grpc-status
	message string // grpc-message
	body    string
}

// rawGRPCRequest makes a request with a plain HTTP/2 client. A header with an empty value is left out.
func rawGRPCRequest(t testing.TB, to *pitaya.ServerInfo, path string, header http.Header, body string) rawGRPCAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addrOf(to)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	maps.Copy(req.Header, header)
	res, err := http2Client(t).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := rawGRPCAnswer{http: res.StatusCode, body: string(b)}
	for _, h := range []http.Header{res.Header, res.Trailer} {
		if s := h.Get("Grpc-Status"); s != "" {
			a.status, a.message = s, h.Get("Grpc-Message")
		}
	}
	return a
}

func TestGRPCServerRequests(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	const call = "/protos.Pitaya/Call"
	tests := []struct {
		name   string
		path   string
		header http.Header
		body   string
		want   rawGRPCAnswer
	}{
		{name: "call", body: frameOf("abc"), want: rawGRPCAnswer{http: 200, status: "0", body: frameOf("abc")}},
		{name: "empty message", body: frameOf(""), want: rawGRPCAnswer{http: 200, status: "0", body: frameOf("")}},
		{name: "+proto", header: http.Header{"Content-Type": {"application/grpc+proto"}}, body: frameOf("abc"), want: rawGRPCAnswer{http: 200, status: "0", body: frameOf("abc")}},
		{name: "without te", header: http.Header{"Te": nil}, body: frameOf("abc"), want: rawGRPCAnswer{http: 200, status: "0", body: frameOf("abc")}},
		{name: "health", path: "/grpc.health.v1.Health/Check", body: frameOf(""), want: rawGRPCAnswer{http: 200, status: "0", body: frameOf("\x08\x01")}},
		{name: "+json", header: http.Header{"Content-Type": {"application/grpc+json"}}, want: rawGRPCAnswer{http: 415}},
		{name: "no content type", header: http.Header{"Content-Type": nil}, want: rawGRPCAnswer{http: 415}},
		{name: "unknown method", path: "/protos.Pitaya/Nope", body: frameOf(""), want: rawGRPCAnswer{http: 200, status: "12", message: `unknown method "/protos.Pitaya/Nope"`}},
		{name: "no message", want: rawGRPCAnswer{http: 200, status: "13", message: "request without a message"}},
		{name: "cut off", body: frameOf("abc")[:6], want: rawGRPCAnswer{http: 200, status: "13", message: "message cut off after 1 of 3 bytes"}},
		{name: "two messages", body: frameOf("abc") + frameOf("abc"), want: rawGRPCAnswer{http: 200, status: "13", message: "more than one message in a unary call"}},
		{name: "too large", body: "\x00\x00\x40\x00\x01", want: rawGRPCAnswer{http: 200, status: "8", message: "message of 4194305 bytes, over the limit of 4194304"}},
		{name: "compressed", header: http.Header{"Grpc-Encoding": {"gzip"}}, body: "\x01\x00\x00\x00\x00", want: rawGRPCAnswer{http: 200, status: "12", message: `encoding "gzip" is not supported`}},
		{name: "bad timeout", header: http.Header{"Grpc-Timeout": {"soon"}}, body: frameOf(""), want: rawGRPCAnswer{http: 200, status: "13", message: `grpc-timeout "soon"`}},
		{name: "garbage in a push", path: "/protos.Pitaya/PushToUser", body: frameOf("\xff\xff"), want: rawGRPCAnswer{http: 200, status: "13"}},
		{name: "garbage in a kick", path: "/protos.Pitaya/KickUser", body: frameOf("\x0a\x7f"), want: rawGRPCAnswer{http: 200, status: "13"}},
		{name: "garbage in a bind", path: "/protos.Pitaya/SessionBindRemote", body: frameOf("\x0b"), want: rawGRPCAnswer{http: 200, status: "13"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := call
			if tt.path != "" {
				path = tt.path
			}
			got := rawGRPCRequest(t, to, path, tt.header, tt.body)
			if tt.want.message == "" {
				got.message = ""
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
	t.Run("GET", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addrOf(to)+call, nil)
		res, err := http2Client(t).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Error(res.Status)
		}
	})
	if _, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, ""); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestGRPCServerGarbage opens connections that are not HTTP/2, or stop being it.
func TestGRPCServerGarbage(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
		// Enough for those who are to be served, on a busy machine too.
		pitaya.SetGRPCTimes(tr, time.Second, time.Second, time.Second)
	})
	settings := string([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	tests := []struct{ name, in string }{
		{"nothing", ""},
		{"HTTP/1", "POST /protos.Pitaya/Call HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{"zeros", strings.Repeat("\x00", 1000)},
		{"part of the preface", http2.ClientPreface[:10]},
		{"preface, nothing else", http2.ClientPreface},
		{"preface and garbage", http2.ClientPreface + strings.Repeat("\xff", 100)},
		{"settings and part of a frame", http2.ClientPreface + settings + "\x00\x00\x10\x01\x04\x00\x00\x00\x01"},
		{"settings and a huge frame", http2.ClientPreface + settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01"},
		{"settings and data on no stream", http2.ClientPreface + settings + "\x00\x00\x01\x00\x00\x00\x00\x00\x01x"},
		{"settings and bad HPACK", http2.ClientPreface + settings + "\x00\x00\x02\x01\x05\x00\x00\x00\x01\xff\xff"},
	}
	t.Run("bytes", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addrOf(to))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := io.WriteString(c, tt.in); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(realTime))
				// The server closes, whatever it says before. A reset is as good as the end.
				if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
					t.Error("the connection stays open")
				}
			})
		}
	})
	t.Run("trickling message", func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		go io.WriteString(w, frameOf("abc")[:6])
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addrOf(to)+"/protos.Pitaya/Call", r)
		req.Header.Set("Content-Type", "application/grpc")
		res, err := http2Client(t).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Grpc-Status"); got != "4" {
			t.Errorf("status %s: %s", got, res.Header.Get("Grpc-Message"))
		}
	})
	t.Run("TLS client", func(t *testing.T) {
		c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", addrOf(to))
		if err == nil {
			c.Close()
			t.Error("there is no encryption")
		}
	})
	if _, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, ""); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// TestGRPCClientAnswers lets servers answer wrongly.
func TestGRPCClientAnswers(t *testing.T) {
	t.Parallel()
	grpcType := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/grpc") }
	trailer := func(w http.ResponseWriter, status, message string) {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
		if message != "" {
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
		}
	}
	tests := []struct {
		name  string
		serve func(w http.ResponseWriter)
		want  string // in the error
		is    error
	}{
		{name: "no trailers", serve: func(w http.ResponseWriter) { grpcType(w); io.WriteString(w, frameOf("abc")) }, want: "without a status"},
		{name: "nothing", serve: func(w http.ResponseWriter) { grpcType(w) }, want: "without a status"},
		{name: "no message", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "0", "") }, want: "without a message"},
		{name: "cut off", serve: func(w http.ResponseWriter) {
			grpcType(w)
			io.WriteString(w, frameOf("abc")[:6])
			trailer(w, "0", "")
		}, want: "cut off"},
		{name: "two messages", serve: func(w http.ResponseWriter) {
			grpcType(w)
			io.WriteString(w, frameOf("abc")+frameOf("abc"))
			trailer(w, "0", "")
		}, want: "more than one"},
		{name: "too large", serve: func(w http.ResponseWriter) {
			grpcType(w)
			io.WriteString(w, "\x00\x00\x40\x00\x01")
			trailer(w, "0", "")
		}, want: "ResourceExhausted"},
		{name: "compressed", serve: func(w http.ResponseWriter) {
			grpcType(w)
			w.Header().Set("Grpc-Encoding", "gzip")
			io.WriteString(w, "\x01\x00\x00\x00\x00")
			trailer(w, "0", "")
		}, want: "Unimplemented"},
		{name: "status in trailers", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "2", "no%20way %C3%BC") }, want: "Unknown: no way ü"},
		{name: "status in headers", serve: func(w http.ResponseWriter) {
			grpcType(w)
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "who")
		}, want: "NotFound: who"},
		{name: "status unknown to us", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "4000000000", "") }, want: "code 4000000000"},
		{name: "status that is none", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "abc", "") }, want: `status "abc"`},
		{name: "deadline", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "4", "late") }, want: "late", is: pitaya.ErrNoAnswer},
		{name: "unavailable", serve: func(w http.ResponseWriter) { grpcType(w); trailer(w, "14", "busy") }, want: "busy", is: pitaya.ErrNoAnswer},
		{name: "HTML", serve: func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); io.WriteString(w, "<p>") }, want: "text/html"},
		{name: "HTTP 404", serve: func(w http.ResponseWriter) { w.WriteHeader(404) }, want: "404"},
		{name: "HTTP 503", serve: func(w http.ResponseWriter) { w.WriteHeader(503) }, want: "503", is: pitaya.ErrNoAnswer},
		{name: "aborted", serve: func(w http.ResponseWriter) {
			http.NewResponseController(w).SetWriteDeadline(time.Unix(0, 0))
		}, is: pitaya.ErrNoAnswer},
		{name: "aborted in the message", serve: func(w http.ResponseWriter) {
			grpcType(w)
			io.WriteString(w, frameOf("abc")[:6])
			http.NewResponseController(w).Flush()
			http.NewResponseController(w).SetWriteDeadline(time.Unix(0, 0))
		}, is: pitaya.ErrNoAnswer},
	}
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := rawGRPCServer(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				tt.serve(w) // also to the health check at the beginning of the connection: any answer will do
			})
			to.ID = fmt.Sprint("raw-", i)
			got, err := doCall(t.Context(), tr, to, "abc")
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%q, %v, want %q, %v", got, err, tt.want, tt.is)
			}
			if tt.is == nil && (errors.Is(err, pitaya.ErrNoAnswer) || errors.Is(err, pitaya.ErrUnreachable)) {
				t.Errorf("%v is of a kind", err)
			}
		})
	}
}

// A framePeer is a server that speaks in frames.
type framePeer struct {
	*http2.Framer
	conn   net.Conn
	health map[uint32]bool // streams of health checks
}

// frameServer accepts connections and lets serve have each, with its number, in a goroutine of its own, after the
// preface and the settings of both sides.
func frameServer(t testing.TB, serve func(n int, p *framePeer)) *pitaya.ServerInfo {
	t.Helper()
	return rawListener(t, func(n int, c net.Conn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		p := &framePeer{Framer: http2.NewFramer(c, c), conn: c, health: make(map[uint32]bool)}
		p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if p.WriteSettings() == nil {
			serve(n, p)
		}
	})
}

// rawListener accepts connections and lets serve have each, with its number, in a goroutine of its own.
func rawListener(t testing.TB, serve func(n int, c net.Conn)) *pitaya.ServerInfo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done := make(chan struct{})
			defer func() { c.Close(); <-done }()
			go func() {
				defer close(done)
				defer c.Close()
				serve(n, c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return grpcServerAt("raw-1", "127.0.0.1", port)
}

// request reads frames until a request is complete and returns its stream, 0 at the end of the connection. It answers
// health checks by itself.
func (p *framePeer) request() uint32 {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				p.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				p.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if f.PseudoValue("path") == "/grpc.health.v1.Health/Check" {
				p.health[f.StreamID] = true
			}
		case *http2.DataFrame:
			if f.StreamEnded() && p.health[f.StreamID] {
				p.answer(f.StreamID, "")
			} else if f.StreamEnded() {
				return f.StreamID
			}
		}
	}
}

// mute answers the health check at the beginning of the connection, and nothing from then on.
func (p *framePeer) mute() {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == 1 && d.StreamEnded() {
			p.answer(1, "")
		}
	}
}

// answer sends a message with the status OK.
func (p *framePeer) answer(stream uint32, message string) {
	block := func(fields ...string) []byte {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for i := 0; i < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return b.Bytes()
	}
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
	p.WriteData(stream, false, []byte(frameOf(message)))
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block("grpc-status", "0"), EndHeaders: true, EndStream: true})
}

// TestGRPCRetry refuses requests in ways that say that nothing was done with them. They are sent again.
func TestGRPCRetry(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		refuse func(p *framePeer, stream uint32)
	}{
		{"GOAWAY before the stream", func(p *framePeer, stream uint32) { p.WriteGoAway(stream-2, http2.ErrCodeNo, nil) }},
		{"REFUSED_STREAM", func(p *framePeer, stream uint32) { p.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int64
			to := frameServer(t, func(_ int, p *framePeer) {
				for {
					stream := p.request()
					switch {
					case stream == 0:
						return
					case requests.Add(1) == 2:
						tt.refuse(p, stream)
					default:
						p.answer(stream, "well")
					}
				}
			})
			tr := grpcCaller(t, pitaya.GRPCConfig{})
			tr.ServerSeen(to)
			for range 2 {
				if got, err := doCall(t.Context(), tr, to, ""); got != "well" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			}
			if n := requests.Load(); n != 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("for ever", func(t *testing.T) {
		to := frameServer(t, func(_ int, p *framePeer) {
			for stream := p.request(); stream != 0; stream = p.request() {
				p.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
			}
		})
		if _, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, ""); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Error(err)
		}
	})
}

// TestGRPCLost ends the connection after a request has been received: nobody knows whether it was handled, so it is not
// sent again.
func TestGRPCLost(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	to := frameServer(t, func(_ int, p *framePeer) {
		if p.request() != 0 {
			requests.Add(1)
		}
	})
	if _, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, ""); !errors.Is(err, pitaya.ErrNoAnswer) {
		t.Error(err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestGRPCNotHTTP2 calls servers of another kind, and one that takes connections only.
func TestGRPCNotHTTP2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, says string }{
		{"nothing", ""},
		{"HTTP/1", "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"},
		{"garbage", strings.Repeat("\xff", 100)},
		{"hangs", "\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var conns atomic.Int64
			to := rawListener(t, func(_ int, c net.Conn) {
				conns.Add(1)
				io.WriteString(c, tt.says)
				if tt.name == "hangs" {
					io.Copy(io.Discard, c)
				}
			})
			tr := grpcCaller(t, pitaya.GRPCConfig{DialTimeout: 50 * time.Millisecond})
			tr.ServerSeen(to)
			for range 3 {
				if got, err := doCall(t.Context(), tr, to, "abc"); !errors.Is(err, pitaya.ErrUnreachable) {
					t.Errorf("%q, %v", got, err)
				}
			}
			// It is tried again, and less and less often.
			eventually(t, func() bool { return conns.Load() >= 2 })
			if n := conns.Load(); n > 10 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestGRPCProbe calls a server that has stopped to answer, with its connections open. The connection is given up; the
// server has come to its senses at the next one.
func TestGRPCProbe(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		every time.Duration
	}{
		{"after a call that timed out", time.Hour},
		{"after a quiet time", 20 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan struct{})
			to := frameServer(t, func(n int, p *framePeer) {
				if n == 0 {
					p.mute()
					close(ended)
					return
				}
				for stream := p.request(); stream != 0; stream = p.request() {
					p.answer(stream, "well")
				}
			})
			tr, _ := openGRPC(t, "caller", pitaya.GRPCConfig{RequestTimeout: time.Minute}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
				pitaya.SetGRPCProbe(tr, tt.every, 20*time.Millisecond)
			})
			tr.ServerSeen(to)
			if tt.every == time.Hour {
				eventually(t, func() bool { // on a busy machine a call may end before there is a connection
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					_, err := doCall(ctx, tr, to, "")
					return errors.Is(err, pitaya.ErrNoAnswer)
				})
			}
			<-ended
			eventually(t, func() bool {
				got, err := doCall(t.Context(), tr, to, "")
				return got == "well" && err == nil
			})
		})
	}
}

// TestGRPCServerPings checks that a quiet client is asked for a sign of life.
func TestGRPCServerPings(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
		pitaya.SetGRPCTimes(tr, time.Minute, 10*time.Millisecond, time.Minute)
	})
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addrOf(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := frame.(*http2.PingFrame); ok {
			return
		}
	}
}
