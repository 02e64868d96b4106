package pitaya_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDocuments type-checks the Go code of the repository's Markdown files, against the package as it is. A block marked
// "go" is a whole file. One marked "go fragment" is declarations, or statements that may use what fragmentParams
// declares; its imports are found by name (fragmentImports). Those marked "go file=NAME" are files of one program, whose
// tests TestDocumentPrograms runs.
func TestDocuments(t *testing.T) {
	t.Parallel()
	type source struct{ doc, text string }
	var sources []source
	imports := make(map[string]bool)
	for _, doc := range markdownFiles(t, ".") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range goBlocks(string(text)) {
			if b.Name != "" {
				continue
			}
			file, err := b.file(filepath.ToSlash(doc))
			if err != nil {
				t.Errorf("%s:%d: %v", doc, b.Line, err)
				continue
			}
			sources = append(sources, source{doc, file})
			f, err := parser.ParseFile(token.NewFileSet(), doc, file, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				imports[strings.Trim(spec.Path.Value, `"`)] = true
			}
		}
	}
	if len(sources) == 0 {
		t.Fatal("no code found in the documents")
	}
	files, err := exportFiles(slices.Sorted(maps.Keys(imports))...)
	if err != nil {
		t.Fatal(err)
	}
	known := exportImporter(files)
	for _, s := range sources {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "", s.text, parser.SkipObjectResolution) // the text has the name in //line
		if err != nil {
			t.Error(err)
			continue
		}
		conf := types.Config{Importer: known, Error: func(err error) { t.Error(err) }}
		conf.Check("document", fset, []*ast.File{f}, nil) // reports through Error
	}
}

// TestHelloProgram compares the README's program with examples/hello, which the README tells people to run.
func TestHelloProgram(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join("examples", "hello", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(string(program), "\r\n", "\n")
	found := false
	for _, b := range goBlocks(string(text)) {
		if !strings.Contains(b.Text, "\nfunc main() {") {
			continue
		}
		if found = true; b.Text != want {
			t.Errorf("README.md:%d: the program is not that of examples/hello/main.go", b.Line)
		}
	}
	if !found {
		t.Error("README.md shows no complete program")
	}
	if n := strings.Count(want, "\n"); n >= 40 {
		t.Errorf("examples/hello/main.go has %d lines; the README promises fewer than 40", n)
	}
}

// markdownFiles returns the documents of the module: not those of nested modules, of test data or of hidden folders.
func markdownFiles(t testing.TB, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			if filepath.Ext(name) == ".md" {
				names = append(names, name)
			}
			return nil
		case name == root:
			return nil
		case strings.HasPrefix(d.Name(), "."), d.Name() == "testdata", d.Name() == "node_modules", d.Name() == "vendor":
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
			return fs.SkipDir
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A codeBlock is a fenced block of a Markdown file.
type codeBlock struct {
	Line  int      // of its first line
	Words []string // behind the fence: the language first
	Text  string
}

// A goBlock is a piece of Go code in a Markdown file.
type goBlock struct {
	Line     int // of its first line of code
	Fragment bool
	Name     string // of the file, for one of several of a program
	Text     string
}

// goBlocks finds the fenced blocks whose language is Go.
func goBlocks(text string) []goBlock {
	var blocks []goBlock
	for _, b := range codeBlocks(text) {
		if len(b.Words) == 0 || b.Words[0] != "go" {
			continue
		}
		found := goBlock{Line: b.Line, Fragment: slices.Contains(b.Words, "fragment"), Text: b.Text}
		for _, word := range b.Words {
			if name, ok := strings.CutPrefix(word, "file="); ok {
				found.Name = name
			}
		}
		blocks = append(blocks, found)
	}
	return blocks
}

// codeBlocks finds the fenced blocks.
func codeBlocks(text string) []codeBlock {
	var blocks []codeBlock
	fence := "" // that closes the block we are in
	line := 0
	for s := range strings.Lines(text) {
		line++
		s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
		trimmed := strings.TrimLeft(s, " ")
		ticks := len(trimmed) - len(strings.TrimLeft(trimmed, "`"))
		switch {
		case fence == "" && ticks >= 3:
			fence = trimmed[:ticks]
			blocks = append(blocks, codeBlock{Line: line + 1, Words: strings.Fields(trimmed[ticks:])})
		case fence != "" && strings.TrimRight(trimmed, " ") == fence:
			fence = ""
		case fence != "":
			blocks[len(blocks)-1].Text += s + "\n"
		}
	}
	return blocks
}

// fragmentParams are the variables that statements in a document may use without declaring them.
const fragmentParams = "ctx context.Context, srv *pitaya.Server, s *pitaya.Session, g *pitaya.Group, c *pitaya.Client"

// fragmentImports are the packages that fragments may use, by name.
var fragmentImports = map[string]string{
	"bytes": "bytes", "context": "context", "tls": "crypto/tls", "embed": "embed", "json": "encoding/json",
	"errors": "errors", "flag": "flag", "fmt": "fmt", "io": "io", "log": "log", "slog": "log/slog", "net": "net",
	"http": "net/http", "os": "os", "signal": "os/signal", "slices": "slices", "strings": "strings", "sync": "sync",
	"syscall": "syscall", "testing": "testing", "synctest": "testing/synctest", "time": "time",
	"proto": "google.golang.org/protobuf/proto", "wrapperspb": "google.golang.org/protobuf/types/known/wrapperspb",
	"pitaya": "github.com/pitaya-go/pitaya", "pitayatest": "github.com/pitaya-go/pitaya/pitayatest",
}

// file makes a Go file of the block. Its messages name the lines of the document.
func (b goBlock) file(doc string) (string, error) {
	body := fmt.Sprintf("//line %s:%d\n%s", doc, b.Line, b.Text)
	if !b.Fragment {
		if _, err := parser.ParseFile(token.NewFileSet(), doc, body, parser.SkipObjectResolution); err != nil {
			return "", fmt.Errorf("not a whole file (mark it \"go fragment\"): %w", err)
		}
		return body, nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), doc, "package fragment\n"+body, 0)
	if err != nil {
		body = "func _(" + fragmentParams + ") error {\n" + body + "\nreturn nil\n}\n"
		if f, err = parser.ParseFile(token.NewFileSet(), doc, "package fragment\n"+body, 0); err != nil {
			return "", err
		}
	}
	imports := make(map[string]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && slices.Contains(f.Unresolved, id) && fragmentImports[id.Name] != "" {
				imports[fragmentImports[id.Name]] = true
			}
		}
		return true
	})
	var head strings.Builder
	head.WriteString("package fragment\n")
	for _, path := range slices.Sorted(maps.Keys(imports)) {
		fmt.Fprintf(&head, "import %q\n", path)
	}
	return head.String() + body, nil
}

