package main

import (
	"bytes"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

// asProgram makes the test binary the program, so that it can be run as a process.
const asProgram = "PITAYA_CLI_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(leaktest.Run(m))
}

// program is the program with arguments, to be run.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm", "PITAYA_CLI_HISTORY=")
	return cmd
}

// status is the exit status that a command has ended with.
func status(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatal(err)
	}
	return e.ExitCode()
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(file, []byte("# nothing but a wait\nwait 1ms\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		args  []string
		stdin string
		want  int
	}{
		{"help of the flags", []string{"-h"}, "", 0},
		{"help of docs", []string{"docs", "-h"}, "", 0},
		{"a command", []string{"-e", "help"}, "", 0},
		{"a file", []string{"-f", file}, "", 0},
		{"standard input", nil, "help\nset timeout 1s\n", 0},
		{"nothing on standard input", nil, "", 0},
		{"exit ends all that is left", []string{"-e", "exit", "-e", "nonsense"}, "", 0},
		{"a command fails", []string{"-e", "expect {}"}, "", 1},
		{"not connected", nil, "request a.b\nhelp\n", 1},
		{"no such flag", []string{"-nonsense"}, "", 2},
		{"no such command", []string{"-e", "nonsense"}, "", 2},
		{"no such file", []string{"-f", file + ".txt"}, "", 2},
		{"two addresses", []string{"a:1", "b:1"}, "", 2},
		{"docs of nobody", []string{"docs"}, "", 2},
		{"two styles", []string{"-q", "-json"}, "", 2},
		{"no time", []string{"-timeout", "0s"}, "", 2},
		{"no handshake", []string{"-handshake", "[]"}, "", 2},
		{"no header", []string{"-header", "x"}, "", 2},
		{"no push", []string{"-push", "x"}, "", 2},
		{"no certificates", []string{"-ca", file, "-e", "status", "127.0.0.1:1"}, "", 2},
		{"no address", []string{"nowhere", "-e", "help"}, "", 2},
		{"nobody listens", []string{"127.0.0.1:1", "-e", "help"}, "", 3},
		{"docs of a server that is not there", []string{"docs", "127.0.0.1:1"}, "", 3},
		{"the first failure counts", []string{"-keep-going", "-e", "expect {}", "-e", "nonsense"}, "", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := program(t, test.args...)
			cmd.Stdin = strings.NewReader(test.stdin)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if got := status(t, cmd.Run()); got != test.want {
				t.Errorf("exit status %d, want %d: %s", got, test.want, stderr.String())
			}
			if test.want > 0 && stderr.Len() == 0 {
				t.Error("nothing is said of it")
			}
		})
	}
}

// TestDocumented holds the documentation against the flags and commands that there are.
func TestDocumented(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	doc := f.Doc.Text()
	var flags bytes.Buffer
	for _, args := range [][]string{{"-h"}, {"docs", "-h"}} {
		cmd := program(t, args...)
		cmd.Stderr = &flags
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  (-\S+)`).FindAllStringSubmatch(flags.String(), -1) {
		if !regexp.MustCompile(`(?m)^\t` + m[1] + ` `).MatchString(doc) {
			t.Errorf("the flag %s is not documented", m[1])
		}
	}
	help, err := program(t, "-e", "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, commands, _ := strings.Cut(doc, "# Commands")
	commands, _, _ = strings.Cut(commands, "# Protobuf")
	n := 0
	for line := range strings.Lines(string(help)) {
		name, _, ok := strings.Cut(line, " ")
		if !ok || strings.HasPrefix(line, "help COMMAND") {
			break
		}
		n++
		if !regexp.MustCompile(`(^|\W)` + name + `\W`).MatchString(commands) {
			t.Errorf("the command %s is not documented", name)
		}
	}
	if n < 10 {
		t.Errorf("only %d commands in\n%s", n, help)
	}
}
