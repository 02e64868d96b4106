package pitaya

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// A textFormat is a way to write an exposition.
type textFormat uint8

const (
	formatText          textFormat = iota // Prometheus' text format, version 0.0.4
	formatOpenMetrics                     // OpenMetrics, version 1.0.0
	formatOpenMetrics01                   // the same under the version of its draft, 0.0.1
)

func (f textFormat) contentType() string {
	switch f {
	case formatOpenMetrics:
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	case formatOpenMetrics01:
		return "application/openmetrics-text; version=0.0.1; charset=utf-8"
	default:
		return "text/plain; version=0.0.4; charset=utf-8"
	}
}

// appendExposition appends families, which are in the order of their names.
//
// The names are the same in both formats, whatever a scraper prefers, or a
// dashboard would show something only if it does. So a counter of OpenMetrics,
// whose lines must end in _total, is only what has such a name anyway; others
// are of the type unknown there.
func appendExposition(dst []byte, format textFormat, families []familySample) []byte {
	w := textWriter{dst: dst, open: format != formatText}
	for i := range families {
		w.family(&families[i], families)
	}
	if w.open {
		w.dst = append(w.dst, "# EOF\n"...)
	}
	return w.dst
}

type textWriter struct {
	dst  []byte
	open bool // OpenMetrics
}

func (w *textWriter) family(f *familySample, all []familySample) {
	name, typ := f.name, "counter"
	switch f.kind {
	case kindCounter:
		if w.open {
			base, ok := strings.CutSuffix(f.name, "_total")
			// Go's metrics have a gauge that is named as a counter without _total.
			_, taken := slices.BinarySearchFunc(all, base, func(s familySample, n string) int { return strings.Compare(s.name, n) })
			if ok && !taken {
				name = base
			} else {
				typ = "unknown"
			}
		}
	case kindGauge:
		typ = "gauge"
	case kindSummary:
		typ = "summary"
	case kindHistogram:
		typ = "histogram"
	}
	w.meta("HELP", name)
	w.help(f.help)
	w.meta("TYPE", name)
	w.dst = append(append(w.dst, typ...), '\n')
	if w.open {
		for _, unit := range []string{"bytes", "seconds", "ns"} {
			if strings.HasSuffix(name, "_"+unit) {
				w.meta("UNIT", name)
				w.dst = append(append(w.dst, unit...), '\n')
			}
		}
	}

	for i := range f.series {
		s := &f.series[i]
		switch f.kind {
		case kindCounter, kindGauge:
			w.line(f.name, "", s.labels, "", 0)
			w.number(s.value)
			continue
		case kindSummary:
			for _, q := range s.quantiles {
				w.line(f.name, "", s.labels, "quantile", q.at)
				w.number(q.value)
			}
			w.line(f.name, "_sum", s.labels, "", 0)
			w.number(s.value)
			w.line(f.name, "_count", s.labels, "", 0)
			w.count(s.count)
		case kindHistogram:
			for _, b := range s.buckets {
				w.line(f.name, "_bucket", s.labels, "le", b.at)
				w.count(uint64(b.value))
			}
			w.line(f.name, "_bucket", s.labels, "le", math.Inf(1))
			w.count(s.count)
			w.line(f.name, "_sum", s.labels, "", 0)
			w.number(s.value)
			w.line(f.name, "_count", s.labels, "", 0)
			w.count(s.count)
		}
	}
}

func (w *textWriter) meta(what, name string) {
	w.dst = append(append(append(append(append(w.dst, "# "...), what...), ' '), name...), ' ')
}

// help escapes a text. OpenMetrics wants quotes escaped too.
func (w *textWriter) help(s string) {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			w.dst = append(w.dst, '\\', 'n')
		case c == '\\' || c == '"' && w.open:
			w.dst = append(w.dst, '\\', c)
		default:
			w.dst = append(w.dst, c)
		}
	}
	w.dst = append(w.dst, '\n')
}

// line appends the beginning of a line, up to its value. extra is the name of a
// further label, with a number for value; empty for none.
func (w *textWriter) line(name, suffix, labels, extra string, value float64) {
	w.dst = append(append(w.dst, name...), suffix...)
	if labels != "" || extra != "" {
		w.dst = append(append(w.dst, '{'), labels...)
		if extra != "" {
			if labels != "" {
				w.dst = append(w.dst, ',')
			}
			w.dst = append(append(w.dst, extra...), '=', '"')
			w.float(value)
			w.dst = append(w.dst, '"')
		}
		w.dst = append(w.dst, '}')
	}
	w.dst = append(w.dst, ' ')
}

func (w *textWriter) number(x float64) {
	w.float(x)
	w.dst = append(w.dst, '\n')
}

func (w *textWriter) count(n uint64) {
	w.dst = append(strconv.AppendUint(w.dst, n, 10), '\n')
}

// float appends a number. In OpenMetrics it is recognisably not a whole one.
func (w *textWriter) float(x float64) {
	switch {
	case math.IsInf(x, 1):
		w.dst = append(w.dst, "+Inf"...)
		return
	case math.IsNaN(x) || math.IsInf(x, -1):
		w.dst = strconv.AppendFloat(w.dst, x, 'g', -1, 64)
		return
	}
	begin := len(w.dst)
	w.dst = strconv.AppendFloat(w.dst, x, 'g', -1, 64)
	if w.open && !slices.ContainsFunc(w.dst[begin:], func(c byte) bool { return c == '.' || c == 'e' }) {
		w.dst = append(w.dst, ".0"...)
	}
}
