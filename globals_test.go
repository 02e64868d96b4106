package pitaya_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// readOnlyGlobals are the package-level variables that are neither errors nor a sync.Pool, each with the reason why it
// is no state. They must never be assigned to; the test sees to that as well.
var readOnlyGlobals = map[string]string{
	"bufferPools":     "pools, one for each size",
	"bytesType":       "a type",
	"configUnits":     "units of durations and sizes",
	"debugFiles":      "embedded files, which cannot be written to",
	"debugHTML":       "the same",
	"defaultServer":   "the one exception: state of default.go, which nothing else uses",
	"contextType":     "a type",
	"errorType":       "a type",
	"heartbeatPacket": "a packet that is always the same",
	"partingPacket":   "the same",
	"originWords":     "words of an enumeration",
	"pushCodesWords":  "words of an enumeration",
	"serializerWords": "words of an enumeration",
	"slowClientWords": "words of an enumeration",
	"wsMalformed":     "an answer that is always the same",
	"wsUnavailable":   "an answer that is always the same",
}

// allowedCalls are the places that may do what forbiddenCalls lists: file, what, reason.
var allowedCalls = [][3]string{}

// forbiddenCalls are what a library must not do to the process it lives in. A name that ends in * stands for all that
// begin with it.
var forbiddenCalls = []string{
	"panic", "print", "println",
	"fmt.Print*", "log.*",
	"os.Exit", "os.Stdout", "os/signal.*", "syscall.Exit", "runtime.Goexit",
	"time.Sleep",
	"log/slog.SetDefault",
}

// TestGlobals holds the package to its promise: no mutable package-level state, no init, nothing that ends the process
// or listens to its signals. Two servers in one process must not know of each other.
func TestGlobals(t *testing.T) {
	t.Parallel()
	files, imports := sourceFiles(t), exportData(t)
	var problems []string
	for _, platform := range layerPlatforms {
		var names []string
		for name := range files {
			if ok, err := builds(platform, name, files[name]); err != nil {
				t.Fatal(err)
			} else if ok {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		// Imports of another platform may lack names (syscall); the compiler reports what is an error.
		src, err := checkFiles("github.com/pitaya-go/pitaya", names, files, imports)
		if src.Pkg == nil {
			t.Fatal(err)
		}
		problems = append(problems, checkGlobals(src, readOnlyGlobals)...)
		problems = append(problems, checkCalls(src, forbiddenCalls, allowedCalls)...)
	}
	slices.Sort(problems)
	for _, p := range slices.Compact(problems) {
		t.Error(p)
	}
}

// checkGlobals reports package-level variables that may change, functions called init, and names in allowed that do not
// exist.
func checkGlobals(src checkedSource, allowed map[string]string) []string {
	var problems []string
	report := func(pos token.Pos, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s: %s", src.Fset.Position(pos), fmt.Sprintf(format, args...)))
	}
	for name := range allowed {
		if _, ok := src.Pkg.Scope().Lookup(name).(*types.Var); !ok {
			problems = append(problems, fmt.Sprintf("readOnlyGlobals: there is no variable %s", name))
		}
	}
	errorType := types.Universe.Lookup("error").Type()
	for _, name := range src.Pkg.Scope().Names() {
		v, ok := src.Pkg.Scope().Lookup(name).(*types.Var)
		if !ok {
			continue
		}
		typ := types.TypeString(v.Type(), nil)
		if types.Identical(v.Type(), errorType) || typ == "sync.Pool" || allowed[name] != "" {
			continue
		}
		report(v.Pos(), "package-level variable %s of type %s; move it into a struct, or give readOnlyGlobals a reason", name, typ)
	}

	global := func(e ast.Expr) *types.Var {
		for {
			switch x := e.(type) {
			case *ast.ParenExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.SliceExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.Ident:
				if v, ok := src.Info.Uses[x].(*types.Var); ok && v.Parent() == src.Pkg.Scope() {
					return v
				}
				return nil
			default:
				return nil
			}
		}
	}
	changed := func(e ast.Expr) {
		if v := global(e); v != nil {
			report(e.Pos(), "package-level variable %s is changed, or can be through its address", v.Name())
		}
	}
	for _, f := range src.Files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				report(fn.Pos(), "func init")
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						changed(e)
					}
				}
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					changed(n.Key)
					changed(n.Value)
				}
			case *ast.IncDecStmt:
				changed(n.X)
			case *ast.UnaryExpr:
				if v := global(n.X); n.Op == token.AND && v != nil && types.TypeString(v.Type(), nil) != "sync.Pool" {
					changed(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 {
					_, builtin := src.Info.Uses[id].(*types.Builtin)
					if builtin && slices.Contains([]string{"delete", "clear", "copy"}, id.Name) {
						changed(n.Args[0])
					}
				}
			}
			return true
		})
	}
	return problems
}

