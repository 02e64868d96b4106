package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
)

// changedRequest is wsRequest with something replaced.
func changedRequest(old, new string) string {
	if !strings.Contains(wsRequest, old) {
		panic(old)
	}
	return strings.Replace(wsRequest, old, new, 1)
}

// withHeader is wsRequest with more lines of header.
func withHeader(lines string) string { return changedRequest("Origin:", lines+"\r\nOrigin:") }

// wsUnclear are requests that a proxy on the way may understand in another way than a server that is lenient.
var wsUnclear = []struct {
	name, request string
	ours          bool // net/http in front of us takes it, or answers it in its own way
}{
	{name: "two hosts", request: withHeader("Host: other.example"), ours: true},
	{name: "host with a space", request: changedRequest("server.example.com", "server.example.com other"), ours: true},
	{name: "host with a path", request: changedRequest("server.example.com", "a/b"), ours: true},
	{name: "host with a user", request: changedRequest("server.example.com", "user@a"), ours: true},
	{name: "host that is no text", request: changedRequest("server.example.com", "a\xff"), ours: true},

	{name: "lines without CR", request: strings.ReplaceAll(wsRequest, "\r\n", "\n"), ours: true},
	{name: "one line without CR", request: changedRequest("Host: server.example.com\r\n", "Host: server.example.com\n"), ours: true},
	{name: "header within a value", request: withHeader("X-A: a\nX-Forwarded-For: 6.6.6.6"), ours: true},
	{name: "CR within a value", request: withHeader("X-A: a\rTransfer-Encoding: chunked"), ours: true},
	{name: "last line without CR", request: strings.TrimSuffix(wsRequest, "\r\n") + "\n", ours: true},
	{name: "CR at the end alone", request: strings.TrimSuffix(wsRequest, "\n") + "X", ours: true},
	{name: "folded value", request: withHeader("X-A: a\r\n b"), ours: true},
	{name: "folded with a tab", request: withHeader("X-A: a\r\n\tUpgrade: websocket"), ours: true},
	{name: "first line folded", request: changedRequest("Host:", " X-A: a\r\nHost:"), ours: true},
	{name: "NUL in a value", request: withHeader("X-A: a\x00b"), ours: true},
	{name: "NUL in a name", request: withHeader("X-\x00: a"), ours: true},
	{name: "NUL in the path", request: changedRequest("/chat", "/chat\x00"), ours: true},
	{name: "escape in a value", request: withHeader("X-A: \x1b[2J"), ours: true},
	{name: "DEL in the path", request: changedRequest("/chat", "/chat\x7f"), ours: true},
	{name: "space before the colon", request: withHeader("Transfer-Encoding : chunked"), ours: true},
	{name: "tab before the colon", request: withHeader("Content-Length\t: 5"), ours: true},
	{name: "space within a name", request: withHeader("Content Length: 5"), ours: true},
	{name: "name in brackets", request: withHeader("(Upgrade): x"), ours: true},
	{name: "no name", request: withHeader(": a"), ours: true},
	{name: "no colon", request: withHeader("Upgrade"), ours: true},

	{name: "two lengths", request: withHeader("Content-Length: 0\r\nContent-Length: 5"), ours: true},
	{name: "list of lengths", request: withHeader("Content-Length: 0, 5"), ours: true},
	{name: "length with a sign", request: withHeader("Content-Length: +0"), ours: true},
	{name: "negative length", request: withHeader("Content-Length: -1"), ours: true},
	{name: "empty length", request: withHeader("Content-Length:"), ours: true},
	{name: "length beyond numbers", request: withHeader("Content-Length: 99999999999999999999"), ours: true},
	{name: "body behind GET", request: withHeader("Content-Length: 5") + "hello"},
	{name: "chunked", request: withHeader("Transfer-Encoding: chunked") + "0\r\n\r\n"},
	{name: "chunked and a length", request: withHeader("Transfer-Encoding: chunked\r\nContent-Length: 0") + "0\r\n\r\n", ours: true},
	{name: "chunked twice", request: withHeader("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), ours: true},
	{name: "unknown encoding", request: withHeader("Transfer-Encoding: xchunked"), ours: true},
	{name: "empty encoding", request: withHeader("Transfer-Encoding:"), ours: true},

	{name: "two spaces before the path", request: changedRequest("GET /", "GET  /"), ours: true},
	{name: "tabs in the request line", request: changedRequest("GET /chat HTTP", "GET\t/chat\tHTTP"), ours: true},
	{name: "space in the path", request: changedRequest("/chat", "/chat /other"), ours: true},
	{name: "fragment", request: changedRequest("/chat", "/chat#/other")},
	{name: "authority in place of the path", request: changedRequest("/chat", "other.example:80"), ours: true},
	{name: "asterisk in place of the path", request: changedRequest("/chat", "*")},
	{name: "version with three digits", request: changedRequest("HTTP/1.1", "HTTP/1.10"), ours: true},
	{name: "empty lines first", request: "\r\n\r\n" + wsRequest, ours: true},

	{name: "two keys", request: withHeader("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")},
	{name: "empty list of subprotocols", request: changedRequest("chat, superchat", " , ,")},
	{name: "subprotocol that is no token", request: changedRequest("chat, superchat", "chat, super chat")},
	{name: "subprotocol with a slash", request: changedRequest("superchat", "a/b")},
	{name: "empty list of extensions", request: changedRequest("permessage-deflate", "")},
	{name: "extension that is no token", request: changedRequest("permessage-deflate", "a, (b)")},
	{name: "extension without a name", request: changedRequest("permessage-deflate", "; a=1")},
	{name: "parameter without a name", request: changedRequest("permessage-deflate", "permessage-deflate; =1")},
	{name: "parameter that is empty", request: changedRequest("permessage-deflate", "permessage-deflate;")},
	{name: "parameter with no value behind =", request: changedRequest("permessage-deflate", "permessage-deflate; a=")},
	{name: "quotes that are not closed", request: changedRequest("permessage-deflate", `permessage-deflate; a="b`)},
	{name: "quotes around no token", request: changedRequest("permessage-deflate", `permessage-deflate; a="b c"`)},
	{name: "quotes around nothing", request: changedRequest("permessage-deflate", `permessage-deflate; a=""`)},
	{name: "quotes closed by an escape", request: changedRequest("permessage-deflate", `permessage-deflate; a="b\"`)},
}

// oneAnswer reads all that a server says to requests, which must be one answer and the end.
func oneAnswer(t testing.TB, from io.Reader) (status int) {
	t.Helper()
	br := bufio.NewReader(from)
	a, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		t.Error(err)
	}
	if more, err := io.ReadAll(br); len(more) > 0 || err != nil {
		t.Errorf("behind the answer: %q, %v", more, err)
	}
	if !a.Close {
		t.Error("the answer does not announce the end")
	}
	return a.StatusCode
}

// A request that is not clear is refused, and what was sent behind it, which may be a good one, is neither answered nor
// taken for frames.
func TestWSRequestUnclear(t *testing.T) {
	for _, tt := range wsUnclear {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &pitaya.WSOptions{TrustedProxyHops: 1}
				dial, l := wsServer(t, o)
				defer l.Close()
				client, c := dial()
				var wg sync.WaitGroup
				wg.Go(func() { io.WriteString(client, tt.request+wsRequest) })
				wg.Go(func() {
					defer client.Close()
					if status := oneAnswer(t, client); status != 400 {
						t.Errorf("status %d, want 400", status)
					}
				})
				if err := c.HandshakeContext(t.Context()); !errors.Is(err, pitaya.ErrProtocol) {
					t.Errorf("handshake: %v", err)
				}
				wg.Wait()
				if tt.ours {
					return
				}
				dialMux, _, stop := muxServer(t, o)
				defer stop()
				client = dialMux()
				defer client.Close()
				wg.Go(func() { io.WriteString(client, tt.request) })
				if status := oneAnswer(t, client); status != 400 {
					t.Errorf("behind net/http: status %d, want 400", status)
				}
				wg.Wait()
			})
		})
	}
}

