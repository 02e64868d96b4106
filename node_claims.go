package pitaya

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// claims decide, among the frontends of one type, which session a user has: the
// one that was bound last. Before a user is bound, the other frontends are asked
// to give it up. Claims are compared by stamp and then by the server's id, so of
// several at the same moment all servers let the same one win; a stamp is above
// all that its server has seen, so a later bind wins whatever the clocks say.
//
// Frontends of Pitaya do not answer claims. Between them and this one there is
// the announcement only, and two binds at the same moment can end both sessions
// or leave both.
type claims struct {
	// Immutable once the server runs.
	node  *node
	host  *sessionHost
	users *keyedMutex   // the binder's: what is under way for a user
	quit  chan struct{} // closed by close

	repeating sync.WaitGroup // the timer that puts claims again, and what it has started

	// mu guards the fields below and the claims. It is taken while a user's lock
	// is held, and the session table's lock while it is; never the other way
	// round, and it is not held while anything waits.
	mu    sync.Mutex
	byUID map[string]*claim // the newest of each user; the older ones hang from it
	last  uint64            // the highest stamp seen

	unheard map[string]map[string]bool // by user: ids of frontends that have not answered the claim
	again   *time.Timer                // puts those claims again, or is doing so; nil while there are none
	gone    map[string]uint64          // by the id of a frontend that has vanished: it has not heard of claims with higher stamps
	closed  bool                       // no more of that
}

// A claim is what a session says to a user, from before it is bound to its end.
type claim struct {
	session *Session
	stamp   uint64
	bound   bool   // no other server has objected
	lost    bool   // a newer one has been let through
	older   *claim // of another session of this server; it stands if this one comes to nothing
}

const (
	// claimTimeout is how long a frontend has to answer. One that is in no
	// state to answer must not keep players from logging in; it will hear of
	// the bind by the announcement.
	claimTimeout = time.Second
	// claimTries is how often a claim is raised over those of users that are
	// bound elsewhere.
	claimTries = 5
)

func newClaims(n *node, host *sessionHost) *claims {
	return &claims{node: n, host: host, quit: make(chan struct{}), byUID: make(map[string]*claim)}
}

// errClaimed is for a session that has lost.
func errClaimed() error {
	return NewError(fmt.Errorf("%w: the user was bound elsewhere at the same moment", ErrReplaced), CodeUnknown)
}

// stampLocked returns a stamp above the given one and all others seen, if there
// is one above: stamps do not begin again from 0.
func (c *claims) stampLocked(above uint64) uint64 {
	c.last = max(c.last, above, uint64(time.Now().UnixNano())-1)
	if c.last < math.MaxUint64 {
		c.last++
	}
	return c.last
}

// claim makes the session the one that the user has. An error means that
// another one is.
func (c *claims) claim(ctx context.Context, s *Session, uid string) error {
	c.mu.Lock()
	own := &claim{session: s, stamp: c.stampLocked(0), older: c.byUID[uid]}
	c.byUID[uid] = own
	stamp := own.stamp
	c.mu.Unlock()
	for range claimTries {
		above, silent, err := c.ask(ctx, uid, stamp)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx) // the others may not have been asked
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		switch {
		case own.lost:
			c.mu.Unlock()
			return errClaimed()
		case above == 0:
			own.bound = true
			c.unheardLocked(uid, silent)
			c.mu.Unlock()
			return nil
		}
		own.stamp = c.stampLocked(above)
		stamp = own.stamp
		c.mu.Unlock()
	}
	return errClaimed()
}

// ask puts a claim to the other frontends. If one of them has the user under a
// higher stamp, that is returned, and who has not answered; an error means that
// the claim is refused.
func (c *claims) ask(ctx context.Context, uid string, stamp uint64) (above uint64, silent []string, err error) {
	self := c.node.Self()
	t := c.node.Members.ofType(self.Type)
	if t == nil {
		return 0, nil, nil
	}
	type reply struct {
		from string
		rpcAnswer
	}
	arg := (&rpcClaim{UID: uid, FID: self.ID, Stamp: stamp}).encode()
	var body []byte
	var asked int
	answers := make(chan reply, len(t.All))
	for _, m := range t.All {
		if m.Info.ID == self.ID || !m.has(featureClaim) {
			continue
		}
		if body == nil {
			if body, err = c.node.userRequest(ctx, routeClaim, arg, claimTimeout); err != nil {
				return 0, nil, err
			}
		}
		asked++
		c.node.call(ctx, m, claimTimeout, body, func(response []byte, err error) {
			answers <- reply{m.Info.ID, rpcAnswer{response, err}}
		})
	}
	for range asked {
		a := <-answers
		if a.err != nil {
			silent = append(silent, a.from)
		}
		answer := decodeClaimAnswer(a.body, a.err)
		if !answer.Refused {
			continue
		}
		if !answer.Bound {
			err = errClaimed() // those of all are awaited, so that nobody kicks for a claim that is given up
			continue
		}
		above = max(above, answer.Stamp)
	}
	return above, silent, err
}

