package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func e2eLifeCases() []e2eCase {
	return []e2eCase{
		{"events/sessions", (*e2e).sessionEvents},
		{"events/frontend back", (*e2e).frontendBack},
		{"events/servers", (*e2e).serverChanges},
		{"life/join first", (*e2e).joinFirst},
		{"life/backend ends", (*e2e).backendEnds},
		{"life/frontend ends", (*e2e).frontendEnds},
		{"life/close window", (*e2e).closeWindow},
		{"life/crash", (*e2e).crash},
		{"life/nothing there", (*e2e).nothingThere},
		{"life/health", (*e2e).health},
	}
}

// listener starts a backend that hears of sessions.
func (e *e2e) listener(id string) (*e2eNode, <-chan pitaya.SessionEvent) {
	e.Helper()
	events := make(chan pitaya.SessionEvent, 1000)
	n := e.start(pitaya.Config{Type: "listener", ID: id}, func(s *pitaya.Server) {
		e.noError(s.OnSessionEvent(func(ev pitaya.SessionEvent) { events <- ev }))
	})
	return n, events
}

func (e *e2e) event(events <-chan pitaya.SessionEvent, kind pitaya.SessionEventKind, frontend, uid, reason string) {
	e.Helper()
	ev := transporttest.Await(e, events)
	if ev.Kind != kind || ev.FrontendID != frontend || ev.UID != uid || !strings.Contains(ev.Reason, reason) ||
		(ev.SessionID == 0) != (kind == pitaya.FrontendLost) {
		e.Errorf("got %+v, want kind %d of %s, %q, %q", ev, kind, frontend, uid, reason)
	}
}

func (e *e2e) sessionEvents() {
	g1, g2 := e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers)
	e.room("r", e.bindHandlers)
	_, events := e.listener("l1")
	a := e.login(g1, "a")
	e.event(events, pitaya.SessionBound, "g1", "a", "")
	b := g2.Client(e)
	e.ask(b, "room.h.bind", "b")
	e.event(events, pitaya.SessionBound, "g2", "b", "")
	anonymous := g1.Client(e)
	e.noError(anonymous.Close()) // of no interest

	_, late := e.listener("l2") // is told of those that are there
	told := []string{transporttest.Await(e, late).UID, transporttest.Await(e, late).UID}
	slices.Sort(told)
	e.want("bound before", fmt.Sprint(told), "[a b]")
	both := func(kind pitaya.SessionEventKind, frontend, uid, reason string) {
		e.Helper()
		e.event(events, kind, frontend, uid, reason)
		e.event(late, kind, frontend, uid, reason)
	}
	e.noError(a.Close())
	both(pitaya.SessionEnded, "g1", "a", "EOF")
	e.noError(g1.Kick(e.ctx(), "gate", []string{"b"}))
	both(pitaya.SessionEnded, "g2", "b", "kicked")

	e.login(g1, "c")
	both(pitaya.SessionBound, "g1", "c", "")
	g1.Stop()
	both(pitaya.SessionEnded, "g1", "c", pitaya.ErrServerClosed.Error())
	e.login(g2, "d")
	both(pitaya.SessionBound, "g2", "d", "")
	g2.Kill()
	both(pitaya.FrontendLost, "g2", "", "")
	if e.inMemory() {
		synctest.Wait()
	}
	if len(events)+len(late) > 0 {
		e.Errorf("there are %d and %d more events", len(events), len(late))
	}
}

// A frontend that was believed to be lost and is not tells of its sessions again.
func (e *e2e) frontendBack() {
	gate := e.gate("g", e.bindHandlers)
	_, events := e.listener("l")
	e.login(gate, "a")
	e.event(events, pitaya.SessionBound, "g", "a", "")
	if e.inMemory() {
		e.mem.Expire(gate.Server)
		e.mem.Restore(gate.Server)
	} else {
		_, err := etcdClient(e.T, e.etcd).Delete(e.ctx(), e.prefix+"servers/gate/g")
		e.noError(err)
	}
	e.event(events, pitaya.FrontendLost, "g", "", "")
	e.event(events, pitaya.SessionBound, "g", "a", "")
}

