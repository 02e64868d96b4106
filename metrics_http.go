package pitaya

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// textPools are what an exposition is written with.
type textPools struct {
	buffers sync.Pool // *[]byte
	gzip    sync.Pool // *gzip.Writer
}

// ServeHTTP implements [http.Handler]. It answers GET and HEAD on any path, in
// OpenMetrics where the Accept header prefers it and else in Prometheus' text
// format, compressed by gzip where Accept-Encoding allows it.
//
// Names are the same in both formats, so that dashboards do not depend on what
// a scraper asks for. Therefore a counter without _total at its end has the
// type unknown in OpenMetrics.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "metrics can only be read", http.StatusMethodNotAllowed)
		return
	}
	format := chooseFormat(strings.Join(r.Header.Values("Accept"), ","))
	h := w.Header()
	h.Set("Content-Type", format.contentType())
	h.Set("Vary", "Accept, Accept-Encoding")
	zip := acceptsGzip(strings.Join(r.Header.Values("Accept-Encoding"), ","))
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	if zip && r.Method == http.MethodHead {
		return
	}

	buf, _ := m.pools.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer m.pools.buffers.Put(buf)
	*buf = appendExposition((*buf)[:0], format, m.sample())
	if !zip {
		h.Set("Content-Length", strconv.Itoa(len(*buf)))
		if r.Method != http.MethodHead {
			w.Write(*buf) // an error is the scraper's end, who knows of it
		}
		return
	}
	z, _ := m.pools.gzip.Get().(*gzip.Writer)
	if z == nil {
		z, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	}
	defer m.pools.gzip.Put(z)
	z.Reset(w)
	z.Write(*buf)
	z.Close()
	z.Reset(io.Discard)
}

// chooseFormat chooses by an Accept header: the range of highest quality that
// there is a format for, of equal ones the most exact, then the first. Without
// any it is the text format, which everything that scrapes can read.
func chooseFormat(accept string) textFormat {
	best, quality, exactness := formatText, 0.0, 0
	for clause := range strings.SplitSeq(accept, ",") {
		value, params, _ := strings.Cut(clause, ";")
		version, q := "", 1.0
		for p := range strings.SplitSeq(params, ";") {
			name, v, _ := strings.Cut(p, "=")
			v = strings.Trim(strings.TrimSpace(v), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "version":
				version = v
			case "q":
				q = parseQuality(v)
			}
		}
		format, exact := formatText, 0
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "application/openmetrics-text":
			exact = 3
			switch version {
			case "", "1.0.0":
				format = formatOpenMetrics
			case "0.0.1":
				format = formatOpenMetrics01
			default:
				continue
			}
		case "text/plain":
			exact = 3
			if version != "" && version != "0.0.4" {
				continue
			}
		case "application/*":
			format, exact = formatOpenMetrics, 2
		case "text/*":
			exact = 2
		case "*/*":
			exact = 1
		default:
			continue
		}
		if q > quality || q == quality && q > 0 && exact > exactness {
			best, quality, exactness = format, q, exact
		}
	}
	return best
}

// acceptsGzip is whether an Accept-Encoding header allows gzip.
func acceptsGzip(accept string) bool {
	all := false
	for clause := range strings.SplitSeq(accept, ",") {
		value, params, _ := strings.Cut(clause, ";")
		q := 1.0
		for p := range strings.SplitSeq(params, ";") {
			if name, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(name), "q") {
				q = parseQuality(strings.TrimSpace(v))
			}
		}
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "gzip", "x-gzip":
			return q > 0
		case "*":
			all = q > 0
		}
	}
	return all
}

// parseQuality reads a q value. What is none counts as 0.
func parseQuality(s string) float64 {
	q, err := strconv.ParseFloat(s, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
