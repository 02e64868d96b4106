package main

import (
	"context"
	"sync"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/cluster/clusterpb"
)

// Board is a remote: only other servers can call it. It forgets everything when its server ends.
type Board struct {
	pitaya.Base
	mu     sync.Mutex // guards the field below
	totals map[string]int64
}

func setUpScore(srv *pitaya.Server) {
	_ = srv.RegisterRemote(&Board{totals: make(map[string]int64)}, pitaya.WithName("board"), pitaya.WithNameFunc(lower))
}

// Add gives points to a user.
func (b *Board) Add(ctx context.Context, in *clusterpb.Points) (*clusterpb.Total, error) {
	if in.GetUid() == "" {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "points for nobody")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.totals[in.GetUid()] += in.GetPoints()
	return &clusterpb.Total{Points: b.totals[in.GetUid()]}, nil
}
