// WebSocket listeners and connections, RFC 6455.

package pitaya

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// WSOptions are the settings of a [WSListener]. The zero value accepts upgrades on every path and from every origin.
type WSOptions struct {
	// TLS makes it a wss listener. Protocols other than HTTP/1.1 are taken out of NextProtos. Nil: plain ws. It is for
	// the listener's own socket and not for requests that come through ServeHTTP.
	TLS *tls.Config

	// Path is the only path that is served, compared as it stands; others get status 404. Empty: every path.
	Path string

	// Origins are the web origins whose pages may connect, such as "https://game.example.com"; case does not matter.
	// Others get status 403. A request without an Origin header, which is one that no browser sent, is always accepted.
	// Empty, or with an entry "*": every origin.
	Origins []string

	// CheckOrigin decides instead of Origins, also where the request has no Origin header. It is called in the
	// goroutine of the connection, for several at a time, and must not keep the request. Nil: Origins decides.
	CheckOrigin func(*http.Request) bool

	// ReadLimit is the largest message in bytes, all its fragments together, that a client may send; a larger one ends
	// the connection with code 1009. Packets have a limit of their own, and a message is never held in memory as a
	// whole, so this is seldom needed. 0 or less: none.
	ReadLimit int64

	// TrustedProxyHops is how many proxies, each of which adds the address of its peer to X-Forwarded-For, stand before
	// this listener: the address of a connection is then that many entries from the end of the header. What clients
	// claim further ahead is ignored. With fewer entries, or an entry that is no IP address, it remains the socket's.
	// 0 or less: the header is ignored.
	TrustedProxyHops int

	// MaxHeaderBytes bounds the upgrade request; larger ones get status 431. 0 or less: 8 KiB.
	MaxHeaderBytes int

	// HandshakeTimeout bounds how long a request that came through ServeHTTP waits for Accept, after which it gets
	// status 503. How long the handshake of a connection from Accept may take is up to the context given to its
	// HandshakeContext; where a Read or Write does it, this is the bound. 0 or less: 10 s.
	HandshakeTimeout time.Duration
}

const (
	wsDefaultMaxHeader        = 8 << 10
	wsDefaultHandshakeTimeout = 10 * time.Second

	// After a refusal we read what the client still sends, for so long and so much: closing a socket with unread input
	// resets it, and the client would lose the answer.
	wsLingerTime  = 500 * time.Millisecond
	wsLingerBytes = 256 << 10

	// wsCloseWait bounds how long Close waits for a close frame to be sent to a peer that does not read.
	wsCloseWait = time.Second
)

// A WSListener is a [net.Listener] for WebSocket clients, and an [http.Handler] for servers that have a mux of their
// own; both feed Accept, and either may go unused.
//
// Accept returns at once with a connection whose upgrade is to come: HandshakeContext of the connection does TLS, reads
// the request, answers it, and fails if that was a refusal. Without it the first Read or Write does so. The connection
// is a stream of bytes: Read gives the payload of the messages, text or binary, one after the other, answers pings, and
// returns io.EOF after a close frame; each Write is one binary message. No subprotocol and no extension is ever
// selected, so there is no compression. NetConn gives what is below.
type WSListener struct {
	// Immutable.
	inner     net.Listener // nil: only a handler
	o         WSOptions    // with the defaults filled in
	tlsConfig *tls.Config

	queue chan wsAccepted
	done  chan struct{} // closed by Close
	close func() error
	start func() // starts the loop that accepts from inner, unless the listener is closed
	loop  sync.WaitGroup
	mu    sync.Mutex // held to start the loop and to close done, so that Close waits for a loop that was started
}

// wsAccepted is what Accept returns.
type wsAccepted struct {
	c   net.Conn
	err error
}

// ListenWS listens on the TCP address addr, as [ListenTCP] does. With an empty address there is no socket, and
// connections come through ServeHTTP only. Nil options are the zero value.
func ListenWS(addr string, o *WSOptions) (*WSListener, error) {
	if addr == "" {
		return NewWSListener(nil, o)
	}
	// The settings are checked before the port is taken.
	l, err := NewWSListener(nil, o)
	if err != nil {
		return nil, err
	}
	if l.inner, err = ListenTCP(addr, nil); err != nil {
		return nil, err
	}
	return l, nil
}

