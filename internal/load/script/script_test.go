package script_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/script"
)

func newEnv() *script.Env { return &script.Env{Conn: 7, N: 42, Rand: rand.New(rand.NewPCG(1, 2))} }

func TestParse(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"bodies/a.bin": {Data: []byte("{{conn}}\x00")}}
	s, err := script.Parse([]byte(`# players
once
	bind a.b user-{{conn}}

play 8
  request a.b {"n":{{n}},"who":"{{ conn }}"}
  notify a.c
  request a.b @bodies/a.bin
  think 50ms 150ms
rest
  wait news 2s
  wait news
  sleep 1s
  disconnect
`), files)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Calls, ","); got != "bind a.b,request a.b,notify a.c" {
		t.Errorf("calls %s", got)
	}
	if len(s.Once) != 1 || s.Once[0].Op != script.Bind || s.Once[0].Line != 3 {
		t.Errorf("once: %+v", s.Once)
	}
	if len(s.Blocks) != 2 || s.Blocks[0].Name != "play" || s.Blocks[0].Weight != 8 || s.Blocks[1].Weight != 1 {
		t.Fatalf("blocks: %+v", s.Blocks)
	}
	for i, want := range []string{`{"n":42,"who":"7"}`, "", "{{conn}}\x00"} {
		if got := string(s.Blocks[0].Steps[i].Body.Append(nil, newEnv())); got != want {
			t.Errorf("body %d is %q, want %q", i, got, want)
		}
	}
	rest := s.Blocks[1].Steps
	if rest[0].Max != 2*time.Second || rest[1].Max != 0 || rest[2].Min != time.Second || rest[3].Op != script.Disconnect {
		t.Errorf("%+v", rest)
	}
	r := rand.New(rand.NewPCG(3, 4))
	counts := make(map[string]int)
	for range 9000 {
		counts[s.Choose(r).Name]++
		if d := s.Blocks[0].Steps[3].Pause(r); d < 50*time.Millisecond || d > 150*time.Millisecond {
			t.Fatalf("a pause of %v", d)
		}
	}
	if n := counts["rest"]; n < 850 || n > 1150 {
		t.Errorf("chosen %v, want 8 to 1", counts)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "plain }} {": "plain }} {", "{{conn}}{{n}}": "742", "{{fill 3}}|{{fill 0}}": "xxx|", "{{rand 1}}": "0", "{{rand 5 5}}": "5", "{{rand -3 -3}}": "-3",
	} {
		parsed, err := script.ParseText(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := string(parsed.Append(nil, newEnv())); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	die, err := script.ParseText("{{rand 1 6}}")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for env := newEnv(); len(seen) < 6; {
		got := string(die.Append(nil, env))
		if len(got) != 1 || got < "1" || got > "6" {
			t.Fatalf("a die shows %q", got)
		}
		seen[got] = true
	}
	for _, bad := range []string{"{{", "{{x}}", "{{}}", "{{conn 1}}", "{{rand 0}}", "{{rand 2 1}}", "{{rand x}}", "{{rand 1 2 3}}", "{{fill}}", "{{fill -1}}", "{{fill 99999999}}",
		"{{rand -9223372036854775808 9223372036854775807}}"} {
		if _, err := script.ParseText(bad); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                           "no block",
		"once\n request a.b":         "no block",
		"a 0\n sleep 1s":             "no block with a weight",
		"a":                          "block a has no steps",
		" sleep 1s":                  "line 1: a step outside",
		"a 1 2\n sleep 1s":           "line 1: a block begins",
		"a x\n sleep 1s":             "line 1: weight",
		"a -1\n sleep 1s":            "line 1: weight",
		"a NaN\n sleep 1s":           "line 1: weight",
		"a\n sleep 1s\na\n sleep 1s": "line 3: block a is there twice",
		"once\nonce\na\n sleep 1s":   `line 2: "once"`,
		"a\n jump":                   `line 2: there is no step "jump"`,
		"a\n request":                "line 2: a route is missing",
		"a\n request a.b {{x}}":      "line 2: there is no variable {{x}}",
		"a\n request a.b @gone":      "line 2: body",
		"a\n request a.b @../x":      "line 2: body",
		"a\n wait x y":               "line 2: time",
		"a\n sleep":                  "line 2: time",
		"a\n sleep 5":                "line 2: time",
		"a\n sleep -1s":              "line 2: time",
		"a\n sleep 25h":              "line 2: time",
		"a\n think 2s 1s":            "line 2: think",
		"a\n think 2s":               "line 2: time",
		"a\n disconnect now":         "line 2: disconnect takes nothing",
		"a\n request " + strings.Repeat("r", 256):    "line 2: ",
		"a\n request \xff":                           "line 2: not UTF-8",
		"a\n" + strings.Repeat(" sleep 1s\n", 10001): "more than 10000 steps",
		strings.Repeat("x", 2<<20):                   "line 1: ",
	} {
		_, err := script.Parse([]byte(text), fstest.MapFS{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
	// All mistakes come at once.
	_, err := script.Parse([]byte("a\n jump\n request\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
}

// What is parsed can be played: no panic, and texts of a bounded length.
func FuzzParse(f *testing.F) {
	f.Add("once\n bind a.b {{conn}}\nplay 8\n request a.b {\"n\":{{n}}}\n think 1ms 2ms\nb 0.5\n wait x 1s\n sleep 1s\n disconnect\n")
	f.Add("a 1e9\n notify a.b {{rand 1 6}}{{fill 10}}{{rand}}{{rand 3}}\n")
	f.Add("a\n request a.b @x\n")
	f.Add("a 0\n\tsleep 0s\nb 1e-300\n\tsleep 0s\n")
	files := fstest.MapFS{"x": {Data: []byte("file")}}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := script.Parse([]byte(text), files)
		if err != nil {
			return
		}
		env := newEnv()
		for range 3 {
			b := s.Choose(env.Rand)
			if b.Weight <= 0 && len(s.Blocks) == 1 {
				t.Fatal("a block without weight is chosen")
			}
			for _, step := range b.Steps {
				if d := step.Pause(env.Rand); d < 0 || d > 24*time.Hour {
					t.Fatalf("a pause of %v", d)
				}
				if (step.Op == script.Request || step.Op == script.Bind || step.Op == script.Notify) && (step.Call < 0 || step.Call >= len(s.Calls)) {
					t.Fatalf("call %d of %d", step.Call, len(s.Calls))
				}
				if strings.Count(text, "fill") == 0 { // those are as long as they say
					step.Body.Append(nil, env)
				}
			}
		}
	})
}
