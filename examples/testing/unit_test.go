package main

import (
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// What knows nothing of clients is tested like any function.
func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		secret, guess int
		want          string
	}{
		{50, 49, "higher"},
		{50, 50, "right"},
		{50, 51, "lower"},
	} {
		if got := compare(tt.secret, tt.guess); got != tt.want {
			t.Errorf("compare(%d, %d) = %q, want %q", tt.secret, tt.guess, got, tt.want)
		}
	}
}

// start starts a server with the game in memory, which ends with the test. The number is always 42.
func start(t *testing.T) *pitayatest.Server {
	return pitayatest.NewServer(t, pitaya.Config{Type: "guess"}, func(s *pitaya.Server) {
		setUp(s, "", func() int { return 42 }) // a mistake comes back when the server runs, and fails the test
	})
}

// Handlers are tested through a client: so routes, arguments, answers and codes are as those of the game's clients. What fails
// fails the test, with what was sent and what came.
func TestRound(t *testing.T) {
	c := start(t).Client(t)
	c.Request("guess.game.start", Player{Name: "ada"}, nil)
	for tries, step := range []struct {
		guess int
		want  string
	}{{50, "lower"}, {25, "higher"}, {42, "right"}} {
		got := pitayatest.Request[Verdict](c, "guess.game.try", Guess{step.guess})
		if want := (Verdict{Is: step.want, Tries: tries + 1}); *got != want {
			t.Errorf("%d: got %+v, want %+v", step.guess, *got, want)
		}
	}
	c.ExpectError("guess.game.try", Guess{42}, codeNoRound) // it is over
}

// A table is for what must be refused.
func TestRefusals(t *testing.T) {
	s := start(t)
	for name, tt := range map[string]struct {
		route string
		in    any
		code  string
	}{
		"too small": {"guess.game.try", Guess{0}, codeRange},
		"too large": {"guess.game.try", Guess{101}, codeRange},
		"no round":  {"guess.game.try", Guess{50}, codeNoRound},
		"no number": {"guess.game.try", map[string]string{"N": "many"}, pitaya.CodeBadRequest},
		"no uid":    {"guess.game.start", Player{Name: "a b"}, pitaya.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) { s.Client(t).ExpectError(tt.route, tt.in, tt.code) })
	}
}

// Players do not get into each other's way.
func TestTwoPlayers(t *testing.T) {
	s := start(t)
	ada, bob := s.Client(t), s.Client(t)
	ada.Request("guess.game.start", Player{Name: "ada"}, nil)
	bob.ExpectError("guess.game.try", Guess{42}, codeNoRound)
	bob.Request("guess.game.start", Player{Name: "bob"}, nil)
	for range 2 {
		ada.Request("guess.game.try", Guess{1}, nil)
	}
	if got := pitayatest.Request[Verdict](bob, "guess.game.try", Guess{42}); got.Tries != 1 {
		t.Errorf("bob has tried %d times, want once", got.Tries)
	}
}
