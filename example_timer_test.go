package pitaya_test

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A timer may be made before the server runs, and is stopped with it.
func ExampleServer_NewTimer() {
	ticks := make(chan int)
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		n := 0
		_, err := s.NewTimer(5*time.Millisecond, func() {
			n++ // a timer never overlaps with itself
			if n <= 3 {
				ticks <- n
			}
		})
		return err
	})
	fmt.Println(<-ticks, <-ticks, <-ticks)
	stop()
	// Output:
	// 1 2 3
}

func ExampleServer_NewCountTimer() {
	ticks := make(chan string)
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		_, err := s.NewCountTimer(time.Millisecond, 2, func() { ticks <- "tick" })
		return err
	})
	defer stop()
	fmt.Println(<-ticks, <-ticks)
	// Output:
	// tick tick
}

// Full is a condition: a match can begin when it is met.
type Full struct{ players atomic.Int64 }

func (f *Full) Check(time.Time) bool { return f.players.Load() >= 2 }

func ExampleServer_NewCondTimer() {
	full := &Full{}
	begun := make(chan string)
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		if err := s.SetTimerPrecision(time.Millisecond); err != nil {
			return err
		}
		_, err := s.NewCondTimer(full, func() {
			full.players.Add(-2)
			begun <- "the match begins"
		})
		return err
	})
	defer stop()
	full.players.Add(2)
	fmt.Println(<-begun)
	// Output:
	// the match begins
}

// A timer can be stopped at any time, by its own function too.
func ExampleTimer() {
	var server *pitaya.Server
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return nil
	})
	defer stop()
	rung := make(chan string)
	alarm, err := server.NewAfterTimer(time.Millisecond, func() { rung <- "ring" })
	if err != nil {
		fmt.Println(err)
		return
	}
	never, err := server.NewAfterTimer(time.Hour, func() { rung <- "too late" })
	if err != nil {
		fmt.Println(err)
		return
	}
	never.Stop()
	fmt.Println(<-rung, alarm.ID() != never.ID())
	// Output:
	// ring true
}
