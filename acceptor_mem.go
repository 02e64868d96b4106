// Connections within one process, for tests, bots and servers under testing/synctest.

package pitaya

import (
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// memBufferSize is how much one direction of a memory connection holds before a writer blocks, about what the
	// kernel gives a loopback socket.
	memBufferSize = 64 << 10

	// memBacklog is how many dialled connections wait for Accept, as in the kernel's queue: a dialler need not run at
	// the same time as the accepting loop.
	memBacklog = 128
)

// A MemListener is a [net.Listener] whose clients are in the same process and connect with [MemListener.DialContext].
// Its connections behave like TCP ones, with a buffer of 64 KiB in each direction, deadlines and half closing, but no
// system call is made: in a [testing/synctest] bubble a goroutine that waits for one blocks durably. There the listener
// must be made inside the bubble.
type MemListener struct {
	queue chan net.Conn
	done  chan struct{} // closed by Close
	close func()
	last  atomic.Uint64 // number of the last client, for its address
}

// ListenMem returns a listener in memory. It needs no address, any number of them can exist, and nothing but Close
// ends it.
func ListenMem() *MemListener {
	l := &MemListener{queue: make(chan net.Conn, memBacklog), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() {
		close(l.done)
		l.refuse()
	})
	return l
}

// Accept waits for the next client. After Close it returns [net.ErrClosed].
func (l *MemListener) Accept() (net.Conn, error) {
	select {
	case <-l.done: // first, where both are ready
		return nil, l.opError("accept", net.ErrClosed)
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, l.opError("accept", net.ErrClosed)
	}
}

// DialContext connects to the listener and returns the client's end. It waits only where 128 clients wait for Accept
// already, and fails when ctx ends or the listener is closed. Any number of goroutines may call it.
func (l *MemListener) DialContext(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, l.opError("dial", err)
	}
	select {
	case <-l.done:
		return nil, l.opError("dial", net.ErrClosed)
	default:
	}
	client, server := newMemPair(memAddr("mem:"+strconv.FormatUint(l.last.Add(1), 10)), memAddr("mem"))
	select {
	case l.queue <- server:
	case <-l.done:
		return nil, l.opError("dial", net.ErrClosed)
	case <-ctx.Done():
		return nil, l.opError("dial", ctx.Err())
	}
	select {
	case <-l.done:
		l.refuse() // Close may have emptied the queue before our connection was in it
	default:
	}
	return client, nil
}

// refuse closes the connections that nobody will accept. Callers have seen done closed.
func (l *MemListener) refuse() {
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return
		}
	}
}

// Close ends the listener: Accept and DialContext fail from now on, clients not yet accepted see the end of their
// connection, accepted ones stay. Further calls do nothing.
func (l *MemListener) Close() error {
	l.close()
	return nil
}

// Addr returns the address "mem" of the network "mem", which all memory listeners share.
func (l *MemListener) Addr() net.Addr { return memAddr("mem") }

func (l *MemListener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "mem", Addr: l.Addr(), Err: err}
}

// memAddr is the address of one end: "mem" for servers, "mem:" and a number for the clients of a listener.
type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }

// A memConn is one end of a connection in memory.
type memConn struct {
	in, out       *memPipe // immutable; the peer has them the other way round
	local, remote memAddr
}

// newMemPair connects two ends.
func newMemPair(client, server memAddr) (*memConn, *memConn) {
	a, b := newMemPipe(), newMemPipe()
	return &memConn{in: a, out: b, local: client, remote: server}, &memConn{in: b, out: a, local: server, remote: client}
}

func (c *memConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *memConn) LocalAddr() net.Addr         { return c.local }
func (c *memConn) RemoteAddr() net.Addr        { return c.remote }

// CloseWrite ends this direction: the peer reads what was written and then io.EOF.
func (c *memConn) CloseWrite() error { return c.out.closeWrite() }

// Close ends both directions. The peer can still read what was written here, as with TCP; its writes fail.
func (c *memConn) Close() error {
	err := c.in.closeRead()
	c.out.closeWrite()
	return err
}

