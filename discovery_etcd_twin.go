//go:build !nocluster

package pitaya

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A server whose id another one has as well is not told so by anything that the protocol says: over NATS each of the two
// gets every message, and of the entries in etcd the later one stands. So each of them looks at the leases. The entry of a
// server that has crashed and was started again at once is one under a foreign lease too, but nobody renews that.

// checkTwin looks at the lease of the own entry. One that was written after this server's own, under a lease of somebody
// else, is that of another server.
func (d *EtcdDiscovery) checkTwin(lease clientv3.LeaseID, revision int64) {
	d.mu.Lock()
	before := d.overwritten
	switch {
	case d.own[lease]:
		d.overwritten = false
	case lease != 0 && d.publishedAt != 0 && revision > d.publishedAt:
		d.overwritten = true
	}
	now := d.overwritten
	d.mu.Unlock()
	if now && !before {
		d.logTwin()
	}
}

func (d *EtcdDiscovery) logTwin() {
	d.log.Error("another server has this one's id: calls and sessions of both go astray until one of them ends", "server", d.id)
}

// watchTwins finds out whether the server lives whose entry this one has taken the place of.
func (d *EtcdDiscovery) watchTwins(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case lease := <-d.found:
			for ok := true; ok; { // as long as there is a newer one
				lease, ok = d.watchTwin(ctx, lease)
			}
		}
	}
}

// watchTwin follows a lease to its end, or until another one is found, which it returns. A lease that lasts longer than it
// had left is renewed by somebody.
func (d *EtcdDiscovery) watchTwin(ctx context.Context, lease clientv3.LeaseID) (next clientv3.LeaseID, found bool) {
	defer d.setTwin(false)
	var ends time.Time // of the lease, unless it is renewed; zero: not known
	for {
		asking, cancel := context.WithTimeout(ctx, d.client.DialTimeout)
		r, err := d.etcd.TimeToLive(asking, lease)
		cancel()
		wait := jitter(d.cfg.GrantLeaseInterval) // after an error
		switch {
		case err != nil:
		case r.TTL <= 0:
			return 0, false
		case !ends.IsZero() && time.Now().After(ends):
			if d.setTwin(true) {
				d.logTwin()
			}
			wait = time.Duration(r.TTL+1) * time.Second
		default:
			if ends.IsZero() {
				ends = time.Now().Add(time.Duration(r.TTL+1) * time.Second) // etcd counts in whole seconds
			}
			wait = time.Until(ends) + time.Millisecond
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case next := <-d.found:
			timer.Stop()
			return next, true
		case <-ctx.Done():
			timer.Stop()
			return 0, false
		}
	}
}

// setTwin reports whether that is news.
func (d *EtcdDiscovery) setTwin(lives bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := d.twin != lives
	d.twin = lives
	return news
}
