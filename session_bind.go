package pitaya

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrAlreadyBound is what [Session.Bind] returns for a session that has a user.
var ErrAlreadyBound = errors.New("session is already bound to an uid")

// ErrIllegalUID is wrapped by what [Session.Bind] returns for a uid that it
// refuses.
var ErrIllegalUID = errors.New("illegal uid")

// Bind tells the server which user is behind the session. The uid is UTF-8 of
// at most Config.MaxUIDLength bytes, without white space and control
// characters; none of its parts between dots may be empty, "*" or ">", since it
// becomes part of the names that servers of a cluster use. A session is bound
// once.
//
// The callbacks of OnSessionBind run first; an error of one undoes everything
// and is returned. Then the uid leads to this session, and a session that it
// led to before is ended with [ErrReplaced], also one on another frontend of
// this type unless Config.NoUniqueSession is set. Of several sessions that are
// bound to one user at the same moment one remains, and Bind of the others
// returns an error that wraps ErrReplaced. Then the callbacks of
// OnAfterSessionBind run; an error of one unbinds the session.
//
// On a backend the callbacks are those of the backend, and between them the
// frontend binds the session with its own. Bind waits for that. An error of a
// backend's own OnAfterSessionBind callback leaves the session bound on the
// frontend.
//
// A Bind whose ctx ends while it waits for other servers fails, and so does one
// that has waited for them, and for a [BindingStore], for 5 s.
func (s *Session) Bind(ctx context.Context, uid string) error {
	if err := checkUID(uid, s.host.MaxUID); err != nil {
		return err
	}
	s.mu.Lock()
	switch {
	case s.over:
		s.mu.Unlock()
		return ErrSessionClosed
	case s.uid != "" || s.binding:
		s.mu.Unlock()
		return ErrAlreadyBound
	}
	s.uid, s.binding = uid, true // the callbacks see it
	if s.front == nil {
		s.host.Alive.Add(1) // the session, which is not over, is counted too
	}
	s.mu.Unlock()

	bound := false
	var err error
	defer func() { // also if a callback ends the goroutine
		if s.front == nil {
			defer s.host.Alive.Done()
		}
		if !bound && s.front == nil {
			s.host.Table.unbind(uid, s)
			if rest := s.host.unbound(s, uid); ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				rest()
			} else {
				s.host.Alive.Go(rest) // the caller does not wait any more
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.binding = false
		if !bound {
			s.uid = ""
		}
	}()
	err = s.bind(ctx, uid)
	bound = err == nil
	return err
}

func (s *Session) bind(ctx context.Context, uid string) error {
	for _, f := range s.host.OnBind {
		if err := s.host.guard("bind callback", func() error { return f(ctx, s) }); err != nil {
			return err
		}
	}
	bindHere := s.bindHere
	if s.front != nil {
		bindHere = s.front.bind
	}
	if err := bindHere(ctx, uid); err != nil {
		return err
	}
	for _, f := range s.host.OnAfterBind {
		if err := s.host.guard("after-bind callback", func() error { return f(ctx, s) }); err != nil {
			return err
		}
	}
	return nil
}

// bindTimeout bounds how long a bind waits for other servers, and for what keeps
// the bindings: a player whose login hangs tries again after about that time, and
// several steps that each have a limit of their own would add up to more.
const bindTimeout = 5 * time.Second

// bindHere makes the uid lead to the session, on this server and for others.
func (s *Session) bindHere(ctx context.Context, uid string) error {
	if s.host.Cluster != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bindTimeout)
		defer cancel()
		if err := s.host.Cluster.binding(ctx, s, uid); err != nil {
			return err
		}
	}
	var old *Session
	var ok bool
	enter := func() { old, ok = s.host.Table.bind(uid, s) }
	if s.host.Cluster == nil {
		enter()
	} else if err := s.host.Cluster.enter(s, uid, enter); err != nil {
		return err
	}
	if !ok {
		return ErrSessionClosed
	}
	if old != nil && old != s {
		old.replace()
	}
	if s.host.Cluster != nil {
		return s.host.Cluster.bound(ctx, s, uid)
	}
	return nil
}

// replace ends a session whose user has come back on another one.
func (s *Session) replace() {
	s.mu.Lock()
	leaving := s.leaving
	s.mu.Unlock()
	if leaving {
		return // it ends when it has answered what its client is still waiting for
	}
	var packet []byte
	if s.host.Unique {
		packet = kickPacket("replaced")
	}
	s.end(ErrReplaced, endFlush, packet)
}

// checkUID says whether a uid can stand in NATS subjects and etcd keys, where
// it is used as it is.
func checkUID(uid string, limit int) error {
	switch {
	case uid == "":
		return ErrIllegalUID
	case len(uid) > limit:
		return fmt.Errorf("%w: longer than %d bytes", ErrIllegalUID, limit)
	case !utf8.ValidString(uid):
		return fmt.Errorf("%w: not UTF-8", ErrIllegalUID)
	case strings.ContainsFunc(uid, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}):
		return fmt.Errorf("%w: white space or control characters", ErrIllegalUID)
	}
	for part := range strings.SplitSeq(uid, ".") {
		if part == "" || part == "*" || part == ">" {
			return fmt.Errorf("%w: empty or wildcard part between dots", ErrIllegalUID)
		}
	}
	return nil
}
