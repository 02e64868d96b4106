package pitaya

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// Session resume, the session's side: a session whose client has asked for it
// outlives its connection, and goes on with another one that presents its token.
// Who may do that, and which sessions wait, is in session_waiting.go; what was
// pushed meanwhile in conn_ring.go.

// A resumption is what a session has that can be resumed, or that is about to be
// another one's next connection.
type resumption struct {
	// Immutable.
	session *Session
	claim   *resumeClaim // the connection is wanted for another session; nil: the session can be resumed itself

	// Guarded by resumes.mu.
	current string               // token
	offered string               // the one offered last to a connection that was not acknowledged yet; "" if there is none
	claims  map[*resumption]bool // sessions whose connections were offered one; false: their client has given them up
	over    bool                 // the session has ended, or is about to
	cause   error                // why, if that is not the end of its connection; or why it waits
	waiting *waitingList         // it has no connection, and is in this list of those; nil else
	due     int64                // when that is over, as time since resumes.epoch
	next    *resumption          // in that list
	prev    *resumption          // likewise

	mu      sync.Mutex    // guards the fields below; taken last
	notices []bool        // to be given to the application: true for resumed, false for detached
	giving  bool          // a goroutine gives them
	given   chan struct{} // closed when there are none; nil if nobody waits
}

// A resumeClaim says what the connection of a session is to become.
type resumeClaim struct {
	of       *resumption
	token    string // offered
	received int64
}

// resumption returns nil for a session that cannot be resumed.
func (s *Session) resumption() *resumption {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume
}

func (s *Session) setResumption(r *resumption) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resume = r
}

// abilities returns what decides how pushes are encoded.
func (s *Session) abilities() (inflates, codes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inflates, s.pushCodes
}

// Connected reports whether the session's client is connected. It is not while a
// session waits for its client to come back, and after the session's end. A
// session on a backend knows no better than that its client is.
func (s *Session) Connected() bool {
	c := s.conn.Load()
	return c == nil || !c.hasEnded()
}

// ends reports whether the session is over, or will be in a moment: its
// connection has ended and it waits for no other.
func (s *Session) ends() bool {
	c := s.conn.Load()
	if !c.hasEnded() {
		return false
	}
	_, waits := c.lossCause()
	return !waits && s.conn.Load() == c
}

// end ends the session, with its connection or without one. It reports whether
// that was the first call. What is said of mode and last at conn.end applies.
func (s *Session) end(cause error, mode endMode, last []byte) (first bool) {
	first, _ = s.endWith(cause, mode, last)
	return first
}

// endWith is end, and reports whether there was a connection that takes the last
// packet. There is none while the session waits for its client.
func (s *Session) endWith(cause error, mode endMode, last []byte) (first, taken bool) {
	for {
		c := s.conn.Load()
		if c.end(cause, mode, last) {
			return true, true
		}
		own := s.resumption()
		if own == nil {
			return false, false
		}
		if first, again := s.host.Resumes.endWaiting(own, c, cause); !again {
			return first, false
		}
	}
}

// sendShared queues a push as a frame, for the client that is there or the one
// that comes back.
func (s *Session) sendShared(f *sharedFrame) error {
	for {
		c := s.conn.Load()
		err := c.sendShared(f)
		switch {
		case err == errMoved && s.conn.Load() != c:
			continue
		case err == errMoved:
			return ErrSessionClosed // this one was the other's next connection
		case err != errRingFull:
			return err
		case s.host.Conn.DropWhenSlow:
			s.host.Counters.PushesDropped.Add(1)
			return ErrSlowClient
		}
		cause, _ := c.lossCause()
		if first, again := s.host.Resumes.endWaiting(s.resumption(), c, fmt.Errorf("%w: %w", errRingFull, cause)); !again {
			if first {
				s.host.Log.Warn("session ended, because more was pushed than is kept for a client that is away", "session", s)
			}
			return ErrSessionClosed
		}
	}
}

// keepPush is push for a session that can be resumed. The message is encoded by
// itself: it may have to be sent again.
func (s *Session) keepPush(m Message, dict *Dictionary) error {
	f, err := newSharedFrame(m, dict)
	if err != nil {
		return err
	}
	return s.sendShared(f)
}

