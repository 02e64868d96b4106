package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// jobFunc is an RPCJob that calls a function instead of a remote.
type jobFunc func(ctx context.Context, route, arg string) error

func (jobFunc) ServerDiscovery(string, map[string]any) (string, error) { return "", nil }

func (f jobFunc) RPC(ctx context.Context, _, route string, _, arg proto.Message) error {
	text, _ := arg.(*wrapperspb.StringValue)
	return f(ctx, route, text.GetValue())
}

func (jobFunc) GetArgReply(string) (arg, reply proto.Message, err error) { return nil, nil, nil }

// jobServer starts a server that is in no cluster, with a worker that does f.
func jobServer(t testing.TB, store pitaya.JobStore, cfg pitaya.Config, f jobFunc) *pitayatest.Server {
	t.Helper()
	cfg.Jobs = store
	return pitayatest.NewServer(t, cfg, func(s *pitaya.Server) {
		if f != nil {
			must(t, s.RegisterRPCJob(f), s.StartWorker())
		}
	})
}

func memoryJobs() *pitaya.MemoryJobs { return pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{}) }

// enqueue enqueues a job of the text, which is to be tried again at once so many times.
func enqueue(t testing.TB, s *pitayatest.Server, text string, retries int) string {
	t.Helper()
	id, err := s.ReliableRPCWithOptions(t.Context(), "room.room.do", nil, &wrapperspb.StringValue{}, wrapperspb.String(text),
		pitaya.RetryOptions{Enabled: true, Max: retries, Exponential: 1, MaxDelay: time.Millisecond})
	must(t, err)
	return id
}

// pass lets time pass in a bubble, and all that it brings about happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// JobRoom is a remote that writes down what it does.
type JobRoom struct {
	mu   sync.Mutex
	done []string
	saw  []any
}

func (r *JobRoom) Do(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, in.Value)
	r.saw = append(r.saw, pitaya.GetFromPropagateCtx(ctx, "request.id"))
	if in.Value == "fail" {
		return nil, pitaya.Errorf("APP-1", "failed on purpose")
	}
	return in, nil
}

func TestReliableRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, jobs, tracer := pitayatest.NewCluster(t), memoryJobs(), new(pitayatest.Tracer)
		room := new(JobRoom)
		cluster.NewServer(t, pitaya.Config{Type: "room", ID: "room", Tracer: tracer}, func(s *pitaya.Server) {
			must(t, s.RegisterRemote(room, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)))
		})
		worker := cluster.NewServer(t, pitaya.Config{Type: "worker", ID: "w", Jobs: jobs, Tracer: tracer}, func(s *pitaya.Server) {
			must(t, s.StartWorker())
		})
		gate := cluster.NewServer(t, pitaya.Config{Type: "gate", ID: "g", Frontend: true, Jobs: jobs, Tracer: tracer}, func(s *pitaya.Server) {
			must(t, pitaya.Handle(s, "gate.save", func(ctx context.Context, in *string) (*string, error) {
				id, err := s.ReliableRPC(ctx, "room.room.do", map[string]any{"n": 1}, &wrapperspb.StringValue{}, wrapperspb.String(*in))
				if err != nil {
					return nil, err
				}
				name, _ := pitaya.GetFromPropagateCtx(ctx, "request.id").(string)
				return new(id + " " + name), nil
			}))
		})
		client := gate.Client(t)
		id, request, _ := strings.Cut(*pitayatest.Request[string](client, "gate.save", "hello"), " ")
		if len(id) != 24 {
			t.Errorf("the id of the job is %q", id)
		}
		synctest.Wait()
		if !slices.Equal(room.done, []string{"hello"}) || room.saw[0] != request || request == "" {
			t.Errorf("the remote has done %q in requests %q, want hello in %q", room.done, room.saw, request)
		}
		if s := gate.Stats(); s.JobsEnqueued != 1 {
			t.Errorf("enqueued: %+v", s)
		}
		if s := worker.Stats(); s.JobsDone != 1 || s.JobsFailed != 0 {
			t.Errorf("done: %+v", s)
		}
		if n, err := gate.CountJobs(t.Context()); n != (pitaya.JobCount{}) {
			t.Errorf("left: %+v, %v", n, err)
		}
		// One trace from the client's message to the remote.
		spans := tracer.Spans()
		var names []string
		trace := ""
		for _, s := range spans {
			names = append(names, s.Name)
			if trace == "" {
				trace = s.TraceID
			}
			if s.TraceID != trace {
				t.Errorf("span %s has another trace", s.Name)
			}
		}
		slices.Sort(names)
		if want := []string{"RPC Call", "conn write", "gate.save", "job enqueue", "room.room.do", "room.room.do"}; !slices.Equal(names, want) {
			t.Errorf("spans: got %q, want %q", names, want)
		}

		pitayatest.Request[string](client, "gate.save", "fail")
		pass(time.Minute) // 2 retries, 10 s apart
		if want := []string{"hello", "fail", "fail", "fail"}; !slices.Equal(room.done, want) {
			t.Errorf("done: %q, want %q", room.done, want)
		}
		dead, err := gate.DeadJobs(t.Context(), 0, 10)
		must(t, err)
		if len(dead) != 1 || dead[0].Failures != 3 || !strings.Contains(dead[0].Reason, "failed on purpose") {
			t.Fatalf("dead: %+v", dead)
		}
		info, err := pitaya.ParseJob(dead[0].Body)
		must(t, err)
		if info.Route != "room.room.do" || info.ArgType != "google.protobuf.StringValue" || info.ReplyType != info.ArgType ||
			info.Server != "g" || info.Metadata["n"] != 1.0 || !info.Retry.Enabled || info.Retry.Max != 2 || time.Since(info.Enqueued) < time.Minute {
			t.Errorf("it says %+v", info)
		}
	})
}

