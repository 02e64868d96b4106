package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// Wallet is a remote that credits purchases, each once.
type Wallet struct {
	pitaya.Base
	seen map[string]bool
	done chan struct{}
}

// Credit bears being called twice for a purchase, as what a job calls must.
func (w *Wallet) Credit(ctx context.Context, purchase *wrapperspb.StringValue) (*emptypb.Empty, error) {
	if !w.seen[purchase.Value] {
		w.seen[purchase.Value] = true
		fmt.Println("credited", purchase.Value)
		close(w.done)
	}
	return &emptypb.Empty{}, nil
}

// One server enqueues a call, and the worker of another one makes it.
func ExampleServer_ReliableRPC() {
	ctx, cancel := context.WithCancel(context.Background())
	jobs, cluster := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{}), pitaya.NewMemCluster()
	ended := make(chan error)
	start := func(serverType string, setUp func(*pitaya.Server) error) *pitaya.Server {
		cfg := pitaya.Config{Type: serverType, Cluster: true, Jobs: jobs} // without Jobs, it is NATS JetStream
		cfg.Discovery, cfg.Transport = cluster.Node()
		srv, err := pitaya.NewServer(cfg)
		if err == nil {
			err = setUp(srv)
		}
		if err != nil {
			log.Fatal(err)
		}
		go func() { ended <- srv.Run(ctx) }()
		<-srv.Ready()
		return srv
	}
	wallet := &Wallet{seen: make(map[string]bool), done: make(chan struct{})}
	start("wallet", func(s *pitaya.Server) error {
		return errors.Join(s.RegisterRemote(wallet, pitaya.WithName("wallet")), s.StartWorker())
	})
	shop := start("shop", func(*pitaya.Server) error { return nil })

	// In a handler, with its context. When it returns nil the purchase cannot be lost any more.
	_, err := shop.ReliableRPC(ctx, "wallet.wallet.Credit", nil, &emptypb.Empty{}, wrapperspb.String("purchase 7"))
	if err != nil {
		log.Fatal(err)
	}
	<-wallet.done

	cancel()
	fmt.Println(errors.Join(<-ended, <-ended))
	// Output:
	// credited purchase 7
	// <nil>
}

// shardJob sends each job to the server that its metadata names, and does not try again what can never succeed.
type shardJob struct{ pitaya.RPCJob }

func (shardJob) ServerDiscovery(route string, metadata map[string]any) (string, error) {
	id, _ := metadata["shard"].(string) // "" lets the routing function choose
	return id, nil
}

func (j shardJob) RPC(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	err := j.RPCJob.RPC(ctx, serverID, route, reply, arg)
	if pitaya.ErrorCode(err) == pitaya.CodeNotFound {
		return fmt.Errorf("%w: %w", pitaya.ErrNoRetry, err)
	}
	return err
}

// An RPCJob of one's own has one method or the other of the usual one changed.
func ExampleNewRPCJob() {
	cfg := pitaya.Config{Type: "worker", Cluster: true}
	cfg.Discovery, cfg.Transport = pitaya.NewMemCluster().Node()
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.RegisterRPCJob(shardJob{pitaya.NewRPCJob(srv)}), srv.StartWorker())
	// Output: <nil> <nil>
}

// MailJob says what a worker does with a job. It embeds what calls the remote,
// as RPC does, and prints what becomes of that.
type MailJob struct {
	pitaya.RPCJob
	done chan struct{}
}

// RPC runs at least once for each job.
func (j *MailJob) RPC(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	to := arg.(*wrapperspb.StringValue).Value
	if to == "" {
		j.done <- struct{}{}
		return fmt.Errorf("a mail to nobody: %w", pitaya.ErrNoRetry)
	}
	err := j.RPCJob.RPC(ctx, serverID, route, reply, arg)
	fmt.Println("mail to", to, err)
	j.done <- struct{}{}
	return err
}

// Mail has the remote mail.Mail.Send.
type Mail struct{ pitaya.Base }

// Send must bear being done twice.
func (*Mail) Send(ctx context.Context, to *wrapperspb.StringValue) (*wrapperspb.BoolValue, error) {
	fmt.Println("sending to", to.Value)
	return wrapperspb.Bool(true), nil
}

