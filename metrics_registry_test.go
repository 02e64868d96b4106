package pitaya_test

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

func newMetrics(t testing.TB, cfg pitaya.MetricsConfig) *pitaya.Metrics {
	t.Helper()
	m, err := pitaya.NewMetrics("connector", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// scrape returns an exposition in Prometheus' text format.
func scrape(t testing.TB, m *pitaya.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// wantLines checks the lines of an exposition that begin with prefix, in their order.
func wantLines(t testing.TB, text, prefix string, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("lines with %s:\n%s\nwant:\n%s", prefix, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMetricsLabels(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{
		Game:             "chess",
		ConstLabels:      map[string]string{"env": "prod", "game": "ignored"},
		AdditionalLabels: map[string]string{"shard": "none"},
	})
	m.Gauge("connected_clients", 3)
	m.Gauge("connected_clients", 2)
	m.Gauge("connected_clients", 7, pitaya.Label{Name: "shard", Value: "b"})
	m.Count("refused", 1, pitaya.Label{Name: "by", Value: "session"})
	m.Count("refused", 0.5, pitaya.Label{Name: "unheard-of", Value: "x"}, pitaya.Label{Name: "by", Value: "session"},
		pitaya.Label{Name: "shard", Value: "none"})
	m.Count("refused", 1, pitaya.Label{Name: "by", Value: "first"}, pitaya.Label{Name: "shard", Value: ""},
		pitaya.Label{Name: "by", Value: "address"})
	text := scrape(t, m)
	wantLines(t, text, "pitaya_acceptor_connected_clients",
		`pitaya_acceptor_connected_clients{env="prod",game="chess",serverType="connector",shard="b"} 7`,
		`pitaya_acceptor_connected_clients{env="prod",game="chess",serverType="connector",shard="none"} 2`)
	wantLines(t, text, "pitaya_admission_refused",
		`pitaya_admission_refused{by="address",env="prod",game="chess",serverType="connector",shard=""} 1`,
		`pitaya_admission_refused{by="session",env="prod",game="chess",serverType="connector",shard="none"} 1.5`)
	if again := scrape(t, m); cutProcess(again) != cutProcess(text) {
		t.Error("two expositions of the same numbers differ")
	}
}

// cutProcess leaves away the metrics of the process, which change by themselves.
func cutProcess(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The names are those of Pitaya, and the histograms appear.
func TestMetricsDistributions(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	for range 3 {
		m.Observe("response_time_ns", 2e6, pitaya.Label{Name: "route", Value: "connector.h.echo"}, pitaya.Label{Name: "status", Value: "ok"},
			pitaya.Label{Name: "type", Value: "handler"}, pitaya.Label{Name: "code", Value: ""})
	}
	for _, x := range []float64{0, 1, 1.5, 6000} {
		m.Observe("channel_capacity", x, pitaya.Label{Name: "channel", Value: "agent_chsend"})
	}
	text := scrape(t, m)
	const own = `code="",game="",route="connector.h.echo",serverType="connector",status="ok",type="handler"`
	// 2e6 is told as the middle of its cell, from 61*2^15 to 62*2^15.
	wantLines(t, text, "pitaya_handler_response_time_ns{",
		`pitaya_handler_response_time_ns{`+own+`,quantile="0.7"} 2.015232e+06`,
		`pitaya_handler_response_time_ns{`+own+`,quantile="0.95"} 2.015232e+06`,
		`pitaya_handler_response_time_ns{`+own+`,quantile="0.99"} 2.015232e+06`)
	wantLines(t, text, "pitaya_handler_response_time_ns_sum", `pitaya_handler_response_time_ns_sum{`+own+`} 6e+06`)
	wantLines(t, text, "pitaya_handler_response_time_ns_count", `pitaya_handler_response_time_ns_count{`+own+`} 3`)
	const histogram = `pitaya_handler_response_time_ns_histogram`
	wantLines(t, text, "# TYPE pitaya_handler_response_time_ns", "# TYPE pitaya_handler_response_time_ns summary",
		"# TYPE "+histogram+" histogram")
	var want []string
	for _, b := range []string{"1e+06", "5e+06", "1e+07", "5e+07", "1e+08", "3e+08", "5e+08", "1e+09", "5e+09", "1e+10", "+Inf"} {
		n := 3
		if b == "1e+06" {
			n = 0
		}
		want = append(want, fmt.Sprintf(`%s_bucket{%s,le="%s"} %d`, histogram, own, b, n))
	}
	want = append(want, histogram+`_sum{`+own+`} 6e+06`, histogram+`_count{`+own+`} 3`)
	wantLines(t, text, histogram, want...)

	want = nil
	for b := range strings.FieldsSeq("0:1 1:2 10:3 50:3 100:3 250:3 500:3 750:3 1000:3 1500:3 2000:3 3000:3 4000:3 5000:3 +Inf:4") {
		le, n, _ := strings.Cut(b, ":")
		want = append(want, fmt.Sprintf(`pitaya_channel_channel_capacity_bucket{channel="agent_chsend",game="",serverType="connector",le="%s"} %s`, le, n))
	}
	wantLines(t, text, "pitaya_channel_channel_capacity_bucket", want...)
}

// A counter without labels is there from the start, so that its first step is seen; what else has no numbers is not.
func TestMetricsAtRest(t *testing.T) {
	t.Parallel()
	text := cutProcess(scrape(t, newMetrics(t, pitaya.MetricsConfig{})))
	wantLines(t, text, "pitaya_acceptor_exceeded_rate_limiting", `pitaya_acceptor_exceeded_rate_limiting{game="",serverType="connector"} 0`)
	wantLines(t, text, "# TYPE pitaya_acceptor_exceeded_rate_limiting", `# TYPE pitaya_acceptor_exceeded_rate_limiting counter`)
	for _, name := range []string{"connected_clients", "response_time_ns", "worker_worker", "job_time", "cluster_reconnects"} {
		if strings.Contains(text, name) {
			t.Errorf("%s is there without a report", name)
		}
	}
}

// No report fails or panics, and none that is lost is lost silently.
func TestMetricsDrops(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	m.Count("no such metric", 1)
	m.Count("connected_clients", 1)
	m.Gauge("requests", 1)
	m.Observe("requests", 1)
	pitaya.MetricSeries(m, "count", "no such metric")(1)
	m.Count("requests", -1)
	m.Count("requests", math.NaN())
	m.Count("requests", math.Inf(1))
	m.Observe("handler_delay_ns", math.NaN())
	m.Observe("handler_delay_ns", math.Inf(-1))
	m.Count("requests", 2)
	m.Gauge("goroutines", math.Inf(-1))
	text := scrape(t, m)
	wantLines(t, text, "pitaya_metrics_dropped_reports",
		`pitaya_metrics_dropped_reports{game="",reason="series",serverType="connector"} 0`,
		`pitaya_metrics_dropped_reports{game="",reason="unknown",serverType="connector"} 5`,
		`pitaya_metrics_dropped_reports{game="",reason="value",serverType="connector"} 5`)
	wantLines(t, text, "pitaya_handler_requests", `pitaya_handler_requests{game="",serverType="connector"} 2`)
	wantLines(t, text, "pitaya_sys_goroutines", `pitaya_sys_goroutines{game="",serverType="connector"} -Inf`)
	wantLines(t, text, "pitaya_handler_handler_delay_ns_count", `pitaya_handler_handler_delay_ns_count{game="",route="",serverType="connector",type=""} 0`)
}

// Labels that never end do not take all memory: sums stay right, and who reports is not slowed down.
func TestMetricsSeriesBound(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	const beyond = 10
	for i := range pitaya.MaxSeries + beyond {
		m.Count("refused_handshakes", 2, pitaya.Label{Name: "reason", Value: fmt.Sprint(i)})
		m.Gauge("worker_queue_size", 5, pitaya.Label{Name: "queue", Value: fmt.Sprint(i)})
	}
	late := pitaya.MetricSeries(m, "count", "refused_handshakes", pitaya.Label{Name: "reason", Value: "late"})
	late(3)
	text := scrape(t, m)
	if n := strings.Count(text, "\npitaya_acceptor_refused_handshakes{"); n != pitaya.MaxSeries+1 {
		t.Errorf("%d series of a counter, want %d", n, pitaya.MaxSeries+1)
	}
	if n := strings.Count(text, "\npitaya_worker_worker_queue_size{"); n != pitaya.MaxSeries {
		t.Errorf("%d series of a gauge, want %d", n, pitaya.MaxSeries)
	}
	wantLines(t, text, `pitaya_acceptor_refused_handshakes{game="",reason="other"`,
		fmt.Sprintf(`pitaya_acceptor_refused_handshakes{game="",reason="other",serverType="connector"} %d`, 2*beyond+3))
	wantLines(t, text, `pitaya_metrics_dropped_reports{game="",reason="series"`,
		fmt.Sprintf(`pitaya_metrics_dropped_reports{game="",reason="series",serverType="connector"} %d`, 2*beyond+1))
}

// Many goroutines report and scrape; nothing is lost.
func TestMetricsConservation(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				route := pitaya.Label{Name: "route", Value: fmt.Sprint("r", i%100)}
				m.Observe("handler_delay_ns", float64(i), route)
				m.Count("requests", 1)
				m.Count("reconnects", 1, pitaya.Label{Name: "to", Value: fmt.Sprint(w, i%50)})
				if i%500 == 0 {
					scrape(t, m)
				}
			}
		})
	}
	wg.Wait()
	text := scrape(t, m)
	sums := map[string]float64{"pitaya_handler_handler_delay_ns_count": 0, "pitaya_handler_requests": 0, "pitaya_cluster_reconnects": 0}
	lines := make(map[string]int)
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, "{")
		if _, ok := sums[name]; ok {
			var x float64
			fmt.Sscan(rest[strings.Index(rest, "}")+1:], &x)
			sums[name] += x
			lines[name]++
		}
	}
	for name, x := range sums {
		if x != workers*each {
			t.Errorf("%s adds up to %v, want %d", name, x, workers*each)
		}
	}
	if lines["pitaya_handler_handler_delay_ns_count"] != 100 || lines["pitaya_cluster_reconnects"] != workers*50 {
		t.Errorf("series: %v", lines)
	}
}

