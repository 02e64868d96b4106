package pitaya_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Rules of RFC 6455 for clients, which the library is in Dial.

// recordConn keeps what is written.
type recordConn struct {
	net.Conn
	mu  sync.Mutex
	out []byte
}

func (c *recordConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// All that our client sends is masked, each frame with a key of its own.
func TestWSFramesOfClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, nil)
		must(t, err)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{ws}, Heartbeat: time.Second}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
		})
		raw, err := mem.DialContext(t.Context())
		must(t, err)
		rec := &recordConn{Conn: raw}
		conn, err := pitaya.DialWS(t.Context(), rec, &url.URL{Scheme: "ws", Host: "mem"}, nil)
		must(t, err)
		rec.mu.Lock()
		start := len(rec.out)
		rec.mu.Unlock()
		c, err := pitaya.NewClient(t.Context(), conn, nil)
		must(t, err)
		for _, size := range []int{0, 1, 100, 110, 111, 112, 113, 114, 125, 126, 65_000, 65_520, 65_525, 65_530, 65_535, 65_536, 100_000} {
			payload := bytes.Repeat([]byte("A"), size)
			if got, err := c.RequestRaw(t.Context(), "test.echo", payload); !bytes.Equal(got, payload) || err != nil {
				t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
			}
		}
		for range 1000 {
			must(t, c.NotifyRaw(t.Context(), "test.echo", []byte("the same each time")))
		}
		time.Sleep(5 * time.Second) // heartbeats
		must(t, c.Close())
		rec.mu.Lock()
		defer rec.mu.Unlock()
		list := rawFrames(t, rec.out[start:])
		checkRawFrames(t, list, true)
		keys := map[uint32]bool{}
		for _, f := range list {
			keys[f.key] = true
		}
		if len(keys) < len(list)-2 { // two of a thousand may be the same by chance
			t.Errorf("%d keys for %d frames", len(keys), len(list))
		}
		if last := list[len(list)-1]; last.op != pitaya.WSClose || last.payload != "\x03\xe8" {
			t.Errorf("the last frame is %+v", last)
		}
		synctest.Wait()
		if n := s.Stats().Open; n != 0 {
			t.Errorf("%d connections are open", n)
		}
	})
}

// wsAnswered is a client whose request was answered, and the server's end of its connection.
func wsAnswered(t testing.TB) (client net.Conn, server net.Conn) {
	t.Helper()
	mem := pitaya.ListenMem()
	t.Cleanup(func() { mem.Close() })
	near, far := memPair(t, mem)
	var wg sync.WaitGroup
	wg.Go(func() {
		head := readHead(t, far)
		_, key, _ := strings.Cut(head, "\r\nSec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		io.WriteString(far, strings.Replace(wsSwitching, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", pitaya.WSAcceptKey(key), 1))
	})
	client, err := pitaya.DialWS(t.Context(), near, &url.URL{Scheme: "ws", Host: "mem"}, nil)
	must(t, err)
	wg.Wait()
	return client, far
}

// readHead reads one header and not a byte more.
func readHead(t testing.TB, from io.Reader) string {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := io.ReadFull(from, b[:]); err != nil {
			t.Errorf("header %q: %v", head, err)
			break
		}
		head = append(head, b[0])
	}
	return string(head)
}

// What a server must not send ends the connection, with the code that says why.
func TestWSClientViolations(t *testing.T) {
	unmasked := func(first byte, payload string) string {
		b := pitaya.AppendWSHeader(nil, 0, len(payload))
		b[0] = first
		return string(b) + payload
	}
	tests := []struct {
		name, input string
		code        string
		err         error
	}{
		{"masked", string(wsFrame(fin|pitaya.WSBinary, "x")), "\x03\xea", pitaya.ErrProtocol},
		{"masked ping", string(wsFrame(fin|pitaya.WSPing, "")), "\x03\xea", pitaya.ErrProtocol},
		{"reserved bit", unmasked(fin|rsv1|pitaya.WSBinary, "x"), "\x03\xea", pitaya.ErrProtocol},
		{"unknown opcode", unmasked(fin|5, "x"), "\x03\xea", pitaya.ErrProtocol},
		{"fragmented ping", unmasked(pitaya.WSPing, ""), "\x03\xea", pitaya.ErrProtocol},
		{"long ping", unmasked(fin|pitaya.WSPing, strings.Repeat("x", 126)), "\x03\xea", pitaya.ErrProtocol},
		{"long length", "\x82\x7e\x00\x01x", "\x03\xea", pitaya.ErrProtocol},
		{"continuation of nothing", unmasked(fin, "x"), "\x03\xea", pitaya.ErrProtocol},
		{"text that is none", unmasked(fin|pitaya.WSText, "\xff"), "\x03\xef", pitaya.ErrProtocol},
		{"close with a code that must not be sent", unmasked(fin|pitaya.WSClose, "\x03\xed"), "\x03\xea", pitaya.ErrProtocol},
		{"close", unmasked(fin|pitaya.WSClose, "\x03\xe9going away"), "\x03\xe9", io.EOF},
		{"close without a code", unmasked(fin|pitaya.WSClose, ""), "", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, far := wsAnswered(t)
				io.WriteString(far, tt.input+unmasked(fin|pitaya.WSBinary, "more"))
				b := make([]byte, 10)
				if n, err := c.Read(b); n != 0 || !errors.Is(err, tt.err) {
					t.Errorf("read %q, %v, want %v", b[:n], err, tt.err)
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("written behind the close frame")
				}
				c.Close()
				all, err := io.ReadAll(far)
				must(t, err)
				list := rawFrames(t, all)
				if len(list) != 1 || list[0].op != pitaya.WSClose || !list[0].masked || list[0].payload != tt.code {
					t.Errorf("answered with %+v, want %q", list, tt.code)
				}
			})
		})
	}
}

