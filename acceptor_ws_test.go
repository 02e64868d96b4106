package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/net/websocket"

	"github.com/pitaya-go/pitaya"
)

// wsRequest is the request of RFC 6455 section 1.3, and wsSwitching its answer.
const (
	wsRequest = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n" +
		"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Version: 13\r\n\r\n"
	wsSwitching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// wsServer is a listener on connections in memory, and dial gives one: the raw client's end, and the accepted one
// whose upgrade is to come.
func wsServer(t testing.TB, o *pitaya.WSOptions) (dial func() (net.Conn, handshaker), l *pitaya.WSListener) {
	t.Helper()
	mem := pitaya.ListenMem()
	l, err := pitaya.NewWSListener(mem, o)
	if err != nil {
		t.Fatal(err)
	}
	return func() (net.Conn, handshaker) {
		t.Helper()
		client, err := mem.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, c.(handshaker)
	}, l
}

// muxServer has the listener behind a net/http server instead.
func muxServer(t testing.TB, o *pitaya.WSOptions) (dial func() net.Conn, l *pitaya.WSListener, stop func()) {
	t.Helper()
	l, err := pitaya.ListenWS("", o)
	if err != nil {
		t.Fatal(err)
	}
	mem := pitaya.ListenMem()
	mux := http.NewServeMux()
	mux.Handle("/", l)
	srv := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(mem) })
	return func() net.Conn {
			t.Helper()
			c, err := mem.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return c
		}, l, func() {
			l.Close()
			srv.Close()
			wg.Wait()
		}
}

