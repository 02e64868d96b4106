package pitaya

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
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
	session := newSession(s.host, nc)
	s.conns.Go(func() {
		defer s.counters.Closed.Add(1)
		session.serve(s.serveCtx)
	})
}

func (s *Server) refused(addr net.Addr, why string) {
	if n, ok := s.refusals.pass(); ok {
		s.log.Warn("connection refused", "addr", addr, "reason", why, "unlogged", n)
	}
}

// errTooManyConns ends a connection over the limit of its address.
var errTooManyConns = errors.New("pitaya: too many connections from this address")

// admitAddr charges a connection to its address. It is called when the address
// is known, PROXY header and all.
func (s *Server) admitAddr(addr net.Addr) error {
	limit := s.cfg.MaxConnsPerIP
	if limit <= 0 {
		return nil
	}
	ip := hostOf(addr)
	s.mu.Lock()
	fits := s.perIP[ip] < limit
	if fits {
		s.perIP[ip]++
	}
	s.mu.Unlock()
	if !fits {
		s.counters.RefusedConns.Add(1)
		s.refused(addr, "too many connections from this address")
		return errTooManyConns
	}
	return nil
}

// release takes a session's connection off its address.
func (s *Server) release(addr net.Addr) {
	if s.cfg.MaxConnsPerIP <= 0 {
		return
	}
	ip := hostOf(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perIP[ip]--; s.perIP[ip] <= 0 {
		delete(s.perIP, ip)
	}
}

// hostOf returns what stands for the client in the limits by address.
func hostOf(addr net.Addr) string {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		if addr.IP.To4() == nil && len(addr.IP) == net.IPv6len {
			return string(addr.IP[:8]) // whoever has one address of a /64 has them all
		}
		return string(addr.IP.To4())
	case nil: // as of a socket whose client was gone before it was asked
		return ""
	}
	return addr.String()
}
