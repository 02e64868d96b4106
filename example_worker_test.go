package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log"

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

// After the reason is gone, all dead jobs are tried again.
func ExampleServer_DeadJobs() {
	_ = func(ctx context.Context, srv *pitaya.Server) error {
		for after := uint64(0); ; {
			dead, err := srv.DeadJobs(ctx, after, 100)
			if err != nil || len(dead) == 0 {
				return err
			}
			for _, d := range dead {
				after = d.Seq
				job, err := pitaya.ParseJob(d.Body)
				if err != nil {
					continue // it was none
				}
				fmt.Println(d.ID, job.Route, d.Failures, d.Reason)
				if err := srv.RequeueDeadJob(ctx, d.ID); err != nil && !errors.Is(err, pitaya.ErrJobNotFound) {
					return err
				}
			}
		}
	}
}
