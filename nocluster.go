//go:build nocluster

package pitaya

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// What stands on etcd and NATS, in a program that is built without them: the same names, so that the same code compiles,
// and constructors that fail with [ErrLeftOut]. Nobody gets at a value whose methods would be worth calling; those of a
// zero value say the same.

// leftOut is the error of what cannot be had.
func leftOut(what string) error { return fmt.Errorf("%w: there is no %s", ErrLeftOut, what) }

// EtcdDiscovery is a [Discovery] in etcd, which this program was built without.
type EtcdDiscovery struct{ _ byte }

// NewEtcdDiscovery returns [ErrLeftOut].
func NewEtcdDiscovery(EtcdConfig, *slog.Logger) (*EtcdDiscovery, error) {
	return nil, leftOut("EtcdDiscovery")
}

// Join implements [Discovery].
func (*EtcdDiscovery) Join(context.Context, *ServerInfo, func(DiscoveryEvent)) error {
	return leftOut("EtcdDiscovery")
}

// Update implements [Discovery].
func (*EtcdDiscovery) Update(context.Context, *ServerInfo) error { return leftOut("EtcdDiscovery") }

// Leave implements [Discovery].
func (*EtcdDiscovery) Leave(context.Context) error { return leftOut("EtcdDiscovery") }

// Healthy implements [Discovery].
func (*EtcdDiscovery) Healthy() error { return leftOut("EtcdDiscovery") }

// GaveUp returns nil: nothing was tried.
func (*EtcdDiscovery) GaveUp() <-chan struct{} { return nil }

// EtcdGroups is a [GroupStore] in etcd, which this program was built without.
type EtcdGroups struct{ _ byte }

// NewEtcdGroups returns [ErrLeftOut].
func NewEtcdGroups(GroupsEtcdConfig, *slog.Logger) (*EtcdGroups, error) {
	return nil, leftOut("EtcdGroups")
}

// Create implements [GroupStore].
func (*EtcdGroups) Create(context.Context, string, time.Duration) error { return leftOut("EtcdGroups") }

// Renew implements [GroupStore].
func (*EtcdGroups) Renew(context.Context, string) error { return leftOut("EtcdGroups") }

// Delete implements [GroupStore].
func (*EtcdGroups) Delete(context.Context, string) error { return leftOut("EtcdGroups") }

// Add implements [GroupStore].
func (*EtcdGroups) Add(context.Context, string, ...string) error { return leftOut("EtcdGroups") }

// Remove implements [GroupStore].
func (*EtcdGroups) Remove(context.Context, string, ...string) error { return leftOut("EtcdGroups") }

// RemoveAll implements [GroupStore].
func (*EtcdGroups) RemoveAll(context.Context, string) error { return leftOut("EtcdGroups") }

// Members implements [GroupStore].
func (*EtcdGroups) Members(context.Context, string) ([]string, error) {
	return nil, leftOut("EtcdGroups")
}

// Contains implements [GroupStore].
func (*EtcdGroups) Contains(context.Context, string, string) (bool, error) {
	return false, leftOut("EtcdGroups")
}

// Count implements [GroupStore].
func (*EtcdGroups) Count(context.Context, string) (int, error) { return 0, leftOut("EtcdGroups") }

// Close does nothing.
func (*EtcdGroups) Close() error { return nil }

// EtcdBindings is a [BindingStore] in etcd, which this program was built without.
type EtcdBindings struct{ _ byte }

// NewEtcdBindings returns [ErrLeftOut].
func NewEtcdBindings(BindingEtcdConfig, string, string, *slog.Logger) (*EtcdBindings, error) {
	return nil, leftOut("EtcdBindings")
}

// Put implements [BindingStore].
func (*EtcdBindings) Put(context.Context, string) error { return leftOut("EtcdBindings") }

// Get implements [BindingStore].
func (*EtcdBindings) Get(context.Context, string, string) (string, error) {
	return "", leftOut("EtcdBindings")
}

// Delete implements [BindingStore].
func (*EtcdBindings) Delete(context.Context, string) error { return leftOut("EtcdBindings") }

// Close implements [BindingStore].
func (*EtcdBindings) Close(context.Context) error { return nil }

// NATSTransport is a [Transport] over NATS, which this program was built without.
type NATSTransport struct{ _ byte }

// NewNATSTransport returns [ErrLeftOut].
func NewNATSTransport(_, _ NATSConfig, _ *slog.Logger) (*NATSTransport, error) {
	return nil, leftOut("NATSTransport")
}

// Listen implements [Transport]. It fails, so that what follows is never called.
func (*NATSTransport) Listen(context.Context, *ServerInfo, TransportHandler) error {
	return leftOut("NATSTransport")
}

// Call implements [Transport].
func (*NATSTransport) Call(context.Context, *ServerInfo, []byte, func([]byte, error)) {}

// Notify implements [Transport].
func (*NATSTransport) Notify(context.Context, *Notice) error { return leftOut("NATSTransport") }

// Bind implements [Transport].
func (*NATSTransport) Bind(context.Context, string) error { return leftOut("NATSTransport") }

// Unbind implements [Transport].
func (*NATSTransport) Unbind(context.Context, string) error { return leftOut("NATSTransport") }

// ServerSeen implements [Transport].
func (*NATSTransport) ServerSeen(*ServerInfo) {}

// ServerGone implements [Transport].
func (*NATSTransport) ServerGone(*ServerInfo) {}

// Healthy implements [Transport].
func (*NATSTransport) Healthy() error { return leftOut("NATSTransport") }

// Ordered implements [Transport].
func (*NATSTransport) Ordered() bool { return true }

// Drain implements [Transport].
func (*NATSTransport) Drain(context.Context) error { return nil }

// Close implements [Transport].
func (*NATSTransport) Close(context.Context) error { return nil }

// Dropped returns 0.
func (*NATSTransport) Dropped() int64 { return 0 }

// NATSJobs is a [JobStore] in NATS JetStream, which this program was built without.
type NATSJobs struct{ _ byte }

// NewNATSJobs returns [ErrLeftOut].
func NewNATSJobs(NATSConfig, NATSJobsOptions, *slog.Logger) (*NATSJobs, error) {
	return nil, leftOut("NATSJobs; Config.Jobs takes another store")
}

// Enqueue implements [JobStore].
func (*NATSJobs) Enqueue(context.Context, string, []byte) error { return leftOut("NATSJobs") }

// Fetch implements [JobStore].
func (*NATSJobs) Fetch(context.Context) (JobLease, error) { return nil, leftOut("NATSJobs") }

// DeadJobs implements [JobStore].
func (*NATSJobs) DeadJobs(context.Context, uint64, int) ([]DeadJob, error) {
	return nil, leftOut("NATSJobs")
}

// RequeueDead implements [JobStore].
func (*NATSJobs) RequeueDead(context.Context, string) error { return leftOut("NATSJobs") }

// DeleteDead implements [JobStore].
func (*NATSJobs) DeleteDead(context.Context, string) error { return leftOut("NATSJobs") }

// Count implements [JobStore].
func (*NATSJobs) Count(context.Context) (JobCount, error) { return JobCount{}, leftOut("NATSJobs") }

// Close implements [JobStore].
func (*NATSJobs) Close(context.Context) error { return nil }
