package pitaya

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// DocsOptions are settings of [Server.RegisterDocs] and [Server.DocsHandler].
type DocsOptions struct {
	// Cluster adds the routes of servers of other types to those of this one, as
	// far as they have called [Server.RegisterDocs] too. One server of each type is
	// asked, at most every 10 s; those that do not answer within 2 s are left out.
	// A server that is in no cluster tells of itself.
	Cluster bool
}

const (
	docsName        = "docs"
	maxDocsNames    = 10_000        // that can be asked for at once
	maxDocsResponse = MaxPacketSize // bytes of all descriptors of an answer
)

// RegisterDocs registers two ready-made handlers, by which tools learn the
// routes and the messages of the server, pitaya-cli for one (client protocol,
// section 13):
//
//	docs.docs         nothing → protos.Doc{doc: "…"}, the JSON of Documentation, with pointer names
//	docs.descriptors  protos.ProtoNames{name: […]} → protos.ProtoDescriptors{desc: […]}, what Descriptor returns for each name
//
// They work with the serializers [JSON] and [Protobuf]. A name that is not known
// is refused with [CodeNotFound] and stands in the error's metadata. More than
// 10,000 names, or more descriptors than fit into a packet, are refused with
// [CodeBadRequest].
//
// The names of all routes and types are told to everybody who may send a message,
// so a server does that only if it is asked to. The options are those of
// [Server.Register]: [WithBound] keeps out clients that have not logged in,
// [WithName] gives the service another name, [WithSkip] leaves out "Docs" or
// "Descriptors". Functions of [Server.Before] see these requests as all others.
//
// In a cluster RegisterDocs also makes the server tell other servers, for those
// with [DocsOptions].Cluster; WithSkip("Docs", "Descriptors") leaves nothing but
// that. Clients can ask another type themselves by the route: "room.docs.docs".
//
// RegisterDocs is called once, before Run. Mistakes are returned as by Register.
func (s *Server) RegisterDocs(docs DocsOptions, opts ...RegisterOption) error {
	return s.setUp(func() error {
		d := newDocsService(s, docs)
		if err := s.registry.registerFuncs(docsName, d.handlers(), opts); err != nil {
			return err
		}
		s.docs = d
		return nil
	})
}

// docsService tells of a server's routes and messages. It is a docsSource, for
// which it tells of this server only.
type docsService struct {
	// Immutable.
	server *Server
	others *docsCollector // nil: this server only

	mu    sync.Mutex                             // guards the fields below
	own   string                                 // the text of this server, once that cannot change any more
	files map[protoreflect.FileDescriptor][]byte // packed; no more than the program has
}

func newDocsService(s *Server, o DocsOptions) *docsService {
	d := &docsService{server: s, files: make(map[protoreflect.FileDescriptor][]byte)}
	if o.Cluster {
		d.others = newDocsCollector(s)
	}
	return d
}

// handlers returns the handlers by their names before they are renamed.
func (d *docsService) handlers() map[string]*handlerEntry {
	docs := &handlerEntry{
		Out: reflect.TypeFor[*docMessage](),
		Call: func(ctx context.Context, _ any) (any, error) {
			text, err := d.textOfAll(ctx)
			if err != nil {
				return nil, err
			}
			return &docMessage{Doc: text}, nil
		},
	}
	descriptors := typedEntry(func(ctx context.Context, names *namesMessage) (any, error) {
		list, err := d.descriptorsOfAll(ctx, names.Name)
		if err != nil {
			return nil, err
		}
		return &descriptorsMessage{Desc: list}, nil
	})
	descriptors.Out = reflect.TypeFor[*descriptorsMessage]()
	return map[string]*handlerEntry{"Docs": docs, "Descriptors": descriptors}
}

// text implements docsSource.
func (d *docsService) text() (string, error) {
	_, err := d.server.running()
	final := err == nil
	d.mu.Lock()
	text := d.own
	d.mu.Unlock()
	if text != "" {
		return text, nil
	}
	doc, err := d.server.Documentation(true)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return "", err
	}
	if final {
		d.mu.Lock()
		d.own = string(b)
		d.mu.Unlock()
	}
	return string(b), nil
}

// textOfAll is text with the routes of other types, if they are wanted.
func (d *docsService) textOfAll(ctx context.Context) (string, error) {
	text, err := d.text()
	if err != nil || d.others == nil {
		return text, err
	}
	c, err := d.others.collect(ctx)
	if err != nil {
		return "", err
	}
	return c.mergeInto(text)
}

// descriptors implements docsSource.
func (d *docsService) descriptors(names []string) ([][]byte, error) {
	list, err := d.find(names)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for i, b := range list {
		if seen[string(b)] {
			list[i] = nil
		}
		seen[string(b)] = true
	}
	return list, checkDocsSize(list)
}

// find returns the descriptors that the program has, and nothing for other names.
func (d *docsService) find(names []string) ([][]byte, error) {
	if len(names) > maxDocsNames {
		return nil, Errorf(CodeBadRequest, "pitaya: %d names at once, at most %d are allowed", len(names), maxDocsNames)
	}
	list := make([][]byte, len(names))
	for i, name := range names {
		file, err := findFile(name)
		if err != nil {
			continue
		}
		if list[i], err = d.pack(file); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// descriptorsOfAll returns a descriptor for each name, also for messages of other
// types, if they are wanted. It is an error if a name is not known.
func (d *docsService) descriptorsOfAll(ctx context.Context, names []string) ([][]byte, error) {
	list, err := d.find(names)
	if err == nil {
		err = checkDocsSize(list)
	}
	if err != nil {
		return nil, err
	}
	if d.others != nil && slices.ContainsFunc(list, isEmpty) {
		if err := d.others.complete(ctx, names, list); err != nil {
			return nil, err
		}
	}
	if i := slices.IndexFunc(list, isEmpty); i >= 0 {
		return nil, errNoDescriptor(names[i])
	}
	return list, checkDocsSize(list)
}

func isEmpty(b []byte) bool { return len(b) == 0 }

// checkDocsSize says whether descriptors fit into a packet. A client can name the
// longest of them ten thousand times.
func checkDocsSize(list [][]byte) error {
	size := 0
	for _, b := range list {
		size += len(b)
	}
	if size > maxDocsResponse {
		return Errorf(CodeBadRequest, "pitaya: descriptors of %d bytes, at most %d are sent", size, maxDocsResponse)
	}
	return nil
}

// pack returns a file's descriptor, which is made once.
func (d *docsService) pack(file protoreflect.FileDescriptor) ([]byte, error) {
	d.mu.Lock()
	b := d.files[file]
	d.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := packFile(file)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[file] = b
	return b, nil
}
