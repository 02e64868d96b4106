// WebSocket listeners: settings, and which upgrade requests are good. RFC 6455 section 4.2.

package pitaya

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
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
	c   net.Conn // nil with an error
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
		c, err := wsSocket{l}.Accept()
		select {
		case l.queue <- wsAccepted{c, err}:
		case <-l.done:
			if err == nil {
				c.(*wsConn).Conn.Close()
			}
			return
		}
	}
}

// sources are listeners that together accept what l does: those who have a goroutine for each of them spare a connection
// the way from one goroutine to another. Closing one closes l.
func (l *WSListener) sources() []net.Listener {
	if l.inner == nil {
		return []net.Listener{wsHandler{l}}
	}
	return []net.Listener{wsSocket{l}, wsHandler{l}}
}

// A wsSocket accepts what comes by the listener's socket.
type wsSocket struct{ *WSListener }

func (l wsSocket) Accept() (net.Conn, error) {
	c, err := l.inner.Accept()
	if err != nil {
		if l.closed() { // not every listener says so
			err = l.closedError()
		}
		return nil, err
	}
	if l.tlsConfig != nil {
		c = tls.Server(c, l.tlsConfig)
	}
	return &wsConn{Conn: c, In: newWSReader(false, l.o.ReadLimit), up: &wsUpgrade{l: l.WSListener}}, nil
}

// A wsHandler accepts what is in the queue: what came through ServeHTTP, if nobody has started the loop.
type wsHandler struct{ *WSListener }

// Accept waits for the next connection and returns it with its upgrade to come, see [WSListener]. After Close it
// returns [net.ErrClosed]. Other errors are those of the socket, see [ListenTCP].
func (l *WSListener) Accept() (net.Conn, error) {
	if l.inner != nil && !l.closed() {
		l.start()
	}
	return wsHandler{l}.Accept()
}

func (l wsHandler) Accept() (net.Conn, error) {
	if l.closed() { // first, where both are ready
		return nil, l.closedError()
	}
	select {
	case a := <-l.queue:
		return a.c, a.err
	case <-l.done:
		return nil, l.closedError()
	}
}

func (l *WSListener) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
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
	var asked wsRequest
	asked.take(r)
	if refusal := l.check(&asked); refusal != nil {
		refusal.writeTo(w)
		return
	}
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		(&wsRefusal{status: http.StatusInternalServerError, text: "the connection cannot be upgraded"}).writeTo(w)
		return
	}
	raw.SetDeadline(time.Time{})
	c := &wsConn{Conn: raw, In: newWSReader(false, l.o.ReadLimit), up: &wsUpgrade{l: l}}
	c.up.answer = l.accepted(c, &asked)
	if n := buffered.Reader.Buffered(); n > 0 {
		ahead, _ := buffered.Reader.Peek(n)
		c.Pending = bytes.Clone(ahead)
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

// wsMalformed is the answer to what is no request, or one that somebody on its way may have understood differently.
var wsMalformed = &wsRefusal{status: http.StatusBadRequest, text: "malformed request"}

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
func (l *WSListener) check(r *wsRequest) *wsRefusal {
	bad := func(text string) *wsRefusal { return &wsRefusal{status: http.StatusBadRequest, text: text} }
	switch {
	case r.Major != 1:
		return &wsRefusal{status: http.StatusHTTPVersionNotSupported, text: "WebSocket needs HTTP/1.1"}
	case r.Minor < 1:
		return bad("WebSocket needs HTTP/1.1")
	case r.Method != http.MethodGet:
		return &wsRefusal{status: http.StatusMethodNotAllowed, text: "WebSocket needs the method GET",
			header: [][2]string{{"Allow", "GET"}}}
	case !strings.HasPrefix(r.Target, "/") && r.Authority == "", strings.Contains(r.Target, "#"):
		return wsMalformed // neither a path nor a URL, RFC 6455 sections 3 and 4.1
	case l.o.Path != "" && r.Path != l.o.Path:
		return &wsRefusal{status: http.StatusNotFound, text: "there is nothing here"}
	case !hasToken(r.values(wsUpgradeField), "websocket"), !hasToken(r.values(wsConnection), "upgrade"):
		return bad("this is a WebSocket server")
	case r.host() == "":
		return bad("the Host header is missing")
	case !validHost(r.host()):
		return bad("the Host header is not a host")
	case r.Body:
		return bad("the request has a body") // it would be taken for frames
	}
	// Section 4.4: the answer names the version; RFC 9110 section 15.5.22 asks for Upgrade with this status.
	if v := r.values(wsVersion); len(v) != 1 || v[0] != "13" {
		return &wsRefusal{status: http.StatusUpgradeRequired, text: "the version of WebSocket must be 13",
			header: [][2]string{{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}}}
	}
	if key := r.values(wsKey); len(key) != 1 || !validWSKey(key[0]) {
		return bad("Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if p := r.values(wsProtocol); len(p) > 0 && !validWSProtocols(p, false) {
		return bad("Sec-WebSocket-Protocol is not a list of names")
	}
	if e := r.values(wsExtensions); len(e) > 0 && !validWSExtensions(e) {
		return bad("Sec-WebSocket-Extensions is not a list of extensions")
	}
	if !l.originAllowed(r) {
		return &wsRefusal{status: http.StatusForbidden, text: "origin not allowed"}
	}
	if l.closed() {
		return wsUnavailable
	}
	return nil
}

func (l *WSListener) originAllowed(r *wsRequest) bool {
	if l.o.CheckOrigin != nil {
		return l.o.CheckOrigin(r.HTTP)
	}
	origin := r.values(wsOrigin)
	if len(l.o.Origins) == 0 || len(origin) == 0 {
		return true
	}
	return slices.ContainsFunc(l.o.Origins, func(o string) bool {
		return o == "*" || len(origin) == 1 && strings.EqualFold(o, origin[0])
	})
}

// forwarded is the client's address as the trusted proxies tell it, or nil.
func (l *WSListener) forwarded(r *wsRequest) *net.TCPAddr {
	hops := l.o.TrustedProxyHops
	if hops <= 0 {
		return nil
	}
	// Several lines are one list, RFC 9110 section 5.3.
	entries := strings.Split(strings.Join(r.values(wsForwardedFor), ","), ",")
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

// validWSKey reports whether s is 16 bytes in base64, RFC 6455 section 4.2.1, number 5.
func validWSKey(s string) bool {
	var b [18]byte // what 24 characters can hold
	if len(s) != base64.StdEncoding.EncodedLen(16) {
		return false
	}
	n, err := base64.StdEncoding.Decode(b[:], []byte(s))
	return err == nil && n == 16
}

// appendWSAccept appends the proof that the request with a key was understood, RFC 6455 section 4.2.2, number 5.
func appendWSAccept(dst []byte, key string) []byte {
	var space [64]byte
	sum := sha1.Sum(append(append(space[:0], key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// accepted is the answer to a request that passed the check, whose client's address c is told if proxies have named it.
func (l *WSListener) accepted(c *wsConn, r *wsRequest) []byte {
	if a := l.forwarded(r); a != nil {
		c.remote.Store(a)
	}
	b := make([]byte, 0, 160)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = appendWSAccept(b, r.values(wsKey)[0])
	return append(b, "\r\n\r\n"...)
}
