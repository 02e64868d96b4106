package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
)

// testBindings checks the rules of [pitaya.BindingStore]. open makes an empty store, and returns a function that opens it for
// a server.
func testBindings(t *testing.T, open func(*testing.T) func(serverType, id string) pitaya.BindingStore) {
	store := open(t)
	a, b, back := store("connector", "a"), store("connector", "b"), store("room", "r")
	ctx := t.Context()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(uid, frontendType, want string) {
		t.Helper()
		for _, s := range []pitaya.BindingStore{a, b, back} {
			got, err := s.Get(ctx, uid, frontendType)
			if want == "" && !errors.Is(err, pitaya.ErrNoBinding) || want != "" && err != nil || got != want {
				t.Errorf("%s on %s: got %q, %v, want %q", uid, frontendType, got, err, want)
			}
		}
	}
	for _, uid := range []string{"u", "a/b", "mail@example.com", "größe"} {
		want(uid, "connector", "")
		do(a.Delete(ctx, uid))
		do(a.Put(ctx, uid))
		want(uid, "connector", "a")
		want(uid, "room", "")
		do(a.Put(ctx, uid))
		do(b.Delete(ctx, uid))
		want(uid, "connector", "a")
		do(b.Put(ctx, uid))
		want(uid, "connector", "b")
		do(a.Delete(ctx, uid))
		want(uid, "connector", "b")
		do(a.Put(ctx, uid))
		want(uid, "connector", "a")
		do(a.Delete(ctx, uid))
		want(uid, "connector", "")
	}
	want("", "connector", "")
	want("u", "", "")
	if err := a.Put(ctx, ""); err == nil {
		t.Error("put an empty uid")
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.Put(done, "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("put with a context that is done: got %v", err)
	}
	if _, err := a.Get(done, "u", "connector"); !errors.Is(err, context.Canceled) {
		t.Errorf("get with a context that is done: got %v", err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			uid := fmt.Sprint("p", i)
			if err := errors.Join(a.Put(ctx, uid), a.Delete(ctx, uid), a.Put(ctx, uid)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want("p0", "connector", "a")
	do(a.Put(ctx, "taken"))
	do(b.Put(ctx, "taken"))
	do(a.Close(ctx))
	if got, err := b.Get(ctx, "p0", "connector"); !errors.Is(err, pitaya.ErrNoBinding) {
		t.Errorf("after the end of its server: got %q, %v", got, err)
	}
	if got, err := b.Get(ctx, "taken", "connector"); err != nil || got != "b" {
		t.Errorf("after the end of the server that had it before: got %q, %v", got, err)
	}
}

func newEtcdBindings(t *testing.T, cfg pitaya.BindingEtcdConfig, typ, id string) *pitaya.EtcdBindings {
	t.Helper()
	b, err := pitaya.NewEtcdBindings(cfg, typ, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_ = b.Close(done) // also when it was closed already
	})
	return b
}

func TestEtcdBindings(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	testBindings(t, func(t *testing.T) func(string, string) pitaya.BindingStore {
		return func(typ, id string) pitaya.BindingStore {
			return newEtcdBindings(t, pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}}, typ, id)
		}
	})
}

// TestEtcdBindingsLostLease takes the lease away and has another frontend take over a user at that moment.
func TestEtcdBindingsLostLease(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	cfg := pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, LeaseTTL: 2 * time.Second}
	b := newEtcdBindings(t, cfg, "connector", "a")
	const n = 100
	key := func(i int) string { return fmt.Sprint("pitaya/bindings/connector/u", i) }
	for i := range n {
		if err := b.Put(ctx, fmt.Sprint("u", i)); err != nil {
			t.Fatal(err)
		}
	}
	leases := map[clientv3.LeaseID]bool{}
	check := func() bool {
		r, err := c.Get(ctx, "pitaya/bindings/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		clear(leases)
		for _, kv := range r.Kvs {
			if string(kv.Value) == "a" {
				leases[clientv3.LeaseID(kv.Lease)] = true
			}
		}
		return len(r.Kvs) == n
	}
	if !check() || len(leases) != 1 || leases[0] {
		t.Fatalf("there are the leases %v", leases)
	}
	for lease := range leases {
		if _, err := c.Revoke(ctx, lease); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Put(ctx, key(7), "other"); err != nil {
		t.Fatal(err)
	}
	poll(t, "bindings to be written again", check)
	if len(leases) != 1 {
		t.Errorf("there are the leases %v", leases)
	}
	if got, err := b.Get(ctx, "u7", "connector"); err != nil || got != "other" {
		t.Errorf("a user who was taken over: got %q, %v", got, err)
	}

	// A Put that finds the lease gone.
	for lease := range leases {
		if _, err := c.Revoke(ctx, lease); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(ctx, "u7"); err != nil {
		t.Errorf("put after the lease was lost: %v", err)
	}
	poll(t, "bindings to be written again", check)
}

// TestEtcdBindingsOutage loses all data, and deletes a binding meanwhile.
func TestEtcdBindingsOutage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	cfg := pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, DialTimeout: time.Second}
	b := newEtcdBindings(t, cfg, "connector", "a")
	for _, uid := range []string{"stays", "goes", "comes back"} {
		if err := b.Put(ctx, uid); err != nil {
			t.Fatal(err)
		}
	}
	get := func(uid, want string) func() bool {
		return func() bool {
			got, err := b.Get(ctx, uid, "connector")
			return got == want && (err == nil || want == "" && errors.Is(err, pitaya.ErrNoBinding))
		}
	}
	away := func() {
		t.Helper()
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if err := b.Put(short, "fails"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fails") {
			t.Errorf("put without etcd: got %v", err)
		}
		if err := b.Delete(short, "goes"); err == nil {
			t.Error("delete without etcd succeeds")
		}
	}
	s.Stop()
	away()
	s.Start()
	poll(t, "the late deletion", get("goes", ""))
	poll(t, "a binding", get("stays", "a"))
	poll(t, "no binding by a Put that failed", get("fails", ""))

	s.Stop()
	s.StartEmpty()
	poll(t, "a binding to be written again", get("stays", "a"))
	poll(t, "another to be written again", get("comes back", "a"))
	if got, err := b.Get(ctx, "goes", "connector"); !errors.Is(err, pitaya.ErrNoBinding) {
		t.Errorf("what was deleted is back: %q, %v", got, err)
	}
}
