package pitaya

import "sync"

// deliveries are what other servers have sent for a session's client and is not
// yet on its way. It comes in by one goroutine for all sessions, which must not
// be kept by the compressing for one of them; so what takes long is done by a
// goroutine that the session has while there is something to do, and what comes
// behind it waits its turn.
type deliveries struct {
	mu      sync.Mutex // guards the fields below
	waiting []func()
	bytes   int  // of the payloads that wait
	busy    bool // somebody is delivering
	room    sync.Cond
}

const (
	// deliveryBytes is the size from which compressing a payload is worth a
	// goroutine.
	deliveryBytes = 512
	// maxDeliveryBytes bounds what may wait. Beyond it, whoever delivers waits.
	maxDeliveryBytes = 4 << 20
)

// deliver calls f, which sends a payload of the given size to the client, after
// everything that was delivered before. It reports whether that has been done;
// else it will be soon.
func (s *Session) deliver(size int, f func()) bool {
	d, inflates := s.delivery()
	slow := inflates && size >= deliveryBytes
	d.mu.Lock()
	if !slow && !d.busy {
		d.busy = true
		d.mu.Unlock()
		f()
		d.pass()
		return true
	}
	for d.bytes > maxDeliveryBytes {
		d.room.Wait()
	}
	d.bytes += size
	d.waiting = append(d.waiting, func() {
		f()
		d.mu.Lock()
		d.bytes -= size
		d.room.Broadcast()
		d.mu.Unlock()
	})
	start := !d.busy
	d.busy = true
	d.mu.Unlock()
	if start {
		go d.run()
	}
	return false
}

// reserve is deliver for what somebody else does, and takes the place in the
// order only. If nothing is being delivered the caller sees to it that the
// function returned is called, which calls f and lets what has come behind it
// follow; everything else for this client waits for that. Otherwise it is nil,
// and f is called when its turn comes.
func (s *Session) reserve(f func()) (deliver func()) {
	d, _ := s.delivery()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy {
		d.waiting = append(d.waiting, f)
		return nil
	}
	d.busy = true
	return func() {
		f()
		d.pass()
	}
}

// pass ends a delivery: what waits behind it is taken up by a goroutine, which
// nobody waits for but those whose payloads it sends.
func (d *deliveries) pass() {
	d.mu.Lock()
	d.busy = len(d.waiting) > 0
	again := d.busy
	d.mu.Unlock()
	if again {
		go d.run()
	}
}

// run delivers until there is nothing more.
func (d *deliveries) run() {
	for {
		d.mu.Lock()
		if len(d.waiting) == 0 {
			d.waiting, d.busy = nil, false
			d.mu.Unlock()
			return
		}
		f := d.waiting[0]
		d.waiting = d.waiting[1:]
		d.mu.Unlock()
		f()
	}
}

// delivery returns the session's deliveries, made when the first comes, and
// whether the client inflates.
func (s *Session) delivery() (*deliveries, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deliveries == nil {
		s.deliveries = new(deliveries)
		s.deliveries.room.L = &s.deliveries.mu
	}
	return s.deliveries, s.inflates
}
