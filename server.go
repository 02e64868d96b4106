package pitaya

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
)

// A Server accepts clients and handles their messages. It is made by
// [NewServer], set up by the methods that say so, and then runs once, in
// [Server.Run]. Any number of servers can live in one process.
type Server struct {
	// Immutable, but for what configure sets before anything else is done with
	// the server.
	cfg        Config // defaults filled in
	log        *slog.Logger
	registry   *registry
	table      *sessionTable
	counters   counters
	groups     GroupStore
	modules    *modules
	timers     *timers
	registered *Metrics      // served for Prometheus; nil if that is off
	ready      chan struct{} // closed when clients are served
	closing    chan struct{} // closed when Shutdown begins
	done       chan struct{} // closed when everything has ended

	mu             sync.Mutex // guards the fields below; never held across I/O or a callback
	state          serverState
	mistakes       []error // of the set-up
	dict           *Dictionary
	validators     []handshakeValidator
	pipeline       pipeline
	remotePipeline pipeline
	onBind         []func(context.Context, *Session) error
	onAfter        []func(context.Context, *Session) error
	onClose        []func(*Session)
	onDetach       []func(*Session)
	onResume       []func(*Session)
	onServer       []func(DiscoveryEvent)
	onEvent        []func(SessionEvent)
	routes         map[string]RoutingFunc // by server type
	quit           context.CancelFunc     // ends Run; set when the server starts
	host           *sessionHost           // set when the server starts
	cluster        *cluster               // set with host; nil if the server runs alone
	listeners      map[*net.Listener]bool // being served
	failed         []string               // addresses of those of cfg.Listeners that are not served any more
	debug          *debugState            // nil: nobody has asked for the debug page
	docs           docsSource             // nil: the server does not tell of its routes
	reporters      []Reporter             // all of them; set when the server starts
	scraped        *metricsListener       // set when the server starts; nil if nothing is served
	err            error                  // what Shutdown returned

	// Set by Run before the server serves.
	statsd   *Statsd       // nil if that is off
	metering *metering     // nil without reporters
	slots    chan struct{} // the dispatcher's

	refusals sampler // of the log records about refused connections
	jobs     serverJobs

	conns    sync.WaitGroup // accept loops and reading goroutines
	serveCtx context.Context
	stopping context.CancelCauseFunc // ends serveCtx
}

// serverState is where a server is in its life. It only grows.
type serverState uint8

const (
	serverNew      serverState = iota // being set up
	serverStarting                    // Run was called
	serverRunning                     // clients are served
	serverClosing                     // Shutdown was called, or the start failed
	serverEnded                       // everything has ended
)

// ErrServerRunning is what the methods that set up a server return once it
// runs.
var ErrServerRunning = errors.New("pitaya: server is running already")

// ErrServerNotRunning is what the methods that send return before the server
// runs.
var ErrServerNotRunning = errors.New("pitaya: server is not running")

// NewServer returns a server with the given settings. Mistakes in them are
// returned all at once. Nothing is opened or connected before [Server.Run].
func NewServer(cfg Config) (*Server, error) {
	s := newServer()
	if err := s.configure(cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// newServer returns a server without settings.
func newServer() *Server {
	s := &Server{
		log:       slog.Default(),
		registry:  newRegistry(),
		table:     newSessionTable(),
		groups:    NewMemoryGroups(),
		ready:     make(chan struct{}),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
		listeners: make(map[*net.Listener]bool),
		routes:    make(map[string]RoutingFunc),
	}
	s.modules = newModules(s.log)
	s.timers = newTimers(nil, s.log)
	s.serveCtx, s.stopping = context.WithCancelCause(context.Background())
	return s
}

// configure gives the server its settings. What was set up before stays: the
// default server can be set up in any order.
func (s *Server) configure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	cfg.Listeners = slices.Concat(s.cfg.Listeners, cfg.Listeners)
	if !cfg.Frontend && len(cfg.Listeners) > 0 {
		return errBackendListener
	}
	if cfg.Serializer == nil {
		cfg.Serializer = s.cfg.Serializer
	}
	if cfg.ID == "" {
		cfg.ID = rand.Text()
	}
	if err := cfg.checkSeams(); err != nil {
		return err
	}
	if err := s.registry.setServerType(cfg.Type); err != nil {
		return err
	}
	var registered *Metrics
	if cfg.Metrics.Prometheus.Enabled {
		var err error
		if registered, err = NewMetrics(cfg.Type, cfg.Metrics); err != nil {
			return err
		}
	}
	s.registered = registered
	if cfg.Groups != nil {
		s.groups = cfg.Groups
	}
	s.cfg = cfg
	s.log = guardLogger(cmp.Or(cfg.Logger, slog.Default()))
	s.modules.setLogger(s.log)
	s.timers.setLogger(s.log)
	return nil
}

// errBackendListener refuses acceptors on a server that has no clients.
var errBackendListener = errors.New("pitaya: a backend has no listeners for clients")

// ID returns the server's id.
func (s *Server) ID() string { return s.cfg.ID }

// Type returns the server's type, the first part of its routes.
func (s *Server) Type() string { return s.cfg.Type }

// Info describes the server as others of its cluster see it.
func (s *Server) Info() *ServerInfo {
	hostname, _ := os.Hostname()
	return &ServerInfo{
		ID:       s.cfg.ID,
		Type:     s.cfg.Type,
		Metadata: maps.Clone(s.cfg.Metadata),
		Hostname: hostname,
		Frontend: s.cfg.Frontend,
	}
}

// Module returns the module with the given name.
func (s *Server) Module(name string) (Module, bool) { return s.modules.get(name) }

// SessionByUID returns the session that the user is bound to, or nil.
func (s *Server) SessionByUID(uid string) *Session { return s.table.user(uid) }

// SessionByID returns the session with the given id, or nil.
func (s *Server) SessionByID(id int64) *Session { return s.table.get(id) }

// Sessions iterates over the sessions that exist at the beginning of the
// iteration, in no order.
func (s *Server) Sessions() iter.Seq[*Session] { return s.table.all() }

// SessionCount returns the number of sessions, those that wait for their clients
// to come back included.
func (s *Server) SessionCount() int { return s.table.len() }

// Stats returns what the server has done so far. It costs the same however many
// sessions there are.
func (s *Server) Stats() Stats {
	stats := s.counters.snapshot()
	stats.Sessions = int64(s.table.len())
	stats.Bound = int64(s.table.users())
	if host, err := s.running(); err == nil {
		stats.Waiting = int64(host.Resumes.waiting())
	}
	return stats
}

// Ready returns a channel that is closed when clients are served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// IsRunning reports whether clients are served. It turns true when Ready is
// closed, and false when Run returns.
func (s *Server) IsRunning() bool {
	select {
	case <-s.ready:
		return !s.hasEnded()
	default:
		return false
	}
}

// running returns what sessions share, or an error before the server starts.
func (s *Server) running() (*sessionHost, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host == nil {
		return nil, ErrServerNotRunning
	}
	return s.host, nil
}
