// Writing: who has the right to it drains the queue.

package pitaya

import (
	"errors"
	"net"
	"runtime"
	"time"
)

// flush writes what is queued, in the caller's goroutine as far as the socket
// takes it without waiting, else in a goroutine.
func (c *conn) flush() {
	c.mu.Lock()
	if c.turn == writerWorking || len(c.items) == 0 {
		c.tellLocked()
		c.mu.Unlock()
		return
	}
	if c.raw == nil {
		c.queuedLocked(true)
		return
	}
	c.turn = writerWorking
	items, cost, packets := c.takeItemsLocked()
	c.mu.Unlock()
	c.drain(items, cost, packets, false)
}

// takeItemsLocked takes what is queued, to be written by who calls it, and
// returns what it is charged with.
func (c *conn) takeItemsLocked() (items []outItem, cost, packets int) {
	if items = c.items; len(items) == 1 {
		// The next packet may be queued in the place of this one.
		c.single[0] = items[0]
		items = c.single[:]
	}
	c.items, c.first[0] = nil, outItem{}
	c.taken, c.writing = c.queued, c.packets
	return items, c.bytes, c.packets
}

// relieve is called when a push of n bytes exceeds the budget. Perhaps the client would
// take what is queued, and the writer has just not come to it yet: the
// processor belongs to the goroutine that pushes.
func (c *conn) relieve(n int) {
	c.flush()
	for range relieveRounds {
		c.mu.Lock()
		done := c.stuck || c.fitsLocked(n)
		c.mu.Unlock()
		if done {
			return
		}
		runtime.Gosched()
	}
}

// relieveRounds bounds how often a push lets others go first. It does not wait
// for the client: a socket that takes nothing ends it at once.
const relieveRounds = 32

// waitRoom waits until the queue is within its budget, or the connection has
// ended. Answers are always queued; this is where a client that asks faster
// than it takes the answers is slowed down.
func (c *conn) waitRoom() {
	c.mu.Lock()
	for c.bytes > c.cfg.QueueBytes && !c.ended.Load() {
		woken := c.waitingLocked()
		c.mu.Unlock()
		c.start()
		<-woken
		c.mu.Lock()
	}
	c.mu.Unlock()
}

// awaitDrained waits until a connection that has ended writes nothing any more.
func (c *conn) awaitDrained() {
	c.mu.Lock()
	for !c.drained {
		woken := c.waitingLocked()
		c.mu.Unlock()
		<-woken
		c.mu.Lock()
	}
	c.mu.Unlock()
}

func (c *conn) waitingLocked() <-chan struct{} {
	if c.waiting == nil {
		c.waiting = make(chan struct{})
	}
	return c.waiting
}

func (c *conn) wakeLocked() {
	if c.waiting != nil {
		close(c.waiting)
		c.waiting = nil
	}
}

// drain writes until the queue is empty, beginning with items that were taken
// from it before; cost and packets are what those are charged with. The caller
// has the right to write and gives it up. If its goroutine must not wait for
// the socket, what the socket does not take is left to one that may.
func (c *conn) drain(items []outItem, cost, packets int, mayWait bool) {
	for {
		if len(items) > 0 {
			left, err := c.write(items, &cost, mayWait)
			c.single[0] = outItem{} // an idle connection keeps no bytes alive
			if err != nil {
				c.writeFailed(err)
				return
			}
			if len(left) > 0 {
				c.cfg.Writers.Add(1)
				go c.drainInBackground(left, cost, packets)
				return
			}
			c.traffic.SentPackets.Add(int64(packets))
		}
		c.mu.Lock()
		c.tookLocked(cost)
		c.packets -= packets
		c.writing = 0
		if c.ring != nil {
			c.ring.replayedPackets = max(c.ring.replayedPackets-packets, 0)
		}
		if len(items) > 0 {
			c.tellLocked()
		}
		if list := c.writtenLocked(); list != nil {
			c.mu.Unlock()
			list.report()
			c.mu.Lock()
		}
		if len(items) > 0 && len(c.items) > 0 && !mayWait {
			// One round is what the caller does in passing: the heartbeats of
			// all connections must not stay with one that is pushed to without
			// a pause.
			c.turn = writerNone
			c.queuedLocked(true)
			return
		}
		if len(c.items) == 0 {
			c.turn = writerNone
			if c.ring != nil {
				c.ring.replayedBytes, c.ring.replayedPackets = 0, 0
			}
			over := c.ended.Load() && !c.drained
			if over {
				c.drained = true
				c.wakeLocked()
			}
			c.mu.Unlock()
			if over {
				c.lastWritten()
			}
			return
		}
		items, cost, packets = c.takeItemsLocked()
		c.mu.Unlock()
	}
}

