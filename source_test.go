package pitaya_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Tests that read the package's own source (layers, API, globals, documents) share what is here.

// sourceFiles returns the package's Go files without its tests, by name. Programs that a "go:build ignore" keeps beside
// the package (generators) do not belong to it.
func sourceFiles(t testing.TB) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name == "pitaya" {
			files[name] = string(text)
		}
	}
	return files
}

// exportData returns an importer of the packages this one depends on. It knows those of the platform the test runs on;
// an import it lacks is an error, which checks of the source for other platforms overlook.
func exportData(t testing.TB) types.Importer {
	t.Helper()
	files, err := ownExportFiles()
	if err != nil {
		t.Fatal(err)
	}
	return exportImporter(files)
}

var ownExportFiles = sync.OnceValues(func() (map[string]string, error) { return exportFiles(".") })

// exportFiles maps the import path of each package given and of its dependencies to its export data in the build cache.
// The go command has compiled most of them for the running test already, so asking costs a fraction of a second.
func exportFiles(packages ...string) (map[string]string, error) {
	args := []string{"list", "-e", "-deps", "-export", "-json=ImportPath,Export"}
	out, err := exec.Command("go", append(args, packages...)...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	files := make(map[string]string)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := dec.Decode(&p); err == io.EOF {
			return files, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Export != "" {
			files[p.ImportPath] = p.Export
		}
	}
}

func exportImporter(files map[string]string) types.Importer {
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		name, ok := files[path]
		if !ok {
			return nil, fmt.Errorf("no export data for %s", path)
		}
		return os.Open(name)
	})
}

// checkedSource is the package as the type checker sees it on this platform.
type checkedSource struct {
	Fset  *token.FileSet
	Files []*ast.File
	Pkg   *types.Package
	Info  *types.Info
}

// checkSource parses and type-checks the files of the package that this platform builds.
func checkSource(t testing.TB) checkedSource {
	t.Helper()
	files := sourceFiles(t)
	var names []string
	for name := range files {
		if ok, err := builds(build.Default, name, files[name]); err != nil {
			t.Fatal(err)
		} else if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	src, err := checkFiles("github.com/pitaya-go/pitaya", names, files, exportData(t))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// checkFiles parses and type-checks the named files. Unless they do not even parse, what it returns is as complete as
// the errors allow, which come joined.
func checkFiles(path string, names []string, files map[string]string, imports types.Importer) (checkedSource, error) {
	src := checkedSource{
		Fset: token.NewFileSet(),
		Info: &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)},
	}
	for _, name := range names {
		f, err := parser.ParseFile(src.Fset, name, files[name], parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return src, err
		}
		src.Files = append(src.Files, f)
	}
	var mistakes []error
	conf := types.Config{Importer: imports, Error: func(err error) { mistakes = append(mistakes, err) }}
	src.Pkg, _ = conf.Check(path, src.Fset, src.Files, src.Info)
	return src, errors.Join(mistakes...)
}