// Quantiles are of the last eight to ten minutes, sum and count of all time.
func TestMetricsWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, pitaya.MetricsConfig{})
		quantile := func(want string) {
			t.Helper()
			wantLines(t, scrape(t, m), `pitaya_handler_mailbox_time_ns{game="",serverType="connector",quantile="0.7"`,
				`pitaya_handler_mailbox_time_ns{game="",serverType="connector",quantile="0.7"} `+want)
		}
		for range 10 {
			m.Observe("mailbox_time_ns", 1000)
		}
		quantile("1000")
		time.Sleep(5 * time.Minute)
		for range 20 {
			m.Observe("mailbox_time_ns", 8)
		}
		quantile("1000") // 20 of 30
		for range 20 {
			m.Observe("mailbox_time_ns", 8)
		}
		quantile("8.125") // 40 of 50
		time.Sleep(4*time.Minute + 59*time.Second)
		m.Observe("mailbox_time_ns", 8)
		time.Sleep(time.Second) // the first ten are gone
		for range 10 {
			m.Observe("mailbox_time_ns", 64)
		}
		quantile("8.125")
		time.Sleep(10 * time.Minute)
		quantile("NaN")
		wantLines(t, scrape(t, m), "pitaya_handler_mailbox_time_ns_count", `pitaya_handler_mailbox_time_ns_count{game="",serverType="connector"} 61`)
		time.Sleep(24 * time.Hour)
		m.Observe("mailbox_time_ns", 64)
		quantile("65")
	})
}

