package pitaya

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The connection engine: what happens between a socket and whole packets
// (client protocol, sections 3, 4, 6 and 7).
//
// Goroutines. One goroutine at a time reads a connection: a runner's until the
// client has acknowledged its handshake (serve), then one of its own
// (serveWorking), whose stack has never been grown by a handshake. While the
// connection is idle it holds no buffer: it waits until the socket is readable
// and only then borrows one. Writing has no goroutine
// of its own: packets are appended to a queue, and whoever finds nobody
// writing starts the drain (conn_write.go). Heartbeats come from one timer for
// the whole server (heartbeat.go).
//
// Ending. A connection ends once, in end, with a cause. From then on nothing
// is queued and nothing more is processed; depending on the mode, what is
// queued still goes out. The reading goroutine is the last to leave: it closes
// the socket.

// connConfig is what the connections of one server share. Immutable.
type connConfig struct {
	Beats            *heartbeats
	Counters         *counters
	Log              *slog.Logger
	MaxPacket        int           // body bytes of a data packet
	MaxHandshake     int           // body bytes of any other packet
	HandshakeTimeout time.Duration // from accept to ack; 0 is none
	WriteTimeout     time.Duration // how long a socket may take nothing
	QueueBytes       int           // budget for what is queued, in bytes
	QueueMessages    int           // budget in packets; 0 is none
	DropWhenSlow     bool          // drop pushes over budget instead of ending the connection

	Checks   endChecks // not immutable, but safe to share
	Left     func()    // called when a connection is closed and nothing of it is read any more
	Flushers *flushers // write for connections that can be written to without waiting

	Writers sync.WaitGroup // goroutines that write, or are called to; not immutable, but safe to share
}

// connUser is what a connection tells the layer above it. All methods but
// closed are called by the reading goroutine, one at a time. A user can have a
// connection after the other, so it is told which one it is.
type connUser interface {
	// admit is called first, when the peer's address is known and the
	// transport is ready. An error ends the connection.
	admit(c *conn) error
	// handshake is given the body of a handshake packet and returns the
	// packet that answers it, without WebSocket framing; the bytes are only
	// read. With an error the answer is the last packet of the connection.
	// From the answer on, pushes are kept in ring, if that is not nil.
	handshake(c *conn, body []byte) (answer []byte, ring *pushRing, err error)
	// acknowledged is called when the client has acknowledged its handshake for
	// the first time. It may give the connection to another user (inherit). An
	// error ends the connection.
	acknowledged(c *conn) error
	// drain is called when a client begins to work that stopReading was called
	// for already: it calls that again.
	drain()
	// atRest reports whether all data that was passed on is handled and answered.
	// If it is not, wake is called when it is.
	atRest() bool
	// received is called at most once, after the last data: the server ends, and
	// all that the client has sent until then was passed on.
	received()
	// control is called for each packet or frame that is no data, before it is
	// processed.
	control(c *conn)
	// data is given one or more whole data packets that lie one behind the
	// other, headers included. The bytes are its own until it returns. It may
	// block, which stops the reading of this connection only.
	data(c *conn, packets []byte)
	// hasRoom reports whether data would take so many packets of so many bytes
	// without blocking. What is true stays so until the next call of data.
	hasRoom(c *conn, packets, bytes int) bool
	// closed is called once, at the moment the connection ends, from any
	// goroutine, with no lock held. It must not block. lost says that nobody has
	// ended it on purpose: the network did, or what the client runs on.
	closed(c *conn, cause error, lost bool)
}

// connState is how far a client has come (client protocol, section 4).
type connState uint8

const (
	stateStart     connState = iota // nothing was agreed on
	stateHandshake                  // handshake answered, ack outstanding
	stateWorking                    // data is welcome
)

// lingerTime is how long the server waits for the client to close after it has
// sent its last packet. Closing at once could make the kernel answer data that
// is still on its way with a reset, and a reset can destroy the last packets
// in the client's receive buffer.
const lingerTime = 2 * time.Second

