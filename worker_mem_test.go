package pitaya_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMemoryJobs(t *testing.T) {
	t.Parallel()
	pitayatest.TestJobStore(t, pitayatest.JobStoreOptions{
		Synctest: true,
		Open: func(t testing.TB) pitaya.JobStore {
			s := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{})
			t.Cleanup(func() { s.Close(t.Context()) })
			return s
		},
	})
}

func TestMemoryJobsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{Lease: time.Second, MaxJobs: 2, MaxDead: 2})
		must(t, s.Enqueue(ctx, "a", nil), s.Enqueue(ctx, "b", nil), s.Enqueue(ctx, "b", nil))
		if err := s.Enqueue(ctx, "c", nil); !errors.Is(err, pitaya.ErrJobQueueFull) {
			t.Errorf("a third job: got %v", err)
		}
		for i := range 4 {
			l, err := s.Fetch(ctx)
			must(t, err)
			if l.Duration() != time.Second {
				t.Errorf("a lease of %v", l.Duration())
			}
			must(t, l.Bury(ctx, true, ""), s.Enqueue(ctx, fmt.Sprint("n", i), nil))
		}
		dead, err := s.DeadJobs(ctx, 0, 10)
		must(t, err)
		if len(dead) != 2 || dead[0].ID != "n0" || dead[1].ID != "n1" {
			t.Errorf("dead: %+v", dead)
		}
		if err := s.RequeueDead(ctx, "n0"); !errors.Is(err, pitaya.ErrJobQueueFull) {
			t.Errorf("back into a full queue: got %v", err)
		}
		if n, err := s.Count(ctx); n != (pitaya.JobCount{Queued: 2, Dead: 2}) {
			t.Errorf("got %+v, %v", n, err)
		}
		// Ids are forgotten after two minutes.
		for range 2 {
			l, err := s.Fetch(ctx)
			must(t, err, l.Done(ctx))
		}
		time.Sleep(2*time.Minute - time.Nanosecond)
		must(t, s.Enqueue(ctx, "a", nil), s.Enqueue(ctx, "n2", nil))
		if n, _ := s.Count(ctx); n.Queued != 0 {
			t.Errorf("got %+v before the time", n)
		}
		time.Sleep(time.Nanosecond)
		must(t, s.Enqueue(ctx, "a", nil), s.Enqueue(ctx, "n2", nil))
		if n, _ := s.Count(ctx); n.Queued != 2 {
			t.Errorf("got %+v after the time", n)
		}
	})
}
