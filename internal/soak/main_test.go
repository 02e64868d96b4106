package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

// TestMain is the main function of the servers, too, which a soak starts from its own program.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-serve") {
		if err := command(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString("soak: " + err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(leaktest.Run(m))
}

// TestSoak runs a small one without faults, and one with.
func TestSoak(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no real etcd or NATS with -short")
	}
	for name, args := range map[string]string{
		"fair": "-for 1s -storm 1s -every 0 -think 50ms -bots 12 -gates 1 -rooms 1",
		"foul": "-for 2s -storm 2s -every 300ms -think 50ms -bots 12 -gates 1 -rooms 2 -seed 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if err := command(t.Context(), strings.Fields(args), nil, &out, &out); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range []string{"| requests; notifies ", "| violations ", "all are reached: after"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
		})
	}
}

func TestCommandRefuses(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-bots 0":    "there must be",
		"-gates 0":   "there must be",
		"something":  "unexpected argument",
		"-for never": "invalid value",
		"-serve {":   "unexpected end of JSON",
	} {
		var out strings.Builder
		err := command(t.Context(), strings.Fields(args), strings.NewReader(""), &out, &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// testReporter returns a reporter and what it prints.
func testReporter() (*reporter, *strings.Builder) {
	out := new(strings.Builder)
	return newReporter(1, 1000, out, func() {}), out
}

func TestReport(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	stopped := false
	r := newReporter(77, 2, &out, func() { stopped = true })
	r.Violation("bot 3", "it has\ntwo lines", []string{"first", "second"})
	for _, want := range []string{"VIOLATION 1", "seed 77", "bot 3", "    it has\n    two lines", "      first\n      second"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if stopped {
		t.Error("stopped after the first violation, of two")
	}
	r.Violation("bot 4", "again", nil)
	if !stopped || r.Violations() != 2 {
		t.Errorf("stopped %v after %d violations", stopped, r.Violations())
	}
	r.Count("fault: a", 2)
	r.Count("fault: b", 1234)
	r.Max("longest", 5)
	r.Max("longest", 3)
	if got, want := group(r.Counts(), "fault: "), "1,236: 1,234 b, 2 a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := group(r.Counts(), "none: "); got != "0" {
		t.Errorf("got %s for what did not happen", got)
	}
	if got := r.Counts()["longest"]; got != 5 {
		t.Errorf("the maximum is %d", got)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	r, _ := testReporter()
	h := history{report: r}
	for i := range 3 * historySize {
		h.note("entry", i+1, 0)
	}
	lines := h.lines()
	if len(lines) != historySize || !strings.HasSuffix(lines[0], "message 161") || !strings.HasSuffix(lines[historySize-1], "message 240") {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
}

func TestLogMessage(t *testing.T) {
	t.Parallel()
	for record, want := range map[string]string{
		`msg="two words" a=b`: "two words",
		`msg=word a=b`:        "word",
		`a=b`:                 "?",
	} {
		if got := logMessage(record); got != want {
			t.Errorf("%s: got %q, want %q", record, got, want)
		}
	}
}

// patience is what tests give up after.
const patience = 20 * time.Second
