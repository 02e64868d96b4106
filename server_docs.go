package pitaya

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Documentation describes the server's routes and the types of their arguments
// and results, for tools and for people who write clients. It is a value for
// [encoding/json], see the API document, section 16:
//
//	{"handlers": {"chat.room.join": {"input": {"name": "string"}, "output": [{"members": ["string"]}, "error"]}}, "remotes": {}}
//
// The keys are full routes. The input is null for a handler without argument,
// the output is empty for a notify. Structs are objects of their fields, under
// the names that JSON gives them; slices and arrays are lists of their one
// element type; everything else, [time.Time] and []byte included, is the name
// of its Go type. Where a type contains itself its name stands in the place of
// its fields.
//
// With pointerNames each named struct is wrapped in an object whose key is an
// asterisk and the name of the type: for protobuf messages their full name, by
// which [Descriptor] knows them. The command line client of the Pitaya family
// wants it so.
//
// Documentation may be called at any time; handlers that are registered later
// are missing from the result, which is the caller's. Its error is always nil
// so far.
func (s *Server) Documentation(pointerNames bool) (map[string]any, error) {
	s.mu.Lock()
	list := s.registry.all()
	called := s.registry.allRemotes()
	s.mu.Unlock()
	handlers := make(map[string]any, len(list))
	for _, e := range list {
		handlers[e.Route] = describeEntry(e, pointerNames)
	}
	remotes := make(map[string]any, len(called))
	for route, e := range called {
		remotes[route] = describeEntry(e, pointerNames)
	}
	return map[string]any{"handlers": handlers, "remotes": remotes}, nil
}

// describeEntry documents a handler or a remote.
func describeEntry(e *handlerEntry, pointerNames bool) map[string]any {
	return map[string]any{
		"input":  describe(e.In, false, pointerNames),
		"output": describeResult(e.Out, pointerNames),
	}
}

// describe documents the type of an argument or of a result.
func describe(t reflect.Type, output, pointerNames bool) any {
	if t == nil {
		return nil
	}
	d := describer{Output: output, PointerNames: pointerNames, open: make(map[reflect.Type]bool)}
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
}

var timeType = reflect.TypeFor[time.Time]()

func (d *describer) describe(t reflect.Type) any {
	if t == timeType {
		return t.String()
	}
	if t.Name() != "" {
		if d.open[t] {
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
		fields := make(map[string]any)
		d.fields(t, fields)
		if d.PointerNames && t.Name() != "" {
			return map[string]any{d.name(t): fields}
		}
		return fields
	}
	return t.String()
}

// fields adds the documentation of a struct's fields. Those of embedded structs
// stand beside the struct's own, as in its JSON, and are hidden by them.
func (d *describer) fields(t reflect.Type, into map[string]any) {
	var embedded []reflect.Type
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Tag.Get("json") == "-" || strings.HasPrefix(f.Name, "XXX_") {
			continue
		}
		if f.Anonymous && tag == "" {
			elem := f.Type
			if elem.Kind() == reflect.Pointer {
				elem = elem.Elem()
			}
			if elem.Kind() == reflect.Struct && elem != timeType {
				embedded = append(embedded, elem)
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		into[cmp.Or(tag, d.fieldName(f.Name))] = d.describe(f.Type)
	}
	for _, elem := range embedded {
		if d.open[elem] {
			continue // it embeds itself, and adds nothing
		}
		d.open[elem] = true
		promoted := make(map[string]any)
		d.fields(elem, promoted)
		delete(d.open, elem)
		for name, field := range promoted {
			if _, hidden := into[name]; !hidden {
				into[name] = field
			}
		}
	}
}

// fieldName is the name of a field without a tag. JSON reads both spellings, so
// arguments are shown in the one that clients prefer; it writes only the other.
func (d *describer) fieldName(name string) string {
	if d.Output {
		return name
	}
	first, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(first)) + name[n:]
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

// Descriptor returns the serialized and gzip-compressed file descriptor that
// defines a protobuf message, given its full name ("types." stands for
// "google.protobuf."), or that of a .proto file, given its path. All messages
// that are linked into the program are known; others are an error. Tools learn
// from it how to write and read the messages of a server; see the client
// protocol, section 13.
func Descriptor(name string) ([]byte, error) {
	file, err := findFile(name)
	if err != nil {
		return nil, fmt.Errorf("pitaya: descriptor of %q: %w", name, err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(file))
	if err != nil {
		return nil, fmt.Errorf("pitaya: descriptor of %q: %w", name, err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out) // writing to memory does not fail
	w.Write(b)
	w.Close()
	return out.Bytes(), nil
}

func findFile(name string) (protoreflect.FileDescriptor, error) {
	if strings.HasSuffix(name, ".proto") {
		return protoregistry.GlobalFiles.FindFileByPath(name)
	}
	if short, ok := strings.CutPrefix(name, "types."); ok {
		name = "google.protobuf." + short
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, err
	}
	if _, ok := d.(protoreflect.MessageDescriptor); !ok {
		return nil, errors.New("it is no message")
	}
	return d.ParentFile(), nil
}
