package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pitaya-go/pitaya"
)

// The game has something of everything that an operator may see: quick and slow handlers, errors, messages that go to
// other servers, pushes to all, and a client that does not read.

type enter struct {
	Name string `json:"name"`
}

type move struct {
	X int `json:"x"`
}

type played struct {
	Points int `json:"points"`
}

type none struct{}

const (
	lobby   = "lobby"   // a group of all
	sleeper = "sleeper" // a user who is sent a lot, and reads none of it
)

// setUpGate registers what the gate handles itself.
func setUpGate(gate *pitaya.Server) error {
	news, film := make([]byte, 1<<10), make([]byte, 400<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(film) // cannot be compressed
	var stop func()
	return errors.Join(
		pitaya.Handle(gate, "player.enter", func(ctx context.Context, in *enter) (*none, error) {
			if err := pitaya.SessionFromContext(ctx).Bind(ctx, in.Name); err != nil {
				return nil, pitaya.NewError(err, "GAME-NAME")
			}
			err := gate.Group(lobby).Add(ctx, in.Name)
			if errors.Is(err, pitaya.ErrMemberExists) {
				err = nil // from before
			}
			return &none{}, err
		}),
		pitaya.Handle(gate, "shop.buy", func(ctx context.Context, _ *none) (*none, error) {
			if rand.IntN(20) == 0 {
				return nil, pitaya.Errorf("GAME-FUNDS", "that costs more than you have")
			}
			return &none{}, pause(ctx, time.Duration(rand.ExpFloat64()*float64(8*time.Millisecond)))
		}),
		pitaya.HandleNotify(gate, "player.move", func(context.Context, *move) {}),
		gate.AddModule(lobby, &lifetime{
			begin: func(ctx context.Context) error {
				timer, err := gate.NewTimer(500*time.Millisecond, func() {
					// Who has just left is no concern of the others.
					_ = gate.Group(lobby).Broadcast(context.Background(), gate.Type(), "onNews", news)
					if s := gate.SessionByUID(sleeper); s != nil {
						_ = s.Push(context.Background(), "onFilm", film)
					}
				})
				if err == nil {
					stop = timer.Stop
				}
				return errors.Join(err, gate.Group(lobby).Create(ctx, 0))
			},
			end: func() {
				if stop != nil {
					stop()
				}
			},
		}),
	)
}

// lifetime is a module of two functions.
type lifetime struct {
	begin func(context.Context) error
	end   func()
}

func (l *lifetime) Init(ctx context.Context) error { return l.begin(ctx) }

func (l *lifetime) Shutdown(context.Context) error {
	l.end()
	return nil
}

// setUpRoom registers what a server for rooms handles.
func setUpRoom(room *pitaya.Server) error {
	return errors.Join(
		pitaya.Handle(room, "table.play", func(ctx context.Context, in *move) (*played, error) {
			if rand.IntN(200) == 0 {
				return nil, pitaya.Errorf("GAME-TURN", "it is not your turn")
			}
			return &played{in.X * 2}, pause(ctx, time.Duration(rand.ExpFloat64()*float64(3*time.Millisecond)))
		}),
		// The page of routes, on the gate, has those of rooms as well. Clients are not told.
		room.RegisterDocs(pitaya.DocsOptions{}, pitaya.WithSkip("Docs", "Descriptors")),
	)
}

// startRoom starts a server for rooms, and returns what ends it and waits for that.
func startRoom(cfg pitaya.Config) (end func() error, err error) {
	room, err := pitaya.NewServer(cfg)
	if err != nil {
		return nil, err
	}
	if err := setUpRoom(room); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- room.Run(ctx) }()
	select {
	case err := <-ran:
		cancel()
		return nil, err
	case <-room.Ready():
	}
	return func() error {
		cancel()
		return <-ran
	}, nil
}

// pause waits, and returns early with the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
