package pitaya

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the serving side. Peers are servers of the same cluster, but the port is open to whoever reaches it.
const (
	// grpcMaxStreams is how many calls may be under way on one connection, the number that Go's HTTP/2 client assumes
	// where none is told. A caller that needs more opens a further connection.
	grpcMaxStreams = 1000

	// grpcMaxHeader bounds the headers of a request, in bytes. The protocol needs a few hundred.
	grpcMaxHeader = 16 << 10

	// grpcMaxUID bounds the ids of users, in bytes, far above what a server is configured for.
	grpcMaxUID = 2 << 10

	// grpcReadTimeout bounds the wait for the preface of a connection and for the message of a request, once its
	// headers are there, so that trickling bytes hold nothing for long.
	grpcReadTimeout = 10 * time.Second

	// grpcWriteTimeout bounds how long a peer may take to accept one answer, or any byte at all.
	grpcWriteTimeout = 10 * time.Second

	// grpcPingInterval is how long a connection may be quiet before the other side is asked for a sign of life, and
	// grpcPingTimeout how long that may take.
	grpcPingInterval = 30 * time.Second
	grpcPingTimeout  = 10 * time.Second

	// grpcFlushTimeout bounds the time for the last answers when the transport is closed.
	grpcFlushTimeout = time.Second

	// grpcMaxHandling is how many calls of one connection may be with the handler, those included whose callers have given
	// up: who opens calls to end them at once gains nothing.
	grpcMaxHandling = 4 * grpcMaxStreams
)

// grpcShuttingDown refuses a request that was not handled.
const grpcShuttingDown = "the server is shutting down"

// grpcALPN is the name of HTTP/2 in TLS.
const grpcALPN = "h2"

// A grpcServer is the serving half of a GRPCTransport.
type grpcServer struct {
	port   int
	most   int // connections; 0 for any number
	log    *slog.Logger
	tls    *tls.Config // nil for connections that are not encrypted
	limits grpcLimits

	closing    chan struct{} // closed by close
	closeOnce  func()
	goroutines sync.WaitGroup // accepting

	// Set by listen before anything is served, then immutable.
	handler      TransportHandler
	frontendType string

	open  atomic.Int64 // connections
	bytes atomic.Int64 // of the messages that are being received

	mu        sync.Mutex          // taken after that of a grpcLink, never before
	users     map[string]struct{} // that are bound here
	listener  net.Listener
	err       error // why the listener is no longer served
	draining  bool  // no request is accepted any more
	receiving int   // requests accepted that the handler does not have yet
	conns     map[*grpcServed]struct{}
	waiters   []chan struct{} // closed at the next change of the numbers above
}

// grpcLimits are those of the limits above that tests shorten.
type grpcLimits struct {
	Streams                 int
	Read, Write, Ping, Pong time.Duration
}

// newGRPCServer returns a server whose port is encrypted if config, which it keeps, is not nil.
func newGRPCServer(port, most int, config *tls.Config, log *slog.Logger) *grpcServer {
	s := &grpcServer{
		port:    port,
		most:    most,
		log:     log,
		tls:     config,
		limits:  grpcLimits{grpcMaxStreams, grpcReadTimeout, grpcWriteTimeout, grpcPingInterval, grpcPingTimeout},
		closing: make(chan struct{}),
		users:   make(map[string]struct{}),
		conns:   make(map[*grpcServed]struct{}),
	}
	if config != nil {
		config.NextProtos = []string{grpcALPN}
	}
	s.closeOnce = sync.OnceFunc(func() { close(s.closing) })
	return s
}

func (s *grpcServer) listen(ctx context.Context, self *ServerInfo, h TransportHandler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(s.port))
	if err != nil {
		return fmt.Errorf("pitaya: gRPC: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.listener != nil {
		l.Close()
		return errors.New("pitaya: gRPC: Listen is called once, before Drain and Close")
	}
	s.listener, s.handler, s.frontendType = l, h, self.Type
	limited := &grpcListener{Listener: l, open: &s.open, most: int64(s.most), log: s.log}
	s.goroutines.Go(func() { s.accept(limited) })
	return nil
}

