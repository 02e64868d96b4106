// What gRPC puts into HTTP/2: frames, timeouts and statuses, as functions on bytes. The document followed is "gRPC over
// HTTP2" (PROTOCOL-HTTP2.md of the gRPC project), named in the comments by the production of its grammar.

package pitaya

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// grpcFrameHeader is the length of what stands before a message: Compressed-Flag, Message-Length.
	grpcFrameHeader = 5

	// grpcMaxMessage bounds a message in both directions. It is what grpc-go, and so every Pitaya server, accepts;
	// sending more would only move the error to the other side.
	grpcMaxMessage = 4 << 20

	// grpcFirstRead is what is allocated for a message at first, whatever length is announced: memory is paid for
	// with bytes that have come.
	grpcFirstRead = 32 << 10
)

// A grpcCode is a status code of gRPC. Those that the transport gives or tells apart have names.
type grpcCode uint32

const (
	grpcOK                grpcCode = 0
	grpcCanceled          grpcCode = 1
	grpcUnknown           grpcCode = 2
	grpcDeadlineExceeded  grpcCode = 4
	grpcPermissionDenied  grpcCode = 7
	grpcResourceExhausted grpcCode = 8
	grpcUnimplemented     grpcCode = 12
	grpcInternal          grpcCode = 13
	grpcUnavailable       grpcCode = 14
	grpcUnauthenticated   grpcCode = 16
)

func (c grpcCode) String() string {
	names := [...]string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
		"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
		"Internal", "Unavailable", "DataLoss", "Unauthenticated"}
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// A grpcStatus is how a call ended, other than well.
type grpcStatus struct {
	Code    grpcCode
	Message string
}

func (s *grpcStatus) Error() string {
	if s.Message == "" {
		return "gRPC status " + s.Code.String()
	}
	return "gRPC status " + s.Code.String() + ": " + s.Message
}

func grpcErrorf(code grpcCode, format string, args ...any) *grpcStatus {
	return &grpcStatus{Code: code, Message: fmt.Sprintf(format, args...)}
}

// appendGRPCFrame appends a message with its header (Length-Prefixed-Message).
func appendGRPCFrame(dst, message []byte) ([]byte, error) {
	if len(message) > grpcMaxMessage {
		return dst, grpcErrorf(grpcResourceExhausted, "message of %d bytes, over the limit of %d", len(message), grpcMaxMessage)
	}
	return append(appendGRPCFrameHeader(dst, len(message)), message...), nil
}

func appendGRPCFrameHeader(dst []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(n))
}

// A grpcMessage is the body of one half of a unary call, which is one message and nothing behind it, as its bytes come.
type grpcMessage struct {
	Bytes  []byte // those of the message that are there
	head   [grpcFrameHeader]byte
	headed int // bytes of head that are there
	length int
}

// write takes what follows. encoding is the header grpc-encoding. b is not kept. A *grpcStatus says what breaks the
// rules, and nothing may follow it.
func (m *grpcMessage) write(b []byte, encoding string) *grpcStatus {
	if m.headed < grpcFrameHeader {
		n := copy(m.head[m.headed:], b)
		b = b[n:]
		if m.headed += n; m.headed < grpcFrameHeader {
			return nil
		}
		if refused := m.begin(encoding); refused != nil {
			return refused
		}
	}
	if len(b) > m.length-len(m.Bytes) {
		return grpcErrorf(grpcInternal, "more than one message in a unary call")
	}
	for len(b) > 0 {
		if len(m.Bytes) == cap(m.Bytes) {
			m.Bytes = slices.Grow(m.Bytes, min(m.length-len(m.Bytes), len(m.Bytes)))
		}
		n := min(len(b), cap(m.Bytes)-len(m.Bytes))
		m.Bytes = append(m.Bytes, b[:n]...)
		b = b[n:]
	}
	return nil
}

// begin looks at the header and makes room.
func (m *grpcMessage) begin(encoding string) *grpcStatus {
	flags, identity := m.head[0], encoding == "" || encoding == "identity"
	switch {
	case flags > 1:
		return grpcErrorf(grpcInternal, "message with the flags %#x", flags)
	case flags == 1 && identity:
		return grpcErrorf(grpcInternal, "message marked as compressed, without an encoding")
	case flags == 1:
		return grpcErrorf(grpcUnimplemented, "encoding %.32q is not supported", encoding)
	}
	length := binary.BigEndian.Uint32(m.head[1:])
	if length > grpcMaxMessage {
		return grpcErrorf(grpcResourceExhausted, "message of %d bytes, over the limit of %d", length, grpcMaxMessage)
	}
	m.length = int(length)
	m.Bytes = make([]byte, 0, min(m.length, grpcFirstRead))
	return nil
}

// end says that nothing follows. It returns io.EOF if there was no message at all, a *grpcStatus if it is cut off, and
// else nil.
func (m *grpcMessage) end() error {
	switch {
	case m.headed == 0:
		return io.EOF
	case m.headed < grpcFrameHeader:
		return grpcErrorf(grpcInternal, "message cut off in its header")
	case len(m.Bytes) < m.length:
		return grpcErrorf(grpcInternal, "message cut off after %d of %d bytes", len(m.Bytes), m.length)
	}
	return nil
}