// wsClear are requests that are unusual, and no two would understand them differently.
var wsClear = []struct{ name, request string }{
	{"URL in place of the path", changedRequest("/chat", "http://server.example.com/chat")},
	{"URL without a path", changedRequest("/chat", "http://server.example.com")},
	{"port", changedRequest("server.example.com", "server.example.com:8080")},
	{"IPv6", changedRequest("server.example.com", "[2001:db8::1]:8080")},
	{"Latin-1 in a value", withHeader("X-A: caf\xe9")},
	{"tab in a value", withHeader("X-A: a\tb")},
	{"empty value", withHeader("X-A:")},
	{"every character of a name", withHeader("!#$%&'*+-.^_`|~09azAZ: a")},
	{"no body", withHeader("Content-Length: 0")},
	{"upgrade to several", changedRequest("Upgrade: websocket", "Upgrade: h2c, WebSocket")},
	{"upgrade in two lines", withHeader("Upgrade: h2c")},
	{"connection with more", changedRequest("Connection: Upgrade", "Connection: keep-alive, UPGRADE")},
	{"later version of HTTP", changedRequest("HTTP/1.1", "HTTP/1.2")},
	{"header names in small letters", strings.ReplaceAll(strings.ReplaceAll(wsRequest, "Sec-WebSocket", "sec-websocket"), "Upgrade:", "upgrade:")},
	{"unknown header", withHeader("Sec-WebSocket-Future: 1")},
	{"no extensions", changedRequest("Sec-WebSocket-Extensions: permessage-deflate\r\n", "")},
	{"no subprotocols", changedRequest("Sec-WebSocket-Protocol: chat, superchat\r\n", "")},
	{"subprotocols in two lines", withHeader("Sec-WebSocket-Protocol: v2.chat")},
	{"extensions in two lines", withHeader("Sec-WebSocket-Extensions: x-webkit-deflate-frame")},
	{"extensions of browsers", changedRequest("permessage-deflate", "permessage-deflate; client_max_window_bits")},
	{"extensions with values", changedRequest("permessage-deflate", `foo;a=1 ; b = "2", , bar;c="\x"`)},
}

