package pitaya_test

import (
	"context"
	"errors"
	"fmt"

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
