package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// The end-to-end suite: what a cluster promises, through the public API and with real clients, on each kind of cluster
// that there is. On a cluster in memory each case runs in a bubble, where times are exact; on the real ones, where they
// cannot be, the same cases wait for what happens.

// The kinds of clusters.
const (
	e2eMemory = "memory"
	e2eNATS   = "nats"
	e2eGRPC   = "grpc"
)

type e2eCase struct {
	name string
	run  func(*e2e)
}

func e2eCases() []e2eCase {
	return slices.Concat(e2eCallCases(), e2eOrderCases(), e2eSessionCases(), e2eUserCases(), e2eLifeCases(), e2eMetricsCases(), e2eTraceCases())
}

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	t.Run(e2eMemory, func(t *testing.T) {
		t.Parallel()
		for _, c := range e2eCases() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c.run(&e2e{T: t, kind: e2eMemory, mem: pitayatest.NewCluster(t)})
				})
			})
		}
	})
	for _, kind := range []string{e2eNATS, e2eGRPC} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			etcd, nats := startEtcd(t).URL(), ""
			if kind == e2eNATS {
				nats = startNATS(t).URL()
			}
			// One after the other: over NATS nothing but ids and types keeps clusters apart.
			for i, c := range e2eCases() {
				t.Run(c.name, func(t *testing.T) {
					c.run(&e2e{T: t, kind: kind, etcd: etcd, nats: nats, prefix: fmt.Sprintf("e2e-%d/", i)})
				})
			}
		})
	}
}

// An e2e is the cluster of one case.
type e2e struct {
	*testing.T
	kind               string
	mem                *pitayatest.Cluster // in memory only
	etcd, nats, prefix string              // on real ones only
	timeout            time.Duration       // of calls of the servers started from now on; 0 is the default
	oldPeers           bool                // servers started from now on are as those of Pitaya
	nodes              []*e2eNode
}

// An e2eNode is a server of it.
type e2eNode struct {
	*pitayatest.Server
	e    *e2e
	kill func()
	gone bool
}

// inMemory reports whether the case runs in a bubble.
func (e *e2e) inMemory() bool { return e.kind == e2eMemory }

// gate starts a frontend of the type "gate".
func (e *e2e) gate(id string, setup func(*pitaya.Server)) *e2eNode {
	e.Helper()
	return e.start(pitaya.Config{Type: "gate", ID: id, Frontend: true}, setup)
}

// room starts a backend of the type "room".
func (e *e2e) room(id string, setup func(*pitaya.Server)) *e2eNode {
	e.Helper()
	return e.start(pitaya.Config{Type: "room", ID: id}, setup)
}

// start starts a server and waits until all servers know all others.
func (e *e2e) start(cfg pitaya.Config, setup func(*pitaya.Server)) *e2eNode {
	e.Helper()
	n := &e2eNode{e: e}
	cfg.Logger = testLogger(e)
	cfg.NATSClient.RequestTimeout = e.timeout
	if e.inMemory() && !e.oldPeers {
		n.Server = e.mem.NewServer(e, cfg, setup)
		n.kill = func() { e.mem.Kill(n.Server) }
	} else {
		n.Server, n.kill = e.startReal(cfg, setup)
	}
	e.nodes = append(e.nodes, n)
	e.settled()
	return n
}

// startReal starts a server with seams of its own.
func (e *e2e) startReal(cfg pitaya.Config, setup func(*pitaya.Server)) (*pitayatest.Server, func()) {
	e.Helper()
	var d pitaya.Discovery
	if e.inMemory() {
		d, cfg.Transport = e.mem.MemCluster().Node()
	} else {
		d, cfg.Transport = newEtcdDiscovery(e, e.etcdConfig()), e.transport(cfg)
	}
	if e.kind == e2eGRPC {
		cfg.Metadata = pitaya.GRPCMetadata(cfg.Metadata, "", "127.0.0.1", "", "", "")
		cfg.Bindings = newEtcdBindings(e, pitaya.BindingEtcdConfig{Endpoints: []string{e.etcd}, Prefix: e.prefix}, cfg.Type, cfg.ID)
	}
	seam := &e2eDiscovery{Discovery: d, old: e.oldPeers}
	cfg.Discovery, cfg.Cluster = seam, true
	transport := cfg.Transport
	s := pitayatest.NewServer(e, cfg, setup)
	return s, func() {
		// Nothing it says is heard any more, and it is gone from discovery without a word.
		_ = transport.Close(context.Background())
		_ = seam.Leave(context.Background())
		seam.dead.Store(true)
		s.Stop()
	}
}

