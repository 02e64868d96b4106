package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// limit is how long a player may guess.
const limit = 30 * time.Second

// Codes of errors.
const (
	codeNoRound = "GUESS-NO-ROUND" // start one first
	codeRange   = "GUESS-RANGE"
)

// Game has the handlers guess.game.start and guess.game.try. The number that is to be guessed comes from a function, which
// lets a test know it.
type Game struct {
	pitaya.Base
	srv       *pitaya.Server
	frontends string     // type of the servers that players are connected to; "" is this server's
	secret    func() int // 1 to 100

	mu     sync.Mutex        // guards rounds
	rounds map[string]*round // by uid; those that are over are not in it
}

// A round is one number, until it is guessed or the time is up.
type round struct {
	secret, tries int
	clock         *pitaya.Timer
}

type (
	Player  struct{ Name string }
	Started struct{ Name, Server string }
	Guess   struct{ N int }
	Verdict struct {
		Is    string // "higher", "lower" or "right"
		Tries int
	}
	TimeUp struct{ Secret int } // pushed on onTimeUp
)

func newGame(srv *pitaya.Server, frontends string, secret func() int) *Game {
	return &Game{srv: srv, frontends: frontends, secret: secret, rounds: make(map[string]*round)}
}

// Start begins a round, and gives up the one before.
func (g *Game) Start(ctx context.Context, in *Player) (*Started, error) {
	session := pitaya.SessionFromContext(ctx)
	if session.UID() == "" {
		if err := session.Bind(ctx, in.Name); err != nil {
			return nil, pitaya.NewError(err, pitaya.CodeBadRequest)
		}
	}
	uid := session.UID()
	r := &round{secret: g.secret()}
	clock, err := g.srv.NewAfterTimer(limit, func() { g.timeUp(uid, r) })
	if err != nil {
		return nil, err
	}
	r.clock = clock
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.rounds[uid]; old != nil {
		old.clock.Stop()
	}
	g.rounds[uid] = r
	return &Started{Name: uid, Server: g.srv.ID()}, nil
}

// timeUp runs when the time of a round is over.
func (g *Game) timeUp(uid string, r *round) {
	g.mu.Lock()
	late := g.rounds[uid] != r // it was guessed in this very moment
	if !late {
		delete(g.rounds, uid)
	}
	g.mu.Unlock()
	if late {
		return
	}
	err := g.srv.Push(context.Background(), g.frontends, []string{uid}, "onTimeUp", TimeUp{Secret: r.secret})
	if _, gone := errors.AsType[*pitaya.UndeliveredError](err); err != nil && !gone {
		slog.Warn("time is up", "uid", uid, "err", err)
	}
}

// Try is a guess.
func (g *Game) Try(ctx context.Context, in *Guess) (*Verdict, error) {
	if in.N < 1 || in.N > 100 {
		return nil, pitaya.Errorf(codeRange, "the number is one from 1 to 100")
	}
	uid := pitaya.SessionFromContext(ctx).UID()
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rounds[uid]
	if r == nil {
		return nil, pitaya.Errorf(codeNoRound, "start a round first")
	}
	r.tries++
	v := &Verdict{Is: compare(r.secret, in.N), Tries: r.tries}
	if v.Is == "right" {
		r.clock.Stop()
		delete(g.rounds, uid)
	}
	return v, nil
}

// compare says what the secret is, seen from the guess.
func compare(secret, guess int) string {
	switch {
	case secret > guess:
		return "higher"
	case secret < guess:
		return "lower"
	}
	return "right"
}
