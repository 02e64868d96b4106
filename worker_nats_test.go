package pitaya_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

var workerChild = flag.String("worker.child", "", "be a worker on the jobs in the NATS at this URL, not a test")

// natsJobs returns a store in a NATS.
func natsJobs(t testing.TB, url string, opts pitaya.NATSJobsOptions) *pitaya.NATSJobs {
	t.Helper()
	s, err := pitaya.NewNATSJobs(pitaya.NATSConfig{URL: url, ReconnectWait: 20 * time.Millisecond, ReconnectJitter: -1}, opts, testLogger(t))
	must(t, err)
	t.Cleanup(func() { s.Close(t.Context()) })
	return s
}

// jetStream connects to a NATS, as somebody who is no server of a game.
func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	must(t, err)
	return js
}

// jobsDone starts a worker on a store and returns a channel of the arguments of the jobs that it has done.
func jobsDone(t testing.TB, store pitaya.JobStore) (*pitayatest.Server, <-chan string) {
	done := make(chan string, 1000)
	return jobServer(t, store, pitaya.Config{}, func(_ context.Context, _, arg string) error {
		done <- arg
		return nil
	}), done
}

// take takes n arguments and returns them in order.
func take(t testing.TB, done <-chan string, n int) []string {
	t.Helper()
	late := time.After(realTime)
	var list []string
	for range n {
		select {
		case arg := <-done:
			list = append(list, arg)
		case <-late:
			t.Fatalf("done within %v: %q", realTime, list)
		}
	}
	slices.Sort(list)
	return list
}

