package pitaya

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MessageType says what a message is for. See the client protocol, section 8.
type MessageType byte

// The message types.
const (
	MessageRequest  MessageType = 0 // from the client, answered by a response with the same id
	MessageNotify   MessageType = 1 // from the client, not answered
	MessageResponse MessageType = 2 // from the server
	MessagePush     MessageType = 3 // from the server, not asked for
)

// String returns the name of the type.
func (t MessageType) String() string {
	switch t {
	case MessageRequest:
		return "request"
	case MessageNotify:
		return "notify"
	case MessageResponse:
		return "response"
	case MessagePush:
		return "push"
	}
	return "message type " + strconv.Itoa(int(t))
}

// hasID reports whether messages of the type carry an id.
func (t MessageType) hasID() bool { return t == MessageRequest || t == MessageResponse }

// Bits of the first byte of a message. Client protocol, section 8.1. Bits 6 and 7 are ignored when read.
const (
	flagRouteCode  = 0x01
	flagTypeShift  = 1
	flagTypeMask   = 0x07
	flagCompressed = 0x10
	flagError      = 0x20
)

// A Message is the body of a data packet.
type Message struct {
	Type    MessageType
	ID      uint64 // of requests and responses, 0 in others
	Route   string // of all but responses; a code has been replaced by its route
	Payload []byte // what the serializer made; zlib data of it while Compressed is set

	Err        bool // the payload is an error payload; client protocol, section 11.1
	Compressed bool // the payload is compressed; see [Message.Inflate]
}

// DecodeMessage decodes the body of a data packet. The payload is a part of b and valid as long as b is; it is not
// inflated. The dictionary may be nil. Decoding allocates nothing, except for the text of a route that is neither in the
// dictionary nor has come since the last garbage collection.
//
// The errors are [ErrInvalidMessage], [ErrMessageType] and [ErrRouteCode].
func DecodeMessage(b []byte, d *Dictionary) (Message, error) {
	v, err := decodeMessageView(b)
	if err != nil {
		return Message{}, err
	}
	m := Message{Type: v.Type, ID: v.ID, Payload: v.Payload, Err: v.Err, Compressed: v.Compressed}
	if v.HasCode {
		route, ok := d.Route(v.Code)
		if !ok {
			return Message{}, fmt.Errorf("%w %d", ErrRouteCode, v.Code)
		}
		m.Route = route
	} else if len(v.Route) > 0 {
		m.Route = d.text(v.Route)
	}
	return m, nil
}

// A messageView is a message as it stands in the body of a packet. Route and Payload are parts of that body.
type messageView struct {
	Type       MessageType
	ID         uint64
	Route      []byte // valid UTF-8; empty if HasCode is set
	Code       uint16 // of the route, if HasCode is set
	HasCode    bool
	Payload    []byte
	Err        bool
	Compressed bool
}

// The ways in which a message can be invalid, made once: a flood of them costs its sender more than us.
var (
	errMessageShort  = fmt.Errorf("%w: shorter than two bytes", ErrInvalidMessage)
	errMessageID     = fmt.Errorf("%w: id not terminated or over 64 bits", ErrInvalidMessage)
	errMessageRoute  = fmt.Errorf("%w: route cut short", ErrInvalidMessage)
	errMessageNoUTF8 = fmt.Errorf("%w: route is not UTF-8", ErrInvalidMessage)
)

// decodeMessageView does all of DecodeMessage but the look into the dictionary, and allocates nothing.
func decodeMessageView(b []byte) (messageView, error) {
	if len(b) < 2 {
		return messageView{}, errMessageShort
	}
	flag := b[0]
	v := messageView{
		Type:       MessageType(flag >> flagTypeShift & flagTypeMask),
		Err:        flag&flagError != 0,
		Compressed: flag&flagCompressed != 0,
	}
	if v.Type > MessagePush {
		return messageView{}, ErrMessageType
	}
	b = b[1:]
	if v.Type.hasID() {
		// Uvarint accepts redundant groups up to ten bytes, as peers do. Bits beyond 64, which the reference drops, and
		// ids without an end, which it reads as 0, would answer a request that nobody made.
		id, n := binary.Uvarint(b)
		if n <= 0 {
			return messageView{}, errMessageID
		}
		v.ID = id
		b = b[n:]
	}
	switch {
	case v.Type == MessageResponse: // no route follows, whatever bit 0 says
	case flag&flagRouteCode != 0:
		if len(b) < 2 {
			return messageView{}, errMessageRoute
		}
		v.HasCode, v.Code = true, binary.BigEndian.Uint16(b)
		b = b[2:]
	default:
		if len(b) < 1 || len(b)-1 < int(b[0]) {
			return messageView{}, errMessageRoute
		}
		n := 1 + int(b[0])
		v.Route, b = b[1:n:n], b[n:]
		if !utf8.Valid(v.Route) {
			return messageView{}, errMessageNoUTF8
		}
	}
	v.Payload = b
	return v, nil
}

// AppendMessage appends a message to dst and returns the extended buffer. A route that is in the dictionary, which may
// be nil, goes out as its code. The id of a notify or push and the route of a response are not written. The payload is
// written as it is: Compressed only sets the flag.
//
// The error, for which dst is returned as it was, is [ErrMessageType] or, for a route over [MaxRouteLength] bytes or
// not in UTF-8, [ErrRoute].
func AppendMessage(dst []byte, m Message, d *Dictionary) ([]byte, error) {
	if m.Type > MessagePush {
		return dst, fmt.Errorf("%w %d", ErrMessageType, byte(m.Type))
	}
	flag := byte(m.Type) << flagTypeShift
	if m.Compressed {
		flag |= flagCompressed
	}
	if m.Err {
		flag |= flagError
	}
	if m.Type == MessageResponse {
		dst = binary.AppendUvarint(append(dst, flag), m.ID)
		return append(dst, m.Payload...), nil
	}
	code, hasCode := d.Code(m.Route)
	if hasCode {
		flag |= flagRouteCode
	} else if err := checkRoute(m.Route); err != nil {
		return dst, err
	}
	dst = append(dst, flag)
	if m.Type.hasID() {
		dst = binary.AppendUvarint(dst, m.ID)
	}
	if hasCode {
		dst = binary.BigEndian.AppendUint16(dst, code)
	} else {
		dst = append(dst, byte(len(m.Route)))
		dst = append(dst, m.Route...)
	}
	return append(dst, m.Payload...), nil
}

// Inflate makes a compressed payload plain, in memory of its own, and clears Compressed; it does nothing to a plain one.
// A payload that inflates to more than max bytes is refused, and so is one over 64 KiB that inflates to more than 256
// times its size, which no honest payload does; max <= 0 means 4 MiB. The error is [ErrCompressed] and leaves m alone.
func (m *Message) Inflate(max int) error {
	if !m.Compressed {
		return nil
	}
	plain, err := inflate(nil, m.Payload, max)
	if err != nil {
		return err
	}
	m.Payload, m.Compressed = plain, false
	return nil
}
