package load

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// broadcastLoad plays rounds: one client asks the server to push AtOnce messages to the group that all have joined, and
// the round is over when each member has all of them. A round that is not over in time ends the load: whose pushes come
// late and whose never, nobody could tell any more.
type broadcastLoad struct {
	resting
	run  *run
	over chan struct{} // has room for one: the round is over

	mu     sync.Mutex
	ended  bool  // no more rounds
	begun  int64 // when the round in progress was asked for; 0 between rounds
	open   int   // pushes of the round that are yet to come
	rounds int64
	each   []int64 // deliveries by client
	wanted []int64 // what they should be
}

func newBroadcastLoad(r *run) *broadcastLoad {
	n := r.cfg.Conns
	return &broadcastLoad{run: r, over: make(chan struct{}, 1), each: make([]int64, n), wanted: make([]int64, n)}
}

func (l *broadcastLoad) prepare(ctx context.Context, c *client) error {
	if err := c.template(pitaya.MessageRequest, l.run.cfg.Route, l.run.cfg.Body); err != nil {
		return err
	}
	if l.run.cfg.Join != "" {
		if err := c.call(ctx, l.run.cfg.Join, []byte("{}")); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.member = true // from the next round on
	return nil
}

func (l *broadcastLoad) pushed(c *client, now int64, m *pitaya.Message) {
	if l.run.cfg.PushRoute != "" && m.Route != l.run.cfg.PushRoute {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.due == 0 {
		c.shard.fail(errExtra, m.Route, 1)
		return
	}
	c.due--
	l.each[c.id]++
	c.result(now, l.begun, 1, false)
	l.less(1)
}

// less counts pushes that are not waited for any more. The caller holds mu.
func (l *broadcastLoad) less(n int) {
	if l.open -= n; l.open == 0 && n > 0 {
		l.begun = 0
		select {
		case l.over <- struct{}{}:
		default:
		}
	}
}

func (l *broadcastLoad) answered(c *client, now, at int64, m *pitaya.Message) {
	if !m.Err || !c.member {
		return
	}
	// Nothing will be pushed. The error is counted; the round is over.
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.run.rec.measured(at) {
		c.shard.failed += int64(l.open)
	}
	l.forgive()
}

// forgive ends a round that stays without its pushes. The caller holds mu.
func (l *broadcastLoad) forgive() {
	l.eachClient(func(c *client) {
		l.wanted[c.id] -= int64(c.due)
		c.due = 0
	})
	l.less(l.open)
}

// eachClient calls f for those that are connected. The caller holds mu.
func (l *broadcastLoad) eachClient(f func(*client)) {
	for i := range l.run.slots {
		if c := l.run.slots[i].Load(); c != nil && c.member {
			f(c)
		}
	}
}

func (l *broadcastLoad) left(c *client) {
	l.mu.Lock()
	due := c.due
	c.due, c.member = 0, false
	l.less(due)
	l.mu.Unlock()
	l.lost(c, due)
}

func (l *broadcastLoad) done(*client) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// lost counts pushes that a client did not get.
func (l *broadcastLoad) lost(c *client, n int) {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	c.shard.fail(errDelivery, "", int64(n))
	if l.run.rec.begin.Load() != far {
		c.shard.failed += int64(n)
	}
}

// conduct plays the rounds, until the run stops.
func (l *broadcastLoad) conduct(life context.Context) {
	defer func() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.run.exhausted.Store(true)
		l.run.wakeAll()
	}()
	timer := time.NewTimer(l.run.cfg.Timeout)
	defer timer.Stop()
	for !l.run.stopped(l.run.now()) && l.run.spend() {
		if !l.begin() {
			return // nobody is left
		}
		timer.Reset(l.run.cfg.Timeout)
		select {
		case <-l.over:
		case <-life.Done():
			return
		case <-timer.C:
			l.late()
			return
		}
	}
}

// begin begins a round with all that are connected. It reports whether there is anybody.
func (l *broadcastLoad) begin() bool {
	var speaker *client
	now := l.run.now()
	l.mu.Lock()
	select {
	case <-l.over: // of a round that was over twice
	default:
	}
	l.eachClient(func(c *client) {
		if speaker == nil {
			speaker = c
		}
		c.due = l.run.cfg.AtOnce
		l.open += c.due
		l.wanted[c.id] += int64(c.due)
	})
	l.begun = now
	l.rounds++
	l.mu.Unlock()
	if speaker == nil {
		return false
	}
	speaker.shard.mu.Lock()
	speaker.mu.Lock()
	sent := !speaker.parting && speaker.request(speaker.tmpl, now)
	if sent {
		speaker.shard.counts.Requests++
	}
	speaker.mu.Unlock()
	speaker.shard.mu.Unlock()
	if !sent || speaker.flush() != nil {
		speaker.conn.Close() // its reader finds out; the round is not played
		l.mu.Lock()
		l.forgive()
		l.mu.Unlock()
	}
	return true
}

// late ends a round whose pushes have not come.
func (l *broadcastLoad) late() {
	type debt struct {
		c *client
		n int
	}
	var debts []debt
	l.mu.Lock()
	l.eachClient(func(c *client) {
		if c.due > 0 {
			debts = append(debts, debt{c, c.due})
			c.due = 0
		}
	})
	l.open, l.begun = 0, 0
	l.mu.Unlock()
	for _, d := range debts {
		l.lost(d.c, d.n)
	}
}

// report adds what was delivered to each client.
func (l *broadcastLoad) report(rep *Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &BroadcastReport{Rounds: l.rounds, AtOnce: l.run.cfg.AtOnce}
	for i, n := range l.each {
		b.Delivered += n
		b.Wanted += l.wanted[i]
		if i == 0 || n < b.LeastPerClient {
			b.LeastPerClient = n
		}
		b.MostPerClient = max(b.MostPerClient, n)
	}
	rep.Broadcast = b
}

// BroadcastBody is the body that the testing server's broadcast takes, unless another one is given.
func BroadcastBody(atOnce, size int) []byte {
	return []byte(`{"count":` + strconv.Itoa(atOnce) + `,"size":` + strconv.Itoa(size) + `}`)
}
