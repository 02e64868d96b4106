package pitaya_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// externalLinks are the addresses elsewhere that documents and doc comments link to. A new one is a decision: the page must
// be worth depending on. Nothing here asks the network.
var externalLinks = []string{
	"https://etcd.io",
	"https://keepachangelog.com/",
	"https://nats.io",
	"https://pkg.go.dev/github.com/pitaya-go/pitaya#pkg-examples",
	"https://pkg.go.dev/os/signal#NotifyContext",
	"https://semver.org/",
}

// TestDocumentLinks checks that links between the documents lead to a file and a heading that exist, that links elsewhere
// are those of externalLinks, that each document can be reached from README.md, and that each example and command is
// linked to.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	docs := allMarkdown(t)
	c := linkCheck{t: t, external: commentLinks(t), reached: map[string][]string{}, linked: map[string]bool{}, headings: map[string][]string{}}
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range markdownLinks(string(text)) {
			if err := c.follow(doc, link); err != nil {
				t.Errorf("%s:%d: link to %s: %v", doc, link.Line, link.Target, err)
			}
		}
	}
	for _, target := range slices.Sorted(maps.Keys(c.external)) {
		if !slices.Contains(externalLinks, target) {
			t.Errorf("%s: link to %s, which is not among externalLinks", c.external[target][0], target)
		}
	}
	for _, target := range externalLinks {
		if c.external[target] == nil {
			t.Errorf("nothing links to %s any more: take it out of externalLinks", target)
		}
	}
	found := map[string]bool{"README.md": true}
	for queue := []string{"README.md"}; len(queue) > 0; queue = queue[1:] {
		for _, next := range c.reached[queue[0]] {
			if !found[next] {
				found[next] = true
				queue = append(queue, next)
			}
		}
	}
	for _, doc := range docs {
		if !found[doc] {
			t.Errorf("%s: no way of links leads to it from README.md", doc)
		}
	}
	for _, pattern := range []string{"examples/*/*.go", "cmd/*/*.go"} {
		files, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if dir := filepath.Dir(file); filepath.Base(dir) != "internal" && !c.linked[dir] {
				c.linked[dir] = true // once is enough
				t.Errorf("%s: no document links to it", dir)
			}
		}
	}
}

// A linkCheck is what the links of all documents add up to.
type linkCheck struct {
	t        *testing.T
	external map[string][]string // addresses elsewhere, with where they are
	reached  map[string][]string // from document to documents
	linked   map[string]bool     // files, and the folders above them
	headings map[string][]string // by document, once they were asked for
}

// follow looks where a link of a document leads to.
func (c *linkCheck) follow(doc string, link pageLink) error {
	u, err := url.Parse(link.Target)
	switch {
	case err != nil:
		return err
	case u.Hostname() == "localhost": // what the reader has started
		return nil
	case u.Scheme != "":
		c.external[link.Target] = append(c.external[link.Target], fmt.Sprintf("%s:%d", doc, link.Line))
		return nil
	case path.IsAbs(u.Path) || u.RawQuery != "":
		return errors.New("it is not relative")
	}
	target := doc
	if u.Path != "" {
		target = filepath.Join(filepath.Dir(doc), filepath.FromSlash(u.Path))
	}
	if !filepath.IsLocal(target) {
		return errors.New("it leads out of the repository")
	}
	if _, err := os.Stat(target); err != nil {
		return err
	}
	for dir := target; dir != "."; dir = filepath.Dir(dir) {
		c.linked[dir] = true
	}
	if filepath.Ext(target) == ".md" {
		c.reached[doc] = append(c.reached[doc], target)
	}
	switch {
	case u.Fragment == "":
		return nil
	case filepath.Ext(target) != ".md":
		return errors.New("only documents have headings")
	case !slices.Contains(c.anchors(target), u.Fragment):
		return fmt.Errorf("there is no such heading; there are %s", c.anchors(target))
	}
	return nil
}

// anchors returns the headings of a document.
func (c *linkCheck) anchors(doc string) []string {
	if _, ok := c.headings[doc]; !ok {
		text, err := os.ReadFile(doc)
		if err != nil {
			c.t.Fatal(err)
		}
		c.headings[doc] = headingAnchors(string(text))
	}
	return c.headings[doc]
}

// allMarkdown returns the documents of the repository, those of nested modules included.
func allMarkdown(t testing.TB) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			if filepath.Ext(name) == ".md" {
				names = append(names, name)
			}
		case name == ".":
		case strings.HasPrefix(d.Name(), "."), d.Name() == "testdata", d.Name() == "node_modules", d.Name() == "vendor":
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A pageLink is a link of a Markdown file.
type pageLink struct {
	Line   int
	Target string
}

