package pitaya

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What lets a session go on with another connection: the pushes that its client
// may not have received stay in a ring, as the frames that the queue holds. The
// ring belongs to the connection, and its lock guards both, so that their order
// is one; when the session gets another connection the ring goes there, in one
// step, with what the client is missing in the new queue before anything else.

// pushRing counts the pushes of a session, from 1, and keeps the last of them.
// The lock of the connection that it belongs to guards it.
type pushRing struct {
	// Immutable.
	maxPushes, maxBytes int

	frames []*sharedFrame // those kept, the newest last; used as a ring
	first  int            // index in frames of the oldest
	n      int            // how many
	bytes  int            // what they are charged
	sent   int64          // the number of the newest push of all
	acked  int64          // the client has said that it has those up to here
	taken  int64          // those up to here were put into the queue of a connection

	// What the present connection is charged for pushes that it has to repeat and
	// that were not written yet: they are not its client's slowness.
	replayedBytes, replayedPackets int
}

func newPushRing(maxPushes, maxBytes int) *pushRing {
	return &pushRing{maxPushes: maxPushes, maxBytes: maxBytes}
}

// cost is what a push is charged to the bound in bytes.
func (*pushRing) cost(f *sharedFrame) int { return len(f.B) + packetOverhead }

// room makes room for a push by forgetting the oldest ones that some connection
// has taken. It reports false if that is not enough. One that is larger than all
// of the bound passes when nothing else is kept.
func (r *pushRing) room(f *sharedFrame) bool {
	for r.n > 0 && (r.n >= r.maxPushes || r.bytes+r.cost(f) > r.maxBytes) {
		if r.sent-int64(r.n) >= r.taken {
			return false
		}
		r.drop()
	}
	return true
}

// add keeps a push, for which there is room.
func (r *pushRing) add(f *sharedFrame, taken bool) {
	if r.n == len(r.frames) {
		grown := make([]*sharedFrame, min(max(2*r.n, 8), r.maxPushes))
		for i := range r.n {
			grown[i] = r.at(i)
		}
		r.frames, r.first = grown, 0
	}
	r.frames[(r.first+r.n)%len(r.frames)] = f
	r.n++
	r.bytes += r.cost(f)
	r.sent++
	if taken {
		r.taken = r.sent
	}
}

// at returns the frame kept at a place, the oldest being at 0.
func (r *pushRing) at(i int) *sharedFrame { return r.frames[(r.first+i)%len(r.frames)] }

// drop forgets the oldest push.
func (r *pushRing) drop() {
	r.bytes -= r.cost(r.at(0))
	r.frames[r.first] = nil
	r.first = (r.first + 1) % len(r.frames)
	if r.n--; r.n == 0 {
		r.frames, r.first = nil, 0 // most clients are pushed to now and then
	}
}

// received forgets the pushes up to a number.
func (r *pushRing) received(n int64) {
	r.acked = n
	for r.n > 0 && r.sent-int64(r.n) < n {
		r.drop()
	}
}

// covers reports whether all pushes behind a number are kept.
func (r *pushRing) covers(n int64) bool { return n >= r.sent-int64(r.n) && n <= r.sent }

var (
	// errKept is that the pushes of a connection go through a ring: they must be
	// frames.
	errKept = errors.New("pitaya: push wanted as a frame")
	// errMoved is that the session goes on with another connection, which is
	// known by then.
	errMoved = errors.New("pitaya: the session has another connection")
	// errRingFull is that a session waits for its client, and more was pushed than
	// can be kept.
	errRingFull = errors.New("pitaya: more was pushed than is kept for a client that is away")
	// errGap is that pushes which the client is missing are not there any more.
	errGap = errors.New("pitaya: pushes that the client is missing are not kept any more")
	// errReceivedCount is a violation.
	errReceivedCount = fmt.Errorf("%w: more pushes received than sent", ErrProtocol)
)

