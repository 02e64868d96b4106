package routedocs

import (
	"bytes"
	_ "embed"
	"strings"
	"text/template"

	"github.com/pitaya-go/pitaya/internal/htmltext"
)

//go:embed page.html
var pageHTML string

// html renders the page for browsers.
func (p *page) html() ([]byte, error) {
	t, err := htmltext.New("page", pageHTML, template.FuncMap{
		"spans": p.spans,
		"shape": p.shape,
		"raw":   (*typeExpr).isRaw,
		"long":  func(s string) bool { return strings.Count(s, "\n") >= longExample },
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, err
	}
	return bytes.Map(visible, b.Bytes()), nil
}

// longExample is the number of lines from which an example is shown only when asked for.
const longExample = 16
