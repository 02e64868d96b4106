package pitaya

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"
)

// A grpcNetConn is a connection whose writes leave together. HTTP/2 in net/http writes by a system call for each half of
// a message, headers and data, and each call has its own goroutine; those are most of what a call costs. Here what is
// written waits for a goroutine, which lets those go first that can run and may have something to write too, and sends
// all of it at once. When there is nobody else it does not wait.
//
// An error of the socket comes back from the next Write. Deadlines for writing have no effect: a socket that takes
// nothing for grpcWriteTimeout ends the connection.
type grpcNetConn struct {
	net.Conn

	mu     sync.Mutex // guards the fields below; never held while writing
	change sync.Cond  // told when what waited was taken, or the writer has ended
	queue  []byte     // what waits
	spare  []byte     // room for the next queue, empty
	busy   bool       // there is a writer, or one is on its way
	closed bool       // Close was called
	err    error      // of the socket
}

const (
	// grpcCloseTime bounds the wait of Close for a socket that takes nothing.
	grpcCloseTime = 100 * time.Millisecond
)

func newGRPCNetConn(c net.Conn) *grpcNetConn {
	g := &grpcNetConn{Conn: c}
	g.change.L = &g.mu
	return g
}

// dialGRPC is DialContext of a dialer, with such connections.
func dialGRPC(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newGRPCNetConn(c), nil
	}
}

// Write implements [net.Conn]. b has not left when it returns.
func (c *grpcNetConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	for len(c.queue) > grpcQueued && c.err == nil && !c.closed {
		c.change.Wait()
	}
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return 0, c.err
	case c.closed:
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.queue = append(c.queue, b...)
	start := !c.busy
	c.busy = true
	c.mu.Unlock()
	if start {
		go c.send()
	}
	return len(b), nil
}

// send is the writer: it writes until nothing waits any more.
func (c *grpcNetConn) send() {
	for {
		runtime.Gosched()
		c.mu.Lock()
		if len(c.queue) == 0 || c.err != nil {
			c.busy = false
			c.change.Broadcast()
			c.mu.Unlock()
			return
		}
		b := c.queue
		c.queue, c.spare = c.spare, nil
		if !c.closed { // else the deadline is that of Close
			c.Conn.SetWriteDeadline(time.Now().Add(grpcWriteTimeout))
		}
		c.change.Broadcast()
		c.mu.Unlock()
		_, err := c.Conn.Write(b)
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.change.Broadcast()
		} else if c.spare == nil && cap(b) <= grpcQueueKept {
			c.spare = b[:0]
		}
		c.mu.Unlock()
		if err != nil {
			c.Conn.Close() // part of a frame may be on the wire; the reader learns of it
		}
	}
}

// drainLocked waits until what was written has left, or cannot.
func (c *grpcNetConn) drainLocked() {
	for c.busy {
		c.change.Wait()
	}
}

// Close implements [net.Conn]. What was written leaves, if the socket takes it.
func (c *grpcNetConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.change.Broadcast()
	if c.busy {
		c.Conn.SetWriteDeadline(time.Now().Add(grpcCloseTime))
		c.drainLocked()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite says to the other side that nothing follows.
func (c *grpcNetConn) CloseWrite() error {
	c.mu.Lock()
	c.drainLocked()
	c.mu.Unlock()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetDeadline implements [net.Conn], for reading.
func (c *grpcNetConn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn]. It has no effect.
func (c *grpcNetConn) SetWriteDeadline(time.Time) error { return nil }