// Pauses between the runs are those of the formula.
func TestReliableRPCRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		s := jobServer(t, memoryJobs(), pitaya.Config{}, func(context.Context, string, string) error {
			at = append(at, time.Since(begin))
			return errors.New("failed on purpose")
		})
		options := pitaya.RetryOptions{Enabled: true, Max: 4, Exponential: 2, MinDelay: 10 * time.Second, MaxDelay: 15 * time.Second}
		_, err := s.ReliableRPCWithOptions(t.Context(), "room.room.do", nil, nil, nil, options)
		must(t, err)
		pass(30 * time.Second)
		if n, err := s.CountJobs(t.Context()); n != (pitaya.JobCount{Retrying: 1}) {
			t.Errorf("while it waits: %+v, %v", n, err)
		}
		pass(time.Hour)
		// 0^2+10, 1^2+10, 2^2+10, and 3^2+10, which is bounded.
		want := []time.Duration{0, 10 * time.Second, 21 * time.Second, 35 * time.Second, 50 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("runs at %v, want %v", at, want)
		}
		if st := s.Stats(); st.JobsFailed != 5 || st.JobsRetried != 4 || st.JobsDead != 1 {
			t.Errorf("%+v", st)
		}
		// A dead one that is called back has all its retries again.
		dead, err := s.DeadJobs(t.Context(), 0, 10)
		must(t, err, s.RequeueDeadJob(t.Context(), dead[0].ID))
		pass(time.Hour)
		if len(at) != 10 {
			t.Errorf("%d runs in all, want 10", len(at))
		}
		must(t, s.DeleteDeadJob(t.Context(), dead[0].ID))
		if err := s.DeleteDeadJob(t.Context(), dead[0].ID); !errors.Is(err, pitaya.ErrJobNotFound) {
			t.Errorf("a second time: got %v", err)
		}
	})
}

// Jobs that fail for good at once.
func TestReliableRPCNoRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		s := jobServer(t, memoryJobs(), pitaya.Config{Worker: pitaya.WorkerConfig{NoRetry: true}}, func(_ context.Context, _, arg string) error {
			runs.Add(1)
			if arg == "stop" {
				return fmt.Errorf("it is of no use: %w", pitaya.ErrNoRetry)
			}
			return errors.New("failed")
		})
		enqueue(t, s, "stop", 5)
		_, err := s.ReliableRPC(t.Context(), "room.room.do", nil, nil, nil)
		must(t, err)
		pass(time.Hour)
		if n, _ := s.CountJobs(t.Context()); runs.Load() != 2 || n != (pitaya.JobCount{Dead: 2}) {
			t.Errorf("%d runs, %+v", runs.Load(), n)
		}
	})
}

