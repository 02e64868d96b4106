package pitaya_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// websocketPage holds RFC 6455 against the library, rule by rule.
const websocketPage = "docs/websocket.md"

// TestWebSocketRules checks that each rule of docs/websocket.md stands with one of the words that make it a rule, says what
// the library does, and names tests that exist: top-level functions of this package, with a case behind a slash whose name
// stands in the file. A rule without a test says why in its last column.
func TestWebSocketRules(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash(websocketPage))
	if err != nil {
		t.Fatal(err)
	}
	tests := testFunctions(t)
	section := regexp.MustCompile(`^\d+(\.\d+)*$`)
	word := regexp.MustCompile(`^(MUST|MUST NOT|SHOULD|SHOULD NOT|REQUIRED|RECOMMENDED)$`)
	rules, covered := 0, 0
	for n, line := range strings.Split(string(text), "\n") {
		cells := tableCells(line)
		if len(cells) == 0 || !section.MatchString(cells[0]) {
			continue
		}
		rules++
		where := websocketPage + ":" + strconv.Itoa(n+1)
		if len(cells) != 5 {
			t.Errorf("%s: %d columns, want 5", where, len(cells))
			continue
		}
		if !word.MatchString(cells[1]) {
			t.Errorf("%s: %q is no word of RFC 2119", where, cells[1])
		}
		for i, cell := range cells {
			if cell == "" {
				t.Errorf("%s: column %d is empty", where, i+1)
			}
		}
		named := codeSpan.FindAllStringSubmatch(cells[4], -1)
		if len(named) == 0 && !strings.HasPrefix(cells[4], "none: ") {
			t.Errorf("%s: neither a test nor a reason why there is none: %q", where, cells[4])
		}
		if len(named) > 0 {
			covered++
		}
		for _, m := range named {
			name, sub, _ := strings.Cut(m[1], "/")
			file, ok := tests[name]
			switch {
			case !ok:
				t.Errorf("%s: there is no test %s", where, name)
			case sub != "" && !strings.Contains(file, `"`+sub+`"`):
				t.Errorf("%s: %s has no case %q", where, name, sub)
			}
		}
	}
	if rules < 100 || covered < rules*8/10 {
		t.Errorf("%s has %d rules, %d with tests", websocketPage, rules, covered)
	}
}

// testFunctions returns the tests and fuzz targets of this folder, each with the text of its file.
func testFunctions(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				found[fn.Name.Name] = string(text)
			}
		}
	}
	return found
}
