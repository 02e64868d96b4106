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
	"github.com/pitaya-go/pitaya/pitayatest"
)

// eventTime is how long tests wait for what must happen. What takes so long has failed.
const eventTime = 30 * time.Second

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
func join(t *testing.T, d pitaya.Discovery, self *pitaya.ServerInfo) *pitayatest.ServerWatcher {
	t.Helper()
	w := pitayatest.NewServerWatcher(t)
	if err := d.Join(t.Context(), self, w.Watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leave(t, d, w) })
	return w
}

func leave(t *testing.T, d pitaya.Discovery, w *pitayatest.ServerWatcher) {
	t.Helper()
	if err := d.Leave(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("leaving: %v", err)
	}
	w.End()
}

// etcdConfig is a configuration with short times.
func etcdConfig(url string) pitaya.EtcdConfig {
	return pitaya.EtcdConfig{
		Endpoints: []string{url}, HeartbeatTTL: time.Second, DialTimeout: 2 * time.Second,
		GrantLeaseInterval: 500 * time.Millisecond,
	}
}

func newEtcdDiscovery(t testing.TB, cfg pitaya.EtcdConfig) *pitaya.EtcdDiscovery {
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
	var n atomic.Int64
	pitayatest.TestDiscovery(t, pitayatest.DiscoveryOptions{Open: func(t testing.TB) pitayatest.DiscoveryCluster {
		cfg := etcdConfig(s.URL())
		cfg.Prefix = fmt.Sprintf("cluster%d/", n.Add(1))
		return pitayatest.DiscoveryCluster{New: func() pitaya.Discovery { return newEtcdDiscovery(t, cfg) }}
	}})
}

