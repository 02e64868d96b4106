package pitaya

import (
	"fmt"
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
