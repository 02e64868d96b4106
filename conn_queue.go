package pitaya

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// connQueue is the sending half of a connection: packets that wait, and the
// right to write them.
//
// Whoever queues a packet and finds nobody writing takes the right to write
// and passes it to a goroutine, which drains the queue and ends. A goroutine
// that is about to be done anyway (the one that answers a client) queues
// without starting anybody and flushes at the end: what the socket takes
// without waiting leaves in one system call, and only the rest needs a
// goroutine.
type connQueue struct {
	mu      sync.Mutex    // guards the fields below; never held across I/O or a callback
	items   []outItem     // whole packets in order
	first   [1]outItem    // room for the first item, so that a single packet costs no allocation
	bytes   int           // of items, and of what is being written
	packets int           // likewise, in packets
	told    int           // of bytes, what the server's sum has of this connection (tellLocked)
	queued  int64         // bytes that were ever put into items, less those that were taken out unwritten
	taken   int64         // those of them that were taken out to be written
	writing int           // packets that were taken out last
	marks   *markList     // answers among what is queued or being written; nil if nobody wants to know
	ring    *pushRing     // pushes that the client may not have; nil if its session cannot be resumed. Of a connection that has ended: the session waits for another one.
	turn    writerState   // who writes
	stuck   bool          // the writer waits for a socket that takes nothing
	over    time.Duration // since when the queue is over its budget without anything having been taken, by the heartbeats' clock; 0 if it is not

	greeted     bool          // the handshake was answered
	working     bool          // and acknowledged
	stopWanted  bool          // reading is to stop when it is
	established bool          // the transport's handshake is done
	ended       atomic.Bool   // nothing is queued any more; cause is set. Changed with mu held only.
	cut         bool          // ended, and what was queued is not written, but for what was being written
	drained     bool          // ended, and nothing is written any more
	moved       bool          // the session goes on with another connection
	gone        bool          // the client has closed its side, and all of it was read
	cause       error         // why the connection ended
	limit       time.Duration // when writing must be over, by the heartbeats' clock; set when ended
	waiting     chan struct{} // closed when there is room again, the connection ended, or it drained; nil if nobody waits

	closeOnce sync.Once

	// Owned by who is writing.
	written int64      // bytes that the socket has taken
	single  [1]outItem // what is being written, if it is one item
}

// An outItem is one or more whole packets.
type outItem struct {
	B     []byte
	Chunk *buffer // whose bytes B are, to be freed after writing; nil if the bytes are shared
}

const (
	chunkSize = minBufferSize // small packets are copied together in chunks of this size
	writeSize = 64 << 10      // bytes that one write call sends at most, and by which a stalled socket is noticed
)

// packetOverhead is what a queued packet is charged beyond its own bytes, so
// that a budget of bytes bounds the memory of many small packets too.
const packetOverhead = 32

// endMode says what happens to queued packets when a connection ends.
type endMode uint8

const (
	endNow     endMode = iota // nothing more is written
	endPartial                // what is being written is completed, so that the stream ends with a whole packet
	endFlush                  // all that is queued is written, then the given packet
)

// writerState says who has the right to write.
type writerState uint8

const (
	writerNone    writerState = iota // nobody
	writerCalled                     // a goroutine is on its way; whoever comes first may take the right
	writerWorking                    // somebody writes
)

// sendClass says how a packet counts when the queue is full.
type sendClass uint8

const (
	sendPush   sendClass = iota // subject to the budget
	sendAnswer                  // always queued: who asks too fast is not read from (waitRoom)
)

// hasEnded reports whether the connection has ended.
func (c *conn) hasEnded() bool { return c.ended.Load() }

// queueLoad returns how many bytes, as the budget counts them, and packets wait
// to be written.
func (c *conn) queueLoad() (bytes, packets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() && c.ring != nil {
		return 0, 0 // nobody is slow; see kept
	}
	return c.bytes, c.packets
}

// tellLocked brings the server's sum of what waits up to date. It is called
// where something is going to wait, and where it has been written: what is
// queued and written at once, as most answers are, costs the sum nothing.
func (c *conn) tellLocked() {
	bytes := c.bytes
	if c.cut {
		bytes = 0 // at most the rest of a packet waits
	}
	if n := bytes - c.told; n != 0 {
		c.told = bytes
		c.traffic.QueueBytes.Add(int64(n))
	}
}

