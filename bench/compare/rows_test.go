package main

import (
	"regexp"
	"slices"
	"testing"
)

// What rows and bounds refer to exists, and comes before them.
func TestRows(t *testing.T) {
	all := rows()
	res := newResults()
	for _, r := range all {
		for _, n := range r.needs {
			if !slices.ContainsFunc(all, func(o row) bool { return o.name == n && len(o.needs) == 0 }) {
				t.Errorf("%s needs %s, which is no row or needs others itself", r.name, n)
			}
			if _, err := res.median(ref{n, yardstick}, cpu); err != nil {
				t.Errorf("%s needs %s, which comes after it", r.name, n)
			}
		}
		checks := 0
		for _, c := range r.contenders {
			k := ref{r.name, c.name}
			if len(res.samples[k]) > 0 {
				t.Errorf("%s stands twice", k)
			}
			if (c.start == nil) == (c.measure == nil) {
				t.Errorf("%s is either started or measures itself", k)
			}
			if c.rate != nil {
				if _, err := res.median(c.rate.of.in(r.name), perSecond); err != nil {
					t.Errorf("%s: rate: %v", k, err)
				}
			}
			res.add(k, sample{CPU: 1})
			checks += len(c.checks)
		}
		if checks == 0 {
			t.Errorf("%s has no bound", r.name)
		}
		for _, c := range r.contenders {
			for _, v := range res.judge(r, c) {
				if v.Why != "" {
					t.Errorf("%s: bound %q: %s", r.name, v.Bound, v.Why)
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	all := []row{{name: "a"}, {name: "b"}, {name: "c", needs: []string{"a"}}}
	for expr, want := range map[string][]string{"": {"a", "b", "c"}, "^b$": {"b"}, "c": {"a", "c"}} {
		list, err := choose(all, regexp.MustCompile(expr))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range list {
			got = append(got, r.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("rows %q: %q, want %q", expr, got, want)
		}
	}
	if _, err := choose(all, regexp.MustCompile("z")); err == nil {
		t.Error("no error where no row matches")
	}
}
