// Tracing shows the spans of a frontend and a backend in any collector that takes OTLP. Both run in this process, on a
// cluster in memory, with a player who makes a request each second. The README beside this file says what to start.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	// Records made with a handler's context say which trace they belong to.
	slog.SetDefault(slog.New(pitaya.LogHandler(slog.NewTextHandler(os.Stderr, nil))))
	if err := run(ctx, ":3250", func(text string) { fmt.Println(text) }); err != nil {
		slog.Error("tracing", "err", err)
		os.Exit(1)
	}
}

// flushTimeout bounds the export of the last spans: a collector that is away must not keep the process.
const flushTimeout = 5 * time.Second

// run runs servers and player until ctx ends. The player shows what it is answered.
func run(ctx context.Context, listen string, show func(text string)) (err error) {
	tracer, shutdown, err := setUpTracing(ctx)
	if err != nil {
		return err
	}
	defer func() { // when the servers have ended, and with them their spans
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		err = errors.Join(err, shutdown(flush))
	}()
	l, err := pitaya.ListenTCP(listen, nil)
	if err != nil {
		return err
	}
	cluster := pitaya.NewMemCluster()
	frontend := pitaya.Config{Type: "gate", Frontend: true, Tracer: tracer}
	frontend.Listeners = append(frontend.Listeners, l)
	end, err := start(ctx, cluster, pitaya.Config{Type: "room", Tracer: tracer}, frontend)
	if err != nil {
		l.Close()
		return err
	}
	slog.Info("a player makes requests, and leaves with Ctrl-C", "addr", l.Addr())
	return errors.Join(play(ctx, l.Addr().String(), show), end())
}

// start starts servers on a cluster, the first one first, and returns what ends them, the last one first.
func start(ctx context.Context, cluster *pitaya.MemCluster, configs ...pitaya.Config) (end func() error, err error) {
	var running []func() error
	end = func() (err error) {
		for _, stop := range slices.Backward(running) {
			err = errors.Join(err, stop())
		}
		return err
	}
	for _, cfg := range configs {
		cfg.Cluster = true
		cfg.Discovery, cfg.Transport = cluster.Node()
		srv, err := pitaya.NewServer(cfg)
		if err != nil {
			return nil, errors.Join(err, end())
		}
		if err := register(srv); err != nil {
			return nil, errors.Join(err, end())
		}
		serverCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		ran := make(chan error, 1)
		go func() { ran <- srv.Run(serverCtx) }()
		running = append(running, func() error {
			cancel()
			return <-ran
		})
		select {
		case <-srv.Ready():
		case err := <-ran:
			ran <- nil
			return nil, errors.Join(err, end())
		}
	}
	return end, nil
}

// Greeting is the argument and the answer of room.hall.greet.
type Greeting struct {
	Text string `json:"text"`
}

// CodeNobody answers who wants to greet nobody.
const CodeNobody = "GAME-NOBODY"

// register registers what a server of its type does.
func register(srv *pitaya.Server) error {
	if srv.Type() != "room" {
		return nil
	}
	return pitaya.Handle(srv, "hall.greet", func(ctx context.Context, in *Greeting) (*Greeting, error) {
		if in.Text == "" {
			return nil, pitaya.Errorf(CodeNobody, "nobody to greet")
		}
		slog.InfoContext(ctx, "greeted") // carries the ids of trace and request, and the session
		return &Greeting{Text: "Hello, " + in.Text + "!"}, nil
	})
}

// play makes a request each second; every fifth one fails.
func play(ctx context.Context, address string, show func(text string)) error {
	client, err := pitaya.Dial(ctx, "tcp://"+address, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for i := 1; ; i++ {
		var in, out Greeting
		if in.Text = "Ada"; i%5 == 0 {
			in.Text = ""
		}
		err := client.Request(ctx, "room.hall.greet", &in, &out)
		if ctx.Err() == nil {
			show(cmp.Or(out.Text, fmt.Sprint(err)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-client.Done():
			return client.Err()
		case <-second.C:
		}
	}
}
