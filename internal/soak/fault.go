package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A fault is something that goes wrong for a while. Of those with the same target only one is on at a time.
type fault struct {
	weight   int
	kind     string
	targets  func(c *cluster) []string
	min, max time.Duration // how long it is on

	// do makes the fault, calls hold, which returns when its time is over, and undoes it.
	do func(c *cluster, target string, hold func()) error
}

// places returns where servers of a kind are, or of any.
func places(kind string) func(*cluster) []string {
	return func(c *cluster) (list []string) {
		for _, n := range c.nodes {
			if kind == "" || n.kind == kind {
				list = append(list, n.place)
			}
		}
		return list
	}
}

func only(name string) func(*cluster) []string {
	return func(*cluster) []string { return []string{name} }
}

// faults is all that can go wrong.
func faults() []fault {
	const s = time.Second
	return []fault{
		{8, "server killed", places(""), 0, 8 * s, (*cluster).killNode},
		{5, "server paused", places(""), s / 5, 3 * s, (*cluster).pauseNode},
		{5, "server paused beyond its lease", places(""), leaseTTL + s, leaseTTL + 6*s, (*cluster).pauseNode},
		{5, "server ended and started", places(""), 0, 3 * s, (*cluster).drainNode},
		{6, "server replaced", places(""), 0, s, (*cluster).replaceNode},
		{3, "NATS killed", only("nats"), s / 2, 8 * s, killService},
		{2, "NATS stopped", only("nats"), s / 2, 8 * s, stopService},
		{2, "NATS stopped, lame duck", only("nats"), s / 2, 4 * s, lameService},
		{2, "NATS paused", only("nats"), s / 2, 8 * s, pauseService},
		{3, "etcd killed", only("etcd"), s / 2, 10 * s, killService},
		{1, "etcd killed, its data lost", only("etcd"), s / 2, 10 * s, emptyService},
		{2, "etcd stopped", only("etcd"), s / 2, 10 * s, stopService},
		{3, "etcd paused", only("etcd"), s / 2, leaseTTL + 6*s, pauseService},
		{4, "lease revoked", only("leases"), 0, 0, (*cluster).revokeOne},
		{1, "all leases revoked", only("leases"), 0, 0, (*cluster).revokeAll},
		{4, "link to NATS cut", places(""), s / 2, 6 * s, linkFault("nats", (*link).Cut)},
		{3, "link to NATS hangs", places(""), s / 2, 8 * s, linkFault("nats", (*link).Hang)},
		{3, "link to NATS reset", places(""), 0, 0, linkFault("nats", (*link).Reset)},
		{3, "link to NATS slow", places(""), s, 6 * s, linkFault("nats", slow)},
		{4, "link to etcd cut", places(""), s / 2, leaseTTL + 4*s, linkFault("etcd", (*link).Cut)},
		{3, "link to etcd hangs", places(""), s / 2, leaseTTL + 6*s, linkFault("etcd", (*link).Hang)},
		{2, "link to etcd slow", places(""), s, 6 * s, linkFault("etcd", slow)},
		{4, "clients' link cut", places(typeGate), s / 2, 4 * s, linkFault("doors", (*link).Cut)},
		{4, "clients' link hangs", places(typeGate), s / 2, 3 * heartbeat, linkFault("doors", (*link).Hang)},
		{4, "clients' link reset", places(typeGate), 0, 0, linkFault("doors", (*link).Reset)},
		{3, "clients' link slow", places(typeGate), s, 8 * s, linkFault("doors", slow)},
	}
}

func slow(l *link) { l.Slow(50 * time.Millisecond) }

// storm lets faults strike until ctx ends, and returns when none is on any more. What strikes, where, when and for how long
// is up to rng alone, but for targets that are taken.
func (c *cluster) storm(ctx context.Context, rng *rand.Rand, every time.Duration) {
	var running sync.WaitGroup
	defer running.Wait()
	all := faults()
	sum := 0
	for _, f := range all {
		sum += f.weight
	}
	for {
		pause := time.Duration(rng.ExpFloat64() * float64(every))
		n, pick, span := rng.IntN(sum), rng.Uint64(), rng.Float64()
		timer := time.NewTimer(min(pause, 4*every))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		i := 0
		for n >= all[i].weight {
			n -= all[i].weight
			i++
		}
		f := all[i]
		targets := f.targets(c)
		target := targets[pick%uint64(len(targets))]
		hold := f.min + time.Duration(span*float64(f.max-f.min))
		if !c.take(target) {
			continue
		}
		c.report.Logf("fault: %s, %s, for %v", f.kind, target, hold.Round(time.Millisecond))
		c.report.Count("fault: "+f.kind, 1)
		running.Go(func() {
			defer c.give(target)
			err := f.do(c, target, func() {
				timer := time.NewTimer(hold)
				defer timer.Stop()
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			})
			if err != nil {
				c.report.Violation(target, fmt.Sprintf("%s: %v", f.kind, err), nil)
			}
		})
	}
}

