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

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
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
	File   *descriptorpb.FileDescriptorProto
	Desc   *descriptorpb.DescriptorProto
	Nested []string // full names of messages and enums in it
}

type protoEnum struct {
	Name string // full
	File *descriptorpb.FileDescriptorProto
	Desc *descriptorpb.EnumDescriptorProto
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
		if files[file.GetName()] {
			continue
		}
		files[file.GetName()] = true
		p.addFile(file)
	}
	return p, nil
}

// readFile reads a descriptor of at most limit bytes, and returns how many it has.
func readFile(b []byte, limit int64) (*descriptorpb.FileDescriptorProto, int64, error) {
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
	file := &descriptorpb.FileDescriptorProto{}
	return file, size, proto.Unmarshal(plain, file)
}

func (p *protoTypes) addFile(file *descriptorpb.FileDescriptorProto) {
	prefix := ""
	if file.GetPackage() != "" {
		prefix = file.GetPackage() + "."
	}
	for _, m := range file.MessageType {
		p.addMessage(file, prefix, m)
	}
	for _, e := range file.EnumType {
		p.addEnum(file, prefix, e)
	}
}

func (p *protoTypes) addMessage(file *descriptorpb.FileDescriptorProto, prefix string, desc *descriptorpb.DescriptorProto) {
	m := &protoMessage{Name: prefix + desc.GetName(), File: file, Desc: desc}
	if p.messages[m.Name] == nil {
		p.messages[m.Name] = m
	}
	for _, nested := range desc.NestedType {
		p.addMessage(file, m.Name+".", nested)
		m.Nested = append(m.Nested, m.Name+"."+nested.GetName())
	}
	for _, e := range desc.EnumType {
		p.addEnum(file, m.Name+".", e)
		m.Nested = append(m.Nested, m.Name+"."+e.GetName())
	}
}

func (p *protoTypes) addEnum(file *descriptorpb.FileDescriptorProto, prefix string, desc *descriptorpb.EnumDescriptorProto) {
	if e := (&protoEnum{prefix + desc.GetName(), file, desc}); p.enums[e.Name] == nil {
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
		if m == nil && e == nil || m != nil && m.Desc.GetOptions().GetMapEntry() {
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
			w := protoWriter{types: p.proto, scope: m.File.GetPackage(), ref: ref}
			w.message(m.Desc, m.Name, 0)
			t.Proto = &definition{File: m.File.GetName(), Text: w.out}
			t.Fields = p.proto.fields(m.Desc, ref)
		} else if e := p.proto.enums[t.Name]; e != nil {
			w := protoWriter{types: p.proto, ref: ref}
			w.enum(e.Desc, 0)
			t.Proto = &definition{File: e.File.GetName(), Enum: true, Text: w.out}
		}
	}
}

// fields returns the fields of a message, which say more than those of the Go type that stands for it.
func (p *protoTypes) fields(m *descriptorpb.DescriptorProto, ref func(name string) *typeEntry) []field {
	list := make([]field, 0, len(m.Field))
	for _, f := range m.Field {
		e := &typeExpr{}
		if entry := p.mapEntry(f); entry != nil {
			e = &typeExpr{Kind: exprMap, Word: scalar(entry.Field[0]), Elem: protoExpr(entry.Field[1], ref)}
		} else if e = protoExpr(f, ref); f.GetLabel() == descriptorpb.FieldDescriptorProto_LABEL_REPEATED {
			e = &typeExpr{Kind: exprList, Elem: e}
		}
		list = append(list, field{f.GetName(), e})
	}
	return list
}

// protoExpr returns the type of a field, or of its elements.
func protoExpr(f *descriptorpb.FieldDescriptorProto, ref func(name string) *typeEntry) *typeExpr {
	if !hasTypeName(f) {
		return &typeExpr{Word: scalar(f)}
	}
	name := strings.TrimPrefix(f.GetTypeName(), ".")
	return &typeExpr{Kind: exprNamed, Word: name, Ref: ref(name)}
}

func hasTypeName(f *descriptorpb.FieldDescriptorProto) bool {
	switch f.GetType() {
	case descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_GROUP, descriptorpb.FieldDescriptorProto_TYPE_ENUM:
		return true
	}
	return false
}

