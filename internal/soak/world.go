package main

import (
	"sync"
	"time"
)

// A world is what the bots of a run share.
type world struct {
	report *reporter
	gates  []*node
	mode   modes
	lag    lag
	think  time.Duration // between what a bot does and what it does next, on average
	users  []string
	over   <-chan struct{} // closed when the run ends
	beside sync.WaitGroup  // what bots have started

	mu     sync.Mutex // guards what follows
	kicks  map[string]time.Time
	harmed map[string]bool // processes that were killed or paused
}

// kickAsked notes that somebody wants a user to be kicked.
func (w *world) kickAsked(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicks[uid] = time.Now()
}

// lateness is how long something can be under way while servers stand still and networks hang.
const lateness = time.Minute

func (w *world) mayKick(uid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.kicks[uid]) < lateness
}

// harm notes that a process is about to be killed or paused.
func (w *world) harm(process string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.harmed[process] = true
}

func (w *world) unharmed(process string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.harmed[process]
}

// A mode is what all bots are up to.
type mode int

const (
	modeQuiet  mode = iota // nothing is sent, and who is away stays away
	modeStorm              // anything
	modeFair               // anything that does no harm, while nothing is wrong; all of it must succeed
	modeSettle             // each user has one bot, which is connected, bound and in its groups
	modeLeave              // all say goodbye, and end
)

type modes struct {
	mu      sync.Mutex
	mode    mode
	changed chan struct{}
}

func (m *modes) get() (mode, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.mode, m.changed
}

func (m *modes) set(now mode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode = now
	if m.changed != nil {
		close(m.changed)
	}
	m.changed = make(chan struct{})
}
