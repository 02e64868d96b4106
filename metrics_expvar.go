package pitaya

import (
	"math"
	"strconv"
)

// String implements [expvar.Var]: all metrics as a JSON object, by their full
// names. A counter or gauge is a number, a summary or histogram an object with
// count, sum, and quantiles or buckets. A metric with labels of its own is an
// object of these, by its labels written as in the text format. The labels that
// are the same everywhere are left away, and what is not a finite number is
// null.
//
//	expvar.Publish("pitaya", metrics)
func (m *Metrics) String() string {
	b := []byte{'{'}
	for i, f := range m.sample() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONText(b, f.name), ':')
		if len(f.series) == 1 && f.series[0].own == "" {
			b = appendSeriesJSON(b, f.kind, &f.series[0])
			continue
		}
		b = append(b, '{')
		for j := range f.series {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(appendJSONText(b, f.series[j].own), ':')
			b = appendSeriesJSON(b, f.kind, &f.series[j])
		}
		b = append(b, '}')
	}
	return string(append(b, '}'))
}

func appendSeriesJSON(b []byte, kind metricKind, s *seriesSample) []byte {
	if kind == kindCounter || kind == kindGauge {
		return appendJSONNumber(b, s.value)
	}
	b = strconv.AppendUint(append(b, `{"count":`...), s.count, 10)
	b = appendJSONNumber(append(b, `,"sum":`...), s.value)
	points := s.quantiles
	b = append(b, `,"`...)
	if kind == kindSummary {
		b = append(b, `quantiles":{`...)
	} else {
		b = append(b, `buckets":{`...)
		points = s.buckets
	}
	for i, p := range points {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = strconv.AppendFloat(b, p.at, 'g', -1, 64)
		b = appendJSONNumber(append(b, `":`...), p.value)
	}
	return append(b, "}}"...)
}

func appendJSONNumber(b []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, x, 'g', -1, 64)
}
