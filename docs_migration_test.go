package pitaya_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// migrationPage is the guide for teams that come from Pitaya.
const migrationPage = "docs/migration.md"

// codeSpan is text in backquotes.
var codeSpan = regexp.MustCompile("`([^`]+)`")

// TestMigrationNames checks that each exported name of Pitaya, which testdata/pitaya-names.txt lists, stands in the first
// column of a table of the migration guide, and that what stands in the second column exists.
func TestMigrationNames(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash(migrationPage))
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join("testdata", "pitaya-names.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(list))
	ours := apiNames(t)
	word := regexp.MustCompile(`^[A-Z]\w*(\.[A-Z]\w*)?$`)
	found := map[string]int{}
	_, after, ok := strings.Cut(string(text), "\n## Names\n")
	section, _, ok2 := strings.Cut(after, "\n## ")
	if !ok || !ok2 {
		t.Fatalf("%s has no section Names", migrationPage)
	}
	for line := range strings.Lines(section) {
		cells := tableCells(line)
		if len(cells) < 2 || !codeSpan.MatchString(cells[0]) {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[0], -1) {
			if found[m[1]]++; !slices.Contains(names, m[1]) && !strings.HasPrefix(cells[0], "the ") {
				t.Errorf("%s: %s is no name of Pitaya", migrationPage, m[1])
			}
		}
		if !codeSpan.MatchString(cells[1]) && !strings.HasPrefix(cells[1], "nothing") {
			t.Errorf("%s: there is neither a name nor nothing in place of %s", migrationPage, cells[0])
		}
		if strings.HasPrefix(cells[1], "nothing") && len(cells) > 2 && cells[2] == "" {
			t.Errorf("%s: no reason why there is nothing in place of %s", migrationPage, cells[0])
		}
		for _, m := range codeSpan.FindAllStringSubmatch(strings.Join(cells[1:], " "), -1) {
			if word.MatchString(m[1]) && !ours[m[1]] && !slices.Contains([]string{"Addr", "Validate"}, m[1]) {
				t.Errorf("%s: in place of %s there is %s, which the library does not have", migrationPage, cells[0], m[1])
			}
		}
	}
	for _, name := range names {
		if found[name] != 1 {
			t.Errorf("%s: %s stands in %d rows", migrationPage, name, found[name])
		}
	}
}

// tableCells returns the cells of a row of a table, nil for other lines.
func tableCells(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "| ") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

// apiNames returns what package pitaya and pitayatest export, as Name and as Type.Name.
func apiNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	first := regexp.MustCompile(`^(?:func|const|var|type) ([A-Z]\w*)`)
	method := regexp.MustCompile(`^method \(\*?([A-Z]\w*)\) ([A-Z]\w*)`)
	member := regexp.MustCompile(`^type ([A-Z]\w*) (?:struct|interface), (?:embedded \S*?)?([A-Z]\w*)`)
	for _, file := range []string{"api.txt", "api_pitayatest.txt"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, re := range []*regexp.Regexp{method, member} {
				if m := re.FindStringSubmatch(line); m != nil {
					names[m[1]+"."+m[2]] = true
				}
			}
			if m := first.FindStringSubmatch(line); m != nil {
				names[m[1]] = true
			}
		}
	}
	return names
}

// TestDocumentNames checks that what all documents say of Server, Session and the other types exists.
func TestDocumentNames(t *testing.T) {
	t.Parallel()
	ours := apiNames(t)
	qualified := regexp.MustCompile(`^(?:pitaya\.|pitayatest\.)?((?:Server|Session|Group|Client|Config|ClientConfig|WSOptions|SessionEvent|MetricsConfig)\.[A-Z]\w*|[A-Z]\w*)(?:\(.*\)|\[T\])?$`)
	for _, doc := range markdownFiles(t, ".") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range proseLines(string(text)) {
			if filepath.ToSlash(doc) == migrationPage && strings.HasPrefix(line, "| ") {
				line = strings.Join(tableCells(line)[1:], " ") // the first column is Pitaya's
			}
			for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
				q := qualified.FindStringSubmatch(m[1])
				if q == nil || ours[q[1]] {
					continue
				}
				if strings.Contains(m[1], ".") {
					t.Errorf("%s:%d: %s does not exist", doc, n+1, m[1])
				}
			}
		}
	}
}

// TestMigrationDefaults checks that the guide has each setting whose default is not Pitaya's, or that has no effect, as
// docs/configuration.md tells.
func TestMigrationDefaults(t *testing.T) {
	t.Parallel()
	settings, err := os.ReadFile(filepath.Join("docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.FromSlash(migrationPage))
	if err != nil {
		t.Fatal(err)
	}
	other := 0
	for line := range strings.Lines(string(settings)) {
		cells := tableCells(line)
		if len(cells) != 4 || !codeSpan.MatchString(cells[0]) {
			continue
		}
		key := codeSpan.FindStringSubmatch(cells[0])[1]
		if differs, unused := strings.Contains(cells[2], "("), strings.Contains(cells[0], "†"); !differs && !unused {
			continue
		}
		other++
		if !strings.Contains(string(guide), "`"+key+"`") {
			t.Errorf("%s does not have %s", migrationPage, key)
		}
	}
	if other == 0 {
		t.Error("docs/configuration.md has no setting that differs from Pitaya")
	}
}

// TestMigrationReasons checks that each difference that the guide tells of has a reason: each row has three columns or more,
// and none is empty.
func TestMigrationReasons(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash(migrationPage))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n## Differences\n")
	section, _, ok2 := strings.Cut(after, "\n## ")
	if !ok || !ok2 {
		t.Fatalf("%s has no section Differences", migrationPage)
	}
	rows := 0
	for line := range strings.Lines(section) {
		cells := tableCells(line)
		if cells == nil {
			continue
		}
		if rows++; len(cells) < 3 || slices.Contains(cells, "") {
			t.Errorf("%s: no reason: %s", migrationPage, strings.TrimSpace(line))
		}
	}
	if rows == 0 {
		t.Errorf("%s has no differences", migrationPage)
	}
}
