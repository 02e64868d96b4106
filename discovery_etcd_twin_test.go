package pitaya_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
)

// TestEtcdDiscoveryTwins: two servers with one id both find that out, and are well again when one of them has ended.
func TestEtcdDiscoveryTwins(t *testing.T) {
	t.Parallel()
	cfg := etcdConfig(startEtcd(t).URL())
	cfg.HeartbeatTTL = 3 * time.Second
	one, two := newEtcdDiscovery(t, cfg), newEtcdDiscovery(t, cfg)
	w1 := join(t, one, room("a"))
	w2 := join(t, two, &pitaya.ServerInfo{ID: "a", Type: "room", Metadata: map[string]string{"k": "v"}})
	twin := func(d pitaya.Discovery) func() bool {
		return func() bool { err := d.Healthy(); return err != nil && strings.Contains(err.Error(), `has the id "a"`) }
	}
	poll(t, "the first to know that it has a twin", twin(one))
	poll(t, "the second to know that it has a twin", twin(two))
	leave(t, two, w2)
	poll(t, "the first to be well", func() bool { return one.Healthy() == nil })
	leave(t, one, w1)
}

// TestEtcdDiscoveryQuickRestart: the entry that a server has left behind when it crashed is nobody else's.
func TestEtcdDiscoveryQuickRestart(t *testing.T) {
	t.Parallel()
	url := startEtcd(t).URL()
	cfg := etcdConfig(url)
	client := etcdClient(t, url)
	lease, err := client.Grant(t.Context(), 2)
	must(t, err)
	d := newEtcdDiscovery(t, cfg)
	key := cfg.Prefix + "servers/room/a"
	if cfg.Prefix == "" {
		key = "pitaya/servers/room/a"
	}
	_, err = client.Put(t.Context(), key, `{"id":"a","type":"room","metadata":null,"frontend":false,"hostname":"h"}`,
		clientv3.WithLease(lease.ID))
	must(t, err)
	w := join(t, d, room("a"))
	poll(t, "the old lease to end", func() bool {
		must(t, d.Healthy())
		r, err := client.TimeToLive(t.Context(), lease.ID)
		must(t, err)
		return r.TTL <= 0
	})
	must(t, d.Healthy())
	leave(t, d, w)
}
