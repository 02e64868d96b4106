package pitayatest

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A Server is a running [pitaya.Server] that ends with its test.
type Server struct {
	*pitaya.Server
	t       testing.TB
	cfg     pitaya.Config // as it was given, for Restart
	setup   func(*pitaya.Server)
	cluster *Cluster            // nil for a server that runs alone
	mem     *pitaya.MemListener // nil for a backend
	quit    context.CancelFunc  // ends Run
	ended   chan struct{}       // closed when Run has returned
	err     error               // of Run; valid once ended is closed
	report  sync.Once           // a server that went wrong fails its test once
	limit   time.Duration       // how long its end may take
}

// NewServer starts a server with a listener in memory, waits until it serves clients, and ends it with the test, which
// fails if the server does. setup registers handlers and whatever else comes before Run; it may be nil, and it need not
// look at errors, since they come back from Run.
//
// The server is a frontend, whatever the settings say: one that runs alone has nothing else to be. [Cluster.NewServer]
// starts the servers of a cluster in memory. With Config.Cluster the server joins the cluster that the settings say, etcd
// and NATS as a rule, as frontend or as backend. It logs to the test, where the settings name no other logger.
func NewServer(t testing.TB, cfg pitaya.Config, setup func(*pitaya.Server)) *Server {
	t.Helper()
	cfg.Frontend = cfg.Frontend || !cfg.Cluster
	return start(t, nil, cfg, setup)
}

func start(t testing.TB, cluster *Cluster, given pitaya.Config, setup func(*pitaya.Server)) *Server {
	t.Helper()
	cfg := given
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if cluster != nil {
		cluster.join(&cfg)
	}
	s := &Server{t: t, cfg: given, setup: setup, cluster: cluster, ended: make(chan struct{})}
	// The library bounds its own end by its settings, so what takes longer is stuck.
	s.limit = cmp.Or(cfg.ShutdownTimeout, 10*time.Second) + patience
	if cfg.DrainEnabled {
		s.limit += cmp.Or(cfg.DrainTimeout, 6*time.Hour)
	}
	var err error
	if s.Server, err = pitaya.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Frontend {
		s.mem = pitaya.ListenMem()
		noError(t, s.AddListener(s.mem))
	}
	if setup != nil {
		setup(s.Server)
	}
	ctx, quit := context.WithCancel(context.Background()) // not the test's, which ends before its cleanup
	s.quit = quit
	go func() {
		defer close(s.ended)
		s.err = s.Run(ctx)
	}()
	t.Cleanup(s.Stop)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.Ready():
	case <-s.ended:
		s.report.Do(func() {})
		t.Fatalf("server %s has ended before it was ready: %v", s.ID(), s.err)
	case <-timer.C:
		t.Fatalf("server %s is not ready after %v", s.ID(), patience)
	}
	if cluster != nil {
		cluster.await(t, s.ID(), true)
	}
	return s
}

// Stop ends the server as the end of the context of Run does, and waits for it. The test fails if Run returns an error or
// does not return. Further calls do nothing.
func (s *Server) Stop() {
	s.t.Helper()
	s.quit()
	timer := time.NewTimer(s.limit)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		s.report.Do(func() { s.t.Errorf("server %s has not ended within %v", s.ID(), s.limit) })
		return
	}
	s.report.Do(func() {
		s.t.Helper()
		if s.err != nil {
			s.t.Errorf("server %s: %v", s.ID(), s.err)
		}
		if s.cluster != nil {
			s.cluster.await(s.t, s.ID(), false)
		}
	})
}

// Restart stops the server and starts one with the same settings and the same set-up in its place, as a deployment does.
// It has the same id where the settings name one, and clients of its own. Restarting the servers of a list one after the
// other is a rolling deployment.
func (s *Server) Restart() *Server {
	s.t.Helper()
	s.Stop()
	return start(s.t, s.cluster, s.cfg, s.setup)
}

// Client connects a client, which is closed with the test.
func (s *Server) Client(t testing.TB) *Client {
	t.Helper()
	return s.ClientWith(t, nil)
}

// ClientWith is [Server.Client] with settings, for another handshake, say. Pushes on routes with a handler in
// cfg.OnPush go there; all others can be expected, and go to cfg.OnAnyPush as well. With cfg.Resume the client connects to
// this server again, unless cfg.Redial says something else; [Client.Cut] makes it do so. cfg may be nil.
func (s *Server) ClientWith(t testing.TB, cfg *pitaya.ClientConfig) *Client {
	t.Helper()
	c, err := s.Dial(t, cfg)
	if err != nil {
		t.Fatalf("client of %s: %v", s.ID(), err)
	}
	return c
}

// Dial is [Server.ClientWith] for a test of the handshake itself: it returns its error.
func (s *Server) Dial(t testing.TB, cfg *pitaya.ClientConfig) (*Client, error) {
	t.Helper()
	if s.mem == nil {
		t.Fatalf("server %s is a backend, which has no clients; set Config.Frontend", s.ID())
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := s.mem.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	if cfg != nil && cfg.Resume && cfg.Redial == nil {
		again := *cfg
		again.Redial = s.mem.DialContext
		cfg = &again
	}
	return newClient(ctx, t, conn, cfg)
}

// Listener returns the listener in memory, for connections without a [Client]. It is nil for a backend.
func (s *Server) Listener() *pitaya.MemListener { return s.mem }
