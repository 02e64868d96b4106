package js_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/pitaya-go/pitaya" // which the server is made of: when it has changed, an earlier result is none
)

const minNode = 20 // the first version with all that the tests need

// TestNode runs the tests of pitaya.js where Node is installed. Where it is not, nothing of Go's is missing, so that is
// no failure; the log says that they have not run, and so does the section js of .ci/run.
func TestNode(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Log("THE TESTS OF pitaya.js HAVE NOT RUN: there is no node on the PATH")
		return
	}
	version, err := exec.CommandContext(t.Context(), node, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`^v(\d+)\.`).FindSubmatch(version)
	if number == nil {
		t.Fatalf("node --version: %q", version)
	}
	if major, _ := strconv.Atoi(string(number[1])); major < minNode {
		t.Logf("THE TESTS OF pitaya.js HAVE NOT RUN: node is %s, and they need version %d", bytes.TrimSpace(version), minNode)
		return
	}

	// Built once, by the Go that tests: node's own tests build it for themselves where they are run alone.
	server := filepath.Join(t.TempDir(), "server")
	if runtime.GOOS == "windows" {
		server += ".exe"
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", server, "./tests/server").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob("tests/*.test.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	readAll(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, append([]string{"--test"}, files...)...)
	cmd.Env = append(os.Environ(), "PITAYA_JS_SERVER="+server)
	cmd.Cancel = func() error { // it ends its own children, and says which test it was in
		if err := cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
			return err
		} else if err != nil {
			return cmd.Process.Kill()
		}
		return nil
	}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node --test: %v\n%s", err, failures(string(out)))
	}
	summary := regexp.MustCompile(`(?m)^# (tests|pass|fail) \d+$`).FindAllString(string(out), -1)
	t.Log(string(bytes.TrimSpace(version)), strings.Join(summary, ", "))
}

// readAll reads what node will read: go test keeps a result until a file that the test has read is another one.
func readAll(t *testing.T) {
	for _, pattern := range []string{"*.js", "*.d.ts", "README.md", "tests/*.mjs", "tests/*/*.mjs", "tests/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			if _, err := os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// failures leaves out of a report in TAP what went well.
func failures(tap string) string {
	var b strings.Builder
	bad := true
	for line := range strings.Lines(tap) {
		switch word := strings.TrimSpace(line); {
		case strings.HasPrefix(word, "ok ") || strings.HasPrefix(word, "# Subtest"):
			bad = false
		case strings.HasPrefix(word, "not ok ") || strings.HasPrefix(word, "# "):
			bad = true
		}
		if bad {
			b.WriteString(line)
		}
	}
	return b.String()
}
