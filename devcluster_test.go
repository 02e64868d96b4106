package pitaya_test

import (
	"testing"

	"github.com/pitaya-go/pitaya/internal/devtest"
)

// startEtcd starts a real etcd with further flags of devcluster, on an empty folder of its own. It ends with the test.
func startEtcd(t testing.TB, flags ...string) *devtest.Server {
	t.Helper()
	return devtest.Etcd(t, flags...)
}

// startNATS does the same for NATS.
func startNATS(t testing.TB, flags ...string) *devtest.Server {
	t.Helper()
	return devtest.NATS(t, flags...)
}

// freeAddress returns an address nobody listens on, and whose port no outgoing connection gets.
func freeAddress(t testing.TB) string {
	t.Helper()
	return devtest.FreeAddress(t)
}
