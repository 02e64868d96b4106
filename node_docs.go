package pitaya

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/internal/pb"
)

// Routes of the library's own remotes that tell of routes and messages. They are
// called on servers that announce featureDocs.
const (
	routeDocs        = remoteSys + ".docs"
	routeDescriptors = remoteSys + ".descriptors"
)

// A docsSource is what a server knows of itself.
type docsSource interface {
	// text returns the documentation with pointer names, as JSON.
	text() (string, error)
	// descriptors returns the file descriptors for names, in their order. It returns
	// nothing for those that are not known, and for those whose file is that of a
	// name before: files have many messages, and transports a limit.
	descriptors(names []string) ([][]byte, error)
}

// serveDocs makes the server tell others of itself. It is called before the
// server can be reached.
func (b *backend) serveDocs(d docsSource) {
	b.sys[routeDocs] = sysRemote{Call: func(*incoming) ([]byte, error) {
		text, err := d.text()
		if err != nil {
			return nil, err
		}
		return proto.Marshal(&pb.Doc{Doc: text})
	}}
	b.sys[routeDescriptors] = sysRemote{Call: func(c *incoming) ([]byte, error) {
		var names pb.ProtoNames
		if err := proto.Unmarshal(c.req.Msg.Data, &names); err != nil {
			return nil, NewError(err, CodeBadRequest)
		}
		list, err := d.descriptors(names.Name)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(&pb.ProtoDescriptors{Desc: list})
	}}
}

// docsTypes returns the types of the other servers that tell of themselves, in
// order.
func (n *node) docsTypes() []string {
	types := make(map[string]bool)
	for _, m := range n.Members.all() {
		if m.has(featureDocs) && m.Info.Type != n.Self().Type {
			types[m.Info.Type] = true
		}
	}
	return slices.Sorted(maps.Keys(types))
}

// askDocs calls one of the remotes above on a server of a type. If it cannot be
// reached, another one is asked.
func (n *node) askDocs(ctx context.Context, serverType, route string, reply, arg proto.Message) error {
	payload, err := proto.Marshal(arg)
	if err != nil {
		return err
	}
	var list []*member
	for _, m := range n.Members.all() {
		if m.has(featureDocs) && m.Info.Type == serverType {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b *member) int { // those that stay first
		draining := func(m *member) int {
			if m.Info.Draining() {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(draining(a), draining(b)), strings.Compare(a.Info.ID, b.Info.ID))
	})
	err = errServerNotFound
	for _, m := range list[:min(len(list), forwardTries)] {
		var data []byte
		if data, err = n.askRemote(ctx, m, route, payload); err == nil {
			return proto.Unmarshal(data, reply)
		}
		if !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			break
		}
	}
	return err
}