// scalar returns the name of a scalar type.
func scalar(f *descriptorpb.FieldDescriptorProto) string {
	return strings.ToLower(strings.TrimPrefix(f.GetType().String(), "TYPE_"))
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
func (w *protoWriter) message(m *descriptorpb.DescriptorProto, name string, depth int) {
	w.line(depth, "message %s {", ident(m.GetName()))
	if depth > maxDepth {
		w.line(depth, "  // …")
		w.line(depth, "}")
		return
	}
	for _, e := range m.EnumType {
		w.enum(e, depth+1)
	}
	for _, nested := range m.NestedType {
		if !nested.GetOptions().GetMapEntry() && !isGroup(m, name, nested) {
			w.message(nested, name+"."+nested.GetName(), depth+1)
		}
	}
	written := make(map[int32]bool) // oneofs
	for _, f := range m.Field {
		one := f.OneofIndex
		if one == nil || f.GetProto3Optional() || int(*one) >= len(m.OneofDecl) || *one < 0 {
			w.field(m, f, depth+1)
			continue
		}
		if written[*one] {
			continue
		}
		written[*one] = true
		w.line(depth+1, "oneof %s {", ident(m.OneofDecl[*one].GetName()))
		for _, f := range m.Field {
			if f.OneofIndex != nil && *f.OneofIndex == *one && !f.GetProto3Optional() {
				w.field(m, f, depth+2)
			}
		}
		w.line(depth+1, "}")
	}
	w.line(depth, "}")
}

// isGroup reports whether a nested message is that of a group, which its field shows.
func isGroup(m *descriptorpb.DescriptorProto, name string, nested *descriptorpb.DescriptorProto) bool {
	return slices.ContainsFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool {
		return f.GetType() == descriptorpb.FieldDescriptorProto_TYPE_GROUP && f.GetTypeName() == "."+name+"."+nested.GetName()
	})
}

func (w *protoWriter) field(m *descriptorpb.DescriptorProto, f *descriptorpb.FieldDescriptorProto, depth int) {
	w.printf("%s", strings.Repeat("  ", depth))
	if entry := w.types.mapEntry(f); entry != nil {
		w.printf("map<")
		w.typeOf(entry.Field[0])
		w.printf(", ")
		w.typeOf(entry.Field[1])
		w.printf("> ")
	} else {
		switch label := f.GetLabel(); {
		case label == descriptorpb.FieldDescriptorProto_LABEL_REPEATED:
			w.printf("repeated ")
		case label == descriptorpb.FieldDescriptorProto_LABEL_REQUIRED:
			w.printf("required ")
		case f.GetProto3Optional():
			w.printf("optional ")
		}
		w.typeOf(f)
		w.printf(" ")
	}
	options := ""
	if f.DefaultValue != nil {
		value := strconv.Quote(*f.DefaultValue)
		if f.GetType() != descriptorpb.FieldDescriptorProto_TYPE_STRING && f.GetType() != descriptorpb.FieldDescriptorProto_TYPE_BYTES && value == `"`+*f.DefaultValue+`"` {
			value = *f.DefaultValue
		}
		options = " [default = " + value + "]"
	}
	w.printf("%s = %d%s;\n", ident(f.GetName()), f.GetNumber(), options)
}

// mapEntry returns the message that stands for a pair of a map, nil if the field is no map.
func (p *protoTypes) mapEntry(f *descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	if f.GetType() != descriptorpb.FieldDescriptorProto_TYPE_MESSAGE || f.GetLabel() != descriptorpb.FieldDescriptorProto_LABEL_REPEATED {
		return nil
	}
	m := p.messages[strings.TrimPrefix(f.GetTypeName(), ".")]
	if m == nil || !m.Desc.GetOptions().GetMapEntry() || len(m.Desc.Field) != 2 {
		return nil
	}
	return m.Desc
}

func (w *protoWriter) typeOf(f *descriptorpb.FieldDescriptorProto) {
	if !hasTypeName(f) {
		w.printf("%s", scalar(f))
		return
	}
	name := strings.TrimPrefix(f.GetTypeName(), ".")
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

func (w *protoWriter) enum(e *descriptorpb.EnumDescriptorProto, depth int) {
	w.line(depth, "enum %s {", ident(e.GetName()))
	for _, v := range e.Value {
		w.line(depth, "  %s = %d;", ident(v.GetName()), v.GetNumber())
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