// A quantile is beside the true one by 1.6 % at most, whatever the numbers are.
func TestMetricsQuantileError(t *testing.T) {
	t.Parallel()
	for _, factor := range []float64{1e-18, 1e-6, 0.7, 1, 1e6, 1e15, -1, -1e-9} {
		m := newMetrics(t, pitaya.MetricsConfig{Custom: pitaya.CustomMetrics{Summaries: []pitaya.CustomMetric{
			{Name: "x", Objectives: pitaya.Objectives{0: 0, 0.25: 0, 0.5: 0.05, 0.999: 0.001, 1: 0}},
		}}})
		const n = 1000
		for i := range n {
			m.Observe("x", float64(i*7%n+1)*factor) // 1 to n in some order
		}
		text := scrape(t, m)
		for _, q := range []float64{0, 0.25, 0.5, 0.999, 1} {
			rank := max(1, math.Ceil(q*n))
			want := rank * factor
			if factor < 0 {
				want = (n + 1 - rank) * factor
			}
			prefix := fmt.Sprintf(`pitaya_x{game="",serverType="connector",quantile="%v"} `, q)
			_, rest, ok := strings.Cut(text, prefix)
			var got float64
			fmt.Sscan(rest, &got)
			if !ok || math.Abs(got-want) > math.Abs(want)/64*1.0001 {
				t.Errorf("factor %v: quantile %v is %v, want %v", factor, q, got, want)
			}
		}
	}

	m := newMetrics(t, pitaya.MetricsConfig{Custom: pitaya.CustomMetrics{Summaries: []pitaya.CustomMetric{
		{Name: "x", Objectives: pitaya.Objectives{0.1: 0, 0.5: 0, 0.9: 0}},
	}}})
	for _, x := range []float64{-math.MaxFloat64, 0, math.MaxFloat64, math.SmallestNonzeroFloat64, -5e-324} {
		m.Observe("x", x)
	}
	text := scrape(t, m)
	wantLines(t, text, `pitaya_x{game="",serverType="connector",quantile="0.5"`, `pitaya_x{game="",serverType="connector",quantile="0.5"} 0`)
	wantLines(t, text, `pitaya_x_count`, `pitaya_x_count{game="",serverType="connector"} 5`)
}

