package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// What bots check in what they receive. All of it is called with the bot's lock held.

// answerLocked checks an answer: it is to a request that waits for one, is about that request, and comes in order.
func (b *bot) answerLocked(m pitaya.Message) {
	q := b.pending[m.ID]
	if q == nil {
		b.wrongLocked("an answer with id %d, which no request waits for: %.200q", m.ID, m.Payload)
		return
	}
	delete(b.pending, m.ID)
	if q.local { // errors too
		if m.ID < b.local {
			b.wrongLocked("the answer to request %d came behind that to %d, of the same gate", m.ID, b.local)
		}
		b.local = max(b.local, m.ID)
	}
	if m.Err {
		b.errorLocked(m, q)
		return
	}
	var r Reply
	if err := json.Unmarshal(m.Payload, &r); err != nil {
		b.wrongLocked("the answer to request %d is no answer: %v: %.200q", m.ID, err, m.Payload)
		return
	}
	b.log.note("answer by "+r.Server, q.seq, m.ID)
	b.report.Count("answered", 1)
	switch {
	case r.Bot != b.id || r.Seq != q.seq:
		b.wrongLocked("the answer to request %d, message %d, is that to message %d of bot %d", m.ID, q.seq, r.Seq, r.Bot)
	case r.Wrong != "":
		b.wrongLocked("request %d (%s, message %d) had a wrong session: %s", m.ID, q.route, q.seq, r.Wrong)
	case r.Pad != "" && r.Pad != q.msg.Pad:
		b.wrongLocked("the answer to request %d does not have what was sent", m.ID)
	case q.local && r.Server != b.process:
		b.wrongLocked("request %d (%s) was answered by %s", m.ID, q.route, r.Server)
	case q.local:
		b.countedLocked(m.ID, q, &r)
	case !strings.HasPrefix(r.Server, typeRoom):
		b.wrongLocked("request %d (%s) was answered by %s", m.ID, q.route, r.Server)
	case m.ID < b.forward[r.Server]:
		b.wrongLocked("the answer to request %d came behind that to %d, both by %s", m.ID, b.forward[r.Server], r.Server)
	default:
		b.forward[r.Server] = m.ID
	}
	switch q.route {
	case "gate.game.bind", "room.game.bind":
		b.bound = bindDone
	case "gate.game.burst":
		if b.own < r.Own {
			b.wrongLocked("the answer to request %d came before the push %d that was made before it; the last was %d", m.ID, r.Own, b.own)
		}
	case "gate.game.get":
		if r.Value < q.put && !b.unput {
			b.wrongLocked("the session's data are of message %d, and those of message %d were there", r.Value, q.put)
		}
	case "gate.game.call":
		if r.Value != q.msg.N+1 {
			b.wrongLocked("the remote was asked for %d+1 and returned %d", q.msg.N, r.Value)
		}
	case "room.game.put":
		b.put = q.seq
	case "room.game.join":
		b.groups[q.msg.To] = inside
	case "room.game.leave":
		b.groups[q.msg.To] = outside
	case "room.game.echo":
		b.echoed = true
	}
}

// countedLocked checks that the gate has handled what it was sent before, no more and no less.
func (b *bot) countedLocked(id uint64, q *request, r *Reply) {
	off := r.Count - q.rank
	switch {
	case b.unsure && off <= b.offset && r.Count > b.count: // what was under way when connections were lost may never have arrived
		b.offset, b.unsure = off, false
	case off != b.offset:
		b.wrongLocked("request %d was message %d of the session to %s, which had handled %d, %d of them earlier", id, q.rank+b.offset,
			b.process, r.Count, b.count)
		b.offset = off
	}
	b.count = r.Count
}

// errorLocked checks an error.
func (b *bot) errorLocked(m pitaya.Message, q *request) {
	var e struct{ Code, Msg string }
	if err := json.Unmarshal(m.Payload, &e); err != nil {
		b.wrongLocked("the answer to request %d is no error: %v: %.200q", m.ID, err, m.Payload)
		return
	}
	b.log.note(fmt.Sprintf("error %s %s", e.Code, e.Msg), q.seq, m.ID)
	known := false
	switch e.Code {
	case codeWanted:
		known = q.route == "room.game.fail"
	case codeFailed:
		known = q.route != "gate.game.echo" && q.route != "gate.game.get"
	case pitaya.CodeTimeout, pitaya.CodeInternal:
		known = !q.local
	}
	if !known || b.fairLocked() && e.Code != codeWanted {
		b.wrongLocked("request %d (%s, message %d) was answered by %s: %s", m.ID, q.route, q.seq, e.Code, e.Msg)
	}
	b.report.Count("error "+e.Code, 1)
	b.fateUnknownLocked(q)
}

// pushLocked checks a push: it is for this bot, and neither one that was there nor one that has missed its turn.
func (b *bot) pushLocked(m pitaya.Message) {
	b.received++
	var p Push
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		b.wrongLocked("a push on %s that is none: %v: %.200q", m.Route, err, m.Payload)
		return
	}
	b.report.Count("push "+m.Route, 1)
	if p.Probe != 0 {
		b.log.note(fmt.Sprintf("probe %d by %s, %s%s", p.Probe, p.From, p.Group, p.UID), p.N, 0)
	} else {
		b.log.note("push "+m.Route+" "+p.Group+" by "+p.From, p.N, 0)
	}
	switch m.Route {
	case pushOwn:
		if p.UID != b.uid || p.From != b.process {
			b.wrongLocked("a push for %s by a handler on %s", p.UID, p.From)
		} else if p.N != b.own+1 {
			b.wrongLocked("push %d by an own handler came behind push %d", p.N, b.own)
		}
		b.own = max(b.own, p.N)
		return
	case pushSelf, pushTell:
		if p.UID != b.uid || !b.asked {
			b.wrongLocked("a push for user %s", p.UID)
		}
	case pushChat:
		if !slices.Contains(b.homes, p.Group) || !b.asked {
			b.wrongLocked("a push for group %s", p.Group)
		}
	default:
		b.wrongLocked("a push on %q", m.Route)
	}
	key := m.Route + " " + p.Group + " " + p.From
	last := b.streams[key]
	if p.N <= last {
		b.wrongLocked("push %d on %s %s by %s came behind push %d", p.N, m.Route, p.Group, p.From, last)
	}
	if b.fair != nil {
		if last := b.fair[key]; last > 0 && p.N > last+1 && b.fairLocked() {
			b.wrongLocked("push %d on %s %s by %s came behind push %d while nothing was wrong", p.N, m.Route, p.Group, p.From, last)
		}
		b.fair[key] = p.N
	}
	b.streams[key] = max(b.streams[key], p.N)
	if p.Probe != 0 && p.Probe == b.probe {
		b.probed[key] = true
	}
}

// kickLocked checks a kick: it has a reason that there is.
func (b *bot) kickLocked(body []byte) {
	var kick struct{ Reason string }
	if err := json.Unmarshal(body, &kick); err != nil {
		b.wrongLocked("a kick with %.200q", body)
	}
	b.log.add("kicked: " + kick.Reason)
	b.report.Count("kicked: "+kick.Reason, 1)
	b.kicked = true
	switch {
	case kick.Reason == "replaced" && (b.twin || time.Now().Before(b.lateFor)):
	case kick.Reason == "kicked" && b.mayKick(b.uid):
	default:
		b.wrongLocked("kicked: %q, which nobody has asked for", kick.Reason)
	}
}
