package pitaya

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"

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
// the output is empty for a notify. The remotes are those of the application;
// the library's own, of the service "sys", are not for others to call. Types are
//
//   - structs: objects of their fields, under the names that they have in JSON.
//     The first letter of a name that is from no tag is lower case in arguments.
//     Fields of embedded structs stand beside the others, as in JSON. What is not
//     exported or has the tag "-" is left out, and so are fields named XXX_… of
//     protobuf messages.
//   - pointers: what they point to.
//   - slices and arrays: lists of their one element type, but "[]byte".
//   - everything else the name of its Go type: basic types and those made of
//     them, maps, interfaces (of which a oneof is one), and types that write or
//     read their JSON themselves, as [time.Time] does.
//
// Where a type contains itself, its name stands in the place of its fields, as it
// does once an argument or a result has been described by 10,000 fields.
//
// With pointerNames each named struct is wrapped in an object whose key is an
// asterisk and the name of the type: for protobuf messages their full name, by
// which [Descriptor] knows them. The command line client of the Pitaya family
// wants it so. It looks at names that contain "proto" only, so the packages of
// messages had better be named accordingly.
//
// Documentation may be called at any time; handlers that are registered later
// are missing from the result, which is the caller's. Its error is always nil
// so far. [Server.RegisterDocs] offers it to clients, [Server.DocsHandler] as a
// page.
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

// Descriptor returns the serialized and gzip-compressed file descriptor that
// defines a protobuf message, given its full name ("types." stands for
// "google.protobuf."), or that of a .proto file, given its path. All messages
// that are linked into the program are known; for others the error has the code
// [CodeNotFound], and the name in its metadata. Tools learn from it how to write
// and read the messages of a server; see the client protocol, section 13.
func Descriptor(name string) ([]byte, error) {
	file, err := findFile(name)
	if err != nil {
		return nil, err
	}
	return packFile(file)
}

// packFile returns a file descriptor as it is sent.
func packFile(file protoreflect.FileDescriptor) ([]byte, error) {
	b, err := marshalFile(file)
	if err != nil {
		return nil, fmt.Errorf("pitaya: descriptor of %q: %w", file.Path(), err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out) // writing to memory does not fail
	w.Write(b)
	w.Close()
	return out.Bytes(), nil
}

// findFile returns the file that has a path, or in which a message is defined.
func findFile(name string) (protoreflect.FileDescriptor, error) {
	if strings.HasSuffix(name, ".proto") {
		if file, err := protoregistry.GlobalFiles.FindFileByPath(name); err == nil {
			return file, nil
		}
		return nil, errNoDescriptor(name)
	}
	names := []string{name}
	if short, ok := strings.CutPrefix(name, "types."); ok { // unless the application has a package of that name
		names = append(names, "google.protobuf."+short)
	}
	for _, name := range names {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if _, ok := d.(protoreflect.MessageDescriptor); ok && err == nil {
			return d.ParentFile(), nil
		}
	}
	return nil, errNoDescriptor(name)
}

// errNoDescriptor is the answer to a name that is not known. It may be long.
func errNoDescriptor(name string) error {
	name = strings.ToValidUTF8(name[:min(len(name), MaxRouteLength)], "\uFFFD")
	return &Error{
		Code:     CodeNotFound,
		Message:  fmt.Sprintf("pitaya: descriptor of %q: no such message or file", name),
		Metadata: map[string]string{"name": name},
	}
}
