package pitaya

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// A Server accepts clients and handles their messages. It is made by
// [NewServer], set up by the methods that say so, and then runs once, in
// [Server.Run]. Any number of servers can live in one process.
type Server struct {
	// Immutable.
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
	host       *sessionHost // set when the server starts
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
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if cfg.ID == "" {
		cfg.ID = rand.Text()
	}
	if !cfg.Frontend && len(cfg.Listeners) > 0 {
		return nil, errors.New("pitaya: a backend has no listeners for clients")
	}
	s := &Server{
		cfg:       cfg,
		log:       guardLogger(cmp.Or(cfg.Logger, slog.Default())),
		registry:  newRegistry(cfg.Type),
		table:     newSessionTable(),
		groups:    cfg.Groups,
		ready:     make(chan struct{}),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
		listeners: make(map[net.Listener]bool),
		perIP:     make(map[string]int),
	}
	if s.groups == nil {
		s.groups = NewMemoryGroups()
	}
	s.modules = newModules(s.log)
	s.timers = newTimers(func(f func()) { go f() }, s.log)
	s.serveCtx, s.stopping = context.WithCancelCause(context.Background())
	return s, nil
}

// ID returns the server's id.
func (s *Server) ID() string { return s.cfg.ID }

// Type returns the server's type, the first part of its routes.
func (s *Server) Type() string { return s.cfg.Type }

// setUp runs f if the server can still be set up. What goes wrong is returned,
// and again from Run, so that a program that does not look at each result
// still does not start with half of its handlers.
func (s *Server) setUp(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != serverNew {
		return ErrServerRunning
	}
	err := f()
	if err != nil {
		s.mistakes = append(s.mistakes, err)
	}
	return err
}

// Register makes the methods of a component handlers of client messages. Which
// methods qualify, and what a client sees of them, is in the package's
// documentation, under Handlers. Mistakes are returned all at once: methods
// that look like handlers and are none, names that are taken, a type that is
// not exported. It is called before Run.
func (s *Server) Register(component any, opts ...RegisterOption) error {
	return s.setUp(func() error { return s.registry.register(component, opts) })
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
	s.mu.Lock()
	switch {
	case s.state != serverNew:
		s.mu.Unlock()
		return ErrServerRunning
	case len(s.mistakes) > 0:
		defer s.closeConfigured()
		defer s.mu.Unlock()
		return errors.Join(s.mistakes...)
	}
	defer s.closeConfigured()
	host, err := s.newHost()
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.state = serverStarting
	s.host = host
	s.mu.Unlock()

	if started, err := s.start(ctx); !started {
		return errors.Join(err, s.endStart(ctx))
	}
	select {
	case <-ctx.Done():
		ctx, cancel := s.endContext(ctx)
		defer cancel()
		return s.Shutdown(ctx)
	case <-s.closing:
		<-s.done
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	}
}

// closeConfigured closes Config.Listeners, which may not have been served.
func (s *Server) closeConfigured() {
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
}

// endStart shuts down what a start that came to nothing has started. A Shutdown
// that was called meanwhile waits for it.
func (s *Server) endStart(ctx context.Context) error {
	ctx, cancel := s.endContext(ctx)
	defer cancel()
	s.mu.Lock()
	if s.state != serverClosing {
		s.state = serverClosing
		close(s.closing)
	}
	s.mu.Unlock()
	return s.finish(ctx)
}

// endContext bounds the end of the server, for a ctx that may be over already.
func (s *Server) endContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := s.cfg.ShutdownTimeout
	if s.cfg.DrainEnabled {
		limit += s.cfg.DrainTimeout
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// start brings the server up to serving its listeners. It reports false if it
// did not come so far, without an error if Shutdown came first.
func (s *Server) start(ctx context.Context) (started bool, err error) {
	if err := s.registry.components.start(s.host); err != nil {
		return false, err
	}
	if err := s.modules.start(ctx); err != nil {
		return false, err
	}
	s.timers.start()
	s.mu.Lock()
	started = s.state == serverStarting
	if started {
		s.state = serverRunning
	}
	s.mu.Unlock()
	if !started {
		return false, nil
	}
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
	return true, nil
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
		Unique:          !cfg.NoUniqueSession,
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
	if state != serverClosing {
		s.state = serverClosing
		close(s.closing)
	}
	s.mu.Unlock()
	switch state {
	case serverRunning:
		return s.finish(ctx)
	case serverNew:
		close(s.done)
		return nil
	}
	// It is under way, or Run does it when the start has come to its end.
	select {
	case <-s.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish ends the server and tells everybody who waits for that. It is called
// once.
func (s *Server) finish(ctx context.Context) error {
	err := s.shutdown(ctx)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.done)
	return err
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
	errs = append(errs, s.timers.stop(ctx), s.modules.beforeShutdown(ctx), s.modules.shutdown(ctx), s.registry.components.shutdown(s.host))
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