// beatEntry is a connection's place in the list of heartbeats.
type beatEntry struct {
	Next, Prev *conn         // guarded by heartbeats.mu
	Due        time.Duration // guarded by heartbeats.mu
	On         bool          // guarded by heartbeats.mu
	Held       atomic.Bool   // not read from at the moment: must not count as silent
	Seen       atomic.Int64  // last life sign, nanoseconds since the heartbeats' epoch
}

// conn is one client connection.
type conn struct {
	// Immutable after newConn.
	cfg     *connConfig
	rwc     net.Conn
	traffic *traffic // where its bytes and packets are counted
	flusher *flushShard

	// Limits is set by the user's admit, and immutable then; nil: the client may
	// send what it wants.
	Limits *sessionLimits

	user connUser // changed by inherit, in the reading goroutine and with mu held: who is another goroutine holds mu

	// Set by transportHandshake, then immutable.
	body net.Conn        // what is read and written: rwc, or what is below the WebSocket framing
	ws   *wsReader       // nil if the stream is not framed
	raw  syscall.RawConn // for reading and writing without waiting; nil where there is none
	cuts bool            // a write that was cut off by its deadline says how far it came, and can be gone on with

	// Owned by the reading goroutine.
	state   connState
	in      *buffer               // borrowed while bytes are waiting to be parsed; nil while idle
	need    int                   // bytes the packet at the front of in needs in all
	readN   int                   // result of the last raw read
	readErr error                 // likewise
	tryRead func(fd uintptr) bool // rawReader's, as a value; nil before it is needed
	swept   int                   // bytes read since reading was to stop

	stopping atomic.Bool // what has arrived is still read, then no more
	parting  atomic.Bool // the client was told that the server ends; its next ack is its last packet

	Beat  beatEntry
	Check endCheck

	connQueue
}

// newConn returns a connection that serve brings to life.
func newConn(rwc net.Conn, cfg *connConfig, user connUser) *conn {
	return &conn{cfg: cfg, rwc: rwc, body: rwc, user: user, traffic: cfg.Counters.connTraffic(), flusher: cfg.Flushers.shard()}
}

// remoteAddr returns the peer's address, as far as it is known by now.
func (c *conn) remoteAddr() net.Addr { return c.rwc.RemoteAddr() }

// serve reads the connection until the client works, and leaves the rest to a
// goroutine of its own, which lives as long as the connection: the handshake
// needs more stack than waiting for packets does, and this goroutine is a
// runner's.
func (c *conn) serve(ctx context.Context) {
	works := false
	defer func() {
		if !works {
			c.left()
		}
	}()
	if c.cfg.HandshakeTimeout > 0 {
		c.rwc.SetReadDeadline(time.Now().Add(c.cfg.HandshakeTimeout))
	}
	if err := c.transportHandshake(ctx); err != nil {
		c.end(c.readCause(err), endNow, nil)
		return
	}
	c.cfg.Beats.add(c)
	err := c.user.admit(c)
	switch {
	case err != nil:
	case ctx.Err() != nil:
		// The server's end, which ends all that are admitted, may have come
		// between the two.
		err = context.Cause(ctx)
	default:
		err = c.readLoop(true)
	}
	if err == errWorks {
		works = true
		go c.serveWorking()
		return
	}
	c.conclude(err)
}

// serveWorking reads the connection until it ends, and closes it. It returns
// when the socket is closed; a writer that is still at work notices that by
// itself.
func (c *conn) serveWorking() {
	defer c.left()
	c.conclude(c.readLoop(false))
}

// left is the last thing that the reading goroutine does.
func (c *conn) left() {
	c.cfg.Beats.remove(c)
	// It has ended by now, unless code of the application ended this goroutine,
	// as testing.T.FailNow does.
	c.end(errInternal, endNow, nil)
	if c.in != nil {
		c.in.free()
		c.in = nil
	}
	c.cfg.Left()
}

