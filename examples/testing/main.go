// Testing is a game of guessing numbers, whose tests are the example:
//
//	go test -v ./examples/testing   # all of them, in a fraction of a second
//	go run ./examples/testing       # the game, to see that there is one
//
// unit_test.go has tests of a function and of handlers, time_test.go of what happens in time, cluster_test.go of the game on
// several servers, and program_test.go one over a real socket. None of them sleeps, none needs a free port, etcd or NATS.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strings"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "testing:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("testing", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	connect := flags.String("connect", "", "play against the server at this `address`")
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
	srv, err := pitaya.NewServer(pitaya.Config{Type: "guess", Frontend: true, Listeners: []net.Listener{l}})
	if err != nil {
		return err
	}
	if err := setUp(srv, "", func() int { return 1 + rand.IntN(100) }); err != nil {
		return err
	}
	fmt.Fprintf(out, "The game is ready. In another terminal:\n\n\tgo run ./examples/testing -connect %s\n"+
		"\tgo test -v ./examples/testing\n\nCtrl-C ends it.\n", l.Addr())
	return srv.Run(ctx)
}

// setUp registers the handlers. Tests call it as well, so that they test what runs.
func setUp(srv *pitaya.Server, frontends string, secret func() int) error {
	return srv.Register(newGame(srv, frontends, secret), pitaya.WithName("game"), pitaya.WithNameFunc(strings.ToLower))
}

// play is a client that plays well.
func play(ctx context.Context, addr string, out io.Writer) error {
	client, err := pitaya.Dial(ctx, "tcp://"+addr, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Request(ctx, "guess.game.start", Player{Name: "ada"}, nil); err != nil {
		return err
	}
	for low, high := 1, 100; ; {
		n := (low + high) / 2
		var v Verdict
		if err := client.Request(ctx, "guess.game.try", Guess{n}, &v); err != nil {
			return err
		}
		fmt.Fprintf(out, "%d? %s\n", n, v.Is)
		switch v.Is {
		case "higher":
			low = n + 1
		case "lower":
			high = n - 1
		default:
			return nil
		}
	}
}
