// Operate is a game server as those see it who run it: beside the port for clients it has a private one with probes, metrics,
// the debug page, profiles and variables.
//
//	go run ./examples/operate -bots 50
//
// starts a gate and two servers for rooms in one process, lets bots play, and prints the addresses.
package main

import (
	"context"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "operate:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does.
func run(ctx context.Context, args []string, out, stderr io.Writer) error {
	fs := flag.NewFlagSet("operate", flag.ContinueOnError)
	fs.SetOutput(stderr)
	listen := fs.String("listen", ":3250", "TCP `address` for clients")
	private := fs.String("private", "localhost:9090", "HTTP `address` for those who operate the server")
	writable := fs.Bool("writable", false, "the debug page can end sessions")
	bots := fs.Int("bots", 0, "`number` of bots that play")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))

	// Backends first: when clients come, all else is there. They end last.
	cluster := pitaya.NewMemCluster()
	var ends []func() error
	var err error
	for i := range 2 {
		var end func() error
		if end, err = startRoom(cluster, fmt.Sprint("room-", i+1), log); err != nil {
			break
		}
		ends = append(ends, end)
	}
	if err == nil {
		err = runGate(ctx, cluster, *listen, *private, *writable, *bots, out, log)
	}
	for _, end := range ends {
		err = errors.Join(err, end())
	}
	return err
}

// runGate runs the server for clients and, as long as that lives, the private listener.
func runGate(ctx context.Context, cluster *pitaya.MemCluster, listen, private string, writable bool, bots int, out io.Writer, log *slog.Logger) error {
	l, err := pitaya.ListenTCP(listen, nil)
	if err != nil {
		return err
	}
	cfg := pitaya.Config{Type: "gate", ID: "gate-1", Frontend: true, Cluster: true, Listeners: []net.Listener{l}, Logger: log}
	cfg.Discovery, cfg.Transport = cluster.Node()
	metrics, err := pitaya.NewMetrics(cfg.Type, cfg.Metrics)
	if err != nil {
		l.Close()
		return err
	}
	cfg.Reporters = []pitaya.Reporter{metrics}
	gate, err := pitaya.NewServer(cfg)
	if err != nil {
		l.Close()
		return err
	}
	if err := setUpGate(gate); err != nil {
		l.Close()
		return err
	}

	// The private port is open before the server runs and after it, so that probes see it start and end. Who ends it waits
	// for Run first.
	p, err := net.Listen("tcp", private)
	if err != nil {
		l.Close()
		return err
	}
	ops := &http.Server{Handler: operations(gate, metrics, writable), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- ops.Serve(p) }()

	running, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- gate.Run(running) }()
	var players sync.WaitGroup
	select {
	case <-gate.Ready():
		fmt.Fprintf(out, "clients    %s\nprivate    http://%s/\n", l.Addr(), p.Addr())
		for i := range bots {
			players.Go(func() { play(running, l.Addr().String(), i) })
		}
	case err = <-ran:
		ran <- nil
	}
	err = errors.Join(err, <-ran)
	cancel()
	players.Wait()
	err = errors.Join(err, ops.Close())
	if end := <-served; end != http.ErrServerClosed {
		err = errors.Join(err, end)
	}
	return err
}

// operations is what the private port serves. It must not be reached by the public: profiles tell what the process does,
// and the debug page who is on it.
func operations(srv *pitaya.Server, metrics *pitaya.Metrics, writable bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	mux.Handle("/readyz", srv.Readyz())
	mux.Handle("/livez", srv.Livez())
	mux.Handle("/debug/pitaya/", srv.DebugHandler(pitaya.DebugOptions{Writable: writable}))
	mux.Handle("/debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html>\n<title>operate</title>\n<ul>\n")
		for _, path := range []string{"/debug/pitaya/", "/readyz?verbose", "/livez?verbose", "/metrics", "/debug/pprof/", "/debug/vars"} {
			fmt.Fprintf(w, "<li><a href=%q>%[1]s</a>\n", path)
		}
		fmt.Fprint(w, "</ul>\n")
	})
	return mux
}