func (e *e2e) serverChanges() {
	changes := make(chan string, 100)
	watcher := e.gate("g", func(s *pitaya.Server) {
		e.noError(s.OnServerChange(func(ev pitaya.DiscoveryEvent) {
			if ev.Server.ID != "g" {
				changes <- fmt.Sprint(ev.Change, " ", ev.Server.ID, " ", ev.Server.Draining())
			}
		}))
	})
	r := e.start(pitaya.Config{Type: "room", ID: "r", Metadata: map[string]string{"level": "7"}}, nil)
	e.want("change", transporttest.Await(e, changes), fmt.Sprint(pitaya.ServerJoined, " r false"))
	info := watcher.ServerByID("r")
	if info == nil || info.Type != "room" || info.Frontend || info.Metadata["level"] != "7" || info.Hostname != r.Info().Hostname {
		e.Errorf("got %+v", info)
	}
	if list := watcher.Servers("room"); len(list) != 1 || list[0].ID != "r" {
		e.Errorf("got %v", list)
	}
	if list := r.Servers(""); len(list) != 2 || list[0].ID != "g" || !list[0].Frontend || list[1].ID != "r" {
		e.Errorf("got %v", list)
	}
	if watcher.ServerByID("nobody") != nil || len(watcher.Servers("shop")) != 0 {
		e.Error("servers that are not there")
	}
	r.Stop()
	e.want("change", transporttest.Await(e, changes), fmt.Sprint(pitaya.ServerUpdated, " r true"))
	e.want("change", transporttest.Await(e, changes), fmt.Sprint(pitaya.ServerLeft, " r true"))
	if watcher.ServerByID("r") != nil {
		e.Error("it is there still")
	}
}

// heldDiscovery lets Join wait.
type heldDiscovery struct {
	pitaya.Discovery
	entered chan struct{}
	release chan struct{}
}

func (d *heldDiscovery) Join(ctx context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	close(d.entered)
	<-d.release
	return d.Discovery.Join(ctx, self, watch)
}

// Clients are served once the server has joined, and not before.
func (e *e2e) joinFirst() {
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.do", func(context.Context, string) (string, error) { return "done", nil })
	})
	held := &heldDiscovery{entered: make(chan struct{}), release: make(chan struct{})}
	l := pitaya.ListenMem()
	cfg := pitaya.Config{
		Type: "gate", ID: "g", Frontend: true, Cluster: true, Logger: testLogger(e), Discovery: held, Listeners: []net.Listener{l},
	}
	if e.inMemory() {
		held.Discovery, cfg.Transport = e.mem.MemCluster().Node()
	} else {
		held.Discovery, cfg.Transport = newEtcdDiscovery(e, e.etcdConfig()), e.transport(cfg)
	}
	s, err := pitaya.NewServer(cfg)
	e.noError(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	transporttest.Await(e, held.entered)
	connected := make(chan error, 1)
	var c *pitaya.Client
	go func() {
		conn, err := l.DialContext(e.Context())
		if err == nil {
			c, err = pitaya.NewClient(e.Context(), conn, nil)
		}
		connected <- err
	}()
	if e.inMemory() {
		synctest.Wait()
	}
	select {
	case err := <-connected:
		e.Errorf("a client got in: %v", err)
	case <-s.Ready():
		e.Error("ready before the server has joined")
	default:
	}
	if s.IsRunning() || s.Healthy() == nil {
		e.Error("it says that it runs")
	}
	close(held.release)
	e.noError(transporttest.Await(e, connected))
	out, err := c.RequestRaw(e.ctx(), "room.h.do", nil) // and the first request finds everybody
	if err != nil || string(out) != "done" {
		e.Errorf("got %q, %v", out, err)
	}
	e.noError(c.Close())
	cancel()
	e.noError(transporttest.Await(e, ended))
}

