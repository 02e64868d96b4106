package pitaya

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
)

// Metrics is a [Reporter] that keeps the numbers, for those who come to fetch
// them: it is an [net/http.Handler] that writes them for Prometheus and its
// kin, and an [expvar.Var]. All methods may be called by any number of
// goroutines at once.
//
// It knows the metrics that the library reports, under the names of Pitaya
// (pitaya_handler_response_time_ns), those that MetricsConfig.Custom declares,
// and the usual ones of a Go process (go_…, process_…; the latter on Linux).
// Each metric but those of the process has the labels game, serverType and
// MetricsConfig.ConstLabels, with the same values always, and
// MetricsConfig.AdditionalLabels, which a report may set.
//
// No report fails. Labels that the metric does not have are left away, and
// those that are missing are empty, or what AdditionalLabels says. What cannot
// be kept is counted in pitaya_metrics_dropped_reports, by reason: unknown (no
// such metric, or one that another method reports), value (not a finite number,
// or a counter that would fall), series (see below). Nothing is logged.
//
// A metric has at most 2,000 time series. Beyond that, counts and observations
// go to one series whose labels are all "other", so that sums stay right, and
// gauges are dropped. Values of labels are UTF-8 of up to 512 bytes; what is
// not is made so.
//
// A summary's quantiles are of the last ten minutes, within 1.6 % of the true
// value; its sum and count, and histograms, are since the start.
type Metrics struct {
	// Immutable after NewMetrics.
	counters, gauges, distributions map[string]*metricVector // by the name that reporters are told
	families                        []*metricFamily          // by full name
	drops                           *metricVector
	droppedUnknown, droppedValue    *metricSeries
	droppedSeries                   *metricSeries

	pools textPools

	mu    sync.Mutex    // guards the field below
	hooks []*scrapeHook // replaced, never changed
}

// A metricFamily is what an exposition makes of a vector. A vector that is
// reported as a summary and as a histogram has two.
type metricFamily struct {
	name, help string
	kind       metricKind
	vector     *metricVector
}

// NewMetrics makes one with all metrics at rest. Of cfg it uses Game, the
// labels and Custom. The error joins all that is wrong with them: what
// [Config.Validate] finds, labels that a metric would have twice, and custom
// metrics that could not be told from another one, by its reports or in the
// exposition.
func NewMetrics(serverType string, cfg MetricsConfig) (*Metrics, error) {
	cfg.Prometheus.Enabled = true // its labels are checked then
	cfg, err := checkedMetrics(cfg)
	if err != nil {
		return nil, err
	}
	constant := constLabels(serverType, cfg)
	builtin, custom := builtinMetrics(), customMetrics(&cfg.Custom)
	if err := checkDeclared(constant, cfg, builtin, custom); err != nil {
		return nil, err
	}

	m := &Metrics{
		counters:      make(map[string]*metricVector),
		gauges:        make(map[string]*metricVector),
		distributions: make(map[string]*metricVector),
	}
	var constants []string
	for _, name := range slices.Sorted(maps.Keys(constant)) {
		constants = append(constants, name, legalValue(constant[name]))
	}
	additional := slices.Sorted(maps.Keys(cfg.AdditionalLabels))
	for _, d := range slices.Concat(builtin, custom) {
		vectors := m.vectors(d.Kind.report())
		v := vectors[d.Name]
		if v == nil {
			defaults := make([]string, len(d.Labels), len(d.Labels)+len(additional))
			for _, l := range additional {
				defaults = append(defaults, legalValue(cfg.AdditionalLabels[l]))
			}
			v = newMetricVector(slices.Concat(d.Labels, additional), defaults, constants, d.Kind != kindGauge)
			vectors[d.Name] = v
		}
		switch d.Kind {
		case kindSummary:
			v.quantiles = d.Quantiles
		case kindHistogram:
			v.histogram, v.bounds = true, d.Buckets
		}
		m.families = append(m.families, &metricFamily{name: d.fullName(), help: d.Help, kind: d.Kind, vector: v})
	}
	slices.SortFunc(m.families, func(a, b *metricFamily) int { return strings.Compare(a.name, b.name) })

	// A counter that is there from the start lets its first step be seen. Others
	// can only begin when their labels are known.
	for _, v := range m.counters {
		if len(v.labels) == 0 {
			v.find(nil)
		}
	}
	m.drops = m.counters[metricDroppedReports]
	m.droppedUnknown, _ = m.drops.find([]Label{{"reason", "unknown"}})
	m.droppedValue, _ = m.drops.find([]Label{{"reason", "value"}})
	m.droppedSeries, _ = m.drops.find([]Label{{"reason", "series"}})
	return m, nil
}

// vectors are the metrics that a method reports.
func (m *Metrics) vectors(kind string) map[string]*metricVector {
	switch kind {
	case reportCount:
		return m.counters
	case reportGauge:
		return m.gauges
	default:
		return m.distributions
	}
}

// Count implements [Reporter]. A delta below zero is dropped.
func (m *Metrics) Count(name string, delta float64, labels ...Label) {
	if s := m.find(m.counters[name], labels); s != nil {
		m.count(s, delta)
	}
}

// Gauge implements [Reporter].
func (m *Metrics) Gauge(name string, value float64, labels ...Label) {
	if s := m.find(m.gauges[name], labels); s != nil {
		s.number.Store(math.Float64bits(value))
	}
}

