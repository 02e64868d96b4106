package pitayatest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A Cluster is a cluster in memory whose servers end with their tests, and which can be told to fail.
//
// When a method that changes who is in discovery returns, all servers have been told: a test need not wait for the news
// to spread. That is so outside of bubbles as well.
type Cluster struct {
	t   testing.TB
	mem *pitaya.MemCluster

	mu      sync.Mutex                            // guards the fields below; never held across a callback
	known   map[*clusterDiscovery]map[string]bool // what each server that has joined was told of, itself included
	changed chan struct{}                         // closed by the next change of known
}

// NewCluster returns a cluster without servers. In a bubble it must be made inside.
func NewCluster(t testing.TB) *Cluster {
	return &Cluster{
		t: t, mem: pitaya.NewMemCluster(), known: make(map[*clusterDiscovery]map[string]bool), changed: make(chan struct{}),
	}
}

// NewServer starts a server of the cluster. It is [NewServer], but for these: Config.Frontend says whether it has
// clients, and Config.Cluster, Config.Discovery and Config.Transport are those of this cluster.
func (c *Cluster) NewServer(t testing.TB, cfg pitaya.Config, setup func(*pitaya.Server)) *Server {
	t.Helper()
	return start(t, c, cfg, setup)
}

// MemCluster returns the cluster itself, for faults between servers that are not of this package.
func (c *Cluster) MemCluster() *pitaya.MemCluster { return c.mem }

// Cut makes two servers unreachable for each other: calls between them fail at once and notices vanish. Both stay in
// discovery.
func (c *Cluster) Cut(a, b *Server) { c.mem.Cut(a.ID(), b.ID()) }

// Heal undoes Cut.
func (c *Cluster) Heal(a, b *Server) { c.mem.Heal(a.ID(), b.ID()) }

// Delay makes everything that is sent between servers from now on take this long, one way. What is sent in an order
// arrives in it. It is for bubbles, where the time passes by itself.
func (c *Cluster) Delay(d time.Duration) { c.mem.Delay(d) }

// Expire takes a server out of discovery, as if its lease had run out. The server itself goes on.
func (c *Cluster) Expire(s *Server) {
	c.t.Helper()
	c.mem.Expire(s.ID())
	c.await(c.t, s.ID(), false)
}

// Restore puts a server that was expired back into discovery.
func (c *Cluster) Restore(s *Server) {
	c.t.Helper()
	c.mem.Restore(s.ID())
	c.await(c.t, s.ID(), true)
}

// Kill ends a server as a crash does: the others lose it at once, the connections of its clients break, and nothing that
// it still says is heard. How Run ends does not matter to the test any more. Kill returns when it has, since nothing can
// stop a goroutine: handlers that are running see the end of their contexts.
func (c *Cluster) Kill(s *Server) {
	c.t.Helper()
	c.mem.Kill(s.ID())
	c.forget(func(d *clusterDiscovery) bool { return d.id == s.ID() })
	c.await(c.t, s.ID(), false)
	s.report.Do(func() {}) // its end is what the test wants
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Shutdown(now) // which cannot be in order
	s.Stop()
}

// join gives a server its seams.
func (c *Cluster) join(cfg *pitaya.Config) {
	discovery, transport := c.mem.Node()
	cfg.Cluster = true
	cfg.Discovery, cfg.Transport = &clusterDiscovery{Discovery: discovery, cluster: c}, transport
}

// await waits until all servers know of one, or none does.
func (c *Cluster) await(t testing.TB, id string, present bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		agreed, changed := true, c.changed
		for _, ids := range c.known {
			agreed = agreed && ids[id] == present
		}
		c.mu.Unlock()
		if agreed {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			t.Errorf("after %v not all servers have been told that %s is there: %v", patience, id, present)
			return
		}
	}
}

// forget takes a server from those that are told of others.
func (c *Cluster) forget(which func(*clusterDiscovery) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.known, func(d *clusterDiscovery, _ map[string]bool) bool { return which(d) })
	c.changedLocked()
}

func (c *Cluster) changedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// A clusterDiscovery notes what the server behind it has been told.
type clusterDiscovery struct {
	pitaya.Discovery
	cluster *Cluster
	id      string // set by Join; guarded by the cluster's lock
}

// Join implements [pitaya.Discovery].
func (d *clusterDiscovery) Join(ctx context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	c := d.cluster
	c.mu.Lock()
	d.id, c.known[d] = self.ID, make(map[string]bool)
	c.mu.Unlock()
	err := d.Discovery.Join(ctx, self, func(e pitaya.DiscoveryEvent) {
		watch(e)
		c.mu.Lock()
		defer c.mu.Unlock()
		ids := c.known[d]
		switch {
		case ids == nil: // killed
		case e.Change == pitaya.ServerLeft:
			delete(ids, e.Server.ID)
		default:
			ids[e.Server.ID] = true
		}
		c.changedLocked()
	})
	if err != nil {
		c.forget(d.itself)
	}
	return err
}

// Leave implements [pitaya.Discovery].
func (d *clusterDiscovery) Leave(ctx context.Context) error {
	err := d.Discovery.Leave(ctx)
	d.cluster.forget(d.itself)
	return err
}

func (d *clusterDiscovery) itself(other *clusterDiscovery) bool { return d == other }