// As many jobs run at once as the settings say.
func TestWorkerConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		s := jobServer(t, memoryJobs(), pitaya.Config{Worker: pitaya.WorkerConfig{Concurrency: 3}}, func(context.Context, string, string) error {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		})
		begin := time.Now()
		for i := range 9 {
			enqueue(t, s, fmt.Sprint(i), 0)
		}
		for s.Stats().JobsDone < 9 {
			pass(time.Second)
		}
		if d := time.Since(begin); most.Load() != 3 || d != 3*time.Second {
			t.Errorf("%d at once, %v in all", most.Load(), d)
		}
	})
}

func TestWorkerMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := newRecorder()
		s := jobServer(t, memoryJobs(), pitaya.Config{Reporters: []pitaya.Reporter{rec}}, func(_ context.Context, _, arg string) error {
			time.Sleep(time.Second)
			if arg == "fail" {
				return errors.New("failed")
			}
			return nil
		})
		enqueue(t, s, "good", 0)
		enqueue(t, s, "fail", 1)
		_, err := s.ReliableRPCWithOptions(t.Context(), "room.room.do", nil, nil, wrapperspb.String("fail"), pitaya.RetryOptions{Enabled: true, Max: 1, MinDelay: time.Hour})
		must(t, err)
		pass(31 * time.Second)
		for series, want := range map[string]float64{
			"jobs_enqueued{}": 3, "jobs_retried{}": 2, "jobs_dead{}": 1,
			"worker_jobs_total{status=ok}": 1, "worker_jobs_total{status=failed}": 3, "worker_jobs_retry_total{}": 1,
			"worker_queue_size{queue=rpc}": 0, "worker_queue_size{queue=dead}": 1,
		} {
			if got := rec.number(series); got != want {
				t.Errorf("%s: got %v, want %v", series, got, want)
			}
		}
		rec.wantObserved(t, "job_time_ns", "{route=room.room.do,status=failed} [1s 1s 1s]", "{route=room.room.do,status=ok} [1s]")
	})
}

// discoveringJob is the job that comes with the library, with a choice of its own.
type discoveringJob struct {
	pitaya.RPCJob
	mu  sync.Mutex
	saw []string
}

func (d *discoveringJob) ServerDiscovery(route string, metadata map[string]any) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saw = append(d.saw, fmt.Sprint(route, metadata))
	id, ok := metadata["to"].(string)
	if !ok {
		return "", fmt.Errorf("nobody is named: %w", pitaya.ErrNoRetry)
	}
	return id, nil
}

func (d *discoveringJob) GetArgReply(string) (arg, reply proto.Message, err error) {
	return new(wrapperspb.StringValue), new(wrapperspb.StringValue), nil
}

func TestRegisterRPCJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, jobs := pitayatest.NewCluster(t), memoryJobs()
		rooms := map[string]*JobRoom{"r1": {}, "r2": {}}
		for id, room := range rooms {
			cluster.NewServer(t, pitaya.Config{Type: "room", ID: id}, func(s *pitaya.Server) {
				must(t, s.RegisterRemote(room, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)))
			})
		}
		var job *discoveringJob
		s := cluster.NewServer(t, pitaya.Config{Type: "worker", Jobs: jobs}, func(s *pitaya.Server) {
			job = &discoveringJob{RPCJob: pitaya.NewRPCJob(s)}
			must(t, s.RegisterRPCJob(job), s.StartWorker())
		})
		for _, metadata := range []map[string]any{{"to": "r1"}, {"to": "r2"}, {"to": "r2"}, nil} {
			_, err := s.ReliableRPC(t.Context(), "room.room.do", metadata, nil, wrapperspb.String("x"))
			must(t, err)
		}
		synctest.Wait()
		if len(rooms["r1"].done) != 1 || len(rooms["r2"].done) != 2 {
			t.Errorf("done: %q and %q", rooms["r1"].done, rooms["r2"].done)
		}
		if want := []string{"room.room.domap[to:r1]", "room.room.domap[to:r2]", "room.room.domap[to:r2]", "room.room.domap[]"}; !slices.Equal(job.saw, want) {
			t.Errorf("it saw %q", job.saw)
		}
		if n, _ := s.CountJobs(t.Context()); n != (pitaya.JobCount{Dead: 1}) {
			t.Errorf("%+v", n)
		}
	})
}

