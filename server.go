package pitaya

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// A Server accepts clients and handles their messages. It is made by
// [NewServer], set up by the methods that say so, and then runs once, in
// [Server.Run]. Any number of servers can live in one process.
type Server struct {
	// Immutable, but for what configure sets before anything else is done with
	// the server.
	cfg      Config // defaults filled in
	log      *slog.Logger
	registry *registry
	table    *sessionTable
	counters counters
	groups   GroupStore
	modules  *modules
	timers   *timers
	ready    chan struct{} // closed when clients are served
	closing  chan struct{} // closed when Shutdown begins
	done     chan struct{} // closed when everything has ended

	mu         sync.Mutex // guards the fields below; never held across I/O or a callback
	state      serverState
	mistakes   []error // of the set-up
	dict       *Dictionary
	validators []handshakeValidator
	pipeline   pipeline
	onBind     []func(context.Context, *Session) error
	onAfter    []func(context.Context, *Session) error
	onClose    []func(*Session)
	routes     map[string]RoutingFunc // by server type
	quit       context.CancelFunc     // ends Run; set when the server starts
	host       *sessionHost           // set when the server starts
	listeners  map[net.Listener]bool
	perIP      map[string]int // open connections by address, where Config.MaxConnsPerIP is set
	err        error          // what Shutdown returned

	refusals sampler // of the log records about refused connections

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
		listeners: make(map[net.Listener]bool),
		perIP:     make(map[string]int),
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
	if err := s.registry.setServerType(cfg.Type); err != nil {
		return err
	}
	if cfg.Groups != nil {
		s.groups = cfg.Groups
	}
	s.cfg = cfg
	s.log = guardLogger(cmp.Or(cfg.Logger, slog.Default()))
	s.modules.setLogger(s.log)
	s.timers.setLogger(s.log)
	return nil
}

// errNoCluster refuses what this version cannot do yet. A server that was meant
// to be part of a cluster and runs alone would be found out by its players.
var errNoCluster = errors.New("pitaya: this version has no cluster: unset Config.Cluster (pitaya.server.cluster)")

// errBackendListener refuses acceptors on a server that has no clients.
var errBackendListener = errors.New("pitaya: a backend has no listeners for clients")

// kickReplaced implements uniqueServer. It is called before the first client is
// served.
func (s *Server) kickReplaced() { s.host.Unique = true }

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

// setUp runs f if the server can still be set up. What goes wrong is returned,
// and again from Run, so that a program that does not look at each result
// still does not start with half of its handlers.
func (s *Server) setUp(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.newLocked(); err != nil {
		return err
	}
	err := f()
	if err != nil {
		s.mistakes = append(s.mistakes, err)
	}
	return err
}

// newLocked returns an error unless the server is being set up.
func (s *Server) newLocked() error {
	switch s.state {
	case serverNew:
		return nil
	case serverClosing, serverEnded:
		return ErrServerClosed
	}
	return ErrServerRunning
}

// Register makes the methods of a component handlers of client messages. Which
// methods qualify, and what a client sees of them, is in the package's
// documentation, under Handlers. Mistakes are returned all at once: methods
// that look like handlers and are none, names that are taken, a type that is
// not exported. It is called before Run.
func (s *Server) Register(component any, opts ...RegisterOption) error {
	return s.setUp(func() error { return s.registry.register(component, opts) })
}

// RegisterRemote makes the methods of a component remotes, which other servers
// of the cluster can call: those that take a context and at most a pointer to a
// protobuf message, and return a pointer to such a message and an error. Names
// and mistakes are as with Register, but methods that are handlers are passed
// over, so that one component can have both. It is called before Run.
//
// A server that is in no cluster cannot be called. It logs that, and nothing
// else is different: the component's lifecycle methods run, as [Base] says.
func (s *Server) RegisterRemote(component any, opts ...RegisterOption) error {
	return s.setUp(func() error { return s.registry.registerRemote(component, opts) })
}

// AddRoute sets the function that chooses the server for the messages of this
// server's clients to servers of the given type. Without one it is a random
// one. A server that is in no cluster has nobody to choose from and never calls
// it. It is called before Run, once for each type.
func (s *Server) AddRoute(serverType string, f RoutingFunc) error {
	return s.setUp(func() error {
		if err := checkRoutePart(serverType); err != nil {
			return fmt.Errorf("pitaya: routing to servers of type %q: %w", serverType, err)
		}
		if f == nil {
			return fmt.Errorf("pitaya: routing to servers of type %q: no function given", serverType)
		}
		if s.routes[serverType] != nil {
			return fmt.Errorf("pitaya: routing to servers of type %q is set already", serverType)
		}
		s.routes[serverType] = f
		return nil
	})
}

