package pitaya_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// memServer runs a server of a cluster in memory.
func memServer(t *testing.T, c *pitaya.MemCluster, cfg pitaya.Config, setup func(*pitaya.Server)) (*pitaya.Server, *pitaya.MemListener) {
	t.Helper()
	cfg.Cluster = true
	cfg.Discovery, cfg.Transport = c.Node()
	cfg.Logger = testLogger(t)
	var l *pitaya.MemListener
	if cfg.Frontend {
		l = pitaya.ListenMem()
		cfg.Listeners = append(cfg.Listeners, l)
	}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(srv)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return srv, l
}

// RoomRemote is a remote that changes its argument a little.
type RoomRemote struct{}

func (RoomRemote) Upper(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if in.Value == "fail" {
		return nil, pitaya.NewError(errors.New("failed on purpose"), "APP-1", map[string]string{"k": "v"})
	}
	return wrapperspb.String("<" + in.Value + ">"), nil
}
