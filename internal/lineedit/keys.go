package lineedit

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A Key is one key press, or one piece of a paste.
type Key struct {
	Code Code
	Rune rune   // of CodeRune; the letter of CodeCtrl, in lower case; the character of CodeAlt
	Text string // of CodePaste
}

// A Code says what kind of key it is.
type Code int

// The kinds of keys. What a terminal sends besides has no code and is ignored.
const (
	CodeRune Code = iota + 1
	CodeCtrl
	CodeAlt
	CodePaste // text between the marks of a bracketed paste, as it came; a long one comes in pieces
	CodeEnter
	CodeTab
	CodeBackspace
	CodeDelete
	CodeLeft
	CodeRight
	CodeUp
	CodeDown
	CodeHome
	CodeEnd
	CodeWordLeft
	CodeWordRight
	CodeDeleteWordLeft
	CodeDeleteWordRight
)

// A Decoder makes keys of the bytes that a terminal sends. Sequences may be cut anywhere.
//
// An escape byte is the start of a sequence, or, as in other editors, stands for Alt with the key behind it; pressed alone
// it means nothing.
type Decoder struct {
	rest     []byte // an incomplete sequence, short
	pasting  bool
	skipping bool // in a sequence that is too long
}

// maxSequence bounds an escape sequence. What is longer is no key.
const maxSequence = 32

// pasteEnd is the mark behind a paste.
const pasteEnd = "\x1b[201~"

// Keys takes bytes in and returns the keys that are complete.
func (d *Decoder) Keys(b []byte) []Key {
	if len(d.rest) > 0 {
		b = append(d.rest, b...)
		d.rest = nil
	}
	var keys []Key
	for len(b) > 0 {
		var k Key
		var n int
		ended := false // a sequence, in front of b
		switch {
		case d.pasting:
			k, n = d.paste(b)
		case d.skipping:
			n = d.skip(b)
			ended = !d.skipping
		default:
			k, n = d.key(b)
		}
		if n == 0 && !ended {
			d.rest = bytes.Clone(b)
			break
		}
		b = b[n:]
		if k.Code != 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// paste takes a piece of a paste off the start of b.
func (d *Decoder) paste(b []byte) (k Key, n int) {
	i := bytes.Index(b, []byte(pasteEnd))
	if i == 0 {
		d.pasting = false
		return Key{}, len(pasteEnd)
	}
	if i < 0 {
		i = len(b)
		for m := min(len(pasteEnd)-1, len(b)); m > 0; m-- { // the mark may be cut
			if bytes.HasSuffix(b, []byte(pasteEnd[:m])) {
				i -= m
				break
			}
		}
		i -= cutRune(b[:i])
		if i == 0 {
			return Key{}, 0
		}
	}
	return Key{Code: CodePaste, Text: string(b[:i])}, i
}

// cutRune returns how many bytes at the end of b are the start of a rune whose rest is missing.
func cutRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if tail[0] >= utf8.RuneSelf && !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}

// key takes a key off the start of b. n is zero if it is incomplete, and k has no code if it is none.
func (d *Decoder) key(b []byte) (k Key, n int) {
	switch c := b[0]; {
	case c == 0x1b:
		return d.escape(b)
	case c == '\r' || c == '\n':
		return Key{Code: CodeEnter}, 1
	case c == '\t':
		return Key{Code: CodeTab}, 1
	case c == 0x7f || c == 0x08:
		return Key{Code: CodeBackspace}, 1
	case c == 0:
		return Key{}, 1
	case c <= 0x1a:
		return Key{Code: CodeCtrl, Rune: 'a' + rune(c) - 1}, 1
	case c < 0x20:
		return Key{}, 1
	}
	if !utf8.FullRune(b) {
		return Key{}, 0
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 || r >= 0x7f && r < 0xa0 { // no character, or one that controls
		return Key{}, n
	}
	return Key{Code: CodeRune, Rune: r}, n
}

// escape takes an escape sequence off the start of b.
func (d *Decoder) escape(b []byte) (k Key, n int) {
	if len(b) == 1 {
		return Key{}, 0
	}
	switch c := b[1]; {
	case c == '[':
		return d.csi(b)
	case c == 'O': // cursor keys of some terminals
		if len(b) < 3 {
			return Key{}, 0
		}
		return Key{Code: cursorKey(b[2])}, 3
	case c == 0x1b: // the first one was alone
		return Key{}, 1
	case c == 0x7f || c == 0x08:
		return Key{Code: CodeDeleteWordLeft}, 2
	case c == 'b' || c == 'B':
		return Key{Code: CodeWordLeft}, 2
	case c == 'f' || c == 'F':
		return Key{Code: CodeWordRight}, 2
	case c == 'd' || c == 'D':
		return Key{Code: CodeDeleteWordRight}, 2
	case c < 0x20:
		return Key{}, 1
	}
	if !utf8.FullRune(b[1:]) {
		return Key{}, 0
	}
	r, n := utf8.DecodeRune(b[1:])
	return Key{Code: CodeAlt, Rune: r}, 1 + n
}

// csi takes a sequence that begins with ESC [ off the start of b: parameters, then what was pressed.
func (d *Decoder) csi(b []byte) (k Key, n int) {
	i := 2
	for i < len(b) && b[i] >= 0x20 && b[i] < 0x40 {
		i++
	}
	switch {
	case i > maxSequence:
		d.skipping = true
		return Key{}, i
	case i == len(b):
		return Key{}, 0
	case b[i] < 0x20 || b[i] > 0x7e:
		return Key{}, i // broken off; what follows is a key again
	case b[i] == '[' && i == 2: // function keys of the Linux console
		if len(b) < 4 {
			return Key{}, 0
		}
		return Key{}, 4
	}
	params, final := string(b[2:i]), b[i]
	n = i + 1
	first, modifier, _ := strings.Cut(params, ";")
	if final == '~' {
		switch first {
		case "1", "7":
			return Key{Code: CodeHome}, n
		case "4", "8":
			return Key{Code: CodeEnd}, n
		case "3":
			if modifier != "" {
				return Key{Code: CodeDeleteWordRight}, n
			}
			return Key{Code: CodeDelete}, n
		case "200":
			d.pasting = true
		}
		return Key{}, n
	}
	code := cursorKey(final)
	if modifier != "" && modifier != "1" && modifier != "2" { // with Alt or Ctrl
		switch code {
		case CodeLeft:
			code = CodeWordLeft
		case CodeRight:
			code = CodeWordRight
		}
	}
	return Key{Code: code}, n
}

// skip takes bytes of a sequence that is too long off the start of b, up to its end. A byte that is in no sequence ends it
// too, and is a key again.
func (d *Decoder) skip(b []byte) int {
	for i, c := range b {
		switch {
		case c < 0x20 || c > 0x7e:
			d.skipping = false
			return i
		case c >= 0x40:
			d.skipping = false
			return i + 1
		}
	}
	return len(b)
}

// cursorKey is the key that a sequence ends with the name of.
func cursorKey(final byte) Code {
	switch final {
	case 'A':
		return CodeUp
	case 'B':
		return CodeDown
	case 'C':
		return CodeRight
	case 'D':
		return CodeLeft
	case 'H':
		return CodeHome
	case 'F':
		return CodeEnd
	case 'M':
		return CodeEnter // of the keypad
	}
	return 0
}
