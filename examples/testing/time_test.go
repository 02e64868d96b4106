package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya/pitayatest"
)

// In a bubble of testing/synctest the time stands still until all goroutines wait, and then jumps: 30 seconds take none, and a
// test can look a nanosecond before and after.
func TestTimeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t).Client(t) // servers and clients are made inside the bubble
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		time.Sleep(limit - time.Nanosecond)
		c.NoPush()
		time.Sleep(time.Nanosecond)
		if got := pitayatest.Push[TimeUp](c, "onTimeUp"); got.Secret != 42 {
			t.Errorf("it was %d, want 42", got.Secret)
		}
		c.ExpectError("guess.game.try", Guess{42}, codeNoRound)
	})
}

// Who has guessed the number, or has begun anew, hears no clock.
func TestClockStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t).Client(t)
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		c.Request("guess.game.try", Guess{42}, nil)
		time.Sleep(time.Hour)
		c.NoPush()

		c.Request("guess.game.start", Player{}, nil)
		time.Sleep(limit - time.Nanosecond)
		c.Request("guess.game.start", Player{}, nil) // has all the time again
		time.Sleep(limit - time.Nanosecond)
		c.NoPush()
		c.Request("guess.game.try", Guess{1}, nil)
	})
}

// A player who has gone is no trouble.
func TestGoneBeforeTimeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		c := s.Client(t)
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		c.Close()
		time.Sleep(limit)
		synctest.Wait() // the clock rings at the same moment
		// Back again, there is nothing left from before.
		c = s.Client(t)
		c.Request("guess.game.start", Player{Name: "ada"}, nil)
		c.NoPush()
	})
}