func TestMetricsCustom(t *testing.T) {
	t.Parallel()
	shop := func(name string, labels ...string) pitaya.CustomMetric {
		return pitaya.CustomMetric{Subsystem: "shop", Name: name, Labels: labels, Help: "of " + name}
	}
	buckets := shop("price", "item")
	buckets.Buckets = []float64{1, 10}
	objectives := shop("wait")
	objectives.Objectives = pitaya.Objectives{0.5: 0.05}
	m := newMetrics(t, pitaya.MetricsConfig{
		AdditionalLabels: map[string]string{"shard": "0"},
		Custom: pitaya.CustomMetrics{
			Counters:   []pitaya.CustomMetric{shop("sales_total", "item"), {Name: "bare"}},
			Gauges:     []pitaya.CustomMetric{shop("stock", "item"), shop("price", "item")}[:1],
			Histograms: []pitaya.CustomMetric{buckets, shop("plain")},
			Summaries:  []pitaya.CustomMetric{objectives, shop("sum_only")},
		},
	})
	item := pitaya.Label{Name: "item", Value: "sword"}
	m.Count("sales_total", 2, item, pitaya.Label{Name: "shard", Value: "7"})
	m.Count("bare", 1)
	m.Gauge("stock", -4, item)
	m.Observe("price", 10, item)
	m.Observe("plain", 0.3)
	m.Observe("wait", 3)
	m.Observe("sum_only", 3)
	text := scrape(t, m)
	const rest = `game="",item="sword",serverType="connector",shard="0"`
	wantLines(t, text, "pitaya_shop_sales", `pitaya_shop_sales_total{game="",item="sword",serverType="connector",shard="7"} 2`)
	wantLines(t, text, "# HELP pitaya_shop_sales", `# HELP pitaya_shop_sales_total of sales_total`)
	wantLines(t, text, "pitaya_bare", `pitaya_bare{game="",serverType="connector",shard="0"} 1`)
	wantLines(t, text, "pitaya_shop_stock", `pitaya_shop_stock{`+rest+`} -4`)
	wantLines(t, text, "pitaya_shop_price", `pitaya_shop_price_bucket{`+rest+`,le="1"} 0`, `pitaya_shop_price_bucket{`+rest+`,le="10"} 1`,
		`pitaya_shop_price_bucket{`+rest+`,le="+Inf"} 1`, `pitaya_shop_price_sum{`+rest+`} 10`, `pitaya_shop_price_count{`+rest+`} 1`)
	wantLines(t, text, `pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.`,
		// the usual bounds
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.005"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.01"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.025"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.05"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.1"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.25"} 0`,
		`pitaya_shop_plain_bucket{game="",serverType="connector",shard="0",le="0.5"} 1`)
	wantLines(t, text, "pitaya_shop_wait{", `pitaya_shop_wait{game="",serverType="connector",shard="0",quantile="0.5"} 3.03125`)
	wantLines(t, text, "pitaya_shop_sum_only", `pitaya_shop_sum_only_sum{game="",serverType="connector",shard="0"} 3`,
		`pitaya_shop_sum_only_count{game="",serverType="connector",shard="0"} 1`)
}

func TestMetricsErrors(t *testing.T) {
	t.Parallel()
	_, err := pitaya.NewMetrics("connector", pitaya.MetricsConfig{
		ConstLabels:      map[string]string{"route": "a", "le": "b", "__x": "c", "env": "d"},
		AdditionalLabels: map[string]string{"quantile": "a", "env": "b", "code": "c", "serverType": "d"},
		Custom: pitaya.CustomMetrics{
			Counters: []pitaya.CustomMetric{
				{Name: "requests"}, {Subsystem: "a", Name: "twice"}, {Subsystem: "b", Name: "twice"},
				{Name: "x", Labels: []string{"l", "l", "game", "code", "le"}},
				{Name: "handler_response_time_ns_sum"},
			},
			Gauges:     []pitaya.CustomMetric{{Subsystem: "acceptor", Name: "received_bytes"}, {Subsystem: "c", Name: "twice"}},
			Histograms: []pitaya.CustomMetric{{Subsystem: "a", Name: "both", Labels: []string{"l"}}},
			Summaries:  []pitaya.CustomMetric{{Subsystem: "b", Name: "both"}},
		},
	})
	checkErrorLines(t, err, []string{
		`pitaya.metrics.constlabels: label "__x": names that begin with __ are Prometheus' own`,
		`pitaya.metrics.constlabels: label "le": summaries and histograms have such a label themselves`,
		`pitaya.metrics.constlabels: label "route": the metric job_time_ns has such a label itself`,
		`pitaya.metrics.additionallabels: label "code": the metric response_time_ns has such a label itself`,
		`pitaya.metrics.additionallabels: label "env": all metrics have it with a value that is always the same`,
		`pitaya.metrics.additionallabels: label "quantile": summaries and histograms have such a label themselves`,
		`pitaya.metrics.additionallabels: label "serverType": all metrics have it with a value that is always the same`,
		`pitaya.metrics.custom: pitaya_requests: the library reports a metric of that name itself`,
		`pitaya.metrics.custom: pitaya_b_twice: reports could not tell it from pitaya_a_twice`,
		`pitaya.metrics.custom: pitaya_x: label "l" is there twice`,
		`pitaya.metrics.custom: pitaya_x: label "game": all metrics have it`,
		`pitaya.metrics.custom: pitaya_x: label "code": all metrics have it`,
		`pitaya.metrics.custom: pitaya_x: label "le": summaries and histograms have such a label themselves`,
		`pitaya.metrics.custom: pitaya_handler_response_time_ns_sum: its line pitaya_handler_response_time_ns_sum is one of the metric pitaya_handler_response_time_ns`,
		`pitaya.metrics.custom: pitaya_acceptor_received_bytes: its line pitaya_acceptor_received_bytes is one of the metric pitaya_acceptor_received_bytes`,
		`pitaya.metrics.custom: pitaya_b_both: pitaya_a_both gets the same reports and has other labels`,
	})
	_, err = pitaya.NewMetrics("connector", pitaya.MetricsConfig{
		ConstLabels: map[string]string{"a.b": ""},
		Custom:      pitaya.CustomMetrics{Gauges: []pitaya.CustomMetric{{Name: "g", Buckets: []float64{1}}}},
	})
	checkErrorLines(t, err, []string{
		`pitaya.metrics.custom = "{\"gauges\":[{\"name\":\"g\",\"buckets\":[1]}]}": gauges: "g": only histograms have buckets`,
		`pitaya.metrics.constlabels = "a.b=": "a.b" is no label for Prometheus`,
	})
}

