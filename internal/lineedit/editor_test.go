package lineedit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/lineedit"
	"github.com/pitaya-go/pitaya/internal/lineedit/vt"
)

// A desk is an editor with the screen that it writes to.
type desk struct {
	*lineedit.Editor
	t       *testing.T
	screen  *vt.Screen
	decoder lineedit.Decoder
}

func sit(t *testing.T, width, height int) *desk {
	screen := vt.New(width, height)
	d := &desk{Editor: lineedit.NewEditor(screen), t: t, screen: screen}
	d.Resize(width, height)
	d.Begin("> ")
	return d
}

// typed types and returns the last outcome that was not Editing.
func (d *desk) typed(s string) lineedit.Outcome {
	d.t.Helper()
	outcome := lineedit.Editing
	for _, k := range d.decoder.Keys([]byte(s)) {
		if o := d.Key(k); o != lineedit.Editing {
			outcome = o
		}
	}
	d.Flush()
	if u := d.screen.Unknown(); len(u) > 0 {
		d.t.Errorf("after %q the screen got %s", s, u)
	}
	return outcome
}

// wantScreen compares the screen. A ‸ stands where the cursor is, and is no character.
func (d *desk) wantScreen(want string) {
	d.t.Helper()
	row, col := d.screen.Cursor()
	var lines []string // as a screen has them: space at the ends does not show
	for line := range strings.SplitSeq(strings.ReplaceAll(want, "‸", ""), "\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if got, want := d.screen.String(), strings.TrimRight(strings.Join(lines, "\n"), "\n"); got != want {
		d.t.Errorf("screen\n%s\nwant\n%s", got, want)
		return
	}
	for i, line := range strings.Split(want, "\n") {
		if before, _, ok := strings.Cut(line, "‸"); ok {
			if w := lineedit.StringWidth(before); i != row || w != col {
				d.t.Errorf("cursor at %d, %d; want %d, %d:\n%s", row, col, i, w, want)
			}
		}
	}
}

const (
	up, down, right, left = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"
	home, end, del        = "\x1b[H", "\x1b[F", "\x1b[3~"
	wordLeft, wordRight   = "\x1b[1;5D", "\x1b[1;5C"
)

func TestEdit(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, typed, want string }{
		{"typing", "hello", "> hello‸"},
		{"insert in the middle", "heo" + left + "ll", "> hell‸o"},
		{"left does not leave the line", "a" + left + left + left + "b", "> b‸a"},
		{"right does not leave the line", "a" + right + right + "b", "> ab‸"},
		{"home and end", "bc" + home + "a" + end + "d", "> abcd‸"},
		{"ctrl-a and ctrl-e", "bc\x01a\x05d", "> abcd‸"},
		{"ctrl-b and ctrl-f", "abd\x02\x02\x06c", "> abc‸d"},
		{"backspace", "abc\x7f\x7f", "> a‸"},
		{"backspace at the start", home + "\x7fx", "> x‸"},
		{"delete", "abc" + home + del, "> ‸bc"},
		{"delete at the end", "abc" + del, "> abc‸"},
		{"ctrl-d deletes", "abc" + home + "\x04", "> ‸bc"},
		{"ctrl-u", "abc def" + left + left + "\x15", "> ‸ef"},
		{"ctrl-k", "abc def" + left + left + "\x0b", "> abc d‸"},
		{"ctrl-w takes up to space", "request room.join\x17", "> request ‸"},
		{"alt-backspace takes a word", "request room.join\x1b\x7f", "> request room.‸"},
		{"alt-d", "abc def" + home + "\x1bd", "> ‸ def"},
		{"ctrl-y brings back", "abc def\x17\x01\x19", "> def‸abc "},
		{"ctrl-y without anything", "abc\x19", "> abc‸"},
		{"ctrl-t", "ba\x14", "> ab‸"},
		{"ctrl-t in the middle", "acb" + left + "\x14", "> abc‸"},
		{"word left", "abc def" + wordLeft + wordLeft + "x", "> x‸abc def"},
		{"word right", "abc def" + home + wordRight + "x", "> abcx‸ def"},
		{"wide", "世界" + left + "x", "> 世x‸界"},
		{"combining marks are one character", "ae\u0301o" + left + left + "x", "> ax‸e\u0301o"},
		{"combining marks go together", "ae\u0301\x7f", "> a‸"},
		{"a family is one character", "a👩\u200d👧b" + left + left + "\x04", "> a‸b"},
		{"escape alone does nothing", "a\x1b", "> a‸"},
		{"control letters without a meaning", "a\x0f\x11b", "> ab‸"},
		{"paste", "[" + left + "\x1b[200~{\n\t\"a\": 1\r\n}\x1b[31m\x1b[201~x", `> {  "a": 1 }[31mx‸[`},
		{"ctrl-l", "abc" + left + "\x0c", "> ab‸c"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := sit(t, 40, 5)
			if got := d.typed(test.typed); got != lineedit.Editing {
				t.Errorf("outcome %v", got)
			}
			d.wantScreen(test.want)
			want := strings.TrimPrefix(strings.ReplaceAll(test.want, "‸", ""), "> ")
			if got := d.Line(); got != want {
				t.Errorf("line %q, want %q", got, want)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		typed string
		want  lineedit.Outcome
		line  string
		after string // on the screen
	}{
		{"abc\r", lineedit.Entered, "abc", "> abc\n‸"},
		{"abc" + home + "\r", lineedit.Entered, "abc", "> abc\n‸"},
		{"abc\x03", lineedit.Interrupt, "abc", "> abc^C\n‸"},
		{"\x04", lineedit.EOF, "", ">\n‸"},
		{"ab\x1a", lineedit.Suspend, "ab", "> ab‸"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%q", test.typed), func(t *testing.T) {
			t.Parallel()
			d := sit(t, 40, 5)
			if got := d.typed(test.typed); got != test.want {
				t.Errorf("outcome %v, want %v", got, test.want)
			}
			if got := d.Line(); got != test.line {
				t.Errorf("line %q, want %q", got, test.line)
			}
			d.wantScreen(test.after)
			if over := test.want != lineedit.Suspend; d.Active() == over || d.screen.PasteMarks() == over {
				t.Errorf("active %v, pastes marked %v", d.Active(), d.screen.PasteMarks())
			}
		})
	}
}

