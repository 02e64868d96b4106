package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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
		fmt.Println("not reached:", undelivered.UIDs, errors.Is(err, pitaya.ErrUserNotFound))
	}
	fmt.Println(<-said, <-said)
	// Output:
	// ann joins, members: 1 <nil>
	// bob joins, members: 2 <nil>
	// <nil>
	// "hello" "hello"
	// not reached: [carl] true
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

// A group can be for a time, and has its members looked at and changed.
func ExampleGroup_Create() {
	var event *pitaya.Group
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		event = s.Group("event") // no more than a name so far
		return nil
	})
	defer stop()
	ctx := context.Background()

	fmt.Println(errors.Is(event.Add(ctx, "ann"), pitaya.ErrGroupNotFound))
	fmt.Println(event.Name(), event.Create(ctx, time.Hour)) // it ends by itself
	fmt.Println(errors.Is(event.Create(ctx, 0), pitaya.ErrGroupExists))
	fmt.Println(event.Add(ctx, "ann", "bob", "carl"))
	fmt.Println(errors.Is(event.Add(ctx, "dora", "ann"), pitaya.ErrMemberExists)) // nobody was added
	fmt.Println(event.Remove(ctx, "bob"), errors.Is(event.Remove(ctx, "bob"), pitaya.ErrMemberNotFound))
	members, err := event.Members(ctx)
	fmt.Println(members, err)
	in, err := event.Contains(ctx, "bob")
	fmt.Println(in, err)
	fmt.Println(event.Renew(ctx)) // an hour from now on
	fmt.Println(event.RemoveAll(ctx), event.Delete(ctx))
	// Output:
	// true
	// event <nil>
	// true
	// <nil>
	// true
	// <nil> true
	// [ann carl] <nil>
	// false <nil>
	// <nil>
	// <nil> <nil>
}

// AuditedGroups is a store that notes who comes. Config.Groups takes any
// GroupStore; what is not its own it leaves to the one that it embeds, and the
// suite pitayatest.TestGroupStore tells whether it keeps the rules.
type AuditedGroups struct{ pitaya.GroupStore }

func (a AuditedGroups) Add(ctx context.Context, group string, uids ...string) error {
	err := a.GroupStore.Add(ctx, group, uids...)
	fmt.Println("add", group, uids, err)
	return err
}

func ExampleGroupStore() {
	memory := pitaya.NewMemoryGroups() // or pitaya.NewEtcdGroups
	defer memory.Close()
	var server *pitaya.Server
	_, stop := runExample(pitaya.Config{Groups: AuditedGroups{memory}}, func(s *pitaya.Server) error {
		server = s
		return s.Group("guild").Create(context.Background(), 0)
	})
	defer stop()
	ctx := context.Background()

	server.Group("guild").Add(ctx, "ann")
	fmt.Println(memory.Members(ctx, "guild"))
	fmt.Println(errors.Is(memory.Renew(ctx, "guild"), pitaya.ErrGroupNoTTL))
	// Output:
	// add guild [ann] <nil>
	// [ann] <nil>
	// true
}
