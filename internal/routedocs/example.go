package routedocs

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/pitaya-go/pitaya/internal/protofile"
)

// maxExample bounds an example: what has more values than that has no example that anybody reads.
const maxExample = 2000

// An example is JSON that would do for an argument or a result.
type example struct {
	What string
	Text string
}

// examples makes the examples of the routes.
func (p *page) examples(routes []*routeEntry) {
	for _, r := range routes {
		for _, e := range []struct {
			what string
			of   *typeExpr
		}{{"Argument", r.In}, {"Result", r.Out}} {
			if e.of == nil || e.of.isRaw() {
				continue
			}
			m := exampleMaker{page: p, left: maxExample}
			if v := m.value(e.of); m.left > 0 {
				r.Examples = append(r.Examples, example{e.what, indented(v)})
			}
		}
	}
}

func indented(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// An exampleMaker makes one example.
type exampleMaker struct {
	page *page
	open []*typeEntry
	left int
}

// An object keeps the order of its members.
type object []member

type member struct {
	Name  string
	Value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := plainJSON(m.Name)
		if err != nil {
			return nil, err
		}
		value, err := plainJSON(m.Value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// missing is the example of what contains itself.
type missing struct{}

func (missing) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func (m *exampleMaker) value(e *typeExpr) any {
	if m.left--; m.left <= 0 {
		return missing{}
	}
	switch e.Kind {
	case exprList:
		v := m.value(e.Elem)
		if _, ok := v.(missing); ok {
			return []any{}
		}
		return []any{v}
	case exprMap, exprObject:
		return m.fields(e.Fields) // maps stand in messages only, which are not made of their fields
	case exprNamed:
		if e.Ref == nil {
			return missing{}
		}
		return m.entry(e.Ref)
	}
	return m.word(e.Word, e.Result)
}

func (m *exampleMaker) fields(fields []field) object {
	o := make(object, 0, len(fields))
	for _, f := range fields {
		o = append(o, member{f.Name, m.value(f.Type)})
	}
	return o
}

func (m *exampleMaker) entry(t *typeEntry) any {
	if slices.Contains(m.open, t) {
		return missing{}
	}
	m.open = append(m.open, t)
	defer func() { m.open = m.open[:len(m.open)-1] }()
	if v, ok := wellKnown(t.Name); ok && m.page.protobuf() {
		return v
	}
	if desc := m.page.proto.messages[t.Name]; desc != nil {
		return m.message(desc.Desc)
	}
	return m.fields(t.Fields)
}

// word returns an example of a Go type that has no section.
func (m *exampleMaker) word(name string, result bool) any {
	switch name {
	case "string":
		return "text"
	case "bool":
		return true
	case "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64", "uintptr":
		return 1
	case "float32", "float64":
		return 1.5
	case rawBytes:
		return []byte("bytes")
	case "time.Time":
		return "2006-01-02T15:04:05Z"
	case "time.Duration":
		return 1_000_000_000
	}
	if key, elem, ok := mapWord(name); ok {
		if m.left--; m.left <= 0 {
			return missing{}
		}
		v := m.word(elem, result)
		if _, ok := v.(missing); ok {
			return object{}
		}
		if _, ok := m.word(key, result).(int); ok {
			return object{{Name: "1", Value: v}}
		}
		return object{{Name: "key", Value: v}}
	}
	if elem, ok := strings.CutPrefix(name, "[]"); ok && elem != "" {
		v := m.word(elem, result)
		if _, ok := v.(missing); ok {
			return []any{}
		}
		return []any{v}
	}
	if t := m.page.byName(strings.TrimPrefix(name, "*"), result); t != nil {
		return m.entry(t)
	}
	return nil
}

// protobuf reports whether the examples are in the JSON of protobuf, in which large numbers and enums are texts.
func (p *page) protobuf() bool { return p.Serializer == "protobuf" }

// wellKnown returns examples of messages that the JSON of protobuf has a form of its own for.
func wellKnown(name string) (v any, ok bool) {
	switch strings.TrimPrefix(name, "google.protobuf.") {
	case name:
		return nil, false
	case "Timestamp":
		return "2006-01-02T15:04:05Z", true
	case "Duration":
		return "1.5s", true
	case "FieldMask":
		return "name", true
	case "Struct":
		return object{{"key", "text"}}, true
	case "Value":
		return "text", true
	case "ListValue":
		return []any{"text"}, true
	case "Any":
		return object{{"@type", "type.googleapis.com/google.protobuf.Empty"}, {"value", object{}}}, true
	case "DoubleValue", "FloatValue":
		return 1.5, true
	case "Int64Value", "UInt64Value", "Int32Value", "UInt32Value":
		return 1, true
	case "BoolValue":
		return true, true
	case "StringValue":
		return "text", true
	case "BytesValue":
		return []byte("bytes"), true
	}
	return nil, false
}

// mapWord takes apart the name of a map's type.
func mapWord(name string) (key, elem string, ok bool) {
	rest, ok := strings.CutPrefix(name, "map[")
	if !ok {
		return "", "", false
	}
	depth := 1
	for i, r := range rest {
		switch r {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return rest[:i], rest[i+1:], rest[i+1:] != ""
			}
		}
	}
	return "", "", false
}

// message returns an example of a protobuf message, under the names that its fields have in the .proto file. Of a oneof it
// has the first field.
func (m *exampleMaker) message(desc *protofile.Message) any {
	o := object{}
	oneofs := make(map[int32]bool)
	for _, f := range desc.Fields {
		if f.Oneof != nil && !f.Proto3Optional {
			if oneofs[*f.Oneof] {
				continue
			}
			oneofs[*f.Oneof] = true
		}
		var v any
		if entry := m.page.proto.mapEntry(f); entry != nil {
			v = object{}
			elem := m.protoValue(entry.Fields[1])
			if _, ok := elem.(missing); !ok {
				key := "1"
				switch entry.Fields[0].Type {
				case protofile.String:
					key = "key"
				case protofile.Bool:
					key = "true"
				}
				v = object{{key, elem}}
			}
		} else {
			v = m.protoValue(f)
			_, none := v.(missing)
			repeated := f.Label == protofile.Repeated
			switch {
			case repeated && none:
				v = []any{}
			case repeated:
				v = []any{v}
			case none:
				continue
			}
		}
		o = append(o, member{f.Name, v})
	}
	return o
}

func (m *exampleMaker) protoValue(f *protofile.Field) any {
	if m.left--; m.left <= 0 {
		return missing{}
	}
	switch f.Type {
	case protofile.String:
		return "text"
	case protofile.Bytes:
		return []byte("bytes")
	case protofile.Bool:
		return true
	case protofile.Double, protofile.Float:
		return 1.5
	case protofile.EnumType:
		e := m.page.proto.enums[strings.TrimPrefix(f.TypeName, ".")]
		switch {
		case e == nil || len(e.Desc.Values) == 0:
			return 0
		case m.page.protobuf():
			return e.Desc.Values[0].Name
		}
		return int(e.Desc.Values[0].Number)
	case protofile.Int64, protofile.Uint64, protofile.Sint64,
		protofile.Fixed64, protofile.Sfixed64:
		if m.page.protobuf() {
			return "1"
		}
	case protofile.Msg, protofile.Group:
		if t := m.page.byName(strings.TrimPrefix(f.TypeName, "."), false); t != nil {
			return m.entry(t)
		}
		return missing{}
	}
	return 1
}