// NewWSListener serves WebSocket on the connections of another listener, such as a [ProxyListener], and closes it when
// it is closed. Nil is a listener without a socket.
func NewWSListener(inner net.Listener, o *WSOptions) (*WSListener, error) {
	l := &WSListener{inner: inner, queue: make(chan wsAccepted), done: make(chan struct{})}
	if o != nil {
		l.o = *o
	}
	l.o.Origins = slices.Clone(l.o.Origins)
	if l.o.MaxHeaderBytes <= 0 {
		l.o.MaxHeaderBytes = wsDefaultMaxHeader
	}
	if l.o.HandshakeTimeout <= 0 {
		l.o.HandshakeTimeout = wsDefaultHandshakeTimeout
	}
	if l.o.TLS != nil {
		config, err := serverTLSConfig(l.o.TLS)
		if err != nil {
			return nil, err
		}
		// An HTTP/2 connection cannot be upgraded (that would be RFC 8441). Clients that offer protocols must be offered
		// one in return.
		config.NextProtos = slices.DeleteFunc(slices.Clone(config.NextProtos), func(p string) bool { return p == "h2" || p == "http/1.1" })
		config.NextProtos = append(config.NextProtos, "http/1.1")
		l.tlsConfig = config
	}
	l.start = sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case <-l.done:
		default:
			l.loop.Go(l.acceptLoop)
		}
	})
	l.close = sync.OnceValue(func() (err error) {
		l.mu.Lock()
		close(l.done)
		l.mu.Unlock()
		if l.inner != nil {
			err = l.inner.Close()
		}
		l.loop.Wait()
		return err
	})
	return l, nil
}

