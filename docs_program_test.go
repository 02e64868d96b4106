package pitaya_test

import (
	"encoding/json"
	"errors"
	"go/build"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDocumentPrograms puts the files that a document shows (blocks marked "go file=NAME") into a folder of their own, as
// those do who follow it, and runs the tests among them.
func TestDocumentPrograms(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, doc := range markdownFiles(t, ".") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		dir := ""
		for _, b := range goBlocks(string(text)) {
			if b.Name == "" {
				continue
			}
			if dir == "" {
				dir = t.TempDir()
			}
			source, err := format.Source([]byte(b.Text))
			if err != nil {
				t.Errorf("%s:%d: %v", doc, b.Line, err)
			} else if string(source) != b.Text {
				t.Errorf("%s:%d: %s is not formatted", doc, b.Line, b.Name)
			}
			if err := os.WriteFile(filepath.Join(dir, b.Name), []byte(b.Text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if dir == "" {
			continue
		}
		found = true
		writeModule(t, root, dir)
		cmd := exec.CommandContext(t.Context(), "go", "test", ".") // which vets as well
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: its program: %v\n%s", doc, err, out)
		}
	}
	if !found {
		t.Error("no document shows a program")
	}
}

// writeModule makes a module of a folder that requires the library from where it is checked out, and what that requires.
func writeModule(t *testing.T, root, dir string) {
	t.Helper()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(mod), "\n") // the line with the name of the module
	if !ok {
		t.Fatal("go.mod has one line")
	}
	text := "module example.com/document\n" + rest +
		"\nrequire github.com/pitaya-go/pitaya v0.0.0\nreplace github.com/pitaya-go/pitaya => " + root + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentCommands checks what can be checked of the other blocks: that JSON is JSON, and that "go run ./…" and
// "go test ./…" name packages of the repository; and that no Go code escapes TestDocuments.
func TestDocumentCommands(t *testing.T) {
	t.Parallel()
	compiled := markdownFiles(t, ".")
	for _, doc := range allMarkdown(t) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range codeBlocks(string(text)) {
			lang := ""
			if len(b.Words) > 0 {
				lang = b.Words[0]
			}
			switch lang {
			case "go":
				if !slices.Contains(compiled, doc) {
					t.Errorf("%s:%d: nobody compiles the Go code of a nested module's documents", doc, b.Line)
				}
			case "json":
				if !json.Valid([]byte(b.Text)) {
					t.Errorf("%s:%d: no JSON", doc, b.Line)
				}
			case "", "sh", "console":
				for line := range strings.Lines(b.Text) {
					if err := checkCommand(filepath.Dir(doc), strings.TrimPrefix(strings.TrimSpace(line), "$ ")); err != nil {
						t.Errorf("%s:%d: %q: %v", doc, b.Line, strings.TrimSpace(line), err)
					}
				}
			}
		}
	}
}

// checkCommand checks a command line that begins with go, node or .ci/run: packages and scripts are those of the
// repository, seen from its root or from the folder that the document is in.
func checkCommand(dir, line string) error {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	if len(words) < 2 || (words[0] != "go" && words[0] != "node") {
		return nil
	}
	from := []string{".", dir}
	for i, word := range words[1:] {
		switch {
		case strings.HasPrefix(word, "-C="):
			from = []string{filepath.FromSlash(word[len("-C="):])}
		case word == "-C" && i+2 < len(words):
			from = []string{filepath.FromSlash(words[i+2])}
		case words[0] == "go" && strings.HasPrefix(word, "./") && !strings.HasSuffix(word, "..."),
			words[0] == "node" && strings.Contains(word, "/") && !strings.HasPrefix(word, "-"):
			if err := findTarget(from, word, words[0] == "go"); err != nil {
				return err
			}
		}
	}
	for _, dir := range from {
		if _, err := os.Stat(dir); err != nil {
			return err
		}
	}
	return nil
}

// findTarget looks for a package of Go, or for a file or folder, in one of the folders.
func findTarget(from []string, target string, pkg bool) error {
	var last error
	for _, dir := range from {
		name := filepath.Join(dir, filepath.FromSlash(target))
		if pkg {
			_, last = build.ImportDir(name, 0)
			if _, tests := errors.AsType[*build.NoGoError](last); tests {
				last = errors.New("no package there")
			}
		} else {
			var found []string // the target may be a pattern, as shells expand it
			if found, last = filepath.Glob(name); last == nil && len(found) == 0 {
				last = fs.ErrNotExist
			}
		}
		if last == nil {
			return nil
		}
	}
	return last
}
