package pitaya

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
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

	// grpcFlushTimeout bounds the time for the last answers when the transport is closed; for grpcFlushPause see flush.
	grpcFlushTimeout = time.Second
	grpcFlushPause   = 20 * time.Millisecond
)

// grpcShuttingDown refuses a request that was not handled.
const grpcShuttingDown = "the server is shutting down"

// A grpcServer is the serving half of a GRPCTransport: an http.Handler for the four methods.
type grpcServer struct {
	port       int
	most       int // connections; 0 for any number
	log        *slog.Logger
	http       *http.Server
	serveConns func(net.Listener) error // of http, encrypted or not

	closing    chan struct{} // closed by close: ends requests that wait for their answer
	closeOnce  func()
	shutdown   context.Context // ends with cancel; bounds the graceful shutdown that drain starts
	cancel     context.CancelFunc
	goroutines sync.WaitGroup // serving the listener, and the graceful shutdown

	// Set by listen before anything is served, then immutable.
	handler      TransportHandler
	frontendType string

	open  atomic.Int64 // connections
	bytes atomic.Int64 // of the messages that are being received

	mu        sync.Mutex
	users     map[string]struct{} // that are bound here
	listener  net.Listener
	err       error             // why the listener is no longer served
	draining  bool              // no request is accepted any more
	receiving int               // requests accepted whose message the handler does not have yet
	serving   int               // requests accepted and not ended
	conns     map[net.Conn]bool // connections that speak HTTP/2; true: with a stream that has not ended
	waiters   []chan struct{}   // closed at the next change of the numbers above
}

// newGRPCServer returns a server whose port is encrypted if config, which it keeps, is not nil.
func newGRPCServer(port, most int, config *tls.Config, log *slog.Logger) *grpcServer {
	s := &grpcServer{
		port:    port,
		most:    most,
		log:     log,
		closing: make(chan struct{}),
		users:   make(map[string]struct{}),
		conns:   make(map[net.Conn]bool),
	}
	s.closeOnce = sync.OnceFunc(func() { close(s.closing) })
	s.shutdown, s.cancel = context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	if config == nil {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP2(true)
	}
	s.http = &http.Server{
		Handler:   s,
		Protocols: protocols,
		TLSConfig: config,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: grpcMaxStreams,
			SendPingTimeout:      grpcPingInterval,
			PingTimeout:          grpcPingTimeout,
			WriteByteTimeout:     grpcWriteTimeout,
		},
		ReadHeaderTimeout: grpcReadTimeout,
		ReadTimeout:       grpcReadTimeout,
		IdleTimeout:       -1, // a quiet peer keeps its connection; one that is gone answers no ping
		MaxHeaderBytes:    grpcMaxHeader,
		ConnState:         s.connState,
		// What net/http logs is what peers do wrong.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.serveConns = s.http.Serve
	if config != nil {
		s.serveConns = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
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
	s.goroutines.Go(func() {
		err := s.serveConns(limited)
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		s.log.Error("gRPC port closed", "err", err)
	})
	return nil
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

// ServeHTTP serves one request, in the goroutine of its stream.
func (s *grpcServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	stretch()
	w.Header()["Date"] = nil // nobody looks at it
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !isGRPCContent(r.Header.Get("Content-Type")) {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	w.Header()["Content-Type"] = []string{"application/grpc"}
	if r.URL.Path == grpcMethodHealth {
		s.serveHealth(w)
		return
	}
	if refusal := s.begin(); refusal != nil {
		writeGRPCStatus(w, refusal)
		return
	}
	defer s.end()
	answer, err := s.serve(w, r)
	if err != nil {
		status, ok := errors.AsType[*grpcStatus](err)
		if !ok {
			status = grpcErrorf(grpcUnknown, "%s", err)
		}
		writeGRPCStatus(w, status)
		return
	}
	if answer != nil {
		writeGRPCAnswer(w, answer)
	}
}

// serveHealth answers the health check of gRPC (grpc.health.v1, HealthCheckResponse): SERVING or NOT_SERVING.
func (s *grpcServer) serveHealth(w http.ResponseWriter) {
	state := byte(1)
	if s.healthy() != nil {
		state = 2
	}
	writeGRPCAnswer(w, []byte{1 << 3, state})
}

// begin accepts a request, if that is still done. After it received and end are called once each.
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
	s.serving++
	return nil
}

func (s *grpcServer) received() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receiving--
	s.changedLocked()
}

func (s *grpcServer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	s.changedLocked()
}

// connState keeps account of the connections.
func (s *grpcServer) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateActive:
		s.conns[c] = true
	case http.StateIdle:
		s.conns[c] = false
	case http.StateClosed, http.StateHijacked:
		s.open.Add(-1)
		delete(s.conns, c)
	}
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

// A grpcAnswer is what the handler replies.
type grpcAnswer struct {
	body []byte
	err  error
}

// A grpcCall is a request that the handler is to answer.
type grpcCall struct {
	// Context is the handler's. It is not that of the request, which ends with the goroutine of the stream, and so when the
	// transport is closed: the caller has not given up then.
	context.Context
	End      context.CancelFunc
	Timeout  time.Duration // that the caller allows; 0 for any
	Answered chan grpcAnswer
}

// newGRPCCall begins the time of a request.
func newGRPCCall(header http.Header) (*grpcCall, error) {
	c := &grpcCall{Answered: make(chan grpcAnswer, 1)}
	text := header.Get("Grpc-Timeout")
	if text == "" {
		c.Context, c.End = context.WithCancel(context.Background())
		return c, nil
	}
	timeout, err := parseGRPCTimeout(text)
	if err != nil {
		return nil, grpcErrorf(grpcInternal, "%s", err)
	}
	c.Timeout = max(timeout, 1) // some callers send what has passed already
	c.Context, c.End = context.WithTimeout(context.Background(), c.Timeout)
	return c, nil
}

