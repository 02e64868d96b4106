package pitaya_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pitaya-go/pitaya"
	"golang.org/x/net/websocket"
)

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
