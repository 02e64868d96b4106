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