func TestWSRefusals(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(wsRequest, old) {
			panic(old)
		}
		return strings.Replace(wsRequest, old, new, 1)
	}
	options := &pitaya.WSOptions{Path: "/chat", Origins: []string{"http://example.com"}, MaxHeaderBytes: 2048}
	tests := []struct {
		name, request string
		status        int
		header        map[string]string
		ours          bool // net/http in front of us answers it in its own way
	}{
		{name: "plain request", request: "GET /chat HTTP/1.1\r\nHost: a\r\n\r\n", status: 400},
		{name: "plain request of HTTP/1.0", request: "GET /chat HTTP/1.0\r\n\r\n", status: 400},
		{name: "HTTP/1.0", request: replace("HTTP/1.1", "HTTP/1.0"), status: 400},
		{name: "HTTP/2.0", request: replace("HTTP/1.1", "HTTP/2.0"), status: 505, ours: true},
		{name: "HTTP/2 preface", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 505, ours: true},
		{name: "POST", request: replace("GET", "POST"), status: 405, header: map[string]string{"Allow": "GET"}},
		{name: "HEAD", request: replace("GET", "HEAD"), status: 405, header: map[string]string{"Allow": "GET"}},
		{name: "other path", request: replace("/chat", "/other"), status: 404},
		{name: "no Host", request: replace("Host: server.example.com\r\n", ""), status: 400, ours: true},
		{name: "no Upgrade", request: replace("Upgrade: websocket\r\n", ""), status: 400},
		{name: "other Upgrade", request: replace("Upgrade: websocket", "Upgrade: h2c"), status: 400},
		{name: "no Connection", request: replace("Connection: Upgrade\r\n", ""), status: 400},
		{name: "other Connection", request: replace("Connection: Upgrade", "Connection: keep-alive"), status: 400},
		{name: "no version", request: replace("Sec-WebSocket-Version: 13\r\n", ""), status: 426,
			header: map[string]string{"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}},
		{name: "version 8", request: replace("Version: 13", "Version: 8"), status: 426, header: map[string]string{"Sec-WebSocket-Version": "13"}},
		{name: "two versions", request: replace("Version: 13", "Version: 13, 8"), status: 426, header: map[string]string{"Sec-WebSocket-Version": "13"}},
		{name: "version in two lines", request: replace("Origin:", "Sec-WebSocket-Version: 13\r\nOrigin:"), status: 426, header: map[string]string{"Sec-WebSocket-Version": "13"}},
		{name: "no key", request: replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), status: 400},
		{name: "two keys", request: replace("Origin:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin:"), status: 400},
		{name: "short key", request: replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), status: 400},
		{name: "long key", request: replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWFi"), status: 400},
		{name: "key not base64", request: replace("dGhlIHNhbXBsZSBub25jZQ==", "!GhlIHNhbXBsZSBub25jZQ=="), status: 400},
		{name: "body", request: replace("Origin:", "Content-Length: 5\r\nOrigin:") + "hello", status: 400},
		{name: "chunked body", request: replace("Origin:", "Transfer-Encoding: chunked\r\nOrigin:") + "0\r\n\r\n", status: 400},
		{name: "other origin", request: replace("http://example.com", "http://evil.example"), status: 403},
		{name: "null origin", request: replace("http://example.com", "null"), status: 403},
		{name: "two origins", request: replace("Origin:", "Origin: http://example.com\r\nOrigin:"), status: 403},
		{name: "large header", request: replace("Origin:", "X: "+strings.Repeat("x", 3000)+"\r\nOrigin:"), status: 431, ours: true},
		{name: "long line without end", request: "GET /" + strings.Repeat("x", 300_000), status: 431, ours: true},
		{name: "malformed request line", request: "GET\r\n\r\n", status: 400, ours: true},
		{name: "malformed header", request: "GET /chat HTTP/1.1\r\nHost a\r\n\r\n", status: 400, ours: true},
		{name: "TLS hello", request: "\x16\x03\x01", status: 400, ours: true},
		{name: "packet", request: "\x01\x00\x00\x02{}", status: 400, ours: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := func(conn net.Conn) {
					t.Helper()
					br := bufio.NewReader(conn)
					method, _, _ := strings.Cut(tt.request, " ")
					a, err := http.ReadResponse(br, &http.Request{Method: method})
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(a.Body)
					if a.StatusCode != tt.status || err != nil {
						t.Errorf("answer %s %q, %v, want %d", a.Status, body, err, tt.status)
					}
					for k, v := range tt.header {
						if got := a.Header.Get(k); got != v {
							t.Errorf("%s: %q, want %q", k, got, v)
						}
					}
					if !a.Close {
						t.Error("the answer does not announce the end")
					}
				}
				start := time.Now()
				dial, l := wsServer(t, options)
				defer l.Close()
				client, c := dial()
				var wg sync.WaitGroup
				wg.Go(func() { io.WriteString(client, tt.request) })
				wg.Go(func() {
					defer client.Close()
					check(client)
				})
				err := c.HandshakeContext(t.Context())
				if !errors.Is(err, pitaya.ErrProtocol) || !strings.Contains(err.Error(), fmt.Sprint(tt.status)) {
					t.Errorf("handshake: %v, want status %d", err, tt.status)
				}
				wg.Wait()
				if _, again := c.Write([]byte("x")); again != err {
					t.Errorf("then Write: %v", again)
				}
				c.Close()
				if d := time.Since(start); d != 0 {
					t.Errorf("it took %v", d)
				}

				if tt.ours {
					return
				}
				dialMux, _, stop := muxServer(t, options)
				defer stop()
				client = dialMux()
				defer client.Close()
				wg.Go(func() { io.WriteString(client, tt.request) })
				check(client)
				wg.Wait()
			})
		})
	}
}

func TestWSUpgrade(t *testing.T) {
	withFrame := wsRequest + string(wsFrame(fin|pitaya.WSBinary, "first")) + string(wsFrame(fin|pitaya.WSText, "second"))
	for _, mode := range []string{"listener", "handler"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var client net.Conn
				var c net.Conn
				var wg sync.WaitGroup
				if mode == "listener" {
					dial, l := wsServer(t, nil)
					defer l.Close()
					client, c = dial()
					io.WriteString(client, withFrame)
				} else {
					dial, l, stop := muxServer(t, nil)
					defer stop()
					client = dial()
					io.WriteString(client, withFrame)
					var err error
					if c, err = l.Accept(); err != nil {
						t.Fatal(err)
					}
				}
				defer client.Close()
				got := make([]byte, 20)
				if n, err := io.ReadFull(c, got[:11]); string(got[:n]) != "firstsecond" || err != nil {
					t.Errorf("read %q, %v", got[:n], err)
				}
				if n, err := c.Write([]byte("answer")); n != 6 || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
				c.Close()
				all, err := io.ReadAll(client)
				if want := wsSwitching + "\x82\x06answer" + "\x88\x02\x03\xe8"; string(all) != want || err != nil {
					t.Errorf("the client got %q, %v, want %q", all, err, want)
				}
				wg.Wait()
			})
		})
	}
}

