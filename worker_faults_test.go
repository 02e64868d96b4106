package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// What happens to jobs when something goes wrong: with the job, its worker, the store, or the server that is called.

// brokenJobs is a store as a server has it that has crashed, or lost its network.
type brokenJobs struct {
	pitaya.JobStore
	broken atomic.Bool
}

var errBroken = fmt.Errorf("broken on purpose: %w", pitaya.ErrUnreachable)

func (b *brokenJobs) err() error {
	if b.broken.Load() {
		return errBroken
	}
	return nil
}

func (b *brokenJobs) Enqueue(ctx context.Context, id string, body []byte) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.JobStore.Enqueue(ctx, id, body)
}

func (b *brokenJobs) Fetch(ctx context.Context) (pitaya.JobLease, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	l, err := b.JobStore.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	return &brokenLease{l, b}, nil
}

type brokenLease struct {
	pitaya.JobLease
	store *brokenJobs
}

func (l *brokenLease) Extend(ctx context.Context) error {
	return cmpErr(l.store.err(), func() error { return l.JobLease.Extend(ctx) })
}

func (l *brokenLease) Done(ctx context.Context) error {
	return cmpErr(l.store.err(), func() error { return l.JobLease.Done(ctx) })
}

func (l *brokenLease) Release(ctx context.Context) error {
	return cmpErr(l.store.err(), func() error { return l.JobLease.Release(ctx) })
}

func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

// A job that takes longer than a lease is done once while its worker lives.
func TestWorkerLongJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		var runs atomic.Int64
		long := func(context.Context, string, string) error {
			runs.Add(1)
			time.Sleep(time.Hour)
			return nil
		}
		s := jobServer(t, jobs, pitaya.Config{ID: "a"}, long)
		jobServer(t, jobs, pitaya.Config{ID: "b"}, long)
		enqueue(t, s, "long", 0)
		pass(2 * time.Hour)
		if n, _ := s.CountJobs(t.Context()); runs.Load() != 1 || n != (pitaya.JobCount{}) {
			t.Errorf("%d runs, %+v", runs.Load(), n)
		}
	})
}

// A worker that dies in the midst of a job leaves it to another one, when its lease is over, and without a failure.
func TestWorkerKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		dying := &brokenJobs{JobStore: jobs}
		begin := time.Now()
		held := make(chan struct{})
		first := jobServer(t, dying, pitaya.Config{ID: "a"}, func(context.Context, string, string) error {
			time.Sleep(45 * time.Second) // its lease was extended until then
			dying.broken.Store(true)
			<-held
			return nil
		})
		for i := range 3 {
			enqueue(t, first, fmt.Sprint(i), 0)
		}
		synctest.Wait()
		var at []string
		second := jobServer(t, jobs, pitaya.Config{ID: "b"}, func(_ context.Context, _, arg string) error {
			at = append(at, fmt.Sprint(arg, " at ", time.Since(begin)))
			return nil
		})
		pass(time.Hour)
		// The last extension was at 40 s.
		if want := []string{"1 at 0s", "2 at 0s", "0 at 1m10s"}; !slices.Equal(at, want) {
			t.Errorf("got %q, want %q", at, want)
		}
		if n, _ := second.CountJobs(t.Context()); n != (pitaya.JobCount{}) {
			t.Errorf("left: %+v", n)
		}
		close(held)
	})
}

// The end of a server waits for jobs, and gives back what does not end in time.
func TestWorkerShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		ended := make(map[string]error)
		var mu sync.Mutex
		s := jobServer(t, jobs, pitaya.Config{ID: "a", ShutdownTimeout: 20 * time.Second, Worker: pitaya.WorkerConfig{Concurrency: 2}}, func(ctx context.Context, _, arg string) error {
			d, err := time.ParseDuration(arg)
			must(t, err)
			select {
			case <-time.After(d):
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			ended[arg] = err
			return err
		})
		enqueue(t, s, "10s", 0)
		enqueue(t, s, "10h", 0)
		enqueue(t, s, "1s", 0)
		synctest.Wait()
		begin := time.Now()
		s.Stop()
		if d := time.Since(begin); d != 20*time.Second {
			t.Errorf("it took %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		if err, ok := ended["10s"]; !ok || err != nil {
			t.Errorf("the job that could be finished: %v, %v", ok, err)
		}
		if err := ended["10h"]; !errors.Is(err, pitaya.ErrServerClosed) {
			t.Errorf("the one that could not: %v", err)
		}
		if _, ok := ended["1s"]; ok {
			t.Error("a job was begun")
		}
		// Both are left at once, and neither has failed.
		if n, err := jobs.Count(t.Context()); n != (pitaya.JobCount{Queued: 2}) {
			t.Errorf("left: %+v, %v", n, err)
		}
		for range 2 {
			l, err := jobs.Fetch(t.Context())
			must(t, err)
			if l.Job().Failures != 0 {
				t.Errorf("%+v", l.Job())
			}
		}
		if time.Since(begin) != 20*time.Second {
			t.Error("they were not due at once")
		}
	})
}

