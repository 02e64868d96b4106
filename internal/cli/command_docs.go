package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"

	"github.com/pitaya-go/pitaya/internal/routedocs"
)

// A docsFormat is what a page about a server is written in.
type docsFormat int

const (
	docsMarkdown docsFormat = iota
	docsHTML
	docsJSON // the documentation itself
)

func (s *shell) cmdDocs(ctx context.Context, args string) error {
	format, file := docsMarkdown, ""
	var formats int
	rest, err := cutOptions(args, func(name string, value func() string) error {
		switch name {
		case "-html":
			format = docsHTML
			formats++
		case "-json":
			format = docsJSON
			formats++
		case "-o":
			file = value()
		default:
			return usagef("there is no option %s", name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rest != "" || formats > 1 {
		return usagef("docs takes -html or -json, and -o FILE")
	}
	return s.writeDocs(ctx, format, file)
}

// writeDocs writes a page about the server, to a file if one is named.
func (s *shell) writeDocs(ctx context.Context, format docsFormat, file string) error {
	docs, err := s.documented(ctx)
	if err != nil {
		return err
	}
	var page string
	switch format {
	case docsJSON:
		page = documentationJSON(docs.Text)
	default:
		if page, err = s.link.page(format); err != nil {
			return err
		}
	}
	page = escape(page, true) // a file may be shown at a terminal too
	if file == "" {
		s.out.Result(page, event{Event: "docs", Text: &page})
		return nil
	}
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		return err
	}
	s.out.Note("written to "+file, event{Event: "docs", Message: file})
	return nil
}

// page renders the documentation of the server.
func (l *link) page(format docsFormat) (string, error) {
	k := l.known.Load()
	o := routedocs.Options{Serializer: l.client.Serializer().Name()}
	if k.types != nil {
		o.Descriptors = k.types.descriptors
	}
	render := routedocs.Markdown
	if format == docsHTML {
		render = routedocs.HTML
	}
	page, err := render(k.docs.Parsed, o)
	return string(page), err
}

// documentationJSON is the documentation as it came, indented unless that would blow it up.
func documentationJSON(text string) string {
	var b bytes.Buffer
	if depth([]byte(text)) > maxIndent || json.Indent(&b, []byte(text), "", "  ") != nil {
		return text + "\n"
	}
	return b.String() + "\n"
}