// acceptLoop takes connections from the socket to Accept, one at a time, until the listener is closed. An error waits
// to be fetched like a connection, so the pause after it is up to the caller of Accept.
func (l *WSListener) acceptLoop() {
	for {
		c, err := l.inner.Accept()
		a := wsAccepted{err: err}
		if err == nil {
			if l.tlsConfig != nil {
				c = tls.Server(c, l.tlsConfig)
			}
			a.c = &wsConn{Conn: c, In: wsReader{limit: l.o.ReadLimit}, up: &wsUpgrade{l: l}}
		}
		select {
		case l.queue <- a:
		case <-l.done:
			if err == nil {
				c.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept waits for the next connection and returns it with its upgrade to come, see [WSListener]. After Close it
// returns [net.ErrClosed]. Other errors are those of the socket, see [ListenTCP].
func (l *WSListener) Accept() (net.Conn, error) {
	select {
	case <-l.done: // first, where both are ready
		return nil, l.closedError()
	default:
	}
	if l.inner != nil {
		l.start()
	}
	select {
	case a := <-l.queue:
		if a.err != nil {
			return nil, a.err
		}
		return a.c, nil
	case <-l.done:
		return nil, l.closedError()
	}
}

func (l *WSListener) closedError() error {
	return &net.OpError{Op: "accept", Net: "ws", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends the listener and its socket: Accept returns, and every upgrade that is still to come gets status 503, on
// accepted connections and through ServeHTTP. Upgraded connections stay. Further calls do nothing.
func (l *WSListener) Close() error { return l.close() }

// Addr returns the address of the socket. Without a socket it is the address "handler" of the network "ws".
func (l *WSListener) Addr() net.Addr {
	if l.inner == nil {
		return wsHandlerAddr{}
	}
	return l.inner.Addr()
}

type wsHandlerAddr struct{}

func (wsHandlerAddr) Network() string { return "ws" }
func (wsHandlerAddr) String() string  { return "handler" }

// ServeHTTP checks the request and hands its connection to Accept. It answers refusals itself. It works with HTTP/1.1
// servers whose ResponseWriter can be hijacked; deadlines that the server has set are taken off the connection.
func (l *WSListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if refusal := l.check(r); refusal != nil {
		refusal.writeTo(w)
		return
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		(&wsRefusal{status: http.StatusInternalServerError, text: "the connection cannot be upgraded"}).writeTo(w)
		return
	}
	raw.SetDeadline(time.Time{})
	c := &wsConn{Conn: raw, In: wsReader{limit: l.o.ReadLimit}, up: &wsUpgrade{l: l, answer: wsAnswer(r)}}
	if n := buffered.Reader.Buffered(); n > 0 {
		ahead, _ := buffered.Reader.Peek(n)
		c.Pending = bytes.Clone(ahead)
	}
	if a := l.forwarded(r); a != nil {
		c.remote.Store(a)
	}
	patience := time.NewTimer(l.o.HandshakeTimeout)
	defer patience.Stop()
	select {
	case l.queue <- wsAccepted{c: c}:
		return
	case <-l.done:
	case <-patience.C:
	}
	raw.SetWriteDeadline(time.Now().Add(wsCloseWait))
	raw.Write(wsUnavailable.append(nil))
	raw.Close()
}

// A wsRefusal is an answer other than 101. It is an error that wraps [ErrProtocol].
type wsRefusal struct {
	status int
	text   string
	header [][2]string // more of the answer's header
}

// wsUnavailable is the answer of a listener that is closed, or whose user does not call Accept.
var wsUnavailable = &wsRefusal{status: http.StatusServiceUnavailable, text: "the server does not accept connections now"}

func (e *wsRefusal) Error() string {
	return fmt.Sprintf("upgrade refused with status %d: %s", e.status, e.text)
}

func (e *wsRefusal) Unwrap() error { return ErrProtocol }

// append appends the answer as it is on the wire.
func (e *wsRefusal) append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "HTTP/1.1 %d %s\r\n", e.status, http.StatusText(e.status))
	for _, h := range e.header {
		dst = fmt.Appendf(dst, "%s: %s\r\n", h[0], h[1])
	}
	return fmt.Appendf(dst, "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s\n", len(e.text)+1, e.text)
}

// writeTo gives the answer through a server that is not ours.
func (e *wsRefusal) writeTo(w http.ResponseWriter) {
	for _, h := range e.header {
		w.Header().Set(h[0], h[1])
	}
	w.Header().Set("Connection", "close")
	http.Error(w, e.text, e.status)
}

// check applies RFC 6455 section 4.2.1 and the options to a request. The result is nil for a good one.
func (l *WSListener) check(r *http.Request) *wsRefusal {
	bad := func(text string) *wsRefusal { return &wsRefusal{status: http.StatusBadRequest, text: text} }
	switch {
	case r.ProtoMajor != 1:
		return &wsRefusal{status: http.StatusHTTPVersionNotSupported, text: "WebSocket needs HTTP/1.1"}
	case r.ProtoMinor < 1:
		return bad("WebSocket needs HTTP/1.1")
	case r.Method != http.MethodGet:
		return &wsRefusal{status: http.StatusMethodNotAllowed, text: "WebSocket needs the method GET",
			header: [][2]string{{"Allow", "GET"}}}
	case l.o.Path != "" && r.URL.Path != l.o.Path:
		return &wsRefusal{status: http.StatusNotFound, text: "there is nothing here"}
	case !headerHasToken(r.Header, "Upgrade", "websocket"), !headerHasToken(r.Header, "Connection", "upgrade"):
		return bad("this is a WebSocket server")
	case r.Host == "":
		return bad("the Host header is missing")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return bad("the request has a body") // it would be taken for frames
	}
	// Section 4.4: the answer names the version; RFC 9110 section 15.5.22 asks for Upgrade with this status.
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || v[0] != "13" {
		return &wsRefusal{status: http.StatusUpgradeRequired, text: "the version of WebSocket must be 13",
			header: [][2]string{{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}}}
	}
	if key := r.Header["Sec-Websocket-Key"]; len(key) != 1 || !validWSKey(key[0]) {
		return bad("Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if !l.originAllowed(r) {
		return &wsRefusal{status: http.StatusForbidden, text: "origin not allowed"}
	}
	select {
	case <-l.done:
		return wsUnavailable
	default:
		return nil
	}
}

func (l *WSListener) originAllowed(r *http.Request) bool {
	if l.o.CheckOrigin != nil {
		return l.o.CheckOrigin(r)
	}
	origin := r.Header["Origin"]
	if len(l.o.Origins) == 0 || len(origin) == 0 {
		return true
	}
	return slices.ContainsFunc(l.o.Origins, func(o string) bool {
		return o == "*" || len(origin) == 1 && strings.EqualFold(o, origin[0])
	})
}

// forwarded is the client's address as the trusted proxies tell it, or nil.
func (l *WSListener) forwarded(r *http.Request) *net.TCPAddr {
	hops := l.o.TrustedProxyHops
	if hops <= 0 {
		return nil
	}
	// Several lines are one list, RFC 9110 section 5.3.
	entries := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	if len(entries) < hops {
		return nil
	}
	// Usually a bare address; some proxies add the port, and then IPv6 stands in brackets.
	entry := strings.TrimSpace(entries[len(entries)-hops])
	addr, err := netip.ParseAddrPort(entry)
	if err != nil {
		ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(entry, "["), "]"))
		if err != nil {
			return nil
		}
		addr = netip.AddrPortFrom(ip, 0)
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()))
}

// headerHasToken looks for token, in any case, in the comma-separated lists that are h's values of key.
func headerHasToken(h http.Header, key, token string) bool {
	for _, list := range h[key] {
		for entry := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(entry), token) {
				return true
			}
		}
	}
	return false
}

