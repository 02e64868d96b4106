package pitaya

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A metricKind is what a metric is in an exposition.
type metricKind uint8

const (
	kindCounter metricKind = iota
	kindGauge
	kindSummary
	kindHistogram
)

// report is the method of [Reporter] that feeds metrics of the kind.
func (k metricKind) report() string {
	switch k {
	case kindCounter:
		return reportCount
	case kindGauge:
		return reportGauge
	default:
		return reportObserve
	}
}

// A metricDecl declares one metric.
type metricDecl struct {
	Name      string // as reporters are told
	Subsystem string
	Suffix    string // of the full name
	Kind      metricKind
	Labels    []string
	Quantiles []float64 // of a summary
	Buckets   []float64 // of a histogram: upper bounds, rising, without +Inf
	Help      string
}

// fullName is the name in an exposition.
func (d *metricDecl) fullName() string {
	if d.Subsystem == "" {
		return "pitaya_" + d.Name + d.Suffix
	}
	return "pitaya_" + d.Subsystem + "_" + d.Name + d.Suffix
}

// sampleNames are the names that the lines of the metric can have, in any
// format. Those of two metrics must not meet.
func (d *metricDecl) sampleNames() []string {
	name := d.fullName()
	switch d.Kind {
	case kindSummary:
		return []string{name, name + "_sum", name + "_count"}
	case kindHistogram:
		return []string{name, name + "_sum", name + "_count", name + "_bucket"}
	default:
		return []string{name}
	}
}

