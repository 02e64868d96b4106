package pitaya_test

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// Metrics of the game beside those of the server, served with the latter on a port that players do not reach.
func ExampleMetrics() {
	metrics, err := pitaya.NewMetrics("game", pitaya.MetricsConfig{
		Game: "chess",
		Custom: pitaya.CustomMetrics{
			Counters:   []pitaya.CustomMetric{{Subsystem: "match", Name: "finished_total", Labels: []string{"result"}, Help: "Matches that are over."}},
			Histograms: []pitaya.CustomMetric{{Subsystem: "match", Name: "moves", Buckets: []float64{20, 40, 80}}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Reporters: []pitaya.Reporter{metrics}})
	if err != nil {
		log.Fatal(err)
	}
	_ = srv // Register, Run

	private := http.NewServeMux() // for http.ListenAndServe("localhost:9090", private)
	private.Handle("/metrics", metrics)
	private.Handle("/debug/vars", expvar.Handler()) // after expvar.Publish("pitaya", metrics)

	metrics.Count("finished_total", 1, pitaya.Label{Name: "result", Value: "draw"})
	metrics.Observe("moves", 37)

	scrape := httptest.NewRecorder()
	private.ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if strings.HasPrefix(line, "pitaya_match_") {
			fmt.Print(line)
		}
	}
	// Output:
	// pitaya_match_finished_total{game="chess",result="draw",serverType="game"} 1
	// pitaya_match_moves_bucket{game="chess",serverType="game",le="20"} 0
	// pitaya_match_moves_bucket{game="chess",serverType="game",le="40"} 1
	// pitaya_match_moves_bucket{game="chess",serverType="game",le="80"} 1
	// pitaya_match_moves_bucket{game="chess",serverType="game",le="+Inf"} 1
	// pitaya_match_moves_sum{game="chess",serverType="game"} 37
	// pitaya_match_moves_count{game="chess",serverType="game"} 1
}

// A registry is whatever reads it: a handler for Prometheus, a text for expvar.
// Numbers that are kept elsewhere are reported when somebody asks.
func ExampleMetrics_OnScrape() {
	metrics, err := pitaya.CreatePrometheusReporter("game", pitaya.MetricsConfig{
		Custom: pitaya.CustomMetrics{Gauges: []pitaya.CustomMetric{{Subsystem: "match", Name: "running", Help: "Matches that are played."}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	matches := 12
	stop := metrics.OnScrape(func() { metrics.Gauge("running", float64(matches)) })
	defer stop()

	scrape := httptest.NewRecorder()
	metrics.ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if strings.Contains(line, "match_running") {
			fmt.Print(line)
		}
	}
	var vars map[string]any
	fmt.Println(json.Unmarshal([]byte(metrics.String()), &vars), len(vars) > 0)
	// Output:
	// # HELP pitaya_match_running Matches that are played.
	// # TYPE pitaya_match_running gauge
	// pitaya_match_running{game="",serverType="game"} 12
	// <nil> true
}

// A server that is told to serves its metrics itself.
func ExampleServer_Metrics() {
	var server *pitaya.Server
	_, stop := runExample(pitaya.Config{Metrics: pitaya.MetricsConfig{
		Prometheus: pitaya.PrometheusConfig{Enabled: true, Port: -1}, // a free port, which is for tests
	}}, func(s *pitaya.Server) error {
		server = s
		return nil
	})
	defer stop()
	fmt.Println(server.MetricsAddr() != nil, server.Metrics() != nil, len(server.Reporters()))
	for _, reporter := range server.Reporters() { // the application reports its own to them
		reporter.Count("finished_total", 1)
	}
	// Output:
	// true true 1
}

// Printer is a Reporter: it is told of everything, and must not block.
type Printer struct{ name string }

func (p Printer) Count(name string, delta float64, labels ...pitaya.Label) {
	if name == p.name {
		fmt.Println(name, delta, labels)
	}
}

func (p Printer) Gauge(name string, value float64, labels ...pitaya.Label) {}

func (p Printer) Observe(name string, value float64, labels ...pitaya.Label) {
	if name == p.name {
		for _, l := range labels {
			fmt.Printf("%s=%q\n", l.Name, l.Value)
		}
	}
}

// Calls are reported with their time, route, and the labels that a handler adds.
func ExampleReporter() {
	dial, stop := runExample(pitaya.Config{Reporters: []pitaya.Reporter{Printer{"response_time_ns"}}}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "shop.buy", func(ctx context.Context, item *string) (*string, error) {
			pitaya.AddMetricTagsToPropagateCtx(ctx, map[string]string{"item": *item})
			return item, nil
		})
	})
	dial().Request(context.Background(), "shop.buy", "sword", nil)
	stop()
	// Output:
	// route="shop.buy"
	// status="ok"
	// type="handler"
	// code=""
	// item="sword"
}

// Numbers are sent over UDP; nobody waits for the network.
func ExampleNewStatsd() {
	server, err := net.ListenPacket("udp", "127.0.0.1:0") // a statsd server
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	statsd, err := pitaya.NewStatsd("game", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Host: server.LocalAddr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	statsd.Count("matches", 2, pitaya.Label{Name: "result", Value: "draw"})
	statsd.Gauge("running", 12)
	statsd.Observe("moves", 37)
	fmt.Println(statsd.Close(), statsd.Dropped()) // sends what has gathered

	datagram := make([]byte, 1500)
	n, _, err := server.ReadFrom(datagram)
	fmt.Println(strings.TrimSpace(string(datagram[:n])), err)
	// Output:
	// <nil> 0
	// pitaya.matches:2|c|#serverType:game,result:draw
	// pitaya.running:12|g|#serverType:game
	// pitaya.moves:37.000000|ms|#serverType:game <nil>
}

// Which quantiles a summary has, and with what error, a settings file says like
// this.
func ExampleObjectives() {
	var cfg pitaya.CustomMetrics
	err := json.Unmarshal([]byte(`{"summaries": [
		{"subsystem": "match", "name": "seconds", "objectives": {"0.5": 0.05, "0.99": 0.001}}
	]}`), &cfg)
	fmt.Println(cfg.Summaries[0].Objectives[0.99], err)
	b, err := json.Marshal(pitaya.Objectives{0.9: 0.01})
	fmt.Println(string(b), err)
	// Output:
	// 0.001 <nil>
	// {"0.9":0.01} <nil>
}
