package pitaya_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/pitaya-go/pitaya"
)

// Binding tells the server who is behind a session, once the application knows.
func ExampleSession_Bind() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			s.OnSessionBind(func(ctx context.Context, session *pitaya.Session) error {
				if session.UID() == "mallory" {
					return pitaya.Errorf("APP-403", "%s is banned", session.UID())
				}
				return nil
			}),
			pitaya.Handle(s, "account.login", func(ctx context.Context, name *string) (*bool, error) {
				session := pitaya.SessionFromContext(ctx)
				if err := session.Bind(ctx, *name); err != nil {
					return nil, err
				}
				return new(s.SessionByUID(*name) == session), nil
			}),
		)
	})
	defer stop()

	for _, name := range []string{"mallory", "ann"} {
		var found bool
		err := dial().Request(context.Background(), "account.login", name, &found)
		fmt.Println(name, found, err)
	}
	// Output:
	// mallory false mallory is banned
	// ann true <nil>
}

// What a handler pushes arrives before its answer.
func ExampleSession_Push() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "shop.buy", func(ctx context.Context, item *string) (*string, error) {
			session := pitaya.SessionFromContext(ctx)
			if err := session.Push(ctx, "onGold", map[string]int{"gold": 90}); err != nil {
				return nil, err
			}
			return new("bought " + *item), nil
		})
	})
	defer stop()

	client := dial()
	gold := make(chan string)
	client.OnPush("onGold", func(payload []byte) { gold <- string(payload) })
	var text string
	err := client.Request(context.Background(), "shop.buy", "sword", &text)
	fmt.Println(<-gold)
	fmt.Println(text, err)
	// Output:
	// {"gold":90}
	// bought sword <nil>
}

// A session keeps data of the application. SessionValue reads it with a type.
func ExampleSessionValue() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "quest.next", func(ctx context.Context, _ *struct{}) (*int, error) {
			session := pitaya.SessionFromContext(ctx)
			level, _ := pitaya.SessionValue[int](session, "level") // 0 if there is none
			level++
			return &level, session.Set("level", level)
		})
	})
	defer stop()

	client := dial()
	for range 3 {
		var level int
		err := client.Request(context.Background(), "quest.next", struct{}{}, &level)
		fmt.Println(level, err)
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

// Whatever ends a session, its callbacks run, and its context tells why. That
// context is over by then: what needs one gets another.
func ExampleSession_OnClose() {
	left := make(chan error, 1)
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.HandleNotify(s, "room.enter", func(ctx context.Context, _ *struct{}) {
			session := pitaya.SessionFromContext(ctx)
			session.OnClose(func() {
				ctx := context.WithoutCancel(ctx)
				fmt.Println("leaving:", ctx.Err())
				left <- context.Cause(session.Context())
			})
			session.KickReason(ctx, "room closed")
		})
	})
	defer stop()

	client := dial()
	client.Notify(context.Background(), "room.enter", struct{}{})
	cause := <-left
	fmt.Println(errors.Is(cause, pitaya.ErrKicked), cause)
	<-client.Done()
	fmt.Println("the client reads:", client.KickReason())
	// Output:
	// leaving: <nil>
	// true pitaya: kicked: room closed
	// the client reads: room closed
}