// keepAndUnlock queues a push, b being its bytes as the connection sends them,
// and keeps it. Of a connection that has ended it is kept only.
func (c *conn) keepAndUnlock(f *sharedFrame, b []byte) error {
	relieved := false
	for {
		switch {
		case c.moved:
			c.mu.Unlock()
			return errMoved
		case c.ring == nil: // it was ended meanwhile, on purpose
			c.mu.Unlock()
			return ErrSessionClosed
		case c.ended.Load():
			defer c.mu.Unlock()
			if !c.ring.room(f) {
				return errRingFull
			}
			c.ring.add(f, false)
			return nil
		case c.fitsLocked(len(b)):
			c.ring.taken = c.ring.sent // whatever is kept was queued
			c.ring.room(f)
			c.ring.add(f, true)
			c.bytes += len(b) + packetOverhead
			c.packets++
			c.addLocked(outItem{B: b})
			c.queuedLocked(true)
			return nil
		case relieved:
			err := c.overBudgetLocked()
			c.mu.Unlock()
			return err
		}
		relieved = true
		c.mu.Unlock()
		c.relieve(len(b))
		c.mu.Lock()
	}
}

// sendAnswer queues the answer to a handshake. Pushes behind it are counted, and
// kept in ring, if that is not nil; one that was there before is given up.
func (c *conn) sendAnswer(answer []byte, ring *pushRing) {
	c.mu.Lock()
	if !c.ended.Load() {
		c.ring = ring
	}
	c.controlAndUnlock(answer)
}

// resumable reports whether pushes are kept.
func (c *conn) resumable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring != nil
}

// kept returns how many bytes and pushes are kept for a client that is away.
func (c *conn) kept() (bytes, pushes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ring == nil || !c.ended.Load() {
		return 0, 0
	}
	return c.ring.bytes, c.ring.n
}

// lossCause returns why the connection has ended, and whether a session waits on
// it.
func (c *conn) lossCause() (cause error, waits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause, c.ended.Load() && c.ring != nil
}

// forgetPushes is called when a session ends that would have waited, or has.
func (c *conn) forgetPushes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring = nil
}

// covers reports whether a client that has received so many pushes can have all
// behind them.
func (c *conn) covers(received int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring != nil && c.ring.covers(received)
}

// receivedSize is the length of a count of pushes in the body of a heartbeat.
const receivedSize = 4

// pushesReceived takes note of how many pushes the client has received, modulo
// 2^32.
func (c *conn) pushesReceived(body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.ring
	if r == nil {
		return nil // a heartbeat with a body, which says nothing
	}
	more := int64(binary.BigEndian.Uint32(body) - uint32(r.acked))
	if r.acked+more > r.sent {
		return errReceivedCount
	}
	r.received(r.acked + more)
	return nil
}

// inherit makes c go on where old has ended or is about to end: with its pushes,
// those first that the client has not received. switched is called in the moment
// of the change, with both locks held. The caller is the reading goroutine of c,
// and sees to it that a connection is handed on by one goroutine at a time.
func (c *conn) inherit(old *conn, received int64, user connUser, switched func()) error {
	old.mu.Lock()
	defer old.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := old.ring
	switch {
	case c.ended.Load():
		return errConnEnded
	case r == nil:
		return ErrSessionClosed
	case !r.covers(received):
		return errGap
	}
	old.ring, old.moved = nil, true
	r.received(received)
	r.replayedBytes, r.replayedPackets = 0, 0
	for i := range r.n {
		f := r.at(i)
		b := f.packet()
		if c.ws != nil {
			b = f.B
		}
		r.replayedBytes += len(b) + packetOverhead
		r.replayedPackets++
		c.addLocked(outItem{B: b})
	}
	c.bytes += r.replayedBytes
	c.packets += r.replayedPackets
	r.taken = r.sent
	c.ring, c.user, c.working = r, user, true
	c.tellLocked()
	switched()
	return nil
}
