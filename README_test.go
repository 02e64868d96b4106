package pitaya_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDocuments compiles the Go code of the repository's Markdown files. A block marked "go" is a whole file. One
// marked "go fragment" is declarations, or statements that may use what fragmentParams declares; its imports are found
// by name (fragmentImports).
//
// The blocks become packages that exist only in an overlay, and one "go vet" checks them all. They import the package
// as it is in this tree, need nothing from the network, and are in the build cache until they or the package change.
func TestDocuments(t *testing.T) {
	t.Parallel()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	overlay := make(map[string]string)
	for _, doc := range markdownFiles(t, ".") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range goBlocks(string(text)) {
			source, name, err := b.file(filepath.ToSlash(doc))
			if err != nil {
				t.Errorf("%s:%d: %v", doc, b.Line, err)
				continue
			}
			id := fmt.Sprintf("block%d", len(overlay)+1)
			real := filepath.Join(temp, id+".go")
			if err := os.WriteFile(real, []byte(source), 0o666); err != nil {
				t.Fatal(err)
			}
			overlay[filepath.Join(root, "internal", "documents", id, name)] = real
		}
	}
	if len(overlay) == 0 {
		t.Fatal("no code found in the documents")
	}
	table, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(list, table, 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"vet", "-overlay=" + list, "-unreachable=false"}
	for name := range overlay {
		args = append(args, "./internal/documents/"+filepath.Base(filepath.Dir(name)))
	}
	slices.Sort(args[3:])
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
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

// TestDocumentLinks checks that relative links between the documents lead somewhere.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	for _, doc := range markdownFiles(t, ".") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(text), "](")
		for ; ok; _, rest, ok = strings.Cut(rest, "](") {
			target, _, _ := strings.Cut(rest, ")")
			target, _, _ = strings.Cut(target, "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: broken link: %v", doc, err)
			}
		}
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

// A goBlock is a piece of Go code in a Markdown file.
type goBlock struct {
	Line     int // of its first line of code
	Fragment bool
	Text     string
}

// goBlocks finds the fenced blocks whose language is Go.
func goBlocks(text string) []goBlock {
	var blocks []goBlock
	fence, isGo := "", false // the fence that closes the block we are in
	line := 0
	for s := range strings.Lines(text) {
		line++
		s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
		trimmed := strings.TrimLeft(s, " ")
		ticks := len(trimmed) - len(strings.TrimLeft(trimmed, "`"))
		switch {
		case fence == "" && ticks >= 3:
			words := strings.Fields(trimmed[ticks:])
			fence = trimmed[:ticks]
			isGo = len(words) > 0 && words[0] == "go"
			if isGo {
				blocks = append(blocks, goBlock{Line: line + 1, Fragment: slices.Contains(words, "fragment")})
			}
		case fence != "" && strings.TrimRight(trimmed, " ") == fence:
			fence = ""
		case fence != "" && isGo:
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
	"proto":  "google.golang.org/protobuf/proto",
	"pitaya": "github.com/pitaya-go/pitaya", "pitayatest": "github.com/pitaya-go/pitaya/pitayatest",
}

// file makes a Go file of the block. Its messages name the lines of the document.
func (b goBlock) file(doc string) (source, name string, err error) {
	line := fmt.Sprintf("//line %s:%d\n", doc, b.Line)
	if !b.Fragment {
		f, err := parser.ParseFile(token.NewFileSet(), doc, line+b.Text, parser.PackageClauseOnly)
		if err != nil {
			return "", "", fmt.Errorf("not a whole file (mark it \"go fragment\"): %w", err)
		}
		if strings.HasSuffix(f.Name.Name, "_test") {
			return line + b.Text, "block_test.go", nil
		}
		return line + b.Text, "block.go", nil
	}
	body := line + b.Text
	f, err := parser.ParseFile(token.NewFileSet(), doc, "package fragment\n"+body, 0)
	if err != nil {
		body = "func _(" + fragmentParams + ") error {\n" + body + "\nreturn nil\n}\n"
		if f, err = parser.ParseFile(token.NewFileSet(), doc, "package fragment\n"+body, 0); err != nil {
			return "", "", err
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
	return head.String() + body, "block.go", nil
}

func TestGoBlocks(t *testing.T) {
	const text = "# T\n\n```go\npackage a\n```\n\n```sh\n```go\n```\n  ````go fragment\n  x := 1\n\n```\n````\n\n```\nplain\n```\n"
	got := goBlocks(text)
	want := []goBlock{
		{Line: 4, Text: "package a\n"},
		{Line: 11, Fragment: true, Text: "  x := 1\n\n```\n"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestGoBlockFile(t *testing.T) {
	tests := []struct {
		name     string
		block    goBlock
		want     string
		wantName string
	}{
		{
			name:  "program",
			block: goBlock{Line: 7, Text: "package main\n\nfunc main() {}\n"},
			want:  "//line D.md:7\npackage main\n\nfunc main() {}\n", wantName: "block.go",
		},
		{
			name:  "test",
			block: goBlock{Line: 7, Text: "package game_test\n"},
			want:  "//line D.md:7\npackage game_test\n", wantName: "block_test.go",
		},
		{
			name:  "declaration",
			block: goBlock{Line: 2, Fragment: true, Text: "func f(ctx context.Context) { time := ctx; _ = time.Err }\n"},
			want:  "package fragment\nimport \"context\"\n//line D.md:2\nfunc f(ctx context.Context) { time := ctx; _ = time.Err }\n", wantName: "block.go",
		},
		{
			name:  "statements",
			block: goBlock{Line: 2, Fragment: true, Text: "fmt.Println(s.UID())\n"},
			want: "package fragment\nimport \"context\"\nimport \"fmt\"\nimport \"github.com/pitaya-go/pitaya\"\nfunc _(" + fragmentParams +
				") error {\n//line D.md:2\nfmt.Println(s.UID())\n\nreturn nil\n}\n", wantName: "block.go",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, name, err := tt.block.file("D.md")
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want || name != tt.wantName {
				t.Errorf("got %s:\n%s\nwant %s:\n%s", name, got, tt.wantName, tt.want)
			}
		})
	}
	for name, block := range map[string]goBlock{
		"fragment that is not marked": {Text: "x := 1\n"},
		"no Go":                       {Fragment: true, Text: "for for\n"},
	} {
		if got, _, err := block.file("D.md"); err == nil {
			t.Errorf("%s: no error but %q", name, got)
		}
	}
}
