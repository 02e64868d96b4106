package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A client that loses its connection gets its session back, and the pushes that it has missed.
func ExampleResumeConfig() {
	mem := pitaya.ListenMem()
	away, back, online := make(chan bool), make(chan bool), make(chan bool, 1)
	online <- true
	s, err := pitaya.NewServer(pitaya.Config{
		Frontend:  true,
		Listeners: []net.Listener{mem},
		Resume:    pitaya.ResumeConfig{Window: 30 * time.Second},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = errors.Join(
		s.OnSessionDetach(func(session *pitaya.Session) { away <- true }),
		pitaya.Handle(s, "account.login", func(ctx context.Context, name *string) (*bool, error) {
			return new(true), pitaya.SessionFromContext(ctx).Bind(ctx, *name)
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer end()
	<-s.Ready()

	var conn net.Conn
	dial := func(ctx context.Context) (net.Conn, error) {
		<-online
		var err error
		conn, err = mem.DialContext(ctx)
		return conn, err
	}
	first, err := dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := pitaya.NewClient(ctx, first, &pitaya.ClientConfig{ // pitaya.Dial needs no Redial
		Resume:      true,
		Redial:      dial,
		OnReconnect: func(resumed bool) { fmt.Println("back, resumed:", resumed) },
		OnPush: map[string]func([]byte){"onGold": func(payload []byte) {
			fmt.Println("gold:", string(payload))
			back <- true
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	if err := c.Request(ctx, "account.login", "ann", nil); err != nil {
		fmt.Println(err)
		return
	}
	conn.Close() // the network, say
	<-away
	session := s.SessionByUID("ann")
	fmt.Println("push:", session.Push(ctx, "onGold", 90))
	online <- true
	<-back
	fmt.Println("connected:", session.Connected())
	// Output:
	// push: <nil>
	// back, resumed: true
	// gold: 90
	// connected: true
}
