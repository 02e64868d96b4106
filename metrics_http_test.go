package pitaya_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

const (
	typeText        = "text/plain; version=0.0.4; charset=utf-8"
	typeOpenMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	acceptOpen      = "application/openmetrics-text"
)

func TestMetricsNegotiation(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	const older = "application/openmetrics-text; version=0.0.1; charset=utf-8"
	tests := []struct {
		name   string
		accept []string
		want   string
	}{
		{"none", nil, typeText},
		{"anything", []string{"*/*"}, typeText},
		{"Prometheus 3", []string{"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"}, typeOpenMetrics},
		{"Prometheus 2.5", []string{"application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}, older},
		{"Prometheus 2.0", []string{"text/plain;version=0.0.4;q=1,*/*;q=0.1"}, typeText},
		{"protobuf first", []string{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited, text/plain;version=0.0.4;q=0.3"}, typeText},
		{"a browser", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}, typeText},
		{"text preferred", []string{"application/openmetrics-text;q=0.2, text/plain"}, typeText},
		{"the second header preferred", []string{"text/plain;q=0.5", "application/openmetrics-text"}, typeOpenMetrics},
		{"exact before any", []string{"*/*, application/openmetrics-text"}, typeOpenMetrics},
		{"the first of two", []string{"text/plain, application/openmetrics-text"}, typeText},
		{"all kinds of text", []string{"text/*"}, typeText},
		{"all kinds of application", []string{"application/*"}, typeOpenMetrics},
		{"refused", []string{"application/openmetrics-text;q=0, */*;q=0.1"}, typeText},
		{"refused alone", []string{"application/openmetrics-text;q=0"}, typeText},
		{"unknown version", []string{"application/openmetrics-text;version=2.0.0"}, typeText},
		{"quoted, in capitals", []string{`Application/OpenMetrics-Text; Version="1.0.0"; Q="0.9", text/plain;q=0.8`}, typeOpenMetrics},
		{"quality that is none", []string{"application/openmetrics-text;q=high, text/plain;q=2, text/*;q=-1, */*;q=NaN"}, typeText},
		{"nonsense", []string{",;=,;;q=,/"}, typeText},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header["Accept"] = tt.accept
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if open := strings.HasSuffix(w.Body.String(), "\n# EOF\n"); open != (tt.want != typeText) {
			t.Errorf("%s: ends with # EOF: %v", tt.name, open)
		}
	}
}

func TestMetricsHTTP(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	m.Count("requests", 5)
	get := func(method, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/any", nil)
		if encoding != "" {
			r.Header.Set("Accept-Encoding", encoding)
		}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		return w
	}
	plain := get(http.MethodGet, "")
	if got := plain.Header().Get("Content-Length"); got != strconv.Itoa(plain.Body.Len()) {
		t.Errorf("Content-Length %s of %d bytes", got, plain.Body.Len())
	}
	if got := plain.Header().Get("Vary"); got != "Accept, Accept-Encoding" {
		t.Errorf("Vary %q", got)
	}
	for encoding, zipped := range map[string]bool{
		"gzip": true, "deflate, gzip;q=0.5": true, "*": true, "GZIP": true, "x-gzip": true,
		"": false, "identity": false, "gzip;q=0": false, "*;q=0": false, "gzip;q=0, *": false, "br, deflate": false, "gzip;q=x": false,
	} {
		w := get(http.MethodGet, encoding)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("Accept-Encoding %q: compressed %v", encoding, got)
			continue
		}
		body := io.Reader(w.Body)
		if zipped {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatalf("Accept-Encoding %q: %v", encoding, err)
			}
			body = z
		}
		text, err := io.ReadAll(body)
		if err != nil || cutProcess(string(text)) != cutProcess(plain.Body.String()) {
			t.Errorf("Accept-Encoding %q: other text: %v", encoding, err)
		}
	}
	for _, encoding := range []string{"", "gzip"} {
		w := get(http.MethodHead, encoding)
		if w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Type") != typeText ||
			w.Header().Get("Content-Encoding") != encoding || (w.Header().Get("Content-Length") == "") != (encoding != "") {
			t.Errorf("HEAD with %q: %d, %d bytes, %v", encoding, w.Code, w.Body.Len(), w.Header())
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if w := get(method, ""); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, %v", method, w.Code, w.Header())
		}
	}
}

// Numbers that are kept elsewhere are reported when they are asked for.
func TestMetricsOnScrape(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	n := 0.0
	m.OnScrape(func() { n++; m.Gauge("goroutines", n) })
	m.OnScrape(func() { m.Gauge("heapsize", 2*n) })
	for i := range 3 {
		text := scrape(t, m)
		wantLines(t, text, "pitaya_sys_goroutines", fmt.Sprintf(`pitaya_sys_goroutines{game="",serverType="connector"} %d`, i+1))
		wantLines(t, text, "pitaya_sys_heapsize", fmt.Sprintf(`pitaya_sys_heapsize{game="",serverType="connector"} %d`, 2*(i+1)))
	}
	var vars map[string]any
	if err := json.Unmarshal([]byte(m.String()), &vars); err != nil || vars["pitaya_sys_heapsize"] != 8. {
		t.Errorf("%v, %v", vars["pitaya_sys_heapsize"], err)
	}
}

// Who is told of scrapes can have that ended: when stop has returned, nothing is running any more, and nothing will.
func TestMetricsOnScrapeStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, pitaya.MetricsConfig{})
		first, second := 0, 0
		release := make(chan bool)
		stop := m.OnScrape(func() { first++; <-release })
		m.OnScrape(func() { second++ })
		go func() { _ = m.String() }()
		synctest.Wait()
		var stopped atomic.Bool
		go func() {
			stop()
			stop()
			stopped.Store(true)
		}()
		synctest.Wait()
		if stopped.Load() {
			t.Error("stop has returned before the call")
		}
		scrape(t, m)
		close(release)
		synctest.Wait()
		if !stopped.Load() || first != 1 || second != 2 {
			t.Errorf("stopped %v, calls %d and %d", stopped.Load(), first, second)
		}
	})
}