// sendMessage queues one message as a data packet. Its payload is copied. With
// start false the caller promises to call flush soon. What mark has is told when
// the message was written; it may be nil or empty.
func (c *conn) sendMessage(m Message, d *Dictionary, class sendClass, start bool, mark *writeMark) error {
	var space [1 + 10 + 1 + MaxRouteLength]byte
	payload := m.Payload
	m.Payload = nil
	head, err := AppendMessage(space[:0], m, d)
	if err != nil {
		return err
	}
	n := len(head) + len(payload)
	if n > MaxPacketSize {
		return fmt.Errorf("%w: message of %d bytes", ErrPacketTooLarge, n)
	}
	total := PacketHeaderSize + n
	c.mu.Lock()
	if class == sendPush && (c.ring != nil || c.moved) {
		c.mu.Unlock()
		return errKept
	}
	if err := c.admitLocked(total, class); err != nil {
		c.mu.Unlock()
		return err
	}
	b := c.chunkLocked(total + wsMaxHeader)
	if c.ws != nil {
		b = appendWSHeader(b, wsBinary, total)
	}
	b = append(b, 0, 0, 0, 0)
	putPacketHeader(b[len(b)-PacketHeaderSize:], PacketData, n)
	b = append(b, head...)
	b = append(b, payload...)
	c.setChunkLocked(b)
	if mark.wanted() {
		c.markLocked(mark)
	}
	c.queuedLocked(start)
	return nil
}

// sendShared queues a frame whose bytes other connections queue too.
func (c *conn) sendShared(f *sharedFrame) error {
	b := f.packet()
	if c.ws != nil {
		b = f.B
	}
	c.mu.Lock()
	if c.ring != nil || c.moved {
		return c.keepAndUnlock(f, b)
	}
	if err := c.admitLocked(len(b), sendPush); err != nil {
		c.mu.Unlock()
		return err
	}
	c.addLocked(outItem{B: b})
	c.queuedLocked(true)
	return nil
}

// sendControl queues a packet of the connection's own and tries to write it
// without waiting. The bytes are copied.
func (c *conn) sendControl(packet []byte) {
	c.mu.Lock()
	c.controlAndUnlock(packet)
}

// controlAndUnlock is sendControl with the lock held, which it releases.
func (c *conn) controlAndUnlock(packet []byte) {
	if c.ended.Load() {
		c.mu.Unlock()
		return
	}
	c.bytes += len(packet) + packetOverhead
	c.packets++
	b := c.chunkLocked(len(packet) + wsMaxHeader)
	c.setChunkLocked(c.appendFramed(b, packet))
	c.mu.Unlock()
	c.flush()
}

// sendFrame queues a WebSocket control frame. A client that sends pings and
// takes no pongs loses the pongs.
func (c *conn) sendFrame(op byte, payload []byte) {
	c.mu.Lock()
	if c.ended.Load() || c.bytes > c.cfg.QueueBytes {
		c.mu.Unlock()
		return
	}
	c.bytes += len(payload) + packetOverhead
	c.packets++
	b := c.chunkLocked(len(payload) + wsMaxHeader)
	c.setChunkLocked(appendWSFrame(b, op, false, payload))
	c.mu.Unlock()
	c.flush()
}

func (c *conn) appendFramed(b, packet []byte) []byte {
	if c.ws != nil {
		b = appendWSHeader(b, wsBinary, len(packet))
	}
	return append(b, packet...)
}

// admitLocked charges a packet to the budget, or says why it must not be
// queued, after it has applied the policy for slow clients. It may release and
// take the lock again.
func (c *conn) admitLocked(n int, class sendClass) error {
	if class == sendPush && !c.fitsLocked(n) {
		c.mu.Unlock()
		c.relieve(n)
		c.mu.Lock()
		if !c.fitsLocked(n) {
			return c.overBudgetLocked()
		}
	}
	if c.ended.Load() {
		return ErrSessionClosed
	}
	c.bytes += n + packetOverhead
	c.packets++
	return nil
}

// burstFactor and burstTime say when a client is too slow: when it is over its
// budget and has taken nothing for burstTime, or when it is over its budget
// burstFactor times. A burst, pushed before the client had the time to take
// any of it, is no reason to lose a client that reads.
const (
	burstFactor = 4
	burstTime   = time.Second
)

