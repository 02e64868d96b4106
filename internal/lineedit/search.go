package lineedit

import "strings"

// A search goes through the history while its text is typed, the newest line first.
type search struct {
	lines []string
	text  string
	at    int  // the line that is shown; len(lines): none yet
	lost  bool // nothing has the text
}

func newSearch(lines []string) *search { return &search{lines: lines, at: len(lines)} }

// find looks for the text in a line and all older ones.
func (s *search) find(from int) {
	for i := min(from, len(s.lines)-1); i >= 0; i-- {
		if strings.Contains(s.lines[i], s.text) {
			s.at, s.lost = i, false
			return
		}
	}
	s.lost = true
}

// line is what was found, or the line that was there before.
func (s *search) line(b *buffer) string {
	if s.at < len(s.lines) {
		return s.lines[s.at]
	}
	return b.String()
}

// view is what is shown in the place of the line.
func (s *search) view(b *buffer) (prompt string, text []rune, pos int) {
	prompt = "(search) "
	if s.lost {
		prompt = "(nothing found) "
	}
	line := s.line(b)
	pos = len([]rune(line))
	if i := strings.LastIndex(line, s.text); i >= 0 && s.text != "" {
		pos = len([]rune(line[:i]))
	}
	return prompt + s.text + ": ", []rune(line), pos
}

// searchKey takes a key while a search is on. Most keys end it with the line that was found, and then mean what they do
// elsewhere; for these done is false.
func (e *Editor) searchKey(k Key) (done bool) {
	s := e.search
	switch {
	case k.Code == CodeRune:
		s.text += string(k.Rune)
		s.find(s.at)
	case k.Code == CodeBackspace:
		if r := []rune(s.text); len(r) > 0 {
			s.text = string(r[:len(r)-1])
			s.find(len(s.lines) - 1)
		}
	case k.Code == CodeCtrl && k.Rune == 'r':
		s.find(s.at - 1)
	case k.Code == CodeCtrl && k.Rune == 'g':
		e.search = nil
	default:
		line := s.line(&e.buf)
		if line != e.buf.String() {
			if e.place == len(e.History.Lines()) {
				e.draft = e.buf.String()
			}
			e.place = s.at
			e.buf.set(line)
		}
		e.search = nil
		return false
	}
	e.dirty = true
	return true
}