// accept serves connections until the listener is closed.
func (s *grpcServer) accept(l net.Listener) {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			s.serveConn(nc)
			continue
		}
		s.mu.Lock()
		ended := s.draining || errors.Is(err, net.ErrClosed)
		if ended && !s.draining {
			s.err = err
		}
		draining := s.draining
		s.mu.Unlock()
		if ended {
			if !draining {
				s.log.Error("gRPC port closed", "err", err)
			}
			return
		}
		// Out of descriptors, or a peer that was gone before it was accepted: it passes, but must not be waited for at full
		// speed.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("accept failed on the gRPC port", "err", err, "retry", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.closing:
			timer.Stop()
		}
	}
}

// serveConn serves a connection, in a goroutine that close waits for.
func (s *grpcServer) serveConn(nc net.Conn) {
	c := &grpcServed{s: s, nc: nc}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.open.Add(1)
	go func() {
		err := c.run()
		if err != nil && !errors.Is(err, io.EOF) {
			s.log.Debug("gRPC connection ended", "addr", nc.RemoteAddr(), "err", err)
		}
		s.open.Add(-1)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		s.changedLocked()
	}()
}

// started notes that a connection speaks HTTP/2. It returns false if there is no use for it any more.
func (s *grpcServer) started(c *grpcServed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.started = !s.draining
	return c.started
}

func (s *grpcServer) addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

func (s *grpcServer) healthy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return fmt.Errorf("pitaya: gRPC: %w", s.err)
	case s.draining:
		return errors.New("pitaya: gRPC: port closed")
	case s.listener == nil:
		return errors.New("pitaya: gRPC: not listening")
	}
	return nil
}

// begin accepts a request, if that is still done. After it received is called once.
func (s *grpcServer) begin() (refusal *grpcStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return &grpcStatus{Code: grpcUnavailable, Message: grpcShuttingDown}
	case s.receiving >= grpcMaxReceiving:
		return errGRPCReceiving()
	}
	s.receiving++
	return nil
}

// received is called when the handler has a request, or will not get it. counted is what counted of its message.
func (s *grpcServer) received(counted int64) {
	if counted != 0 {
		s.bytes.Add(-counted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receiving--
	s.changedLocked()
}

func (s *grpcServer) changedLocked() {
	for _, c := range s.waiters {
		close(c)
	}
	s.waiters = nil
}

// wait returns when the condition, which is called with the lock, holds, or when ctx ends.
func (s *grpcServer) wait(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		if condition() {
			s.mu.Unlock()
			return nil
		}
		changed := make(chan struct{})
		s.waiters = append(s.waiters, changed)
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop stops accepting, and returns the connections that are there.
func (s *grpcServer) stop() []*grpcServed {
	s.mu.Lock()
	s.draining = true
	l := s.listener
	var conns []*grpcServed
	for c := range s.conns {
		if c.started {
			conns = append(conns, c)
		} else {
			c.nc.Close()
		}
	}
	s.mu.Unlock()
	if l != nil {
		l.Close() // an error means that it is
	}
	return conns
}

// drain stops accepting requests, and returns when the handler has those that were.
func (s *grpcServer) drain(ctx context.Context) error {
	for _, c := range s.stop() {
		c.drain()
	}
	return s.wait(ctx, func() bool { return s.receiving == 0 })
}

func (s *grpcServer) close(ctx context.Context) error {
	conns := s.stop()
	s.closeOnce()
	for _, c := range conns {
		c.close()
	}
	// What was written arrives: the connections are closed for writing only, and then by their peers.
	none := func() bool { return len(s.conns) == 0 }
	flush, cancel := context.WithTimeout(ctx, grpcFlushTimeout)
	s.wait(flush, none)
	cancel()
	for _, c := range conns {
		c.nc.Close()
	}
	// Until a connection has ended it may still be calling the handler.
	err := s.wait(ctx, none)
	s.goroutines.Wait()
	return err
}