// validWSKey reports whether s is 16 bytes in base64, RFC 6455 section 4.2.1, number 5.
func validWSKey(s string) bool {
	var b [18]byte // what 24 characters can hold
	if len(s) != base64.StdEncoding.EncodedLen(16) {
		return false
	}
	n, err := base64.StdEncoding.Decode(b[:], []byte(s))
	return err == nil && n == 16
}

// wsAcceptKey proves that the request was understood, RFC 6455 section 4.2.2, number 5.
func wsAcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// wsAnswer is the answer to a request that passed the check.
func wsAnswer(r *http.Request) []byte {
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		wsAcceptKey(r.Header.Get("Sec-Websocket-Key")) + "\r\n\r\n")
}

// A wsConn is one end of a WebSocket connection.
//
// It has two kinds of users. For any holder of a net.Conn it is a byte stream, see [WSListener]. The connection engine
// calls HandshakeContext and then works on the fields Conn, in and pending itself; from then on it must not call Read,
// Write and Close, and the memory that only those need is never allocated.
type wsConn struct {
	net.Conn          // what is below: TCP, TLS, memory
	In       wsReader // owned by the engine, or guarded by wsStream.rmu
	Pending  []byte   // bytes that came behind the upgrade, not decoded yet; usually nil; owned as in
	client   bool     // immutable; our role: it says whether we mask

	ready  atomic.Bool                 // the upgrade is done
	remote atomic.Pointer[net.TCPAddr] // the client's, from X-Forwarded-For; nil: that of Conn

	mu  sync.Mutex // held during the upgrade
	up  *wsUpgrade // what the upgrade needs; nil once it has been tried; guarded by mu
	err error      // why it failed; guarded by mu

	stream atomic.Pointer[wsStream]
}

// A wsUpgrade is the upgrade that a connection from Accept has before it.
type wsUpgrade struct {
	l      *WSListener
	answer []byte // the request came through ServeHTTP and gets this answer; nil: it is to be read
}

