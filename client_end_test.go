package pitaya_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

func TestClientHeartbeat(t *testing.T) {
	tests := []struct {
		name      string
		heartbeat string // seconds
		want      time.Duration
	}{
		{"30 s", "30", 30 * time.Second},
		{"fraction", "1.5", 1500 * time.Millisecond},
		{"absurdly short", "1e-300", 10 * time.Millisecond},
		{"absurdly long", "1e300", 365 * 24 * time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, s := dialFake(t, `{"code":200,"sys":{"heartbeat":`+tt.heartbeat+`}}`, nil)
				start := time.Now()
				for i := range 5 {
					if body := s.wantPacket(pitaya.PacketHeartbeat); len(body) > 0 {
						t.Errorf("heartbeat has a body: %x", body)
					}
					if got, want := time.Since(start), time.Duration(i+1)*tt.want; got != want {
						t.Errorf("heartbeat %d after %v, want %v", i+1, got, want)
					}
					s.write(pitaya.PacketHeartbeat, nil)
				}
			})
		})
	}
}

func TestClientServerTimeout(t *testing.T) {
	const never = 0
	day := 24 * time.Hour
	tests := []struct {
		name   string
		answer string
		cfg    *pitaya.ClientConfig
		want   time.Duration // after the last byte from the server
	}{
		{"default", `{"code":200,"sys":{"heartbeat":30}}`, nil, 90 * time.Second},
		{"configured", `{"code":200,"sys":{"heartbeat":30}}`, &pitaya.ClientConfig{ServerTimeout: 7 * time.Second}, 7 * time.Second},
		{"off", `{"code":200,"sys":{"heartbeat":30}}`, &pitaya.ClientConfig{ServerTimeout: -1}, never},
		{"no heartbeats", `{"code":200,"sys":{}}`, nil, never},
		{"negative heartbeats", `{"code":200,"sys":{"heartbeat":-1}}`, nil, never},
		{"no heartbeats, but configured", `{"code":200,"sys":{}}`, &pitaya.ClientConfig{ServerTimeout: time.Hour}, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, tt.answer, tt.cfg)
				go io.Copy(io.Discard, s.conn) // the client's heartbeats
				time.Sleep(5 * time.Second)
				if _, err := s.conn.Write([]byte("\x03\x00")); err != nil { // half a packet is a life sign
					t.Fatal(err)
				}
				last := time.Now()
				select {
				case <-c.Done():
				case <-time.After(day):
				}
				switch took := time.Since(last); {
				case tt.want == never:
					if c.Err() != nil {
						t.Errorf("ended after %v: %v", took, c.Err())
					}
				case took != tt.want || !errors.Is(c.Err(), pitaya.ErrHeartbeat):
					t.Errorf("ended after %v with %v, want %v", took, c.Err(), tt.want)
				}
			})
		})
	}
}

func TestClientKick(t *testing.T) {
	tests := []struct{ name, body, reason, text string }{
		{"reason", `{"reason":"elsewhere"}`, "elsewhere", "pitaya: kicked: elsewhere"},
		{"empty", "", "", "pitaya: kicked"},
		{"other JSON", `[1]`, "", "pitaya: kicked"},
		{"not JSON", "bye", "", "pitaya: kicked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, nil)
				done := async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) })
				s.wantMessage(pitaya.MessageRequest, "room.echo")
				s.write(pitaya.PacketKick, []byte(tt.body))
				if err := <-done; !errors.Is(err, pitaya.ErrKicked) || err.Error() != tt.text {
					t.Errorf("request: got %v", err)
				}
				wantClientEnd(t, c, pitaya.ErrKicked)
				if c.KickReason() != tt.reason {
					t.Errorf("got reason %q, want %q", c.KickReason(), tt.reason)
				}
				s.wantEnd()
			})
		})
	}
}

