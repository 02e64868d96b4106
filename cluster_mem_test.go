package pitaya_test

import (
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMemDiscovery(t *testing.T) {
	t.Parallel()
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

func TestMemTransport(t *testing.T) {
	t.Parallel()
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
