package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// exampleRoom has a handler that puts a user into the group "room".
func exampleRoom(s *pitaya.Server) error {
	return errors.Join(
		s.Group("room").Create(context.Background(), 0),
		pitaya.Handle(s, "room.join", func(ctx context.Context, name *string) (*int, error) {
			if err := pitaya.SessionFromContext(ctx).Bind(ctx, *name); err != nil {
				return nil, err
			}
			room := s.Group("room")
			if err := room.Add(ctx, *name); err != nil {
				return nil, err
			}
			n, err := room.Count(ctx)
			return &n, err
		}),
	)
}

// A group is a named set of users that can be sent to at once.
func ExampleGroup() {
	var server *pitaya.Server
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return exampleRoom(s)
	})
	defer stop()
	ctx := context.Background()

	said := make(chan string, 1)
	for _, name := range []string{"ann", "bob"} {
		client := dial()
		client.OnPush("onMessage", func(payload []byte) { said <- string(payload) })
		var n int
		err := client.Request(ctx, "room.join", name, &n)
		fmt.Println(name, "joins, members:", n, err)
	}
	room := server.Group("room")
	fmt.Println(room.Broadcast(ctx, "", "onMessage", "hello"))
	fmt.Println(<-said, <-said)

	// Members stay until they are removed, connected or not. Those that a
	// broadcast does not reach are in its error.
	room.Add(ctx, "carl")
	err := room.Broadcast(ctx, "", "onMessage", "hello again")
	var undelivered *pitaya.UndeliveredError
	if errors.As(err, &undelivered) {
		fmt.Println("not reached:", undelivered.UIDs, err)
	}
	fmt.Println(<-said, <-said)
	// Output:
	// ann joins, members: 1 <nil>
	// bob joins, members: 2 <nil>
	// <nil>
	// "hello" "hello"
	// not reached: [carl] pitaya: 1 users not reached: pitaya: user not found
	// "hello again" "hello again"
}

// Multicast leaves out some members: here, the one who speaks.
func ExampleGroup_Multicast() {
	var server *pitaya.Server
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return exampleRoom(s)
	})
	defer stop()
	ctx := context.Background()

	heard := make(chan string, 3)
	for _, name := range []string{"ann", "bob", "carl"} {
		client := dial()
		client.OnPush("onMessage", func(payload []byte) { heard <- name + " hears " + string(payload) })
		client.Request(ctx, "room.join", name, nil)
	}
	err := server.Group("room").Multicast(ctx, "", "onMessage", "psst", func(uid string) bool {
		return !strings.HasPrefix(uid, "c") && uid != "ann"
	})
	fmt.Println(<-heard, err)
	// Output:
	// bob hears "psst" <nil>
}
