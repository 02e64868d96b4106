package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/cli"
	"github.com/pitaya-go/pitaya/internal/ptytest"
)

// TestCLIReadme replays the sessions in the README of pitaya-cli, those with a prompt at a terminal: what stands there is
// what it shows.
func TestCLIReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(cliFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	servers := map[bool]*cliServer{false: startForCLI(t), true: startForCLI(t, "-protocli", "-serializer", "protobuf")}
	n := 0
	for i, part := range strings.Split(string(text), "\n```console\n") {
		if i == 0 {
			continue
		}
		block, _, ok := strings.Cut(part, "\n```\n")
		if !ok {
			t.Fatal("a session does not end")
		}
		addr := servers[strings.Contains(block, "(protobuf)")].addrs["tcp"]
		for session := range strings.SplitSeq(strings.TrimPrefix(block, "$ "), "\n$ ") {
			n++
			call, want, _ := strings.Cut(session, "\n")
			words := shellWords(call)
			if words[0] != "pitaya-cli" {
				t.Fatalf("$ %s", call)
			}
			for i, word := range words {
				words[i] = strings.ReplaceAll(word, "localhost:32222", addr)
			}
			if strings.Contains(want, "pitaya> ") {
				replay(t, words[1:], addr, want)
				continue
			}
			var out bytes.Buffer
			cli.Main(t.Context(), cli.Process{Args: words[1:], Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &out})
			if got := strings.ReplaceAll(strings.TrimSuffix(out.String(), "\n"), addr, "localhost:32222"); got != want {
				t.Errorf("$ %s\n%s\nwant\n%s", call, got, want)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d sessions found", n)
	}
}

// replay types what stands behind the prompts of a session, and compares the terminal each time that there is a prompt.
func replay(t *testing.T, args []string, addr, session string) {
	p := ptytest.Open(t, 200, 200)
	done := make(chan int, 1)
	go func() {
		done <- cli.Main(t.Context(), cli.Process{Args: args, Getenv: func(string) string { return "" }, Stdin: p.Slave, Stdout: p.Slave, Stderr: p.Slave})
	}()
	var shown string
	expect := func(want string) {
		t.Helper()
		p.Until("\n"+want, func() bool { return strings.ReplaceAll(p.Screen.All(), addr, "localhost:32222") == want })
	}
	for line := range strings.SplitSeq(session, "\n") {
		for _, prompt := range []string{"pitaya> ", "   ...> "} {
			if typed, ok := strings.CutPrefix(line, prompt); ok {
				expect(shown + strings.TrimRight(prompt, " "))
				p.Type(strings.ReplaceAll(typed, "localhost:32222", addr) + "\r")
			}
		}
		shown += line + "\n"
	}
	expect(strings.TrimSuffix(shown, "\n"))
	if status := <-done; status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// shellWords splits a line as a shell does where there are no quotes but single ones.
func shellWords(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}
