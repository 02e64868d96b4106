package pitaya_test

import (
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// TestNoCluster: a server that was meant for a cluster must not run alone
// without a word.
func TestNoCluster(t *testing.T) {
	t.Parallel()
	s, err := pitaya.NewServer(pitaya.Config{Cluster: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "pitaya.server.cluster") {
		t.Errorf("got %v, want an error that names the setting", err)
	}
}
