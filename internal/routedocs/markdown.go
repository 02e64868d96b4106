package routedocs

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// markdown renders the page in CommonMark with the tables of GitHub.
func (p *page) markdown() []byte {
	w := &markdownWriter{page: p}
	w.printf("# %s\n\n%s\n", mdText(p.Title), mdText(p.Intro()))
	if len(p.Groups) > 0 {
		w.printf("\n## Contents\n\n")
	}
	for _, g := range p.Groups {
		w.printf("- %s\n", mdLink(g.Name, g.ID))
		for _, r := range g.Routes {
			w.printf("  - %s (%s)\n", mdLink(r.Short, r.ID), r.Kind)
		}
	}
	if len(p.Types) > 0 {
		w.printf("- %s\n", mdLink("Types", typesID))
	}
	for _, g := range p.Groups {
		w.printf("\n%s## %s\n", mdAnchor(g.ID), mdCode(g.Name))
		for _, r := range g.Routes {
			w.route(r)
		}
	}
	if len(p.Types) > 0 {
		w.printf("\n%s## Types\n", mdAnchor(typesID))
	}
	for _, t := range p.Types {
		w.typeEntry(t)
	}
	return w.out.Bytes()
}

// typesID is the id of the heading above the types.
const typesID = "types"

// Intro is the paragraph that the page begins with.
func (p *page) Intro() string {
	if len(p.Groups) == 0 {
		return "The server has no routes."
	}
	text := "A request is answered with its result or with an error, which has the members code, msg and metadata. " +
		"A notify is not answered. A remote is called by other servers, not by clients."
	switch p.Serializer {
	case "":
		return text
	case "json":
		return text + " Payloads are JSON."
	case "protobuf":
		return text + " Payloads are protobuf messages; the examples show them as the JSON that pitaya-cli reads and prints."
	}
	return text + " Payloads are encoded by the serializer " + p.Serializer + "; the examples show them as JSON."
}

type markdownWriter struct {
	page *page
	out  bytes.Buffer
}

func (w *markdownWriter) printf(format string, args ...any) { fmt.Fprintf(&w.out, format, args...) }

func (w *markdownWriter) route(r *routeEntry) {
	w.printf("\n%s### %s\n\n%s\n\n", mdAnchor(r.ID), mdCode(r.Route), r.Kind.title())
	w.printf("- Argument: %s\n", w.value(r.In))
	if r.Out != nil {
		w.printf("- Result: %s\n", w.value(r.Out))
	}
	for _, e := range r.Examples {
		w.printf("\n%s, for example:\n\n%s", e.What, mdFence("json", e.Text))
	}
}

// value describes an argument or a result.
func (w *markdownWriter) value(e *typeExpr) string {
	switch {
	case e == nil:
		return "none"
	case e.isRaw():
		return "bytes, as they are"
	}
	text := mdSpans(w.page.spans(e))
	if shape := w.page.shape(e); shape != nil {
		text += " " + mdSpans(shape)
	}
	return text
}

func (w *markdownWriter) typeEntry(t *typeEntry) {
	w.printf("\n%s### %s\n", mdAnchor(t.ID), mdCode(t.Label))
	switch {
	case t.Proto != nil:
		w.printf("\nIn %s:\n\n%s", mdCode(t.Proto.File), mdFence("proto", strings.TrimSuffix(t.Proto.String(), "\n")))
		if refs := t.refs(); len(refs) > 0 {
			w.printf("\nRefers to: %s\n", mdTypes(refs))
		}
	case len(t.Fields) == 0:
		w.printf("\nIt has no fields.\n")
	default:
		w.printf("\n| Field | Type |\n| --- | --- |\n")
		for _, f := range t.Fields {
			w.printf("| %s | %s |\n", mdCode(f.Name), mdSpans(w.page.spans(f.Type)))
		}
	}
	if len(t.UsedBy) > 0 {
		links := make([]string, len(t.UsedBy))
		for i, r := range t.UsedBy {
			links[i] = mdLink(r.Route, r.ID)
		}
		w.printf("\nUsed by: %s\n", strings.Join(links, ", "))
	}
	if len(t.UsedIn) > 0 {
		w.printf("\nPart of: %s\n", mdTypes(t.UsedIn))
	}
}

func mdTypes(list []*typeEntry) string {
	links := make([]string, len(list))
	for i, t := range list {
		links[i] = mdLink(t.Label, t.ID)
	}
	return strings.Join(links, ", ")
}

// mdSpans returns text with links to types.
func mdSpans(spans []span) string {
	var b strings.Builder
	for _, s := range spans {
		if s.Ref != nil {
			b.WriteString(mdLink(s.Text, s.Ref.ID))
		} else {
			b.WriteString(mdText(s.Text))
		}
	}
	return b.String()
}

// mdLink returns a link to an element of the page.
func mdLink(text, id string) string { return "[" + mdText(text) + "](#" + id + ")" }

// mdAnchor gives what follows an id. Those that renderers make out of headings differ from each other.
func mdAnchor(id string) string { return `<a id="` + id + "\"></a>\n\n" }

// mdText escapes text so that it is shown as it is, on one line.
func mdText(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError || !unicode.IsPrint(r):
			r = ' '
		case strings.ContainsRune("\\`*_[]<>&#|~!$", r), strings.HasPrefix(s[i:], ":/"): // the last would begin an address
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// mdCode returns text as code, if it can be, and else escaped.
func mdCode(s string) string {
	for _, r := range s {
		if r == '`' || r == '|' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return mdText(s)
		}
	}
	if strings.TrimSpace(s) != s || s == "" {
		return mdText(s)
	}
	return "`" + s + "`"
}

// mdFence returns a block of code, between fences that do not occur in it.
func mdFence(language, text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + language + "\n" + strings.Map(visible, text) + "\n" + fence + "\n"
}

// visible replaces what cannot be seen, or changes the order of what is.
func visible(r rune) rune {
	if r == '\n' || r == '\t' || unicode.IsPrint(r) {
		return r
	}
	return utf8.RuneError
}
