package pitaya_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// BenchmarkSessionsComeAndGo lets sessions come and go: each connects in memory, binds a user of its own, joins a group,
// keeps some data, is pushed to, and ends, by itself, by a kick, or in the midst of a request; of those that can be resumed
// half come back once. Then nothing may be left of them. For a million:
//
//	go test -run '^$' -bench SessionsComeAndGo -benchtime 1000000x .
func BenchmarkSessionsComeAndGo(b *testing.B) {
	for _, resume := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "resumable"}[resume], func(b *testing.B) {
			cfg := pitaya.Config{Logger: slog.New(slog.DiscardHandler)}
			if resume {
				cfg.Resume = pitaya.ResumeConfig{Window: time.Second}
			}
			s := startServer(b, cfg, func(s *pitaya.Server) {
				must(b,
					pitaya.HandleRaw(s, "c.join", func(ctx context.Context, uid []byte) ([]byte, error) {
						session := pitaya.SessionFromContext(ctx)
						if err := session.Bind(ctx, string(uid)); err != nil {
							return nil, err
						}
						session.Set("key", string(uid))
						if err := s.Group(churnGroup(uid)).Add(ctx, string(uid)); err != nil {
							return nil, err
						}
						return uid, session.Push(ctx, "on.join", uid)
					}),
					pitaya.HandleRaw(s, "c.slow", func(ctx context.Context, in []byte) ([]byte, error) {
						<-ctx.Done() // its session ends
						return nil, ctx.Err()
					}),
					s.OnSessionClose(func(session *pitaya.Session) {
						uid := session.UID()
						if uid == "" {
							return
						}
						if err := s.Group(churnGroup([]byte(uid))).Remove(context.Background(), uid); err != nil {
							b.Error(err)
						}
					}))
			})
			for i := range 100 {
				must(b, s.Group(churnGroup(fmt.Appendf(nil, "%02d", i))).Create(b.Context(), 0))
			}
			var count atomic.Int64
			run := func(n int64) {
				var workers sync.WaitGroup
				end := count.Load() + n
				for range 8 {
					workers.Go(func() {
						for i := count.Add(1); i <= end; i = count.Add(1) {
							churn(b, s, i, resume)
						}
					})
				}
				workers.Wait()
				count.Store(end)
				for s.SessionCount() > 0 || s.Stats().Sessions > 0 {
					runtime.Gosched() // until the windows are over
				}
			}
			run(churnWarmUp)
			before, goroutines := memoryInUse()
			b.ResetTimer()
			run(int64(b.N))
			b.StopTimer()
			after, more := memoryInUse()
			if b.N >= 1000 {
				b.ReportMetric(float64(after-before)/float64(b.N), "B-left/session")
				b.ReportMetric(float64(more-goroutines), "goroutines-left")
			}
			if left := after - before; left > 4<<20+int64(b.N) {
				b.Errorf("%d bytes are left of %d sessions", left, b.N)
			}
			if more > goroutines+8 { // runners may rest
				b.Errorf("%d goroutines, %d before", more, goroutines)
			}
		})
	}
}

// churnGroup is the group of a user.
func churnGroup(uid []byte) string { return "g" + string(uid[max(len(uid)-2, 0):]) }

// churn is the life of session number i.
func churn(b *testing.B, s *testServer, i int64, resume bool) {
	nc, err := s.Mem.DialContext(b.Context())
	if err != nil {
		b.Error(err)
		return
	}
	c := &rawClient{Conn: nc, t: b}
	uid := fmt.Sprintf("%08d", i)
	var token string
	if resume {
		token = c.askResume(`{}`).Token
		c.ack()
	} else {
		c.handshake(`{"sys":{}}`)
	}
	c.request(1, "c.join", uid)
	push, answer := c.message(), c.message()
	if push.Type != pitaya.MessagePush || string(answer.Payload) != uid || answer.Err {
		b.Errorf("%s: %+v, %+v", uid, push, answer)
	}
	switch i % 4 {
	case 0: // it ends by itself
	case 1:
		if err := s.SessionByUID(uid).Kick(b.Context()); err != nil {
			b.Error(err)
		}
		c.expect(pitaya.PacketKick)
	case 2:
		c.request(2, "c.slow", "")
	case 3:
		if !resume {
			break
		}
		c.Close()
		nc, err := s.Mem.DialContext(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		c = &rawClient{Conn: nc, t: b}
		if r := c.askResume(fmt.Sprintf(`{"token":%q,"received":1}`, token)); r.Token == "" {
			b.Errorf("%s does not come back: %+v", uid, r)
		}
		c.ack()
	}
	if resume && i%8 < 4 { // the others are waited for
		c.send(pitaya.PacketKick, nil)
	}
	c.Close()
}

// churnWarmUp is how many sessions come before the first look: pools and maps have grown then to what they stay at, the
// maps of sessions that wait for their clients too.
const churnWarmUp = 60_000
