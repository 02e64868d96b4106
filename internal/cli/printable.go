package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is shown of one thing that a server says.
const (
	maxShownWord = 1 << 10 // names, routes, texts of errors; in bytes
	maxShownHex  = 64      // bytes that are no text
	wideJSON     = 100     // compact JSON up to here stays on its line; in bytes
	maxIndent    = 32      // deeper JSON stays compact: each level is paid for on every line below it
)

// printable reports whether a rune may reach a terminal. What controls it may not, nor what reorders text or is
// invisible, but for the joiners that some scripts and pictures need.
func printable(r rune) bool {
	return unicode.IsGraphic(r) || r == '\u200c' || r == '\u200d'
}

// clean makes one line of text of something that a server has sent: what must not reach a terminal is written as in Go
// and JSON, and it is not long.
func clean(s string) string { return cut(escape(s, false), maxShownWord) }

// escape replaces all that is not printable by escapes that JSON understands. Line breaks are kept if lines is set.
func escape(s string, lines bool) string {
	plain := func(r rune) bool { return printable(r) || lines && r == '\n' }
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			b.WriteString(`\ufffd`) // bytes that are no UTF-8
		case plain(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// cut shortens text to about max bytes and says so.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	n := max
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes in all)", s[:n], len(s))
}

// showJSON makes text of valid JSON: on a line if it is short, else indented. It is valid JSON again, unless it had to be
// cut to max bytes.
func showJSON(b []byte, max int) string {
	var compact, indented bytes.Buffer
	if json.Compact(&compact, b) != nil {
		return showBytes(b, max)
	}
	out := &compact
	if compact.Len() > wideJSON && compact.Len() <= max && depth(compact.Bytes()) <= maxIndent {
		if json.Indent(&indented, compact.Bytes(), "", "  ") == nil && indented.Len() <= 2*max {
			return escape(indented.String(), true)
		}
	}
	return cut(escape(out.String(), false), max)
}

// depth is how deep JSON nests.
func depth(b []byte) int {
	deepest, depth, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// showBytes makes a line of text of bytes that are no JSON: themselves if they are text, else hexadecimal digits.
func showBytes(b []byte, max int) string {
	if text, ok := asText(b); ok {
		return cut(escape(text, false), max)
	}
	shown := b[:min(len(b), maxShownHex)]
	if len(shown) < len(b) {
		return fmt.Sprintf("(%d bytes) %s…", len(b), hex.EncodeToString(shown))
	}
	return fmt.Sprintf("(%d bytes) %s", len(b), hex.EncodeToString(shown))
}

// asText reports whether bytes are a text.
func asText(b []byte) (string, bool) {
	if !utf8.Valid(b) {
		return "", false
	}
	for _, r := range string(b) {
		if !printable(r) && r != '\n' && r != '\t' && r != '\r' {
			return "", false
		}
	}
	return string(b), true
}
