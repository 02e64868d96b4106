//go:build !nocluster

package pitaya

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Discovery in etcd: each server is a key <prefix>servers/<type>/<id> under a lease, with the server as JSON. See
// section 10 of the cluster protocol.

// Defaults of the settings in [EtcdConfig].
const (
	etcdHeartbeatTTL  = 60 * time.Second
	etcdSyncInterval  = 120 * time.Second
	etcdRevokeTimeout = 5 * time.Second
	etcdGrantTimeout  = 60 * time.Second
	etcdGrantInterval = 5 * time.Second
)

// EtcdDiscovery is a [Discovery] in etcd. Make it with [NewEtcdDiscovery].
//
// The own server is listed under a lease of EtcdConfig.HeartbeatTTL: one that dies without Leave vanishes when this time
// is over. A lease that is lost is replaced, a key that somebody deletes is put back, and both with all data lost are
// the same. Servers of which etcd says nothing because it is away, or because it has come back without its data, stay
// known: the latter for one HeartbeatTTL, in which those that live have registered again.
//
// Two servers that live with one id are noticed by both, by the one whose entry was overwritten at once and by the other
// within the time of the lease: each logs an error, and Healthy says so. Neither ends, since a server that was restarted
// right after a crash finds its old entry as well, and must not be kept out by that.
//
// Entries that are no servers (other JSON, no id or type, a key of another form) are skipped and logged once.
type EtcdDiscovery struct {
	// Immutable after NewEtcdDiscovery.
	cfg     EtcdConfig
	client  clientv3.Config
	ttl     int64  // seconds
	servers string // prefix of the keys
	log     *slog.Logger

	// Immutable after Join.
	etcd  *clientv3.Client
	watch func(DiscoveryEvent)
	key   string // of the own server
	id    string // of the own server
	lease *etcdLease
	stop  context.CancelFunc
	ended <-chan struct{} // closed by stop
	wg    sync.WaitGroup  // the goroutines of Join

	reconnects atomic.Int64

	resync chan struct{}         // holds a value when the servers are to be read; room for one
	found  chan clientv3.LeaseID // holds the last foreign lease that the own entry was under; room for one, and one sender

	// Owned by Join, and by the watching goroutine afterwards.
	known        map[string]*etcdServer // by key
	keyOf        map[string]string      // id to key
	bad          map[string]int64       // keys that were logged as invalid, with the revision of the value
	reported     *ServerInfo            // own server, as watch was told
	selfRevision int64                  // at which the own entry was written, as far as was seen
	revision     int64                  // of the last list; older events are part of it
	newest       int64                  // highest that was seen
	patient      time.Time              // until then servers that are missing in the list stay

	// Owned by the lease's publish.
	published clientv3.LeaseID

	mu          sync.Mutex                // guards the fields below
	self        *ServerInfo               // what is to be published
	publishedAt int64                     // the revision
	own         map[clientv3.LeaseID]bool // that the own entry was written under
	joined      bool                      // between Join and Leave
	watchErr    error                     // why the servers cannot be seen
	overwritten bool                      // another server has put itself in the own entry's place
	twin        bool                      // the own entry is in the place of that of a server that lives
}

// An etcdServer is a server as it was last seen.
type etcdServer struct {
	info     *ServerInfo
	value    []byte
	revision int64 // at which it was written
}

