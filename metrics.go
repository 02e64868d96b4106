package pitaya

import (
	"sync/atomic"
	"time"
)

// A Label is a name and value that tell the time series of one metric apart.
type Label struct {
	Name, Value string
}

// A Reporter receives the metrics of a server as they happen. Names, labels and
// meanings are those of Pitaya, so that dashboards keep working. Any number of
// reporters may be active; each gets everything.
//
// The methods are called from many goroutines, on the path of messages: they
// must be quick and must not block. The labels are only valid during the call.
type Reporter interface {
	// Count adds delta to a counter.
	Count(name string, delta float64, labels ...Label)
	// Gauge sets a value that goes up and down.
	Gauge(name string, value float64, labels ...Label)
	// Observe adds one observation to a distribution.
	Observe(name string, value float64, labels ...Label)
}

// A seriesReporter is a Reporter that can find a time series once, so that
// reports to it need no look-up by labels. The library's own reporters are.
type seriesReporter interface {
	Reporter
	// series returns a function that does for one metric and set of labels what
	// the method of that kind does, as often as it is called, from any number of
	// goroutines. It is never nil. The labels may be changed once series returns.
	series(kind, name string, labels ...Label) func(float64)
}

// Kinds of reports: the methods of [Reporter].
const (
	reportCount   = "count"
	reportGauge   = "gauge"
	reportObserve = "observe"
)

// Stats are counts of what a server has done since it was made, and of what is
// open now. They are consistent with each other when the server is at rest:
// Accepted = Open + Closed and Requests = Answered + Failed + Unanswerable +
// Lost.
type Stats struct {
	Accepted          int64 // connections accepted
	Open              int64 // connections open now
	Closed            int64 // connections closed
	Sessions          int64 // sessions now: connections whose transport is set up
	RefusedConns      int64 // connections closed at once because of a limit
	RefusedHandshakes int64 // handshakes that were malformed, refused by a validator, or too many
	Violations        int64 // connections ended because the client broke the protocol
	Requests          int64 // requests from clients
	Notifies          int64 // notifies from clients
	NotifiesLost      int64 // notifies among them that waited for their turn when their connection ended, and went nowhere
	Answered          int64 // requests answered with a result
	Failed            int64 // requests answered with an error
	Unanswerable      int64 // requests with id 0, which cannot be answered
	Lost              int64 // requests whose connection ended before the answer
	Pushes            int64 // pushes queued
	PushesDropped     int64 // pushes dropped because a client was slow
	SlowClients       int64 // clients closed because they were slow
	SlowHandlers      int64 // handler calls that took longer than the setting
	Panics            int64 // panics recovered
	Forwards          int64 // messages of clients sent on to other servers; requests among them are in Requests too
	Calls             int64 // calls from other servers that were taken in, clients' messages among them
	MultiPushes       int64 // messages to other frontends that carry one push for many users
	LimitedBySession  int64 // packets refused because of the rate of their session
	LimitedByAddress  int64 // messages refused because of the rate of their address
	LimitedByServer   int64 // messages refused because of the rate of the server
	LimitedByPending  int64 // requests refused because too many of their session were unanswered
	LimitedHandshakes int64 // handshakes refused because there were too many; in RefusedHandshakes too
	Shed              int64 // requests not handled because they had waited longer than their handler may take
	ClosedForAbuse    int64 // sessions closed because they went on sending more than they may
}

// counters are the numbers behind Stats.
type counters struct {
	Accepted, Closed, RefusedConns, RefusedHandshakes, Violations  atomic.Int64
	Requests, Notifies, Answered, Failed, Unanswerable             atomic.Int64
	Pushes, PushesDropped, SlowClients, SlowHandlers, Panics, Lost atomic.Int64
	Forwards, Calls, MultiPushes, NotifiesLost                     atomic.Int64

	LimitedBySession, LimitedByAddress, LimitedByServer, LimitedByPending atomic.Int64
	LimitedHandshakes, Shed, ClosedForAbuse                               atomic.Int64
}

// snapshot reads the counters. Closed is read before Accepted, so that Open is
// never negative.
func (c *counters) snapshot() Stats {
	closed := c.Closed.Load()
	accepted := c.Accepted.Load()
	return Stats{
		Accepted:          accepted,
		Open:              accepted - closed,
		Closed:            closed,
		RefusedConns:      c.RefusedConns.Load(),
		RefusedHandshakes: c.RefusedHandshakes.Load(),
		Violations:        c.Violations.Load(),
		Requests:          c.Requests.Load(),
		Notifies:          c.Notifies.Load(),
		NotifiesLost:      c.NotifiesLost.Load(),
		Answered:          c.Answered.Load(),
		Failed:            c.Failed.Load(),
		Unanswerable:      c.Unanswerable.Load(),
		Lost:              c.Lost.Load(),
		Pushes:            c.Pushes.Load(),
		PushesDropped:     c.PushesDropped.Load(),
		SlowClients:       c.SlowClients.Load(),
		SlowHandlers:      c.SlowHandlers.Load(),
		Panics:            c.Panics.Load(),
		Forwards:          c.Forwards.Load(),
		Calls:             c.Calls.Load(),
		MultiPushes:       c.MultiPushes.Load(),
		LimitedBySession:  c.LimitedBySession.Load(),
		LimitedByAddress:  c.LimitedByAddress.Load(),
		LimitedByServer:   c.LimitedByServer.Load(),
		LimitedByPending:  c.LimitedByPending.Load(),
		LimitedHandshakes: c.LimitedHandshakes.Load(),
		Shed:              c.Shed.Load(),
		ClosedForAbuse:    c.ClosedForAbuse.Load(),
	}
}

// reporters fans a value out.
type reporters []Reporter

func (r reporters) gauge(name string, value float64, labels ...Label) {
	for _, p := range r {
		p.Gauge(name, value, labels...)
	}
}

func (r reporters) observe(name string, d time.Duration, labels ...Label) {
	for _, p := range r {
		p.Observe(name, float64(d), labels...)
	}
}
