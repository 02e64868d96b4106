//go:build !nocluster

package pitaya

import (
	"context"
	"fmt"
	"time"
)

// NATSServer is the address of the NATS server that a transport calls through; "" if there is none.
func NATSServer(t *NATSTransport) string {
	if l := t.calling.link.Load(); l != nil {
		return l.nc.ConnectedUrl()
	}
	return ""
}

// A CallTable are the calls of a transport that wait.
type CallTable struct{ *natsCalls }

// NewCallTable returns one that works until Close.
func NewCallTable() CallTable {
	t := CallTable{newNATSCalls()}
	go t.run()
	return t
}

func (t CallTable) Add(ctx context.Context, limit time.Duration, done func(error)) (uint64, error) {
	return t.add(ctx, limit, &ServerInfo{Type: "t", ID: "i"}, func(_ []byte, err error) { done(err) })
}

func (t CallTable) Answer(token uint64) bool {
	c := t.take(token)
	if c != nil {
		c.done(nil, nil)
	}
	return c != nil
}

func (t CallTable) FailAll(err error) { t.failAll(err) }
func (t CallTable) Close(err error)   { t.close(err) }

// Waiting returns how many calls wait, after checking that the heap is one.
func (t CallTable) Waiting() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, c := range t.due {
		switch {
		case c.index != i:
			return 0, fmt.Errorf("call at place %d thinks it is at %d", i, c.index)
		case t.due[max(0, (i-1)/2)].due > c.due:
			return 0, fmt.Errorf("call at place %d is due before the one above it", i)
		case t.waiting[c.token] != c:
			return 0, fmt.Errorf("call at place %d is not in the table", i)
		}
	}
	if len(t.due) != len(t.waiting) {
		return 0, fmt.Errorf("%d calls in the heap, %d in the table", len(t.due), len(t.waiting))
	}
	return len(t.due), nil
}

// DroppedOf is Dropped for one kind of subscriptions.
func (t *NATSTransport) DroppedOf(kind string) int64 { return t.dropped()[kind] }

// A NATSOut is the queue toward NATS, without NATS.
type NATSOut struct{ *natsOut }

// NewNATSOut returns one that hands what waits to send, until Close.
func NewNATSOut(send func(subject, reply string, token uint64, body []byte)) NATSOut {
	o := NATSOut{newNATSOut()}
	go o.run(func(m *natsOutgoing, body []byte) { send(m.Subject, m.Reply, m.Token, body) })
	return o
}

func (o NATSOut) Put(subject, reply string, token uint64, body []byte) error {
	return o.put(subject, reply, token, body)
}
func (o NATSOut) Mark() <-chan struct{} { return o.mark() }
func (o NATSOut) Close()                { o.close() }