// NewEtcdDiscovery checks the configuration, reads the files that it names, and does not connect yet; Join does. The
// logger may be nil for none.
//
// EtcdConfig.SyncParallelism has no effect: the list of servers is one read. EtcdConfig.ShutdownDelay is the caller's
// to keep, between Leave and the end of the transports.
func NewEtcdDiscovery(cfg EtcdConfig, log *slog.Logger) (*EtcdDiscovery, error) {
	client, err := etcdSettings{
		Endpoints: cfg.Endpoints, User: cfg.User, Password: cfg.Password,
		TLSFiles: cfg.TLS, TLS: cfg.TLSConfig, DialTimeout: cfg.DialTimeout,
	}.clientConfig()
	if err != nil {
		return nil, err
	}
	ttl, err := etcdTTL(cfg.HeartbeatTTL, etcdHeartbeatTTL)
	if err != nil {
		return nil, err
	}
	cfg.SyncInterval = cmp.Or(max(cfg.SyncInterval, 0), etcdSyncInterval)
	cfg.RevokeTimeout = cmp.Or(max(cfg.RevokeTimeout, 0), etcdRevokeTimeout)
	cfg.GrantLeaseTimeout = cmp.Or(max(cfg.GrantLeaseTimeout, 0), etcdGrantTimeout)
	cfg.GrantLeaseInterval = cmp.Or(max(cfg.GrantLeaseInterval, 0), etcdGrantInterval)
	cfg.IgnoredTypes = slices.Clone(cfg.IgnoredTypes)
	return &EtcdDiscovery{
		cfg: cfg, client: client, ttl: ttl,
		servers: etcdKeys(cfg.Prefix, cfg.NoPrefix) + "servers/",
		log:     cmp.Or(log, slog.New(slog.DiscardHandler)),
		resync:  make(chan struct{}, 1), found: make(chan clientv3.LeaseID, 1),
		own:   make(map[clientv3.LeaseID]bool),
		known: make(map[string]*etcdServer), keyOf: make(map[string]string), bad: make(map[string]int64),
	}, nil
}

// Join implements [Discovery]. It fails when etcd is not reached, or does not answer, within EtcdConfig.DialTimeout for
// each of its steps: logging in where there is a user, the list of servers, the own entry, the list again. Only outages that come later are
// waited out, so that a wrong address shows at once. After an error it may be called again, but not after success.
func (d *EtcdDiscovery) Join(ctx context.Context, self *ServerInfo, watch func(DiscoveryEvent)) (err error) {
	if d.watch != nil {
		return errors.New("pitaya: etcd discovery: joined already")
	}
	if err := checkServerInfo(self); err != nil {
		return fmt.Errorf("pitaya: etcd discovery: own server: %w", err)
	}
	d.etcd, err = openEtcd(ctx, d.client)
	if err != nil {
		return err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			stop()
			_ = d.lease.revoke(context.WithoutCancel(ctx), d.cfg.RevokeTimeout) // it expires otherwise
			d.etcd.Close()
			d.watch, d.reported = nil, nil
			d.selfRevision, d.revision, d.newest, d.patient = 0, 0, 0, time.Time{}
			clear(d.known)
			clear(d.keyOf)
			clear(d.bad)
			d.mu.Lock()
			d.publishedAt, d.overwritten = 0, false
			d.mu.Unlock()
			err = fmt.Errorf("pitaya: etcd discovery at %s: joining: %w", etcdAddresses(d.etcd), err)
		}
	}()
	d.watch, d.id, d.key, d.stop = watch, self.ID, d.servers+self.Type+"/"+self.ID, stop
	d.ended = life.Done()
	d.mu.Lock()
	d.self = self
	d.mu.Unlock()
	d.lease = newEtcdLease(etcdLeaseConfig{
		Client: d.etcd, TTL: d.ttl, Timeout: d.cfg.GrantLeaseTimeout, Longest: d.cfg.GrantLeaseInterval,
		Retries: d.cfg.GrantLeaseRetries, Publish: d.publish, Beat: d.beat, Log: d.log,
	})

	// Who can be found is called at once, and must know the others by then, to push to users for instance. So they are
	// read before the own entry is written, and again for those that have come meanwhile.
	if _, err := d.read(ctx); err != nil {
		return err
	}
	// The call is bounded by ctx, what it starts is not.
	asked, cancel := context.WithTimeout(ctx, d.client.DialTimeout)
	defer cancel()
	if err := d.lease.try(life, asked); err != nil {
		return err
	}
	d.mu.Lock()
	d.selfRevision = d.publishedAt
	d.mu.Unlock()
	if _, err := d.read(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	d.joined = true
	d.mu.Unlock()
	d.wg.Go(func() { d.lease.run(life) })
	d.wg.Go(func() { d.follow(life) })
	d.wg.Go(func() { d.watchTwins(life) })
	d.wg.Go(func() {
		superviseEtcd(life, d.etcd, func(ready bool) {
			if !ready {
				d.log.Warn("connection to etcd lost")
				return
			}
			d.reconnects.Add(1)
			d.log.Info("connection to etcd is back")
			d.see()
		})
	})
	return nil
}

