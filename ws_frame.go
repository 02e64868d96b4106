// The WebSocket framing of RFC 6455: frames on the wire, without any connection.

package pitaya

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// Opcodes, RFC 6455 section 5.2 (registered in section 11.8). Those with bit 3 set are control frames.
const (
	wsContinuation byte = 0x0
	wsText         byte = 0x1
	wsBinary       byte = 0x2
	wsClose        byte = 0x8
	wsPing         byte = 0x9
	wsPong         byte = 0xA
)

// Bits of the first two bytes of a frame, RFC 6455 section 5.2.
const (
	wsFin       byte = 1 << 7 // first byte: last frame of its message
	wsReserved  byte = 7 << 4 // first byte: meaning comes from extensions, and none is ever negotiated
	wsOpcode    byte = 0x0F   // first byte
	wsControl   byte = 1 << 3 // within the opcode
	wsMasked    byte = 1 << 7 // second byte
	wsLength    byte = 0x7F   // second byte
	wsLength16       = 126    // two bytes of length follow
	wsLength64       = 127    // eight bytes of length follow
	wsMaxHeader      = 2 + 8 + 4
)

// wsMaxControl is the longest payload of a control frame, RFC 6455 section 5.5.
const wsMaxControl = 125

// Status codes of close frames, RFC 6455 section 7.4.1; 1012 to 1014 were registered later.
const (
	wsCloseNormal      uint16 = 1000
	wsCloseGoingAway   uint16 = 1001
	wsCloseProtocol    uint16 = 1002
	wsCloseUnsupported uint16 = 1003
	wsCloseNoStatus    uint16 = 1005 // never on the wire: a close frame without a code
	wsCloseAbnormal    uint16 = 1006 // never on the wire: the connection ended without a close frame
	wsCloseBadPayload  uint16 = 1007
	wsClosePolicy      uint16 = 1008
	wsCloseTooBig      uint16 = 1009
	wsCloseInternal    uint16 = 1011
	wsCloseTryLater    uint16 = 1013
	wsCloseBadGateway  uint16 = 1014 // the last one of the registered codes
)

// A wsError is a violation of RFC 6455 by the peer. It wraps [ErrProtocol].
type wsError struct {
	code   uint16 // for the close frame that answers it
	reason string // short enough for that frame; never contains what the peer sent
}

func (e *wsError) Error() string { return fmt.Sprintf("pitaya: websocket: %s (%d)", e.reason, e.code) }

func (e *wsError) Unwrap() error { return ErrProtocol }

// closeCode is the code of the close frame that answers the violation.
func (e *wsError) closeCode() uint16 { return e.code }

// appendWSHeader appends the header of an unmasked, unfragmented frame whose payload of n bytes follows: 2, 4 or 10
// bytes, RFC 6455 section 5.2.
func appendWSHeader(dst []byte, op byte, n int) []byte {
	return appendWSLength(append(dst, wsFin|op), 0, n)
}

// appendWSLength appends the second byte of a header and the extended length. The shortest form is mandatory.
func appendWSLength(dst []byte, masked byte, n int) []byte {
	switch {
	case n < wsLength16:
		return append(dst, masked|byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, masked|wsLength16), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, masked|wsLength64), uint64(n))
	}
}

