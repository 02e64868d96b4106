package pitaya

import (
	"context"
	"log/slog"
	"net"
)

// The doors of the metrics' tests.

// MaxSeries is maxSeries.
const MaxSeries = maxSeries

// MetricSeries is what the dispatcher keeps of a reporter of the library: a function that reports to one series.
func MetricSeries(r Reporter, kind, name string, labels ...Label) func(float64) {
	return r.(seriesReporter).series(kind, name, labels...)
}

// NewStatsdOver is NewStatsd with a logger and with connections that dial makes.
func NewStatsdOver(serverType string, cfg MetricsConfig, logger *slog.Logger,
	dial func(ctx context.Context) (net.Conn, error)) (*Statsd, error) {
	return newStatsd(serverType, cfg, logger, dial)
}
