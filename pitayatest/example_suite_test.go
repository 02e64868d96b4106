package pitayatest_test

import (
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// The suites are for tests: t stands for what those get. Their checks are
// subtests, so these examples are compiled and not run. What stands for
// implementations are those of the library, in memory.
var t *testing.T

func ExampleTestSerializer() {
	pitayatest.TestSerializer(t, pitayatest.SerializerOptions{
		Serializer: pitaya.JSON{},
		Values:     []any{&Message{Text: "all fields are set"}},
		Garbage:    [][]byte{nil, []byte("{"), []byte("[1]")},
	})
}

func ExampleTestGroupStore() {
	pitayatest.TestGroupStore(t, pitayatest.GroupStoreOptions{
		Open: func(t testing.TB) pitaya.GroupStore {
			store := pitaya.NewMemoryGroups()
			t.Cleanup(func() { store.Close() })
			return store
		},
		Synctest: true, // without sockets, time can pass at once
	})
}

func ExampleTestJobStore() {
	pitayatest.TestJobStore(t, pitayatest.JobStoreOptions{
		Open: func(t testing.TB) pitaya.JobStore {
			store := pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{})
			t.Cleanup(func() { store.Close(t.Context()) })
			return store
		},
		Synctest: true,
	})
}

func ExampleTestBindingStore() {
	open := func(endpoint string) func(testing.TB) func(serverType, serverID string) pitaya.BindingStore {
		return func(t testing.TB) func(serverType, serverID string) pitaya.BindingStore {
			return func(serverType, serverID string) pitaya.BindingStore {
				cfg := pitaya.BindingEtcdConfig{Endpoints: []string{endpoint}, Prefix: t.Name() + "/"}
				store, err := pitaya.NewEtcdBindings(cfg, serverType, serverID, nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { store.Close(t.Context()) })
				return store
			}
		}
	}
	pitayatest.TestBindingStore(t, pitayatest.BindingStoreOptions{Open: open("localhost:2379")})
}

func ExampleTestDiscovery() {
	pitayatest.TestDiscovery(t, pitayatest.DiscoveryOptions{
		Open: func(testing.TB) pitayatest.DiscoveryCluster {
			cluster := pitaya.NewMemCluster()
			return pitayatest.DiscoveryCluster{New: func() pitaya.Discovery {
				discovery, _ := cluster.Node()
				return discovery
			}}
		},
		Synctest: true,
	})
}

func ExampleTestTransport() {
	pitayatest.TestTransport(t, pitayatest.TransportOptions{
		Open: func(testing.TB) func(*pitaya.ServerInfo) pitaya.Transport {
			cluster := pitaya.NewMemCluster()
			return func(*pitaya.ServerInfo) pitaya.Transport {
				_, transport := cluster.Node()
				return transport
			}
		},
		Synctest: true,
	})
}

func ExampleTestTracer() {
	pitayatest.TestTracer(t, pitayatest.TracerOptions{
		Open: func(testing.TB) (pitaya.Tracer, func() []pitayatest.Span) {
			tracer := &pitayatest.Tracer{}
			return tracer, tracer.Spans
		},
		Synctest: true,
	})
}