// checkCalls reports uses of forbidden functions and variables outside the allowed places, and places that no longer
// need to be allowed.
func checkCalls(src checkedSource, forbidden []string, allowed [][3]string) []string {
	var problems []string
	used := make(map[int]bool)
	for id, obj := range src.Info.Uses {
		name := obj.Name()
		switch {
		case obj.Parent() == types.Universe:
		case obj.Pkg() != nil && obj.Pkg() != src.Pkg && obj.Parent() == obj.Pkg().Scope():
			name = obj.Pkg().Path() + "." + name
		default:
			continue
		}
		if !slices.ContainsFunc(forbidden, func(f string) bool {
			prefix, open := strings.CutSuffix(f, "*")
			return name == f || open && strings.HasPrefix(name, prefix)
		}) {
			continue
		}
		at := src.Fset.Position(id.Pos())
		if i := slices.IndexFunc(allowed, func(a [3]string) bool {
			return a[0] == at.Filename && a[1] == name && a[2] != ""
		}); i >= 0 {
			used[i] = true
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: %s is not for a library; see allowedCalls", at, name))
	}
	for i, a := range allowed {
		built := slices.ContainsFunc(src.Files, func(f *ast.File) bool { return src.Fset.Position(f.Pos()).Filename == a[0] })
		if built && !used[i] {
			problems = append(problems, fmt.Sprintf("allowedCalls: %s does not use %s", a[0], a[1]))
		}
	}
	return problems
}

func TestCheckGlobals(t *testing.T) {
	const text = `package p

const size = 3

var ErrOne error
var names = [...]string{"a", "b"}
var count int
var _ interface{ String() string }

type box struct{ n int }

var shared box

func init() {}

func use() {
	count++
	shared.n = 1
	names[0], ErrOne = "c", nil
	p := &shared
	p.n = 2
	var local int
	local++
	clear(names[:])
	for shared.n = range 3 {
		_ = names[0]
	}
	panic(local)
}
`
	src, err := checkFiles("p", []string{"p.go"}, map[string]string{"p.go": text}, noImports{})
	if err != nil {
		t.Fatal(err)
	}
	matchProblems(t, checkGlobals(src, map[string]string{"names": "a table", "size": "a constant"}), []string{
		"readOnlyGlobals: there is no variable size",
		"p.go:7:5: package-level variable count of type int",
		"p.go:12:5: package-level variable shared of type p.box",
		"p.go:14:1: func init",
		"p.go:17:2: package-level variable count is changed",
		"p.go:18:2: package-level variable shared is changed",
		"p.go:19:2: package-level variable names is changed",
		"p.go:19:12: package-level variable ErrOne is changed",
		"p.go:20:8: package-level variable shared is changed",
		"p.go:24:8: package-level variable names is changed",
		"p.go:25:6: package-level variable shared is changed",
	})
	matchProblems(t, checkCalls(src, forbiddenCalls, nil), []string{"p.go:28:2: panic is not for a library"})
	matchProblems(t, checkCalls(src, forbiddenCalls, [][3]string{{"p.go", "panic", "a test"}, {"p.go", "println", "gone"}}),
		[]string{"allowedCalls: p.go does not use println"})
}

func TestCheckCalls(t *testing.T) {
	const text = `package p

import "os"

func use(exit func(int)) {
	exit(1)
	os.Exit(1)
	exit = os.Exit
	os.Getenv("X")
}
`
	os := types.NewPackage("os", "os")
	for name, params := range map[string]*types.Tuple{
		"Exit":   types.NewTuple(types.NewParam(0, os, "", types.Typ[types.Int])),
		"Getenv": types.NewTuple(types.NewParam(0, os, "", types.Typ[types.String])),
	} {
		os.Scope().Insert(types.NewFunc(0, os, name, types.NewSignatureType(nil, nil, nil, params, nil, false)))
	}
	os.MarkComplete()
	src, err := checkFiles("p", []string{"p.go"}, map[string]string{"p.go": text}, onePackage{os})
	if err != nil {
		t.Fatal(err)
	}
	matchProblems(t, checkCalls(src, forbiddenCalls, nil), []string{
		"p.go:7:5: os.Exit is not for a library", "p.go:8:12: os.Exit is not for a library",
	})
}