// AddListener adds a listener to those that Run serves, as if it stood in
// Config.Listeners. It is called before Run; see Serve for later.
func (s *Server) AddListener(l net.Listener) error {
	return s.setUp(func() error {
		switch {
		case l == nil:
			return errors.New("pitaya: no listener given")
		case !s.cfg.Frontend:
			return errBackendListener
		}
		s.cfg.Listeners = append(slices.Clip(s.cfg.Listeners), l)
		return nil
	})
}

// addHandler registers a single handler.
func (s *Server) addHandler(route string, e *handlerEntry, opts []RegisterOption) error {
	return s.setUp(func() error { return s.registry.registerFunc(route, e, opts) })
}

// Before adds a function that runs before each handler, behind those added
// earlier. It is called before Run.
func (s *Server) Before(f BeforeFunc) error {
	return s.setUp(func() error {
		s.pipeline.Before = append(s.pipeline.Before, f)
		return nil
	})
}

// After adds a function that runs after each handler, behind those added
// earlier. It is called before Run.
func (s *Server) After(f AfterFunc) error {
	return s.setUp(func() error {
		s.pipeline.After = append(s.pipeline.After, f)
		return nil
	})
}

// SetDictionary sets the codes that stand for routes on the wire. Clients learn
// them in the handshake. It is called before Run.
func (s *Server) SetDictionary(routes map[string]uint16) error {
	return s.setUp(func() (err error) {
		s.dict, err = NewDictionary(routes)
		return err
	})
}

// SetSerializer sets how payloads are encoded. It is called before Run.
func (s *Server) SetSerializer(serializer Serializer) error {
	return s.setUp(func() error {
		if serializer == nil {
			return errors.New("pitaya: no serializer given")
		}
		s.cfg.Serializer = serializer
		return nil
	})
}

// AddHandshakeValidator adds a check of the handshake data of new clients. The
// validators run in the order in which they were added; the error of the first
// that refuses is told to the client as the msg of the answer, and the
// connection is closed. It is called before Run.
func (s *Server) AddHandshakeValidator(name string, check func(*HandshakeData) error) error {
	return s.setUp(func() error {
		if slices.ContainsFunc(s.validators, func(v handshakeValidator) bool { return v.Name == name }) {
			return fmt.Errorf("pitaya: there is a handshake validator %q already", name)
		}
		s.validators = append(s.validators, handshakeValidator{Name: name, Check: check})
		return nil
	})
}

// OnSessionBind adds a function that runs when a session is about to be bound
// to a user, in the goroutine of [Session.Bind]. An error prevents it. It is
// called before Run.
func (s *Server) OnSessionBind(f func(ctx context.Context, session *Session) error) error {
	return s.setUp(func() error {
		s.onBind = append(s.onBind, f)
		return nil
	})
}

// OnAfterSessionBind adds a function that runs when a session was bound to a
// user, in the goroutine of [Session.Bind]. An error unbinds it. It is called
// before Run.
func (s *Server) OnAfterSessionBind(f func(ctx context.Context, session *Session) error) error {
	return s.setUp(func() error {
		s.onAfter = append(s.onAfter, f)
		return nil
	})
}

// OnSessionClose adds a function that runs for each session that has ended, as
// [Session.OnClose] describes. It is called before Run.
func (s *Server) OnSessionClose(f func(session *Session)) error {
	return s.setUp(func() error {
		s.onClose = append(s.onClose, f)
		return nil
	})
}

// AddModule adds a module behind those added earlier. It is called before Run.
func (s *Server) AddModule(name string, m Module) error {
	return s.setUp(func() error { return s.modules.addAfter(name, m) })
}