// A report to a series that is known costs no allocation, by labels or resolved.
func TestMetricsAllocs(t *testing.T) {
	m := newMetrics(t, pitaya.MetricsConfig{AdditionalLabels: map[string]string{"shard": ""}})
	labels := []pitaya.Label{{Name: "route", Value: "connector.h.echo"}, {Name: "status", Value: "ok"}, {Name: "type", Value: "handler"}, {Name: "code", Value: ""}}
	observe := pitaya.MetricSeries(m, "observe", "response_time_ns", labels...)
	for name, f := range map[string]func(){
		"by labels": func() { m.Observe("response_time_ns", 1e6, labels...) },
		"resolved":  func() { observe(1e6) },
		"count":     func() { m.Count("requests", 1) },
		"gauge":     func() { m.Gauge("connected_clients", 1) },
		"unknown":   func() { m.Gauge("unheard-of", 1, labels...) },
	} {
		f()
		wantAllocs(t, name, 0, f)
	}
}

// Reports and series that were found before go to the same place.
func TestMetricsSeries(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	labels := []pitaya.Label{{Name: "by", Value: "session"}}
	count := pitaya.MetricSeries(m, "count", "refused", labels...)
	gauge := pitaya.MetricSeries(m, "gauge", "connected_clients")
	observe := pitaya.MetricSeries(m, "observe", "response_time_ns", pitaya.Label{Name: "route", Value: "a"})
	labels[0].Value = "changed"
	count(2)
	m.Count("refused", 1, pitaya.Label{Name: "by", Value: "session"})
	count(-1)
	gauge(4)
	gauge(5)
	observe(1)
	m.Observe("response_time_ns", 2, pitaya.Label{Name: "route", Value: "a"})
	text := scrape(t, m)
	wantLines(t, text, "pitaya_admission_refused", `pitaya_admission_refused{by="session",game="",serverType="connector"} 3`)
	wantLines(t, text, "pitaya_acceptor_connected_clients", `pitaya_acceptor_connected_clients{game="",serverType="connector"} 5`)
	wantLines(t, text, "pitaya_handler_response_time_ns_sum", `pitaya_handler_response_time_ns_sum{code="",game="",route="a",serverType="connector",status="",type=""} 3`)
	wantLines(t, text, "pitaya_handler_response_time_ns_histogram_count", `pitaya_handler_response_time_ns_histogram_count{code="",game="",route="a",serverType="connector",status="",type=""} 2`)
}