// builtinMetrics are the metrics that the library reports. Those of Pitaya have
// its names, labels, quantiles and buckets.
//
// In Pitaya channel_capacity never appears, and response_time_ns has a
// histogram besides the summary that is never fed and would have the same name.
// Here it appears under a name of its own, after the pattern of Pitaya v2
// (channel_capacity_histogram). Its bounds, 1 to 10,000, are read as
// milliseconds: as nanoseconds all would be above the last.
func builtinMetrics() []metricDecl {
	quantiles := []float64{0.7, 0.95, 0.99}
	const ms = 1e6
	return []metricDecl{
		{Name: metricResponseTime, Subsystem: "handler", Kind: kindSummary, Labels: []string{"route", "status", "type", "code"},
			Quantiles: quantiles, Help: "Time in nanoseconds from the arrival of a message to its answer, or from a call to its answer."},
		{Name: metricResponseTime, Subsystem: "handler", Suffix: "_histogram", Kind: kindHistogram,
			Labels:  []string{"route", "status", "type", "code"},
			Buckets: []float64{1 * ms, 5 * ms, 10 * ms, 50 * ms, 100 * ms, 300 * ms, 500 * ms, 1000 * ms, 5000 * ms, 10000 * ms},
			Help:    "The same as a histogram, which can be added up over servers."},
		{Name: metricHandlerDelay, Subsystem: "handler", Kind: kindSummary, Labels: []string{"route", "type"}, Quantiles: quantiles,
			Help: "Time in nanoseconds that a message of a client waited until it was handled."},
		{Name: metricConnectedClients, Subsystem: "acceptor", Kind: kindGauge, Help: "Clients that are connected."},
		{Name: metricRateLimited, Subsystem: "acceptor", Kind: kindCounter, Help: "Packets of clients dropped by the rate limit."},
		{Name: metricServers, Subsystem: "service_discovery", Kind: kindGauge, Labels: []string{"type"},
			Help: "Servers known of each type."},
		{Name: metricChannelCapacity, Subsystem: "channel", Kind: kindHistogram, Labels: []string{"channel"},
			Buckets: []float64{0, 1, 10, 50, 100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 5000},
			Help:    "Free places in a queue inside the server; 0 means full."},
		{Name: metricDroppedMessages, Subsystem: "rpc_server", Kind: kindGauge,
			Help: "Messages dropped by the NATS client since it was made because the server did not take them."},
		{Name: metricBusyWorkers, Subsystem: "worker_pool", Kind: kindGauge, Labels: []string{"pool"}, Help: "Workers of a pool that are busy."},
		{Name: metricTotalWorkers, Subsystem: "worker_pool", Kind: kindGauge, Labels: []string{"pool"}, Help: "Workers that a pool may have."},
		{Name: metricGoroutines, Subsystem: "sys", Kind: kindGauge, Help: "Goroutines of the process."},
		{Name: metricHeapSize, Subsystem: "sys", Kind: kindGauge, Help: "Bytes allocated on the heap."},
		{Name: metricHeapObjects, Subsystem: "sys", Kind: kindGauge, Help: "Objects allocated on the heap."},
		{Name: metricWorkerJobs, Subsystem: "worker", Kind: kindGauge, Labels: []string{"status"}, Help: "Runs of jobs by the worker of this server, by how they ended."},
		{Name: metricWorkerRetries, Subsystem: "worker", Kind: kindGauge, Help: "Jobs that have failed and wait to be tried again, of all servers."},
		{Name: metricWorkerQueue, Subsystem: "worker", Kind: kindGauge, Labels: []string{"queue"}, Help: "Jobs that wait or are dead, of all servers."},

		{Name: metricReceivedBytes, Subsystem: "acceptor", Kind: kindCounter, Help: "Bytes received from clients."},
		{Name: metricSentBytes, Subsystem: "acceptor", Kind: kindCounter, Help: "Bytes sent to clients."},
		{Name: metricReceivedPackets, Subsystem: "acceptor", Kind: kindCounter, Help: "Packets received from clients."},
		{Name: metricSentPackets, Subsystem: "acceptor", Kind: kindCounter, Help: "Packets sent to clients."},
		{Name: metricAccepted, Subsystem: "acceptor", Kind: kindCounter, Help: "Connections accepted."},
		{Name: metricClosed, Subsystem: "acceptor", Kind: kindCounter, Help: "Accepted connections that have ended."},
		{Name: metricRefusedConns, Subsystem: "acceptor", Kind: kindCounter, Help: "Connections closed at once because of a limit."},
		{Name: metricRefusedHandshakes, Subsystem: "acceptor", Kind: kindCounter, Labels: []string{"reason"},
			Help: "Handshakes of clients that were refused, by reason."},
		{Name: metricSlowClients, Subsystem: "acceptor", Kind: kindCounter, Help: "Clients closed because they did not read what they were sent."},
		{Name: metricViolations, Subsystem: "acceptor", Kind: kindCounter, Help: "Connections ended because the client broke the protocol."},
		{Name: metricDroppedPushes, Subsystem: "acceptor", Kind: kindCounter, Help: "Pushes dropped because a client was slow."},
		{Name: metricQueueBytes, Subsystem: "acceptor", Kind: kindGauge, Help: "Bytes that wait to be sent to clients."},
		{Name: metricSessionsBound, Subsystem: "acceptor", Kind: kindGauge, Help: "Sessions that are bound to a user."},
		{Name: metricSessionsWaiting, Subsystem: "acceptor", Kind: kindGauge, Help: "Sessions that wait for their clients to come back."},
		{Name: metricResumed, Subsystem: "acceptor", Kind: kindCounter, Help: "Sessions that went on with another connection."},
		{Name: metricNotResumed, Subsystem: "acceptor", Kind: kindCounter, Labels: []string{"reason"},
			Help: "Clients that wanted their session back and got a new one, by the reason."},

		{Name: metricRequests, Subsystem: "handler", Kind: kindCounter, Help: "Requests of clients."},
		{Name: metricNotifies, Subsystem: "handler", Kind: kindCounter, Help: "Notifies of clients."},
		{Name: metricAnswered, Subsystem: "handler", Kind: kindCounter, Help: "Requests answered with a result."},
		{Name: metricFailed, Subsystem: "handler", Kind: kindCounter, Help: "Requests answered with an error."},
		{Name: metricUnanswerable, Subsystem: "handler", Kind: kindCounter, Help: "Requests with id 0, which cannot be answered."},
		{Name: metricLost, Subsystem: "handler", Kind: kindCounter, Help: "Requests whose connection ended before the answer."},
		{Name: metricPanics, Subsystem: "handler", Kind: kindCounter, Help: "Panics of the application that were recovered."},
		{Name: metricSlowHandlers, Subsystem: "handler", Kind: kindCounter, Help: "Calls of handlers that took longer than the setting."},
		{Name: metricPushes, Subsystem: "handler", Kind: kindCounter, Help: "Pushes queued for clients."},
		{Name: metricMailboxTime, Subsystem: "handler", Kind: kindSummary, Quantiles: quantiles,
			Help: "Time in nanoseconds that a message waited in the mailbox of its session."},

		{Name: metricRefused, Subsystem: "admission", Kind: kindCounter, Labels: []string{"by"}, Help: "Messages refused, by the limit that refused them."},

		{Name: metricReconnects, Subsystem: "cluster", Kind: kindCounter, Labels: []string{"to"}, Help: "Connections made again, to nats or etcd."},
		{Name: metricForwards, Subsystem: "cluster", Kind: kindCounter, Help: "Messages of clients sent on to other servers."},
		{Name: metricCalls, Subsystem: "cluster", Kind: kindCounter, Help: "Calls taken in from other servers."},
		{Name: metricMultiPushes, Subsystem: "cluster", Kind: kindCounter, Help: "Messages to other frontends that carry one push for many users."},
		{Name: metricNATSDropped, Subsystem: "cluster", Kind: kindCounter, Labels: []string{"subscription"},
			Help: "Messages dropped by the NATS client because the server did not take them, by subscription."},

		{Name: metricJobsEnqueued, Subsystem: "worker", Kind: kindCounter, Help: "Reliable RPCs that were enqueued."},
		{Name: metricJobsRetried, Subsystem: "worker", Kind: kindCounter, Help: "Jobs that failed and will be tried again."},
		{Name: metricJobsDead, Subsystem: "worker", Kind: kindCounter, Help: "Jobs that were given up."},
		{Name: metricJobTime, Subsystem: "worker", Kind: kindSummary, Labels: []string{"route", "status"}, Quantiles: quantiles,
			Help: "Time in nanoseconds that one run of a job took."},

		{Name: metricDroppedReports, Subsystem: "metrics", Kind: kindCounter, Labels: []string{"reason"},
			Help: "Reports that could not be kept as they are, by reason."},
	}
}

