// Serializer is a game server and its client that speak a binary format of their own instead of JSON; compact.go has it.
//
//	go run ./examples/serializer                          # the server
//	go run ./examples/serializer -connect localhost:3250  # a client, in another terminal
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "serializer:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("serializer", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	connect := flags.String("connect", "", "be a client of the server at this `address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return play(ctx, *connect, out)
	}

	l, err := pitaya.ListenTCP(*listen, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	srv, err := pitaya.NewServer(pitaya.Config{
		Type: "world", Frontend: true, Listeners: []net.Listener{l},
		Serializer: Compact{}, // of all messages of this server, in both directions
	})
	if err != nil {
		return err
	}
	if err := pitaya.Handle(srv, "player.move", move); err != nil {
		return err
	}
	fmt.Fprintf(out, "The server is ready. In another terminal:\n\n\tgo run ./examples/serializer -connect %s\n\nCtrl-C ends it.\n", l.Addr())
	return srv.Run(ctx)
}

// edge is where the world ends.
const edge = 1000

// move is a handler like any other: it does not see how its messages are encoded.
func move(ctx context.Context, in *Move) (*Move, error) {
	if in.X < -edge || in.X > edge || in.Y < -edge || in.Y > edge {
		return nil, pitaya.Errorf("WORLD-EDGE", "the world ends at %d", edge)
	}
	return in, nil
}

// play is the client. The server names its serializer in the handshake, and a client that has none of this name must not go
// on: it would take one message for another.
func play(ctx context.Context, addr string, out io.Writer) error {
	client, err := pitaya.Dial(ctx, "tcp://"+addr, &pitaya.ClientConfig{Serializer: Compact{}})
	if err != nil {
		return err
	}
	defer client.Close()
	if name := client.Handshake().Sys.Serializer; name != (Compact{}).Name() {
		return fmt.Errorf("the server speaks %s", name)
	}
	for _, to := range []Move{{-300, 700}, {-300, 1200}} {
		payload, err := Compact{}.Marshal(&to)
		if err != nil {
			return err
		}
		var at Move
		err = client.Request(ctx, "world.player.move", &to, &at)
		var refused *pitaya.Error
		switch {
		case errors.As(err, &refused): // it is JSON, and decoded by Compact as well
			fmt.Fprintf(out, "sent % x, refused with %s: %s\n", payload, refused.Code, refused.Message)
		case err != nil:
			return err
		default:
			fmt.Fprintf(out, "sent % x, moved to %d,%d\n", payload, at.X, at.Y)
		}
	}
	return nil
}