// A job that does not see the end of its context does not keep the server.
func TestWorkerShutdownStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		srv, err := pitaya.NewServer(pitaya.Config{Frontend: true, Jobs: memoryJobs(), ShutdownTimeout: time.Second, Logger: testLogger(t)})
		must(t, err)
		must(t, srv.RegisterRPCJob(jobFunc(func(context.Context, string, string) error { <-held; return nil })), srv.StartWorker())
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- srv.Run(ctx) }()
		<-srv.Ready()
		_, err = srv.ReliableRPC(t.Context(), "room.room.do", nil, nil, nil)
		must(t, err)
		synctest.Wait()
		cancel()
		if err := <-ran; err == nil || !strings.Contains(err.Error(), "jobs are still running") {
			t.Errorf("got %v", err)
		}
		close(held)
	})
}

// What is no job is put aside, and does not hold up others.
func TestWorkerGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		var done []string
		s := jobServer(t, jobs, pitaya.Config{}, func(_ context.Context, _, arg string) error {
			done = append(done, arg)
			return nil
		})
		garbage := []string{
			``, `null`, `[]`, `{}`, `{"v":"1"}`, `{"v":2,"route":"a.b.c"}`, `{"v":1}`, `{"v":1,"route":"a.b"}`, `{"v":1,"route":5}`,
			`{"v":1,"route":"a.b.c","argType":"no type"}`, `{"v":1,"route":"a.b.c","arg":"AA=="}`,
			`{"v":1,"route":"a.b.c","retry":{"max":-1}}`, `{"v":1,"route":"a.b.c","retry":{"minDelay":9223372036854775807}}`,
			`{"v":1,"route":"a.b.c","argType":"google.protobuf.StringValue","arg":"/w=="}`,
			strings.Repeat(`[`, 20_000), "\xff\xfe", `{"v":1,"route":"` + strings.Repeat("x", 300) + `.b.c"}`,
		}
		for i, body := range garbage {
			must(t, jobs.Enqueue(t.Context(), fmt.Sprint("garbage-", i), []byte(body)))
		}
		enqueue(t, s, "good", 0)
		pass(time.Hour)
		if !slices.Equal(done, []string{"good"}) {
			t.Errorf("done: %q", done)
		}
		dead, err := s.DeadJobs(t.Context(), 0, 100)
		must(t, err)
		if len(dead) != len(garbage) {
			t.Errorf("%d dead jobs, want %d", len(dead), len(garbage))
		}
		for i, d := range dead {
			if string(d.Body) != garbage[i] || d.Reason == "" {
				t.Errorf("%d: %q because %q", i, d.Body, d.Reason)
			}
		}
		if n, _ := s.CountJobs(t.Context()); n.Queued+n.Retrying != 0 {
			t.Errorf("left: %+v", n)
		}
	})
}

// A type that this program does not have may be in another one: the job is tried again.
func TestWorkerUnknownType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		s := jobServer(t, jobs, pitaya.Config{}, func(context.Context, string, string) error { return nil })
		must(t, jobs.Enqueue(t.Context(), "a", []byte(`{"v":1,"route":"a.b.c","argType":"game.Unknown","retry":{"enabled":true,"max":1,"minDelay":1000}}`)))
		pass(time.Minute)
		dead, err := s.DeadJobs(t.Context(), 0, 1)
		must(t, err)
		if len(dead) != 1 || dead[0].Failures != 2 || !strings.Contains(dead[0].Reason, "game.Unknown") {
			t.Errorf("got %+v", dead)
		}
	})
}

// A panic is a failed run.
func TestWorkerPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs int
		s := jobServer(t, memoryJobs(), pitaya.Config{}, func(context.Context, string, string) error {
			if runs++; runs < 3 {
				panic("on purpose")
			}
			return nil
		})
		enqueue(t, s, "x", 2)
		pass(time.Minute)
		if st := s.Stats(); runs != 3 || st.Panics != 2 || st.JobsDone != 1 || st.JobsDead != 0 {
			t.Errorf("%d runs, %+v", runs, st)
		}
	})
}

