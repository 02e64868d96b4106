package pitaya_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
)

// eventTime is how long tests wait for what must happen. What takes so long has failed.
const eventTime = 30 * time.Second

// A serverWatcher takes the events of a Discovery, keeps the servers they add up to, and checks that they do.
type serverWatcher struct {
	t       *testing.T
	running atomic.Bool

	mu      sync.Mutex
	servers map[string]*pitaya.ServerInfo
	events  []string // "joined id" and so on
	over    bool     // no event may come any more
	changed chan struct{}
}

func newServerWatcher(t *testing.T) *serverWatcher {
	return &serverWatcher{t: t, servers: make(map[string]*pitaya.ServerInfo), changed: make(chan struct{}, 1)}
}

func (w *serverWatcher) watch(e pitaya.DiscoveryEvent) {
	if w.running.Swap(true) {
		w.t.Error("two calls of watch at a time")
	}
	defer w.running.Store(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		w.t.Errorf("an event after the end: %v of %s", e.Change, e.Server.ID)
	}
	old, known := w.servers[e.Server.ID]
	var name string
	switch e.Change {
	case pitaya.ServerJoined:
		name = "joined"
		if known {
			w.t.Errorf("%s joined twice", e.Server.ID)
		}
		w.servers[e.Server.ID] = e.Server
	case pitaya.ServerUpdated:
		name = "updated"
		if !known {
			w.t.Errorf("%s updated before it joined", e.Server.ID)
		}
		w.servers[e.Server.ID] = e.Server
	case pitaya.ServerLeft:
		name = "left"
		if !known || old.Type != e.Server.Type {
			w.t.Errorf("%s left and was not there", e.Server.ID)
		}
		delete(w.servers, e.Server.ID)
	default:
		w.t.Errorf("change %d", e.Change)
	}
	w.events = append(w.events, name+" "+e.Server.ID)
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// ids returns the servers that are known now.
func (w *serverWatcher) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.servers))
}

// saw returns how often an event has come.
func (w *serverWatcher) saw(event string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sawLocked(event)
}

// sawLocked is saw for conditions of wait.
func (w *serverWatcher) sawLocked(event string) int {
	n := 0
	for _, e := range w.events {
		if e == event {
			n++
		}
	}
	return n
}

// wait waits until the servers are as cond wants them.
func (w *serverWatcher) wait(what string, cond func(servers map[string]*pitaya.ServerInfo) bool) {
	w.t.Helper()
	timeout := time.NewTimer(eventTime)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		ok := cond(w.servers)
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-w.changed:
		case <-timeout.C:
			w.t.Fatalf("waiting for %s: got servers %q after the events %q", what, w.ids(), w.events)
		}
	}
}

func (w *serverWatcher) waitIDs(ids ...string) {
	w.t.Helper()
	slices.Sort(ids)
	w.wait(fmt.Sprintf("servers %q", ids), func(servers map[string]*pitaya.ServerInfo) bool {
		return slices.Equal(slices.Sorted(maps.Keys(servers)), ids)
	})
}

// poll waits until cond is true of something that tells nobody when it changes.
func poll(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(eventTime)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s took longer than %v", what, eventTime)
		}
		<-tick.C
	}
}

// join lets a Discovery join and leave with the test.
func join(t *testing.T, d pitaya.Discovery, self *pitaya.ServerInfo) *serverWatcher {
	t.Helper()
	w := newServerWatcher(t)
	if err := d.Join(t.Context(), self, w.watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leave(t, d, w) })
	return w
}

