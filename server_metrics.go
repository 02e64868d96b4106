package pitaya

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"
)

// What a server reports without a message being the reason: counters by how much
// they have grown, and gauges; each period, and before each scrape of a registry.
// docs/operations.md lists all of it.

// metering does that for one server. Its goroutine lives from the beginning of
// Run to its end.
type metering struct {
	// Immutable.
	server  *Server
	meters  *meters
	growths []*growth
	quit    chan struct{}
	done    chan struct{} // closed when the goroutine has ended

	scrapes []func() // end the reports before scrapes; set before the goroutine begins

	// Owned by the goroutine, and by who has waited for its end.
	slow  int64 // clients that were too slow when it was last reported that a queue was full
	drops int64 // losses of NATS, likewise

	mu    sync.Mutex      // guards the field below
	types map[string]bool // server types that were reported
}

// Transports, discoveries and stores that know more than their seam asks for.
type (
	reconnectTeller interface{ reconnected() int64 }
	natsTeller      interface {
		dropped() map[string]int64 // by the kind of the subscription
		room() int                 // free places in the queue of what comes in
	}
)

// newMetering returns what reports the numbers of a server, nil if there are no
// reporters.
func (s *Server) newMetering() *metering {
	m := s.host.Meters
	if m == nil {
		return nil
	}
	g := &metering{
		server: s, meters: m,
		quit: make(chan struct{}), done: make(chan struct{}),
		types: make(map[string]bool),
	}
	for _, c := range slices.Concat(s.counters.metrics(), s.clusterMetrics()) {
		g.growths = append(g.growths, m.newGrowth(c))
	}
	return g
}

// clusterMetrics returns the counters that the parts of the cluster keep.
func (s *Server) clusterMetrics() (list []counterMetric) {
	if s.cluster == nil {
		return nil
	}
	n := s.cluster.node
	if t, ok := n.Transport.(natsTeller); ok {
		for _, kind := range slices.Sorted(maps.Keys(t.dropped())) {
			list = append(list, counterMetric{metricNATSDropped, []Label{{"subscription", kind}}, func() int64 { return t.dropped()[kind] }})
		}
	}
	for _, part := range []struct {
		to string
		by any
	}{{"nats", n.Transport}, {"etcd", n.Discovery}} {
		if t, ok := part.by.(reconnectTeller); ok {
			list = append(list, counterMetric{metricReconnects, []Label{{"to", part.to}}, t.reconnected})
		}
	}
	return list
}

// run reports at once, when the server is ready, and then each period.
func (g *metering) run() {
	defer close(g.done)
	tick := time.NewTicker(g.server.cfg.Metrics.Period)
	defer tick.Stop()
	ready := g.server.ready
	for {
		g.report()
		g.reportQueues()
		select {
		case <-tick.C:
		case <-ready:
			ready = nil
		case <-g.quit:
			return
		}
	}
}

// end reports for the last time. It waits for reports that are under way because
// of a scrape: reporters are the application's, which may close them when Run has
// returned, and a registry that goes on must not keep the server.
func (g *metering) end() {
	close(g.quit)
	<-g.done
	for _, stop := range g.scrapes {
		stop()
	}
	g.report()
	g.reportQueues()
}

// report reports counters and gauges. It may be called by several goroutines at
// once.
func (g *metering) report() {
	for _, c := range g.growths {
		c.report()
	}
	g.reportProcess()
	if g.server.cfg.Frontend {
		g.reportSessions()
	}
	if g.server.cluster != nil {
		g.reportCluster()
	}
}

// reportProcess reports what the process uses. Reading it stops nothing.
func (g *metering) reportProcess() {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/objects:objects"},
	}
	metrics.Read(samples)
	for i, name := range []string{metricGoroutines, metricHeapSize, metricHeapObjects} {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			g.meters.gauge(name, float64(samples[i].Value.Uint64()))
		}
	}
}

