package pitaya_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestResumeCluster has a backend that goes on with a user whose client is away, and hears of the session's end when it
// has ended.
func TestResumeCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := pitayatest.NewCluster(t)
		var events resumeLog
		release := make(chan struct{})
		var lost atomic.Bool
		room := cluster.NewServer(t, pitaya.Config{Type: "room", ID: "r"}, func(s *pitaya.Server) {
			must(t,
				s.OnSessionEvent(func(e pitaya.SessionEvent) {
					events.add("%d %s %s %s", e.Kind, e.FrontendID, e.UID, e.Reason)
				}),
				pitaya.HandleRaw(s, "h.bind", bindHandler),
				pitaya.HandleRaw(s, "h.play", func(ctx context.Context, b []byte) ([]byte, error) {
					session := pitaya.SessionFromContext(ctx)
					must(t, session.Push(ctx, "p", []byte("before")))
					<-release
					lost.Store(ctx.Err() != nil)
					must(t, session.Set("level", 9), session.PushToFront(ctx), session.Push(ctx, "p", []byte("after")))
					return b, nil
				}),
			)
		})
		cfg := pitaya.Config{Type: "gate", Resume: pitaya.ResumeConfig{Window: 30 * time.Second}}
		cfg.Frontend = true
		cfg.ID = "g1"
		gate := cluster.NewServer(t, cfg, nil)
		cfg.ID = "g2"
		other := cluster.NewServer(t, cfg, nil)
		back := make(chan bool, 10)
		c := gate.ClientWith(t, &pitaya.ClientConfig{Resume: true, OnReconnect: func(resumed bool) { back <- resumed }, Redial: func(ctx context.Context) (net.Conn, error) {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return gate.Listener().DialContext(ctx)
		}})
		c.Request("room.h.bind", []byte("u"), nil)
		session := gate.SessionByUID("u")
		events.want(t, "1 g1 u ")
		playing := async(func() error { return c.Client.Request(t.Context(), "room.h.play", []byte("x"), nil) })
		if b := c.ExpectPush("p"); string(b) != "before" {
			t.Errorf("push %q", b)
		}
		c.Cut()
		if err := <-playing; err == nil || !strings.Contains(err.Error(), pitaya.ErrConnectionLost.Error()) {
			t.Errorf("play: %v", err)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		must(t, room.Push(t.Context(), "gate", []string{"u"}, "p", []byte("from elsewhere")))
		g := room.Group("all")
		must(t, g.Create(t.Context(), 0), g.Add(t.Context(), "u"), g.Broadcast(t.Context(), "gate", "p", []byte("to the group")))
		if !<-back {
			t.Error("a new session")
		}
		for _, want := range []string{"after", "from elsewhere", "to the group"} {
			if b := c.ExpectPush("p"); string(b) != want {
				t.Errorf("push %q, want %q", b, want)
			}
		}
		if v, _ := pitaya.SessionValue[int](session, "level"); v != 9 || lost.Load() || gate.SessionByUID("u") != session {
			t.Errorf("level %d, context of the handler ended: %v", v, lost.Load())
		}
		events.want(t)

		// The user comes by the other frontend, and its session here ends while it waits.
		c.Cut()
		synctest.Wait()
		second := other.ClientWith(t, &pitaya.ClientConfig{Resume: true})
		second.Request("room.h.bind", []byte("u"), nil)
		events.sort()
		events.want(t, "1 g2 u ", "2 g1 u "+pitaya.ErrReplaced.Error())
		if <-back {
			t.Error("the replaced session was resumed")
		}
		c.Close()
		// And goes for good.
		must(t, second.Close())
		events.want(t, "2 g2 u EOF")
		// Another one does not come back.
		third := gate.ClientWith(t, &pitaya.ClientConfig{Resume: true, Redial: func(context.Context) (net.Conn, error) { return nil, errNoNetwork }})
		third.Request("room.h.bind", []byte("v"), nil)
		events.want(t, "1 g1 v ")
		third.Cut()
		time.Sleep(29 * time.Second)
		must(t, room.Push(t.Context(), "gate", []string{"v"}, "p", []byte("lost")))
		events.want(t)
		time.Sleep(2 * time.Second)
		events.want(t, "2 g1 v EOF")
		if err := third.ExpectClosed(); !strings.Contains(fmt.Sprint(err), "not connected again") {
			t.Errorf("%v", err)
		}
	})
}
