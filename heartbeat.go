package pitaya

import (
	"sync"
	"time"
)

// heartbeats sends the heartbeats of all connections of a server and finds the
// ones that have gone silent (client protocol, section 6).
//
// All connections have the same interval, so the list, to whose end a
// connection goes when it is added and after each tick, is sorted by due time,
// or nearly so when the process has slept: one timer for its head serves the
// whole server, and an idle connection costs two pointers and a number.
type heartbeats struct {
	interval time.Duration // immutable
	epoch    time.Time     // immutable; due times and life signs are counted from here

	mu         sync.Mutex // guards the fields below and the list's links; never held while writing
	head, tail *conn
	timer      *time.Timer // set for head's due time; nil before the first connection
	closed     bool
}

// newHeartbeats returns a structure for connections with the given interval.
// With an interval of zero or less the list is kept, but nothing is sent and
// nobody is ended.
func newHeartbeats(interval time.Duration) *heartbeats {
	return &heartbeats{interval: interval, epoch: time.Now()}
}

// now is the time since the epoch.
func (h *heartbeats) now() time.Duration { return time.Since(h.epoch) }

// at is the time of which now was d.
func (h *heartbeats) at(d time.Duration) time.Time { return h.epoch.Add(d) }

// add puts a connection on the list; its first tick is one interval from now.
func (h *heartbeats) add(c *conn) {
	now := h.now()
	c.Beat.Seen.Store(int64(now))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.appendLocked(c, now+h.interval)
	if h.head == c && h.interval > 0 && !h.closed {
		h.armLocked(now)
	}
}

// remove takes a connection off the list. It may be called at any time, and
// more than once.
func (h *heartbeats) remove(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unlinkLocked(c)
}

// abort ends all connections at once.
func (h *heartbeats) abort(cause error) {
	h.mu.Lock()
	var list []*conn
	for c := h.head; c != nil; c = c.Beat.Next {
		list = append(list, c)
	}
	h.mu.Unlock()
	for _, c := range list {
		c.end(cause, endNow, nil)
	}
}

// stop ends the structure: its timer fires no more.
func (h *heartbeats) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

// tick runs in the timer's goroutine. It handles each connection that is due.
func (h *heartbeats) tick() {
	for {
		h.mu.Lock()
		now := h.now()
		c := h.head
		if c == nil || h.closed {
			h.mu.Unlock()
			return
		}
		due := c.Beat.Due
		if due > now {
			h.armLocked(now)
			h.mu.Unlock()
			return
		}
		h.unlinkLocked(c)
		// A tick that is late by an interval and more means that the process
		// slept, not the client: its packets are still unread. The count
		// starts again.
		slept := now-due > h.interval
		if slept {
			due = now
			c.Beat.Seen.Store(int64(now))
		}
		// Judged by when the tick was due, not by when it was served: a late
		// timer must not shorten anybody's time. A connection that we do not
		// read from, because its mailbox is full, is not silent.
		silent := due - time.Duration(c.Beat.Seen.Load())
		dead := silent > 2*h.interval && !c.Beat.Held.Load()
		if !dead {
			h.appendLocked(c, due+h.interval)
		}
		h.mu.Unlock()
		if dead {
			c.lose(ErrHeartbeat, endNow)
		} else {
			c.heartbeat()
		}
	}
}

func (h *heartbeats) armLocked(now time.Duration) {
	d := max(h.head.Beat.Due-now, 0)
	if h.timer == nil {
		h.timer = time.AfterFunc(d, h.tick)
	} else {
		h.timer.Reset(d)
	}
}

func (h *heartbeats) appendLocked(c *conn, due time.Duration) {
	b := &c.Beat
	b.Due, b.On = due, true
	b.Prev, b.Next = h.tail, nil
	if h.tail != nil {
		h.tail.Beat.Next = c
	} else {
		h.head = c
	}
	h.tail = c
}

func (h *heartbeats) unlinkLocked(c *conn) {
	b := &c.Beat
	if !b.On {
		return
	}
	if b.Prev != nil {
		b.Prev.Beat.Next = b.Next
	} else {
		h.head = b.Next
	}
	if b.Next != nil {
		b.Next.Beat.Prev = b.Prev
	} else {
		h.tail = b.Prev
	}
	b.Prev, b.Next, b.On = nil, nil, false
}