func TestGoBlocks(t *testing.T) {
	const text = "# T\n\n```go\npackage a\n```\n\n```sh\n```go\n```\n  ````go fragment\n  x := 1\n\n```\n````\n\n```\nplain\n```\n" +
		"```go file=a.go\npackage b\n```\n"
	got := goBlocks(text)
	want := []goBlock{
		{Line: 4, Text: "package a\n"},
		{Line: 11, Fragment: true, Text: "  x := 1\n\n```\n"},
		{Line: 20, Name: "a.go", Text: "package b\n"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestGoBlockFile(t *testing.T) {
	tests := []struct {
		name  string
		block goBlock
		want  string
	}{
		{
			name:  "program",
			block: goBlock{Line: 7, Text: "package main\n\nfunc main() {}\n"},
			want:  "//line D.md:7\npackage main\n\nfunc main() {}\n",
		},
		{
			name:  "declaration",
			block: goBlock{Line: 2, Fragment: true, Text: "func f(ctx context.Context) { time := ctx; _ = time.Err }\n"},
			want:  "package fragment\nimport \"context\"\n//line D.md:2\nfunc f(ctx context.Context) { time := ctx; _ = time.Err }\n",
		},
		{
			name:  "statements",
			block: goBlock{Line: 2, Fragment: true, Text: "fmt.Println(s.UID())\n"},
			want: "package fragment\nimport \"context\"\nimport \"fmt\"\nimport \"github.com/pitaya-go/pitaya\"\nfunc _(" + fragmentParams +
				") error {\n//line D.md:2\nfmt.Println(s.UID())\n\nreturn nil\n}\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.block.file("D.md")
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	for name, block := range map[string]goBlock{
		"fragment that is not marked": {Text: "x := 1\n"},
		"no Go":                       {Fragment: true, Text: "for for\n"},
	} {
		if got, err := block.file("D.md"); err == nil {
			t.Errorf("%s: no error but %q", name, got)
		}
	}
}