// Observe implements [Reporter].
func (m *Metrics) Observe(name string, value float64, labels ...Label) {
	v := m.distributions[name]
	if s := m.find(v, labels); s != nil {
		m.observe(v, s, value)
	}
}

// find returns the series for a report, nil if there is none. v may be nil. A
// report that is not kept as it is, is counted.
func (m *Metrics) find(v *metricVector, labels []Label) *metricSeries {
	if v == nil {
		addFloat(&m.droppedUnknown.number, 1)
		return nil
	}
	s, exact := v.find(labels)
	if !exact {
		addFloat(&m.droppedSeries.number, 1)
	}
	return s
}

func (m *Metrics) count(s *metricSeries, delta float64) {
	if !(delta >= 0 && delta <= math.MaxFloat64) { // not a number fails too
		addFloat(&m.droppedValue.number, 1)
		return
	}
	addFloat(&s.number, delta)
}

func (m *Metrics) observe(v *metricVector, s *metricSeries, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		addFloat(&m.droppedValue.number, 1)
		return
	}
	v.observe(s, value)
}

// series implements [seriesReporter].
func (m *Metrics) series(kind, name string, labels ...Label) func(float64) {
	v := m.vectors(kind)[name]
	if v == nil {
		return func(float64) { addFloat(&m.droppedUnknown.number, 1) }
	}
	s, exact := v.find(labels)
	switch {
	case !exact: // counted as dropped each time
		labels = slices.Clone(labels)
		return func(x float64) {
			switch kind {
			case reportCount:
				m.Count(name, x, labels...)
			case reportGauge:
				m.Gauge(name, x, labels...)
			default:
				m.Observe(name, x, labels...)
			}
		}
	case kind == reportCount:
		return func(delta float64) { m.count(s, delta) }
	case kind == reportGauge:
		return func(value float64) { s.number.Store(math.Float64bits(value)) }
	default:
		return func(value float64) { m.observe(v, s, value) }
	}
}

// OnScrape has f called before each exposition, by the goroutine that asked for
// it: for numbers that are kept elsewhere and are to be exact. Several may be
// asked for at once. f may report, and must be quick.
//
// stop ends that, for one whose numbers end before the registry does. f is not
// running any more once stop has returned, so f must not call it; else it may be
// called by any goroutine, and more than once.
func (m *Metrics) OnScrape(f func()) (stop func()) {
	h := &scrapeHook{f: f}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hooks = append(slices.Clip(m.hooks), h)
	return func() {
		m.mu.Lock()
		m.hooks = slices.DeleteFunc(slices.Clone(m.hooks), func(other *scrapeHook) bool { return other == h })
		m.mu.Unlock()
		h.end()
	}
}

// A scrapeHook is what is called before an exposition.
type scrapeHook struct {
	f       func() // immutable
	running sync.WaitGroup

	mu   sync.Mutex // guards the field below, and running against an Add after the Wait
	over bool
}

func (h *scrapeHook) call() {
	h.mu.Lock()
	over := h.over
	if !over {
		h.running.Add(1)
	}
	h.mu.Unlock()
	if over {
		return
	}
	defer h.running.Done()
	h.f()
}

// end waits for calls that are under way. There is none after it.
func (h *scrapeHook) end() {
	h.mu.Lock()
	h.over = true
	h.mu.Unlock()
	h.running.Wait()
}

// A familySample is one metric at one time, with all its series.
type familySample struct {
	name, help string
	kind       metricKind
	series     []seriesSample
}

type seriesSample struct {
	labels    string  // without braces
	own       string  // labels that are not the same for all series of the server, the same way
	value     float64 // of a counter or gauge; sum of a distribution
	count     uint64  // observations of a distribution
	quantiles []pointSample
	buckets   []pointSample // of a histogram, without +Inf
}

// sample calls the hooks and returns all metrics, in the order of their names.
func (m *Metrics) sample() []familySample {
	m.mu.Lock()
	hooks := m.hooks
	m.mu.Unlock()
	for _, h := range hooks {
		h.call()
	}
	all := append(goMetrics(), processMetrics()...)
	for _, f := range m.families {
		if s := f.sample(); len(s.series) > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b familySample) int { return strings.Compare(a.name, b.name) })
	return all
}

func (f *metricFamily) sample() familySample {
	sample := familySample{name: f.name, help: f.help, kind: f.kind}
	v := f.vector
	var scratch []windowCell
	list := v.all()
	sample.series = make([]seriesSample, 0, len(list))
	for _, s := range list {
		p := seriesSample{labels: s.text, own: s.own, value: math.Float64frombits(s.number.Load())}
		switch f.kind {
		case kindSummary:
			p.count = s.count.Load()
			if s.window != nil {
				p.quantiles = s.window.quantiles(v.quantiles, p.count, &scratch)
			}
		case kindHistogram:
			// The count is of the buckets, so that the last one is equal to it.
			p.buckets = make([]pointSample, 0, len(v.bounds))
			for i, bound := range v.bounds {
				p.count += s.buckets[i].Load()
				p.buckets = append(p.buckets, pointSample{bound, float64(p.count)})
			}
			p.count += s.buckets[len(v.bounds)].Load()
		}
		sample.series = append(sample.series, p)
	}
	return sample
}
