// Worker is a shop whose mails are sent by another server: later, again if that fails, and also if a server ends in between.
//
//	go run ./examples/worker
//
// runs both in one process, with the jobs in its memory. With a NATS that keeps jobs they can be processes of their own, as
// many of each as you like; end one of them in the midst of its work, and see that no mail is missing:
//
//	go run -C internal/devcluster . -nats 127.0.0.1:4222 -jetstream
//	go run ./examples/worker -nats nats://127.0.0.1:4222 -role mail
//	go run ./examples/worker -nats nats://127.0.0.1:4222 -role shop -orders 10
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// run is the program. It ends with ctx, and after so many orders if it is told to.
func run(ctx context.Context, args []string, out, stderr io.Writer) (err error) {
	fs := flag.NewFlagSet("worker", flag.ContinueOnError)
	fs.SetOutput(stderr)
	nats := fs.String("nats", "", "keep the jobs in the JetStream of the NATS at this `URL`, not in memory")
	role := fs.String("role", "both", "be the server that orders come to (shop), the one that sends mails (mail), or both")
	orders := fs.Int("orders", 0, "end after so many orders; 0 goes on for ever")
	every := fs.Duration("every", time.Second, "the time from one order to the next")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *role != "both" && *role != "shop" && *role != "mail" {
		return fmt.Errorf("there is no role %q", *role)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	var jobs pitaya.JobStore = pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{})
	if *nats != "" {
		jobs, err = pitaya.NewNATSJobs(pitaya.NATSConfig{URL: *nats}, pitaya.NATSJobsOptions{Namespace: "shop"}, log)
		if err != nil {
			return err
		}
	}
	defer jobs.Close(context.WithoutCancel(ctx))

	ctx, stop := context.WithCancel(ctx)
	var servers sync.WaitGroup
	defer servers.Wait() // before the store is closed
	defer stop()
	cluster := pitaya.NewMemCluster()
	start := func(serverType string, setUp func(*pitaya.Server) error) (*pitaya.Server, error) {
		cfg := pitaya.Config{Type: serverType, Cluster: true, Jobs: jobs, Logger: log}
		cfg.Discovery, cfg.Transport = cluster.Node()
		s, err := pitaya.NewServer(cfg)
		if err != nil {
			return nil, err
		}
		if err := setUp(s); err != nil {
			return nil, err
		}
		ran := make(chan error, 1)
		servers.Go(func() { ran <- s.Run(ctx) })
		select {
		case <-s.Ready():
			return s, nil
		case err := <-ran:
			return nil, err
		}
	}
	if *role != "shop" {
		mails := &Mail{out: out, tried: make(map[string]bool), sent: make(map[string]bool)}
		_, err := start("mail", func(s *pitaya.Server) error {
			return errors.Join(
				s.RegisterRemote(mails, pitaya.WithName("mail")),
				s.RegisterRPCJob(mailJob{pitaya.NewRPCJob(s)}),
				s.StartWorker(),
			)
		})
		if err != nil {
			return err
		}
	}
	if *role == "mail" {
		<-ctx.Done()
		return nil
	}
	shop, err := start("shop", func(*pitaya.Server) error { return nil })
	if err != nil {
		return err
	}
	return sell(ctx, shop, out, *orders, *every, *role == "both")
}

// sell enqueues a job for each order. Then it waits until all are done, if it is to.
func sell(ctx context.Context, shop *pitaya.Server, out io.Writer, orders int, every time.Duration, wait bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; orders == 0 || n <= orders; n++ {
		order := fmt.Sprint("order ", n)
		id, err := shop.ReliableRPCWithOptions(ctx, "mail.mail.Send", nil, &emptypb.Empty{}, wrapperspb.String(order),
			pitaya.RetryOptions{Enabled: true, Max: 3, Exponential: 1, MinDelay: 100 * time.Millisecond})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // no order is taken whose receipt might be lost
			fmt.Fprintf(out, "shop: %s is refused: %v\n", order, err)
		} else {
			fmt.Fprintf(out, "shop: %s, the receipt is job %s\n", order, id)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	for wait {
		left, err := shop.CountJobs(ctx)
		if err != nil {
			return err
		}
		if left.Queued+left.Retrying == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	dead, err := shop.DeadJobs(ctx, 0, 10)
	for _, d := range dead {
		// An operator would look at it, change what is wrong, and call shop.RequeueDeadJob(ctx, d.ID).
		fmt.Fprintf(out, "shop: a receipt was given up after %d runs: %s\n", d.Failures, d.Reason)
	}
	return err
}

// Mail is a remote of the server that sends mails.
type Mail struct {
	pitaya.Base
	out io.Writer

	mu          sync.Mutex // guards the fields below
	tried, sent map[string]bool
}

const codeNoAddress = "MAIL-ADDRESS"

// Send sends the receipt of an order. Every third one finds the mail server busy, and is sent when it comes again; every
// fourth one has no address.
func (m *Mail) Send(ctx context.Context, order *wrapperspb.StringValue) (*emptypb.Empty, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var n int
	fmt.Sscanf(order.Value, "order %d", &n)
	switch first := !m.tried[order.Value]; {
	case m.sent[order.Value]:
		return &emptypb.Empty{}, nil // a job may come twice, and a customer wants one receipt
	case n%4 == 0:
		return nil, pitaya.Errorf(codeNoAddress, "%s has no address", order.Value)
	case n%3 == 0 && first:
		m.tried[order.Value] = true
		fmt.Fprintf(m.out, "mail: too busy for %s\n", order.Value)
		return nil, errors.New("the mail server is busy")
	}
	m.sent[order.Value] = true
	fmt.Fprintf(m.out, "mail: receipt for %s\n", order.Value)
	return &emptypb.Empty{}, nil
}

// mailJob calls the remote as every worker does, and knows which errors last.
type mailJob struct{ pitaya.RPCJob }

// RPC implements [pitaya.RPCJob].
func (j mailJob) RPC(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	err := j.RPCJob.RPC(ctx, serverID, route, reply, arg)
	if pitaya.ErrorCode(err) == codeNoAddress {
		return fmt.Errorf("%w: %w", pitaya.ErrNoRetry, err)
	}
	return err
}
