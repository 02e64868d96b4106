// Command testserver offers what the test suites, client libraries and tools of
// the Pitaya family expect of a server, so that they can be pointed at this
// library unchanged.
//
//	testserver -port 32222 -wsport 32223
//	testserver -frontend=false -type room
//	testserver -standalone -port 32222
//	testserver -suite sdk-json -port 3250 -fixtures fixtures
//
// The first two are a cluster, by the etcd and the NATS of this machine, which
// go run -C internal/devcluster . starts; with -grpc, servers call each other
// without NATS.
//
// Every setting of the library can be given as well, as a PITAYA_… environment
// variable, in a file or as a flag; see docs/configuration.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	handleSignals()
	os.Exit(run(untilSignal(), os.Args[1:], os.Environ(), os.Stderr))
}

// untilSignal returns a context that ends with the first signal to stop. The
// second one ends the process at once.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	// Not signal.NotifyContext: a second signal that comes while that is
	// about to stop listening would be lost.
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-c
		cancel()
		<-c
		os.Exit(1)
	}()
	return ctx
}

// run is the program, up to its exit status: 0 if it ran until ctx ended, 2 if
// it was called wrongly, 1 for all else.
func run(ctx context.Context, args, environ []string, stderr io.Writer) int {
	o, err := parse(args, environ, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "testserver:", err)
		return 2
	}
	if err := serve(ctx, o, stderr); err != nil {
		fmt.Fprintln(stderr, "testserver:", err)
		return 1
	}
	return 0
}

// serve runs a server until ctx ends. Its error is that of a start that failed.
func serve(ctx context.Context, o *options, stderr io.Writer) error {
	level := slog.LevelInfo
	if o.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	o.Config.Logger = log
	var err error
	if o.Config.Listeners, err = o.listen(); err != nil {
		return err
	}
	s, err := newServer(o)
	if err != nil {
		for _, l := range o.Config.Listeners {
			l.Close()
		}
		return err
	}
	begin := time.Now()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	select {
	case err := <-ran:
		if ctx.Err() != nil {
			return nil // it was told to stop while it waited for the cluster
		}
		return err
	case <-s.Ready():
		log.Info("all modules started!", "server", s.ID(), "type", s.Type(), "took", time.Since(begin))
	}
	if err := <-ran; err != nil {
		// It did what it was told; what it had to leave behind is in the log.
		log.Error("shut down with errors", "server", s.ID(), "err", err)
	}
	return nil
}
