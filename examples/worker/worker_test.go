package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// output is what several servers write.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

// want compares the lines in any order, without ids and times.
func (o *output) want(t *testing.T, want ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	got := strings.Split(strings.TrimSpace(regexp.MustCompile(`job [0-9a-f]{24}`).ReplaceAllString(o.text.String(), "job ID")), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		if err := run(t.Context(), []string{"-orders", "4"}, &out, t.Output()); err != nil {
			t.Fatal(err)
		}
		out.want(t,
			"shop: order 1, the receipt is job ID", "mail: receipt for order 1",
			"shop: order 2, the receipt is job ID", "mail: receipt for order 2",
			"shop: order 3, the receipt is job ID", "mail: too busy for order 3", "mail: receipt for order 3",
			"shop: order 4, the receipt is job ID",
			"shop: a receipt was given up after 1 runs: pitaya: the job is not to be tried again: order 4 has no address")
	})
}

// The shop has ended before a server that sends mails begins.
func TestNATS(t *testing.T) {
	t.Parallel()
	nats := devtest.NATS(t, "-jetstream").URL()
	var out output
	shop := []string{"-nats", nats, "-role", "shop", "-orders", "2", "-every", "1ms"}
	if err := run(t.Context(), shop, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	out.want(t, "shop: order 1, the receipt is job ID", "shop: order 2, the receipt is job ID")
	out.text.Reset()
	// Both, so that it ends when all is done.
	if err := run(t.Context(), []string{"-nats", nats, "-orders", "1", "-every", "5ms"}, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	// The second order 1 is one whose mail was sent.
	out.want(t, "mail: receipt for order 1", "mail: receipt for order 2", "shop: order 1, the receipt is job ID")
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-nats", "nats://"}, {"-no-such-flag"}, {"-role", "judge"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
