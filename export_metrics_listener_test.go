package pitaya

import (
	"context"
	"log/slog"
	"net"
	"net/http"
)

// ServeMetrics serves h at l as a server serves its metrics, and returns what ends that.
func ServeMetrics(l net.Listener, h http.Handler, log *slog.Logger) (end func(context.Context) error) {
	return newMetricsListener(l, h, log).close
}

// Bounds of what a scraper may send.
const (
	MetricsMaxHeader = metricsMaxHeader
	MetricsMaxBody   = metricsMaxBody
)
