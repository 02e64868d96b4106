package pitaya

import (
	"log/slog"
	"time"
)

// SetOutputDelay sets how long output is read after the exit of the child.
func (b *Binary) SetOutputDelay(d time.Duration) { b.outputDelay = d }

// LogLines sends writes through the logger of a child's standard output.
func LogLines(logger *slog.Logger, writes ...string) {
	ready := make(chan struct{})
	close(ready)
	l := &lineLogger{level: slog.LevelInfo, ready: ready, logger: logger}
	for _, w := range writes {
		l.Write([]byte(w))
	}
	l.flush()
}
