package pitaya_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func e2eOrderCases() []e2eCase {
	return []e2eCase{
		{"order/pipelined", (*e2e).pipelined},
		{"order/slow backend", (*e2e).slowBackend},
		{"order/too many", (*e2e).tooMany},
		{"order/concurrent", (*e2e).concurrent},
		{"order/unordered", (*e2e).unordered},
		{"order/client leaves", (*e2e).clientLeaves},
	}
}

// Messages of one session to one server are handled and answered in their order, also if some of them take long.
func (e *e2e) pipelined() {
	const count = 1000
	var mu sync.Mutex
	handled := make(map[string][]int) // by session
	gate := e.gate("g", func(s *pitaya.Server) {
		e.remote(s, "x", func(_ context.Context, in string) (string, error) { return in, nil })
	})
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			var session string
			var i int
			if _, err := fmt.Sscan(in, &session, &i); err != nil {
				return "", err
			}
			if i%10 == 3 { // slow, by some calls to another server: those behind it would overtake it at once
				for range 5 {
					var out wrapperspb.StringValue
					if err := s.RPC(ctx, "gate.x.Do", &out, nil); err != nil {
						return "", err
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			handled[session] = append(handled[session], i)
			if i%7 == 5 {
				return "", pitaya.Errorf("ODD-1", "%d", i)
			}
			return strconv.Itoa(i), nil
		})
	})
	var wg sync.WaitGroup
	sessions := []string{"a", "b"}
	for _, session := range sessions {
		c := e.pipeline(gate)
		wg.Go(func() {
			for i := range count {
				id := uint64(i + 1)
				if i%5 == 4 {
					id = 0 // a notify among the requests
				}
				m := pitaya.Message{Type: pitaya.MessageRequest, ID: id, Route: "room.h.do", Payload: fmt.Appendf(nil, "%s %d", session, i)}
				if id == 0 {
					m.Type = pitaya.MessageNotify
				}
				b, err := pitaya.AppendMessage(nil, m, nil)
				if err == nil {
					b, err = pitaya.AppendPacket(nil, pitaya.PacketData, b)
				}
				if err == nil {
					_, err = c.Write(b)
				}
				if err != nil {
					e.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			for i := range count {
				if i%5 == 4 {
					continue
				}
				var m pitaya.Message
				p, err := pitaya.ReadPacket(c, 0)
				for err == nil && p.Type == pitaya.PacketHeartbeat {
					p, err = pitaya.ReadPacket(c, 0)
				}
				if err == nil {
					m, err = pitaya.DecodeMessage(p.Body, nil)
				}
				if err != nil {
					e.Error(err)
					return
				}
				if m.ID != uint64(i+1) || m.Err != (i%7 == 5) || !m.Err && string(m.Payload) != strconv.Itoa(i) {
					e.Errorf("%s: answer %d (error %v) %q, want that of %d", session, m.ID, m.Err, m.Payload, i)
					return
				}
			}
		})
	}
	wg.Wait()
	until(e, "all are handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(handled["a"]) == count && len(handled["b"]) == count
	})
	for _, session := range sessions {
		if !slices.IsSorted(handled[session]) {
			e.Errorf("%s: handled in the order %v", session, handled[session])
		}
	}
	if s := e.balanced(gate); s.Requests != 2*count*4/5 || s.Forwards != 2*count {
		e.Errorf("got %+v", s)
	}
}

// A backend that is slow for one session delays nobody else, and not what the session itself asks of others.
func (e *e2e) slowBackend() {
	entered, release := make(chan string, 10), make(chan struct{})
	gate := e.gate("g", func(s *pitaya.Server) {
		e.raw(s, "h.local", func(context.Context, string) (string, error) { return "local", nil })
	})
	for _, typ := range []string{"room", "shop"} {
		e.start(pitaya.Config{Type: typ, ID: typ}, func(s *pitaya.Server) {
			e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
				if in == "slow" {
					entered <- in
					if e.inMemory() {
						<-time.After(2 * time.Second)
					} else {
						<-release
					}
				}
				return in, nil
			})
		})
	}
	a, b := gate.Client(e), gate.Client(e)
	done := make(chan error, 1)
	go func() {
		_, err := a.RequestRaw(e.ctx(), "room.h.do", []byte("slow"))
		done <- err
	}()
	transporttest.Await(e, entered)
	begin := time.Now()
	for range 20 {
		e.ask(a, "gate.h.local", "")
		e.ask(a, "shop.h.do", "")
		e.ask(b, "gate.h.local", "")
		e.ask(b, "room.h.do", "")
	}
	if took := time.Since(begin); e.inMemory() && took != 0 {
		e.Errorf("others waited for %v", took)
	}
	select {
	case err := <-done:
		e.Errorf("the slow one was answered: %v", err)
	default:
	}
	close(release)
	e.noError(transporttest.Await(e, done))
	if took := time.Since(begin); e.inMemory() && took != 2*time.Second {
		e.Errorf("the slow one took %v", took)
	}
}

