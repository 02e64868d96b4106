package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func newEtcdBindings(t testing.TB, cfg pitaya.BindingEtcdConfig, typ, id string) *pitaya.EtcdBindings {
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
	var n atomic.Int64
	pitayatest.TestBindingStore(t, pitayatest.BindingStoreOptions{
		Open: func(t testing.TB) func(string, string) pitaya.BindingStore {
			cfg := pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, Prefix: fmt.Sprintf("b%d/", n.Add(1))}
			return func(typ, id string) pitaya.BindingStore { return newEtcdBindings(t, cfg, typ, id) }
		},
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
		if err := b.Put(short, "fails"); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, pitaya.ErrUnreachable) || !strings.Contains(err.Error(), "fails") {
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

// TestEtcdBindingsLostMeanwhile loses etcd while it is asked: nobody waits for it to come back.
func TestEtcdBindingsLostMeanwhile(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	b := newEtcdBindings(t, pitaya.BindingEtcdConfig{Endpoints: []string{s.URL()}, DialTimeout: time.Minute}, "connector", "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, b.Put(ctx, "u"))
	s.Pause() // what is asked now gets no answer
	begun, failed := make(chan bool), make(chan error)
	go func() {
		close(begun)
		_, err := b.Get(ctx, "u", "connector")
		failed <- err
	}()
	<-begun
	s.Kill()
	if err := <-failed; !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("got %v, want %v", err, pitaya.ErrUnreachable)
	}
}