// claimed answers the claim of another frontend. If that gets the user, the
// answer comes when nothing is under way for the user here any more, or ctx has
// ended: the other one goes on to say where the user is, and that must stay so.
func (c *claims) claimed(ctx context.Context, arg *rpcClaim) rpcClaimAnswer {
	self := c.node.Self().ID
	if arg.FID == self {
		return rpcClaimAnswer{} // nobody else's
	}
	c.mu.Lock()
	c.last = max(c.last, arg.Stamp)
	own := c.byUID[arg.UID]
	top := own
	for old := own; old != nil; old = old.older {
		if old.stamp > top.stamp { // it was raised over that of another server
			top = old
		}
	}
	if top != nil && (top.stamp > arg.Stamp || top.stamp == arg.Stamp && self > arg.FID) {
		defer c.mu.Unlock()
		return rpcClaimAnswer{Refused: true, Bound: top.bound, Stamp: top.stamp}
	}
	var ends []*Session
	claiming := false // the session that has the user fails by itself
	// Looked up under the lock: a newer session that comes in behind it is not
	// meant.
	s := c.host.Table.user(arg.UID)
	for ; own != nil; own = own.older {
		own.lost = true
		claiming = claiming || own.session == s
		if own.bound {
			ends = append(ends, own.session) // it may be on its way into the table
		}
	}
	delete(c.byUID, arg.UID)
	c.mu.Unlock()
	if s != nil && !claiming {
		s.replace()
	}
	for _, s := range ends {
		s.replace()
	}
	if unlock, err := c.users.lock(ctx, arg.UID); err == nil {
		unlock()
	}
	return rpcClaimAnswer{}
}

// announced is told that a user was bound on another frontend. It does not
// block.
func (c *claims) announced(uid, frontend string) {
	if frontend == c.node.Self().ID {
		return
	}
	if m := c.node.Members.get(frontend); m != nil && m.has(featureClaim) {
		c.askBack(m, uid, func(error) {})
		return
	}
	if s := c.host.Table.user(uid); s != nil {
		s.replace()
	}
}

// askBack claims a user that is bound here from a frontend that has bound it as
// well. That has claimed it before; but the claim may not have come, because the
// frontend did not know this one yet, or did not wait for the answer any longer.
// If it refuses, it has the newer session. done is called once, with an error if
// the frontend has not answered.
func (c *claims) askBack(m *member, uid string, done func(error)) {
	c.mu.Lock()
	own := c.boundLocked(uid)
	if own == nil {
		c.mu.Unlock()
		done(nil)
		return // as it is nearly always
	}
	stamp := own.stamp
	c.mu.Unlock()
	ctx := context.Background()
	arg := rpcClaim{UID: uid, FID: c.node.Self().ID, Stamp: stamp}
	body, err := c.node.userRequest(ctx, routeClaim, arg.encode(), claimTimeout)
	if err != nil {
		done(err)
		return
	}
	c.node.call(ctx, m, claimTimeout, body, func(response []byte, err error) {
		defer done(err)
		answer := decodeClaimAnswer(response, err)
		c.mu.Lock()
		if err == nil {
			delete(c.unheard[uid], m.Info.ID)
		}
		c.mu.Unlock()
		if !answer.Refused || !answer.Bound {
			return // it has lost the user, or asks in its turn
		}
		c.mu.Lock()
		if own.stamp != stamp || !c.removeLocked(own.session, uid) {
			c.mu.Unlock()
			return
		}
		own.lost = true
		c.mu.Unlock()
		own.session.replace()
	})
}

// decodeClaimAnswer returns what a frontend says to a claim. One that says
// nothing, or nothing that can be understood, has nothing against it.
func decodeClaimAnswer(response []byte, err error) (answer rpcClaimAnswer) {
	var r rpcResponse
	if err != nil || r.decode(response) != nil || r.Err != nil || answer.decode(r.Data) != nil {
		return rpcClaimAnswer{}
	}
	return answer
}

// holds reports whether a session still has its user.
func (c *claims) holds(s *Session, uid string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.findLocked(s, uid)
	return own != nil && !own.lost
}

// enter calls f if the session still has its user. Nobody else gets the user
// while f runs. Older claims of this server are lost then, and not before: this
// one could have come to nothing.
func (c *claims) enter(s *Session, uid string, f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.findLocked(s, uid)
	if own == nil || own.lost {
		return errClaimed()
	}
	for old := own.older; old != nil; old = old.older {
		old.lost = true // if it is bound, the table replaces it
	}
	f()
	return nil
}

// findLocked returns the claim of a session.
func (c *claims) findLocked(s *Session, uid string) *claim {
	own := c.byUID[uid]
	for own != nil && own.session != s {
		own = own.older
	}
	return own
}

// boundLocked returns the newest claim that nobody has objected to.
func (c *claims) boundLocked(uid string) *claim {
	own := c.byUID[uid]
	for own != nil && (!own.bound || own.lost) {
		own = own.older
	}
	return own
}

// removeLocked takes the claim of a session out, and reports whether there was
// one.
func (c *claims) removeLocked(s *Session, uid string) bool {
	var newer *claim
	own := c.byUID[uid]
	for own != nil && own.session != s {
		newer, own = own, own.older
	}
	switch {
	case own == nil:
		return false
	case newer != nil:
		newer.older = own.older
	case own.older != nil:
		c.byUID[uid] = own.older
	default:
		delete(c.byUID, uid)
	}
	return true
}

// forget ends the claim of a session.
func (c *claims) forget(s *Session, uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(s, uid)
}
