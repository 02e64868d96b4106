package pitaya

import (
	"errors"
	"fmt"
	"sync"
)

// An UndeliveredError says which users a push or kick did not reach; all others
// were reached.
type UndeliveredError struct {
	UIDs []string
	Err  error // why, for the first of them
}

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("pitaya: %d users not reached: %v", len(e.UIDs), e.Err)
}

// Unwrap returns Err.
func (e *UndeliveredError) Unwrap() error { return e.Err }

// ErrUserNotFound is the reason for a user that no session is bound to.
var ErrUserNotFound = errors.New("pitaya: user not found")

// unreached returns the users that err, of a push or kick to uids, is about:
// those that it names or else all.
func unreached(err error, uids []string) []string {
	if u, ok := errors.AsType[*UndeliveredError](err); ok {
		return u.UIDs
	}
	if err != nil {
		return uids
	}
	return nil
}

// undelivered collects who was not reached.
type undelivered struct {
	UIDs []string
	err  error
}

func (u *undelivered) add(uid string, err error) {
	if u.err == nil {
		u.err = err
	}
	u.UIDs = append(u.UIDs, uid)
}

func (u *undelivered) result() error {
	if len(u.UIDs) == 0 {
		return nil
	}
	return &UndeliveredError{UIDs: u.UIDs, Err: u.err}
}

// A multicast is a push to many sessions: serialized once, and encoded once for
// each kind of client that is among them.
type multicast struct {
	// Immutable.
	host    *sessionHost
	Route   string
	Payload []byte

	mu      sync.Mutex      // guards the fields below; held while they are made, which is done once
	deflate []byte          // the payload compressed; nil if that was not tried, empty if it does not pay
	frames  [4]*sharedFrame // by frameKind
}

// frameKind numbers the kinds of clients.
func frameKind(inflates, codes bool) int {
	kind := 0
	if inflates {
		kind |= 1
	}
	if codes {
		kind |= 2
	}
	return kind
}

func (h *sessionHost) newMulticast(route string, v any) (*multicast, error) {
	payload, err := h.encode(v)
	if err != nil {
		return nil, fmt.Errorf("pitaya: push on %q: %w", route, err)
	}
	m := &multicast{host: h, Route: route, Payload: payload}
	// A route that cannot be encoded is the caller's mistake, not that of each
	// receiver.
	if _, err := m.frame(false, false); err != nil {
		return nil, err
	}
	return m, nil
}

// frame returns the push for one kind of client.
func (m *multicast) frame(inflates, codes bool) (*sharedFrame, error) {
	kind := frameKind(inflates, codes)
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.frames[kind]; f != nil {
		return f, nil
	}
	msg := Message{Type: MessagePush, Route: m.Route, Payload: m.Payload}
	if inflates {
		if m.deflate == nil {
			m.deflate, _ = deflate([]byte{}, m.Payload)
		}
		if len(m.deflate) > 0 {
			msg.Payload, msg.Compressed = m.deflate, true
		}
	}
	var dict *Dictionary
	if codes {
		dict = m.host.Dict
	}
	f, err := newSharedFrame(msg, dict)
	if err != nil {
		return nil, err
	}
	m.frames[kind] = f
	return f, nil
}

// send pushes to one session.
func (m *multicast) send(s *Session) error {
	s.mu.Lock()
	inflates, codes := s.inflates, s.pushCodes
	s.mu.Unlock()
	f, err := m.frame(inflates, codes)
	if err != nil {
		return err
	}
	return s.pushed(s.sendShared(f))
}
