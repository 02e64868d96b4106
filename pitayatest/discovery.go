package pitayatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// DiscoveryOptions say how [TestDiscovery] gets at an implementation.
type DiscoveryOptions struct {
	// Open makes a cluster without servers. Each check has one of its own, and what Open starts ends with the t that
	// it is given.
	Open func(t testing.TB) DiscoveryCluster
	// Synctest runs each check in a bubble of its own ([testing/synctest]), which an implementation without sockets
	// and foreign processes should be fit for.
	Synctest bool
}

// A DiscoveryCluster is where the servers of one check meet.
type DiscoveryCluster struct {
	// New makes a Discovery that has not joined.
	New func() pitaya.Discovery
	// Outage takes away what the cluster is made on, from all servers, until the function that it returns is called.
	// Nil: outages are not checked.
	Outage func() (end func())
}

// TestDiscovery checks the rules of [pitaya.Discovery] on an implementation. The checks are subtests and run in parallel,
// after the function that calls TestDiscovery has returned: what they share has to end in a [testing.TB.Cleanup].
func TestDiscovery(t *testing.T, opts DiscoveryOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, discoveryChecks(opts))
}

func discoveryChecks(opts DiscoveryOptions) []check {
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*discoveryTest)
	}{
		{"join, update, leave", (*discoveryTest).lifecycle},
		{"many", (*discoveryTest).many},
		{"refused", (*discoveryTest).refused},
		{"leaving in no time", (*discoveryTest).hasty},
		{"outage", (*discoveryTest).outage},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) { c.run(&discoveryTest{TB: t, cluster: opts.Open(t)}) }})
	}
	return checks
}

type discoveryTest struct {
	testing.TB
	cluster DiscoveryCluster
}

// A discoveryMember is a server in the cluster, with what it was told.
type discoveryMember struct {
	pitaya.Discovery
	*ServerWatcher
	t    testing.TB
	left bool
}

// join lets a server join. It leaves with the test if it has not before.
func (t *discoveryTest) join(self *pitaya.ServerInfo) *discoveryMember {
	t.Helper()
	m := t.member()
	noError(t, m.Join(t.Context(), self, m.Watch))
	t.Cleanup(m.leave)
	return m
}

func (t *discoveryTest) member() *discoveryMember {
	return &discoveryMember{Discovery: t.cluster.New(), ServerWatcher: NewServerWatcher(t), t: t}
}

func (m *discoveryMember) leave() {
	m.t.Helper()
	if m.left {
		return
	}
	m.left = true
	if err := m.Leave(context.WithoutCancel(m.t.Context())); err != nil {
		m.t.Errorf("leaving: %v", err)
	}
	m.End()
}

func roomServer(id string) *pitaya.ServerInfo {
	return &pitaya.ServerInfo{ID: id, Type: "room", Metadata: map[string]string{"k": id}, Hostname: "h"}
}

func (t *discoveryTest) lifecycle() {
	early := t.cluster.New()
	if early.Healthy() == nil {
		t.Error("healthy before it has joined")
	}
	if err := early.Update(t.Context(), roomServer("early")); err == nil {
		t.Error("an update before Join succeeds")
	}
	first := t.join(roomServer("first"))
	if got := first.IDs(); !slices.Equal(got, []string{"first"}) {
		t.Errorf("when Join returns: got servers %q, want itself", got)
	}
	front := &pitaya.ServerInfo{ID: "second", Type: "connector", Frontend: true}
	second := t.join(front)
	if got := second.IDs(); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("when Join of another returns: got servers %q", got)
	}
	first.WaitIDs("first", "second")
	if s := first.Servers()["second"]; s.ID != "second" || s.Type != "connector" || !s.Frontend || s.Hostname != "" || len(s.Metadata) > 0 {
		t.Errorf("got %+v, want %+v", s, front)
	}
	if s := second.Servers()["first"]; s.Type != "room" || s.Frontend || s.Hostname != "h" || s.Metadata["k"] != "first" {
		t.Errorf("got %+v, want %+v", s, roomServer("first"))
	}
	for _, m := range []*discoveryMember{first, second} {
		if err := m.Healthy(); err != nil {
			t.Errorf("after Join: %v", err)
		}
	}

	changed := roomServer("first")
	changed.Metadata = map[string]string{"draining": "1"}
	if err := first.Update(t.Context(), changed); err != nil {
		t.Error(err)
	}
	for _, m := range []*discoveryMember{first, second} {
		m.Wait("metadata", func(servers map[string]*pitaya.ServerInfo) bool {
			s := servers["first"]
			return s != nil && maps.Equal(s.Metadata, changed.Metadata)
		})
		if m.Saw("left first") > 0 || m.Saw("updated first") != 1 {
			t.Errorf("an update gave the events %q", m.Events())
		}
	}
	if err := first.Update(t.Context(), roomServer("other")); err == nil {
		t.Error("an update with another id succeeds")
	}

	second.leave()
	first.WaitIDs("first")
	if second.Healthy() == nil {
		t.Error("healthy after it has left")
	}
	if err := second.Update(t.Context(), front); err == nil {
		t.Error("an update after Leave succeeds")
	}
	// Somebody of the same id may come again.
	t.join(front)
	first.WaitIDs("first", "second")
}