func TestWorkerSetUp(t *testing.T) {
	job := jobFunc(func(context.Context, string, string) error { return nil })
	for _, tt := range []struct {
		name  string
		setUp func(s *pitaya.Server) error
		want  string // "": no error
	}{
		{"worker with a job", func(s *pitaya.Server) error { return errors.Join(s.RegisterRPCJob(job), s.StartWorker()) }, ""},
		{"job without a worker", func(s *pitaya.Server) error { return s.RegisterRPCJob(job) }, ""},
		{"nil", func(s *pitaya.Server) error { return s.RegisterRPCJob(nil) }, "no RPCJob"},
		{"two jobs", func(s *pitaya.Server) error { return errors.Join(s.RegisterRPCJob(job), s.RegisterRPCJob(job)) }, "already"},
		{"worker without a job and a cluster", (*pitaya.Server).StartWorker, "no cluster"},
		{"job after the worker", func(s *pitaya.Server) error {
			return errors.Join(s.RegisterRPCJob(job), s.StartWorker(), s.RegisterRPCJob(job))
		}, "before the worker"},
		{"two workers", func(s *pitaya.Server) error {
			return errors.Join(s.RegisterRPCJob(job), s.StartWorker(), s.StartWorker())
		}, "started already"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: testLogger(t)})
				must(t, err)
				check := func(when string, err error) {
					if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
						t.Errorf("%s: got %v, want %q", when, err, tt.want)
					}
				}
				check("at once", tt.setUp(s))
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- s.Run(ctx) }()
				synctest.Wait()
				cancel()
				check("from Run", <-ran)
				if tt.want != "" {
					return
				}
				if err := s.StartWorker(); !errors.Is(err, pitaya.ErrServerClosed) {
					t.Errorf("after Run: got %v", err)
				}
			})
		})
	}
}

// A worker can be started, and jobs registered, while the server runs.
func TestWorkerStartsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := jobServer(t, nil, pitaya.Config{}, nil) // jobs in memory are what a server without a cluster has
		var done atomic.Int64
		enqueue(t, s, "x", 0)
		pass(time.Minute)
		must(t, s.RegisterRPCJob(jobFunc(func(context.Context, string, string) error { done.Add(1); return nil })), s.StartWorker())
		synctest.Wait()
		if done.Load() != 1 {
			t.Errorf("%d jobs are done", done.Load())
		}
		if err := s.StartWorker(); err == nil {
			t.Error("a second worker is started")
		}
	})
}

// The application's log handler may use the server when it is told that the worker has started.
func TestWorkerStartLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *pitaya.Server
		var saw error
		logs := logFunc(func(msg string) {
			if msg == "working on jobs" {
				saw = s.StartWorker()
			}
		})
		pitayatest.NewServer(t, pitaya.Config{Logger: slog.New(logs)}, func(server *pitaya.Server) {
			s = server
			must(t, s.RegisterRPCJob(jobFunc(func(context.Context, string, string) error { return nil })), s.StartWorker())
		})
		if saw == nil || !strings.Contains(saw.Error(), "started already") {
			t.Errorf("from the log handler: got %v", saw)
		}
	})
}

func TestReliableRPCErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle, err := pitaya.NewServer(pitaya.Config{Frontend: true})
		must(t, err)
		if _, err := idle.ReliableRPC(t.Context(), "a.b.c", nil, nil, nil); !errors.Is(err, pitaya.ErrServerNotRunning) {
			t.Errorf("before Run: got %v", err)
		}
		if _, err := idle.DeadJobs(t.Context(), 0, 1); !errors.Is(err, pitaya.ErrServerNotRunning) {
			t.Errorf("before Run: got %v", err)
		}
		s := jobServer(t, nil, pitaya.Config{}, nil)
		good := pitaya.RetryOptions{}
		for _, tt := range []struct {
			name, route string
			metadata    map[string]any
			arg         proto.Message
			opts        pitaya.RetryOptions
			want        string
		}{
			{"no route", "", nil, nil, good, "route"},
			{"no server type", "b.c", nil, nil, good, "server type"},
			{"metadata", "a.b.c", map[string]any{"f": func() {}}, nil, good, "metadata"},
			{"argument", "a.b.c", nil, wrapperspb.String("\xff"), good, "UTF-8"},
			{"what no worker would read", "a.b.c", nil, wrapperspb.Bytes(make([]byte, 8<<20)), good, "workers take"},
			{"retries", "a.b.c", nil, nil, pitaya.RetryOptions{Max: -1}, "Max"},
			{"exponent", "a.b.c", nil, nil, pitaya.RetryOptions{Exponential: 101}, "Exponential"},
			{"seconds without a unit", "a.b.c", nil, nil, pitaya.RetryOptions{MinDelay: 10}, "MinDelay of 10ns"},
			{"negative", "a.b.c", nil, nil, pitaya.RetryOptions{MaxRandom: -time.Second}, "MaxRandom"},
			{"too long", "a.b.c", nil, nil, pitaya.RetryOptions{MaxDelay: 25 * time.Hour}, "MaxDelay"},
			{"in the wrong order", "a.b.c", nil, nil, pitaya.RetryOptions{MinDelay: 2 * time.Second, MaxDelay: time.Second}, "above"},
		} {
			id, err := s.ReliableRPCWithOptions(t.Context(), tt.route, tt.metadata, nil, tt.arg, tt.opts)
			if err == nil || id != "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %q, %v, want %q", tt.name, id, err, tt.want)
			}
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.ReliableRPC(done, "a.b.c", nil, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("context: got %v", err)
		}
		if n, err := s.CountJobs(t.Context()); n != (pitaya.JobCount{}) {
			t.Errorf("left: %+v, %v", n, err)
		}
		s.Stop()
		if _, err := s.ReliableRPC(t.Context(), "a.b.c", nil, nil, nil); !errors.Is(err, pitaya.ErrServerClosed) && !errors.Is(err, pitaya.ErrJobStoreClosed) {
			t.Errorf("after Run: got %v", err)
		}
	})
}

// The functions of the package have Pitaya's arguments.
func TestDefaultReliableRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		must(t, pitaya.Configure(true, "room", pitaya.Standalone, nil, pitaya.Config{
			Logger: testLogger(t), Worker: pitaya.WorkerConfig{RetryMax: 1, RetryMinDelay: time.Minute},
		}))
		begin := time.Now()
		var ran []string
		must(t, pitaya.RegisterRPCJob(jobFunc(func(_ context.Context, route, arg string) error {
			ran = append(ran, fmt.Sprint(route, " ", arg, " ", time.Since(begin)))
			return errors.New("failed on purpose")
		})), pitaya.StartWorker())
		stop := startDefault(t)
		defer stop()
		id, err := pitaya.ReliableRPC("room.room.do", map[string]any{"k": 1}, &wrapperspb.StringValue{}, wrapperspb.String("a"))
		must(t, err)
		other, err := pitaya.ReliableRPCWithOptions("room.room.do", nil, nil, wrapperspb.String("b"), pitaya.RetryOptions{})
		must(t, err)
		if id == other || len(id) != 24 {
			t.Errorf("ids %q and %q", id, other)
		}
		pass(time.Hour)
		// The longest pause, 10 s by default, bounds the least one, as in Pitaya.
		if want := []string{"room.room.do a 0s", "room.room.do b 0s", "room.room.do a 10s"}; !slices.Equal(ran, want) {
			t.Errorf("ran %q, want %q", ran, want)
		}
	})
}

func TestWorkerSettingsMistakes(t *testing.T) {
	for _, tt := range []struct {
		cfg  pitaya.WorkerConfig
		want string
	}{
		{pitaya.WorkerConfig{Namespace: strings.Repeat("x", 65)}, "64 bytes"},
		{pitaya.WorkerConfig{Namespace: "\xff"}, "UTF-8"},
		{pitaya.WorkerConfig{RetryExponential: 101}, "100"},
		{pitaya.WorkerConfig{Concurrency: -1}, "concurrency"},
	} {
		if _, err := pitaya.NewServer(pitaya.Config{Worker: tt.cfg}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v", tt.cfg, err)
		}
	}
}
