package pitaya

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// clientInput is what a client reads from: its connection, with a note of when something came.
type clientInput struct{ c *Client }

func (in clientInput) Read(p []byte) (int, error) {
	n, err := in.c.conn.Read(p)
	if n > 0 {
		in.c.heard.Store(int64(time.Since(in.c.started)))
	}
	return n, err
}

// readPacket reads a packet, into memory of its own. The errors are those of ReadPacket.
func (c *Client) readPacket() (Packet, error) {
	header, err := c.in.Peek(PacketHeaderSize)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = errShortHeader
		}
		return Packet{}, err
	}
	t, n, err := DecodePacketHeader(header)
	if err != nil {
		return Packet{}, err
	}
	if n > c.cfg.MaxPacketSize {
		return Packet{}, fmt.Errorf("%w: %d bytes", ErrPacketTooLarge, n)
	}
	if _, err := c.in.Discard(PacketHeaderSize); err != nil {
		return Packet{}, err
	}
	body, err := readPacketBody(c.in, n)
	return Packet{Type: t, Body: body}, err
}

// read takes in packets until the connection ends, and returns why it did.
func (c *Client) read() error {
	for {
		p, err := c.readPacket()
		switch {
		case err == io.EOF:
			return fmt.Errorf("pitaya: connection closed by the server: %w", err)
		case errors.Is(err, ErrProtocol):
			return err
		case err != nil:
			return fmt.Errorf("pitaya: connection lost: %w", err)
		}
		switch p.Type {
		case PacketData:
			if err := c.receive(p.Body); err != nil {
				return err
			}
		case PacketKick:
			return c.kicked(p.Body)
		case PacketHandshakeAck:
			if c.drains {
				c.part()
				break
			}
			return fmt.Errorf("%w: ack from the server", ErrProtocol)
		}
		// A heartbeat has done its work by coming in. A second answer to the handshake says nothing new.
	}
}

// part ends the sending half: the server ends when it has answered what was sent. The reader must not wait for the
// write: the server may wait for the reader.
func (c *Client) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parting || c.cause != nil || c.closed {
		return
	}
	c.parting = true
	c.out = appendEmptyPacket(c.out, PacketHandshakeAck)
	c.goroutines.Go(func() {
		c.mu.Lock()
		c.flushAndUnlock()
	})
}

// kicked takes note of a kick. The body may be empty or something else than the JSON that we know.
func (c *Client) kicked(body []byte) error {
	var kick struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(body, &kick) != nil || kick.Reason == "" {
		return ErrKicked
	}
	known := cmp.Or(c.outer, c)
	known.mu.Lock()
	known.reason = kick.Reason
	known.mu.Unlock()
	return fmt.Errorf("%w: %s", ErrKicked, kick.Reason)
}

// receive takes in a message. It never waits for whom the message is for.
func (c *Client) receive(b []byte) error {
	m, err := DecodeMessage(b, c.dict)
	if err != nil {
		return err
	}
	switch m.Type {
	case MessageResponse:
		c.mu.Lock()
		reply, ok := c.pending[m.ID]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		if !ok {
			c.log.Debug("answer that nobody waits for", "id", m.ID)
			return nil
		}
		reply <- clientReply{m: m}
		return nil
	case MessagePush:
		if c.outer != nil {
			return c.outer.again.push(c, m)
		}
		return c.push(m)
	}
	return fmt.Errorf("%w: %v from the server", ErrProtocol, m.Type)
}

// clientPushCost is what a waiting push costs in bytes beside its payload, about the size of a Message.
const clientPushCost = 64

// push hands a push to the goroutine that runs handlers, which it starts if there is none.
func (c *Client) push(m Message) error {
	c.mu.Lock()
	if c.handlers[m.Route] == nil && c.anyPush == nil {
		c.mu.Unlock()
		c.log.Debug("push without a handler", "route", m.Route)
		return nil
	}
	defer c.mu.Unlock()
	size := clientPushCost + len(m.Payload)
	if c.backlog > 0 && c.backlog+size > c.cfg.MaxPushBacklog {
		return fmt.Errorf("%w: pushes wait for their handlers", ErrSlowClient)
	}
	c.backlog += size
	c.queuePushLocked(clientPush{Message: m})
	return nil
}

func (c *Client) queuePushLocked(p clientPush) {
	c.pushes = append(c.pushes, p)
	if !c.handling {
		c.handling = true
		go c.handlePushes()
	}
}

// handlePushes runs handlers until nothing waits for them. Nobody waits for it: it may be in a handler that calls Close.
func (c *Client) handlePushes() {
	var batch []clientPush
	c.mu.Lock() // and no deferred Unlock, which would hide a panic of a handler behind one of its own
	for len(c.pushes) > 0 {
		clear(batch)
		batch, c.pushes = c.pushes, batch[:0]
		for _, p := range batch {
			if c.closed {
				break
			}
			if p.Event != nil {
				c.mu.Unlock()
				p.Event()
				c.mu.Lock()
				continue
			}
			m := p.Message
			f, anyPush := c.handlers[m.Route], c.anyPush
			size := clientPushCost + len(m.Payload)
			c.mu.Unlock()
			if c.inflate(&m) == nil {
				switch {
				case f != nil:
					f(m.Payload)
				case anyPush != nil:
					anyPush(m.Route, m.Payload)
				}
			}
			c.mu.Lock()
			c.backlog -= size
		}
	}
	if cap(c.pushes) > clientSparePushes {
		c.pushes = nil
	}
	c.handling = false
	c.mu.Unlock()
}