// A backend that ends finishes what it has, and gets nothing new.
func (e *e2e) backendEnds() {
	entered, release := make(chan string, 10), make(chan struct{})
	setup := func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			if in != "" {
				entered <- in
				<-release
				// It can still call others.
				if _, err := rpc(ctx, s, "shop.x.Do", ""); err != nil {
					return "", err
				}
			}
			return s.ID(), nil
		})
		e.remote(s, "x", func(ctx context.Context, in string) (string, error) {
			if in != "" {
				entered <- in
				<-release
			}
			return s.ID(), nil
		})
	}
	gate, old := e.gate("g", nil), e.room("r0", setup)
	e.start(pitaya.Config{Type: "shop", ID: "s"}, setup)
	a, b := gate.Client(e), gate.Client(e)
	done, called := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := a.RequestRaw(e.Context(), "room.h.do", []byte("wait"))
		done <- err
	}()
	e.want("handler", transporttest.Await(e, entered), "wait")
	go func() {
		_, err := rpc(e.Context(), gate.Server.Server, "room.x.Do", "remote")
		called <- err
	}()
	e.want("remote", transporttest.Await(e, entered), "remote")
	e.noError(b.NotifyRaw(e.ctx(), "room.h.do", []byte("notify")))
	e.want("notify", transporttest.Await(e, entered), "notify")
	e.room("r1", setup)
	stopped := make(chan error, 2)
	go func() { stopped <- old.Shutdown(e.ctx()) }()
	until(e, "the others know", func() bool {
		info := gate.ServerByID("r0")
		return info == nil || info.Draining()
	})
	for range 20 {
		e.want("request", e.ask(b, "room.h.do", ""), "r1")
		out, err := rpc(e.ctx(), gate.Server.Server, "room.x.Do", "")
		e.noError(err)
		e.want("RPC", out, "r1")
	}
	select {
	case err := <-stopped:
		e.Errorf("Shutdown has returned: %v", err)
	default:
	}
	if !errors.Is(old.Healthy(), pitaya.ErrServerClosed) {
		e.Errorf("healthy: %v", old.Healthy())
	}
	go func() { stopped <- old.Shutdown(e.ctx()) }() // a second one waits for the same
	close(release)
	e.noError(transporttest.Await(e, done))
	e.noError(transporttest.Await(e, called))
	e.noError(transporttest.Await(e, stopped))
	e.noError(transporttest.Await(e, stopped))
	old.Stop()
	if s := e.balanced(gate); s.Failed+s.Lost != 0 {
		e.Errorf("got %+v", s)
	}
}

// A frontend that ends answers what its clients have asked.
func (e *e2e) frontendEnds() {
	entered, release := make(chan string, 10), make(chan struct{})
	gate, other := e.gate("g", e.bindHandlers), e.gate("g2", nil)
	back := e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			entered <- in
			<-release
			return "done", errors.Join(
				pitaya.SessionFromContext(ctx).Push(ctx, "onPush", []byte("last")),
				pitaya.SessionFromContext(ctx).Set("k", 1),
				pitaya.SessionFromContext(ctx).PushToFront(ctx))
		})
	})
	c, idle := e.login(gate, "u"), gate.Client(e)
	done := make(chan string, 1)
	go func() {
		out, err := c.RequestRaw(e.Context(), "room.h.do", nil)
		done <- fmt.Sprint(string(out), " ", err)
	}()
	transporttest.Await(e, entered)
	stopped := make(chan error, 1)
	go func() { stopped <- gate.Shutdown(e.ctx()) }()
	for _, n := range []*e2eNode{other, back} {
		until(e, "the others know", func() bool { info := n.ServerByID("g"); return info != nil && info.Draining() })
	}
	idle.ExpectClosed()
	if _, err := gate.Dial(e, nil); err == nil {
		e.Error("a new client got in")
	}
	close(release)
	e.want("answer", transporttest.Await(e, done), "done <nil>")
	e.push(c, "onPush", "last")
	c.ExpectClosed()
	e.noError(transporttest.Await(e, stopped))
	gate.Stop()
	if s := gate.Stats(); s.Requests != 2 || s.Answered != 2 || s.Sessions != 0 {
		e.Errorf("got %+v", s)
	}
}