// defaultBuckets are the bounds of a custom histogram that declares none: those
// of Prometheus' client library.
func defaultBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

// customMetrics are the declarations of the application.
func customMetrics(c *CustomMetrics) []metricDecl {
	var decls []metricDecl
	add := func(kind metricKind, list []CustomMetric) {
		for _, m := range list {
			d := metricDecl{
				Name: m.Name, Subsystem: m.Subsystem, Kind: kind, Labels: slices.Clone(m.Labels),
				Quantiles: slices.Sorted(maps.Keys(m.Objectives)), Buckets: slices.Clone(m.Buckets), Help: legalText(m.Help),
			}
			if kind == kindHistogram && len(d.Buckets) == 0 {
				d.Buckets = defaultBuckets()
			}
			decls = append(decls, d)
		}
	}
	add(kindCounter, c.Counters)
	add(kindGauge, c.Gauges)
	add(kindHistogram, c.Histograms)
	add(kindSummary, c.Summaries)
	return decls
}

// checkedMetrics checks settings as a server does and returns them with their
// defaults.
func checkedMetrics(cfg MetricsConfig) (MetricsConfig, error) {
	c := Config{Metrics: cfg}
	if err := c.Validate(); err != nil {
		return MetricsConfig{}, err
	}
	return c.withDefaults().Metrics, nil
}

// constLabels are the labels of all metrics of a server. Those that are set
// twice have the library's value, as in Pitaya.
func constLabels(serverType string, cfg MetricsConfig) map[string]string {
	m := maps.Clone(cfg.ConstLabels)
	if m == nil {
		m = make(map[string]string)
	}
	m["game"], m["serverType"] = cfg.Game, serverType
	return m
}

