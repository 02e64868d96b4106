package pitaya

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// maxDocFields bounds the fields that one argument or result is documented
// with. Types that refer to each other are described again wherever they stand,
// so a dozen of them could fill the memory.
const maxDocFields = 10_000

// describe documents the type of an argument or of a result.
func describe(t reflect.Type, output, pointerNames bool) any {
	if t == nil {
		return nil
	}
	d := describer{Output: output, PointerNames: pointerNames, open: make(map[reflect.Type]bool), left: maxDocFields}
	return d.describe(t)
}

// describeResult documents what a handler returns.
func describeResult(t reflect.Type, pointerNames bool) []any {
	if t == nil {
		return []any{}
	}
	return []any{describe(t, true, pointerNames), "error"}
}

// A describer turns one type into its documentation.
type describer struct {
	Output       bool // of a result, not of an argument
	PointerNames bool
	open         map[reflect.Type]bool // named types that are being described, further out
	left         int                   // fields that may still be described
}

func (d *describer) describe(t reflect.Type) any {
	if d.opaque(t) {
		return t.String()
	}
	if t.Name() != "" {
		if d.open[t] || d.left <= 0 {
			return d.name(t)
		}
		d.open[t] = true
		defer delete(d.open, t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.describe(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "[]byte" // which reflect calls []uint8
		}
		return []any{d.describe(t.Elem())}
	case reflect.Array:
		return []any{d.describe(t.Elem())}
	case reflect.Struct:
		fields := d.fields(t)
		if d.PointerNames && t.Name() != "" {
			return map[string]any{d.name(t): fields}
		}
		return fields
	}
	return t.String()
}

// opaque reports whether a type reads or writes its JSON itself, as [time.Time]
// does, so that what it is made of says nothing. Of protobuf messages the fields
// count in any case.
func (d *describer) opaque(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return false
	}
	p := reflect.PointerTo(t) // has the methods of both
	if p.Implements(protoType()) {
		return false
	}
	if d.Output {
		return p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
	}
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fields documents the fields of a struct.
func (d *describer) fields(t reflect.Type) map[string]any {
	list := jsonFields(t)
	taken := make(map[string]bool, len(list))
	for _, f := range list {
		taken[f.Name] = true
	}
	into := make(map[string]any, len(list))
	for _, f := range list {
		d.left--
		name := f.Name
		// JSON reads a name without a tag in both spellings, so arguments are shown in the one that clients prefer, unless
		// that is the name of another field. It writes only the other.
		if lower := lowerFirst(name); !d.Output && !f.Tagged && !taken[lower] {
			name = lower
		}
		into[name] = d.describe(f.Type)
	}
	return into
}

func lowerFirst(name string) string {
	first, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(first)) + name[n:]
}

// A jsonField is a field of a struct as its JSON has it.
type jsonField struct {
	Name   string
	Tagged bool // the name is from a tag
	Type   reflect.Type

	depth int // of embedding
	twice bool
}

// jsonFields returns the fields that a struct has in JSON: its own and, beside
// them, those of structs that it embeds. Of several with one name that which is
// embedded the least counts, then the one whose name is from a tag; if that leaves
// more than one, none does.
func jsonFields(t reflect.Type) []jsonField {
	var found []jsonField
	seen := make(map[reflect.Type]bool)
	level := []reflect.Type{t}
	count := make(map[reflect.Type]int) // of those in level
	for depth := 0; len(level) > 0; depth++ {
		var next []reflect.Type
		embedded := make(map[reflect.Type]int)
		for _, t := range level {
			if seen[t] {
				continue
			}
			seen[t] = true
			for f := range t.Fields() {
				name, tagged, ok := jsonName(&f)
				if !ok {
					continue
				}
				if elem := deref(f.Type); f.Anonymous && !tagged && elem.Kind() == reflect.Struct {
					if embedded[elem]++; embedded[elem] == 1 {
						next = append(next, elem)
					}
					continue
				}
				found = append(found, jsonField{Name: name, Tagged: tagged, Type: f.Type, depth: depth, twice: count[t] > 1})
			}
		}
		level, count = next, embedded
	}
	best := make(map[string]int) // index in list
	var list []jsonField
	for _, f := range found { // those that are embedded less come first
		i, ok := best[f.Name]
		if !ok {
			best[f.Name] = len(list)
			list = append(list, f)
			continue
		}
		switch other := &list[i]; {
		case other.depth < f.depth || other.Tagged && !f.Tagged:
		case f.Tagged && !other.Tagged:
			*other = f
		default:
			other.twice = true
		}
	}
	kept := list[:0]
	for _, f := range list {
		if !f.twice {
			kept = append(kept, f)
		}
	}
	return kept
}

func deref(t reflect.Type) reflect.Type {
	if t.Name() == "" && t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// jsonName returns the name of a field in JSON. Fields that are left out have
// none: those that are not exported, those with the tag "-", and those that old
// generators of protobuf code made for themselves.
func jsonName(f *reflect.StructField) (name string, tagged, ok bool) {
	if strings.HasPrefix(f.Name, "XXX_") {
		return "", false, false
	}
	if !f.IsExported() && (!f.Anonymous || deref(f.Type).Kind() != reflect.Struct) {
		return "", false, false
	}
	tag := f.Tag.Get("json")
	if tag == "-" {
		return "", false, false
	}
	if name, _, _ := strings.Cut(tag, ","); jsonTagName(name) {
		return name, true, true
	}
	return f.Name, false, true
}

// jsonTagName reports whether [json] takes a text as a name. It ignores others.
func jsonTagName(name string) bool {
	for _, r := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return name != ""
}

// name is what a type is called where its fields are not shown, or beside them.
func (d *describer) name(t reflect.Type) string {
	if !d.PointerNames || t.Kind() != reflect.Struct {
		return t.String()
	}
	if name, ok := messageName(t); ok {
		return "*" + name
	}
	return "*" + t.String()
}

// messageName returns the full name of a protobuf message type.
func messageName(t reflect.Type) (name string, ok bool) {
	m, ok := reflect.New(t).Interface().(proto.Message)
	if !ok {
		return "", false
	}
	// A struct that embeds the interface implements it, but not when it is
	// empty.
	defer func() {
		if recover() != nil {
			name, ok = "", false
		}
	}()
	return string(m.ProtoReflect().Descriptor().FullName()), true
}
