package pitaya_test

import (
	"log/slog"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// openNATS returns a transport that is closed with the test.
func openNATS(t testing.TB, client, server pitaya.NATSConfig) *pitaya.NATSTransport {
	t.Helper()
	tr, err := pitaya.NewNATSTransport(client, server, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestNATSTransport(t *testing.T) {
	t.Parallel()
	for name, two := range map[string]bool{"one connection": false, "two connections": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := startNATS(t).URL()
			testTransport(t, func(t *testing.T, _ *pitaya.ServerInfo) pitaya.Transport {
				client, server := pitaya.NATSConfig{URL: url}, pitaya.NATSConfig{URL: url}
				if two {
					client.MaxPings = 5
				}
				return openNATS(t, client, server)
			})
		})
	}
}