// agreeResume makes the answer to a handshake that asks for resume, and what
// keeps the session's pushes if it is a new one.
func (s *Session) agreeResume(c *conn, ask *resumeRequest) ([]byte, *pushRing, error) {
	agreed, ring := s.host.Resumes.agree(s, ask)
	if c.hasEnded() {
		// While a validator thought about it: what told the session of the end
		// may have found nothing to take back.
		s.forgoResume()
		return nil, nil, errConnEnded
	}
	inflates, _ := s.abilities()
	answer, err := s.host.acceptResume(&agreed, inflates)
	if err != nil {
		return nil, nil, err
	}
	s.host.Log.Debug("resume agreed", "session", s, "resumed", agreed.Resumed, "reason", agreed.Reason)
	return answer, ring, nil
}

// acceptResume returns the packet that accepts a handshake with the terms of
// resume in it.
func (h *sessionHost) acceptResume(agreed *HandshakeResume, inflates bool) ([]byte, error) {
	terms, err := json.Marshal(agreed)
	if err != nil {
		return nil, fmt.Errorf("pitaya: handshake answer: %w", err)
	}
	body := make([]byte, 0, len(h.AcceptBody)+len(`,"resume":}}`)+len(terms))
	body = append(append(append(append(body, h.AcceptBody...), `,"resume":`...), terms...), "}}"...)
	if inflates {
		if small, ok := deflate(nil, body); ok {
			body = small
		}
	}
	return AppendPacket(nil, PacketHandshake, body)
}

// forgoResume is for a client that begins anew on the same connection: what it
// was told of its session before is not true any more.
func (s *Session) forgoResume() {
	own := s.resumption()
	if own == nil {
		return
	}
	s.setResumption(nil)
	s.host.Resumes.forget(own)
}

// acknowledged implements connUser.
func (s *Session) acknowledged(c *conn) error {
	own := s.resumption()
	if own == nil || own.claim == nil {
		return nil
	}
	return s.host.Resumes.attach(own, c)
}

// errResumed is why a connection ends whose session has another one, and why a
// session does that was to begin on that.
var errResumed = errors.New("pitaya: the session goes on with another connection")

// giveUp makes the session end without a word, because its connection is that of
// another session from now on. It fails if somebody has done something with it.
func (s *Session) giveUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.binding || s.uid != "" {
		return false
	}
	s.over = true
	return true
}

// absorbed is what is left to do after giveUp.
func (s *Session) absorbed() {
	s.host.Table.remove(s, "")
	s.begun().end(errResumed)
	m := &s.box
	m.mu.Lock()
	m.closed, m.finished = true, true
	m.mu.Unlock()
	s.host.Alive.Done()
	s.host.Count()
}

// adopt takes over what a client says of itself on its new connection.
func (s *Session) adopt(from *Session) {
	from.mu.Lock()
	h, drains := from.handshaken, from.drains
	from.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshaken, s.drains = h, drains
}

// notice tells the application, in a goroutine of the session's own, that the
// session was resumed or has lost its connection. Callers hold resumes.mu, so
// that the order is that of what happened.
func (own *resumption) notice(resumed bool) {
	host := own.session.host
	if len(host.OnDetach)+len(host.OnResume) == 0 {
		return
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.notices = append(own.notices, resumed)
	if !own.giving {
		own.giving = true
		host.Alive.Go(own.give) // the session, which is not over, is counted too
	}
}

// give gives the notices.
func (own *resumption) give() {
	done := false
	s := own.session
	defer func() {
		if !done {
			s.host.Alive.Go(own.give) // a callback ended its goroutine
		}
	}()
	for {
		own.mu.Lock()
		if len(own.notices) == 0 {
			own.giving, own.notices = false, nil
			if own.given != nil {
				close(own.given)
				own.given = nil
			}
			own.mu.Unlock()
			done = true
			return
		}
		resumed := own.notices[0]
		own.notices = own.notices[1:]
		own.mu.Unlock()
		what, callbacks := "detach callback", s.host.OnDetach
		if resumed {
			what, callbacks = "resume callback", s.host.OnResume
		}
		for _, f := range callbacks {
			s.host.guard(what, func() error { f(s); return nil })
		}
	}
}

// awaitNotices waits until the application has been told of all that happened
// before the session's end.
func (own *resumption) awaitNotices() {
	own.mu.Lock()
	if !own.giving {
		own.mu.Unlock()
		return
	}
	if own.given == nil {
		own.given = make(chan struct{})
	}
	given := own.given
	own.mu.Unlock()
	<-given
}