func TestMetricsExpvar(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{Game: "chess"})
	m.Count("requests", 5)
	m.Count("refused", 1, pitaya.Label{Name: "by", Value: "ses\"sion<\n"})
	m.Gauge("goroutines", math.NaN())
	m.Observe("mailbox_time_ns", 1000)
	m.Observe("channel_capacity", 40, pitaya.Label{Name: "channel", Value: "a"})
	m.Observe("handler_delay_ns", 3, pitaya.Label{Name: "route", Value: "r"}, pitaya.Label{Name: "type", Value: "local"})
	var got map[string]any
	if err := json.Unmarshal([]byte(m.String()), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"pitaya_handler_requests":         `5`,
		"pitaya_acceptor_violations":      `0`,
		"pitaya_admission_refused":        `{"by=\"ses\\\"sion\u003c\\n\"":1}`,
		"pitaya_sys_goroutines":           `null`,
		"pitaya_handler_mailbox_time_ns":  `{"count":1,"quantiles":{"0.7":1000,"0.95":1000,"0.99":1000},"sum":1000}`,
		"pitaya_handler_handler_delay_ns": `{"route=\"r\",type=\"local\"":{"count":1,"quantiles":{"0.7":3.03125,"0.95":3.03125,"0.99":3.03125},"sum":3}}`,
		"pitaya_channel_channel_capacity": `{"channel=\"a\"":{"buckets":{"0":0,"1":0,"10":0,"100":1,"1000":1,"1500":1,"2000":1,"250":1,"3000":1,` +
			`"4000":1,"50":1,"500":1,"5000":1,"750":1},"count":1,"sum":40}}`,
	} {
		if text, _ := json.Marshal(got[name]); string(text) != want {
			t.Errorf("%s: %s, want %s", name, text, want)
		}
	}
}

