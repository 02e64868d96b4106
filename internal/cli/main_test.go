package cli_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// serve runs a server on TCP until the test ends, and returns its URL.
func serve(t testing.TB, cfg pitaya.Config, setup func(s *pitaya.Server)) string {
	t.Helper()
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Type, cfg.Frontend, cfg.Listeners = "game", true, []net.Listener{l}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	setup(s)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ran:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "tcp://" + l.Addr().String()
}

// must fails the test at an error of setting something up.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noEnv(string) string { return "" }
