package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A bot is a player. What it does is done by its run, one thing after the other; what it receives is taken in by a goroutine
// for each connection.
type bot struct {
	*world
	id      int
	uid     string
	shadow  bool     // another bot plays the same user
	twin    bool     // it is that other bot, or this one
	homes   []string // the groups it joins
	resumes bool     // it asks for sessions that can be resumed
	inflate bool
	drains  bool
	rng     *rand.Rand
	wake    chan struct{} // something has happened that run must look at

	mu  sync.Mutex // guards what follows; not held while anything waits
	log history
	conn
	session
	seq     int // the last message
	groups  map[string]membership
	probe   int
	probed  map[string]bool // what has come of the probe
	echoed  bool            // a room has answered since the bots began to settle
	fair    map[string]int  // nothing is wrong, so nothing may fail: the last push of each stream since then; nil otherwise
	lateFor time.Time       // a bind that nobody knows the end of may come about until then
}

func newBot(w *world, id int, uid string, homes []string, rng *rand.Rand) *bot {
	b := &bot{world: w, id: id, uid: uid, homes: homes, rng: rng, wake: make(chan struct{}, 1)}
	b.resumes, b.inflate, b.drains = rng.IntN(2) == 0, rng.IntN(2) == 0, rng.IntN(4) > 0
	b.groups = make(map[string]membership)
	b.log.report = w.report
	return b
}

func (b *bot) name() string {
	kind := "bot"
	if b.shadow {
		kind = "shadow"
	}
	return fmt.Sprintf("%s %d (%s)", kind, b.id, b.uid)
}

// wrongLocked reports a violation.
func (b *bot) wrongLocked(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	b.log.add("!! " + what)
	b.report.Violation(b.name(), fmt.Sprintf("%s\non %s, session %d, resumes %v, inflates %v, drains %v, through the link %v",
		what, b.process, b.number, b.resumes, b.inflate, b.drains, b.through), b.log.lines())
}

func (b *bot) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run lets the bot play until the mode is modeLeave or ctx ends.
func (b *bot) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		mode, changed := b.mode.get()
		if mode == modeLeave || ctx.Err() != nil {
			b.goodbye()
			return
		}
		timer.Reset(b.step(ctx, mode))
		select {
		case <-timer.C:
		case <-changed:
		case <-b.wake:
		case <-ctx.Done():
		}
	}
}

// pause is how long a bot thinks.
func (b *bot) pause() time.Duration {
	return min(time.Duration(b.rng.ExpFloat64()*float64(b.think)), 4*b.think) + 5*time.Millisecond
}

// step does one thing, and returns how long to wait for the next.
func (b *bot) step(ctx context.Context, mode mode) time.Duration {
	b.mu.Lock()
	w, parting := b.wire, b.drained && !b.parted
	idle := time.Since(b.wrote)
	resumable, received := b.token != "", b.received
	over := b.drained
	if parting {
		b.parted = true
		b.log.add("ack of the end")
	}
	b.mu.Unlock()
	if w != nil {
		switch {
		case parting:
			b.write(w, appendPacket(nil, pitaya.PacketHandshakeAck, nil))
			return time.Second
		case idle > heartbeat/2:
			b.write(w, appendHeartbeat(nil, resumable, received))
		}
		if over {
			return time.Second
		}
		b.overdue()
	}
	switch {
	case mode == modeStorm && w == nil:
		return b.connect(ctx)
	case mode == modeStorm:
		b.act(w)
		return b.pause()
	case b.shadow && mode != modeQuiet:
		b.goodbye()
		return time.Second
	case mode == modeFair && w == nil:
		return b.connect(ctx)
	case mode == modeFair:
		b.work(w)
		return b.pause()
	case mode == modeSettle && w == nil:
		return b.connect(ctx)
	case mode == modeSettle:
		b.settle(w)
		return 300*time.Millisecond + time.Duration(b.rng.IntN(200))*time.Millisecond
	}
	return time.Second
}

// overdue reports requests that get no answer though the connection lives.
func (b *bot) overdue() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, q := range b.pending {
		if time.Since(q.at) > lateness && !b.lag.Recent() {
			delete(b.pending, id)
			b.wrongLocked("request %d (%s, message %d) was not answered for %v, and its connection lives", id, q.route, q.seq,
				time.Since(q.at).Round(time.Millisecond))
			return
		}
	}
}

// fairLocked reports whether nothing may fail. Where the machine has no time for the servers something may.
func (b *bot) fairLocked() bool { return b.fair != nil && !b.lag.Recent() }

