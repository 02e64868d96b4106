package pitaya

import (
	"context"
	"errors"
	"fmt"
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
// writing starts the drain (conn_queue.go). Heartbeats come from one timer for
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

// errReceived tells serve that the server ends and the client's last message
// was passed on.
var errReceived = errors.New("pitaya: all was received")

// maxSwept bounds how much is read of a client that sends without a pause when
// the server ends.
const maxSwept = 1 << 20

// stopReading lets the connection read what arrives until all of it is answered,
// and then call received. With ask the client is asked for its last packet instead, and
// all up to that is read: so nothing that it sends is lost on the way. A client
// that acknowledges its handshake at this moment, and sends a message behind
// that, is stopped then: drain is called again. It reports false if the client
// has not come that far.
func (c *conn) stopReading(ask bool) bool {
	c.mu.Lock()
	if !c.working {
		defer c.mu.Unlock()
		c.stopWanted = true
		return c.greeted
	}
	if ask {
		c.mu.Unlock()
		c.parting.Store(true)
		c.sendControl(partingPacket)
		return true
	}
	c.stopping.Store(!c.ended.Load())
	c.mu.Unlock()
	c.wake()
	return true
}

// wake lets the reading goroutine of a connection that is to stop see whether
// anything is left to read.
func (c *conn) wake() {
	when := time.Now()
	if _, mem := c.body.(*memConn); !mem && c.raw == nil {
		when = when.Add(stopTime) // for what the socket holds
	}
	c.setReadDeadline(when)
}

// setReadDeadline sets the deadline of a connection that has not ended. That of
// one that has is the linger's.
func (c *conn) setReadDeadline(when time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended.Load() {
		c.rwc.SetReadDeadline(when)
	}
}

// allRead is called when nothing was left to read of a connection that is to
// stop. It reports whether that was all: what is being handled now takes time,
// and what the client sends meanwhile still gets an answer.
func (c *conn) allRead() bool {
	c.setReadDeadline(time.Time{}) // first: wake may come at once
	return c.hasEnded() || c.swept > maxSwept || c.user.atRest()
}

// work says that what comes now is data, and reports whether it is to stop.
func (c *conn) work() (stop bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.working = true
	return c.stopWanted
}

// greet says that the handshake is being answered, and reports whether it may
// be: who would be stopped at once had better go elsewhere.
func (c *conn) greet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = !c.stopWanted
	return c.greeted
}

// stopTime is for connections that cannot be asked for what has arrived.
const stopTime = 10 * time.Millisecond

// partingPacket says that the server ends, to clients that understand it.
var partingPacket = []byte{byte(PacketHandshakeAck), 0, 0, 0}

// finish waits until the connection has ended, which is up to those who handle
// what was received. What else comes is dropped.
func (c *conn) finish() {
	c.mu.Lock()
	if !c.drained { // else the deadline is that of the linger
		c.rwc.SetReadDeadline(time.Time{})
	}
	c.mu.Unlock()
	c.end(c.readCause(c.linger()), endNow, nil)
}

// errWorks tells serve that the client has acknowledged its handshake.
var errWorks = errors.New("pitaya: the client works")

// readLoop reads and processes packets. It returns why it stopped. With greet
// that is errWorks when the client has come so far.
func (c *conn) readLoop(greet bool) (err error) {
	defer c.recovered(&err)
	r := c.newReader()
	if greet && c.in != nil { // bytes that came behind the WebSocket upgrade
		n := len(c.in.B)
		c.in.B = c.in.B[:0]
		if err := c.took(n); err != nil {
			return err
		}
	}
	for {
		if greet && c.state == stateWorking {
			return errWorks
		}
		n, err := r.read()
		if err != nil && c.stopping.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = r.readNow(), nil
			c.swept += n
			if (n == 0 || c.swept > maxSwept) && c.allRead() {
				return errReceived
			}
		}
		if n > 0 {
			if err := c.took(n); err != nil {
				return err
			}
		}
		if err == io.EOF && c.stopping.Load() {
			return errReceived // no more comes, but answers are still wanted
		}
		if err != nil {
			// The buffer alone says nothing: the raw reader has borrowed one
			// when it finds the end of the stream.
			if err == io.EOF && c.in != nil && len(c.in.B) > 0 {
				return ErrTruncated
			}
			return err
		}
	}
}

