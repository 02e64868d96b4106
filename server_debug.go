package pitaya

import (
	"cmp"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"
)

// DebugOptions are settings of [Server.DebugHandler].
type DebugOptions struct {
	// Writable lets the page end sessions. Without it the page only shows.
	Writable bool
}

const (
	debugInterval = time.Second
	debugHistory  = 5 * 60      // samples that are kept
	debugTurn     = time.Minute // latencies of routes are those of the last one to two turns
)

// debugState is what a server collects for its debug pages.
type debugState struct {
	// Immutable.
	in    *inspector
	begin func(*Server) // run: a function, so that only programs with a debug page contain what it shows

	quit  chan struct{} // closed to end the sampling; nil before it has begun. Set by Run, and used by it only.
	ended chan struct{} // closed when it has ended; likewise

	mu    sync.Mutex // guards the fields below
	start time.Time  // zero before the sampling has begun
	ring  []debugSample
	next  int // where the next sample goes, once the ring is full
}

// debugSample is what the charts show of one moment. Rates are per second, over
// the time since the sample before.
type debugSample struct {
	At         int64   `json:"t"` // Unix milliseconds
	Requests   float64 `json:"requests"`
	Notifies   float64 `json:"notifies"`
	Calls      float64 `json:"calls"`
	Failed     float64 `json:"failed"`
	Pushes     float64 `json:"pushes"`
	P50        float64 `json:"p50_ms"` // of what ended since the sample before; 0 if nothing did
	P95        float64 `json:"p95_ms"`
	P99        float64 `json:"p99_ms"`
	Sessions   int64   `json:"sessions"`
	Queue      int64   `json:"queue_bytes"`
	Goroutines int64   `json:"goroutines"`
	Heap       int64   `json:"heap_bytes"`
}

func newDebugState() *debugState {
	d := &debugState{in: newInspector()}
	d.begin = d.run
	return d
}

// inspector returns what the server's messages are reported to, with its routes
// in it; nil if nobody has asked for the debug page. It is called once, when the
// server begins to run.
func (d *debugState) inspector(r *registry) *inspector {
	if d == nil {
		return nil
	}
	for _, e := range r.all() {
		d.in.addRoute(routeHandler, e.Route)
	}
	for route := range r.allRemotes() {
		d.in.addRoute(routeRemote, route)
	}
	return d.in
}

// run begins the sampling, which stop ends.
func (d *debugState) run(s *Server) {
	d.mu.Lock()
	d.start = time.Now()
	d.mu.Unlock()
	d.quit, d.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(d.ended)
		d.sample(s)
	}()
}

// stop ends the sampling, and waits for that. What was sampled stays.
func (d *debugState) stop() {
	if d.quit != nil {
		close(d.quit)
		<-d.ended
	}
}

func (d *debugState) sample(s *Server) {
	tick := time.NewTicker(debugInterval)
	defer tick.Stop()
	m := debugMeter{server: s, last: s.counters.snapshot(), at: time.Now(), turned: time.Now()}
	for {
		select {
		case <-d.quit:
			return
		case <-tick.C:
		}
		// A tick that was late has the next one right behind it, and rates over so short a time say nothing.
		if time.Since(m.at) >= debugInterval/2 {
			d.add(m.read(d.in))
		}
	}
}

func (d *debugState) add(v debugSample) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ring) < debugHistory {
		d.ring = append(d.ring, v)
		return
	}
	d.ring[d.next] = v
	d.next = (d.next + 1) % debugHistory
}

