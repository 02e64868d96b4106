package pitaya

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// meters are the reporters of one server, and the time series in them that were
// looked up: what is reported for each message needs no look-up by labels. A nil
// one reports nothing.
//
// Labels are bounded. A route is either one that this server knows, because it
// has a handler for it, has it in its dictionary, calls it, or has seen another
// server answer it, or it is reported as unknownRoute: else each text that a
// client makes up would be a time series for ever.
type meters struct {
	// Immutable.
	reporters []Reporter
	recovered func(v any) // is told of the panics of reporters
	unknown   *routeMeter
	mailbox   meterSeries

	mu      sync.RWMutex // guards the fields below
	routes  map[string]*routeMeter
	learned int // how many of them are not the server's own
}

const (
	// unknownRoute cannot be a route, which has two parts at least.
	unknownRoute = "unknown"
	// maxRoutes bounds the routes that are told apart besides the server's own.
	maxRoutes = 1 << 10
	// otherCode stands for the codes of a route beyond maxCodes: a code is the
	// application's, and may be made of anything.
	otherCode = "other"
	maxCodes  = 64
)

// newMeters returns meters for the reporters, nil if there are none.
func newMeters(list []Reporter, recovered func(v any)) *meters {
	if len(list) == 0 {
		return nil
	}
	m := &meters{reporters: list, recovered: recovered, routes: make(map[string]*routeMeter)}
	m.unknown = &routeMeter{meters: m, route: unknownRoute}
	m.mailbox = m.series(reportObserve, metricMailboxTime)
	return m
}

// A meterSeries is one time series of all reporters.
type meterSeries []func(float64)

func (s meterSeries) report(v float64) {
	for _, f := range s {
		f(v)
	}
}

// series looks a time series up.
func (m *meters) series(kind, name string, labels ...Label) meterSeries {
	if m == nil {
		return nil
	}
	s := make(meterSeries, 0, len(m.reporters))
	for _, r := range m.reporters {
		if own, ok := r.(seriesReporter); ok {
			s = append(s, own.series(kind, name, labels...))
			continue
		}
		own := slices.Clone(labels)
		s = append(s, func(v float64) { m.reportTo(r, kind, name, v, own) })
	}
	return s
}

// report reports one value to all reporters.
func (m *meters) report(kind, name string, v float64, labels ...Label) {
	if m == nil {
		return
	}
	for _, r := range m.reporters {
		m.reportTo(r, kind, name, v, labels)
	}
}

// reportTo calls a reporter, which may be the application's and panic.
func (m *meters) reportTo(r Reporter, kind, name string, v float64, labels []Label) {
	defer func() {
		if p := recover(); p != nil {
			m.recovered(p)
		}
	}()
	switch kind {
	case reportCount:
		r.Count(name, v, labels...)
	case reportGauge:
		r.Gauge(name, v, labels...)
	case reportObserve:
		r.Observe(name, v, labels...)
	}
}

// gauge sets a gauge.
func (m *meters) gauge(name string, v float64, labels ...Label) {
	m.report(reportGauge, name, v, labels...)
}

// mailboxTime reports how long the oldest of the messages that a worker takes
// out of a mailbox has waited there.
func (m *meters) mailboxTime(d time.Duration) {
	if m != nil {
		m.mailbox.report(float64(d))
	}
}