// What is unusual and yet clear is upgraded.
func TestWSRequestClear(t *testing.T) {
	for _, tt := range wsClear {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, l := wsServer(t, nil)
				defer l.Close()
				client, c := dial()
				defer client.Close()
				io.WriteString(client, tt.request)
				if err := c.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.Close()
				all, err := io.ReadAll(client)
				if want := wsSwitching + "\x88\x02\x03\xe8"; string(all) != want || err != nil {
					t.Errorf("answered %q, %v", all, err)
				}
			})
		})
	}
}

// Behind an upgrade there are frames, and a second request is none of them.
func TestWSRequestPipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, l := wsServer(t, nil)
		defer l.Close()
		dialMux, l2, stop := muxServer(t, nil)
		defer stop()
		for name, open := range map[string]func() (client, server net.Conn){
			"listener": func() (net.Conn, net.Conn) {
				client, c := dial()
				io.WriteString(client, wsRequest+wsRequest)
				return client, c
			},
			"handler": func() (net.Conn, net.Conn) {
				client := dialMux()
				io.WriteString(client, wsRequest+wsRequest)
				c, err := l2.Accept()
				must(t, err)
				return client, c
			},
		} {
			client, c := open()
			if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, pitaya.ErrProtocol) {
				t.Errorf("%s: read %q, %v", name, b, err)
			}
			c.Close()
			all, err := io.ReadAll(client)
			if want := wsSwitching + "\x88\x02\x03\xea"; string(all) != want || err != nil {
				t.Errorf("%s: answered %q, %v, want %q", name, all, err, want)
			}
			client.Close()
		}
	})
}

// What a request costs in memory is bounded by its size, whatever it is made of.
func TestWSRequestMemory(t *testing.T) {
	var many strings.Builder
	for i := range 8 << 10 {
		fmt.Fprintf(&many, "%x:\r\n", i)
	}
	flood := "GET / HTTP/1.1\r\n" + many.String()[:7<<10]
	requests := map[string]string{
		"names":    flood,
		"values":   "GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", 1200),
		"hosts":    "GET / HTTP/1.1\r\n" + strings.Repeat("Host: b\r\n", 800) + "\r\n",
		"elements": changedRequest("chat, superchat", strings.Repeat("a,", 3500)+"a"),
		"params":   changedRequest("permessage-deflate", "a"+strings.Repeat(";a", 3500)),
		"quotes":   changedRequest("permessage-deflate", `a;a="`+strings.Repeat(`\a`, 3500)+`"`),
		"proxies":  withHeader("X-Forwarded-For: " + strings.Repeat(",", 7000)),
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			const n = 20
			took := allocated(func() {
				for range n {
					conn := &scriptConn{in: strings.NewReader(request)}
					l, err := pitaya.NewWSListener(&oneConn{conn}, &pitaya.WSOptions{TrustedProxyHops: 1})
					must(t, err)
					c, err := l.Accept()
					must(t, err)
					c.(handshaker).HandshakeContext(context.Background())
					l.Close()
				}
			})
			if took > n*512<<10 {
				t.Errorf("a request of %d bytes takes %d KiB", len(request), took>>10/n)
			}
		})
	}
}

// An answer has nothing in it that the client has sent, so nothing that was made up stands in front of a browser as if the
// server had said it.
func TestWSRefusalEchoesNothing(t *testing.T) {
	const mark = "MARK"
	for _, request := range []string{
		changedRequest("/chat", "/"+mark), changedRequest("GET", mark), changedRequest("server.example.com", mark+"/"),
		changedRequest("Upgrade: websocket", "Upgrade: "+mark), changedRequest("Version: 13", "Version: "+mark),
		changedRequest("dGhlIHNhbXBsZSBub25jZQ==", mark), changedRequest("permessage-deflate", "("+mark),
		changedRequest("superchat", mark+" x"), changedRequest("http://example.com", "http://"+mark), withHeader("X: " + mark + "\n" + mark),
	} {
		conn := &scriptConn{in: strings.NewReader(request)}
		l, err := pitaya.NewWSListener(&oneConn{conn}, &pitaya.WSOptions{Path: "/chat", Origins: []string{"http://example.com"}})
		must(t, err)
		c, err := l.Accept()
		must(t, err)
		if err = c.(handshaker).HandshakeContext(t.Context()); err == nil || strings.Contains(err.Error(), mark) {
			t.Errorf("%q: %v", request, err)
		}
		if answer := conn.out.Bytes(); !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) || bytes.Contains(answer, []byte(mark)) {
			t.Errorf("%q is answered %q", request, answer)
		}
		l.Close()
	}
}
