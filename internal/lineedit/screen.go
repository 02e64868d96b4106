package lineedit

import (
	"fmt"
	"io"
	"strings"
)

// A screen is where an editor's line stands on a terminal: as rows, of which some may be out of sight.
//
// Rows are broken here and not by the terminal, and leave its last column free: what terminals do with a character there
// differs.
type screen struct {
	w             io.Writer
	width, height int
	row           int // of the cursor among the rows that are drawn; how far up the first one is
	top           int // first row that is drawn, when there are more than fit
	drawn         bool
}

// A layout is text in rows, and where the cursor is in them.
type layout struct {
	rows     []string
	row, col int
}

// lay breaks a prompt and a text into rows of a width. pos is the cursor's place in text.
func lay(prompt string, text []rune, pos, width int) layout {
	width = max(width, 1)
	var l layout
	var row strings.Builder
	col := 0
	wrap := func(w int) { // makes room for a character
		if col > 0 && col+w > width {
			l.rows = append(l.rows, row.String())
			row.Reset()
			col = 0
		}
	}
	place := func(r rune) {
		w := Width(r)
		wrap(w)
		row.WriteRune(r)
		col += w
	}
	for _, r := range prompt {
		place(r)
	}
	for i, r := range text {
		if i == pos {
			wrap(max(Width(r), 1))
			l.row, l.col = len(l.rows), col
		}
		place(r)
	}
	if pos >= len(text) {
		wrap(1)
		l.row, l.col = len(l.rows), col
	}
	l.rows = append(l.rows, row.String())
	return l
}

// erase appends what takes the rows off the terminal and leaves the cursor where the first one was.
func (s *screen) erase(b *strings.Builder) {
	if !s.drawn {
		return
	}
	if s.row > 0 {
		fmt.Fprintf(b, "\x1b[%dA", s.row)
	}
	b.WriteString("\r\x1b[J")
	s.row, s.drawn = 0, false
}

// draw appends what shows a prompt and a text from the start of the cursor's row on, instead of what was drawn before.
func (s *screen) draw(b *strings.Builder, prompt string, text []rune, pos int) {
	s.erase(b)
	l := lay(prompt, text, pos, s.width-1)
	height := max(s.height, 1)
	switch {
	case len(l.rows) <= height:
		s.top = 0
	case l.row < s.top:
		s.top = l.row
	case l.row >= s.top+height:
		s.top = l.row - height + 1
	}
	s.top = min(s.top, max(len(l.rows)-height, 0))
	rows := l.rows[s.top:min(s.top+height, len(l.rows))]
	b.WriteString(strings.Join(rows, "\r\n"))
	s.row, s.drawn = l.row-s.top, true
	if up := len(rows) - 1 - s.row; up > 0 {
		fmt.Fprintf(b, "\x1b[%dA", up)
	}
	b.WriteByte('\r')
	if l.col > 0 {
		fmt.Fprintf(b, "\x1b[%dC", l.col)
	}
}

// write sends what was appended, in one piece. A terminal that is gone shows in what is read from it.
func (s *screen) write(b *strings.Builder) { io.WriteString(s.w, b.String()) }
