package pitaya

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// HandshakeData is what a client says about itself when it connects. See the client protocol, section 5.1. None of it
// is verified. As JSON it has the fields that every peer knows and no others.
type HandshakeData struct {
	Sys  HandshakeSys   `json:"sys"`
	User map[string]any `json:"user,omitempty"` // the application's own, as sent; nil if absent
}

// HandshakeSys is the part of [HandshakeData] that client libraries fill in.
type HandshakeSys struct {
	Platform    string `json:"platform"`
	LibVersion  string `json:"libVersion"`
	BuildNumber string `json:"clientBuildNumber"`
	Version     string `json:"clientVersion"`

	// Type is what the pomelo JavaScript clients send instead of the above, e.g. "js-websocket".
	Type string `json:"-"`
	// Features is our own addition, the abilities that a client announces: [FeatureInflate], [FeaturePushCodes],
	// [FeatureDrain].
	Features []string `json:"-"`
}

// What a client can announce in [HandshakeSys].Features. Old clients announce nothing, and what they can do is told
// from their other fields; old servers ignore the announcement.
const (
	FeatureInflate   = "inflate"   // inflates zlib, in payloads and in the answer to its handshake
	FeaturePushCodes = "pushcodes" // understands the codes of the dictionary in pushes
	FeatureDrain     = "drain"     // answers an ack packet from the server by one, behind which it sends no messages
)

// handshakeWire is the handshake request as it is written and read. What peers are strict about is typed; our own
// additions are not, so that a client that uses these names for something else is let in.
type handshakeWire struct {
	Sys struct {
		Platform    string          `json:"platform"`
		LibVersion  string          `json:"libVersion"`
		BuildNumber string          `json:"clientBuildNumber"`
		Version     string          `json:"clientVersion"`
		Type        json.RawMessage `json:"type,omitempty"`
		Features    json.RawMessage `json:"features,omitempty"`
	} `json:"sys"`
	User map[string]any `json:"user,omitempty"`
}

// DecodeHandshake decodes the body of a handshake request, which is JSON and never compressed. Unknown keys are
// ignored, keys match case-insensitively, and null counts as absent. The error wraps [ErrProtocol].
func DecodeHandshake(b []byte) (*HandshakeData, error) {
	var w handshakeWire
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: handshake: %v", ErrProtocol, err)
	}
	h := &HandshakeData{User: w.User, Sys: HandshakeSys{
		Platform: w.Sys.Platform, LibVersion: w.Sys.LibVersion, BuildNumber: w.Sys.BuildNumber, Version: w.Sys.Version,
	}}
	if json.Unmarshal(w.Sys.Type, &h.Sys.Type) != nil {
		h.Sys.Type = ""
	}
	if json.Unmarshal(w.Sys.Features, &h.Sys.Features) != nil {
		h.Sys.Features = nil
	}
	return h, nil
}

// handshakesSeen keeps what clients have said of themselves: most of them run one of a few builds, and say the same. What a
// session keeps of that is shared then.
type handshakesSeen struct {
	mu    sync.Mutex
	known map[string]*HandshakeData // by the body; nil before the first
}

const (
	maxHandshakesSeen = 64  // more, and it begins anew
	maxHandshakeSeen  = 512 // bytes of a body
)

