//go:build !nocluster

package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
)

// Who can write into etcd can write anything there. The servers below their prefix are fuzzed as a sequence of changes, of
// which the watch shows some and the lists the rest; the names of groups and users, of which keys are made, against a real
// etcd.

// An etcdModel is the servers in etcd, and what a server of the cluster has been told of them.
type etcdModel struct {
	*testing.T
	view     pitaya.EtcdView
	store    map[string]pitaya.EtcdEntry
	revision int64
	blind    bool                             // until the next list
	twice    bool                             // an id has stood under two keys
	past     []pitaya.EtcdEntry               // what the watch has shown, without a value where something was deleted
	told     map[string]pitaya.DiscoveryEvent // by id; the last for each that is there
}

const (
	etcdOwn     = "pitaya/servers/room/own"
	etcdModelID = "own"
	etcdModelTT = 10 * time.Second
)

// The acts on the servers, each with a key and a value.
const (
	etcdPut    = iota // somebody writes an entry
	etcdDelete        // somebody deletes it
	etcdList          // the list is read
	etcdBlind         // the watch ends; all is unseen until the list is read
	etcdLate          // an event comes again that a list has told of already
	etcdAnew          // all data is lost
	etcdTime          // time passes
	etcdActs
)

// FuzzEtcdServers reads a script in threes: an act, a key and a value; key and value are one more of either.
func FuzzEtcdServers(f *testing.F) {
	for _, script := range [][]byte{
		{etcdPut, 0, 0, etcdPut, 1, 1, etcdDelete, 0, 0, etcdList, 0, 0},
		{etcdPut, 0, 0, etcdPut, 1, 0, etcdPut, 0, 1, etcdPut, 0, 5, etcdDelete, 0, 0}, // one id under two keys
		{etcdPut, 0, 0, etcdPut, 1, 0, etcdDelete, 0, 0},
		{etcdPut, 0, 0, etcdBlind, 0, 0, etcdPut, 1, 1, etcdDelete, 0, 0, etcdList, 0, 0, etcdLate, 0, 0, etcdLate, 1, 0},
		{etcdPut, 0, 0, etcdPut, 3, 2, etcdAnew, 0, 0, etcdPut, 0, 0, etcdTime, 0, 100},
		{etcdPut, 4, 0, etcdPut, 4, 3, etcdDelete, 4, 0, etcdPut, 0, 3, etcdPut, 1, 4, etcdPut, 2, 6}, // the own key and id
		{etcdPut, 5, 7, etcdPut, 5, 0, etcdPut, 0, 7, etcdPut, 0, 8, etcdPut, 0, 0},
	} {
		f.Add(script, "room/x", `{"id":"x","type":"room"}`)
		f.Add(script, "room//x/", `{"id":"a","type":"room/"}`)
		f.Add(script, "", "\xff")
	}
	f.Fuzz(func(t *testing.T, script []byte, key, value string) {
		if len(script) <= 600 {
			synctest.Test(t, func(t *testing.T) { runEtcdServers(t, script, key, value) })
		}
	})
}

func runEtcdServers(t *testing.T, script []byte, key, value string) {
	m := &etcdModel{T: t, store: make(map[string]pitaya.EtcdEntry), told: make(map[string]pitaya.DiscoveryEvent), revision: 1}
	cfg := pitaya.EtcdConfig{HeartbeatTTL: etcdModelTT, IgnoredTypes: []string{"ignored"}}
	var err error
	if m.view, err = pitaya.NewEtcdView(cfg, &pitaya.ServerInfo{ID: etcdModelID, Type: "room"}, m.watch); err != nil {
		t.Fatal(err)
	}
	keys := []string{"pitaya/servers/room/a", "pitaya/servers/room/b", "pitaya/servers/lobby/c", "pitaya/servers/lobby/d",
		etcdOwn, "pitaya/servers/" + key}
	values := []string{`{"id":"a","type":"room"}`, `{"id":"b","type":"room","metadata":{"k":"v"}}`, `{"id":"a","type":"lobby"}`,
		`{"id":"own","type":"room"}`, `{"id":"c","type":"ignored"}`, `{"id":`, `{"id":"a","type":"room","frontend":true}`, value,
		`{"id":"b","type":"ignored"}`}
	m.publish()
	m.list()
	for ; len(script) >= 3; script = script[3:] {
		m.act(script[0]%etcdActs, keys[int(script[1])%len(keys)], values[int(script[2])%len(values)], int(script[2]))
		m.settle()
		if !m.blind {
			m.check(false)
		}
	}
	// What is left behind by etcd's beginning anew is forgotten when those that live have had their time.
	m.list()
	m.settle()
	time.Sleep(etcdModelTT)
	m.list()
	m.settle()
	m.check(true)
	clear(m.store)
	m.publish()
	m.list()
	m.settle()
	if servers, ids, invalid := m.view.Known(); servers+ids+invalid != 0 || len(m.told) != 1 {
		t.Fatalf("%d servers, %d ids and %d invalid entries are left of none, and told were %v", servers, ids, invalid, m.told)
	}
}