// TestEtcdDiscoveryOrder: a server knows the others when they can know it. They call it at once.
func TestEtcdDiscoveryOrder(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	join(t, newEtcdDiscovery(t, cfg), room("old"))
	c := etcdClient(t, s.URL())
	d, told := newEtcdDiscovery(t, cfg), false
	if err := d.Join(t.Context(), room("new"), func(e pitaya.DiscoveryEvent) {
		if e.Server.ID != "old" || e.Change != pitaya.ServerJoined {
			return
		}
		told = true
		r, err := c.Get(context.WithoutCancel(t.Context()), "pitaya/servers/room/new")
		if err != nil {
			t.Error(err)
		} else if len(r.Kvs) > 0 {
			t.Error("the own entry is there before the others are known")
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !told {
		t.Error("the other server is not known after Join")
	}
	if err := d.Leave(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
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
		d, w := newEtcdDiscovery(t, cfg), pitayatest.NewServerWatcher(t)
		self := &want
		if v.Direction == "decode" {
			self = room("self")
			if _, err := c.Put(t.Context(), cfg.Prefix+"servers/room/x", v.InputText); err != nil {
				return err
			}
		}
		if err := d.Join(t.Context(), self, w.Watch); err != nil {
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
		got, ok := w.Servers()["x"]
		if ok == v.Error {
			return fmt.Errorf("servers are %q", w.IDs())
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
			d, w := newEtcdDiscovery(t, cfg), pitayatest.NewServerWatcher(t)
			self := &pitaya.ServerInfo{ID: v.Inputs.ServerID, Type: v.Inputs.ServerType}
			if err := d.Join(ctx, self, w.Watch); err != nil {
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
	w.WaitIDs("self", "x")
	for _, b := range bad {
		put(b.key, b.value)
	}
	// Whatever comes after all those has been seen after them.
	put("room/y", `{"id":"y","type":"room"}`)
	w.WaitIDs("self", "x", "y")
	// A server that turns into nonsense stays until it is deleted, and can recover. Another one may take its key.
	put("room/x", `null`)
	put("room/y", `{"id":"z","type":"room"}`)
	w.WaitIDs("self", "x", "z")
	put("room/x", strings.Replace(good, `"1"`, `"2"`, 1))
	w.Wait("recovery", func(servers map[string]*pitaya.ServerInfo) bool { return servers["x"].Metadata["a"] == "2" })
	if _, err := c.Delete(ctx, "pitaya/servers/room/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	w.WaitIDs("self")
	put("room/twin", good)
	w.WaitIDs("self", "x")
	if n := strings.Count(logs.String(), "key=pitaya/servers/room/none "); n != 2 {
		t.Errorf("an invalid entry that was written twice was logged %d times:\n%s", n, logs.String())
	}
	// What somebody else writes over the own entry is not what this server is.
	put("selfish/self", `{"id":"self","type":"selfish","metadata":{"a":"b"}}`)
	put("room/last", `{"id":"last","type":"room"}`)
	w.WaitIDs("self", "x", "last")
	if w.Saw("updated self") > 0 {
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
	w1.WaitIDs("a", "b")
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
	w2.Wait("a to come back", func(map[string]*pitaya.ServerInfo) bool { return w2.Saw("joined a") == 2 })

	// Nobody's lease is on what is written by hand, so it would stay for ever.
	if _, err := c.Put(ctx, key, `{"id":"a","type":"room","metadata":{"by":"hand"},"frontend":false,"hostname":"h"}`); err != nil {
		t.Fatal(err)
	}
	poll(t, "what was written by hand to be replaced", func() bool { return lease() == first })
	w2.Wait("a as it was", func(now map[string]*pitaya.ServerInfo) bool {
		return now["a"] != nil && now["a"].Metadata["by"] == "" && w2.Saw("updated a") >= 2
	})

	if _, err := c.Revoke(ctx, first); err != nil {
		t.Fatal(err)
	}
	poll(t, "another lease", func() bool { l := lease(); return l != 0 && l != first })
	w2.Wait("a to come back", func(map[string]*pitaya.ServerInfo) bool { return w2.Saw("joined a") == 3 })
	if n := w1.Saw("left a"); n > 0 {
		t.Errorf("a server was told %d times that itself has left", n)
	}
}

// A cutter is a TCP proxy whose connections can be cut, and refused from then on.
type cutter struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	tap   func(io.Reader) io.ReadCloser // reads what clients send; nil: nobody does
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
	tap := p.tap
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent := io.ReadCloser(c)
		if tap != nil {
			sent = tap(c)
		}
		io.Copy(d, sent)
		sent.Close()
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

// Tap lets f read what clients of later connections send.
func (p *cutter) Tap(f func(sent io.Reader) io.ReadCloser) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tap = f
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
	w.WaitIDs("self", "stays", "goes", "changes")

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
	if got := len(w.IDs()); got != 4 {
		t.Errorf("cut off, it knows %d servers", got)
	}
	p.Mend()
	w.WaitIDs("self", "stays", "comes", "changes")
	w.Wait("change", func(servers map[string]*pitaya.ServerInfo) bool { return servers["changes"].Hostname == "new" })
	poll(t, "health", func() bool { return d.Healthy() == nil })
	put("later", "")
	w.WaitIDs("self", "stays", "comes", "changes", "later")
	if n := w.Saw("left stays") + w.Saw("left self") + w.Saw("left changes"); n > 0 {
		t.Errorf("got events %q", w.Events())
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
	w.WaitIDs("here", "far")
	p.Cut()
	w.WaitIDs("here")
	if d.Healthy() == nil {
		t.Error("healthy while it is cut off")
	}
	p.Mend()
	w.WaitIDs("here", "far")
	poll(t, "health", func() bool { return d.Healthy() == nil })
	if far.Saw("left here")+far.Saw("left far") > 0 {
		t.Errorf("cut off, it got the events %q", far.Events())
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
	w.WaitIDs("self", "x")
	if _, err := c.Delete(ctx, "pitaya/servers/room/x"); err != nil {
		t.Fatal(err)
	}
	w.Wait("the second", func(map[string]*pitaya.ServerInfo) bool { return w.Saw("joined x") == 2 })
}

func TestEtcdDiscoveryOutage(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.HeartbeatTTL = 2 * time.Second
	var all []*pitaya.EtcdDiscovery
	var watchers []*pitayatest.ServerWatcher
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		d := newEtcdDiscovery(t, cfg)
		all, watchers = append(all, d), append(watchers, join(t, d, room(id)))
	}
	quiet := func(when string) {
		t.Helper()
		for i, w := range watchers {
			w.WaitIDs(ids...)
			for _, id := range ids {
				if w.Saw("left "+id) > 0 {
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
		w.WaitIDs(ids...)
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
		w.Wait("the update", func(servers map[string]*pitaya.ServerInfo) bool { return servers["a"].Metadata["k"] == "1" })
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
	w := pitayatest.NewServerWatcher(t)
	if err := late.Join(t.Context(), room("late"), w.Watch); err != nil {
		t.Fatal(err)
	}
	for _, w := range watchers {
		w.WaitIDs("a", "b", "c", "late")
	}
	leave(t, late, w)
	for _, w := range watchers {
		w.WaitIDs(ids...)
	}

	// One that does not register again is missed after a while.
	p := newCutter(t, strings.TrimPrefix(s.URL(), "http://"))
	cfg.Endpoints = []string{p.URL()}
	cut := newEtcdDiscovery(t, cfg)
	join(t, cut, room("cut"))
	for _, w := range watchers {
		w.WaitIDs("a", "b", "c", "cut")
	}
	p.Cut()
	s.Kill()
	s.StartEmpty()
	quietStart := time.Now()
	for _, w := range watchers {
		w.WaitIDs(ids...)
	}
	t.Logf("missed after %v", time.Since(quietStart))
	for i, w := range watchers {
		if w.Saw("left a")+w.Saw("left b")+w.Saw("left c") > 0 {
			t.Errorf("%s was told that others left: %q", ids[i], w.Events())
		}
	}
	p.Mend()
	for _, w := range watchers {
		w.WaitIDs("a", "b", "c", "cut")
	}
}

// TestEtcdDiscoveryPaused has an etcd that does not answer: nothing waits for it without a bound.
func TestEtcdDiscoveryPaused(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.HeartbeatTTL, cfg.RevokeTimeout = time.Minute, 100*time.Millisecond
	d, w := newEtcdDiscovery(t, cfg), pitayatest.NewServerWatcher(t)
	if err := d.Join(t.Context(), room("a"), w.Watch); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	cfg.DialTimeout = 100 * time.Millisecond
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
	cfg.GrantLeaseRetries, cfg.GrantLeaseTimeout, cfg.RevokeTimeout = 2, time.Second, 50*time.Millisecond
	d, w := newEtcdDiscovery(t, cfg), pitayatest.NewServerWatcher(t)
	if err := d.Join(t.Context(), room("a"), w.Watch); err != nil {
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
	w.WaitIDs("a", "b")
	// Tokens do not survive that.
	s.Stop()
	s.Start()
	poll(t, "health", func() bool { return a.Healthy() == nil && b.Healthy() == nil })
	join(t, newEtcdDiscovery(t, cfg), room("c"))
	w.WaitIDs("a", "b", "c")
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
	cfg.TLS = pitaya.TLSFiles{CA: "no such file"} // TLSConfig goes before it
	cfg.TLSConfig = tlsConfig(t, files)
	cfg.Endpoints = []string{strings.TrimPrefix(s.URL(), "https://")} // without a scheme, TLS is what is configured
	join(t, newEtcdDiscovery(t, cfg), room("b"))
	w.WaitIDs("a", "b")
}

// TestEtcdNoPrefix: without a prefix keys begin with what they are for, in all that is kept in etcd.
func TestEtcdNoPrefix(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	cfg := etcdConfig(s.URL())
	cfg.NoPrefix = true
	join(t, newEtcdDiscovery(t, cfg), room("a"))
	g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}, NoPrefix: true})
	b := newEtcdBindings(t, pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, NoPrefix: true}, "connector", "c1")
	must(t, g.Create(ctx, "g", 0), b.Put(ctx, "u"))
	r, err := etcdClient(t, s.URL()).Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, err)
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	if want := []string{"bindings/connector/u", "groups/g", "servers/room/a"}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
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
		config         *tls.Config
	}{
		{"login", []string{"-user", "game", "-password", "secret"}, "game", "secret", pitaya.TLSFiles{}, nil},
		{"tls", tlsFlags, "", "", files, nil},
		{"tls.Config", tlsFlags, "", "", pitaya.TLSFiles{CA: "no such file"}, tlsConfig(t, files)},
		{"both", append(tlsFlags, "-user", "game", "-password", "secret"), "game", "secret", files, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startEtcd(t, tt.flags...)
			g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{
				Endpoints: []string{s.URL()}, User: tt.user, Password: tt.password, TLS: tt.tls, TLSConfig: tt.config,
			})
			b := newEtcdBindings(t, pitaya.BindingEtcdConfig{
				Endpoints: []string{s.URL()}, User: tt.user, Password: tt.password, TLS: tt.tls, TLSConfig: tt.config,
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
			// Until the connections are back, calls fail at once.
			poll(t, "etcd for groups", func() bool {
				_, err := g.Count(t.Context(), "g")
				return !errors.Is(err, pitaya.ErrUnreachable)
			})
			poll(t, "etcd for bindings", func() bool {
				_, err := b.Get(t.Context(), "u", "connector")
				return !errors.Is(err, pitaya.ErrUnreachable)
			})
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
