package pitayatest_test

import (
	"slices"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestCluster has servers come, vanish, return, die and be deployed anew: when each call returns, all know.
func TestCluster(t *testing.T) {
	inAndOutside(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		servers := func(want ...string) {
			t.Helper()
			if got := cl.MemCluster().Servers(); !slices.Equal(got, want) {
				t.Errorf("got servers %q, want %q", got, want)
			}
		}
		setup := func(s *pitaya.Server) { s.Register(&Kit{}) }
		front := cl.NewServer(t, pitaya.Config{ID: "front", Type: "front", Frontend: true}, setup)
		room := cl.NewServer(t, pitaya.Config{ID: "room", Type: "room"}, setup)
		servers("front", "room")
		c := front.Client(t)
		if got := pitayatest.Request[text](c, "room.Kit.Echo", text{"x"}); got.Text != "x" {
			t.Errorf("got %q", got.Text)
		}
		cl.Expire(room)
		servers("front")
		cl.Restore(room)
		servers("front", "room")
		room = room.Restart()
		pitayatest.Request[text](c, "room.Kit.Echo", text{"x"})
		cl.Cut(front, room)
		if err := c.Client.Request(t.Context(), "room.Kit.Echo", text{}, nil); err == nil {
			t.Error("a call to a server that is cut off is answered")
		}
		cl.Heal(front, room)
		pitayatest.Request[text](c, "room.Kit.Echo", text{"x"})
		cl.Kill(room)
		servers("front")
		cl.Kill(front)
		if err := c.ExpectClosed(); err == nil {
			t.Error("the connection outlives its server")
		}
	})
}
