// The headers of WebSocket upgrades: how much of an answer is read, what it must say, and the grammar of RFC 6455 sections
// 4.3 and 9.1.

package pitaya

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// A wsHeaderReader bounds how much of a connection is read in search of the end of an answer's header, and tells errors of
// the connection from those of the header.
type wsHeaderReader struct {
	r    io.Reader
	left int
	err  error // of r
}

func (h *wsHeaderReader) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, io.EOF
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // the peer left in the middle
	}
	if err != nil {
		h.err = err
	}
	return n, err
}

// wsBuffers holds the readers of answers, which take no longer than a round trip.
var wsBuffers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// buffer returns a buffered reader on h, to be given back with release.
func (h *wsHeaderReader) buffer() *bufio.Reader {
	br := wsBuffers.Get().(*bufio.Reader)
	br.Reset(h)
	return br
}

func (h *wsHeaderReader) release(br *bufio.Reader) {
	br.Reset(nil)
	wsBuffers.Put(br)
}

// rest returns a copy of what was read beyond the header, nil if that is nothing.
func (h *wsHeaderReader) rest(br *bufio.Reader) []byte {
	if br.Buffered() == 0 {
		return nil
	}
	b, _ := br.Peek(br.Buffered())
	return bytes.Clone(b)
}

// checkWSAnswer applies RFC 6455 section 4.1 to the answer to a request with a key, in which subprotocols were offered or
// not, and no extension. Fields that must not be there twice are not (sections 11.3.2 to 11.3.4).
func checkWSAnswer(a *http.Response, key string, offered []string) error {
	upgrade, accept := a.Header["Upgrade"], a.Header["Sec-Websocket-Accept"]
	protocol, chosen := a.Header["Sec-Websocket-Protocol"], ""
	if len(protocol) > 0 {
		chosen = protocol[0]
	}
	switch {
	case a.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("no upgrade, the answer is %d %s", a.StatusCode, http.StatusText(a.StatusCode))
	case len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket"), !hasToken(a.Header["Connection"], "upgrade"):
		return errors.New("the answer upgrades to something else")
	case len(accept) != 1 || accept[0] != string(appendWSAccept(nil, key)):
		return errors.New("the answer is not to our request")
	case len(a.Header["Sec-Websocket-Extensions"]) > 0:
		return errors.New("the answer has an extension that was not offered")
	case len(protocol) > 1, len(protocol) == 1 && !slices.Contains(slices.Collect(listElements(offered)), chosen):
		return errors.New("the answer has a subprotocol that was not offered")
	}
	return nil
}

// listElements gives the elements of a list, which may stand in one line with commas or in several (RFC 9110 section 5.3),
// without the white space around them and without empty ones (section 5.6.1.2).
func listElements(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, list := range values {
			for entry := range strings.SplitSeq(list, ",") {
				if entry = strings.Trim(entry, " \t"); entry != "" && !yield(entry) {
					return
				}
			}
		}
	}
}

// hasToken looks for token, in any case, in lists.
func hasToken(lists []string, token string) bool {
	for entry := range listElements(lists) {
		if strings.EqualFold(entry, token) {
			return true
		}
	}
	return false
}

// validWSProtocols reports whether values are a list of subprotocols, RFC 6455 section 4.1, number 10, and, if it must be,
// whether each is there once.
func validWSProtocols(values []string, unique bool) bool {
	var seen []string
	for name := range listElements(values) {
		if !isToken(name) || unique && slices.Contains(seen, name) {
			return false
		}
		seen = append(seen, name)
	}
	return len(seen) > 0
}

// validWSExtensions reports whether values are a list of extensions, RFC 6455 section 9.1. What a quoted string stands for
// must be a token too, so none of the separators can be in a good one.
func validWSExtensions(values []string) bool {
	found := false
	for extension := range listElements(values) {
		found = true
		name, params, more := strings.Cut(extension, ";")
		if !isToken(strings.Trim(name, " \t")) {
			return false
		}
		for more {
			var param string
			param, params, more = strings.Cut(params, ";")
			key, value, has := strings.Cut(param, "=")
			if !isToken(strings.Trim(key, " \t")) || has && !isTokenOrQuoted(strings.Trim(value, " \t")) {
				return false
			}
		}
	}
	return found
}

// isTokenOrQuoted reports whether s is a token, or one in quotes, where a backslash may stand before any character.
func isTokenOrQuoted(s string) bool {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return isToken(s)
	}
	s = s[1 : len(s)-1]
	unescaped := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; i == len(s) {
				return false
			}
		}
		unescaped = append(unescaped, s[i])
	}
	return isToken(string(unescaped))
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// isTokenByte reports whether c may be in a token: a letter, a digit, or one of a few other characters.
func isTokenByte(c byte) bool {
	const (
		digits  = (1<<10 - 1) << '0'
		letters = (1<<26-1)<<'a' | (1<<26-1)<<'A'
		others  = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' | 1<<'^' | 1<<'_' | 1<<'`' | 1<<'|' | 1<<'~'
		all     = digits | letters | others
		half    = 1<<64 - 1
	)
	// Shifting a number by more than its bits gives 0.
	return uint64(all&half)>>c&1 != 0 || c >= 64 && uint64(all>>64)>>(c-64)&1 != 0
}

// validHost reports whether s is made of what a host and port may be made of, RFC 3986 section 3.2.2.
func validHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("-._~%!$&'()*+,;=:[]", c) >= 0) {
			return false
		}
	}
	return true
}
