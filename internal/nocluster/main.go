// Nocluster is a server for the test of the build tag of its name. It runs until its standard input ends, with the settings
// of its flags, and prints where it listens; with -mem it is a cluster of two in memory, and calls its other half; with -features it tries the rest of the library first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("left out:", errors.Is(err, pitaya.ErrLeftOut))
		fmt.Println(err)
		os.Exit(1)
	}
}

// Echo is a handler and a remote.
type Echo struct{ pitaya.Base }

// Text is what Say is told and answers.
type Text struct{ Text string }

// Say answers with what it is told.
func (*Echo) Say(_ context.Context, in *Text) (*Text, error) { return in, nil }

// Double is the remote.
func (*Echo) Double(_ context.Context, in *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
	return wrapperspb.Int64(2 * in.Value), nil
}

func run() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg := pitaya.Config{Type: "echo", Frontend: true}
	mem := flag.Bool("mem", false, "run a cluster in memory")
	rest := flag.Bool("features", false, "try what must work all the same")
	constructors := flag.Bool("constructors", false, "try what stands on etcd and NATS")
	if err := cfg.Load(flag.CommandLine, os.Args[1:], nil); err != nil {
		return err
	}
	if *constructors {
		return construct()
	}
	if *rest {
		if err := features(ctx); err != nil {
			return err
		}
	}
	cluster := pitaya.NewMemCluster()
	ended := make(chan error, 1)
	if *mem {
		other := pitaya.Config{Type: "double", Cluster: true}
		other.Discovery, other.Transport = cluster.Node()
		s, err := pitaya.NewServer(other)
		if err != nil {
			return err
		}
		if err := s.RegisterRemote(&Echo{}); err != nil {
			return err
		}
		go func() { ended <- s.Run(ctx) }()
		<-s.Ready()
		cfg.Cluster = true
		cfg.Discovery, cfg.Transport = cluster.Node()
	} else {
		ended <- nil
	}
	tcp, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	cfg.Listeners = []net.Listener{tcp}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		tcp.Close()
		return err
	}
	if err := s.Register(&Echo{}); err != nil {
		return err
	}
	go func() {
		defer cancel()
		<-s.Ready()
		if *mem {
			n, err := pitaya.Call[wrapperspb.Int64Value](ctx, s, "double.Echo.Double", wrapperspb.Int64(21))
			fmt.Println("doubled:", n.GetValue(), err)
			_, err = s.ReliableRPC(ctx, "double.Echo.Double", nil, nil, nil)
			fmt.Println("jobs:", errors.Is(err, pitaya.ErrLeftOut))
		}
		fmt.Println("listening:", tcp.Addr())
		io.Copy(io.Discard, os.Stdin)
	}()
	err = s.Run(ctx)
	return errors.Join(err, <-ended)
}

// construct makes everything that stands on etcd and NATS. It returns an error that is [pitaya.ErrLeftOut] only if all are.
func construct() error {
	_, discovery := pitaya.NewEtcdDiscovery(pitaya.EtcdConfig{}, nil)
	_, groups := pitaya.NewEtcdGroups(pitaya.GroupsEtcdConfig{}, nil)
	_, bindings := pitaya.NewEtcdBindings(pitaya.BindingEtcdConfig{}, "echo", "1", nil)
	_, transport := pitaya.NewNATSTransport(pitaya.NATSConfig{}, pitaya.NATSConfig{}, nil)
	_, jobs := pitaya.NewNATSJobs(pitaya.NATSConfig{}, pitaya.NATSJobsOptions{}, nil)
	for _, err := range []error{discovery, groups, bindings, transport, jobs} {
		if !errors.Is(err, pitaya.ErrLeftOut) {
			return fmt.Errorf("one can be made, or fails for another reason: %v", err)
		}
	}
	return discovery
}
