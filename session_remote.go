package pitaya

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrBackendSession is what methods of a [Session] return that only work on the
// frontend that the client is connected to.
var ErrBackendSession = errors.New("pitaya: not possible on a backend: the client is connected to another server")

// ErrFrontendSession is what [Session.PushToFront] returns on the frontend
// itself.
var ErrFrontendSession = errors.New("pitaya: this is the frontend: its session data is the session's data")

// sessionFront is the way from a session on a backend to the frontend that the
// client is connected to. The methods wait for the frontend where it answers.
type sessionFront interface {
	context() context.Context // of the call
	server() string           // id of the frontend
	session() int64           // id of the session there
	bind(ctx context.Context, uid string) error
	push(ctx context.Context, uid, route string, payload []byte) error
	kick(ctx context.Context, uid string) error
	setData(ctx context.Context, uid string, data []byte) error
	merges() bool // whether mergeData can be called
	mergeData(ctx context.Context, uid string, changes []byte) error
}

// newBackendSession returns the session for one call from a frontend. data was
// checked and is not changed any more. As long as the handler changes nothing it
// goes back as it came: none stays none, which leaves the frontend's alone. Only
// null does not, which frontends of Pitaya panic of.
func newBackendSession(host *sessionHost, front sessionFront, uid string, data []byte) *Session {
	switch {
	case data == nil:
		data = []byte{}
	case string(data) == "null":
		data = []byte("{}")
	}
	return &Session{host: host, id: host.Table.nextID(), front: front, uid: uid, encoded: data}
}

// IsFrontend reports whether the client is connected to this server.
func (s *Session) IsFrontend() bool { return s.front == nil }

// FrontendID returns the id of the server that the client is connected to, ""
// if it is this one.
func (s *Session) FrontendID() string {
	if s.front == nil {
		return ""
	}
	return s.front.server()
}

// frontend is FrontendID, but the own id on the frontend.
func (s *Session) frontend() string {
	if s.front == nil {
		return s.host.ServerID
	}
	return s.front.server()
}

// FrontendSessionID returns the number of the session on the server that the
// client is connected to.
func (s *Session) FrontendSessionID() int64 {
	if s.front == nil {
		return s.id
	}
	return s.front.session()
}

// dataChanges are changes of session data on their way to a frontend that can
// merge them.
type dataChanges struct {
	Set    map[string]json.RawMessage `json:"set,omitempty"`
	Delete []string                   `json:"delete,omitempty"`
}

// PushToFront sends what was changed in the session's data on this backend to
// the frontend, and waits until it is there. Without it changes are lost when
// the handler returns. Only keys that were changed are sent, so that backends
// do not undo each other's changes; after SetData, or if the frontend is one of
// Pitaya, all of the data is, and the last one wins.
//
// On the frontend itself it returns [ErrFrontendSession].
func (s *Session) PushToFront(ctx context.Context) error {
	if s.front == nil {
		return ErrFrontendSession
	}
	s.mu.Lock()
	uid, replaced, changed := s.uid, s.replaced, s.changed
	merge := !replaced && s.front.merges()
	now := make(map[string]any, len(changed)) // of the keys that were changed; those that were deleted are missing
	for key := range changed {
		if v, ok := s.dataLocked()[key]; ok && merge {
			now[key] = v
		}
	}
	// What is changed from here on is for the next call.
	s.replaced, s.changed = false, nil
	s.mu.Unlock()

	sent := false
	defer func() { // also if the application's own JSON panics
		if sent {
			return
		}
		s.mu.Lock() // the next call tries again
		defer s.mu.Unlock()
		s.replaced = s.replaced || replaced
		for key := range changed {
			s.changedLocked(key)
		}
	}()
	var err error
	switch {
	case !merge:
		err = s.front.setData(ctx, uid, s.encodedData())
	case len(changed) > 0:
		err = s.pushChanges(ctx, uid, changed, now)
	}
	if err != nil {
		return fmt.Errorf("pitaya: push session data to the frontend: %w", err)
	}
	sent = true
	return nil
}

// pushChanges sends the changed keys with the values that they have now, if any.
func (s *Session) pushChanges(ctx context.Context, uid string, changed map[string]bool, now map[string]any) error {
	changes := dataChanges{Set: make(map[string]json.RawMessage, len(now))}
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		v, ok := now[key]
		if !ok {
			changes.Delete = append(changes.Delete, key)
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			continue // as encodeSessionData
		}
		changes.Set[key] = b
	}
	if len(changes.Set)+len(changes.Delete) == 0 {
		return nil
	}
	b, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	return s.front.mergeData(ctx, uid, b)
}

// replaceData implements sys.pushsession.
func (s *Session) replaceData(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	values, err := decodeSessionData(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaceLocked(values)
	return nil
}

// mergeChanges is replaceData for what changed only.
func (s *Session) mergeChanges(b []byte) error {
	var c dataChanges
	if err := json.Unmarshal(b, &c); err != nil {
		return errSessionData
	}
	raw, err := json.Marshal(c.Set)
	if err != nil {
		return errSessionData
	}
	values, err := decodeSessionData(raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.dataLocked()
	maps.Copy(data, values)
	for _, key := range c.Delete {
		delete(data, key)
	}
	s.encoded = nil
	return nil
}
