package lineedit_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya/internal/lineedit"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	rn := func(r rune) lineedit.Key { return lineedit.Key{Code: lineedit.CodeRune, Rune: r} }
	code := func(c lineedit.Code) lineedit.Key { return lineedit.Key{Code: c} }
	ctrl := func(r rune) lineedit.Key { return lineedit.Key{Code: lineedit.CodeCtrl, Rune: r} }
	paste := func(s string) lineedit.Key { return lineedit.Key{Code: lineedit.CodePaste, Text: s} }
	tests := []struct {
		name  string
		bytes string
		want  []lineedit.Key
	}{
		{"letters", "aé世😀", []lineedit.Key{rn('a'), rn('é'), rn('世'), rn('😀')}},
		{"control", "\x01\x03\x1a", []lineedit.Key{ctrl('a'), ctrl('c'), ctrl('z')}},
		{"enter, tab, backspace", "\r\n\t\x7f\x08", []lineedit.Key{code(lineedit.CodeEnter), code(lineedit.CodeEnter),
			code(lineedit.CodeTab), code(lineedit.CodeBackspace), code(lineedit.CodeBackspace)}},
		{"cursor", "\x1b[A\x1b[B\x1b[C\x1b[D", []lineedit.Key{code(lineedit.CodeUp), code(lineedit.CodeDown),
			code(lineedit.CodeRight), code(lineedit.CodeLeft)}},
		{"cursor of an application", "\x1bOA\x1bOD\x1bOH\x1bOF", []lineedit.Key{code(lineedit.CodeUp), code(lineedit.CodeLeft),
			code(lineedit.CodeHome), code(lineedit.CodeEnd)}},
		{"home and end", "\x1b[H\x1b[F\x1b[1~\x1b[4~\x1b[7~\x1b[8~", []lineedit.Key{code(lineedit.CodeHome), code(lineedit.CodeEnd),
			code(lineedit.CodeHome), code(lineedit.CodeEnd), code(lineedit.CodeHome), code(lineedit.CodeEnd)}},
		{"words", "\x1b[1;5C\x1b[1;3D\x1bb\x1bf\x1bd\x1b\x7f\x1b[3;5~", []lineedit.Key{code(lineedit.CodeWordRight),
			code(lineedit.CodeWordLeft), code(lineedit.CodeWordLeft), code(lineedit.CodeWordRight),
			code(lineedit.CodeDeleteWordRight), code(lineedit.CodeDeleteWordLeft), code(lineedit.CodeDeleteWordRight)}},
		{"shift with a cursor key", "\x1b[1;2C", []lineedit.Key{code(lineedit.CodeRight)}},
		{"delete", "\x1b[3~", []lineedit.Key{code(lineedit.CodeDelete)}},
		{"unknown sequences", "\x1b[15~\x1b[?1;2c\x1b[[Ax\x1b[5~", []lineedit.Key{rn('x')}},
		{"alt", "\x1bx\x1b世", []lineedit.Key{{Code: lineedit.CodeAlt, Rune: 'x'}, {Code: lineedit.CodeAlt, Rune: '世'}}},
		{"escape alone, then a sequence", "\x1b\x1b[A", []lineedit.Key{code(lineedit.CodeUp)}},
		{"broken sequence", "\x1b[12\rx", []lineedit.Key{code(lineedit.CodeEnter), rn('x')}},
		{"long sequence", "\x1b[" + strings.Repeat("1;", 40) + "Cx", []lineedit.Key{rn('x')}},
		{"no UTF-8", "a\xffb", []lineedit.Key{rn('a'), rn('b')}},
		{"control characters of eight bits", "a\u0085\u009bb", []lineedit.Key{rn('a'), rn('b')}},
		{"paste", "\x1b[200~a\r\n\x03\x1b[A世\x1b[201~b", []lineedit.Key{paste("a\r\n\x03\x1b[A世"), rn('b')}},
		{"empty paste", "\x1b[200~\x1b[201~b", []lineedit.Key{rn('b')}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d lineedit.Decoder
			if got := d.Keys([]byte(test.bytes)); !slices.Equal(got, test.want) {
				t.Errorf("%q:\n got %v\nwant %v", test.bytes, got, test.want)
			}
			// However the bytes are cut, the keys are the same; only a paste may come in pieces.
			var cut lineedit.Decoder
			var got []lineedit.Key
			for _, b := range []byte(test.bytes) {
				got = append(got, cut.Keys([]byte{b})...)
			}
			if got, want := joined(got), joined(test.want); !slices.Equal(got, want) {
				t.Errorf("%q byte by byte:\n got %v\nwant %v", test.bytes, got, want)
			}
		})
	}
}

// joined puts the pieces of pastes together.
func joined(keys []lineedit.Key) []lineedit.Key {
	var out []lineedit.Key
	for _, k := range keys {
		if n := len(out); k.Code == lineedit.CodePaste && n > 0 && out[n-1].Code == lineedit.CodePaste {
			out[n-1].Text += k.Text
			continue
		}
		out = append(out, k)
	}
	return out
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("abc\x1b[A\x1b[200~x\x1b[201~\r"), 3)
	f.Add([]byte("\x1b[200~x\x1b[20世\x1b[201~"), 9)
	f.Add([]byte("\x1b\x1b\x1b[[\xff\xf0\x9f"), 1)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var whole, cut lineedit.Decoder
		want := whole.Keys(bytes.Clone(b))
		if len(b) > 0 {
			at = max(at%len(b), 0)
		} else {
			at = 0
		}
		got := append(cut.Keys(bytes.Clone(b[:at])), cut.Keys(bytes.Clone(b[at:]))...)
		if !slices.Equal(joined(got), joined(want)) {
			t.Errorf("%q cut at %d:\n got %v\nwant %v", b, at, got, want)
		}
		for _, k := range want {
			if k.Code == 0 || k.Code == lineedit.CodeRune && (k.Rune < 0x20 || !utf8.ValidRune(k.Rune)) {
				t.Errorf("%q: key %v", b, k)
			}
		}
	})
}
