package pitaya

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MemCluster is a cluster inside one process: a [Discovery] and a [Transport]
// for each of its servers, which find and call each other without a network.
// Everything is encoded and decoded as on a real one, so what works here works
// there. It is made for tests and examples, works in testing/synctest bubbles,
// and can be told to fail: see Cut, Delay, Expire and Kill.
//
// The methods may be called from any goroutine.
type MemCluster struct {
	mu    sync.Mutex // guards the fields below and those of nodes; never held across a callback
	nodes map[string]*memNode
	cut   map[[2]string]bool // pairs of ids, smaller first, that do not hear each other
	delay time.Duration
}

// NewMemCluster returns a cluster without servers.
func NewMemCluster() *MemCluster {
	return &MemCluster{nodes: make(map[string]*memNode), cut: make(map[[2]string]bool)}
}

// Node returns the seams of one more server, for Config.Discovery and
// Config.Transport. The server is part of the cluster once it has joined.
func (c *MemCluster) Node() (Discovery, Transport) {
	n := &memNode{cluster: c, users: make(map[string]bool), pending: make(map[*memCall]bool)}
	return (*memDiscovery)(n), (*memTransport)(n)
}

// Cut makes two servers unreachable for each other: calls between them fail at
// once and notices vanish. Both stay in discovery.
func (c *MemCluster) Cut(a, b string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[memPair(a, b)] = true
}

// Heal undoes Cut.
func (c *MemCluster) Heal(a, b string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cut, memPair(a, b))
}

// Delay makes everything between servers take this long, one way. What is sent
// in an order still arrives in it.
func (c *MemCluster) Delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

// Expire takes a server out of discovery, as if its lease had run out, without
// touching the server itself. Restore puts it back.
func (c *MemCluster) Expire(id string) { c.setListed(id, false) }

// Restore puts a server that was expired back into discovery.
func (c *MemCluster) Restore(id string) { c.setListed(id, true) }

// Kill takes a server out of the cluster for good, as if its process had died:
// it is gone from discovery, hears nothing and is not heard.
func (c *MemCluster) Kill(id string) {
	c.mu.Lock()
	n := c.nodes[id]
	if n == nil {
		c.mu.Unlock()
		return
	}
	n.dead = true
	c.mu.Unlock()
	c.setListed(id, false)
	n.fail(ErrUnreachable)
}

// Servers returns the ids of the servers in discovery, sorted.
func (c *MemCluster) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, n := range c.nodes {
		if n.listed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// What a cluster in memory carries at most; the transports that it stands for
// have limits too, and an application should meet them in its tests.
const (
	memMaxBody = 4 << 20
	memMaxUID  = 2048
)

func memPair(a, b string) [2]string {
	if b < a {
		a, b = b, a
	}
	return [2]string{a, b}
}

// memNode is one server in the cluster. Its fields are guarded by the cluster's
// lock, but for what a comment says otherwise.
type memNode struct {
	cluster *MemCluster

	self   *ServerInfo // nil before Join or Listen
	listed bool        // in discovery
	left   bool        // Leave was called
	dead   bool
	watch  func(DiscoveryEvent) // nil before Join and after Leave
	events memQueue             // calls of watch

	handler TransportHandler // nil before Listen and after Drain
	closed  bool
	inbox   memQueue // calls of handler
	failed  memQueue // calls of done for what could not be sent. One made after Close is its caller's to wait for.
	users   map[string]bool
	pending map[*memCall]bool // calls of this node that wait for an answer
}

// enter makes a node known by its id.
func (n *memNode) enterLocked(self *ServerInfo) error {
	if other := n.cluster.nodes[self.ID]; other != nil && other != n && !other.dead && (other.listed || !other.closed && other.handler != nil) {
		return fmt.Errorf("pitaya: there is a server with the id %q already", self.ID)
	}
	n.self = self
	n.cluster.nodes[self.ID] = n
	return nil
}

// setListed changes whether a server is in discovery.
func (c *MemCluster) setListed(id string, listed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[id]
	if n == nil || n.listed == listed || listed && (n.dead || n.watch == nil) {
		return
	}
	n.listed = listed
	change := ServerLeft
	if listed {
		change = ServerJoined
	}
	c.announceLocked(DiscoveryEvent{Change: change, Server: n.self})
}

// announceLocked tells all servers that have joined.
func (c *MemCluster) announceLocked(e DiscoveryEvent) {
	for _, n := range c.nodes {
		if watch := n.watch; watch != nil && !n.dead {
			n.events.addLocked(&c.mu, 0, func() { watch(e) })
		}
	}
}

// memDiscovery is the Discovery of a node.
type memDiscovery memNode

// Join implements Discovery.
func (d *memDiscovery) Join(ctx context.Context, self *ServerInfo, watch func(DiscoveryEvent)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := (*memNode)(d)
	c := n.cluster
	self, err := memServer(self)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if n.left || n.watch != nil {
		c.mu.Unlock()
		return errMemJoined
	}
	if err := n.enterLocked(self); err != nil {
		c.mu.Unlock()
		return err
	}
	c.announceLocked(DiscoveryEvent{Change: ServerJoined, Server: self})
	n.listed, n.watch = true, watch
	for _, other := range c.nodes {
		if other.listed {
			n.events.addLocked(&c.mu, 0, func() { watch(DiscoveryEvent{Change: ServerJoined, Server: other.self}) })
		}
	}
	c.mu.Unlock()
	return n.events.wait(ctx, &c.mu)
}

// Update implements Discovery.
func (d *memDiscovery) Update(ctx context.Context, self *ServerInfo) error {
	self, err := memServer(self)
	if err != nil {
		return err
	}
	c := d.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.watch == nil || d.self.ID != self.ID {
		return fmt.Errorf("pitaya: %q has not joined", self.ID)
	}
	same := sameServer(d.self, self)
	d.self = self
	if d.listed && !same {
		c.announceLocked(DiscoveryEvent{Change: ServerUpdated, Server: self})
	}
	return nil
}

// errMemJoined refuses a second Join.
var errMemJoined = errors.New("pitaya: a server joins once")

// memServer is what others learn of a server: what is left of it when it was
// encoded and decoded, as on a real cluster.
func memServer(self *ServerInfo) (*ServerInfo, error) {
	b, err := encodeServer(self)
	if err != nil {
		return nil, err
	}
	s, err := decodeServer(b)
	if err == nil {
		err = checkServerInfo(self) // which JSON may have repaired
	}
	if err != nil {
		return nil, fmt.Errorf("pitaya: %w", err)
	}
	return s, nil
}

// Leave implements Discovery.
func (d *memDiscovery) Leave(ctx context.Context) error {
	n := (*memNode)(d)
	c := n.cluster
	c.mu.Lock()
	n.watch, n.left = nil, true
	self, listed := n.self, n.listed
	n.listed = false
	if listed {
		c.announceLocked(DiscoveryEvent{Change: ServerLeft, Server: self})
	}
	n.forgetLocked()
	c.mu.Unlock()
	return n.events.wait(ctx, &c.mu)
}

// forgetLocked takes a node that has both left and closed out of the cluster.
func (n *memNode) forgetLocked() {
	if n.self != nil && !n.listed && n.closed && n.cluster.nodes[n.self.ID] == n {
		delete(n.cluster.nodes, n.self.ID)
	}
}

// Healthy implements Discovery.
func (d *memDiscovery) Healthy() error {
	d.cluster.mu.Lock()
	defer d.cluster.mu.Unlock()
	if d.dead || d.watch == nil {
		return ErrUnreachable
	}
	return nil
}