// appendWSFrame appends a whole unfragmented frame. A client must mask (section 5.1), each frame with a fresh key that
// nobody can predict (section 10.3); a server must not.
func appendWSFrame(dst []byte, op byte, mask bool, payload []byte) []byte {
	if !mask {
		return append(appendWSHeader(dst, op, len(payload)), payload...)
	}
	dst = appendWSLength(append(dst, wsFin|op), wsMasked, len(payload))
	var key [4]byte
	_, _ = rand.Read(key[:]) // never fails, see its documentation
	dst = append(dst, key[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	xorWSKey(dst[start:], dst[start:], binary.LittleEndian.Uint32(key[:]))
	return dst
}

// appendWSClose appends a close frame, RFC 6455 section 5.5.1. The code [wsCloseNoStatus] gives an empty payload, which
// is also the right echo of one; a reason that does not fit is cut at a rune.
func appendWSClose(dst []byte, code uint16, reason string, mask bool) []byte {
	if code == wsCloseNoStatus {
		return appendWSFrame(dst, wsClose, mask, nil)
	}
	if end := wsMaxControl - 2; len(reason) > end {
		for !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	var payload [wsMaxControl]byte
	binary.BigEndian.PutUint16(payload[:], code)
	return appendWSFrame(dst, wsClose, mask, payload[:2+copy(payload[2:], reason)])
}

// parseWSClose reads the payload of a close frame, RFC 6455 sections 5.5.1 and 7.4. Without a code it is
// [wsCloseNoStatus]. Errors are of type *wsError.
func parseWSClose(payload []byte) (code uint16, reason string, err error) {
	if e := checkWSClose(payload); e != nil {
		return 0, "", e
	}
	if len(payload) == 0 {
		return wsCloseNoStatus, "", nil
	}
	return binary.BigEndian.Uint16(payload), string(payload[2:]), nil
}

// checkWSClose says what is wrong with the payload of a close frame. Codes below 1000 have no meaning, 1004 to 1006 and
// 1015 must not be sent, those up to 2999 are reserved until registered, and those from 5000 do not exist.
func checkWSClose(payload []byte) *wsError {
	if len(payload) == 0 {
		return nil
	}
	if len(payload) == 1 {
		return &wsError{wsCloseProtocol, "close frame with half a code"}
	}
	switch code := binary.BigEndian.Uint16(payload); {
	case code >= wsCloseNormal && code <= wsCloseUnsupported,
		code >= wsCloseBadPayload && code <= wsCloseBadGateway,
		code >= 3000 && code <= 4999:
	default:
		return &wsError{wsCloseProtocol, "close frame with an invalid code"}
	}
	if !utf8.Valid(payload[2:]) {
		return &wsError{wsCloseBadPayload, "close reason is not UTF-8"}
	}
	return nil
}

// A wsReader is the receiving half of one connection: RFC 6455 sections 5 and 8.1 as a machine that takes bytes as they
// come off the wire, cut anywhere, and gives the bytes of the data messages. It holds no buffer but for a control frame
// whose end has not arrived; one per connection stays while that is idle, so its size matters (a test pins it).
//
// The zero value is the server's end without a limit. It is not safe for concurrent use.
type wsReader struct {
	// Set before the first call of decode.
	limit  int64 // largest message in bytes, all fragments together; 0 or less: none
	client bool  // our role: frames must come unmasked to a client and masked to a server

	state wsState
	op    byte  // opcode of the message in progress, text or binary; 0 between messages
	frame byte  // first byte of the frame in progress
	held  uint8 // how much of head is filled, or of control within a control frame
	nrune uint8 // how much of part is filled

	part    [3]byte             // beginning of a rune whose end has not arrived, in a text message
	head    [wsMaxHeader]byte   // a header cut by the end of the input; within a frame the masking key, rotated to the next byte
	left    uint64              // payload bytes of the frame in progress yet to come
	message uint64              // length of the message's frames so far, counted only where there is a limit
	control *[wsMaxControl]byte // payload of a control frame cut by the end of the input; else nil
	err     *wsError            // the violation that ended reading
}

// newWSReader returns the receiving half of a connection in which we are the client or the server. A limit of 0 or less
// is none.
func newWSReader(client bool, limit int64) wsReader { return wsReader{client: client, limit: limit} }

// wsState says what the next byte is.
type wsState uint8

const (
	wsInHeader wsState = iota
	wsInFrame
	wsEnded // after a close frame, a violation, or an error of the control function: input is ignored
)

// decode consumes all of b and returns the payload of its data frames, unmasked and moved together at the front of b.
// Control frames, which may stand between the fragments of a message, go to control when they are complete, in order;
// their payload is valid during that call only. A close frame is checked before and is the last thing that counts:
// whatever follows it is ignored, RFC 6455 section 5.5.1.
//
// After a violation decode returns the data that came before it and the *wsError, and again that error at each further
// call. An error of control ends reading likewise and is returned once, as it is.
func (r *wsReader) decode(b []byte, control func(op byte, payload []byte) error) (data []byte, err error) {
	if r.state == wsEnded {
		return b[:0], r.ended()
	}
	w := 0 // b[:w] is decoded data
	for i := 0; i < len(b); {
		if r.state == wsInHeader {
			n, violation := r.readHeader(b[i:])
			if violation != nil {
				return b[:w], r.fail(violation)
			}
			i += n
			if r.state == wsInHeader {
				break // b ends within it
			}
		}
		n := int(min(r.left, uint64(len(b)-i))) // 0 for an empty frame, which ends with its header
		chunk := b[i : i+n]
		i += n
		r.left -= uint64(n)

		if r.frame&wsControl != 0 {
			r.unmask(chunk, chunk)
			if err := r.controlChunk(chunk, control); err != nil {
				return b[:w], err
			}
			if r.state == wsEnded {
				break
			}
			continue
		}
		out := b[w : w+n]
		r.unmask(out, chunk)
		if r.op == wsText && !r.checkText(out) {
			return b[:w], r.fail(&wsError{wsCloseBadPayload, "text message is not UTF-8"})
		}
		w += n
		if r.left == 0 {
			r.state = wsInHeader
			if r.frame&wsFin != 0 {
				if r.nrune > 0 {
					return b[:w], r.fail(&wsError{wsCloseBadPayload, "text message ends within a character"})
				}
				r.op, r.message = 0, 0
			}
		}
	}
	return b[:w], nil
}

// fail makes e the error of this and all further calls.
func (r *wsReader) fail(e *wsError) error {
	r.state, r.control, r.err = wsEnded, nil, e
	return e
}

// ended avoids the non-nil interface that holds a nil pointer.
func (r *wsReader) ended() error {
	if r.err != nil {
		return r.err
	}
	return nil
}

// between reports whether the input so far ends between two messages.
func (r *wsReader) between() bool { return r.state == wsInHeader && r.held == 0 && r.op == 0 }

// readHeader takes the header that begins in b or before it and returns how much of b belongs to it. Once the header is
// complete the state is wsInFrame.
func (r *wsReader) readHeader(b []byte) (n int, violation *wsError) {
	h := b
	if r.held > 0 {
		// The rare case: bytes of it came with the call before.
		h = r.head[:int(r.held)+copy(r.head[r.held:], b)]
	}
	size, length, violation := r.parseHeader(h)
	if violation != nil {
		return 0, violation
	}
	if len(h) < size {
		if r.held == 0 {
			copy(r.head[:], b)
		}
		r.held = uint8(len(h))
		return len(b), nil
	}
	n = size - int(r.held)
	r.held = 0
	r.state, r.frame, r.left = wsInFrame, h[0], length
	if !r.client {
		copy(r.head[:4], h[size-4:size])
	}
	if op := r.frame & wsOpcode; op&wsControl == 0 { // h may be overwritten by now
		if op != wsContinuation {
			r.op = op
		}
		if r.limit > 0 {
			r.message += length
		}
	}
	return n, nil
}

// parseHeader checks as much of a header as is there, at least one byte, and returns its size, which may be more than
// is there yet. Each check is made on the first byte that decides it, so that the outcome does not depend on how the
// input was cut, and no peer gets to send a payload before it is refused.
func (r *wsReader) parseHeader(h []byte) (size int, length uint64, violation *wsError) {
	refuse := func(reason string) (int, uint64, *wsError) {
		return 0, 0, &wsError{wsCloseProtocol, reason}
	}
	if h[0]&wsReserved != 0 {
		return refuse("reserved bits set")
	}
	control := h[0]&wsControl != 0
	switch h[0] & wsOpcode {
	case wsContinuation:
		if r.op == 0 {
			return refuse("continuation of no message")
		}
	case wsText, wsBinary:
		if r.op != 0 {
			return refuse("new message within a fragmented one")
		}
	case wsClose, wsPing, wsPong:
		if h[0]&wsFin == 0 {
			return refuse("fragmented control frame")
		}
	default:
		return refuse("unknown opcode")
	}
	if len(h) < 2 {
		return 2, 0, nil
	}
	if masked := h[1]&wsMasked != 0; masked == r.client {
		if masked {
			return refuse("masked frame from a server")
		}
		return refuse("unmasked frame from a client")
	}
	size, length = 2, uint64(h[1]&wsLength)
	if control && length > wsMaxControl {
		return refuse("control frame too long")
	}
	// Section 5.2: "the minimal number of bytes MUST be used to encode the length", and the top bit of 64 is 0.
	switch length {
	case wsLength16:
		if size += 2; len(h) < size {
			return size, 0, nil
		}
		if length = uint64(binary.BigEndian.Uint16(h[2:])); length < wsLength16 {
			return refuse("length not in its shortest form")
		}
	case wsLength64:
		if size += 8; len(h) < size {
			return size, 0, nil
		}
		if length = binary.BigEndian.Uint64(h[2:]); length>>63 != 0 {
			return refuse("length over 63 bits")
		}
		if length <= 0xFFFF {
			return refuse("length not in its shortest form")
		}
	}
	// The frames before fitted, so the subtraction cannot wrap.
	if r.limit > 0 && !control && length > uint64(r.limit)-r.message {
		return 0, 0, &wsError{wsCloseTooBig, "message too large"}
	}
	if !r.client {
		size += 4
	}
	return size, length, nil
}

// unmask sets dst to the unmasked src and moves the key on, RFC 6455 section 5.3. The two are of the same length; dst
// is src or begins before it in the same array.
func (r *wsReader) unmask(dst, src []byte) {
	if r.client {
		copy(dst, src)
		return
	}
	key := binary.LittleEndian.Uint32(r.head[:])
	xorWSKey(dst, src, key)
	if odd := len(src) % 4; odd != 0 {
		binary.LittleEndian.PutUint32(r.head[:], bits.RotateLeft32(key, -8*odd))
	}
}

// controlChunk takes the next part of a control frame, and hands the frame over when it is complete.
func (r *wsReader) controlChunk(chunk []byte, control func(op byte, payload []byte) error) error {
	payload := chunk
	if r.held > 0 || r.left > 0 {
		if r.control == nil {
			r.control = new([wsMaxControl]byte)
		}
		r.held += uint8(copy(r.control[r.held:], chunk))
		if r.left > 0 {
			return nil
		}
		payload = r.control[:r.held]
	}
	r.state, r.held, r.control = wsInHeader, 0, nil
	op := r.frame & wsOpcode
	if op == wsClose {
		if violation := checkWSClose(payload); violation != nil {
			return r.fail(violation)
		}
		r.state = wsEnded
	}
	err := control(op, payload)
	if err != nil {
		r.state = wsEnded
	}
	return err
}

// checkText reports whether the text message can still become valid UTF-8 after p, RFC 6455 section 8.1. It answers no
// at the first byte that decides it, also when the rune was cut by the end of a frame or of the input.
func (r *wsReader) checkText(p []byte) bool {
	if r.nrune > 0 {
		var c [utf8.UTFMax]byte
		n := copy(c[:], r.part[:r.nrune])
		for !utf8.FullRune(c[:n]) {
			if len(p) == 0 {
				r.nrune = uint8(copy(r.part[:], c[:n]))
				return true
			}
			c[n] = p[0]
			n, p = n+1, p[1:]
		}
		if !utf8.Valid(c[:n]) {
			return false
		}
		r.nrune = 0
	}
	for i := len(p) - 1; i >= max(0, len(p)-len(r.part)); i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				r.nrune = uint8(copy(r.part[:], p[i:]))
				p = p[:i]
			}
			break
		}
	}
	return utf8.Valid(p)
}

