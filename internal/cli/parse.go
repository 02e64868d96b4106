package cli

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A command is one command as it is written: "request room.join {}".
type command struct {
	Name string
	Args string // all that stands behind the name, without space at its ends
	Not  bool   // "!" stands before it: it must fail
	Line int    // the line that it begins on, from 1
}

// String is the command as it might have been written.
func (c command) String() string {
	words := make([]string, 0, 3)
	if c.Not {
		words = append(words, "!")
	}
	for _, s := range []string{c.Name, c.Args} {
		if s != "" {
			words = append(words, s)
		}
	}
	return strings.Join(words, " ")
}

// parse cuts text into commands. A command ends at a line break or a semicolon, but neither counts between brackets, nor
// a semicolon between double quotes, so that JSON may have any and span lines. A # where a command would begin starts a
// comment, up to the end of the line.
//
// With open the last command's brackets are not closed: more lines are to come, if there are any. Lines are counted from
// line on.
func parse(text string, line int) (list []command, open bool) {
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '#':
			_, text, open = strings.Cut(text, "\n")
			if open {
				line++
			}
			open = false
			continue
		case r == ';' || unicode.IsSpace(r):
			if r == '\n' {
				line++
			}
			text = text[size:]
			continue
		}
		var end int
		end, open = commandEnd(text)
		c := newCommand(text[:end])
		c.Line = line
		list = append(list, c)
		line += strings.Count(text[:end], "\n")
		text = text[end:]
	}
	return list, open
}

// commandEnd returns the length of the command at the start of text, and whether it ends with text because a bracket is
// open.
func commandEnd(text string) (end int, open bool) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n': // no JSON string has one: a quote that is not closed ends here
			if depth == 0 {
				return i, false
			}
			quoted = false
		case quoted && c == '\\':
			if i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case (c == '}' || c == ']') && depth > 0:
			depth--
		case c == ';' && depth == 0:
			return i, false
		}
	}
	return len(text), depth > 0
}

func newCommand(text string) command {
	var c command
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "!"); ok {
		c.Not, text = true, strings.TrimSpace(rest)
	}
	c.Name, c.Args = cutWord(text)
	return c
}

// cutWord returns the first word of text and what follows, both without space around them.
func cutWord(text string) (word, rest string) {
	text = strings.TrimSpace(text)
	i := strings.IndexFunc(text, unicode.IsSpace)
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}
