package pitaya

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

func (c *Client) marshal(arg any) ([]byte, error) {
	switch arg := arg.(type) {
	case nil:
		return nil, nil
	case []byte:
		return arg, nil
	}
	return c.Serializer().Marshal(arg)
}

// inflate makes a payload plain. One that cannot be ends the connection.
func (c *Client) inflate(m *Message) error {
	if !m.Compressed {
		return nil
	}
	plain, err := inflateTo(nil, m.Payload, c.cfg.MaxInflatedSize)
	if err != nil {
		c.end(err)
		return err
	}
	m.Payload, m.Compressed = plain, false
	return nil
}

// send puts a message on its way. With a reply it is a request: it gets an id, and reply gets one value, the response
// or the cause of the connection's end. The error is c.cause, ctx.Err() or that of the encoder.
func (c *Client) send(ctx context.Context, m Message, reply chan<- clientReply) (id uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c.cfg.Compress {
		if b, ok := deflate(nil, m.Payload); ok {
			m.Payload, m.Compressed = b, true
		}
	}
	c.mu.Lock()
	for c.cause == nil && !c.closed && len(c.out) >= clientQueue {
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-c.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		c.mu.Lock()
	}
	if c.parting { // whatever came after that
		c.mu.Unlock()
		return 0, fmt.Errorf("%w: nothing was sent", ErrServerClosed)
	}
	if c.cause != nil || c.closed {
		defer c.mu.Unlock()
		return 0, cmp.Or(c.cause, ErrSessionClosed)
	}
	m.ID = c.lastID + 1
	start := len(c.out)
	out, err := AppendMessage(appendEmptyPacket(c.out, PacketData), m, c.dict)
	size := len(out) - start - PacketHeaderSize
	if err == nil && size > MaxPacketSize {
		err = fmt.Errorf("%w: %d bytes", ErrPacketTooLarge, size)
	}
	if err != nil {
		c.mu.Unlock()
		return 0, err
	}
	putPacketHeader(out[start:], PacketData, size)
	c.out = out
	if reply != nil {
		c.lastID = m.ID
		c.pending[m.ID] = reply
	}
	c.flushAndUnlock()
	return m.ID, nil
}

// appendEmptyPacket appends a packet without a body, or the header of one whose body follows.
func appendEmptyPacket(dst []byte, t PacketType) []byte {
	return append(dst, byte(t), 0, 0, 0)
}

// flushAndUnlock sees to it that c.out gets written. It wants mu held and releases it.
//
// A caller that finds nobody writing writes, which spares a lone request a change of goroutines, but only once: for what
// others have queued meanwhile it starts a goroutine, or the last of many callers would never get away. Packets queued
// behind a write in progress leave together.
func (c *Client) flushAndUnlock() {
	if !c.writing {
		c.writing = true
		if c.writeLocked() {
			c.goroutines.Go(func() { // the reader is still one of them, as there is no cause
				c.mu.Lock()
				defer c.mu.Unlock()
				for c.writeLocked() {
				}
			})
		}
	}
	c.mu.Unlock()
}

// writeLocked writes what is queued, with mu released meanwhile, and reports whether there is more. If not, it leaves
// nobody writing.
func (c *Client) writeLocked() bool {
	b := c.out
	c.out, c.spare = c.spare, nil
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	c.mu.Unlock()
	if err := c.write(b); err != nil {
		c.end(fmt.Errorf("pitaya: write: %w", err))
	}
	c.mu.Lock()
	if cap(b) <= clientSpare {
		c.spare = b[:0]
	}
	c.writing = c.cause == nil && len(c.out) > 0
	if !c.writing && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	return c.writing
}

// write writes whole packets.
func (c *Client) write(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout)); err != nil {
		return err
	}
	for len(b) > 0 {
		n := len(b)
		if c.packetwise {
			_, size, err := DecodePacketHeader(b)
			if err != nil {
				return err
			}
			n = PacketHeaderSize + size
		}
		if _, err := c.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