// readGRPCMessage reads a body. encoding is the header grpc-encoding. It returns io.EOF if there is no message at all, and
// a *grpcStatus for what breaks the rules; other errors are those of r.
func readGRPCMessage(r io.Reader, encoding string) ([]byte, error) {
	var m grpcMessage
	var room [grpcFrameHeader]byte
	for {
		// What the message has room for is read into it; a header, and what is too much, is not.
		into := room[:]
		direct := m.headed == grpcFrameHeader && len(m.Bytes) < m.length
		if direct {
			if len(m.Bytes) == cap(m.Bytes) {
				m.Bytes = slices.Grow(m.Bytes, min(m.length-len(m.Bytes), len(m.Bytes)))
			}
			into = m.Bytes[len(m.Bytes):min(cap(m.Bytes), m.length)]
		} else if m.headed < grpcFrameHeader {
			into = room[m.headed:]
		}
		n, err := r.Read(into)
		if direct {
			m.Bytes = m.Bytes[:len(m.Bytes)+n]
		} else if n > 0 {
			if refused := m.write(into[:n], encoding); refused != nil {
				return nil, refused
			}
		}
		if err == io.EOF {
			err = m.end()
			if err == nil {
				return m.Bytes, nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// isGRPCContent reports whether a content-type is one of those for protobuf messages (Content-Type).
func isGRPCContent(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	if !ok {
		return false
	}
	rest, _, _ = strings.Cut(rest, ";")
	return rest == "" || rest == "+proto"
}

// grpcTimeout returns a duration as it stands in the header grpc-timeout (Timeout): at most eight digits and a unit,
// the finest that holds it, rounded up. What has passed already is the shortest that can be said.
func grpcTimeout(d time.Duration) string {
	const maxValue = 99999999
	d = max(d, 1)
	for _, u := range [...]struct {
		unit time.Duration
		name string
	}{{time.Nanosecond, "n"}, {time.Microsecond, "u"}, {time.Millisecond, "m"}, {time.Second, "S"}, {time.Minute, "M"}} {
		if n := (d-1)/u.unit + 1; n <= maxValue {
			return strconv.FormatInt(int64(n), 10) + u.name
		}
	}
	return strconv.FormatInt(int64((d-1)/time.Hour+1), 10) + "H"
}

// parseGRPCTimeout is the opposite of grpcTimeout. More than a Duration holds is the longest Duration.
func parseGRPCTimeout(s string) (time.Duration, error) {
	if len(s) < 2 || len(s) > 9 {
		return 0, fmt.Errorf("grpc-timeout %.16q", s)
	}
	var unit time.Duration
	digits, name := s[:len(s)-1], s[len(s)-1]
	switch name {
	case 'n':
		unit = time.Nanosecond
	case 'u':
		unit = time.Microsecond
	case 'm':
		unit = time.Millisecond
	case 'S':
		unit = time.Second
	case 'M':
		unit = time.Minute
	case 'H':
		unit = time.Hour
	default:
		return 0, fmt.Errorf("grpc-timeout %.16q", s)
	}
	var n int64
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("grpc-timeout %.16q", s)
		}
		n = n*10 + int64(c-'0')
	}
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64, nil
	}
	return time.Duration(n) * unit, nil
}

// encodeGRPCMessage returns a text as it stands in grpc-message (Status-Message): UTF-8 with all but printable ASCII,
// and the percent sign, as %XX.
func encodeGRPCMessage(s string) string {
	const hex = "0123456789ABCDEF"
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '%' }) {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// decodeGRPCMessage is the opposite. As the protocol asks, broken escapes stay as they are; bytes that are not UTF-8
// become U+FFFD.
func decodeGRPCMessage(s string) string {
	if !strings.Contains(s, "%") {
		return strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), string(utf8.RuneError))
}

// grpcResult returns the status in a header block: the trailers, or the headers of an answer without a body
// (Trailers-Only). It is nil for OK. ok is false if there is none.
func grpcResult(h http.Header) (status *grpcStatus, ok bool) {
	text := h.Get("Grpc-Status")
	if text == "" {
		return nil, false
	}
	code, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return grpcErrorf(grpcUnknown, "answer with the status %.16q", text), true
	}
	if grpcCode(code) == grpcOK {
		return nil, true
	}
	return &grpcStatus{Code: grpcCode(code), Message: decodeGRPCMessage(h.Get("Grpc-Message"))}, true
}

// grpcHTTPStatus returns what an HTTP status means where a peer, perhaps a proxy, gave no gRPC status (HTTP to gRPC
// Status Code Mapping).
func grpcHTTPStatus(code int) *grpcStatus {
	c := grpcUnknown
	switch code {
	case http.StatusBadRequest:
		c = grpcInternal
	case http.StatusUnauthorized:
		c = grpcUnauthenticated
	case http.StatusForbidden:
		c = grpcPermissionDenied
	case http.StatusNotFound:
		c = grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c = grpcUnavailable
	}
	return grpcErrorf(c, "answer with the HTTP status %d", code)
}
