package cli_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya/internal/cli"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type c = cli.Command
	tests := []struct {
		name string
		text string
		want []cli.Command
		open bool
	}{
		{"nothing", " ;; \n\t;", nil, false},
		{"one", "request a.b", []c{{Name: "request", Args: "a.b", Line: 1}}, false},
		{"several", "a; b 1 ;c\nd", []c{{Name: "a", Line: 1}, {Name: "b", Args: "1", Line: 1}, {Name: "c", Line: 1}, {Name: "d", Line: 2}}, false},
		{"comments", "# a; b\n a # no comment; # c\nb", []c{{Name: "a", Args: "# no comment", Line: 2}, {Name: "b", Line: 3}}, false},
		{"semicolon in a string", `r {"a": "x;y"}; s`, []c{{Name: "r", Args: `{"a": "x;y"}`, Line: 1}, {Name: "s", Line: 1}}, false},
		{"semicolon in brackets", `r [a;b]`, []c{{Name: "r", Args: `[a;b]`, Line: 1}}, false},
		{"escaped quote", `r "a\";b"; s`, []c{{Name: "r", Args: `"a\";b"`, Line: 1}, {Name: "s", Line: 1}}, false},
		{"lines", "r {\n\"a\": [1,\n2]}\ns", []c{{Name: "r", Args: "{\n\"a\": [1,\n2]}", Line: 1}, {Name: "s", Line: 4}}, false},
		{"bracket in a string", `r "{"; s`, []c{{Name: "r", Args: `"{"`, Line: 1}, {Name: "s", Line: 1}}, false},
		{"a quote that is not closed ends with its line", "r it\"s; x\ns", []c{{Name: "r", Args: `it"s; x`, Line: 1}, {Name: "s", Line: 2}}, false},
		{"closing brackets alone", "r }]; s", []c{{Name: "r", Args: "}]", Line: 1}, {Name: "s", Line: 1}}, false},
		{"open", "a; r {\n", []c{{Name: "a", Line: 1}, {Name: "r", Args: "{", Line: 1}}, true},
		{"not", "! a b;!c", []c{{Name: "a", Args: "b", Not: true, Line: 1}, {Name: "c", Not: true, Line: 1}}, false},
		{"only not", "!", []c{{Not: true, Line: 1}}, false},
		{"other spaces", "a\u00a0b\r\n", []c{{Name: "a", Args: "b", Line: 1}}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, open := cli.Parse(test.text)
			if !slices.Equal(got, test.want) || open != test.open {
				t.Errorf("%q:\n got %q, open %v\nwant %q, open %v", test.text, got, open, test.want, test.open)
			}
		})
	}
}

// What is parsed can be written down and parsed again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a; b {\"x;\": [1,\n2]}\n# c\n! d", `r "a\";b"`, "r {\n", "x }; ]\"\\\n;", "!!#", "! ;a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, open := cli.Parse(text)
		for i, c := range list {
			if c.Line < 1 || c.Line > 1+strings.Count(text, "\n") {
				t.Errorf("%q: %q is on line %d", text, c, c.Line)
			}
			if open && i == len(list)-1 || !utf8.ValidString(text) || c.Name == "" || strings.HasPrefix(c.Name, "#") || strings.HasPrefix(c.Name, "!") {
				continue
			}
			if strings.ContainsAny(c.Name, `[{"`) {
				continue // no command is called that; what ends the name then may be a line break, which also ends quotes
			}
			again, _ := cli.Parse(c.String())
			if len(again) != 1 || again[0].Name != c.Name || again[0].Args != c.Args || again[0].Not != c.Not {
				t.Errorf("%q: %q is %q when parsed again", text, c, again)
			}
		}
	})
}