// took processes n bytes that were just read behind the bytes of c.in.
func (c *conn) took(n int) error {
	if c.hasEnded() {
		return errConnEnded
	}
	c.traffic.ReceivedBytes.Add(int64(n))
	have := len(c.in.B)
	fresh := c.in.B[have : have+n]
	var wsErr error
	if c.ws != nil {
		fresh, wsErr = c.ws.decode(fresh, c.control)
		if c.hasEnded() {
			return errConnEnded
		}
	}
	c.in.B = c.in.B[:have+len(fresh)]
	used, err := c.consume(c.in.B)
	if err == nil {
		err = wsErr
	}
	if err != nil {
		return err
	}
	if used == len(c.in.B) {
		c.in.free()
		c.in = nil
		c.need = 0
		return nil
	}
	if used > 0 {
		c.in.B = c.in.B[:copy(c.in.B, c.in.B[used:])]
	}
	return nil
}

// consume processes the whole packets at the front of b and returns how many
// bytes they were.
func (c *conn) consume(b []byte) (used int, err error) {
	run := 0            // where the data packets begin that were not passed on yet
	packets := int64(0) // that were not counted yet
	for {
		rest := b[used:]
		if len(rest) < PacketHeaderSize {
			c.need = PacketHeaderSize
			break
		}
		t, n, err := DecodePacketHeader(rest)
		if err == nil {
			err = c.admissible(t, n)
		}
		if err != nil {
			c.pass(b[run:used], &packets)
			return used, err
		}
		if len(rest) < PacketHeaderSize+n {
			c.need = PacketHeaderSize + n
			break
		}
		next := used + PacketHeaderSize + n
		if t != PacketData {
			c.pass(b[run:used], &packets)
			if c.hasEnded() {
				return used, errConnEnded
			}
			run = next
			c.traffic.ReceivedPackets.Add(1)
			if err := c.packet(t, rest[PacketHeaderSize:PacketHeaderSize+n]); err != nil {
				return used, err
			}
		} else {
			packets++
		}
		used = next
	}
	if used > 0 {
		c.Beat.Seen.Store(int64(c.cfg.Beats.now()))
		c.pass(b[run:used], &packets)
		if c.hasEnded() {
			return used, errConnEnded
		}
	}
	return used, nil
}

// admissible checks a packet by its header alone, before its body is there.
func (c *conn) admissible(t PacketType, n int) error {
	if t != PacketData {
		if n > c.cfg.MaxHandshake {
			return ErrPacketTooLarge
		}
		return nil
	}
	if c.state != stateWorking {
		return errEarlyData
	}
	if n > c.cfg.MaxPacket {
		return ErrPacketTooLarge
	}
	return nil
}

// pass hands n data packets to the layer above, and counts them before.
func (c *conn) pass(packets []byte, n *int64) {
	if len(packets) > 0 {
		c.traffic.ReceivedPackets.Add(*n)
		*n = 0
		c.user.data(c, packets)
	}
}

// packet processes a packet that is not data.
func (c *conn) packet(t PacketType, body []byte) error {
	if c.user.control(c); c.hasEnded() {
		return errConnEnded
	}
	switch t {
	case PacketHandshake:
		answer, ring, err := c.user.handshake(c, body)
		if err != nil {
			c.end(errors.Join(errRefused, err), endFlush, answer)
			return errConnEnded
		}
		if c.state != stateWorking && !c.greet() {
			return ErrServerClosed
		}
		c.state = stateHandshake
		c.sendAnswer(answer, ring)
		// A few bytes ask for an answer of many: who does not take them is
		// not read from.
		c.waitRoom()
	case PacketHandshakeAck:
		switch c.state {
		case stateStart:
			return errEarlyAck
		case stateHandshake:
			if c.cfg.HandshakeTimeout > 0 {
				// First: with another user this is a connection that stopReading
				// wakes by its deadline.
				c.setReadDeadline(time.Time{})
			}
			if err := c.user.acknowledged(c); err != nil {
				c.end(err, endNow, nil)
				return errConnEnded
			}
			c.state = stateWorking
			if c.work() {
				c.user.drain()
			}
		case stateWorking:
			if c.parting.Load() {
				return errReceived
			}
		}
	case PacketHeartbeat:
		// A life sign; of a client with a resumable session also a count.
		if len(body) == receivedSize {
			return c.pushesReceived(body)
		}
	case PacketKick:
		// The goodbye of a client with a resumable session. Of others it is a
		// life sign: a client has nobody to kick.
		if c.state == stateWorking && c.resumable() {
			c.end(io.EOF, endFlush, nil)
			return errConnEnded
		}
	}
	return nil
}

// hold says that the connection is not read from for the moment, and so cannot
// be judged by its life signs.
func (c *conn) hold(on bool) {
	if !on {
		c.Beat.Seen.Store(int64(c.cfg.Beats.now()))
	}
	c.Beat.Held.Store(on)
}

