package pitayatest

import (
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// patience is how long what waits for something waits at most. It is for what has gone wrong, so it is long: nothing
// that works should fail on a machine with much else to do. In a bubble it takes no time.
const patience = transporttest.Patience

// A check is one test of a suite. It takes a testing.TB so that the tests of this package can see it fail.
type check struct {
	name string
	run  func(t testing.TB)
}

// runChecks runs the checks of a suite as subtests in parallel, each in a bubble of its own if it is to be.
func runChecks(t *testing.T, bubble bool, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if bubble {
				synctest.Test(t, func(t *testing.T) { c.run(t) })
				return
			}
			c.run(t)
		})
	}
}

// noError fails the test if there is an error.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