func TestSuspend(t *testing.T) {
	t.Parallel()
	d := sit(t, 40, 5)
	d.typed("abc" + left)
	d.Suspend()
	d.wantScreen("> abc\n‸")
	if d.screen.PasteMarks() {
		t.Error("pastes are marked while suspended")
	}
	d.Resume()
	d.typed("d")
	d.wantScreen("> abc\n> abcd‸")
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	d := sit(t, 11, 4)
	d.Above("before")
	d.typed("0123456789abcdef")
	d.wantScreen("before\n> 01234567\n89abcdef‸")
	d.typed("gh") // the last column stays free
	d.wantScreen("before\n> 01234567\n89abcdefgh\n‸")
	d.typed(home + "x")
	d.wantScreen("before\n> x‸0123456\n789abcdefg\nh")
	d.typed(end + strings.Repeat("\x7f", 13))
	d.wantScreen("before\n> x01234‸")
	d.typed("世世世")
	d.wantScreen("before\n> x01234世\n世世‸")

	// More rows than the terminal has: those around the cursor show.
	d = sit(t, 11, 3)
	d.typed(strings.Repeat("a", 8) + strings.Repeat("b", 10) + strings.Repeat("c", 10) + strings.Repeat("d", 5))
	d.wantScreen("bbbbbbbbbb\ncccccccccc\nddddd‸")
	d.typed(home)
	d.wantScreen("> ‸aaaaaaaa\nbbbbbbbbbb\ncccccccccc")
	if got := d.screen.All(); !strings.HasPrefix(got, "\n"+"> ") && strings.Count(got, "> aaaaaaaa") > 2 {
		t.Errorf("the terminal was filled with copies:\n%s", got)
	}
	d.typed("\r")
	if d.Line() != strings.Repeat("a", 8)+strings.Repeat("b", 10)+strings.Repeat("c", 10)+strings.Repeat("d", 5) {
		t.Errorf("line %q", d.Line())
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	for _, width := range []int{1, 2, 3} {
		d := sit(t, width, 3)
		d.typed("a世b" + left + left + "c\r")
		if got := d.Line(); got != "ac世b" {
			t.Errorf("width %d: line %q", width, got)
		}
	}
}

func TestAbove(t *testing.T) {
	t.Parallel()
	d := sit(t, 12, 6)
	d.typed("0123456789ab" + left)
	d.Above("one\ntwo")
	d.wantScreen("one\ntwo\n> 012345678\n9a‸b")
	d.Above("three\n")
	d.wantScreen("one\ntwo\nthree\n> 012345678\n9a‸b")
	d.typed("x\r")
	d.Above("four")
	if got, want := d.screen.All(), "one\ntwo\nthree\n> 012345678\n9axb\nfour"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	d := sit(t, 20, 5)
	d.typed("0123456789abcdef" + left + left)
	d.wantScreen("> 0123456789abcd‸ef")
	d.screen.Resize(11, 5)
	d.Resize(11, 5)
	d.wantScreen("> 01234567\n89abcd‸ef")
	d.screen.Resize(30, 5)
	d.Resize(30, 5)
	d.wantScreen("> 0123456789abcd‸ef")
	d.Resize(0, 0) // a terminal that does not know
	d.typed("x")
	d.wantScreen("> 0123456789abcdx‸ef")
}

func TestHistoryKeys(t *testing.T) {
	t.Parallel()
	d := sit(t, 40, 5)
	for _, line := range []string{"first", "second", "second", " secret", ""} {
		if err := d.History.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := d.History.Lines(), []string{"first", "second"}; !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
	d.Begin("> ")
	d.typed("new" + up)
	d.wantScreen("> second‸")
	d.typed(up + up + up)
	d.wantScreen("> first‸")
	d.typed("!" + down)
	d.wantScreen("> second‸")
	d.typed(down + down)
	d.wantScreen("> new‸")
	d.typed("\x10\x0e") // Ctrl-P, Ctrl-N
	d.wantScreen("> new‸")
}

func TestSearch(t *testing.T) {
	t.Parallel()
	d := sit(t, 60, 5)
	for _, line := range []string{"request a.b", "notify a.c", "request a.d"} {
		if err := d.History.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	d.Begin("> ")
	d.typed("x\x12a.")
	d.wantScreen("(search) a.: request ‸a.d")
	d.typed("\x12")
	d.wantScreen("(search) a.: notify ‸a.c")
	d.typed("b")
	d.wantScreen("(search) a.b: request ‸a.b")
	d.typed("?")
	d.wantScreen("(nothing found) a.b?: request a.b‸")
	d.typed("\x7f")
	d.wantScreen("(search) a.b: request ‸a.b")
	d.typed("\x07") // given up
	d.wantScreen("> x‸")
	d.typed("\x12not" + end + "!") // taken
	d.wantScreen("> notify a.c!‸")
	if got := d.typed("\x12d\r"); got != lineedit.Entered || d.Line() != "request a.d" {
		t.Errorf("%v, line %q", got, d.Line())
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	d := sit(t, 30, 8)
	words := []string{"connect ", "request ", "routes ", "世界 "}
	d.Complete = func(before string) (int, []string) {
		start := strings.LastIndex(before, " ") + 1
		var list []string
		for _, w := range words {
			if strings.HasPrefix(w, before[start:]) {
				list = append(list, w)
			}
		}
		return start, list
	}
	d.typed("é c\t")
	d.wantScreen("> é connect ‸")
	d.typed("x\t") // nothing fits
	d.wantScreen("> é connect x‸")
	if got := d.screen.Bells(); got != 1 {
		t.Errorf("%d bells", got)
	}
	d.typed("\x7f世\t")
	d.wantScreen("> é connect 世界 ‸")
	d.typed("\x15r\t") // two fit, and have no more in common
	d.wantScreen("> r‸")
	d.typed("\t")
	d.wantScreen("request  routes\n> r‸")
	d.typed("o\t") // in the middle of a line
	d.typed("x" + home + "c\t")
	d.wantScreen("request  routes\n> connect ‸routes x")
}

func TestCompleteMany(t *testing.T) {
	t.Parallel()
	d := sit(t, 40, 200)
	d.Complete = func(string) (int, []string) {
		var list []string
		for i := range 1000 {
			list = append(list, fmt.Sprintf("route%d ", i))
		}
		return 0, list
	}
	d.typed("route\t\t")
	if got := d.screen.String(); !strings.Contains(got, "and 800 more\n> route") || strings.Contains(got, "route200") {
		t.Errorf("screen\n%s", got)
	}
}

// A completer that answers nonsense costs nothing.
func TestCompleteWrongly(t *testing.T) {
	t.Parallel()
	for _, start := range []int{-1, 100} {
		d := sit(t, 40, 5)
		d.Complete = func(string) (int, []string) { return start, []string{"abc"} }
		d.typed("a\t")
		d.wantScreen("> a‸")
	}
}

// Whatever is typed, the screen shows the line and the cursor stands in it.
func FuzzEditor(f *testing.F) {
	f.Add("abc"+left+"世\x17\x19"+up, 10)
	f.Add("\x1b[200~abc\r\n\x1b[201~\x12a\x07"+home+del, 3)
	f.Fuzz(func(t *testing.T, typed string, width int) {
		width = 2 + max(width%80, -width%80)
		screen := vt.New(width, 50)
		e := lineedit.NewEditor(screen)
		e.Resize(width, 50)
		e.Begin("> ")
		if err := e.History.Add("earlier"); err != nil {
			t.Fatal(err)
		}
		var d lineedit.Decoder
		for _, k := range d.Keys([]byte(typed)) {
			if o := e.Key(k); o == lineedit.Entered || o == lineedit.Interrupt || o == lineedit.EOF {
				e.Begin("> ")
			}
		}
		e.Flush()
		if u := screen.Unknown(); len(u) > 0 {
			t.Errorf("%q: the screen got %s", typed, u)
		}
		if line := e.Line(); strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("%q: line %q", typed, line)
		}
	})
}
