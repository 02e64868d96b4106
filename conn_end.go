// The end: its cause, the last words to the client, the close of the socket.

package pitaya

import (
	"errors"
	"io"
	"net"
	"time"
)

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

// linger waits until the last packet was written, and then until the client has
// closed its side too, for lingerTime at most. It returns why nothing can be read
// any more.
func (c *conn) linger() error {
	if c.in != nil {
		c.in.free()
		c.in = nil
	}
	c.need = 0
	c.hold(true) // life signs are not looked at any more
	c.mu.Lock()
	drained := c.drained
	c.mu.Unlock()
	if drained {
		// Again, because an ack at that moment took the deadline off.
		c.rwc.SetReadDeadline(time.Now().Add(lingerTime))
	}
	r := c.newReader()
	for {
		_, err := r.read()
		if err == io.EOF {
			// Perhaps the client closed its sending half only.
			c.awaitDrained()
		}
		if err != nil {
			return err
		}
		if c.in != nil {
			c.in.free()
			c.in = nil
		}
	}
}

// closeSocket closes the lowest connection that this process owns. The layers
// above it are passed by: a TLS connection would try to say goodbye, which can
// block on a client that takes nothing.
func (c *conn) closeSocket() {
	c.closeOnce.Do(func() {
		low := c.rwc
		for {
			below, ok := low.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			low = below.NetConn()
		}
		low.Close()
	})
}