// conclude ends a connection that nothing is read from any more because of err, and
// waits until it is closed.
func (c *conn) conclude(err error) {
	switch {
	case errors.Is(err, errReceived):
		c.user.received()
		c.finish()
		return
	case errors.Is(err, errConnEnded):
	case errors.Is(err, io.EOF), errors.Is(err, ErrTruncated):
		// What is queued may still be wanted: a client that closed its
		// sending half. Nothing of it is on its way any more, so that closing the
		// socket behind the last packet cannot reset anything. A TLS connection
		// has a goodbye of its own.
		c.mu.Lock()
		c.gone = c.raw != nil
		c.mu.Unlock()
		// Nor does who has closed a WebSocket without a close frame wait for one.
		if c.endWith(err, endFlush, nil, wsCloseNone, true); c.gone {
			c.awaitDrained()
			return
		}
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrServerClosed):
		// Likewise of one that sent garbage behind good requests.
		c.end(err, endFlush, nil)
	default:
		c.lose(c.readCause(err), endNow)
	}
	c.linger()
}

// transportHandshake does what must be read from the peer before the first
// packet: PROXY header, TLS, WebSocket upgrade. They all have the method that
// tls.Conn has.
func (c *conn) transportHandshake(ctx context.Context) (err error) {
	defer c.recovered(&err)
	if h, ok := c.rwc.(interface {
		HandshakeContext(ctx context.Context) error
	}); ok {
		if c.cfg.HandshakeTimeout > 0 && !readsOnly(c.rwc) {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, c.cfg.HandshakeTimeout, ErrHandshakeTimeout)
			defer cancel()
		}
		if err := h.HandshakeContext(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	// Under the lock because others may end the connection from now on.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() {
		return errConnEnded
	}
	c.established = true
	if w, ok := c.rwc.(*wsConn); ok {
		c.body, c.ws = w.Conn, &w.In
		if len(w.Pending) > 0 {
			c.in = getBuffer(max(len(w.Pending), minBufferSize))
			c.in.B = append(c.in.B, w.Pending...)
			w.Pending = nil
		}
	}
	c.body = bareConn(c.body)
	c.raw = rawConn(c.body)
	_, mem := c.body.(*memConn)
	c.cuts = mem || c.raw != nil // not under TLS
	return nil
}

// readsOnly reports whether the transport's handshake waits for nothing but the
// socket's reading, whose deadline is set already: a WebSocket upgrade without
// TLS or PROXY header, whose short answer fits into the socket's buffer.
func readsOnly(nc net.Conn) bool {
	w, ok := nc.(*wsConn)
	if !ok {
		return false
	}
	_, ok = w.Conn.(*net.TCPConn)
	return ok
}

// errRefused ends a connection whose handshake was refused; the answer says so
// to the client.
var errRefused = errors.New("pitaya: handshake refused")

// errInternal is the cause when this package failed.
var errInternal = errors.New("pitaya: internal error")

// errConnEnded tells the read loop that the connection ended elsewhere.
var errConnEnded = errors.New("pitaya: connection ended")

// readCause turns an error of the socket into the cause that the session sees.
func (c *conn) readCause(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.state != stateWorking {
		return ErrHandshakeTimeout
	}
	return err
}

// recovered, deferred, turns a panic into an error. The layers above recover
// what their users' code does, but the transport's handshake calls some too,
// and should the engine itself be wrong, this client pays and nobody else.
func (c *conn) recovered(err *error) {
	if v := recover(); v != nil {
		c.cfg.Counters.Panics.Add(1)
		c.cfg.Log.Error("connection failed", "addr", c.rwc.RemoteAddr(), "panic", v, "stack", string(debug.Stack()))
		*err = errInternal
	}
}

// bareConn takes off the wrappers of this package that have nothing left to do
// once the transport's handshake is done.
func bareConn(nc net.Conn) net.Conn {
	if p, ok := nc.(*proxyConn); ok {
		return p.NetConn()
	}
	return nc
}
