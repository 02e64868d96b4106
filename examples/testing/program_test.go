package main

import (
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/exampletest"
)

// TestMain fails a run that leaves goroutines behind.
func TestMain(m *testing.M) { exampletest.Main(m) }

// One test over a real socket is enough: that of the program as it is used.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0")
	got := exampletest.Run(t, run, "-connect", server.Expect(`testing -connect (\S+)`)[1])
	if !strings.HasPrefix(got, "50? ") || !strings.HasSuffix(got, "? right\n") {
		t.Errorf("the client printed\n%s", got)
	}
}
