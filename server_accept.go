package pitaya

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Serve accepts clients on l, besides Config.Listeners, until the server ends
// or l fails. It waits until the server runs. Its error is never nil:
// [ErrServerClosed] after Shutdown, at which l is closed.
func (s *Server) Serve(l net.Listener) error {
	if !s.cfg.Frontend {
		return errBackendListener
	}
	select {
	case <-s.ready:
	case <-s.closing:
		l.Close()
		return ErrServerClosed
	}
	l = s.wrapListener(l)
	if !s.track(&l) {
		return ErrServerClosed
	}
	defer s.untrack(&l)
	return s.accept(l)
}

// wrapListener applies the settings that concern acceptors.
func (s *Server) wrapListener(l net.Listener) net.Listener {
	if !s.cfg.ProxyProtocol {
		return l
	}
	return proxied(l, ProxyOptions{Trusted: s.cfg.TrustedProxies})
}

// track remembers a listener, so that Shutdown closes it, and counts its accept
// loop in conns; untrack undoes both. If the server is ending already it closes
// the listener. The listeners are known by pointers to them, since a listener
// need not be comparable.
func (s *Server) track(l *net.Listener) bool {
	s.mu.Lock()
	ending := s.state >= serverClosing
	if !ending {
		s.listeners[l] = true
		s.conns.Add(1)
	}
	s.mu.Unlock()
	if ending {
		(*l).Close()
	}
	return !ending
}

func (s *Server) untrack(l *net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	s.conns.Done()
}

// closeListeners closes all listeners, also those that a server that failed to
// start was to serve.
func (s *Server) closeListeners() {
	s.mu.Lock()
	list := slices.Collect(maps.Keys(s.listeners))
	s.mu.Unlock()
	for _, l := range list {
		(*l).Close()
	}
	s.closeConfigured()
}

// accept serves the connections of one listener.
func (s *Server) accept(l net.Listener) error {
	defer l.Close()
	ws, ok := l.(*WSListener)
	if !ok {
		return s.acceptFrom(l)
	}
	var others sync.WaitGroup
	defer others.Wait()
	sources := ws.sources()
	for _, source := range sources[1:] {
		others.Go(func() { s.acceptFrom(source) }) // ends when l is closed
	}
	defer l.Close()
	return s.acceptFrom(sources[0])
}

// acceptFrom serves what l accepts, until it is closed or fails for good.
func (s *Server) acceptFrom(l net.Listener) error {
	var delay time.Duration
	for {
		nc, err := l.Accept()
		select {
		case <-s.closing:
			if err == nil {
				nc.Close()
			}
			return ErrServerClosed
		default:
		}
		if err == nil {
			delay = 0
			s.serveConn(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return fmt.Errorf("pitaya: listener closed: %w", err)
		}
		// Out of descriptors, or a client that was gone before it was
		// accepted: it passes, but must not be waited for at full speed.
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		if n, ok := s.refusals.pass(); ok {
			s.log.Warn("accept failed", "addr", l.Addr(), "err", err, "retry", delay, "unlogged", n)
		}
		select {
		case <-time.After(delay):
		case <-s.closing:
			return ErrServerClosed
		}
	}
}

// serveConn starts a connection, if there is room for it.
func (s *Server) serveConn(nc net.Conn) {
	s.counters.Accepted.Add(1)
	if n := s.cfg.MaxConns; n > 0 && s.counters.Accepted.Load()-s.counters.Closed.Load() > int64(n) {
		s.refused(nc.RemoteAddr(), "too many connections")
		s.counters.RefusedConns.Add(1)
		s.counters.Closed.Add(1)
		nc.Close()
		return
	}
	s.conns.Add(1) // until connConfig.Left
	session := newSession(s.host, nc)
	s.host.Runners.start(session.ID(), &arrival{session, s.serveCtx})
}

// An arrival is a connection that was accepted.
type arrival struct {
	session *Session
	ctx     context.Context
}

// work implements task.
func (a *arrival) work() { a.session.serve(a.ctx) }

func (s *Server) refused(addr net.Addr, why string) {
	if n, ok := s.refusals.pass(); ok {
		s.log.Warn("connection refused", "addr", addr, "reason", why, "unlogged", n)
	}
}

// errTooManyConns ends a connection over the limit of its address.
var errTooManyConns = errors.New("pitaya: too many connections from this address")

// crowded counts a connection over the limit of its address, which is known by
// then, PROXY header and all.
func (s *Server) crowded(addr net.Addr) error {
	s.counters.RefusedConns.Add(1)
	s.refused(addr, "too many connections from this address")
	return errTooManyConns
}