var (
	inlineLink    = regexp.MustCompile(`\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+"[^"]*")?\s*\)`)
	linkReference = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?(?:\s+"[^"]*")?\s*$`)
	autoLink      = regexp.MustCompile(`<([a-z][a-z0-9+.-]+:[^\s<>]*)>`)
	inlineCode    = regexp.MustCompile("(`+)[^`]+?(`+)")
)

// markdownLinks finds the links and images of a text, outside of code.
func markdownLinks(text string) []pageLink {
	var links []pageLink
	for n, line := range proseLines(text) {
		line = inlineCode.ReplaceAllString(line, "")
		for _, re := range []*regexp.Regexp{inlineLink, linkReference, autoLink} {
			for _, m := range re.FindAllStringSubmatch(line, -1) {
				links = append(links, pageLink{n + 1, m[1]})
			}
		}
	}
	return links
}

// proseLines returns the lines of a text, with those of fenced blocks empty.
func proseLines(text string) []string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for _, b := range codeBlocks(text) {
		n := strings.Count(b.Text, "\n")
		for i := b.Line - 2; i <= b.Line-1+n && i < len(lines); i++ {
			lines[i] = ""
		}
	}
	return lines
}

// headingAnchors returns the anchors that the usual renderers give the headings of a text: in lower case, spaces as
// hyphens, without punctuation, and with a number where one has been before.
func headingAnchors(text string) []string {
	var anchors []string
	seen := map[string]int{}
	for _, line := range proseLines(text) {
		level := len(line) - len(strings.TrimLeft(line, "#"))
		if level == 0 || level > 6 || !strings.HasPrefix(line[level:], " ") {
			continue
		}
		title := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(line[level+1:], "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(title))
		if n := seen[anchor]; n > 0 {
			anchors = append(anchors, anchor+"-"+strconv.Itoa(n))
		} else {
			anchors = append(anchors, anchor)
		}
		seen[anchor]++
	}
	return anchors
}

// commentPath is how comments name a file or folder of the repository.
var commentPath = regexp.MustCompile(`(?:^|[\s("'])((?:docs|examples|deploy|internal|cmd|js|testdata|pitayatest)/[\w./*-]*\w|[A-Z]+\.md)`)

// commentLinks checks that the files of the repository that comments of Go code name exist, seen from the root or from the
// file with the comment, and returns the links elsewhere that doc comments have, with where they are.
func commentLinks(t *testing.T) map[string][]string {
	t.Helper()
	links := map[string][]string{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return fs.SkipDir
			}
			return nil
		case filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go"):
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, group := range f.Comments {
			checkComment(t, fset, name, group, links)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return links
}

func checkComment(t *testing.T, fset *token.FileSet, name string, group *ast.CommentGroup, links map[string][]string) {
	t.Helper()
	text := group.Text()
	where := fset.Position(group.Pos()).String()
	for line := range strings.Lines(text) {
		if m := linkReference.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			links[m[1]] = append(links[m[1]], where)
		}
	}
	for _, m := range commentPath.FindAllStringSubmatch(text, -1) {
		here := filepath.Join(filepath.Dir(name), filepath.FromSlash(m[1]))
		if !exists(filepath.FromSlash(m[1])) && !exists(here) {
			t.Errorf("%s: the comment names %s, which does not exist", where, m[1])
		}
	}
}

// exists reports whether there is a file that a pattern matches.
func exists(pattern string) bool {
	names, err := filepath.Glob(pattern)
	return err == nil && len(names) > 0
}

func TestMarkdownLinks(t *testing.T) {
	const text = "[a](b.md) `[no](code.md)` ![i](c/d.png \"title\") and [two](x(1).md), [e](#f)\n" +
		"```\n[no](fenced.md)\n```\n" +
		"<https://example.com/> [r]: no\n" +
		"[r]: https://example.com/r\n"
	got := markdownLinks(text)
	want := []pageLink{
		{1, "b.md"}, {1, "c/d.png"}, {1, "x(1).md"}, {1, "#f"}, {5, "https://example.com/"}, {6, "https://example.com/r"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHeadingAnchors(t *testing.T) {
	const text = "# One, two: `three`!\n```\n# code\n```\n## [A link](x.md) and_more\n## Again\n## Again\n#no\n"
	got := headingAnchors(text)
	want := []string{"one-two-three", "a-link-and_more", "again", "again-1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
