package routedocs

import (
	"fmt"
	"strings"
	"unicode"
)

// spans returns a type as text with references. Of a type with a section it is the name.
func (p *page) spans(e *typeExpr) []span {
	w := spanWriter{page: p}
	w.expr(e)
	return w.out
}

// shape returns the fields of a type with a section, nil for any other.
func (p *page) shape(e *typeExpr) []span {
	if e.Kind != exprNamed || e.Ref == nil || e.Ref.isEnum() {
		return nil
	}
	w := spanWriter{page: p}
	w.fields(e.Ref.Fields)
	return w.out
}

// A spanWriter writes types.
type spanWriter struct {
	page *page
	out  []span
}

func (w *spanWriter) text(s string) {
	if n := len(w.out); n > 0 && w.out[n-1].Ref == nil {
		w.out[n-1].Text += s
		return
	}
	w.out = append(w.out, span{Text: s})
}

func (w *spanWriter) expr(e *typeExpr) {
	switch e.Kind {
	case exprWord:
		w.word(e.Word, e.Result)
	case exprList:
		w.text("[]")
		w.expr(e.Elem)
	case exprMap:
		w.text("map[" + e.Word + "]")
		w.expr(e.Elem)
	case exprObject:
		w.fields(e.Fields)
	case exprNamed:
		if e.Ref == nil {
			w.text(e.Word)
			return
		}
		w.out = append(w.out, span{e.Ref.Name, e.Ref})
	}
}

// word writes the name of a Go type, in which names of types with a section may stand.
func (w *spanWriter) word(text string, result bool) {
	text = strings.ReplaceAll(text, "interface {}", "any")
	for text != "" {
		n := strings.IndexAny(text, "[]*{}(); ,")
		if n < 0 {
			n = len(text)
		}
		if t := w.page.byName(text[:n], result); t != nil {
			w.out = append(w.out, span{text[:n], t})
		} else {
			w.text(text[:n])
		}
		if text = text[n:]; text != "" {
			w.text(text[:1])
			text = text[1:]
		}
	}
}

func (w *spanWriter) fields(fields []field) {
	if len(fields) == 0 {
		w.text("{}")
		return
	}
	w.text("{ ")
	for i, f := range fields {
		if i > 0 {
			w.text(", ")
		}
		w.text(fieldName(f.Name) + ": ")
		w.expr(f.Type)
	}
	w.text(" }")
}

// fieldName returns the name of a field, in quotes if it would be mistaken for something else.
func fieldName(name string) string {
	for _, r := range name {
		if r != '_' && r != '-' && r != '.' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return fmt.Sprintf("%q", name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}