// A job that ends its goroutine costs the worker nobody: the others are done, and it is given out again when its lease is
// over, as one whose worker has vanished.
func TestWorkerGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs []string
		s := jobServer(t, memoryJobs(), pitaya.Config{}, func(_ context.Context, _, arg string) error {
			runs = append(runs, arg)
			if len(runs) == 1 {
				runtime.Goexit()
			}
			return nil
		})
		enqueue(t, s, "exits", 0)
		enqueue(t, s, "next", 0)
		pass(time.Minute)
		if !slices.Equal(runs, []string{"exits", "next", "exits"}) || s.Stats().JobsDone != 2 {
			t.Errorf("runs %q, %+v", runs, s.Stats())
		}
	})
}

// brokenError is an error that cannot say what it is.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

// An error whose text panics, as that of a nil pointer does, is one of the job, not the end of the process.
func TestWorkerBrokenError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := jobServer(t, memoryJobs(), pitaya.Config{}, func(context.Context, string, string) error {
			var err *brokenError
			return err
		})
		enqueue(t, s, "x", 1)
		pass(time.Minute)
		if st := s.Stats(); st.JobsFailed != 2 || st.Panics != 2 || st.JobsDead != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// A job that ends every worker that takes it does not do so for ever.
func TestWorkerPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := memoryJobs()
		s := jobServer(t, jobs, pitaya.Config{}, nil)
		enqueue(t, s, "poison", 100)
		for range 20 {
			if _, err := jobs.Fetch(t.Context()); err != nil { // by somebody who ends then
				t.Fatal(err)
			}
		}
		jobServer(t, jobs, pitaya.Config{}, func(context.Context, string, string) error {
			t.Error("it was begun")
			return nil
		})
		pass(time.Minute)
		dead, err := s.DeadJobs(t.Context(), 0, 1)
		must(t, err)
		if len(dead) != 1 || dead[0].Failures != 0 || !strings.Contains(dead[0].Reason, "20 times") {
			t.Errorf("got %+v", dead)
		}
	})
}

// An outage of the store fails ReliableRPC at once, and the worker goes on after it. A job that ends meanwhile is not done
// again if the store comes back within its lease.
func TestWorkerOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := &brokenJobs{JobStore: memoryJobs()}
		var done []string
		s := jobServer(t, jobs, pitaya.Config{}, func(_ context.Context, _, arg string) error {
			time.Sleep(5 * time.Second)
			done = append(done, arg)
			return nil
		})
		enqueue(t, s, "a", 0)
		pass(time.Second)
		jobs.broken.Store(true)
		begin := time.Now()
		_, err := s.ReliableRPC(t.Context(), "room.room.do", nil, nil, nil)
		if !errors.Is(err, pitaya.ErrUnreachable) || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		pass(10 * time.Second)
		jobs.broken.Store(false)
		enqueue(t, s, "b", 0)
		pass(2 * time.Minute)
		if !slices.Equal(done, []string{"a", "b"}) {
			t.Errorf("done: %q", done)
		}
		if n, _ := s.CountJobs(t.Context()); n != (pitaya.JobCount{}) {
			t.Errorf("left: %+v", n)
		}
	})
}

// A server that dies while it does what a job asks for costs the job a run, and no more.
func TestWorkerRemoteKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, jobs := pitayatest.NewCluster(t), memoryJobs()
		var begun []string
		start := func(id string, f func()) *pitayatest.Server {
			return cluster.NewServer(t, pitaya.Config{Type: "room", ID: id}, func(s *pitaya.Server) {
				must(t, s.RegisterRemote(&HoldRoom{func() { begun = append(begun, id); f() }}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)))
			})
		}
		held := make(chan struct{})
		first := start("r1", func() { <-held })
		s := cluster.NewServer(t, pitaya.Config{Type: "worker", Jobs: jobs}, func(s *pitaya.Server) { must(t, s.StartWorker()) })
		enqueue(t, s, "x", 1)
		synctest.Wait()
		cluster.Kill(first)
		close(held)
		start("r2", func() {})
		pass(time.Minute)
		if !slices.Equal(begun, []string{"r1", "r2"}) {
			t.Errorf("it ran on %q", begun)
		}
		if st := s.Stats(); st.JobsDone != 1 || st.JobsFailed != 1 {
			t.Errorf("%+v", st)
		}
	})
}

type HoldRoom struct{ f func() }

func (h *HoldRoom) Do(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	h.f()
	return in, nil
}