// Go's and the process's own metrics have the names that dashboards know, and no constant labels.
func TestMetricsProcess(t *testing.T) {
	t.Parallel()
	text := scrape(t, newMetrics(t, pitaya.MetricsConfig{Game: "chess"}))
	value := func(line string) (x float64) {
		t.Helper()
		_, rest, ok := strings.Cut("\n"+text, "\n"+line+" ")
		if !ok {
			t.Errorf("no line %s", line)
			return math.NaN()
		}
		fmt.Sscan(rest, &x)
		return x
	}
	type limits struct{ low, high float64 }
	want := map[string]limits{
		"go_goroutines": {1, 1e6}, "go_threads": {1, 1e5}, `go_info{version="` + runtime.Version() + `"}`: {1, 1},
		`go_gc_duration_seconds{quantile="0"}`: {0, 100}, `go_gc_duration_seconds{quantile="0.25"}`: {0, 100}, `go_gc_duration_seconds{quantile="0.5"}`: {0, 100},
		`go_gc_duration_seconds{quantile="0.75"}`: {0, 100}, `go_gc_duration_seconds{quantile="1"}`: {0, 100},
		"go_gc_duration_seconds_sum": {0, 1e4}, "go_gc_duration_seconds_count": {0, 1e9}, "go_sched_gomaxprocs_threads": {1, 1e5},
		"go_gc_gogc_percent": {1, math.MaxUint64}, "go_gc_gomemlimit_bytes": {1, math.MaxInt64}, "go_memstats_last_gc_time_seconds": {0, 1e11},
	}
	for name := range strings.FieldsSeq("alloc_bytes alloc_bytes_total buck_hash_sys_bytes frees_total gc_sys_bytes heap_alloc_bytes heap_idle_bytes " +
		"heap_inuse_bytes heap_objects heap_released_bytes heap_sys_bytes mallocs_total mcache_inuse_bytes mcache_sys_bytes mspan_inuse_bytes " +
		"mspan_sys_bytes next_gc_bytes other_sys_bytes stack_inuse_bytes stack_sys_bytes sys_bytes") {
		want["go_memstats_"+name] = limits{0, 1e15}
	}
	if runtime.GOOS == "linux" {
		want["process_cpu_seconds_total"] = limits{0, 1e6}
		want["process_resident_memory_bytes"] = limits{1 << 20, 1e13}
		want["process_virtual_memory_bytes"] = limits{1 << 20, 1e15}
		want["process_virtual_memory_max_bytes"] = limits{1 << 20, math.MaxUint64}
		want["process_open_fds"] = limits{3, 1e6}
		want["process_max_fds"] = limits{3, math.MaxUint64}
		want["process_start_time_seconds"] = limits{1e9, 1e11}
	}
	for line, l := range want {
		if x := value(line); !(x >= l.low && x <= l.high) {
			t.Errorf("%s is %v, want %v to %v", line, x, l.low, l.high)
		}
	}
	if value("go_memstats_heap_alloc_bytes") != value("go_memstats_alloc_bytes") || value("go_memstats_heap_sys_bytes") < value("go_memstats_heap_inuse_bytes") {
		t.Error("the heap does not add up")
	}
	// What the process does shows.
	before := value("go_goroutines")
	stop := make(chan struct{})
	defer close(stop)
	for range 100 {
		go func() { <-stop }()
	}
	m := newMetrics(t, pitaya.MetricsConfig{})
	text = scrape(t, m)
	if after := value("go_goroutines"); after < before+50 {
		t.Errorf("%v goroutines, 100 more than %v", after, before)
	}
}

// A metricsPeer is a process of internal/metricspeer, which reads expositions as Prometheus does.
type metricsPeer struct {
	in  *json.Encoder
	out *bufio.Reader
}

type peerResult struct {
	Error              string
	Types, Units, Help map[string]string
	Samples            []struct {
		Labels map[string]string
		Value  string
	}
	Families int
}

