package lineedit

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Outcome is what a key has led to.
type Outcome int

// The outcomes of a key.
const (
	Editing   Outcome = iota // the line goes on
	Entered                  // the line is complete
	Interrupt                // Ctrl-C: the line was given up
	EOF                      // Ctrl-D on an empty line
	Suspend                  // Ctrl-Z: the line stays, see Editor.Suspend
)

// A Completer says what could stand in the place of the text before the cursor: candidates for that which begins at start,
// in bytes. One candidate is taken as it is, so it brings what separates it from what follows.
type Completer func(before string) (start int, candidates []string)

// An Editor is a line at a terminal in raw mode. It is not for use by several goroutines at once.
type Editor struct {
	// Complete is what the tab key asks. Nil: there is nothing to complete.
	Complete Completer
	// History is what the cursor keys go through. The caller adds to it.
	History *History

	scr    screen
	prompt string
	buf    buffer
	active bool
	killed string // by Ctrl-K, U and W, for Ctrl-Y
	place  int    // in the history; its length: the line that is new
	draft  string // the new line, while place is elsewhere
	tabbed bool   // the key before was a tab that led nowhere: the next one lists
	search *search
	dirty  bool // the terminal does not show the line as it is
}

// maxListed is how many candidates a completion lists.
const maxListed = 200

// NewEditor returns an editor that writes to a terminal of 80 by 24 characters, until Resize says otherwise.
func NewEditor(w io.Writer) *Editor {
	return &Editor{History: new(History), scr: screen{w: w, width: 80, height: 24}}
}

// Begin shows a prompt with an empty line behind it.
func (e *Editor) Begin(prompt string) {
	e.prompt, e.active = prompt, true
	e.buf.set("")
	e.place, e.draft, e.tabbed, e.search = len(e.History.Lines()), "", false, nil
	var b strings.Builder
	b.WriteString("\x1b[?2004h") // pastes are marked
	e.drawTo(&b)
	e.scr.write(&b)
}

// Active reports whether a line is being edited.
func (e *Editor) Active() bool { return e.active }

// Line returns the line, complete or not.
func (e *Editor) Line() string { return e.buf.String() }

// Resize says how large the terminal is now.
func (e *Editor) Resize(width, height int) {
	if width <= 0 || height <= 0 || width == e.scr.width && height == e.scr.height {
		return
	}
	e.scr.width, e.scr.height = width, height
	if e.active {
		e.redraw()
	}
}

// Above writes text above the line, which it ends with a line break if it has none.
func (e *Editor) Above(text string) {
	var b strings.Builder
	e.scr.erase(&b)
	b.WriteString(strings.ReplaceAll(text, "\n", "\r\n"))
	if !strings.HasSuffix(text, "\n") {
		b.WriteString("\r\n")
	}
	if e.active {
		e.drawTo(&b)
	}
	e.scr.write(&b)
}

// Suspend leaves the terminal as others expect it, below the line. Resume shows the line again.
func (e *Editor) Suspend() {
	if e.active {
		e.finish("")
		e.active = true
	}
}

// Resume undoes Suspend.
func (e *Editor) Resume() {
	if e.active {
		var b strings.Builder
		b.WriteString("\x1b[?2004h")
		e.drawTo(&b)
		e.scr.write(&b)
	}
}

// Stop gives the line up and leaves the cursor below it.
func (e *Editor) Stop() {
	if e.active {
		e.finish("")
	}
}

// finish shows the line as a whole, leaves the cursor below it, and ends editing.
func (e *Editor) finish(mark string) {
	e.search = nil
	e.buf.pos = len(e.buf.text)
	var b strings.Builder
	e.drawTo(&b)
	b.WriteString(mark)
	b.WriteString("\x1b[?2004l\r\n")
	e.scr.write(&b)
	e.scr.drawn, e.scr.row = false, 0
	e.active = false
}

func (e *Editor) drawTo(b *strings.Builder) {
	e.dirty = false
	if e.search != nil {
		prompt, text, pos := e.search.view(&e.buf)
		e.scr.draw(b, prompt, text, pos)
		return
	}
	e.scr.draw(b, e.prompt, e.buf.text, e.buf.pos)
}

func (e *Editor) redraw() {
	var b strings.Builder
	e.drawTo(&b)
	e.scr.write(&b)
}

// Flush shows what keys have done to the line. It is called when no more keys are at hand: many that come at once, as a
// paste does, cost one redraw.
func (e *Editor) Flush() {
	if e.active && e.dirty {
		e.redraw()
	}
}

// Key does what a key means; Flush shows it. Once the outcome is Entered, Interrupt or EOF the line is over, and Line has
// it.
func (e *Editor) Key(k Key) Outcome {
	if !e.active {
		return Editing
	}
	if e.search != nil {
		if done := e.searchKey(k); done {
			return Editing
		}
	}
	tabbed := e.tabbed
	e.tabbed = false
	switch k.Code {
	case CodeEnter:
		e.finish("")
		return Entered
	case CodeTab:
		e.complete(tabbed)
		return Editing
	case CodeCtrl:
		if out := e.ctrl(k.Rune); out != Editing {
			return out
		}
	default:
		e.edit(k)
	}
	e.dirty = true
	return Editing
}

