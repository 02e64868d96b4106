// Package program has what the benchmarks' programs with the library begin with. Nothing of it is in what is measured.
package program

import (
	"errors"
	"log/slog"
	"os"
	"runtime/pprof"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Logger returns what the servers log with: warnings, to the standard error.
func Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Profile writes a profile of the processor into a file, from now until stop is called. Without a name there is none.
func Profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// Connect sets what a server calls others over: NATS at an address or, without one, gRPC on the loopback. A timeout of 0 is
// the library's default.
func Connect(cfg *pitaya.Config, nats string, timeout time.Duration) (err error) {
	if nats != "" {
		n := pitaya.NATSConfig{URL: nats, RequestTimeout: timeout}
		cfg.Transport, err = pitaya.NewNATSTransport(n, n, cfg.Logger)
		return err
	}
	cfg.Metadata = pitaya.GRPCMetadata(nil, "", "127.0.0.1", "", "", "")
	cfg.Transport, err = pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: -1, RequestTimeout: timeout}, "", cfg.Logger)
	return err
}