// AddModuleBefore adds a module in front of those added earlier. It is called
// before Run.
func (s *Server) AddModuleBefore(name string, m Module) error {
	return s.setUp(func() error { return s.modules.addBefore(name, m) })
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

// SessionCount returns the number of sessions.
func (s *Server) SessionCount() int { return s.table.len() }

// Stats returns what the server has done so far.
func (s *Server) Stats() Stats {
	stats := s.counters.snapshot()
	stats.Sessions = int64(s.table.len())
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

// hasEnded reports whether done is closed. It looks at no channel, since the
// server may have lived in the bubble of a test.
func (s *Server) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == serverEnded
}

// endLocked makes the server one that has ended.
func (s *Server) endLocked(err error) {
	s.state, s.err = serverEnded, err
	close(s.done)
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

// Run starts the server, serves clients until ctx ends or [Server.Shutdown] is
// called, and returns when everything that it started has ended. It returns
// nil then, and an error if the server could not start or did not end in time.
//
// Components are initialised first, then modules; listeners are served last,
// so that no client meets a server that is half there. The end goes the other
// way round, within Config.ShutdownTimeout; see [Server.Shutdown].
func (s *Server) Run(ctx context.Context) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := s.begin(quit); err != nil {
		if !errors.Is(err, ErrServerRunning) && !errors.Is(err, ErrServerClosed) {
			s.closeConfigured()
		}
		return err
	}
	switch err := s.start(ctx); err {
	case nil:
	case ErrServerClosed: // as told by Shutdown
		return s.endStart(ctx)
	default:
		return errors.Join(err, s.endStart(ctx))
	}
	select {
	case <-ctx.Done():
		return s.shutdownAfter(ctx)
	case <-s.closing:
		<-s.done
		return s.ended()
	}
}

// closeConfigured closes the listeners of a server that will not serve them.
func (s *Server) closeConfigured() {
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
}

// isClosing reports whether Shutdown was called.
func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// endStart ends a server that did not get to serving.
func (s *Server) endStart(ctx context.Context) error {
	s.mu.Lock()
	if s.state == serverStarting {
		s.closeLocked()
	}
	s.mu.Unlock()
	ctx, cancel := s.shutdownContext(ctx)
	defer cancel()
	return s.end(ctx)
}

// begin ends the set-up.
func (s *Server) begin(quit context.CancelFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.newLocked(); err != nil {
		return err
	}
	if len(s.mistakes) > 0 {
		return errors.Join(s.mistakes...)
	}
	if s.cfg.Cluster {
		return errNoCluster
	}
	host, err := s.newHost()
	if err != nil {
		return err
	}
	if s.cfg.Frontend && !s.cfg.NoUniqueSession {
		if err := s.modules.addBefore(UniqueSessionModule, newUniqueSession(s)); err != nil {
			return err
		}
	}
	s.state = serverStarting
	s.host = host
	s.quit = quit
	return nil
}

// stop makes Run end as the end of its context does, and does not wait for
// that. A server that has not run will not.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == serverNew:
		close(s.closing)
		s.endLocked(nil)
	case s.quit != nil:
		s.quit()
	}
}

// shutdownAfter is Shutdown for a context that has ended.
func (s *Server) shutdownAfter(ctx context.Context) error {
	ctx, cancel := s.shutdownContext(ctx)
	defer cancel()
	return s.Shutdown(ctx)
}

