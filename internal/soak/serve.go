package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Settings of the servers. They are much shorter than the defaults, so that much happens in little time.
const (
	requestTimeout  = 3 * time.Second
	leaseTTL        = 5 * time.Second
	heartbeat       = 5 * time.Second
	resumeWindow    = 10 * time.Second
	shutdownTimeout = 10 * time.Second
)

// A serverSpec is what a process needs to know to be a server.
type serverSpec struct {
	Type, ID, Process string
	Etcd, NATS        string
	Journal           string
}

// serverAddrs is the line that a server prints when it is ready.
type serverAddrs struct{ Admin, TCP, WS string }

// serve is the main function of a server. It ends with SIGTERM, and at once with its standard input, which is a pipe from
// whoever has started it.
func serve(spec serverSpec, in io.Reader, out io.Writer) error {
	go func() {
		io.Copy(io.Discard, in)
		os.Exit(3)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))

	j, err := newJournal(spec.Journal)
	if err != nil {
		return err
	}
	defer j.close()
	cfg := spec.config(log)
	groups, err := pitaya.NewEtcdGroups(cfg.GroupsEtcd, log)
	if err != nil {
		return err
	}
	defer groups.Close()
	cfg.Groups = groups
	metrics, err := pitaya.NewMetrics(spec.Type, cfg.Metrics)
	if err != nil {
		return err
	}
	cfg.Reporters = []pitaya.Reporter{metrics}
	addrs := serverAddrs{}
	if spec.Type == typeGate {
		cfg.Frontend = true
		tcp, err := pitaya.ListenTCP("127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		ws, err := pitaya.ListenWS("127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		cfg.Listeners = []net.Listener{tcp, ws}
		addrs.TCP, addrs.WS = tcp.Addr().String(), ws.Addr().String()
	}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	g := newGame(spec.Process, j)
	if err := g.register(srv); err != nil {
		return err
	}

	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addrs.Admin = admin.Addr().String()
	ops := &http.Server{Handler: g.admin(metrics), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- ops.Serve(admin) }()

	ran := make(chan error, 1)
	go func() { ran <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
		if err := json.NewEncoder(out).Encode(addrs); err != nil {
			return err
		}
		err = <-ran
	case err = <-ran:
	}
	err = errors.Join(err, ops.Close())
	if end := <-served; end != http.ErrServerClosed {
		err = errors.Join(err, end)
	}
	return err
}

// config are the settings of a server: times are short, so that faults show within a run.
func (spec serverSpec) config(log *slog.Logger) pitaya.Config {
	cfg := pitaya.Config{
		Type: spec.Type, ID: spec.ID, Cluster: true, Logger: log,
		Heartbeat: heartbeat, ShutdownTimeout: shutdownTimeout,
		Resume: pitaya.ResumeConfig{Window: resumeWindow},
		Etcd: pitaya.EtcdConfig{
			Endpoints: []string{spec.Etcd}, HeartbeatTTL: leaseTTL, SyncInterval: 10 * time.Second,
			GrantLeaseTimeout: 5 * time.Second, GrantLeaseInterval: time.Second,
		},
		GroupsEtcd: pitaya.GroupsEtcdConfig{Endpoints: []string{spec.Etcd}, TransactionTimeout: 2 * time.Second},
		NATSClient: pitaya.NATSConfig{
			URL: spec.NATS, RequestTimeout: requestTimeout, PingInterval: 2 * time.Second, MaxPings: 2,
		},
	}
	cfg.NATSServer = cfg.NATSClient
	return cfg
}

// serverState is what a server tells about itself.
type serverState struct {
	Process    string
	Unhealthy  string            // why; "" if it is healthy
	Servers    map[string]string // id to type, of those that it knows and that do not drain; itself included
	Stats      pitaya.Stats
	Users      map[string]int // by uid: how many sessions it has here
	Away       int            // sessions that wait for their clients
	Goroutines int
	Files      int    // open descriptors; -1 where that is not known
	Heap       uint64 // bytes after a collection, if it was asked for
	Resident   uint64
	CPU        time.Duration
}

func (g *game) state(collect bool) serverState {
	s := serverState{Process: g.process, Servers: make(map[string]string), Users: make(map[string]int), Stats: g.srv.Stats()}
	if err := g.srv.Healthy(); err != nil {
		s.Unhealthy = err.Error()
	}
	for _, info := range g.srv.Servers("") {
		if !info.Draining() {
			s.Servers[info.ID] = info.Type
		}
	}
	for session := range g.srv.Sessions() {
		if uid := session.UID(); uid != "" {
			s.Users[uid]++
		}
		if !session.Connected() {
			s.Away++
		}
	}
	if collect {
		runtime.GC()
		runtime.GC() // what finalizers and pools have held
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Goroutines = m.HeapAlloc, runtime.NumGoroutine()
	s.Files, s.Resident, s.CPU = processUse()
	return s
}

// admin is what the private port of a server serves.
func (g *game) admin(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	mux.Handle("/debug/pitaya/", g.srv.DebugHandler(pitaya.DebugOptions{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(g.state(r.FormValue("collect") != ""))
	})
	mux.HandleFunc("/create", func(w http.ResponseWriter, r *http.Request) {
		for name := range strings.FieldsSeq(r.FormValue("groups")) {
			if err := g.srv.Group(name).Create(r.Context(), 0); err != nil && !errors.Is(err, pitaya.ErrGroupExists) {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
	})
	mux.HandleFunc("/members", func(w http.ResponseWriter, r *http.Request) {
		members := make(map[string][]string)
		for name := range strings.FieldsSeq(r.FormValue("groups")) {
			uids, err := g.srv.Group(name).Members(r.Context())
			if err != nil {
				http.Error(w, fmt.Sprintf("%s: %v", name, err), http.StatusInternalServerError)
				return
			}
			members[name] = uids
		}
		json.NewEncoder(w).Encode(members)
	})
	mux.HandleFunc("/probe", func(w http.ResponseWriter, r *http.Request) {
		probe, err := strconv.Atoi(r.FormValue("probe"))
		for name := range strings.FieldsSeq(r.FormValue("groups")) {
			err = errors.Join(err, g.chat(r.Context(), name, probe, ""))
		}
		for uid := range strings.FieldsSeq(r.FormValue("users")) {
			err = errors.Join(err, g.tell(r.Context(), uid, probe))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}