// The request may arrive in two pieces cut anywhere, the second with frames behind it.
func TestWSUpgradeCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		defer l.Close()
		stream := wsRequest + string(wsFrame(fin|pitaya.WSBinary, "payload"))
		for cut := range len(stream) + 1 {
			client, c := dial()
			var wg sync.WaitGroup
			wg.Go(func() {
				io.WriteString(client, stream[:cut])
				synctest.Wait()
				io.WriteString(client, stream[cut:])
			})
			got := make([]byte, 7)
			if _, err := io.ReadFull(c, got); string(got) != "payload" || err != nil {
				t.Fatalf("cut at %d: read %q, %v", cut, got, err)
			}
			wg.Wait()
			c.Close()
			client.Close()
		}
		// And end anywhere.
		for cut := range len(wsRequest) {
			client, c := dial()
			io.WriteString(client, wsRequest[:cut])
			client.(interface{ CloseWrite() error }).CloseWrite()
			if err := c.HandshakeContext(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("ended at %d: %v", cut, err)
			}
			client.Close()
		}
	})
}

func TestWSOrigin(t *testing.T) {
	tests := []struct {
		name, origin string // origin "-": no header
		o            pitaya.WSOptions
		want         bool
	}{
		{"default", "https://any.example", pitaya.WSOptions{}, true},
		{"star", "https://any.example", pitaya.WSOptions{Origins: []string{"https://a.example", "*"}}, true},
		{"listed", "https://A.example", pitaya.WSOptions{Origins: []string{"https://b.example", "https://a.Example"}}, true},
		{"other scheme", "http://a.example", pitaya.WSOptions{Origins: []string{"https://a.example"}}, false},
		{"longer", "https://a.example.evil", pitaya.WSOptions{Origins: []string{"https://a.example"}}, false},
		{"no browser", "-", pitaya.WSOptions{Origins: []string{"https://a.example"}}, true},
		{"function", "https://a.example", pitaya.WSOptions{Origins: []string{"https://a.example"}, CheckOrigin: func(*http.Request) bool { return false }}, false},
		{"function without origin", "-", pitaya.WSOptions{CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") != "" }}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, l := wsServer(t, &tt.o)
				defer l.Close()
				client, c := dial()
				defer c.Close()
				defer client.Close()
				line := "Origin: " + tt.origin + "\r\n"
				if tt.origin == "-" {
					line = ""
				}
				io.WriteString(client, strings.Replace(wsRequest, "Origin: http://example.com\r\n", line, 1))
				if err := c.HandshakeContext(t.Context()); (err == nil) != tt.want {
					t.Errorf("handshake: %v", err)
				}
			})
		})
	}
}

