package pitaya

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// What clients may send: rates for a session, for an address and for all of
// them, requests that may be unanswered, and how much may be refused before a
// client has to go.
//
// A message is judged when it is read from the connection, by the goroutine
// that reads, and the verdict lies in the mailbox with it: it is answered in its
// turn. Where a handler is slow, what its client sent in good time is not
// refused later for it.

// A rate is a number of times in an interval. The zero rate bounds nothing.
type rate struct {
	Limit    int           // at most maxRateLimit
	Interval time.Duration // at most maxRateInterval
}

// maxRateLimit and maxRateInterval keep the arithmetic of buckets within 64
// bits.
const (
	maxRateLimit    = 1_000_000
	maxRateInterval = 2 * time.Hour
)

func (r rate) on() bool { return r.Limit > 0 }

// bucket holds the tokens of a rate: as many as its limit, which come back evenly
// over its interval. So after a pause all may be taken at once, and whatever
// never exceeds the limit within any interval is never refused. It has no timer:
// what came back is reckoned when somebody takes. It counts in tokens times
// nanoseconds, which are whole, so nothing drifts. The zero value is full.
type bucket struct {
	debt int64         // tokens that are out, times the interval
	at   time.Duration // when that was so
}

// take takes a token, if there is one. Times are counted from any one moment.
func (b *bucket) take(r rate, now time.Duration) bool {
	b.refill(r, now)
	if b.debt > int64(r.Limit-1)*int64(r.Interval) {
		return false
	}
	b.debt += int64(r.Interval)
	return true
}

// full reports whether all tokens are back: then the bucket is as good as a new
// one.
func (b *bucket) full(r rate, now time.Duration) bool {
	b.refill(r, now)
	return b.debt == 0
}

func (b *bucket) refill(r rate, now time.Duration) {
	passed := now - b.at
	if passed <= 0 { // one that came sooner to the lock of a shared bucket was later on the clock
		return
	}
	b.at = now
	b.debt = max(b.debt-int64(min(passed, r.Interval))*int64(r.Limit), 0)
}

// sharedBucket is a bucket for several sessions.
type sharedBucket struct {
	mu     sync.Mutex // guards the field below
	bucket bucket
}

// take is the bucket's, or true if the rate bounds nothing.
func (b *sharedBucket) take(r rate, now time.Duration) bool {
	if !r.on() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bucket.take(r, now)
}

// refusal says which limit refused something.
type refusal uint8

const (
	admitted         refusal = iota
	refusedSession           // the rate of the session
	refusedAddress           // the rate of its address
	refusedServer            // the rate of the server
	refusedPending           // too many requests of the session are unanswered
	refusedHandshake         // the rate of handshakes, of the address or the server
	refusedDeadline          // it has waited longer than its handler may take
)

// refuse counts one packet, or one request, that was refused. All refusals go
// through here.
func (c *counters) refuse(by refusal) {
	switch by {
	case refusedSession:
		c.LimitedBySession.Add(1)
	case refusedAddress:
		c.LimitedByAddress.Add(1)
	case refusedServer:
		c.LimitedByServer.Add(1)
	case refusedPending:
		c.LimitedByPending.Add(1)
	case refusedHandshake:
		c.LimitedHandshakes.Add(1)
	case refusedDeadline:
		c.Shed.Add(1)
	}
}

// limits are those of one server. A nil *limits bounds nothing.
type limits struct {
	limitsConfig
	judging bool // something bounds messages; immutable

	addresses  *addressTable
	messages   sharedBucket // of all clients
	handshakes sharedBucket // likewise
}

// limitsConfig says what the limits are. Immutable.
type limitsConfig struct {
	Session           rate // messages of one session
	Address           rate // messages of one address
	Server            rate // messages of all
	AddressHandshakes rate // handshakes of one address
	ServerHandshakes  rate // handshakes of all
	Abuse             rate // refusals of one session before it has to go
	Pending           int  // unanswered requests of one session; 0 is no bound
	AddressConns      int  // open connections of one address; 0 is no bound
	MaxAddresses      int  // addresses without a connection that are remembered
	Counters          *counters
	Epoch             time.Time // all times are counted from here
}

// newLimits returns nil if c bounds nothing.
func newLimits(c limitsConfig) *limits {
	judging := c.Session.on() || c.Address.on() || c.Server.on() || c.Pending > 0
	byAddress := c.Address.on() || c.AddressHandshakes.on() || c.AddressConns > 0
	if !judging && !byAddress && !c.ServerHandshakes.on() {
		return nil
	}
	l := &limits{limitsConfig: c, judging: judging}
	if byAddress {
		l.addresses = newAddressTable(c.Address, c.AddressHandshakes, c.AddressConns, c.MaxAddresses)
	}
	return l
}

// judges reports whether messages are judged, which needs the time of each read.
func (l *limits) judges() bool { return l != nil && l.judging }

func (l *limits) now() time.Duration { return time.Since(l.Epoch) }

