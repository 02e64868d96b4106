package pitaya_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestClusterUniqueAfterOutage: users who were bound on two frontends while these could not hear of each other have one
// session when they can again, the newer one.
func TestClusterUniqueAfterOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		cfg := pitaya.Config{Type: "gate", Frontend: true}
		one, two := cl.NewServer(t, cfg, nil), cl.NewServer(t, cfg, nil)
		bind := func(s *pitayatest.Server, uid string) *pitayatest.Client {
			t.Helper()
			c := s.Client(t)
			for session := range s.Sessions() {
				if session.UID() == "" {
					if err := session.Bind(t.Context(), uid); err != nil {
						t.Fatal(err)
					}
				}
			}
			return c
		}
		bind(one, "before")
		time.Sleep(time.Second)
		cl.Cut(one, two)
		bind(two, "before")
		bind(one, "meanwhile")
		time.Sleep(time.Second)
		bind(two, "meanwhile")
		time.Sleep(10 * time.Second)
		for _, uid := range []string{"before", "meanwhile"} {
			if one.SessionByUID(uid) == nil || two.SessionByUID(uid) == nil {
				t.Errorf("%s: a session has ended that nobody can have asked to", uid)
			}
		}
		cl.Heal(one, two)
		time.Sleep(3 * time.Second)
		for _, uid := range []string{"before", "meanwhile"} {
			if one.SessionByUID(uid) != nil || two.SessionByUID(uid) == nil {
				t.Errorf("%s: on the first %v, on the second %v; want the second", uid, one.SessionByUID(uid), two.SessionByUID(uid))
			}
		}
	})
}

// TestClusterClaimsAfterOutage: an outage in which many have logged in is no reason to ask the others about all of them at
// once, neither while it lasts nor when it is over; and all are asked about in the end.
func TestClusterClaimsAfterOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const users, atOnce = 100, 16
		cluster := pitaya.NewMemCluster()
		var outage atomic.Bool
		var asked atomic.Int64
		seamServer(t, cluster, seamGate("silent"), new(slowTransport), nil)
		gate := seamServer(t, cluster, seamGate("gate"), &slowTransport{
			hangs: func(to, route string) bool {
				if to != "silent" || route != "sys.claimuser" {
					return false
				}
				asked.Add(1)
				return outage.Load()
			},
		}, nil)
		outage.Store(true)
		var logins sync.WaitGroup
		for i := range users {
			s, _ := seamSession(t, gate)
			logins.Go(func() {
				if err := s.Bind(t.Context(), fmt.Sprint("u", i)); err != nil {
					t.Error(err)
				}
			})
		}
		logins.Wait()
		time.Sleep(10*time.Second + time.Millisecond)
		for range 3 {
			before := asked.Load()
			time.Sleep(10 * time.Second)
			if n := asked.Load() - before; n == 0 || n > 6*atOnce {
				t.Errorf("%d claims in 10 s of an outage", n)
			}
		}
		outage.Store(false)
		before := asked.Load()
		time.Sleep(4 * time.Second)
		if n := asked.Load() - before; n < users {
			t.Errorf("%d claims after the outage, of %d", n, users)
		}
		before = asked.Load()
		time.Sleep(10 * time.Second)
		if n := asked.Load() - before; n > 0 {
			t.Errorf("%d claims were put again after they were heard", n)
		}
		if n := gate.Stats().Bound; n != users {
			t.Errorf("%d users are bound", n)
		}
	})
}