func leave(t *testing.T, d pitaya.Discovery, w *serverWatcher) {
	t.Helper()
	if err := d.Leave(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("leaving: %v", err)
	}
	if w.running.Load() {
		t.Error("watch is running after Leave")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// testDiscovery checks the rules of [pitaya.Discovery]. open makes a cluster without servers, and returns a function that
// makes a Discovery in it.
func testDiscovery(t *testing.T, open func(*testing.T) func() pitaya.Discovery) {
	server := func(id string) *pitaya.ServerInfo {
		return &pitaya.ServerInfo{ID: id, Type: "room", Metadata: map[string]string{"k": id}, Hostname: "h"}
	}
	t.Run("join, update, leave", func(t *testing.T) {
		make := open(t)
		first, second := make(), make()
		if first.Healthy() == nil {
			t.Error("healthy before it has joined")
		}
		if err := first.Update(t.Context(), server("first")); err == nil {
			t.Error("an update before Join succeeds")
		}
		w1 := join(t, first, server("first"))
		if got := w1.ids(); !slices.Equal(got, []string{"first"}) {
			t.Errorf("when Join returns: got servers %q, want itself", got)
		}
		front := &pitaya.ServerInfo{ID: "second", Type: "connector", Frontend: true}
		w2 := join(t, second, front)
		if got := w2.ids(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("when Join of another returns: got servers %q", got)
		}
		w1.waitIDs("first", "second")
		w1.wait("all fields", func(servers map[string]*pitaya.ServerInfo) bool {
			s := servers["second"]
			return s.ID == "second" && s.Type == "connector" && s.Frontend && s.Hostname == "" && len(s.Metadata) == 0
		})
		w2.wait("all fields", func(servers map[string]*pitaya.ServerInfo) bool {
			s := servers["first"]
			return s.Type == "room" && !s.Frontend && s.Hostname == "h" && s.Metadata["k"] == "first"
		})
		for _, d := range []pitaya.Discovery{first, second} {
			if err := d.Healthy(); err != nil {
				t.Errorf("after Join: %v", err)
			}
		}

		changed := server("first")
		changed.Metadata = map[string]string{"draining": "1"}
		if err := first.Update(t.Context(), changed); err != nil {
			t.Error(err)
		}
		for _, w := range []*serverWatcher{w1, w2} {
			w.wait("metadata", func(servers map[string]*pitaya.ServerInfo) bool {
				return maps.Equal(servers["first"].Metadata, changed.Metadata)
			})
			if w.saw("left first") > 0 || w.saw("updated first") != 1 {
				t.Errorf("an update gave the events %q", w.events)
			}
		}
		if err := first.Update(t.Context(), server("other")); err == nil {
			t.Error("an update with another id succeeds")
		}

		leave(t, second, w2)
		w1.waitIDs("first")
		if second.Healthy() == nil {
			t.Error("healthy after it has left")
		}
		if err := second.Update(t.Context(), front); err == nil {
			t.Error("an update after Leave succeeds")
		}
		// Somebody of the same id may come again.
		join(t, make(), front)
		w1.waitIDs("first", "second")
	})
	t.Run("many", func(t *testing.T) {
		make := open(t)
		const n = 10
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprint("s", i))
		}
		watchers := new([n]*serverWatcher)
		discoveries := new([n]pitaya.Discovery)
		var wg sync.WaitGroup
		for i, id := range ids {
			watchers[i], discoveries[i] = newServerWatcher(t), make()
			wg.Go(func() {
				if err := discoveries[i].Join(t.Context(), server(id), watchers[i].watch); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, w := range watchers {
			w.waitIDs(ids...)
		}
		for i := n - 1; i >= 0; i-- {
			leave(t, discoveries[i], watchers[i])
			for _, w := range watchers[:i] {
				w.waitIDs(ids[:i]...)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		make := open(t)
		good := make()
		w := join(t, good, server("good"))
		for _, bad := range []*pitaya.ServerInfo{
			{Type: "room"}, {ID: "x"}, {ID: "a/b", Type: "room"}, {ID: "x", Type: "a/b"}, {ID: "x", Type: "a.b"},
			{ID: "a b", Type: "room"}, {ID: "x\x00", Type: "room"}, {ID: "\xff", Type: "room"},
		} {
			d := make()
			if err := d.Join(t.Context(), bad, w.watch); err == nil {
				t.Errorf("joined with id %q and type %q", bad.ID, bad.Type)
			}
			if err := d.Leave(t.Context()); err != nil {
				t.Errorf("leaving without having joined: %v", err)
			}
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if err := make().Join(done, server("late"), w.watch); !errors.Is(err, context.Canceled) {
			t.Errorf("joining with a context that is done: got %v", err)
		}
		if got := w.ids(); !slices.Equal(got, []string{"good"}) {
			t.Errorf("got servers %q", got)
		}
	})
	t.Run("leaving in no time", func(t *testing.T) {
		make := open(t)
		d, w := make(), newServerWatcher(t)
		if err := d.Join(t.Context(), server("hasty"), w.watch); err != nil {
			t.Fatal(err)
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_ = d.Leave(done) // it may say that others will learn of it later
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
}

// etcdConfig is a configuration with short times.
func etcdConfig(url string) pitaya.EtcdConfig {
	return pitaya.EtcdConfig{
		Endpoints: []string{url}, HeartbeatTTL: time.Second, DialTimeout: 2 * time.Second,
		GrantLeaseInterval: 500 * time.Millisecond,
	}
}

func newEtcdDiscovery(t *testing.T, cfg pitaya.EtcdConfig) *pitaya.EtcdDiscovery {
	t.Helper()
	d, err := pitaya.NewEtcdDiscovery(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// etcdClient returns a client for looking at etcd and interfering with it.
func etcdClient(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func room(id string) *pitaya.ServerInfo { return &pitaya.ServerInfo{ID: id, Type: "room"} }

func TestEtcdDiscovery(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	n := 0
	testDiscovery(t, func(t *testing.T) func() pitaya.Discovery {
		n++
		cfg := etcdConfig(s.URL())
		cfg.Prefix = fmt.Sprintf("cluster%d/", n)
		return func() pitaya.Discovery { return newEtcdDiscovery(t, cfg) }
	})
}

// TestEtcdDiscoveryEntries compares what is written to etcd, and what is made of what others write, with the vectors.
func TestEtcdDiscoveryEntries(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	type entry struct {
		ID, Type, Hostname string
		Metadata           map[string]string
		Frontend           bool
	}
	n := 0
	testVectors(t, "server_json", func(v struct {
		Direction      string
		Server         *entry
		ExpectText     string `json:"expect_text"`
		InputText      string `json:"input_text"`
		KeyUnderPrefix string `json:"key_under_prefix"`
		Error          bool
	}) error {
		n++
		cfg := etcdConfig(s.URL())
		cfg.Prefix = fmt.Sprintf("v%d/", n)
		var want pitaya.ServerInfo
		if v.Server != nil {
			e := *v.Server
			want = pitaya.ServerInfo{ID: e.ID, Type: e.Type, Hostname: e.Hostname, Metadata: e.Metadata, Frontend: e.Frontend}
		}
		d, w := newEtcdDiscovery(t, cfg), newServerWatcher(t)
		self := &want
		if v.Direction == "decode" {
			self = room("self")
			if _, err := c.Put(t.Context(), cfg.Prefix+"servers/room/x", v.InputText); err != nil {
				return err
			}
		}
		if err := d.Join(t.Context(), self, w.watch); err != nil {
			return err
		}
		defer leave(t, d, w)
		if v.Direction == "encode" {
			r, err := c.Get(t.Context(), cfg.Prefix, clientv3.WithPrefix())
			if err != nil {
				return err
			}
			if len(r.Kvs) != 1 || string(r.Kvs[0].Key) != cfg.Prefix+v.KeyUnderPrefix || string(r.Kvs[0].Value) != v.ExpectText {
				return fmt.Errorf("etcd has %v", r.Kvs)
			}
			return nil
		}
		got, ok := w.servers["x"]
		if ok == v.Error {
			return fmt.Errorf("servers are %q", w.ids())
		}
		if ok && (got.Type != want.Type || got.Hostname != want.Hostname || got.Frontend != want.Frontend ||
			!maps.Equal(got.Metadata, want.Metadata)) {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
}

// TestEtcdNames compares the keys of all users of etcd with the vectors.
func TestEtcdNames(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	testVectors(t, "names", func(v struct {
		Kind   string
		Inputs struct {
			Prefix, Group, UID string
			FrontendType       string `json:"frontend_type"`
			ServerType         string `json:"server_type"`
			ServerID           string `json:"server_id"`
		}
		Expect string
	}) error {
		ctx := t.Context()
		if !strings.HasPrefix(v.Kind, "etcd_") {
			return nil // another file's
		}
		if _, err := c.Delete(ctx, "", clientv3.WithPrefix()); err != nil {
			return err
		}
		switch v.Kind {
		case "etcd_server":
			cfg := etcdConfig(s.URL())
			cfg.Prefix = v.Inputs.Prefix
			d, w := newEtcdDiscovery(t, cfg), newServerWatcher(t)
			self := &pitaya.ServerInfo{ID: v.Inputs.ServerID, Type: v.Inputs.ServerType}
			if err := d.Join(ctx, self, w.watch); err != nil {
				return err
			}
			defer leave(t, d, w)
		case "etcd_binding":
			b, err := pitaya.NewEtcdBindings(pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, Prefix: v.Inputs.Prefix},
				v.Inputs.FrontendType, "id", nil)
			if err != nil {
				return err
			}
			defer b.Close(ctx)
			if err := b.Put(ctx, v.Inputs.UID); err != nil {
				return err
			}
		case "etcd_group", "etcd_group_member":
			g, err := pitaya.NewEtcdGroups(pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}, Prefix: v.Inputs.Prefix}, nil)
			if err != nil {
				return err
			}
			defer g.Close()
			if err := g.Create(ctx, v.Inputs.Group, 0); err != nil {
				return err
			}
			if v.Inputs.UID != "" {
				if err := g.Add(ctx, v.Inputs.Group, v.Inputs.UID); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("unknown kind %s", v.Kind)
		}
		r, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		var keys []string
		for _, kv := range r.Kvs {
			keys = append(keys, string(kv.Key))
		}
		if !slices.Contains(keys, v.Expect) {
			return fmt.Errorf("etcd has the keys %q", keys)
		}
		return nil
	})
}

func TestEtcdDiscoveryHostile(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	cfg := etcdConfig(s.URL())
	cfg.IgnoredTypes = []string{"ignored", "selfish"}
	const good = `{"id":"x","type":"room","metadata":{"a":"1"},"frontend":false,"hostname":"h"}`
	bad := []struct{ key, value string }{
		{"room/null", `null`},
		{"room/empty", ``},
		{"room/list", `[]`},
		{"room/text", `"x"`},
		{"room/none", `{}`},
		{"room/noid", `{"type":"room"}`},
		{"room/notype", `{"id":"notype"}`},
		{"room/number", `{"id":1,"type":"room"}`},
		{"room/frontend", `{"id":"frontend","type":"room","frontend":"yes"}`},
		{"room/slash", `{"id":"a/b","type":"room"}`},
		{"room/control", `{"id":"a\nb","type":"room"}`},
		{"room/self", `{"id":"self","type":"room"}`},
		{"room/twin", good},
		{"room", good}, {"room/", good}, {"/x", good}, {"room/a/b", good}, {"", good},
		{"ignored/i", `{"id":"i","type":"ignored"}`},
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := c.Put(ctx, "pitaya/servers/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("room/x", good)
	for _, b := range bad[:len(bad)/2] {
		put(b.key, b.value)
	}
	var logs lockedBuffer
	d, err := pitaya.NewEtcdDiscovery(cfg, slog.New(slog.NewTextHandler(&logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	w := join(t, d, &pitaya.ServerInfo{ID: "self", Type: "selfish"})
	w.waitIDs("self", "x")
	for _, b := range bad {
		put(b.key, b.value)
	}
	// Whatever comes after all those has been seen after them.
	put("room/y", `{"id":"y","type":"room"}`)
	w.waitIDs("self", "x", "y")
	// A server that turns into nonsense stays until it is deleted, and can recover. Another one may take its key.
	put("room/x", `null`)
	put("room/y", `{"id":"z","type":"room"}`)
	w.waitIDs("self", "x", "z")
	put("room/x", strings.Replace(good, `"1"`, `"2"`, 1))
	w.wait("recovery", func(servers map[string]*pitaya.ServerInfo) bool { return servers["x"].Metadata["a"] == "2" })
	if _, err := c.Delete(ctx, "pitaya/servers/room/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	w.waitIDs("self")
	put("room/twin", good)
	w.waitIDs("self", "x")
	if n := strings.Count(logs.String(), "key=pitaya/servers/room/none "); n != 2 {
		t.Errorf("an invalid entry that was written twice was logged %d times:\n%s", n, logs.String())
	}
	// What somebody else writes over the own entry is not what this server is.
	put("selfish/self", `{"id":"self","type":"selfish","metadata":{"a":"b"}}`)
	put("room/last", `{"id":"last","type":"room"}`)
	w.waitIDs("self", "x", "last")
	if w.saw("updated self") > 0 {
		t.Error("somebody else changed the own server")
	}
}

// lockedBuffer is a buffer for logs.
type lockedBuffer struct {
	mu sync.Mutex
	sb strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sb.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sb.String()
}

func TestEtcdDiscoveryLostEntry(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	cfg := etcdConfig(s.URL())
	cfg.HeartbeatTTL = time.Minute // so that no renewal helps
	w1, w2 := join(t, newEtcdDiscovery(t, cfg), room("a")), join(t, newEtcdDiscovery(t, cfg), room("b"))
	w1.waitIDs("a", "b")
	const key = "pitaya/servers/room/a"
	lease := func() clientv3.LeaseID {
		r, err := c.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Kvs) == 0 {
			return 0
		}
		return clientv3.LeaseID(r.Kvs[0].Lease)
	}
	first := lease()
	if r, err := c.TimeToLive(ctx, first); err != nil || r.GrantedTTL != 60 {
		t.Errorf("the lease is %+v, %v, want 60 s", r, err)
	}
	if _, err := c.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	poll(t, "the entry to be put back", func() bool { return lease() == first })
	w2.wait("a to come back", func(map[string]*pitaya.ServerInfo) bool { return w2.sawLocked("joined a") == 2 })

	if _, err := c.Revoke(ctx, first); err != nil {
		t.Fatal(err)
	}
	poll(t, "another lease", func() bool { l := lease(); return l != 0 && l != first })
	w2.wait("a to come back", func(map[string]*pitaya.ServerInfo) bool { return w2.sawLocked("joined a") == 3 })
	if n := w1.saw("left a"); n > 0 {
		t.Errorf("a server was told %d times that itself has left", n)
	}
}

// A cutter is a TCP proxy whose connections can be cut, and refused from then on.
type cutter struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutter{l: l, to: to, conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		wg.Wait()
	})
	return p
}

func (p *cutter) URL() string { return "http://" + p.l.Addr().String() }

func (p *cutter) serve(c net.Conn) {
	defer c.Close()
	d, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer d.Close()
	p.mu.Lock()
	if p.cut {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[d] = true, true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(d, c)
		d.Close()
	}()
	io.Copy(c, d)
	c.Close()
	<-done
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	delete(p.conns, d)
}

func (p *cutter) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		c.Close()
	}
}

func (p *cutter) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// TestEtcdDiscoveryCompaction changes servers while one of them is cut off, and compacts the history of it.
func TestEtcdDiscoveryCompaction(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	p := newCutter(t, strings.TrimPrefix(s.URL(), "http://"))
	put := func(id, host string) {
		t.Helper()
		value := fmt.Sprintf(`{"id":%q,"type":"room","hostname":%q}`, id, host)
		if _, err := c.Put(ctx, "pitaya/servers/room/"+id, value); err != nil {
			t.Fatal(err)
		}
	}
	put("stays", "")
	put("goes", "")
	put("changes", "old")
	cfg := etcdConfig(p.URL())
	cfg.HeartbeatTTL, cfg.SyncInterval = time.Minute, time.Hour
	d := newEtcdDiscovery(t, cfg)
	w := join(t, d, room("self"))
	w.waitIDs("self", "stays", "goes", "changes")

	p.Cut()
	poll(t, "the cut to be noticed", func() bool { return d.Healthy() != nil })
	if _, err := c.Delete(ctx, "pitaya/servers/room/goes"); err != nil {
		t.Fatal(err)
	}
	put("changes", "new")
	put("comes", "")
	r, err := c.Get(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if got := len(w.ids()); got != 4 {
		t.Errorf("cut off, it knows %d servers", got)
	}
	p.Mend()
	w.waitIDs("self", "stays", "comes", "changes")
	w.wait("change", func(servers map[string]*pitaya.ServerInfo) bool { return servers["changes"].Hostname == "new" })
	poll(t, "health", func() bool { return d.Healthy() == nil })
	put("later", "")
	w.waitIDs("self", "stays", "comes", "changes", "later")
	if n := w.saw("left stays") + w.saw("left self") + w.saw("left changes"); n > 0 {
		t.Errorf("got events %q", w.events)
	}
}

// TestEtcdDiscoveryExpiry cuts a server off until its lease has ended: the others miss it, it misses nobody, and it comes back
// under the same id.
func TestEtcdDiscoveryExpiry(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	p := newCutter(t, strings.TrimPrefix(s.URL(), "http://"))
	cfg := etcdConfig(s.URL())
	w := join(t, newEtcdDiscovery(t, cfg), room("here"))
	cfg.Endpoints = []string{p.URL()}
	d := newEtcdDiscovery(t, cfg)
	far := join(t, d, room("far"))
	w.waitIDs("here", "far")
	p.Cut()
	w.waitIDs("here")
	if d.Healthy() == nil {
		t.Error("healthy while it is cut off")
	}
	p.Mend()
	w.waitIDs("here", "far")
	poll(t, "health", func() bool { return d.Healthy() == nil })
	if far.saw("left here")+far.saw("left far") > 0 {
		t.Errorf("cut off, it got the events %q", far.events)
	}
}

// TestEtcdDiscoverySync lets the periodic list find what the watch has not told, by putting it where nothing is watched: a
// second key of an id that is taken.
func TestEtcdDiscoverySync(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	cfg := etcdConfig(s.URL())
	cfg.SyncInterval = 100 * time.Millisecond
	for _, key := range []string{"pitaya/servers/room/x", "pitaya/servers/room/y"} {
		if _, err := c.Put(ctx, key, `{"id":"x","type":"room"}`); err != nil {
			t.Fatal(err)
		}
	}
	w := join(t, newEtcdDiscovery(t, cfg), room("self"))
	w.waitIDs("self", "x")
	if _, err := c.Delete(ctx, "pitaya/servers/room/x"); err != nil {
		t.Fatal(err)
	}
	w.wait("the second", func(map[string]*pitaya.ServerInfo) bool { return w.sawLocked("joined x") == 2 })
}

func TestEtcdDiscoveryOutage(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.HeartbeatTTL = 2 * time.Second
	var all []*pitaya.EtcdDiscovery
	var watchers []*serverWatcher
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		d := newEtcdDiscovery(t, cfg)
		all, watchers = append(all, d), append(watchers, join(t, d, room(id)))
	}
	quiet := func(when string) {
		t.Helper()
		for i, w := range watchers {
			w.waitIDs(ids...)
			for _, id := range ids {
				if w.saw("left "+id) > 0 {
					t.Errorf("%s: %s was told that %s left", when, ids[i], id)
				}
			}
		}
	}
	health := func(want bool) {
		t.Helper()
		for _, d := range all {
			poll(t, fmt.Sprintf("healthy %v", want), func() bool { return (d.Healthy() == nil) == want })
		}
	}
	for _, w := range watchers {
		w.waitIDs(ids...)
	}
	s.Stop()
	health(false)
	// An update meanwhile is published later.
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	changed := room("a")
	changed.Metadata = map[string]string{"k": "1"}
	if err := all[0].Update(short, changed); err != nil {
		t.Errorf("an update during an outage: %v", err)
	}
	quiet("etcd stopped")
	s.Start()
	health(true)
	quiet("etcd came back")
	for _, w := range watchers {
		w.wait("the update", func(servers map[string]*pitaya.ServerInfo) bool { return servers["a"].Metadata["k"] == "1" })
	}

	s.Kill()
	health(false)
	s.StartEmpty()
	health(true)
	c := etcdClient(t, s.URL())
	poll(t, "all to register again", func() bool {
		r, err := c.Get(t.Context(), "pitaya/servers/", clientv3.WithPrefix())
		return err == nil && len(r.Kvs) == len(ids)
	})
	quiet("etcd came back without data")
	// The watch goes on where the new etcd is.
	late := newEtcdDiscovery(t, cfg)
	w := newServerWatcher(t)
	if err := late.Join(t.Context(), room("late"), w.watch); err != nil {
		t.Fatal(err)
	}
	for _, w := range watchers {
		w.waitIDs("a", "b", "c", "late")
	}
	leave(t, late, w)
	for _, w := range watchers {
		w.waitIDs(ids...)
	}

	// One that does not register again is missed after a while.
	p := newCutter(t, strings.TrimPrefix(s.URL(), "http://"))
	cfg.Endpoints = []string{p.URL()}
	cut := newEtcdDiscovery(t, cfg)
	join(t, cut, room("cut"))
	for _, w := range watchers {
		w.waitIDs("a", "b", "c", "cut")
	}
	p.Cut()
	s.Kill()
	s.StartEmpty()
	quietStart := time.Now()
	for _, w := range watchers {
		w.waitIDs(ids...)
	}
	t.Logf("missed after %v", time.Since(quietStart))
	for i, w := range watchers {
		if w.saw("left a")+w.saw("left b")+w.saw("left c") > 0 {
			t.Errorf("%s was told that others left: %q", ids[i], w.events)
		}
	}
	p.Mend()
	for _, w := range watchers {
		w.waitIDs("a", "b", "c", "cut")
	}
}

// TestEtcdDiscoveryPaused has an etcd that does not answer: nothing waits for it without a bound.
func TestEtcdDiscoveryPaused(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.HeartbeatTTL, cfg.RevokeTimeout, cfg.DialTimeout = time.Minute, 100*time.Millisecond, 100*time.Millisecond
	d, w := newEtcdDiscovery(t, cfg), newServerWatcher(t)
	if err := d.Join(t.Context(), room("a"), w.watch); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	other := newEtcdDiscovery(t, cfg)
	start := time.Now()
	if err := other.Join(t.Context(), room("b"), func(pitaya.DiscoveryEvent) { t.Error("an event of a Join that failed") }); err == nil {
		t.Error("joined although etcd does not answer")
	}
	if err := d.Leave(t.Context()); err == nil {
		t.Error("nobody took note of Leave, and it says nothing of that")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestEtcdDiscoveryGivesUp(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.GrantLeaseRetries, cfg.GrantLeaseTimeout, cfg.RevokeTimeout = 2, 50*time.Millisecond, 50*time.Millisecond
	d, w := newEtcdDiscovery(t, cfg), newServerWatcher(t)
	if err := d.Join(t.Context(), room("a"), w.watch); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.GaveUp():
		t.Error("gave up without a reason")
	default:
	}
	s.Stop()
	select {
	case <-d.GaveUp():
	case <-time.After(eventTime):
		t.Error("did not give up")
	}
	if err := d.Healthy(); err == nil {
		t.Error("healthy after it gave up")
	}
	leave(t, d, w) // there is nothing to revoke
}

func TestEtcdDiscoveryLogin(t *testing.T) {
	t.Parallel()
	s := startEtcd(t, "-user", "game", "-password", "secret")
	cfg := etcdConfig(s.URL())
	cfg.DialTimeout = 2 * time.Second
	for _, tt := range []struct{ name, user, password string }{
		{"none", "", ""}, {"user alone", "game", ""}, {"wrong password", "game", "Secret"},
	} {
		cfg.User, cfg.Password = tt.user, tt.password
		if err := newEtcdDiscovery(t, cfg).Join(t.Context(), room("a"), nil); err == nil {
			t.Errorf("%s: joined", tt.name)
		} else if tt.password != "" && strings.Contains(err.Error(), tt.password) {
			t.Errorf("%s: the error tells the password: %v", tt.name, err)
		}
	}
	cfg.User, cfg.Password = "game", "secret"
	a, b := newEtcdDiscovery(t, cfg), newEtcdDiscovery(t, cfg)
	w := join(t, a, room("a"))
	join(t, b, room("b"))
	w.waitIDs("a", "b")
	// Tokens do not survive that.
	s.Stop()
	s.Start()
	poll(t, "health", func() bool { return a.Healthy() == nil && b.Healthy() == nil })
	join(t, newEtcdDiscovery(t, cfg), room("c"))
	w.waitIDs("a", "b", "c")
}

func TestEtcdDiscoveryTLS(t *testing.T) {
	t.Parallel()
	files := newTLSFiles(t)
	s := startEtcd(t, "-tls-cert", files.Cert, "-tls-key", files.Key, "-tls-ca", files.CA)
	cfg := etcdConfig(s.URL())
	cfg.DialTimeout = 200 * time.Millisecond
	for _, wrong := range []pitaya.TLSFiles{{}, {CA: files.CA}, newTLSFiles(t)} {
		cfg.TLS = wrong
		if err := newEtcdDiscovery(t, cfg).Join(t.Context(), room("a"), nil); err == nil {
			t.Errorf("joined with %+v", wrong)
		}
	}
	cfg.DialTimeout = 5 * time.Second
	cfg.TLS = files
	w := join(t, newEtcdDiscovery(t, cfg), room("a"))
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLS = pitaya.TLSFiles{CA: "no such file"} // TLSConfig goes before it
	cfg.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	cfg.TLSConfig.RootCAs.AppendCertsFromPEM(pem)
	cfg.Endpoints = []string{strings.TrimPrefix(s.URL(), "https://")} // without a scheme, TLS is what is configured
	join(t, newEtcdDiscovery(t, cfg), room("b"))
	w.waitIDs("a", "b")
}

// TestEtcdStoresAccess: groups and bindings get in where discovery does, and only then.
func TestEtcdStoresAccess(t *testing.T) {
	t.Parallel()
	files := newTLSFiles(t)
	tlsFlags := []string{"-tls-cert", files.Cert, "-tls-key", files.Key, "-tls-ca", files.CA}
	for _, tt := range []struct {
		name           string
		flags          []string
		user, password string
		tls            pitaya.TLSFiles
	}{
		{"login", []string{"-user", "game", "-password", "secret"}, "game", "secret", pitaya.TLSFiles{}},
		{"tls", tlsFlags, "", "", files},
		{"both", append(tlsFlags, "-user", "game", "-password", "secret"), "game", "secret", files},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startEtcd(t, tt.flags...)
			g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{
				Endpoints: []string{s.URL()}, User: tt.user, Password: tt.password, TLS: tt.tls,
			})
			b := newEtcdBindings(t, pitaya.BindingEtcdConfig{
				Endpoints: []string{s.URL()}, User: tt.user, Password: tt.password, TLS: tt.tls,
			}, "connector", "c1")
			use := func() {
				t.Helper()
				if err := g.Create(t.Context(), "g", time.Minute); err != nil && !errors.Is(err, pitaya.ErrGroupExists) {
					t.Errorf("group: %v", err)
				}
				if err := b.Put(t.Context(), "u"); err != nil {
					t.Errorf("binding: %v", err)
				}
				if id, err := b.Get(t.Context(), "u", "connector"); err != nil || id != "c1" {
					t.Errorf("binding: got %q, %v", id, err)
				}
			}
			use()
			// Whoever has nothing to show is refused.
			out := pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}, TransactionTimeout: 200 * time.Millisecond}
			if err := newEtcdGroups(t, out).Create(t.Context(), "h", time.Minute); err == nil {
				t.Error("group: let in without access")
			}
			outside := newEtcdBindings(t, pitaya.BindingEtcdConfig{
				Endpoints: []string{s.URL()}, DialTimeout: 200 * time.Millisecond,
			}, "connector", "c2")
			if _, err := outside.Get(t.Context(), "u", "connector"); err == nil || errors.Is(err, pitaya.ErrNoBinding) {
				t.Errorf("binding: got %v without access", err)
			}
			// Tokens do not survive that.
			s.Stop()
			s.Start()
			use()
		})
	}
	if _, err := pitaya.NewEtcdGroups(pitaya.GroupsEtcdConfig{TLS: pitaya.TLSFiles{CA: "none"}}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("groups without their file: got %v", err)
	}
	if _, err := pitaya.NewEtcdBindings(pitaya.BindingEtcdConfig{TLS: pitaya.TLSFiles{CA: "none"}}, "a", "b", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("bindings without their file: got %v", err)
	}
}

// newTLSFiles writes an authority of its own and a certificate of it for 127.0.0.1, for servers and clients.
func newTLSFiles(t *testing.T) pitaya.TLSFiles {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(err)
	return pitaya.TLSFiles{
		CA: write("ca.pem", "CERTIFICATE", caDER), Cert: write("cert.pem", "CERTIFICATE", leafDER),
		Key: write("key.pem", "EC PRIVATE KEY", keyDER),
	}
}

func TestNewEtcdDiscovery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  pitaya.EtcdConfig
		want string // part of the error
	}{
		{"defaults", pitaya.EtcdConfig{}, ""},
		{"empty endpoint", pitaya.EtcdConfig{Endpoints: []string{" "}}, "empty endpoint"},
		{"mixed", pitaya.EtcdConfig{Endpoints: []string{"http://a", "https://b"}}, "differ in their scheme"},
		{"TLS in the clear", pitaya.EtcdConfig{Endpoints: []string{"http://a"}, TLSConfig: &tls.Config{}}, "not encrypted"},
		{"no authorities", pitaya.EtcdConfig{TLS: pitaya.TLSFiles{CA: filepath.Join(dir, "none")}}, "authorities"},
		{"authorities without certificate", pitaya.EtcdConfig{TLS: pitaya.TLSFiles{CA: garbage}}, "no certificate in"},
		{"bad certificate", pitaya.EtcdConfig{TLS: pitaya.TLSFiles{Cert: garbage, Key: garbage}}, "TLS certificate"},
		{"negative TTL", pitaya.EtcdConfig{HeartbeatTTL: -1}, "negative TTL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pitaya.NewEtcdDiscovery(tt.cfg, nil)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "pitaya: ") {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	// Nobody listens there.
	start := time.Now()
	d := newEtcdDiscovery(t, pitaya.EtcdConfig{Endpoints: []string{freeAddress(t)}, DialTimeout: 100 * time.Millisecond})
	err := d.Join(t.Context(), room("a"), nil)
	if took := time.Since(start); err == nil || took > 5*time.Second {
		t.Errorf("joined nothing: %v, after %v", err, took)
	}
}