// Pitaya's names of what we have other forms of, as labels "channel" and "pool".
const (
	channelOut      = "agent_chsend"
	channelLocal    = "handler_chlocalprocess"
	channelRemote   = "handler_chremoteprocess"
	poolHandlers    = "handler_dispatch"
	poolRemotes     = "rpc_server_remote"
	pitayaOutPlaces = 100 // places in Pitaya's output queue
)

// reportSessions reports about the sessions of a frontend.
func (g *metering) reportSessions() {
	s := g.server
	s.host.Count()
	sessions, busy := 0, 0
	for session := range s.table.all() {
		sessions++
		if _, _, working, _, _ := session.load(); working {
			busy++
		}
	}
	g.meters.gauge(metricQueueBytes, float64(s.counters.queueBytes()))
	g.meters.gauge(metricSessionsBound, float64(s.table.users()))
	g.meters.gauge(metricSessionsWaiting, float64(s.host.Resumes.waiting()))

	total := max(sessions, busy) // a worker for each session
	if slots := s.slots; slots != nil {
		busy, total = len(slots), cap(slots)
	}
	pool := Label{"pool", poolHandlers}
	g.meters.gauge(metricBusyWorkers, float64(busy), pool)
	g.meters.gauge(metricTotalWorkers, float64(total), pool)
}

// reportQueues reports free places, which is a distribution: how often there were
// how many must not depend on how often somebody asks, and what has been full for
// a moment is told once. So it is reported each period only, by one goroutine.
func (g *metering) reportQueues() {
	if g.server.cfg.Frontend {
		g.reportSessionQueues()
	}
	if g.server.cluster != nil {
		g.reportClusterQueues()
	}
}

// reportSessionQueues reports the queues of sessions. There is none that they
// share, so of each kind the fullest one is reported.
func (g *metering) reportSessionQueues() {
	s := g.server
	var local, remote, bytes, packets int // the most
	for session := range s.table.all() {
		l, r, _, b, p := session.load()
		local, remote, bytes, packets = max(local, l), max(remote, r), max(bytes, b), max(packets, p)
	}
	out := 0
	if n := s.cfg.QueueMessages; n > 0 {
		out = n - packets
	} else {
		// In hundredths of the budget, which is as many as Pitaya has places.
		out = pitayaOutPlaces - int(int64(bytes)*pitayaOutPlaces/int64(s.cfg.QueueBytes))
	}
	// A queue that was full for a moment is told as well.
	if slow := s.counters.PushesDropped.Load() + s.counters.SlowClients.Load(); slow > g.slow {
		g.slow, out = slow, 0
	}
	g.free(channelOut, out)
	g.free(channelLocal, s.cfg.MailboxMessages-local)
	g.free(channelRemote, s.cfg.RemoteMessages-remote)
}

// free reports the free places of a queue.
func (g *metering) free(channel string, n int) {
	g.meters.report(reportObserve, metricChannelCapacity, float64(max(n, 0)), Label{"channel", channel})
}

// reportCluster reports about the other servers and what they send.
func (g *metering) reportCluster() {
	c := g.server.cluster
	servers := make(map[string]int)
	for _, m := range c.node.Members.all() {
		servers[m.Info.Type]++
	}
	g.mu.Lock()
	for t := range servers {
		g.types[t] = true
	}
	types := slices.Collect(maps.Keys(g.types)) // those that have vanished are 0
	g.mu.Unlock()
	for _, t := range types {
		g.meters.gauge(metricServers, float64(servers[t]), Label{"type", t})
	}
	pool := Label{"pool", poolRemotes}
	g.meters.gauge(metricBusyWorkers, float64(c.backend.load()), pool)
	g.meters.gauge(metricTotalWorkers, maxIncoming, pool)

	if t, ok := c.node.Transport.(natsTeller); ok {
		g.meters.gauge(metricDroppedMessages, float64(t.dropped()[natsKindCalls]))
	}
}