func startMetricsPeer(t *testing.T) *metricsPeer {
	t.Helper()
	cmd := exec.Command(buildNested(t, "metricspeer"))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("metricspeer: %v", err)
		}
	})
	return &metricsPeer{json.NewEncoder(in), bufio.NewReader(out)}
}

// read scrapes m and has the peer read it.
func (p *metricsPeer) read(t *testing.T, m *pitaya.Metrics, accept string) peerResult {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return p.parse(t, w.Header().Get("Content-Type"), w.Body.Bytes())
}

func (p *metricsPeer) parse(t *testing.T, contentType string, body []byte) peerResult {
	t.Helper()
	var res peerResult
	err := p.in.Encode(struct {
		ContentType string
		Body        []byte
	}{contentType, body})
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &res)
	}
	if err != nil {
		t.Fatal(err)
	}
	if res.Error != "" {
		t.Errorf("%s is refused: %s\n%s", contentType, res.Error, body)
	}
	return res
}

// values are the samples that are not of the process, by their labels.
func (r *peerResult) values() map[string]string {
	m := make(map[string]string)
	for _, s := range r.Samples {
		if !strings.HasPrefix(s.Labels["__name__"], "pitaya_") {
			continue
		}
		labels := maps.Clone(s.Labels)
		for _, name := range []string{"le", "quantile"} {
			labels[name] = strings.TrimSuffix(labels[name], ".0") // in OpenMetrics these are never whole numbers
		}
		m[fmt.Sprint(labels)] = s.Value
	}
	return m
}

// hostileValues are values of labels that could break an exposition.
func hostileValues() []string {
	return []string{
		"", " ", "plain", `back\slash`, `quo"te`, "new\nline", "\r", "\t", "\x00", "\x7f", "\\n", `\"`, `a",b="c`, "}", "{} 1 # EOF", "\n# EOF\n",
		"\xff", "a\xc3", "\xed\xa0\x80", "\ufeff", "\u2028", "ünï", "日本", "🎲", strings.Repeat("long", 1000), strings.Repeat("é", 1000), strings.Repeat("\xff", 1000),
	}
}

