package load

import (
	"encoding/json"
	"io"
	"runtime"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/hist"
	"github.com/pitaya-go/pitaya/internal/load/procstat"
)

// Format is the version of the JSON form of a [Report]. Fields are added without a change of it.
const Format = 1

// A Report is what a run has found. Its JSON form is stable: cmd/pitaya-load documents it. Times are in seconds, those of
// latencies in microseconds, sizes in bytes.
type Report struct {
	Format      int    `json:"format"`
	Target      string `json:"target"`
	Scenario    string `json:"scenario"`
	Load        string `json:"load"` // "closed" or "open"
	Interrupted bool   `json:"interrupted"`

	Settings    Settings         `json:"settings"`
	Connections Connections      `json:"connections"`
	Measured    Measured         `json:"measured"`
	Total       Counts           `json:"total"`
	Errors      []ErrorCount     `json:"errors"` // of the whole run, the most frequent first
	ErrorSum    int64            `json:"error_sum"`
	Broadcast   *BroadcastReport `json:"broadcast,omitempty"`
	Steps       []StepReport     `json:"steps,omitempty"` // of a script
	Server      *ServerReport    `json:"server,omitempty"`
	Generator   GeneratorReport  `json:"generator"`
	Series      []Point          `json:"series"`
	Histogram   []Bar            `json:"histogram"`
	Notes       []string         `json:"notes"`

	memBefore        procstat.Sample
	cpuBegin, cpuEnd procstat.Sample
	memIdle          *procstat.Sample
	ownBegin, ownEnd time.Duration
	begin            int64
	noServer         string // why there are no figures of the server
}

// Settings are what was asked for.
type Settings struct {
	Connections int     `json:"connections"`
	InFlight    int     `json:"in_flight"`
	Rate        float64 `json:"rate"`
	Arrival     string  `json:"arrival,omitempty"` // open load: "constant" or "poisson"
	Route       string  `json:"route,omitempty"`
	BodyBytes   int     `json:"body_bytes"`
	Warmup      float64 `json:"warmup_s"`
	Duration    float64 `json:"duration_s"`
	Ramp        float64 `json:"ramp_s"`
	Requests    int64   `json:"requests,omitempty"`
	Timeout     float64 `json:"timeout_s"`
}

// Connections are how many there were.
type Connections struct {
	Opened int64 `json:"opened"` // when the scenario began
	AtEnd  int64 `json:"at_end"` // when what is measured ended
}

// Measured is what was to be sent in the time that is measured. What an operation is depends on the scenario: a request,
// a notify, a push delivered, a connect, a request of a script.
type Measured struct {
	Seconds   float64  `json:"seconds"`
	Count     int64    `json:"count"`  // operations that succeeded
	Failed    int64    `json:"failed"` // operations that did not
	PerSecond float64  `json:"per_second"`
	Latency   Latency  `json:"latency_us"`
	Corrected *Latency `json:"corrected_us,omitempty"`
}

// Latency is a distribution in microseconds.
type Latency struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// An ErrorCount is how often something went wrong.
type ErrorCount struct {
	Kind  string `json:"kind"`
	Code  string `json:"code,omitempty"`
	Count int64  `json:"count"`
}

// BroadcastReport is of scenario broadcast: deliveries by client in the whole run.
type BroadcastReport struct {
	Rounds         int64 `json:"rounds"`
	AtOnce         int   `json:"at_once"`
	Wanted         int64 `json:"wanted"`
	Delivered      int64 `json:"delivered"`
	LeastPerClient int64 `json:"least_per_client"`
	MostPerClient  int64 `json:"most_per_client"`
}

// StepReport is of the steps of a script that have the same kind and route.
type StepReport struct {
	Step    string  `json:"step"`
	Count   int64   `json:"count"`
	Failed  int64   `json:"failed"`
	Latency Latency `json:"latency_us"`
}

