package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A reporter takes note of what happens in a run. Its methods may be called by any goroutine.
type reporter struct {
	began time.Time
	seed  uint64
	out   io.Writer
	max   int    // violations after which the run gives up
	stop  func() // called then

	mu         sync.Mutex // guards what follows
	counts     map[string]int
	violations int
}

func newReporter(seed uint64, max int, out io.Writer, stop func()) *reporter {
	return &reporter{began: time.Now(), seed: seed, out: out, max: max, stop: stop, counts: make(map[string]int)}
}

// Since is the time since the beginning of the run, by which everything is dated.
func (r *reporter) Since() time.Duration { return time.Since(r.began) }

// Count counts something of a kind.
func (r *reporter) Count(kind string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[kind] += n
}

// Max keeps the largest of a kind.
func (r *reporter) Max(kind string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[kind] = max(r.counts[kind], n)
}

// Logf prints a line with its time.
func (r *reporter) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%8.2fs  %s\n", r.Since().Seconds(), fmt.Sprintf(format, args...))
}

// Violation reports that an invariant does not hold: whose, what, and what happened before.
func (r *reporter) Violation(who, what string, history []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations++
	if r.violations > r.max {
		return
	}
	fmt.Fprintf(r.out, "\nVIOLATION %d   seed %d   %.2fs   %s\n    %s\n", r.violations, r.seed, r.Since().Seconds(), who,
		strings.ReplaceAll(strings.TrimSpace(what), "\n", "\n    "))
	for _, line := range history {
		fmt.Fprintf(r.out, "      %s\n", line)
	}
	fmt.Fprintln(r.out)
	if r.violations == r.max {
		fmt.Fprintf(r.out, "%d violations: the run ends\n", r.max)
		r.stop()
	}
}

func (r *reporter) Violations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.violations
}

// Counts returns a copy of all counts.
func (r *reporter) Counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}

// table prints rows of two columns.
func table(out io.Writer, rows [][2]string) {
	width := 0
	for _, row := range rows {
		width = max(width, len(row[0]))
	}
	for _, row := range rows {
		fmt.Fprintf(out, "| %-*s | %s |\n", width, row[0], row[1])
	}
}

// group returns the counts whose kinds begin with a prefix, as one text, the largest first.
func group(counts map[string]int, prefix string) string {
	var kinds []string
	total := 0
	for kind, n := range counts {
		if strings.HasPrefix(kind, prefix) {
			kinds = append(kinds, kind)
			total += n
		}
	}
	slices.SortFunc(kinds, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	if len(kinds) == 0 {
		return "0"
	}
	parts := make([]string, len(kinds))
	for i, kind := range kinds {
		parts[i] = fmt.Sprintf("%s %s", thousands(counts[kind]), strings.TrimPrefix(kind, prefix))
	}
	return fmt.Sprintf("%s: %s", thousands(total), strings.Join(parts, ", "))
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
