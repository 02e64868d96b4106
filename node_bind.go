package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
)

// binder makes the users of this frontend known to the other servers. It is a
// sessionCluster.
type binder struct {
	// Immutable.
	node   *node
	host   *sessionHost
	unique *claims // nil: a user may have several sessions
	events *eventSource
	log    *slog.Logger

	users *keyedMutex // by uid: seams are told about one user by one goroutine at a time
}

// newBinder returns a binder. unique may be nil.
func newBinder(n *node, host *sessionHost, unique *claims, events *eventSource) *binder {
	b := &binder{node: n, host: host, unique: unique, events: events, log: n.Log, users: new(keyedMutex)}
	if unique != nil {
		unique.users = b.users
	}
	return b
}

// unbindTimeout bounds what is done for a user that has left. Nobody waits for
// it but the server's end.
const unbindTimeout = 5 * time.Second

// binding implements sessionCluster. The user can be reached before it is said
// to be bound, so that nothing sent right after the bind is lost.
func (b *binder) binding(ctx context.Context, s *Session, uid string) error {
	if b.unique != nil {
		if err := b.unique.claim(ctx, s, uid); err != nil {
			return err
		}
	}
	unlock, err := b.users.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	return b.node.Transport.Bind(ctx, uid)
}

// enter implements sessionCluster. Without the look at the claim a session that
// has lost could still replace the one that has won, and then give up itself.
func (b *binder) enter(s *Session, uid string, f func()) error {
	if b.unique == nil {
		f()
		return nil
	}
	return b.unique.enter(s, uid, f)
}

// bound implements sessionCluster.
func (b *binder) bound(ctx context.Context, s *Session, uid string) error {
	if err := b.store(ctx, s, uid); err != nil {
		return err
	}
	if b.unique != nil && !b.unique.holds(s, uid) {
		return errClaimed()
	}
	if !b.events.bound(s, uid, func() bool { return b.host.Table.user(uid) == s }) {
		return b.gone(s, uid)
	}
	return nil
}

// gone returns why a session does not have its user any more, though no other
// server has claimed it.
func (b *binder) gone(s *Session, uid string) error {
	if b.host.Table.user(uid) != nil || errors.Is(context.Cause(s.Context()), ErrReplaced) {
		return errClaimed()
	}
	return ErrSessionClosed
}

// store makes a user that leads to the session known. The lock comes first:
// a claim that comes while it is held is answered after it, so that what is
// stored here does not take the place of what the other server stores.
func (b *binder) store(ctx context.Context, s *Session, uid string) error {
	unlock, err := b.users.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	if b.host.Table.user(uid) != s {
		return b.gone(s, uid)
	}
	if b.unique != nil && !b.unique.holds(s, uid) {
		return errClaimed()
	}
	// Again: an older session of the user may have ended since binding, and
	// taken the user's subscription along.
	if err := b.node.Transport.Bind(ctx, uid); err != nil {
		return err
	}
	if b.unique != nil {
		b.announce(ctx, uid)
	}
	if b.node.Bindings == nil {
		return nil
	}
	if err := b.node.Bindings.Put(ctx, uid); err != nil {
		return fmt.Errorf("pitaya: store the binding of the user: %w", err)
	}
	return nil
}

// announce tells the other frontends of this type that the user is here, those
// that do not answer claims among them (cluster protocol, sections 6.3 and 9.5).
func (b *binder) announce(ctx context.Context, uid string) {
	self := b.node.Self()
	n := &Notice{Kind: NoticeBind, FrontendType: self.Type, UID: uid}
	if b.node.Bindings != nil && !b.node.Finds {
		id, err := b.node.Bindings.Get(ctx, uid, self.Type)
		m := b.node.Members.getLate(id)
		if err != nil || m == nil || id == self.ID {
			return
		}
		if m.has(featureClaim) { // it has been waited for once
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, claimTimeout)
			defer cancel()
		}
		n.Server = m.Info
	}
	var err error
	if n.Body, err = (&clustermsg.BindMsg{Uid: uid, Fid: self.ID}).Encode(); err == nil {
		err = b.node.Transport.Notify(ctx, n)
	}
	if err != nil {
		b.log.Debug("bind not announced", "uid", uid, "err", err)
	}
}

// unbound implements sessionCluster.
func (b *binder) unbound(s *Session, uid string) (rest func()) {
	if b.unique != nil {
		b.unique.forget(s, uid)
	}
	b.events.ended(s)
	return func() { b.takeBack(s, uid) }
}

// takeBack undoes store, unless another session of this server has the user.
func (b *binder) takeBack(s *Session, uid string) {
	ctx, cancel := context.WithTimeout(context.Background(), unbindTimeout)
	defer cancel()
	unlock, err := b.users.lock(ctx, uid)
	if err != nil {
		return // whoever has it is about to do the same, or has a session that does when it ends
	}
	defer unlock()
	if b.host.Table.user(uid) != nil {
		return // on another session of this server by now
	}
	if err := b.node.Transport.Unbind(ctx, uid); err != nil {
		b.log.Debug("user not unsubscribed", "uid", uid, "err", err)
	}
	if b.node.Bindings == nil || errors.Is(context.Cause(s.Context()), ErrServerClosed) {
		return // there is none, or the server ends and takes all bindings back at once
	}
	if err := b.node.Bindings.Delete(ctx, uid); err != nil {
		b.log.Debug("binding not deleted", "uid", uid, "err", err)
	}
}

// keyedMutex is a mutex for each key that is in use.
type keyedMutex struct {
	mu   sync.Mutex // guards the map and the counts
	held map[string]*keyLock
}

type keyLock struct {
	token chan struct{} // full while somebody holds it
	users int           // who holds or wants it
}

// lock waits for the key and returns what gives it back, or an error if ctx ends
// first. Those who wait get it in the order in which they came.
func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		if k.held == nil {
			k.held = make(map[string]*keyLock)
		}
		l = &keyLock{token: make(chan struct{}, 1)}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case l.token <- struct{}{}: // also if ctx has ended: nobody had to wait
	default:
		select {
		case l.token <- struct{}{}:
		case <-ctx.Done():
			leave()
			return nil, context.Cause(ctx)
		}
	}
	return func() {
		<-l.token
		leave()
	}, nil
}
