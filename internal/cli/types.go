package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	// The files that others import are in the program, whatever the server offers.
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// Bounds of what is learnt from a server.
const (
	maxNames     = 10_000  // messages
	maxFiles     = 1000    // files that are imported and asked for, besides those of the messages
	maxFileBytes = 4 << 20 // of one descriptor, inflated
	maxAllBytes  = 64 << 20
)

// Types are the protobuf messages of a server.
type types struct {
	files       *protoregistry.Files
	dyn         *dynamicpb.Types
	descriptors [][]byte // as the server sent them
}

// fetchTypes asks a server for the descriptors of messages and of the files that theirs import. With types comes an error
// about those that could not be had, if any.
func fetchTypes(ctx context.Context, c *pitaya.Client, route string, names []string) (*types, error) {
	if len(names) > maxNames {
		return nil, fmt.Errorf("the documentation has %d messages, more than %d", len(names), maxNames)
	}
	l := &typeLoader{client: c, route: route, files: make(map[string]*descriptorpb.FileDescriptorProto)}
	if err := l.load(ctx, names); err != nil {
		return nil, err
	}
	if err := l.imports(ctx); err != nil {
		return nil, err
	}
	t := newTypes(l.files)
	t.descriptors = l.sent
	return t, l.incomplete()
}

// A typeLoader collects files of descriptors, by path.
type typeLoader struct {
	client  *pitaya.Client
	route   string
	files   map[string]*descriptorpb.FileDescriptorProto
	sent    [][]byte // as they came
	bytes   int
	missing []string
}

// load fetches the files that define messages. A server refuses all names for one that it does not know, such as that of
// a Go type which is no message: then they are asked for one by one.
func (l *typeLoader) load(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := l.fetch(ctx, names)
	if _, refused := errors.AsType[*pitaya.Error](err); !refused {
		return err
	}
	if len(names) == 1 {
		l.missing = append(l.missing, names[0])
		return nil
	}
	for _, name := range names {
		if err := l.load(ctx, []string{name}); err != nil {
			return err
		}
	}
	return nil
}

// fetch makes one request.
func (l *typeLoader) fetch(ctx context.Context, names []string) error {
	var answer pb.ProtoDescriptors
	if err := l.client.Request(ctx, l.route, &pb.ProtoNames{Name: names}, &answer); err != nil {
		return err
	}
	for _, b := range answer.Desc {
		if len(b) == 0 {
			continue
		}
		if err := l.add(b); err != nil {
			return fmt.Errorf("descriptors of %s: %w", l.route, err)
		}
	}
	return nil
}

// add takes in one compressed descriptor.
func (l *typeLoader) add(b []byte) error {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return err
	}
	if l.bytes += len(plain); len(plain) > maxFileBytes || l.bytes > maxAllBytes {
		return errors.New("they are too large")
	}
	file := new(descriptorpb.FileDescriptorProto)
	if err := proto.Unmarshal(plain, file); err != nil {
		return err
	}
	l.files[file.GetName()] = file
	l.sent = append(l.sent, b)
	return nil
}

// imports adds the files that those at hand import: Google's own, and what the server knows by path. What nobody has
// stays away, and with it the messages that need it.
func (l *typeLoader) imports(ctx context.Context) error {
	asked := make(map[string]bool)
	queue := sortedKeys(l.files) // files whose imports are to be looked at
	for len(queue) > 0 {
		file := l.files[queue[0]]
		queue = queue[1:]
		for _, path := range file.GetDependency() {
			if l.files[path] != nil || asked[path] {
				continue
			}
			asked[path] = true
			if own := googleFile(path); own != nil {
				l.files[path] = own
			} else if len(asked) > maxFiles {
				return fmt.Errorf("descriptors of %s: they import more than %d files", l.route, maxFiles)
			} else if err := l.load(ctx, []string{path}); err != nil {
				return err
			}
			if l.files[path] != nil {
				queue = append(queue, path)
			}
		}
	}
	return nil
}

// googleFile returns one of the files that come with protobuf.
func googleFile(path string) *descriptorpb.FileDescriptorProto {
	if !strings.HasPrefix(path, "google/protobuf/") {
		return nil
	}
	file, err := protoregistry.GlobalFiles.FindFileByPath(path)
	if err != nil {
		return nil
	}
	return protodesc.ToFileDescriptorProto(file)
}

func (l *typeLoader) incomplete() error {
	if len(l.missing) == 0 {
		return nil
	}
	list := l.missing
	more := ""
	if len(list) > 5 {
		list, more = list[:5], fmt.Sprintf(" and %d more", len(l.missing)-5)
	}
	return fmt.Errorf("the server has no descriptors of %s%s", clean(strings.Join(list, ", ")), more)
}

// newTypes makes types of descriptors. A file that is wrong, or contradicts another, is left out.
func newTypes(files map[string]*descriptorpb.FileDescriptorProto) *types {
	set := new(descriptorpb.FileDescriptorSet)
	for _, path := range sortedKeys(files) {
		set.File = append(set.File, files[path])
	}
	o := protodesc.FileOptions{AllowUnresolvable: true}
	reg, err := o.NewFiles(set)
	if err != nil {
		reg = new(protoregistry.Files)
		visited := make(map[string]bool)
		var add func(path string)
		add = func(path string) { // what a file imports goes first
			file, ok := files[path]
			if !ok || visited[path] {
				return
			}
			visited[path] = true
			for _, dep := range file.GetDependency() {
				add(dep)
			}
			if made, err := o.New(file, reg); err == nil {
				reg.RegisterFile(made) // of two that contradict each other the first stays
			}
		}
		for _, path := range sortedKeys(files) {
			add(path)
		}
	}
	return &types{files: reg, dyn: dynamicpb.NewTypes(reg)}
}

// has reports whether there is a message of that name.
func (t *types) has(name string) bool {
	if t == nil {
		return false
	}
	_, err := t.dyn.FindMessageByName(protoreflect.FullName(name))
	return err == nil
}

// encode makes the bytes of a message of its protobuf JSON.
func (t *types) encode(name string, text []byte) ([]byte, error) {
	m, err := t.message(name)
	if err != nil {
		return nil, err
	}
	if err := (protojson.UnmarshalOptions{Resolver: t.dyn}).Unmarshal(text, m); err != nil {
		return nil, usagef("not the JSON of a %s: %s", name, strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: "))
	}
	return proto.Marshal(m)
}

// decode makes the protobuf JSON of the bytes of a message.
func (t *types) decode(name string, b []byte) ([]byte, error) {
	m, err := t.message(name)
	if err != nil {
		return nil, err
	}
	if err := (proto.UnmarshalOptions{Resolver: t.dyn}).Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("it is no %s", name)
	}
	text, err := (protojson.MarshalOptions{Resolver: t.dyn}).Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("a %s without JSON: %w", name, err)
	}
	return text, nil
}

func (t *types) message(name string) (proto.Message, error) {
	if t == nil {
		return nil, fmt.Errorf("nothing is known of the message %s", name)
	}
	mt, err := t.dyn.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("nothing is known of the message %s", name)
	}
	return mt.New().Interface(), nil
}

// names returns the names of the messages, sorted.
func (t *types) names() []string {
	if t == nil {
		return nil
	}
	var list []string
	var walk func(protoreflect.MessageDescriptors)
	walk = func(all protoreflect.MessageDescriptors) {
		for i := range all.Len() {
			if m := all.Get(i); !m.IsMapEntry() {
				list = append(list, string(m.FullName()))
				walk(m.Messages())
			}
		}
	}
	t.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		walk(file.Messages())
		return true
	})
	slices.Sort(list)
	return list
}
