package pitaya_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Rolling restarts: each server of a cluster is replaced while clients make requests by a schedule, which waits for no
// answer.

// rollingSchedule makes requests when they are due, whatever has become of those before. On a machine that cannot keep up
// they are late, and none is left out.
type rollingSchedule struct {
	every  time.Duration
	starts []time.Time
	wg     sync.WaitGroup // what is scheduled, and what was asked
	room   chan struct{}  // bounds what is under way, by half a second's worth
	over   chan struct{}  // closed when end is set

	mu      sync.Mutex // guards what follows
	end     time.Time  // nothing is due behind it
	offered int
	late    time.Duration
}

// schedule lets each client make a local and a forwarded request every interval. The clients begin one after the other,
// apart by as much, and half of apart from now.
func (l *outageLoad) schedule(clients []*outageClient, every, apart time.Duration) *rollingSchedule {
	s := &rollingSchedule{every: every, over: make(chan struct{}), room: make(chan struct{}, 250)}
	start := time.Now().Add(apart / 2)
	for i, o := range clients {
		start := start.Add(time.Duration(i) * apart)
		for kind, route := range map[string]string{"local": "gate.OutageRoom.Echo", "forwarded": "room.OutageRoom.Echo"} {
			s.starts = append(s.starts, start)
			s.wg.Go(func() { s.run(start, func() { o.ask(kind, route) }) })
		}
	}
	return s
}

// run makes one kind of request of a client.
func (s *rollingSchedule) run(due time.Time, ask func()) {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for ; ; due = due.Add(s.every) {
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-s.over:
		}
		s.room <- struct{}{}
		if !s.offer(due) {
			<-s.room
			return
		}
		s.wg.Go(func() {
			defer func() { <-s.room }()
			ask()
		})
	}
}

// offer counts a request, unless the schedule has ended before it was due.
func (s *rollingSchedule) offer(due time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end.IsZero() && due.After(s.end) {
		return false
	}
	s.offered++
	s.late = max(s.late, time.Since(due))
	return true
}

// finish ends the schedule, waits for the answers, and returns how many requests were due. All of them were made.
func (s *rollingSchedule) finish(t *testing.T) (due int) {
	t.Helper()
	s.mu.Lock()
	s.end = time.Now()
	s.mu.Unlock()
	close(s.over)
	s.wg.Wait()
	for _, start := range s.starts {
		if d := s.end.Sub(start); d >= 0 {
			due += 1 + int(d/s.every)
		}
	}
	if s.offered != due {
		t.Errorf("%d requests were made, %d were due", s.offered, due)
	}
	return due
}

// ask makes a request, on the next connection if this one is known to have ended before it was sent.
func (o *outageClient) ask(kind, route string) {
	for o.l.ctx.Err() == nil {
		c, err := o.connected()
		if err != nil {
			continue
		}
		if c.Err() != nil {
			o.gone(c)
			continue
		}
		start := time.Now()
		_, err = c.RequestRaw(o.l.ctx, route, []byte(o.uid))
		if errors.Is(err, pitaya.ErrServerClosed) {
			o.gone(c)
			continue
		}
		o.l.record(kind, o.uid, start, err)
		return
	}
}

// rolled checks what must hold when one server after the other was replaced: all that was due was made, and answered. Of
// clients that cannot be asked to stop, requests may have crossed the end of a connection. It returns how many.
func (l *outageLoad) rolled(due int, mayLose bool) (lost int) {
	l.t.Helper()
	p := l.mark()
	l.t.Logf("%d requests, answered: %v, failed: %v, connections that ended: %d", due, p.answered, p.failed, p.ended)
	for f, n := range p.failed {
		if mayLose && (f == "local connection lost" || f == "forwarded connection lost") {
			lost += n
		} else if !mayLose || f != "bind connection lost" {
			l.t.Errorf("%d requests were not answered: %s", n, f)
		}
	}
	for _, w := range p.wrong {
		l.t.Errorf("not answered: %s", w)
	}
	if n := p.answered["local"] + p.answered["forwarded"]; n+lost != due {
		l.t.Errorf("%d requests were answered and %d lost, of %d", n, lost, due)
	}
	if p.ended == 0 {
		l.t.Error("no client had to connect again")
	}
	return lost
}