func TestWSForwardedFor(t *testing.T) {
	tests := []struct {
		name, header string
		hops         int
		want         string // "": the socket's
	}{
		{"ignored", "X-Forwarded-For: 1.1.1.1", 0, ""},
		{"one proxy", "X-Forwarded-For: 1.1.1.1", 1, "1.1.1.1:0"},
		{"one proxy and a claim", "X-Forwarded-For: 6.6.6.6, 1.1.1.1", 1, "1.1.1.1:0"},
		{"two proxies", "X-Forwarded-For: 6.6.6.6,1.1.1.1 , 2.2.2.2", 2, "1.1.1.1:0"},
		{"two lines", "X-Forwarded-For: 6.6.6.6, 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2", 2, "1.1.1.1:0"},
		{"too few", "X-Forwarded-For: 1.1.1.1", 2, ""},
		{"none", "X-Other: 1.1.1.1", 1, ""},
		{"empty", "X-Forwarded-For:", 1, ""},
		{"no address", "X-Forwarded-For: 1.1.1.1, unknown", 1, ""},
		{"port", "X-Forwarded-For: 1.1.1.1:99", 1, "1.1.1.1:99"},
		{"IPv6", "X-Forwarded-For: 2001:db8::1", 1, "[2001:db8::1]:0"},
		{"IPv6 in brackets", "X-Forwarded-For: [2001:db8::1]", 1, "[2001:db8::1]:0"},
		{"IPv6 with port", "X-Forwarded-For: [2001:db8::1]:99", 1, "[2001:db8::1]:99"},
		{"IPv4 in IPv6", "X-Forwarded-For: ::ffff:1.1.1.1", 1, "1.1.1.1:0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				request := strings.Replace(wsRequest, "Origin:", tt.header+"\r\nOrigin:", 1)
				o := &pitaya.WSOptions{TrustedProxyHops: tt.hops}
				verify := func(c net.Conn) {
					t.Helper()
					if err := c.(handshaker).HandshakeContext(t.Context()); err != nil {
						t.Fatal(err)
					}
					want := tt.want
					if want == "" {
						want = c.(interface{ NetConn() net.Conn }).NetConn().RemoteAddr().String()
					}
					if got := c.RemoteAddr().String(); got != want {
						t.Errorf("address %s, want %s", got, want)
					}
				}
				dial, l := wsServer(t, o)
				defer l.Close()
				client, c := dial()
				defer c.Close()
				defer client.Close()
				io.WriteString(client, request)
				verify(c)

				dialMux, l2, stop := muxServer(t, o)
				defer stop()
				client2 := dialMux()
				defer client2.Close()
				io.WriteString(client2, request)
				c2, err := l2.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer c2.Close()
				verify(c2)
			})
		})
	}
}

// upgraded returns a raw client whose upgrade has been answered, and the server's end.
func upgraded(t testing.TB, dial func() (net.Conn, handshaker)) (net.Conn, net.Conn) {
	t.Helper()
	client, c := dial()
	io.WriteString(client, wsRequest)
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, len(wsSwitching))); err != nil {
		t.Fatal(err)
	}
	return client, c
}

// What the server sends in return, and how reading ends.
func TestWSConversations(t *testing.T) {
	ping := func(s string) string { return string(wsFrame(fin|pitaya.WSPing, s)) }
	closing := func(s string) string { return string(wsFrame(fin|pitaya.WSClose, s)) }
	tests := []struct {
		name, input, data, output string
		err                       error // nil: io.EOF
		limit                     int64
	}{
		{name: "ping", input: ping("p") + closing(""), output: "\x8a\x01p\x88\x00"},
		{name: "ping within a message", input: string(wsFrame(pitaya.WSBinary, "a")) + ping("p") + string(wsFrame(fin, "b")) + closing("\x03\xe9"),
			data: "ab", output: "\x8a\x01p\x88\x02\x03\xe9"},
		{name: "pong", input: string(wsFrame(fin|pitaya.WSPong, "p")) + closing("\x03\xe8bye"), output: "\x88\x02\x03\xe8"},
		{name: "data and ping after close", input: closing("\x0f\xa0") + ping("p") + string(wsFrame(fin|pitaya.WSBinary, "a")), output: "\x88\x02\x0f\xa0"},
		{name: "no close frame", input: string(wsFrame(fin|pitaya.WSBinary, "a")), data: "a", output: "\x88\x02\x03\xe8"},
		{name: "end within a frame", input: string(wsFrame(fin|pitaya.WSBinary, "abc")[:8]), data: "ab", err: io.ErrUnexpectedEOF, output: "\x88\x02\x03\xe8"},
		{name: "end within a message", input: string(wsFrame(pitaya.WSBinary, "abc")), data: "abc", err: io.ErrUnexpectedEOF, output: "\x88\x02\x03\xe8"},
		{name: "end within a header", input: "\x82", err: io.ErrUnexpectedEOF, output: "\x88\x02\x03\xe8"},
		{name: "unmasked", input: "\x82\x01a", err: pitaya.ErrProtocol, output: "\x88\x02\x03\xea"},
		{name: "reserved bit", input: "\xc2", err: pitaya.ErrProtocol, output: "\x88\x02\x03\xea"},
		{name: "half a close code", input: closing("\x03"), err: pitaya.ErrProtocol, output: "\x88\x02\x03\xea"},
		{name: "not UTF-8", input: string(wsFrame(fin|pitaya.WSText, "\xff")), err: pitaya.ErrProtocol, output: "\x88\x02\x03\xef"},
		{name: "too large", limit: 3, input: string(wsFrame(fin|pitaya.WSBinary, "abc")) + string(wsFrame(fin|pitaya.WSBinary, "abcd")),
			data: "abc", err: pitaya.ErrProtocol, output: "\x88\x02\x03\xf1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, l := wsServer(t, &pitaya.WSOptions{ReadLimit: tt.limit})
				defer l.Close()
				client, c := upgraded(t, dial)
				io.WriteString(client, tt.input)
				client.(interface{ CloseWrite() error }).CloseWrite()
				data, err := io.ReadAll(c)
				if string(data) != tt.data || !errors.Is(err, tt.err) {
					t.Errorf("read %q, %v, want %q, %v", data, err, tt.data, tt.err)
				}
				if err := c.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				if got, err := io.ReadAll(client); string(got) != tt.output || err != nil {
					t.Errorf("the server sent %q, %v, want %q", got, err, tt.output)
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("write after the end")
				}
				client.Close()
			})
		})
	}
}