// write writes whole packets. It is for run.
func (b *bot) write(w *wire, packets []byte) {
	b.mu.Lock()
	b.wrote = time.Now()
	b.mu.Unlock()
	if err := w.Write(packets); err != nil {
		w.Close(false) // the reader notices
	}
}

// connect connects, to the session that there was if it may.
func (b *bot) connect(ctx context.Context) time.Duration {
	again := 100*time.Millisecond + time.Duration(b.rng.IntN(900))*time.Millisecond
	b.mu.Lock()
	gate, token, received := b.gate, b.token, b.received
	kicked := b.kicked
	b.kicked = false
	b.mu.Unlock()
	if kicked && b.twin { // or the two would do nothing else
		return time.Duration(b.rng.IntN(5000)) * time.Millisecond
	}
	if gate == nil || token == "" || b.rng.IntN(10) == 0 {
		gate = b.gates[b.rng.IntN(len(b.gates))]
	}
	ws, through := b.rng.IntN(4) == 0, b.rng.IntN(3) == 0
	addr, process := gate.door(ws, through)
	if process == "" {
		return again
	}
	h := hello{Inflate: b.inflate, Drain: b.drains}
	if b.resumes {
		h.Resume = &resumeAsk{Token: token, Received: received}
	}
	w, err := dialWire(ctx, addr, ws, h)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		if w != nil && w.answer.Sys.Resume != nil && w.answer.Code == 200 {
			b.agreedLocked(gate, process, w.answer.Sys.Resume, token, through)
		}
		b.log.add("not connected: " + err.Error())
		b.report.Count("connect failed", 1)
		return again
	}
	if _, now := gate.door(ws, through); now != process && !b.resumes {
		// Behind the same address there is another process now. Which of the two has answered is not known, and what comes
		// from the wrong one would be a violation.
		w.Close(true)
		b.log.add("connected while the gate was replaced")
		return again
	}
	resumed := false
	if b.resumes {
		a := w.answer.Sys.Resume
		if a == nil {
			b.wrongLocked("no word about resume in the answer to the handshake")
			w.Close(true)
			return again
		}
		resumed = b.agreedLocked(gate, process, a, token, through)
	} else {
		b.newSessionLocked()
	}
	b.conn = conn{wire: w, gate: gate, process: process, through: through, pending: make(map[uint64]*request),
		forward: make(map[string]uint64), heard: time.Now(), wrote: time.Now()}
	what := "connected to " + process
	if ws {
		what += " by WebSocket"
	}
	if through {
		what += " through the link"
	}
	if resumed {
		what += ", resumed"
		b.report.Count("resumed", 1)
	}
	b.report.Count("connected", 1)
	b.log.add(what)
	b.beside.Go(func() { b.read(w) })
	return b.pause() / 4
}

func (b *bot) newSessionLocked() {
	b.session = session{number: b.number + 1, streams: make(map[string]int)}
}

// agreedLocked takes note of what the server says of resume, and judges it.
func (b *bot) agreedLocked(gate *node, process string, a *pitaya.HandshakeResume, offered string, through bool) (resumed bool) {
	if offered == "" && a.Resumed {
		b.wrongLocked("the server says that a session was resumed that nobody asked for")
	}
	if a.Resumed {
		b.token, b.unsure = a.Token, true
		return true
	}
	if offered != "" {
		b.report.Count("not resumed: "+a.Reason, 1)
		b.log.add("not resumed: " + a.Reason)
		// What the server is bound to: it is the same process, and nothing has ended the session or hidden its end.
		due := b.process == process && !b.through && !through && time.Since(b.heard) < resumeWindow-2*time.Second &&
			!b.lag.Recent() && !b.twin && !b.mayKick(b.uid) && !b.abused && time.Now().After(b.lateFor) && a.Reason != "refused"
		if due {
			b.wrongLocked("the session was not resumed: %s; the client was away for %v", a.Reason,
				time.Since(b.heard).Round(time.Millisecond))
		}
	}
	b.newSessionLocked()
	b.token = a.Token
	return false
}

