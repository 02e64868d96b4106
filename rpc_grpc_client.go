package pitaya

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// grpcTries is how often a request is sent that no server has begun to handle: its connection was on its way out.
const grpcTries = 3

// grpcMaxUnanswered is how many calls whose answers nobody wants may be under way to one server. It bounds what one that
// does not answer costs: nothing else keeps the application from making them faster than they end.
const grpcMaxUnanswered = 4096

// errGRPCClosed is the reason of calls that fail because the own transport is closed.
var errGRPCClosed = fmt.Errorf("%w: the transport is closed", ErrUnreachable)

// A grpcClient is the calling half of a GRPCTransport: what it knows of the other servers.
type grpcClient struct {
	cfg           GRPCConfig
	region        string
	log           *slog.Logger
	scheme        string          // of URLs, for connections encrypted or not
	http          *http.Transport // makes connections; they are kept in the peers
	keepAlive     time.Duration   // how often a quiet connection is tried
	pingTimeout   time.Duration   // how long that may take
	maxUnanswered int             // calls under way to one server whose answers nobody wants

	ctx        context.Context // ends with stop: when the transport is closed
	stop       context.CancelFunc
	goroutines sync.WaitGroup

	mu         sync.Mutex // taken after that of a grpcPeer, never before
	closed     bool       // nothing is added to goroutines any more
	self       string     // the own id
	peers      map[string]*grpcPeer
	unanswered map[string]int // the same, by the id of the server; not 0

	faults sampler // of such calls
}

// newGRPCClient returns a client whose connections are encrypted if config, which it keeps, is not nil.
func newGRPCClient(cfg GRPCConfig, config *tls.Config, region string, log *slog.Logger) *grpcClient {
	protocols, scheme := new(http.Protocols), "http"
	if config == nil {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP2(true)
		scheme = "https"
	}
	dialer := &net.Dialer{Timeout: cfg.DialTimeout}
	c := &grpcClient{
		cfg:    cfg,
		region: region,
		log:    log,
		scheme: scheme,
		http: &http.Transport{
			Protocols:          protocols,
			TLSClientConfig:    config,
			DialContext:        dialGRPC(dialer),
			DisableCompression: true, // gRPC has its own
			HTTP2: &http.HTTP2Config{
				// A connection at its limit takes further requests in turn; see grpcPeer.choose for when that happens.
				StrictMaxConcurrentRequests: true,
				WriteByteTimeout:            grpcWriteTimeout,
				// SendPingTimeout stays off: grpc-go closes a connection, calls and all, that sends more than two
				// pings in two hours without traffic. See grpcConn.ask for what is done instead.
			},
		},
		keepAlive:     grpcPingInterval,
		pingTimeout:   grpcPingTimeout,
		maxUnanswered: grpcMaxUnanswered,
		peers:         make(map[string]*grpcPeer),
		unanswered:    make(map[string]int),
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

func (c *grpcClient) setSelf(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = id
}

// start runs f in a goroutine that close waits for. It returns false, and does nothing, once close was called.
func (c *grpcClient) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.goroutines.Go(f)
	return true
}

func (c *grpcClient) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.goroutines.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err() // the goroutines are on their way; it is a callback that holds one
	}
}

// seen makes the server, or its new address, known.
func (c *grpcClient) seen(s *ServerInfo) {
	addr := grpcAddress(c.region, s.Metadata)
	c.mu.Lock()
	p := c.peers[s.ID]
	if c.closed || s.ID == c.self || p != nil && p.addr == addr && p.kept.Load() {
		c.mu.Unlock()
		return
	}
	var old *grpcPeer
	if p == nil || p.addr != addr {
		old, p = p, newGRPCPeer(c, s.ID, addr)
		c.peers[s.ID] = p
	}
	p.kept.Store(true)
	c.mu.Unlock()
	if old != nil {
		old.retire()
	}
	if addr == "" {
		c.logNoAddress(s)
	} else if !c.cfg.LazyConnection {
		p.connect()
	}
}

func (c *grpcClient) logNoAddress(s *ServerInfo) {
	c.log.Warn("server does not tell its gRPC address and cannot be called", "server", s.ID)
}

func (c *grpcClient) gone(id string) {
	c.mu.Lock()
	p := c.peers[id]
	delete(c.peers, id)
	c.mu.Unlock()
	if p != nil {
		p.retire()
	}
}

// forget removes a peer that discovery does not know and that there is no connection to any more.
func (c *grpcClient) forget(p *grpcPeer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[p.id] == p && !p.kept.Load() {
		delete(c.peers, p.id)
	}
}

