package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/hist"
	"github.com/pitaya-go/pitaya/internal/load/procstat"
)

// A run is one call of Run.
type run struct {
	// Immutable once clients are started.
	cfg    *Config
	dialer *dialer
	hello  []byte
	load   scenario // nil where the clients are not of the lean kind
	rec    *recorder
	epoch  time.Time // times are nanoseconds since then

	servers   servers
	templates templateCache
	slots     []atomic.Pointer[client] // by number; nil while it is not connected
	arrivals  chan int64               // open load where the clients are not of the lean kind: when something was to begin
	tokens    chan struct{}            // one is taken while a connection is opened

	started   atomic.Bool   // the scenario may begin
	gate      chan struct{} // closed then
	quit      chan struct{} // closed when the run stops
	hold      atomic.Bool   // connections stay open though the run has stopped, so that they are counted and weighed
	pacing    atomic.Bool   // the schedule of an open load is not over
	exhausted atomic.Bool   // all requests that were to be made have been made
	forced    atomic.Bool   // connections are closed because the time is over
	budget    atomic.Int64  // how many requests may yet be made
	open      atomic.Int64  // connections that are open

	untried  atomic.Int64  // clients that have not tried to connect yet
	tried    chan struct{} // closed when there are none
	finished chan struct{} // closed when all clients have ended
}

// Run makes the load that cfg describes until it is done or ctx ends, either of which leads to a report. The error is
// that of a configuration that makes no sense, or of a system that cannot do it.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	u, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if cfg.Dial == nil {
		if err := needFiles(cfg.Conns); err != nil {
			return nil, err
		}
	}
	r := &run{
		cfg: &cfg, dialer: &dialer{cfg: &cfg, u: u}, epoch: time.Now(),
		rec:      newRecorder(min(4*runtime.GOMAXPROCS(0), 16, cfg.Conns), cfg.Script),
		slots:    make([]atomic.Pointer[client], cfg.Conns),
		tokens:   make(chan struct{}, cfg.Dialers),
		tried:    make(chan struct{}),
		gate:     make(chan struct{}),
		quit:     make(chan struct{}),
		finished: make(chan struct{}),
	}
	if r.hello, err = helloPacket(&cfg); err != nil {
		return nil, err
	}
	r.budget.Store(cfg.Requests)
	r.untried.Store(int64(cfg.Conns))
	r.hold.Store(cfg.Duration > 0 && cfg.Requests == 0)
	return r.run(ctx)
}

func (r *run) now() int64                        { return int64(time.Since(r.epoch)) }
func (r *run) at(t int64) time.Time              { return r.epoch.Add(time.Duration(t)) }
func (r *run) since(now, at int64) time.Duration { return time.Duration(now - at) }
func (r *run) stopped(now int64) bool            { return r.exhausted.Load() || now >= r.rec.end.Load() }

// spend takes one request from those that are to be made.
func (r *run) spend() bool {
	if r.cfg.Requests == 0 {
		return true
	}
	if r.budget.Add(-1) >= 0 {
		return true
	}
	r.exhausted.Store(true)
	return false
}

// refund gives one back that could not be made.
func (r *run) refund() {
	if r.cfg.Requests > 0 {
		r.budget.Add(1)
	}
}

// run goes through the phases: connect, begin, warm up, measure, wait for what is under way.
func (r *run) run(ctx context.Context) (*Report, error) {
	rep := newReport(r.cfg)
	var err error
	if rep.memBefore, err = r.memory(ctx); errors.Is(err, procstat.ErrUnavailable) {
		rep.noServer = err.Error()
	} else if err != nil {
		return nil, err
	}
	life, kill := context.WithCancel(context.Background())
	defer kill()
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	defer kill()

	live, rounds := r.choose()
	if r.cfg.Rate > 0 && r.load == nil {
		r.arrivals = make(chan int64, 1<<16)
	}
	if r.cfg.Ramp > 0 {
		r.begin(&goroutines, life)
	}
	goroutines.Go(func() { r.launch(life, live) })
	r.wait(ctx, r.tried, 0, "connect")
	if r.cfg.Ramp == 0 {
		if r.cfg.Warmup == 0 { // or the first requests would not be measured
			if err := r.measure(rep); err != nil {
				return nil, err
			}
		}
		r.begin(&goroutines, life)
	}
	if rounds != nil {
		goroutines.Go(func() { rounds.conduct(life) })
	}
	rep.Connections.Opened = r.open.Load()
	if r.rec.begin.Load() == far {
		r.wait(ctx, nil, r.cfg.Warmup, "warm-up")
		if err := r.measure(rep); err != nil {
			return nil, err
		}
	}
	last := r.watch(ctx, rep)
	end := min(r.now(), r.rec.end.Load())
	r.rec.end.Store(end)
	rep.Connections.AtEnd = r.open.Load()
	rep.ownEnd = ownCPU()
	if rep.noServer == "" {
		if rep.cpuEnd, err = procstat.Sum(r.cfg.PIDs); err != nil {
			rep.noServer = err.Error()
		}
	}
	if r.cfg.Collect && rep.noServer == "" {
		mem, err := r.memory(ctx)
		if rep.memIdle = &mem; err != nil {
			rep.noServer = err.Error()
		}
	}
	rep.Interrupted = ctx.Err() != nil
	r.windUp(rep.Interrupted)
	kill()
	r.closeAll()
	goroutines.Wait()
	r.finish(rep, last)
	if rounds != nil {
		rounds.report(rep)
	}
	return rep, nil
}

