package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Arena has a handler of each kind.
type Arena struct {
	pitaya.Base
	shouts chan string
}

type (
	Move     struct{ X, Y int }
	Position struct{ X, Y int }
)

// Move is a request: it takes a pointer and returns one, and an error.
func (a *Arena) Move(ctx context.Context, in *Move) (*Position, error) {
	return &Position{X: 10 + in.X, Y: 10 + in.Y}, nil
}

// Echo is a request with payloads as they are on the wire.
func (a *Arena) Echo(ctx context.Context, in []byte) ([]byte, error) { return in, nil }

// Shout is a notify: it returns nothing, and is not answered.
func (a *Arena) Shout(ctx context.Context, in []byte) { a.shouts <- string(in) }

// Registering a struct makes handlers of its methods.
func ExampleServer_Register() {
	arena := &Arena{shouts: make(chan string, 1)}
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return s.Register(arena, pitaya.WithName("arena"), pitaya.WithNameFunc(strings.ToLower))
	})
	defer stop()
	ctx := context.Background()

	client := dial()
	var at Position
	err := client.Request(ctx, "arena.move", Move{X: 1, Y: 2}, &at)
	fmt.Println(at, err)
	answer, err := client.RequestRaw(ctx, "arena.echo", []byte("as it is"))
	fmt.Println(string(answer), err)
	err = client.NotifyRaw(ctx, "arena.shout", []byte("hey"))
	fmt.Println(<-arena.shouts, err)
	// Output:
	// {11 12} <nil>
	// as it is <nil>
	// hey <nil>
}

// Typo has a method that is nearly a handler.
type Typo struct{ pitaya.Base }

func (*Typo) Move(ctx context.Context, in Move) (*Position, error) { return &Position{}, nil }

func ExampleServer_Register_mistake() {
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Register(&Typo{}))
	fmt.Println(server.Register(&Typo{}, pitaya.WithSkip("Move")))
	// Output:
	// pitaya: register *pitaya_test.Typo: method Move is no handler: its argument is of type pitaya_test.Move; it must be a pointer or []byte
	// pitaya: register *pitaya_test.Typo: it has no method that is a handler
}

// A function is a handler as well, and the compiler checks its types.
func ExampleHandle() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "math.add", func(ctx context.Context, in *[]int) (*int, error) {
			sum := 0
			for _, n := range *in {
				sum += n
			}
			return &sum, nil
		})
	})
	defer stop()

	var sum int
	err := dial().Request(context.Background(), "math.add", []int{1, 2, 3}, &sum)
	fmt.Println(sum, err)
	// Output:
	// 6 <nil>
}

func ExampleHandleRaw() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.HandleRaw(s, "text.upper", func(ctx context.Context, in []byte) ([]byte, error) {
			return bytes.ToUpper(in), nil
		})
	})
	defer stop()

	answer, err := dial().RequestRaw(context.Background(), "text.upper", []byte("quiet"))
	fmt.Println(string(answer), err)
	// Output:
	// QUIET <nil>
}

func ExampleHandleNotify() {
	seen := make(chan Move)
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.HandleNotify(s, "player.moved", func(ctx context.Context, in *Move) { seen <- *in })
	})
	defer stop()

	err := dial().Notify(context.Background(), "player.moved", Move{X: 1, Y: 2})
	fmt.Println(<-seen, err)
	// Output:
	// {1 2} <nil>
}

// Handlers that are for users only need not check it themselves.
func ExampleWithBound() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			pitaya.Handle(s, "account.login", func(ctx context.Context, name *string) (*string, error) {
				return name, pitaya.SessionFromContext(ctx).Bind(ctx, *name)
			}),
			pitaya.Handle(s, "account.name", func(ctx context.Context, _ *struct{}) (*string, error) {
				return new(pitaya.SessionFromContext(ctx).UID()), nil
			}, pitaya.WithBound()),
		)
	})
	defer stop()
	ctx := context.Background()

	client := dial()
	var name string
	err := client.Request(ctx, "account.name", struct{}{}, &name)
	fmt.Println(pitaya.ErrorCode(err), err)
	err = client.Request(ctx, "account.login", "ann", nil)
	fmt.Println(err)
	err = client.Request(ctx, "account.name", struct{}{}, &name)
	fmt.Println(name, err)
	// Output:
	// PIT-401 session is not bound to a user
	// <nil>
	// ann <nil>
}

// What a handler passes its context to gives up in time, and the client is told.
func ExampleWithTimeout() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "db.query", func(ctx context.Context, _ *struct{}) (*string, error) {
			<-ctx.Done() // a database that does not answer
			return nil, ctx.Err()
		}, pitaya.WithTimeout(10*time.Millisecond))
	})
	defer stop()

	err := dial().Request(context.Background(), "db.query", struct{}{}, nil)
	fmt.Println(pitaya.ErrorCode(err) == pitaya.CodeTimeout)
	// Output:
	// true
}

// Calls of concurrent handlers do not wait for each other, and are answered as
// they are done.
func ExampleWithConcurrent() {
	meet := make(chan struct{})
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			pitaya.HandleNotify(s, "party.wait", func(ctx context.Context, _ *struct{}) { <-meet }, pitaya.WithConcurrent()),
			pitaya.HandleNotify(s, "party.come", func(ctx context.Context, _ *struct{}) { meet <- struct{}{} }),
			pitaya.Handle(s, "party.leave", func(ctx context.Context, _ *struct{}) (*string, error) { return new("both were there"), nil }),
		)
	})
	defer stop()
	ctx := context.Background()

	client := dial()
	client.Notify(ctx, "party.wait", struct{}{})
	client.Notify(ctx, "party.come", struct{}{})
	var text string
	err := client.Request(ctx, "party.leave", struct{}{}, &text)
	fmt.Println(text, err)
	// Output:
	// both were there <nil>
}
