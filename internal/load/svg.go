package load

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// The plot's measures, in units of its view box.
const (
	svgWidth   = 900
	svgLeft    = 114
	svgRight   = 24
	svgTop     = 74
	svgPanel   = 260 // height of the latencies
	svgGap     = 56
	svgLower   = 110 // height of the throughput
	svgBottom  = 54
	svgHeight  = svgTop + svgPanel + svgGap + svgLower + svgBottom
	svgPlot    = svgWidth - svgLeft - svgRight
	svgLowerAt = svgTop + svgPanel + svgGap
)

// svgStyle follows the reader's setting for dark pages.
const svgStyle = `
svg { --bg: #ffffff; --ink: #1f2328; --faint: #656d76; --grid: #d8dee4; --p50: #1a7f37; --p90: #0969da; --p99: #bc4c00; --max: #8250df; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
svg { --bg: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #30363d; --p50: #3fb950; --p90: #58a6ff; --p99: #f0883e; --max: #bc8cff; --bad: #ff7b72; }
}
.bg { fill: var(--bg); }
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.title { font-size: 17px; font-weight: 600; }
@media (max-width: 600px) { text { font-size: 19px; } .title { font-size: 23px; } .line { stroke-width: 3; } }
.faint { fill: var(--faint); }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.p50 { stroke: var(--p50); } .p90 { stroke: var(--p90); } .p99 { stroke: var(--p99); } .max { stroke: var(--max); stroke-dasharray: 2 4; }
.bad { stroke: var(--bad); }
.dot50 { fill: var(--p50); } .dot90 { fill: var(--p90); } .dot99 { fill: var(--p99); } .dotmax { fill: var(--max); } .dotbad { fill: var(--bad); }
.rate { stroke: var(--p90); }
.area { fill: var(--p90); opacity: .18; }
`

