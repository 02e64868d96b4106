package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// The program as it is used. The limits are for an hour, so it does not matter how fast this machine is.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0", "-pitaya.conn.ratelimiting.interval", "1h")
	addr := server.Expect(`ratelimit -connect (\S+)`)[1]
	// All in the order of the requests, whatever became of them.
	want := `request 1: rolled 2
request 2: rolled 3
request 3: rolled 4
request 4: rolled 5
request 5: rolled 6
request 6: PIT-429, too many requests
request 7: PIT-429, too many requests
request 8: PIT-429, too many requests
request 9: PIT-429, too many requests
`
	if got := exampletest.Run(t, run, "-connect", addr, "-pause", "0", "-burst", "8"); !strings.HasPrefix(got, want) ||
		strings.Count(got, "\n") != 16 {
		t.Errorf("the client printed\n%s\nwant it to begin with\n%s", got, want)
	}
	// The next one goes on and on, and has to leave.
	got := exampletest.Run(t, run, "-connect", addr, "-pause", "0", "-burst", "50")
	if n := strings.Count(got, pitaya.CodeTooManyRequests); n != 31 {
		t.Errorf("%d refusals, want those that may be and one more", n)
	}
	if last := `kicked: {"reason":"too many requests"}` + "\n"; !strings.HasSuffix(got, last) {
		t.Errorf("the client printed\n%s\nwant it to end with %s", got, last)
	}
	server.Stop()
	server.Expect(`^refused: 42 of \d+ requests; clients closed for it: 1$`)
}

// What was used up comes back with time: one message in 200 ms, and no more than five.
func TestTimePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pitayatest.NewServer(t, settings(), func(s *pitaya.Server) { setUp(s) }).Client(t)
		for _, step := range []struct {
			pause   time.Duration
			allowed int
		}{{0, 5}, {200*time.Millisecond - 1, 0}, {1, 1}, {time.Second, 5}, {time.Hour, 5}} {
			time.Sleep(step.pause)
			for range step.allowed {
				c.Request("game.dice.roll", 1, nil)
			}
			c.ExpectError("game.dice.roll", 1, pitaya.CodeTooManyRequests)
		}
	})
}
