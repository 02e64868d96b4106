package pitaya_test

import (
	"flag"
	"log/slog"
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

// TestUnusedSettings: a setting that nothing reads yet is not accepted without a
// word.
func TestUnusedSettings(t *testing.T) {
	for _, env := range [][]string{nil, {"PITAYA_CONN_RATELIMITING_LIMIT=5"}} {
		var cfg pitaya.Config
		if err := cfg.Load(flag.NewFlagSet("test", flag.ContinueOnError), nil, env); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		startServer(t, cfg, nil).stop(t)
		if got := strings.Contains(log.String(), "pitaya.conn.ratelimiting.limit"); got != (env != nil) {
			t.Errorf("with %q the log is %q", env, log.String())
		}
	}
}
