package load

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A wsConn is the client's end of a WebSocket connection (RFC 6455) as a stream of packets. The library's own end writes
// one packet at a time; this one makes a message of each packet, as clients do, and sends all that it is given by one
// write of the connection below. Read is for one goroutine, and Write for one at a time.
type wsConn struct {
	net.Conn
	masks *rand.ChaCha8 // keys nobody can predict, as section 10.3 wants them, without a call of the system for each

	// Owned by Read.
	in   *bufio.Reader
	left uint64 // bytes of the data frame in progress that are yet to come
	pong []byte // frames that answer pings, for who writes next; guarded by nothing: only Read touches it
	err  error  // the end

	out []byte // owned by Write, for reuse
}

const wsGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 section 1.3

// upgradeWS does the client's side of the upgrade, section 4.1. The connection is the caller's to close.
func upgradeWS(ctx context.Context, conn net.Conn, u *url.URL, header http.Header, timeout time.Duration) (*wsConn, error) {
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var seed [32]byte
	crand.Read(seed[:]) // never fails, see its documentation
	c := &wsConn{Conn: conn, masks: rand.NewChaCha8(seed), in: bufio.NewReaderSize(conn, 4096)}
	var nonce [16]byte
	c.masks.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
	maps.Copy(req.Header, header)
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, req)
	if err != nil {
		return nil, fmt.Errorf("websocket upgrade: %w", err)
	}
	sum := sha1.Sum([]byte(key + wsGUID))
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("%w: websocket upgrade: the server answers %s", pitaya.ErrProtocol, resp.Status)
	}
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%w: websocket upgrade: the answer does not belong to the request", pitaya.ErrProtocol)
	}
	return c, conn.SetDeadline(time.Time{})
}

// Opcodes and bits, RFC 6455 section 5.2.
const (
	wsContinuation = 0x0
	wsText         = 0x1
	wsBinary       = 0x2
	wsClose        = 0x8
	wsPing         = 0x9
	wsPong         = 0xA

	wsFin    = 0x80
	wsMasked = 0x80
)

// Write takes whole packets and sends a message for each.
func (c *wsConn) Write(packets []byte) (int, error) {
	c.out = c.out[:0]
	for rest := packets; len(rest) > 0; {
		p, tail, err := pitaya.DecodePacket(rest, 0)
		if err != nil {
			return 0, fmt.Errorf("websocket: what is to be sent: %w", err)
		}
		c.out = c.appendFrame(c.out, wsBinary, rest[:pitaya.PacketHeaderSize+len(p.Body)])
		rest = tail
	}
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(packets), nil
}

// appendFrame appends a masked frame, section 5.3.
func (c *wsConn) appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, wsFin|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, wsMasked|byte(n))
	case n <= 0xFFFF:
		dst = binary.BigEndian.AppendUint16(append(dst, wsMasked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, wsMasked|127), uint64(n))
	}
	key := uint32(c.masks.Uint64())
	dst = binary.LittleEndian.AppendUint32(dst, key)
	long := uint64(key)<<32 | uint64(key)
	for len(payload) >= 8 {
		dst = binary.LittleEndian.AppendUint64(dst, binary.LittleEndian.Uint64(payload)^long)
		payload = payload[8:]
	}
	for i, b := range payload {
		dst = append(dst, b^byte(key>>(8*(i&3))))
	}
	return dst
}

// Read returns bytes of the messages that have arrived. The end by a close frame is [io.EOF]. Once it has waited for data
// it returns what has come, so one call takes in as many frames as there are.
func (c *wsConn) Read(p []byte) (n int, err error) {
	for n == 0 || n < len(p) && c.in.Buffered() > 0 {
		if c.err != nil {
			break
		}
		if c.left > 0 {
			m, err := c.in.Read(p[n:min(uint64(len(p)), uint64(n)+c.left)])
			n += m
			c.left -= uint64(m)
			if err != nil {
				return n, c.end(err)
			}
			continue
		}
		if n > 0 && !c.headerThere() {
			break // the rest of it may not come for a while
		}
		if err := c.readHeader(); err != nil {
			if n > 0 {
				return n, nil // it will be found again
			}
			return 0, err
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// headerThere reports whether the next frame's header can be read without waiting, and is one of a data frame.
func (c *wsConn) headerThere() bool {
	h, err := c.in.Peek(min(c.in.Buffered(), 10))
	if err != nil || len(h) < 2 || h[0]&0x8 != 0 {
		return false
	}
	switch h[1] & 0x7F {
	case 126:
		return len(h) >= 4
	case 127:
		return len(h) >= 10
	}
	return true
}

// end remembers an error that is for good; the end of a deadline is not.
func (c *wsConn) end(err error) error {
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		c.err = err
	}
	return err
}

func (c *wsConn) violation(text string) error {
	return c.end(fmt.Errorf("%w: websocket: %s", pitaya.ErrProtocol, text))
}

// readHeader reads a frame's header, and all of a control frame. It takes nothing off the input before all of the header
// is there, so that it can be called again after a deadline.
func (c *wsConn) readHeader() error {
	h, err := c.in.Peek(2)
	if err != nil {
		return c.end(err)
	}
	size, n := 2, uint64(h[1]&0x7F)
	switch n {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	op := h[0] & 0x0F
	switch {
	case h[0]&0x70 != 0:
		return c.violation("reserved bits are set")
	case h[1]&wsMasked != 0:
		return c.violation("a server must not mask")
	case op&0x8 != 0 && (n > 125 || h[0]&wsFin == 0):
		return c.violation("a control frame that is too long or fragmented")
	case op != wsContinuation && op != wsText && op != wsBinary && op != wsClose && op != wsPing && op != wsPong:
		return c.violation("unknown opcode")
	}
	if h, err = c.in.Peek(size); err != nil {
		return c.end(err)
	}
	switch size {
	case 4:
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 10:
		n = binary.BigEndian.Uint64(h[2:])
	}
	if n >= 1<<63 {
		return c.violation("a frame longer than can be")
	}
	if op&0x8 == 0 {
		c.in.Discard(size)
		c.left = n
		return nil
	}
	if h, err = c.in.Peek(size + int(n)); err != nil {
		return c.end(err)
	}
	switch payload := h[size:]; op {
	case wsClose:
		return c.end(wsEnd(payload))
	case wsPing:
		if err := c.answerPing(payload); err != nil {
			return c.end(err)
		}
	}
	c.in.Discard(size + int(n))
	return nil
}

// wsEnd is the error that a close frame stands for.
func wsEnd(payload []byte) error {
	if len(payload) < 2 {
		return io.EOF
	}
	switch code := binary.BigEndian.Uint16(payload); code {
	case 1000, 1001:
		return io.EOF
	default:
		return fmt.Errorf("websocket closed with code %d (%q): %w", code, payload[2:], io.EOF)
	}
}

// answerPing writes a pong, in a write of its own, which may come between those of Write but not into one.
func (c *wsConn) answerPing(payload []byte) error {
	c.pong = c.appendPong(c.pong[:0], payload)
	_, err := c.Conn.Write(c.pong)
	return err
}

// appendPong is appendFrame with a constant key: masks belongs to Write.
func (c *wsConn) appendPong(dst, payload []byte) []byte {
	dst = append(dst, wsFin|wsPong, wsMasked|byte(len(payload)), 0, 0, 0, 0)
	return append(dst, payload...)
}