// A lost connection is the end of the client, whatever it was doing.
func TestWSClientLost(t *testing.T) {
	for name, cut := range map[string]string{"between messages": "", "within a header": "\x82", "within a message": "\x02\x01x"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, far := wsAnswered(t)
				io.WriteString(far, cut)
				far.Close()
				_, err := io.ReadAll(c)
				if want := cut != ""; errors.Is(err, io.ErrUnexpectedEOF) != want || !want && err != nil {
					t.Errorf("read: %v", err)
				}
				c.Close()
			})
		})
	}
}

// The request, byte for byte, and that nothing follows it until it is answered.
func TestWSClientRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := map[string]bool{}
		for _, tt := range []struct{ url, target, host string }{
			{"ws://game.example.com/a%20b/c?q=%23&r=%00", "/a%20b/c?q=%23&r=%00", "game.example.com"},
			{"ws://game.example.com:8080", "/", "game.example.com:8080"},
			{"wss://user:secret@game.example.com:443/?", "/?", "game.example.com:443"},
			{"ws://[2001:db8::1]:81/x", "/x", "[2001:db8::1]:81"},
		} {
			mem := pitaya.ListenMem()
			near, far := memPair(t, mem)
			u, err := url.Parse(tt.url)
			must(t, err)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := pitaya.DialWS(t.Context(), near, u, map[string][]string{
					"Origin": {"https://page.example"}, "Sec-Websocket-Protocol": {"chat, superchat"}, "X-Split": {"a\r\nX-Evil: b"},
					"Upgrade": {"h2c"}, "Sec-Websocket-Extensions": {"permessage-deflate"}, "Sec-WebSocket-Version": {"8"}, "sec-websocket-key": {"mine"}, "Host": {"evil.example"}, "content-length": {"5"},
				})
				if err == nil {
					t.Error("connected without an answer")
				}
			})
			head := readHead(t, far)
			synctest.Wait()
			far.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := far.Read(make([]byte, 1)); n > 0 {
				t.Errorf("something follows the request: %v", err)
			}
			far.Close()
			wg.Wait()
			mem.Close()
			_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			keys[key] = true
			want := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nOrigin: https://page.example\r\nSec-WebSocket-Key: %s\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-Websocket-Protocol: chat, superchat\r\nUpgrade: websocket\r\nX-Split: a  X-Evil: b\r\n\r\n", tt.target, tt.host, key)
			if head != want || len(key) != 24 {
				t.Errorf("%s:\n%q, want\n%q", tt.url, head, want)
			}
		}
		if len(keys) != 4 {
			t.Errorf("%d keys for 4 connections", len(keys))
		}
	})
}

// Subprotocols that must not be offered are not.
func TestWSClientOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, offered := range [][]string{{""}, {" , "}, {"a b"}, {"a/b"}, {"chat, chat"}, {"chat", "other, chat"}, {"caf\xe9"}} {
			mem := pitaya.ListenMem()
			near, far := memPair(t, mem)
			_, err := pitaya.DialWS(t.Context(), near, &url.URL{Scheme: "ws", Host: "mem"}, map[string][]string{"Sec-Websocket-Protocol": offered})
			if err == nil || !strings.Contains(err.Error(), "subprotocols") {
				t.Errorf("%q: %v", offered, err)
			}
			if sent, err := io.ReadAll(far); len(sent) > 0 || err != nil {
				t.Errorf("%q: sent %q, %v", offered, sent, err)
			}
			mem.Close()
		}
	})
}

