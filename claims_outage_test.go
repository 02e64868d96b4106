package pitaya_test

import (
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