func (e *e2e) etcdConfig() pitaya.EtcdConfig {
	cfg := etcdConfig(e.etcd)
	cfg.Prefix, cfg.HeartbeatTTL = e.prefix, 10*time.Second
	return cfg
}

func (e *e2e) transport(cfg pitaya.Config) pitaya.Transport {
	e.Helper()
	if e.kind == e2eNATS {
		return newNATS(e, natsAt(cfg.NATSClient, e.nats), natsAt(pitaya.NATSConfig{}, e.nats))
	}
	tr, err := pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: -1, RequestTimeout: e.timeout}, "", testLogger(e))
	if err != nil {
		e.Fatal(err)
	}
	return tr
}

// settled waits until all servers know all others that are there, and nobody else.
func (e *e2e) settled() {
	e.Helper()
	var want []string
	for _, n := range e.nodes {
		if !n.gone {
			want = append(want, n.ID())
		}
	}
	slices.Sort(want)
	for _, n := range e.nodes {
		if n.gone {
			continue
		}
		until(e, fmt.Sprintf("%s knows %q", n.ID(), want), func() bool {
			var got []string
			for _, s := range n.Servers("") {
				got = append(got, s.ID)
			}
			return slices.Equal(got, want)
		})
	}
}

// Stop ends a server in an orderly way, and waits until the others know.
func (n *e2eNode) Stop() {
	n.e.Helper()
	n.Server.Stop()
	n.gone = true
	n.e.settled()
}

// Kill ends a server as a crash does, and waits until the others know.
func (n *e2eNode) Kill() {
	n.e.Helper()
	n.kill()
	n.gone = true
	n.e.settled()
}

// e2eDiscovery is a Discovery that can fall silent, and one of a server that neither tells what it can do beyond
// Pitaya nor believes others that do.
type e2eDiscovery struct {
	pitaya.Discovery
	dead atomic.Bool
	old  bool
}

func (d *e2eDiscovery) strip(s *pitaya.ServerInfo) *pitaya.ServerInfo {
	if !d.old {
		return s
	}
	stripped := *s
	stripped.Metadata = make(map[string]string)
	for k, v := range s.Metadata {
		if !strings.HasPrefix(k, "pitaya-go.") {
			stripped.Metadata[k] = v
		}
	}
	return &stripped
}

func (d *e2eDiscovery) Join(ctx context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	return d.Discovery.Join(ctx, d.strip(self), func(e pitaya.DiscoveryEvent) {
		e.Server = d.strip(e.Server)
		watch(e)
	})
}

func (d *e2eDiscovery) Update(ctx context.Context, self *pitaya.ServerInfo) error {
	if d.dead.Load() {
		return nil
	}
	return d.Discovery.Update(ctx, d.strip(self))
}

func (d *e2eDiscovery) Leave(ctx context.Context) error {
	if d.dead.Load() {
		return nil
	}
	return d.Discovery.Leave(ctx)
}

// ctx is for calls that must not take for ever.
func (e *e2e) ctx() context.Context {
	ctx, cancel := context.WithTimeout(e.Context(), transporttest.Patience)
	e.Cleanup(cancel)
	return ctx
}

// raw registers a handler of texts.
func (e *e2e) raw(s *pitaya.Server, route string, f func(ctx context.Context, in string) (string, error), opts ...pitaya.RegisterOption) {
	err := pitaya.HandleRaw(s, route, func(ctx context.Context, in []byte) ([]byte, error) {
		out, err := f(ctx, string(in))
		return []byte(out), err
	}, opts...)
	if err != nil {
		e.Error(err)
	}
}