// Jobs that nobody tries any more are kept for people, who look at them, and delete them or have them tried again.
func ExampleServer_DeadJobs() {
	cluster := newExampleCluster()
	defer cluster.stop()
	jobs := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{})
	done := make(chan struct{})
	discovery, transport := cluster.Node()
	server, err := pitaya.NewServer(pitaya.Config{
		Type: "mail", ID: "mail-1", Cluster: true, Discovery: discovery, Transport: transport, Logger: discard,
		Jobs: jobs, Worker: pitaya.WorkerConfig{Concurrency: 1, RetryMax: 3},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = errors.Join(
		server.RegisterRemote(&Mail{}),
		server.RegisterRPCJob(&MailJob{RPCJob: pitaya.NewRPCJob(server), done: done}),
		server.StartWorker(), // on some servers of a cluster
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	<-server.Ready()

	id, err := server.ReliableRPC(ctx, "mail.Mail.Send", nil, &wrapperspb.BoolValue{}, wrapperspb.String("ann"))
	<-done
	fmt.Println(id != "", err) // it was kept: that is all this says

	for _, to := range []string{"", "bob"} { // with one worker, the first is settled when the second begins
		server.ReliableRPC(ctx, "mail.Mail.Send", nil, &wrapperspb.BoolValue{}, wrapperspb.String(to))
		<-done
	}
	count, err := server.CountJobs(ctx)
	fmt.Println("dead:", count.Dead, err)
	dead, err := server.DeadJobs(ctx, 0, 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := pitaya.ParseJob(dead[0].Body)
	fmt.Println(info.Route, info.Server, err)
	fmt.Println(dead[0].Reason)
	fmt.Println(server.DeleteDeadJob(ctx, dead[0].ID)) // or RequeueDeadJob
	fmt.Println(errors.Is(server.RequeueDeadJob(ctx, dead[0].ID), pitaya.ErrJobNotFound))
	stop()
	fmt.Println(<-ended)
	// Output:
	// sending to ann
	// mail to ann <nil>
	// true <nil>
	// sending to bob
	// mail to bob <nil>
	// dead: 1 <nil>
	// mail.Mail.Send mail-1 <nil>
	// a mail to nobody: pitaya: the job is not to be tried again
	// <nil>
	// true
	// <nil>
}

// The pauses between retries grow.
func ExampleRetryOptions() {
	o := pitaya.RetryOptions{Enabled: true, Max: 4, Exponential: 2, MinDelay: time.Second, MaxDelay: 8 * time.Second}
	for failures := range o.Max {
		fmt.Println(o.Delay(failures + 1))
	}
	// Output:
	// 1s
	// 2s
	// 5s
	// 8s
}

// The store in memory is for tests; those that a cluster shares have the same
// methods. A worker does what stands here.
func ExampleMemoryJobs() {
	ctx := context.Background()
	var store pitaya.JobStore = pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{MaxJobs: 1})
	fmt.Println(store.Enqueue(ctx, "job-1", []byte("body")))
	fmt.Println(errors.Is(store.Enqueue(ctx, "job-2", nil), pitaya.ErrJobQueueFull))

	lease, err := store.Fetch(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	job := lease.Job()
	fmt.Println(job.ID, string(job.Body), job.Deliveries, job.Failures)
	fmt.Println(lease.Bury(ctx, true, "of no use"), errors.Is(lease.Extend(ctx), pitaya.ErrLeaseLost))
	count, err := store.Count(ctx)
	fmt.Println(count.Queued, count.Dead, err)
	dead, err := store.DeadJobs(ctx, 0, 10)
	fmt.Println(dead[0].ID, dead[0].Reason, err)
	fmt.Println(store.RequeueDead(ctx, "job-1"))

	fmt.Println(store.Close(ctx))
	_, err = store.Fetch(ctx)
	fmt.Println(errors.Is(err, pitaya.ErrJobStoreClosed))
	// Output:
	// <nil>
	// true
	// job-1 body 1 0
	// <nil> true
	// 0 1 <nil>
	// job-1 of no use <nil>
	// <nil>
	// <nil>
	// true
}
