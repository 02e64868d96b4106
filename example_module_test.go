package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Database is a module: it lives as long as the server.
type Database struct {
	pitaya.ModuleBase
	open bool
}

func (d *Database) Init(ctx context.Context) error {
	d.open = true // connects, within ctx
	fmt.Println("database open")
	return nil
}

func (d *Database) Shutdown(ctx context.Context) error {
	d.open = false
	fmt.Println("database closed")
	return nil
}

func (d *Database) Player(name string) string { return name + ", level 7" }

// Modules hold what handlers use.
func ExampleServer_AddModule() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		db := &Database{}
		return errors.Join(
			s.AddModule("db", db),
			pitaya.Handle(s, "player.get", func(ctx context.Context, name *string) (*string, error) {
				return new(db.Player(*name)), nil
			}),
		)
	})

	var player string
	err := dial().Request(context.Background(), "player.get", "ann", &player)
	fmt.Println(player, err)
	stop()
	// Output:
	// database open
	// ann, level 7 <nil>
	// database closed
}

// Matches is a module that has players of its own. A server that drains
// (Config.DrainEnabled) waits until they are done.
type Matches struct {
	pitaya.ModuleBase
	players atomic.Int64
}

func (m *Matches) StartDraining() {
	fmt.Println("no new matches")
	m.players.Store(0) // the last match is over
}

func (m *Matches) SessionCount() int { return int(m.players.Load()) }

// Modules are there for those added later, whatever the order of the calls.
func ExampleServer_AddModuleBefore() {
	var server *pitaya.Server
	matches := &Matches{}
	matches.players.Store(2)
	_, stop := runExample(pitaya.Config{DrainEnabled: true, DrainPeriod: time.Millisecond}, func(s *pitaya.Server) error {
		server = s
		return errors.Join(
			s.AddModule("matches", pitaya.SessionModule(matches)),
			s.AddModuleBefore("db", &Database{}), // which matches need
		)
	})
	module, ok := server.Module("matches")
	fmt.Println(module == pitaya.Module(matches), ok)
	_, ok = server.Module(pitaya.UniqueSessionModule) // comes with a frontend
	fmt.Println(ok)
	stop()
	// Output:
	// database open
	// true true
	// true
	// no new matches
	// database closed
}

// A match server of another kind runs as long as the game does. Its output goes
// to the log.
func ExampleNewBinary() {
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	match := pitaya.NewBinary("./match-server", []string{"-port", "7000"}, &pitaya.BinaryOptions{
		Env:   append(os.Environ(), "MAP=desert"),
		Grace: 30 * time.Second, // to save what is played
	})
	if err := server.AddModule("match", match); err != nil {
		fmt.Println(err)
		return
	}
	// The program is not there, and the server says so when it starts.
	err = server.Run(context.Background())
	fmt.Println(errors.Is(err, fs.ErrNotExist))

	// One that has started may end before the server does; Done tells.
	<-match.Done()
	fmt.Println(match.Err() != nil)
	// Output:
	// true
	// true
}