// checkDeclared reports what is wrong with the labels of cfg and with custom
// metrics beside the built-in ones, apart from what [Config.Validate] finds. A
// metric must be found by its name and the method it is reported with, and no
// two lines of an exposition may be the same.
func checkDeclared(constant map[string]string, cfg MetricsConfig, builtin, custom []metricDecl) error {
	c := declaredCheck{constant: constant, additional: cfg.AdditionalLabels, builtin: builtin,
		lines: make(map[string]string), fed: make(map[declaredReport]metricDecl)}
	c.settings()
	for i := range builtin {
		d := &builtin[i]
		if err := c.enter(d); err != nil {
			c.errs = append(c.errs, err) // of this file's making
		}
		c.fed[declaredReport{d.Name, d.Kind.report()}] = *d
	}
	for i := range custom {
		c.custom(&custom[i])
	}
	return errors.Join(c.errs...)
}

// declaredCheck is what checkDeclared has seen.
type declaredCheck struct {
	constant, additional map[string]string // labels of the settings
	builtin              []metricDecl
	lines                map[string]string             // names of samples, to the metric
	fed                  map[declaredReport]metricDecl // what one report feeds
	errs                 []error
}

// A declaredReport is what a metric is found by: its name, and the method that
// reports it.
type declaredReport struct{ name, kind string }

func (c *declaredCheck) report(setting, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("pitaya: %s%s: %s", configPrefix, setting, fmt.Sprintf(format, args...)))
}

// reservedLabel returns why a label cannot be one of a metric, "" if it can.
func reservedLabel(label string) string {
	switch {
	case strings.HasPrefix(label, "__"):
		return "names that begin with __ are Prometheus' own"
	case label == "quantile" || label == "le":
		return "summaries and histograms have such a label themselves"
	}
	return ""
}

// settings checks the labels that the settings add to all metrics. The built-in
// ones are as they are: what is added must not meet their labels.
func (c *declaredCheck) settings() {
	own := make(map[string]string)
	for _, d := range c.builtin {
		for _, l := range d.Labels {
			own[l] = d.Name
		}
	}
	for _, list := range []struct {
		setting string
		labels  map[string]string
	}{
		{"metrics.constlabels", c.constant},
		{"metrics.additionallabels", c.additional},
	} {
		for _, l := range slices.Sorted(maps.Keys(list.labels)) {
			if why := reservedLabel(l); why != "" {
				c.report(list.setting, "label %q: %s", l, why)
			}
			if by := own[l]; by != "" {
				c.report(list.setting, "label %q: the metric %s has such a label itself", l, by)
			}
			if _, ok := c.constant[l]; ok && list.setting == "metrics.additionallabels" {
				c.report(list.setting, "label %q: all metrics have it with a value that is always the same", l)
			}
		}
	}
}

// enter notes the names of a metric's samples, unless one of them is taken.
func (c *declaredCheck) enter(d *metricDecl) error {
	for _, n := range d.sampleNames() {
		if by := c.lines[n]; by != "" {
			return fmt.Errorf("its line %s is one of the metric %s", n, by)
		}
	}
	for _, n := range d.sampleNames() {
		c.lines[n] = d.fullName()
	}
	return nil
}

// custom checks a metric of the application's.
func (c *declaredCheck) custom(d *metricDecl) {
	bad := func(format string, args ...any) {
		c.report("metrics.custom", "%s: %s", d.fullName(), fmt.Sprintf(format, args...))
	}
	if err := c.enter(d); err != nil {
		bad("%v", err)
	}
	key := declaredReport{d.Name, d.Kind.report()}
	if other, ok := c.fed[key]; ok {
		switch {
		case slices.ContainsFunc(c.builtin, func(b metricDecl) bool { return b.Name == d.Name }):
			bad("the library reports a metric of that name itself")
		case other.Kind == d.Kind:
			bad("reports could not tell it from %s", other.fullName())
		case !slices.Equal(other.Labels, d.Labels):
			bad("%s gets the same reports and has other labels", other.fullName())
		}
	}
	c.fed[key] = *d
	for i, l := range d.Labels {
		_, isConst := c.constant[l]
		_, isAdditional := c.additional[l]
		why := reservedLabel(l)
		switch {
		case why != "":
			bad("label %q: %s", l, why)
		case slices.Contains(d.Labels[:i], l):
			bad("label %q is there twice", l)
		case isConst || isAdditional:
			bad("label %q: all metrics have it", l)
		}
	}
}
