package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// maxJobDeliveries is how often a job is given out without an end before it
	// counts as one that ends its workers. Workers that end in the midst of a job,
	// and outages of the store, count too.
	maxJobDeliveries = 20
	// jobStorePause is the first pause after an error of the store, and
	// jobStoreLongest the longest.
	jobStorePause   = 100 * time.Millisecond
	jobStoreLongest = 5 * time.Second
	// jobStoreTimeout bounds one call of the store that has no limit of its own.
	jobStoreTimeout = 5 * time.Second
	// jobAbortGrace is how long jobs get to notice that they cannot be waited for,
	// and what is left of them to be given back.
	jobAbortGrace = time.Second
)

// jobWorker does jobs on one server. Its goroutines live from start to stop.
type jobWorker struct {
	jobWorkerConfig // immutable
	fetching        context.Context
	stopFetching    context.CancelFunc // no new jobs from here on
	running         context.Context    // of jobs
	abort           context.CancelCauseFunc
	wg              sync.WaitGroup

	failures sampler // of the records about the store
}

// jobWorkerConfig says what a worker works with.
type jobWorkerConfig struct {
	Store       JobStore
	Job         RPCJob
	Concurrency int
	Log         *slog.Logger
	Counters    *counters
	Meters      *meters                                 // nil: there are no reporters
	Period      time.Duration                           // of the metrics about the store
	Spans       *spans                                  // nil: nothing is traced
	Guard       func(what string, f func() error) error // calls code of the application
}

// startJobWorker starts a worker.
func startJobWorker(cfg jobWorkerConfig) *jobWorker {
	w := &jobWorker{jobWorkerConfig: cfg}
	w.fetching, w.stopFetching = context.WithCancel(context.Background())
	w.running, w.abort = context.WithCancelCause(context.Background())
	for range w.Concurrency {
		w.wg.Go(w.work)
	}
	if w.Meters != nil {
		w.wg.Go(w.measure)
	}
	return w
}

// drain takes no more jobs.
func (w *jobWorker) drain() { w.stopFetching() }

// stop takes no more jobs and waits for those that are being done. When ctx ends
// they are told to end, and given back.
func (w *jobWorker) stop(ctx context.Context) error {
	w.stopFetching()
	defer w.abort(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.wg.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	w.abort(ErrServerClosed)
	late := time.NewTimer(2 * jobAbortGrace)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
		return fmt.Errorf("pitaya: shutdown: jobs are still running: %w", context.Cause(ctx))
	}
}

// work fetches jobs and does them, one after the other.
func (w *jobWorker) work() {
	done := false
	defer func() {
		if !done {
			// A job ended its goroutine, as testing.T.FailNow does. Its lease runs
			// out; the others need somebody who does them.
			w.wg.Go(w.work)
		}
	}()
	w.workUntilEnd()
	done = true
}

// workUntilEnd is work in one goroutine.
func (w *jobWorker) workUntilEnd() {
	pause := jobStorePause
	for w.fetching.Err() == nil {
		lease, err := w.Store.Fetch(w.fetching)
		switch {
		case err == nil:
			pause = jobStorePause
			w.handle(lease)
		case w.fetching.Err() != nil:
		case errors.Is(err, ErrJobStoreClosed):
			w.Log.Warn("the job store was closed, jobs are not worked on any more")
			return
		default:
			if skipped, ok := w.failures.pass(); ok {
				w.Log.Warn("no jobs can be fetched", "err", err, "skipped", skipped)
			}
			w.pause(w.fetching, jitter(pause))
			pause = min(2*pause, jobStoreLongest)
		}
	}
}

// pause waits for a time or the end of ctx.
func (w *jobWorker) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// handle does a job and settles it.
func (w *jobWorker) handle(lease JobLease) {
	stored := lease.Job()
	if w.fetching.Err() != nil { // it came in the moment of the end
		w.settle(lease, stored.ID, "released", lease.Release)
		return
	}
	stop := w.keep(lease)
	defer stop()
	j, err := decodeJob(stored.Body)
	switch {
	case err != nil:
		w.bury(lease, stored, j, false, err)
		return
	case stored.Deliveries > maxJobDeliveries:
		w.bury(lease, stored, j, false, fmt.Errorf("it was given out %d times without an end", stored.Deliveries-1))
		return
	}
	began := time.Now()
	err = w.run(j, stored)
	switch {
	case err == nil:
		w.Counters.JobsDone.Add(1)
		w.Meters.learn(j.Info.Route).job("ok", time.Since(began))
		w.settle(lease, stored.ID, "done", lease.Done)
		return
	case w.running.Err() != nil: // it was told to end
		w.settle(lease, stored.ID, "released", lease.Release)
		return
	}
	w.Counters.JobsFailed.Add(1)
	w.Meters.known(j.Info.Route).job("failed", time.Since(began))
	retry := j.Info.Retry
	failures := stored.Failures + 1
	if !retry.Enabled || failures > retry.Max || errors.Is(err, ErrNoRetry) {
		w.bury(lease, stored, j, true, err)
		return
	}
	delay := retry.Delay(failures)
	w.Log.Warn("job failed", "job", stored.ID, "route", j.Info.Route, "failures", failures, "retry", delay, "err", loggable(err))
	ok := w.settle(lease, stored.ID, "retried", func(ctx context.Context) error { return lease.Retry(ctx, delay) })
	if ok {
		w.Counters.JobsRetried.Add(1)
	}
}