// TestRollingRestart replaces each server of a cluster while its clients make 500 requests a second: all are answered. Of
// clients that do not announce "drain" those are not that cross the end of a connection; no server has handled them.
func TestRollingRestart(t *testing.T) {
	const (
		clients = 25
		every   = 100 * time.Millisecond // for each kind of request
	)
	for _, transport := range []string{"nats", "grpc"} {
		for _, kind := range []string{"new", "old"} {
			t.Run(transport+"/"+kind+" clients", func(t *testing.T) {
				c := newOutageCluster(t, transport == "grpc", outagePatient)
				l := c.load
				l.planned = true
				c.clients = l.connect(clients, kind == "old")
				c.load.mark()
				start := time.Now()
				s := l.schedule(c.clients, every, every/clients)
				replaced := slices.Clone(c.runs)
				for i, old := range replaced {
					run := c.start(old.Info().ID + "b")
					c.know(run)
					l.until("work between two restarts", answered("forwarded", 100*(i+1)))
					c.doors()
					c.end(old)
				}
				l.until("everybody works", func(p *outagePhase) bool { return len(p.first) == 2*clients })
				due, took := s.finish(t), time.Since(start)
				lost := l.rolled(due, kind == "old")
				t.Logf("all servers replaced in %v; %.0f requests a second, at most %v late; %d lost", took.Round(time.Millisecond),
					float64(due)/took.Seconds(), s.late.Round(time.Millisecond), lost)
				for _, r := range replaced {
					if n := r.Stats(); n.Requests != n.Answered {
						t.Errorf("%s has handled requests without answering them: %+v", r.Info().ID, n)
					}
				}
			})
		}
	}
}

// TestRollingRestartMem does it in memory, where nothing is on its way when a server ends: no client loses anything.
func TestRollingRestartMem(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"new", "old"} {
		t.Run(kind+" clients", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { rollInMemory(t, kind == "old") })
		})
	}
}

func rollInMemory(t *testing.T, old bool) {
	cluster := pitaya.NewMemCluster()
	type node struct {
		end  func()
		door outageDoor
	}
	start := func(id string) node {
		cfg := pitaya.Config{Type: "room", ID: id, Cluster: true, Logger: testLogger(t)}
		cfg.Discovery, cfg.Transport = cluster.Node()
		mem := pitaya.ListenMem()
		if id[0] == 'g' {
			cfg.Type, cfg.Frontend, cfg.Listeners = "gate", true, []net.Listener{mem}
		}
		srv, err := pitaya.NewServer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Register(&OutageRoom{srv}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- srv.Run(ctx) }()
		<-srv.Ready()
		end := sync.OnceFunc(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(end)
		return node{end, func(ctx context.Context, cfg *pitaya.ClientConfig) (*pitaya.Client, error) {
			nc, err := mem.DialContext(ctx)
			if err != nil {
				return nil, err
			}
			return pitaya.NewClient(ctx, nc, cfg)
		}}
	}
	cluster.Delay(3 * time.Millisecond)
	var nodes []node
	for _, id := range []string{"r1", "r2", "g1", "g2"} {
		nodes = append(nodes, start(id))
	}
	l := newOutageLoad(t)
	l.planned = true
	l.open(nodes[2].door, nodes[3].door)
	clients := l.connect(22, old)
	l.mark()
	// Between the milliseconds, in which sessions are told.
	s := l.schedule(clients, 100*time.Millisecond, 3*time.Millisecond)
	time.Sleep(10 * time.Second)
	for i, id := range []string{"r3", "r4"} {
		start(id)
		time.Sleep(5 * time.Second)
		nodes[i].end()
		time.Sleep(5 * time.Second)
	}
	g3 := start("g3")
	l.open(g3.door, nodes[3].door)
	nodes[2].end()
	time.Sleep(5 * time.Second)
	g4 := start("g4")
	l.open(g3.door, g4.door)
	nodes[3].end()
	time.Sleep(5 * time.Second)
	l.rolled(s.finish(t), false)
}
