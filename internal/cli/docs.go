package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// A route is what a server's documentation says of one of its routes.
type route struct {
	Name   string
	Input  string // type of the argument; empty for none
	Output string // type of the result; empty for a notify
}

// rawBytes is the type of payloads that are no messages.
const rawBytes = "[]byte"

// Documentation is what a server says about itself. Client protocol, section 13, and API document, section 16.
type documentation struct {
	Text   string // the JSON
	Parsed map[string]any
	Routes map[string]route // of handlers, by full name
}

// parseDocumentation takes the JSON that a docs route returns.
func parseDocumentation(text string) (*documentation, error) {
	d := &documentation{Text: text, Routes: make(map[string]route)}
	if err := json.Unmarshal([]byte(text), &d.Parsed); err != nil {
		return nil, fmt.Errorf("the documentation is no JSON object: %w", err)
	}
	handlers, ok := d.Parsed["handlers"].(map[string]any)
	if !ok {
		return nil, errors.New(`the documentation has no object "handlers"`)
	}
	for name, h := range handlers {
		r := route{Name: name}
		if h, ok := h.(map[string]any); ok {
			r.Input = typeName(h["input"])
			if out, ok := h["output"].([]any); ok && len(out) > 0 {
				r.Output = typeName(out[0])
			}
		}
		d.Routes[name] = r
	}
	return d, nil
}

// typeName is the name of a documented type: that of a message or struct, without the asterisk, if it has one.
func typeName(v any) string {
	switch v := v.(type) {
	case string:
		return strings.TrimPrefix(v, "*")
	case []any:
		if len(v) == 1 {
			return "[]" + typeName(v[0])
		}
	case map[string]any:
		for key := range v {
			if name, ok := strings.CutPrefix(key, "*"); ok && len(v) == 1 {
				return name
			}
		}
		b, err := json.Marshal(v) // a struct without a name
		if err == nil {
			return cut(string(b), wideJSON)
		}
	case nil:
		return ""
	}
	return "?"
}

// find returns what is known of a route in its full or its short form. The short one means the server that is connected
// to; which type that is, the handshake does not say, so it must fit one route only.
func (d *documentation) find(name string) (route, bool) {
	if d == nil {
		return route{}, false
	}
	if r, ok := d.Routes[name]; ok {
		return r, true
	}
	if strings.Count(name, ".") != 1 {
		return route{}, false
	}
	var found []route
	for full, r := range d.Routes {
		if _, short, _ := strings.Cut(full, "."); short == name {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return route{}, false
	}
	return found[0], true
}

// fetchDocumentation asks a server for its documentation.
func fetchDocumentation(ctx context.Context, c *pitaya.Client, route string) (*documentation, error) {
	var answer []byte
	if err := c.Request(ctx, route, nil, &answer); err != nil {
		return nil, err
	}
	var doc pb.Doc
	if err := c.Serializer().Unmarshal(answer, &doc); err != nil {
		return nil, fmt.Errorf("the answer of %s is no protos.Doc: %w", route, err)
	}
	if doc.Doc == "" { // a route of the application's that returns the object itself
		if json.Valid(answer) {
			doc.Doc = string(answer)
		} else {
			return nil, fmt.Errorf("the answer of %s is no protos.Doc, or an empty one", route)
		}
	}
	return parseDocumentation(doc.Doc)
}
