package load

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A client is one connection of the lean kind: one goroutine that reads, takes in all packets that have come, and sends
// all that they give rise to by one write. Where the load is open, another one writes.
//
// Reading has a deadline at which the client looks after itself: it sends heartbeats, gives up requests that have waited
// too long, and sees what the run wants of it. So a connection that works costs no timers, and one that rests has one.
type client struct {
	// Immutable.
	run    *run
	id     int
	conn   net.Conn
	srv    *server
	shard  *shard
	wake   chan struct{} // open load: there is something to write, and it may take waiting; has room for one
	gone   chan struct{} // closed when the connection has ended
	direct *directWriter // open load: for the schedule; nil if all writing may take waiting; used by who has set writing
	tmpl   *template     // set by the scenario
	sync   *template     // likewise

	bytesOut atomic.Int64

	// Owned by the goroutine that reads.
	in      []byte
	r, w    int            // in[r:w] is not decoded yet
	heard   int64          // when bytes last came in
	began   bool           // the scenario has started on it
	drained bool           // the server has announced its end
	refused bool           // the last answer had the error flag
	msg     pitaya.Message // the one that is taken in

	// mu guards all that follows; it is never held across I/O. Who holds it may not take the lock of a shard, but the
	// other way round.
	mu      sync.Mutex
	pend    pending
	out     []byte // whole packets
	spare   []byte // the buffer before, for reuse
	writing bool   // somebody writes, and will take along what is appended to out
	wrote   int64  // when bytes were last sent
	parting bool   // nothing more is sent
	broken  error  // a write has failed

	// The scenario's.
	batch     int  // notifies that wait for the answer behind them
	confirmed bool // that was the last one
	due       int  // pushes of this round that are yet to come; guarded by the lock of the broadcast
	member    bool // takes part in rounds; likewise
}

// The errors that end a connection beside those of the network.
var (
	errHeard   = errors.New("nothing was heard for three heartbeat intervals")
	errParting = errors.New("the server ends")
)

const (
	readBuffer    = 2 << 10
	maxReadBuffer = 64 << 10 // no more is read at once; longer packets have longer buffers
)

func isShort(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

// connect opens the connection and does the handshake.
func (r *run) connect(ctx context.Context, id int) (c *client, kind string, err error) {
	conn, err := r.dialer.dial(ctx)
	if err != nil {
		return nil, errConnect, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	srv, in, n, err := shake(conn, r.hello, &r.servers, r.cfg.Timeout, make([]byte, readBuffer))
	if err != nil {
		conn.Close()
		return nil, errHandshake, err
	}
	now := r.now()
	c = &client{run: r, id: id, conn: conn, srv: srv, shard: r.rec.shards[id%len(r.rec.shards)], in: in, w: n, heard: now, wrote: now}
	c.pend.limit = maxPending(max(r.cfg.InFlight*2, r.cfg.MaxPending))
	c.gone = make(chan struct{})
	if r.cfg.Rate > 0 {
		c.wake, c.direct = make(chan struct{}, 1), newDirectWriter(conn)
	}
	c.shard.mu.Lock()
	c.shard.counts.Connections++
	c.shard.mu.Unlock()
	return c, "", nil
}

// serve reads until the run needs the connection no more, which is no error, or it has ended.
func (c *client) serve() error {
	now := c.run.now()
	if done, err := c.tick(now, true); done || err != nil {
		return err
	}
	for {
		now, err := c.fill()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				done, err := c.tick(c.run.now(), true)
				if done || err != nil {
					return err
				}
				continue
			}
			if c.drained {
				return errParting
			}
			return err
		}
		if err := c.take(now); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		if c.run.stopped(now) || c.drained {
			if done, err := c.tick(now, false); done || err != nil {
				return err
			}
		}
	}
}

// fill waits for bytes and returns when they came.
func (c *client) fill() (now int64, err error) {
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.in) && c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := c.conn.Read(c.in[c.w:])
	c.w += n
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return 0, err
	}
	if c.w == len(c.in) && len(c.in) < maxReadBuffer {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	now = c.run.now()
	c.heard = now
	return now, nil
}