// open returns what bounds a new connection, nil if its address has too many.
// close is called for each.
func (l *limits) open(addr net.Addr) *sessionLimits {
	s := &sessionLimits{limits: l}
	if l.addresses != nil {
		if s.address = l.addresses.open(hostOf(addr), l.now()); s.address == nil {
			return nil
		}
	}
	return s
}

// controlRate is how many packets that are no messages a client may send: ten
// times and more what heartbeats of one second would be.
func (l *limits) controlRate() rate { return rate{100, 10 * time.Second} }

// sessionLimits is what one session has used up. One that goes on with another
// connection begins again, as its client could by beginning a new session.
type sessionLimits struct {
	// Immutable.
	limits  *limits
	address *addressLimits // nil: nothing is bounded by address

	// Owned by the goroutine that reads the connection.
	messages bucket
	controls bucket
	refusals bucket
	over     bool // refused too often: what comes now is dropped

	pending atomic.Int64 // requests that were admitted and are not answered
	left    atomic.Bool  // close was called
}

// close is open's other half. Further calls do nothing.
func (s *sessionLimits) close() {
	if s.address != nil && !s.left.Swap(true) {
		s.limits.addresses.close(s.address, s.limits.now())
	}
}

// settled is called when a request that was admitted has been answered, or will
// not be.
func (s *sessionLimits) settled() {
	if s.limits.Pending > 0 {
		s.pending.Add(-1)
	}
}

// handshake reports whether a handshake may be looked at.
func (s *sessionLimits) handshake() bool {
	l := s.limits
	if !l.AddressHandshakes.on() && !l.ServerHandshakes.on() {
		return true
	}
	now := l.now()
	if s.address != nil && !s.address.takeHandshake(l.AddressHandshakes, now) || !l.handshakes.take(l.ServerHandshakes, now) {
		l.Counters.refuse(refusedHandshake)
		return false
	}
	return true
}

// control is told of each packet that is no message, and reports whether the
// client has to go. Such a packet costs next to nothing and is done what it asks
// for, but a flood of them is abuse too.
func (s *sessionLimits) control() (abuse bool) {
	if !s.limits.judging {
		return false
	}
	now := s.limits.now()
	if s.over || s.controls.take(s.limits.controlRate(), now) {
		return false
	}
	s.limits.Counters.refuse(refusedSession)
	s.over = s.refused(now)
	return s.over
}

// judge is given data packets that lie one behind the other, and marks those that
// are refused in their first byte; verdictOf reads the marks. The last packet
// that is still wanted of a client that has to go says so, and what is behind it
// is cut off. Times are counted from the epoch of the limits.
func (s *sessionLimits) judge(packets []byte, now time.Duration) []byte {
	switch {
	case s.over:
		return nil
	case !s.limits.judging:
		return packets
	}
	for n := 0; n < len(packets); {
		p := packets[n:]
		size := PacketHeaderSize + packetLength(p)
		n += size
		by := s.message(isRequest(p[PacketHeaderSize:size]), now)
		if by == admitted {
			continue
		}
		s.limits.Counters.refuse(by)
		p[0] = byte(by) << verdictShift
		if s.refused(now) {
			s.over = true
			p[0] |= verdictAbuse
			return packets[:n]
		}
	}
	return packets
}

// refused counts a refusal, and reports whether there were too many.
func (s *sessionLimits) refused(now time.Duration) bool {
	r := s.limits.Abuse
	return r.on() && !s.refusals.take(r, now)
}

// message judges one message. One that is refused has used up a token of the
// limits before that which refused it: who sends too much does not slow down the
// whole server first.
func (s *sessionLimits) message(request bool, now time.Duration) refusal {
	l := s.limits
	counted := request && l.Pending > 0
	switch {
	case l.Session.on() && !s.messages.take(l.Session, now):
		return refusedSession
	case counted && s.pending.Load() >= int64(l.Pending):
		return refusedPending
	case s.address != nil && !s.address.takeMessage(l.Address, now):
		return refusedAddress
	case !l.messages.take(l.Server, now):
		return refusedServer
	}
	if counted {
		s.pending.Add(1)
	}
	return admitted
}

// isRequest reports whether a message wants an answer, as far as its first byte
// tells.
func isRequest(body []byte) bool {
	return len(body) > 0 && MessageType(body[0]>>flagTypeShift&flagTypeMask) != MessageNotify
}

// The verdict on a message, in place of its packet's type, which is always that of
// data: the limit that refused it, and whether the client has to go.
const (
	verdictShift = 4
	verdictAbuse = 0x80
)

// verdictOf reads what judge has written. The type itself means that the message
// is admitted.
func verdictOf(mark byte) (by refusal, abuse bool) {
	return refusal(mark >> verdictShift & 7), mark&verdictAbuse != 0
}

// hostOf returns what stands for the client in the limits by address.
func hostOf(addr net.Addr) string {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		if addr.IP.To4() == nil && len(addr.IP) == net.IPv6len {
			return string(addr.IP[:8]) // whoever has one address of a /64 has them all
		}
		return string(addr.IP.To4())
	case nil: // as of a socket whose client was gone before it was asked
		return ""
	}
	return addr.String()
}
