package pitaya

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
	"github.com/pitaya-go/pitaya/internal/routedocs"
)

const (
	docsAge      = 10 * time.Second // after which the others are asked again
	docsPatience = 2 * time.Second  // that they have for an answer
	docsCalls    = 16               // under way at once
	maxDocsPaths = 10_000           // of files that others have, as far as they are remembered
)

// docsCollector knows what the servers of other types tell of themselves.
type docsCollector struct {
	// Immutable.
	server *Server
	turn   chan struct{} // holds one token, which who asks the others has taken

	mu    sync.Mutex        // guards the fields below; never held across a call
	last  *docsCollection   // nil before the first
	paths map[string]string // types that have .proto files, by paths that their descriptors mention
}

// docsCollection is what the others have said. Immutable.
type docsCollection struct {
	at                time.Time
	handlers, remotes map[string]json.RawMessage
	messages          map[string]string // types that know messages, by name
}

func newDocsCollector(s *Server) *docsCollector {
	c := &docsCollector{server: s, turn: make(chan struct{}, 1), paths: make(map[string]string)}
	c.turn <- struct{}{}
	return c
}

// collect returns what the others say, or have said a short time ago. However
// many clients want it, they are asked once.
func (c *docsCollector) collect(ctx context.Context) (*docsCollection, error) {
	cluster, err := c.server.clustered()
	if err != nil {
		return &docsCollection{}, nil
	}
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last != nil && time.Since(last.at) < docsAge {
		return last, nil
	}
	// What is remembered is for all clients, so the end of one's request must not cut it short. The patience bounds it.
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), docsPatience)
	defer cancel()
	last = c.ask(ask, cluster.node)
	c.mu.Lock()
	c.last = last
	c.mu.Unlock()
	return last, nil
}

// ask asks a server of each type.
func (c *docsCollector) ask(ctx context.Context, n *node) *docsCollection {
	types := n.docsTypes()
	texts := make([]string, len(types))
	var wg sync.WaitGroup
	room := make(chan struct{}, docsCalls)
	for i, serverType := range types {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			var doc clustermsg.Doc
			if err := n.askDocs(ctx, serverType, routeDocs, []byte{}, doc.Decode); err != nil {
				c.server.log.Warn("no documentation of servers of another type", "type", serverType, "err", err)
				return
			}
			texts[i] = doc.Doc
		})
	}
	wg.Wait()
	all := &docsCollection{
		at:       time.Now(),
		handlers: make(map[string]json.RawMessage),
		remotes:  make(map[string]json.RawMessage),
		messages: make(map[string]string),
	}
	for i, serverType := range types {
		if texts[i] != "" {
			if err := all.add(serverType, texts[i]); err != nil {
				c.server.log.Warn("no documentation of servers of another type", "type", serverType, "err", err)
			}
		}
	}
	return all
}

// docsParts is the documentation of a server, taken apart so far.
type docsParts struct {
	Handlers map[string]json.RawMessage `json:"handlers"`
	Remotes  map[string]json.RawMessage `json:"remotes"`
}

// add takes what servers of a type say of routes of their own.
func (c *docsCollection) add(serverType, text string) error {
	var parts docsParts
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &parts); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return err
	}
	wrong := func(route string, entry json.RawMessage) bool {
		var e struct{ Output []any }
		return !strings.HasPrefix(route, serverType+".") || json.Unmarshal(entry, &e) != nil
	}
	maps.DeleteFunc(parts.Handlers, wrong)
	maps.DeleteFunc(parts.Remotes, wrong)
	maps.Copy(c.handlers, parts.Handlers)
	maps.Copy(c.remotes, parts.Remotes)
	for _, name := range routedocs.Messages(doc) {
		if _, ok := c.messages[name]; !ok {
			c.messages[name] = serverType
		}
	}
	return nil
}

// mergeInto adds the routes to the documentation of this server.
func (c *docsCollection) mergeInto(text string) (string, error) {
	if len(c.handlers) == 0 && len(c.remotes) == 0 {
		return text, nil
	}
	var parts docsParts
	if err := json.Unmarshal([]byte(text), &parts); err != nil {
		return "", err
	}
	maps.Copy(parts.Handlers, c.handlers)
	maps.Copy(parts.Remotes, c.remotes)
	b, err := json.Marshal(&parts)
	return string(b), err
}

// complete asks the others for the descriptors that a list lacks. What nobody
// knows stays empty, and so does what could not be had, which is an error.
func (c *docsCollector) complete(ctx context.Context, names []string, list [][]byte) error {
	cluster, err := c.server.clustered()
	if err != nil {
		return nil
	}
	collected, err := c.collect(ctx)
	if err != nil {
		return err
	}
	wanted := make(map[string][]int) // places in the list, by type
	c.mu.Lock()
	for i, name := range names {
		if !isEmpty(list[i]) {
			continue
		}
		serverType, ok := collected.messages[name]
		if !ok {
			serverType, ok = c.paths[name]
		}
		if ok {
			wanted[serverType] = append(wanted[serverType], i)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, serverType := range slices.Sorted(maps.Keys(wanted)) {
		places := wanted[serverType]
		ask, got := &clustermsg.ProtoNames{}, &clustermsg.ProtoDescriptors{}
		for _, i := range places {
			ask.Name = append(ask.Name, names[i])
		}
		payload, err := ask.Encode()
		if err == nil {
			err = cluster.node.askDocs(ctx, serverType, routeDescriptors, payload, got.Decode)
		}
		if err == nil && len(got.Desc) != len(places) {
			err = Errorf(CodeInternal, "pitaya: %d descriptors of servers of type %q for %d names", len(got.Desc), serverType, len(places))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files := c.learn(serverType, got.Desc)
		for k, i := range places {
			if list[i] = got.Desc[k]; isEmpty(list[i]) {
				list[i] = files[names[i]] // which came for another name
			}
		}
	}
	return errors.Join(errs...)
}

// learn returns the files by their paths and messages, and notes what they
// import, so that it can be asked for too.
func (c *docsCollector) learn(serverType string, list [][]byte) (files map[string][]byte) {
	files = make(map[string][]byte)
	var paths []string
	for _, b := range list {
		if isEmpty(b) {
			continue
		}
		file, err := routedocs.ReadFile(b)
		if err != nil {
			continue
		}
		for _, name := range append(file.Messages, file.Path) {
			files[name] = b
		}
		paths = append(paths, file.Imports...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range paths {
		if _, ok := c.paths[path]; !ok && len(c.paths) < maxDocsPaths {
			c.paths[path] = serverType
		}
	}
	return files
}