// fitsLocked reports whether a push is within the budget. One that is larger
// than all of it is, when nothing else is queued.
func (c *conn) fitsLocked(n int) bool {
	bytes, packets := c.bytes, c.packets
	if c.ring != nil {
		bytes, packets = bytes-c.ring.replayedBytes, packets-c.ring.replayedPackets
	}
	switch size := bytes + n + packetOverhead; {
	case c.ended.Load(), packets <= 0:
		return true
	case c.cfg.QueueMessages > 0 && packets >= c.cfg.QueueMessages:
		return false
	case size <= c.cfg.QueueBytes:
		return true
	case size/burstFactor > c.cfg.QueueBytes: // a product could overflow
		return false
	case c.over == 0:
		c.over = max(c.cfg.Beats.now(), 1)
		return true
	}
	return c.cfg.Beats.now()-c.over < burstTime
}

// tookLocked gives written bytes back to the budget.
func (c *conn) tookLocked(n int) {
	c.bytes -= n
	if c.ring != nil { // what is repeated comes first
		c.ring.replayedBytes = max(c.ring.replayedBytes-n, 0)
	}
	if n > 0 {
		c.over = 0
	}
	if c.bytes <= c.cfg.QueueBytes {
		c.wakeLocked()
	}
}

// overBudgetLocked applies the policy for slow clients. It releases the lock
// for a moment.
func (c *conn) overBudgetLocked() error {
	if c.cfg.DropWhenSlow {
		c.cfg.Counters.PushesDropped.Add(1)
		return ErrSlowClient
	}
	c.mu.Unlock()
	c.end(ErrSlowClient, endPartial, nil)
	c.mu.Lock()
	return ErrSlowClient
}

// chunkLocked returns the bytes of the last chunk, with room for n more, to
// append to; setChunkLocked takes the result.
func (c *conn) chunkLocked(n int) []byte {
	if k := len(c.items); k > 0 {
		if last := &c.items[k-1]; last.Chunk != nil && cap(last.B)-len(last.B) >= n {
			return last.B
		}
	}
	chunk := getBuffer(max(n, chunkSize))
	c.addLocked(outItem{B: chunk.B, Chunk: chunk})
	return chunk.B
}

func (c *conn) setChunkLocked(b []byte) {
	last := &c.items[len(c.items)-1]
	c.queued += int64(len(b) - len(last.B))
	last.B = b
}

func (c *conn) addLocked(it outItem) {
	if c.items == nil {
		c.items = c.first[:0]
	}
	c.items = append(c.items, it)
	c.queued += int64(len(it.B))
}

// queuedLocked unlocks, after a packet was queued. With start it makes sure
// that somebody writes.
func (c *conn) queuedLocked(start bool) {
	if start {
		c.tellLocked()
		start = c.callLocked()
	}
	c.mu.Unlock()
	if start {
		c.startCall()
	}
}

// callLocked reports whether a goroutine must be started to write, which the
// caller does then, with startCall.
func (c *conn) callLocked() bool {
	if c.turn != writerNone {
		return false
	}
	c.turn = writerCalled
	c.cfg.Writers.Add(1)
	return true
}

// startCall sees to it that the call is answered, soon.
func (c *conn) startCall() {
	if c.raw == nil {
		go c.answerCall(true)
		return
	}
	c.flusher.call(c)
}

// answerCall is what was called to write. It finds nothing to do if somebody was
// quicker.
func (c *conn) answerCall(mayWait bool) {
	defer c.cfg.Writers.Done()
	c.mu.Lock()
	if c.turn != writerCalled {
		c.mu.Unlock()
		return
	}
	c.turn = writerWorking
	items, cost, packets := c.takeItemsLocked()
	c.mu.Unlock()
	c.drain(items, cost, packets, mayWait)
}

// start makes sure that a goroutine writes what is queued.
func (c *conn) start() {
	c.mu.Lock()
	if len(c.items) == 0 {
		c.mu.Unlock()
		return
	}
	c.queuedLocked(true)
}

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

// lastWritten tells the client that nothing follows. The reading goroutine
// closes the socket when the client has closed its side, or when lingerTime is
// over. If the client has done so already, it waits for this only.
func (c *conn) lastWritten() {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return
	}
	c.rwc.SetReadDeadline(time.Now().Add(lingerTime))
	if half, ok := c.body.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		c.closeSocket()
	}
}

