// What gRPC needs of HTTP/2 (RFC 9113) and of HPACK (RFC 7541), as functions on bytes.

package pitaya

import (
	"encoding/binary"
	"fmt"
	"time"
)

// http2Preface is what a client says first (section 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Sizes and limits of the protocol.
const (
	http2FrameHeader = 9
	http2MaxFrame    = 16 << 10 // of the payloads that are accepted, the least that may be said
	http2Window      = 1<<16 - 1
	http2MaxWindow   = 1<<31 - 1
	http2MaxStream   = 1<<31 - 1
	http2TableSize   = 4 << 10 // of HPACK, on either side
)

// Types of frames (section 6).
const (
	http2Data = iota
	http2Headers
	http2Priority
	http2Reset
	http2Settings
	http2PushPromise
	http2Ping
	http2GoAway
	http2WindowUpdate
	http2Continuation
)

// Flags of frames.
const (
	http2EndStream  = 0x1
	http2Ack        = 0x1
	http2EndHeaders = 0x4
	http2Padded     = 0x8
	http2WithWeight = 0x20
)

// Settings (section 6.5.2).
const (
	http2SetTableSize = iota + 1
	http2SetPush
	http2SetStreams
	http2SetWindow
	http2SetFrame
	http2SetHeaders
)

// An http2Code says why a stream or a connection ends (section 7).
type http2Code uint32

const (
	http2NoError http2Code = iota
	http2ProtocolError
	http2InternalError
	http2FlowControlError
	_
	http2StreamClosed
	http2FrameSizeError
	http2RefusedStream
	http2Cancel
	http2CompressionError
	_
	http2EnhanceYourCalm
)

// An http2Error ends a connection: what its peer did wrong.
type http2Error struct {
	Code http2Code
	Text string
}

func (e *http2Error) Error() string { return fmt.Sprintf("HTTP/2: %s (code %d)", e.Text, e.Code) }

func http2Errorf(code http2Code, format string, args ...any) error {
	return &http2Error{code, fmt.Sprintf(format, args...)}
}

// appendHTTP2Frame appends the header of a frame.
func appendHTTP2Frame(b []byte, length int, kind, flags byte, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendHTTP2Setting appends one setting of a SETTINGS frame.
func appendHTTP2Setting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

func appendHTTP2Reset(b []byte, stream uint32, code http2Code) []byte {
	return binary.BigEndian.AppendUint32(appendHTTP2Frame(b, 4, http2Reset, 0, stream), uint32(code))
}

func appendHTTP2WindowUpdate(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendHTTP2Frame(b, 4, http2WindowUpdate, 0, stream), uint32(n))
}

// appendHTTP2GoAway appends the announcement that no stream after last is, or will be, looked at.
func appendHTTP2GoAway(b []byte, last uint32, code http2Code, text string) []byte {
	b = appendHTTP2Frame(b, 8+len(text), http2GoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), text...)
}

// appendHTTP2Headers appends a block of headers, as so many frames as the peer's limit makes of it. The first header is
// already there: block is what follows b[:start+http2FrameHeader].
func appendHTTP2Headers(b []byte, start int, flags byte, stream uint32, most int) []byte {
	block := b[start+http2FrameHeader:]
	if len(block) <= most {
		appendHTTP2Frame(b[:start], len(block), http2Headers, flags|http2EndHeaders, stream)
		return b
	}
	block = append([]byte(nil), block...)
	b = append(appendHTTP2Frame(b[:start], most, http2Headers, flags, stream), block[:most]...)
	for block = block[most:]; len(block) > 0; {
		n := min(len(block), most)
		end := byte(0)
		if n == len(block) {
			end = http2EndHeaders
		}
		b = append(appendHTTP2Frame(b, n, http2Continuation, end, stream), block[:n]...)
		block = block[n:]
	}
	return b
}

// unpadHTTP2 takes the padding off the payload of a frame (section 6.1).
func unpadHTTP2(b []byte, flags byte) ([]byte, error) {
	if flags&http2Padded == 0 {
		return b, nil
	}
	if len(b) == 0 {
		return nil, http2Errorf(http2FrameSizeError, "frame without its padding")
	}
	pad := int(b[0])
	if b = b[1:]; pad > len(b) {
		return nil, http2Errorf(http2ProtocolError, "padding of %d bytes in a frame of %d", pad, len(b))
	}
	return b[:len(b)-pad], nil
}

// A grpcField is a header that is sent again and again with the same value, so that HPACK makes one byte of it.
type grpcField byte

const (
	grpcFieldContentType grpcField = iota
	grpcFieldStatus
	grpcFields
)

// A grpcEncoder writes blocks of headers for one connection. What is sent often enters the peer's table at the first time, the
// rest is written out. Everything is there for as long as the connection, since nothing else enters the table. Blocks
// must leave in the order in which they are written.
type grpcEncoder struct {
	entered [grpcFields]byte // when, from 1; 0 for what the table does not have
	count   byte             // entries
	plain   bool             // the peer's table is not what it should be
	reset   bool             // which it must be told in the next block
}

