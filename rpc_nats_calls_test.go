//go:build !nocluster

package pitaya_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// TestNATSCallsDeadlines: whatever is added, answered and cancelled, each call ends once, and one that nobody ends does
// so at its deadline and not before.
func TestNATSCallsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := pitaya.NewCallTable()
		defer table.Close(errors.New("closed"))
		type call struct {
			token  uint64
			due    time.Time
			cancel context.CancelFunc
			ends   int
		}
		var calls []*call
		for range 2000 {
			time.Sleep(rand.N(10 * time.Millisecond)) // of the bubble
			switch k := rand.IntN(10); {
			case k < 5 || len(calls) == 0:
				limit := rand.N(time.Second) + time.Nanosecond
				c := &call{due: time.Now().Add(limit)}
				ctx, cancel := context.WithCancel(context.Background())
				if k == 0 { // the context's own deadline goes before
					c.due = time.Now().Add(limit / 2)
					ctx, cancel = context.WithDeadline(context.Background(), c.due)
				}
				c.cancel = cancel
				token, err := table.Add(ctx, limit, func(err error) {
					c.ends++
					if errors.Is(err, pitaya.ErrNoAnswer) && !time.Now().Equal(c.due) {
						t.Errorf("ended %v after its deadline", time.Since(c.due))
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				c.token = token
				calls = append(calls, c)
			case k < 9:
				c := calls[rand.IntN(len(calls))]
				synctest.Wait()
				ended := c.ends
				if got := table.Answer(c.token); got != (ended == 0) {
					t.Errorf("call that ended %d times: answered: %v", ended, got)
				}
			default:
				calls[rand.IntN(len(calls))].cancel()
			}
			if _, err := table.Waiting(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, c := range calls {
			if c.ends != 1 {
				t.Fatalf("a call ended %d times", c.ends)
			}
			c.cancel()
		}
		if n, err := table.Waiting(); n != 0 || err != nil {
			t.Errorf("%d calls left, %v", n, err)
		}
	})
}

func TestNATSCallsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := pitaya.NewCallTable()
		lost, closed := errors.New("lost"), errors.New("closed")
		var got []error
		add := func() {
			if _, err := table.Add(t.Context(), time.Minute, func(err error) { got = append(got, err) }); err != nil {
				t.Fatal(err)
			}
		}
		add()
		add()
		table.FailAll(lost)
		synctest.Wait()
		add()
		table.Close(closed) // returns when all have been told
		for i, want := range []error{lost, lost, closed} {
			if i >= len(got) || got[i] != want {
				t.Fatalf("got %v", got)
			}
		}
		if _, err := table.Add(t.Context(), time.Minute, nil); err != closed {
			t.Errorf("added after the end: %v", err)
		}
	})
}