// take reserves a target for one fault.
func (c *cluster) take(target string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[target] {
		return false
	}
	c.taken[target] = true
	return true
}

func (c *cluster) give(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, target)
}

func (c *cluster) killNode(place string, hold func()) error {
	n := c.node(place)
	if p := n.current(); p != nil {
		c.world.harm(p.name)
		c.leave(n, p.kill)
	}
	hold()
	return c.startNode(n)
}

func (c *cluster) pauseNode(place string, hold func()) error {
	p := c.node(place).current()
	if p == nil {
		return nil
	}
	c.world.harm(p.name)
	if err := pauseProcess(p.cmd.Process); err != nil {
		return err
	}
	hold()
	return resumeProcess(p.cmd.Process)
}

func (c *cluster) drainNode(place string, hold func()) error {
	n := c.node(place)
	if p := n.current(); p != nil {
		c.leave(n, func() { c.endServer(p) })
	}
	hold()
	return c.startNode(n)
}

// replaceNode starts the new server before the old one ends, as a deployment does.
func (c *cluster) replaceNode(place string, hold func()) error {
	n := c.node(place)
	old := n.current()
	if old == nil {
		return nil
	}
	if err := c.startNode(n); err != nil {
		return err
	}
	hold()
	c.endServer(old)
	return nil
}

// endServer asks a server to end, and checks that it does so in its time and without complaint.
func (c *cluster) endServer(p *process) {
	began := time.Now()
	c.expectEnd(p)
	if !p.stop(func() { p.cmd.Process.Signal(syscall.SIGTERM) }, shutdownTimeout+10*time.Second) {
		c.report.Violation(p.name, fmt.Sprintf("it did not end within %v of being asked to\n%s", shutdownTimeout+10*time.Second, tail(p.log)), nil)
		return
	}
	c.report.Max("longest end of a server, ms", int(time.Since(began).Milliseconds()))
	if p.err != nil {
		c.report.Logf("%s ended with %v: %s", p.name, p.err, tail(p.log))
		c.report.Count("servers that ended with an error", 1)
	}
}

func killService(c *cluster, kind string, hold func()) error {
	s := c.service(kind)
	s.end((*process).kill)
	hold()
	return s.start(c.ctx)
}

// emptyService kills etcd and starts it without its data.
func emptyService(c *cluster, kind string, hold func()) error {
	s := c.service(kind)
	s.end((*process).kill)
	c.groupsLost.Store(true)
	c.mu.Lock()
	c.emptied++
	s.args = []string{"-data", filepath.Join(c.folder, fmt.Sprint("etcd", c.emptied))}
	c.mu.Unlock()
	hold()
	return s.start(c.ctx)
}

func stopService(c *cluster, kind string, hold func()) error {
	s := c.service(kind)
	s.end(func(p *process) { p.stop(func() { p.stdin.Close() }, 30*time.Second) })
	hold()
	return s.start(c.ctx)
}

func lameService(c *cluster, kind string, hold func()) error {
	s := c.service(kind)
	s.end(func(p *process) { p.stop(func() { fmt.Fprintln(p.stdin, "lameduck") }, 30*time.Second) })
	hold()
	return s.start(c.ctx)
}

func pauseService(c *cluster, kind string, hold func()) error {
	p := c.service(kind).process()
	if p == nil {
		return nil
	}
	if err := pauseProcess(p.cmd.Process); err != nil {
		return err
	}
	hold()
	return resumeProcess(p.cmd.Process)
}

// linkFault puts a fault on links of a node.
func linkFault(which string, put func(*link)) func(*cluster, string, func()) error {
	return func(c *cluster, place string, hold func()) error {
		n := c.node(place)
		links := n.doors
		switch which {
		case "nats":
			links = []*link{n.nats}
		case "etcd":
			links = []*link{n.etcd}
		}
		for _, l := range links {
			put(l)
		}
		hold()
		for _, l := range links {
			l.Heal()
		}
		return nil
	}
}

func (c *cluster) revokeOne(string, func()) error { return c.revoke(false) }
func (c *cluster) revokeAll(string, func()) error { return c.revoke(true) }

// revoke revokes the lease of a server, or all leases. While etcd is away nothing is revoked.
func (c *cluster) revoke(all bool) error {
	ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
	defer cancel()
	cfg := clientv3.Config{Endpoints: []string{"http://" + c.etcd.address}, Context: ctx, DialTimeout: 2 * time.Second}
	// As JSON, since a value of its type needs an import of zap, and that a requirement in go.mod.
	const silent = `{"level":"fatal","encoding":"json","outputPaths":[],"errorOutputPaths":[]}`
	if err := json.Unmarshal([]byte(silent), &cfg.LogConfig); err != nil {
		return err
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Leases(ctx)
	if err != nil || len(answer.Leases) == 0 {
		return nil
	}
	leases := answer.Leases
	if !all {
		leases = leases[rand.IntN(len(leases)):][:1]
	}
	for _, l := range leases {
		client.Revoke(ctx, l.ID)
	}
	return nil
}
