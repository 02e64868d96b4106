package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A check that finds nothing is worth something only if it finds what is wrong: here bots and journals are told what must
// not be.

// A testBot is a bot with a connection on which it has asked for something, and what it complains about.
type testBot struct {
	*bot
	t   *testing.T
	out *strings.Builder
}

func newTestBot(t *testing.T) *testBot {
	r, out := testReporter()
	w := &world{report: r, think: time.Second, kicks: make(map[string]time.Time), harmed: make(map[string]bool)}
	w.users = []string{"ada", "bob"}
	b := newBot(w, 7, "ada", []string{"group1"}, rand.New(rand.NewPCG(1, 1)))
	b.drains = true
	b.newSessionLocked()
	b.conn = conn{wire: new(wire), process: "gate-1/1", pending: make(map[uint64]*request), forward: make(map[string]uint64)}
	b.bound, b.asked = bindDone, true
	return &testBot{b, t, out}
}

// ask puts requests on their way; their ids are 1 and so on.
func (b *testBot) ask(routes ...string) {
	t := b.begin(b.wire)
	if t == nil {
		b.t.Fatal("nothing may be sent")
	}
	defer b.mu.Unlock()
	for _, route := range routes {
		t.add(route, Msg{N: 5})
	}
}

func (b *testBot) message(m pitaya.Message) {
	body, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(pitaya.PacketData, string(body))
}

