package pitaya

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"time"
)

// HandshakeError is a server's refusal. See the client protocol, section 5.4.
type HandshakeError struct {
	Code int    // 400, or 500 and 501 from pomelo servers
	Msg  string // the reason, if the server gives one
}

// Error returns code and reason.
func (e *HandshakeError) Error() string {
	if e.Msg == "" {
		return fmt.Sprintf("pitaya: server refused the handshake with code %d", e.Code)
	}
	return fmt.Sprintf("pitaya: server refused the handshake with code %d: %s", e.Code, e.Msg)
}

// Dial connects to a server and does the handshake. The URL has one of the schemes tcp, tls, ws and wss, a host and a
// port, which may be left out for ws and wss, and for these also a path and a query.
//
// Errors are those of the network and of [NewClient].
func Dial(ctx context.Context, rawURL string, cfg *ClientConfig) (*Client, error) {
	if cfg == nil {
		cfg = new(ClientConfig)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("pitaya: dial: %w", err)
	}
	dialCtx, cancel := context.WithTimeout(ctx, cmp.Or(cfg.HandshakeTimeout, clientTimeout))
	defer cancel()
	conn, err := dialURL(dialCtx, u, cfg)
	if err != nil {
		return nil, fmt.Errorf("pitaya: dial %s://%s: %w", u.Scheme, u.Host, err)
	}
	if cfg.Resume && cfg.Redial == nil {
		again := *cfg
		again.Redial = func(ctx context.Context) (net.Conn, error) { return dialURL(ctx, u, cfg) }
		cfg = &again
	}
	return NewClient(ctx, conn, cfg)
}

// dialURL makes the connection below the packets.
func dialURL(ctx context.Context, u *url.URL, cfg *ClientConfig) (net.Conn, error) {
	port := u.Port()
	secure, ws := false, false
	switch u.Scheme {
	case "tcp":
	case "tls":
		secure = true
	case "ws":
		ws, port = true, cmp.Or(port, "80")
	case "wss":
		secure, ws, port = true, true, cmp.Or(port, "443")
	default:
		return nil, errors.New("the scheme must be tcp, tls, ws or wss")
	}
	if u.Hostname() == "" || port == "" {
		return nil, errors.New("host or port missing")
	}
	if ws && u.Fragment != "" {
		return nil, errors.New("the URL of a WebSocket must not have a fragment") // RFC 6455 section 3
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if secure {
		tc := new(tls.Config)
		if cfg.TLS != nil {
			tc = cfg.TLS.Clone()
		}
		tc.ServerName = cmp.Or(tc.ServerName, u.Hostname())
		tc.MinVersion = cmp.Or(tc.MinVersion, tls.VersionTLS12) // whatever GODEBUG says
		t := tls.Client(conn, tc)
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		conn = t
	}
	if ws {
		return dialWS(ctx, conn, u, cfg.Header)
	}
	return conn, nil
}

// NewClient does the handshake on a connection, which belongs to the client from then on and is closed if there is an
// error. The context ends the handshake, not the client.
//
// The error is a [*HandshakeError] if the server refuses; it wraps [ErrHandshakeTimeout] if the server does not answer
// within HandshakeTimeout, [ErrKicked], [ErrProtocol], the error of ctx or that of the connection.
func NewClient(ctx context.Context, conn net.Conn, cfg *ClientConfig) (*Client, error) {
	c := newClient(conn, cfg)
	if c.cfg.Resume {
		return c.resume(ctx, conn)
	}
	if err := c.handshake(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	c.start()
	return c, nil
}

// start brings a client to life whose handshake is done.
func (c *Client) start() {
	c.startTimers()
	c.goroutines.Go(func() { c.end(c.read()) })
}

// newClient returns a client that has not said anything yet.
func newClient(conn net.Conn, cfg *ClientConfig) *Client {
	c := &Client{conn: conn, done: make(chan struct{}), started: time.Now(), pending: make(map[uint64]chan<- clientReply)}
	if cfg != nil {
		c.cfg = *cfg
	}
	c.cfg.HandshakeTimeout = cmp.Or(c.cfg.HandshakeTimeout, clientTimeout)
	c.cfg.WriteTimeout = cmp.Or(c.cfg.WriteTimeout, clientTimeout)
	c.cfg.MaxPacketSize = min(cmp.Or(c.cfg.MaxPacketSize, MaxPacketSize), MaxPacketSize)
	c.cfg.MaxInflatedSize = cmp.Or(c.cfg.MaxInflatedSize, clientInflated)
	c.cfg.MaxPushBacklog = cmp.Or(c.cfg.MaxPushBacklog, clientBacklog)
	c.log = cmp.Or(c.cfg.Logger, slog.New(slog.DiscardHandler))
	c.anyPush = c.cfg.OnAnyPush
	c.handlers = make(map[string]func([]byte), len(c.cfg.OnPush))
	for route, f := range c.cfg.OnPush {
		c.OnPush(route, f)
	}
	_, c.packetwise = conn.(*wsConn)
	c.in = bufio.NewReader(clientInput{c})
	return c
}

// handshake runs before there is any other goroutine.
func (c *Client) handshake(ctx context.Context) error {
	deadline := c.started.Add(c.cfg.HandshakeTimeout)
	if err := c.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("pitaya: handshake: %w", err)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		c.conn.SetDeadline(time.Unix(1, 0)) // long ago; an error means that the connection has ended anyway
	})
	err := c.exchangeHandshake()
	if !stop() {
		<-interrupted
		return fmt.Errorf("pitaya: handshake: %w", ctx.Err())
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fmt.Errorf("%w: %w", ErrHandshakeTimeout, err)
	}
	if err != nil {
		return err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("pitaya: handshake: %w", err)
	}
	return nil
}

