package load

// pending are the requests of one connection that wait for their answers. Ids rise by one from 1. Looking one up costs
// an index and nothing is allocated once the ring has grown to what is in use.
type pending struct {
	slots []pendingSlot // a power of two; those of ids from head on; nil before the first
	head  uint64        // no smaller id waits
	next  uint64        // the next id; 0 before the first
	open  int           // how many wait
	limit int           // how long the ring may be; a power of two
}

type pendingSlot struct {
	id uint64 // 0: does not wait
	at int64  // when it was to be sent
}

// maxPending returns the limit of a ring that has room for n.
func maxPending(n int) int {
	size := 1
	for size < n {
		size *= 2
	}
	return size
}

// add takes in a request that was to be sent at a time. It is refused if limit ids or more lie between it and the
// eldest one that waits.
func (p *pending) add(at int64) (id uint64, ok bool) {
	if p.next == 0 {
		p.next, p.head = 1, 1
		p.slots = make([]pendingSlot, min(p.limit, 16))
	}
	if p.next-p.head == uint64(len(p.slots)) {
		p.advance()
		if p.next-p.head == uint64(len(p.slots)) && !p.grow() {
			return 0, false
		}
	}
	id = p.next
	p.next++
	p.open++
	*p.slot(id) = pendingSlot{id, at}
	return id, true
}

func (p *pending) slot(id uint64) *pendingSlot { return &p.slots[id&uint64(len(p.slots)-1)] }

// advance moves head to the eldest that waits.
func (p *pending) advance() {
	for p.head < p.next && p.slot(p.head).id != p.head {
		p.head++
	}
}

func (p *pending) grow() bool {
	if len(p.slots) >= p.limit {
		return false
	}
	old := p.slots
	p.slots = make([]pendingSlot, 2*len(old))
	for _, s := range old {
		if s.id != 0 {
			*p.slot(s.id) = s
		}
	}
	return true
}

// take ends the wait of a request. It reports whether it was waiting.
func (p *pending) take(id uint64) (at int64, ok bool) {
	if p.open == 0 || id == 0 {
		return 0, false
	}
	s := p.slot(id)
	if s.id != id {
		return 0, false
	}
	s.id = 0
	p.open--
	return s.at, true
}

// expire ends the wait of the requests that were to be sent before a time, and calls f with the time of each. Those
// that were added later were not to be sent earlier.
func (p *pending) expire(before int64, f func(at int64)) {
	for p.open > 0 {
		p.advance()
		at := p.slot(p.head).at
		if at >= before {
			return
		}
		p.take(p.head)
		f(at)
	}
}
