// Ratelimit is a server that lets each client send five messages in a second, and a client that sends more.
//
//	go run ./examples/ratelimit                          # the server
//	go run ./examples/ratelimit -connect localhost:3250  # a client, in another terminal
//
// All limits are settings of the library, and so flags of the server: with -help it lists them.
//
//	go run ./examples/ratelimit -pitaya.conn.ratelimiting.limit 2
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
	"time"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "ratelimit:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	cfg := settings()
	flags := flag.NewFlagSet("ratelimit", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	connect := flags.String("connect", "", "be a client of the server at this `address`")
	burst := flags.Int("burst", 8, "`number` of requests that the client sends at once")
	pause := flags.Duration("pause", time.Second, "`time` after which the client does so again")
	if err := cfg.Load(flags, args, os.Environ()); err != nil {
		return err
	}
	if *connect != "" {
		return hurry(ctx, *connect, *burst, *pause, out)
	}
	l, err := pitaya.ListenTCP(*listen, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	cfg.Listeners = []net.Listener{l}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	if err := setUp(srv); err != nil {
		return err
	}
	fmt.Fprintf(out, "The server is ready. In another terminal:\n\n\tgo run ./examples/ratelimit -connect %s\n"+
		"\tgo run ./examples/ratelimit -connect %[1]s -burst 50\n\nCtrl-C ends it.\n", l.Addr())
	err = srv.Run(ctx)
	// The same numbers are in the metrics, by reason.
	stats := srv.Stats()
	fmt.Fprintf(out, "refused: %d of %d requests; clients closed for it: %d\n",
		stats.LimitedBySession, stats.Requests, stats.ClosedForAbuse)
	return err
}

// settings are those that flags and environment may change.
func settings() pitaya.Config {
	return pitaya.Config{Type: "game", Frontend: true, RateLimit: pitaya.RateLimitConfig{
		// Five at once after a pause, and then one each 200 ms.
		Limit: 5, Interval: time.Second,
		// Address and Server bound what all clients of an address and all together send, AddressHandshakes and
		// ServerHandshakes how often they connect, and Pending the requests of one that are unanswered.

		// Who is refused is told so, and may go on. Who is refused this often is no game any more, and is kicked.
		Abuse: pitaya.Rate{Limit: 30, Interval: 10 * time.Second},
	}}
}

// setUp registers the handler. There is nothing about limits in it.
func setUp(srv *pitaya.Server) error {
	return pitaya.Handle(srv, "dice.roll", func(ctx context.Context, n *int) (*int, error) {
		return new(*n%6 + 1), nil
	})
}
