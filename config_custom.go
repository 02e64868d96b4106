package pitaya

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// configCustom is the declaration of custom metrics, a JSON object.
type configCustom struct{ p *CustomMetrics }

func (v configCustom) kind() string { return "JSON object" }

func (v configCustom) isZero() bool {
	return len(v.p.Counters)+len(v.p.Gauges)+len(v.p.Histograms)+len(v.p.Summaries) == 0
}

func (v configCustom) fill() {
	for _, list := range v.p.lists() {
		*list.p = slices.Clone(*list.p)
	}
}

func (v configCustom) text() string {
	if v.isZero() {
		return ""
	}
	b, _ := json.Marshal(v.p) // fails on what check refuses
	return string(b)
}

func (v configCustom) set(text string) error {
	var m CustomMetrics
	if strings.TrimSpace(text) != "" {
		seen := make(map[string]bool)
		for _, mem := range jsonMembers([]byte(text), 0) {
			if name := strings.ToLower(mem.name); seen[name] {
				return fmt.Errorf("has %q twice", clipConfig(name))
			} else {
				seen[name] = true
			}
		}
		dec := json.NewDecoder(strings.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&m); err != nil {
			return err
		}
		if dec.More() {
			return errors.New("has something after the JSON object")
		}
	}
	*v.p = m
	return v.check()
}

func (v configCustom) check() error {
	seen := make(map[string]bool)
	for _, list := range v.p.lists() {
		for _, m := range *list.p {
			name := strings.Trim(m.Subsystem+"_"+m.Name, "_")
			var err error
			switch {
			case !isMetricName(m.Name) || m.Subsystem != "" && !isMetricName(m.Subsystem):
				err = errors.New("the name may have letters, digits and _ only")
			case seen[name]:
				err = errors.New("declared twice")
			case len(m.Buckets) > 0 && list.name != "histograms":
				err = errors.New("only histograms have buckets")
			case len(m.Objectives) > 0 && list.name != "summaries":
				err = errors.New("only summaries have objectives")
			case slices.ContainsFunc(m.Labels, func(l string) bool { return !isMetricName(l) }):
				err = errors.New("labels may have letters, digits and _ only")
			}
			for i, b := range m.Buckets {
				if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= m.Buckets[i-1] {
					err = errors.New("buckets must rise")
				}
			}
			for q, e := range m.Objectives {
				if !(q >= 0 && q <= 1 && e >= 0 && e <= 1) { // not a number fails too
					err = errors.New("objectives must be quantiles from 0 to 1 and their errors")
				}
			}
			if err != nil {
				return fmt.Errorf("%s: %q: %w", list.name, name, err)
			}
			seen[name] = true
		}
	}
	return nil
}

type customList struct {
	name string
	p    *[]CustomMetric
}

func (m *CustomMetrics) lists() []customList {
	return []customList{
		{"counters", &m.Counters}, {"gauges", &m.Gauges}, {"histograms", &m.Histograms}, {"summaries", &m.Summaries},
	}
}

// isMetricName is whether Prometheus takes s as the name of a label and as part of the name of a metric.
func isMetricName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

// Objectives are the quantiles of a summary and the error that each may have. In JSON the quantiles are the names of
// an object: {"0.5": 0.05, "0.99": 0.001}.
type Objectives map[float64]float64

// MarshalJSON implements [json.Marshaler].
func (o Objectives) MarshalJSON() ([]byte, error) {
	m := make(map[string]float64, len(o))
	for q, e := range o {
		m[strconv.FormatFloat(q, 'g', -1, 64)] = e
	}
	return json.Marshal(m)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (o *Objectives) UnmarshalJSON(b []byte) error {
	var m map[string]float64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*o = make(Objectives, len(m))
	for s, e := range m {
		q, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("quantile %q is not a number", s)
		}
		(*o)[q] = e
	}
	return nil
}
