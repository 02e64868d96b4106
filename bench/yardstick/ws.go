package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// A wsConn is a connection with WebSocket on it, in the plainest way: of the upgrade request nothing is looked at but its
// key, of frames nothing but what must be known to find their payload.
type wsConn struct {
	net.Conn
	in   *bufio.Reader
	left int // bytes of a frame that are still to come
	mask [4]byte
	next int // byte of the mask
	out  []byte
}

// upgrade answers the upgrade request that comes first.
func upgrade(c net.Conn) (*wsConn, error) {
	w := &wsConn{Conn: c, in: bufio.NewReaderSize(c, readBuffer/4)}
	const name, guid = "Sec-WebSocket-Key: ", "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	var key [24 + len(guid)]byte
	for {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) > len(name)+24 && bytes.EqualFold(line[:len(name)], []byte(name)) {
			copy(key[:], line[len(name):])
		}
		if len(line) == 2 {
			break
		}
	}
	copy(key[24:], guid)
	sum := sha1.Sum(key[:])
	b := make([]byte, 0, 160)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	_, err := c.Write(append(b, "\r\n\r\n"...))
	return w, err
}

// Read gives the payload of the frames.
func (w *wsConn) Read(p []byte) (int, error) {
	for w.left == 0 {
		if err := w.header(); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(len(p), w.left)])
	for i := range p[:n] {
		p[i] ^= w.mask[w.next&3]
		w.next++
	}
	w.left -= n
	return n, err
}

// header reads what stands before a payload.
func (w *wsConn) header() error {
	h, err := w.in.Peek(2 + 4)
	if err != nil {
		return err
	}
	size := 2
	switch w.left = int(h[1] & 0x7f); {
	case h[0]&0xf == 8: // close
		return io.EOF
	case h[1]&0x80 == 0, w.left == 127:
		return errors.New("a frame that no benchmark sends")
	case w.left == 126:
		if h, err = w.in.Peek(4 + 4); err != nil {
			return err
		}
		w.left, size = int(binary.BigEndian.Uint16(h[2:])), 4
	}
	copy(w.mask[:], h[size:size+4])
	w.next = 0
	_, err = w.in.Discard(size + 4)
	return err
}

// Write sends p in one frame.
func (w *wsConn) Write(p []byte) (int, error) {
	if len(p) < 126 {
		w.out = append(w.out[:0], 0x82, byte(len(p)))
	} else {
		w.out = append(w.out[:0], 0x82, 126, byte(len(p)>>8), byte(len(p)))
	}
	w.out = append(w.out, p...)
	if _, err := w.Conn.Write(w.out); err != nil {
		return 0, err
	}
	return len(p), nil
}
