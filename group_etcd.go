//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Groups in etcd: a key <prefix>groups/<group> for each group and <prefix>groups/<group>/uids/<uid> for each member, without
// values. See section 12 of the cluster protocol.

const (
	etcdTransactionTimeout = 5 * time.Second
	// maxEtcdGroupUIDs is how many uids one transaction can change: etcd allows 128 operations unless it is
	// configured otherwise, and one is for the group.
	maxEtcdGroupUIDs = 127
)

// EtcdGroups is a [GroupStore] in etcd, for all servers that use the same etcd and prefix. Make it with [NewEtcdGroups].
//
// Members come in the order of their uids. TTLs are rounded up to whole seconds and to the least that etcd grants, and
// groups vanish up to a second later. Add and Remove take up to 127 uids in one call, since that is what etcd can do in one
// moment; more are an error. A group whose name contains "/uids/" or ends in "/uids" is an error, for its keys would be
// those of members of another.
type EtcdGroups struct {
	etcd    *clientv3.Client
	groups  string // prefix of the keys
	timeout time.Duration
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// NewEtcdGroups connects to etcd in the background: while etcd cannot be reached, calls fail when their context or
// GroupsEtcdConfig.TransactionTimeout ends. With a user it logs in first, and fails if it cannot within
// GroupsEtcdConfig.DialTimeout. The logger may be nil for none.
func NewEtcdGroups(cfg GroupsEtcdConfig, log *slog.Logger) (*EtcdGroups, error) {
	etcd, _, err := openEtcdStore(etcdSettings{cfg.Endpoints, cfg.User, cfg.Password, cfg.TLS, cfg.TLSConfig, cfg.DialTimeout})
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	s := &EtcdGroups{
		etcd: etcd, stop: stop,
		groups:  etcdKeys(cfg.Prefix, cfg.NoPrefix) + "groups/",
		timeout: cmp.Or(max(cfg.TransactionTimeout, 0), etcdTransactionTimeout),
	}
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	s.wg.Go(func() {
		superviseEtcd(life, etcd, func(ready bool) { log.Info("connection of groups to etcd", "connected", ready) })
	})
	return s, nil
}

// Close ends the connection. The groups stay. Calls after it fail. It may be called more than once.
func (s *EtcdGroups) Close() error {
	s.stop()
	s.wg.Wait()
	s.etcd.Close() // its error is that its context has ended
	return nil
}

func (s *EtcdGroups) key(group string) string         { return s.groups + group }
func (s *EtcdGroups) members(group string) string     { return s.groups + group + "/uids/" }
func (s *EtcdGroups) member(group, uid string) string { return s.members(group) + uid }

// begin checks a call and bounds it.
func (s *EtcdGroups) begin(ctx context.Context, group string, uids ...string) (context.Context, context.CancelFunc, error) {
	if err := checkGroupCall(ctx, group, uids...); err != nil {
		return nil, nil, err
	}
	if strings.Contains(group+"/", "/uids/") {
		return nil, nil, fmt.Errorf("pitaya: group %q: the name has the part /uids", group)
	}
	if len(uids) > maxEtcdGroupUIDs {
		return nil, nil, fmt.Errorf("pitaya: group %q: %d uids in one call, the most is %d", group, len(uids), maxEtcdGroupUIDs)
	}
	if etcdDown(s.etcd) {
		return nil, nil, s.failed(group, errEtcdDown)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	return ctx, cancel, nil
}

// failed names the group of an error of etcd.
func (s *EtcdGroups) failed(group string, err error) error {
	return fmt.Errorf("pitaya: group %q: etcd: %w", group, err)
}

func (s *EtcdGroups) exists(group string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(s.key(group)), ">", 0)
}

// onGroup does operations in one moment, if the group exists.
func (s *EtcdGroups) onGroup(ctx context.Context, group string, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	r, err := s.etcd.Txn(ctx).If(s.exists(group)).Then(ops...).Commit()
	if err != nil {
		return nil, s.failed(group, err)
	}
	if !r.Succeeded {
		return nil, fmt.Errorf("%w: %q", ErrGroupNotFound, group)
	}
	return r, nil
}

// Create implements [GroupStore].
func (s *EtcdGroups) Create(ctx context.Context, group string, ttl time.Duration) error {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return err
	}
	defer cancel()
	if err := checkGroupTTL(group, ttl); err != nil {
		return err
	}
	var opts []clientv3.OpOption
	var lease clientv3.LeaseID
	if ttl > 0 {
		seconds, err := etcdTTL(ttl, 0)
		if err != nil {
			return err
		}
		r, err := s.etcd.Grant(ctx, seconds)
		if err != nil {
			return s.failed(group, err)
		}
		lease = r.ID
		opts = append(opts, clientv3.WithLease(lease))
	}
	// Members without a group are leftovers of somebody who was interrupted, and not members of the new one.
	r, err := s.etcd.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(s.key(group)), "=", 0)).
		Then(clientv3.OpDelete(s.members(group), clientv3.WithPrefix()), clientv3.OpPut(s.key(group), "", opts...)).
		Commit()
	if err == nil && r.Succeeded {
		return nil
	}
	if err == nil && lease != 0 {
		// Without that it would take its time to end. Nothing is under it. Not so after an error, when the
		// group may exist.
		_, _ = s.etcd.Revoke(ctx, lease)
	}
	if err != nil {
		return s.failed(group, err)
	}
	return fmt.Errorf("%w: %q", ErrGroupExists, group)
}

