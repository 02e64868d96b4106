package pitaya

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// maxSeries bounds the time series of one metric, that for all others apart.
// Labels may come from outside, and each series takes memory for good: some 100
// bytes, with quantiles about 10 KB.
const maxSeries = 2000

// otherValue is the value that the labels of that other series have.
const otherValue = "other"

// maxLabelValue bounds the value of a label, in bytes.
const maxLabelValue = 512

// A metricVector is all time series of one metric. Looking one up takes no lock
// and, up to fastLabels labels, does not allocate.
type metricVector struct {
	// Immutable.
	labels    []string // own ones first, then additional ones
	defaults  []string // value of each where a report has none
	constant  []string // labels of all metrics: name, value, name, value
	quantiles []float64
	bounds    []float64
	histogram bool
	folds     bool // reports beyond maxSeries go to the series other
	seed      maphash.Seed

	// table is a hash table with open addressing, at most half full. Series are
	// added to it under mu and never taken out; a larger one replaces it.
	table atomic.Pointer[[]atomic.Pointer[metricSeries]]
	full  atomic.Bool // there are maxSeries
	other atomic.Pointer[metricSeries]

	mu     sync.Mutex // guards adding and the field below
	series []*metricSeries
	sorted bool // series are in the order of the exposition
}

// fastLabels is the number of labels up to which a look-up does not allocate.
const fastLabels = 8

// A metricSeries is one time series: a number, or the numbers of a
// distribution.
type metricSeries struct {
	// Immutable.
	hash   uint64
	values []string // of the labels of its vector
	text   string   // all labels as they are written in an exposition, without braces
	own    string   // the same without those that are constant

	number  atomic.Uint64   // value, or sum of the observations; bits of a float64
	count   atomic.Uint64   // observations
	window  *sampleWindow   // nil without quantiles
	buckets []atomic.Uint64 // observations between two bounds; empty without bounds
}

func newMetricVector(labels, defaults, constant []string, folds bool) *metricVector {
	v := &metricVector{labels: labels, defaults: defaults, constant: constant, folds: folds, seed: maphash.MakeSeed()}
	table := make([]atomic.Pointer[metricSeries], 8)
	v.table.Store(&table)
	return v
}

// find returns the series for labels. exact is false if it is the one for all
// others; it is nil then if the metric has no such series.
func (v *metricVector) find(labels []Label) (s *metricSeries, exact bool) {
	var few [fastLabels]string
	values := few[:]
	if len(v.labels) > len(few) {
		values = make([]string, len(v.labels))
	}
	values = values[:copy(values, v.defaults)]
	at := 0
	for i := range labels {
		// Reports mostly name the labels in their order.
		if at >= len(v.labels) || v.labels[at] != labels[i].Name {
			if at = slices.Index(v.labels, labels[i].Name); at < 0 {
				at = 0
				continue // a label that the metric does not have
			}
		}
		values[at] = labels[i].Value
		at++
	}
	hash := v.hash(values)
	if s := v.lookUp(hash, values); s != nil {
		return s, true
	}
	return v.add(hash, values)
}

func (v *metricVector) hash(values []string) uint64 {
	h := uint64(len(values))
	for _, s := range values {
		h = h*0x9e3779b97f4a7c15 ^ maphash.String(v.seed, s)
	}
	return h
}

func (v *metricVector) lookUp(hash uint64, values []string) *metricSeries {
	table := *v.table.Load()
	mask := uint64(len(table) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := table[i].Load()
		if s == nil {
			return nil
		}
		if s.hash == hash && slices.Equal(s.values, values) {
			return s
		}
	}
}

// add makes the series for values, unless there is one or there are too many.
func (v *metricVector) add(hash uint64, values []string) (s *metricSeries, exact bool) {
	legal := !slices.ContainsFunc(values, func(s string) bool { return !isLegalValue(s) })
	if legal && v.full.Load() {
		return v.other.Load(), false
	}
	clean := make([]string, len(values))
	for i, s := range values {
		clean[i] = legalValue(s)
	}
	if !legal {
		hash = v.hash(clean)
	}

	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.lookUp(hash, clean); s != nil {
		return s, true
	}
	if len(v.series) < maxSeries {
		s := v.newSeries(clean)
		s.hash = hash
		v.insertLocked(s)
		return s, true
	}
	if !v.full.Load() {
		if v.folds {
			others := make([]string, len(v.labels))
			for i := range others {
				others[i] = otherValue
			}
			// It may be there as a series of its own.
			if s := v.lookUp(v.hash(others), others); s != nil {
				v.other.Store(s)
			} else {
				s := v.newSeries(others)
				s.hash = v.hash(others)
				v.insertLocked(s)
				v.other.Store(s)
			}
		}
		v.full.Store(true)
	}
	return v.other.Load(), false
}