// since returns the samples that were taken later than a moment, in order, and
// when the sampling began.
func (d *debugState) since(ms int64) (list []debugSample, start time.Time) {
	list = []debugSample{}
	if d == nil {
		return list, time.Time{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, part := range [][]debugSample{d.ring[d.next:], d.ring[:d.next]} {
		for _, v := range part {
			if v.At > ms {
				list = append(list, v)
			}
		}
	}
	return list, d.start
}

// debugMeter makes samples. It is used by the sampling goroutine only.
type debugMeter struct {
	server *Server
	last   Stats
	at     time.Time // of last
	turned time.Time // when the latencies of routes began another turn
}

func (m *debugMeter) read(in *inspector) debugSample {
	now, stats := time.Now(), m.server.Stats()
	seconds := max(now.Sub(m.at).Seconds(), 1e-3)
	rate := func(now, before int64) float64 { return math.Round(100*float64(now-before)/seconds) / 100 }
	v := debugSample{
		At:       now.UnixMilli(),
		Requests: rate(stats.Requests, m.last.Requests),
		Notifies: rate(stats.Notifies, m.last.Notifies),
		Calls:    rate(stats.Calls, m.last.Calls),
		Failed:   rate(stats.Failed, m.last.Failed),
		Pushes:   rate(stats.Pushes, m.last.Pushes),
		Sessions: stats.Sessions,
		Queue:    stats.QueueBytes,
	}
	m.last, m.at = stats, now
	took := in.Latency.present()
	in.Latency.turn()
	v.P50, v.P95, v.P99 = milliseconds(took.quantile(0.5)), milliseconds(took.quantile(0.95)), milliseconds(took.quantile(0.99))
	if now.Sub(m.turned) >= debugTurn {
		m.turned = now
		in.turn()
	}
	v.Goroutines, v.Heap = processSize()
	return v
}

// processSize returns the number of goroutines and the bytes of live and unswept
// objects, without stopping anything.
func processSize() (goroutines, heap int64) {
	samples := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	value := func(s metrics.Sample) int64 {
		if s.Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return int64(s.Value.Uint64())
	}
	return value(samples[0]), value(samples[1])
}

// milliseconds keeps what a histogram knows, and not more digits.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d)/100) / 1e4 }

// debugData is what the page shows, but for its sessions and settings.
type debugData struct {
	Now        int64         `json:"now"`        // Unix milliseconds
	Collecting bool          `json:"collecting"` // DebugHandler was called before Run
	Writable   bool          `json:"writable"`
	Server     debugServer   `json:"server"`
	Ready      bool          `json:"ready"`
	Checks     []healthCheck `json:"checks"`
	Stats      Stats         `json:"stats"`
	Samples    []debugSample `json:"samples"`
	Routes     []debugRoute  `json:"routes"`
	Errors     []debugError  `json:"errors"`
	Peers      []debugPeer   `json:"peers"`
}

type debugServer struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Host     string `json:"host"`
	Frontend bool   `json:"frontend"`
	Cluster  bool   `json:"cluster"`
	State    string `json:"state"`   // new, starting, running, draining or ended
	Started  int64  `json:"started"` // Unix milliseconds; 0 if that is not known
	Process  int    `json:"process"` // its id
	Go       string `json:"go"`      // version
	CPUs     int    `json:"cpus"`    // that Go code may use at once
}

type debugRoute struct {
	Route    string    `json:"route"`
	Kind     routeKind `json:"kind"`
	Count    int64     `json:"count"`
	Failed   int64     `json:"failed"`
	Lost     int64     `json:"lost"`
	InFlight int64     `json:"in_flight"`
	Recent   uint64    `json:"recent"` // messages that the latencies are of, those of the last one to two minutes
	P50      float64   `json:"p50_ms"`
	P99      float64   `json:"p99_ms"`
}

type debugError struct {
	Kind  string `json:"kind"`
	Route string `json:"route"`
	Text  string `json:"text"`
	Count int64  `json:"count"`
	Last  int64  `json:"last"` // Unix milliseconds
}

type debugPeer struct {
	ID       string   `json:"id"`
	Type     string   `json:"type"`
	Host     string   `json:"host"`
	Frontend bool     `json:"frontend"`
	State    string   `json:"state"` // self, ready, draining or connecting
	Pending  int64    `json:"pending"`
	Features []string `json:"features"`
}

// debugName returns the word for where a server is in its life.
func (s serverState) debugName() string {
	return [...]string{"new", "starting", "running", "draining", "ended"}[s]
}

// debugData collects what the page shows, with the samples after a moment.
func (s *Server) debugData(after int64) *debugData {
	s.mu.Lock()
	state, collected, c := s.state, s.debug, s.cluster
	begun := s.host != nil
	s.mu.Unlock()
	d := &debugData{
		Now:        time.Now().UnixMilli(),
		Collecting: collected != nil,
		Checks:     s.readiness(),
		Stats:      s.Stats(),
		Routes:     []debugRoute{},
		Errors:     []debugError{},
		Peers:      []debugPeer{},
		Server:     debugServer{State: state.debugName(), Process: os.Getpid(), Go: runtime.Version(), CPUs: runtime.GOMAXPROCS(0)},
	}
	d.Ready = !slices.ContainsFunc(d.Checks, func(c healthCheck) bool { return c.Err != nil })
	var start time.Time
	if d.Samples, start = collected.since(after); !start.IsZero() {
		d.Server.Started = start.UnixMilli()
	}
	if !begun {
		return d // the settings may still change
	}
	info := s.Info()
	d.Server.ID, d.Server.Type, d.Server.Host = info.ID, info.Type, info.Hostname
	d.Server.Frontend, d.Server.Cluster = info.Frontend, c != nil
	if collected != nil {
		d.Routes, d.Errors = collected.in.debugRoutes(), collected.in.debugErrors()
	}
	if c != nil {
		d.Peers = c.debugPeers()
	}
	return d
}

// debugRoutes returns the rows that are of interest: those of the server's own
// routes, and others once they are used.
func (in *inspector) debugRoutes() []debugRoute {
	list := []debugRoute{}
	for _, r := range in.routes() {
		row := debugRoute{Route: r.Route, Kind: r.Kind, Count: r.Count.Load(), Failed: r.Failed.Load(), Lost: r.Lost.Load(), InFlight: r.InFlight.Load()}
		if r.Kind == routeUnknown {
			if row.Count == 0 && row.InFlight == 0 {
				continue
			}
			row.Route = unknownRoute
		}
		took := r.Recent.both()
		row.Recent, row.P50, row.P99 = took.total(), milliseconds(took.quantile(0.5)), milliseconds(took.quantile(0.99))
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b debugRoute) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Route, b.Route), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	return list
}

