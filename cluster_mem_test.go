package pitaya_test

import (
	"testing"

	"github.com/pitaya-go/pitaya"
)

func TestMemDiscovery(t *testing.T) {
	t.Parallel()
	testDiscovery(t, func(*testing.T) func() pitaya.Discovery {
		cluster := pitaya.NewMemCluster()
		return func() pitaya.Discovery {
			discovery, _ := cluster.Node()
			return discovery
		}
	})
}

func TestMemTransport(t *testing.T) {
	t.Parallel()
	cluster := pitaya.NewMemCluster()
	testTransport(t, func(*testing.T, *pitaya.ServerInfo) pitaya.Transport {
		_, transport := cluster.Node()
		return transport
	})
}