// decode is DecodeHandshake. What it returns must not be changed, unless its User has something in it.
func (s *handshakesSeen) decode(b []byte) (*HandshakeData, error) {
	s.mu.Lock()
	h := s.known[string(b)]
	s.mu.Unlock()
	if h != nil {
		return h, nil
	}
	h, err := DecodeHandshake(b)
	if err != nil || len(h.User) > 0 || len(b) > maxHandshakeSeen {
		return h, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxHandshakesSeen {
		s.known = make(map[string]*HandshakeData)
	}
	s.known[string(b)] = h
	return h, nil
}

// A resumeRequest is what a client wants that can come back on another connection.
type resumeRequest struct {
	Token    string // of the session that it had; empty: a new one
	Received int64  // pushes received in that session; negative if that makes no sense
}

// resumeKey is where that stands in the user's part of a handshake.
const resumeKey = "resume"

// takeResume takes the request to be resumable out of a handshake: its token is nobody else's business. Nil means that
// there is none. What has another form than it should makes no difference to whether the client is let in.
func (h *HandshakeData) takeResume() *resumeRequest {
	v, ok := h.User[resumeKey]
	if !ok {
		return nil
	}
	delete(h.User, resumeKey)
	fields, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	r := &resumeRequest{Received: -1}
	r.Token, _ = fields["token"].(string)
	if n, ok := fields["received"].(float64); ok && n >= 0 && n <= maxReceived && n == math.Trunc(n) {
		r.Received = int64(n)
	}
	return r
}

// maxReceived is the largest whole number that every JSON library gets right.
const maxReceived = 1 << 53

// appendHandshake appends the body of a handshake request, the additions to HandshakeSys included.
func appendHandshake(dst []byte, h *HandshakeData) ([]byte, error) {
	var w handshakeWire
	w.User = h.User
	w.Sys.Platform, w.Sys.LibVersion = h.Sys.Platform, h.Sys.LibVersion
	w.Sys.BuildNumber, w.Sys.Version = h.Sys.BuildNumber, h.Sys.Version
	var err error
	if h.Sys.Type != "" {
		if w.Sys.Type, err = json.Marshal(h.Sys.Type); err != nil {
			return dst, fmt.Errorf("pitaya: handshake: %w", err)
		}
	}
	if len(h.Sys.Features) > 0 {
		if w.Sys.Features, err = json.Marshal(h.Sys.Features); err != nil {
			return dst, fmt.Errorf("pitaya: handshake: %w", err)
		}
	}
	b, err := json.Marshal(&w)
	if err != nil {
		return dst, fmt.Errorf("pitaya: handshake: %w", err)
	}
	return append(dst, b...), nil
}

// goClientVersion is the library version of the Go client that Pitaya's command line tool is made of.
const goClientVersion = "0.3.5-release"

// inflates reports whether the client is known to inflate zlib. See the client protocol, section 12: libpitaya and the
// Go client do, JavaScript clients, which fail on it, do not, and of unknown ones nobody can tell.
func (h *HandshakeData) inflates() bool {
	if slices.Contains(h.Sys.Features, FeatureInflate) {
		return true
	}
	return h.Sys.Type == "" && (h.Sys.LibVersion == goClientVersion || h.libpitaya())
}

// knowsPushCodes reports whether the client is known to understand route codes in pushes. JavaScript clients and the
// Go client do; libpitaya crashes on them.
func (h *HandshakeData) knowsPushCodes() bool {
	if slices.Contains(h.Sys.Features, FeaturePushCodes) {
		return true
	}
	return h.Sys.Type != "" || h.Sys.LibVersion == goClientVersion
}

// drains reports whether the client can be told that the connection is about to end.
func (h *HandshakeData) drains() bool { return slices.Contains(h.Sys.Features, FeatureDrain) }

// libpitaya reports whether the client looks like the C library: it names a platform, and its version is three numbers
// and a dash with or without something behind it, as in "4.6.2-".
func (h *HandshakeData) libpitaya() bool {
	number, _, ok := strings.Cut(h.Sys.LibVersion, "-")
	if !ok || h.Sys.Platform == "" || h.Sys.LibVersion == goClientVersion {
		return false
	}
	n := 0
	for part := range strings.SplitSeq(number, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return false
		}
		n++
	}
	return n == 3
}

// Codes in the answer to a handshake. Client protocol, sections 5.3 and 5.4.
const (
	handshakeOK      = 200
	handshakeRefused = 400
	handshakeBusy    = 429
)

// HandshakeResponse is the answer to a handshake. See the client protocol, section 5.3.
type HandshakeResponse struct {
	Code int                  `json:"code"`          // 200 if the server accepts
	Msg  string               `json:"msg,omitempty"` // why a validator refused, our own addition
	Sys  HandshakeResponseSys `json:"sys"`
}

// HandshakeResponseSys is what a client needs to know of a server.
type HandshakeResponseSys struct {
	Dict       map[string]uint16 `json:"dict"`       // route to code; see [Dictionary]
	Heartbeat  float64           `json:"heartbeat"`  // interval in seconds; some clients understand whole ones only
	Serializer string            `json:"serializer"` // name of the [Serializer]

	// Resume is our own addition, for clients that asked for it; nil otherwise.
	Resume *HandshakeResume `json:"resume,omitempty"`
}

// HandshakeResume is what a client needs to come back to its session on another connection.
type HandshakeResume struct {
	Token   string `json:"token"`            // proves, once, that the session is the client's
	Window  int    `json:"window"`           // how long the session waits for its client, in seconds
	Resumed bool   `json:"resumed"`          // this is the session that the client had before
	Reason  string `json:"reason,omitempty"` // why it is not, if the client wanted it: "unknown", "gap", "changed" or "refused"
}

// appendHandshakeResponse appends the body of the answer, not compressed.
func appendHandshakeResponse(dst []byte, r *HandshakeResponse) ([]byte, error) {
	w := *r
	if w.Sys.Dict == nil {
		w.Sys.Dict = map[string]uint16{} // clients expect an object
	}
	b, err := json.Marshal(&w)
	if err != nil {
		return dst, fmt.Errorf("pitaya: handshake answer: %w", err)
	}
	return append(dst, b...), nil
}

// maxHandshakeResponse bounds in bytes what a client inflates: a dictionary of 65,536 routes may not fit, a useful one does.
const maxHandshakeResponse = 1 << 20

// decodeHandshakeResponse decodes the body of the answer. Nothing says whether it is compressed: its first bytes do.
func decodeHandshakeResponse(b []byte) (*HandshakeResponse, error) {
	if len(b) > 2 && b[0] == 0x78 && strings.IndexByte("\x01\x5e\x9c\xda", b[1]) >= 0 {
		plain, err := inflateTo(nil, b, maxHandshakeResponse)
		if err != nil {
			return nil, fmt.Errorf("handshake answer: %w", err)
		}
		b = plain
	}
	r := new(HandshakeResponse)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%w: handshake answer: %v", ErrProtocol, err)
	}
	return r, nil
}