func TestComplete(t *testing.T) {
	t.Parallel()
	routes := []string{"game.room.join", "game.room.leave", "onChat"}
	tests := []struct {
		before string
		start  int
		want   []string
	}{
		{"", 0, nil}, // all commands; the test below counts them
		{"dis", 0, []string{"disconnect "}},
		{"!dis", 0, []string{"!disconnect "}},
		{"! dis", 2, []string{"disconnect "}},
		{"request x {\"a\": \"b;\"}; no", 23, []string{"notify "}},
		{"request ", 8, []string{"game.room.join ", "game.room.leave ", "onChat "}},
		{"request game.room.j", 8, []string{"game.room.join "}},
		{"request room.l", 8, []string{"room.leave "}},
		{"request -t 2s -type x.Y game.room.j", 24, []string{"game.room.join "}},
		{"request -", 8, []string{"-hex ", "-raw ", "-t ", "-type "}},
		{"! notify on", 9, []string{"onChat "}},
		{"request game.room.join {", 23, nil},
		{"wait on", 5, []string{"onChat "}},
		{"push on", 5, []string{"onChat "}},
		{"expect e", 7, []string{"empty ", "error "}},
		{"help wa", 5, []string{"wait "}},
		{"set time", 4, []string{"timeout "}},
		{"set output q", 11, []string{"quiet "}},
		{"docs -h", 5, []string{"-html "}},
		{"nonsense x", 9, nil},
		{"exit x", 5, nil},
	}
	for _, test := range tests {
		start, got := cli.Complete(test.before, routes...)
		if test.before == "" {
			if len(got) < 15 || !slices.Contains(got, "connect ") {
				t.Errorf("commands: %q", got)
			}
			continue
		}
		if start != test.start || !slices.Equal(got, test.want) {
			t.Errorf("%q: %q from %d on, want %q from %d on", test.before, got, start, test.want, test.start)
		}
	}
	// What would spoil the line is not offered.
	if _, got := cli.Complete("request ", "a.\x1b[31m", "b c", "ok"); !slices.Equal(got, []string{"ok "}) {
		t.Errorf("offered: %q", got)
	}
}

// What is expected of an answer is one JSON value: a bracket too many is a mistake, on either side.
func TestMatchTrailing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{}]", "{}}", "[1] ]", "1 2", `"a"}`} {
		if cli.Match([]byte(text), []byte("{}")) == nil || cli.Match([]byte("{}"), []byte(text)) == nil {
			t.Errorf("%s passes for {}", text)
		}
	}
}

// FuzzArguments takes what is typed behind a command: the arguments of request and notify, and what is expected of an answer.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		"a.b {}", `-t 1s -raw a.b x`, "-t", "-hex a.b 00ff", "-type *T a.b [1,2", "-x a", "a.b {\"n\": 1e400}", "{}]", "{} }", "[1,1.0,1e0]", `{"a":{"b":null}}`,
		"\x1b[2J", "\xff", "\u202e", `{"handlers":{"a.b":{"input":"*T","output":[{"x":1}]}}}`, `{"handlers":{"a.b":[]}}`, `"\ud800"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if route, rest, err := cli.ParseMessage(text); err == nil {
			if route == "" || strings.ContainsAny(route, " \t\n") || !strings.HasSuffix(strings.TrimSpace(text), rest) {
				t.Errorf("%q: the route %q and the text %q", text, route, rest)
			}
		}
		if b, err := cli.EncodeJSON(text); err == nil {
			if string(b) != text || len(b) > 0 && (b[0] == '{' || b[0] == '[') && !json.Valid(b) {
				t.Errorf("%q is sent as %q", text, b)
			}
		}
		// JSON and nothing else is equal to itself.
		if err := cli.Match([]byte(text), []byte(text)); (err == nil) != json.Valid([]byte(text)) {
			t.Errorf("%q: %v", text, err)
		}
		if routes, err := cli.Documented(text); err == nil && !json.Valid([]byte(text)) {
			t.Errorf("%q documents %q", text, routes)
		}
		// What was cut says how long it is, and is cut again.
		const most, note = 1 << 10, len("… (10000000000 bytes in all)")
		shown := cli.Clean(text)
		again := cli.Clean(shown)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, unicode.IsControl) || len(shown) > most+note || len(shown) <= most && again != shown {
			t.Errorf("%q is shown as %q, and that as %q", text, shown, again)
		}
	})
}