// What Prometheus reads of an exposition is what was reported, in both formats, under the same names.
func TestMetricsPeer(t *testing.T) {
	t.Parallel()
	p := startMetricsPeer(t)
	m := newMetrics(t, pitaya.MetricsConfig{
		Game:             `ch"e\ss` + "\n\xff",
		ConstLabels:      map[string]string{"env": strings.Repeat("e", 2000)},
		AdditionalLabels: map[string]string{"shard": `0"`},
		Custom: pitaya.CustomMetrics{
			Counters:   []pitaya.CustomMetric{{Name: "sales_total", Help: "a \"quoted\" \\ help\nin lines \xff", Labels: []string{"item"}}},
			Gauges:     []pitaya.CustomMetric{{Name: "level_ratio"}},
			Summaries:  []pitaya.CustomMetric{{Name: "no_quantiles_seconds"}, {Name: "asked", Objectives: pitaya.Objectives{0: 0, 1: 0}}},
			Histograms: []pitaya.CustomMetric{{Name: "sizes_bytes", Buckets: []float64{-1, 0, 0.25, 1, 1e21}}},
		},
	})
	for i, v := range hostileValues() {
		m.Count("sales_total", float64(i), pitaya.Label{Name: "item", Value: v})
		m.Observe("response_time_ns", float64(i), pitaya.Label{Name: "route", Value: v}, pitaya.Label{Name: "code", Value: v})
		m.Observe("channel_capacity", float64(i), pitaya.Label{Name: "channel", Value: v})
		m.Observe("sizes_bytes", float64(i)/4, pitaya.Label{Name: "shard", Value: v})
	}
	for i, x := range []float64{0, 1, -1, 0.1, 1e6, 1e21, 123456789, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324} {
		m.Gauge("level_ratio", x, pitaya.Label{Name: "shard", Value: fmt.Sprint(i)})
	}
	m.Observe("no_quantiles_seconds", 1)
	m.Observe("asked", -2)
	m.Gauge("worker_jobs_total", 1)
	m.Count("exceeded_rate_limiting", 1)
	m.Count("received_bytes", 1)

	text := p.read(t, m, "text/plain")
	open := p.read(t, m, acceptOpen)
	if text.Families == 0 || text.Families != len(text.Types) {
		t.Errorf("expfmt finds %d metrics, Prometheus %d", text.Families, len(text.Types))
	}
	if a, b := text.values(), open.values(); !maps.Equal(a, b) {
		for name := range maps.Keys(a) {
			if a[name] != b[name] {
				t.Errorf("%s: %s as text, %s in OpenMetrics", name, a[name], b[name])
			}
		}
		t.Errorf("%d samples as text, %d in OpenMetrics", len(a), len(b))
	}
	for name, want := range map[string][2]string{ // types as text and in OpenMetrics
		"pitaya_sales_total":                        {"counter", ""},
		"pitaya_sales":                              {"", "counter"},
		"pitaya_acceptor_exceeded_rate_limiting":    {"counter", "unknown"},
		"pitaya_worker_worker_jobs_total":           {"gauge", "gauge"},
		"pitaya_handler_response_time_ns":           {"summary", "summary"},
		"pitaya_handler_response_time_ns_histogram": {"histogram", "histogram"},
		"pitaya_channel_channel_capacity":           {"histogram", "histogram"},
		"go_memstats_mallocs_total":                 {"counter", ""},
		"go_memstats_mallocs":                       {"", "counter"},
		"go_memstats_alloc_bytes":                   {"gauge", "gauge"},
		"go_memstats_alloc_bytes_total":             {"counter", "unknown"}, // its short name is the gauge's
	} {
		if got := [2]string{text.Types[name], open.Types[name]}; got != want {
			t.Errorf("%s: types %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"pitaya_handler_response_time_ns": "ns", "pitaya_acceptor_received_bytes": "bytes", "go_gc_duration_seconds": "seconds", "pitaya_no_quantiles_seconds": "seconds",
	} {
		if open.Units[name] != want {
			t.Errorf("%s: unit %q, want %q", name, open.Units[name], want)
		}
	}
	const help = "a \"quoted\" \\ help\nin lines \uFFFD"
	if text.Help["pitaya_sales_total"] != help || open.Help["pitaya_sales"] != help {
		t.Errorf("help %q and %q, want %q", text.Help["pitaya_sales_total"], open.Help["pitaya_sales"], help)
	}

	// Labels are read as they were given, or made legal.
	items := make(map[string]string)
	for _, s := range text.Samples {
		if s.Labels["__name__"] == "pitaya_sales_total" {
			items[s.Labels["item"]] = s.Value
			if s.Labels["game"] != "ch\"e\\ss\n\uFFFD" || s.Labels["shard"] != `0"` || s.Labels["serverType"] != "connector" {
				t.Errorf("labels %q", s.Labels)
			}
		}
	}
	for i, v := range hostileValues() {
		if got, want := items[v], strconv.Itoa(i); got != want && utf8.ValidString(v) && v != "\x00" && len(v) < 500 {
			t.Errorf("the value for %q is %s, want %s", v, got, want)
		}
	}
	levels := make(map[string]string)
	for _, s := range open.Samples {
		if s.Labels["__name__"] == "pitaya_level_ratio" {
			levels[s.Labels["shard"]] = s.Value
		}
	}
	want := strings.Fields("0 1 -1 0.1 1e+06 1e+21 1.23456789e+08 NaN +Inf -Inf 1.7976931348623157e+308 5e-324")
	for i, x := range want {
		if levels[strconv.Itoa(i)] != x {
			t.Errorf("gauge %d is read as %s, want %s", i, levels[strconv.Itoa(i)], x)
		}
	}
}

// checkExposition reads an exposition in Prometheus' text format strictly and returns the values of a label.
func checkExposition(t *testing.T, text, label string) []string {
	t.Helper()
	if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		t.Fatalf("not UTF-8, or a zero byte: %.200q", text)
	}
	var values []string
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		rest, whole := strings.CutSuffix(line, "\n")
		if strings.HasPrefix(rest, "# ") {
			rest = "x 1"
		}
		series, number := rest, ""
		if i := strings.IndexByte(rest, '{'); i >= 0 {
			i++
			for rest[i-1] != '}' { // name="value" and a comma or the end
				eq := strings.IndexByte(rest[i:], '=')
				if eq < 0 || len(rest) < i+eq+2 || rest[i+eq+1] != '"' {
					t.Fatalf("line %q: no value at %d", line, i)
				}
				name := rest[i : i+eq]
				var value strings.Builder
				for i += eq + 2; i < len(rest) && rest[i] != '"'; i++ {
					c := rest[i]
					if c == '\\' {
						i++
						j := strings.IndexByte(`\"n`, rest[i])
						if j < 0 {
							t.Fatalf("line %q: bad escape at %d", line, i)
						}
						c = "\\\"\n"[j]
					}
					value.WriteByte(c)
				}
				if name == label {
					values = append(values, value.String())
				}
				if i += 2; i > len(rest) || rest[i-1] != ',' && rest[i-1] != '}' {
					t.Fatalf("line %q: no end of a value at %d", line, i)
				}
			}
			series, number = rest[:i], strings.TrimPrefix(rest[i:], " ")
		} else {
			series, number, _ = strings.Cut(rest, " ")
		}
		if _, err := strconv.ParseFloat(number, 64); err != nil || !whole {
			t.Fatalf("line %q: %v", line, err)
		}
		if seen[series] && series != "x" {
			t.Fatalf("%s is there twice", series)
		}
		seen[series] = true
	}
	return values
}