// ServerReport is what the processes of the server have used, added up.
type ServerReport struct {
	PIDs         []int    `json:"pids"`
	Available    bool     `json:"available"`
	Note         string   `json:"note,omitempty"` // why it is not
	UserSeconds  float64  `json:"user_s"`
	SystemSecs   float64  `json:"system_s"`
	Cores        float64  `json:"cores"`                     // processor time per time
	CPUPerOp     *float64 `json:"cpu_us_per_operation"`      // null where no operation succeeded or failed
	Before       Memory   `json:"memory_before"`             // before the first connection
	AtEnd        Memory   `json:"memory_at_end"`             // with the connections open
	RSSPerConn   float64  `json:"rss_per_connection"`        // what has been added, divided by the connections open at the end
	PSSPerConn   float64  `json:"pss_per_connection"`        // likewise; 0 if unknown
	AfterCollect bool     `json:"memory_after_gc,omitempty"` // both figures were taken after a garbage collection
}

// Memory is in bytes.
type Memory struct {
	RSS  int64 `json:"rss"`
	Anon int64 `json:"rss_anon"`
	PSS  int64 `json:"pss"`
}

// GeneratorReport is what the load generator itself has used while it measured.
type GeneratorReport struct {
	Go       string   `json:"go"`
	OS       string   `json:"os"`
	CPUs     int      `json:"gomaxprocs"`
	CPUSecs  float64  `json:"cpu_s"`
	Cores    float64  `json:"cores"`
	CPUPerOp *float64 `json:"cpu_us_per_operation"`
}

