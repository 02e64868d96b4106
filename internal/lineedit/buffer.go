package lineedit

import (
	"strings"
	"unicode"
)

// maxBuffer bounds a line, in characters. More is not taken.
const maxBuffer = 1 << 20

// A buffer is a line that is being edited.
type buffer struct {
	text []rune
	pos  int // of the cursor, from 0 to len(text)
}

func (b *buffer) String() string { return string(b.text) }

func (b *buffer) set(s string) {
	b.text = []rune(s)
	b.pos = len(b.text)
}

// insert puts text before the cursor. Line breaks and tabs of a paste become spaces, which is what they are between the
// values of JSON; what else has no place in a line is dropped.
func (b *buffer) insert(s string) {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	add := make([]rune, 0, len(s))
	for _, r := range s {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			add = append(add, ' ')
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029:
		default:
			add = append(add, r)
		}
	}
	if room := maxBuffer - len(b.text); len(add) > room {
		add = add[:max(room, 0)]
	}
	b.text = append(b.text[:b.pos], append(add, b.text[b.pos:]...)...)
	b.pos += len(add)
}

// left and right are where the cursor is one character further; characters that join are one.
func (b *buffer) left() int {
	i := b.pos
	for i > 0 {
		i--
		if i == 0 || !joins(b.text[i-1], b.text[i]) {
			break
		}
	}
	return i
}

func (b *buffer) right() int {
	i := b.pos
	for i < len(b.text) {
		i++
		if i == len(b.text) || !joins(b.text[i-1], b.text[i]) {
			break
		}
	}
	return i
}

func inWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '_'
}

// wordLeft and wordRight are where the cursor is one word further.
func (b *buffer) wordLeft() int {
	i := b.pos
	for i > 0 && !inWord(b.text[i-1]) {
		i--
	}
	for i > 0 && inWord(b.text[i-1]) {
		i--
	}
	return i
}

func (b *buffer) wordRight() int {
	i := b.pos
	for i < len(b.text) && !inWord(b.text[i]) {
		i++
	}
	for i < len(b.text) && inWord(b.text[i]) {
		i++
	}
	return i
}

// spaceLeft is where a word begins that only space ends.
func (b *buffer) spaceLeft() int {
	i := b.pos
	for i > 0 && unicode.IsSpace(b.text[i-1]) {
		i--
	}
	for i > 0 && !unicode.IsSpace(b.text[i-1]) {
		i--
	}
	return i
}

// remove takes out the text between two places, leaves the cursor there, and returns it.
func (b *buffer) remove(from, to int) string {
	s := string(b.text[from:to])
	b.text = append(b.text[:from], b.text[to:]...)
	b.pos = from
	return s
}
