package pitaya

import (
	"sync"
	"sync/atomic"
	"time"
)

// A read that fills less than it could has taken all there was, and the next one
// would only say so: half of the reading of a busy connection would be calls
// that find nothing. The poller tells when there is more, so the reader goes on
// to wait for that (rawReader.tryRead). But it tells once for all that comes
// together: when the end of the stream was there with the last data, nobody
// would learn of it. So such a connection stands on a list, and one on which
// nothing has been read for a while is looked at, without reading.

// endChecks is the list, for all connections of a server. A connection that is
// busy stays on it; one that is idle is looked at once, and taken off.
type endChecks struct {
	tick atomic.Uint32 // number of the current period

	mu     sync.Mutex // guards the fields below
	list   []*conn
	timer  *time.Timer // nil before the first connection
	armed  bool        // it will fire
	closed bool
}

// checkPeriod is how long nothing must have been read, at least; twice that at
// most. It is how late the end of a stream can be noticed that came together
// with data.
const checkPeriod = 20 * time.Millisecond

// endCheck is a connection's place in the list.
type endCheck struct {
	Listed atomic.Bool
	Last   atomic.Uint32 // period of the last read
	Found  atomic.Bool   // there is something to read that the poller has not told of
}

// expect puts c on the list, because what it reads was not read to its end. It
// is called by the reading goroutine.
func (e *endChecks) expect(c *conn) {
	if now := e.tick.Load(); c.Check.Last.Load() != now {
		c.Check.Last.Store(now)
	}
	if c.Check.Listed.Load() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	c.Check.Listed.Store(true)
	e.list = append(e.list, c)
	if e.armed {
		return
	}
	e.armed = true
	if e.timer == nil {
		e.timer = time.AfterFunc(checkPeriod, e.look)
	} else {
		e.timer.Reset(checkPeriod)
	}
}

// look runs in the timer's goroutine, once in a period.
func (e *endChecks) look() {
	now := e.tick.Add(1)
	var idle []*conn
	e.mu.Lock()
	keep := e.list[:0]
	for _, c := range e.list {
		switch {
		case c.hasEnded():
			c.Check.Listed.Store(false)
		case now-c.Check.Last.Load() < 2:
			keep = append(keep, c)
		default:
			c.Check.Listed.Store(false) // first: what is read from now on lists it again
			idle = append(idle, c)
		}
	}
	clear(e.list[len(keep):])
	e.list = keep
	if len(keep) == 0 && cap(keep) > maxFlushList {
		e.list = nil
	}
	e.armed = len(keep) > 0 && !e.closed
	if e.armed {
		e.timer.Reset(checkPeriod)
	}
	e.mu.Unlock()
	for _, c := range idle {
		if c.unread() {
			c.Check.Found.Store(true)
			c.setReadDeadline(time.Now()) // wakes the reader
		}
	}
}

// stop ends the looking. What is on the list ends otherwise.
func (e *endChecks) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

// found reports whether a read was ended by its deadline because there is
// something to read, and takes the deadline off then. It is called by the
// reading goroutine. If reading is to stop the deadline may mean that, and the
// stopping looks at what there is as well.
func (c *conn) found() bool {
	if !c.Check.Found.Swap(false) {
		return false
	}
	c.setReadDeadline(time.Time{}) // first: stopping is set before its deadline
	return !c.stopping.Load()
}

// takeNow passes on n bytes that were just read into the empty c.in, if they are
// whole data packets that the user takes without waiting, which is what most
// reads bring. It reports false if they are to be treated as usual. It must do
// nothing that waits or that closes the socket: the poller is in use.
func (c *conn) takeNow(n int) bool {
	if c.state != stateWorking || c.ws != nil || c.stopping.Load() || c.hasEnded() {
		return false
	}
	b := c.in.B[:n]
	packets := 0
	for rest := b; len(rest) > 0; packets++ {
		if len(rest) < PacketHeaderSize {
			return false
		}
		t, size, err := DecodePacketHeader(rest)
		if err != nil || t != PacketData || size > c.cfg.MaxPacket || len(rest) < PacketHeaderSize+size {
			return false
		}
		rest = rest[PacketHeaderSize+size:]
	}
	if !c.user.hasRoom(c, packets, n) {
		return false
	}
	c.traffic.ReceivedBytes.Add(int64(n))
	c.traffic.ReceivedPackets.Add(int64(packets))
	c.Beat.Seen.Store(int64(c.cfg.Beats.now()))
	c.user.data(c, b)
	return true
}
