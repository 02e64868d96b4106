package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func newEtcdGroups(t testing.TB, cfg pitaya.GroupsEtcdConfig) *pitaya.EtcdGroups {
	t.Helper()
	g, err := pitaya.NewEtcdGroups(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return g
}

func TestEtcdGroups(t *testing.T) {
	t.Parallel()
	s := startEtcd(t)
	var n atomic.Int64
	pitayatest.TestGroupStore(t, pitayatest.GroupStoreOptions{Open: func(t testing.TB) pitaya.GroupStore {
		return newEtcdGroups(t, pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}, Prefix: fmt.Sprintf("g%d/", n.Add(1))})
	}})
}

func TestEtcdGroupsTTL(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	c := etcdClient(t, s.URL())
	g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}})
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	leases := func() []clientv3.LeaseStatus {
		t.Helper()
		r, err := c.Leases(ctx)
		do(err)
		return r.Leases
	}
	keys := func() (keys []string, of []clientv3.LeaseID) {
		t.Helper()
		r, err := c.Get(ctx, "", clientv3.WithPrefix())
		do(err)
		for _, kv := range r.Kvs {
			keys, of = append(keys, string(kv.Key)), append(of, clientv3.LeaseID(kv.Lease))
		}
		return keys, of
	}

	// What does not live for ever is under one lease, of whole seconds. Nothing keeps it alive.
	do(g.Create(ctx, "g", 99*time.Second+time.Millisecond))
	do(g.Add(ctx, "g", "a", "b"))
	got, of := keys()
	if want := []string{"pitaya/groups/g", "pitaya/groups/g/uids/a", "pitaya/groups/g/uids/b"}; !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
	if len(leases()) != 1 || of[0] == 0 || of[1] != of[0] || of[2] != of[0] {
		t.Errorf("the leases of the keys are %v", of)
	}
	r, err := c.TimeToLive(ctx, of[0])
	do(err)
	if r.GrantedTTL != 100 {
		t.Errorf("the lease is of %d s, want 100", r.GrantedTTL)
	}
	if err := g.Create(ctx, "g", time.Minute); !errors.Is(err, pitaya.ErrGroupExists) || len(leases()) != 1 {
		t.Errorf("creating it again: %v, and now there are %d leases", err, len(leases()))
	}
	do(g.Delete(ctx, "g"))
	if n := len(leases()); n != 0 {
		t.Errorf("%d leases left after Delete", n)
	}

	// Expiry takes the members as well, those that are added late and all. Renewal begins anew, which shows when a group
	// that was created at the same moment has gone.
	do(g.Create(ctx, "short", time.Second))
	do(g.Add(ctx, "short", "a"))
	do(g.Create(ctx, "renewed", time.Second))
	do(g.Add(ctx, "renewed", "a"))
	do(g.Create(ctx, "forever", 0))
	poll(t, "the end of the group", func() bool {
		do(g.Renew(ctx, "renewed"))
		_, err := g.Count(ctx, "short")
		return errors.Is(err, pitaya.ErrGroupNotFound)
	})
	if members, err := g.Members(ctx, "renewed"); err != nil || !slices.Equal(members, []string{"a"}) {
		t.Errorf("the renewed group: got %q, %v", members, err)
	}
	if err := g.Renew(ctx, "short"); !errors.Is(err, pitaya.ErrGroupNotFound) {
		t.Errorf("renewing what is gone: got %v", err)
	}
	poll(t, "the end of the renewed group", func() bool {
		_, err := g.Members(ctx, "renewed")
		return errors.Is(err, pitaya.ErrGroupNotFound)
	})
	if got, _ := keys(); !slices.Equal(got, []string{"pitaya/groups/forever"}) {
		t.Errorf("left are the keys %q", got)
	}

	// Members of a group that is gone, as an interrupted peer may leave them, are not those of a new one.
	_, err = c.Put(ctx, "pitaya/groups/new/uids/ghost", "")
	do(err)
	do(g.Create(ctx, "new", 0))
	if members, err := g.Members(ctx, "new"); err != nil || len(members) > 0 {
		t.Errorf("the new group: got %q, %v", members, err)
	}
}

func TestEtcdGroupsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}})
	for _, name := range []string{"a/uids", "a/uids/b", "/uids/"} {
		if err := g.Create(ctx, name, 0); err == nil {
			t.Errorf("created a group %q", name)
		}
	}
	if err := g.Create(ctx, "uids", 0); err != nil {
		t.Error(err)
	}
	var uids []string
	for i := range 128 {
		uids = append(uids, fmt.Sprint(i))
	}
	if err := g.Add(ctx, "uids", uids...); err == nil {
		t.Errorf("added %d uids", len(uids))
	}
	if err := g.Add(ctx, "uids", uids[1:]...); err != nil {
		t.Errorf("adding %d uids: %v", len(uids)-1, err)
	}
	if err := g.Remove(ctx, "uids", uids[1:]...); err != nil {
		t.Errorf("removing %d uids: %v", len(uids)-1, err)
	}
}

// TestEtcdGroupsOutage has calls fail in time while etcd is away, and work when it is back.
func TestEtcdGroupsOutage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := startEtcd(t)
	// A store can be made before etcd is there.
	s.Stop()
	g := newEtcdGroups(t, pitaya.GroupsEtcdConfig{Endpoints: []string{s.URL()}, TransactionTimeout: 50 * time.Millisecond})
	if _, err := g.Count(ctx, "g"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without etcd: got %v", err)
	}
	s.Start()
	poll(t, "a group", func() bool {
		err := g.Create(ctx, "g", 0)
		return err == nil || errors.Is(err, pitaya.ErrGroupExists)
	})
}
