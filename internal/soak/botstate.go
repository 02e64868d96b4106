package main

import (
	"time"
)

// conn is what a bot knows of its connection.
type conn struct {
	wire    *wire // nil: there is none
	gate    *node
	process string // of the gate
	through bool   // the link, on which there may be faults
	lastID  uint64
	pending map[uint64]*request
	local   uint64            // the last request that the gate itself has answered
	forward map[string]uint64 // by process: the last one that a room has
	kicked  bool
	drained bool // the gate wants no more messages
	parted  bool // and has been told that there are none
	heard   time.Time
	wrote   time.Time
	stalled time.Time // nothing is read until then
}

// session is what a bot knows of its session, which may outlive a connection.
type session struct {
	number   int    // counts the bot's sessions
	token    string // "" if it cannot be resumed
	received int    // pushes
	bound    binding
	asked    bool // it was to be bound, whatever came of it
	sent     int  // messages to the gate itself
	count    int  // how many of them the gate has said to have handled
	offset   int  // what count differs from sent by: messages that were lost with connections, negative
	unsure   bool // offset is not known
	own      int  // the last push by an own handler
	streams  map[string]int
	put      int  // what the session's data must be at least
	unput    bool // nobody knows
	abused   bool // the bot has made the server end it, perhaps: nothing was read, or too much was asked for
}

type binding int

const (
	unbound binding = iota
	bindAsked
	bindDone
)

type membership int

const (
	unknown membership = iota
	inside
	outside
)

// A request is one that waits for its answer.
type request struct {
	route string
	local bool
	seq   int
	at    time.Time
	rank  int // among the messages of the session to the gate itself
	msg   Msg
	put   int // what the session's data were at least, when it was sent
}

// A botState is what the checks of a cluster at rest want to know of a bot.
type botState struct {
	Gate    *node // nil: not connected
	Process string
	Bound   bool
	Pending int
	Settled bool
	Session int
	Conn    *wire
}

func (b *bot) state() botState {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := botState{Process: b.process, Bound: b.bound == bindDone, Pending: len(b.pending), Session: b.number, Conn: b.wire}
	if b.wire == nil {
		s.Bound, s.Settled = false, b.shadow
		return s
	}
	s.Gate = b.gate
	s.Settled = !b.shadow && s.Bound && s.Pending == 0 && b.echoed && !b.drained
	for _, group := range b.homes {
		s.Settled = s.Settled && b.groups[group] == inside
	}
	return s
}

// unsettle makes the bot prove again that rooms answer it, and join its groups if these are lost.
func (b *bot) unsettle(groupsLost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.echoed = false
	if groupsLost {
		clear(b.groups)
	}
}

// fairWeather says that nothing may fail from now on, or that it may again.
func (b *bot) fairWeather(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fair = nil
	if yes {
		b.fair = make(map[string]int)
	}
}

// expect begins a probe.
func (b *bot) expect(probe int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probe, b.probed = probe, make(map[string]bool)
}

// missing returns what has not come of the probe, out of what the processes have sent.
func (b *bot) missing(processes []string) (missing []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range processes {
		for _, key := range append([]string{pushTell + "  " + p}, chatKeys(b.homes, p)...) {
			if !b.probed[key] {
				missing = append(missing, key)
			}
		}
	}
	return missing
}

func chatKeys(groups []string, process string) (keys []string) {
	for _, g := range groups {
		keys = append(keys, pushChat+" "+g+" "+process)
	}
	return keys
}

// complain reports a violation about the bot.
func (b *bot) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrongLocked(format, args...)
}
