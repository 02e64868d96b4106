package pitaya_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Handlers are called by goroutines that stay for the next message for a while.
// These tests look at them from outside, in the stacks of the bubble that they
// run in: what other tests have at the same time is not counted.

const (
	// runnersIdle is how many of a shard wait for work at most, and runnersEnd when at the latest those have ended that
	// nobody needs.
	runnersIdle = 4
	runnersEnd  = 2 * time.Second
)

// runnerShards is how many shards a server has: a power of two, one for each processor.
func runnerShards() int {
	n := 1
	for n < runtime.GOMAXPROCS(0) {
		n *= 2
	}
	return n
}

// runnersOf returns the ids of the goroutines of the caller's bubble that handle messages, or wait for some.
func runnersOf(t *testing.T) (ids []string) {
	t.Helper()
	own := make([]byte, 1<<10)
	head, _, _ := strings.Cut(string(own[:runtime.Stack(own, false)]), "\n")
	_, bubble, ok := strings.Cut(head, "synctest bubble ")
	if !ok {
		t.Fatalf("no bubble: %q", head)
	}
	bubble = strings.TrimRight(bubble, "]:")
	all := make([]byte, 1<<20)
	n := runtime.Stack(all, true)
	for n == len(all) {
		all = make([]byte, 2*len(all))
		n = runtime.Stack(all, true)
	}
	for stack := range strings.SplitSeq(string(all[:n]), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if strings.HasSuffix(head, "synctest bubble "+bubble+"]:") && strings.Contains(stack, "(*runners).run(") {
			ids = append(ids, strings.Fields(head)[1])
		}
	}
	slices.Sort(ids)
	return ids
}

// ownGoroutine returns the id of the caller's goroutine.
func ownGoroutine() string {
	b := make([]byte, 64)
	return strings.Fields(string(b[:runtime.Stack(b, false)]))[1]
}

// runnerServer has handlers that wait until release is closed, that say by which goroutine they are called, that need a
// large stack, that panic, and that end their goroutine.
func runnerServer(t *testing.T, release <-chan struct{}) *testServer {
	return startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
		raw := func(route string, f func() string) {
			must(t, pitaya.HandleRaw(s, route, func(context.Context, []byte) ([]byte, error) { return []byte(f()), nil }))
		}
		raw("h.wait", func() string { <-release; return "" })
		raw("h.who", ownGoroutine)
		raw("h.deep", func() string { return fmt.Sprint(ownGoroutine(), " ", deep(10_000)) })
		raw("h.panic", func() string { panic("PANIC TEXT") })
		raw("h.exit", func() string { runtime.Goexit(); return "" })
	})
}

// deep needs a stack of more than a hundred bytes for each n.
func deep(n int) int {
	var room [100]byte
	if n == 0 {
		return int(room[0])
	}
	room[n%len(room)] = 1
	return deep(n-1) + int(room[n%len(room)])
}

// called sends a request and returns the answer.
func (c *rawClient) called(route string) string {
	c.t.Helper()
	c.request(1, route, "")
	return string(c.message().Payload)
}

// TestRunnersExpire: of the goroutines that a burst needs few stay, and those end when nobody has needed them for a time.
func TestRunnersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := runnerServer(t, release)
		// Enough for each shard to have more than it keeps: ids count up, and so each shard has every second or fourth session.
		most := runnersIdle * runnerShards()
		var clients []*rawClient
		for range 2 * most {
			c := s.connect(t)
			c.request(1, "h.wait", "")
			clients = append(clients, c)
		}
		synctest.Wait()
		if n := len(runnersOf(t)); n < len(clients) {
			t.Fatalf("%d goroutines for %d handlers that wait", n, len(clients))
		}
		close(release)
		for _, c := range clients {
			c.message()
		}
		synctest.Wait()
		if n := len(runnersOf(t)); n != most {
			t.Errorf("%d goroutines stay for a while, want %d", n, most)
		}
		time.Sleep(runnersEnd)
		synctest.Wait()
		if ids := runnersOf(t); len(ids) != 0 {
			t.Errorf("goroutines %v are there %v after the last message", ids, runnersEnd)
		}
		// They come back.
		if who := clients[0].called("h.who"); !slices.Contains(runnersOf(t), who) {
			t.Errorf("goroutine %s has answered, but is not among %v", who, runnersOf(t))
		}
	})
}