// NetConn returns the connection below: TCP, TLS or whatever the listener was put on.
func (c *wsConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr is the client's address as far as it is known, see TrustedProxyHops. It does not wait.
func (c *wsConn) RemoteAddr() net.Addr {
	if a := c.remote.Load(); a != nil {
		return a
	}
	return c.Conn.RemoteAddr()
}

// HandshakeContext does the upgrade unless that has been done: TLS and PROXY header below, if there are, request and
// answer. If it fails, by the end of ctx too, the connection is closed and the error stays.
func (c *wsConn) HandshakeContext(ctx context.Context) error {
	if c.ready.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up == nil {
		return c.err
	}
	if err := interruptible(ctx, c.Conn, func() error { return c.upgrade(ctx) }); err != nil {
		c.Conn.Close()
		c.err = fmt.Errorf("pitaya: websocket: %w", err)
	} else {
		c.ready.Store(true)
	}
	c.up = nil
	return c.err
}

// handshake is HandshakeContext for callers without a context.
func (c *wsConn) handshake() error {
	if c.ready.Load() {
		return nil
	}
	c.mu.Lock()
	timeout := wsDefaultHandshakeTimeout
	if c.up != nil {
		timeout = c.up.l.o.HandshakeTimeout
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.HandshakeContext(ctx)
}

// upgrade is the server's side of RFC 6455 section 4.2. The caller holds mu.
func (c *wsConn) upgrade(ctx context.Context) error {
	l, answer := c.up.l, c.up.answer
	if answer == nil {
		if below, ok := c.Conn.(interface{ HandshakeContext(context.Context) error }); ok {
			if err := below.HandshakeContext(ctx); err != nil {
				return err
			}
		}
		r, err := c.readRequest(l)
		if refusal, ok := errors.AsType[*wsRefusal](err); ok {
			if _, err := c.Conn.Write(refusal.append(nil)); err == nil {
				c.linger()
			}
		}
		if err != nil {
			return err
		}
		answer = wsAnswer(r)
		if a := l.forwarded(r); a != nil {
			c.remote.Store(a)
		}
	}
	_, err := c.Conn.Write(answer)
	return err
}

// readRequest reads and checks the upgrade request. The error of a request that needs an answer is a *wsRefusal.
func (c *wsConn) readRequest(l *WSListener) (*http.Request, error) {
	in := &wsHeaderReader{r: c.Conn, left: l.o.MaxHeaderBytes}
	br := in.buffer()
	defer in.release(br)
	// All methods begin with a letter. Those who probe what speaks here, with TLS or packets, must not wait for the
	// end of a line that they will not send.
	if b, err := br.Peek(1); err == nil && (b[0]|0x20 < 'a' || b[0]|0x20 > 'z') {
		return nil, &wsRefusal{status: http.StatusBadRequest, text: "this is a WebSocket server"}
	}
	r, err := http.ReadRequest(br)
	switch {
	case err == nil:
	case in.err != nil:
		return nil, in.err
	case in.left == 0:
		return nil, &wsRefusal{status: http.StatusRequestHeaderFieldsTooLarge, text: "the request is too large"}
	default:
		return nil, &wsRefusal{status: http.StatusBadRequest, text: "malformed request"}
	}
	if refusal := l.check(r); refusal != nil {
		return nil, refusal
	}
	c.Pending = in.rest(br)
	return r, nil
}

// linger lets the client receive a refusal before the socket is closed.
func (c *wsConn) linger() {
	if closeWrite(c.Conn) != nil {
		return
	}
	c.Conn.SetReadDeadline(time.Now().Add(wsLingerTime))
	io.CopyN(io.Discard, c.Conn, wsLingerBytes)
}

// A wsHeaderReader bounds how much of a connection is read in search of the end of an HTTP header, and tells errors of
// the connection from those of the header.
type wsHeaderReader struct {
	r    io.Reader
	left int
	err  error // of r
}

func (h *wsHeaderReader) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, io.EOF
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // the peer left in the middle
	}
	if err != nil {
		h.err = err
	}
	return n, err
}

// wsBuffers holds the readers of upgrades, which take no longer than a round trip.
var wsBuffers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// buffer returns a buffered reader on h, to be given back with release.
func (h *wsHeaderReader) buffer() *bufio.Reader {
	br := wsBuffers.Get().(*bufio.Reader)
	br.Reset(h)
	return br
}

func (h *wsHeaderReader) release(br *bufio.Reader) {
	br.Reset(nil)
	wsBuffers.Put(br)
}

// rest returns a copy of what was read beyond the header, nil if that is nothing.
func (h *wsHeaderReader) rest(br *bufio.Reader) []byte {
	if br.Buffered() == 0 {
		return nil
	}
	b, _ := br.Peek(br.Buffered())
	return bytes.Clone(b)
}

// dialWS does the client's side of the upgrade for u on a connection to its host, with TLS already if it is a wss URL,
// and more header lines if there are. RFC 6455 sections 4.1 and 4.2.2. On an error, and when ctx ends before the answer
// is here, c is closed; an answer that is no upgrade is an error that wraps [ErrProtocol].
func dialWS(ctx context.Context, c net.Conn, u *url.URL, header http.Header) (net.Conn, error) {
	ws := &wsConn{Conn: c, In: wsReader{client: true}, client: true}
	if err := interruptible(ctx, c, func() error { return ws.request(u, header) }); err != nil {
		c.Close()
		return nil, fmt.Errorf("pitaya: websocket: %w", err)
	}
	ws.ready.Store(true)
	return ws, nil
}