func (t *discoveryTest) many() {
	const n = 10
	var ids []string
	var members []*discoveryMember
	var wg sync.WaitGroup
	for i := range n {
		m, id := t.member(), fmt.Sprint("s", i)
		ids, members = append(ids, id), append(members, m)
		wg.Go(func() {
			if err := m.Join(t.Context(), roomServer(id), m.Watch); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range members {
		t.Cleanup(m.leave)
	}
	for _, m := range members {
		m.WaitIDs(ids...)
	}
	for i := n - 1; i >= 0; i-- {
		members[i].leave()
		for _, m := range members[:i] {
			m.WaitIDs(ids[:i]...)
		}
	}
}

func (t *discoveryTest) refused() {
	good := t.join(roomServer("good"))
	nobody := func(e pitaya.DiscoveryEvent) { t.Errorf("a server that has not joined is told of %s", e.Server.ID) }
	for _, bad := range []*pitaya.ServerInfo{
		{Type: "room"}, {ID: "x"}, {ID: "a/b", Type: "room"}, {ID: "x", Type: "a/b"}, {ID: "x", Type: "a.b"},
		{ID: "a b", Type: "room"}, {ID: "x\x00", Type: "room"}, {ID: "\xff", Type: "room"},
	} {
		d := t.cluster.New()
		if err := d.Join(t.Context(), bad, nobody); err == nil {
			t.Errorf("joined with id %q and type %q", bad.ID, bad.Type)
		}
		if err := d.Leave(t.Context()); err != nil {
			t.Errorf("leaving without having joined: %v", err)
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := t.cluster.New().Join(done, roomServer("late"), nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("joining with a context that is done: got %v", err)
	}
	if got := good.IDs(); !slices.Equal(got, []string{"good"}) {
		t.Errorf("got servers %q", got)
	}
}

// hasty leaves with a context that has ended: the watch ends all the same.
func (t *discoveryTest) hasty() {
	m := t.member()
	noError(t, m.Join(t.Context(), roomServer("hasty"), m.Watch))
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_ = m.Leave(done) // it may say that others will learn of it later
	m.End()
}

func (t *discoveryTest) outage() {
	if t.cluster.Outage == nil {
		t.Skip("no way to cause an outage")
	}
	a, b := t.join(roomServer("a")), t.join(roomServer("b"))
	a.WaitIDs("a", "b")
	healthy := func(want bool) {
		t.Helper()
		deadline, tick := time.Now().Add(patience), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for (a.Healthy() == nil) != want || (b.Healthy() == nil) != want {
			if time.Now().After(deadline) {
				t.Fatalf("want healthy %v, got %v and %v", want, a.Healthy(), b.Healthy())
			}
			<-tick.C
		}
	}
	end := t.cluster.Outage()
	healthy(false)
	changed := roomServer("a")
	changed.Metadata = map[string]string{"k": "changed"}
	if err := a.Update(t.Context(), changed); err != nil {
		t.Errorf("update during the outage: %v", err)
	}
	for _, m := range []*discoveryMember{a, b} {
		if got := m.IDs(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("during the outage: got servers %q after the events %q", got, m.Events())
		}
	}
	end()
	healthy(true)
	b.Wait("the update", func(servers map[string]*pitaya.ServerInfo) bool {
		return servers["a"] != nil && servers["a"].Metadata["k"] == "changed"
	})
	t.join(roomServer("c"))
	a.WaitIDs("a", "b", "c")
	b.WaitIDs("a", "b", "c")
	if a.Saw("left a")+a.Saw("left b")+b.Saw("left a")+b.Saw("left b") > 0 {
		t.Errorf("servers that never left are said to have: %q and %q", a.Events(), b.Events())
	}
}