func (m *etcdModel) act(act byte, key, value string, arg int) {
	switch act {
	case etcdPut:
		m.put(key, value, int64(arg%3)) // none, the own lease or another one
	case etcdDelete:
		m.delete(key)
	case etcdList:
		m.list()
	case etcdBlind:
		m.blind = true
	case etcdLate:
		if len(m.past) > 0 && !m.blind {
			m.list()
			m.settle()
			before := maps.Clone(m.told)
			if e := m.past[arg%len(m.past)]; e.Value == "" {
				m.view.Delete(e)
			} else {
				m.view.Put(e)
			}
			if !maps.Equal(before, m.told) {
				m.Fatalf("an event that came late changed %v to %v", before, m.told)
			}
		}
	case etcdAnew:
		clear(m.store)
		m.past = nil
		m.revision = 1
		m.publish()
		m.list()
	case etcdTime:
		time.Sleep(time.Duration(arg) * 100 * time.Millisecond)
	}
}

func (m *etcdModel) put(key, value string, lease int64) {
	m.revision++
	if info, err := pitaya.DecodeServer([]byte(value)); err == nil {
		m.twice = m.twice || info.ID == etcdModelID && key != etcdOwn
		for other, e := range m.store {
			if same, err := pitaya.DecodeServer([]byte(e.Value)); err == nil && same.ID == info.ID && other != key {
				m.twice = true
			}
		}
	}
	e := pitaya.EtcdEntry{Key: key, Value: value, Revision: m.revision, Lease: lease}
	m.store[key] = e
	if !m.blind {
		m.past = append(m.past, e)
		m.view.Put(e)
	}
}

func (m *etcdModel) delete(key string) {
	if _, ok := m.store[key]; !ok {
		return
	}
	m.revision++
	delete(m.store, key)
	if !m.blind {
		e := pitaya.EtcdEntry{Key: key, Revision: m.revision}
		m.past = append(m.past, e)
		m.view.Delete(e)
	}
}

// publish is the lease's: it writes the own entry.
func (m *etcdModel) publish() { m.put(etcdOwn, `{"id":"own","type":"room"}`, 1) }

func (m *etcdModel) list() {
	m.blind = false
	var entries []pitaya.EtcdEntry
	for _, key := range slices.Sorted(maps.Keys(m.store)) {
		entries = append(entries, m.store[key])
	}
	m.view.List(m.revision, entries)
}

// settle does what is asked for, until nothing is.
func (m *etcdModel) settle() {
	for n := 0; ; n++ {
		list, publish := m.view.Wants()
		if !list && !publish {
			return
		}
		if n > 10 {
			m.Fatal("it asks for ever")
		}
		if publish {
			m.publish()
		}
		if list {
			m.list()
		}
	}
}

