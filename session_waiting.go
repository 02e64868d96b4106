package pitaya

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// resumes knows the tokens of the sessions of one server that can be resumed, and
// those sessions that wait for their clients.
//
// All wait equally long, so a list, to whose end a session goes when it begins to
// wait, is sorted by when that is over: one timer serves all of them. Sessions
// without a user have a list of their own, because they are the first to go when
// there are too many: anybody can connect and vanish ten thousand times, and no
// player is to lose a session by that.
type resumes struct {
	resumesConfig
	epoch time.Time // immutable

	// mu guards the fields below and what resumption says. It is taken before the
	// locks of sessions and connections, never behind them, and not held across
	// callbacks or I/O. A session gets another connection with mu held only.
	mu        sync.Mutex
	byToken   map[string]*resumption
	anonymous waitingList // those that wait and had no user when they began to
	bound     waitingList // the others
	n         int         // how many wait
	timer     *time.Timer // set for when the first one's time is over; nil before the first session waits
	closed    bool        // nobody waits any more
}

// waitingList is a list of sessions that wait, linked by resumption.next and .prev.
type waitingList struct{ Head, Tail *resumption }

// resumesConfig says what the bounds are. Immutable.
type resumesConfig struct {
	Window      time.Duration // how long a session waits
	MaxPushes   int           // that are kept for one client
	MaxBytes    int           // likewise, in bytes
	MaxSessions int           // that wait
	Counters    *counters
	Log         *slog.Logger
}

// maxResumeWindow and maxResumeMessages bound what can be set.
const (
	maxResumeWindow   = 24 * time.Hour
	maxResumeMessages = 1 << 20
)

func newResumes(c resumesConfig) *resumes {
	return &resumes{resumesConfig: c, epoch: time.Now(), byToken: make(map[string]*resumption)}
}

// errTooManyWaiting is why a session ends that must wait no more because too many
// do.
var errTooManyWaiting = errors.New("pitaya: too many sessions wait for their clients")

