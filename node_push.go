package pitaya

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/internal/pb"
)

// usersBytes bounds the uids in one message: with the payload it must fit into
// what a transport carries, which is 1 MiB for NATS.
const usersBytes = 256 << 10

// pushUsers pushes to users on other servers of a frontend type: one message
// for each server, if all of them can take that, and else one for each user.
func (n *node) pushUsers(ctx context.Context, frontendType, route string, payload []byte, uids []string, u *undelivered) {
	if len(uids) == 0 {
		return
	}
	// Notices find users on servers that this one does not know, because discovery
	// has not told of them yet or the settings say that it is not to.
	peers, multi := n.frontends(frontendType)
	switch {
	case len(peers) > 0 && multi && (len(uids) > 1 || !n.Transport.Ordered() && n.Bindings == nil):
		for len(uids) > 0 {
			k, size := 0, 0
			for k < len(uids) && (k == 0 || size+len(uids[k]) <= usersBytes) {
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
// pushes for many users.
func (n *node) frontends(frontendType string) (peers []*member, multi bool) {
	t := n.Members.ofType(frontendType)
	if t == nil {
		return nil, false
	}
	multi = true
	self := n.Self().ID
	for _, m := range t.All {
		if m.Info.ID == self {
			continue
		}
		peers = append(peers, m)
		multi = multi && m.has(featureUsers)
	}
	return peers, multi
}

// pushMany sends one message to each server. They are not waited for, so nobody
// learns who was not reached, unless it takes the waiting to keep the order.
func (n *node) pushMany(ctx context.Context, peers []*member, route string, payload []byte, uids []string, u *undelivered) {
	arg := rpcUsers{Route: []byte(route), UIDs: uids, Data: payload}
	limit := callLimit(ctx, n.Timeout)
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
	missing := make(map[string]int) // on how many servers a user is not
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range peers {
		wg.Go(func() {
			data, failure := n.ask(ctx, m, routeUsers, limit, body)
			var others rpcUsers
			if failure == nil {
				failure = others.decode(data)
			}
			mu.Lock()
			defer mu.Unlock()
			if failure != nil {
				err = failure
				others.UIDs = uids
			}
			for _, uid := range others.UIDs {
				missing[uid]++
			}
		})
	}
	wg.Wait()
	if err == nil {
		err = ErrUserNotFound
	}
	for _, uid := range uids {
		if missing[uid] == len(peers) {
			u.add(uid, err)
		}
	}
}

// notify sends a notice for a user, with the help of the binding store if there
// is one.
func (n *node) notify(ctx context.Context, kind NoticeKind, frontendType, uid string, body []byte, u *undelivered) {
	notice := &Notice{Kind: kind, FrontendType: frontendType, UID: uid, Body: body}
	if n.Bindings != nil {
		id, err := n.Bindings.Get(ctx, uid, frontendType)
		if errors.Is(err, ErrNoBinding) {
			err = ErrUserNotFound // as it is called wherever users are looked for
		}
		if err != nil {
			u.add(uid, err)
			return
		}
		m := n.Members.get(id)
		if m == nil {
			u.add(uid, ErrUserNotFound)
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
	body, err := proto.Marshal(&pb.KickMsg{UserId: uid})
	if err != nil {
		u.add(uid, err)
		return
	}
	n.notify(ctx, NoticeKick, frontendType, uid, body, u)
}