// end ends the connection with a cause. The first call counts; a later one can
// only hasten the end with endNow. It may be called from any goroutine and does
// not block. With endFlush, last is a packet to be sent behind what is queued.
// It reports whether it was the first, and the session's end.
func (c *conn) end(cause error, mode endMode, last []byte) bool {
	return c.endWith(cause, mode, last, wsCloseCodeOf(cause), false)
}

// lose is end for what nobody has done on purpose: if the session can be
// resumed, it waits for another connection.
func (c *conn) lose(cause error, mode endMode) bool {
	return c.endWith(cause, mode, nil, wsCloseCodeOf(cause), true)
}

func (c *conn) endWith(cause error, mode endMode, last []byte, wsCode uint16, lost bool) bool {
	c.mu.Lock()
	if !c.established {
		mode = endNow
	}
	first := !c.ended.Load()
	var dropped *markList
	if first {
		c.cause = cause
		c.ended.Store(true)
		if lost = lost && c.ring != nil && c.working; !lost {
			c.ring = nil
		}
		c.limit = c.cfg.Beats.now() + c.cfg.WriteTimeout
		if mode != endFlush {
			// What is being written has already been taken from the queue.
			for i := range c.items {
				c.items[i].free()
			}
			c.items = nil
			c.queued, c.packets = c.taken, min(c.packets, c.writing)
			dropped = c.cutMarksLocked(c.taken)
			c.cut = true
		}
		if mode == endFlush && len(last) > 0 {
			c.bytes += len(last) + packetOverhead
			c.packets++
			c.setChunkLocked(c.appendFramed(c.chunkLocked(len(last)+wsMaxHeader), last))
		}
		if mode != endNow && c.ws != nil && wsCode != wsCloseNone {
			c.setChunkLocked(appendWSClose(c.chunkLocked(wsMaxHeader+wsMaxControl), wsCode, "", false))
		}
	}
	if mode == endNow {
		c.drained, c.cut = true, true
	}
	c.tellLocked()
	c.wakeLocked()
	start := first && mode != endNow && c.callLocked()
	user, moved := c.user, c.moved
	c.mu.Unlock()
	dropped.drop()
	if first {
		user.closed(c, cause, lost)
	}
	switch {
	case mode == endNow:
		c.closeSocket()
	case start:
		c.startCall()
	}
	return first && !moved
}

// wsCloseNone says that no close frame is sent. It is no status.
const wsCloseNone = 0

// wsCloseCodeOf chooses the status of the close frame (RFC 6455, section 7.4).
func wsCloseCodeOf(cause error) uint16 {
	var we *wsError
	switch {
	case errors.As(cause, &we):
		return we.closeCode()
	case errors.Is(cause, ErrServerClosed):
		return wsCloseGoingAway
	case errors.Is(cause, ErrPacketTooLarge):
		return wsCloseTooBig
	case errors.Is(cause, ErrProtocol), errors.Is(cause, errRefused), errors.Is(cause, ErrSlowClient), errors.Is(cause, ErrTooManyRequests):
		return wsClosePolicy
	case errors.Is(cause, errInternal):
		return wsCloseInternal
	}
	return wsCloseNormal
}

// A sharedFrame is one push, encoded once, in the form of both framings: a
// WebSocket frame whose payload is the packet. Its bytes are never changed, so
// any number of queues may hold them.
type sharedFrame struct {
	B    []byte
	Head int // length of the WebSocket frame's header
}

func (f *sharedFrame) packet() []byte { return f.B[f.Head:] }

// newSharedFrame encodes m.
func newSharedFrame(m Message, d *Dictionary) (*sharedFrame, error) {
	var space [1 + 10 + 1 + MaxRouteLength]byte
	payload := m.Payload
	m.Payload = nil
	head, err := AppendMessage(space[:0], m, d)
	if err != nil {
		return nil, err
	}
	n := len(head) + len(payload)
	if n > MaxPacketSize {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrPacketTooLarge, n)
	}
	b := make([]byte, 0, wsMaxHeader+PacketHeaderSize+n)
	b = appendWSHeader(b, wsBinary, PacketHeaderSize+n)
	f := &sharedFrame{Head: len(b)}
	b = append(b, 0, 0, 0, 0)
	putPacketHeader(b[f.Head:], PacketData, n)
	b = append(b, head...)
	f.B = append(b, payload...)
	return f, nil
}
