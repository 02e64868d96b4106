package pitaya_test

import (
	"expvar"
	"fmt"
	"log"
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