// take takes in all whole packets.
func (c *client) take(now int64) error {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	begin := c.r
	defer func() { c.shard.counts.BytesReceived += int64(c.r - begin) }()
	for {
		p, rest, err := pitaya.DecodePacket(c.in[c.r:c.w], 0)
		if err != nil {
			if isShort(err) {
				break
			}
			return err
		}
		c.r = c.w - len(rest)
		switch p.Type {
		case pitaya.PacketData:
			if err := c.message(now, p.Body); err != nil {
				return err
			}
		case pitaya.PacketHeartbeat:
		case pitaya.PacketKick:
			return &kickedError{kickReason(p.Body)}
		case pitaya.PacketHandshakeAck:
			// The server ends. It answers what it has got, and waits for an ack behind which nothing follows.
			if !c.drained {
				c.drained, c.parting = true, true
				c.out = append(c.out, ackPacket[:]...)
			}
		default:
			return &protocolError{p.Type.String() + " packet in the middle of a connection"}
		}
	}
	if c.began {
		c.run.load.more(c, now)
	}
	return nil
}

// A protocolError is what the server must not do.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return e.text }
func (e *protocolError) Unwrap() error { return pitaya.ErrProtocol }

// message takes in one message.
func (c *client) message(now int64, body []byte) error {
	decoded, err := pitaya.DecodeMessage(body, c.srv.dict)
	if err != nil {
		return err
	}
	c.msg = decoded // what is handed to an interface would be allocated each time
	m, s := &c.msg, c.shard
	switch m.Type {
	case pitaya.MessageResponse:
		at, ok := c.pend.take(m.ID)
		if c.refused = m.Err; m.Err {
			s.counts.Failed++
			if m.Inflate(0) != nil {
				m.Payload = nil
			}
			s.fail(errAnswer, c.srv.errorCode(m.Payload), 1)
		} else {
			s.counts.Answered++
		}
		if !ok {
			if m.ID == 0 || m.ID >= c.pend.next {
				return &protocolError{"an answer to a request that was not made"}
			}
			s.counts.Late++
			return nil
		}
		c.run.load.answered(c, now, at, m)
	case pitaya.MessagePush:
		s.counts.Pushes++
		c.run.load.pushed(c, now, m)
	default:
		return &protocolError{m.Type.String() + " from the server"}
	}
	return nil
}

// request appends a request that was to be sent at a time. It reports whether there was room. The caller holds mu.
func (c *client) request(t *template, at int64) bool {
	id, ok := c.pend.add(at)
	if ok {
		c.out = t.append(c.out, id)
	}
	return ok
}

// flush writes what is to be written, unless somebody else is at it.
func (c *client) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		return nil
	}
	for len(c.out) > 0 && c.broken == nil {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.writing = true
		c.mu.Unlock()
		n, err := c.conn.Write(b)
		c.bytesOut.Add(int64(n))
		now := c.run.now()
		c.mu.Lock()
		c.writing = false
		c.wrote = now
		if c.spare = b; cap(b) > maxReadBuffer {
			c.spare = nil
		}
		if err != nil {
			c.broken = err
		}
	}
	return c.broken
}

// writeNow is flush for somebody who has no time. It reports whether nothing is left to be written by those who have.
func (c *client) writeNow(now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && !c.writing {
		if c.direct == nil || c.broken != nil {
			return false
		}
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.writing = true
		c.mu.Unlock()
		n := c.direct.write(b)
		c.bytesOut.Add(int64(n))
		c.mu.Lock()
		c.writing = false
		if n > 0 {
			c.wrote = now
		}
		if n < len(b) {
			c.out = append(b[n:], c.out...)
			return false
		}
		if cap(b) <= maxReadBuffer {
			c.spare = b
		}
	}
	return true
}

