package pitaya_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Users who log in while something that the cluster depends on is away, and each of them on all frontends at the same
// moment: neither can all of these binds be heard by the others, nor may more than one session be left in the end.

// outageGuest is a user who has come during an outage.
type outageGuest struct {
	uid  string
	ends []*outageGuestEnd
}

// outageGuestEnd is one of the connections of a guest.
type outageGuestEnd struct {
	run   *outageRun // the frontend
	c     *pitaya.Client
	bound atomic.Bool
	told  atomic.Int64
}

// bind returns how it went: "bound", or the code of the error.
func (e *outageGuestEnd) bind(ctx context.Context, uid string) string {
	_, err := e.c.RequestRaw(ctx, "gate.OutageRoom.Bind", []byte(uid))
	if err != nil {
		return pitaya.ErrorCode(err)
	}
	e.bound.Store(true)
	return "bound"
}

// live reports whether the connection is bound and has not been ended.
func (e *outageGuestEnd) live() bool { return e.bound.Load() && e.c.Err() == nil }

// login lets users log in.
func (c *outageCluster) login(n int) {
	c.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	results := make(map[string]int)
	for i := range n {
		g := &outageGuest{uid: fmt.Sprint("guest-", i)}
		c.guests = append(c.guests, g)
		for _, run := range c.runs {
			if run.url == "" {
				continue
			}
			e := &outageGuestEnd{run: run}
			var err error
			e.c, err = pitaya.Dial(c.t.Context(), run.url, &pitaya.ClientConfig{
				OnPush: map[string]func([]byte){"onTell": func([]byte) { e.told.Add(1) }},
			})
			if err != nil {
				c.t.Fatal(err)
			}
			c.t.Cleanup(func() { e.c.Close() })
			g.ends = append(g.ends, e)
			wg.Go(func() {
				result := e.bind(c.t.Context(), g.uid)
				mu.Lock()
				defer mu.Unlock()
				results[result]++
			})
		}
	}
	start := time.Now()
	wg.Wait()
	c.t.Logf("%d users log in during the outage, on each frontend: %v, within %v", n, results, time.Since(start).Round(time.Millisecond))
}

// loggedIn waits until each of the users who have come has exactly one session, after those who could not log in have
// tried again, and until what is sent to a user arrives there. Then they leave.
func (c *outageCluster) loggedIn() {
	c.t.Helper()
	ctx := c.t.Context()
	sessions := func(uid string) (frontends []string) {
		for _, r := range c.runs {
			if r.url != "" && r.SessionByUID(uid) != nil {
				frontends = append(frontends, r.Info().ID)
			}
		}
		return frontends
	}
	start := time.Now()
	for _, g := range c.guests {
		var frontend string
		c.poll(g.uid+" has one session", time.Minute, func() bool {
			at := sessions(g.uid)
			if len(at) == 0 { // again, and again at the same moment
				var wg sync.WaitGroup
				for _, e := range g.ends {
					if e.c.Err() == nil {
						wg.Go(func() { e.bind(ctx, g.uid) })
					}
				}
				wg.Wait()
				return false
			}
			live := slices.DeleteFunc(slices.Clone(g.ends), func(e *outageGuestEnd) bool { return !e.live() })
			if len(at) != 1 || len(live) != 1 {
				return false
			}
			frontend = at[0]
			if live[0].run.Info().ID != frontend {
				c.t.Fatalf("%s is bound on %s, and its connection to %s is the one that lives", g.uid, frontend, live[0].run.Info().ID)
			}
			return true
		})
		if c.grpc {
			c.poll("the binding of "+g.uid+" is that of its session", time.Minute, func() bool {
				got, err := c.admin.Get(ctx, "pitaya/bindings/gate/"+g.uid)
				return err == nil && len(got.Kvs) == 1 && string(got.Kvs[0].Value) == frontend
			})
		}
		before := make(map[*outageGuestEnd]int64)
		for _, e := range g.ends {
			before[e] = e.told.Load()
		}
		c.poll("a push arrives at "+g.uid, time.Minute, func() bool {
			if err := c.runs[0].Push(ctx, "gate", []string{g.uid}, "onTell", []byte(g.uid)); err != nil {
				return false
			}
			return slices.ContainsFunc(g.ends, func(e *outageGuestEnd) bool { return e.live() && e.told.Load() > before[e] })
		})
		for e, n := range before {
			if !e.live() && e.told.Load() > n {
				c.t.Errorf("a push to %s went to a session that is not the user's any more", g.uid)
			}
		}
	}
	if len(c.guests) > 0 {
		c.t.Logf("each of them has one session after %v", time.Since(start).Round(time.Millisecond))
	}
	for _, g := range c.guests {
		for _, e := range g.ends {
			e.c.Close()
		}
	}
	c.guests = nil
}