// A write that a deadline cuts within a frame does not spoil the stream.
func TestWSWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		defer l.Close()
		client, c := upgraded(t, dial)
		defer client.Close()
		big := bytes.Repeat([]byte("b"), 100_000)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := c.Write(big); n != len(big) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("cut write: %d, %v", n, err)
		}
		if n, err := c.Write([]byte("refused")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write behind it: %d, %v", n, err)
		}
		c.SetWriteDeadline(time.Time{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := c.Write([]byte("next")); n != 4 || err != nil {
				t.Errorf("next write: %d, %v", n, err)
			}
			c.Close()
		})
		got, err := io.ReadAll(client)
		wg.Wait()
		d := decodeWS(pitaya.NewWSReader(true, 0), got, nil)
		if err != nil || d.err != nil || string(d.data) != string(big)+"next" || !slices.Equal(d.control, []string{"8:\x03\xe8"}) {
			t.Errorf("got %d bytes, %q, %v, %v", len(d.data), d.control, d.err, err)
		}
	})
}

// Close does not wait for a peer that has stopped reading, neither behind a write nor for its own frame.
func TestWSCloseBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		defer l.Close()
		client, c := upgraded(t, dial)
		defer client.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Write(make([]byte, 100_000)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		c.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("close behind a write took %v", d)
		}
		wg.Wait()

		client2, c2 := upgraded(t, dial)
		defer client2.Close()
		c2.Write(make([]byte, 64<<10-4)) // with its header all that fits
		start = time.Now()
		c2.Close()
		if d := time.Since(start); d > time.Second {
			t.Errorf("close with a full buffer took %v", d)
		}
	})
}

func TestWSSilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, &pitaya.WSOptions{HandshakeTimeout: 3 * time.Second})
		defer l.Close()
		start := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			client, c := dial()
			io.WriteString(client, "GET / HTT")
			defer client.Close()
			wg.Go(func() {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		synctest.Wait()
		client, c := upgraded(t, dial)
		if d := time.Since(start); d != 0 {
			t.Errorf("the next client waited %v", d)
		}
		c.Close()
		client.Close()
		wg.Wait()

		client, c = dial()
		defer client.Close()
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := c.(handshaker).HandshakeContext(ctx); !errors.Is(err, cause) {
			t.Errorf("handshake: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection is not closed: %v", err)
		}
	})
}