// insertLocked enters a series into list and table.
func (v *metricVector) insertLocked(s *metricSeries) {
	table := *v.table.Load()
	if 2*(len(v.series)+1) > len(table) {
		larger := make([]atomic.Pointer[metricSeries], 2*len(table))
		for _, old := range v.series {
			putSeries(larger, old)
		}
		putSeries(larger, s)
		v.table.Store(&larger)
	} else {
		putSeries(table, s)
	}
	v.series = append(v.series, s)
	v.sorted = false
}

func putSeries(table []atomic.Pointer[metricSeries], s *metricSeries) {
	mask := uint64(len(table) - 1)
	i := s.hash & mask
	for table[i].Load() != nil {
		i = (i + 1) & mask
	}
	table[i].Store(s)
}

func (v *metricVector) newSeries(values []string) *metricSeries {
	s := &metricSeries{values: values, text: labelText(v.constant, v.labels, values), own: labelText(nil, v.labels, values)}
	if len(v.quantiles) > 0 {
		s.window = newSampleWindow()
	}
	if v.histogram {
		s.buckets = make([]atomic.Uint64, len(v.bounds)+1)
	}
	return s
}

// labelText writes labels as name="value" with commas between, in the order of
// their names. constant has names and values in turn.
func labelText(constant, labels, values []string) string {
	pairs := make([]Label, 0, len(constant)/2+len(values))
	for i := 0; i < len(constant); i += 2 {
		pairs = append(pairs, Label{constant[i], constant[i+1]})
	}
	for i, value := range values {
		pairs = append(pairs, Label{labels[i], value})
	}
	slices.SortFunc(pairs, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	var text []byte
	for i, p := range pairs {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, p.Name...)
		text = append(text, '=')
		text = appendLabelValue(text, p.Value)
	}
	return string(text)
}

// all returns the series in the order of the exposition. The list must not be
// changed.
func (v *metricVector) all() []*metricSeries {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.sorted {
		// Lists that were returned before stay as they are.
		v.series = slices.Clone(v.series)
		slices.SortFunc(v.series, func(a, b *metricSeries) int { return slices.Compare(a.values, b.values) })
		v.sorted = true
	}
	return v.series[:len(v.series):len(v.series)]
}

// observe adds an observation, which is finite.
func (v *metricVector) observe(s *metricSeries, x float64) {
	addFloat(&s.number, x)
	n := s.count.Add(1)
	if s.window != nil {
		s.window.add(x, n)
	}
	if len(s.buckets) > 0 {
		i, _ := slices.BinarySearch(v.bounds, x) // the first bound that is not below x
		s.buckets[i].Add(1)
	}
}

// addFloat adds to the bits of a float64.
func addFloat(bits *atomic.Uint64, x float64) {
	for {
		old := bits.Load()
		if bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+x)) {
			return
		}
	}
}

func isLegalValue(s string) bool {
	return len(s) <= maxLabelValue && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// legalValue returns s as the value of a label: legal text that is not too long.
// It is a copy.
func legalValue(s string) string {
	if isLegalValue(s) {
		return strings.Clone(s)
	}
	const cut = "…"
	long := len(s) > maxLabelValue
	if long {
		s = s[:maxLabelValue]
	}
	s = legalText(s)
	if long || len(s) > maxLabelValue { // replacing makes it longer
		end := min(len(s), maxLabelValue-len(cut))
		for end > 0 && end < len(s) && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + cut
	}
	return s
}

// legalText returns s as UTF-8 without zero bytes, which some readers of
// expositions take for the end.
func legalText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// appendLabelValue appends a value in quotes. Both formats escape the same.
func appendLabelValue(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '"':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