// Update implements [Discovery]. It waits until etcd has the new entry, an attempt has failed or ctx ends. Afterwards it
// is published as soon as possible. Id and type cannot change.
func (d *EtcdDiscovery) Update(ctx context.Context, self *ServerInfo) error {
	if err := checkServerInfo(self); err != nil {
		return fmt.Errorf("pitaya: etcd discovery: own server: %w", err)
	}
	d.mu.Lock()
	switch {
	case !d.joined:
		d.mu.Unlock()
		return errors.New("pitaya: etcd discovery: update outside of Join and Leave")
	case d.self.ID != self.ID || d.self.Type != self.Type:
		d.mu.Unlock()
		return errors.New("pitaya: etcd discovery: update with another id or type")
	}
	d.self = self
	d.mu.Unlock()
	select {
	case <-d.lease.Wake():
	case <-d.lease.GaveUp():
	case <-d.ended: // Leave was called meanwhile
	case <-ctx.Done():
	}
	return nil
}

// Leave implements [Discovery]. The entry vanishes at once if etcd can be told within EtcdConfig.RevokeTimeout and the
// time of ctx, and otherwise after EtcdConfig.HeartbeatTTL, with an error. It must not be called by watch.
func (d *EtcdDiscovery) Leave(ctx context.Context) error {
	d.mu.Lock()
	joined := d.joined
	d.joined = false
	d.mu.Unlock()
	if !joined {
		return nil
	}
	d.stop()
	d.wg.Wait()
	err := d.lease.revoke(ctx, d.cfg.RevokeTimeout)
	d.etcd.Close()
	return err
}

// Healthy implements [Discovery]: etcd is connected, the own server is listed, under its id no other one is, and the
// others are seen.
func (d *EtcdDiscovery) Healthy() error {
	d.mu.Lock()
	joined, err := d.joined, d.watchErr
	if d.overwritten || d.twin {
		err = fmt.Errorf("pitaya: etcd discovery: another server that lives has the id %q", d.id)
	}
	d.mu.Unlock()
	switch {
	case !joined:
		return errors.New("pitaya: etcd discovery: not joined")
	case !etcdReady(d.etcd):
		return errors.New("pitaya: etcd discovery: no connection to etcd")
	}
	return cmp.Or(d.lease.Err(), err)
}

// GaveUp returns a channel that is closed when EtcdConfig.GrantLeaseRetries attempts to register again have failed, which
// by default never happens. It belongs after Join.
func (d *EtcdDiscovery) GaveUp() <-chan struct{} { return d.lease.GaveUp() }

// reconnected returns how often the connection to etcd was lost and is back.
func (d *EtcdDiscovery) reconnected() int64 { return d.reconnects.Load() }

// publish puts the own server under a lease.
func (d *EtcdDiscovery) publish(ctx context.Context, id clientv3.LeaseID) error {
	d.mu.Lock()
	self := d.self
	d.own[id] = true // before anybody can see it
	d.mu.Unlock()
	value, err := encodeServer(self)
	if err != nil {
		return err
	}
	r, err := d.etcd.Put(ctx, d.key, string(value), clientv3.WithLease(id), clientv3.WithPrevKV())
	if err != nil {
		return fmt.Errorf("pitaya: etcd: registering: %w", err)
	}
	d.mu.Lock()
	d.publishedAt = r.Header.Revision
	foreign := r.PrevKv != nil && r.PrevKv.Lease != 0 && !d.own[clientv3.LeaseID(r.PrevKv.Lease)]
	d.mu.Unlock()
	if foreign {
		select {
		case <-d.found: // an older one, that nobody has looked at yet
		default:
		}
		d.found <- clientv3.LeaseID(r.PrevKv.Lease)
	}
	if d.published != 0 && d.published != id {
		// A lease is lost when etcd or the way there was away. Perhaps events were, too.
		d.see()
	}
	d.published = id
	return nil
}

func (d *EtcdDiscovery) beat() {
	if d.cfg.LogHeartbeat {
		d.log.Info("lease renewed", "lease", d.lease.ID())
	}
}

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
	return events, anew, nil
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
	if len(d.bad) > 0 {
		d.see() // one of them may have had the id that is free now
	}
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