// settled waits until the queue is empty: a job is done before the store knows.
func settled(t testing.TB, store pitaya.JobStore, dead int64) {
	t.Helper()
	late := time.After(realTime)
	for {
		n, err := store.Count(t.Context())
		must(t, err)
		if n == (pitaya.JobCount{Dead: dead}) {
			return
		}
		select {
		case <-late:
			t.Fatalf("left: %+v", n)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestNATSJobs(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, "-jetstream")
	const lease = 4800 * time.Millisecond
	open := func(t testing.TB) pitaya.JobStore {
		return natsJobs(t, nats.URL(), pitaya.NATSJobsOptions{Namespace: t.Name()[max(0, len(t.Name())-64):], Lease: lease})
	}
	pitayatest.TestJobStore(t, pitayatest.JobStoreOptions{
		Open:  open,
		Other: func(t testing.TB, _ pitaya.JobStore) pitaya.JobStore { return open(t) },
		Lease: lease,
		Slack: 1190 * time.Millisecond,
	})
}

// runWorkerChild is the main function of a worker in a process of its own, which ends with its standard input. It says
// which jobs it begins, and never gets done with one that is to hang.
func runWorkerChild(url string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := pitaya.NewNATSJobs(pitaya.NATSConfig{URL: url}, pitaya.NATSJobsOptions{}, log)
	if err != nil {
		return err
	}
	srv, err := pitaya.NewServer(pitaya.Config{Frontend: true, Jobs: store, Logger: log})
	if err != nil {
		return err
	}
	err = errors.Join(srv.RegisterRPCJob(jobFunc(func(ctx context.Context, _, arg string) error {
		fmt.Println(arg)
		if arg == "hang" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})), srv.StartWorker())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-srv.Ready()
		if _, err := srv.ReliableRPC(ctx, "room.room.do", nil, nil, wrapperspb.String("of the child")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Println("enqueued")
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return errors.Join(srv.Run(ctx), store.Close(context.Background()))
}

// A process that is killed in the midst of a job leaves it, and those that it has enqueued, to another one.
func TestWorkerProcessKilled(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, "-jetstream")
	store := natsJobs(t, nats.URL(), pitaya.NATSJobsOptions{Lease: time.Second}) // the consumer is made by it
	gate := jobServer(t, store, pitaya.Config{}, nil)
	enqueue(t, gate, "hang", 0)

	exe, err := os.Executable()
	must(t, err)
	child := exec.Command(exe, "-worker.child", nats.URL())
	child.Stderr = t.Output()
	devtest.OwnGroup(child)
	stdin, err := child.StdinPipe()
	must(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	kill := func() { child.Process.Kill() }
	late := time.AfterFunc(realTime, kill)
	defer late.Stop()
	lines := bufio.NewScanner(stdout)
	for said := []string{}; !slices.Contains(said, "hang") || !slices.Contains(said, "enqueued"); {
		if !lines.Scan() {
			t.Fatalf("the child said %q and ended", said)
		}
		said = append(said, lines.Text())
	}
	for i := range 5 {
		enqueue(t, gate, fmt.Sprint(i), 0)
	}
	kill()
	child.Wait() // the error says that it was killed

	worker, done := jobsDone(t, store)
	if got, want := take(t, done, 7), []string{"0", "1", "2", "3", "4", "hang", "of the child"}; !slices.Equal(got, want) {
		t.Errorf("done: %q, want %q", got, want)
	}
	settled(t, store, 0)
	if s := worker.Stats(); s.JobsDone != 7 || s.JobsFailed != 0 {
		t.Errorf("%+v", s)
	}
}

// NATS ends in the midst of a job and comes back: what is in the queue is done once, and meanwhile nothing is taken in.
func TestWorkerNATSOutage(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stopped", "killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			nats := startNATS(t, "-jetstream")
			store := natsJobs(t, nats.URL(), pitaya.NATSJobsOptions{Lease: 10 * time.Second})
			begun, held, done := make(chan string, 10), make(chan struct{}), make(chan string, 10)
			s := jobServer(t, store, pitaya.Config{}, func(_ context.Context, _, arg string) error {
				begun <- arg
				<-held
				done <- arg
				return nil
			})
			enqueue(t, s, "a", 0)
			take(t, begun, 1)
			enqueue(t, s, "b", 0)
			if how == "killed" {
				nats.Kill()
			} else {
				nats.Stop()
			}
			begin := time.Now()
			for {
				_, err := s.ReliableRPC(t.Context(), "room.room.do", nil, nil, nil)
				if errors.Is(err, pitaya.ErrUnreachable) {
					break
				}
				// The first call may have been under way.
				if !errors.Is(err, pitaya.ErrNoAnswer) || time.Since(begin) > realTime {
					t.Fatalf("after %v: %v", time.Since(begin), err)
				}
			}
			close(held) // a is done while there is nobody to tell
			take(t, done, 1)
			nats.Start()
			if got := take(t, done, 1); got[0] != "b" {
				t.Errorf("then %q was done", got)
			}
			settled(t, store, 0)
			if st := s.Stats(); st.JobsDone != 2 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A NATS that comes back without its data gets its streams again.
func TestWorkerNATSEmpty(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, "-jetstream")
	store := natsJobs(t, nats.URL(), pitaya.NATSJobsOptions{})
	s, done := jobsDone(t, store)
	enqueue(t, s, "a", 0)
	take(t, done, 1)
	settled(t, store, 0)
	nats.Stop()
	nats.StartEmpty()
	for begin := time.Now(); ; {
		_, err := s.ReliableRPC(t.Context(), "room.room.do", nil, nil, wrapperspb.String("b"))
		if err == nil {
			break
		}
		if !errors.Is(err, pitaya.ErrUnreachable) && !errors.Is(err, pitaya.ErrNoAnswer) || time.Since(begin) > realTime {
			t.Fatal(err)
		}
	}
	if got := take(t, done, 1); got[0] != "b" {
		t.Errorf("done: %q", got)
	}
	settled(t, store, 0)

	// So does a server that stays connected while somebody deletes them.
	other := natsJobs(t, nats.URL(), pitaya.NATSJobsOptions{Namespace: "other"})
	must(t, other.Enqueue(t.Context(), "a", nil), jetStream(t, nats.URL()).DeleteStream(t.Context(), "pitaya-jobs-other"))
	if err := other.Enqueue(t.Context(), "b", nil); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("the first to notice: got %v", err)
	}
	must(t, other.Enqueue(t.Context(), "c", nil))
}

// What somebody has put into the stream is put aside, whatever it is, and goes round no loop.
func TestNATSJobsGarbage(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "-jetstream")
	store := natsJobs(t, server.URL(), pitaya.NATSJobsOptions{Lease: time.Second})
	_, err := store.Count(t.Context()) // makes the streams
	must(t, err)
	js := jetStream(t, server.URL())
	far := fmt.Sprint(time.Now().Add(1000 * time.Hour).UnixMilli())
	for i, m := range []*nats.Msg{
		{Subject: "pitaya.jobs._.new"},
		{Subject: "pitaya.jobs._.new", Data: []byte("\xff\x00")},
		{Subject: "pitaya.jobs._.new", Header: nats.Header{"Status": {"404"}}},
		{Subject: "pitaya.jobs._.new", Header: nats.Header{"Status": {"100"}, "Pitaya-Job-Id": {"beat"}}},
		{Subject: "pitaya.jobs._.retry", Header: nats.Header{"Pitaya-Job-Id": {"a.*.>"}, "Pitaya-Job-Failures": {"-5"}, "Pitaya-Job-Due": {far}}},
		{Subject: "pitaya.jobs._.retry", Header: nats.Header{"Pitaya-Job-Id": {"due"}, "Pitaya-Job-Failures": {"9999999999999999999"}, "Pitaya-Job-Due": {"-9223372036854775808"}}},
		{Subject: "pitaya.jobs._.new", Header: nats.Header{"Pitaya-Job-Id": {"large"}}, Data: make([]byte, 1<<20-200)},
		{Subject: "pitaya.jobs._.new", Header: nats.Header{"Status": {"100"}}},
		{Subject: "pitaya.jobs._.retry", Header: nats.Header{"Pitaya-Job-Id": {"most"}, "Pitaya-Job-Failures": {"9223372036854775807"}}},
	} {
		_, err := js.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	s, done := jobsDone(t, store)
	enqueue(t, s, "good", 0)
	if got := take(t, done, 1); got[0] != "good" {
		t.Errorf("done: %q", got)
	}
	settled(t, store, 9)
	dead, err := s.DeadJobs(t.Context(), 0, 100)
	must(t, err)
	var ids []string
	for _, d := range dead {
		ids = append(ids, d.ID)
		failures := 0
		if d.ID == "most" {
			failures = math.MaxInt32
		}
		if d.Failures != failures || !strings.Contains(d.Reason, "malformed") {
			t.Errorf("%s: %d failures, because %q", d.ID, d.Failures, d.Reason)
		}
		must(t, s.DeleteDeadJob(t.Context(), d.ID))
	}
	slices.Sort(ids)
	if want := []string{"beat", "due", "large", "most", "seq-1", "seq-2", "seq-3", "seq-5", "seq-8"}; !slices.Equal(ids, want) {
		t.Errorf("dead: %q, want %q", ids, want)
	}
}

// Limits of the streams, and streams that are there already.
func TestNATSJobsLimits(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "-jetstream")
	ctx := t.Context()
	opts := pitaya.NATSJobsOptions{Namespace: "a.b *>_/ü", MaxJobs: 2, MaxDead: 2, Lease: time.Minute}
	s := natsJobs(t, server.URL(), opts)
	must(t, s.Enqueue(ctx, "a", []byte("x")), s.Enqueue(ctx, "b", []byte("x")))
	if err := s.Enqueue(ctx, "c", []byte("x")); !errors.Is(err, pitaya.ErrJobQueueFull) {
		t.Errorf("a third job: got %v", err)
	}
	if err := s.Enqueue(ctx, "d", make([]byte, 1<<20)); err == nil || errors.Is(err, pitaya.ErrUnreachable) || errors.Is(err, pitaya.ErrJobQueueFull) {
		t.Errorf("too large a job: got %v", err)
	}
	// In a queue that is full, a job that has failed waits nevertheless.
	l, err := s.Fetch(ctx)
	must(t, err)
	begin := time.Now()
	must(t, l.Retry(ctx, 100*time.Millisecond))
	for range 2 {
		l, err := s.Fetch(ctx)
		must(t, err, l.Bury(ctx, true, "x"))
	}
	if time.Since(begin) < 80*time.Millisecond {
		t.Error("it was due at once")
	}
	must(t, s.Enqueue(ctx, "e", []byte("x")))
	l, err = s.Fetch(ctx)
	must(t, err, l.Bury(ctx, true, "x"))
	if n, err := s.Count(ctx); n != (pitaya.JobCount{Dead: 2}) {
		t.Errorf("%+v, %v", n, err)
	}

	// The limits are those with which the streams were made, and the lease is the consumer's.
	opts.MaxJobs, opts.Lease = 100, time.Second
	other := natsJobs(t, server.URL(), opts)
	must(t, other.Enqueue(ctx, "f", []byte("x")), other.Enqueue(ctx, "g", []byte("x")))
	if err := other.Enqueue(ctx, "h", []byte("x")); !errors.Is(err, pitaya.ErrJobQueueFull) {
		t.Errorf("a third job with another limit: got %v", err)
	}
	l, err = other.Fetch(ctx)
	must(t, err)
	if l.Duration() != time.Minute {
		t.Errorf("the lease lasts %v", l.Duration())
	}
	// Namespaces that look alike are apart.
	for _, namespace := range []string{"", "_", "a.b", "a_2Eb", "A.B"} {
		opts.Namespace = namespace
		if n, err := natsJobs(t, server.URL(), opts).Count(ctx); n != (pitaya.JobCount{}) {
			t.Errorf("%q: %+v, %v", namespace, n, err)
		}
	}
	// A stream of that name that is something else.
	_, err = jetStream(t, server.URL()).CreateStream(ctx, jetstream.StreamConfig{Name: "pitaya-jobs-taken", Subjects: []string{"taken"}})
	must(t, err)
	opts.Namespace = "taken"
	if err := natsJobs(t, server.URL(), opts).Enqueue(ctx, "a", nil); err == nil || !strings.Contains(err.Error(), "pitaya-jobs-taken") {
		t.Errorf("a stream that is none for jobs: got %v", err)
	}
}

// The options are what the streams are made with, and without them the queue and the dead are bounded nevertheless.
func TestNATSJobsStreams(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "-jetstream")
	type limits struct {
		jobs, bytes int64
		age         time.Duration
		replicas    int
	}
	for _, tt := range []struct {
		name        string
		opts        pitaya.NATSJobsOptions
		queue, dead limits
	}{
		{"defaults", pitaya.NATSJobsOptions{}, limits{1_000_000, 256 << 20, 0, 1}, limits{100_000, 64 << 20, 0, 1}},
		{"options", pitaya.NATSJobsOptions{
			MaxJobs: 10, MaxBytes: 1 << 20, MaxAge: time.Hour, MaxDead: 5, MaxDeadBytes: 1 << 19, MaxDeadAge: 24 * time.Hour,
		}, limits{10, 1 << 20, time.Hour, 1}, limits{5, 1 << 19, 24 * time.Hour, 1}},
	} {
		tt.opts.Namespace = tt.name
		_, err := natsJobs(t, server.URL(), tt.opts).Count(t.Context()) // makes them
		must(t, err)
		for name, want := range map[string]limits{"pitaya-jobs-": tt.queue, "pitaya-dead-": tt.dead} {
			stream, err := jetStream(t, server.URL()).Stream(t.Context(), name+tt.name)
			must(t, err)
			c := stream.CachedInfo().Config
			if got := (limits{c.MaxMsgs, c.MaxBytes, c.MaxAge, c.Replicas}); got != want {
				t.Errorf("%s%s: got %+v, want %+v", name, tt.name, got, want)
			}
		}
	}
	// One server cannot keep two copies, and says so.
	if err := natsJobs(t, server.URL(), pitaya.NATSJobsOptions{Namespace: "two", Replicas: 2}).Enqueue(t.Context(), "a", nil); err == nil {
		t.Error("two replicas on one server")
	}
}

