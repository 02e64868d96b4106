package pitaya

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// serverJobs is what a server has of reliable RPC. Workers are behind functions and an interface, and so are the types of
// RPCJob, so that only programs that have workers contain their code: the linker keeps the methods of all types that it
// can reach from that of Server.
type serverJobs struct {
	mu     sync.Mutex                   // guards the fields below; never held across I/O or code of the application
	store  JobStore                     // nil until it is first needed, if the settings do not give it
	begin  func(JobStore) startedWorker // starts a worker, with mu held; nil before RegisterRPCJob or StartWorker
	wanted func() error                 // starts the worker if none runs; nil before StartWorker
	ending bool                         // no worker is started any more
	worker startedWorker                // nil while none runs
	closed bool                         // no store is made any more
	spans  *spans                       // nil: nothing is traced; set before the server runs
}

// A startedWorker is a *jobWorker.
type startedWorker interface {
	drain()
	stop(context.Context) error
}

var (
	errJobRegistered = errors.New("pitaya: there is an RPCJob already")
	errJobTooLate    = errors.New("pitaya: the RPCJob must be registered before the worker is started")
	errWorkerTwice   = errors.New("pitaya: the worker was started already")
)

// jobStore returns the store of jobs, which it makes if there is none.
func (s *Server) jobStore() (JobStore, error) {
	if s.cfg.Jobs != nil {
		return s.cfg.Jobs, nil
	}
	if store, err := s.jobs.keep(nil); store != nil || err != nil {
		return store, err
	}
	made, err := s.newJobStore()
	if err != nil {
		return nil, err
	}
	store, err := s.jobs.keep(made)
	if store != made { // somebody else was first, or the server has ended meanwhile
		_ = made.Close(context.Background()) // it was never used, so there is nothing to wait for
	}
	return store, err
}

// newJobStore makes the store that the settings ask for. It reads files of theirs.
func (s *Server) newJobStore() (JobStore, error) {
	if !s.cfg.Cluster {
		return NewMemoryJobs(MemoryJobsOptions{}), nil
	}
	store, err := NewNATSJobs(s.cfg.NATSClient, NATSJobsOptions{Namespace: s.cfg.Worker.Namespace}, s.log)
	if err != nil {
		return nil, err // not the store: it would be a JobStore that is not nil
	}
	return store, nil
}

// keep returns the store that is kept, which is the one given if there was none:
// nil if that is nil too.
func (j *serverJobs) keep(made JobStore) (JobStore, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrServerClosed
	}
	if j.store == nil {
		j.store = made
	}
	return j.store, nil
}

// ReliableRPC lets a remote be called, as [Server.RPC] does, by a worker: once at
// least, and not now. It returns the id of the job when the job is kept, which is
// all that is known then: the result of the remote goes nowhere. What the remote
// does must bear being done twice, since a worker that ends in the midst of a job
// cannot tell.
//
// The job is done by a server of the cluster on which [Server.StartWorker] was
// called and whose settings have the same namespace. If it fails it is tried again
// as pitaya.worker.retry says, or with ReliableRPCWithOptions as its options say,
// and ends among the dead jobs ([Server.DeadJobs]) if that is of no use.
//
// metadata may be nil; it is for the ServerDiscovery of the application's
// [RPCJob], and must be what JSON can express. arg may be nil. Of reply only the
// type counts; nil means that the job does not need one. ctx bounds the call, and a trace
// and the id of a client's request travel from it to the remote.
//
// Errors: [ErrUnreachable] and [ErrJobQueueFull] if the job was not taken in,
// [ErrNoAnswer] if that is not known; [ErrServerNotRunning] before Run.
//
// It may be called from any goroutine while the server runs. Pitaya's has no ctx;
// the function [ReliableRPC] of the package is like it.
func (s *Server) ReliableRPC(ctx context.Context, route string, metadata map[string]any, reply, arg proto.Message) (jobID string, err error) {
	return s.ReliableRPCWithOptions(ctx, route, metadata, reply, arg, retryOptions(&s.cfg.Worker))
}

// retryOptions are what the settings say. They may say what RetryOptions may not:
// a file of Pitaya's that has a longer least pause than the longest one is a good
// one.
func retryOptions(w *WorkerConfig) RetryOptions {
	o := RetryOptions{Enabled: !w.NoRetry, Max: max(w.RetryMax, 0), Exponential: max(w.RetryExponential, 0)}
	bound := func(d time.Duration) time.Duration {
		return min(max(d, 0), maxRetryDelay).Round(time.Millisecond)
	}
	o.MinDelay, o.MaxDelay, o.MaxRandom = bound(w.RetryMinDelay), bound(w.RetryMaxDelay), bound(w.RetryMaxRandom)
	if o.MaxDelay > 0 {
		o.MinDelay = min(o.MinDelay, o.MaxDelay)
	}
	return o
}

