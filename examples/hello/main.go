// Hello is a whole game server: it answers requests on the route game.Hello.Greet, over TCP and WebSocket.
package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"

	"github.com/pitaya-go/pitaya"
)

type Message struct{ Text string }

func greet(ctx context.Context, in *Message) (*Message, error) {
	return &Message{Text: "Hello, " + in.Text + "!"}, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	tcp, err := pitaya.ListenTCP(":3250", nil)
	check(err)
	ws, err := pitaya.ListenWS(":3251", nil)
	check(err)
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true, Listeners: []net.Listener{tcp, ws}})
	check(err)
	check(pitaya.Handle(srv, "game.Hello.Greet", greet))
	check(srv.Run(ctx))
}

func check(err error) {
	if err != nil {
		slog.Error("hello", "err", err)
		os.Exit(1)
	}
}
