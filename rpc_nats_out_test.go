//go:build !nocluster

package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// natsOutFull is how much may wait to be sent before senders have to.
const natsOutFull = 4 << 20

// slowNATS takes messages when it is told to.
type slowNATS struct {
	pitaya.NATSOut
	takes chan struct{} // a value for each message, or closed for all
	taken []string      // subjects; to be read in a bubble at rest
	bytes int
	wrong []string // messages whose body is not natsFill of their subject
}

// natsFill returns a body of n bytes that are told from those of other subjects.
func natsFill(subject string, n int) []byte { return bytes.Repeat([]byte(subject+" "), n)[:n] }

func newSlowNATS() *slowNATS {
	s := &slowNATS{takes: make(chan struct{}, 1000)}
	s.NATSOut = pitaya.NewNATSOut(func(subject, reply string, token uint64, body []byte) {
		<-s.takes
		s.taken = append(s.taken, subject)
		s.bytes += len(body)
		if !bytes.Equal(body, natsFill(subject, len(body))) || reply != "re "+subject || token != uint64(len(body)) {
			s.wrong = append(s.wrong, subject)
		}
	})
	return s
}

// send queues a message of n bytes.
func (s *slowNATS) send(subject string, n int) error {
	body := natsFill(subject, n)
	err := s.Put(subject, "re "+subject, uint64(n), body)
	clear(body) // it is the caller's again
	return err
}

// wantTaken checks what has been handed on, in order.
func (s *slowNATS) wantTaken(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got, want := fmt.Sprint(s.taken), fmt.Sprint(want); got != want {
		t.Errorf("handed on: %s, want %s", got, want)
	}
	if len(s.wrong) > 0 {
		t.Errorf("with another body, reply or token than they were sent with: %s", s.wrong)
	}
}

// TestNATSOutOrder: each sender's messages are handed on in its order, and nobody's body is another's.
func TestNATSOutOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowNATS()
		close(s.takes)
		const senders, each = 20, 300
		var wg sync.WaitGroup
		for i := range senders {
			wg.Go(func() {
				for k := range each {
					if err := s.send(fmt.Sprint(i, "-", k), (i*k)%100); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s.Close()
		next := make(map[int]int)
		for _, subject := range s.taken {
			var i, k int
			if _, err := fmt.Sscanf(subject, "%d -%d", &i, &k); err != nil {
				if _, err := fmt.Sscanf(subject, "%d-%d", &i, &k); err != nil {
					t.Fatal(subject, err)
				}
			}
			if k != next[i] {
				t.Fatalf("message %d of sender %d is handed on in place of %d", k, i, next[i])
			}
			next[i]++
		}
		if len(s.taken) != senders*each || len(s.wrong) > 0 {
			t.Errorf("%d messages handed on, want %d; wrong: %s", len(s.taken), senders*each, s.wrong)
		}
	})
}

// TestNATSOutMark: a mark tells that all before it was handed on, and not what is behind it.
func TestNATSOutMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowNATS()
		marked := func(mark <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-mark:
				return true
			default:
				return false
			}
		}
		if !marked(s.Mark()) {
			t.Error("nothing waits, and a mark waits for it")
		}
		must(t, s.send("a", 1), s.send("b", 0))
		mark := s.Mark()
		must(t, s.send("c", 1))
		if marked(mark) {
			t.Error("a mark does not wait for what is before it")
		}
		s.takes <- struct{}{}
		if marked(mark) {
			t.Error("a mark waits for one of two messages")
		}
		s.takes <- struct{}{}
		if !marked(mark) {
			t.Error("a mark waits for what is behind it")
		}
		s.wantTaken(t, "a", "b")
		close(s.takes)
		s.wantTaken(t, "a", "b", "c")
		if !marked(s.Mark()) {
			t.Error("a mark waits for what is long gone")
		}
		s.Close()
	})
}