// Delete implements [GroupStore].
func (s *EtcdGroups) Delete(ctx context.Context, group string) error {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return err
	}
	defer cancel()
	r, err := s.onGroup(ctx, group, clientv3.OpGet(s.key(group)), clientv3.OpDelete(s.key(group)),
		clientv3.OpDelete(s.members(group), clientv3.WithPrefix()))
	if err != nil {
		return err
	}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 && kvs[0].Lease != 0 {
		_, _ = s.etcd.Revoke(ctx, clientv3.LeaseID(kvs[0].Lease)) // nothing is under it any more
	}
	return nil
}

// Renew implements [GroupStore].
func (s *EtcdGroups) Renew(ctx context.Context, group string) error {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return err
	}
	defer cancel()
	now, err := s.look(ctx, group, nil)
	if err != nil {
		return err
	}
	if now.lease == 0 {
		return fmt.Errorf("%w: %q", ErrGroupNoTTL, group)
	}
	if _, err := s.etcd.KeepAliveOnce(ctx, now.lease); err != nil {
		// Perhaps its time was over in this very moment.
		if _, gone := s.look(ctx, group, nil); errors.Is(gone, ErrGroupNotFound) {
			return gone
		}
		return s.failed(group, err)
	}
	return nil
}

// etcdGroupState is a group at one moment.
type etcdGroupState struct {
	created int64 // revision, which tells groups of one name apart
	lease   clientv3.LeaseID
	present map[string]bool // of the uids that were asked for
}

// look returns the state of a group, as to some uids.
func (s *EtcdGroups) look(ctx context.Context, group string, uids []string) (etcdGroupState, error) {
	now := etcdGroupState{present: make(map[string]bool, len(uids))}
	ops := []clientv3.Op{clientv3.OpGet(s.key(group))}
	for _, uid := range uids {
		ops = append(ops, clientv3.OpGet(s.member(group, uid), clientv3.WithCountOnly()))
	}
	r, err := s.onGroup(ctx, group, ops...)
	if err != nil {
		return now, err
	}
	kv := r.Responses[0].GetResponseRange().Kvs[0]
	now.created, now.lease = kv.CreateRevision, clientv3.LeaseID(kv.Lease)
	for i, uid := range uids {
		now.present[uid] = r.Responses[i+1].GetResponseRange().Count > 0
	}
	return now, nil
}

// change adds or removes uids if all of them are on the other side. What it finds out first is only for the error and the
// lease: the transaction that follows checks all of it again, and where it has changed meanwhile, change begins anew.
func (s *EtcdGroups) change(ctx context.Context, group string, uids []string, add bool) error {
	ctx, cancel, err := s.begin(ctx, group, uids...)
	if err != nil {
		return err
	}
	defer cancel()
	wrong := ErrMemberNotFound
	if add {
		wrong = ErrMemberExists
	}
	for {
		now, err := s.look(ctx, group, uids)
		if err != nil {
			return err
		}
		still := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.key(group)), "=", now.created)}
		var ops []clientv3.Op
		for _, uid := range uids {
			if now.present[uid] == add {
				return fmt.Errorf("%w: %q in %q", wrong, uid, group)
			}
			now.present[uid] = add // for uids that are given twice
			key := s.member(group, uid)
			if add {
				still = append(still, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
				ops = append(ops, clientv3.OpPut(key, "", clientv3.WithLease(now.lease)))
			} else {
				still = append(still, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
				ops = append(ops, clientv3.OpDelete(key))
			}
		}
		if len(ops) == 0 {
			return nil
		}
		r, err := s.etcd.Txn(ctx).If(still...).Then(ops...).Commit()
		if err != nil {
			return s.failed(group, err)
		}
		if r.Succeeded {
			return nil
		}
	}
}

// Add implements [GroupStore].
func (s *EtcdGroups) Add(ctx context.Context, group string, uids ...string) error {
	return s.change(ctx, group, uids, true)
}

// Remove implements [GroupStore].
func (s *EtcdGroups) Remove(ctx context.Context, group string, uids ...string) error {
	return s.change(ctx, group, uids, false)
}

// RemoveAll implements [GroupStore].
func (s *EtcdGroups) RemoveAll(ctx context.Context, group string) error {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = s.onGroup(ctx, group, clientv3.OpDelete(s.members(group), clientv3.WithPrefix()))
	return err
}

// Members implements [GroupStore].
func (s *EtcdGroups) Members(ctx context.Context, group string) ([]string, error) {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return nil, err
	}
	defer cancel()
	prefix := s.members(group)
	r, err := s.onGroup(ctx, group, clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	if err != nil {
		return nil, err
	}
	kvs := r.Responses[0].GetResponseRange().Kvs
	uids := make([]string, len(kvs))
	for i, kv := range kvs {
		uids[i] = strings.TrimPrefix(string(kv.Key), prefix)
	}
	return uids, nil
}

// Contains implements [GroupStore].
func (s *EtcdGroups) Contains(ctx context.Context, group, uid string) (bool, error) {
	ctx, cancel, err := s.begin(ctx, group, uid)
	if err != nil {
		return false, err
	}
	defer cancel()
	n, err := s.count(ctx, group, s.member(group, uid))
	return n > 0, err
}

// Count implements [GroupStore].
func (s *EtcdGroups) Count(ctx context.Context, group string) (int, error) {
	ctx, cancel, err := s.begin(ctx, group)
	if err != nil {
		return 0, err
	}
	defer cancel()
	return s.count(ctx, group, s.members(group), clientv3.WithPrefix())
}

// count counts keys of a group that exists.
func (s *EtcdGroups) count(ctx context.Context, group, key string, opts ...clientv3.OpOption) (int, error) {
	r, err := s.onGroup(ctx, group, clientv3.OpGet(key, append(opts, clientv3.WithCountOnly())...))
	if err != nil {
		return 0, err
	}
	return int(r.Responses[0].GetResponseRange().Count), nil
}
