// WebSocket connections: the upgrade from either side, and the byte stream over messages.

package pitaya

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

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
	closed atomic.Bool                 // Close has been called
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
		var r wsRequest
		behind, err := l.readWSRequest(c.Conn, &r)
		if refusal, ok := errors.AsType[*wsRefusal](err); ok {
			if _, err := c.Conn.Write(refusal.append(nil)); err == nil {
				c.linger()
			}
		}
		if err != nil {
			return err
		}
		c.Pending = behind
		answer = l.accepted(c, &r)
	}
	_, err := c.Conn.Write(answer)
	return err
}

// linger lets the client receive a refusal before the socket is closed.
func (c *wsConn) linger() {
	if closeWrite(c.Conn) != nil {
		return
	}
	c.Conn.SetReadDeadline(time.Now().Add(wsLingerTime))
	io.CopyN(io.Discard, c.Conn, wsLingerBytes)
}

// dialWS does the client's side of the upgrade for u on a connection to its host, with TLS already if it is a wss URL,
// and more header lines if there are. RFC 6455 sections 4.1 and 4.2.2. On an error, and when ctx ends before the answer
// is here, c is closed; an answer that is no upgrade is an error that wraps [ErrProtocol].
func dialWS(ctx context.Context, c net.Conn, u *url.URL, header http.Header) (net.Conn, error) {
	ws := &wsConn{Conn: c, In: newWSReader(true, 0), client: true}
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
	for name, values := range header {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions":
			// Ours, and each of them must be there once.
		default:
			r.Header[name] = append(r.Header[name], values...)
		}
	}
	if offered := r.Header["Sec-Websocket-Protocol"]; len(offered) > 0 && !validWSProtocols(offered, true) {
		return errors.New("the subprotocols that are offered must be tokens, each of them once")
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails, see its documentation
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = nil // present, so that none is made up
	}
	r.Header["Upgrade"] = []string{"websocket"}
	r.Header["Connection"] = []string{"Upgrade"}
	r.Header["Sec-WebSocket-Key"] = []string{key}
	r.Header["Sec-WebSocket-Version"] = []string{"13"}
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
		if err := checkWSAnswer(a, key, r.Header["Sec-Websocket-Protocol"]); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
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
			c.sendClose(s, violation.closeCode())
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
// waiting for the peer's. Reads and writes in progress end with an error. It may be called at any time; the first call
// does not fail because of another that overtook it or because the handshake has closed the connection.
func (c *wsConn) Close() error {
	first := !c.closed.Swap(true)
	if first && c.ready.Load() {
		c.sendClose(c.streamState(), wsCloseNormal)
	}
	err := c.Conn.Close()
	if first && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
