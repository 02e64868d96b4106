package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

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

// What else there is to know and to change about a session.
func ExampleSession() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "profile.show", func(ctx context.Context, _ *struct{}) (*bool, error) {
			session := pitaya.SessionFromContext(ctx)
			fmt.Println(session.ID() > 0, session.IsFrontend(), session.RemoteAddr().Network())

			// What the client said about itself when it connected, and what became of that later.
			h := *session.HandshakeData()
			h.User = map[string]any{"language": "de"}
			session.SetHandshakeData(&h)
			fmt.Println(session.HandshakeData().Sys.Type, session.HandshakeData().User["language"])

			// Data is any JSON. Get returns it as it was set.
			if err := session.SetData(map[string]any{"team": "red", "level": 3}); err != nil {
				return nil, err
			}
			session.Delete("level")
			fmt.Println(session.Get("team"), session.Has("level"), session.Data())

			// A session in a log record is its id and its user.
			slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})).Info("shown", "session", session)
			return new(true), nil
		})
	})
	defer stop()

	client := dial()
	fmt.Println(client.Request(context.Background(), "profile.show", struct{}{}, nil))
	// Output:
	// true true mem
	//  de
	// red false map[team:red]
	// level=INFO msg=shown session.id=1 session.uid=""
	// <nil>
}

// withoutTime leaves the time out of log records, so that they are the same
// each time.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// A goodbye that is sure to be the last thing that the client gets.
func ExampleSession_PushAndClose() {
	sent := make(chan string, 1)
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.HandleNotify(s, "game.leave", func(ctx context.Context, _ *struct{}) {
			session := pitaya.SessionFromContext(ctx)
			err := session.PushAndClose(ctx, "onBye", "see you")
			sent <- fmt.Sprint(err, " ", errors.Is(session.Push(ctx, "onMore", "?"), pitaya.ErrSessionClosed))
		})
	})
	defer stop()

	client := dial()
	pushed := make(chan string, 2)
	client.OnAnyPush(func(route string, payload []byte) { pushed <- route + " " + string(payload) })
	client.Notify(context.Background(), "game.leave", struct{}{})
	fmt.Println(<-sent)
	fmt.Println(<-pushed)
	<-client.Done()
	fmt.Println(client.Err())
	// Output:
	// <nil> true
	// onBye "see you"
	// pitaya: connection closed by the server: EOF
}

// A user has one session: who comes back ends the one before.
func ExampleSession_Bind_again() {
	causes := make(chan error, 1)
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			s.OnSessionClose(func(session *pitaya.Session) { causes <- context.Cause(session.Context()) }),
			s.OnAfterSessionBind(func(_ context.Context, session *pitaya.Session) error {
				fmt.Println("welcome", session.UID())
				return nil
			}),
			pitaya.Handle(s, "account.login", func(ctx context.Context, name *string) (*string, error) {
				err := pitaya.SessionFromContext(ctx).Bind(ctx, *name)
				switch {
				case errors.Is(err, pitaya.ErrIllegalUID):
					return nil, pitaya.NewError(err, "APP-NAME")
				case errors.Is(err, pitaya.ErrAlreadyBound):
					return nil, pitaya.NewError(err, "APP-TWICE")
				}
				return name, err
			}),
		)
	})
	defer stop()
	login := func(client *pitaya.Client, name string) {
		err := client.Request(context.Background(), "account.login", name, nil)
		fmt.Printf("%s %q\n", name, pitaya.ErrorCode(err))
	}

	first, second := dial(), dial()
	login(first, "an n")
	login(first, "ann")
	login(first, "bob")
	login(second, "ann")
	fmt.Println(errors.Is(<-causes, pitaya.ErrReplaced))
	<-first.Done()
	fmt.Println(first.KickReason())
	// Output:
	// an n "APP-NAME"
	// welcome ann
	// ann ""
	// bob "APP-TWICE"
	// welcome ann
	// ann ""
	// true
	// replaced
}

// All sessions of a server, and one among them.
func ExampleServer_Sessions() {
	var server *pitaya.Server
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return pitaya.Handle(s, "account.login", func(ctx context.Context, name *string) (*string, error) {
			return name, pitaya.SessionFromContext(ctx).Bind(ctx, *name)
		})
	})
	defer stop()
	for _, name := range []string{"ann", "bob"} {
		dial().Request(context.Background(), "account.login", name, nil)
	}

	var names []string
	for session := range server.Sessions() {
		names = append(names, session.UID())
	}
	slices.Sort(names)
	fmt.Println(names, server.SessionCount())
	bob := server.SessionByUID("bob")
	fmt.Println(server.SessionByID(bob.ID()) == bob)
	bob.Kick(context.Background())
	<-bob.Context().Done()
	fmt.Println(context.Cause(bob.Context()), server.SessionByUID("bob") == nil)
	// Output:
	// [ann bob] 2
	// true
	// pitaya: kicked true
}
