package pitaya

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
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
		return (&clustermsg.Doc{Doc: text}).Encode()
	}}
	b.sys[routeDescriptors] = sysRemote{Call: func(c *incoming) ([]byte, error) {
		var names clustermsg.ProtoNames
		if err := names.Decode(c.req.Msg.Data); err != nil {
			return nil, NewError(err, CodeBadRequest)
		}
		list, err := d.descriptors(names.Name)
		if err != nil {
			return nil, err
		}
		return (&clustermsg.ProtoDescriptors{Desc: list}).Encode()
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

// askDocs calls one of the remotes above on a server of a type, and decodes the
// answer. If the server cannot be reached, another one is asked.
func (n *node) askDocs(ctx context.Context, serverType, route string, payload []byte, decode func([]byte) error) error {
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
	var err error = errServerNotFound
	for _, m := range list[:min(len(list), forwardTries)] {
		var data []byte
		if data, err = n.askRemote(ctx, m, route, payload); err == nil {
			return decode(data)
		}
		if !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			break
		}
	}
	return err
}