// A client that does not take its refusal and goes away costs half a second, not more.
func TestWSLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		defer l.Close()
		client, c := dial()
		defer client.Close()
		io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		start := time.Now()
		if err := c.HandshakeContext(t.Context()); err == nil || time.Since(start) != 500*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWSListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		client, c := dial()
		established, e := upgraded(t, dial)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept: %v", err)
			}
		})
		synctest.Wait()
		l.Close()
		l.Close()
		wg.Wait()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		// What was not upgraded is refused, what was goes on.
		io.WriteString(client, wsRequest)
		if err := c.HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("handshake: %v", err)
		}
		if a, err := http.ReadResponse(bufio.NewReader(client), nil); err != nil || a.StatusCode != 503 {
			t.Errorf("answer %v, %v", a, err)
		}
		client.Close()
		if _, err := e.Write([]byte("x")); err != nil {
			t.Errorf("established connection: %v", err)
		}
		e.Close()
		established.Close()
	})
}

func TestWSHandlerUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l, stop := muxServer(t, nil)
		defer stop()
		ask := func() (status int, took time.Duration) {
			client := dial()
			defer client.Close()
			start := time.Now()
			io.WriteString(client, wsRequest)
			a, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatal(err)
			}
			return a.StatusCode, time.Since(start)
		}
		if status, took := ask(); status != 503 || took != 10*time.Second {
			t.Errorf("nobody accepts: status %d after %v", status, took)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if status, took := ask(); status != 503 || took != 0 {
				t.Errorf("closed meanwhile: status %d after %v", status, took)
			}
		})
		synctest.Wait()
		l.Close()
		wg.Wait()
		if status, took := ask(); status != 503 || took != 0 {
			t.Errorf("closed before: status %d after %v", status, took)
		}
		if a := l.Addr(); a.Network() != "ws" || a.String() != "handler" {
			t.Errorf("address %v", a)
		}
	})
}

// A second implementation talks to the listener, over sockets.
func TestWSForeignClient(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	serverTLS.NextProtos = []string{"h2"}
	clientTLS.NextProtos = []string{"h2", "http/1.1"}
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			o := &pitaya.WSOptions{Path: "/game"}
			if scheme == "wss" {
				o.TLS = serverTLS
			}
			l, err := pitaya.ListenWS("127.0.0.1:0", o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.Copy(c, c)
			})
			config, err := websocket.NewConfig(scheme+"://"+l.Addr().String()+"/game", "https://any.example")
			if err != nil {
				t.Fatal(err)
			}
			config.TlsConfig = clientTLS
			config.Protocol = []string{"chat", "superchat"}
			ws, err := config.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			if len(config.Protocol) != 2 { // it would be replaced by what was selected
				t.Error("a subprotocol was selected")
			}
			var want, got []byte
			for _, size := range []int{1, 125, 126, 65535, 65536, 200_000} {
				message := bytes.Repeat([]byte("m"), size)
				want = append(want, message...)
				if err := websocket.Message.Send(ws, string(message)); err != nil { // text
					t.Fatal(err)
				}
				if err := websocket.Message.Send(ws, message); err != nil { // binary
					t.Fatal(err)
				}
				want = append(want, message...)
				for len(got) < len(want) {
					var part []byte
					if err := websocket.Message.Receive(ws, &part); err != nil {
						t.Fatal(err)
					}
					got = append(got, part...)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back, want %d", len(got), len(want))
			}
		})
	}
}

func TestWSListenErrors(t *testing.T) {
	if l, err := pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: &tls.Config{}}); err == nil {
		l.Close()
		t.Error("no certificate is no error")
	}
	l, err := pitaya.ListenWS("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l, err := pitaya.ListenWS(l.Addr().String(), nil); err == nil {
		l.Close()
		t.Error("a taken port is no error")
	}
}

// PROXY header, TLS and upgrade on one connection, all of them waiting for the peer in the connection's goroutine.
func TestWSAboveTLSAboveProxy(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		l, err := pitaya.NewWSListener(pitaya.NewProxyListener(mem, pitaya.ProxyOptions{}), &pitaya.WSOptions{TLS: serverTLS})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw, err := mem.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept() // nothing has been sent
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			io.WriteString(raw, "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n")
			config := clientTLS.Clone()
			config.Time = func() time.Time { return time.Now().AddDate(100, 0, 0) } // the bubble's clock is behind
			config.InsecureSkipVerify = true
			u, _ := url.Parse("wss://127.0.0.1/")
			client, err := pitaya.DialWS(t.Context(), tls.Client(raw, config), u, nil)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(client, "payload")
			client.Close()
		})
		got, err := io.ReadAll(c)
		if string(got) != "payload" || err != nil || c.RemoteAddr().String() != "1.2.3.4:1111" {
			t.Errorf("%s sent %q, %v", c.RemoteAddr(), got, err)
		}
		c.Close()
		wg.Wait()
	})
}

