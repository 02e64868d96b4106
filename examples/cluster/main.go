// Cluster is a small game on several servers: gates that clients connect to, servers that have rooms, and one that
// counts points.
//
//	go run ./examples/cluster
//
// runs all of them in one process, without anything else, and lets two bots play. The README beside this file has the
// words to run them as processes of their own, with a real etcd and NATS.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	Role          string
	Etcd, NATS    string
	GRPC          bool
	Listen        string
	Rooms         int
	Quiet         bool
	Connect, Name string
	Room          string
	Spans         string        // name of a file
	Config        pitaya.Config // for the servers, but for what their roles say
	Log           *slog.Logger
}

// Roles besides the types of servers.
const (
	roleAll    = "all"
	roleClient = "client"
)

func parse(args, environ []string, stderr io.Writer) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.Role, "role", roleAll, "what runs: all, gate, room or score; or client, to play in the terminal")
	fs.StringVar(&o.Etcd, "etcd", "", "`addresses` of etcd, with commas between (default localhost:2379)")
	fs.StringVar(&o.NATS, "nats", "", "`address` of NATS (default nats://localhost:4222)")
	fs.BoolVar(&o.GRPC, "grpc", false, "servers call each other over gRPC, without NATS")
	fs.StringVar(&o.Listen, "listen", ":3250", "TCP `address` of the gate for clients")
	fs.IntVar(&o.Rooms, "rooms", 1, "`number` of servers for rooms that -role all runs")
	fs.BoolVar(&o.Quiet, "quiet", false, "no bots in -role all")
	fs.StringVar(&o.Connect, "connect", "localhost:3250", "`address` of the gate, for -role client")
	fs.StringVar(&o.Name, "name", "", "your `name`, for -role client")
	fs.StringVar(&o.Room, "room", "lobby", "`room` to join first, for -role client")
	fs.StringVar(&o.Spans, "spans", "", "`file` for the traces of all requests, as lines of JSON")
	o.Config.Bind(fs) // all settings of the library, which may come from a file and the environment as well
	if err := o.Config.Load(fs, args, environ); err != nil {
		return nil, err
	}
	set := func(value string, keys ...string) (err error) {
		for _, key := range keys {
			if value != "" {
				err = errors.Join(err, fs.Set("pitaya."+key, value))
			}
		}
		return err
	}
	err := errors.Join(
		set(o.Etcd, "cluster.sd.etcd.endpoints", "modules.bindingstorage.etcd.endpoints"),
		set(o.NATS, "cluster.rpc.client.nats.connect", "cluster.rpc.server.nats.connect"),
	)
	switch {
	case err != nil:
		return nil, err
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case !slices.Contains([]string{roleAll, roleClient, typeGate, typeRoom, typeScore}, o.Role):
		return nil, fmt.Errorf("there is no role %q", o.Role)
	case o.Role == roleClient && o.Name == "":
		return nil, errors.New("-role client needs a -name")
	case o.Rooms < 1:
		return nil, errors.New("-rooms is at least 1")
	}
	o.Log = slog.New(slog.NewTextHandler(stderr, nil))
	return o, nil
}

// run is the program. It ends when ctx does, or the input of a client.
func run(ctx context.Context, args, environ []string, in io.Reader, out, stderr io.Writer) (err error) {
	o, err := parse(args, environ, stderr)
	if err != nil {
		return err
	}
	if o.Role == roleClient {
		return play(ctx, o, in, out)
	}
	if o.Spans != "" {
		f, failed := os.Create(o.Spans)
		if failed != nil {
			return failed
		}
		spans := newSpanWriter(f)
		o.Config.Tracer = spans
		// When the servers have ended, and with them the last spans.
		defer func() { err = errors.Join(err, spans.Close(), f.Close()) }()
	}
	// Backends first: when clients come, all else is there. And they end last.
	types := []string{o.Role}
	if o.Role == roleAll {
		types = slices.Concat([]string{typeScore}, slices.Repeat([]string{typeRoom}, o.Rooms), []string{typeGate})
	}
	var cluster *pitaya.MemCluster
	if o.Role == roleAll && o.Etcd == "" && o.NATS == "" && !o.GRPC {
		cluster = pitaya.NewMemCluster()
	}

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var ended []func() error
	for i, serverType := range types {
		end, err := start(ctx, o, serverType, i, cluster, out, fail)
		if err != nil {
			fail(err)
			break
		}
		ended = append(ended, end)
	}
	var bots sync.WaitGroup
	if o.Role == roleAll && !o.Quiet && ctx.Err() == nil {
		fmt.Fprintln(out, "ann and bob play; Ctrl-C ends it, and so does -quiet for them")
		for _, name := range []string{"ann", "bob"} {
			bots.Go(func() { bot(ctx, o, name, out) })
		}
	}
	<-ctx.Done()
	bots.Wait()
	if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
		err = nil
	}
	for _, end := range slices.Backward(ended) {
		err = errors.Join(err, end())
	}
	return err
}