// bury moves a job to the dead ones.
func (w *jobWorker) bury(lease JobLease, stored StoredJob, j job, failed bool, why error) {
	failures := stored.Failures
	if failed {
		failures++
	}
	ok := w.settle(lease, stored.ID, "dead", func(ctx context.Context) error { return lease.Bury(ctx, failed, why.Error()) })
	if ok {
		w.Counters.JobsDead.Add(1)
		w.Log.Error("job is dead", "job", stored.ID, "route", j.Info.Route, "failures", failures, "err", loggable(why))
	}
}

// keep extends a lease until the function that it returns is called.
func (w *jobWorker) keep(lease JobLease) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(max(lease.Duration()/3, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			limited, release := context.WithTimeout(ctx, jobStoreTimeout)
			err := lease.Extend(limited)
			release()
			if errors.Is(err, ErrLeaseLost) {
				return // somebody else may do the job as well; it is done at least once
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// settle tells the store what has become of a job, again and again while the lease
// would last, and reports whether it knows. If it does not, somebody will do the
// job again.
func (w *jobWorker) settle(lease JobLease, id, what string, f func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), lease.Duration())
	defer cancel()
	defer context.AfterFunc(w.running, func() { time.AfterFunc(jobAbortGrace, cancel) })()
	pause := jobStorePause
	for {
		limited, release := context.WithTimeout(ctx, jobStoreTimeout)
		err := f(limited)
		release()
		if err == nil {
			return true
		}
		if !errors.Is(err, ErrLeaseLost) && !errors.Is(err, ErrJobStoreClosed) {
			if w.pause(ctx, jitter(pause)); ctx.Err() == nil {
				pause = min(2*pause, jobStoreLongest)
				continue
			}
		}
		w.Log.Warn("the job store does not know what has become of a job, which will be done again", "job", id, "was", what, "err", err)
		return false
	}
}

// run does a job once.
func (w *jobWorker) run(j job, stored StoredJob) (err error) {
	ctx := w.running
	if j.Info.RequestID != "" {
		ctx = AddToPropagateCtx(ctx, propagatedID, j.Info.RequestID)
	}
	if w.Spans != nil {
		span := w.Spans.startAfter(ctx, j.Trace, j.Info.Route, SpanServer,
			Label{"job.id", stored.ID}, Label{"job.failures", strconv.Itoa(stored.Failures)}, Label{"request.id", j.Info.RequestID})
		defer func() { span.end(traceable(err)) }()
		ctx = span
	} else if j.Trace != nil {
		ctx = AddToPropagateCtx(ctx, propagatedSpan, j.Trace)
	}
	return w.Guard("job", func() error {
		var arg, reply proto.Message
		arg, reply, err := w.Job.GetArgReply(j.Info.Route)
		if err != nil {
			return err
		}
		if arg, reply, err = j.messages(arg, reply); err != nil {
			return err
		}
		id, err := w.Job.ServerDiscovery(j.Info.Route, j.Info.Metadata)
		if err != nil {
			return err
		}
		if err = w.Job.RPC(ctx, id, j.Info.Route, reply, arg); err != nil {
			_ = err.Error() // here, where a panic is that of the job: the text is wanted later
		}
		return err
	})
}

// measure reports what the store has, each period.
func (w *jobWorker) measure() {
	tick := time.NewTicker(w.Period)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(w.fetching, jobStoreTimeout)
		n, err := w.Store.Count(ctx)
		cancel()
		if err == nil { // else the last values stand, and the outage is logged by who fetches
			w.Meters.gauge(metricWorkerQueue, float64(n.Queued), Label{"queue", "rpc"})
			w.Meters.gauge(metricWorkerQueue, float64(n.Dead), Label{"queue", "dead"})
			w.Meters.gauge(metricWorkerRetries, float64(n.Retrying))
		}
		w.Meters.gauge(metricWorkerJobs, float64(w.Counters.JobsDone.Load()), Label{"status", "ok"})
		w.Meters.gauge(metricWorkerJobs, float64(w.Counters.JobsFailed.Load()), Label{"status", "failed"})
		select {
		case <-tick.C:
		case <-w.fetching.Done():
			return
		}
	}
}