// ReliableRPCWithOptions is [Server.ReliableRPC] with retries of its own.
func (s *Server) ReliableRPCWithOptions(ctx context.Context, route string, metadata map[string]any, reply, arg proto.Message, opts RetryOptions) (jobID string, err error) {
	if _, err := s.running(); err != nil {
		return "", err
	}
	j, err := newJob(route, metadata, reply, arg, opts)
	if err != nil {
		return "", err
	}
	store, err := s.jobStore()
	if err != nil {
		return "", err
	}
	id := newJobID()
	if s.jobs.spans != nil {
		span := s.jobs.spans.start(ctx, spanEnqueue, SpanClient, Label{"job.id", id}, Label{"job.route", route})
		defer func() { span.end(err) }()
		ctx = span
	}
	j.Info.Server = s.cfg.ID
	j.Info.RequestID, _ = GetFromPropagateCtx(ctx, propagatedID).(string)
	if j.Trace = s.jobs.spans.inject(ctx); j.Trace == nil {
		j.Trace = carrierOf(propagatedValues(ctx)[propagatedSpan])
	}
	body, err := j.encode()
	if err != nil {
		return "", err
	}
	if err := store.Enqueue(ctx, id, body); err != nil {
		return "", fmt.Errorf("pitaya: reliable RPC to %s: %w", route, err)
	}
	s.counters.JobsEnqueued.Add(1)
	return id, nil
}

// carrierOf returns a trace's context that came along with a call, nil if it is
// none.
func carrierOf(v any) map[string]string {
	switch v := v.(type) {
	case map[string]string:
		return boundCarrier(maps.Clone(v))
	case map[string]any:
		return boundCarrier(tagsOf(v))
	}
	return nil
}

// RegisterRPCJob sets what the worker of this server does with jobs, instead of
// what [NewRPCJob] does. It is called once, before [Server.StartWorker], from any
// goroutine.
func (s *Server) RegisterRPCJob(job RPCJob) error {
	return s.workerSetUp(func() error {
		switch {
		case job == nil:
			return errors.New("pitaya: no RPCJob given")
		case s.jobs.wanted != nil:
			return errJobTooLate
		case s.jobs.begin != nil:
			return errJobRegistered
		}
		s.jobs.begin = s.workerBy(job)
		return nil
	})
}

// StartWorker lets this server work on the jobs of [Server.ReliableRPC]: as many
// at once as pitaya.worker.concurrency says, those that other servers have
// enqueued included. Called before Run, it is Run that starts the worker, once the
// server has joined its cluster; later, it starts at once. When the server ends,
// the worker takes no new jobs and finishes those that it has; when the time for
// that is over it gives them back.
//
// An outage of the store is no error: the worker waits for its end. StartWorker
// may be called from any goroutine, once. A server that is in no cluster needs an
// RPCJob of the application's, because it cannot call remotes.
func (s *Server) StartWorker() error {
	running := false
	err := s.workerSetUp(func() error {
		switch {
		case s.jobs.wanted != nil:
			return errWorkerTwice
		case s.jobs.begin == nil && !s.cfg.Cluster:
			return fmt.Errorf("pitaya: a worker without an RPCJob of the application calls remotes: %w", ErrNoCluster)
		}
		if s.jobs.begin == nil {
			s.jobs.begin = s.workerBy(NewRPCJob(s))
		}
		s.jobs.wanted = s.startWorker
		running = s.state == serverRunning
		return nil
	})
	if err == nil && running {
		err = s.startWorker()
	}
	return err
}

// workerSetUp runs f with the locks of the server and of its jobs. Mistakes that
// are made before Run come back from it.
func (s *Server) workerSetUp(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state >= serverClosing {
		return ErrServerClosed
	}
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	err := f()
	if err != nil && s.state == serverNew {
		s.mistakes = append(s.mistakes, err)
	}
	return err
}

// startWantedWorker starts the worker if StartWorker was called.
func (s *Server) startWantedWorker() error {
	s.jobs.mu.Lock()
	start := s.jobs.wanted
	s.jobs.mu.Unlock()
	if start == nil {
		return nil
	}
	return start()
}