// start starts a server, unless ctx ends first, and returns what ends it and waits for that. Should the server end by
// itself, fail is told.
func start(ctx context.Context, o *options, serverType string, number int, cluster *pitaya.MemCluster, out io.Writer, fail func(error)) (func() error, error) {
	cfg := o.Config
	cfg.Type, cfg.Frontend, cfg.Cluster = serverType, serverType == typeGate, true
	if cfg.ID == "" || o.Role == roleAll {
		// Readable, and different on each start: an old entry in etcd may last until its lease runs out.
		cfg.ID = fmt.Sprintf("%s-%d-%s", serverType, number, strings.ToLower(suffix()))
	}
	cfg.Logger = o.Log.With("on", cfg.ID)
	srv, err := newServer(o, &cfg, cluster)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background()) // servers end one after the other
	starting := context.AfterFunc(ctx, cancel)
	ran := make(chan error, 1)
	go func() {
		err := srv.Run(running)
		if err != nil {
			fail(fmt.Errorf("%s: %w", cfg.ID, err))
		}
		ran <- err
	}()
	select {
	case err := <-ran:
		cancel()
		if err = cmp.Or(err, context.Cause(ctx)); errors.Is(err, context.Canceled) {
			return nil, err // as it was told
		}
		return nil, fmt.Errorf("%s: %w", cfg.ID, err)
	case <-srv.Ready():
		starting()
	}
	at := ""
	for _, l := range cfg.Listeners {
		at = " for clients at " + l.Addr().String()
		o.Listen = l.Addr().String() // the port, if it was left to the system
	}
	if a := srv.MetricsAddr(); a != nil {
		fmt.Fprintf(out, "%s has metrics at http://%s/metrics\n", cfg.ID, dialable(a.String()))
	}
	fmt.Fprintf(out, "%s is ready%s\n", cfg.ID, at)
	return func() error {
		cancel()
		return <-ran
	}, nil
}

// newServer makes a server that can be run.
func newServer(o *options, cfg *pitaya.Config, cluster *pitaya.MemCluster) (srv *pitaya.Server, err error) {
	if cfg.Frontend {
		l, err := pitaya.ListenTCP(o.Listen, nil)
		if err != nil {
			return nil, err
		}
		cfg.Listeners = append(cfg.Listeners, l)
	}
	switch {
	case cluster != nil:
		cfg.Discovery, cfg.Transport = cluster.Node()
	case o.GRPC:
		err = useGRPC(cfg)
	}
	if err == nil {
		srv, err = pitaya.NewServer(*cfg)
	}
	if err != nil { // else the server closes all of this
		for _, l := range cfg.Listeners {
			l.Close()
		}
		if cfg.Bindings != nil {
			err = errors.Join(err, cfg.Bindings.Close(context.Background()))
		}
		return nil, err
	}
	setUp(srv)
	return srv, nil
}

// defaultGRPCPort is the port of who sets none.
const defaultGRPCPort = 3434

// useGRPC lets servers call each other directly.
func useGRPC(cfg *pitaya.Config) (err error) {
	// Several servers on one machine cannot have the same port, so each takes one that is free, and the transport writes
	// into the entry in etcd which one that is.
	settings, port := cfg.GRPC, ""
	if cfg.GRPC.Port != 0 && cfg.GRPC.Port != defaultGRPCPort {
		port = strconv.Itoa(cfg.GRPC.Port)
	} else {
		settings.Port = -1
	}
	// On several machines the host would be the name of this one.
	cfg.Metadata = pitaya.GRPCMetadata(cfg.Metadata, cfg.Region, "127.0.0.1", port, "", "")
	if cfg.Transport, err = pitaya.NewGRPCTransport(settings, cfg.Region, cfg.Logger); err != nil {
		return err
	}
	// Without NATS, somebody has to know which gate a user is on.
	cfg.Bindings, err = pitaya.NewEtcdBindings(cfg.BindingEtcd, cfg.Type, cfg.ID, cfg.Logger)
	return err
}

// setUp registers what a server of its type does.
func setUp(srv *pitaya.Server) {
	switch srv.Type() {
	case typeGate:
		setUpGate(srv)
	case typeRoom:
		setUpRoom(srv)
	case typeScore:
		setUpScore(srv)
	}
}
