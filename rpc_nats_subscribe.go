//go:build !nocluster

package pitaya

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
)

// Bind implements [Transport]. Without a connection the user is subscribed to
// when there is one.
func (t *NATSTransport) Bind(ctx context.Context, uid string) error {
	if err := checkUID(uid, natsMaxSubject/2); err != nil {
		return fmt.Errorf("pitaya: %w", err)
	}
	t.mu.Lock()
	if _, bound := t.uids[uid]; bound || t.closed || t.draining {
		defer t.mu.Unlock()
		if t.closed {
			return fmt.Errorf("%w: transport closed", ErrUnreachable)
		}
		return nil
	}
	t.uids[uid] = struct{}{}
	var err error
	for _, l := range t.links {
		if e := t.subscribeUserLocked(l, uid); e != nil && !errors.Is(e, nats.ErrConnectionClosed) {
			err = e
		}
	}
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("pitaya: subscribing for a user: %w", err)
	}
	// NATS knows of the subscription when it has answered what is sent behind
	// it: whoever learns of the bind, by whatever way, can push.
	if l := t.serving.link.Load(); l != nil {
		ctx, cancel := context.WithTimeout(ctx, t.serving.cfg.ConnectTimeout)
		defer cancel()
		l.nc.FlushWithContext(ctx) // an outage is no error
	}
	return nil
}

// Unbind implements [Transport].
func (t *NATSTransport) Unbind(_ context.Context, uid string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.uids, uid)
	for _, l := range t.links {
		t.unsubscribeUserLocked(l, uid)
	}
	return nil
}

// subscribe subscribes a new connection to all that it is for. When it returns
// nil, NATS knows of it. How long that may take grows with the number of users,
// since each part of them has the time that connecting has: a limit for all
// would keep a frontend with many from ever coming back.
func (t *NATSTransport) subscribe(l *natsLink) error {
	t.mu.Lock()
	var subjects []string
	if l.side.calls {
		subjects = append(subjects, t.inbox+"*")
	}
	if l.side.serves && !t.draining {
		subjects = append(subjects, t.calls, t.bindings)
	}
	var err error
	for _, subject := range subjects {
		var sub *nats.Subscription
		if sub, err = l.nc.ChanSubscribe(subject, l.in); err != nil {
			break
		}
		l.own = append(l.own, sub)
	}
	var uids []string
	if l.side.serves && !t.draining {
		uids = slices.Collect(maps.Keys(t.uids))
	}
	t.links = append(t.links, l) // from here on Bind and Unbind see to their users themselves
	t.mu.Unlock()
	for err == nil {
		n := min(len(uids), natsUserBatch)
		err = t.subscribeUsers(l, uids[:n])
		uids = uids[n:]
		if err == nil {
			err = l.nc.FlushTimeout(l.side.cfg.ConnectTimeout)
		}
		if len(uids) == 0 {
			break
		}
	}
	if err != nil {
		return err
	}
	// What NATS refuses it has said by now.
	if err := l.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

// natsUserBatch is how many users a new connection is subscribed to before NATS
// is asked whether it has taken that.
const natsUserBatch = 1 << 10

// subscribeUsers subscribes a connection to those of the users that are bound
// still.
func (t *NATSTransport) subscribeUsers(l *natsLink, uids []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, uid := range uids {
		if _, bound := t.uids[uid]; !bound || t.draining {
			continue
		}
		if err := t.subscribeUserLocked(l, uid); err != nil {
			return err
		}
	}
	return nil
}

// forget takes a connection out of use.
func (t *NATSTransport) forget(l *natsLink) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked(l)
	for i, other := range t.links {
		if other == l {
			t.links = append(t.links[:i:i], t.links[i+1:]...)
			return
		}
	}
}

func (t *NATSTransport) subscribeUserLocked(l *natsLink, uid string) error {
	if _, done := l.users[uid]; done || !l.side.serves {
		return nil
	}
	var subs [2]*nats.Subscription
	for i, verb := range []string{natsPush, natsKick} {
		var err error
		if subs[i], err = l.nc.ChanSubscribe(t.users+uid+verb, l.in); err != nil {
			if i > 0 {
				subs[0].Unsubscribe()
			}
			return err
		}
	}
	l.users[uid] = subs
	return nil
}

func (t *NATSTransport) unsubscribeUserLocked(l *natsLink, uid string) {
	subs, ok := l.users[uid]
	if !ok {
		return
	}
	delete(l.users, uid)
	for _, sub := range subs {
		if _, slow := l.slow[sub]; slow {
			t.countLocked(l)
			delete(l.slow, sub)
		}
		sub.Unsubscribe() // fails with the connection only
	}
}
