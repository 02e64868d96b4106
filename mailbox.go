package pitaya

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// mailbox holds the messages of one session until its worker handles them, one
// at a time and in order. It costs no goroutine while idle: the message that
// finds no worker starts one, which drains the mailbox and ends. The messages
// are kept as the packets they came in, one behind the other, with the verdict
// of the limits in place of the type (verdictOf). Where somebody wants to know,
// a stamp before those of one read says when that was.
type mailbox struct {
	mu       sync.Mutex    // guards the fields below
	pending  *buffer       // packets that wait; nil when there are none
	owner    *conn         // that they came by, all of them, and those that were taken out last
	count    int32         // their number
	running  bool          // there is a worker
	settled  bool          // all that was taken in is handled, and answered
	last     bool          // nothing is taken in any more; the worker ends the connection when all is handled
	ending   bool          // last, and all is handled or being handled beside the mailbox
	closed   bool          // nothing is taken in any more, and what waits is dropped
	finished bool          // the close callbacks ran
	settling atomic.Bool   // the reader wants to know when all is handled; not guarded by mu
	space    chan struct{} // closed when there is room again; nil if no reader waits
}

// mailboxBytes bounds the packets in a mailbox. One packet that is larger
// passes when nothing else waits.
const mailboxBytes = 64 << 10

// A mail is one message out of the mailbox.
type mail struct {
	Body    []byte    // of the data packet; valid while the message is handled
	Arrived time.Time // when it was read from the connection; zero if nobody wants to know
	Refused refusal   // the limit that it exceeds
	Conn    *conn     // that it came by, and its answer goes to
}

// A stamp stands in the mailbox before the packets of one read: its mark, which
// is no packet's type, and the time since the host's epoch.
const (
	stampMark = 0
	stampSize = 1 + 8
)

// stampOf returns the time of the stamp that b begins with.
func stampOf(b []byte) time.Duration { return time.Duration(binary.BigEndian.Uint64(b[1:])) }

// addLocked takes in packets from the front of b while there is room, and
// returns the rest. A time that is not negative is put before them.
func (m *mailbox) addLocked(b []byte, maxMessages int, at time.Duration) []byte {
	have := 0
	if m.pending != nil {
		have = len(m.pending.B)
	}
	n := 0
	for n < len(b) && int(m.count) < maxMessages {
		size := PacketHeaderSize + packetLength(b[n:])
		if have+n > 0 && have+n+size > mailboxBytes {
			break
		}
		n += size
		m.count++
	}
	if n == 0 {
		return b
	}
	need := n
	if at >= 0 {
		need += stampSize
	}
	if m.pending == nil {
		m.pending = getBuffer(need)
	} else {
		m.pending = m.pending.grow(need)
	}
	if at >= 0 {
		m.pending.B = binary.BigEndian.AppendUint64(append(m.pending.B, stampMark), uint64(at))
	}
	m.pending.B = append(m.pending.B, b[:n]...)
	return b[n:]
}

// takeLocked empties the mailbox.
func (m *mailbox) takeLocked() *buffer {
	b := m.pending
	m.pending, m.count = nil, 0
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
	return b
}

// load returns how many messages wait, and whether one is being handled.
func (m *mailbox) load() (waiting int, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.count), m.running
}

// data implements connUser: it files the messages, and waits while the mailbox
// is full, which stops the reading of this connection. It is full too for a new
// connection of the session as long as it has messages of the one before.
func (s *Session) data(c *conn, packets []byte) {
	at := time.Duration(-1)
	if s.host.Stamps {
		at = time.Since(s.host.Epoch)
	}
	if c.Limits != nil {
		if packets = c.Limits.judge(packets, at); len(packets) == 0 {
			return
		}
	}
	m := &s.box
	for {
		m.mu.Lock()
		if m.closed || m.last || m.ending || s.conn.Load() != c {
			m.mu.Unlock()
			return
		}
		if m.count == 0 || m.owner == c {
			m.owner = c
			packets = m.addLocked(packets, s.host.MailboxMessages, at)
		}
		m.settled = false
		start := !m.running
		m.running = true
		var space chan struct{}
		if len(packets) > 0 {
			if m.space == nil {
				m.space = make(chan struct{})
			}
			space = m.space
		}
		m.mu.Unlock()
		if start {
			s.start()
		}
		if space == nil {
			return
		}
		c.hold(true)
		<-space
		c.hold(false)
	}
}

// hasRoom implements connUser. Only the reader of c adds what takes up room.
func (s *Session) hasRoom(c *conn, packets, bytes int) bool {
	m := &s.box
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending == nil {
		return packets <= s.host.MailboxMessages && bytes <= mailboxBytes
	}
	return m.owner == c && int(m.count)+packets <= s.host.MailboxMessages && len(m.pending.B)+bytes <= mailboxBytes
}

// start lets a runner be the session's worker.
func (s *Session) start() { s.host.Runners.start(s.id, s) }

// work is the worker: it handles what is in the mailbox, at the very end the
// closing of the session, and ends.
func (s *Session) work() {
	m := &s.box
	done := false
	defer func() {
		if !done {
			// A handler or callback ended its goroutine, as
			// testing.T.FailNow does. The session has ended with it; its own
			// end is still to be handled.
			s.start()
		}
	}()
	for turns := 0; ; turns++ {
		m.mu.Lock()
		b, from := m.takeLocked(), m.owner
		if b == nil {
			switch {
			case m.closed && !m.finished:
				m.finished = true
				m.mu.Unlock()
				s.finish()
			case m.last:
				m.last, m.ending = false, true
				m.mu.Unlock()
				s.awaitBeside()
				s.end(ErrServerClosed, endFlush, nil) // sets closed
			case m.settling.Load() && s.noneBeside():
				m.settling.Store(false)
				m.settled = true
				m.mu.Unlock()
				s.conn.Load().wake()
			default:
				m.running = false
				m.mu.Unlock()
				done = true
				return
			}
			continue
		}
		m.mu.Unlock()
		if turns > 0 {
			// A flood from one client leaves the processor to the others.
			runtime.Gosched()
		}
		s.turn(b.B, from)
		b.free()
		from.flush()
	}
}