// Answers that are nearly right, besides those of TestDialWS.
func TestWSClientAnswers(t *testing.T) {
	const good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n"
	tests := []struct{ name, answer, want string }{
		{"white space around the proof", strings.Replace(good, "ACCEPT", "  ACCEPT  ", 1), ""},
		{"names in small letters", strings.ToLower(good[:strings.Index(good, "ACCEPT")]) + "ACCEPT\r\n", "malformed"}, // http/1.1 is no version
		{"second of the subprotocols", good + "Sec-WebSocket-Protocol: superchat\r\n", ""},
		{"upgrade to several", strings.Replace(good, "Upgrade: websocket", "Upgrade: h2c, websocket", 1), "something else"},
		{"two upgrades", good + "Upgrade: websocket\r\n", "something else"},
		{"proof twice", good + "Sec-WebSocket-Accept: ACCEPT\r\n", "not to our request"},
		{"proof in other letters", strings.Replace(good, "ACCEPT", "accept", 1), "not to our request"},
		{"empty extensions", good + "Sec-WebSocket-Extensions:\r\n", "extension"},
		{"empty subprotocol", good + "Sec-WebSocket-Protocol:\r\n", "subprotocol"},
		{"subprotocol in other letters", good + "Sec-WebSocket-Protocol: CHAT\r\n", "subprotocol"},
		{"two subprotocols", good + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: superchat\r\n", "subprotocol"},
		{"list of subprotocols", good + "Sec-WebSocket-Protocol: chat, superchat\r\n", "subprotocol"},
		{"redirection", "HTTP/1.1 302 Found\r\nLocation: ws://other.example/\r\nContent-Length: 0\r\n", "302 Found"},
		{"login", "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n", "401 Unauthorized"},
		{"success that is no upgrade", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "200 OK"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := pitaya.ListenMem()
				defer mem.Close()
				near, far := memPair(t, mem)
				var wg sync.WaitGroup
				wg.Go(func() {
					_, key, _ := strings.Cut(readHead(t, far), "Sec-WebSocket-Key: ")
					key, _, _ = strings.Cut(key, "\r\n")
					io.WriteString(far, strings.ReplaceAll(tt.answer, "ACCEPT", pitaya.WSAcceptKey(key))+"\r\n")
				})
				c, err := pitaya.DialWS(t.Context(), near, &url.URL{Scheme: "ws", Host: "mem"}, map[string][]string{"Sec-Websocket-Protocol": {"chat, superchat"}})
				wg.Wait()
				switch {
				case tt.want == "" && err != nil:
					t.Error(err)
				case tt.want == "":
					c.Close()
				case err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, pitaya.ErrProtocol):
					t.Errorf("error %v, want %q", err, tt.want)
				default:
					if sent, err := io.ReadAll(far); len(sent) > 0 || err != nil {
						t.Errorf("then it sent %q, %v", sent, err)
					}
				}
			})
		})
	}
}

// The name of the server is in the TLS hello, as RFC 6455 section 4.1 wants it, and HTTP/1.1 is all that is agreed on.
func TestWSClientServerName(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	names := make(chan string, 2)
	serverTLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}
	l, err := pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: serverTLS})
	must(t, err)
	s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, nil)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	// The certificate is for 127.0.0.1 only, so the client fails the connection.
	_, err = pitaya.Dial(t.Context(), "wss://localhost:"+port, &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: clientTLS.RootCAs}})
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("dial with another name: %v", err)
	}
	if name := <-names; name != "localhost" {
		t.Errorf("the server was asked for %q", name)
	}
	c, err := pitaya.Dial(t.Context(), "wss://127.0.0.1:"+port, &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: clientTLS.RootCAs}})
	must(t, err)
	must(t, c.Close())
	if name := <-names; name != "" { // section 3 of RFC 6066: an address is no name
		t.Errorf("the server was asked for %q", name)
	}
	s.stop(t)
}

// A client that connects again waits before it does, for times that grow up to a bound and are not the same for all: RFC
// 6455 section 7.2.3.
func TestClientResumeBackoff(t *testing.T) {
	first := map[time.Duration]bool{}
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			s, _, _ := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{Window: 2 * time.Minute}}, nil)
			var near net.Conn
			var lost time.Time
			var pauses []time.Duration
			c, err := pitaya.NewClient(t.Context(), func() net.Conn {
				var err error
				near, err = s.Mem.DialContext(t.Context())
				must(t, err)
				return near
			}(), &pitaya.ClientConfig{Resume: true, Redial: func(context.Context) (net.Conn, error) {
				pauses = append(pauses, time.Since(lost))
				lost = time.Now()
				return nil, errors.New("nobody there")
			}})
			must(t, err)
			lost = time.Now()
			near.Close()
			<-c.Done()
			least, most := 50*time.Millisecond, 100*time.Millisecond
			for i, pause := range pauses {
				if pause < least || pause >= most {
					t.Errorf("attempt %d after %v, want %v to %v", i, pause, least, most)
				}
				most = min(2*most, 5*time.Second)
				least = most / 2
			}
			if len(pauses) < 20 || len(pauses) > 60 {
				t.Errorf("%d attempts in 2 minutes", len(pauses))
			}
			first[pauses[0]] = true
		})
	}
	if len(first) < 3 {
		t.Errorf("the first pauses are the same: %v", first)
	}
}
