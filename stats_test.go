package pitaya_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Stats.QueueBytes is kept, not counted when it is asked for: whatever becomes of what is queued, it must come back to 0.
func TestQueueBytes(t *testing.T) {
	const size = 400 << 10 // more than a connection in memory takes
	for _, kind := range []string{"mem", "memws"} {
		for _, tt := range []struct {
			name string
			slow pitaya.SlowClientPolicy
			end  func(t *testing.T, s *testServer, c *rawClient) // of a client that has not read
		}{
			{name: "read", end: func(t *testing.T, s *testServer, c *rawClient) {
				for range 4 {
					c.message()
				}
			}},
			{name: "closed by the client", end: func(t *testing.T, s *testServer, c *rawClient) { c.Close() }},
			{name: "kicked, and read", end: func(t *testing.T, s *testServer, c *rawClient) {
				must(t, s.onlySession(t).Kick(t.Context()))
				c.packets()
			}},
			{name: "kicked, and not read", end: func(t *testing.T, s *testServer, c *rawClient) {
				must(t, s.onlySession(t).Kick(t.Context()))
				time.Sleep(time.Minute) // WriteTimeout
			}},
			{name: "too slow", end: func(t *testing.T, s *testServer, c *rawClient) {
				session := s.onlySession(t)
				for session.Push(t.Context(), "more", make([]byte, size)) == nil {
				}
				if cause := context.Cause(session.Context()); cause != pitaya.ErrSlowClient {
					t.Errorf("the session's cause is %v", cause)
				}
			}},
			{name: "dropped, and read", slow: pitaya.SlowClientDrop, end: func(t *testing.T, s *testServer, c *rawClient) {
				session, n := s.onlySession(t), 4
				for session.Push(t.Context(), "more", make([]byte, size)) == nil {
					n++
				}
				for range n {
					c.message()
				}
			}},
			{name: "server ends", end: func(t *testing.T, s *testServer, c *rawClient) { s.stop(t) }},
		} {
			t.Run(kind+"/"+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, dial := startOn(t, kind, pitaya.Config{SlowClient: tt.slow, QueueBytes: 4 * size}, nil)
					c := dial()
					c.SetDeadline(time.Time{})
					c.hello()
					synctest.Wait()
					if n := s.Stats().QueueBytes; n != 0 {
						t.Errorf("%d bytes are queued at first", n)
					}
					session := s.onlySession(t)
					for i := range int64(4) {
						must(t, session.Push(t.Context(), "big", make([]byte, size)))
						synctest.Wait()
						if n := s.Stats().QueueBytes; n < (i+1)*size-128<<10 || n > (i+1)*(size+64) {
							t.Errorf("%d bytes are queued of %d pushes", n, i+1)
						}
					}
					tt.end(t, s, c)
					synctest.Wait()
					if n := s.Stats().QueueBytes; n != 0 {
						t.Errorf("%d bytes are queued in the end", n)
					}
				})
			})
		}
	}
}

// It follows what a client takes while there is more, and has the answers that wait.
func TestQueueBytesOfAnswers(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size, answers = 400 << 10, 3
				s, dial := startOn(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.big", func(context.Context, []byte) ([]byte, error) { return make([]byte, size), nil }))
				})
				c := dial().hello()
				for i := range uint64(answers) {
					c.request(i+1, "test.big", "")
				}
				for left := int64(answers); ; left-- {
					synctest.Wait()
					n := s.Stats().QueueBytes
					if n > left*(size+64) || n < left*size-128<<10 {
						t.Errorf("%d bytes are queued of %d answers", n, left)
					}
					if left == 0 {
						return
					}
					c.message()
				}
			})
		})
	}
}
