package pitaya

import (
	"errors"
	"runtime"
	"sync"
)

// mailbox holds the messages of one session until its worker handles them, one
// at a time and in order. It costs no goroutine while idle: the message that
// finds no worker starts one, which drains the mailbox and ends. The messages
// are kept as the packets they came in, one behind the other.
type mailbox struct {
	mu       sync.Mutex    // guards the fields below
	pending  *buffer       // packets that wait; nil when there are none
	count    int           // their number
	running  bool          // there is a worker
	last     bool          // nothing is taken in any more; the worker ends the connection when all is handled
	ending   bool          // last, and all is handled or being handled beside the mailbox
	closed   bool          // nothing is taken in any more, and what waits is dropped
	finished bool          // the close callbacks ran
	space    chan struct{} // closed when there is room again; nil if the reader does not wait
}

// mailboxBytes bounds the packets in a mailbox. One packet that is larger
// passes when nothing else waits.
const mailboxBytes = 64 << 10

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

// data implements connUser: it files the messages, and waits while the mailbox
// is full, which stops the reading of this connection.
func (s *Session) data(packets []byte) {
	m := &s.box
	for {
		m.mu.Lock()
		if m.closed || m.last || m.ending {
			m.mu.Unlock()
			return
		}
		packets = m.addLocked(packets, s.host.MailboxMessages)
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
		b := m.takeLocked()
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
		s.turn(b.B)
		b.free()
		s.conn.flush()
	}
}

// turn handles whole packets in order. Answers are queued and written together
// when the turn is over; if there is more to handle before that, a goroutine
// writes what is queued meanwhile, so that a slow handler does not keep the
// answers before it.
func (s *Session) turn(b []byte) {
	for len(b) > 0 {
		_, n, _ := DecodePacketHeader(b)
		body := b[PacketHeaderSize : PacketHeaderSize+n]
		b = b[PacketHeaderSize+n:]
		if s.conn.hasEnded() {
			return
		}
		if err := s.host.Messages.message(s, body); err != nil {
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
// client that can be asked sends no more from then on; of others, what has
// arrived here is handled.
func (s *Session) drain() {
	s.mu.Lock()
	s.leaving = true
	ask := s.drains
	s.mu.Unlock()
	if !s.conn.stopReading(ask) {
		s.received()
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
	}
	if s.notes != nil {
		s.host.Inspect.sessionEnded(cause)
	}
	s.cancel(cause)
	s.host.Log.Debug("session ended", "session", s, "cause", cause)

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
		go s.work()
	}
}