func (b *testBot) take(t pitaya.PacketType, body string) {
	if err := b.packet(b.wire, pitaya.Packet{Type: t, Body: []byte(body)}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *testBot) reply(id uint64, r Reply) {
	r.Bot = b.id
	payload, _ := json.Marshal(r)
	b.message(pitaya.Message{Type: pitaya.MessageResponse, ID: id, Payload: payload})
}

func (b *testBot) fail(id uint64, code string) {
	b.message(pitaya.Message{Type: pitaya.MessageResponse, ID: id, Err: true, Payload: fmt.Appendf(nil, `{"code":%q,"msg":"x"}`, code)})
}

func (b *testBot) push(route string, p Push) {
	payload, _ := json.Marshal(p)
	b.message(pitaya.Message{Type: pitaya.MessagePush, Route: route, Payload: payload})
}

func TestBotChecks(t *testing.T) {
	t.Parallel()
	gate := func(seq, count int) Reply { return Reply{Seq: seq, Server: "gate-1/1", Count: count} }
	room := func(seq int) Reply { return Reply{Seq: seq, Server: "room-1/1"} }
	for name, test := range map[string]struct {
		do   func(b *testBot)
		want string // "" if nothing is wrong
	}{
		"all is well": {func(b *testBot) {
			b.ask("gate.game.echo", "room.game.echo", "gate.game.burst", "room.game.put", "gate.game.get", "gate.game.call", "room.game.fail")
			b.reply(1, gate(1, 1))
			b.push(pushOwn, Push{UID: "ada", From: "gate-1/1", N: 1})
			b.push(pushOwn, Push{UID: "ada", From: "gate-1/1", N: 2})
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 4})
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 6}) // one was lost
			b.push(pushChat, Push{Group: "group1", From: "room-1/1", N: 1})
			r := gate(3, 2)
			r.Own = 2
			b.reply(3, r)
			b.reply(2, room(2))
			b.reply(4, room(4))
			b.fail(7, codeWanted)
			b.reply(5, gate(5, 3))
			r = gate(6, 4)
			r.Value = 6
			b.reply(6, r)
			b.take(pitaya.PacketHeartbeat, "")
			b.take(pitaya.PacketHandshakeAck, "")
		}, ""},
		"answered twice": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.reply(1, gate(1, 1))
			b.reply(1, gate(1, 1))
		}, "which no request waits for"},
		"answer of somebody else": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.reply(1, gate(2, 1))
		}, "is that to message 2"},
		"answers of the gate out of order": {func(b *testBot) {
			b.ask("gate.game.echo", "gate.game.get")
			b.reply(2, gate(2, 2))
			b.reply(1, gate(1, 1))
		}, "came behind that to 2"},
		"answers of a room out of order": {func(b *testBot) {
			b.ask("room.game.echo", "room.game.echo")
			b.reply(2, room(2))
			b.reply(1, room(1))
		}, "both by room-1/1"},
		"answers of two rooms": {func(b *testBot) {
			b.ask("room.game.echo", "room.game.echo")
			b.reply(2, room(2))
			b.reply(1, Reply{Seq: 1, Server: "room-2/1"})
		}, ""},
		"wrong session": {func(b *testBot) {
			b.ask("room.game.echo")
			b.reply(1, Reply{Seq: 1, Server: "room-1/1", Wrong: "the session is that of bob"})
		}, "that of bob"},
		"a message was lost": {func(b *testBot) {
			b.ask("gate.game.note", "gate.game.echo")
			b.reply(1, gate(2, 1))
		}, "which had handled 1"},
		"a message was handled twice": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.reply(1, gate(1, 2))
		}, "which had handled 2"},
		"messages that were lost with a connection": {func(b *testBot) {
			b.ask("gate.game.note", "gate.game.echo", "gate.game.echo")
			b.unsure = true
			b.reply(1, gate(2, 1))
			b.reply(2, gate(3, 2))
		}, ""},
		"another error": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.fail(1, pitaya.CodeInternal)
		}, "answered by PIT-500"},
		"the error of an outage": {func(b *testBot) {
			b.ask("room.game.echo")
			b.fail(1, pitaya.CodeTimeout)
		}, ""},
		"an error while nothing is wrong": {func(b *testBot) {
			b.fairWeather(true)
			b.ask("room.game.echo")
			b.fail(1, pitaya.CodeTimeout)
		}, "answered by PIT-408"},
		"an answer that is none": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.message(pitaya.Message{Type: pitaya.MessageResponse, ID: 1, Payload: []byte("{")})
		}, "is no answer"},
		"own pushes behind the answer": {func(b *testBot) {
			b.ask("gate.game.burst")
			r := gate(1, 1)
			r.Own = 1
			b.reply(1, r)
		}, "came before the push 1"},
		"an own push was lost": {func(b *testBot) {
			b.push(pushOwn, Push{UID: "ada", From: "gate-1/1", N: 2})
		}, "came behind push 0"},
		"a push for somebody else": {func(b *testBot) { b.push(pushTell, Push{UID: "bob", From: "room-1/1", N: 1}) }, "a push for user bob"},
		"a push without a user": {func(b *testBot) {
			b.asked = false
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 1})
		}, "a push for user ada"},
		"a push for another group": {func(b *testBot) { b.push(pushChat, Push{Group: "group2", From: "room-1/1", N: 1}) }, "a push for group group2"},
		"a push twice": {func(b *testBot) {
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 1})
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 1})
		}, "came behind push 1"},
		"a push was lost while nothing was wrong": {func(b *testBot) {
			b.fairWeather(true)
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 1})
			b.push(pushTell, Push{UID: "ada", From: "room-1/1", N: 3})
		}, "while nothing was wrong"},
		"kicked without a reason": {func(b *testBot) { b.take(pitaya.PacketKick, `{"reason":"replaced"}`) }, "nobody has asked for"},
		"kicked as asked": {func(b *testBot) {
			b.kickAsked("ada")
			b.take(pitaya.PacketKick, `{"reason":"kicked"}`)
		}, ""},
		"a packet behind a kick": {func(b *testBot) {
			b.twin = true
			b.take(pitaya.PacketKick, `{"reason":"replaced"}`)
			b.take(pitaya.PacketHeartbeat, "")
		}, "behind a kick"},
		"old data": {func(b *testBot) {
			b.ask("room.game.put")
			b.reply(1, room(1))
			b.ask("gate.game.get")
			r := gate(2, 1)
			b.reply(2, r)
		}, "the session's data are of message 0"},
		"a request from the server": {func(b *testBot) {
			b.message(pitaya.Message{Type: pitaya.MessageNotify, Route: "x"})
		}, "from the server"},
		"unanswered": {func(b *testBot) {
			b.ask("gate.game.echo")
			b.pending[1].at = time.Now().Add(-2 * lateness)
			b.overdue()
		}, "was not answered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTestBot(t)
			test.do(b)
			switch got := b.out.String(); {
			case test.want == "" && b.report.Violations() > 0:
				t.Errorf("complains, and nothing is wrong: %s", got)
			case !strings.Contains(got, test.want):
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	h := newHandled()
	var wrong []string
	for _, process := range []string{"room-1/1", "room-2/1"} {
		name := filepath.Join(folder, strings.ReplaceAll(process, "/", "."))
		j, err := newJournal(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := openJournal(process, name)
		if err != nil {
			t.Fatal(err)
		}
		read := func() {
			t.Helper()
			if err := h.read(r, func(bot int, text string) { wrong = append(wrong, fmt.Sprint(bot, ": ", text)) }); err != nil {
				t.Fatal(err)
			}
		}
		if process == "room-1/1" {
			j.add(1, 1, 3)
			read()
			j.add(1, 1, 200)
			j.add(2, 1, 5)
			j.add(1, 2, 7) // a session of its own
			j.add(2, 1, 4)
		} else {
			j.add(1, 1, 4) // a server of its own
			j.add(1, 2, 7)
		}
		read()
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		r.file.Close()
	}
	want := []string{
		"2: room-1/1 has handled message 4 of session 1 after message 5",
		"1: message 7 was handled by room-2/1 after it had been by room-1/1",
	}
	if !slices.Equal(wrong, want) || h.Messages != 7 {
		t.Errorf("%d messages, wrong %q; want %q", h.Messages, wrong, want)
	}
}
