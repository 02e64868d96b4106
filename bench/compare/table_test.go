package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// found are results of a row whose figure keeps to its bound and whose second figure does not.
func found() *report {
	r := row{name: "case", bound: 1, title: "a case", figure: cpu, contenders: []contender{
		{name: yardstick},
		{name: tcp, checks: []check{times(cpu, 1.5, ref{contender: yardstick}), atMost(goroutines, 1)}},
		{name: ws, checks: []check{times(cpu, 1.5, ref{contender: yardstick})}},
	}}
	res := newResults()
	for _, v := range []float64{8, 10, 12} {
		res.add(ref{"case", yardstick}, sample{CPU: v, User: 1, System: v - 1, PerSecond: 100000, P50: 50, P99: 99})
		res.add(ref{"case", tcp}, sample{CPU: v + 3, User: 4, System: v - 1, PerSecond: 70000, P50: 70, P99: 150, Goroutines: 2,
			notes: []string{"a | note"}})
	}
	res.note(ref{"case", ws}, "a run has failed: no\nanswer")
	return newReport(machine{CPU: "a processor", Cores: 2, Kernel: "Linux 6", Go: "go1", Date: "2026-01-02", Pinned: "yes"}, "bench/run", 3, []row{r}, res)
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := found().writeTable(&out); err != nil {
		t.Fatal(err)
	}
	const want = "Machine: a processor, 2 cores, Linux 6, go1, 2026-01-02.  \n" +
		"Pinned: yes.  \n" +
		"Command: `bench/run`, medians of 3 runs each, in turn.\n\n" +
		"| case | server | figure | spread | ratio | bound | met | user + system | per second | p50 µs | p99 µs | notes |\n" +
		"| --- | --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | --- |\n" +
		"| 1. a case | yardstick | 10.0 µs | 8.00–12.0 | | | | 1.00 + 9.00 | 100,000 | 50.0 | 99.0 | |\n" +
		"| | pitaya | 13.0 µs | 11.0–15.0 | 1.30 | ≤ 1.5 × yardstick = 15.0 | yes | 4.00 + 9.00 | 70,000 | 70.0 | 150 | a \\| note |\n" +
		"| | pitaya | 2.00 /conn. | | | ≤ 1.00 /conn. | **no** | | | | | |\n" +
		"| | pitaya WS | – | | | ≤ 1.5 × yardstick | ? | | | | | a run has failed: no answer |\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMissed(t *testing.T) {
	got := strings.Join(found().missed(), "\n")
	want := "case, pitaya: goroutines ≤ 1.00 /conn.\ncase, pitaya WS: CPU ≤ 1.5 × yardstick"
	if got != want {
		t.Errorf("missed %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.json")
	if err := found().writeJSON(name); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	c := got.Rows[0].Contenders[1]
	if got.Machine.CPU != "a processor" || c.Ratio != 1.3 || len(c.Samples) != 3 || c.Samples[2].CPU != 15 || !c.Verdicts[0].Met {
		t.Errorf("read back: %+v", got)
	}
}

func TestCommand(t *testing.T) {
	got := command([]string{"-programs", "/somewhere", "-rows", "a|b", "-runs", "1"})
	if want := "bench/run -rows 'a|b' -runs 1"; got != want {
		t.Errorf("command %q, want %q", got, want)
	}
}