// Every subtest of nettest applies over a connection that stays usable after a write timeout, as the one in memory is.
// Over TLS those that go on after one do not: crypto/tls says that its state is corrupt then.
func TestWSConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		mem := pitaya.ListenMem()
		l, err := pitaya.NewWSListener(mem, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		raw, err := mem.DialContext(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		var wg sync.WaitGroup
		var serverErr error
		wg.Go(func() { serverErr = c2.(handshaker).HandshakeContext(context.Background()) })
		u, _ := url.Parse("ws://mem/")
		c1, err = pitaya.DialWS(context.Background(), raw, u, nil)
		wg.Wait()
		if err == nil {
			err = serverErr
		}
		return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, err
	})
}

func TestDialWS(t *testing.T) {
	const good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n"
	tests := []struct {
		name, answer string
		want         string // part of the error, "": none
	}{
		{"good", good + "\r\n\x82\x02hi", ""},
		{"offered subprotocol", good + "Sec-WebSocket-Protocol: chat\r\n\r\n\x82\x02hi", ""},
		{"early hints", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + good + "\r\n\x82\x02hi", ""},
		{"other subprotocol", good + "Sec-WebSocket-Protocol: other\r\n\r\n", "subprotocol"},
		{"extension", good + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extension"},
		{"status", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403 Forbidden"},
		{"no Upgrade", strings.Replace(good, "Upgrade: WebSocket\r\n", "", 1) + "\r\n", "something else"},
		{"no Connection", strings.Replace(good, "Connection: keep-alive, Upgrade\r\n", "", 1) + "\r\n", "something else"},
		{"wrong accept", strings.Replace(good, "ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 1) + "\r\n", "not to our request"},
		{"no accept", strings.Replace(good, "Sec-WebSocket-Accept: ACCEPT\r\n", "", 1) + "\r\n", "not to our request"},
		{"large header", good + "X: " + strings.Repeat("x", 9000) + "\r\n\r\n", "too large"},
		{"not HTTP", "\x01\x00\x00\x02{}\r\n\r\n", "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := pitaya.ListenMem()
				defer mem.Close()
				client, server := memPair(t, mem)
				var wg sync.WaitGroup
				var request *http.Request
				wg.Go(func() {
					r, err := http.ReadRequest(bufio.NewReader(server))
					if err != nil {
						t.Error(err)
						return
					}
					request = r
					accept := pitaya.WSAcceptKey(r.Header.Get("Sec-WebSocket-Key"))
					io.WriteString(server, strings.Replace(tt.answer, "ACCEPT", accept, 1))
				})
				u, err := url.Parse("ws://game.example.com:8080/a%20b?q=1")
				if err != nil {
					t.Fatal(err)
				}
				header := http.Header{"Sec-Websocket-Protocol": {"chat"}, "Authorization": {"secret"}, "Connection": {"close"}}
				c, err := pitaya.DialWS(t.Context(), client, u, header)
				wg.Wait()
				if tt.want != "" {
					if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, pitaya.ErrProtocol) {
						t.Errorf("error %v, want %q", err, tt.want)
					}
					if _, err := io.ReadAll(server); err != nil {
						t.Errorf("the connection was not closed: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 2)
				if _, err := io.ReadFull(c, b); string(b) != "hi" || err != nil {
					t.Errorf("read %q, %v", b, err)
				}
				if request.Host != u.Host || request.RequestURI != "/a%20b?q=1" || request.Header.Get("Authorization") != "secret" ||
					len(request.Header["Connection"]) != 1 || request.Header.Get("Connection") != "Upgrade" || request.Header["User-Agent"] != nil {
					t.Errorf("request %s %s %v", request.Host, request.RequestURI, request.Header)
				}
				if got := header.Get("Connection"); got != "close" {
					t.Errorf("the caller's header was changed: %q", got)
				}
			})
		})
	}
}

func TestDialWSContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		defer mem.Close()
		client, server := memPair(t, mem)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := pitaya.DialWS(ctx, client, &url.URL{Scheme: "ws", Host: "mem"}, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		io.Copy(io.Discard, server)
	})
}

func TestWSConnSize(t *testing.T) {
	if pitaya.WSConnSize > 176 {
		t.Errorf("an idle connection keeps %d bytes", pitaya.WSConnSize)
	}
}

// scriptConn is a connection whose peer has sent all it will send.
type scriptConn struct {
	net.Conn // nil: what is not below is not called
	in       io.Reader
	out      bytes.Buffer
}

func (c *scriptConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *scriptConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// A request gets one well-formed answer or none, the same one however it arrives, and only a good one is upgraded.
// A vagueListener does not say that it is closed.
type vagueListener struct {
	net.Listener
	closed chan struct{}
}

func (l *vagueListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, errors.New("something is wrong")
}

func (l *vagueListener) Close() error {
	close(l.closed)
	return nil
}

// A server stops to accept on a WebSocket listener that somebody closes, whatever the listener below makes of it.
func TestWSListenerClosedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, nil)
		l, err := pitaya.NewWSListener(&vagueListener{Listener: pitaya.ListenMem(), closed: make(chan struct{})}, nil)
		must(t, err)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		synctest.Wait()
		must(t, l.Close())
		synctest.Wait()
		select {
		case err := <-served:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Serve returned %v", err)
			}
		default:
			t.Error("Serve goes on")
		}
	})
}

