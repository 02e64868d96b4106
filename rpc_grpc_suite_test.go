package pitaya_test

import (
	"context"
	"net"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

type grpcUnderTest struct{ *pitaya.GRPCTransport }

func (g grpcUnderTest) Listen(ctx context.Context, self *pitaya.ServerInfo, h pitaya.TransportHandler) error {
	err := g.GRPCTransport.Listen(ctx, self, h)
	if err == nil {
		_, port, _ := net.SplitHostPort(g.Addr().String())
		self.Metadata = pitaya.GRPCMetadata(nil, "", "127.0.0.1", port, "", "")
	}
	return err
}

func TestGRPCSuite(t *testing.T) { testGRPCTransport(t, pitaya.GRPCConfig{Port: -1}) }

func TestGRPCTLSSuite(t *testing.T) {
	files := newTLSFiles(t)
	testGRPCTransport(t, pitaya.GRPCConfig{Port: -1, ClientTLS: files, ServerTLS: files})
}

func testGRPCTransport(t *testing.T, cfg pitaya.GRPCConfig) {
	// A busy machine is no reason for what the tests expect to fail with its own deadline.
	cfg.RequestTimeout, cfg.DialTimeout = 2*transporttest.Patience, 2*transporttest.Patience
	pitayatest.TestTransport(t, pitayatest.TransportOptions{
		Open: func(t testing.TB) func(*pitaya.ServerInfo) pitaya.Transport {
			return func(*pitaya.ServerInfo) pitaya.Transport {
				tr, err := pitaya.NewGRPCTransport(cfg, "", testLogger(t))
				if err != nil {
					t.Fatal(err)
				}
				return grpcUnderTest{tr}
			}
		},
	})
}
