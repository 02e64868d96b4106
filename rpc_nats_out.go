//go:build !nocluster

package pitaya

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// natsOut is the sending half of a connection to NATS: messages that wait, in
// order, and one goroutine that hands them to nats.go.
//
// It is there for the sake of the system calls. What nats.go is given it writes
// as soon as its own goroutine gets a turn, which is at once: where each message
// comes from a goroutine of its own, as answers of handlers and messages of
// clients do, that is a write for each. Here the goroutine lets those go first
// that can run and may have messages too, and what they had leaves in one write.
// When there is nobody else it does not wait at all.
type natsOut struct {
	limit atomic.Int64 // bytes that NATS takes in one message

	mu     sync.Mutex    // guards the fields below
	room   sync.Cond     // told when what waited was taken
	queue  natsBatch     // what waits
	busy   bool          // run is at work, or will be
	closed bool          // nothing is taken in any more
	wake   chan struct{} // of capacity 1: run has something to do
	ended  chan struct{} // closed by run at its end
}

// A natsBatch are messages with their bodies in one piece.
type natsBatch struct {
	List   []natsOutgoing
	Bodies []byte
}

// natsOutgoing is one message, or a mark without a subject.
type natsOutgoing struct {
	Subject, Reply string
	Token          uint64        // of the call that the message is; 0 if it is none
	End            int           // where its body ends
	Mark           chan struct{} // closed when all before it was handed on
}

const (
	// natsOutBytes is how much may wait before those who send more have to. It
	// does so only if the connection takes nothing.
	natsOutBytes = 4 << 20
	// natsOutKept is how large the memory of a batch may be that is used again.
	natsOutKept = 256 << 10
)

func newNATSOut() *natsOut {
	o := &natsOut{wake: make(chan struct{}, 1), ended: make(chan struct{})}
	o.room.L = &o.mu
	return o
}

// errNATSOutClosed is that the connection is not the one to send by any more.
var errNATSOutClosed = errors.New("pitaya: connection given up")

// put lets a message wait.
func (o *natsOut) put(subject, reply string, token uint64, body []byte) error {
	o.mu.Lock()
	for len(o.queue.Bodies) > natsOutBytes && !o.closed {
		o.room.Wait()
	}
	if o.closed {
		o.mu.Unlock()
		return errNATSOutClosed
	}
	o.queue.Bodies = append(o.queue.Bodies, body...)
	o.queue.List = append(o.queue.List, natsOutgoing{Subject: subject, Reply: reply, Token: token, End: len(o.queue.Bodies)})
	start := !o.busy
	o.busy = true
	o.mu.Unlock()
	if start {
		o.wake <- struct{}{} // has room: run was idle
	}
	return nil
}

// mark returns a channel that is closed when what waits now was handed to
// nats.go.
func (o *natsOut) mark() <-chan struct{} {
	done := make(chan struct{})
	o.mu.Lock()
	if !o.busy {
		o.mu.Unlock()
		close(done)
		return done
	}
	o.queue.List = append(o.queue.List, natsOutgoing{Mark: done, End: len(o.queue.Bodies)})
	o.mu.Unlock()
	return done
}

// close ends run when all that waits was handed on, and waits for it.
func (o *natsOut) close() {
	o.mu.Lock()
	start := !o.busy && !o.closed
	o.busy = o.busy || start
	o.closed = true
	o.room.Broadcast()
	o.mu.Unlock()
	if start {
		o.wake <- struct{}{}
	}
	<-o.ended
}

// run hands messages to send, until close.
func (o *natsOut) run(send func(m *natsOutgoing, body []byte)) {
	defer close(o.ended)
	var batch natsBatch
	for range o.wake {
		for {
			runtime.Gosched()
			o.mu.Lock()
			if len(o.queue.List) == 0 {
				o.busy = false
				closed := o.closed
				o.mu.Unlock()
				if closed {
					return
				}
				break
			}
			batch, o.queue = o.queue, batch
			o.room.Broadcast()
			o.mu.Unlock()

			begin := 0
			for i := range batch.List {
				m := &batch.List[i]
				if m.Mark != nil {
					close(m.Mark)
				} else {
					send(m, batch.Bodies[begin:m.End])
				}
				begin = m.End
			}
			clear(batch.List) // what was sent is not to be kept alive
			batch.List, batch.Bodies = batch.List[:0], batch.Bodies[:0]
			if cap(batch.Bodies) > natsOutKept {
				batch = natsBatch{}
			}
		}
	}
}

// publish sends a message. It returns ErrUnreachable while there is no
// connection, and buffers nothing for later. If the connection turns out to be
// lost after that, the message is lost with it; a call, whose token is not 0,
// learns so.
func (s *natsSide) publish(subject, reply string, token uint64, body []byte) error {
	if strings.ContainsAny(subject, " \t\r\n") || subject == "" {
		return fmt.Errorf("pitaya: %.200q cannot be a subject of NATS: %w", subject, nats.ErrBadSubject)
	}
	for {
		l := s.link.Load()
		if l == nil {
			return s.unreachable()
		}
		if limit := l.out.limit.Load(); int64(len(body)) > limit {
			return natsTooLarge(len(body), limit)
		}
		err := l.out.put(subject, reply, token, body)
		if err == nil {
			return nil
		}
		if next := s.link.Load(); next == nil || next == l { // else it has moved meanwhile
			return fmt.Errorf("%w: NATS: %w", ErrUnreachable, err)
		}
	}
}

func natsTooLarge(size int, limit int64) error {
	return fmt.Errorf("pitaya: message of %d bytes: NATS takes at most %d: %w", size, limit, nats.ErrMaxPayload)
}

// send hands a message to nats.go.
func (l *natsLink) send(m *natsOutgoing, body []byte) {
	var err error
	if m.Reply == "" {
		err = l.nc.Publish(m.Subject, body)
	} else {
		err = l.nc.PublishRequest(m.Subject, m.Reply, body)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, nats.ErrConnectionClosed):
		if next := l.side.link.Load(); next != nil && next != l {
			if err = l.side.publish(m.Subject, m.Reply, m.Token, body); err == nil { // moved meanwhile
				return
			}
		} else {
			err = fmt.Errorf("%w: NATS: %w", ErrUnreachable, err)
		}
	case errors.Is(err, nats.ErrMaxPayload): // which has just become less
		l.out.limit.Store(l.nc.MaxPayload())
		err = natsTooLarge(len(body), l.out.limit.Load())
	default:
		// Writing failed, perhaps in the midst of a message.
		l.nc.Close()
		err = fmt.Errorf("%w: NATS: %w", ErrUnreachable, err)
	}
	if m.Token != 0 {
		l.side.t.pending.fail(m.Token, err)
	} else if skipped, ok := l.side.t.faults.pass(); ok {
		l.side.t.log.Warn("a message to another server could not be sent", "err", err, "skipped", skipped)
	}
}

// flush waits until NATS has what was published.
func (l *natsLink) flush(ctx context.Context) error {
	select {
	case <-l.out.mark():
	case <-l.closed:
		return nats.ErrConnectionClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return l.nc.FlushWithContext(ctx)
}
