package pitaya_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"testing"
)

// TestDocLinks finds links in doc comments, such as [Server.Run], that lead nowhere: a link that does not resolve is
// shown with its brackets.
func TestDocLinks(t *testing.T) {
	t.Parallel()
	files := sourceFiles(t)
	fset := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile(fset, name, files[name], parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	for _, problem := range brokenDocLinks(t, fset, parsed) {
		t.Error(problem)
	}
}

var docLink = regexp.MustCompile(`\[\*?[A-Z]\w*(\.\w+)*\]`)

func brokenDocLinks(t *testing.T, fset *token.FileSet, files []*ast.File) []string {
	t.Helper()
	pkg, err := doc.NewFromFiles(fset, files, "github.com/pitaya-go/pitaya")
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	parser := pkg.Parser()
	check := func(where, text string) {
		var walk func([]comment.Block)
		walk = func(blocks []comment.Block) {
			for _, b := range blocks {
				var texts []comment.Text
				switch b := b.(type) {
				case *comment.Paragraph:
					texts = b.Text
				case *comment.Heading:
					texts = b.Text
				case *comment.List:
					for _, item := range b.Items {
						walk(item.Content)
					}
				}
				for _, x := range texts {
					if plain, ok := x.(comment.Plain); ok {
						for _, link := range docLink.FindAllString(string(plain), -1) {
							problems = append(problems, where+": broken link "+link)
						}
					}
				}
			}
		}
		walk(parser.Parse(text).Content)
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			check(v.Names[0], v.Doc)
		}
	}
	funcs := func(prefix string, list []*doc.Func) {
		for _, f := range list {
			check(prefix+f.Name, f.Doc)
		}
	}
	check("package", pkg.Doc)
	values(pkg.Consts)
	values(pkg.Vars)
	funcs("", pkg.Funcs)
	for _, typ := range pkg.Types {
		check(typ.Name, typ.Doc)
		values(typ.Consts)
		values(typ.Vars)
		funcs("", typ.Funcs)
		funcs(typ.Name+".", typ.Methods)
	}
	return problems
}

func TestBrokenDocLinks(t *testing.T) {
	const text = `// Package p has [Thing] and [Gone], and
//
//	code[Gone]
//
// and
//
//   - a list with [Gone.Too]
package p

// Thing has [Thing.Do] and [Thing.Undo], and a list[i] and [x].
type Thing struct{}

// Do does [Nothing].
func (Thing) Do() {}
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	matchProblems(t, brokenDocLinks(t, fset, []*ast.File{f}), []string{
		"package: broken link [Gone]", "package: broken link [Gone.Too]",
		"Thing: broken link [Thing.Undo]", "Thing.Do: broken link [Nothing]",
	})
}
