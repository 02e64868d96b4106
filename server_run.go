package pitaya

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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

// Run starts the server, serves clients until ctx ends or [Server.Shutdown] is
// called, and returns when everything that it started has ended. It returns
// nil then, and an error if the server could not start, with what it was waiting
// for when ctx ended, or did not end in time.
//
// Components are initialised first, then modules; then the server joins its
// cluster, and listeners are served last, so that nobody meets a server that is
// half there. The end goes the other
// way round, within Config.ShutdownTimeout; see [Server.Shutdown].
func (s *Server) Run(ctx context.Context) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := s.begin(quit); err != nil {
		if !errors.Is(err, ErrServerRunning) && !errors.Is(err, ErrServerClosed) {
			s.closeConfigured()
			err = errors.Join(err, s.closeReporters())
		}
		return err
	}
	switch err := s.start(ctx); err {
	case nil:
	case ErrServerClosed: // as told by Shutdown
		return s.endStart(ctx)
	default:
		if errors.Is(err, errNotStarted) { // as told by the caller, a little early, and with nothing wrong
			s.log.Info("ended during the start", "err", err)
			err = nil
		}
		return errors.Join(err, s.endStart(ctx))
	}
	var gaveUp <-chan struct{}
	if s.cluster != nil {
		gaveUp = s.cluster.gaveUp
	}
	select {
	case <-ctx.Done():
		return s.shutdownAfter(ctx)
	case <-gaveUp:
		return errors.Join(errGaveUp, s.shutdownAfter(ctx))
	case <-s.closing:
		<-s.done
		return s.ended()
	}
}

// errGaveUp is what Run returns when the settings say that the server is not to
// outlive an outage.
var errGaveUp = errors.New("pitaya: discovery could not register the server again and has given up")

// closeConfigured closes the listeners of a server that will not serve them.
func (s *Server) closeConfigured() {
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
}

// warnUnused tells of settings that somebody made and nothing reads: who relies
// on a limit should know that it is none yet.
func (s *Server) warnUnused() {
	var keys []string
	for _, setting := range s.cfg.Settings() {
		if setting.Unused && setting.Origin != OriginDefault {
			keys = append(keys, setting.Key)
		}
	}
	if len(keys) > 0 {
		s.log.Warn("settings without an effect in this version", "keys", keys)
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
	if err := s.makeReporters(); err != nil {
		return err
	}
	host, d, err := s.newHost()
	if err != nil {
		return err
	}
	s.slots = d.Slots
	s.jobs.spans = d.Spans
	if s.cfg.Cluster {
		if s.cluster, err = s.newCluster(host, d, s.newRemotes(d)); err != nil {
			return err
		}
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
	if s.debug != nil {
		s.debug.begin(s)
	}
	if err := s.startMetrics(ctx); err != nil {
		return err
	}
	if err := s.registry.start(s.host, s.cluster != nil); err != nil {
		return err
	}
	if err := s.modules.start(ctx); err != nil {
		if errors.Is(err, context.Canceled) && s.isClosing() {
			return ErrServerClosed
		}
		return err
	}
	if s.cluster != nil {
		if err := s.joinCluster(ctx); err != nil {
			if ctx.Err() != nil && s.isClosing() {
				return ErrServerClosed
			}
			return err
		}
	}
	s.timers.start()
	if err := s.startWantedWorker(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.state != serverStarting { // Shutdown came first
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.state = serverRunning
	s.mu.Unlock()
	if err := s.startWantedWorker(); err != nil { // of a StartWorker that came while the server was starting
		s.log.Error("the worker does not start", "err", err)
	}
	for _, l := range s.cfg.Listeners {
		l := s.wrapListener(l)
		if !s.track(&l) {
			break
		}
		go func() {
			defer s.untrack(&l)
			if err := s.accept(l); !errors.Is(err, ErrServerClosed) {
				s.listenerFailed(l.Addr().String())
				s.log.Error("listener failed", "addr", l.Addr(), "err", err)
			}
		}()
		s.log.Info("listening", "server", s.cfg.ID, "type", s.cfg.Type, "addr", l.Addr())
	}
	s.warnUnused()
	close(s.ready)
	return nil
}

// Shutdown ends the server: it tells the other servers to send no new work,
// stops accepting, waits until clients have left if Config.DrainEnabled is set,
// ends the sessions whose clients are away,
// tells clients that understand it to send no more, lets the handlers finish
// what was received, sends what is queued, closes the
// sessions with [ErrServerClosed], over the time that Config.CloseWindow says,
// leaves the cluster when what other servers have sent is answered and what its
// worker does is done, and shuts down modules and components. It may be called from any goroutine and more
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
	if err := s.announceEnd(ctx); err != nil {
		s.log.Warn("the end of the server could not be announced", "err", err)
	}
	s.closeListeners()
	if s.host.Resumes != nil {
		s.host.Resumes.close() // no client can come back any more
	}
	s.drainWorker()
	if s.cfg.DrainEnabled {
		if err := s.modules.startDraining(ctx); err != nil {
			errs = append(errs, err)
		}
		s.awaitClients(ctx)
	}
	// Connections that are still at their transport's handshake have nothing
	// to finish.
	s.stopping(ErrServerClosed)
	s.drainSessions(ctx)
	late := time.AfterFunc(partingTime, func() {
		for session := range s.table.all() {
			session.received()
		}
	})
	defer late.Stop()
	if err := s.awaitSessions(ctx); err != nil {
		errs = append(errs, err)
	}
	s.host.Conn.Beats.stop()
	s.host.Conn.Checks.stop()
	errs = append(errs, s.timers.stop(ctx), s.stopWorker(ctx), s.leaveCluster(ctx), s.modules.beforeShutdown(ctx), s.modules.shutdown(ctx),
		s.registry.shutdown(s.host), s.closeCluster(ctx), s.closeJobs(ctx))
	if c, ok := s.groups.(interface{ Close() error }); ok && s.cfg.Groups == nil {
		errs = append(errs, c.Close())
	}
	if s.debug != nil {
		s.debug.stop()
	}
	return errors.Join(append(errs, s.endMetrics(ctx))...)
}

// partingTime is how long clients that were told of the server's end may take to
// send their last packet.
const partingTime = 2 * time.Second

// drainSessions makes each session end when it has handled what it has
// received. All at once would send all clients to the other servers at once.
func (s *Server) drainSessions(ctx context.Context) {
	n := s.table.len()
	pace := time.Millisecond
	if n > 0 {
		pace = min(pace, max(s.cfg.CloseWindow, 0)/time.Duration(n))
	}
	begin, done := time.Now(), 0
	for session := range s.table.all() {
		session.drain()
		done++
		// Timers are coarse: the sessions whose time has come are taken together.
		if ahead := time.Duration(done)*pace - time.Since(begin); ahead > 10*time.Millisecond && done < n {
			sleep(ctx, ahead)
		}
	}
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
		s.host.Runners.close()
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
