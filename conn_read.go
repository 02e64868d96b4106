// Reading: bytes become packets, and packets are passed to the user in order.

package pitaya

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

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
