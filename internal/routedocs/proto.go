package routedocs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/pitaya-go/pitaya/internal/protofile"
)

// maxDescriptors bounds what descriptors take once they are inflated, all together.
const maxDescriptors = 64 << 20

// protoTypes are the messages and enums of the descriptors, by their full names.
type protoTypes struct {
	messages map[string]*protoMessage
	enums    map[string]*protoEnum
}

type protoMessage struct {
	Name   string // full
	File   *protofile.File
	Desc   *protofile.Message
	Nested []string // full names of messages and enums in it
}

type protoEnum struct {
	Name string // full
	File *protofile.File
	Desc *protofile.Enum
}

func newProtoTypes() *protoTypes {
	return &protoTypes{messages: make(map[string]*protoMessage), enums: make(map[string]*protoEnum)}
}

// readDescriptors reads gzip-compressed file descriptors.
func readDescriptors(list [][]byte) (*protoTypes, error) {
	p := newProtoTypes()
	left := int64(maxDescriptors)
	files, read := make(map[string]bool), make(map[string]bool)
	for i, b := range list {
		if len(b) == 0 || read[string(b)] {
			continue
		}
		read[string(b)] = true
		file, size, err := readFile(b, left)
		if err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", i, err)
		}
		left -= size
		if files[file.Name] {
			continue
		}
		files[file.Name] = true
		p.addFile(file)
	}
	return p, nil
}

// readFile reads a descriptor of at most limit bytes, and returns how many it has.
func readFile(b []byte, limit int64) (*protofile.File, int64, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, 0, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, 0, err
	}
	size := int64(len(plain))
	if size > limit {
		return nil, 0, errors.New("the descriptors are too large")
	}
	file, err := protofile.Read(plain)
	return file, size, err
}

func (p *protoTypes) addFile(file *protofile.File) {
	prefix := ""
	if file.Package != "" {
		prefix = file.Package + "."
	}
	for _, m := range file.Messages {
		p.addMessage(file, prefix, m)
	}
	for _, e := range file.Enums {
		p.addEnum(file, prefix, e)
	}
}

func (p *protoTypes) addMessage(file *protofile.File, prefix string, desc *protofile.Message) {
	m := &protoMessage{Name: prefix + desc.Name, File: file, Desc: desc}
	if p.messages[m.Name] == nil {
		p.messages[m.Name] = m
	}
	for _, nested := range desc.Nested {
		p.addMessage(file, m.Name+".", nested)
		m.Nested = append(m.Nested, m.Name+"."+nested.Name)
	}
	for _, e := range desc.Enums {
		p.addEnum(file, m.Name+".", e)
		m.Nested = append(m.Nested, m.Name+"."+e.Name)
	}
}

func (p *protoTypes) addEnum(file *protofile.File, prefix string, desc *protofile.Enum) {
	if e := (&protoEnum{prefix + desc.Name, file, desc}); p.enums[e.Name] == nil {
		p.enums[e.Name] = e
	}
}

// A definition is the text of a message or an enum in the language of .proto files.
type definition struct {
	File string // that it stands in
	Enum bool
	Text []span
}

// A span is a piece of text that may refer to a type.
type span struct {
	Text string
	Ref  *typeEntry
}

func (d *definition) String() string {
	var b strings.Builder
	for _, s := range d.Text {
		b.WriteString(s.Text)
	}
	return b.String()
}

// addProtoTypes gives the types their definitions, and adds those that these refer to.
func (p *page) addProtoTypes() {
	ref := func(name string) *typeEntry {
		if t := p.byName(name, false); t != nil {
			return t
		}
		m, e := p.proto.messages[name], p.proto.enums[name]
		if m == nil && e == nil || m != nil && m.Desc.MapEntry {
			return nil
		}
		t := &typeEntry{Name: name, key: typeKey{name: name}}
		p.words[word{name, false}], p.words[word{name, true}] = t, t
		p.order = append(p.order, t)
		return t
	}
	for i := 0; i < len(p.order); i++ { // it grows
		t := p.order[i]
		if m := p.proto.messages[t.Name]; m != nil {
			w := protoWriter{types: p.proto, scope: m.File.Package, ref: ref}
			w.message(m.Desc, m.Name, 0)
			t.Proto = &definition{File: m.File.Name, Text: w.out}
			t.Fields = p.proto.fields(m.Desc, ref)
		} else if e := p.proto.enums[t.Name]; e != nil {
			w := protoWriter{types: p.proto, ref: ref}
			w.enum(e.Desc, 0)
			t.Proto = &definition{File: e.File.Name, Enum: true, Text: w.out}
		}
	}
}

// fields returns the fields of a message, which say more than those of the Go type that stands for it.
func (p *protoTypes) fields(m *protofile.Message, ref func(name string) *typeEntry) []field {
	list := make([]field, 0, len(m.Fields))
	for _, f := range m.Fields {
		e := &typeExpr{}
		if entry := p.mapEntry(f); entry != nil {
			e = &typeExpr{Kind: exprMap, Word: scalar(entry.Fields[0]), Elem: protoExpr(entry.Fields[1], ref)}
		} else if e = protoExpr(f, ref); f.Label == protofile.Repeated {
			e = &typeExpr{Kind: exprList, Elem: e}
		}
		list = append(list, field{f.Name, e})
	}
	return list
}