// WriteSVG writes a plot of latency and throughput over time. It needs nothing but itself, and follows the reader's
// setting for dark pages.
func (rep *Report) WriteSVG(w io.Writer) error {
	p := newPlot(rep)
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="100%%" style="max-width:1400px" role="img" aria-labelledby="t d">`+"\n",
		svgWidth, svgHeight)
	p.printf("<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n<style>%s</style>\n", html.EscapeString(p.title()), html.EscapeString(p.summary()), svgStyle)
	p.printf(`<rect class="bg" width="%d" height="%d"/>`+"\n", svgWidth, svgHeight)
	p.text(svgLeft, 26, "title", "start", p.title())
	p.text(svgLeft, 46, "faint", "start", p.summary())
	if len(rep.Series) == 0 || rep.Measured.Count == 0 {
		p.text(svgWidth/2, svgTop+svgPanel/2, "faint", "middle", "nothing was measured")
	} else {
		p.latencies()
		p.throughput()
	}
	p.printf("</svg>\n")
	_, err := io.WriteString(w, p.b.String())
	return err
}

type plot struct {
	rep  *Report
	b    strings.Builder
	span float64 // seconds on the axis
}

func newPlot(rep *Report) *plot {
	return &plot{rep: rep, span: max(rep.Measured.Seconds, 1e-3)}
}

func (p *plot) printf(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

func (p *plot) text(x, y float64, class, anchor, text string) {
	p.printf(`<text x="%s" y="%s" class="%s" text-anchor="%s">%s</text>`+"\n", coord(x), coord(y), class, anchor, html.EscapeString(text))
}

func (p *plot) line(class string, x1, y1, x2, y2 float64) {
	p.printf(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, coord(x1), coord(y1), coord(x2), coord(y2))
}

// coord writes a coordinate with a tenth.
func coord(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func (p *plot) title() string {
	s := p.rep.Settings
	load := fmt.Sprintf("%d in flight", s.InFlight)
	switch {
	case p.rep.Load == "open":
		load = number(s.Rate) + "/s " + s.Arrival
	case p.rep.Broadcast != nil:
		load = fmt.Sprintf("%d at once", p.rep.Broadcast.AtOnce)
	case p.rep.Scenario != string(Echo) && p.rep.Scenario != string(Notify):
		load = ""
	}
	return join(p.rep.Scenario, integer(int64(s.Connections))+" connections", load)
}

func (p *plot) summary() string {
	m := p.rep.Measured
	return fmt.Sprintf("%s %s, %s/s, p50 %s, p99 %s, max %s, %s errors", integer(m.Count), p.rep.unit(), number(m.PerSecond),
		micro(m.Latency.P50), micro(m.Latency.P99), micro(m.Latency.Max), integer(p.rep.ErrorSum))
}

// x is where a time is, in seconds.
func (p *plot) x(t float64) float64 { return svgLeft + svgPlot*min(t/p.span, 1) }

// mid is the middle of an interval.
func (p *plot) mid(i int) float64 {
	s := p.rep.Series
	end := p.span
	if i+1 < len(s) {
		end = s[i+1].T
	}
	return (s[i].T + max(end, s[i].T)) / 2
}

// timeAxis draws the lines and numbers of the times.
func (p *plot) timeAxis(top, height float64, labels bool) {
	step := nice(p.span / 8)
	for t := 0.0; t <= p.span*1.0001; t += step {
		x := p.x(t)
		p.line("grid", x, top, x, top+height)
		if labels {
			p.text(x, top+height+20, "faint", "middle", strconv.FormatFloat(math.Round(t/step)*step, 'g', 6, 64))
		}
	}
	p.line("axis", svgLeft, top+height, svgLeft+svgPlot, top+height)
	if labels {
		p.text(svgLeft+svgPlot/2, top+height+42, "", "middle", "seconds since the beginning of what is measured")
	}
}

// nice rounds up to 1, 2 or 5 times a power of ten.
func nice(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if v <= f*decade*1.0001 {
			return f * decade
		}
	}
	return 10 * decade
}

// latencies draws the upper panel, on a scale of powers of ten.
func (p *plot) latencies() {
	low, high := math.Inf(1), 0.0
	for _, s := range p.rep.Series {
		if s.Count > 0 {
			low, high = min(low, s.P50), max(high, s.Max)
		}
	}
	from := math.Floor(math.Log10(max(low, 0.1)))
	to := max(math.Ceil(math.Log10(max(high, 0.1))), from+1)
	y := func(us float64) float64 {
		v := (math.Log10(max(us, 0.1)) - from) / (to - from)
		return svgTop + svgPanel*(1-min(max(v, 0), 1))
	}
	p.timeAxis(svgTop, svgPanel, false)
	for d := from; d <= to; d++ {
		for _, f := range []float64{1, 2, 5} {
			us := f * math.Pow(10, d)
			if d == to && f > 1 || to-from > 2 && f > 1 {
				continue
			}
			p.line("grid", svgLeft, y(us), svgLeft+svgPlot, y(us))
			p.text(svgLeft-8, y(us)+4, "faint", "end", tick(us))
		}
	}
	p.axisTitle(svgTop+svgPanel/2, "latency")
	for _, c := range []struct {
		class, name string
		value       func(Point) float64
	}{
		{"max", "max", func(s Point) float64 { return s.Max }},
		{"99", "p99", func(s Point) float64 { return s.P99 }},
		{"90", "p90", func(s Point) float64 { return s.P90 }},
		{"50", "p50", func(s Point) float64 { return s.P50 }},
	} {
		class := c.name
		var path strings.Builder
		pen := "M"
		for i, s := range p.rep.Series {
			if s.Count == 0 {
				pen = "M" // a gap: nothing came
				continue
			}
			fmt.Fprintf(&path, "%s%s %s", pen, coord(p.x(p.mid(i))), coord(y(c.value(s))))
			pen = "L"
		}
		p.printf(`<path class="line %s" d="%s"/>`+"\n", class, path.String())
		if len(p.rep.Series) <= 60 {
			for i, s := range p.rep.Series {
				if s.Count > 0 {
					p.printf(`<circle class="dot%s" cx="%s" cy="%s" r="2.5"><title>%s s: %s %s</title></circle>`+"\n", c.class, coord(p.x(p.mid(i))),
						coord(y(c.value(s))), strconv.FormatFloat(p.mid(i), 'g', 4, 64), c.name, micro(c.value(s)))
				}
			}
		}
	}
	for i, name := range []string{"max", "p99", "p90", "p50"} {
		x := float64(svgWidth - svgRight - 306 + 78*i)
		p.printf(`<line class="line %s" x1="%s" y1="61" x2="%s" y2="61"/>`+"\n", name, coord(x), coord(x+20))
		p.text(x+26, 65, "", "start", name)
	}
}

// tick writes the number of an axis.
func tick(us float64) string {
	switch {
	case us >= 0.999e6:
		return strconv.FormatFloat(us/1e6, 'g', 3, 64) + " s"
	case us >= 0.999e3:
		return strconv.FormatFloat(us/1e3, 'g', 3, 64) + " ms"
	}
	return strconv.FormatFloat(us, 'g', 3, 64) + " µs"
}

func (p *plot) axisTitle(y float64, text string) {
	p.printf(`<text transform="translate(16 %s) rotate(-90)" text-anchor="middle">%s</text>`+"\n", coord(y), html.EscapeString(text))
}

// throughput draws the lower panel.
func (p *plot) throughput() {
	high, failed := 1.0, int64(0)
	for _, s := range p.rep.Series {
		high = max(high, s.PerSecond)
		failed += s.Failed
	}
	step := nice(high / 3)
	top := math.Ceil(high/step) * step
	y := func(v float64) float64 { return svgLowerAt + svgLower*(1-v/top) }
	p.timeAxis(svgLowerAt, svgLower, true)
	for v := 0.0; v <= top*1.0001; v += step {
		p.line("grid", svgLeft, y(v), svgLeft+svgPlot, y(v))
		p.text(svgLeft-8, y(v)+4, "faint", "end", short(v))
	}
	p.axisTitle(svgLowerAt+svgLower/2, p.rep.unit()+"/s")
	var path strings.Builder
	pen := "M"
	for i, s := range p.rep.Series {
		end := p.span
		if i+1 < len(p.rep.Series) {
			end = p.rep.Series[i+1].T
		}
		fmt.Fprintf(&path, "%s%s %sL%s %s", pen, coord(p.x(s.T)), coord(y(s.PerSecond)), coord(p.x(end)), coord(y(s.PerSecond)))
		pen = "L"
	}
	d := path.String()
	bottom := coord(svgLowerAt + svgLower)
	p.printf(`<path class="area" d="%sL%s %sL%s %sZ"/>`+"\n", d, coord(p.x(p.span)), bottom, coord(p.x(p.rep.Series[0].T)), bottom)
	p.printf(`<path class="line rate" d="%s"/>`+"\n", d)
	if failed == 0 {
		return
	}
	for i, s := range p.rep.Series {
		if s.Failed > 0 {
			x := p.x(p.mid(i))
			p.printf(`<circle class="dotbad" cx="%s" cy="%d" r="4"><title>%s failed</title></circle>`+"\n", coord(x), svgLowerAt-8, integer(s.Failed))
		}
	}
	p.text(svgLeft+svgPlot, svgLowerAt-18, "faint", "end", "red: "+integer(failed)+" failed")
}

// short writes a number of an axis.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + " M"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'g', 3, 64) + " k"
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