// A Point is one interval. Operations count where they ended.
type Point struct {
	T         float64 `json:"t_s"` // since the beginning of what is measured
	Count     int64   `json:"count"`
	Failed    int64   `json:"failed"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P90       float64 `json:"p90_us"`
	P99       float64 `json:"p99_us"`
	Max       float64 `json:"max_us"`
	Open      int     `json:"open"`
}

// A Bar is a range of latencies and how many were in it.
type Bar struct {
	From  float64 `json:"from_us"`
	To    float64 `json:"to_us"`
	Count int64   `json:"count"`
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func newLatency(h *hist.Hist) Latency {
	q := func(p float64) float64 { return micros(h.Quantile(p)) }
	return Latency{Min: micros(h.Min()), Mean: micros(h.Mean()), P50: q(0.5), P90: q(0.9), P99: q(0.99), P999: q(0.999), Max: micros(h.Max())}
}

func newPoint(h *hist.Hist, failed int64, at, length time.Duration, open int) Point {
	p := Point{T: at.Seconds(), Count: int64(h.Count()), Failed: failed, Open: open, P50: micros(h.Quantile(0.5)),
		P90: micros(h.Quantile(0.9)), P99: micros(h.Quantile(0.99)), Max: micros(h.Max())}
	if length > 0 {
		p.PerSecond = float64(p.Count) / length.Seconds()
	}
	return p
}

func newReport(cfg *Config) *Report {
	rep := &Report{
		Format: Format, Target: cfg.URL, Scenario: string(cfg.Scenario), Load: "closed", Notes: []string{}, Series: []Point{},
		Settings: Settings{
			Connections: cfg.Conns, InFlight: cfg.InFlight, Rate: cfg.Rate, Route: cfg.Route, BodyBytes: len(cfg.Body),
			Warmup: cfg.Warmup.Seconds(), Duration: cfg.Duration.Seconds(), Ramp: cfg.Ramp.Seconds(), Requests: cfg.Requests,
			Timeout: cfg.Timeout.Seconds(),
		},
	}
	if cfg.Rate > 0 {
		rep.Load, rep.Settings.Arrival = "open", "constant"
		if cfg.Poisson {
			rep.Settings.Arrival = "poisson"
		}
	}
	return rep
}

// finish works the report out once all has ended. last are the durations of the last interval.
func (r *run) finish(rep *Report, last *hist.Hist) {
	rest := new(hist.Hist)
	failed := r.rec.collect(rest)
	last.Merge(rest)
	if n := len(rep.Series); n > 0 {
		p := &rep.Series[n-1]
		length := time.Duration(r.rec.end.Load()-rep.begin).Seconds() - p.T
		*p = newPoint(last, p.Failed+failed, time.Duration(p.T*float64(time.Second)), time.Duration(length*float64(time.Second)), p.Open)
	}
	rep.Total = r.rec.counts()
	rep.Errors, rep.ErrorSum = r.rec.errors()
	total := &r.rec.total
	m := &rep.Measured
	m.Seconds = time.Duration(r.rec.end.Load() - rep.begin).Seconds()
	m.Count, m.Failed, m.Latency = int64(total.Count()), r.rec.failed, newLatency(total)
	if m.Seconds > 0 {
		m.PerSecond = float64(m.Count) / m.Seconds
	}
	if r.cfg.Correct > 0 {
		m.Corrected = new(newLatency(total.Corrected(r.cfg.Correct)))
	}
	rep.Histogram = bars(total)
	for i, s := range r.rec.steps {
		rep.Steps = append(rep.Steps, StepReport{Step: r.cfg.Script.Calls[i], Count: s.count, Failed: s.failed, Latency: newLatency(&s.lat)})
	}
	ops := float64(m.Count + m.Failed)
	perOp := func(d time.Duration) *float64 {
		if ops == 0 {
			return nil
		}
		return new(micros(d) / ops)
	}
	own := rep.ownEnd - rep.ownBegin
	rep.Generator = GeneratorReport{Go: runtime.Version(), OS: runtime.GOOS, CPUs: runtime.GOMAXPROCS(0), CPUSecs: own.Seconds(), CPUPerOp: perOp(own)}
	if m.Seconds > 0 {
		rep.Generator.Cores = own.Seconds() / m.Seconds
	}
	r.remark(rep)
	if len(r.cfg.PIDs) == 0 {
		return
	}
	used := rep.cpuEnd.CPU() - rep.cpuBegin.CPU()
	s := &ServerReport{PIDs: r.cfg.PIDs, Available: true, CPUPerOp: perOp(used), AfterCollect: r.cfg.Collect,
		UserSeconds: (rep.cpuEnd.User - rep.cpuBegin.User).Seconds(), SystemSecs: (rep.cpuEnd.System - rep.cpuBegin.System).Seconds(),
		Before: newMemory(rep.memBefore), AtEnd: newMemory(rep.cpuEnd)}
	if rep.memIdle != nil {
		s.AtEnd = newMemory(*rep.memIdle)
	}
	if rep.noServer != "" {
		s = &ServerReport{PIDs: r.cfg.PIDs, Note: rep.noServer}
	} else if m.Seconds > 0 {
		s.Cores = used.Seconds() / m.Seconds
	}
	if n := float64(rep.Connections.AtEnd); n > 0 && s.Available {
		s.RSSPerConn = float64(s.AtEnd.RSS-s.Before.RSS) / n
		if s.AtEnd.PSS > 0 && s.Before.PSS > 0 {
			s.PSSPerConn = float64(s.AtEnd.PSS-s.Before.PSS) / n
		}
	}
	rep.Server = s
}

// remark adds what a reader of the figures should know.
func (r *run) remark(rep *Report) {
	m, g := rep.Measured, rep.Generator
	if m.Seconds > 0.5 && g.Cores > 0.95*float64(g.CPUs) {
		rep.Notes = append(rep.Notes, "the generator has used all of its processor time: the figures show its limit, and not the server's")
	}
	if want := r.cfg.Duration.Seconds(); !rep.Interrupted && r.cfg.Requests == 0 && m.Seconds < want {
		rep.Notes = append(rep.Notes, "the load ended early, because its connections did")
	}
}

func newMemory(s procstat.Sample) Memory { return Memory{RSS: s.RSS, Anon: s.Anon, PSS: s.PSS} }

// bars puts the latencies into ranges, of which there are five for each power of ten.
func bars(h *hist.Hist) []Bar {
	list := []Bar{}
	steps := [...]float64{1, 1.6, 2.5, 4, 6.3}
	from, decade, i := 0.0, 1.0, 0
	to := decade
	var bar Bar
	next := func() {
		bar = Bar{From: from, To: to}
		from = to
		if i++; i == len(steps) {
			i, decade = 0, decade*10
		}
		to = decade * steps[i]
	}
	next()
	for d, n := range h.Buckets() {
		for micros(d) >= bar.To {
			if bar.Count > 0 || len(list) > 0 {
				list = append(list, bar)
			}
			next()
		}
		bar.Count += int64(n)
	}
	if bar.Count > 0 {
		list = append(list, bar)
	}
	return list
}

// WriteJSON writes the report as JSON.
func (rep *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(rep)
}