// choose returns what each connection does in the scenario, and the rounds of a broadcast, which is nil else.
func (r *run) choose() (live func(life context.Context, id int), rounds *broadcastLoad) {
	live = r.live
	switch r.cfg.Scenario {
	case Echo:
		r.load = &echoLoad{run: r}
	case Notify:
		r.load = &notifyLoad{run: r}
	case Idle:
		r.load = resting{}
	case Broadcast:
		rounds = newBroadcastLoad(r)
		r.load = rounds
	case Connect:
		live = r.storm
	case Mixed:
		live = r.play
	}
	return live, rounds
}

// windUp lets nothing new begin. Who waits for an answer gets it, or its error.
func (r *run) windUp(interrupted bool) {
	r.hold.Store(false)
	close(r.quit)
	r.wakeAll()
	patience := r.cfg.Timeout + r.cfg.Timeout/4 + time.Second
	if interrupted {
		patience = min(patience, time.Second)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-r.finished:
	case <-timer.C:
	}
	r.forced.Store(true)
}

// begin opens the gate, and starts the schedule of an open load.
func (r *run) begin(goroutines *sync.WaitGroup, life context.Context) {
	r.pacing.Store(r.cfg.Rate > 0)
	r.started.Store(true)
	close(r.gate)
	r.wakeAll()
	if r.cfg.Rate > 0 {
		goroutines.Go(func() { r.pace(life) })
	}
}

// launch starts the clients, waits for them, and says that they have ended.
func (r *run) launch(life context.Context, live func(context.Context, int)) {
	var clients sync.WaitGroup
	begin := r.now()
	for i := range r.cfg.Conns {
		if r.cfg.Ramp > 0 {
			r.pause(life, time.Duration(begin+int64(r.cfg.Ramp)*int64(i)/int64(r.cfg.Conns)-r.now()))
		}
		clients.Go(func() { live(life, i) })
	}
	clients.Wait()
	close(r.finished)
}

// pause waits; the end of ctx ends it.
func (r *run) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// try says that a client has tried to connect.
func (r *run) try() {
	if r.untried.Add(-1) == 0 {
		close(r.tried)
	}
}

// live is a lean client, from its first connection to its end.
func (r *run) live(life context.Context, id int) {
	for first := true; ; first = false {
		again := r.once(life, id, first)
		if !again || !r.cfg.Reconnect || r.stopped(r.now()) || life.Err() != nil {
			return
		}
		// Not all at the same time: a server that comes back has enough to do.
		r.pause(life, 100*time.Millisecond+rand.N(400*time.Millisecond))
	}
}

// take waits until one more may connect, which release ends. It reports false if life ends before.
func (r *run) take(life context.Context) bool {
	select {
	case r.tokens <- struct{}{}:
		return true
	case <-life.Done():
		return false
	}
}

func (r *run) release() { <-r.tokens }

