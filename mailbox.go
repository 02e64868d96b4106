package pitaya

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// mailbox holds the messages of one session until its worker handles them, one
// at a time and in order. It costs no goroutine while idle: the message that
// finds no worker starts one, which drains the mailbox and ends. The messages
// are kept as the packets they came in, one behind the other.
type mailbox struct {
	mu       sync.Mutex    // guards the fields below
	pending  *buffer       // packets that wait; nil when there are none
	arrivals *arrivals     // when they came; nil when there are none, or nobody wants to know
	count    int           // their number
	running  bool          // there is a worker
	settled  bool          // all that was taken in is handled, and answered
	last     bool          // nothing is taken in any more; the worker ends the connection when all is handled
	ending   bool          // last, and all is handled or being handled beside the mailbox
	closed   bool          // nothing is taken in any more, and what waits is dropped
	finished bool          // the close callbacks ran
	space    chan struct{} // closed when there is room again; nil if the reader does not wait

	settling atomic.Bool // the reader wants to know when all is handled
}

// mailboxBytes bounds the packets in a mailbox. One packet that is larger
// passes when nothing else waits.
const mailboxBytes = 64 << 10

// arrivals tells when packets came: those before each End, counted in bytes from
// the front of the mailbox. They are pooled.
type arrivals struct {
	list []arrival
	next int // of those that the worker has not come to yet
}

type arrival struct {
	End int
	At  time.Time
}

var arrivalPool = sync.Pool{New: func() any { return new(arrivals) }}

// of returns when the packet that begins at offset came; offsets grow from call
// to call.
func (a *arrivals) of(offset int) time.Time {
	for a.next < len(a.list)-1 && a.list[a.next].End <= offset {
		a.next++
	}
	return a.list[a.next].At
}

func (a *arrivals) free() {
	a.list, a.next = a.list[:0], 0
	arrivalPool.Put(a)
}

// stampLocked notes that what was added last came at a time.
func (m *mailbox) stampLocked(at time.Time) {
	if m.arrivals == nil {
		m.arrivals = arrivalPool.Get().(*arrivals)
	}
	m.arrivals.list = append(m.arrivals.list, arrival{len(m.pending.B), at})
}

// addLocked takes in packets from the front of b while there is room, and
// returns the rest.
func (m *mailbox) addLocked(b []byte, maxMessages int) []byte {
	have := 0
	if m.pending != nil {
		have = len(m.pending.B)
	}
	n := 0
	for n < len(b) && m.count < maxMessages {
		_, size, _ := DecodePacketHeader(b[n:]) // checked by the connection
		size += PacketHeaderSize
		if have+n > 0 && have+n+size > mailboxBytes {
			break
		}
		n += size
		m.count++
	}
	if n == 0 {
		return b
	}
	if m.pending == nil {
		m.pending = getBuffer(n)
	} else {
		m.pending = m.pending.grow(n)
	}
	m.pending.B = append(m.pending.B, b[:n]...)
	return b[n:]
}

// takeLocked empties the mailbox. arrived is nil if nobody wants to know.
func (m *mailbox) takeLocked() (b *buffer, arrived *arrivals) {
	b, arrived = m.pending, m.arrivals
	m.pending, m.arrivals, m.count = nil, nil, 0
	if m.space != nil {
		close(m.space)
		m.space = nil
	}
	return b, arrived
}

// load returns how many messages wait, and whether one is being handled.
func (m *mailbox) load() (waiting int, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count, m.running
}

// data implements connUser: it files the messages, and waits while the mailbox
// is full, which stops the reading of this connection.
func (s *Session) data(packets []byte) {
	m := &s.box
	var now time.Time
	timed := s.host.Meters != nil || s.host.Inspect != nil
	if timed {
		now = time.Now()
	}
	for {
		m.mu.Lock()
		if m.closed || m.last || m.ending {
			m.mu.Unlock()
			return
		}
		left := m.addLocked(packets, s.host.MailboxMessages)
		if len(left) < len(packets) && timed {
			m.stampLocked(now)
		}
		packets = left
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
			go s.work()
		}
		if space == nil {
			return
		}
		s.conn.hold(true)
		<-space
		s.conn.hold(false)
	}
}

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
			go s.work()
		}
	}()
	for turns := 0; ; turns++ {
		m.mu.Lock()
		b, arrived := m.takeLocked()
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
				s.conn.end(ErrServerClosed, endFlush, nil) // sets closed
			case m.settling.Load() && s.noneBeside():
				m.settling.Store(false)
				m.settled = true
				m.mu.Unlock()
				s.conn.wake()
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
		s.turn(b.B, arrived)
		b.free()
		if arrived != nil {
			arrived.free()
		}
		s.conn.flush()
	}
}

// turn handles whole packets in order. Answers are queued and written together
// when the turn is over; if there is more to handle before that, a goroutine
// writes what is queued meanwhile, so that a slow handler does not keep the
// answers before it.
func (s *Session) turn(b []byte, arrived *arrivals) {
	var came time.Time
	if arrived != nil && s.host.Meters != nil {
		s.host.Meters.mailboxTime(time.Since(arrived.of(0)))
	}
	size := len(b)
	for len(b) > 0 {
		if arrived != nil {
			came = arrived.of(size - len(b))
		}
		_, n, _ := DecodePacketHeader(b)
		body := b[PacketHeaderSize : PacketHeaderSize+n]
		b = b[PacketHeaderSize+n:]
		if s.conn.hasEnded() {
			return
		}
		if err := s.host.Messages.message(s, body, came); err != nil {
			s.conn.end(err, endFlush, nil)
			return
		}
		if len(b) > 0 {
			s.conn.start()
		}
		s.conn.waitRoom()
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
	if !s.conn.stopReading(ask) {
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
		go s.work()
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
		go s.work()
	}
}

// closed implements connUser: the connection has ended. From here on the
// session is not found any more and its context is over. Its callbacks run
// behind the handler that may be at work, never beside it.
func (s *Session) closed(cause error) {
	s.mu.Lock()
	s.over = true
	uid := s.uid
	s.mu.Unlock()
	// Whoever sees the context end finds the rest done.
	s.host.Table.remove(s, uid)
	switch {
	case errors.Is(cause, ErrProtocol):
		s.host.Counters.Violations.Add(1)
	case errors.Is(cause, ErrSlowClient):
		s.host.Counters.SlowClients.Add(1)
	case errors.Is(cause, ErrHandshakeTimeout):
		s.host.Counters.LateHandshakes.Add(1)
	}
	if s.notes != nil {
		s.host.Inspect.sessionEnded(cause)
	}
	s.cancel(cause)
	s.host.Log.Debug("session ended", "session", s, "cause", cause)

	m := &s.box
	m.mu.Lock()
	m.closed = true
	b, arrived := m.takeLocked()
	if b != nil {
		b.free()
	}
	if arrived != nil {
		arrived.free()
	}
	start := !m.running
	m.running = true
	m.mu.Unlock()
	if start {
		go s.work()
	}
}