// xorWSKey sets dst to src combined with the repeated key, whose first byte is the lowest. Words are read and written
// in ascending order, so dst may overlap src as long as it does not begin after it.
func xorWSKey(dst, src []byte, key uint32) {
	dst = dst[:len(src)]
	k := uint64(key)<<32 | uint64(key)
	le := binary.LittleEndian
	for len(src) >= 64 {
		s, d := (*[64]byte)(src), (*[64]byte)(dst)
		le.PutUint64(d[0:], le.Uint64(s[0:])^k)
		le.PutUint64(d[8:], le.Uint64(s[8:])^k)
		le.PutUint64(d[16:], le.Uint64(s[16:])^k)
		le.PutUint64(d[24:], le.Uint64(s[24:])^k)
		le.PutUint64(d[32:], le.Uint64(s[32:])^k)
		le.PutUint64(d[40:], le.Uint64(s[40:])^k)
		le.PutUint64(d[48:], le.Uint64(s[48:])^k)
		le.PutUint64(d[56:], le.Uint64(s[56:])^k)
		src, dst = src[64:], dst[64:]
	}
	for len(src) >= 8 {
		le.PutUint64(dst, le.Uint64(src)^k)
		src, dst = src[8:], dst[8:]
	}
	for i, c := range src {
		dst[i] = c ^ byte(k>>(8*i))
	}
}