// E2ERemote is a remote of texts.
type E2ERemote struct {
	f func(ctx context.Context, in string) (string, error)
}

func (r *E2ERemote) Do(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	out, err := r.f(ctx, in.Value)
	if out == "nil" {
		return nil, err
	}
	return wrapperspb.String(out), err
}

func (r *E2ERemote) Bare(ctx context.Context) (*wrapperspb.StringValue, error) {
	out, err := r.f(ctx, "")
	return wrapperspb.String(out), err
}

// remote registers a remote of texts: its routes end with "name.Do", and "name.Bare" without an argument.
func (e *e2e) remote(s *pitaya.Server, name string, f func(ctx context.Context, in string) (string, error)) {
	if err := s.RegisterRemote(&E2ERemote{f}, pitaya.WithName(name)); err != nil {
		e.Error(err)
	}
}

// rpc calls a remote of texts.
func rpc(ctx context.Context, s *pitaya.Server, route, in string) (string, error) {
	out, err := pitaya.Call[wrapperspb.StringValue](ctx, s, route, wrapperspb.String(in))
	return out.GetValue(), err
}

// ask makes a request of texts, which must succeed.
func (e *e2e) ask(c *pitayatest.Client, route, in string) string {
	e.Helper()
	out, err := c.RequestRaw(e.ctx(), route, []byte(in))
	if err != nil {
		e.Fatalf("%s %q: %v", route, in, err)
	}
	return string(out)
}

// refused makes a request that must be answered with an error of the given code and text; "*" is any text.
func (e *e2e) refused(c *pitayatest.Client, route, in, code, text string) *pitaya.Error {
	e.Helper()
	_, err := c.RequestRaw(e.ctx(), route, []byte(in))
	return e.coded(err, code, text)
}

// coded checks an error.
func (e *e2e) coded(err error, code, text string) *pitaya.Error {
	e.Helper()
	coded, ok := errors.AsType[*pitaya.Error](err)
	if !ok || coded.Code != code || text != "*" && coded.Message != text {
		e.Fatalf("got %T %v, want code %s and text %q", err, err, code, text)
	}
	return coded
}

func (e *e2e) want(what, got, want string) {
	e.Helper()
	if got != want {
		e.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (e *e2e) noError(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// push takes the next push on a route.
func (e *e2e) push(c *pitayatest.Client, route, want string) {
	e.Helper()
	e.want("push "+route, string(c.ExpectPush(route)), want)
}

// balanced waits until all requests of a server's clients are accounted for.
func (e *e2e) balanced(n *e2eNode) pitaya.Stats {
	e.Helper()
	var s pitaya.Stats
	until(e, "stats that add up", func() bool {
		s = n.Stats()
		return s.Requests == s.Answered+s.Failed+s.Unanswerable+s.Lost
	})
	return s
}

// pipeline connects a client that sends without waiting.
func (e *e2e) pipeline(n *e2eNode) *rawClient {
	e.Helper()
	conn, err := n.Listener().DialContext(e.ctx())
	e.noError(err)
	e.Cleanup(func() { conn.Close() })
	c := &rawClient{Conn: conn, t: e}
	c.handshake(`{"sys":{}}`)
	return c
}

// ghost puts a server into discovery that nobody can reach.
func (e *e2e) ghost(typ, id string) {
	e.Helper()
	if e.inMemory() {
		n := e.start(pitaya.Config{Type: typ, ID: id}, nil)
		for _, other := range e.nodes {
			e.mem.Cut(n.Server, other.Server)
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	e.noError(err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	e.noError(l.Close())
	value, err := json.Marshal(map[string]any{
		"id": id, "type": typ, "frontend": false, "hostname": "",
		"metadata": pitaya.GRPCMetadata(nil, "", "127.0.0.1", port, "", ""),
	})
	e.noError(err)
	key := e.prefix + "servers/" + typ + "/" + id
	_, err = etcdClient(e.T, e.etcd).Put(e.ctx(), key, string(value))
	e.noError(err)
	for _, n := range e.nodes {
		until(e, n.ID()+" knows "+id, func() bool { return n.gone || n.ServerByID(id) != nil })
	}
}
