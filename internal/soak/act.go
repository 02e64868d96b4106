package main

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// What bots do.

// A batch is packets that are written at once.
type batch struct {
	b       *bot
	packets []byte
}

// begin begins a batch; nil if nothing may be sent.
func (b *bot) begin(w *wire) *batch {
	b.mu.Lock()
	if b.wire != w || b.drained || b.kicked {
		b.mu.Unlock()
		return nil
	}
	return &batch{b: b}
}

// send writes the batch.
func (t *batch) send(w *wire) {
	t.b.mu.Unlock()
	if len(t.packets) > 0 {
		t.b.write(w, t.packets)
	}
}

// add adds a message. Those that are notifies have "note" for their method.
func (t *batch) add(route string, msg Msg) {
	b := t.b
	b.seq++
	msg.Bot, msg.Session, msg.Seq, msg.UID = b.id, b.number, b.seq, b.uid
	payload, err := json.Marshal(msg)
	if err != nil {
		panic(err)
	}
	local := strings.HasPrefix(route, typeGate)
	if local {
		b.sent++
	}
	m := pitaya.Message{Type: pitaya.MessageNotify, Route: route, Payload: payload}
	if !strings.HasSuffix(route, ".note") {
		b.lastID++
		m.Type, m.ID = pitaya.MessageRequest, b.lastID
		b.pending[m.ID] = &request{route: route, local: local, seq: b.seq, at: time.Now(), rank: b.sent, msg: msg, put: b.put}
		b.report.Count("requests", 1)
	} else {
		b.report.Count("notifies", 1)
	}
	b.log.note(route+" "+msg.To, b.seq, m.ID)
	t.packets = appendMessage(t.packets, m)
}

// An action is something that bots do, as often as its weight says.
type action struct {
	weight int
	bound  bool // only with a user
	wild   bool // only in storms
	do     func(b *bot, t *batch)
}

func actions() []action {
	return []action{
		{20, false, false, func(b *bot, t *batch) { t.add("gate.game.echo", Msg{}) }},
		{6, false, false, func(b *bot, t *batch) { t.add("gate.game.note", Msg{}) }},
		{6, false, false, func(b *bot, t *batch) { t.add("gate.game.burst", Msg{N: 1 + b.rng.IntN(20), Pad: b.pad(500)}) }},
		{20, false, false, func(b *bot, t *batch) { t.add("room.game.echo", Msg{}) }},
		{6, false, false, func(b *bot, t *batch) { t.add("room.game.note", Msg{}) }},
		{3, false, false, func(b *bot, t *batch) { t.add("room.game.slow", Msg{N: b.rng.IntN(300)}) }},
		{1, false, false, func(b *bot, t *batch) { t.add("room.game.echo", Msg{Pad: b.pad(50_000)}) }},
		{1, false, false, func(b *bot, t *batch) { t.add("gate.game.echo", Msg{Pad: b.pad(50_000)}) }},
		{1, false, false, func(b *bot, t *batch) { t.add("room.game.fail", Msg{}) }},
		{3, false, false, func(b *bot, t *batch) { t.add("gate.game.call", Msg{N: b.rng.IntN(1000)}) }},
		{3, true, false, func(b *bot, t *batch) { t.add("room.game.put", Msg{}) }},
		{3, false, false, func(b *bot, t *batch) { t.add("gate.game.get", Msg{}) }},
		{5, true, false, func(b *bot, t *batch) { t.add("room.game.chat", Msg{To: b.home(), Pad: b.pad(300)}) }},
		{10, true, false, func(b *bot, t *batch) { t.add("room.game.tell", Msg{To: b.anybody()}) }},
		{5, true, false, func(b *bot, t *batch) { t.add("room.game.self", Msg{N: 1 + b.rng.IntN(5)}) }},
		{3, true, true, func(b *bot, t *batch) { b.member(t, "room.game.join") }},
		{1, true, true, func(b *bot, t *batch) { b.member(t, "room.game.leave") }},
	}
}

func (b *bot) home() string    { return b.homes[b.rng.IntN(len(b.homes))] }
func (b *bot) anybody() string { return b.users[b.rng.IntN(len(b.users))] }

func (b *bot) pad(max int) string { return strings.Repeat("pad.", b.rng.IntN(max)/4) }

func (b *bot) member(t *batch, route string) {
	group := b.home()
	if !b.shadow { // the other bot answers for their user
		b.groups[group] = unknown
		t.add(route, Msg{To: group})
	}
}

// act does something, in a storm.
func (b *bot) act(w *wire) {
	switch n := b.rng.IntN(1000); {
	case n < 12:
		b.vanish(w)
		return
	case n < 16:
		b.goodbye()
		return
	case n < 22:
		b.mu.Lock()
		b.stalled, b.abused = time.Now().Add(time.Duration(b.rng.IntN(8000))*time.Millisecond), true
		b.log.add("stall")
		b.mu.Unlock()
		b.report.Count("stalled", 1)
		if b.rng.IntN(4) == 0 {
			b.flood(w)
		}
	case n < 24:
		b.mu.Lock()
		b.abused = true
		b.mu.Unlock()
		b.flood(w)
		b.vanish(w)
		return
	}
	b.work(w)
}

// flood asks for more pushes than a server sends to one that does not read, or keeps for one that is away.
func (b *bot) flood(w *wire) {
	if t := b.begin(w); t != nil {
		b.report.Count("floods", 1)
		t.add("gate.game.burst", Msg{N: 1500, Pad: strings.Repeat("flood", 400)})
		t.send(w)
	}
}

// work sends some messages.
func (b *bot) work(w *wire) {
	t := b.begin(w)
	if t == nil {
		return
	}
	defer t.send(w)
	if b.bound == unbound && b.rng.IntN(3) > 0 && b.fair == nil {
		b.bind(t)
	}
	all := actions()
	sum := 0
	all = slices.DeleteFunc(all, func(a action) bool { return a.wild && b.fair != nil || a.bound && b.bound != bindDone })
	for _, a := range all {
		sum += a.weight
	}
	for range 1 + b.rng.IntN(4)*b.rng.IntN(2) {
		n := b.rng.IntN(sum)
		for _, a := range all {
			if n -= a.weight; n < 0 {
				a.do(b, t)
				break
			}
		}
	}
	if b.bound == bindDone && b.rng.IntN(2000) == 0 && b.fair == nil {
		uid := b.anybody()
		b.kickAsked(uid)
		t.add("room.game.kick", Msg{To: uid})
	}
}

func (b *bot) bind(t *batch) {
	b.bound, b.asked = bindAsked, true
	route := "gate.game.bind"
	if b.rng.IntN(4) == 0 {
		route = "room.game.bind"
	}
	t.add(route, Msg{})
}

// settle does what is missing for the bot to be settled.
func (b *bot) settle(w *wire) {
	t := b.begin(w)
	if t == nil {
		return
	}
	defer t.send(w)
	switch {
	case len(b.pending) > 0:
	case b.bound == unbound:
		b.bind(t)
	case b.bound == bindDone:
		for _, group := range b.homes {
			if b.groups[group] != inside {
				b.groups[group] = unknown
				t.add("room.game.join", Msg{To: group})
			}
		}
		if len(b.pending) == 0 && !b.echoed {
			t.add("room.game.echo", Msg{})
			t.add("gate.game.echo", Msg{})
		}
	}
}