// Sessions are closed one after the other, so that not all clients come back at the same moment.
func (e *e2e) closeWindow() {
	const clients = 200
	for _, window := range []time.Duration{100 * time.Millisecond, -1} {
		gate := e.start(pitaya.Config{Type: "gate", ID: fmt.Sprint("g", window > 0), Frontend: true, CloseWindow: window, Heartbeat: -1}, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var first, last time.Time
		for range clients {
			c := gate.Client(e)
			wg.Go(func() {
				<-c.Done()
				mu.Lock()
				defer mu.Unlock()
				if last = time.Now(); first.IsZero() {
					first = last
				}
			})
		}
		gate.Stop()
		wg.Wait()
		spread := last.Sub(first)
		if window < 0 {
			window = 0
		}
		if e.inMemory() && (spread > window || spread < window*3/4) {
			e.Errorf("the sessions were closed within %v, want %v", spread, window)
		}
	}
}

// A backend that dies: what it had under way fails, and others take over.
func (e *e2e) crash() {
	entered, release := make(chan string, 10), make(chan struct{})
	setup := func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			if in != "" {
				entered <- in
				select {
				case <-ctx.Done():
				case <-release:
				}
			}
			return s.ID(), nil
		})
	}
	e.timeout = 2 * time.Second
	gate, dying := e.gate("g", nil), e.room("r0", setup)
	c, d := gate.Client(e), gate.Client(e)
	done := make(chan error, 1)
	go func() {
		_, err := c.RequestRaw(e.Context(), "room.h.do", []byte("wait"))
		done <- err
	}()
	transporttest.Await(e, entered)
	e.room("r1", setup)
	killed := make(chan struct{})
	go func() { defer close(killed); dying.kill() }()
	until(e, "it is gone", func() bool { return gate.ServerByID("r0") == nil })
	for range 20 {
		e.want("request", e.ask(d, "room.h.do", ""), "r1")
	}
	err := transporttest.Await(e, done)
	if code := pitaya.ErrorCode(err); code != pitaya.CodeTimeout && code != pitaya.CodeInternal && code != pitaya.CodeUnknown {
		e.Errorf("got %v", err)
	}
	close(release)
	transporttest.Await(e, killed)
	e.balanced(gate)
}

// A server that finds neither etcd nor NATS waits for them, and ends when it is told to.
func (e *e2e) nothingThere() {
	if e.inMemory() {
		return // there is nothing that could be missing
	}
	nowhere := freeAddress(e)
	for _, missing := range []string{"etcd", "transport", "both"} {
		etcd := e.etcdConfig()
		cfg := pitaya.Config{Type: "gate", ID: "g", Frontend: true, Cluster: true, Logger: testLogger(e), Listeners: []net.Listener{pitaya.ListenMem()}}
		if missing != "transport" {
			etcd.Endpoints = []string{"http://" + nowhere}
		} else if e.kind == e2eGRPC {
			continue // has nothing to wait for
		}
		cfg.Discovery = newEtcdDiscovery(e, etcd)
		if e.kind == e2eNATS && missing != "etcd" {
			cfg.Transport = newNATS(e, natsAt(pitaya.NATSConfig{}, "nats://"+nowhere), natsAt(pitaya.NATSConfig{}, "nats://"+nowhere))
		} else {
			cfg.Transport = e.transport(cfg)
		}
		s, err := pitaya.NewServer(cfg)
		e.noError(err)
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		begin := time.Now()
		err = s.Run(ctx)
		cancel()
		if took := time.Since(begin); took > 4*time.Second {
			e.Errorf("without %s Run has returned after %v", missing, took)
		}
		if err == nil {
			e.Errorf("without %s Run has returned nil", missing)
		}
		select {
		case <-s.Ready():
			e.Errorf("without %s it was ready", missing)
		default:
		}
	}
}

func (e *e2e) health() {
	s, err := pitaya.NewServer(pitaya.Config{})
	e.noError(err)
	if err := s.Healthy(); !errors.Is(err, pitaya.ErrServerNotRunning) {
		e.Errorf("before Run: %v", err)
	}
	if err := s.RPC(e.ctx(), "room.x.Do", nil, nil); !errors.Is(err, pitaya.ErrServerNotRunning) {
		e.Errorf("RPC before Run: %v", err)
	}
	alone := pitayatest.NewServer(e, pitaya.Config{Logger: testLogger(e)}, nil)
	if _, err := rpc(e.ctx(), alone.Server, "room.x.Do", ""); !errors.Is(err, pitaya.ErrNoCluster) {
		e.Errorf("RPC without a cluster: %v", err)
	}
	e.noError(alone.Healthy())
	n := e.gate("g", nil)
	e.noError(n.Healthy())
	n.Stop()
	if n.Healthy() == nil {
		e.Error("healthy after the end")
	}
	e.noError(n.Shutdown(e.ctx()))
}
