package pitayatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// JobStoreOptions say how [TestJobStore] gets at an implementation.
type JobStoreOptions struct {
	// Open makes an empty store. Each check has one of its own, and what Open starts ends with the t that it is given.
	Open func(t testing.TB) pitaya.JobStore
	// Other returns the store as another server has it: with the same jobs. Nil means that servers share one value.
	Other func(t testing.TB, s pitaya.JobStore) pitaya.JobStore
	// Synctest runs each check in a bubble of its own ([testing/synctest]), which an implementation without sockets
	// and foreign processes should be fit for. Times are exact there.
	Synctest bool
	// Lease is how long the leases of the stores last, which the checks wait for. Zero means 30 s.
	Lease time.Duration
	// Slack is how much sooner or later than it should a job may be given out. It has to be less than a quarter of Lease.
	Slack time.Duration
}

// TestJobStore checks the rules of [pitaya.JobStore] on an implementation. The checks are subtests and run in parallel,
// after the function that calls TestJobStore has returned: what they share has to end in a [testing.TB.Cleanup].
func TestJobStore(t *testing.T, opts JobStoreOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, jobChecks(opts))
}

func jobChecks(opts JobStoreOptions) []check {
	if opts.Lease == 0 {
		opts.Lease = 30 * time.Second
	}
	if opts.Other == nil {
		opts.Other = func(_ testing.TB, s pitaya.JobStore) pitaya.JobStore { return s }
	}
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*jobTest)
	}{
		{"order", (*jobTest).order},
		{"bodies", (*jobTest).bodies},
		{"ids", (*jobTest).ids},
		{"shared", (*jobTest).shared},
		{"waiting", (*jobTest).waiting},
		{"lease", (*jobTest).lease},
		{"extend", (*jobTest).extend},
		{"release", (*jobTest).release},
		{"retry", (*jobTest).retry},
		{"dead", (*jobTest).dead},
		{"pages", (*jobTest).pages},
		{"contexts", (*jobTest).contexts},
		{"close", (*jobTest).close},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) {
			s := opts.Open(t)
			c.run(&jobTest{t, s, opts.Other(t, s), opts})
		}})
	}
	return checks
}

type jobTest struct {
	testing.TB
	store, other pitaya.JobStore // the same jobs
	opts         JobStoreOptions
}

func (t *jobTest) enqueue(ids ...string) {
	t.Helper()
	for _, id := range ids {
		noError(t, t.store.Enqueue(t.Context(), id, []byte("body of "+id)))
	}
}

// fetch takes the next job, which is to be this one.
func (t *jobTest) fetch(id string, failures, deliveries int) pitaya.JobLease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience+2*t.opts.Lease)
	defer cancel()
	l, err := t.other.Fetch(ctx)
	noError(t, err)
	if j := l.Job(); j.ID != id || string(j.Body) != "body of "+id || j.Failures != failures || j.Deliveries != deliveries {
		t.Fatalf("got job %s with %d failures and %d deliveries, and %.40q, want %s with %d and %d", j.ID, j.Failures, j.Deliveries, j.Body, id, failures, deliveries)
	}
	return l
}

// none wants no job to be due for a time.
func (t *jobTest) none(d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	l, err := t.other.Fetch(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, %v, want the end of the context", l, err)
	}
}

// took wants that a time has passed since begin.
func (t *jobTest) took(what string, begin time.Time, want time.Duration) {
	t.Helper()
	if d := time.Since(begin) - want; d < -t.opts.Slack || d > t.opts.Slack {
		t.Errorf("%s: after %v, want %v", what, time.Since(begin), want)
	}
}

