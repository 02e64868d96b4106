package pitaya_test

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
)

func TestClientPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string // written by handlers only, which run one at a time
		record := func(name string) func([]byte) {
			return func(p []byte) { got = append(got, name+" "+string(p)) }
		}
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{
			OnPush:    map[string]func([]byte){"onPush": record("configured"), "none": nil},
			OnAnyPush: func(route string, p []byte) { record("any " + route)(p) },
		})
		push := func(route, payload string) {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: route, Payload: []byte(payload)})
			synctest.Wait()
		}
		push("onPush", "1")
		push("other", "2")
		c.OnPush("onPush", record("new"))
		push("onPush", "3")
		c.OnPush("onPush", nil)
		push("onPush", "4")
		c.OnAnyPush(nil)
		push("onPush", "5")
		c.OnPush("late", record("late"))
		push("late", "6")
		s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "late", Payload: zlibOf(t, 9, []byte("7")), Compressed: true})
		synctest.Wait()
		want := []string{"configured 1", "any other 2", "new 3", "any onPush 4", "late 6", "late 7"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestClientPushOrder has a handler that makes a request for each push, while more pushes come in than any buffer holds.
func TestClientPushOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000
		c, s := dialFake(t, plainAnswer, nil)
		done := make(chan error, 1)
		next := 0
		c.OnPush("onPush", func(p []byte) {
			if string(p) != fmt.Sprint(next) {
				t.Errorf("got push %s, want %d", p, next)
			}
			next++
			err := c.Request(t.Context(), "room.echo", p, nil)
			if err != nil || next == n {
				done <- err
			}
		})
		for i := range n {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: fmt.Append(nil, i)})
		}
		for range n {
			m := s.wantMessage(pitaya.MessageRequest, "room.echo")
			s.send(pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID})
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestClientPushBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, &pitaya.ClientConfig{MaxPushBacklog: 1000})
		release := make(chan struct{})
		var handled []int
		c.OnPush("onPush", func(p []byte) {
			<-release
			handled = append(handled, len(p))
		})
		push := func(size int) {
			s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: make([]byte, size)})
			synctest.Wait()
		}
		push(5000) // nothing waits: any size is good
		if c.Err() != nil {
			t.Fatalf("one large push: %v", c.Err())
		}
		push(1)
		wantClientEnd(t, c, pitaya.ErrSlowClient)
		close(release)
		synctest.Wait()
		if want := []int{5000}; !slices.Equal(handled, want) {
			t.Errorf("got pushes of %v bytes, want %v", handled, want)
		}
	})
}

func TestClientCloseDropsPushes(t *testing.T) {
	for _, byServer := range []bool{false, true} {
		t.Run(fmt.Sprintf("byServer=%v", byServer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := dialFake(t, plainAnswer, nil)
				release := make(chan struct{})
				handled := 0
				c.OnPush("onPush", func(p []byte) {
					<-release
					handled++
				})
				for range 3 {
					s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush"})
				}
				synctest.Wait()
				want := 1
				if byServer {
					s.conn.Close()
					wantClientEnd(t, c, io.EOF)
					want = 3 // the last words of a server are heard
				} else if err := c.Close(); err != nil {
					t.Error(err)
				}
				close(release)
				synctest.Wait()
				if handled != want {
					t.Errorf("%d pushes handled, want %d", handled, want)
				}
			})
		})
	}
}

func TestClientCloseFromPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := dialFake(t, plainAnswer, nil)
		c.OnPush("onPush", func([]byte) { c.Close() })
		s.send(pitaya.Message{Type: pitaya.MessagePush, Route: "onPush"})
		wantClientEnd(t, c, pitaya.ErrSessionClosed)
		s.wantEnd()
	})
}
