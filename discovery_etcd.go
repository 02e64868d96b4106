//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