// ctrl does what a letter with Ctrl means.
func (e *Editor) ctrl(letter rune) Outcome {
	b := &e.buf
	switch letter {
	case 'a':
		b.pos = 0
	case 'b':
		b.pos = b.left()
	case 'c':
		e.finish("^C")
		return Interrupt
	case 'd':
		if len(b.text) == 0 {
			e.finish("")
			return EOF
		}
		b.remove(b.pos, b.right())
	case 'e':
		b.pos = len(b.text)
	case 'f':
		b.pos = b.right()
	case 'g':
	case 'k':
		e.kill(b.pos, len(b.text))
	case 'l':
		io.WriteString(e.scr.w, "\x1b[H\x1b[2J")
		e.scr.drawn, e.scr.row = false, 0
	case 'n':
		e.older(-1)
	case 'p':
		e.older(1)
	case 'r':
		e.search = newSearch(e.History.Lines())
	case 't':
		e.transpose()
	case 'u':
		e.kill(0, b.pos)
	case 'w':
		e.kill(b.spaceLeft(), b.pos)
	case 'y':
		b.insert(e.killed)
	case 'z':
		return Suspend
	}
	return Editing
}

// edit does what all other keys mean.
func (e *Editor) edit(k Key) {
	b := &e.buf
	switch k.Code {
	case CodeRune:
		b.insert(string(k.Rune))
	case CodePaste:
		b.insert(k.Text)
	case CodeBackspace:
		b.remove(b.left(), b.pos)
	case CodeDelete:
		b.remove(b.pos, b.right())
	case CodeLeft:
		b.pos = b.left()
	case CodeRight:
		b.pos = b.right()
	case CodeHome:
		b.pos = 0
	case CodeEnd:
		b.pos = len(b.text)
	case CodeUp:
		e.older(1)
	case CodeDown:
		e.older(-1)
	case CodeWordLeft:
		b.pos = b.wordLeft()
	case CodeWordRight:
		b.pos = b.wordRight()
	case CodeDeleteWordLeft:
		e.kill(b.wordLeft(), b.pos)
	case CodeDeleteWordRight:
		e.kill(b.pos, b.wordRight())
	}
}

func (e *Editor) kill(from, to int) {
	if from < to {
		e.killed = e.buf.remove(from, to)
	}
}

// transpose exchanges the characters on both sides of the cursor, and moves it behind them.
func (e *Editor) transpose() {
	b := &e.buf
	if b.pos == len(b.text) && b.pos > 1 {
		b.pos--
	}
	if b.pos == 0 || b.pos == len(b.text) {
		return
	}
	b.text[b.pos-1], b.text[b.pos] = b.text[b.pos], b.text[b.pos-1]
	b.pos++
}

// older goes back in the history, or forth with a negative number.
func (e *Editor) older(n int) {
	lines := e.History.Lines()
	to := e.place - n
	if to < 0 || to > len(lines) {
		return
	}
	if e.place == len(lines) {
		e.draft = e.buf.String()
	}
	e.place = to
	if to == len(lines) {
		e.buf.set(e.draft)
	} else {
		e.buf.set(lines[to])
	}
}

// complete puts in what is certain about the text before the cursor. A second tab in a row lists what could be.
func (e *Editor) complete(again bool) {
	if e.Complete == nil {
		return
	}
	before := string(e.buf.text[:e.buf.pos])
	start, list := e.Complete(before)
	if start < 0 || start > len(before) || len(list) == 0 {
		io.WriteString(e.scr.w, "\a")
		return
	}
	typed := before[start:]
	common := commonPrefix(list)
	switch {
	case len(list) == 1, len(common) > len(typed) && strings.HasPrefix(common, typed):
		e.buf.remove(utf8.RuneCountInString(before[:start]), e.buf.pos)
		e.buf.insert(common)
		e.dirty = true
	case again:
		e.Above(columns(list, e.scr.width))
	default:
		e.tabbed = true
		io.WriteString(e.scr.w, "\a")
	}
}

// commonPrefix is what all candidates begin with, in whole characters.
func commonPrefix(list []string) string {
	p := list[0]
	for _, s := range list[1:] {
		for !strings.HasPrefix(s, p) {
			_, n := utf8.DecodeLastRuneInString(p)
			p = p[:len(p)-n]
		}
	}
	return p
}

// columns sets candidates in columns of a terminal.
func columns(list []string, width int) string {
	more := 0
	if len(list) > maxListed {
		list, more = list[:maxListed], len(list)-maxListed
	}
	list = slices.Clone(list)
	widest := 0
	for i, s := range list {
		list[i] = strings.TrimSpace(s)
		widest = max(widest, StringWidth(list[i]))
	}
	perRow := max((width-1)/(widest+2), 1)
	rows := (len(list) + perRow - 1) / perRow
	var b strings.Builder
	for row := range rows {
		var line strings.Builder
		for i := row; i < len(list); i += rows {
			line.WriteString(list[i])
			line.WriteString(strings.Repeat(" ", widest+2-StringWidth(list[i])))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	if more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	return b.String()
}