func (c *memConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error  { return c.in.setDeadline(&c.in.reader, t) }
func (c *memConn) SetWriteDeadline(t time.Time) error { return c.out.setDeadline(&c.out.writer, t) }

// A memPipe is one direction: a bounded queue of bytes between any number of readers and writers.
type memPipe struct {
	mu      sync.Mutex
	changed sync.Cond // on mu; broadcast whenever any field below changes so that somebody may go on

	// The bytes on the way are block.b[off:]. A pipe that is empty has no block: connections that rest cost nothing.
	block *memBlock
	off   int

	reader, writer memEnd
	writing        bool // a Write is in progress: those of other goroutines wait, so that each one's bytes stay together
}

// A memEnd is what a pipe knows about its reader or its writer. The pipe's mu guards it.
type memEnd struct {
	closed  bool
	expired bool        // its deadline has passed
	timer   *time.Timer // sets expired; nil without a deadline to come
}

// A memBlock is the buffer of a pipe. It grows as needed up to memBufferSize, and blocks are reused as they are.
type memBlock struct{ b []byte }

var memBlocks = sync.Pool{New: func() any { return new(memBlock) }}

func newMemPipe() *memPipe {
	p := new(memPipe)
	p.changed.L = &p.mu
	return p
}

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.reader.closed:
			return 0, net.ErrClosed
		case p.reader.expired:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case p.block != nil:
			n := copy(b, p.block.b[p.off:])
			if p.off += n; p.off == len(p.block.b) {
				p.releaseLocked()
			}
			p.changed.Broadcast()
			return n, nil
		case p.writer.closed:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *memPipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ours := false
	defer func() {
		if ours {
			p.writing = false
			p.changed.Broadcast()
		}
	}()
	for {
		switch {
		case p.writer.closed:
			return n, net.ErrClosed
		case p.writer.expired:
			return n, os.ErrDeadlineExceeded
		case p.reader.closed:
			return n, io.ErrClosedPipe
		case len(b) == 0:
			return n, nil
		case ours || !p.writing:
			p.writing, ours = true, true
			if m := p.appendLocked(b); m > 0 {
				n, b = n+m, b[m:]
				p.changed.Broadcast()
				continue // for the end, or an error that would otherwise be missed
			}
		}
		p.changed.Wait()
	}
}

// readNow reads what is there, without waiting and whatever the deadline.
func (c *memConn) readNow(b []byte) int {
	p := c.in
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reader.closed || p.block == nil {
		return 0
	}
	n := copy(b, p.block.b[p.off:])
	if p.off += n; p.off == len(p.block.b) {
		p.releaseLocked()
	}
	p.changed.Broadcast()
	return n
}

// writeNow writes what there is room for, without waiting.
func (c *memConn) writeNow(b []byte) int {
	p := c.out
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writer.closed || p.reader.closed || p.writing {
		return 0
	}
	n := p.appendLocked(b)
	if n > 0 {
		p.changed.Broadcast()
	}
	return n
}

// appendLocked takes as much of b as there is room for.
func (p *memPipe) appendLocked(b []byte) int {
	if p.block == nil {
		p.block = memBlocks.Get().(*memBlock)
	}
	held := len(p.block.b) - p.off
	n := min(len(b), memBufferSize-held)
	if p.off > 0 && len(p.block.b)+n > cap(p.block.b) {
		p.block.b = p.block.b[:copy(p.block.b, p.block.b[p.off:])]
		p.off = 0
	}
	p.block.b = append(p.block.b, b[:n]...)
	return n
}

// releaseLocked gives the block back, with whatever is in it.
func (p *memPipe) releaseLocked() {
	if p.block != nil {
		p.block.b = p.block.b[:0]
		memBlocks.Put(p.block)
		p.block, p.off = nil, 0
	}
}

func (p *memPipe) closeRead() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked()
	return p.closeLocked(&p.reader)
}

func (p *memPipe) closeWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closeLocked(&p.writer)
}

func (p *memPipe) closeLocked(e *memEnd) error {
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	p.changed.Broadcast()
	return nil
}

func (p *memPipe) setDeadline(e *memEnd, t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.timer, e.expired = nil, false
	if !t.IsZero() {
		if d := time.Until(t); d <= 0 {
			e.expired = true
		} else {
			var timer *time.Timer
			timer = time.AfterFunc(d, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if e.timer == timer { // else Stop came too late
					e.timer, e.expired = nil, true
					p.changed.Broadcast()
				}
			})
			e.timer = timer
		}
	}
	p.changed.Broadcast()
	return nil
}
