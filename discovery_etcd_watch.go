//go:build !nocluster

package pitaya

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// see makes the watching goroutine read the list of servers.
func (d *EtcdDiscovery) see() {
	select {
	case d.resync <- struct{}{}:
	default:
	}
}

// follow reports all changes after the first list until ctx ends.
func (d *EtcdDiscovery) follow(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failures := 0
	for {
		began := time.Now()
		err := d.followFrom(ctx, timer)
		if time.Since(began) > d.cfg.GrantLeaseInterval {
			failures = 0
		}
		if failures == 0 && ctx.Err() == nil {
			d.log.Warn("watching servers failed, trying again", "err", err)
		}
		// The list tells what the watch would have.
		for ; err != nil && ctx.Err() == nil; failures++ {
			d.setWatchErr(err)
			timer.Reset(retryPause(failures, d.cfg.GrantLeaseInterval))
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			_, err = d.read(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		d.setWatchErr(nil)
	}
}

func (d *EtcdDiscovery) setWatchErr(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchErr = err
}

// followFrom watches from the revision of the last list on, and returns when that does not go on. The timer is its own
// meanwhile.
func (d *EtcdDiscovery) followFrom(ctx context.Context, timer *time.Timer) error {
	for {
		again, err := d.followOnce(ctx, timer)
		if !again {
			return err
		}
	}
}

// followOnce is followFrom for one watch. It reports true when the list has shown that etcd began anew, so that a watch
// from where we were would see nothing.
func (d *EtcdDiscovery) followOnce(ctx context.Context, timer *time.Timer) (again bool, err error) {
	// A member of etcd that is cut off from the others says so and ends the watch, rather than showing a standstill.
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := d.etcd.Watch(watching, d.servers, clientv3.WithPrefix(), clientv3.WithRev(d.revision+1))
	timer.Reset(d.untilSync())
	for {
		select {
		case r, ok := <-changes:
			if !ok {
				return false, errors.New("pitaya: etcd discovery: the watch has ended")
			}
			if err := r.Err(); err != nil { // among others, that the revision was compacted
				return false, fmt.Errorf("pitaya: etcd discovery: watching: %w", err)
			}
			for _, e := range r.Events {
				for _, change := range d.apply(e) {
					d.watch(change)
				}
			}
			continue
		case <-d.resync:
		case <-timer.C:
		}
		if anew, err := d.read(ctx); err != nil || anew {
			return anew, err
		}
		timer.Reset(d.untilSync())
	}
}

// untilSync returns when the list is to be read again.
func (d *EtcdDiscovery) untilSync() time.Duration {
	next := jitter(d.cfg.SyncInterval)
	if wait := time.Until(d.patient); wait > 0 {
		next = min(next, wait+time.Millisecond)
	}
	return next
}

// read reads the list and reports what has changed.
func (d *EtcdDiscovery) read(ctx context.Context) (anew bool, err error) {
	events, anew, err := d.list(ctx)
	for _, e := range events {
		d.watch(e)
	}
	return anew, err
}

// list reads all servers and returns what is new since the last time, and whether etcd has begun anew.
func (d *EtcdDiscovery) list(ctx context.Context) (events []DiscoveryEvent, anew bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.client.DialTimeout)
	defer cancel()
	r, err := d.etcd.Get(ctx, d.servers, clientv3.WithPrefix())
	if err != nil {
		return nil, false, fmt.Errorf("pitaya: etcd: reading the servers: %w", err)
	}
	events, anew = d.compare(r)
	return events, anew, nil
}

// compare is list for what etcd has answered.
func (d *EtcdDiscovery) compare(r *clientv3.GetResponse) (events []DiscoveryEvent, anew bool) {
	present := make(map[string]bool, len(r.Kvs))
	familiar := len(d.known) == 0 // an entry is the very one that was seen
	for _, kv := range r.Kvs {
		key := string(kv.Key)
		present[key] = true
		old := d.known[key]
		familiar = familiar || old != nil && old.revision == kv.ModRevision || key == d.key && d.selfRevision == kv.ModRevision
	}
	// Revisions only grow. If they have not, or if nothing at all is as it was, this is another etcd, or the old one
	// has lost its data, and with it the leases of all servers.
	if anew = r.Header.Revision < d.newest || !familiar; anew {
		d.patient = time.Now().Add(time.Duration(d.ttl) * time.Second)
		d.bad = make(map[string]int64)
		d.log.Warn("etcd has begun anew, waiting for servers to register again", "wait", time.Until(d.patient))
	}
	d.revision, d.newest = r.Header.Revision, r.Header.Revision
	// What is gone is told first, so that an id that moved to another key is free by then.
	if !time.Now().Before(d.patient) {
		for _, key := range slices.Sorted(maps.Keys(d.known)) {
			if !present[key] {
				events = append(events, d.removed(key)...)
			}
		}
	}
	maps.DeleteFunc(d.bad, func(key string, _ int64) bool { return !present[key] })
	for _, kv := range r.Kvs {
		events = append(events, d.put(string(kv.Key), kv.Value, kv.ModRevision, clientv3.LeaseID(kv.Lease))...)
	}
	if !present[d.key] {
		events = append(events, d.putSelf()...) // never gone for ourselves
		if d.lease.ID() != 0 {                  // without a lease it is about to be written anyway
			d.lease.Wake()
		}
	}
	return events, anew
}

// apply takes in one event of the watch. What an event tells that was under way while a list was read is older than the
// list.
func (d *EtcdDiscovery) apply(e *clientv3.Event) []DiscoveryEvent {
	if e.Kv.ModRevision <= d.revision {
		return nil
	}
	d.newest = max(d.newest, e.Kv.ModRevision)
	key := string(e.Kv.Key)
	switch {
	case e.Type == clientv3.EventTypePut:
		return d.put(key, e.Kv.Value, e.Kv.ModRevision, clientv3.LeaseID(e.Kv.Lease))
	case key == d.key:
		d.log.Warn("own entry in etcd is gone, putting it back")
		d.lease.Wake()
		return nil
	}
	delete(d.bad, key)
	return d.removed(key)
}

// put takes in an entry.
func (d *EtcdDiscovery) put(key string, value []byte, revision int64, lease clientv3.LeaseID) []DiscoveryEvent {
	if key == d.key {
		d.selfRevision = revision
		d.checkTwin(lease, revision)
		d.checkLeaseless(lease, revision)
		return d.putSelf()
	}
	old := d.known[key]
	if old != nil && bytes.Equal(old.value, value) {
		old.revision = revision
		return nil
	}
	info, err := d.parse(key, value)
	if err != nil {
		// A server that was known under the key stays: one bad write must not take it out of the cluster.
		if d.bad[key] != revision {
			d.bad[key] = revision
			d.log.Warn("invalid entry among the servers in etcd", "key", key, "err", err)
		}
		return nil
	}
	delete(d.bad, key)
	var events []DiscoveryEvent
	if old != nil && (old.info.ID != info.ID || old.info.Type != info.Type) {
		events, old = d.removed(key), nil
	}
	if slices.Contains(d.cfg.IgnoredTypes, info.Type) {
		return events
	}
	d.known[key], d.keyOf[info.ID] = &etcdServer{info, bytes.Clone(value), revision}, key
	if old == nil {
		return append(events, DiscoveryEvent{Change: ServerJoined, Server: info})
	}
	if sameServer(old.info, info) {
		return events
	}
	return append(events, DiscoveryEvent{Change: ServerUpdated, Server: info})
}

// checkLeaseless has the own entry put back if somebody has written it without a lease: that is no server's, it says what
// nobody knows, and it would outlive this one.
func (d *EtcdDiscovery) checkLeaseless(lease clientv3.LeaseID, revision int64) {
	d.mu.Lock()
	again := lease == 0 && d.publishedAt != 0 && revision > d.publishedAt
	d.mu.Unlock()
	if again {
		d.log.Warn("own entry in etcd was written by somebody else, putting it back")
		d.lease.Wake()
	}
}

// putSelf reports the own server as it was last given, not as somebody may have written it into etcd.
func (d *EtcdDiscovery) putSelf() []DiscoveryEvent {
	d.mu.Lock()
	self := d.self
	d.mu.Unlock()
	change := ServerUpdated
	switch {
	case d.reported == nil:
		change = ServerJoined
	case sameServer(d.reported, self):
		return nil
	}
	d.reported = self
	return []DiscoveryEvent{{Change: change, Server: self}}
}

// removed forgets the server of a key.
func (d *EtcdDiscovery) removed(key string) []DiscoveryEvent {
	old := d.known[key]
	if old == nil {
		return nil
	}
	delete(d.known, key)
	delete(d.keyOf, old.info.ID)
	if len(d.bad) > 0 {
		d.see() // one of them may have had the id that is free now
	}
	return []DiscoveryEvent{{Change: ServerLeft, Server: old.info}}
}

// parse reads an entry. Identity is what the value says; the key only has to be of the right form.
func (d *EtcdDiscovery) parse(key string, value []byte) (*ServerInfo, error) {
	typ, id, ok := strings.Cut(strings.TrimPrefix(key, d.servers), "/")
	if !ok || typ == "" || id == "" || strings.Contains(id, "/") {
		return nil, errors.New("the key is not of the form servers/<type>/<id>")
	}
	info, err := decodeServer(value)
	if err != nil {
		return nil, err
	}
	if info.ID == d.id {
		return nil, errors.New("the id is that of the own server")
	}
	if other, ok := d.keyOf[info.ID]; ok && other != key {
		return nil, fmt.Errorf("the id is that of %s", other)
	}
	return info, nil
}
