package pitaya

import (
	"iter"
	"sync"
	"time"
)

// sessionTable knows the sessions of one server, by id and by the uid that they
// are bound to. A session is in it from the moment its transport is set up
// until it ends, and a uid leads to at most one session.
type sessionTable struct {
	mu    sync.RWMutex // guards the fields below; never held across a callback
	byID  map[int64]*Session
	byUID map[string]*Session
	last  int64 // the id given last
}

func newSessionTable() *sessionTable {
	return &sessionTable{byID: make(map[int64]*Session), byUID: make(map[string]*Session)}
}

// outlive lets ids begin behind all that a server with the same id can have given before, instead of with 1. In a cluster
// others name a session by the id of its server and its own, and may be late: a session of a server that has crashed must not
// be taken for one of the server that has its id now. So they go on with the time, by more than sessions can come in it; they
// stay below 2^53, which JavaScript can count to.
func (t *sessionTable) outlive(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.last, now.UnixMilli()<<6)
}

// nextID returns a new session id. They count from 1, or from where outlive says.
func (t *sessionTable) nextID() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	return t.last
}

func (t *sessionTable) add(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[s.id] = s
}

// remove takes a session out of both indexes; out of the index by uid only if
// it is still this session that the uid leads to. It reports whether the
// session was there.
func (t *sessionTable) remove(s *Session, uid string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[s.id] != s {
		return false
	}
	delete(t.byID, s.id)
	if uid != "" && t.byUID[uid] == s {
		delete(t.byUID, uid)
	}
	return true
}

// bind makes uid lead to s and returns the session that it led to before, nil
// if there was none. It fails if s has ended.
func (t *sessionTable) bind(uid string, s *Session) (old *Session, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[s.id] != s {
		return nil, false
	}
	old = t.byUID[uid]
	t.byUID[uid] = s
	return old, true
}

// unbind undoes bind, unless a newer session has the uid by now.
func (t *sessionTable) unbind(uid string, s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byUID[uid] == s {
		delete(t.byUID, uid)
	}
}

func (t *sessionTable) get(id int64) *Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

func (t *sessionTable) user(uid string) *Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byUID[uid]
}

func (t *sessionTable) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// users returns how many users are bound.
func (t *sessionTable) users() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byUID)
}

// all iterates over the sessions that exist when the iteration begins. No lock
// is held while the loop's body runs.
func (t *sessionTable) all() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		t.mu.RLock()
		list := make([]*Session, 0, len(t.byID))
		for _, s := range t.byID {
			list = append(list, s)
		}
		t.mu.RUnlock()
		for _, s := range list {
			if !yield(s) {
				return
			}
		}
	}
}
