// Package exampletest runs the programs of examples as their users do: it starts them, reads what they print, and ends them.
package exampletest

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

// Patience bounds what must happen at once.
const Patience = 20 * time.Second

// Main is for TestMain: it runs the tests, and fails if they leave goroutines behind.
func Main(m *testing.M) { os.Exit(leaktest.Run(m)) }

// A Func is what main calls: the whole program, which ends when its context does, or by itself.
type Func func(ctx context.Context, args []string, out io.Writer) error

// A Program is running.
type Program struct {
	t     testing.TB
	end   context.CancelFunc
	ended chan struct{} // closed when the program has ended
	err   error         // of the program; set before ended is closed
	read  int           // number of lines that Expect is through with

	mu   sync.Mutex // guards the fields below
	rest []byte     // a line that is not complete
	text []string   // all lines
	news chan struct{}
}

// Start starts a program, which ends with the test. The test fails if it ends with an error.
func Start(t testing.TB, program Func, args ...string) *Program {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	p := &Program{t: t, end: end, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	go func() {
		defer close(p.ended)
		p.err = program(ctx, args, p)
	}()
	t.Cleanup(p.Stop)
	return p
}

// Run runs a program that ends by itself, such as a client, and returns what it has printed.
func Run(t testing.TB, program Func, args ...string) (out string) {
	t.Helper()
	p := Start(t, program, args...)
	p.wait()
	return strings.Join(p.Lines(), "\n") + "\n"
}

// Write takes what the program prints.
func (p *Program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			break
		}
		p.text = append(p.text, string(line))
		p.rest = rest
	}
	select {
	case p.news <- struct{}{}:
	default:
	}
	return len(b), nil
}

// Lines returns the lines that the program has printed so far.
func (p *Program) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.text)
}

// Expect waits for a line with a match of the regular expression, and returns the match and its groups. It looks at each line
// once: the next call goes on behind the line that it has found. It is for the goroutine of the test.
func (p *Program) Expect(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(Patience)
	for last := false; ; {
		lines := p.Lines()
		for p.read < len(lines) {
			p.read++
			if match := re.FindStringSubmatch(lines[p.read-1]); match != nil {
				return match
			}
		}
		if last {
			p.t.Fatalf("the program has not printed %q but\n%s", pattern, strings.Join(lines, "\n"))
		}
		select {
		case <-p.news:
		case <-p.ended:
			last = true
		case <-late:
			last = true
		}
	}
}

// Interrupt does what Ctrl-C does, and does not wait for the end.
func (p *Program) Interrupt() { p.end() }

// Stop does what Ctrl-C does, and waits for the end of the program. Further calls do nothing.
func (p *Program) Stop() {
	p.t.Helper()
	p.end()
	p.wait()
}

// wait waits for the end of the program.
func (p *Program) wait() {
	p.t.Helper()
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("the program has failed: %v", p.err)
			p.err = nil // once
		}
	case <-time.After(Patience):
		p.t.Errorf("the program does not end; it has printed\n%s", strings.Join(p.Lines(), "\n"))
	}
}
