package pitaya

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
)

// What one message for many users may hold: the uids, and all of it, which is
// what NATS carries unless it is told otherwise. With a larger payload each user
// gets a message, whose error tells if it is too large.
const (
	usersBytes   = 256 << 10
	usersMessage = 1<<20 - 8<<10
)

// pushUsers pushes to users on other servers of a frontend type: one message
// for each server, if all of them can take that, and else one for each user.
func (n *node) pushUsers(ctx context.Context, frontendType, route string, payload []byte, uids []string, u *undelivered) {
	if len(uids) == 0 {
		return
	}
	// Notices find users on servers that this one does not know, because discovery
	// has not told of them yet or the settings say that it is not to.
	peers, multi := n.frontends(frontendType)
	room := min(usersBytes, usersMessage-len(payload))
	switch {
	case len(peers) > 0 && multi && (len(uids) > 1 && room > 4<<10 || !n.Finds && n.Bindings == nil):
		for len(uids) > 0 {
			k, size := 0, 0
			for k < len(uids) && (k == 0 || size+len(uids[k]) <= room) {
				size += len(uids[k]) + 4
				k++
			}
			n.pushMany(ctx, peers, route, payload, uids[:k], u)
			uids = uids[k:]
		}
	default:
		for _, uid := range uids {
			p := rpcPush{Route: []byte(route), UID: []byte(uid), Data: payload}
			n.notify(ctx, NoticePush, frontendType, uid, p.encode(), u)
		}
	}
}

// frontends returns the other servers of a type, and whether all of them take
// pushes for many users. One that has vanished a moment ago may still have its
// users.
func (n *node) frontends(frontendType string) (peers []*member, multi bool) {
	multi = true
	self := n.Self().ID
	for _, m := range n.Members.withLate(frontendType) {
		if m.Info.ID == self {
			continue
		}
		peers = append(peers, m)
		multi = multi && m.has(featureUsers)
	}
	return peers, multi && len(peers) > 0
}

// pushMany sends one message to each server. They are not waited for, so nobody
// learns who was not reached, unless it takes the waiting to keep the order.
func (n *node) pushMany(ctx context.Context, peers []*member, route string, payload []byte, uids []string, u *undelivered) {
	arg := rpcUsers{Route: []byte(route), UIDs: uids, Data: payload}
	if n.Transport.Ordered() {
		// Nobody waits, so nobody gives up: a push that was made is sent, as
		// those of an own client are, also when the caller's client has left.
		ctx = context.WithoutCancel(ctx)
	}
	limit := callLimit(ctx, n.Timeout)
	if limit <= 0 {
		for _, uid := range uids {
			u.add(uid, context.DeadlineExceeded)
		}
		return
	}
	body, err := n.userRequest(ctx, routeUsers, arg.encode(), limit)
	if err != nil {
		for _, uid := range uids {
			u.add(uid, err)
		}
		return
	}
	n.Counters.MultiPushes.Add(int64(len(peers)))
	if n.Transport.Ordered() {
		for _, m := range peers {
			n.tell(ctx, m, body)
		}
		return
	}
	n.askUsers(ctx, peers, limit, body, uids, u)
}

// maxUnheard is how many calls may be under way to a frontend whose answer a
// push does not need any more. Beyond it those who push wait for that frontend.
const maxUnheard = 1 << 10

