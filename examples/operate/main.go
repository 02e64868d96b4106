// Operate is a game server as those see it who run it: beside the port for clients it has a private one with probes, metrics,
// the debug page, profiles and variables.
//
//	go run ./examples/operate -bots 50
//
// starts a gate and two servers for rooms in one process, lets bots play, and prints the addresses. With a type, it is one
// server of a cluster by etcd and NATS, and takes its settings from the environment, as deploy/kubernetes has it:
//
//	PITAYA_SERVER_TYPE=room PITAYA_SERVER_CLUSTER=true operate -private :9090
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
	if err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "operate:", err)
		os.Exit(1)
	}
}

// Types of servers.
const (
	typeGate = "gate" // a frontend
	typeRoom = "room"
)

// A program is what the command line and the environment say.
type program struct {
	listen, ws, private string // addresses; ws may be empty
	writable            bool
	bots                int
	config              pitaya.Config // of all servers
	out                 io.Writer
}

// run is the program. It ends when ctx does.
func run(ctx context.Context, args, environ []string, out, stderr io.Writer) error {
	p := &program{out: out}
	fs := flag.NewFlagSet("operate", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&p.listen, "listen", ":3250", "TCP `address` for clients")
	fs.StringVar(&p.ws, "ws", "", "WebSocket `address` for clients, if there is to be one")
	fs.StringVar(&p.private, "private", "localhost:9090", "HTTP `address` for those who operate the server")
	fs.BoolVar(&p.writable, "writable", false, "the debug page can end sessions")
	fs.IntVar(&p.bots, "bots", 0, "`number` of bots that play")
	p.config.Bind(fs) // all settings of the library
	if err := p.config.Load(fs, args, environ); err != nil {
		return err
	}
	level := slog.LevelInfo
	if p.config.Type == "" {
		level = slog.LevelError
	}
	p.config.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	switch p.config.Type {
	case "":
		return p.runAll(ctx)
	case typeGate:
		return p.runServer(ctx, p.config, setUpGate)
	case typeRoom:
		return p.runServer(ctx, p.config, setUpRoom)
	}
	return fmt.Errorf("there is no server of type %q", p.config.Type)
}

// runAll runs a cluster in memory. The private port is that of its gate.
func (p *program) runAll(ctx context.Context) error {
	// Backends first: when clients come, all else is there. They end last.
	cluster := pitaya.NewMemCluster()
	config := func(serverType, id string) pitaya.Config {
		cfg := p.config
		cfg.Type, cfg.ID, cfg.Frontend, cfg.Cluster = serverType, id, serverType == typeGate, true
		cfg.Discovery, cfg.Transport = cluster.Node()
		return cfg
	}
	var ends []func() error
	var err error
	for i := range 2 {
		var end func() error
		if end, err = startRoom(config(typeRoom, fmt.Sprint("room-", i+1))); err != nil {
			break
		}
		ends = append(ends, end)
	}
	if err == nil {
		err = p.runServer(ctx, config(typeGate, "gate-1"), setUpGate)
	}
	for _, end := range ends {
		err = errors.Join(err, end())
	}
	return err
}

// runServer runs a server and, as long as that lives, the private listener.
func (p *program) runServer(ctx context.Context, cfg pitaya.Config, setUp func(*pitaya.Server) error) (err error) {
	ran := make(chan error, 1)
	started := false
	defer func() {
		if !started { // else the server closes them
			for _, l := range cfg.Listeners {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	if cfg.Frontend {
		l, err := pitaya.ListenTCP(p.listen, nil)
		if err != nil {
			return err
		}
		cfg.Listeners = append(cfg.Listeners, l)
		if p.ws != "" {
			ws, err := pitaya.ListenWS(p.ws, nil)
			if err != nil {
				return err
			}
			cfg.Listeners = append(cfg.Listeners, ws)
		}
	}
	metrics, err := pitaya.NewMetrics(cfg.Type, cfg.Metrics)
	if err != nil {
		return err
	}
	cfg.Reporters = []pitaya.Reporter{metrics}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	if err := setUp(srv); err != nil {
		return err
	}

	// The private port is open before the server runs and after it, so that probes see it start and end. Who ends it waits
	// for Run first.
	private, err := net.Listen("tcp", p.private)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "private    http://%s/\n", private.Addr())
	ops := &http.Server{Handler: operations(srv, metrics, p.writable), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- ops.Serve(private) }()

	running, cancel := context.WithCancel(ctx)
	defer cancel()
	started = true
	go func() { ran <- srv.Run(running) }()
	var players sync.WaitGroup
	select {
	case <-srv.Ready():
		for _, l := range cfg.Listeners {
			fmt.Fprintf(p.out, "clients    %s\n", l.Addr())
		}
		fmt.Fprintln(p.out, "ready")
		if cfg.Frontend {
			for i := range p.bots {
				players.Go(func() { play(running, cfg.Listeners[0].Addr().String(), i) })
			}
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
	mux.Handle("/docs/", srv.DocsHandler(pitaya.DocsOptions{Cluster: true})) // for those who write clients
	mux.Handle("/debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html>\n<title>operate</title>\n<ul>\n")
		for _, path := range []string{"/debug/pitaya/", "/readyz?verbose", "/livez?verbose", "/metrics", "/docs/", "/debug/pprof/", "/debug/vars"} {
			fmt.Fprintf(w, "<li><a href=%q>%[1]s</a>\n", path)
		}
		fmt.Fprint(w, "</ul>\n")
	})
	return mux
}