// TestRunnersNeeded: a goroutine that has work again and again stays, while those beside it end.
func TestRunnersNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := runnerServer(t, release)
		var clients []*rawClient
		for range 2 * runnersIdle * runnerShards() {
			c := s.connect(t)
			c.request(1, "h.wait", "")
			clients = append(clients, c)
		}
		synctest.Wait()
		close(release)
		for _, c := range clients {
			c.message()
		}
		synctest.Wait()
		c := clients[0]
		who := c.called("h.who")
		for begin := time.Now(); time.Since(begin) < 2*runnersEnd; time.Sleep(runnersEnd / 10) {
			if now := c.called("h.who"); now != who {
				t.Fatalf("%v after the burst goroutine %s has answered, before it was %s", time.Since(begin), now, who)
			}
		}
		if ids := runnersOf(t); !slices.Equal(ids, []string{who}) {
			t.Errorf("goroutines %v are there, want %s alone", ids, who)
		}
	})
}

// TestRunnersStack: what has grown its stack takes the next message with it, and is gone with it when its time is over.
func TestRunnersStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := runnerServer(t, nil)
		c := s.connect(t)
		synctest.Wait() // for the goroutine that did the handshake
		first, _, _ := strings.Cut(c.called("h.deep"), " ")
		synctest.Wait()
		if second := c.called("h.who"); second != first {
			t.Errorf("goroutine %s handles what comes after a deep call of goroutine %s", second, first)
		}
		time.Sleep(runnersEnd)
		synctest.Wait()
		if ids := runnersOf(t); len(ids) != 0 {
			t.Errorf("goroutines %v are left, the deep one was %s", ids, first)
		}
	})
}

// TestRunnersPanic: a handler that panics costs its goroutine nothing; one that ends its goroutine costs only that.
func TestRunnersPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := runnerServer(t, nil)
		c := s.connect(t)
		synctest.Wait() // for the goroutine that did the handshake
		who := c.called("h.who")
		for range 2 * runnersIdle {
			synctest.Wait()
			if answer := c.called("h.panic"); !strings.Contains(answer, pitaya.CodeInternal) {
				t.Errorf("a panic is answered with %s", answer)
			}
		}
		synctest.Wait()
		if now := c.called("h.who"); now != who {
			t.Errorf("goroutine %s handles what comes after panics in goroutine %s", now, who)
		}

		synctest.Wait()
		c.request(2, "h.exit", "")
		c.expectClosed()
		c.Close()
		synctest.Wait()
		if ids := runnersOf(t); slices.Contains(ids, who) {
			t.Errorf("goroutine %s has ended itself, and is among %v", who, ids)
		}
		if now := s.connect(t).called("h.who"); now == who {
			t.Errorf("goroutine %s answers after its end", now)
		}
		// The count of those that are alive is right: the server would hang here, or panic.
		s.stop(t)
		if ids := runnersOf(t); len(ids) != 0 {
			t.Errorf("goroutines %v are there after Run has returned", ids)
		}
	})
}

// TestRunnersStop: none waits for its time to be over when the server ends.
func TestRunnersStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		close(release)
		s := runnerServer(t, release)
		for range runnersIdle {
			c := s.connect(t)
			c.called("h.wait")
			c.Close()
		}
		synctest.Wait()
		if len(runnersOf(t)) == 0 {
			t.Fatal("nobody waits for work")
		}
		begin := time.Now()
		s.stop(t)
		if ids := runnersOf(t); len(ids) != 0 || time.Since(begin) != 0 {
			t.Errorf("%v after the end was asked for goroutines %v are there", time.Since(begin), ids)
		}
	})
}