// A session that has as many messages under way as it may waits; the others do not.
func (e *e2e) tooMany() {
	entered, release := make(chan string, 100), make(chan struct{})
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, RemoteMessages: 4}, func(s *pitaya.Server) {
		e.raw(s, "h.local", func(context.Context, string) (string, error) { return "local", nil })
	})
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			if in != "" {
				entered <- in
				<-release
			}
			return in, nil
		})
	})
	a, b := e.pipeline(gate), gate.Client(e)
	for i := range 6 {
		a.request(uint64(i+1), "room.h.do", strconv.Itoa(i))
	}
	a.request(7, "gate.h.local", "")
	e.want("first", transporttest.Await(e, entered), "0")
	until(e, "four are under way", func() bool { return gate.Stats().Forwards == 4 })
	for range 20 {
		e.ask(b, "gate.h.local", "")
		e.ask(b, "room.h.do", "")
	}
	if s := gate.Stats(); s.Forwards != 24 || s.Answered != 40 {
		e.Errorf("got %+v", s)
	}
	close(release)
	var got []uint64
	for range 7 {
		got = append(got, a.message().ID)
	}
	// Those to one server are in order; the local one overtakes what it need not wait for.
	got = slices.DeleteFunc(got, func(id uint64) bool { return id == 7 })
	if !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
		e.Errorf("answered in the order %v", got)
	}
	e.balanced(gate)
}

// barrier returns a function that returns when it runs n times at once.
func barrier(n int32) func() {
	var count atomic.Int32
	all := make(chan struct{})
	return func() {
		if count.Add(1) == n {
			close(all)
		}
		<-all
	}
}

// Handlers may give up the order of a session's messages.
func (e *e2e) concurrent() {
	meet := barrier(3)
	// Where the transport keeps no order the frontend does, without knowing of the registration.
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Unordered: e.kind == e2eGRPC}, nil)
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.meet", func(context.Context, string) (string, error) { meet(); return "", nil }, pitaya.WithConcurrent())
	})
	c := gate.Client(e)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := c.RequestRaw(e.Context(), "room.h.meet", nil); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
}

// Config.Unordered gives it up for all.
func (e *e2e) unordered() {
	meet := barrier(3)
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Unordered: true}, nil)
	e.start(pitaya.Config{Type: "room", ID: "r", Unordered: true}, func(s *pitaya.Server) {
		e.raw(s, "h.meet", func(context.Context, string) (string, error) { meet(); return "", nil })
	})
	c := gate.Client(e)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := c.RequestRaw(e.Context(), "room.h.meet", nil); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
}

// The client's end ends the context of the handler where the transport can tell; its answer goes nowhere.
func (e *e2e) clientLeaves() {
	events, release := make(chan string, 10), make(chan struct{})
	gate := e.gate("g", nil)
	back := e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.wait", func(ctx context.Context, in string) (string, error) {
			events <- "entered"
			select {
			case <-ctx.Done():
				events <- "cancelled"
			case <-release:
				events <- "released"
			}
			return "answer", nil
		})
	})
	c := gate.Client(e)
	go c.RequestRaw(e.ctx(), "room.h.wait", nil)
	e.want("handler", transporttest.Await(e, events), "entered")
	e.noError(c.Close())
	until(e, "the session has ended", func() bool { return gate.SessionCount() == 0 })
	want := "cancelled"
	if e.kind == e2eNATS {
		want = "released"
		close(release)
	}
	e.want("handler", transporttest.Await(e, events), want)
	if s := e.balanced(gate); s.Requests != 1 || s.Lost != 1 {
		e.Errorf("got %+v", s)
	}
	_ = back
}
