package pitaya

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// A TraceParent names a span to other servers: it is what the key traceparent of
// W3C Trace Context holds. It is here for those who write a [Tracer]; OpenTelemetry
// has its own. The zero value names none.
type TraceParent struct {
	TraceID [16]byte // of the trace
	SpanID  [8]byte  // of the span in it
	Flags   byte     // bit 0 says that the trace is sampled; others are passed on
}

var errTraceParent = errors.New("pitaya: malformed traceparent")

// Sizes of the text: version, trace, span and flags, with dashes between.
const (
	traceParentSize = 2 + 1 + 32 + 1 + 16 + 1 + 2
	// maxTraceParent bounds what a later version may append.
	maxTraceParent = 512
)

// ParseTraceParent reads the value of traceparent. Of versions later than 00 it
// takes what this one has, as the W3C asks for. Everything else that is not
// exactly of the form is an error.
func ParseTraceParent(text string) (p TraceParent, err error) {
	if len(text) < traceParentSize || len(text) > maxTraceParent || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return TraceParent{}, errTraceParent
	}
	var version, flags [1]byte
	ok := decodeHex(version[:], text[:2]) && decodeHex(p.TraceID[:], text[3:35]) &&
		decodeHex(p.SpanID[:], text[36:52]) && decodeHex(flags[:], text[53:55])
	switch {
	case !ok, p.TraceID == [16]byte{}, p.SpanID == [8]byte{}, version[0] == 0xff,
		version[0] == 0 && len(text) != traceParentSize,
		len(text) > traceParentSize && text[traceParentSize] != '-':
		return TraceParent{}, errTraceParent
	case version[0] != 0:
		flags[0] &= 1 // the others may mean something else
	}
	p.Flags = flags[0]
	return p, nil
}

// decodeHex reads lower-case hexadecimal digits.
func decodeHex(b []byte, text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	_, err := hex.Decode(b, []byte(text))
	return err == nil
}

// String returns the value of traceparent, "" for the zero value.
func (p TraceParent) String() string {
	if p == (TraceParent{}) {
		return ""
	}
	return "00-" + hex.EncodeToString(p.TraceID[:]) + "-" + hex.EncodeToString(p.SpanID[:]) + "-" + hex.EncodeToString([]byte{p.Flags})
}

// traceParentKey is where it travels.
const traceParentKey = "traceparent"

// traceID returns the id of the trace as text.
func (p TraceParent) traceID() string { return hex.EncodeToString(p.TraceID[:]) }

// Child returns a new span of the same trace, or, of the zero value, the first
// span of a new one, which is sampled.
func (p TraceParent) Child() TraceParent {
	if p == (TraceParent{}) {
		rand.Read(p.TraceID[:])
		p.Flags = 1
	}
	rand.Read(p.SpanID[:])
	return p
}