// request sends the upgrade request and checks the answer.
func (c *wsConn) request(u *url.URL, header http.Header) error {
	r, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails, see its documentation
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r.Header["User-Agent"] = r.Header["User-Agent"] // present, so that none is made up
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Connection", "Upgrade")
	r.Header["Sec-WebSocket-Key"] = []string{key}
	r.Header["Sec-WebSocket-Version"] = []string{"13"}
	r.Header.Del("Sec-WebSocket-Extensions")
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return err
	}
	if _, err := c.Conn.Write(b.Bytes()); err != nil {
		return err
	}

	in := &wsHeaderReader{r: c.Conn, left: wsDefaultMaxHeader}
	br := in.buffer()
	defer in.release(br)
	for {
		a, err := http.ReadResponse(br, r)
		switch {
		case err == nil:
		case in.err != nil:
			return in.err
		case in.left == 0:
			return fmt.Errorf("%w: the answer's header is too large", ErrProtocol)
		default:
			return fmt.Errorf("%w: malformed answer: %w", ErrProtocol, err)
		}
		if a.StatusCode/100 == 1 && a.StatusCode != http.StatusSwitchingProtocols {
			continue // informational, RFC 9110 section 15.2
		}
		offered := r.Header["Sec-Websocket-Protocol"]
		protocol := a.Header.Get("Sec-Websocket-Protocol")
		switch {
		case a.StatusCode != http.StatusSwitchingProtocols:
			return fmt.Errorf("%w: no upgrade, the answer is %d %s", ErrProtocol, a.StatusCode, http.StatusText(a.StatusCode))
		case !headerHasToken(a.Header, "Upgrade", "websocket"), !headerHasToken(a.Header, "Connection", "upgrade"):
			return fmt.Errorf("%w: the answer upgrades to something else", ErrProtocol)
		case a.Header.Get("Sec-Websocket-Accept") != wsAcceptKey(key):
			return fmt.Errorf("%w: the answer is not to our request", ErrProtocol)
		case len(a.Header["Sec-Websocket-Extensions"]) > 0:
			return fmt.Errorf("%w: the answer has an extension that was not offered", ErrProtocol)
		case protocol != "" && !headerHasToken(http.Header{"Offered": offered}, "Offered", protocol):
			return fmt.Errorf("%w: the answer has a subprotocol that was not offered", ErrProtocol)
		}
		c.Pending = in.rest(br)
		return nil
	}
}

// A wsStream is what a connection needs when it is used as a byte stream.
type wsStream struct {
	rmu  sync.Mutex // held by Read; guards the following
	rest []byte     // data that was decoded but not yet returned
	rerr error      // the end of reading, after rest

	wmu    sync.Mutex // held while a frame is written; guards the following
	unsent []byte     // the end of a frame whose write a deadline has cut; goes out before anything else
	closed bool       // a close frame was sent, or may have been

	owed atomic.Pointer[[]byte] // pong to be sent by whoever gets wmu next; only the latest ping needs one (section 5.5.3)
}

func (c *wsConn) streamState() *wsStream {
	if s := c.stream.Load(); s != nil {
		return s
	}
	c.stream.CompareAndSwap(nil, new(wsStream))
	return c.stream.Load()
}

// Read reads from the payload of the messages. It ends with io.EOF after a close frame, or when the peer has closed the
// connection between two messages, and with an error that wraps [ErrProtocol] after a violation, which it answers with
// a close frame. One Read does not return bytes of two reads from the connection below, and after a deadline has passed
// it can be called again.
func (c *wsConn) Read(p []byte) (int, error) {
	if err := c.handshake(); err != nil {
		return 0, err
	}
	s := c.streamState()
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for {
		switch {
		case len(s.rest) > 0:
			n := copy(p, s.rest)
			if s.rest = s.rest[n:]; len(s.rest) == 0 {
				s.rest = nil
			}
			return n, nil
		case s.rerr != nil:
			return 0, s.rerr
		case len(p) == 0:
			return 0, nil
		case c.Pending != nil:
			b := c.Pending
			c.Pending = nil
			s.rest = c.decode(s, b)
			continue
		}
		// Decoding makes it no longer and happens in place, so the bytes go straight to p.
		n, err := c.Conn.Read(p)
		data := c.decode(s, p[:n])
		if err != nil && s.rerr == nil && !isTimeout(err) {
			if err == io.EOF && !c.In.between() {
				err = io.ErrUnexpectedEOF
			}
			s.rerr = err
		}
		if len(data) > 0 {
			return len(data), nil
		}
		if err != nil && s.rerr == nil {
			return 0, err
		}
	}
}