func FuzzWSUpgrade(f *testing.F) {
	f.Add([]byte(wsRequest))
	f.Add([]byte(wsRequest + string(wsFrame(fin|pitaya.WSBinary, "first"))))
	f.Add([]byte("POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	for _, tt := range wsUnclear {
		f.Add([]byte(tt.request))
	}
	for _, tt := range wsClear {
		f.Add([]byte(tt.request))
	}
	plain, err := pitaya.NewWSListener(nil, &pitaya.WSOptions{Path: "/chat", Origins: []string{"http://example.com"}, TrustedProxyHops: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		// The target of CONNECT is the one thing that package net/http looks at more closely, for another refusal.
		if own, standard, from, standardFrom := pitaya.WSVerdicts(plain, input); !bytes.HasPrefix(input, []byte("CONNECT ")) &&
			(own != standard || from.String() != standardFrom.String()) {
			t.Errorf("%q is answered %d for %v, and by net/http's reading %d for %v", input, own, from, standard, standardFrom)
		}
		ask := func(in io.Reader) ([]byte, error) {
			conn := &scriptConn{in: in}
			l, err := pitaya.NewWSListener(&oneConn{conn}, &pitaya.WSOptions{TrustedProxyHops: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			err = c.(handshaker).HandshakeContext(context.Background())
			c.RemoteAddr()
			return conn.out.Bytes(), err
		}
		answer, err := ask(bytes.NewReader(input))
		cut, cutErr := ask(iotest.OneByteReader(bytes.NewReader(input)))
		if !bytes.Equal(answer, cut) || (err == nil) != (cutErr == nil) {
			t.Fatalf("whole: %q, %v; cut: %q, %v", answer, err, cut, cutErr)
		}
		if len(answer) == 0 {
			if err == nil {
				t.Error("upgraded without an answer")
			}
			return
		}
		br := bufio.NewReader(bytes.NewReader(answer))
		a, readErr := http.ReadResponse(br, nil)
		if readErr != nil {
			t.Fatalf("answer %q: %v", answer, readErr)
		}
		if _, readErr := io.Copy(io.Discard, a.Body); readErr != nil || br.Buffered() > 0 {
			t.Errorf("answer %q: %v, %d bytes left", answer, readErr, br.Buffered())
		}
		if (a.StatusCode == 101) != (err == nil) {
			t.Errorf("status %d and %v", a.StatusCode, err)
		}
		if err == nil && !bytes.HasPrefix(input, []byte("GET ")) {
			t.Errorf("upgraded %q", input)
		}
	})
}
