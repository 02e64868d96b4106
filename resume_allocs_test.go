package pitaya_test

import (
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// TestResumeAllocs pushes to a client that has not asked for resume: it must not notice that others may.
func TestResumeAllocs(t *testing.T) {
	allocs := func(resume pitaya.ResumeConfig) float64 {
		s := startServer(t, pitaya.Config{Resume: resume}, nil)
		s.connect(t)
		var session *pitaya.Session
		for session = range s.Sessions() {
		}
		payload := []byte(`{"a":1}`)
		// As many as a pipe in memory takes; fewer than one for each push, since the goroutine that writes is not counted
		// exactly.
		return testing.AllocsPerRun(500, func() {
			if err := session.Push(t.Context(), "p", payload); err != nil {
				t.Fatal(err)
			}
		})
	}
	off, on := allocs(pitaya.ResumeConfig{}), allocs(pitaya.ResumeConfig{Window: time.Minute})
	if off != on || on > 2 {
		t.Errorf("a push allocates %v times, %v times where others may resume", off, on)
	}
}