// drainInBackground is drain in a goroutine of its own, which may wait.
func (c *conn) drainInBackground(items []outItem, cost, packets int) {
	defer c.cfg.Writers.Done()
	c.drain(items, cost, packets, true)
}

// write writes items in order. If it must not wait it returns those that the
// socket did not take. What was written is taken off cost and the budget as it
// goes, so that a client that reads slowly but steadily gets the room at once.
func (c *conn) write(items []outItem, cost *int, mayWait bool) (left []outItem, err error) {
	for len(items) > 0 {
		var it outItem
		it, items = gather(items)
		var n int
		n, err = c.tryWrite(it.B)
		c.countWritten(n)
		if rest := it.B[n:]; err == nil && len(rest)+len(items) > 0 {
			c.wrote(n, cost)
			if len(rest) > 0 && !mayWait {
				it.B = rest
				return append([]outItem{it}, items...), nil
			}
			err = c.writeWaiting(rest, cost)
		}
		it.free()
		if err != nil {
			for _, it := range items {
				it.free()
			}
			return nil, err
		}
	}
	return nil, nil
}

// wrote gives written bytes back to the budget, and takes them off cost.
func (c *conn) wrote(n int, cost *int) {
	c.mu.Lock()
	c.tookLocked(n)
	*cost -= n
	c.tellLocked()
	list := c.writtenLocked()
	c.mu.Unlock()
	list.report()
}

// countWritten counts bytes that the socket has taken.
func (c *conn) countWritten(n int) {
	if n > 0 {
		c.written += int64(n)
		c.traffic.SentBytes.Add(int64(n))
	}
}

func (it *outItem) free() {
	if it.Chunk != nil {
		it.Chunk.free()
		it.Chunk = nil
	}
}

// gather takes from the front of items what one write call is to send. Small
// items are copied together, which costs less than handing the kernel a list
// of them.
func gather(items []outItem) (it outItem, rest []outItem) {
	size, k := 0, 0
	for k < len(items) && size+len(items[k].B) <= writeSize {
		size += len(items[k].B)
		k++
	}
	if k <= 1 {
		return items[0], items[1:]
	}
	chunk := getBuffer(size)
	b := chunk.B
	for i := range items[:k] {
		b = append(b, items[i].B...)
		items[i].free()
	}
	return outItem{B: b, Chunk: chunk}, items[k:]
}

// writeWaiting writes b, waiting for the socket. The socket must take something
// within the write timeout, again and again.
func (c *conn) writeWaiting(b []byte, cost *int) error {
	if len(b) == 0 {
		return nil
	}
	defer c.setStuck(false)
	if m, ok := c.body.(*memConn); ok {
		// What fits now is no progress in the time to come.
		n := m.writeNow(b)
		c.countWritten(n)
		b = b[n:]
		c.wrote(n, cost)
	}
	for len(b) > 0 {
		deadline := time.Now().Add(c.cfg.WriteTimeout)
		if limit, ok := c.setStuck(c.raw != nil); ok && limit.Before(deadline) {
			deadline = limit
		}
		if err := c.body.SetWriteDeadline(deadline); err != nil {
			return err
		}
		n, err := c.body.Write(b[:min(len(b), writeSize)])
		c.countWritten(n)
		b = b[n:]
		c.wrote(n, cost)
		var timeout net.Error
		if err != nil && c.cuts && n > 0 && errors.As(err, &timeout) && timeout.Timeout() {
			continue // slow, but alive
		}
		if err != nil {
			return err
		}
	}
	// tryWrite would fail once the deadline has passed.
	return c.body.SetWriteDeadline(time.Time{})
}

// setStuck says whether the writer waits for a socket that took nothing. It
// returns when writing must be over, if the connection has ended.
func (c *conn) setStuck(stuck bool) (limit time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck = stuck
	return c.cfg.Beats.at(c.limit), c.ended.Load()
}

// writeFailed ends the connection after a failed write: part of a packet may
// be on the wire, so nothing can follow. The right to write is not given up,
// so that nobody tries.
func (c *conn) writeFailed(err error) {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = ErrSlowClient
	}
	c.mu.Lock()
	var done, lost *markList
	if !c.ended.Load() { // else nobody waits for answers any more
		done = c.writtenLocked()
		lost = c.takeMarksLocked(c.taken)
	}
	dropped := c.cutMarksLocked(-1)
	c.mu.Unlock()
	done.report()
	lost.fail()
	dropped.drop()
	c.lose(err, endNow)
}
