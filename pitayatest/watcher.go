package pitayatest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A ServerWatcher takes the events of a [pitaya.Discovery], keeps the servers that they add up to, and fails the test if
// they do not add up: a server that joins twice, or leaves without having been there. It is for tests of a Discovery
// beyond [TestDiscovery].
type ServerWatcher struct {
	t       testing.TB
	running atomic.Bool

	mu      sync.Mutex // guards the fields below
	servers map[string]*pitaya.ServerInfo
	events  []string
	over    bool
	changed chan struct{} // closed by the next event
}

// NewServerWatcher returns a watcher that knows of no server. Its method Watch is what Join is to be given.
func NewServerWatcher(t testing.TB) *ServerWatcher {
	return &ServerWatcher{t: t, servers: make(map[string]*pitaya.ServerInfo), changed: make(chan struct{})}
}

// Watch takes an event.
func (w *ServerWatcher) Watch(e pitaya.DiscoveryEvent) {
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
		w.t.Errorf("change %d of %s", e.Change, e.Server.ID)
	}
	w.events = append(w.events, name+" "+e.Server.ID)
	close(w.changed)
	w.changed = make(chan struct{})
}

// End says that Leave has returned: an event that comes later fails the test, and so does one that is being told.
func (w *ServerWatcher) End() {
	w.t.Helper()
	if w.running.Load() {
		w.t.Error("watch is running after Leave")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

// Servers returns the servers that are there now, by id.
func (w *ServerWatcher) Servers() map[string]*pitaya.ServerInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.servers)
}

// IDs returns the ids of the servers that are there now, sorted.
func (w *ServerWatcher) IDs() []string { return slices.Sorted(maps.Keys(w.Servers())) }

// Events returns what has happened so far: "joined", "updated" or "left", a space, and the id.
func (w *ServerWatcher) Events() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// Saw returns how often an event of the form of Events has come.
func (w *ServerWatcher) Saw(event string) int {
	n := 0
	for _, e := range w.Events() {
		if e == event {
			n++
		}
	}
	return n
}

// Wait waits until the servers are as cond wants them. what is for the message if they never are.
func (w *ServerWatcher) Wait(what string, cond func(servers map[string]*pitaya.ServerInfo) bool) {
	w.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		servers, changed := maps.Clone(w.servers), w.changed
		w.mu.Unlock()
		if cond(servers) {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			w.t.Fatalf("waiting for %s: got servers %q after the events %q", what, w.IDs(), w.Events())
		}
	}
}

// WaitIDs waits until exactly the servers with these ids are there.
func (w *ServerWatcher) WaitIDs(ids ...string) {
	w.t.Helper()
	want := slices.Sorted(slices.Values(ids))
	w.Wait(fmt.Sprintf("servers %q", want), func(servers map[string]*pitaya.ServerInfo) bool {
		return slices.Equal(slices.Sorted(maps.Keys(servers)), want)
	})
}
