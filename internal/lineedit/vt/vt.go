// Package vt is the screen of a terminal in memory, for tests of what programs write to one. It knows what package
// lineedit and line-oriented programs use, and remembers what else it was sent, so that tests can insist on there being
// nothing.
package vt

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya/internal/lineedit"
)

// A Screen is what somebody at a terminal sees, with the lines that went off at the top. Its methods may be called by any
// goroutine.
type Screen struct {
	mu            sync.Mutex
	width, height int
	rows          [][]string // each cell is a character with its marks; behind a wide one stands an empty cell
	gone          []string   // rows that were scrolled off
	row, col      int
	wrap          bool   // the last column was written: the next character goes to the next row
	rest          []byte // an incomplete sequence or character
	unknown       []string
	bells         int
	pasteMarks    bool
	changed       chan struct{} // closed with the next change
}

// New returns an empty screen.
func New(width, height int) *Screen {
	s := &Screen{width: width, height: height, changed: make(chan struct{})}
	s.rows = make([][]string, height)
	return s
}

// Write shows what a program writes. It never fails.
func (s *Screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(b)
	b = append(s.rest, b...)
	s.rest = nil
	for len(b) > 0 {
		used := s.take(b)
		if used == 0 {
			s.rest = append([]byte(nil), b...)
			break
		}
		b = b[used:]
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return n, nil
}

// take shows one character or does one sequence, and returns its length; zero if it is incomplete.
func (s *Screen) take(b []byte) int {
	switch c := b[0]; {
	case c == 0x1b:
		return s.escape(b)
	case c == '\r':
		s.col, s.wrap = 0, false
	case c == '\n':
		s.down()
		s.wrap = false
	case c == '\b':
		s.col, s.wrap = max(s.col-1, 0), false
	case c == '\a':
		s.bells++
	case c < 0x20 || c == 0x7f:
		s.unknown = append(s.unknown, fmt.Sprintf("%q", c))
	default:
		if !utf8.FullRune(b) {
			return 0
		}
		r, n := utf8.DecodeRune(b)
		if r >= 0x80 && r < 0xa0 || r == utf8.RuneError && n == 1 {
			s.unknown = append(s.unknown, fmt.Sprintf("%q", b[:n]))
			return n
		}
		s.put(r)
		return n
	}
	return 1
}

// put shows a character at the cursor.
func (s *Screen) put(r rune) {
	w := lineedit.Width(r)
	if w == 0 {
		if col := s.col - 1; col >= 0 && col < len(s.rows[s.row]) {
			for col > 0 && s.rows[s.row][col] == "" {
				col--
			}
			s.rows[s.row][col] += string(r)
		}
		return
	}
	if s.wrap || s.col+w > s.width {
		s.col, s.wrap = 0, false
		s.down()
	}
	for len(s.rows[s.row]) < s.col+w {
		s.rows[s.row] = append(s.rows[s.row], " ")
	}
	s.rows[s.row][s.col] = string(r)
	if w == 2 {
		s.rows[s.row][s.col+1] = ""
	}
	s.col += w
	if s.col == s.width {
		s.col, s.wrap = s.width-1, true
	}
}

func (s *Screen) down() {
	if s.row < s.height-1 {
		s.row++
		return
	}
	s.gone = append(s.gone, text(s.rows[0]))
	copy(s.rows, s.rows[1:])
	s.rows[s.height-1] = nil
}

// escape does an escape sequence.
func (s *Screen) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != '[' {
		s.unknown = append(s.unknown, fmt.Sprintf("%q", b[:2]))
		return 2
	}
	i := 2
	for i < len(b) && b[i] >= 0x20 && b[i] < 0x40 {
		i++
	}
	if i == len(b) {
		return 0
	}
	params := string(b[2:i])
	n, err := strconv.Atoi(params)
	if err != nil {
		n = 1
	}
	switch b[i] {
	case 'A':
		s.row, s.wrap = max(s.row-n, 0), false
	case 'B':
		s.row, s.wrap = min(s.row+n, s.height-1), false
	case 'C':
		s.col, s.wrap = min(s.col+n, s.width-1), false
	case 'D':
		s.col, s.wrap = max(s.col-n, 0), false
	case 'H':
		s.row, s.col, s.wrap = 0, 0, false
	case 'J':
		first := s.row + 1
		if params == "2" {
			first = 0
		} else {
			s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
		}
		for row := first; row < s.height; row++ {
			s.rows[row] = nil
		}
	case 'K':
		s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
	case 'h', 'l':
		if params == "?2004" {
			s.pasteMarks = b[i] == 'h'
			break
		}
		fallthrough
	default:
		s.unknown = append(s.unknown, fmt.Sprintf("%q", b[:i+1]))
	}
	return i + 1
}

func text(cells []string) string { return strings.TrimRight(strings.Join(cells, ""), " ") }

// Resize changes the size. As terminals without reflow do, it leaves the rows where they are and drops what is not on the
// screen any more.
func (s *Screen) Resize(width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.row >= height {
		s.gone = append(s.gone, text(s.rows[0]))
		s.rows = s.rows[1:]
		s.row--
	}
	rows := make([][]string, height)
	copy(rows, s.rows)
	for i, row := range rows {
		rows[i] = row[:min(len(row), width)]
	}
	s.rows, s.width, s.height = rows, width, height
	s.col, s.wrap = min(s.col, width-1), false
}

// String is what is on the screen: its rows up to the last that is not empty, without space at their ends.
func (s *Screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.visible()
}

func (s *Screen) visible() string {
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, text(row))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// All is the same with the rows that have gone off at the top.
func (s *Screen) All() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(append(append([]string(nil), s.gone...), s.visible()), "\n")
}

// Cursor is where the cursor is, from 0, 0 at the top left.
func (s *Screen) Cursor() (row, col int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.row, s.col
}

// Unknown is what was written that this screen does not know, quoted: a program should not.
func (s *Screen) Unknown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown
}

// Bells is how often the bell was rung.
func (s *Screen) Bells() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bells
}

// PasteMarks reports whether pastes are to be marked.
func (s *Screen) PasteMarks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pasteMarks
}

// Changed returns a channel that is closed with the next write.
func (s *Screen) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
