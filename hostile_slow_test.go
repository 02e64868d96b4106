package pitaya_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// helloConn is a connection on which what was written last is kept and nothing comes back.
type helloConn struct {
	net.Conn
	hello []byte
}

func (c *helloConn) Write(b []byte) (int, error) {
	c.hello = append(c.hello, b...)
	return len(b), nil
}
func (c *helloConn) Read([]byte) (int, error) { return 0, io.EOF }
func (c *helloConn) Close() error             { return nil }

// tlsHello is the first flight of a client of TLS.
func tlsHello(t testing.TB, client *tls.Config) []byte {
	t.Helper()
	c := new(helloConn)
	if err := tls.Client(c, client).Handshake(); err == nil {
		t.Fatal("a handshake with nobody")
	}
	return c.hello
}

// A client that sends its part one byte after the other gets no more time by that: all there is before the first message
// is bounded as a whole, whatever layers it goes through. Meanwhile nobody else waits.
func TestSlowHandshakes(t *testing.T) {
	server, client := testTLS(t)
	long := strings.Repeat("x", 2000)
	slow := string(packet(pitaya.PacketHandshake, `{"sys":{},"user":{"a":"`, long, `"}}`))
	const proxyV1 = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n"
	proxyV2 := v2Signature + "\x21\x11\x08\x00" + strings.Repeat("\x01", 2048) // with a long extension
	tests := []struct {
		name string
		wrap func(net.Listener) net.Listener
		send string
	}{
		{"packet", nil, slow},
		{"heartbeats", nil, strings.Repeat("\x03\x00\x00\x00", 500)},
		{"handshakes again and again", nil, strings.Repeat(string(handshakeOnly), 100)},
		{"tls", func(l net.Listener) net.Listener { return tls.NewListener(l, server) }, string(tlsHello(t, client))},
		{"proxy v1", func(l net.Listener) net.Listener { return pitaya.NewProxyListener(l, pitaya.ProxyOptions{}) }, "PROXY UNKNOWN " + long[:80]},
		{"proxy v1 and packet", func(l net.Listener) net.Listener { return pitaya.NewProxyListener(l, pitaya.ProxyOptions{}) }, proxyV1 + string(packet(pitaya.PacketHandshake, `{"a":"`, long, `"}`))},
		{"proxy v2", func(l net.Listener) net.Listener { return pitaya.NewProxyListener(l, pitaya.ProxyOptions{}) }, proxyV2},
		{"patient proxy", func(l net.Listener) net.Listener {
			return pitaya.NewProxyListener(l, pitaya.ProxyOptions{Timeout: time.Hour})
		}, proxyV2},
		{"upgrade", wsOn(t, nil), changedRequest("Origin:", "X: "+long+"\r\nOrigin:")},
		{"upgrade and packet", wsOn(t, nil), wsRequest + string(wsFrame(fin|pitaya.WSBinary, slow))},
		{"upgrade and pings", wsOn(t, nil), wsRequest + strings.Repeat(string(wsFrame(fin|pitaya.WSPing, "")), 500)},
		{"proxy, tls and upgrade", func(l net.Listener) net.Listener {
			return wsOn(t, server)(pitaya.NewProxyListener(l, pitaya.ProxyOptions{}))
		}, proxyV1 + string(tlsHello(t, client))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := pitaya.ListenMem()
				var l net.Listener = mem
				if tt.wrap != nil {
					l = tt.wrap(mem)
				}
				s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
				})
				begin := time.Now()
				const n = 20
				var wg sync.WaitGroup
				for range n {
					c, err := mem.DialContext(t.Context())
					must(t, err)
					var sender sync.WaitGroup
					sender.Go(func() {
						for i := range len(tt.send) {
							time.Sleep(max(30*time.Millisecond, 12*time.Second/time.Duration(len(tt.send))))
							if _, err := io.WriteString(c, tt.send[i:i+1]); err != nil {
								return
							}
						}
					})
					wg.Go(func() {
						io.Copy(io.Discard, c)
						if d := time.Since(begin); d != 10*time.Second {
							t.Errorf("closed after %v, want 10s", d)
						}
						c.Close()
						sender.Wait()
					})
				}
				time.Sleep(5 * time.Second)
				now := time.Now()
				other := s.connect(t)
				other.request(1, "test.echo", "x")
				if m := other.message(); string(m.Payload) != "x" || time.Since(now) != 0 {
					t.Errorf("another client was answered %q after %v", m.Payload, time.Since(now))
				}
				wg.Wait()
				synctest.Wait()
				if st := s.Stats(); st.Open != 1 || st.Panics != 0 {
					t.Errorf("%d connections are open, %d panics", st.Open, st.Panics)
				}
			})
		})
	}
}

// wsOn puts WebSocket, with TLS or without, on a listener.
func wsOn(t testing.TB, config *tls.Config) func(net.Listener) net.Listener {
	return func(l net.Listener) net.Listener {
		ws, err := pitaya.NewWSListener(l, &pitaya.WSOptions{TLS: config})
		must(t, err)
		return ws
	}
}

// What slow and silent clients hold while they are waited for is little.
func TestSlowHandshakesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		startServer(t, pitaya.Config{Listeners: []net.Listener{wsOn(t, nil)(mem)}}, nil)
		const n = 200
		clients := make([]net.Conn, n)
		request := []byte(withHeader("X: " + strings.Repeat("x", 7000)))
		took := held(func() {
			for i := range clients {
				var err error
				clients[i], err = mem.DialContext(t.Context())
				must(t, err)
				clients[i].Write(request[:len(request)-1])
			}
			synctest.Wait()
		})
		if took > n*64<<10 {
			t.Errorf("each of %d requests without an end holds %d KiB", n, took>>10/n)
		}
		for _, c := range clients {
			c.Close()
		}
	})
}

// What a handshake costs is in proportion to its size, however many keys it has and however deep they are.
func TestHandshakeOfManyKeys(t *testing.T) {
	s := startServer(t, pitaya.Config{}, nil)
	var body bytes.Buffer
	body.WriteString(`{"sys":{},"user":{"k":1`)
	for i := 0; body.Len() < 63<<10; i++ {
		body.WriteString(`,"` + strings.Repeat(string(rune('a'+i%26)), 1+i%3) + string(rune('0'+i%10)) + `":{}`)
	}
	body.WriteString(`}}`)
	deep := `{"sys":{},"user":` + strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9001)
	wide := `{"sys":{"features":[` + strings.Repeat(`"x",`, 15_000) + `"x"]}}`
	for name, handshake := range map[string]string{"keys": body.String(), "depth": deep, "features": wide} {
		const n = 20
		took := allocated(func() {
			for range n {
				c := s.dial(t)
				c.write(packet(pitaya.PacketHandshake, handshake))
				c.next()
				c.Close()
			}
		})
		if most := int64(64 * len(handshake)); took > n*most {
			t.Errorf("%s: a handshake of %d KiB takes %d KiB", name, len(handshake)>>10, took>>10/n)
		}
	}
}