// watch is what the server is told.
func (m *etcdModel) watch(e pitaya.DiscoveryEvent) {
	id := e.Server.ID
	last, there := m.told[id]
	switch {
	case e.Change == pitaya.ServerJoined && there, e.Change != pitaya.ServerJoined && !there:
		m.Fatalf("told %v of %q, after %v", e.Change, id, last)
	case id == etcdModelID && (e.Change != pitaya.ServerJoined || e.Server.Type != "room"):
		m.Fatalf("told %v of the own server: %+v", e.Change, e.Server)
	case e.Change == pitaya.ServerUpdated && e.Server.Type != last.Server.Type:
		m.Fatalf("the type of %q has become %q", id, e.Server.Type)
	case id == "" || e.Server.Type == "" || e.Server.Type == "ignored" || strings.ContainsAny(id+e.Server.Type, "/ \n"):
		m.Fatalf("told of %+v", e.Server)
	case e.Change == pitaya.ServerLeft:
		delete(m.told, id)
	default:
		m.told[id] = e
	}
}

// check compares what was told with what etcd has, now that all was seen. Servers that are gone may still be known unless
// it is final.
func (m *etcdModel) check(final bool) {
	m.Helper()
	want := map[string]*pitaya.ServerInfo{etcdModelID: {ID: etcdModelID, Type: "room"}}
	// Who is known stays where an entry is refused that is written in its place: one that is no server, or has the id of
	// another.
	clean := !m.twice
	for key, e := range m.store {
		typ, id, ok := strings.Cut(strings.TrimPrefix(key, "pitaya/servers/"), "/")
		info, err := pitaya.DecodeServer([]byte(e.Value))
		switch {
		case key == etcdOwn:
		case !ok || typ == "" || id == "" || strings.Contains(id, "/"):
		case err != nil:
			clean = false
		case info.Type != "ignored" && want[info.ID] == nil:
			want[info.ID] = info
		}
	}
	for id := range want {
		if _, ok := m.told[id]; !ok {
			m.Fatalf("%q is not known, with %v in etcd and %v told", id, m.store, m.told)
		}
	}
	if !clean || !final {
		return
	}
	for id, e := range m.told {
		if want[id] == nil || !pitaya.SameServer(want[id], e.Server) {
			m.Fatalf("told of %+v, want %+v", e.Server, want[id])
		}
	}
}

// FuzzEtcdNames makes groups and bindings with any names, beside others and beside what strangers have written. A name is
// refused, or is one that no other one shows through.
func FuzzEtcdNames(f *testing.F) {
	f.Add("g", "g/x", "u", "v", "room")
	f.Add("g", "g/uids/u", "u", "v/uids/w", "room/x")
	f.Add("a/uids", "a", "", "\x00", "")
	f.Add("\xff", "\xff\xff", "\xff", "\xff\x00", "r")
	f.Add("x/uids/y/uids/", "/", "/uids/", "uids/", "..")
	s := startEtcd(f)
	endpoints := []string{s.URL()}
	etcd, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { etcd.Close() })
	groups := newEtcdGroups(f, pitaya.GroupsEtcdConfig{Endpoints: endpoints})
	bindings, err := pitaya.NewEtcdBindings(pitaya.BindingEtcdConfig{Endpoints: endpoints}, "front", "front-1", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { bindings.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, group, other, uid, second, frontend string) {
		if len(group)+len(other)+len(uid)+len(second)+len(frontend) > 4096 {
			return
		}
		if _, err := etcd.Delete(t.Context(), "pitaya/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		fuzzGroupNames(t, groups, group, other, uid, second)
		fuzzBindingNames(t, bindings, etcd, uid, second, frontend, group)
		left, err := etcd.Get(t.Context(), "pitaya/", clientv3.WithPrefix())
		if err != nil || len(left.Kvs) != 0 {
			t.Fatalf("left in etcd: %v, %v", left, err)
		}
	})
}

