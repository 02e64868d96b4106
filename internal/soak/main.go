// Soak runs a cluster of processes on real etcd and NATS for a given time, with bots that play and faults that strike at
// random, and checks all along what the library promises. docs/reliability.md has what that is, and figures.
//
//	go run ./internal/soak -for 30m
//
// It ends with status 1 if a promise was broken, and says which, by whom, with the seed and what happened before.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	if err := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	For, Storm   time.Duration
	Every, Think time.Duration
	Seed         uint64
	Bots         int
	Gates, Rooms int
	Keep         string
	Violations   int
}

func command(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) error {
	var o options
	var server string
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.DurationVar(&o.For, "for", 2*time.Minute, "how long to let faults strike, the checks between them included")
	fs.DurationVar(&o.Storm, "storm", 45*time.Second, "how long between two checks of a cluster at rest")
	fs.DurationVar(&o.Every, "every", 2*time.Second, "time between two faults, on average; 0 is none")
	fs.DurationVar(&o.Think, "think", time.Second, "time between what a bot does and what it does next, on average")
	fs.Uint64Var(&o.Seed, "seed", 0, "what chance begins with; 0 chooses one, and it is printed")
	fs.IntVar(&o.Bots, "bots", 1000, "`number` of bots")
	fs.IntVar(&o.Gates, "gates", 2, "`number` of frontends")
	fs.IntVar(&o.Rooms, "rooms", 3, "`number` of backends")
	fs.StringVar(&o.Keep, "keep", "", "keep logs in this `folder`; without it they are kept only if a promise was broken")
	fs.IntVar(&o.Violations, "violations", 5, "end after this `number` of broken promises")
	fs.StringVar(&server, "serve", "", "be one of the servers; what this program starts itself with")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if server != "" {
		var spec serverSpec
		if err := json.Unmarshal([]byte(server), &spec); err != nil {
			return err
		}
		return serve(spec, in, out)
	}
	if o.Bots < 1 || o.Gates < 1 || o.Rooms < 1 {
		return errors.New("there must be a bot, a frontend and a backend at least")
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	return soak(ctx, o, out)
}
