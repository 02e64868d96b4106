package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme compares the page about the examples with the folders that are there: each program has a row, whose command is
// that of its folder, and each row a program.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	// | [name](file) | what it shows | `command` |
	row := regexp.MustCompile("(?m)^\\| \\[(\\w+)\\]\\((\\w+)/[^)]+\\) \\| .{20,} \\| `(go run [^`]+)` \\|$")
	var listed []string
	for _, r := range row.FindAllStringSubmatch(string(text), -1) {
		name, folder, command := r[1], r[2], r[3]
		listed = append(listed, name)
		want := "go run ./examples/" + name
		if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
			want = "go run -C examples/" + name + " ."
		}
		if folder != name || command != want && !strings.HasPrefix(command, want+" ") {
			t.Errorf("%s: the row links to %s and says %q, want %q", name, folder, command, want)
		}
	}
	if rows := strings.Count(string(text), "\n| ["); rows != len(listed) {
		t.Errorf("%d of %d rows have the form of the others", len(listed), rows)
	}
	mains, err := filepath.Glob(filepath.Join("*", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, name := range mains {
		there = append(there, filepath.Dir(name))
	}
	slices.Sort(listed)
	if !slices.Equal(listed, there) {
		t.Errorf("the page has\n%v\nand there are\n%v", listed, there)
	}
}

// TestProgramsSayHowToStart looks at the comment of each program, which is what a reader of the code sees first: it begins with
// the name and has the command.
func TestProgramsSayHowToStart(t *testing.T) {
	t.Parallel()
	elsewhere := map[string]string{ // who says it instead
		"hello":      "README.md of the repository, which promises that the program is short",
		"testserver": "its options, with what each is for",
		"tracing":    "the README beside it, with the collector that comes first",
	}
	mains, err := filepath.Glob(filepath.Join("*", "main.go"))
	if err != nil || len(mains) == 0 {
		t.Fatal(mains, err)
	}
	for _, file := range mains {
		name := filepath.Dir(file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		comment, _, _ := strings.Cut(string(text), "\npackage main\n")
		if !regexp.MustCompile(`(?i)^// (Command )?` + name + ` `).MatchString(comment) {
			t.Errorf("%s does not begin with its name", file)
		}
		if elsewhere[name] == "" && !strings.Contains(comment, "//\tgo run ./examples/"+name) {
			t.Errorf("%s does not say how it is started", file)
		}
	}
}
