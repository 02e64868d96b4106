package pitaya_test

import (
	"fmt"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAPI compares what the package exports with testdata/api.txt, so that each addition and each break is a line in a
// diff that somebody has read. "go test -run TestAPI -update ." writes the file.
func TestAPI(t *testing.T) {
	t.Parallel()
	got := strings.Join(apiLines(checkSource(t).Pkg), "\n") + "\n"
	compareGolden(t, filepath.Join("testdata", "api.txt"), got)
}

// TestKitAPI does the same for package pitayatest.
func TestKitAPI(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(filepath.Join("pitayatest", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	files := make(map[string]string)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	exports, err := exportFiles("./pitayatest")
	if err != nil {
		t.Fatal(err)
	}
	src, err := checkFiles("github.com/pitaya-go/pitaya/pitayatest", names, files, exportImporter(exports))
	if err != nil {
		t.Fatal(err)
	}
	for _, imp := range src.Pkg.Imports() {
		if path := imp.Path(); strings.Contains(path, ".") && path != "github.com/pitaya-go/pitaya" &&
			path != "github.com/pitaya-go/pitaya/internal/transporttest" { // which needs nothing else either
			t.Errorf("package pitayatest imports %s; it is to need nothing but the library", path)
		}
	}
	compareGolden(t, filepath.Join("testdata", "api_pitayatest.txt"), strings.Join(apiLines(src.Pkg), "\n")+"\n")
}

// compareGolden compares got with the text of a file, or writes the file when the test runs with -update.
func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// A checkout on Windows may have rewritten the line ends.
	want := strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
	have := strings.Split(got, "\n")
	for _, line := range have {
		if !slices.Contains(want, line) {
			t.Errorf("%s does not have: %s", name, line)
		}
	}
	for _, line := range want {
		if !slices.Contains(have, line) {
			t.Errorf("%s has, but is gone: %s", name, line)
		}
	}
	if !t.Failed() && !slices.Equal(have, want) {
		t.Errorf("%s has the right lines in another order", name)
	}
	if t.Failed() {
		t.Logf("if the change is meant, run: go test -run '^%s$' -update .", t.Name())
	}
}

// apiLines lists the exported names of a package with their types, a line each, in a stable order. Names of parameters
// are left out: changing them breaks nobody.
func apiLines(pkg *types.Package) []string {
	w := &apiWriter{pkg: pkg}
	for _, name := range pkg.Scope().Names() {
		switch obj := pkg.Scope().Lookup(name).(type) {
		case *types.Const:
			if obj.Exported() {
				w.printf("const %s %s = %s", name, w.typ(obj.Type()), obj.Val().ExactString())
			}
		case *types.Var:
			if obj.Exported() {
				w.printf("var %s %s", name, w.typ(obj.Type()))
			}
		case *types.Func:
			if obj.Exported() {
				w.printf("func %s%s", name, w.signature(obj.Signature()))
			}
		case *types.TypeName:
			if obj.Exported() {
				w.typeName(obj)
			}
		}
	}
	slices.Sort(w.lines)
	return slices.Compact(w.lines)
}

type apiWriter struct {
	pkg   *types.Package
	lines []string
}

func (w *apiWriter) printf(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// typ writes a type with package paths, and the package's own types bare.
func (w *apiWriter) typ(t types.Type) string {
	return types.TypeString(t, types.RelativeTo(w.pkg))
}

func (w *apiWriter) signature(sig *types.Signature) string {
	bare := func(tuple *types.Tuple) *types.Tuple {
		var vars []*types.Var
		for v := range tuple.Variables() {
			vars = append(vars, types.NewParam(v.Pos(), v.Pkg(), "", v.Type()))
		}
		return types.NewTuple(vars...)
	}
	var params string
	if n := sig.TypeParams().Len(); n > 0 {
		params = w.typeParams(sig.TypeParams())
	}
	plain := types.NewSignatureType(nil, nil, nil, bare(sig.Params()), bare(sig.Results()), sig.Variadic())
	return params + strings.TrimPrefix(w.typ(plain), "func")
}

func (w *apiWriter) typeParams(list *types.TypeParamList) string {
	var all []string
	for p := range list.TypeParams() {
		all = append(all, p.Obj().Name()+" "+w.typ(p.Constraint()))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func (w *apiWriter) typeName(obj *types.TypeName) {
	name := obj.Name()
	if obj.IsAlias() {
		w.printf("type %s = %s", name, w.typ(types.Unalias(obj.Type())))
		return
	}
	named := obj.Type().(*types.Named)
	if named.TypeParams().Len() > 0 {
		name += w.typeParams(named.TypeParams())
	}
	switch u := named.Underlying().(type) {
	case *types.Struct:
		w.printf("type %s struct", name)
		for i := range u.NumFields() {
			f := u.Field(i)
			if !f.Exported() {
				continue
			}
			line := fmt.Sprintf("type %s struct, %s %s", name, f.Name(), w.typ(f.Type()))
			if f.Embedded() {
				line = fmt.Sprintf("type %s struct, embedded %s", name, w.typ(f.Type()))
			}
			if tag := u.Tag(i); tag != "" {
				line += " `" + tag + "`"
			}
			w.printf("%s", line)
		}
	case *types.Interface:
		w.printf("type %s interface", name)
		for m := range u.Methods() {
			if m.Exported() {
				w.printf("type %s interface, %s%s", name, m.Name(), w.signature(m.Signature()))
			} else {
				w.printf("type %s interface, unexported methods", name)
			}
		}
		for e := range u.EmbeddedTypes() {
			if _, plain := e.(*types.Named); !plain {
				w.printf("type %s interface, %s", name, w.typ(e)) // a union or ~T: a constraint
			}
		}
		return // its methods are listed
	default:
		w.printf("type %s %s", name, w.typ(u))
	}
	// Methods, promoted ones included: those of the pointer, and which of them the value has too.
	value := types.NewMethodSet(named)
	for sel := range types.NewMethodSet(types.NewPointer(named)).Methods() {
		m := sel.Obj().(*types.Func)
		if !m.Exported() {
			continue
		}
		recv := "*" + obj.Name()
		if value.Lookup(m.Pkg(), m.Name()) != nil {
			recv = obj.Name()
		}
		w.printf("method (%s) %s%s", recv, m.Name(), w.signature(sel.Type().(*types.Signature)))
	}
}

func TestAPILines(t *testing.T) {
	const text = `package p

import "unknown/context"

const Max = 1 << 4
const Default Kind = 2
const hidden = 1

var ErrOne error
var hiddenToo int

type Kind byte

func (Kind) String() string { return "" }

type Alias = Kind

type Base struct{}

func (*Base) Init(context.Context) error { return nil }

type Server struct {
	Base
	Name string ` + "`json:\"name\"`" + `
	n    int
}

func (s *Server) Each(yield func(id int) bool) {}
func (s *Server) private()                     {}

type List[T any] struct{ Items []T }

func (l *List[T]) Add(items ...T) {}

type Seam interface {
	Call(to Kind, body []byte) (reply []byte, err error)
	seal()
}

type number interface{ ~int }

func Handle[In, Out any](s *Server, f func(*In) (*Out, error)) error { return nil }
func private()                                                    {}
`
	want := []string{
		"const Default Kind = 2",
		"const Max untyped int = 16",
		"func Handle[In any, Out any](*Server, func(*In) (*Out, error)) error",
		"method (*Base) Init(unknown/context.Context) error",
		"method (*List) Add(...T)",
		"method (*Server) Each(func(id int) bool)",
		"method (*Server) Init(unknown/context.Context) error",
		"method (Kind) String() string",
		"type Alias = Kind",
		"type Base struct",
		"type Kind byte",
		"type List[T any] struct",
		"type List[T any] struct, Items []T",
		"type Seam interface",
		"type Seam interface, Call(Kind, []byte) ([]byte, error)",
		"type Seam interface, unexported methods",
		"type Server struct",
		"type Server struct, Name string `json:\"name\"`",
		"type Server struct, embedded Base",
		"var ErrOne error",
	}
	context := types.NewPackage("unknown/context", "context")
	name := types.NewTypeName(0, context, "Context", nil)
	types.NewNamed(name, types.NewInterfaceType(nil, nil), nil)
	context.Scope().Insert(name)
	context.MarkComplete()
	src, err := checkFiles("p", []string{"p.go"}, map[string]string{"p.go": text}, onePackage{context})
	if err != nil {
		t.Fatal(err)
	}
	got := apiLines(src.Pkg)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// onePackage imports a single package.
type onePackage struct{ pkg *types.Package }

func (p onePackage) Import(path string) (*types.Package, error) {
	if path != p.pkg.Path() {
		return nil, fmt.Errorf("no package %s", path)
	}
	return p.pkg, nil
}