// heartbeatPacket is what both sides send (client protocol, section 6).
var heartbeatPacket = []byte{byte(PacketHeartbeat), 0, 0, 0}

// heartbeat sends one heartbeat. It does not block.
func (c *conn) heartbeat() { c.sendControl(heartbeatPacket) }

// control handles a WebSocket control frame (RFC 6455, section 5.5). Pings are
// answered but are no life signs.
func (c *conn) control(op byte, payload []byte) error {
	c.user.control(c)
	switch op {
	case wsPing:
		c.sendFrame(wsPong, payload)
	case wsClose:
		code, _, err := parseWSClose(payload)
		if err != nil {
			return err
		}
		lost := code != wsCloseNormal // a page that is left, say
		if code == wsCloseNoStatus {
			code = wsCloseNormal
		}
		c.endWith(io.EOF, endFlush, nil, code, lost)
	}
	return nil
}

// linger waits until the last packet was written, and then until the client has
// closed its side too, for lingerTime at most. It returns why nothing can be read
// any more.
func (c *conn) linger() error {
	if c.in != nil {
		c.in.free()
		c.in = nil
	}
	c.need = 0
	c.hold(true) // life signs are not looked at any more
	c.mu.Lock()
	drained := c.drained
	c.mu.Unlock()
	if drained {
		// Again, because an ack at that moment took the deadline off.
		c.rwc.SetReadDeadline(time.Now().Add(lingerTime))
	}
	r := c.newReader()
	for {
		_, err := r.read()
		if err == io.EOF {
			// Perhaps the client closed its sending half only.
			c.awaitDrained()
		}
		if err != nil {
			return err
		}
		if c.in != nil {
			c.in.free()
			c.in = nil
		}
	}
}

// closeSocket closes the lowest connection that this process owns. The layers
// above it are passed by: a TLS connection would try to say goodbye, which can
// block on a client that takes nothing.
func (c *conn) closeSocket() {
	c.closeOnce.Do(func() {
		low := c.rwc
		for {
			below, ok := low.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			low = below.NetConn()
		}
		low.Close()
	})
}

// bareConn takes off the wrappers of this package that have nothing left to do
// once the transport's handshake is done.
func bareConn(nc net.Conn) net.Conn {
	if p, ok := nc.(*proxyConn); ok {
		return p.NetConn()
	}
	return nc
}

// A connReader brings bytes into c.in. Its read borrows a buffer when there is
// something to read, puts the bytes behind those of c.in.B, within its
// capacity, and returns their number. readNow does that with what has arrived,
// whatever the deadline; 0 means nothing or an error, and that read is next.
type connReader interface {
	read() (int, error)
	readNow() int
}

func (c *conn) newReader() connReader {
	if c.raw != nil {
		return newRawReader(c)
	}
	return &plainReader{c: c}
}

// room makes sure that c.in has room for what is being read.
func (c *conn) room() []byte {
	switch {
	case c.in == nil:
		c.in = getBuffer(readBufferSize)
	case len(c.in.B) == cap(c.in.B):
		// By doubling, not by what the header announces: who announces a
		// megabyte must send half of it before it costs one.
		c.in = c.in.grow(min(c.need-len(c.in.B), len(c.in.B)))
	}
	return c.in.B[len(c.in.B):cap(c.in.B)]
}

// readBufferSize is what one read of a connection takes in at most, unless a
// larger packet is on its way.
const readBufferSize = 8 << 10

// plainReader reads where there is no raw connection, as under TLS. While the
// connection is idle it waits with a few bytes of its own, and borrows a
// buffer when they have been filled.
type plainReader struct {
	c     *conn
	small [48]byte
}

func (r *plainReader) read() (int, error) {
	c := r.c
	if c.in != nil {
		// Part of a packet is here, so the rest of it is on its way.
		b := c.room()
		return c.body.Read(b)
	}
	n, err := c.body.Read(r.small[:])
	if n == 0 {
		return 0, err
	}
	copy(c.room(), r.small[:n])
	return n, err
}

func (r *plainReader) readNow() int {
	m, ok := r.c.body.(*memConn)
	if !ok {
		return 0
	}
	n := m.readNow(r.small[:])
	if n > 0 {
		copy(r.c.room(), r.small[:n])
	}
	return n
}

// The protocol's violations that concern the order of packets.
var (
	errEarlyData = fmt.Errorf("%w: data before the handshake was acknowledged", ErrProtocol)
	errEarlyAck  = fmt.Errorf("%w: ack without a handshake", ErrProtocol)
)

// ErrTruncated is the cause when a client closes its connection in the middle
// of a packet. It wraps [ErrProtocol].
var ErrTruncated = fmt.Errorf("%w: connection closed within a packet", ErrProtocol)
