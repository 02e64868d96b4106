// Package routedocs makes a page of a server's routes and types, in Markdown or HTML, out of what the server says of
// itself: the documentation that its docs route returns (API document, section 16; client protocol, section 13), and
// descriptors of protobuf messages. Both may come from a server that is not to be trusted.
package routedocs

import (
	"maps"
	"slices"
	"strings"
)

// Options are what a page has besides the documentation. The zero value is fine.
type Options struct {
	Title       string   // heading of the page; "Routes" if empty
	Serializer  string   // name of the server's serializer, as the handshake has it; "" if it is not known
	Descriptors [][]byte // as in protos.ProtoDescriptors: gzip-compressed serialized FileDescriptorProtos, in any order, also several times; empty ones are passed over
}

// Markdown renders the documentation of a server. doc is its JSON, decoded into a map. With pointer names the page has a
// section for each type, without them types stand where they are used. The result is the same for the same input. An
// error says that doc is no documentation, or that a descriptor cannot be read.
func Markdown(doc map[string]any, o Options) ([]byte, error) {
	p, err := newPage(doc, o)
	if err != nil {
		return nil, err
	}
	return p.markdown(), nil
}

// HTML is [Markdown] for a browser: one page that loads nothing from elsewhere and runs no script.
func HTML(doc map[string]any, o Options) ([]byte, error) {
	p, err := newPage(doc, o)
	if err != nil {
		return nil, err
	}
	return p.html()
}

// Messages returns the names that a descriptors route can be asked for: each key of doc that begins with an asterisk,
// without it, once and in order. Types that are no protobuf messages are among them.
func Messages(doc map[string]any) []string {
	names := make(map[string]bool)
	collectNames(doc, names, 0)
	return slices.Sorted(maps.Keys(names))
}

func collectNames(v any, into map[string]bool, depth int) {
	if depth > maxDepth {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if name, ok := strings.CutPrefix(key, "*"); ok && name != "" {
				into[name] = true
			}
			collectNames(value, into, depth+1)
		}
	case []any:
		for _, value := range v {
			collectNames(value, into, depth+1)
		}
	}
}

// DescriptorsRoute returns the route of the first handler, in the order of names, that takes protos.ProtoNames and
// returns protos.ProtoDescriptors; "" if there is none.
func DescriptorsRoute(doc map[string]any) string {
	handlers, _ := doc["handlers"].(map[string]any)
	for _, route := range slices.Sorted(maps.Keys(handlers)) {
		entry, _ := handlers[route].(map[string]any)
		out, _ := entry["output"].([]any)
		if len(out) == 0 {
			continue
		}
		in, _, _ := named(entry["input"])
		result, _, _ := named(out[0])
		if in == "protos.ProtoNames" && result == "protos.ProtoDescriptors" {
			return route
		}
	}
	return ""
}

// A File is what a descriptor says of a .proto file.
type File struct {
	Path     string
	Imports  []string // paths
	Messages []string // full names, also of those that are declared in others
}

// ReadFile reads a descriptor as in [Options].
func ReadFile(descriptor []byte) (*File, error) {
	file, _, err := readFile(descriptor, maxDescriptors)
	if err != nil {
		return nil, err
	}
	types := newProtoTypes()
	types.addFile(file)
	return &File{file.Name, file.Dependency, slices.Sorted(maps.Keys(types.messages))}, nil
}
