package pitaya_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildNested builds the program of internal/name, a module of its own, so that what it requires is no requirement of
// this one. It skips the test where there is no such module.
func buildNested(t *testing.T, name string) (program string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	dir := filepath.Join("internal", name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		t.Skip("module zips come without nested modules")
	}
	program = filepath.Join(t.TempDir(), name+".exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", dir, "-o", program, ".")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