// reply takes the answer.
func (c *grpcCall) reply(body []byte, err error) {
	select {
	case c.Answered <- grpcAnswer{body, err}:
	default: // a second answer
	}
	c.End()
}

// refuseCall implements callRefuser: the status stands for an answer (cluster protocol, section 6.1).
func (c *grpcCall) refuseCall(err error) { c.reply(nil, grpcErrorf(grpcUnknown, "%s", err)) }

// serve hands the message of a request to the handler and waits for the answer. It returns nil without an error if the
// stream has no use for one: its peer is gone, or the handler dropped the call.
func (s *grpcServer) serve(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	c, err := s.accept(r)
	if err != nil {
		return nil, err
	}
	var a grpcAnswer
	select {
	case a = <-c.Answered:
	case <-c.Done():
		select {
		case a = <-c.Answered: // which is what ended it
		default:
			return nil, grpcErrorf(grpcDeadlineExceeded, "no answer within %v", c.Timeout)
		}
	case <-r.Context().Done(): // the caller has given up, or its connection is lost
		select {
		case <-s.closing: // by this side
		default:
			c.End()
		}
		return nil, nil
	case <-s.closing:
		select {
		case a = <-c.Answered: // it was there first
		default: // no status: the caller must not take it for a refusal
		}
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case a.body == nil:
		// A passed deadline resets the stream, which is how HTTP/2 ends one without an answer. An error means that it
		// has ended.
		http.NewResponseController(w).SetWriteDeadline(time.Unix(0, 0))
		return nil, nil
	case len(a.body) > grpcMaxMessage:
		return nil, grpcErrorf(grpcResourceExhausted, "answer of %d bytes, over the limit of %d", len(a.body), grpcMaxMessage)
	}
	return a.body, nil
}

// accept reads a request and gives it to the handler.
func (s *grpcServer) accept(r *http.Request) (*grpcCall, error) {
	defer s.received()
	switch r.URL.Path {
	case grpcMethodCall, grpcMethodPush, grpcMethodKick, grpcMethodBind:
	default:
		return nil, grpcErrorf(grpcUnimplemented, "unknown method %.100q", r.URL.Path)
	}
	c, err := newGRPCCall(r.Header)
	if err != nil {
		return nil, err
	}
	received := &grpcReceived{r: r.Body, total: &s.bytes}
	body, err := readGRPCMessage(received, r.Header.Get("Grpc-Encoding"))
	if err == nil {
		err = s.deliver(c, r.URL.Path, body)
	}
	received.done()
	switch {
	case err == nil:
		return c, nil
	case err == io.EOF:
		err = grpcErrorf(grpcInternal, "request without a message")
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = grpcErrorf(grpcDeadlineExceeded, "the request took longer than %v", grpcReadTimeout)
	}
	c.End()
	return nil, err
}

// writeGRPCAnswer ends a request with a message within the limit. An error means that the peer is gone or does not read.
func writeGRPCAnswer(w http.ResponseWriter, message []byte) {
	frame := append(appendGRPCFrameHeader(make([]byte, 0, grpcFrameHeader+len(message)), len(message)), message...)
	if http.NewResponseController(w).SetWriteDeadline(time.Now().Add(grpcWriteTimeout)) != nil {
		return
	}
	if _, err := w.Write(frame); err != nil { // one write, for one frame of HTTP/2 where that suffices
		return
	}
	w.Header()[http.TrailerPrefix+"Grpc-Status"] = []string{"0"}
}

// writeGRPCStatus ends a request without a message (Trailers-Only).
func writeGRPCStatus(w http.ResponseWriter, s *grpcStatus) {
	h := w.Header()
	h["Grpc-Status"] = []string{strconv.FormatUint(uint64(s.Code), 10)}
	if s.Message != "" {
		h["Grpc-Message"] = []string{encodeGRPCMessage(s.Message)}
	}
	if s.Code == grpcUnimplemented {
		h["Grpc-Accept-Encoding"] = []string{"identity"}
	}
	w.WriteHeader(http.StatusOK)
}

// drain stops accepting requests, and returns when the handler has those that were.
func (s *grpcServer) drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		// Shutdown closes the listener at once and sends GOAWAY, then waits for the connections to become idle, which
		// is not what is waited for here.
		s.goroutines.Go(func() { s.http.Shutdown(s.shutdown) })
	}
	s.mu.Unlock()
	return s.wait(ctx, func() bool { return s.receiving == 0 })
}

func (s *grpcServer) close(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.closeOnce()
	s.cancel()
	s.http.Shutdown(s.shutdown) // returns at once, with the listener closed and GOAWAY on its way
	s.flush(ctx)
	s.http.Close()
	// Requests end with their connections; until then one may still be calling the handler.
	err := s.wait(ctx, func() bool { return s.serving == 0 })
	s.goroutines.Wait()
	return err
}

// flush sees to it that what was written arrives. A connection that is closed with something unread throws away what
// its peer has not received (RFC 2525, section 2.17), so it is closed for writing only, and then by the peer.
func (s *grpcServer) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, grpcFlushTimeout)
	defer cancel()
	s.wait(ctx, func() bool { return s.serving == 0 && !slices.Contains(slices.Collect(maps.Values(s.conns)), true) })
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	if len(conns) == 0 {
		return
	}
	// For net/http a stream has ended when its last frame is in the buffer of the connection. Nothing tells when that
	// has been written, but it follows at once.
	pause := time.NewTimer(grpcFlushPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	for _, c := range conns {
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			half.CloseWrite() // an error means that it has ended
		}
	}
	s.wait(ctx, func() bool { return len(s.conns) == 0 })
}