// Attempts to connect for jobs are as far apart as the settings say for connections of their kind.
func TestNATSJobsJitter(t *testing.T) {
	t.Parallel()
	_, client := testTLS(t)
	const never = 1000 * time.Hour
	for _, tt := range []struct {
		name string
		cfg  pitaya.NATSConfig
	}{
		{"plain", pitaya.NATSConfig{ReconnectJitter: -1, ReconnectJitterTLS: never}},
		{"TLS", pitaya.NATSConfig{ReconnectJitter: never, ReconnectJitterTLS: -1, TLSConfig: client}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			tt.cfg.URL, tt.cfg.ReconnectWait = "nats://"+l.Addr().String(), time.Millisecond
			store, err := pitaya.NewNATSJobs(tt.cfg, pitaya.NATSJobsOptions{}, testLogger(t))
			must(t, err)
			var calls sync.WaitGroup
			defer calls.Wait()
			defer store.Close(t.Context())
			calls.Go(func() { _, _ = store.Count(t.Context()) }) // connects
			for range 4 {
				must(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(realTime)))
				c, err := l.Accept()
				must(t, err)
				c.Close()
			}
		})
	}
}

func TestNewNATSJobs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  pitaya.NATSConfig
		opts pitaya.NATSJobsOptions
		want string
	}{
		{pitaya.NATSConfig{URL: "nats://"}, pitaya.NATSJobsOptions{}, "not a URL"},
		{pitaya.NATSConfig{CredentialsFile: "no such file"}, pitaya.NATSJobsOptions{}, "no such file"},
		{pitaya.NATSConfig{}, pitaya.NATSJobsOptions{Namespace: strings.Repeat("x", 65)}, "64 bytes"},
	} {
		if _, err := pitaya.NewNATSJobs(tt.cfg, tt.opts, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
	// Nobody there, and a NATS that keeps nothing.
	s := natsJobs(t, "nats://"+freeAddress(t), pitaya.NATSJobsOptions{})
	if err := s.Enqueue(t.Context(), "a", nil); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("nobody there: got %v", err)
	}
	s = natsJobs(t, startNATS(t).URL(), pitaya.NATSJobsOptions{})
	if err := s.Enqueue(t.Context(), "a", nil); !errors.Is(err, pitaya.ErrUnreachable) || !strings.Contains(err.Error(), "JetStream") {
		t.Errorf("without JetStream: got %v", err)
	}
}

// Without Config.Jobs the jobs of a cluster are in the NATS of the settings.
func TestWorkerSettings(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "-jetstream")
	cluster := pitayatest.NewCluster(t)
	cfg := pitaya.Config{
		Type: "room", NATSClient: pitaya.NATSConfig{URL: server.URL()}, Worker: pitaya.WorkerConfig{Namespace: "game"},
	}
	room := new(JobRoom)
	s := cluster.NewServer(t, cfg, func(s *pitaya.Server) {
		must(t, s.RegisterRemote(room, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)), s.StartWorker())
	})
	enqueue(t, s, "hello", 0)
	store := natsJobs(t, server.URL(), pitaya.NATSJobsOptions{Namespace: "game"})
	settled(t, store, 0)
	room.mu.Lock()
	defer room.mu.Unlock()
	if !slices.Equal(room.done, []string{"hello"}) {
		t.Errorf("done: %q", room.done)
	}
}
