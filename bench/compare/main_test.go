package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/load"
)

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		args   []string
		status int
		out    string // part of the standard output
		err    string // part of the standard error
	}{
		{[]string{"-help"}, 0, "", "-runs number"},
		{[]string{"-list", "-rows", "^" + echo50 + "$"}, 0, echo50, ""},
		{[]string{"-list", "-rows", "("}, 2, "", "missing closing )"},
		{[]string{"-runs", "0", "-list"}, 2, "", "-runs"},
		{[]string{"-duration", "0", "-list"}, 2, "", "-duration"},
		{[]string{"-list", "more"}, 2, "", `"more"`},
		{nil, 2, "", "bench/run"},
		{[]string{"-programs", t.TempDir()}, 2, "", "bench/run builds"},
	} {
		var out, err bytes.Buffer
		status := run(t.Context(), test.args, &out, &err)
		if status != test.status || !strings.Contains(out.String(), test.out) || !strings.Contains(err.String(), test.err) {
			t.Errorf("%q: status %d, output %q, errors %q", test.args, status, &out, &err)
		}
	}
}

func TestJSONCost(t *testing.T) {
	var out, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-json-cost", "1024", "-duration", "50ms"}, &out, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	var s sample
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.CPU <= 0 || s.CPU != s.User+s.System || s.PerSecond <= 0 {
		t.Errorf("%+v", s)
	}
}

func TestSample(t *testing.T) {
	rep := &load.Report{
		Connections: load.Connections{Opened: 10, AtEnd: 9},
		Measured:    load.Measured{Seconds: 2, Count: 90, Failed: 10, PerSecond: 45, Latency: load.Latency{P50: 5, P99: 9}},
		Errors:      []load.ErrorCount{{Kind: "answer", Code: "PIT-500", Count: 10}},
		Server:      &load.ServerReport{Available: true, UserSeconds: 0.001, SystemSecs: 0.003, CPUPerOp: new(40.0), Cores: 0.002, RSSPerConn: 4000},
		Generator:   load.GeneratorReport{Cores: 0.96},
	}
	s := newSample(rep)
	if s.CPU != 40 || s.User != 10 || s.System != 30 || s.PerSecond != 45 || s.P50 != 5 || s.P99 != 9 || s.RSS != 4000 || s.Cores != 0.002 {
		t.Errorf("%+v", s)
	}
	if got, want := strings.Join(s.notes, "; "), "errors: answer PIT-500; connections were lost; generator at its limit"; got != want {
		t.Errorf("notes %q, want %q", got, want)
	}
	rep = &load.Report{Server: &load.ServerReport{Note: "no such process"}}
	if got := newSample(rep).notes; len(got) != 1 || !strings.Contains(got[0], "no such process") {
		t.Errorf("notes %q", got)
	}
}
