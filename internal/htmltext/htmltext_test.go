package htmltext_test

import (
	html "html/template"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/htmltext"
)

// hostile has whatever means something in HTML, and in what stands in it.
const hostile = "a\x00b\"'&amp;<script>alert(1)</script>+-->{{.}}`\u2028ü\n\\"

// TestEscapes compares with html/template.
func TestEscapes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`<p>{{.}}</p>`,
		`<title>{{.}}</title>`,
		`<p id="{{.}}" class='kind {{.}}'>{{/* nothing */}}{{if .}}{{.}}{{else}}{{.}}{{end}}</p>`,
		`{{$x := .}}<b>{{$x}}{{range $i, $e := slice . 0 2}}{{else}}{{$x}}{{end}}{{with .}}{{. | printf "%q"}}{{end}}</b>`,
		`{{define "part"}}<i>{{.}}</i>{{end}}<pre>{{template "part" .}}</pre>`,
	} {
		text = strings.ReplaceAll(text, "slice . 0 2", "list")
		funcs := map[string]any{"list": func() []string { return nil }}
		want, got := new(strings.Builder), new(strings.Builder)
		if err := html.Must(html.New("t").Funcs(funcs).Parse(text)).Execute(want, hostile); err != nil {
			t.Fatal(err)
		}
		tmpl, err := htmltext.New("t", text, funcs)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := tmpl.Execute(got, hostile); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got.String() != want.String() {
			t.Errorf("%s: got\n%s\nwant\n%s", text, got, want)
		}
	}
}

// TestRefuses: what escaping does not make harmless.
func TestRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`<script>{{.}}</script>`:                 "in a script",
		`<script src="x">let a = "{{.}}"`:        "in a script",
		`<STYLE>p { color: {{.}} }</STYLE>`:      "in a style",
		"\n<!-- {{.}} -->":                       "line 2: an action in a comment",
		`<p {{.}}>`:                              "in a tag",
		`<p class={{.}}>`:                        "in a tag",
		`<p class="a" {{if .}}hidden{{end}}>`:    "in a tag",
		`<a href="{{.}}">`:                       "at the beginning of the attribute href",
		`<img alt="a" src='{{.}}'>`:              "at the beginning of the attribute src",
		`<p onclick="f({{.}})">`:                 "in the attribute onclick",
		`<p style="color: {{.}}">`:               "in the attribute style",
		`<p>{{.}}</p><p data-x = "{{.}}" {{.}}>`: "line 1",
		`{{.X`:                                   "unclosed action",
		`<p data-x = "{{.}}">`:                   "at the beginning of the attribute data-x",
	} {
		if _, err := htmltext.New("t", text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