// peer returns what is known of a server. One that discovery has not reported, or not yet, or no more, is known for as
// long as there is a connection to it.
func (c *grpcClient) peer(s *ServerInfo) *grpcPeer {
	c.mu.Lock()
	p := c.peers[s.ID]
	if p != nil && p.kept.Load() {
		c.mu.Unlock()
		return p
	}
	var old *grpcPeer
	if addr := grpcAddress(c.region, s.Metadata); p == nil || p.addr != addr {
		old, p = p, newGRPCPeer(c, s.ID, addr)
		if addr != "" {
			c.peers[s.ID] = p
		}
	}
	c.mu.Unlock()
	if old != nil {
		old.retire()
	}
	return p
}

// ready reports whether a call to a server need not wait for a connection, as far as that is known.
func (c *grpcClient) ready(id string) bool {
	c.mu.Lock()
	p := c.peers[id]
	c.mu.Unlock()
	return p == nil || p.ready()
}

// grpcCallError says which server an error is about.
func grpcCallError(id string, err error) error { return fmt.Errorf("pitaya: gRPC to %s: %w", id, err) }

// invoke calls a method of a server with a message that has its header, and returns the message of the answer.
func (c *grpcClient) invoke(ctx context.Context, to *ServerInfo, method string, frame []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.RequestTimeout)
		defer cancel()
	}
	p := c.peer(to)
	for try := 1; ; try++ {
		conn, err := p.conn(ctx)
		if err != nil {
			return nil, grpcCallError(to.ID, c.explain(ctx, false, err))
		}
		answer, sent, err := conn.invoke(ctx, p.addr, method, frame)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() == nil && !sent && try < grpcTries {
			continue
		}
		return nil, grpcCallError(to.ID, c.explain(ctx, sent, err))
	}
}

// send makes a call whose answer nobody wants.
func (c *grpcClient) send(ctx context.Context, to *ServerInfo, body []byte) {
	if ctx.Err() != nil {
		return
	}
	err := c.startUnanswered(ctx, to, body)
	if err != nil {
		c.logUnanswered(to, err)
	}
}

func (c *grpcClient) startUnanswered(ctx context.Context, to *ServerInfo, body []byte) error {
	frame, err := appendGRPCFrame(make([]byte, 0, grpcFrameHeader+len(body)), body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errGRPCClosed
	case c.unanswered[to.ID] >= c.maxUnanswered:
		return fmt.Errorf("%d calls without an answer are under way", c.maxUnanswered)
	}
	c.unanswered[to.ID]++
	c.goroutines.Go(func() {
		defer c.endUnanswered(to.ID)
		// Nobody waits, so nobody gives up; the deadline stays.
		sending, cancel := context.WithoutCancel(ctx), context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			sending, cancel = context.WithDeadline(sending, deadline)
		}
		defer cancel()
		_, err := c.invoke(sending, to, grpcMethodCall, frame)
		// A handler may drop calls, which resets their streams.
		if _, dropped := errors.AsType[grpcStreamError](err); err != nil && !dropped {
			c.logUnanswered(to, err)
		}
	})
	return nil
}

func (c *grpcClient) endUnanswered(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unanswered[id]--; c.unanswered[id] == 0 {
		delete(c.unanswered, id)
	}
}

func (c *grpcClient) logUnanswered(to *ServerInfo, err error) {
	if skipped, ok := c.faults.pass(); ok {
		c.log.Warn("a call without an answer failed", "server", to.ID, "err", err, "skipped", skipped)
	}
}

// explain adds to the error of a request what callers tell apart.
func (c *grpcClient) explain(ctx context.Context, sent bool, err error) error {
	status, answered := errors.AsType[*grpcStatus](err)
	ended := ctx.Err()
	switch {
	case answered && status.Code == grpcDeadlineExceeded:
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case answered && status.Code == grpcUnavailable && status.Message == grpcShuttingDown:
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case answered && status.Code == grpcUnavailable:
		// A proxy says so also when it has lost the other server in the midst of a request.
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case answered, errors.Is(err, ErrUnreachable):
		return err
	case c.ctx.Err() != nil:
		return errGRPCClosed
	case ended == context.DeadlineExceeded:
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case ended != nil:
		return context.Cause(ctx)
	case !sent:
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	// The connection or the stream ended in between. The other server may have done what was asked.
	return fmt.Errorf("%w: %w", ErrNoAnswer, err)
}

// A grpcConn is one connection to a peer.
type grpcConn struct {
	*http.ClientConn
	scheme  string        // of URLs
	heard   atomic.Int64  // answers, of any kind
	changed chan struct{} // has a value when the connection may be closed or idle; of capacity 1
	doubt   chan struct{} // has a value when a call was not answered in time; of capacity 1
	retired atomic.Bool   // takes no new requests; closed when idle
}

func newGRPCConn(cc *http.ClientConn, scheme string) *grpcConn {
	c := &grpcConn{ClientConn: cc, scheme: scheme, changed: make(chan struct{}, 1), doubt: make(chan struct{}, 1)}
	cc.SetStateHook(func(cc *http.ClientConn) {
		// It runs within any method of the connection, at the end of each request.
		if c.retired.Load() || cc.Err() != nil {
			signal(c.changed)
		}
	})
	return c
}

// signal puts a value into a channel of capacity 1 unless there is one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// retire ends the connection as soon as the calls under way are done.
func (c *grpcConn) retire() {
	c.retired.Store(true)
	signal(c.changed)
}

// grpcBody is the body of a request. The transport reads it when the headers have been sent: before that no server can
// have handled anything.
type grpcBody struct {
	bytes.Reader
	read atomic.Bool
}

func (b *grpcBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}

func (b *grpcBody) Close() error { return nil }

// A grpcStreamError is the error of net/http for a stream that was reset (RFC 9113, section 6.4), which can be had by
// the names and types of its fields only.
type grpcStreamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e grpcStreamError) Error() string { return fmt.Sprintf("stream reset with code %d", e.Code) }