// lost takes note of the end of a connection.
func (b *bot) lost(w *wire, cause error) {
	w.Close(false)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wire != w {
		return
	}
	b.log.add("lost: " + cause.Error())
	if b.fairLocked() {
		b.wrongLocked("the connection was lost while nothing was wrong: %v", cause)
	}
	if b.parted && len(b.pending) > 0 && !b.through && b.unharmed(b.process) && !b.abused {
		ids := make([]uint64, 0, len(b.pending))
		for id := range b.pending {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		b.wrongLocked("the server has ended the connection of a client that drains, without answers to %v", ids)
	}
	b.endLocked()
	if b.kicked || b.parted {
		b.token = "" // there is nothing to come back to
	}
	b.nudge()
}

// endLocked forgets the connection, and what was asked on it.
func (b *bot) endLocked() {
	b.report.Count("unanswered, connection ended", len(b.pending))
	for _, q := range b.pending {
		b.fateUnknownLocked(q)
	}
	b.wire, b.pending = nil, nil
}

// fateUnknownLocked is for requests of which nobody knows whether they were handled, or will be.
func (b *bot) fateUnknownLocked(q *request) {
	switch q.route {
	case "gate.game.bind", "room.game.bind":
		b.lateFor = time.Now().Add(lateness)
		if b.bound == bindAsked {
			b.bound = unbound // or it is; then to ask again changes nothing
		}
	case "room.game.join", "room.game.leave":
		b.groups[q.msg.To] = unknown
	case "room.game.put":
		b.unput = true
	}
}

// goodbye ends the connection on purpose.
func (b *bot) goodbye() {
	b.mu.Lock()
	w, resumable := b.wire, b.token != ""
	if w != nil {
		b.log.add("goodbye")
		b.endLocked()
	}
	b.token = ""
	b.mu.Unlock()
	if w == nil {
		return
	}
	if resumable {
		b.write(w, appendPacket(nil, pitaya.PacketKick, nil))
	}
	w.Close(false)
}

// cutPacket counts connections that bots have ended within a packet, or by garbage. A gate calls that a violation, the first
// where the session does not wait for its client.
const cutPacket = "packets cut off"

// vanish ends the connection as accidents do.
func (b *bot) vanish(w *wire) {
	b.mu.Lock()
	if b.wire != w {
		b.mu.Unlock()
		return
	}
	how := b.rng.IntN(9)
	b.log.add("vanish: " + [...]string{"close", "reset", "silence", "in the middle of a packet", "garbage"}[how/2])
	b.report.Count("vanished", 1)
	b.endLocked()
	b.mu.Unlock()
	switch how / 2 {
	case 0:
		w.Close(false)
	case 1:
		w.Close(true)
	case 2: // until the server closes it, or for a while
		b.beside.Go(func() {
			timer := time.NewTimer(4 * heartbeat)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-b.over:
			}
			w.Close(true)
		})
	case 3:
		b.report.Count(cutPacket, 1)
		b.write(w, []byte{byte(pitaya.PacketData), 0, 1})
		w.Close(false)
	case 4:
		b.report.Count(cutPacket, 1)
		b.mu.Lock()
		b.token = "" // which ends the session
		b.mu.Unlock()
		b.write(w, []byte{0xff, 0, 0, 0})
		w.Close(false)
	}
}

// read takes in what comes by a connection, until its end.
func (b *bot) read(w *wire) {
	for {
		p, err := w.Read()
		if err != nil {
			b.lost(w, err)
			return
		}
		if err := b.packet(w, p); err != nil {
			b.lost(w, err)
			return
		}
		b.mu.Lock()
		stall := time.Until(b.stalled)
		mine := b.wire == w
		b.mu.Unlock()
		if !mine {
			return // vanished; who has done that closes the connection
		}
		if stall > 0 {
			_, changed := b.mode.get()
			timer := time.NewTimer(stall)
			select {
			case <-timer.C:
			case <-changed:
			}
			timer.Stop()
		}
	}
}

func (b *bot) packet(w *wire, p pitaya.Packet) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wire != w {
		return errors.New("left behind")
	}
	b.heard = time.Now()
	if b.kicked {
		b.wrongLocked("a packet of type %v behind a kick", p.Type)
	}
	switch p.Type {
	case pitaya.PacketHeartbeat:
	case pitaya.PacketKick:
		b.kickLocked(p.Body)
	case pitaya.PacketHandshakeAck:
		if !b.drains || b.drained {
			b.wrongLocked("an acknowledgement from the server")
		}
		b.drained = true
		b.log.add("the server ends")
		b.nudge()
	case pitaya.PacketData:
		m, err := pitaya.DecodeMessage(p.Body, nil)
		if err == nil {
			err = m.Inflate(maxWirePack)
		}
		switch {
		case err != nil:
			b.wrongLocked("a message that is none: %v", err)
		case m.Type == pitaya.MessageResponse:
			b.answerLocked(m)
		case m.Type == pitaya.MessagePush:
			b.pushLocked(m)
		default:
			b.wrongLocked("a %v from the server", m.Type)
		}
	default:
		b.wrongLocked("a packet of type %v", p.Type)
	}
	return nil
}
