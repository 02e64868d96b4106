package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// results are the samples of all contenders so far.
type results struct {
	samples map[ref][]sample
	notes   map[ref][]string
}

func newResults() *results {
	return &results{samples: make(map[ref][]sample), notes: make(map[ref][]string)}
}

// add takes a sample, and its notes if they are new ones.
func (r *results) add(k ref, s sample) {
	r.samples[k] = append(r.samples[k], s)
	for _, n := range s.notes {
		r.note(k, n)
	}
}

// note adds what a reader should know of a contender.
func (r *results) note(k ref, text string) {
	if !slices.Contains(r.notes[k], text) {
		r.notes[k] = append(r.notes[k], text)
	}
}

// median is that of a figure of a contender's runs. It is an error if it has none.
func (r *results) median(k ref, f figure) (float64, error) {
	m, _, _, err := r.spread(k, f)
	return m, err
}

// spread is the median, the least and the greatest of a figure.
func (r *results) spread(k ref, f figure) (mid, least, most float64, err error) {
	list := make([]float64, 0, len(r.samples[k]))
	for _, s := range r.samples[k] {
		list = append(list, f.of(s))
	}
	if len(list) == 0 {
		return 0, 0, 0, fmt.Errorf("%s has no figures", k)
	}
	return median(list), slices.Min(list), slices.Max(list), nil
}

// median is the middle one of values, the mean of both where there are two.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[n/2]
}

// A verdict is what has come of a check.
type verdict struct {
	Figure  string   `json:"figure"`
	Unit    string   `json:"unit"`
	Value   *float64 `json:"value"` // nil: there is none
	Limit   *float64 `json:"limit"`
	Bound   string   `json:"bound"`
	AtLeast bool     `json:"at_least,omitempty"`
	Met     bool     `json:"met"`
	Why     string   `json:"why,omitempty"` // why there is no value or limit
}

// judge works out the checks of a contender of a row.
func (r *results) judge(row row, c contender) []verdict {
	var list []verdict
	for _, ch := range c.checks {
		v := verdict{Figure: ch.figure.name, Unit: ch.figure.unit, Bound: ch.text, AtLeast: ch.atLeast}
		value, err := r.median(ref{row.name, c.name}, ch.figure)
		if err == nil {
			v.Value = new(value)
			var limit float64
			if limit, err = ch.limit(row.name, r); err == nil {
				v.Limit = new(limit)
				v.Met = ch.met(value, limit)
			}
		}
		if err != nil {
			v.Why = err.Error()
		}
		list = append(list, v)
	}
	return list
}

// number writes a value with three digits that matter.
func number(v float64) string {
	switch a := max(v, -v); {
	case math.Round(a) >= 1000:
		return grouped(int(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// grouped writes a number with commas between thousands.
func grouped(n int) string {
	s := strconv.Itoa(n)
	var out strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			out.WriteByte(',')
		}
		out.WriteRune(d)
	}
	return out.String()
}

// medians are those of all figures of a contender, each by itself.
func (r *results) medians(k ref) (m sample) {
	for _, f := range []struct {
		to *float64
		of func(sample) float64
	}{
		{&m.CPU, func(s sample) float64 { return s.CPU }},
		{&m.User, func(s sample) float64 { return s.User }},
		{&m.System, func(s sample) float64 { return s.System }},
		{&m.PerSecond, func(s sample) float64 { return s.PerSecond }},
		{&m.P50, func(s sample) float64 { return s.P50 }},
		{&m.P99, func(s sample) float64 { return s.P99 }},
		{&m.RSS, func(s sample) float64 { return s.RSS }},
		{&m.Goroutines, func(s sample) float64 { return s.Goroutines }},
		{&m.Cores, func(s sample) float64 { return s.Cores }},
		{&m.Generator, func(s sample) float64 { return s.Generator }},
		{&m.Size, func(s sample) float64 { return s.Size }},
	} {
		*f.to, _ = r.median(k, figure{of: f.of})
	}
	return m
}
