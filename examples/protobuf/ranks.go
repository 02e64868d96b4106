package main

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/protobuf/rankpb"
)

// Points from which a player is in a league.
const (
	bronze = 1
	silver = 100
	gold   = 1000
)

// leagueOf returns the league for points, and those that the next one begins with: 0 if there is none.
func leagueOf(points int64) (league rankpb.League, next int64) {
	switch {
	case points >= gold:
		return rankpb.League_LEAGUE_GOLD, 0
	case points >= silver:
		return rankpb.League_LEAGUE_SILVER, gold
	case points >= bronze:
		return rankpb.League_LEAGUE_BRONZE, silver
	}
	return rankpb.League_LEAGUE_NONE, bronze
}

// Ranks are the handlers of a table of players. With the serializer for protobuf, arguments, results and pushes are messages;
// all else is as with JSON.
type Ranks struct {
	pitaya.Base

	mu     sync.Mutex
	table  []*rankpb.Top_Entry // the best first; entries are replaced and never changed, so they may be sent meanwhile
	server *pitaya.Server
}

// Submit is the handler game.ranks.submit.
func (r *Ranks) Submit(ctx context.Context, in *rankpb.Score) (*rankpb.Standing, error) {
	if in.Player == "" {
		return nil, pitaya.Errorf("RANK-NAME", "a score without a player")
	}
	var points int64
	switch result := in.Result.(type) {
	case *rankpb.Score_Points:
		points = result.Points
	case *rankpb.Score_GaveUp: // has no points
	default:
		return nil, pitaya.Errorf("RANK-RESULT", "a score without a result")
	}
	league, next := leagueOf(points)
	entry := &rankpb.Top_Entry{Player: in.Player, Points: points, League: league}
	rank := r.put(entry)
	if rank == 0 {
		for s := range r.server.Sessions() {
			// Nobody is waited for. Who has just left gets nothing, which is no error of this player's.
			_ = s.Push(ctx, "onLeader", entry)
		}
	}
	standing := &rankpb.Standing{Rank: int32(rank) + 1, League: league}
	if next > 0 {
		standing.Missing = new(next - points)
	}
	return standing, nil
}

// put puts an entry in its place, instead of the player's last one.
func (r *Ranks) put(entry *rankpb.Top_Entry) (rank int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = slices.DeleteFunc(r.table, func(e *rankpb.Top_Entry) bool { return e.Player == entry.Player })
	rank, _ = slices.BinarySearchFunc(r.table, entry, func(e, entry *rankpb.Top_Entry) int {
		if e.Points >= entry.Points { // who was there first stays in front
			return -1
		}
		return 1
	})
	r.table = slices.Insert(r.table, rank, entry)
	return rank
}

// Top is the handler game.ranks.top.
func (r *Ranks) Top(ctx context.Context, in *rankpb.TopRequest) (*rankpb.Top, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	top := &rankpb.Top{Leagues: make(map[string]int32)}
	count := min(len(r.table), int(max(cmp.Or(in.Count, 10), 0)))
	top.Entries = slices.Clone(r.table[:count])
	for _, e := range r.table {
		top.Leagues[e.League.String()]++
	}
	return top, nil
}