// askUsers asks each server to push, and waits: for all of them, or until all
// users are reached, where a user has one session at most. So a frontend that
// hangs, or is still being connected to, does not hold up those who push to
// users on others.
func (n *node) askUsers(ctx context.Context, peers []*member, limit time.Duration, body []byte, uids []string, u *undelivered) {
	type usersAnswer struct {
		from *member
		body []byte
		err  error
	}
	answers := make(chan usersAnswer, len(peers)) // nobody may be there to take them
	// A push that was made is sent, whoever gives up waiting.
	sending := context.WithoutCancel(ctx)
	waiting := make(map[*member]bool, len(peers))
	once := true
	for _, m := range peers {
		waiting[m] = true
		once = once && m.has(featureClaim)
	}
	for _, m := range peers {
		n.call(sending, m, limit, body, func(response []byte, err error) { answers <- usersAnswer{m, response, err} })
	}
	var err error
	missing := make(map[string]int, len(uids)) // on how many of the servers that have answered a user is not
	unreached := func(uid string) bool { return missing[uid] == len(peers)-len(waiting) }
	ended := ctx.Done()
	for len(waiting) > 0 && (!once || slices.ContainsFunc(uids, unreached) || behind(waiting)) {
		select {
		case a := <-answers:
			delete(waiting, a.from)
			var others rpcUsers
			data, failure := n.result(a.body, a.err, a.from, routeUsers, limit)
			if failure == nil {
				failure = others.decode(data)
			}
			if failure != nil {
				err = failure
				others.UIDs = slices.Clone(uids)
			}
			slices.Sort(others.UIDs)
			for _, uid := range slices.Compact(others.UIDs) {
				missing[uid]++
			}
		case <-ended:
			ended = nil
			if ctx.Err() == context.DeadlineExceeded {
				continue // the calls end with it, too
			}
			for _, uid := range uids {
				if unreached(uid) {
					u.add(uid, context.Cause(ctx))
				}
			}
			return
		}
	}
	if err == nil {
		err = ErrUserNotFound
	}
	for _, uid := range uids {
		if unreached(uid) {
			u.add(uid, err)
		}
	}
}

// behind reports whether more than maxUnheard calls to one of the servers are
// under way.
func behind(servers map[*member]bool) bool {
	for m := range servers {
		if m.Pending.Load() > maxUnheard {
			return true
		}
	}
	return false
}

// notify sends a notice for a user, with the help of the binding store if there
// is one.
func (n *node) notify(ctx context.Context, kind NoticeKind, frontendType, uid string, body []byte, u *undelivered) {
	notice := &Notice{Kind: kind, FrontendType: frontendType, UID: uid, Body: body}
	if n.Bindings != nil && !n.Finds {
		id, err := n.Bindings.Get(ctx, uid, frontendType)
		if errors.Is(err, ErrNoBinding) {
			err = ErrUserNotFound // as it is called wherever users are looked for
		}
		if err != nil {
			u.add(uid, err)
			return
		}
		m := n.Members.getLate(id)
		if m == nil {
			// The user was there a moment ago, or the binding of a server that has
			// crashed has not ended yet: nobody can tell.
			u.add(uid, fmt.Errorf("%w: server %s, which the user is on", ErrUnreachable, id))
			return
		}
		notice.Server = m.Info
	}
	if err := n.Transport.Notify(ctx, notice); err != nil {
		u.add(uid, err)
	}
}

// kickUser asks the server that the user is on to kick it.
func (n *node) kickUser(ctx context.Context, frontendType, uid string, u *undelivered) {
	body, err := (&clustermsg.KickMsg{UserId: uid}).Encode()
	if err != nil {
		u.add(uid, err)
		return
	}
	if n.Finds || n.Bindings != nil {
		n.notify(ctx, NoticeKick, frontendType, uid, body, u)
		return
	}
	// Whoever has the user knows it. Every server has the remote, also those of
	// Pitaya.
	peers, _ := n.frontends(frontendType)
	answers := make(chan error, len(peers))
	for _, m := range peers {
		go func() {
			_, err := n.askRemote(ctx, m, routeKick, body)
			answers <- err
		}()
	}
	reason := ErrUserNotFound
	for range peers {
		switch err := <-answers; {
		case err == nil:
			reason = nil
		case reason != nil && !isNoSession(err):
			reason = err
		}
	}
	if reason != nil {
		u.add(uid, reason)
	}
}

// isNoSession reports whether a server has said that it does not have a user.
func isNoSession(err error) bool {
	e := codedError(err)
	return e != nil && e.Message == textNoSuchSession
}