func TestClientServerMistakes(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"packet type", "\x00\x00\x00\x00", pitaya.ErrPacketType},
		{"packet too large", "\x04\x00\x10\x01", pitaya.ErrPacketTooLarge},
		{"ack", "\x02\x00\x00\x00", pitaya.ErrProtocol},
		{"empty message", "\x04\x00\x00\x00", pitaya.ErrInvalidMessage},
		{"unknown route code", "\x04\x00\x00\x03\x07\x00\x09", pitaya.ErrRouteCode},
		{"request", "\x04\x00\x00\x05\x00\x01\x01ab", pitaya.ErrProtocol},
		{"notify", "\x04\x00\x00\x04\x02\x01ab", pitaya.ErrProtocol},
		{"end inside a header", "\x04\x00", io.ErrUnexpectedEOF},
		{"end inside a body", "\x04\x00\x00\x04\x02\x01", io.ErrUnexpectedEOF},
		{"end", "\x03\x00\x00\x00", io.EOF},
		{"harmless things before the end", "\x01\x00\x00\x02{}\x04\x00\x00\x02\x04\x09\x04\x00\x00\x04\x06\x01ab", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{
					MaxPacketSize: 1 << 12,
					Handshake:     &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Features: []string{}}},
					Logger:        slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
				})
				done := async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) })
				s.wantMessage(pitaya.MessageRequest, "room.echo")
				if _, err := io.WriteString(s.conn, tt.in); err != nil {
					t.Fatal(err)
				}
				s.conn.(interface{ CloseWrite() error }).CloseWrite()
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("request: got %v, want %v", err, tt.want)
				}
				wantClientEnd(t, c, tt.want)
				s.wantEnd()
				if err := c.Notify(t.Context(), "room.echo", nil); !errors.Is(err, tt.want) {
					t.Errorf("notify after the end: got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestClientClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		if c.Err() != nil {
			t.Errorf("open, but with error %v", c.Err())
		}
		var waiting []<-chan error
		for range 3 {
			waiting = append(waiting, async(func() error { return c.Request(t.Context(), "room.echo", nil, nil) }))
			s.wantMessage(pitaya.MessageRequest, "room.echo")
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, done := range waiting {
			if err := <-done; !errors.Is(err, pitaya.ErrSessionClosed) {
				t.Errorf("request: got %v", err)
			}
		}
		wantClientEnd(t, c, pitaya.ErrSessionClosed)
		s.wantEnd()
		if err := c.Request(t.Context(), "room.echo", nil, nil); pitaya.ErrorCode(err) != pitaya.CodeClosed {
			t.Errorf("after the end: got %v", err)
		}
	})
}

// TestClientStalledServer has a server that reads nothing: callers get away when their contexts end, and all of them
// when the write timeout is over.
func TestClientStalledServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := dialFake(t, plainAnswer, &pitaya.ClientConfig{WriteTimeout: 20 * time.Second})
		start := time.Now()
		big := make([]byte, 200<<10)
		blocked := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) }) // writes itself
		synctest.Wait()
		for i := range 2 { // there is room for these behind it
			if err := c.NotifyRaw(t.Context(), "a.b", big); err != nil || time.Since(start) > 0 {
				t.Errorf("notify %d: %v after %v", i, err, time.Since(start))
			}
		}
		patient := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.NotifyRaw(ctx, "a.b", big); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		wantClientEnd(t, c, os.ErrDeadlineExceeded)
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("ended after %v, want 20s", took)
		}
		if err := <-blocked; err != nil { // its bytes were on their way; what became of them Err tells
			t.Errorf("first: %v", err)
		}
		if err := <-patient; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("patient: %v", err)
		}
	})
}

// TestClientCloseFlushes closes while packets are queued behind a write in progress.
func TestClientCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		big := make([]byte, 200<<10)
		first := async(func() error { return c.NotifyRaw(t.Context(), "a.b", big) })
		synctest.Wait()
		if err := c.NotifyRaw(t.Context(), "last.words", nil); err != nil {
			t.Fatal(err)
		}
		closed := async(c.Close)
		synctest.Wait()
		if err := c.NotifyRaw(t.Context(), "a.b", nil); !errors.Is(err, pitaya.ErrSessionClosed) {
			t.Errorf("notify while closing: got %v", err)
		}
		if m := s.wantMessage(pitaya.MessageNotify, "a.b"); len(m.Payload) != len(big) {
			t.Errorf("got %d bytes", len(m.Payload))
		}
		s.wantMessage(pitaya.MessageNotify, "last.words")
		s.wantEnd()
		if err := errors.Join(<-first, <-closed); err != nil {
			t.Error(err)
		}
	})
}