// protoExpr returns the type of a field, or of its elements.
func protoExpr(f *protofile.Field, ref func(name string) *typeEntry) *typeExpr {
	if !hasTypeName(f) {
		return &typeExpr{Word: scalar(f)}
	}
	name := strings.TrimPrefix(f.TypeName, ".")
	return &typeExpr{Kind: exprNamed, Word: name, Ref: ref(name)}
}

func hasTypeName(f *protofile.Field) bool {
	switch f.Type {
	case protofile.Msg, protofile.Group, protofile.EnumType:
		return true
	}
	return false
}

// scalar returns the name of a scalar type.
func scalar(f *protofile.Field) string {
	return f.Type.String()
}

// A protoWriter writes definitions.
type protoWriter struct {
	types *protoTypes
	scope string // package, which names within it are written without
	ref   func(name string) *typeEntry
	out   []span
}

func (w *protoWriter) printf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n := len(w.out); n > 0 && w.out[n-1].Ref == nil {
		w.out[n-1].Text += text
		return
	}
	w.out = append(w.out, span{Text: text})
}

func (w *protoWriter) line(depth int, format string, args ...any) {
	w.printf("%s"+format+"\n", append([]any{strings.Repeat("  ", depth)}, args...)...)
}

// message writes a message with all that is declared in it.
func (w *protoWriter) message(m *protofile.Message, name string, depth int) {
	w.line(depth, "message %s {", ident(m.Name))
	if depth > maxDepth {
		w.line(depth, "  // …")
		w.line(depth, "}")
		return
	}
	for _, e := range m.Enums {
		w.enum(e, depth+1)
	}
	for _, nested := range m.Nested {
		if !nested.MapEntry && !isGroup(m, name, nested) {
			w.message(nested, name+"."+nested.Name, depth+1)
		}
	}
	written := make(map[int32]bool) // oneofs
	for _, f := range m.Fields {
		one := f.Oneof
		if one == nil || f.Proto3Optional || int(*one) >= len(m.Oneofs) || *one < 0 {
			w.field(m, f, depth+1)
			continue
		}
		if written[*one] {
			continue
		}
		written[*one] = true
		w.line(depth+1, "oneof %s {", ident(m.Oneofs[*one]))
		for _, f := range m.Fields {
			if f.Oneof != nil && *f.Oneof == *one && !f.Proto3Optional {
				w.field(m, f, depth+2)
			}
		}
		w.line(depth+1, "}")
	}
	w.line(depth, "}")
}

// isGroup reports whether a nested message is that of a group, which its field shows.
func isGroup(m *protofile.Message, name string, nested *protofile.Message) bool {
	return slices.ContainsFunc(m.Fields, func(f *protofile.Field) bool {
		return f.Type == protofile.Group && f.TypeName == "."+name+"."+nested.Name
	})
}

func (w *protoWriter) field(m *protofile.Message, f *protofile.Field, depth int) {
	w.printf("%s", strings.Repeat("  ", depth))
	if entry := w.types.mapEntry(f); entry != nil {
		w.printf("map<")
		w.typeOf(entry.Fields[0])
		w.printf(", ")
		w.typeOf(entry.Fields[1])
		w.printf("> ")
	} else {
		switch label := f.Label; {
		case label == protofile.Repeated:
			w.printf("repeated ")
		case label == protofile.Required:
			w.printf("required ")
		case f.Proto3Optional:
			w.printf("optional ")
		}
		w.typeOf(f)
		w.printf(" ")
	}
	options := ""
	if f.Default != nil {
		value := strconv.Quote(*f.Default)
		if f.Type != protofile.String && f.Type != protofile.Bytes && value == `"`+*f.Default+`"` {
			value = *f.Default
		}
		options = " [default = " + value + "]"
	}
	w.printf("%s = %d%s;\n", ident(f.Name), f.Number, options)
}

// mapEntry returns the message that stands for a pair of a map, nil if the field is no map.
func (p *protoTypes) mapEntry(f *protofile.Field) *protofile.Message {
	if f.Type != protofile.Msg || f.Label != protofile.Repeated {
		return nil
	}
	m := p.messages[strings.TrimPrefix(f.TypeName, ".")]
	if m == nil || !m.Desc.MapEntry || len(m.Desc.Fields) != 2 {
		return nil
	}
	return m.Desc
}

func (w *protoWriter) typeOf(f *protofile.Field) {
	if !hasTypeName(f) {
		w.printf("%s", scalar(f))
		return
	}
	name := strings.TrimPrefix(f.TypeName, ".")
	short := name
	if w.scope != "" {
		short = strings.TrimPrefix(name, w.scope+".")
	}
	if t := w.ref(name); t != nil {
		w.out = append(w.out, span{idents(short), t})
		return
	}
	w.printf("%s", idents(short))
}

func (w *protoWriter) enum(e *protofile.Enum, depth int) {
	w.line(depth, "enum %s {", ident(e.Name))
	for _, v := range e.Values {
		w.line(depth, "  %s = %d;", ident(v.Name), v.Number)
	}
	w.line(depth, "}")
}

// ident returns a name as it is if it can be one, and quoted if it cannot.
func ident(name string) string {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return strconv.Quote(name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}

// idents is ident for a name with dots.
func idents(name string) string {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		parts[i] = ident(part)
	}
	return strings.Join(parts, ".")
}
