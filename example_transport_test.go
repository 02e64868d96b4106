package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A server of a cluster by etcd and NATS needs no more than settings.
func ExampleConfig_cluster() {
	server, err := pitaya.NewServer(pitaya.Config{
		Type: "room", Cluster: true,
		Etcd:       pitaya.EtcdConfig{Endpoints: []string{"etcd-1:2379", "etcd-2:2379"}, Prefix: "chess/"},
		NATSClient: pitaya.NATSConfig{URL: "nats://nats:4222"},
		NATSServer: pitaya.NATSConfig{URL: "nats://nats:4222"},
		Logger:     discard,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(server.Type(), server.IsRunning()) // Run connects
	// Output:
	// room false
}

// Over gRPC servers call each other without NATS. They have to tell where they
// listen, and need a store that says where users are.
func ExampleNewGRPCTransport() {
	cfg := pitaya.Config{
		Type: "room", ID: "room-1", Cluster: true, Region: "eu", Logger: discard,
		Metadata:    pitaya.GRPCMetadata(nil, "eu", "10.0.0.7", "3434", "room-1.example.com", "443"),
		GRPC:        pitaya.GRPCConfig{Port: 3434},
		BindingEtcd: pitaya.BindingEtcdConfig{Endpoints: []string{"localhost:2379"}},
	}
	transport, err := pitaya.NewGRPCTransport(cfg.GRPC, cfg.Region, cfg.Logger)
	if err != nil {
		fmt.Println(err)
		return
	}
	bindings, err := pitaya.NewEtcdBindings(cfg.BindingEtcd, cfg.Type, cfg.ID, cfg.Logger)
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.Transport, cfg.Bindings = transport, bindings
	server, err := pitaya.NewServer(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(server.Info().Metadata), "keys tell where it listens")
	// Run would end both.
	fmt.Println(transport.Close(context.Background()), bindings.Close(context.Background()))
	// Output:
	// 5 keys tell where it listens
	// <nil> <nil>
}

// The parts that settings make can be made by hand, to wrap them or to choose
// them at the start.
func ExampleNewNATSTransport() {
	logger := slog.New(slog.DiscardHandler)
	discovery, err := pitaya.NewEtcdDiscovery(pitaya.EtcdConfig{Endpoints: []string{"localhost:2379"}}, logger)
	if err != nil {
		fmt.Println(err)
		return
	}
	nats := pitaya.NATSConfig{URL: "nats://localhost:4222", RequestTimeout: 2 * time.Second}
	transport, err := pitaya.NewNATSTransport(nats, nats, logger)
	if err != nil {
		fmt.Println(err)
		return
	}
	groups, err := pitaya.NewEtcdGroups(pitaya.GroupsEtcdConfig{Endpoints: []string{"localhost:2379"}}, logger)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer groups.Close() // what is in Config.Groups stays the application's
	_, err = pitaya.NewServer(pitaya.Config{
		Type: "gate", Frontend: true, Cluster: true, Logger: logger,
		Discovery: discovery, Transport: transport, Groups: groups,
	})
	fmt.Println(err)
	// Output:
	// <nil>
}

// A UserMap is what the MapBindings of all servers have in common: users and the
// frontends they are on. One for a real cluster is a database.
type UserMap struct {
	mu   sync.Mutex
	user map[string]string
}

// MapBindings is the BindingStore of one server. The suite
// pitayatest.TestBindingStore tells whether one keeps the rules.
type MapBindings struct {
	all  *UserMap
	self string
}

func (m MapBindings) Put(_ context.Context, uid string) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.all.user[uid] = m.self
	return nil
}

func (m MapBindings) Get(_ context.Context, uid, frontendType string) (string, error) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if id, ok := m.all.user[uid]; ok {
		return id, nil
	}
	return "", fmt.Errorf("%s on a server of type %s: %w", uid, frontendType, pitaya.ErrNoBinding)
}

func (m MapBindings) Delete(_ context.Context, uid string) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.all.user[uid] == m.self { // else the user is on another server by now
		delete(m.all.user, uid)
	}
	return nil
}

func (m MapBindings) Close(context.Context) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	maps.DeleteFunc(m.all.user, func(_, id string) bool { return id == m.self })
	return nil
}

// A store of one's own takes the place of etcd.
func ExampleBindingStore() {
	ctx := context.Background()
	all := &UserMap{user: make(map[string]string)}
	var one, two pitaya.BindingStore = MapBindings{all, "gate-1"}, MapBindings{all, "gate-2"} // for Config.Bindings
	one.Put(ctx, "ann")
	two.Put(ctx, "ann")    // she has come back on another server
	one.Delete(ctx, "ann") // and the first one has noticed
	fmt.Println(two.Get(ctx, "ann", "gate"))
	two.Close(ctx)
	_, err := one.Get(ctx, "ann", "gate")
	fmt.Println(errors.Is(err, pitaya.ErrNoBinding), err)
	// Output:
	// gate-2 <nil>
	// true ann on a server of type gate: pitaya: user is not bound to a frontend
}