func (in *inspector) debugErrors() []debugError {
	list := []debugError{}
	for _, e := range in.Errors.list() {
		list = append(list, debugError{Kind: e.Kind, Route: e.Route, Text: e.Text, Count: e.Count, Last: e.Last.UnixMilli()})
	}
	return list
}

func (c *cluster) debugPeers() []debugPeer {
	list := []debugPeer{}
	self := c.node.Self()
	for _, m := range c.node.Members.all() {
		p := debugPeer{ID: m.Info.ID, Type: m.Info.Type, Host: m.Info.Hostname, Frontend: m.Info.Frontend, State: "ready", Pending: m.Pending.Load(), Features: []string{}}
		switch {
		case self != nil && m.Info.ID == self.ID:
			p.State = "self"
		case m.Info.Draining():
			p.State = "draining"
		case !c.node.connected(m.Info.ID):
			p.State = "connecting"
		}
		if f := m.Features.String(); f != "" {
			p.Features = strings.Split(f, ",")
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b debugPeer) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.ID, b.ID))
	})
	return list
}

// debugSessions is a part of the table of sessions.
type debugSessions struct {
	Total    int            `json:"total"`
	Matched  int            `json:"matched"`
	Sessions []debugSession `json:"sessions"`
}

type debugSession struct {
	ID      int64  `json:"id"`
	UID     string `json:"uid"`
	Address string `json:"address"`
	Began   int64  `json:"began"`   // Unix milliseconds; 0 if that is not known
	Waiting int    `json:"waiting"` // messages
	Packets int    `json:"packets"` // to be sent
	Queue   int    `json:"queue_bytes"`
	Away    bool   `json:"away"`  // the session waits for its client to come back
	Route   string `json:"route"` // of the last message
}

// A debugQuery says which sessions to list.
type debugQuery struct {
	Search  string // in the uid, the address and the route; or the id
	Sort    string // a name of debugOrder
	Reverse bool
	Limit   int
}

const (
	debugLimit       = 50
	debugMaxLimit    = 500
	debugMaxSearch   = 256 // bytes
	debugDefaultSort = "id"
)

// debugOrder returns how sessions are compared for a column, nil for one that
// does not exist.
func debugOrder(column string) func(a, b *sessionView) int {
	switch column {
	case "id":
		return func(a, b *sessionView) int { return cmp.Compare(a.ID, b.ID) }
	case "age": // ids are given in the order of arrival
		return func(a, b *sessionView) int { return cmp.Compare(b.ID, a.ID) }
	case "uid":
		return func(a, b *sessionView) int { return strings.Compare(a.UID, b.UID) }
	case "address":
		return func(a, b *sessionView) int { return strings.Compare(a.Addr(), b.Addr()) }
	case "route":
		return func(a, b *sessionView) int { return strings.Compare(a.Route, b.Route) }
	case "queue":
		return func(a, b *sessionView) int { return cmp.Compare(a.Bytes, b.Bytes) }
	case "waiting":
		return func(a, b *sessionView) int { return cmp.Compare(a.Waiting, b.Waiting) }
	}
	return nil
}

// debugSessions lists sessions. Of many it keeps only as many as it returns.
func (s *Server) debugSessions(q debugQuery) *debugSessions {
	order := debugOrder(q.Sort)
	compare := func(a, b *sessionView) int {
		n := order(a, b)
		if q.Reverse {
			n = -n
		}
		return cmp.Or(n, cmp.Compare(a.ID, b.ID))
	}
	d := &debugSessions{Sessions: []debugSession{}}
	var list []*sessionView
	for session := range s.table.all() {
		v := session.view()
		d.Total++
		if !v.matches(q.Search) {
			continue
		}
		d.Matched++
		if list = append(list, &v); len(list) >= 2*q.Limit {
			slices.SortFunc(list, compare)
			list = list[:q.Limit]
		}
	}
	slices.SortFunc(list, compare)
	for _, v := range list[:min(len(list), q.Limit)] {
		row := debugSession{ID: v.ID, UID: v.UID, Address: v.Addr(), Waiting: v.Waiting, Packets: v.Packets, Queue: v.Bytes, Away: v.Away, Route: v.Route}
		if !v.Began.IsZero() {
			row.Began = v.Began.UnixMilli()
		}
		d.Sessions = append(d.Sessions, row)
	}
	return d
}