// TestNATSOutFull: who sends more than may wait has to wait, and goes on when there is room.
func TestNATSOutFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowNATS()
		const size = 1 << 20
		must(t, s.send("first", size))
		synctest.Wait() // it is on its way, and does not wait any more
		sent := make(chan error, 20)
		go func() {
			for i := range cap(sent) {
				sent <- s.send(fmt.Sprint("m", i), size)
			}
		}()
		synctest.Wait()
		// The one that goes beyond is let in: a message may be as large as all that may wait.
		if n := len(sent); n != natsOutFull/size+1 {
			t.Errorf("%d messages of %d bytes wait, at most %d bytes may", n, size, natsOutFull)
		}
		time.Sleep(time.Hour)
		s.wantTaken(t)
		close(s.takes)
		for range cap(sent) {
			must(t, <-sent)
		}
		s.Close()
		if want := (1 + cap(sent)) * size; s.bytes != want || len(s.wrong) > 0 {
			t.Errorf("%d bytes handed on, want %d; wrong: %s", s.bytes, want, s.wrong)
		}
	})
}

// TestNATSOutClose: what waits at the end is handed on; who waits for room, and who comes later, is told.
func TestNATSOutClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowNATS()
		must(t, s.send("a", 1))
		synctest.Wait()
		must(t, s.send("b", 1), s.send("c", natsOutFull+1))
		late := make(chan error, 1)
		go func() { late <- s.send("d", 1) }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { defer close(closed); s.Close() }()
		if err := <-late; err == nil {
			t.Error("what waits for room is sent after the end")
		}
		if err := s.send("e", 1); err == nil {
			t.Error("what comes after the end is sent")
		}
		mark := s.Mark()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close does not wait for what is to be handed on")
		case <-mark:
			t.Error("a mark after the end does not wait for what is to be handed on")
		default:
		}
		close(s.takes)
		<-closed
		<-mark
		s.wantTaken(t, "a", "b", "c")
		s.Close() // once more, and with nothing to do
		<-s.Mark()
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSlowNATS()
		s.Close() // of one that was never used
		if err := s.send("a", 1); err == nil {
			t.Error("what comes after the end is sent")
		}
	})
}

// TestNATSQueuedAtDrain: answers that wait to be sent when a server drains have left when Drain returns. The server's
// transport ends at once after that.
func TestNATSQueuedAtDrain(t *testing.T) {
	t.Parallel()
	n := natsNet(t, natsAt(natsQuick, startNATS(t).URL()))
	const calls = 100
	var mu sync.Mutex
	var replies []func([]byte)
	all := make(chan struct{})
	a, b := n.Server("front", nil), n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, _ []byte, reply func([]byte)) {
			mu.Lock()
			defer mu.Unlock()
			if replies = append(replies, reply); len(replies) == calls {
				close(all)
			}
		}
	})
	var results []<-chan transporttest.Result
	for range calls {
		results = append(results, a.Start(t.Context(), b.Self, nil))
	}
	transporttest.Await(t, all)
	answer := bytes.Repeat([]byte("x"), 100<<10)
	for _, reply := range replies {
		reply(answer)
	}
	must(t, b.Drain(t.Context()), b.Close(t.Context()))
	for i, r := range results {
		if r := transporttest.Await(t, r); r.Err != nil || !bytes.Equal(r.Body, answer) {
			t.Fatalf("answer %d of %d: %d bytes, %v", i, calls, len(r.Body), r.Err)
		}
	}
}

// TestNATSQueuedAndLost: calls that wait to be sent while NATS takes nothing, and the connection is then lost, all fail,
// with an error that says what is known of them; and so do those that are made meanwhile.
func TestNATSQueuedAndLost(t *testing.T) {
	t.Parallel()
	server := startNATS(t)
	settings := natsQuick
	settings.RequestTimeout = time.Minute
	n := natsNet(t, natsAt(settings, server.URL()))
	a, b := n.Server("front", nil), n.Server("back", nil)
	server.Pause()
	// More than sockets, nats.go and the queue take together, so that the last of them wait for room.
	body := make([]byte, 512<<10)
	var results []<-chan transporttest.Result
	for range 100 {
		results = append(results, a.Start(t.Context(), b.Self, body))
	}
	server.Kill()
	for i, r := range results {
		r := transporttest.Await(t, r)
		if !errors.Is(r.Err, pitaya.ErrNoAnswer) && !errors.Is(r.Err, pitaya.ErrUnreachable) {
			t.Fatalf("call %d: got %d bytes and %v, want an error of the connection", i, len(r.Body), r.Err)
		}
	}
}