// grpcRefused reports whether the peer did not begin to handle a request: it could not be written to its end, or was
// answered with REFUSED_STREAM, or its stream is behind the last one that GOAWAY names (RFC 9113, sections 8.7 and 6.8).
// For the last case net/http has nothing but a text.
func grpcRefused(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "write"
	}
	if reset, ok := errors.AsType[grpcStreamError](err); ok {
		const refusedStream = 7
		return reset.Code == refusedStream
	}
	return strings.HasSuffix(err.Error(), "graceful shutdown GOAWAY")
}

// invoke sends one request. sent reports whether the other server may have seen it.
func (c *grpcConn) invoke(ctx context.Context, addr, method string, frame []byte) (answer []byte, sent bool, err error) {
	heard := c.heard.Load()
	body := new(grpcBody)
	body.Reset(frame)
	header := http.Header{
		"Content-Type": {"application/grpc+proto"},
		"Te":           {"trailers"},
		"User-Agent":   {"grpc-pitaya-go"},
	}
	if deadline, ok := ctx.Deadline(); ok {
		header["Grpc-Timeout"] = []string{grpcTimeout(time.Until(deadline))}
	}
	req := (&http.Request{
		Method:        http.MethodPost,
		URL:           &url.URL{Scheme: c.scheme, Host: addr, Path: method},
		Header:        header,
		Body:          body,
		ContentLength: int64(len(frame)),
	}).WithContext(ctx)
	res, err := c.RoundTrip(req)
	if err != nil {
		if _, ok := errors.AsType[grpcStreamError](err); ok {
			c.heard.Add(1)
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && c.heard.Load() == heard {
			signal(c.doubt)
		}
		return nil, body.read.Load() && !grpcRefused(err), err
	}
	defer res.Body.Close()
	c.heard.Add(1)
	answer, err = readGRPCResponse(res)
	return answer, true, err
}

// ask asks for a sign of life: the health check of gRPC, whose answer does not matter. A PING of HTTP/2 would do with
// peers of this library only, since grpc-go takes offence at more than a few. Any answer that comes meanwhile is as good.
func (c *grpcConn) ask(ctx context.Context, addr string) (sent bool, err error) {
	heard := c.heard.Load()
	_, sent, err = c.invoke(ctx, addr, grpcMethodHealth, appendGRPCFrameHeader(nil, 0))
	if c.heard.Load() != heard {
		err = nil
	}
	return sent, err
}

// readGRPCResponse returns the message of an answer. A *grpcStatus is what the peer says, or what it does wrong; other
// errors are those of the connection.
func readGRPCResponse(res *http.Response) ([]byte, error) {
	if status, ok := grpcResult(res.Header); ok && status != nil { // Trailers-Only
		return nil, status
	}
	if res.StatusCode != http.StatusOK {
		return nil, grpcHTTPStatus(res.StatusCode)
	}
	if t := res.Header.Get("Content-Type"); !isGRPCContent(t) {
		return nil, grpcErrorf(grpcUnknown, "answer of the content type %.100q", t)
	}
	message, err := readGRPCMessage(res.Body, res.Header.Get("Grpc-Encoding"))
	if err != nil && err != io.EOF {
		return nil, err
	}
	// The trailers are there, as the body has ended.
	status, ok := grpcResult(res.Trailer)
	switch {
	case !ok:
		return nil, grpcErrorf(grpcInternal, "answer without a status")
	case status != nil:
		return nil, status
	case err == io.EOF:
		return nil, grpcErrorf(grpcInternal, "answer without a message")
	}
	return message, nil
}