// agree says what a client gets that asks for resume, in the handshake of s: the
// session that it had, if ask has its token, or s itself, whose pushes ring is
// to keep.
func (r *resumes) agree(s *Session, ask *resumeRequest) (agreed HandshakeResume, ring *pushRing) {
	agreed = HandshakeResume{Token: rand.Text(), Window: max(int(r.Window/time.Second), 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ask.Token != "" {
		if agreed.Reason = r.claimLocked(s, ask, agreed.Token); agreed.Reason == "" {
			agreed.Resumed = true
			return agreed, nil
		}
		r.Counters.resumeRefused(agreed.Reason)
	}
	own := &resumption{session: s, current: agreed.Token}
	r.byToken[own.current] = own
	s.setResumption(own)
	return agreed, newPushRing(r.MaxPushes, r.MaxBytes)
}

// claimLocked makes the connection of s one that the session with the token in
// ask may go on with, and offers a new token; or returns why not.
func (r *resumes) claimLocked(s *Session, ask *resumeRequest, token string) (reason string) {
	of := r.byToken[ask.Token]
	switch {
	case of == nil || ask.Received < 0:
		return resumeUnknown
	case r.closed:
		return resumeRefused
	}
	hadInflates, hadCodes := of.session.abilities()
	inflates, codes := s.abilities()
	switch {
	case hadInflates != inflates || hadCodes != codes:
		return resumeChanged
	case !of.session.conn.Load().covers(ask.Received):
		return resumeGap
	}
	if ask.Token == of.offered { // so the client has it
		delete(r.byToken, of.current)
		of.current = of.offered
		// It has also given up the connection that it got it on, whose
		// acknowledgement may still be on its way and must not win.
		for other := range of.claims {
			of.claims[other] = false
		}
	} else if of.offered != "" {
		delete(r.byToken, of.offered)
	}
	of.offered = token
	r.byToken[token] = of
	own := &resumption{session: s, claim: &resumeClaim{of: of, token: token, received: ask.Received}}
	if of.claims == nil {
		of.claims = make(map[*resumption]bool)
	}
	of.claims[own] = true
	s.setResumption(own)
	return ""
}

// attach gives the connection c of a session that was made for it to the session
// that it is wanted for. It is called by the goroutine that reads c.
func (r *resumes) attach(own *resumption, c *conn) error {
	of := own.claim.of
	s := of.session
	r.mu.Lock()
	wanted := of.claims[own]
	delete(of.claims, own)
	if !wanted || r.closed || of.over || !own.session.giveUp() {
		r.mu.Unlock()
		return errClaimLost
	}
	old := s.conn.Load()
	err := c.inherit(old, own.claim.received, s, func() {
		s.conn.Store(c)
		own.session.conn.Store(old)
	})
	if err != nil {
		r.mu.Unlock()
		return fmt.Errorf("%w: %w", errClaimLost, err)
	}
	if of.waiting != nil {
		r.unlinkLocked(of)
	} else {
		of.notice(false)
	}
	delete(r.byToken, of.current)
	delete(r.byToken, of.offered)
	of.current, of.offered, of.cause = own.claim.token, "", nil
	r.byToken[of.current] = of
	others := of.claims
	of.claims = nil
	s.adopt(own.session)
	of.notice(true)
	r.mu.Unlock()

	r.Counters.Resumed.Add(1)
	old.end(errResumed, endNow, nil)
	if old.Limits != nil {
		old.Limits.close()
	}
	own.session.absorbed()
	r.Log.Debug("session resumed", "session", s, "addr", s.RemoteAddr())
	for other := range others {
		other.session.end(errClaimLost, endNow, nil)
	}
	c.flush()
	return nil
}

// errClaimLost ends a connection whose client was told that it may have a session
// which it cannot have any more.
var errClaimLost = errors.New("pitaya: the session cannot be resumed any more")

// connEnded is called when the connection c of a session with a resumption has
// ended. It reports whether the session is over, and why: else it waits, or has
// another connection by now.
func (r *resumes) connEnded(own *resumption, c *conn, cause error, lost bool) (_ error, over bool) {
	s := own.session
	r.mu.Lock()
	switch {
	case s.conn.Load() != c:
		r.mu.Unlock()
		return nil, false
	case own.claim != nil:
		delete(own.claim.of.claims, own)
		r.mu.Unlock()
		return cause, true
	case own.over: // somebody has ended it in this moment, or it was forgone
		if own.cause != nil {
			cause = own.cause
		}
		r.mu.Unlock()
		return cause, true
	case r.closed && lost:
		cause, lost = ErrServerClosed, false
	}
	if !lost {
		r.overLocked(own, cause)
		r.mu.Unlock()
		return cause, true
	}
	own.cause = cause
	own.notice(false)
	surplus := r.waitLocked(own)
	r.mu.Unlock()
	if errors.Is(cause, ErrSlowClient) {
		r.Counters.SlowClients.Add(1)
	}
	if c.Limits != nil {
		c.Limits.close()
	}
	r.Log.Debug("session waits for its client", "session", s, "cause", cause)
	s.host.Count()
	if surplus != nil {
		surplus.finish()
	}
	return nil, false
}

// waitLocked puts a session to the end of its list. If there are too many it
// takes one out and returns it, for finish: it can be the same session.
func (r *resumes) waitLocked(own *resumption) (surplus *resumption) {
	own.waiting = &r.bound
	if own.session.UID() == "" {
		own.waiting = &r.anonymous
	}
	own.due = int64(time.Since(r.epoch) + r.Window)
	if own.prev = own.waiting.Tail; own.prev != nil {
		own.prev.next = own
	} else {
		own.waiting.Head = own
	}
	own.waiting.Tail = own
	r.n++
	if r.n > r.MaxSessions {
		surplus = cmp.Or(r.anonymous.Head, r.bound.Head)
		r.overLocked(surplus, fmt.Errorf("%w: %w", errTooManyWaiting, surplus.cause))
	}
	if r.n == 1 {
		r.armLocked()
	}
	return surplus
}

// firstLocked returns the session that has waited longest, nil if none waits.
func (r *resumes) firstLocked() *resumption {
	a, b := r.anonymous.Head, r.bound.Head
	if a == nil || b != nil && b.due < a.due {
		return b
	}
	return a
}

// overLocked makes a session one that cannot be resumed any more.
func (r *resumes) overLocked(own *resumption, cause error) {
	own.over, own.cause = true, cause
	delete(r.byToken, own.current)
	delete(r.byToken, own.offered)
	if own.waiting != nil {
		r.unlinkLocked(own)
	}
}

func (r *resumes) unlinkLocked(own *resumption) {
	if own.prev != nil {
		own.prev.next = own.next
	} else {
		own.waiting.Head = own.next
	}
	if own.next != nil {
		own.next.prev = own.prev
	} else {
		own.waiting.Tail = own.prev
	}
	own.prev, own.next, own.waiting = nil, nil, nil
	r.n--
}

// armLocked sets the timer for the session that has waited longest.
func (r *resumes) armLocked() {
	d := max(time.Duration(r.firstLocked().due)-time.Since(r.epoch), 0)
	if r.timer == nil {
		r.timer = time.AfterFunc(d, r.expire)
	} else {
		r.timer.Reset(d)
	}
}

// expire ends the sessions that have waited long enough. It runs in the timer's
// goroutine.
func (r *resumes) expire() {
	for {
		r.mu.Lock()
		own := r.firstLocked()
		if own == nil || r.closed {
			r.mu.Unlock()
			return
		}
		if own.due > int64(time.Since(r.epoch)) {
			r.armLocked()
			r.mu.Unlock()
			return
		}
		r.overLocked(own, own.cause)
		r.mu.Unlock()
		own.finish()
	}
}

// finish ends a session that has waited and is over.
func (own *resumption) finish() {
	s := own.session
	s.conn.Load().forgetPushes()
	s.ended(own.cause) // not changed any more
	s.host.Count()
}

// endWaiting ends a session that has no connection, c being the last one. It
// reports whether it was the first to do so, or that it must be tried again
// because the session has another connection by now.
func (r *resumes) endWaiting(own *resumption, c *conn, cause error) (first, again bool) {
	r.mu.Lock()
	if own.session.conn.Load() != c {
		r.mu.Unlock()
		return false, own.claim == nil
	}
	if _, waits := c.lossCause(); !waits || own.over || own.claim != nil {
		r.mu.Unlock()
		return false, false
	}
	waited := own.waiting != nil
	r.overLocked(own, cause)
	r.mu.Unlock()
	if waited {
		own.finish()
	} // else whoever has ended the connection finds it over
	return true, false
}

// forget makes a session an ordinary one.
func (r *resumes) forget(own *resumption) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own.claim != nil {
		delete(own.claim.of.claims, own)
		return
	}
	if !own.over { // else why it ended stays
		r.overLocked(own, nil)
	}
}

// close ends all sessions that wait. No others do any more.
func (r *resumes) close() {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	var list []*resumption
	for own := r.firstLocked(); own != nil; own = r.firstLocked() {
		r.overLocked(own, ErrServerClosed)
		list = append(list, own)
	}
	r.mu.Unlock()
	for _, own := range list {
		own.finish()
	}
}

// waiting returns how many sessions wait.
func (r *resumes) waiting() int {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}
