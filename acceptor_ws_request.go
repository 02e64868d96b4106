// The requests that ask for WebSocket upgrades: their reading, and what they say. RFC 9112 sections 2, 3 and 6, RFC 6455
// section 4.2.1.

package pitaya

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// A wsRequest is what an upgrade request says, as far as an answer to it depends on that.
//
// It has few allocations, where [http.ReadRequest] makes a map, its values and a URL: after a deploy, connecting is
// all the work of a server for a while. What the two take for a good request is the same, see TestWSRequestParsers.
type wsRequest struct {
	Method       string
	Target       string // as it was sent
	Path         string // of the target, without escapes
	Authority    string // the host of a target that is a URL
	Major, Minor int    // version of HTTP
	Body         bool   // something that is no frame follows
	HTTP         *http.Request

	fields [wsFields]wsValues
}

// wsField is a header field that matters.
type wsField int

const (
	wsHost wsField = iota
	wsUpgradeField
	wsConnection
	wsKey
	wsVersion
	wsProtocol
	wsExtensions
	wsOrigin
	wsForwardedFor
	wsContentLength
	wsTransferEncoding
	wsFields
)

// wsFieldNames returns their canonical names.
func wsFieldNames() [wsFields]string {
	return [...]string{
		wsHost:             "Host",
		wsUpgradeField:     "Upgrade",
		wsConnection:       "Connection",
		wsKey:              "Sec-Websocket-Key",
		wsVersion:          "Sec-Websocket-Version",
		wsProtocol:         "Sec-Websocket-Protocol",
		wsExtensions:       "Sec-Websocket-Extensions",
		wsOrigin:           "Origin",
		wsForwardedFor:     "X-Forwarded-For",
		wsContentLength:    "Content-Length",
		wsTransferEncoding: "Transfer-Encoding",
	}
}

// wsValues are the values of a field, one for each of its lines. Nearly always there is one at most, which has its place
// here.
type wsValues struct {
	n     int
	first [1]string
	all   []string // of several
}

func (v *wsValues) add(value string) {
	switch v.n++; v.n {
	case 1:
		v.first[0] = value
	case 2:
		v.all = append(v.all, v.first[0], value)
	default:
		v.all = append(v.all, value)
	}
}

// values returns the values of a field. They are r's.
func (r *wsRequest) values(f wsField) []string {
	v := &r.fields[f]
	if v.n < 2 {
		return v.first[:v.n]
	}
	return v.all
}

// host is whom the request is meant for: the authority of a URL comes before the field (RFC 9112 section 3.2.2).
func (r *wsRequest) host() string {
	if v := r.values(wsHost); r.Authority == "" && len(v) > 0 {
		return v[0]
	}
	return r.Authority
}

// take fills r from a request that package net/http has read.
func (r *wsRequest) take(h *http.Request) {
	*r = wsRequest{
		Method: h.Method, Target: h.RequestURI, Path: h.URL.Path, Authority: h.URL.Host,
		Major: h.ProtoMajor, Minor: h.ProtoMinor,
		Body: h.ContentLength != 0 || len(h.TransferEncoding) > 0,
		HTTP: h,
	}
	for f, name := range wsFieldNames() {
		for _, value := range h.Header[name] {
			r.fields[f].add(value)
		}
	}
	if h.Host != "" {
		r.fields[wsHost].add(h.Host) // package net/http takes it out of the header
	}
}

// parse fills r from a header that a wsHeaderScan has found to be in order, with the empty line at its end. It returns
// false if that is no request, or one with a body that could be taken for longer or shorter.
func (r *wsRequest) parse(header []byte) bool {
	*r = wsRequest{}
	// A copy, of which all strings are parts.
	line, rest, _ := strings.Cut(string(header), "\r\n")
	var ok bool
	if r.Method, line, ok = strings.Cut(line, " "); !ok || !isToken(r.Method) {
		return false
	}
	var version string
	if r.Target, version, ok = strings.Cut(line, " "); !ok {
		return false
	}
	if r.Major, r.Minor, ok = http.ParseHTTPVersion(version); !ok {
		return false
	}
	if !r.parseTarget() {
		return false
	}
	names := wsFieldNames()
	for rest != "\r\n" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		for f, known := range names {
			if len(name) == len(known) && strings.EqualFold(name, known) {
				r.fields[f].add(strings.Trim(value, " \t"))
				break
			}
		}
	}
	if len(r.values(wsHost)) > 1 {
		return false
	}
	r.Body = len(r.values(wsTransferEncoding)) > 0
	for i, length := range r.values(wsContentLength) {
		if length == "" || strings.Trim(length, "0123456789") != "" || i > 0 && length != r.values(wsContentLength)[0] {
			return false
		}
		r.Body = r.Body || strings.Trim(length, "0") != ""
	}
	return true
}