func (t *jobTest) count(queued, retrying, dead int64) {
	t.Helper()
	got, err := t.store.Count(t.Context())
	noError(t, err)
	if want := (pitaya.JobCount{Queued: queued, Retrying: retrying, Dead: dead}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func (t *jobTest) order() {
	ids := []string{"a", "b", "c", "d"}
	t.count(0, 0, 0)
	t.enqueue(ids...)
	t.count(4, 0, 0)
	for _, id := range ids {
		noError(t, t.fetch(id, 0, 1).Done(t.Context()))
	}
	t.count(0, 0, 0)
	t.none(t.opts.Slack)
}

func (t *jobTest) bodies() {
	for i, body := range [][]byte{{}, {0}, []byte("\r\n\xff\x00"), bytes.Repeat([]byte("x"), 200<<10)} {
		id := fmt.Sprint("job-", i)
		given := bytes.Clone(body)
		noError(t, t.store.Enqueue(t.Context(), id, given))
		clear(given)
		for deliveries := 1; deliveries <= 2; deliveries++ {
			l, err := t.other.Fetch(t.Context())
			noError(t, err)
			got := l.Job()
			if got.ID != id || !bytes.Equal(got.Body, body) || got.Deliveries != deliveries {
				t.Errorf("%s: got %s with %d bytes, delivery %d, want %d bytes, delivery %d", id, got.ID, len(got.Body), got.Deliveries, len(body), deliveries)
			}
			clear(got.Body)
			if !bytes.Equal(l.Job().Body, body) {
				t.Errorf("%s: the body is not the caller's", id)
			}
			if deliveries == 1 {
				noError(t, l.Release(t.Context()))
			} else {
				noError(t, l.Done(t.Context()))
			}
		}
	}
}

func (t *jobTest) ids() {
	for _, id := range []string{"", ".", "*", ">", "a b", "a.b", "a/b", "größe", "a\n", strings.Repeat("x", 65)} {
		if err := t.store.Enqueue(t.Context(), id, nil); err == nil {
			t.Errorf("%q is taken", id)
		}
		for _, f := range []func(context.Context, string) error{t.store.RequeueDead, t.store.DeleteDead} {
			if err := f(t.Context(), id); err == nil {
				t.Errorf("%q is found", id)
			}
		}
	}
	t.count(0, 0, 0)
	long := strings.Repeat("x", 64)
	t.enqueue("same", long, "same", "A-b_9")
	noError(t, t.store.Enqueue(t.Context(), "same", []byte("other")))
	t.count(3, 0, 0)
	for _, id := range []string{"same", long, "A-b_9"} {
		noError(t, t.fetch(id, 0, 1).Done(t.Context()))
	}
	t.enqueue("same") // somebody was not told that it had been taken
	t.count(0, 0, 0)
}

// shared has several servers fetch: each job goes to one of them.
func (t *jobTest) shared() {
	const jobs, fetchers = 40, 4
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	got := make(map[string]int)
	var wg sync.WaitGroup
	for i := range fetchers {
		s := t.store
		if i%2 > 0 {
			s = t.other
		}
		wg.Go(func() {
			for {
				l, err := s.Fetch(ctx)
				if err != nil {
					return
				}
				if err := l.Done(t.Context()); err != nil {
					t.Errorf("%s: %v", l.Job().ID, err)
				}
				mu.Lock()
				got[l.Job().ID]++
				if len(got) == jobs {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for i := range jobs {
		t.enqueue(fmt.Sprint("job-", i))
	}
	wg.Wait()
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s was given out %d times", id, n)
		}
	}
	t.count(0, 0, 0)
}

func (t *jobTest) waiting() {
	came := make(chan string, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	wg.Go(func() {
		l, err := t.other.Fetch(ctx)
		if err != nil {
			t.Error(err)
			came <- ""
			return
		}
		if err := l.Done(ctx); err != nil {
			t.Error(err)
		}
		came <- l.Job().ID
	})
	pause := time.NewTimer(t.opts.Slack / 2)
	defer pause.Stop()
	select {
	case id := <-came:
		t.Fatalf("got %q out of nothing", id)
	case <-pause.C:
	}
	t.enqueue("a")
	if id := <-came; id != "a" {
		t.Errorf("got %q", id)
	}
}

func (t *jobTest) lease() {
	t.enqueue("a")
	begin := time.Now()
	first := t.fetch("a", 0, 1)
	if d := first.Duration(); d != t.opts.Lease {
		t.Errorf("leases last %v, want %v", d, t.opts.Lease)
	}
	t.enqueue("b") // is not held up
	noError(t, t.fetch("b", 0, 1).Done(t.Context()))
	t.count(1, 0, 0)
	t.fetch("a", 0, 2)
	t.took("given to another", begin, t.opts.Lease)
	third := t.fetch("a", 0, 3)
	// Who was first has done it after all.
	noError(t, first.Done(t.Context()))
	t.count(0, 0, 0)
	if err := third.Release(t.Context()); err != nil && !errors.Is(err, pitaya.ErrLeaseLost) {
		t.Errorf("release of what has been done: got %v", err)
	}
	t.count(0, 0, 0)
}

func (t *jobTest) extend() {
	t.enqueue("a")
	l := t.fetch("a", 0, 1)
	for range 3 {
		t.none(t.opts.Lease / 2)
		noError(t, l.Extend(t.Context()))
	}
	begin := time.Now()
	noError(t, t.fetch("a", 0, 2).Done(t.Context()))
	t.took("given to another", begin, t.opts.Lease)
}

func (t *jobTest) release() {
	t.enqueue("a")
	for i := range 3 {
		noError(t, t.fetch("a", 0, i+1).Release(t.Context()))
	}
	t.count(1, 0, 0)
	noError(t, t.fetch("a", 0, 4).Done(t.Context()))
}

func (t *jobTest) retry() {
	t.enqueue("a", "b")
	begin := time.Now()
	noError(t, t.fetch("a", 0, 1).Retry(t.Context(), t.opts.Lease/2))
	t.count(1, 1, 0)
	b := t.fetch("b", 0, 1)
	t.took("another", begin, 0)
	noError(t, b.Done(t.Context()))
	a := t.fetch("a", 1, 1)
	t.took("retry", begin, t.opts.Lease/2)
	begin = time.Now()
	noError(t, a.Retry(t.Context(), 0))
	a = t.fetch("a", 2, 1)
	t.took("retry at once", begin, 0)
	// A delay may be longer than a lease.
	begin = time.Now()
	noError(t, a.Retry(t.Context(), t.opts.Lease*3/2))
	noError(t, t.fetch("a", 3, 1).Done(t.Context()))
	t.took("retry after more than a lease", begin, t.opts.Lease*3/2)
	t.count(0, 0, 0)
}

func (t *jobTest) dead() {
	ctx := t.Context()
	t.enqueue("a", "b", "c")
	noError(t, t.fetch("a", 0, 1).Retry(ctx, 0))
	noError(t, t.fetch("b", 0, 1).Bury(ctx, false, "not wanted\r\nat all"))
	noError(t, t.fetch("c", 0, 1).Done(ctx))
	before := time.Now()
	noError(t, t.fetch("a", 1, 1).Bury(ctx, true, "failed"))
	t.count(0, 0, 2)
	list, err := t.store.DeadJobs(ctx, 0, 10)
	noError(t, err)
	if len(list) != 2 {
		t.Fatalf("%d dead jobs: %+v", len(list), list)
	}
	if b := list[0]; b.ID != "b" || string(b.Body) != "body of b" || b.Failures != 0 || strings.ContainsAny(b.Reason, "\r\n") || !strings.HasPrefix(b.Reason, "not wanted") {
		t.Errorf("got %+v", b)
	}
	if a := list[1]; a.ID != "a" || a.Failures != 2 || a.Reason != "failed" || a.Seq <= list[0].Seq {
		t.Errorf("got %+v", a)
	}
	if d := list[1].Died.Sub(before); d < -time.Second || d > t.opts.Slack+time.Second {
		t.Errorf("it died after %v", d)
	}
	t.none(t.opts.Slack)
	for _, f := range []func(context.Context, string) error{t.store.RequeueDead, t.store.DeleteDead} {
		if err := f(ctx, "c"); !errors.Is(err, pitaya.ErrJobNotFound) {
			t.Errorf("a job that has not died: got %v", err)
		}
	}
	noError(t, t.other.RequeueDead(ctx, "a"))
	t.count(1, 0, 1)
	l := t.fetch("a", 0, 1)
	noError(t, t.other.DeleteDead(ctx, "b"))
	t.count(1, 0, 0)
	if err := t.store.RequeueDead(ctx, "a"); !errors.Is(err, pitaya.ErrJobNotFound) {
		t.Errorf("a second time: got %v", err)
	}
	// It can die and be called back any number of times.
	for range 2 {
		noError(t, l.Bury(ctx, true, "failed again"))
		t.count(0, 0, 1)
		noError(t, t.store.RequeueDead(ctx, "a"))
		l = t.fetch("a", 0, 1)
	}
	noError(t, l.Done(ctx))
	t.count(0, 0, 0)
}

func (t *jobTest) pages() {
	const n = 7
	for i := range n {
		id := fmt.Sprint("job-", i)
		t.enqueue(id)
		noError(t, t.fetch(id, 0, 1).Bury(t.Context(), true, "failed"))
	}
	noError(t, t.store.DeleteDead(t.Context(), "job-3"))
	var got []string
	for after := uint64(0); ; {
		if len(got) > n {
			t.Fatalf("got %q, and there are more", got)
		}
		list, err := t.store.DeadJobs(t.Context(), after, 2)
		noError(t, err)
		if len(list) == 0 {
			break
		}
		if len(list) > 2 {
			t.Fatalf("%d jobs on a page", len(list))
		}
		for _, d := range list {
			got = append(got, d.ID)
			after = d.Seq
		}
	}
	if want := []string{"job-0", "job-1", "job-2", "job-4", "job-5", "job-6"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if list, err := t.store.DeadJobs(t.Context(), 0, 0); err != nil || len(list) > 0 {
		t.Errorf("limit 0: got %v, %v", list, err)
	}
}

func (t *jobTest) contexts() {
	t.enqueue("a", "b", "c")
	noError(t, t.fetch("a", 0, 1).Bury(t.Context(), false, "dead"))
	l := t.fetch("b", 0, 1)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for what, f := range map[string]func() error{
		"enqueue": func() error { return t.store.Enqueue(done, "d", nil) },
		"fetch":   func() error { _, err := t.store.Fetch(done); return err },
		"list":    func() error { _, err := t.store.DeadJobs(done, 0, 1); return err },
		"requeue": func() error { return t.store.RequeueDead(done, "a") },
		"delete":  func() error { return t.store.DeleteDead(done, "a") },
		"count":   func() error { _, err := t.store.Count(done); return err },
		"extend":  func() error { return l.Extend(done) },
		"done":    func() error { return l.Done(done) },
		"retry":   func() error { return l.Retry(done, 0) },
		"release": func() error { return l.Release(done) },
		"bury":    func() error { return l.Bury(done, true, "x") },
	} {
		if err := f(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	t.count(2, 0, 1)
	noError(t, l.Done(t.Context()))
	noError(t, t.fetch("c", 0, 1).Done(t.Context()))
}

func (t *jobTest) close() {
	t.enqueue("a")
	l := t.fetch("a", 0, 1)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := t.other.Fetch(t.Context()); !errors.Is(err, pitaya.ErrJobStoreClosed) {
				t.Errorf("who waits: got %v", err)
			}
		})
	}
	noError(t, t.other.Close(t.Context()))
	wg.Wait()
	noError(t, t.other.Close(t.Context()))
	ctx, s := t.Context(), t.other
	for what, f := range map[string]func() error{
		"enqueue": func() error { return s.Enqueue(ctx, "d", nil) },
		"fetch":   func() error { _, err := s.Fetch(ctx); return err },
		"list":    func() error { _, err := s.DeadJobs(ctx, 0, 1); return err },
		"requeue": func() error { return s.RequeueDead(ctx, "a") },
		"delete":  func() error { return s.DeleteDead(ctx, "a") },
		"count":   func() error { _, err := s.Count(ctx); return err },
		"extend":  func() error { return l.Extend(ctx) },
		"done":    func() error { return l.Done(ctx) },
	} {
		if err := f(); !errors.Is(err, pitaya.ErrJobStoreClosed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
