package pitaya

import "sync"

// A sendOrder knows which message of a session each other server was sent last. One that has to be sent again, to another
// server than the one that cannot have got it, must not come there behind a later one.
type sendOrder struct {
	mu      sync.Mutex // guards what follows; never held while sending
	sent    uint64     // how many messages were sent; they are numbered by it
	marks   []sendMark // of the servers that were sent something last, in no order
	floor   uint64     // servers without a mark were sent no later message than this one
	repeats int        // messages that are just being sent again
	rest    chan struct{}
}

// sendMark is the last message that a server was sent.
type sendMark struct {
	server string
	number uint64
}

// maxSendMarks is of how many servers a session knows. Few talk to more.
const maxSendMarks = 8

// next numbers a message that is about to be sent to a server, by the session's worker. If the channel is not nil, it is to
// be sent when that is closed: an earlier message is just being sent again.
func (o *sendOrder) next(server string) (number uint64, rest <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent++
	o.markLocked(server, o.sent)
	return o.sent, o.rest
}

// repeat reports whether a message may be sent again, to this server: it was sent no later one. If so, done is to be called
// once it has been sent.
func (o *sendOrder) repeat(server string, number uint64) (done func(), ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := o.floor
	for _, m := range o.marks {
		if m.server == server {
			last = m.number
		}
	}
	if last > number {
		return nil, false
	}
	o.markLocked(server, number)
	if o.repeats++; o.rest == nil {
		o.rest = make(chan struct{})
	}
	return o.repeated, true
}

func (o *sendOrder) repeated() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.repeats--; o.repeats == 0 {
		close(o.rest)
		o.rest = nil
	}
}

func (o *sendOrder) markLocked(server string, number uint64) {
	oldest := 0
	for i := range o.marks {
		if o.marks[i].server == server {
			o.marks[i].number = number
			return
		}
		if o.marks[i].number < o.marks[oldest].number {
			oldest = i
		}
	}
	if len(o.marks) < maxSendMarks {
		o.marks = append(o.marks, sendMark{server, number})
		return
	}
	o.floor = max(o.floor, o.marks[oldest].number)
	o.marks[oldest] = sendMark{server, number}
}
