package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A client that loses its connection gets its session back, with what was pushed
// meanwhile: nothing is missing and nothing is there twice.
func ExampleResumeConfig() {
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{
		Type: "game", Frontend: true, Listeners: []net.Listener{mem}, Logger: discard,
		Resume: pitaya.ResumeConfig{Window: time.Minute, Messages: 100},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	away := make(chan *pitaya.Session, 1)
	back := make(chan string)
	begun := make(chan struct{})
	err = errors.Join(
		server.OnSessionDetach(func(s *pitaya.Session) { away <- s }),
		server.OnSessionResume(func(s *pitaya.Session) { back <- s.UID() }),
		pitaya.Handle(server, "account.login", func(ctx context.Context, name *string) (*string, error) {
			return name, pitaya.SessionFromContext(ctx).Bind(ctx, *name)
		}),
		pitaya.Handle(server, "shop.buy", func(ctx context.Context, item *string) (*string, error) {
			close(begun)
			<-ctx.Done()
			return item, nil
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	// With Dial instead of NewClient there is no need of Redial.
	wait := make(chan struct{})
	redial := func(ctx context.Context) (net.Conn, error) {
		<-wait // the tunnel is long
		return mem.DialContext(ctx)
	}
	conn, err := mem.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	news := make(chan string)
	client, err := pitaya.NewClient(ctx, conn, &pitaya.ClientConfig{
		Resume: true, Redial: redial,
		OnPush: map[string]func(payload []byte){"onNews": func(payload []byte) { news <- string(payload) }},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client.Request(ctx, "game.account.login", "ann", nil)
	bought := make(chan error)
	go func() { bought <- client.Request(ctx, "game.shop.buy", "sword", nil) }()
	<-begun
	conn.Close()
	session := <-away
	fmt.Println(session.UID(), "is connected:", session.Connected())
	fmt.Println(errors.Is(<-bought, pitaya.ErrConnectionLost)) // nobody knows whether it was bought
	fmt.Println(session.Push(ctx, "onNews", "dinner is ready"))
	close(wait)
	fmt.Println(<-back, "is back")
	fmt.Println(<-news, client.Handshake().Sys.Resume.Resumed)
	client.Close()
	stop()
	<-ended
	// Output:
	// ann is connected: false
	// true
	// <nil>
	// ann is back
	// "dinner is ready" true
}
