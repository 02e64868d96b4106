package pitaya

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/pitaya-go/pitaya/internal/routedocs"
)

// DocsMarkdown returns a page about the server's routes, for people who write
// clients: each route with its kind, argument, result and an example of both as
// JSON, and each type with its fields, for protobuf messages as in a .proto file.
// The page is made of what [Server.Documentation] and [Descriptor] return, and is
// the same for the same routes, so that it can stand in a repository and a test can
// compare it. It may be called at any time, as Documentation.
func (s *Server) DocsMarkdown() ([]byte, error) {
	return newDocsService(s, DocsOptions{}).page(context.Background(), routedocs.Markdown)
}

// DocsHTML is [Server.DocsMarkdown] for browsers: one page that loads nothing from
// elsewhere and runs no script.
func (s *Server) DocsHTML() ([]byte, error) {
	return newDocsService(s, DocsOptions{}).page(context.Background(), routedocs.HTML)
}

// DocsHandler returns a handler that shows the page of [Server.DocsHTML], and can
// be mounted anywhere:
//
//	mux.Handle("/docs/", srv.DocsHandler(pitaya.DocsOptions{}))
//
// With the parameter view=markdown it is that of [Server.DocsMarkdown], and with
// view=json, or for requests whose Accept header prefers application/json, it is
// what [Server.Documentation] returns, with pointer names. With
// [DocsOptions].Cluster it has the routes of other types as well.
//
// It tells the names of all routes and types, and has no check of who asks. A
// handler may be used at any time, also before Run and after it, and by many at
// once; it does not depend on [Server.RegisterDocs].
func (s *Server) DocsHandler(opts DocsOptions) http.Handler {
	return &docsPage{newDocsService(s, opts)}
}

// docsPage is the handler of DocsHandler. Immutable.
type docsPage struct{ docs *docsService }

// ServeHTTP implements [http.Handler].
func (p *docsPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !readOnly(w, r) {
		return
	}
	view := r.URL.Query().Get("view")
	if view == "" && wantsJSON(r) {
		view = "json"
	}
	var body []byte
	var err error
	var kind string
	switch view {
	case "":
		kind = "text/html; charset=utf-8"
		body, err = p.docs.page(r.Context(), routedocs.HTML)
	case "markdown":
		kind = "text/markdown; charset=utf-8"
		body, err = p.docs.page(r.Context(), routedocs.Markdown)
	case "json":
		kind = "application/json"
		var text string
		text, err = p.docs.textOfAll(r.Context())
		body = []byte(text + "\n")
	default:
		http.Error(w, "no such view", http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Vary", "Accept")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	respond(w, r, http.StatusOK, kind, body)
}

// page renders the documentation.
func (d *docsService) page(ctx context.Context, render func(map[string]any, routedocs.Options) ([]byte, error)) ([]byte, error) {
	text, err := d.textOfAll(ctx)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, err
	}
	o := routedocs.Options{Title: "Routes"}
	serverType, serializer := d.server.docsTitle()
	if o.Serializer = serializer.Name(); serverType != "" {
		o.Title = "Routes of " + serverType
	}
	if o.Descriptors, err = d.pageDescriptors(ctx, routedocs.Messages(doc)); err != nil {
		return nil, err
	}
	return render(doc, o)
}

// docsTitle returns what a page says of the server itself.
func (s *Server) docsTitle() (serverType string, serializer Serializer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Type, s.serializer()
}

// pageRounds is how often files are asked for that are imported by others.
const pageRounds = 10

// pageDescriptors returns the files of those names that are messages, and all
// that these import, as far as they can be had: a page without a definition is
// better than none.
func (d *docsService) pageDescriptors(ctx context.Context, names []string) ([][]byte, error) {
	var all [][]byte
	seen := make(map[string]bool)
	for range pageRounds {
		if len(names) == 0 {
			break
		}
		names = names[:min(len(names), maxDocsNames)]
		list, err := d.find(names)
		if err != nil {
			return nil, err
		}
		if d.others != nil && slices.ContainsFunc(list, isEmpty) {
			if err := d.others.complete(ctx, names, list); err != nil {
				d.server.log.Warn("no descriptors of servers of another type", "err", err)
			}
		}
		names = nil
		for _, b := range list {
			if isEmpty(b) || seen[string(b)] {
				continue
			}
			seen[string(b)] = true
			file, err := routedocs.ReadFile(b)
			if err != nil {
				continue // is another server's
			}
			all = append(all, b)
			for _, path := range file.Imports {
				if !seen[path] {
					seen[path] = true
					names = append(names, path)
				}
			}
		}
	}
	return all, nil
}