// fuzzGroupNames does the same with groups in etcd and in memory. It comes to the same, but for names that are refused.
func fuzzGroupNames(t *testing.T, groups pitaya.GroupStore, group, other, uid, second string) {
	ctx := t.Context()
	memory := pitaya.NewMemoryGroups()
	defer memory.Close()
	refused := func(name string) bool { return strings.Contains(name+"/", "/uids/") }
	// Each act on both, with the same end.
	same := func(what, name string, do func(pitaya.GroupStore) (string, error)) {
		t.Helper()
		got, err := do(groups)
		if refused(name) {
			if err == nil {
				t.Fatalf("%s: the group %q was not refused", what, name)
			}
			return
		}
		want, wantErr := do(memory)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Fatalf("%s %q: %s and %v, want %s and %v", what, name, got, err, want, wantErr)
		}
		for _, kind := range []error{pitaya.ErrGroupExists, pitaya.ErrGroupNotFound, pitaya.ErrGroupNoTTL, pitaya.ErrMemberExists, pitaya.ErrMemberNotFound} {
			if errors.Is(err, kind) != errors.Is(wantErr, kind) {
				t.Fatalf("%s %q: %v, want %v", what, name, err, wantErr)
			}
		}
	}
	look := func() {
		t.Helper()
		for _, name := range []string{group, other} {
			same("members", name, func(s pitaya.GroupStore) (string, error) {
				list, err := s.Members(ctx, name)
				slices.Sort(list)
				return fmt.Sprintf("%q", list), err
			})
			same("count", name, func(s pitaya.GroupStore) (string, error) {
				n, err := s.Count(ctx, name)
				return fmt.Sprint(n), err
			})
			for _, uid := range []string{uid, second} {
				same("contains", name, func(s pitaya.GroupStore) (string, error) {
					yes, err := s.Contains(ctx, name, uid)
					return fmt.Sprint(yes), err
				})
			}
		}
	}
	do := func(what, name string, f func(pitaya.GroupStore) error) {
		t.Helper()
		same(what, name, func(s pitaya.GroupStore) (string, error) { return "", f(s) })
		look()
	}
	do("create", group, func(s pitaya.GroupStore) error { return s.Create(ctx, group, 0) })
	do("add", group, func(s pitaya.GroupStore) error { return s.Add(ctx, group, uid) })
	do("create", other, func(s pitaya.GroupStore) error { return s.Create(ctx, other, 0) })
	do("add", other, func(s pitaya.GroupStore) error { return s.Add(ctx, other, second, uid) })
	do("remove", group, func(s pitaya.GroupStore) error { return s.Remove(ctx, group, uid) })
	do("add", group, func(s pitaya.GroupStore) error { return s.Add(ctx, group, second) })
	do("renew", group, func(s pitaya.GroupStore) error { return s.Renew(ctx, group) })
	do("remove all", group, func(s pitaya.GroupStore) error { return s.RemoveAll(ctx, group) })
	do("delete", group, func(s pitaya.GroupStore) error { return s.Delete(ctx, group) })
	do("delete", other, func(s pitaya.GroupStore) error { return s.Delete(ctx, other) })
}

// fuzzBindingNames binds a user, who is where it was put and nowhere else. What a stranger says of another type is taken as
// it stands.
func fuzzBindingNames(t *testing.T, bindings pitaya.BindingStore, etcd *clientv3.Client, uid, second, frontend, value string) {
	ctx := t.Context()
	err := bindings.Put(ctx, uid)
	if (err == nil) != (uid != "") {
		t.Fatalf("putting %q: %v", uid, err)
	}
	wantBinding(t, bindings, uid, "front", map[bool]string{true: "front-1"}[err == nil])
	if second != uid {
		wantBinding(t, bindings, second, "front", "")
	}
	if frontend != "front" {
		wantBinding(t, bindings, uid, frontend, "")
		if _, err := etcd.Put(ctx, "pitaya/bindings/"+frontend+"/"+uid, value); err != nil {
			t.Fatal(err)
		}
		if uid != "" && frontend != "" && !strings.Contains(frontend, "/") && value != "" {
			wantBinding(t, bindings, uid, frontend, value)
		}
		if _, err := etcd.Delete(ctx, "pitaya/bindings/"+frontend+"/"+uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := bindings.Delete(ctx, uid); err != nil {
		t.Fatal(err)
	}
	wantBinding(t, bindings, uid, "front", "")
}

// wantBinding asks where a user is; "" means nowhere.
func wantBinding(t *testing.T, s pitaya.BindingStore, uid, frontend, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), uid, frontend)
	if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, pitaya.ErrNoBinding) {
		t.Fatalf("the user %q is on %q, %v, want %q", uid, got, err, want)
	}
}