// turn handles whole packets in order, which came by c. Answers are queued and written together
// when the turn is over; if there is more to handle before that, a goroutine
// writes what is queued meanwhile, so that a slow handler does not keep the
// answers before it.
func (s *Session) turn(b []byte, c *conn) {
	m := mail{Conn: c}
	if b[0] == stampMark && s.host.Meters != nil {
		s.host.Meters.mailboxTime(time.Since(s.host.Epoch) - stampOf(b))
	}
	for len(b) > 0 {
		if b[0] == stampMark {
			m.Arrived = s.host.Epoch.Add(stampOf(b))
			b = b[stampSize:]
			continue
		}
		var abuse bool
		m.Refused, abuse = verdictOf(b[0])
		end := PacketHeaderSize + packetLength(b)
		m.Body, b = b[PacketHeaderSize:end], b[end:]
		if c.hasEnded() && s.ends() {
			return
		}
		if err := s.host.Messages.message(s, m); err != nil {
			s.end(err, endFlush, nil)
			return
		}
		if abuse {
			s.endAbuse()
			return
		}
		if len(b) > 0 {
			c.start()
		}
		c.waitRoom()
	}
}

// control implements connUser: it counts what is no message.
func (s *Session) control(c *conn) {
	if c.Limits != nil && c.Limits.control() {
		s.endAbuse()
	}
}

// endAbuse ends the session of a client that goes on sending more than it may.
func (s *Session) endAbuse() {
	if !s.end(ErrTooManyRequests, endFlush, kickPacket("too many requests")) {
		return
	}
	s.host.Counters.ClosedForAbuse.Add(1)
	if n, ok := s.host.abuse.pass(); ok {
		s.host.Log.Warn("client sends too much", "session", s, "addr", s.RemoteAddr(), "unlogged", n)
	}
}

// drain implements connUser: it lets the session handle what its client has sent, and then ends it. A
// client that can be asked sends no more from then on; of others, what arrives
// before all is answered is handled.
func (s *Session) drain() {
	s.mu.Lock()
	s.leaving = true
	ask := s.drains
	s.mu.Unlock()
	if !s.conn.Load().stopReading(ask) {
		s.received()
	}
}

// atRest implements connUser.
func (s *Session) atRest() bool {
	m := &s.box
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settling.Store(true) // first: a call that ends beside the mailbox at this moment is seen here, or sees this
	if !m.settled && (m.running || !s.noneBeside()) {
		return false
	}
	m.settling.Store(false)
	return true
}

// leaveBeside gives back the slot of a call that ran beside the mailbox. If the
// reader waits for the last of them, the worker looks whether this was it.
func (s *Session) leaveBeside(slots chan struct{}) {
	<-slots
	m := &s.box
	if !m.settling.Load() {
		return
	}
	m.mu.Lock()
	start := !m.running && !m.closed
	m.running = m.running || start
	m.mu.Unlock()
	if start {
		s.start()
	}
}

// received implements connUser: what waits is handled, and then the session
// ends.
func (s *Session) received() {
	m := &s.box
	m.mu.Lock()
	m.last = true
	start := !m.running
	m.running = true
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
	m.mu.Unlock()
	if start {
		s.start()
	}
}

// closed implements connUser: a connection has ended, and the session with it,
// unless it is one that can wait for another.
func (s *Session) closed(c *conn, cause error, lost bool) {
	if own := s.resumption(); own != nil {
		over := false
		if cause, over = s.host.Resumes.connEnded(own, c, cause, lost); !over {
			return
		}
	}
	if lost {
		c.forgetPushes()
	}
	s.countEnd(cause)
	s.ended(cause)
}

// countEnd counts why a connection has ended.
func (s *Session) countEnd(cause error) {
	switch {
	case errors.Is(cause, ErrProtocol):
		s.host.Counters.Violations.Add(1)
	case errors.Is(cause, ErrSlowClient):
		s.host.Counters.SlowClients.Add(1)
	case errors.Is(cause, ErrHandshakeTimeout):
		s.host.Counters.LateHandshakes.Add(1)
	}
}

// logEnd asks first whether that is logged: the goroutine that has read a connection has a small stack, which a record
// would make grow just before it ends.
func (s *Session) logEnd(cause error) {
	if log := s.host.Log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("session ended", "session", s, "cause", cause)
	}
}

// ended ends the session, whose connection has ended. From here on it is not
// found any more and its context is over. Its callbacks run behind the handler
// that may be at work, never beside it.
func (s *Session) ended(cause error) {
	s.mu.Lock()
	s.over = true
	uid := s.uid
	s.mu.Unlock()
	// Whoever sees the context end finds the rest done.
	s.host.Table.remove(s, uid)
	if s.notes != nil {
		s.host.Inspect.sessionEnded(cause)
	}
	s.begun().end(cause)
	s.logEnd(cause)

	m := &s.box
	m.mu.Lock()
	m.closed = true
	if b := m.takeLocked(); b != nil {
		b.free()
	}
	start := !m.running
	m.running = true
	m.mu.Unlock()
	if start {
		s.start()
	}
}