// tick is what a client does at its deadlines, and once at the beginning and when the run comes to its end. It reports
// whether the client is done.
func (c *client) tick(now int64, deadlines bool) (done bool, err error) {
	c.shard.mu.Lock()
	c.mu.Lock()
	c.pend.expire(now-int64(c.run.cfg.Timeout), func(at int64) {
		c.shard.fail(errTimeout, "", 1)
		if c.run.rec.measured(at) {
			c.shard.failed++
		}
	})
	hb, next := int64(c.srv.heartbeat), now+int64(c.run.cfg.Timeout)
	if c.pend.open > 0 || c.wake != nil {
		next = now + int64(c.run.cfg.Timeout)/4
	}
	silent := false
	if hb > 0 {
		if now-c.wrote >= hb && len(c.out) == 0 && !c.writing && !c.parting {
			c.out = append(c.out, heartbeatPacket[:]...)
			c.shard.counts.Heartbeats++
			c.wrote = now // or it would be sent again before it is written
		}
		next = min(next, c.wrote+hb, c.heard+3*hb)
		silent = now-c.heard >= 3*hb
	}
	writing := c.writing
	c.mu.Unlock()
	c.shard.mu.Unlock()
	if silent {
		return false, errHeard
	}
	if deadlines {
		// Before the run is looked at: what it wants later, it says by a deadline that this one does not overwrite.
		if err := c.conn.SetReadDeadline(c.run.at(max(next, now+int64(time.Millisecond)))); err != nil {
			return false, err
		}
		if !writing { // one that is stuck has its deadline
			if err := c.conn.SetWriteDeadline(c.run.at(next + int64(c.run.cfg.Timeout))); err != nil {
				return false, err
			}
		}
	}

	c.shard.mu.Lock()
	c.mu.Lock()
	if !c.began && c.run.started.Load() {
		c.began = true
		now = c.run.now() // the one of before may be earlier than what is measured
	}
	if c.began {
		c.run.load.more(c, now)
	}
	over := c.run.stopped(now) && !c.run.hold.Load() && !c.run.pacing.Load()
	if over && c.pend.open == 0 && len(c.out) == 0 && !c.writing {
		done = c.run.load.done(c)
		c.parting = c.parting || done
	}
	c.mu.Unlock()
	c.shard.mu.Unlock()
	if err := c.flush(); err != nil {
		return false, err
	}
	return done, nil
}

// write is the goroutine that writes where the load is open.
func (c *client) write() {
	for {
		select {
		case <-c.wake:
			if c.flush() != nil {
				c.conn.Close() // the reader finds out
				return
			}
			if c.run.stopped(c.run.now()) {
				c.wakeUp() // the reader may have waited for this to be written
			}
		case <-c.gone:
			return
		}
	}
}

// wakeUp makes the reader look after itself.
func (c *client) wakeUp() {
	c.conn.SetReadDeadline(time.Unix(1, 0)) // an error means that the connection has ended
}

// end closes the connection and counts what is lost with it.
func (c *client) end(err error) {
	c.conn.Close()
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil && !c.drained {
		err = c.broken
	}
	if c.run.forced.Load() {
		err = nil // we did it
	}
	c.parting = true
	c.shard.counts.BytesSent += c.bytesOut.Load()
	if err != nil {
		kind, code := endKind(err)
		c.shard.fail(kind, code, 1)
	}
	kind := errLost
	if c.run.rec.end.Load() <= c.run.now() && err == nil {
		kind = errTimeout // the run has waited for them for long enough
	}
	lost := int64(c.pend.open)
	c.pend.expire(far, func(at int64) {
		if c.run.rec.measured(at) {
			c.shard.failed++
		}
	})
	c.shard.fail(kind, "", lost)
}

// endKind says what an error that has ended a connection is reported as.
func endKind(err error) (kind, code string) {
	var netErr net.Error
	if k, ok := errors.AsType[*kickedError](err); ok {
		return errKicked, k.Reason
	}
	switch {
	case errors.Is(err, errParting):
		return errDrained, ""
	case errors.Is(err, errHeard):
		return errSilent, ""
	case errors.Is(err, pitaya.ErrProtocol), errors.Is(err, pitaya.ErrPacketType), errors.Is(err, pitaya.ErrInvalidMessage):
		return errProtocol, err.Error()
	case errors.As(err, &netErr) && netErr.Timeout():
		return errSlow, ""
	}
	return errDisconnect, cause(err)
}

// cause is the text of an error without addresses, which differ for each connection.
func cause(err error) string {
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return no.Error()
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.Err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "timeout"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}
