//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Bindings in etcd: a key <prefix>bindings/<frontend type>/<uid> with the id of the frontend as value, under a lease of the
// frontend. See section 11 of the cluster protocol.

const (
	etcdBindingTTL = 5 * time.Hour
	// etcdBindingParallel is how many bindings are written at once after a lease was lost. One after the other would
	// take a minute for 50,000.
	etcdBindingParallel = 32
	// etcdBindingTimeout bounds that. What was not done by then is, in the next attempt.
	etcdBindingTimeout = time.Minute
	// etcdBindingCheck is how soon the store notices that its lease was revoked. The renewals of one of 5 h, more than an
	// hour apart, would leave all users without a binding for as long.
	etcdBindingCheck = 10 * time.Second
)

// EtcdBindings is a [BindingStore] in etcd. Make it with [NewEtcdBindings].
//
// All bindings of a server are under one lease, which is granted at the first Put. When it is lost, they are written again,
// except for users that another frontend has taken over meanwhile. A Delete that fails is done later.
type EtcdBindings struct {
	// Immutable.
	etcd     *clientv3.Client
	bindings string // prefix of the keys
	typ, id  string // of this server
	timeout  time.Duration
	lease    *etcdLease
	stop     context.CancelFunc
	wg       sync.WaitGroup
	log      *slog.Logger

	mu  sync.Mutex              // guards the map and what is in it; never held across a call of etcd
	own map[string]*etcdBinding // by uid
}

// An etcdBinding is what this server wants of one uid, and what etcd knows of it.
type etcdBinding struct {
	bound bool             // it is to be there; otherwise it is to be deleted
	lease clientv3.LeaseID // it was written under; 0 if it was not
	drop  bool             // Delete was called while somebody was busy with it
	busy  chan struct{}    // closed when whoever is at it has done; nil if nobody is
}

// NewEtcdBindings connects to etcd in the background: while etcd cannot be reached, calls fail when their context or
// BindingEtcdConfig.DialTimeout ends. With a user it logs in first, and fails if it cannot within that time. serverType and
// serverID are those of the own server. The logger may be nil for none.
func NewEtcdBindings(cfg BindingEtcdConfig, serverType, serverID string, log *slog.Logger) (*EtcdBindings, error) {
	if err := checkServerInfo(&ServerInfo{ID: serverID, Type: serverType}); err != nil {
		return nil, fmt.Errorf("pitaya: etcd bindings: own server: %w", err)
	}
	ttl, err := etcdTTL(cfg.LeaseTTL, etcdBindingTTL)
	if err != nil {
		return nil, err
	}
	etcd, timeout, err := openEtcdStore(etcdSettings{cfg.Endpoints, cfg.User, cfg.Password, cfg.TLS, cfg.TLSConfig, cfg.DialTimeout})
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	b := &EtcdBindings{
		etcd: etcd, typ: serverType, id: serverID, stop: stop,
		bindings: etcdKeys(cfg.Prefix, cfg.NoPrefix) + "bindings/",
		timeout:  timeout,
		log:      cmp.Or(log, slog.New(slog.DiscardHandler)),
		own:      make(map[string]*etcdBinding),
	}
	b.lease = newEtcdLease(etcdLeaseConfig{
		Client: etcd, TTL: ttl, Timeout: etcdBindingTimeout, Longest: etcdGrantInterval, Check: etcdBindingCheck,
		Publish: b.publish, Log: b.log,
	})
	b.wg.Go(func() { b.lease.run(life) })
	b.wg.Go(func() {
		superviseEtcd(life, etcd, func(ready bool) {
			b.log.Info("connection of bindings to etcd", "connected", ready)
			// The lease is long: its next renewal would be late to notice that it is lost.
			if ready && b.lease.ID() != 0 {
				b.lease.Wake()
			}
		})
	})
	return b, nil
}

func (b *EtcdBindings) key(frontendType, uid string) string {
	return b.bindings + frontendType + "/" + uid
}

