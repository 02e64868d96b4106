package load

import (
	"context"
	"time"
)

// refusedPause keeps those that are refused from doing nothing but try.
const refusedPause = 10 * time.Millisecond

// storm connects, does the handshake and closes, again and again.
func (r *run) storm(life context.Context, id int) {
	r.try()
	select {
	case <-r.gate:
	case <-life.Done():
		return
	}
	for {
		at, ok := r.next(life)
		if !ok {
			return
		}
		c, kind, err := r.connect(life, id)
		now := r.now()
		s := r.rec.shards[id%len(r.rec.shards)]
		if err != nil {
			r.failed(id, kind, err)
			s.mu.Lock()
			if r.rec.measured(at) {
				s.failed++
			}
			s.mu.Unlock()
			r.pause(life, refusedPause)
			continue
		}
		s.mu.Lock()
		c.result(now, at, 1, false)
		s.counts.BytesReceived += int64(len(c.srv.body) + 4)
		s.counts.BytesSent += int64(len(r.hello) + len(ackPacket))
		s.mu.Unlock()
		c.conn.Close()
	}
}

// next returns when the next operation of a client that is not of the lean kind was to begin: now in a closed load, at
// the next time of the schedule in an open one. It reports whether there is one.
func (r *run) next(life context.Context) (at int64, ok bool) {
	if r.arrivals != nil {
		// What was due before the run stopped is still to be done: the schedule closes the channel.
		select {
		case at, ok = <-r.arrivals:
			return at, ok
		case <-life.Done():
			return 0, false
		}
	}
	now := r.now()
	return now, !r.stopped(now) && life.Err() == nil && r.spend()
}
