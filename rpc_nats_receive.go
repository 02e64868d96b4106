//go:build !nocluster

package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
)

// mark waits until what is in the channel now has been handled.
func (l *natsLink) mark(ctx context.Context) error {
	m, done := new(nats.Msg), make(chan struct{})
	l.marks.Store(m, done)
	defer l.marks.Delete(m)
	select {
	case l.in <- m:
	case <-l.handled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-l.handled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dispatch hands the messages of the link on, one after the other.
func (l *natsLink) dispatch() {
	defer close(l.handled)
	var handled map[natsKey]int // by the link before
	var until time.Time
	if prev := l.prev; prev != nil {
		<-prev.handled
		handled, l.prev, prev.seen = prev.seen, nil, nil
		until = time.Now().Add(natsOverlap)
	}
	t := l.side.t
	for m := range l.in {
		if m == nil {
			return
		}
		if m.Sub == nil {
			if done, ok := l.marks.Load(m); ok {
				close(done.(chan struct{}))
			}
			continue
		}
		if handled != nil {
			if time.Now().After(until) {
				handled = nil
			} else if k := keyOf(m); handled[k] > 0 {
				handled[k]--
				continue
			}
		}
		if l.record.Load() {
			if l.seen == nil {
				l.seen = make(map[natsKey]int)
			}
			l.seen[keyOf(m)]++
		} else if l.seen != nil {
			l.seen = nil // the move did not come about
		}
		t.deliver(m)
	}
}

func keyOf(m *nats.Msg) natsKey {
	if m.Reply != "" {
		return natsKey{reply: m.Reply}
	}
	return natsKey{subject: m.Subject, data: string(m.Data)}
}

// asyncError takes what nats.go reports beside its calls.
func (t *NATSTransport) asyncError(l *natsLink, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		t.mu.Lock()
		if _, known := l.slow[sub]; !known {
			l.slow[sub] = 0
		}
		t.countLocked(l)
		t.mu.Unlock()
		if skipped, ok := t.drops.pass(); ok {
			t.log.Error("messages from NATS are dropped, because those before are not handled in time",
				"dropped", t.Dropped(), "skipped", skipped)
		}
		return
	}
	if skipped, ok := t.faults.pass(); ok {
		t.log.LogAttrs(context.Background(), slog.LevelWarn, "NATS reports an error",
			slog.Any("err", err), slog.Int("skipped", skipped))
	}
}

// countLocked adds what subscriptions of a link have lost since the last time.
func (t *NATSTransport) countLocked(l *natsLink) {
	for sub, counted := range l.slow {
		if n, err := sub.Dropped(); err == nil {
			t.lost[t.kindOf(sub)] += int64(n - counted)
			l.slow[sub] = n
		}
	}
}

// kindOf returns the kind of a subscription.
func (t *NATSTransport) kindOf(sub *nats.Subscription) string {
	switch {
	case sub.Subject == t.calls:
		return natsKindCalls
	case sub.Subject == t.bindings:
		return natsKindBinds
	case strings.HasPrefix(sub.Subject, t.inbox):
		return natsKindAnswers
	case strings.HasSuffix(sub.Subject, natsKick):
		return natsKindKicks
	}
	return natsKindPushes
}

// deliver hands a message on. It is called by one goroutine at a time.
func (t *NATSTransport) deliver(m *nats.Msg) {
	defer func() {
		if v := recover(); v != nil {
			t.log.Error("panic in the handling of a message between servers", "err", v, "stack", string(debug.Stack()))
		}
	}()
	if token, ok := strings.CutPrefix(m.Subject, t.inbox); ok {
		t.answer(token, m)
		return
	}
	switch m.Subject {
	case t.calls:
		t.handler.HandleCall(context.Background(), m.Data, t.replier(m.Reply))
		return
	case t.bindings:
		var b clustermsg.BindMsg
		if err := b.Decode(m.Data); err != nil {
			t.refuse(m, err)
			return
		}
		t.notice(m, NoticeBind, b.Uid)
		return
	}
	uid, ok := strings.CutPrefix(m.Subject, t.users)
	if uid, push := strings.CutSuffix(uid, natsPush); ok && push {
		t.notice(m, NoticePush, uid)
	} else if uid, kick := strings.CutSuffix(uid, natsKick); ok && kick {
		t.notice(m, NoticeKick, uid)
	}
}

// answer ends the call that a message is the answer to. Late answers and
// foreign messages find none.
func (t *NATSTransport) answer(token string, m *nats.Msg) {
	n, err := strconv.ParseUint(token, 36, 64)
	if err != nil {
		return
	}
	c := t.pending.take(n)
	if c == nil {
		return
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		c.done(nil, fmt.Errorf("%w: %s %s does not listen", ErrUnreachable, c.to.Type, c.to.ID))
		return
	}
	c.done(m.Data, nil)
}

// replier returns what sends the answer to a call.
func (t *NATSTransport) replier(reply string) func([]byte) {
	if reply == "" {
		return func([]byte) {}
	}
	return func(response []byte) {
		if response == nil {
			return
		}
		err := t.serving.publish(reply, "", 0, response)
		if errors.Is(err, nats.ErrMaxPayload) {
			// The caller is to learn what is wrong, and not to wait.
			err = t.serving.publish(reply, "", 0, natsError(NewError(err, CodeInternal)))
		}
		if err != nil {
			if skipped, ok := t.faults.pass(); ok {
				t.log.Warn("an answer could not be sent", "err", err, "skipped", skipped)
			}
		}
	}
}

func (t *NATSTransport) notice(m *nats.Msg, kind NoticeKind, uid string) {
	n := &Notice{Kind: kind, FrontendType: t.self.Type, UID: uid, Body: m.Data}
	if m.Reply == "" {
		t.handler.HandleNotice(n, nil)
		return
	}
	send := t.replier(m.Reply)
	t.handler.HandleNotice(n, func(response []byte, err error) {
		switch {
		case err != nil:
			send(natsError(err))
		case response == nil:
			send([]byte(natsAck))
		default:
			send(response)
		}
	})
}

// refuse answers a message that cannot be read, if its sender waits.
func (t *NATSTransport) refuse(m *nats.Msg, err error) {
	if skipped, ok := t.faults.pass(); ok {
		t.log.Warn("a message between servers cannot be read", "subject", m.Subject, "err", err, "skipped", skipped)
	}
	t.replier(m.Reply)(natsError(Errorf(CodeBadRequest, "pitaya: message cannot be read")))
}

// natsError is the encoded protos.Response for an error.
func natsError(err error) []byte {
	return (&rpcResponse{Err: wireError(err)}).encode()
}

// Dropped returns how many messages were lost because too many waited to be
// handed on. NATS itself may have dropped others.
func (t *NATSTransport) Dropped() int64 {
	total := int64(0)
	for _, n := range t.dropped() {
		total += n
	}
	return total
}

// dropped returns the same by the kind of the subscription.
func (t *NATSTransport) dropped() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.links {
		t.countLocked(l)
	}
	return maps.Clone(t.lost)
}

// room returns how many of the messages that come in can still wait to be handed
// on.
func (t *NATSTransport) room() int {
	if l := t.serving.link.Load(); l != nil {
		return cap(l.in) - len(l.in)
	}
	return t.serving.room
}

// reconnected returns how often a connection that was lost has been replaced.
func (t *NATSTransport) reconnected() int64 { return t.reconnects.Load() }
