package pitaya_test

import (
	"errors"
	"flag"
	"log/slog"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// TestNoCluster: a server that runs alone says so to those who want others.
func TestNoCluster(t *testing.T) {
	t.Parallel()
	r := startServer(t, pitaya.Config{Type: "solo", ID: "s1", Logger: testLogger(t)}, nil)
	defer r.stop(t)
	if err := r.RPC(t.Context(), "room.r.ping", nil, nil); !errors.Is(err, pitaya.ErrNoCluster) {
		t.Errorf("RPC: got %v", err)
	}
	if got := r.Servers(""); len(got) != 1 || got[0].ID != "s1" {
		t.Errorf("Servers: got %v", got)
	}
	if r.ServerByID("s1") == nil || r.ServerByID("s2") != nil {
		t.Error("ServerByID does not know itself, or others")
	}
}

// TestUnusedSettings: a setting that nothing reads yet is not accepted without a
// word.
func TestUnusedSettings(t *testing.T) {
	for _, env := range [][]string{nil, {"PITAYA_GROUPS_MEMORY_TICKDURATION=5s"}} {
		var cfg pitaya.Config
		if err := cfg.Load(flag.NewFlagSet("test", flag.ContinueOnError), nil, env); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		startServer(t, cfg, nil).stop(t)
		if got := strings.Contains(log.String(), "pitaya.groups.memory.tickduration"); got != (env != nil) {
			t.Errorf("with %q the log is %q", env, log.String())
		}
	}
}