// tableSize takes the size of the peer's table. Less than what there is at the beginning is not used at all.
func (e *grpcEncoder) tableSize(n uint32) {
	if n < http2TableSize && !e.plain {
		*e = grpcEncoder{plain: true, reset: true}
	}
}

// begin begins a block.
func (e *grpcEncoder) begin(b []byte) []byte {
	if e.reset {
		e.reset = false
		b = append(b, 0x20) // a table of no size
	}
	return b
}

// field appends one that is sent often.
func (e *grpcEncoder) field(b []byte, f grpcField, name, value string) []byte {
	const own = 62 // the first index after those that are the same everywhere
	if n := e.entered[f]; n != 0 {
		return append(b, 0x80|(own+e.count-n))
	}
	if e.plain {
		return e.literal(b, name, value)
	}
	e.count++
	e.entered[f] = e.count
	return appendHPACKString(appendHPACKString(append(b, 0x40), name), value)
}

// literal appends a field that stays out of the table.
func (e *grpcEncoder) literal(b []byte, name, value string) []byte {
	return appendHPACKString(appendHPACKString(append(b, 0), name), value)
}

// status appends the status of HTTP.
func (e *grpcEncoder) status(b []byte, code string) []byte {
	const ok, name = 8, 8 // in the table that is the same everywhere, where 200 is the first of the name
	if code == "200" {
		return append(b, 0x80|ok)
	}
	return appendHPACKString(append(b, name), code)
}

// appendHPACKString appends a string (RFC 7541, section 5.2), without Huffman's code.
func appendHPACKString(b []byte, s string) []byte {
	const most = 1<<7 - 1
	if len(s) < most {
		return append(append(b, byte(len(s))), s...)
	}
	b = append(b, most)
	n := len(s) - most
	for ; n >= 1<<7; n >>= 7 {
		b = append(b, byte(n)|1<<7)
	}
	return append(append(b, byte(n)), s...)
}

// A grpcHead is what a block of headers says that gRPC asks for.
type grpcHead struct {
	Method, Path, Scheme string // of a request
	Status               string // of an answer
	ContentType          string
	Encoding             string // grpc-encoding
	Timeout              string // grpc-timeout
	GRPCStatus           string
	GRPCMessage          string
	Length               int64  // content-length; -1 if it is not said
	Problem              string // what makes it malformed; "" if nothing does
	TooLarge             bool   // there was more than is looked at
	size                 int    // of the list, as the protocol counts it
	pseudo, regular      bool   // there were such fields
}

// add takes one field. limit is what the list may have.
func (h *grpcHead) add(name, value string, limit int) {
	if h.size += len(name) + len(value) + 32; h.size > limit {
		h.TooLarge = true
		return
	}
	if name == "" || name[0] == ':' {
		h.addPseudo(name, value)
		return
	}
	h.regular = true
	switch name {
	case "content-type":
		h.ContentType = value
	case "grpc-encoding":
		h.Encoding = value
	case "grpc-timeout":
		h.Timeout = value
	case "grpc-status":
		h.GRPCStatus = value
	case "grpc-message":
		h.GRPCMessage = value
	case "content-length":
		n, ok := parseContentLength(value)
		if !ok || h.Length >= 0 && n != h.Length {
			h.Problem = "content-length"
		}
		h.Length = n
	case "te":
		if value != "trailers" {
			h.Problem = "te"
		}
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		h.Problem = name
	default:
		for _, c := range []byte(name) {
			if c <= ' ' || c >= 0x7f || c >= 'A' && c <= 'Z' || c == ':' {
				h.Problem = "the name of a field"
			}
		}
	}
}

func (h *grpcHead) addPseudo(name, value string) {
	var field *string
	switch name {
	case ":method":
		field = &h.Method
	case ":path":
		field = &h.Path
	case ":scheme":
		field = &h.Scheme
	case ":status":
		field = &h.Status
	case ":authority":
		h.pseudo = true
		return
	}
	if field == nil || *field != "" || value == "" || h.regular {
		h.Problem = "pseudo-header fields"
		return
	}
	*field, h.pseudo = value, true
}

// checkRequest returns what is malformed in the headers of a request, "" if nothing is (section 8.3.1).
func (h *grpcHead) checkRequest() string {
	if h.Problem == "" && (h.Method == "" || h.Path == "" || h.Scheme == "" || h.Status != "") {
		return "pseudo-header fields"
	}
	return h.Problem
}

// checkTrailers returns what is malformed in trailers (section 8.1).
func (h *grpcHead) checkTrailers() string {
	if h.Problem == "" && h.pseudo {
		return "pseudo-header fields"
	}
	return h.Problem
}

func parseContentLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// earlier returns the first of two times, of which those that are zero are none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
