package main

import (
	"context"
	"sync"
	"time"
)

// A lag knows how much this process was kept from running, by others on the same machine. Servers are kept likewise, so what
// takes long then, or does not succeed in its time, says nothing about them.
type lag struct {
	mu    sync.Mutex
	total time.Duration
	last  time.Time
}

const (
	lagTick     = 100 * time.Millisecond
	lagNotable  = 200 * time.Millisecond
	lagHangover = 20 * time.Second // how long what came of it may last: connections that end for want of heartbeats, say
)

// measure measures until ctx ends.
func (l *lag) measure(ctx context.Context) {
	tick := time.NewTicker(lagTick)
	defer tick.Stop()
	for before := time.Now(); ; before = time.Now() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if late := time.Since(before) - lagTick; late > lagNotable {
			l.mu.Lock()
			l.total += late
			l.last = time.Now()
			l.mu.Unlock()
		}
	}
}

// Total is the sum of what was notable.
func (l *lag) Total() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Recent reports whether there was some, of which something may come still.
func (l *lag) Recent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.last.IsZero() && time.Since(l.last) < lagHangover
}
