package lineedit_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/lineedit"
)

func TestHistoryFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "pitaya-cli", "history")
	h := openHistory(t, path)
	for _, line := range []string{"one", "two", " secret", "two", "{\n1}"} {
		if err := h.Add(line); err != nil {
			t.Fatal(err)
		}
	}
	if runtime.GOOS != "windows" {
		for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %v, want %v", filepath.Base(name), info.Mode().Perm(), want)
			}
		}
	}
	if got, want := openHistory(t, path).Lines(), []string{"one", "two", "{ 1}"}; !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
}

func openHistory(t *testing.T, path string) *lineedit.History {
	t.Helper()
	h, err := lineedit.OpenHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A file that others could read is closed to them, lines that a terminal would act on are left out, and a long file is
// cut.
func TestHistoryFileOfOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "history")
	long := strings.Repeat("x", 1000)
	content := strings.Repeat(long+"\n"+long+"y\n", 600) + "bad\x1b[31m\nno \xff text\n\nlast\n"
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	lines := openHistory(t, path).Lines()
	if len(lines) != 1000 || lines[999] != "last" || lines[998] != long+"y" {
		t.Errorf("%d lines, the last %.20q", len(lines), lines[len(lines)-1])
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if info.Size() > 1<<20 {
		t.Errorf("the file still has %d bytes", info.Size())
	}
	if got := openHistory(t, path).Lines(); !slices.Equal(got, lines) {
		t.Errorf("%d lines when read again", len(got))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("in the folder are %v, %v", entries, err)
	}
}

// Without a file that works there is a history all the same.
func TestHistoryFileUnusable(t *testing.T) {
	t.Parallel()
	h, err := lineedit.OpenHistory(t.TempDir()) // a folder
	if err == nil {
		t.Error("no error")
	}
	if err := h.Add("one"); err != nil {
		t.Error(err)
	}
	if got := h.Lines(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("history %q", got)
	}
}