// once is one connection. It reports whether there is reason for another one.
func (r *run) once(life context.Context, id int, first bool) (again bool) {
	var c *client
	stop := func() bool { return true }
	defer func() { stop() }()
	err := func() error {
		if first {
			defer r.try()
		}
		if !r.take(life) {
			return life.Err()
		}
		defer r.release()
		var kind string
		var err error
		if c, kind, err = r.connect(life, id); err != nil {
			r.failed(id, kind, err)
			return err
		}
		stop = context.AfterFunc(life, func() { c.conn.Close() })
		if err := r.load.prepare(life, c); err != nil {
			c.setupFailed(err)
			return err
		}
		r.open.Add(1)
		r.slots[id].Store(c)
		return nil
	}()
	if err != nil {
		return true
	}
	var writer sync.WaitGroup
	if c.wake != nil {
		writer.Go(c.write)
	}
	err = c.serve()
	r.slots[id].Store(nil)
	r.open.Add(-1)
	c.end(err)
	close(c.gone)
	writer.Wait()
	r.load.left(c)
	return err != nil
}

// failed counts a connection that did not come to be.
func (r *run) failed(id int, kind string, err error) {
	if r.forced.Load() {
		return
	}
	code := cause(err)
	s := r.rec.shards[id%len(r.rec.shards)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(kind, code, 1)
}

// setupFailed ends a connection whose scenario could not begin.
func (c *client) setupFailed(err error) {
	c.end(nil)
	if c.run.forced.Load() {
		return
	}
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	c.shard.fail(errSetup, cause(err), 1)
}

// wakeAll makes all clients look at what the run wants of them.
func (r *run) wakeAll() {
	for i := range r.slots {
		if c := r.slots[i].Load(); c != nil {
			c.wakeUp()
		}
	}
}

func (r *run) closeAll() {
	for i := range r.slots {
		if c := r.slots[i].Load(); c != nil {
			c.conn.Close()
		}
	}
}

// measure begins what is measured.
func (r *run) measure(rep *Report) error {
	var err error
	if rep.cpuBegin, err = procstat.Sum(r.cfg.PIDs); err != nil && !errors.Is(err, procstat.ErrUnavailable) {
		return err
	}
	rep.ownBegin = ownCPU()
	begin := r.now()
	if r.cfg.Duration > 0 {
		r.rec.end.Store(begin + int64(r.cfg.Duration))
	}
	r.rec.begin.Store(begin)
	rep.begin = begin
	return nil
}

// wait waits for a channel, or for a time where that is given, telling of progress. The end of ctx and of all clients
// ends it.
func (r *run) wait(ctx context.Context, until <-chan struct{}, d time.Duration, phase string) {
	var over <-chan time.Time
	if until == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	ticker := time.NewTicker(r.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-until:
			return
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-r.finished:
			return
		case <-ticker.C:
			r.progress(Point{T: time.Duration(r.now()).Seconds()}, phase)
		}
	}
}

func (r *run) progress(p Point, phase string) {
	if r.cfg.Progress != nil {
		_, errs := r.rec.errors()
		r.cfg.Progress(p, Progress{Phase: phase, Open: int(r.open.Load()), Errors: errs})
	}
}

// watch collects what is measured, until its end. It returns the durations of the last interval, to which what is under
// way belongs.
func (r *run) watch(ctx context.Context, rep *Report) *hist.Hist {
	begin, fresh := rep.begin, new(hist.Hist)
	last := begin
	for {
		next := min(last+int64(r.cfg.Interval), r.rec.end.Load())
		timer := time.NewTimer(time.Duration(next - r.now()))
		over := false
		select {
		case <-timer.C:
		case <-ctx.Done():
			over = true
		case <-r.finished:
			over = true
		}
		timer.Stop()
		now := r.now()
		fresh.Reset()
		failed := r.rec.collect(fresh)
		p := newPoint(fresh, failed, time.Duration(last-begin), time.Duration(now-last), int(r.open.Load()))
		if p.Count+p.Failed > 0 || now > last {
			rep.Series = append(rep.Series, p)
			r.progress(p, "measure")
		}
		last = now
		if over || now >= r.rec.end.Load() {
			return fresh
		}
	}
}

// memory looks at the server's memory, after a garbage collection if that is wanted.
func (r *run) memory(ctx context.Context) (procstat.Sample, error) {
	if len(r.cfg.PIDs) == 0 {
		return procstat.Sample{}, nil
	}
	if r.cfg.Collect {
		for _, pid := range r.cfg.PIDs {
			if err := procstat.Collect(pid); err != nil {
				return procstat.Sample{}, err
			}
		}
		r.pause(ctx, collectPause)
	}
	s, err := procstat.Sum(r.cfg.PIDs)
	if err != nil {
		return s, fmt.Errorf("-pid: %w", err)
	}
	return s, nil
}
