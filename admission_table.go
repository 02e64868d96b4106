package pitaya

import (
	"sync"
	"time"
)

// addressTable knows what each address of clients has used up. An address is in
// it while it has connections, and after that until its buckets are full again:
// from then on it is as if it had never been there.
//
// Of addresses without a connection a number is remembered. When there are more,
// the oldest of those that were never refused anything are forgotten; those that
// were have half of the places. So whoever wants the record of an address to be
// forgotten needs as many others that exceed the limits too.
//
// There is no timer: what is over is taken out when connections open and close.
type addressTable struct {
	// Immutable.
	messages   rate
	handshakes rate
	conns      int // open connections of one address; 0 is no bound
	max        int // addresses without a connection

	mu     sync.Mutex // guards the fields below, and the links and counts of the records
	byHost map[string]*addressLimits
	calm   addressList // without a connection, and never refused anything
	hot    addressList // without a connection, and refused something
}

// addressLimits is what one address has used up.
type addressLimits struct {
	host string // immutable

	mu         sync.Mutex // guards the fields below; taken with the table's held, never the other way round
	messages   bucket
	handshakes bucket
	refused    bool

	// Guarded by addressTable.mu.
	open       int // connections
	list       *addressList
	next, prev *addressLimits
}

func newAddressTable(messages, handshakes rate, conns, max int) *addressTable {
	return &addressTable{messages: messages, handshakes: handshakes, conns: conns, max: max, byHost: make(map[string]*addressLimits)}
}

// open charges a connection to its address. It returns nil if that has too many.
func (t *addressTable) open(host string, now time.Duration) *addressLimits {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	a := t.byHost[host]
	switch {
	case a == nil:
		a = &addressLimits{host: host}
		t.byHost[host] = a
	case t.conns > 0 && a.open >= t.conns:
		return nil
	case a.list != nil:
		a.list.remove(a)
	}
	a.open++
	return a
}

// close takes a connection off its address again.
func (t *addressTable) close(a *addressLimits, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.open--; a.open > 0 {
		return
	}
	full, refused := a.state(t, now)
	switch {
	case full:
		delete(t.byHost, a.host)
	case refused:
		t.hot.append(a)
	default:
		t.calm.append(a)
	}
	t.expireLocked(now)
	for t.calm.n+t.hot.n > t.max {
		if t.hot.n > (t.max+1)/2 {
			t.dropLocked(t.hot.first)
		} else {
			t.dropLocked(t.calm.first)
		}
	}
}

// expireLocked forgets addresses whose buckets are full again. Those that have
// waited longest are first, so the rest need not be looked at.
func (t *addressTable) expireLocked(now time.Duration) {
	for _, l := range []*addressList{&t.calm, &t.hot} {
		for l.first != nil {
			if full, _ := l.first.state(t, now); !full {
				break
			}
			t.dropLocked(l.first)
		}
	}
}

func (t *addressTable) dropLocked(a *addressLimits) {
	a.list.remove(a)
	delete(t.byHost, a.host)
}

// len returns how many addresses are known.
func (t *addressTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byHost)
}

// state says whether an address is as good as one that was never seen, and
// whether it was refused something.
func (a *addressLimits) state(t *addressTable, now time.Duration) (full, refused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.messages.full(t.messages, now) && a.handshakes.full(t.handshakes, now), a.refused
}

// takeMessage reports whether a message is within the address's rate.
func (a *addressLimits) takeMessage(r rate, now time.Duration) bool {
	return a.take(&a.messages, r, now)
}

// takeHandshake reports the same of a handshake.
func (a *addressLimits) takeHandshake(r rate, now time.Duration) bool {
	return a.take(&a.handshakes, r, now)
}

func (a *addressLimits) take(b *bucket, r rate, now time.Duration) bool {
	if !r.on() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ok := b.take(r, now)
	a.refused = a.refused || !ok
	return ok
}

// addressList is a list of addresses in the order in which they were appended.
type addressList struct {
	first, last *addressLimits
	n           int
}

func (l *addressList) append(a *addressLimits) {
	a.list, a.prev, a.next = l, l.last, nil
	if l.last != nil {
		l.last.next = a
	} else {
		l.first = a
	}
	l.last = a
	l.n++
}

func (l *addressList) remove(a *addressLimits) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		l.first = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		l.last = a.prev
	}
	a.list, a.prev, a.next = nil, nil, nil
	l.n--
}
