package pitaya

import (
	"sync"
	"sync/atomic"
	"time"
)

// Claims that a frontend has not heard, because the way to it was cut, are put to it again: as long as they stand and it is
// known, and when it comes back.

const (
	// claimPause is the time between two attempts to have a claim heard.
	claimPause = time.Second
	// claimsInFlight bounds how many a frontend is asked at once in such an
	// attempt: an outage leaves one for each user that has logged in during it.
	claimsInFlight = 16
)

// unheardLocked notes that a bound user's claim was not heard by some frontends:
// in an outage of what leads to them a user can be bound on several. The claim
// is put to them until they answer or are gone, and again when they are back.
func (c *claims) unheardLocked(uid string, ids []string) {
	if len(ids) == 0 || c.closed {
		return
	}
	if c.unheard == nil {
		c.unheard = make(map[string]map[string]bool)
	}
	if c.unheard[uid] == nil {
		c.unheard[uid] = make(map[string]bool)
	}
	for _, id := range ids {
		c.unheard[uid][id] = true
	}
	if c.again == nil {
		c.againLocked()
	}
}

// maxGone bounds how many frontends are remembered that have vanished. Beyond it all are forgotten.
const maxGone = 1 << 8

// vanished is told that a frontend is not known any more, though it has not said that it ends: its lease may have been lost,
// and then it lives on with its users.
func (c *claims) vanished(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil || len(c.gone) >= maxGone {
		c.gone = make(map[string]uint64)
	}
	floor := c.last
	for _, own := range c.byUID {
		for ; own != nil; own = own.older {
			if !own.bound { // whether the frontend is asked, nobody knows
				floor = min(floor, own.stamp-1)
			}
		}
	}
	c.gone[id] = floor
}

// returned is told that such a frontend is known again. It is asked for the users that were bound meanwhile.
func (c *claims) returned(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	floor, ok := c.gone[id]
	if !ok {
		return
	}
	delete(c.gone, id)
	for uid := range c.byUID {
		if own := c.boundLocked(uid); own != nil && own.stamp > floor {
			c.unheardLocked(uid, []string{id})
		}
	}
}

// againLocked sets the timer for the next attempt.
func (c *claims) againLocked() {
	c.repeating.Add(1)
	c.again = time.AfterFunc(claimPause, func() {
		defer c.repeating.Done()
		c.repeat()
	})
}

// repeat puts the claims again that were not heard, to each frontend on its own:
// one that does not answer holds up no other. It returns when all that was asked
// is answered, and sets the timer again.
func (c *claims) repeat() {
	waiting := make(map[string][]string) // users by frontend
	c.mu.Lock()
	for uid, ids := range c.unheard {
		own := c.boundLocked(uid)
		for id := range ids {
			if own == nil || c.node.Members.get(id) == nil {
				delete(ids, id)
				if floor, ok := c.gone[id]; ok && own != nil {
					c.gone[id] = min(floor, own.stamp-1)
				}
				continue
			}
			waiting[id] = append(waiting[id], uid)
		}
		if len(ids) == 0 {
			delete(c.unheard, uid)
		}
	}
	c.mu.Unlock()
	var asking sync.WaitGroup
	for id, uids := range waiting {
		asking.Go(func() { c.askAgain(id, uids) })
	}
	asking.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = nil
	if len(c.unheard) > 0 && !c.closed {
		c.againLocked()
	}
}

// askAgain puts the claims of users to one frontend, some at a time. Once it has
// not answered, the rest is for the next attempt.
func (c *claims) askAgain(id string, uids []string) {
	var silent atomic.Bool
	slots := make(chan struct{}, claimsInFlight)
	take := func() bool {
		select {
		case slots <- struct{}{}:
			return true
		case <-c.quit:
			return false
		}
	}
	for _, uid := range uids {
		if !take() {
			return
		}
		m := c.node.Members.get(id)
		if m == nil || silent.Load() {
			<-slots
			break
		}
		c.askBack(m, uid, func(err error) {
			if err != nil {
				silent.Store(true)
			}
			<-slots
		})
	}
	for range cap(slots) { // until all have answered
		if !take() {
			return
		}
	}
}

// close ends the putting again, and waits until it has ended. Answers that are still on their
// way are not waited for: the transport's end is.
func (c *claims) close() {
	c.mu.Lock()
	if !c.closed {
		close(c.quit)
	}
	c.closed, c.unheard = true, nil
	if c.again != nil && c.again.Stop() { // true once
		c.repeating.Done()
	}
	c.mu.Unlock()
	c.repeating.Wait()
}