// reportClusterQueues reports the queues of what comes from other servers.
func (g *metering) reportClusterQueues() {
	t, ok := g.server.cluster.node.Transport.(natsTeller)
	if !ok {
		return
	}
	free, lost := t.room(), int64(0)
	for _, n := range t.dropped() {
		lost += n
	}
	if lost > g.drops {
		g.drops, free = lost, 0
	}
	// What comes in over NATS waits in one queue, whatever it is.
	for _, channel := range []string{"rpc_server_subchan", "rpc_server_bindingschan", "rpc_server_userpushchan", "rpc_server_userkickchan"} {
		g.free(channel, free)
	}
}

// makeReporters makes the reporters that the settings ask for. It is called when
// the server begins to run.
func (s *Server) makeReporters() error {
	s.reporters = slices.Clone(s.cfg.Reporters)
	if s.registered != nil {
		s.reporters = append(s.reporters, s.registered)
	}
	if s.cfg.Metrics.Statsd.Enabled {
		statsd, err := newStatsd(s.cfg.Type, s.cfg.Metrics, s.log, nil)
		if err != nil {
			return err
		}
		s.statsd = statsd
		s.reporters = append(s.reporters, statsd)
	}
	return nil
}

// closeReporters ends what makeReporters has started.
func (s *Server) closeReporters() error {
	if s.statsd == nil {
		return nil
	}
	return s.statsd.Close()
}

// startMetrics opens the port for Prometheus, if there is to be one, and begins
// to report.
func (s *Server) startMetrics(ctx context.Context) error {
	if s.cfg.Metrics.Prometheus.Enabled {
		if err := s.listenMetrics(ctx); err != nil {
			return err
		}
	}
	g := s.newMetering()
	if g == nil {
		return nil
	}
	s.metering = g
	for _, r := range s.reporters {
		if m, ok := r.(interface{ OnScrape(func()) (stop func()) }); ok {
			g.scrapes = append(g.scrapes, m.OnScrape(g.report))
		}
	}
	go g.run()
	return nil
}

func (s *Server) listenMetrics(ctx context.Context) error {
	port := max(s.cfg.Metrics.Prometheus.Port, 0)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("pitaya: port for Prometheus: %w", err)
	}
	m := newMetricsListener(l, s.registered, s.log)
	s.mu.Lock()
	s.scraped = m
	s.mu.Unlock()
	s.log.Info("serving metrics", "server", s.cfg.ID, "addr", m.addr(), "path", "/metrics")
	return nil
}

// endMetrics is the last thing that ends, so that the end of the server can be
// watched. A scrape that is being answered is waited for, for a moment.
func (s *Server) endMetrics(ctx context.Context) error {
	if s.metering != nil {
		s.metering.end()
	}
	var err error
	s.mu.Lock()
	m := s.scraped
	s.mu.Unlock()
	if m != nil {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		err = m.close(limited)
		cancel()
	}
	return errors.Join(err, s.closeReporters())
}

// MetricsAddr returns the address at which Prometheus is served, nil if it is
// not, or not yet. It is known before [Server.Ready] is closed.
func (s *Server) MetricsAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scraped == nil {
		return nil
	}
	return s.scraped.addr()
}

// Metrics returns the registry that is served for Prometheus, nil unless
// [PrometheusConfig].Enabled is set. It is an http.Handler, which may be mounted
// elsewhere as well. For a registry without the listener, put one made by
// [NewMetrics] into Config.Reporters.
func (s *Server) Metrics() *Metrics { return s.registered }

// Reporters returns all reporters of the server: those of Config.Reporters, and
// once it runs those that its settings ask for. The application can report its
// own metrics to them (see [MetricsConfig].Custom).
func (s *Server) Reporters() []Reporter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reporters == nil {
		return slices.Clone(s.cfg.Reporters)
	}
	return slices.Clone(s.reporters)
}