// known returns what reports about a route, if this server knows it, and else
// about the unknown ones.
func (m *meters) known(route string) *routeMeter {
	if m == nil {
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r := m.routes[route]; r != nil {
		return r
	}
	return m.unknown
}

// learn is known for a route that exists.
func (m *meters) learn(route string) *routeMeter {
	if r := m.known(route); m == nil || r != m.unknown {
		return r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.routes[route]
	switch {
	case r != nil:
	case m.learned >= maxRoutes:
		r = m.unknown
	default:
		r = &routeMeter{meters: m, route: route}
		m.routes[route] = r
		m.learned++
	}
	return r
}

// teach is learn for the routes of the server itself, which do not count toward
// the bound.
func (m *meters) teach(route string) *routeMeter {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.routes[route]
	if r == nil {
		r = &routeMeter{meters: m, route: route}
		m.routes[route] = r
	}
	return r
}

// responseKind is the label "type" of response_time_ns.
type responseKind uint8

const (
	responseHandler   responseKind = iota // a message of an own client
	responseRPC                           // a call to another server
	responseForwarded                     // a message that a frontend has sent on to this server
	responseRemote                        // a remote that was called here
	responseKinds
)

func (k responseKind) String() string {
	return [...]string{"handler", "rpc", "forwarded", "remote"}[k]
}

// delayKind is the label "type" of handler_delay_ns.
type delayKind uint8

const (
	delayLocal     delayKind = iota // until a handler for an own client's message
	delayRemote                     // until an own client's message is sent on to another server
	delayForwarded                  // until a handler for a message that a frontend has sent on
	delayKinds
)

func (k delayKind) String() string { return [...]string{"local", "remote", "forwarded"}[k] }

// A routeMeter reports about the messages of one route.
type routeMeter struct {
	// Immutable.
	meters *meters
	route  string

	ok     [responseKinds]atomic.Pointer[responseMeter] // nil until it is first used
	delays [delayKinds]atomic.Pointer[meterSeries]      // likewise

	mu     sync.Mutex // guards the field below
	failed map[responseKey]*responseMeter
}

type responseKey struct {
	kind responseKind
	code string
}

// A responseMeter is response_time_ns of one route, type and code.
type responseMeter struct {
	route  *routeMeter
	kind   responseKind
	tags   map[string]string
	series meterSeries
}

// response returns what reports about answers with the given code, which is
// empty for success. tags are those of the call; usually there are none.
func (r *routeMeter) response(kind responseKind, code string, tags map[string]string) *responseMeter {
	switch {
	case r == nil:
		return nil
	case len(tags) > 0:
		return r.newResponse(kind, code, tags)
	case code == "":
		p := r.ok[kind].Load()
		if p == nil {
			p = r.newResponse(kind, "", nil)
			r.ok[kind].Store(p) // whoever else has made one, it is the same series
		}
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.failed[responseKey{kind, code}]; p != nil {
		return p
	}
	if len(r.failed) >= maxCodes {
		code = otherCode
		if p := r.failed[responseKey{kind, code}]; p != nil {
			return p
		}
	}
	if r.failed == nil {
		r.failed = make(map[responseKey]*responseMeter)
	}
	p := r.newResponse(kind, code, nil)
	r.failed[responseKey{kind, code}] = p
	return p
}

func (r *routeMeter) newResponse(kind responseKind, code string, tags map[string]string) *responseMeter {
	status := "ok"
	if code != "" {
		status = "failed"
	}
	labels := withTags(tags, Label{"route", r.route}, Label{"status", status}, Label{"type", kind.String()}, Label{"code", code})
	return &responseMeter{
		route: r, kind: kind, tags: tags,
		series: r.meters.series(reportObserve, metricResponseTime, labels...),
	}
}

// report reports one answer.
func (p *responseMeter) report(took time.Duration) {
	if p != nil {
		p.series.report(float64(took))
	}
}

// failed is report for an answer that ended with another code after all.
func (p *responseMeter) failed(took time.Duration, code string) {
	p.route.response(p.kind, code, p.tags).report(took)
}

// delay reports how long a message has waited for its turn.
func (r *routeMeter) delay(kind delayKind, waited time.Duration, tags map[string]string) {
	if r == nil {
		return
	}
	p := r.delays[kind].Load()
	if p == nil || len(tags) > 0 {
		s := r.meters.series(reportObserve, metricHandlerDelay, withTags(tags, Label{"route", r.route}, Label{"type", kind.String()})...)
		p = &s
		if len(tags) == 0 {
			r.delays[kind].Store(p)
		}
	}
	p.report(float64(waited))
}

// job reports one run of a job.
func (r *routeMeter) job(status string, took time.Duration) {
	if r != nil {
		r.meters.report(reportObserve, metricJobTime, float64(took), Label{"route", r.route}, Label{"status", status})
	}
}

// withTags returns labels and tags, of which a tag goes before a label of the
// same name.
func withTags(tags map[string]string, labels ...Label) []Label {
	for i, l := range labels {
		if v, ok := tags[l.Name]; ok {
			labels[i].Value = v
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if !slices.ContainsFunc(labels, func(l Label) bool { return l.Name == name }) {
			labels = append(labels, Label{name, tags[name]})
		}
	}
	return labels
}

// A growth reports how much counters have grown since it was last asked. It may
// be asked by several goroutines at once, and tells each unit once.
type growth struct {
	series meterSeries
	value  func() int64
	told   atomic.Int64
}

// newGrowth returns a growth of one counter.
func (m *meters) newGrowth(c counterMetric) *growth {
	return &growth{series: m.series(reportCount, c.Name, c.Labels...), value: c.Value}
}

func (g *growth) report() {
	for {
		told := g.told.Load()
		now := g.value()
		if now <= told {
			return
		}
		if g.told.CompareAndSwap(told, now) {
			g.series.report(float64(now - told))
			return
		}
	}
}
