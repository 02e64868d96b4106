package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// A farm is the game on several servers, in memory: a gate for the clients, and backends for the game.
type farm struct {
	*pitayatest.Cluster
	gate  *pitayatest.Server
	games map[string]*pitayatest.Server // by id
}

func newFarm(t *testing.T, ids ...string) *farm {
	f := &farm{Cluster: pitayatest.NewCluster(t), games: make(map[string]*pitayatest.Server)}
	for _, id := range ids {
		f.games[id] = f.NewServer(t, pitaya.Config{Type: "guess", ID: id}, func(s *pitaya.Server) {
			setUp(s, "gate", func() int { return 42 })
		})
	}
	f.gate = f.NewServer(t, pitaya.Config{Type: "gate", Frontend: true}, func(s *pitaya.Server) {
		s.AddRoute("guess", pitaya.RouteSticky(pitaya.RouteRoundRobin())) // a round is on one server
	})
	return f
}

// The client says and hears the same as with one server, clock included.
func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFarm(t, "a", "b", "c").gate.Client(t)
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		for i := range 5 {
			if got := pitayatest.Request[Verdict](c, "guess.game.try", Guess{7}); got.Tries != i+1 {
				t.Errorf("try %d was counted as %d", i+1, got.Tries)
			}
		}
		time.Sleep(limit)
		c.ExpectPush("onTimeUp")
	})
}

// A server of the game dies. Its rounds are lost, and whoever had one can start another at once.
func TestServerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, "a", "b")
		c := f.gate.Client(t)
		started := pitayatest.Request[Started](c, "guess.game.start", Player{Name: "ada"})
		f.Kill(f.games[started.Server])
		c.ExpectError("guess.game.try", Guess{42}, codeNoRound) // the other one says so
		c.Request("guess.game.start", Player{}, nil)
		if got := pitayatest.Request[Verdict](c, "guess.game.try", Guess{42}); got.Is != "right" {
			t.Errorf("got %+v", got)
		}
		c.NoPush()
	})
}

// The network between gate and game is cut, and heals.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, "a")
		c := f.gate.Client(t)
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		f.Cut(f.gate, f.games["a"])
		c.ExpectError("guess.game.try", Guess{7}, pitaya.CodeInternal)
		f.Heal(f.gate, f.games["a"])
		c.Request("guess.game.try", Guess{7}, nil)
	})
}
