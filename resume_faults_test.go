package pitaya_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/pitaya-go/pitaya"
)

// A session that ends while a validator thinks about its handshake leaves nothing behind: who can make validators slow
// could fill the server's memory otherwise.
func TestResumeEndedInHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var release chan struct{}
		s, dial, _ := startResume(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
			must(t, s.AddHandshakeValidator("slow", func(*pitaya.HandshakeData) error {
				if release != nil {
					<-release
				}
				return nil
			}))
		})
		c := dial()
		session, token := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		for _, ask := range []string{`{}`, back(token, 0)} {
			release = make(chan struct{})
			c := dial()
			c.send(pitaya.PacketHandshake, []byte(`{"sys":{},"user":{"resume":`+ask+`}}`))
			synctest.Wait()
			ended := func() weak.Pointer[pitaya.Session] {
				for id := range int64(10) {
					if other := s.SessionByID(id); other != nil && other != session {
						must(t, other.Kick(t.Context()))
						return weak.Make(other)
					}
				}
				t.Fatal("no session")
				return weak.Pointer[pitaya.Session]{}
			}()
			close(release)
			c.Close()
			time.Sleep(10 * time.Second) // the linger
			synctest.Wait()
			for range 10 {
				runtime.GC()
			}
			if ended.Value() != nil {
				t.Errorf("%s: the session is kept", ask)
			}
		}
		release = nil
		dial().comeBack(token, 0)
		if s.SessionByUID("u") != session {
			t.Error("the session is another one")
		}
	})
}

// What was repeated and taken is no room for more: the budget is that of any client again.
func TestResumeBudgetAfterRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, taken = 500, 250
		s, dial, _ := startResume(t, "mem", pitaya.Config{QueueBytes: 4 << 10}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		big := []byte(strings.Repeat("x", 400))
		for range n {
			must(t, session.Push(t.Context(), "p", big))
		}
		c = dial()
		c.comeBack(token, 0)
		for range taken { // the rest is more than a pipe in memory holds
			c.message()
		}
		synctest.Wait()
		more := 0
		for ; more < 1000 && session.Push(t.Context(), "p", big) == nil; more++ {
		}
		if most := 4 * (4 << 10) / len(big); more == 0 || more > most {
			t.Errorf("%d pushes were queued behind those repeated, want up to %d", more, most)
		}
	})
}

// holdLog is a log that stops whoever writes a record of a text, once.
type holdLog struct {
	slog.Handler
	text             string
	once             sync.Once
	reached, release chan struct{}
}

func (h *holdLog) Enabled(context.Context, slog.Level) bool { return true }

func (h *holdLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.text {
		h.once.Do(func() {
			close(h.reached)
			<-h.release
		})
	}
	return nil
}

// A server that ends while a session gets its new connection does not wait for a client that rests.
func TestResumeShutdownWhileAttaching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := &holdLog{Handler: slog.DiscardHandler, text: "session resumed", reached: make(chan struct{}), release: make(chan struct{})}
		s, dial, _ := startResume(t, "mem", pitaya.Config{Logger: slog.New(hold)}, nil)
		c := dial()
		_, token := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		c = dial()
		if terms := c.askResume(back(token, 0)); !terms.Resumed {
			t.Fatalf("%+v", terms)
		}
		c.ack()
		<-hold.reached
		begin := time.Now()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.stop(t)
		}()
		synctest.Wait()
		close(hold.release)
		c.expectClosed()
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the client was told after %v", d)
		}
		c.Close()
		<-stopped
	})
}
