// Command forward measures forwarded requests and calls between servers beside what they are compared with: a bare gate and
// room (bench/gate), plain nats.go and plain grpc-go (bench/rpc), and the yardstick. Everything that takes part in a request
// shares one core, NATS included, and the generator has the other; what counts is the processor time of all of it for one
// request. The contenders of a row take turns, and the table has medians.
//
//	for p in gate cluster rpc yardstick forward; do go build -C bench -o bin/ ./$p; done
//	go build -o bench/bin/ ./cmd/pitaya-load
//	go build -C internal/devcluster -o ../../bench/bin/devcluster .
//	bench/bin/forward -bin bench/bin
//
// It works on Linux, with taskset.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one case.
type row struct {
	name       string
	contenders []contender // the first ones make the base
	base       int         // how many of them, whose times are added
	what       func(outcome) float64
	unit       string
	bound      float64 // of the last contender's ratio to the base; its own figure at least if atLeast
	atLeast    bool
}

// A contender is measured once for each run.
type contender struct {
	name string
	run  func(b *bench) (outcome, error)
}

// An outcome is what one run has shown.
type outcome struct {
	CPU       float64 // microseconds for each request
	PerSecond float64
	P50       float64 // microseconds
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("forward: ")
	b := &bench{}
	flag.StringVar(&b.bin, "bin", "bench/bin", "`folder` with the programs")
	flag.DurationVar(&b.duration, "duration", 2*time.Second, "`time` of one run, without the warm-up")
	runs := flag.Int("runs", 5, "`number` of runs of each contender")
	only := flag.String("only", "", "`text` in the names of the rows to run; empty is all")
	flag.Parse()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "case\tbase\tpitaya\tunit\tratio\tbound")
	for _, r := range rows() {
		if !strings.Contains(r.name, *only) {
			continue
		}
		figures, err := b.measure(r, *runs)
		if err != nil {
			log.Fatalf("%s: %v", r.name, err)
		}
		base := 0.0
		for _, f := range figures[:r.base] {
			base += f
		}
		own := figures[len(figures)-1]
		bound := fmt.Sprintf("at most %.1f", r.bound)
		if r.atLeast {
			bound = fmt.Sprintf("at least %.0f %s", r.bound, r.unit)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%s\t%.2f\t%s\n", r.name, base, own, r.unit, own/base, bound)
		w.Flush()
	}
}

// measure returns the median of each contender of a row.
func (b *bench) measure(r row, runs int) ([]float64, error) {
	all := make([][]float64, len(r.contenders))
	for range runs {
		for i, c := range r.contenders {
			o, err := c.run(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all[i] = append(all[i], r.what(o))
		}
	}
	medians := make([]float64, len(all))
	for i, list := range all {
		slices.Sort(list)
		medians[i] = (list[len(list)/2] + list[(len(list)-1)/2]) / 2
	}
	return medians, nil
}

func cpu(o outcome) float64       { return o.CPU }
func p50(o outcome) float64       { return o.P50 }
func perSecond(o outcome) float64 { return o.PerSecond }

// rows are the bounds.
func rows() (list []row) {
	forwarded := func(name string, bound float64, load ...string) row {
		return row{name: "NATS, JSON 64 B, " + name, base: 1, what: cpu, unit: "µs", bound: bound, contenders: []contender{
			{"gate", func(b *bench) (outcome, error) { return b.bare(0, load...) }},
			{"pitaya", func(b *bench) (outcome, error) { return b.cluster(true, 0, load...) }},
		}}
	}
	list = append(list,
		forwarded("50 x 1", 1.6, "-conns", "50"),
		forwarded("50 x 16", 2.0, "-conns", "50", "-inflight", "16"),
		forwarded("1,000 x 16", 2.0, "-conns", "1000", "-inflight", "16"))
	open := forwarded("p50 at 1,000/s", 1.3, "-conns", "1000", "-rate", "1000")
	open.what = p50
	const slow = 100 * time.Millisecond
	return append(list, open,
		row{name: "NATS, 1,000 in flight, handler of 100 ms", base: 1, what: perSecond, unit: "/s", bound: 9000, atLeast: true, contenders: []contender{
			{"gate", func(b *bench) (outcome, error) { return b.bare(slow, "-conns", "1000") }},
			{"pitaya", func(b *bench) (outcome, error) { return b.cluster(true, slow, "-conns", "1000") }},
		}},
		row{name: "RPC over NATS, 50 at a time", base: 1, what: cpu, unit: "µs", bound: 1.5, contenders: []contender{
			{"nats.go", func(b *bench) (outcome, error) { return b.calls("plain", true) }},
			{"pitaya", func(b *bench) (outcome, error) { return b.calls("pitaya", true) }},
		}},
		row{name: "gRPC, JSON 64 B, 50 x 1", base: 2, what: cpu, unit: "µs", bound: 1.5, contenders: []contender{
			{"grpc-go", func(b *bench) (outcome, error) { return b.calls("plain", false) }},
			{"yardstick", func(b *bench) (outcome, error) { return b.yardstick("-conns", "50") }},
			{"pitaya", func(b *bench) (outcome, error) { return b.cluster(false, 0, "-conns", "50") }},
		}})
}