// decode decodes b, answers what must be answered, and sets rerr at the end. The caller holds rmu.
func (c *wsConn) decode(s *wsStream, b []byte) []byte {
	data, err := c.In.decode(b, func(op byte, payload []byte) error {
		switch op {
		case wsPing:
			owed := bytes.Clone(payload)
			s.owed.Store(&owed)
			c.flushPong(s)
		case wsClose:
			code, _, _ := parseWSClose(payload) // was checked
			c.sendClose(s, code)
			return io.EOF
		}
		return nil
	})
	if err != nil {
		if violation, ok := errors.AsType[*wsError](err); ok {
			c.sendClose(s, violation.Code)
		}
		s.rerr = err
	}
	return data
}

// Write sends p as one binary message; an empty p is nothing. It may be called by several goroutines. If a deadline
// passes when a part of the frame is out already, p counts as written although the error is returned: the rest goes out
// before the next frame, so the connection stays usable where the one below does (TLS does not).
func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.handshake(); err != nil {
		return 0, err
	}
	s := c.streamState()
	defer c.flushPong(s) // one for which we were in the way
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	taken, err := c.writeFrame(s, wsBinary, p)
	if !taken {
		return 0, err
	}
	return len(p), err
}

// flushPong sends the pong that is owed, unless somebody is writing, who will do it then.
func (c *wsConn) flushPong(s *wsStream) {
	for s.owed.Load() != nil && s.wmu.TryLock() {
		if owed := s.owed.Swap(nil); owed != nil && !s.closed {
			c.writeFrame(s, wsPong, *owed) // a failure shows in the next Read or Write
		}
		s.wmu.Unlock()
	}
}

// wsFrames holds the buffers in which frames are put together, so that each is one write.
var wsFrames = sync.Pool{New: func() any { return new([]byte) }}

// wsMaxPooled keeps single large messages from staying in the pool.
const wsMaxPooled = 64 << 10

// writeFrame sends a frame and reports whether it is on its way, if only in part. The caller holds wmu.
func (c *wsConn) writeFrame(s *wsStream, op byte, payload []byte) (taken bool, err error) {
	if len(s.unsent) > 0 {
		n, err := c.Conn.Write(s.unsent)
		if s.unsent = s.unsent[n:]; err != nil {
			return false, err
		}
		s.unsent = nil
	}
	buf := wsFrames.Get().(*[]byte)
	b := appendWSFrame((*buf)[:0], op, c.client, payload)
	n, err := c.Conn.Write(b)
	if err != nil && n > 0 {
		s.unsent = bytes.Clone(b[n:])
	}
	if cap(b) <= wsMaxPooled {
		*buf = b
		wsFrames.Put(buf)
	}
	return n > 0, err
}

// sendClose sends the close frame of our side, if it has not been sent and nothing is in its way: a frame that is being
// written, or was in part, cannot be waited for. It is the last frame in any case, and it takes [wsCloseWait] at most.
func (c *wsConn) sendClose(s *wsStream, code uint16) {
	if !s.wmu.TryLock() {
		return
	}
	defer s.wmu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if len(s.unsent) == 0 {
		c.Conn.SetWriteDeadline(time.Now().Add(wsCloseWait))
		c.Conn.Write(appendWSClose(nil, code, "", c.client))
	}
}

// Close sends a close frame with code 1000 if that is possible at once or nearly so, and closes the connection without
// waiting for the peer's. Reads and writes in progress end with an error. It may be called at any time.
func (c *wsConn) Close() error {
	if c.ready.Load() {
		c.sendClose(c.streamState(), wsCloseNormal)
	}
	return c.Conn.Close()
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
