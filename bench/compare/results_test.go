package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		given := append([]float64(nil), test.values...)
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
		for i, v := range given {
			if test.values[i] != v {
				t.Errorf("the values were put into another order: %v", test.values)
				break
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.526: "0.53", 9.876: "9.88", 12.34: "12.3", 123.4: "123", 999.6: "1,000",
		1234.5: "1,235", 1234567: "1,234,567", -1.5: "-1.50", -12345: "-12,345"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}

// sampled are results of which only the processor time is known.
func sampled(values map[ref][]float64) *results {
	res := newResults()
	for k, list := range values {
		for _, v := range list {
			res.add(k, sample{CPU: v})
		}
	}
	return res
}

func TestChecks(t *testing.T) {
	yard, scale := ref{contender: yardstick}, ref{"base", yardstick}
	res := sampled(map[ref][]float64{
		{"row", yardstick}:  {8, 10, 30},
		{"row", "codec"}:    {5},
		{"row", tcp}:        {14, 12, 13},
		{"base", yardstick}: {14.4},
	})
	for _, test := range []struct {
		name  string
		check check
		limit float64
		met   bool
		text  string
	}{
		{"met exactly", atMost(cpu, 13), 13, true, "≤ 13.0 µs"},
		{"absolute", atMost(cpu, 12.9), 12.9, false, "≤ 12.9 µs"},
		{"lower, met", noLess(cpu, 13), 13, true, "≥ 13.0 µs"},
		{"lower", noLess(cpu, 14), 14, false, "≥ 14.0 µs"},
		{"of the yardstick's median", times(cpu, 1.5, yard), 15, true, "≤ 1.5 × yardstick"},
		{"of the yardstick, missed", times(cpu, 1.2, yard), 12, false, "≤ 1.2 × yardstick"},
		{"of a sum", times(cpu, 0.8, yard, ref{contender: "codec"}), 12, false, "≤ 0.8 × (yardstick + codec)"},
		{"beyond", beyond(cpu, 2.5, yard, nil, 0), 12.5, false, "≤ yardstick + 2.5 µs"},
		{"beyond, on a machine half as fast", beyond(cpu, 2.5, yard, &scale, 7.2), 15, true, "≤ yardstick + 2.5 µs × (yardstick in base) / 7.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := res.judge(row{name: "row"}, contender{name: tcp, checks: []check{test.check}})[0]
			if v.Value == nil || *v.Value != 13 {
				t.Fatalf("value %v, want the median 13", v.Value)
			}
			if v.Limit == nil || *v.Limit != test.limit || v.Met != test.met || v.Bound != test.text {
				t.Errorf("got %q, limit %v, met %t; want %q, %v, %t", v.Bound, *v.Limit, v.Met, test.text, test.limit, test.met)
			}
		})
	}
}

// A bound of which something is unknown is not met.
func TestCheckWithoutFigures(t *testing.T) {
	c := contender{name: tcp, checks: []check{times(cpu, 1, ref{contender: yardstick})}}
	for name, res := range map[string]*results{
		"no yardstick": sampled(map[ref][]float64{{"row", tcp}: {1}}),
		"no figure":    sampled(map[ref][]float64{{"row", yardstick}: {1}}),
	} {
		v := res.judge(row{name: "row"}, c)[0]
		if v.Met || v.Limit != nil || !strings.Contains(v.Why, "has no figures") {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestNotesOnce(t *testing.T) {
	res := newResults()
	k := ref{"row", tcp}
	for range 3 {
		res.add(k, sample{notes: []string{"generator at its limit"}})
	}
	if got := res.notes[k]; len(got) != 1 {
		t.Errorf("notes %q, want one", got)
	}
}