// shutdownContext bounds the end of a server whose context has ended.
func (s *Server) shutdownContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := s.cfg.ShutdownTimeout
	if s.cfg.DrainEnabled {
		limit += s.cfg.DrainTimeout
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// start brings the server up to serving its listeners.
func (s *Server) start(ctx context.Context) error {
	if err := s.registry.start(s.host); err != nil {
		return err
	}
	if err := s.modules.start(ctx); err != nil {
		if errors.Is(err, context.Canceled) && s.isClosing() {
			return ErrServerClosed
		}
		return err
	}
	s.timers.start()
	s.mu.Lock()
	if s.state != serverStarting { // Shutdown came first
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.state = serverRunning
	s.mu.Unlock()
	for _, l := range s.cfg.Listeners {
		l := s.wrapListener(l)
		if !s.track(l) {
			break
		}
		go func() {
			defer s.conns.Done()
			if err := s.accept(l); !errors.Is(err, ErrServerClosed) {
				s.log.Error("listener failed", "addr", l.Addr(), "err", err)
			}
		}()
		s.log.Info("listening", "server", s.cfg.ID, "type", s.cfg.Type, "addr", l.Addr())
	}
	close(s.ready)
	return nil
}

// newHost builds what sessions share. The set-up is over by then.
func (s *Server) newHost() (*sessionHost, error) {
	cfg := &s.cfg
	serializer := cfg.Serializer
	if serializer == nil {
		serializer = JSON{}
		if cfg.SerializerType == SerializerProtobuf {
			serializer = Protobuf{}
		}
	}
	host := &sessionHost{
		Conn: &connConfig{
			Beats:            newHeartbeats(cfg.Heartbeat),
			Counters:         &s.counters,
			Log:              s.log,
			MaxPacket:        cfg.MaxPacketSize,
			MaxHandshake:     cfg.MaxHandshakeSize,
			HandshakeTimeout: cfg.HandshakeTimeout,
			WriteTimeout:     cfg.WriteTimeout,
			QueueBytes:       cfg.QueueBytes,
			QueueMessages:    cfg.QueueMessages,
			DropWhenSlow:     cfg.SlowClient == SlowClientDrop,
		},
		Table:           s.table,
		Serializer:      serializer,
		Dict:            s.dict,
		Compress:        !cfg.NoCompression,
		PushCodes:       pushCodesRule(cfg.PushCodes),
		Validators:      s.validators,
		OnBind:          s.onBind,
		OnAfterBind:     s.onAfter,
		OnClose:         s.onClose,
		MaxUID:          cfg.MaxUIDLength,
		MailboxMessages: cfg.MailboxMessages,
		Counters:        &s.counters,
		Log:             s.log,
	}
	reporting := host.guardReporters(cfg.Reporters)
	var counting sync.Mutex // makes the last value reported the last one counted
	host.Count = func() {
		if len(reporting) > 0 {
			counting.Lock()
			defer counting.Unlock()
			reporting.gauge(metricConnectedClients, float64(s.table.len()))
		}
	}
	host.Admit, host.Release = s.admitAddr, s.release
	if err := host.buildHandshake(cfg.Heartbeat); err != nil {
		return nil, err
	}
	d := &dispatcher{
		Registry:    s.registry,
		Pipeline:    s.pipeline,
		Host:        host,
		Reporters:   reporting,
		Counters:    &s.counters,
		Log:         s.log,
		MaxInflated: cfg.MaxInflatedSize,
		Unordered:   cfg.Unordered,
		Validate:    cfg.ValidateRequests,
		Timeout:     max(cfg.HandlerTimeout, 0),
		Slow:        max(cfg.SlowHandler, 0),
	}
	if cfg.Dispatch > 0 {
		d.Slots = make(chan struct{}, cfg.Dispatch)
	}
	host.Messages = d
	return host, nil
}

// pushCodesRule decides about route codes in pushes to a client, given what its
// handshake tells.
func pushCodesRule(setting PushCodes) func(known bool) bool {
	switch setting {
	case PushCodesAlways:
		return func(bool) bool { return true }
	case PushCodesNever:
		return func(bool) bool { return false }
	}
	return func(known bool) bool { return known }
}

// buildHandshake prepares the packets that answer handshakes, once for the
// server (client protocol, section 5.3).
func (h *sessionHost) buildHandshake(heartbeat time.Duration) error {
	answer := HandshakeResponse{Code: 200, Sys: HandshakeResponseSys{
		Dict:       h.Dict.Routes(),
		Heartbeat:  max(heartbeat, 0).Seconds(),
		Serializer: h.Serializer.Name(),
	}}
	body, err := appendHandshakeResponse(nil, &answer)
	if err != nil {
		return err
	}
	if h.Accept, err = AppendPacket(nil, PacketHandshake, body); err != nil {
		return fmt.Errorf("pitaya: handshake answer: %w", err)
	}
	h.AcceptDeflated = h.Accept
	if small, ok := deflate(nil, body); ok {
		if h.AcceptDeflated, err = AppendPacket(nil, PacketHandshake, small); err != nil {
			return err
		}
	}
	h.Refuse = func(msg string) []byte {
		refusal := answer
		refusal.Code, refusal.Msg = 400, msg
		body, err := appendHandshakeResponse(nil, &refusal)
		if err != nil {
			return nil
		}
		packet, err := AppendPacket(nil, PacketHandshake, body)
		if err != nil {
			return nil
		}
		return packet
	}
	return nil
}

// Shutdown ends the server: it stops accepting, waits until clients have left
// if Config.DrainEnabled is set, lets the handlers finish what was received,
// sends what is queued, closes the sessions with [ErrServerClosed], and shuts
// down modules and components. It may be called from any goroutine and more
// than once; each call returns when the server has ended.
//
// When ctx ends, the waiting ends: connections are closed at once, and the
// error tells what was left behind. Handlers can see the end of their session
// by their context.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	state := s.state
	switch state {
	case serverNew:
		close(s.closing)
		s.endLocked(nil)
	case serverStarting: // Run ends what it has started
		s.closeLocked()
		s.quit()
	case serverRunning:
		s.closeLocked()
	}
	s.mu.Unlock()
	if state == serverRunning {
		return s.end(ctx)
	}
	select {
	case <-s.done:
		return s.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeLocked lets nothing begin any more. Whoever calls it calls end next, or
// leaves that to Run.
func (s *Server) closeLocked() {
	s.state = serverClosing
	close(s.closing)
}

// end is Shutdown for the one caller that does the work.
func (s *Server) end(ctx context.Context) error {
	err := s.shutdown(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(err)
	return err
}

// ended returns what went wrong at the end, which must have come.
func (s *Server) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Server) shutdown(ctx context.Context) error {
	s.log.Info("shutting down", "server", s.cfg.ID, "sessions", s.table.len())
	var errs []error
	s.closeListeners()
	if s.cfg.DrainEnabled {
		if err := s.modules.startDraining(ctx); err != nil {
			errs = append(errs, err)
		}
		s.awaitClients(ctx)
	}
	// Connections that are still at their transport's handshake have nothing
	// to finish.
	s.stopping(ErrServerClosed)
	for session := range s.table.all() {
		session.drain()
	}
	if err := s.awaitSessions(ctx); err != nil {
		errs = append(errs, err)
	}
	s.host.Conn.Beats.stop()
	errs = append(errs, s.timers.stop(ctx), s.modules.beforeShutdown(ctx), s.modules.shutdown(ctx), s.registry.shutdown(s.host))
	if c, ok := s.groups.(interface{ Close() error }); ok && s.cfg.Groups == nil {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// awaitClients waits until clients have left by themselves.
func (s *Server) awaitClients(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout)
	defer cancel()
	tick := time.NewTicker(s.cfg.DrainPeriod)
	defer tick.Stop()
	for {
		n := max(s.table.len(), s.modules.sessionCount())
		if n <= 0 {
			return
		}
		s.log.Info("draining", "server", s.cfg.ID, "sessions", n)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// awaitSessions waits until all sessions and connections have ended. When ctx
// ends first it closes the connections at once.
func (s *Server) awaitSessions(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.conns.Wait() // first: the accept loops still make sessions
		s.host.Alive.Wait()
		s.host.Conn.Writers.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.host.Conn.Beats.abort(ErrServerClosed)
	select {
	case <-ended:
		return nil
	case <-time.After(abortGrace):
		return fmt.Errorf("pitaya: shutdown: handlers are still running: %w", context.Cause(ctx))
	}
}

// abortGrace is how long handlers get to notice that their session is over.
const abortGrace = time.Second

// NewTimer returns a timer that runs f again and again, each time after
// interval. Timers run while the server runs, each in a goroutine of its own
// that never overlaps with itself. It may be called before and during Run.
func (s *Server) NewTimer(interval time.Duration, f func()) (*Timer, error) {
	return s.timers.every(interval, f)
}

// NewCountTimer is NewTimer for a number of times.
func (s *Server) NewCountTimer(interval time.Duration, count int, f func()) (*Timer, error) {
	return s.timers.count(interval, count, f)
}

// NewAfterTimer returns a timer that runs f once, after d.
func (s *Server) NewAfterTimer(d time.Duration, f func()) (*Timer, error) {
	return s.timers.after(d, f)
}

// NewCondTimer returns a timer that runs f at each tick of the timer precision
// at which the condition holds.
func (s *Server) NewCondTimer(condition Condition, f func()) (*Timer, error) {
	return s.timers.cond(condition, f)
}

// SetTimerPrecision sets how often the conditions of conditional timers are
// checked, at least every millisecond; it is once a second otherwise. All other
// timers are exact. It may be called before and during Run.
func (s *Server) SetTimerPrecision(d time.Duration) error { return s.timers.setPrecision(d) }

// timerOf returns the timer, or in its place one that never runs. The reason is
// a mistake in the set-up, or logged if that is over.
func (s *Server) timerOf(t *Timer, err error) *Timer {
	if err == nil {
		return t
	}
	if s.setUp(func() error { return err }) != err {
		s.log.Error("timer not made", "err", err)
	}
	return s.timers.none()
}
