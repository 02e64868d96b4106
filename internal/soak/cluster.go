package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A cluster is all the processes of a run.
type cluster struct {
	ctx      context.Context
	report   *reporter
	world    *world
	folder   string
	self     string // this program, which is that of the servers as well
	etcd     *service
	natsd    *service
	monitor  string // of NATS: host and port
	nodes    []*node
	watching sync.WaitGroup

	groupsLost atomic.Bool // etcd has lost its data

	mu       sync.Mutex // guards what follows
	taken    map[string]bool
	emptied  int               // how often etcd has lost its data
	expected map[*process]bool // it may end
	journals []*journalReader
	logs     map[string]int64 // by file: how far it was looked through
}

// startCluster starts etcd, NATS and the servers.
func startCluster(ctx context.Context, r *reporter, w *world, folder, devcluster string, gates, rooms int) (*cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &cluster{ctx: ctx, report: r, world: w, folder: folder, self: self, taken: make(map[string]bool),
		expected: make(map[*process]bool), logs: make(map[string]int64)}
	var addrs [3]string
	for i := range addrs {
		if addrs[i], err = freeAddress(); err != nil {
			return nil, err
		}
	}
	c.monitor = addrs[2]
	conf := filepath.Join(folder, "nats.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "http: %q\n", c.monitor), 0o600); err != nil {
		return nil, err
	}
	c.etcd = &service{kind: "etcd", program: devcluster, address: addrs[0], log: filepath.Join(folder, "etcd.log"),
		args: []string{"-data", filepath.Join(folder, "etcd")}}
	c.natsd = &service{kind: "nats", program: devcluster, address: addrs[1], log: filepath.Join(folder, "nats.log"),
		args: []string{"-nats-config", conf}}
	for _, s := range []*service{c.etcd, c.natsd} {
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	for i := range rooms + gates {
		n := &node{kind: typeRoom, place: fmt.Sprint(typeRoom, "-", i+1)}
		if i >= rooms {
			n.kind, n.place = typeGate, fmt.Sprint(typeGate, "-", i-rooms+1)
			for range 2 {
				l, err := newLink("")
				if err != nil {
					return nil, err
				}
				n.doors = append(n.doors, l)
			}
			w.gates = append(w.gates, n)
		}
		if n.etcd, err = newLink(c.etcd.address); err != nil {
			return nil, err
		}
		if n.nats, err = newLink(c.natsd.address); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
		if err := c.startNode(n); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *cluster) node(place string) *node {
	return c.nodes[slices.IndexFunc(c.nodes, func(n *node) bool { return n.place == place })]
}

func (c *cluster) service(kind string) *service {
	if kind == "etcd" {
		return c.etcd
	}
	return c.natsd
}

// startNode starts a server until one has come to be ready: without etcd it cannot. It has the id of the one before or a new
// one, in turns, unless that is there still.
func (c *cluster) startNode(n *node) error {
	n.mu.Lock()
	id := n.id
	if n.proc != nil || n.incarnation%2 == 0 {
		id = fmt.Sprint(n.place, "-", n.incarnation+1)
	}
	n.mu.Unlock()
	for attempt := 1; ; attempt++ {
		// A process that does not come to be ready may have served others already, so each has a name of its own.
		n.mu.Lock()
		n.incarnation++
		name := fmt.Sprint(n.place, "/", n.incarnation)
		n.mu.Unlock()
		base := filepath.Join(c.folder, strings.ReplaceAll(name, "/", "."))
		spec, err := json.Marshal(serverSpec{Type: n.kind, ID: id, Process: name, Etcd: "http://" + n.etcd.Addr,
			NATS: "nats://" + n.nats.Addr, Journal: base + ".journal"})
		if err != nil {
			return err
		}
		p, err := startProcess(c.ctx, name, base+".log", c.self, "-serve", string(spec))
		if err == nil {
			return c.arrived(n, id, p, base+".journal")
		}
		if c.ctx.Err() != nil {
			return nil
		}
		if j, err := openJournal(name, base+".journal"); err == nil {
			c.mu.Lock()
			c.journals = append(c.journals, j)
			c.mu.Unlock()
		}
		c.report.Count("servers that did not start for want of etcd", 1)
		if attempt == 20 {
			return err
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
		}
	}
}

// arrived puts a process into its place.
func (c *cluster) arrived(n *node, id string, p *process, journal string) error {
	var addrs serverAddrs
	if err := json.Unmarshal(p.line, &addrs); err != nil {
		p.kill()
		return fmt.Errorf("%s: %w", p.name, err)
	}
	j, err := openJournal(p.name, journal)
	if err != nil {
		p.kill()
		return err
	}
	n.mu.Lock()
	n.id, n.proc, n.addrs = id, p, addrs
	n.mu.Unlock()
	if len(n.doors) > 0 {
		n.doors[0].Lead(addrs.TCP)
		n.doors[1].Lead(addrs.WS)
	}
	c.mu.Lock()
	c.journals = append(c.journals, j)
	c.logs[p.log] = 0
	c.mu.Unlock()
	c.watching.Go(func() {
		<-p.ended
		n.mu.Lock()
		if n.proc == p {
			n.proc = nil
		}
		n.mu.Unlock()
		c.mu.Lock()
		expected := c.expected[p]
		delete(c.expected, p)
		c.mu.Unlock()
		if !expected && c.ctx.Err() == nil {
			c.report.Violation(p.name, fmt.Sprintf("it has ended by itself: %v\n%s", p.err, tail(p.log)), nil)
		}
	})
	return nil
}

// leave ends a node's process by f. Bots do not find it meanwhile.
func (c *cluster) leave(n *node, f func()) {
	n.mu.Lock()
	p := n.proc
	n.proc = nil
	n.mu.Unlock()
	c.expectEnd(p)
	f()
}

func (c *cluster) expectEnd(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected[p] = true
}

// end ends everything.
func (c *cluster) end() {
	for _, n := range c.nodes {
		if p := n.current(); p != nil {
			c.leave(n, func() { p.stdin.Close(); <-p.ended })
		}
		for _, l := range append(n.doors, n.etcd, n.nats) {
			if l != nil {
				l.close()
			}
		}
	}
	for _, s := range []*service{c.etcd, c.natsd} {
		s.end((*process).kill)
	}
	c.watching.Wait()
	for _, j := range c.journals {
		j.file.Close()
	}
}

// states asks all servers for what they tell about themselves.
func (c *cluster) states(collect bool) ([]serverState, error) {
	form := url.Values{}
	if collect {
		form.Set("collect", "1")
	}
	list := make([]serverState, len(c.nodes))
	for i, n := range c.nodes {
		if err := n.get(c.ctx, "/state", form, &list[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", n.place, err)
		}
	}
	return list, nil
}

// subscriptions asks NATS how many it has.
func (c *cluster) subscriptions() (int, error) {
	var v struct {
		Subscriptions int `json:"subscriptions"`
	}
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	err := getJSON(ctx, "http://"+c.monitor+"/varz", nil, &v)
	return v.Subscriptions, err
}

// readJournals takes in what servers have handled since the last time.
func (c *cluster) readJournals(h *handled, wrong func(process string, bot int, text string)) error {
	c.mu.Lock()
	list := slices.Clone(c.journals)
	c.mu.Unlock()
	for _, j := range list {
		if err := h.read(j, func(bot int, text string) { wrong(j.process, bot, text) }); err != nil {
			return err
		}
	}
	return nil
}

// readLogs looks through what servers have logged since the last time. A panic, a data race or a stack is a violation; of
// errors and warnings the messages are counted.
func (c *cluster) readLogs() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, at := range c.logs {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		c.logs[name] = int64(len(b))
		for line := range strings.Lines(string(b[at:])) {
			_, rest, ok := strings.Cut(line, " level=")
			level, rest, _ := strings.Cut(rest, " ")
			switch {
			case strings.Contains(line, "panic"), strings.Contains(line, "DATA RACE"), strings.Contains(line, "fatal error"):
				c.report.Violation(filepath.Base(name), strings.TrimSpace(line), nil)
			case ok && (level == "ERROR" || level == "WARN"):
				c.report.Count("log: "+level+" "+logMessage(rest), 1)
			}
		}
	}
	return nil
}

// logMessage returns the message of a record of slog's text handler.
func logMessage(record string) string {
	_, msg, ok := strings.Cut(record, "msg=")
	if !ok {
		return "?"
	}
	if quoted, ok := strings.CutPrefix(msg, `"`); ok {
		msg, _, _ = strings.Cut(quoted, `"`)
		return msg
	}
	msg, _, _ = strings.Cut(msg, " ")
	return strings.TrimSpace(msg)
}