// acquire returns the binding of a uid for the caller alone, until release.
func (b *EtcdBindings) acquire(ctx context.Context, uid string) (*etcdBinding, error) {
	for {
		b.mu.Lock()
		e := b.own[uid]
		if e == nil {
			e = &etcdBinding{}
			b.own[uid] = e
		}
		busy := e.busy
		if busy == nil {
			e.busy = make(chan struct{})
			b.mu.Unlock()
			return e, nil
		}
		b.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// release ends acquire, with what has become of the binding.
func (b *EtcdBindings) release(uid string, e *etcdBinding, bound bool, lease clientv3.LeaseID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.drop {
		bound, lease, e.drop = false, unknownLease, false
	}
	e.bound, e.lease = bound, lease
	close(e.busy)
	e.busy = nil
	if !bound && lease == 0 {
		delete(b.own, uid)
	}
}

// unknownLease stands for that of a binding that may have been written or not.
const unknownLease clientv3.LeaseID = -1

// Put implements [BindingStore].
func (b *EtcdBindings) Put(ctx context.Context, uid string) error {
	if uid == "" {
		return errors.New("pitaya: binding: empty uid")
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	failed := func(err error) error { return fmt.Errorf("pitaya: binding %q: etcd: %w", uid, err) }
	if etcdDown(b.etcd) {
		return failed(errEtcdDown)
	}
	e, err := b.acquire(ctx, uid)
	if err != nil {
		return failed(err)
	}
	for attempt := 0; ; attempt++ {
		var lease clientv3.LeaseID
		if lease, err = b.leaseID(ctx); err != nil {
			break
		}
		if _, err = b.etcd.Put(ctx, b.key(b.typ, uid), b.id, clientv3.WithLease(lease)); err == nil {
			b.release(uid, e, true, lease)
			if lease != b.lease.ID() {
				// It was lost just now, and what was written again may have been without this one.
				b.lease.Wake()
			}
			return nil
		}
		if attempt > 0 || ctx.Err() != nil {
			break
		}
		// Perhaps the lease is gone and nobody has noticed yet. Looking at it means waiting for all bindings
		// that nobody is at, so not for this one.
		select {
		case <-b.lease.Wake():
		case <-ctx.Done():
		}
	}
	// It may be there for all we know, and is not to be.
	b.release(uid, e, false, unknownLease)
	b.lease.Wake()
	return failed(err)
}

// leaseID returns the lease, and has it granted if there is none.
func (b *EtcdBindings) leaseID(ctx context.Context) (clientv3.LeaseID, error) {
	if id := b.lease.ID(); id != 0 {
		return id, nil
	}
	select {
	case <-b.lease.Wake():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	id := b.lease.ID()
	if id == 0 {
		return 0, cmp.Or(b.lease.Err(), errors.New("no lease"))
	}
	return id, nil
}

// Get implements [BindingStore].
func (b *EtcdBindings) Get(ctx context.Context, uid, frontendType string) (string, error) {
	if uid == "" || frontendType == "" || strings.Contains(frontendType, "/") {
		return "", fmt.Errorf("%w: %q on %q", ErrNoBinding, uid, frontendType)
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	if etcdDown(b.etcd) {
		return "", fmt.Errorf("pitaya: binding %q: etcd: %w", uid, errEtcdDown)
	}
	ctx, over := whileEtcd(ctx, b.etcd)
	defer over()
	r, err := b.etcd.Get(ctx, b.key(frontendType, uid))
	if err != nil && context.Cause(ctx) == errEtcdDown {
		err = errEtcdDown
	}
	if err != nil {
		return "", fmt.Errorf("pitaya: binding %q: etcd: %w", uid, err)
	}
	if len(r.Kvs) == 0 {
		return "", fmt.Errorf("%w: %q on %q", ErrNoBinding, uid, frontendType)
	}
	return string(r.Kvs[0].Value), nil
}

// Delete implements [BindingStore].
func (b *EtcdBindings) Delete(ctx context.Context, uid string) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	e, err := b.acquire(ctx, uid)
	if err == nil {
		if err = b.remove(ctx, uid); err == nil {
			b.release(uid, e, false, 0)
			return nil
		}
		b.release(uid, e, false, unknownLease)
	} else {
		b.mu.Lock()
		if e := b.own[uid]; e != nil && e.busy != nil {
			e.drop = true
		} else if e != nil {
			e.bound, e.lease = false, unknownLease
		}
		b.mu.Unlock()
	}
	b.lease.Wake()
	return fmt.Errorf("pitaya: binding %q: etcd: %w", uid, err)
}

// remove deletes a binding, unless it is another server's.
func (b *EtcdBindings) remove(ctx context.Context, uid string) error {
	if etcdDown(b.etcd) {
		return errEtcdDown
	}
	key := b.key(b.typ, uid)
	_, err := b.etcd.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", b.id)).Then(clientv3.OpDelete(key)).Commit()
	return err
}

// rewrite writes a binding under another lease, unless another server has the user, and reports whether it has not.
func (b *EtcdBindings) rewrite(ctx context.Context, uid string, lease clientv3.LeaseID) (bool, error) {
	key := b.key(b.typ, uid)
	put := clientv3.OpPut(key, b.id, clientv3.WithLease(lease))
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	r, err := b.etcd.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", b.id)).Then(put).
		Else(clientv3.OpTxn([]clientv3.Cmp{absent}, []clientv3.Op{put}, nil)).Commit()
	if err != nil {
		return false, err
	}
	return r.Succeeded || r.Responses[0].GetResponseTxn().Succeeded, nil
}

// publish writes what is not under the lease, and deletes what is to be deleted.
func (b *EtcdBindings) publish(ctx context.Context, lease clientv3.LeaseID) error {
	if r, err := b.etcd.TimeToLive(ctx, lease); err != nil {
		return fmt.Errorf("pitaya: bindings: etcd: %w", err)
	} else if r.TTL <= 0 {
		return errors.New("pitaya: bindings: the lease is gone")
	}
	b.mu.Lock()
	var todo []string
	for _, uid := range slices.Sorted(maps.Keys(b.own)) {
		// Whoever is at a binding now sees to it.
		if e := b.own[uid]; e.busy == nil && (!e.bound || e.lease != lease) {
			todo = append(todo, uid)
		}
	}
	b.mu.Unlock()

	var wg sync.WaitGroup
	errs := make(chan error, etcdBindingParallel)
	work := make(chan string)
	for range min(etcdBindingParallel, len(todo)) {
		wg.Go(func() {
			var err error
			for uid := range work {
				if err == nil {
					err = b.settle(ctx, uid, lease)
				}
			}
			errs <- err
		})
	}
	for _, uid := range todo {
		work <- uid
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("pitaya: bindings: etcd: %w", err)
		}
	}
	return nil
}

// settle makes etcd know of one binding what it should.
func (b *EtcdBindings) settle(ctx context.Context, uid string, lease clientv3.LeaseID) error {
	b.mu.Lock()
	e := b.own[uid]
	if e == nil || e.busy != nil || e.bound && e.lease == lease {
		b.mu.Unlock()
		return nil
	}
	e.busy = make(chan struct{})
	bound, before := e.bound, e.lease
	b.mu.Unlock()
	var err error
	if bound {
		bound, err = b.rewrite(ctx, uid, lease)
	} else {
		lease, err = 0, b.remove(ctx, uid)
	}
	switch {
	case err != nil:
		b.release(uid, e, e.bound, before)
	case bound:
		b.release(uid, e, true, lease)
	default:
		b.release(uid, e, false, 0)
	}
	return err
}

// Close implements [BindingStore]. It waits for etcd no longer than BindingEtcdConfig.DialTimeout.
func (b *EtcdBindings) Close(ctx context.Context) error {
	b.stop()
	b.wg.Wait()
	err := b.lease.revoke(ctx, b.timeout)
	b.etcd.Close() // its error is that its context has ended
	return err
}
