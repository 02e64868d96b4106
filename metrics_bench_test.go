package pitaya_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

func benchLabels() []pitaya.Label {
	return []pitaya.Label{{Name: "route", Value: "connector.h.echo"}, {Name: "status", Value: "ok"}, {Name: "type", Value: "handler"}, {Name: "code", Value: ""}}
}

// BenchmarkMetrics is one report. That of response_time_ns feeds a summary and a histogram.
func BenchmarkMetrics(b *testing.B) {
	m := newMetrics(b, pitaya.MetricsConfig{})
	labels := benchLabels()
	x := 1e5
	reports := map[string]func(float64){
		"of=count/by=labels":     func(float64) { m.Count("refused", 1, labels[0]) },
		"of=count/by=series":     pitaya.MetricSeries(m, "count", "refused", labels[0]),
		"of=summary/by=labels":   func(x float64) { m.Observe("handler_delay_ns", x, labels[0], labels[2]) },
		"of=summary/by=series":   pitaya.MetricSeries(m, "observe", "handler_delay_ns", labels[0], labels[2]),
		"of=both/by=labels":      func(x float64) { m.Observe("response_time_ns", x, labels...) },
		"of=both/by=series":      pitaya.MetricSeries(m, "observe", "response_time_ns", labels...),
		"of=histogram/by=series": pitaya.MetricSeries(m, "observe", "channel_capacity"),
	}
	for _, name := range slices.Sorted(maps.Keys(reports)) {
		f := reports[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(x)
				if x++; x > 5e6 {
					x = 1e5
				}
			}
		})
	}
	b.Run("of=both/by=series/parallel", func(b *testing.B) {
		observe := pitaya.MetricSeries(m, "observe", "response_time_ns", labels...)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				observe(1e5)
			}
		})
	})
}

// BenchmarkMetricsScrape is an exposition of 1,000 series, summaries and histograms of response times.
func BenchmarkMetricsScrape(b *testing.B) {
	m := newMetrics(b, pitaya.MetricsConfig{Game: "chess"})
	for i := range 500 {
		for x := range 200 {
			m.Observe("response_time_ns", float64(1e4+x*x*1e3), pitaya.Label{Name: "route", Value: fmt.Sprint("connector.room.method", i)})
		}
	}
	for _, accept := range []string{"text/plain", acceptOpen} {
		format := map[string]string{"text/plain": "text", acceptOpen: "openmetrics"}[accept]
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run("format="+format+"/encoding="+encoding, func(b *testing.B) {
				r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				r.Header.Set("Accept", accept)
				r.Header.Set("Accept-Encoding", encoding)
				w := httptest.NewRecorder()
				b.ReportAllocs()
				for b.Loop() {
					w.Body.Reset()
					m.ServeHTTP(w, r)
				}
				b.SetBytes(int64(w.Body.Len()))
			})
		}
	}
}

// BenchmarkStatsd is one report to a server that takes all.
func BenchmarkStatsd(b *testing.B) {
	s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{}, slog.New(slog.DiscardHandler),
		func(context.Context) (net.Conn, error) { return sink{}, nil })
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	labels := benchLabels()
	observe := pitaya.MetricSeries(s, "observe", "response_time_ns", labels...)
	b.Run("by=labels", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Observe("response_time_ns", 1e5, labels...)
		}
	})
	b.Run("by=series", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			observe(1e5)
		}
	})
}

// A sink is a connection that takes everything.
type sink struct{ net.Conn } // nil: nothing else is called

func (sink) Write(p []byte) (int, error)      { return len(p), nil }
func (sink) Close() error                     { return nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