// startWorker starts the worker if it does not run yet.
func (s *Server) startWorker() error {
	s.jobs.mu.Lock()
	started := s.jobs.worker != nil
	s.jobs.mu.Unlock()
	if started {
		return nil
	}
	store, err := s.jobStore()
	if err != nil {
		return err
	}
	begun, err := s.startWorkerOn(store)
	if begun {
		s.log.Info("working on jobs", "server", s.cfg.ID, "concurrency", s.cfg.Worker.Concurrency)
	}
	return err
}

// startWorkerOn starts the worker on a store. It reports false if Run, or
// StartWorker, was first.
func (s *Server) startWorkerOn(store JobStore) (started bool, err error) {
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	switch {
	case s.jobs.ending:
		return false, ErrServerClosed
	case s.jobs.worker != nil:
		return false, nil
	}
	s.jobs.worker = s.jobs.begin(store)
	return true, nil
}

// workerBy returns what starts a worker that gives its jobs to job.
func (s *Server) workerBy(job RPCJob) func(JobStore) startedWorker {
	return func(store JobStore) startedWorker {
		return startJobWorker(jobWorkerConfig{
			Store: store, Job: job, Concurrency: s.cfg.Worker.Concurrency,
			Log: s.log, Counters: &s.counters, Meters: s.host.Meters, Period: s.cfg.Metrics.Period,
			Spans: s.jobs.spans, Guard: s.host.guard,
		})
	}
}

// drainWorker lets the worker take no new jobs.
func (s *Server) drainWorker() {
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	s.jobs.ending = true
	if s.jobs.worker != nil {
		s.jobs.worker.drain()
	}
}

// stopWorker ends the worker. Its jobs may call other servers until then.
func (s *Server) stopWorker(ctx context.Context) error {
	s.jobs.mu.Lock()
	w := s.jobs.worker
	s.jobs.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.stop(ctx)
}

// closeJobs closes the store, if it is the server's own.
func (s *Server) closeJobs(ctx context.Context) error {
	s.jobs.mu.Lock()
	store := s.jobs.store
	s.jobs.closed = true
	s.jobs.mu.Unlock()
	if store == nil {
		return nil
	}
	ctx, cancel := graceful(ctx)
	defer cancel()
	return store.Close(ctx)
}

// DeadJobs returns up to limit jobs that have failed for good, in the order in
// which they died: those behind the one whose Seq is given, so that the next call
// goes on with the last one's. 0 begins with the first. [ParseJob] reads their
// bodies.
//
// Like the following methods it works on any server that has the same jobs, with or
// without a worker, while the server runs and from any goroutine.
func (s *Server) DeadJobs(ctx context.Context, after uint64, limit int) (dead []DeadJob, err error) {
	err = s.withJobs(func(store JobStore) (err error) {
		dead, err = store.DeadJobs(ctx, after, limit)
		return err
	})
	return dead, err
}

// RequeueDeadJob lets a dead job be tried again, from the beginning, with all its
// retries. [ErrJobNotFound] if there is none of that id.
func (s *Server) RequeueDeadJob(ctx context.Context, id string) error {
	return s.withJobs(func(store JobStore) error { return store.RequeueDead(ctx, id) })
}

// DeleteDeadJob deletes a dead job. [ErrJobNotFound] if there is none of that id.
func (s *Server) DeleteDeadJob(ctx context.Context, id string) error {
	return s.withJobs(func(store JobStore) error { return store.DeleteDead(ctx, id) })
}

// CountJobs tells how many jobs there are, those of other servers included.
func (s *Server) CountJobs(ctx context.Context) (n JobCount, err error) {
	err = s.withJobs(func(store JobStore) (err error) {
		n, err = store.Count(ctx)
		return err
	})
	return n, err
}

// withJobs calls f with the store.
func (s *Server) withJobs(f func(JobStore) error) error {
	if _, err := s.running(); err != nil {
		return err
	}
	store, err := s.jobStore()
	if err != nil {
		return err
	}
	return f(store)
}

// NewRPCJob returns the [RPCJob] that a worker has if no other is registered: it
// calls the remote with [Server.RPC], or with [Server.RPCTo] if an RPCJob that
// embeds it chooses a server, and leaves the choice of the messages to the worker.
func NewRPCJob(s *Server) RPCJob { return rpcJob{s} }

type rpcJob struct{ server *Server }

// ServerDiscovery implements [RPCJob].
func (rpcJob) ServerDiscovery(string, map[string]any) (string, error) { return "", nil }

// RPC implements [RPCJob].
func (j rpcJob) RPC(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	return j.server.RPCTo(ctx, serverID, route, reply, arg)
}

// GetArgReply implements [RPCJob].
func (rpcJob) GetArgReply(string) (arg, reply proto.Message, err error) { return nil, nil, nil }
