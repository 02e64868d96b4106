package pitaya_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// bindNew connects a client and binds its session, the only one of the server that is not bound.
func bindNew(t *testing.T, s *pitayatest.Server, uid string) {
	t.Helper()
	s.Client(t)
	for session := range s.Sessions() {
		if session.UID() == "" {
			if err := session.Bind(t.Context(), uid); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestClusterUniqueAfterOutage: users who were bound on two frontends while these could not hear of each other have one
// session when they can again, the newer one.
func TestClusterUniqueAfterOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		cfg := pitaya.Config{Type: "gate", Frontend: true}
		one, two := cl.NewServer(t, cfg, nil), cl.NewServer(t, cfg, nil)
		bindNew(t, one, "before")
		time.Sleep(time.Second)
		cl.Cut(one, two)
		bindNew(t, two, "before")
		bindNew(t, one, "meanwhile")
		time.Sleep(time.Second)
		bindNew(t, two, "meanwhile")
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

// TestClusterUniqueAfterForgotten: the same where one frontend was taken for lost meanwhile, as when its lease runs out in an
// outage of both etcd and NATS: those that were bound before it vanished, and not heard of, and those bound while it was
// gone.
func TestClusterUniqueAfterForgotten(t *testing.T) {
	t.Parallel()
	for name, healFirst := range map[string]bool{"known before reached": false, "reached before known": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := pitayatest.NewCluster(t)
				cfg := pitaya.Config{Type: "gate", Frontend: true}
				one, two := cl.NewServer(t, cfg, nil), cl.NewServer(t, cfg, nil)
				uids := []string{"unheard", "unasked", "other"}
				bindNew(t, one, uids[0])
				bindNew(t, one, uids[1])
				bindNew(t, two, uids[2])
				time.Sleep(time.Second)
				cl.Cut(one, two)
				bindNew(t, two, uids[0])
				time.Sleep(100 * time.Millisecond)
				cl.Expire(one)
				time.Sleep(10 * time.Second) // the claim that was not heard is given up
				bindNew(t, two, uids[1])
				bindNew(t, one, uids[2])
				time.Sleep(10 * time.Second)
				back := []func(){func() { cl.Restore(one) }, func() { cl.Heal(one, two) }}
				if healFirst {
					slices.Reverse(back)
				}
				for _, f := range back {
					f()
					time.Sleep(5 * time.Second)
				}
				for i, want := range []*pitayatest.Server{two, two, one} {
					for _, s := range []*pitayatest.Server{one, two} {
						if got := s.SessionByUID(uids[i]) != nil; got != (s == want) {
							t.Errorf("%s: on %s: %v, and the last bind was on %s", uids[i], s.ID(), got, want.ID())
						}
					}
				}
			})
		})
	}
}

// TestClusterUniqueOfUnknown: a frontend whose lease is lost when another one joins is not known to that one, which lets its
// users bind again. When it is known and reached, each user has one session, the newer one.
func TestClusterUniqueOfUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		cfg := pitaya.Config{Type: "gate", Frontend: true}
		one := cl.NewServer(t, cfg, nil)
		bindNew(t, one, "u")
		bindNew(t, one, "stays")
		time.Sleep(time.Minute)
		cl.Expire(one)
		two := cl.NewServer(t, cfg, nil)
		cl.Cut(one, two)
		bindNew(t, two, "u")
		time.Sleep(time.Minute)
		if one.SessionByUID("u") == nil || two.SessionByUID("u") == nil {
			t.Error("a session has ended that nobody can have asked to")
		}
		cl.Heal(one, two)
		cl.Restore(one)
		time.Sleep(5 * time.Second)
		if one.SessionByUID("u") != nil || two.SessionByUID("u") == nil || one.SessionByUID("stays") == nil {
			t.Errorf("on the first %v, on the second %v, and of who was bound once %v; want the second",
				one.SessionByUID("u"), two.SessionByUID("u"), one.SessionByUID("stays"))
		}
	})
}
