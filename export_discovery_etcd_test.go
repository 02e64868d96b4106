//go:build !nocluster

package pitaya

import clientv3 "go.etcd.io/etcd/client/v3"

// An EtcdView is what a Discovery makes of what etcd tells it, without etcd.
type EtcdView struct{ d *EtcdDiscovery }

// An EtcdEntry is a key as etcd has it.
type EtcdEntry struct {
	Key, Value      string
	Revision, Lease int64
}

// NewEtcdView returns one of a server that has joined, under lease 1.
func NewEtcdView(cfg EtcdConfig, self *ServerInfo, watch func(DiscoveryEvent)) (EtcdView, error) {
	d, err := NewEtcdDiscovery(cfg, nil)
	if err != nil {
		return EtcdView{}, err
	}
	d.watch, d.id, d.key, d.self = watch, self.ID, d.servers+self.Type+"/"+self.ID, self
	d.lease = newEtcdLease(etcdLeaseConfig{})
	d.lease.setID(1)
	d.own[1] = true
	return EtcdView{d}, nil
}

// List shows it all servers.
func (v EtcdView) List(revision int64, entries []EtcdEntry) {
	r := new(clientv3.GetResponse)
	r.Header = allocate(r.Header)
	r.Header.Revision = revision
	for _, e := range entries {
		kv := allocateElement(r.Kvs)
		kv.Key, kv.Value, kv.ModRevision, kv.Lease = []byte(e.Key), []byte(e.Value), e.Revision, e.Lease
		r.Kvs = append(r.Kvs, kv)
	}
	events, _ := v.d.compare(r)
	v.tell(events)
}

// Put shows it that an entry was written.
func (v EtcdView) Put(e EtcdEntry) { v.apply(e, true) }

// Delete shows it that one is gone.
func (v EtcdView) Delete(e EtcdEntry) { v.apply(e, false) }

func (v EtcdView) apply(e EtcdEntry, put bool) {
	change := new(clientv3.Event)
	change.Kv = allocate(change.Kv)
	change.Kv.Key, change.Kv.Value, change.Kv.ModRevision, change.Kv.Lease = []byte(e.Key), []byte(e.Value), e.Revision, e.Lease
	if !put {
		change.Type = clientv3.EventTypeDelete
	}
	v.tell(v.d.apply(change))
}

func (v EtcdView) tell(events []DiscoveryEvent) {
	for _, e := range events {
		v.d.watch(e)
	}
}

// Wants reports whether it asks for a list, and for the own entry to be written again.
func (v EtcdView) Wants() (list, publish bool) {
	select {
	case <-v.d.resync:
		list = true
	default:
	}
	select {
	case <-v.d.lease.wake:
		publish = true
	default:
	}
	return list, publish
}

// Known is how many servers, ids and invalid entries it has noted.
func (v EtcdView) Known() (servers, ids, invalid int) {
	return len(v.d.known), len(v.d.keyOf), len(v.d.bad)
}

// allocate returns a new one of a type that cannot be named without a further requirement.
func allocate[T any](*T) *T          { return new(T) }
func allocateElement[T any]([]*T) *T { return new(T) }
