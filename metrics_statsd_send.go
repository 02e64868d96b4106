package pitaya

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"time"
)

// take returns the oldest packet that waits.
func (s *Statsd) take() (p statsdPacket, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return statsdPacket{}, false
	}
	p = s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	return p, true
}

// putBack takes the buffer of a packet that was sent, or lost.
func (s *Statsd) putBack(p statsdPacket, sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = append(s.spare, p.text)
	if !sent {
		s.dropped += int64(p.lines)
	}
}

// run sends packets until ctx ends, and then what is left.
func (s *Statsd) run(ctx context.Context, link *statsdLink) {
	defer close(s.done)
	defer link.close()
	var due <-chan time.Time // nil while no packet is open
	timer := time.NewTimer(statsdFlush)
	defer timer.Stop()
	timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-due:
			due = nil
			s.seal()
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), statsdEndTimeout)
			defer cancel()
			s.seal()
			s.sendAll(end, link)
			for p, ok := s.take(); ok; p, ok = s.take() {
				s.putBack(p, false)
			}
			return
		}
		s.sendAll(ctx, link)
		if due == nil && s.isOpen() {
			timer.Reset(statsdFlush)
			due = timer.C
		}
	}
}

func (s *Statsd) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealLocked()
}

func (s *Statsd) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open.lines > 0
}

// sendAll sends the packets that wait. Where there is no connection they go on
// waiting.
func (s *Statsd) sendAll(ctx context.Context, link *statsdLink) {
	for link.connect(ctx) {
		p, ok := s.take()
		if !ok {
			return
		}
		s.putBack(p, link.write(p.text))
	}
}

// A statsdLink is the connection of a Statsd. Only run uses it.
type statsdLink struct {
	// Immutable.
	host    string
	named   bool // the host is a name, whose address may change
	dial    func(ctx context.Context) (net.Conn, error)
	log     *slog.Logger
	dropped func() int64

	conn   net.Conn // nil while there is none
	since  time.Time
	next   time.Time // no attempt before
	pause  time.Duration
	logged time.Time
}

// connect makes a connection if there is none, or an old one to a name.
func (l *statsdLink) connect(ctx context.Context) bool {
	now := time.Now()
	if l.conn != nil && !(l.named && now.Sub(l.since) >= statsdRetryMax) {
		return true
	}
	if now.Before(l.next) {
		return l.conn != nil
	}
	limited, cancel := context.WithTimeout(ctx, statsdDialTimeout)
	defer cancel()
	c, err := l.dial(limited)
	if err != nil {
		if ctx.Err() == nil { // else it says nothing, and there is one more attempt
			l.failed(err)
		}
		return l.conn != nil
	}
	l.close()
	l.conn, l.since = c, time.Now()
	return true
}

// write sends a datagram and reports whether it has left. An error may be about
// an earlier one, so it is tried twice.
func (l *statsdLink) write(text []byte) bool {
	var err error
	for range 2 {
		l.conn.SetWriteDeadline(time.Now().Add(statsdEndTimeout)) // if it cannot, the write fails
		if _, err = l.conn.Write(text); err == nil {
			l.pause = 0
			return true
		}
	}
	l.close()
	l.failed(err)
	return false
}

// failed sets the time of the next attempt.
func (l *statsdLink) failed(err error) {
	l.pause = min(max(2*l.pause, statsdRetry), statsdRetryMax)
	now := time.Now()
	l.next = now.Add(l.pause)
	if l.logged.IsZero() || now.Sub(l.logged) >= statsdRetryMax {
		l.logged = now
		l.log.Warn("statsd cannot be reached", "address", l.host, "dropped", l.dropped(), "err", err)
	}
}

func (l *statsdLink) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}
