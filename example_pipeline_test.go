package pitaya_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/pitaya-go/pitaya"
)

// A function before the handlers can refuse a call, change its argument, or add
// to its context.
func ExampleServer_Before() {
	dial, stop := runExample(pitaya.Config{Type: "game"}, func(s *pitaya.Server) error {
		return errors.Join(
			s.Register(&Hello{}),
			s.Before(func(ctx context.Context, in any) (context.Context, any, error) {
				if greeting, ok := in.(*Greeting); ok && greeting.Text == "" {
					return ctx, nil, pitaya.Errorf("APP-400", "%s: who?", pitaya.RouteFromContext(ctx))
				}
				return ctx, in, nil
			}),
		)
	})
	defer stop()

	client := dial()
	for _, name := range []string{"", "Ann"} {
		var reply Greeting
		err := client.Request(context.Background(), "Hello.Greet", Greeting{name}, &reply)
		fmt.Println(reply.Text, err)
	}
	// Output:
	// game.Hello.Greet: who?
	// Hello, Ann! <nil>
}

var errNoRows = errors.New("no rows")

// A function behind the handlers can change results and errors, here giving
// codes to the errors of a database.
func ExampleServer_After() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			pitaya.Handle(s, "player.load", func(ctx context.Context, name *string) (*string, error) {
				return nil, fmt.Errorf("player %s: %w", *name, errNoRows)
			}),
			s.After(func(ctx context.Context, out any, err error) (any, error) {
				if errors.Is(err, errNoRows) {
					err = pitaya.NewError(err, "APP-404")
				}
				return out, err
			}),
		)
	})
	defer stop()

	err := dial().Request(context.Background(), "player.load", "ann", nil)
	fmt.Println(pitaya.ErrorCode(err), err)
	// Output:
	// APP-404 player ann: no rows
}

// Bet is an argument that knows what is valid.
type Bet struct{ Gold int }

func (b *Bet) Validate() error {
	if b.Gold <= 0 {
		return pitaya.Errorf("APP-400", "a bet of %d gold", b.Gold)
	}
	return nil
}

// With ValidateRequests, arguments are asked whether they are valid.
func ExampleConfig_validateRequests() {
	dial, stop := runExample(pitaya.Config{ValidateRequests: true}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "table.bet", func(ctx context.Context, in *Bet) (*Bet, error) { return in, nil })
	})
	defer stop()

	client := dial()
	for _, gold := range []int{5, -5} {
		fmt.Println(client.Request(context.Background(), "table.bet", Bet{gold}, nil))
	}
	// Output:
	// <nil>
	// a bet of -5 gold
}
