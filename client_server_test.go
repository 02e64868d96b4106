package pitaya_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestClientOnAllTransports runs one conversation of the Go client with a real
// server over every transport.
func TestClientOnAllTransports(t *testing.T) {
	t.Parallel()
	serverTLS, _ := testTLS(t)
	listen := func(l net.Listener, err error) net.Listener {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	tcp := listen(pitaya.ListenTCP("127.0.0.1:0", nil))
	tcps := listen(pitaya.ListenTCP("127.0.0.1:0", serverTLS))
	ws := listen(pitaya.ListenWS("127.0.0.1:0", nil))
	wss := listen(pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: serverTLS}))
	cfg := pitaya.Config{Type: "conn", Listeners: []net.Listener{tcp, tcps, ws, wss}}
	pitayatest.NewServer(t, cfg, func(s *pitaya.Server) {
		s.Register(&Room{}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower))
		pitaya.Handle(s, "room.typed", roomTyped)
		s.SetDictionary(map[string]uint16{"conn.room.echo": 1, "onPush": 2})
	})
	for _, url := range []string{
		"tcp://" + tcp.Addr().String(),
		"tls://" + tcps.Addr().String(),
		"ws://" + ws.Addr().String(),
		"wss://" + wss.Addr().String() + "/any/path?x=1",
	} {
		scheme, _, _ := strings.Cut(url, ":")
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			pushed := make(chan string, 2)
			c, err := pitaya.Dial(ctx, url, &pitaya.ClientConfig{
				TLS:       &tls.Config{InsecureSkipVerify: true}, // made for this test
				OnAnyPush: func(route string, payload []byte) { pushed <- route + " " + string(payload) },
				Compress:  true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			large := strings.Repeat("pitaya ", 10_000)
			for _, text := range []string{"", "hello", large} {
				var reply roomReply
				if err := c.Request(ctx, "room.typed", roomArg{Msg: text}, &reply); err != nil || reply.Msg != text {
					t.Fatalf("got %d bytes, %v, want %d", len(reply.Msg), err, len(text))
				}
			}
			if b, err := c.RequestRaw(ctx, "conn.room.push", []byte("p")); err != nil || string(b) != "ok" {
				t.Fatalf("got %q, %v", b, err)
			}
			for _, want := range []string{"onPush p", "onOther p"} {
				if got := <-pushed; got != want {
					t.Errorf("pushed %q, want %q", got, want)
				}
			}
			_, err = c.RequestRaw(ctx, "room.perr", nil)
			var coded *pitaya.Error
			if !errors.As(err, &coded) || coded.Code != "APP-7" || coded.Message != "denied" || coded.Metadata["k"] != "v" {
				t.Errorf("got %v, want the coded error", err)
			}
			if err := c.Notify(ctx, "room.note", "x"); err != nil {
				t.Error(err)
			}
			if _, err := c.RequestRaw(ctx, "room.kickme", nil); !errors.Is(err, pitaya.ErrKicked) {
				t.Errorf("got %v, want the kick", err)
			}
			<-c.Done()
			if got := c.KickReason(); got != "kicked" {
				t.Errorf("kicked for %q", got)
			}
		})
	}
}