// parseTarget takes the target apart.
func (r *wsRequest) parseTarget() bool {
	if r.Method == http.MethodConnect {
		return true // its target is of a form of its own, and it is refused anyway
	}
	if plainPath(r.Target) {
		r.Path = r.Target
		return true
	}
	u, err := url.ParseRequestURI(r.Target)
	if err != nil {
		return false
	}
	r.Path, r.Authority = u.Path, u.Host
	return true
}

// plainPath reports whether s is a path in which nothing stands for something else.
func plainPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '/' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return s != "" && s[0] == '/'
}

// wsHeads holds the memory in which requests are read, which takes no longer than a round trip.
var wsHeads = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// readWSRequest reads a request from c into r and checks it. The result is what c has sent behind it, nil if that is
// nothing. The error of a request that needs an answer is a *wsRefusal.
func (l *WSListener) readWSRequest(c net.Conn, r *wsRequest) (behind []byte, err error) {
	space := wsHeads.Get().(*[]byte)
	b := (*space)[:0]
	defer func() {
		if cap(b) <= wsMaxPooled {
			*space = b[:0]
			wsHeads.Put(space)
		}
	}()
	var scan wsHeaderScan
	header := 0 // so many bytes are its
	for !scan.done() {
		if len(b) >= l.o.MaxHeaderBytes {
			return nil, &wsRefusal{status: http.StatusRequestHeaderFieldsTooLarge, text: "the request is too large"}
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := c.Read(b[len(b):min(cap(b), l.o.MaxHeaderBytes)])
		b = b[:len(b)+n]
		// All methods begin with a letter. Those who probe what speaks here, with TLS or packets, must not wait for the
		// end of a line that they will not send.
		if len(b) > 0 && (b[0]|0x20 < 'a' || b[0]|0x20 > 'z') {
			return nil, &wsRefusal{status: http.StatusBadRequest, text: "this is a WebSocket server"}
		}
		n, ok := scan.take(b[header:])
		if header += n; !ok {
			return nil, wsMalformed
		}
		if err != nil && !scan.done() {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // the peer left in the middle
			}
			return nil, err
		}
	}
	if !r.parse(b[:header]) {
		return nil, wsMalformed
	}
	if l.o.CheckOrigin != nil { // wants to see all of it
		if r.HTTP, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:header]))); err != nil {
			return nil, wsMalformed
		}
	}
	if refusal := l.check(r); refusal != nil {
		return nil, refusal
	}
	if header < len(b) {
		behind = bytes.Clone(b[header:])
	}
	return behind, nil
}

// A wsHeaderScan looks at the header of a request while it is read, for what many forgive: lines that end without CR,
// lines that go on in the next (obs-fold), white space or anything else but a token in front of the colon, and control
// characters. RFC 9112 sections 2.2, 5.1 and 5.2 and RFC 9110 section 5.5 let a server refuse all of them. A proxy may
// take such bytes for another header than we would, and so tell us of addresses and origins that it never saw.
type wsHeaderScan struct{ state wsScanState }

// wsScanState is what was read last.
type wsScanState uint8

const (
	wsScanFirst   wsScanState = iota // nothing; the first byte is for those who look what speaks here
	wsScanLine                       // some of the request line, or of a value
	wsScanCR                         // CR behind it
	wsScanStart                      // a whole line
	wsScanName                       // some of a field's name
	wsScanEmptyCR                    // CR of the empty line
	wsScanDone                       // the empty line; what follows are frames
)

// done reports whether the whole header was seen.
func (s *wsHeaderScan) done() bool { return s.state == wsScanDone }

// take looks at the next bytes and returns how many of them belong to the header, and whether these are in order.
func (s *wsHeaderScan) take(b []byte) (n int, ok bool) {
	for i := 0; i < len(b); i++ {
		next := wsScanLine
		ok := true
		c := b[i]
		switch s.state {
		case wsScanFirst:
		case wsScanDone:
			return i, true
		case wsScanLine:
			for isValueByte(c) && i+1 < len(b) {
				i++
				c = b[i]
			}
			if c == '\r' {
				next = wsScanCR
			}
			ok = c == '\r' || isValueByte(c)
		case wsScanCR:
			next, ok = wsScanStart, c == '\n'
		case wsScanEmptyCR:
			next, ok = wsScanDone, c == '\n'
		case wsScanStart, wsScanName:
			switch {
			case c == '\r' && s.state == wsScanStart:
				next = wsScanEmptyCR
			case c == ':' && s.state == wsScanName:
			default:
				next, ok = wsScanName, isTokenByte(c)
			}
		}
		if !ok {
			return i, false
		}
		s.state = next
	}
	return len(b), true
}

// isValueByte reports whether c may be in a value or the request line, which may have bytes beyond ASCII.
func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
