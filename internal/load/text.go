package load

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes the report for people.
func (rep *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s", name)
		fmt.Fprintf(&b, format, args...)
		b.WriteByte('\n')
	}
	s, m := rep.Settings, rep.Measured
	load := fmt.Sprintf("%d in flight each", s.InFlight)
	switch {
	case rep.Load == "open":
		load = fmt.Sprintf("%s/s scheduled (%s)", number(s.Rate), s.Arrival)
	case rep.Scenario == string(Idle) || rep.Scenario == string(Connect) || rep.Scenario == string(Mixed):
		load = ""
	case rep.Broadcast != nil:
		load = fmt.Sprintf("%d broadcasts at once", rep.Broadcast.AtOnce)
	}
	line("scenario", "%s, %s", rep.Scenario, join(fmt.Sprintf("%d connections", s.Connections), load, rep.Target))
	if s.Route != "" {
		line("route", "%s, body of %d bytes", s.Route, s.BodyBytes)
	}
	if rep.Interrupted {
		line("interrupted", "the figures are of what was done until then")
	}
	if rep.Scenario != string(Connect) {
		line("connections", "%d opened, %d at the end", rep.Connections.Opened, rep.Connections.AtEnd)
	}
	line("measured", "%s %s in %.2f s, %s/s", integer(m.Count), rep.unit(), m.Seconds, number(m.PerSecond))
	if m.Count > 0 {
		line("latency", "%s", latencyText(m.Latency))
		if m.Corrected != nil {
			line("corrected", "%s", latencyText(*m.Corrected))
		}
		line("counted from", "%s", rep.origin())
	}
	if bc := rep.Broadcast; bc != nil {
		line("deliveries", "%s of %s in %s rounds; per client %s to %s", integer(bc.Delivered), integer(bc.Wanted), integer(bc.Rounds),
			integer(bc.LeastPerClient), integer(bc.MostPerClient))
	}
	t := rep.Total
	line("total", "%s handshakes, %s requests, %s notifies, %s answers, %s error answers, %s pushes, %s heartbeats",
		integer(t.Connections), integer(t.Requests), integer(t.Notifies), integer(t.Answered), integer(t.Failed), integer(t.Pushes), integer(t.Heartbeats))
	line("bytes", "%s sent, %s received", size(float64(t.BytesSent)), size(float64(t.BytesReceived)))
	rep.serverText(line)
	g := rep.Generator
	line("generator", "%.2f cores%s", g.Cores, perOp(g.CPUPerOp))
	line("errors", "%s", integer(rep.ErrorSum))
	for _, e := range rep.Errors {
		fmt.Fprintf(&b, "  %12s  %s\n", integer(e.Count), strings.TrimSpace(e.Kind+" "+e.Code))
	}
	for _, n := range rep.Notes {
		line("note", "%s", n)
	}
	if len(rep.Steps) > 0 {
		fmt.Fprintf(&b, "\n%12s %10s %10s %10s %10s  step\n", "count", "failed", "p50", "p99", "max")
		for _, s := range rep.Steps {
			fmt.Fprintf(&b, "%12s %10s %10s %10s %10s  %s\n", integer(s.Count), integer(s.Failed), micro(s.Latency.P50),
				micro(s.Latency.P99), micro(s.Latency.Max), s.Step)
		}
	}
	rep.histogramText(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// unit is what an operation is called.
func (rep *Report) unit() string {
	switch Scenario(rep.Scenario) {
	case Notify:
		return "notifies"
	case Broadcast:
		return "deliveries"
	case Connect:
		return "connects"
	}
	return "requests"
}

// origin says from where latencies are counted.
func (rep *Report) origin() string {
	switch {
	case rep.Scenario == string(Notify) && rep.Load == "open":
		return "the scheduled time, until it is handed to the connection"
	case rep.Load == "open":
		return "the scheduled time (no coordinated omission)"
	case rep.Scenario == string(Notify):
		return "the sending of a batch, until the answer behind it"
	case rep.Scenario == string(Broadcast):
		return "the sending of the request for a round, until each delivery"
	case rep.Measured.Corrected != nil:
		return "the sending; corrected as if each connection had meant to send at a fixed interval"
	}
	return "the sending, which waits for the answer before (a stall delays what would have been sent: use -rate or -correct)"
}

func (rep *Report) serverText(line func(string, string, ...any)) {
	s := rep.Server
	if s == nil {
		return
	}
	if !s.Available {
		line("server", "not available: %s", s.Note)
		return
	}
	line("server CPU", "%.2f s (user %.2f, system %.2f), %.2f cores%s", s.UserSeconds+s.SystemSecs, s.UserSeconds, s.SystemSecs, s.Cores, perOp(s.CPUPerOp))
	line("server memory", "RSS %s before, %s at the end%s", size(float64(s.Before.RSS)), size(float64(s.AtEnd.RSS)), rep.each(s.RSSPerConn))
	if s.AtEnd.PSS > 0 {
		line("", "PSS %s before, %s at the end%s", size(float64(s.Before.PSS)), size(float64(s.AtEnd.PSS)), rep.each(s.PSSPerConn))
	}
}

// each writes the memory of one connection, where it is not covered by garbage.
func (rep *Report) each(bytes float64) string {
	switch {
	case rep.Server.AfterCollect:
		return ", " + size(bytes) + " per connection (both after a garbage collection)"
	case rep.Scenario == string(Idle):
		return ", " + size(bytes) + " per connection (with garbage; see -gc)"
	}
	return ""
}

// histogramText draws the latencies.
func (rep *Report) histogramText(b *strings.Builder) {
	const width = 50
	var most, sum, seen int64
	for _, bar := range rep.Histogram {
		most = max(most, bar.Count)
		sum += bar.Count
	}
	if sum == 0 {
		return
	}
	b.WriteString("\n      latency up to        count      all\n")
	for _, bar := range rep.Histogram {
		seen += bar.Count
		n := int(bar.Count * width / most)
		if bar.Count > 0 && n == 0 {
			n = 1
		}
		row := fmt.Sprintf("%19s %12s %7.3f%%  %s", micro(bar.To), integer(bar.Count), 100*float64(seen)/float64(sum), strings.Repeat("#", n))
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
}

func latencyText(l Latency) string {
	return fmt.Sprintf("min %s  mean %s  p50 %s  p90 %s  p99 %s  p99.9 %s  max %s",
		micro(l.Min), micro(l.Mean), micro(l.P50), micro(l.P90), micro(l.P99), micro(l.P999), micro(l.Max))
}

func join(parts ...string) string {
	var list []string
	for _, p := range parts {
		if p != "" {
			list = append(list, p)
		}
	}
	return strings.Join(list, ", ")
}

func perOp(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(", %.2f µs per operation", *v)
}

// micro writes microseconds with three digits and their unit.
func micro(us float64) string {
	d := us * float64(time.Microsecond)
	for _, u := range []struct {
		name string
		unit float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if d >= u.unit || u.unit == 1e3 {
			return digits(d/u.unit) + " " + u.name
		}
	}
	return ""
}

// digits writes a number with three digits that count.
func digits(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// size writes a number of bytes.
func size(n float64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	for _, u := range []struct {
		name string
		unit float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.unit {
			return sign + digits(n/u.unit) + " " + u.name
		}
	}
	return fmt.Sprintf("%s%.0f B", sign, n)
}

// integer writes a number with its thousands apart.
func integer(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number writes a rate.
func number(v float64) string {
	if v >= 1000 {
		return integer(int64(v + 0.5))
	}
	return digits(v)
}
