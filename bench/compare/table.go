package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// A report is all that has been found, as -json writes it.
type report struct {
	Machine machine     `json:"machine"`
	Command string      `json:"command"`
	Runs    int         `json:"runs"`
	Rows    []rowReport `json:"rows"`
}

type rowReport struct {
	Name       string            `json:"name"`
	Bound      int               `json:"bound,omitempty"`
	Title      string            `json:"title"`
	Figure     string            `json:"figure"`
	Unit       string            `json:"unit"`
	Contenders []contenderReport `json:"contenders"`
}

type contenderReport struct {
	Name     string    `json:"name"`
	Median   *sample   `json:"median"` // of each figure by itself; nil: no run succeeded
	Least    float64   `json:"least"`  // of the row's figure
	Most     float64   `json:"most"`
	Value    float64   `json:"value"`           // the row's figure
	Ratio    float64   `json:"ratio,omitempty"` // to the first contender's
	Samples  []sample  `json:"samples"`
	Verdicts []verdict `json:"verdicts,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
}

// newReport puts the results together.
func newReport(m machine, command string, runs int, list []row, res *results) *report {
	rep := &report{Machine: m, Command: command, Runs: runs}
	for _, r := range list {
		rr := rowReport{Name: r.name, Bound: r.bound, Title: r.title, Figure: r.figure.name, Unit: r.figure.unit}
		base, _ := res.median(ref{r.name, r.contenders[0].name}, r.figure)
		for i, c := range r.contenders {
			k := ref{r.name, c.name}
			cr := contenderReport{Name: c.name, Samples: res.samples[k], Notes: res.notes[k], Verdicts: res.judge(r, c)}
			if v, least, most, err := res.spread(k, r.figure); err == nil {
				cr.Value, cr.Least, cr.Most = v, least, most
				cr.Median = new(res.medians(k))
				if i > 0 && base > 0 {
					cr.Ratio = v / base
				}
			}
			rr.Contenders = append(rr.Contenders, cr)
		}
		rep.Rows = append(rep.Rows, rr)
	}
	return rep
}

// missed says which bounds are not met.
func (rep *report) missed() (list []string) {
	for _, r := range rep.Rows {
		for _, c := range r.Contenders {
			for _, v := range c.Verdicts {
				if !v.Met {
					list = append(list, fmt.Sprintf("%s, %s: %s %s", r.Name, c.Name, v.Figure, v.Bound))
				}
			}
		}
	}
	return list
}

// writeTable writes the report as Markdown.
func (rep *report) writeTable(w io.Writer) error {
	var b strings.Builder
	m := rep.Machine
	fmt.Fprintf(&b, "Machine: %s, %d cores, %s, %s, %s.  \n", m.CPU, m.Cores, m.Kernel, m.Go, m.Date)
	fmt.Fprintf(&b, "Pinned: %s.  \n", m.Pinned)
	runs := "one run each"
	if rep.Runs > 1 {
		runs = fmt.Sprintf("medians of %d runs each, in turn", rep.Runs)
	}
	fmt.Fprintf(&b, "Command: `%s`, %s.\n\n", rep.Command, runs)
	b.WriteString("| case | server | figure | spread | ratio | bound | met | user + system | per second | p50 µs | p99 µs | notes |\n")
	b.WriteString("| --- | --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | --- |\n")
	for _, r := range rep.Rows {
		title := r.Title
		if r.Bound > 0 {
			title = fmt.Sprintf("%d. %s", r.Bound, title)
		}
		for _, c := range r.Contenders {
			writeContender(&b, title, r, c)
			title = ""
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeContender writes the line of a contender, and one for each check that is not of the row's figure.
func writeContender(b *strings.Builder, title string, r rowReport, c contenderReport) {
	bound, met := "", ""
	var others []verdict
	for _, v := range c.Verdicts {
		if v.Figure == r.Figure && bound == "" {
			bound, met = v.limit(), v.mark()
		} else {
			others = append(others, v)
		}
	}
	figure, spread, ratio, split, rate, p50, p99 := "–", "", "", "", "", "", ""
	if m := c.Median; m != nil {
		figure = number(c.Value) + " " + r.Unit
		if len(c.Samples) > 1 {
			spread = number(c.Least) + "–" + number(c.Most)
		}
		if c.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", c.Ratio)
		}
		if m.CPU > 0 {
			split = number(m.User) + " + " + number(m.System)
		}
		if m.PerSecond > 0 {
			rate = number(m.PerSecond)
		}
		if m.P99 > 0 {
			p50, p99 = number(m.P50), number(m.P99)
		}
	}
	cells(b, title, c.Name, figure, spread, ratio, bound, met, split, rate, p50, p99, strings.Join(c.Notes, "; "))
	for _, v := range others {
		figure := "–"
		if v.Value != nil {
			figure = number(*v.Value) + " " + v.Unit
		}
		cells(b, "", c.Name, figure, "", "", v.limit(), v.mark(), "", "", "", "", v.Why)
	}
}

func cells(b *strings.Builder, list ...string) {
	for _, s := range list {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", `\|`)
		b.WriteString("| " + s)
		if s != "" {
			b.WriteByte(' ')
		}
	}
	b.WriteString("|\n")
}

// limit is the bound in words, and what it comes to here.
func (v verdict) limit() string {
	absolute := v.Limit != nil && strings.HasSuffix(v.Bound, number(*v.Limit)+" "+v.Unit) && !strings.Contains(v.Bound, "+")
	if v.Limit == nil || absolute {
		return v.Bound
	}
	return v.Bound + " = " + number(*v.Limit)
}

func (v verdict) mark() string {
	switch {
	case v.Met:
		return "yes"
	case v.Limit == nil:
		return "?"
	}
	return "**no**"
}

// writeJSON writes the report into a file.
func (rep *report) writeJSON(name string) error {
	b, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o666)
}