// FuzzMetrics reports under any names and labels: the exposition stays legal, and what is legal comes out as it went in.
func FuzzMetrics(f *testing.F) {
	for _, v := range hostileValues() {
		f.Add("sales", v, "plain", v, 1.5)
		f.Add(v, "route", v, v, math.Inf(1))
	}
	f.Fuzz(func(t *testing.T, metric, label, value, help string, x float64) {
		m, err := pitaya.NewMetrics(value, pitaya.MetricsConfig{Game: help, Custom: pitaya.CustomMetrics{
			Counters: []pitaya.CustomMetric{{Name: "sales", Help: help, Labels: []string{"item"}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{metric, "sales", "response_time_ns"} {
			labels := []pitaya.Label{{Name: label, Value: value}, {Name: "item", Value: value}, {Name: "route", Value: value}}
			m.Count(name, x, labels...)
			m.Gauge(name, x, labels...)
			m.Observe(name, x, labels...)
			pitaya.MetricSeries(m, "count", name, labels...)(1)
		}
		text := cutProcess(scrape(t, m))
		items := checkExposition(t, text, "item")
		if legal := utf8.ValidString(value) && len(value) <= 512 && !strings.Contains(value, "\x00"); legal && !slices.Contains(items, value) {
			t.Errorf("%q came out as %q", value, items)
		}
		for _, item := range items {
			if len(item) > 512 {
				t.Errorf("a label of %d bytes", len(item))
			}
		}
		if !json.Valid([]byte(m.String())) {
			t.Errorf("not JSON: %s", m.String())
		}
		var b bytes.Buffer
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", acceptOpen)
		w := httptest.NewRecorder()
		w.Body = &b
		m.ServeHTTP(w, r)
		if open, ok := strings.CutSuffix(b.String(), "# EOF\n"); !ok || strings.Count(open, "\n# EOF\n") > 0 {
			t.Errorf("# EOF is not where it belongs:\n%s", b.String())
		}
	})
}