// exchangeHandshake sends the request, takes in the answer and sends the ack. Client protocol, section 5.
func (c *Client) exchangeHandshake() error {
	h := HandshakeData{Sys: HandshakeSys{Platform: runtime.GOOS, LibVersion: clientVersion}}
	if c.cfg.Handshake != nil {
		h = *c.cfg.Handshake
	}
	if h.Sys.Features == nil {
		h.Sys.Features = []string{FeatureInflate, FeaturePushCodes, FeatureDrain}
	}
	c.drains = h.drains()
	if c.outer != nil {
		h.User = c.outer.again.request(h.User)
	}
	body, err := appendHandshake(nil, &h)
	if err != nil {
		return err
	}
	packet, err := AppendPacket(nil, PacketHandshake, body)
	if err != nil {
		return fmt.Errorf("pitaya: handshake: %w", err)
	}
	if _, err := c.conn.Write(packet); err != nil {
		return fmt.Errorf("pitaya: handshake: %w", err)
	}
	if err := c.readAnswer(); err != nil {
		return err
	}
	if _, err := c.conn.Write(appendEmptyPacket(packet[:0], PacketHandshakeAck)); err != nil {
		return fmt.Errorf("pitaya: handshake: %w", err)
	}
	return nil
}

// readAnswer reads up to the server's answer and takes over what it says. Heartbeats may precede it.
func (c *Client) readAnswer() error {
	var p Packet
	for {
		var err error
		if p, err = c.readPacket(); err != nil {
			return fmt.Errorf("pitaya: handshake: %w", err)
		}
		if p.Type == PacketHandshake {
			break
		}
		switch p.Type {
		case PacketHeartbeat:
		case PacketKick:
			return c.kicked(p.Body)
		default:
			return fmt.Errorf("%w: %v packet before the handshake answer", ErrProtocol, p.Type)
		}
	}
	r, err := decodeHandshakeResponse(p.Body)
	if err != nil {
		return err
	}
	if r.Code != handshakeOK {
		return &HandshakeError{Code: r.Code, Msg: r.Msg}
	}
	c.answer = r
	if c.dict, err = NewDictionary(r.Sys.Dict); err != nil {
		return fmt.Errorf("%w: handshake answer: %w", ErrProtocol, err)
	}
	c.serializer = c.cfg.Serializer
	if c.serializer == nil {
		switch r.Sys.Serializer {
		case JSON{}.Name(), "": // old servers do not say
			c.serializer = JSON{}
		case Protobuf{}.Name():
			c.serializer = Protobuf{}
		default:
			return fmt.Errorf("pitaya: handshake: the server's serializer %q is unknown and none is configured", r.Sys.Serializer)
		}
	}
	return nil
}

// startTimers starts the heartbeats and the watch over the server's. Client protocol, section 6.
func (c *Client) startTimers() {
	var interval time.Duration
	if s := c.answer.Sys.Heartbeat; s > 0 {
		s = min(max(s, clientMinInterval.Seconds()), clientMaxInterval.Seconds())
		interval = time.Duration(s * float64(time.Second))
	}
	timeout := c.cfg.ServerTimeout
	if timeout == 0 {
		timeout = clientIntervals * interval
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if interval > 0 {
		c.ping = time.AfterFunc(interval, func() { c.heartbeat(interval) })
	}
	if timeout > 0 {
		c.heard.Store(int64(time.Since(c.started)))
		c.watch = time.AfterFunc(timeout, func() { c.checkServer(timeout) })
	}
}

func (c *Client) heartbeat(interval time.Duration) {
	c.mu.Lock()
	if c.cause != nil || c.closed {
		c.mu.Unlock()
		return
	}
	c.ping.Reset(interval)
	if len(c.out) > 0 && !c.resumable() {
		c.mu.Unlock() // what waits to be written is a life sign as well
		return
	}
	c.goroutines.Add(1)
	defer c.goroutines.Done()
	c.out = c.appendHeartbeat(c.out)
	c.flushAndUnlock()
}

func (c *Client) checkServer(timeout time.Duration) {
	silence := time.Since(c.started) - time.Duration(c.heard.Load())
	if silence >= timeout {
		c.end(ErrHeartbeat)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.watch.Reset(timeout - silence)
	}
}
