package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A row is one case: what is measured, by whom, and what must come out of it.
type row struct {
	name       string // what -rows selects, and how other rows refer to it
	bound      int    // the number of the group of bounds that it belongs to
	title      string
	load       []string      // flags of the load generator, for all contenders
	contenders []contender   // measured in turn; what is a ratio is one to the first of them
	figure     figure        // what the row is about
	runs       int           // at most so many, whatever -runs says; 0: no limit
	duration   time.Duration // at least so long, whatever -duration says
	needs      []string      // rows whose results this one's bounds or loads are worked out from
}

// A contender is what is measured in a row: processes that a load generator talks to, or something that measures itself.
type contender struct {
	name    string
	start   func(context.Context, *bed) (*system, error) // the processes; nil where measure is set
	load    []string                                     // flags of the load generator beyond those of the row
	rate    *rate                                        // open load; nil: closed
	measure func(context.Context, *bed, timing) (sample, error)
	checks  []check
}

// A timing is how long a run is.
type timing struct{ warmup, duration time.Duration }

// A rate is that of an open load: a share of what the median of another contender was able to do under closed load.
type rate struct {
	of    ref
	share float64
}

// A ref names a contender of a row. An empty row is the same one.
type ref struct{ row, contender string }

func (r ref) String() string {
	if r.row == "" {
		return r.contender
	}
	return r.contender + " in " + r.row
}

// in fills in the row that a ref without one is meant for.
func (r ref) in(row string) ref {
	if r.row == "" {
		r.row = row
	}
	return r
}

// A sample is what one run of one contender has shown. Times are in microseconds of processor time for each operation,
// latencies in microseconds, sizes in bytes.
type sample struct {
	CPU        float64 `json:"cpu_us"`
	User       float64 `json:"user_us"`
	System     float64 `json:"system_us"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	RSS        float64 `json:"rss_per_connection"`
	Goroutines float64 `json:"goroutines_per_connection,omitempty"` // 0 where the server does not tell
	Cores      float64 `json:"cores"`                               // used by the server
	Size       float64 `json:"size,omitempty"`                      // of the program's file
	Generator  float64 `json:"generator_cores"`

	notes []string
}

// A figure is one number of a sample.
type figure struct {
	name, unit string
	of         func(sample) float64
}

// The figures that rows are about and that bounds are of.
var (
	cpu        = figure{"CPU", "µs", func(s sample) float64 { return s.CPU }}
	perSecond  = figure{"rate", "/s", func(s sample) float64 { return s.PerSecond }}
	p99        = figure{"p99", "µs", func(s sample) float64 { return s.P99 }}
	rss        = figure{"memory", "B/conn.", func(s sample) float64 { return s.RSS }}
	goroutines = figure{"goroutines", "/conn.", func(s sample) float64 { return s.Goroutines }}
	size       = figure{"size", "MB", func(s sample) float64 { return s.Size / 1e6 }}
	cores      = figure{"cores", "% of a core", func(s sample) float64 { return 100 * s.Cores }}
)

// A check is a bound on the median of one figure.
type check struct {
	figure  figure
	text    string // the bound in words
	atLeast bool   // the limit is a lower one
	limit   func(row string, r *results) (float64, error)
}

// atMost is an absolute bound.
func atMost(f figure, limit float64) check {
	return check{figure: f, text: fmt.Sprintf("≤ %s %s", number(limit), f.unit),
		limit: func(string, *results) (float64, error) { return limit, nil }}
}

// noLess is an absolute lower bound.
func noLess(f figure, limit float64) check {
	return check{figure: f, text: fmt.Sprintf("≥ %s %s", number(limit), f.unit), atLeast: true,
		limit: func(string, *results) (float64, error) { return limit, nil }}
}

// times is a bound relative to the sum of the same figure of other contenders.
func times(f figure, factor float64, of ...ref) check {
	var names []string
	for _, r := range of {
		names = append(names, r.String())
	}
	sum := strings.Join(names, " + ")
	if len(of) > 1 {
		sum = "(" + sum + ")"
	}
	text := fmt.Sprintf("≤ %g × %s", factor, sum)
	return check{figure: f, text: text, limit: func(row string, r *results) (float64, error) {
		sum := 0.0
		for _, o := range of {
			v, err := r.median(o.in(row), f)
			if err != nil {
				return 0, err
			}
			sum += v
		}
		return factor * sum, nil
	}}
}

// beyond is a bound on what is added to the figure of another contender. Where scale names one, what may be added is for
// a machine on which its figure is usual, and grows and shrinks with it.
func beyond(f figure, added float64, of ref, scale *ref, usual float64) check {
	text := fmt.Sprintf("≤ %s + %g %s", of, added, f.unit)
	if scale != nil {
		text += fmt.Sprintf(" × (%s) / %g", *scale, usual)
	}
	return check{figure: f, text: text, limit: func(row string, r *results) (float64, error) {
		base, err := r.median(of.in(row), f)
		if err != nil {
			return 0, err
		}
		add := added
		if scale != nil {
			s, err := r.median(scale.in(row), f)
			if err != nil {
				return 0, err
			}
			add *= s / usual
		}
		return base + add, nil
	}}
}

// met says whether a value keeps to a limit.
func (c check) met(value, limit float64) bool {
	if c.atLeast {
		return value >= limit
	}
	return value <= limit
}
