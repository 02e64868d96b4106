package pitaya

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// PacketType is the first byte of a packet. See the client protocol, section 3.
type PacketType byte

// The packet types.
const (
	PacketHandshake    PacketType = 1 // request of the client and answer of the server, body JSON
	PacketHandshakeAck PacketType = 2 // from the client, no body
	PacketHeartbeat    PacketType = 3 // both ways, no body
	PacketData         PacketType = 4 // both ways, body one message
	PacketKick         PacketType = 5 // from the server, body empty or a JSON object with a reason
)

// String returns the name of the type.
func (t PacketType) String() string {
	switch t {
	case PacketHandshake:
		return "handshake"
	case PacketHandshakeAck:
		return "ack"
	case PacketHeartbeat:
		return "heartbeat"
	case PacketData:
		return "data"
	case PacketKick:
		return "kick"
	}
	return "packet type " + strconv.Itoa(int(t))
}

const (
	// PacketHeaderSize is the length in bytes of what precedes the body of a packet.
	PacketHeaderSize = 4
	// MaxPacketSize is the length in bytes of the longest body, what 24 bits can express.
	MaxPacketSize = 1<<24 - 1
)

// A stream that ends inside a packet. Nobody broke the protocol: the peer or the network went away.
var (
	errShortHeader = fmt.Errorf("pitaya: packet header cut short: %w", io.ErrUnexpectedEOF)
	errShortBody   = fmt.Errorf("pitaya: packet body cut short: %w", io.ErrUnexpectedEOF)
)

// A Packet is the unit of the byte stream between client and server.
type Packet struct {
	Type PacketType
	Body []byte
}

// AppendPacket appends a packet to dst and returns the extended buffer. The error, for which dst is returned as it was,
// is [ErrPacketType] or, for a body over [MaxPacketSize], [ErrPacketTooLarge].
func AppendPacket(dst []byte, t PacketType, body []byte) ([]byte, error) {
	if t < PacketHandshake || t > PacketKick {
		return dst, fmt.Errorf("%w %d", ErrPacketType, byte(t))
	}
	if len(body) > MaxPacketSize {
		return dst, fmt.Errorf("%w: %d bytes", ErrPacketTooLarge, len(body))
	}
	n := len(body)
	dst = append(dst, byte(t), byte(n>>16), byte(n>>8), byte(n))
	return append(dst, body...), nil
}

// putPacketHeader fills the first four bytes of b. The caller has checked type and length.
func putPacketHeader(b []byte, t PacketType, n int) {
	_ = b[3]
	b[0], b[1], b[2], b[3] = byte(t), byte(n>>16), byte(n>>8), byte(n)
}

// packetLength is the body length in the first four bytes of b, whatever the type.
func packetLength(b []byte) int {
	_ = b[3]
	return int(b[1])<<16 | int(b[2])<<8 | int(b[3])
}

// DecodePacketHeader returns type and body length from the first four bytes of b, which must be there. The error is
// [ErrPacketType]: a client that tries TLS or HTTP on this port is known by its first byte.
func DecodePacketHeader(b []byte) (PacketType, int, error) {
	_ = b[3]
	t := PacketType(b[0])
	if t < PacketHandshake || t > PacketKick {
		return t, 0, fmt.Errorf("%w %d", ErrPacketType, b[0])
	}
	return t, packetLength(b), nil
}

// DecodePacket takes the first packet off b and returns what is behind it as rest. The body is a part of b and valid as
// long as b is. Bodies longer than max are refused; max <= 0 means [MaxPacketSize].
//
// The header is judged as soon as it is there: the errors are [ErrPacketType], [ErrPacketTooLarge] and, when b holds
// the beginning of a good packet only (or nothing), [io.ErrUnexpectedEOF] itself. With an error rest is b.
func DecodePacket(b []byte, max int) (p Packet, rest []byte, err error) {
	if len(b) < PacketHeaderSize {
		return Packet{}, b, io.ErrUnexpectedEOF
	}
	t, n, err := DecodePacketHeader(b)
	if err != nil {
		return Packet{}, b, err
	}
	if max > 0 && n > max {
		return Packet{}, b, fmt.Errorf("%w: %d bytes", ErrPacketTooLarge, n)
	}
	end := PacketHeaderSize + n
	if len(b) < end {
		return Packet{}, b, io.ErrUnexpectedEOF
	}
	return Packet{Type: t, Body: b[PacketHeaderSize:end:end]}, b[end:], nil
}

// readChunk is how much readPacketBody believes a header: longer bodies get their memory as their bytes arrive.
const readChunk = 64 << 10

// ReadPacket reads one packet into memory of its own. It reads nothing beyond it, in two or more calls, so a reader of
// many small packets should be buffered. Bodies longer than max are refused before any byte of them is read; max <= 0
// means [MaxPacketSize].
//
// The error is [io.EOF] at the end of the stream between two packets, wraps [io.ErrUnexpectedEOF] inside of one, and
// else is [ErrPacketType], [ErrPacketTooLarge] or what r returned.
func ReadPacket(r io.Reader, max int) (Packet, error) {
	header := make([]byte, PacketHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errShortHeader
		}
		return Packet{}, err
	}
	t, n, err := DecodePacketHeader(header)
	if err != nil {
		return Packet{}, err
	}
	if max > 0 && n > max {
		return Packet{}, fmt.Errorf("%w: %d bytes", ErrPacketTooLarge, n)
	}
	body, err := readPacketBody(r, n)
	if err != nil {
		return Packet{}, err
	}
	return Packet{Type: t, Body: body}, nil
}

// readPacketBody reads a body of n bytes, as ReadPacket does.
func readPacketBody(r io.Reader, n int) ([]byte, error) {
	body := make([]byte, min(n, readChunk))
	for got := 0; got < n; {
		m, err := io.ReadFull(r, body[got:])
		got += m
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errShortBody
		case err != nil:
			return nil, err
		case got < n:
			more := make([]byte, min(n, 2*got))
			copy(more, body)
			body = more
		}
	}
	return body, nil
}
