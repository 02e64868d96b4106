package pitaya

import (
	"context"
	"log/slog"
)

// guardedLogs is the application's log handler, whose panics are nobody's
// affair but its own: a record is lost then, and not the session or the process
// that it was about.
type guardedLogs struct {
	inner slog.Handler
}

// guardLogger returns a logger on the same handler that never panics.
func guardLogger(l *slog.Logger) *slog.Logger {
	return slog.New(guardedLogs{l.Handler()})
}

// Enabled implements [slog.Handler].
func (g guardedLogs) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }()
	return g.inner.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (g guardedLogs) Handle(ctx context.Context, r slog.Record) error {
	defer func() { _ = recover() }()
	return g.inner.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (g guardedLogs) WithAttrs(attrs []slog.Attr) (h slog.Handler) {
	h = g
	defer func() { _ = recover() }()
	return guardedLogs{g.inner.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (g guardedLogs) WithGroup(name string) (h slog.Handler) {
	h = g
	defer func() { _ = recover() }()
	return guardedLogs{g.inner.WithGroup(name)}
}
