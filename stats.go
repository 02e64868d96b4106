package pitaya

import "sync/atomic"

// Stats are counts of what a server has done since it was made, and of what is
// open now. They are consistent with each other when the server is at rest:
// Accepted = Open + Closed and Requests = Answered + Failed + Unanswerable +
// Lost. docs/operations.md tells which metric each of them is.
type Stats struct {
	Accepted          int64 // connections accepted
	Open              int64 // connections open now
	Closed            int64 // connections closed
	Sessions          int64 // sessions now: connections whose transport is set up
	Bound             int64 // users now: sessions that are bound to one
	Waiting           int64 // sessions now, among those of Sessions, that wait for their clients to come back
	Resumed           int64 // sessions that went on with another connection
	NotResumed        int64 // clients that wanted their session back and got a new one
	RefusedConns      int64 // connections closed at once because of a limit
	RefusedHandshakes int64 // handshakes that were malformed, refused by a validator, or too many
	LateHandshakes    int64 // connections ended because the handshake took too long
	Violations        int64 // connections ended because the client broke the protocol
	ReceivedBytes     int64 // bytes from clients, with the framing of WebSocket and without TLS
	SentBytes         int64 // bytes to clients, likewise
	ReceivedPackets   int64 // whole packets from clients, of all types
	SentPackets       int64 // whole packets to clients, of all types; answers to pings of WebSocket among them
	QueueBytes        int64 // bytes that wait to be sent to clients now, with what each packet is charged beyond its own
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
	Shed              int64 // requests not handled because they had waited longer than their handler may take or their frontend waits
	ClosedForAbuse    int64 // sessions closed because they went on sending more than they may
	JobsEnqueued      int64 // reliable RPCs that this server has enqueued
	JobsDone          int64 // jobs that the worker of this server has done
	JobsFailed        int64 // runs of jobs here that failed
	JobsRetried       int64 // jobs that failed here and wait to be tried again, by any server
	JobsDead          int64 // jobs that this server has given up
}

// counters are the numbers behind Stats.
type counters struct {
	Accepted, Closed, RefusedConns, Violations                     atomic.Int64
	MalformedHandshakes, InvalidHandshakes, LateHandshakes         atomic.Int64
	Requests, Notifies, Answered, Failed, Unanswerable             atomic.Int64
	Pushes, PushesDropped, SlowClients, SlowHandlers, Panics, Lost atomic.Int64
	Forwards, Calls, MultiPushes, NotifiesLost                     atomic.Int64

	LimitedBySession, LimitedByAddress, LimitedByServer, LimitedByPending atomic.Int64
	LimitedHandshakes, Shed, ClosedForAbuse                               atomic.Int64

	Resumed, ResumeUnknown, ResumeGap, ResumeChanged, ResumeRefused atomic.Int64
	JobsEnqueued, JobsDone, JobsFailed, JobsRetried, JobsDead       atomic.Int64

	// Each connection counts in one of these, chosen by nextTraffic, so that
	// connections on different processors do not wait for each other's caches.
	Traffic     [8]traffic
	nextTraffic atomic.Uint32
}

// resumeRefused counts a client that wanted its session back and gets a new one.
func (c *counters) resumeRefused(reason string) {
	switch reason {
	case resumeUnknown:
		c.ResumeUnknown.Add(1)
	case resumeGap:
		c.ResumeGap.Add(1)
	case resumeChanged:
		c.ResumeChanged.Add(1)
	case resumeRefused:
		c.ResumeRefused.Add(1)
	}
}

// Why a session was not resumed, as the client is told.
const (
	resumeUnknown = "unknown" // there is no such session, or not any more, or the token was used
	resumeGap     = "gap"     // pushes that the client is missing are not kept any more
	resumeChanged = "changed" // the client can do other things than before
	resumeRefused = "refused" // the server is about to end
)

// traffic counts what connections receive and send, and what waits to be sent.
// It fills a line of the caches.
type traffic struct {
	ReceivedBytes, SentBytes, ReceivedPackets, SentPackets atomic.Int64
	QueueBytes                                             atomic.Int64 // falls as well; each connection takes back what it has added

	_ [24]byte
}

// connTraffic returns the counters for a new connection.
func (c *counters) connTraffic() *traffic {
	return &c.Traffic[c.nextTraffic.Add(1)%uint32(len(c.Traffic))]
}

// sumTraffic adds up one counter of all connections.
func (c *counters) sumTraffic(which func(*traffic) *atomic.Int64) (sum int64) {
	for i := range c.Traffic {
		sum += which(&c.Traffic[i]).Load()
	}
	return sum
}

func (c *counters) receivedBytes() int64 {
	return c.sumTraffic(func(t *traffic) *atomic.Int64 { return &t.ReceivedBytes })
}

func (c *counters) sentBytes() int64 {
	return c.sumTraffic(func(t *traffic) *atomic.Int64 { return &t.SentBytes })
}

func (c *counters) receivedPackets() int64 {
	return c.sumTraffic(func(t *traffic) *atomic.Int64 { return &t.ReceivedPackets })
}

func (c *counters) sentPackets() int64 {
	return c.sumTraffic(func(t *traffic) *atomic.Int64 { return &t.SentPackets })
}

func (c *counters) queueBytes() int64 {
	return c.sumTraffic(func(t *traffic) *atomic.Int64 { return &t.QueueBytes })
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
		RefusedHandshakes: c.MalformedHandshakes.Load() + c.InvalidHandshakes.Load() + c.LimitedHandshakes.Load(),
		LateHandshakes:    c.LateHandshakes.Load(),
		Violations:        c.Violations.Load(),
		ReceivedBytes:     c.receivedBytes(),
		SentBytes:         c.sentBytes(),
		ReceivedPackets:   c.receivedPackets(),
		SentPackets:       c.sentPackets(),
		QueueBytes:        c.queueBytes(),
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
		Resumed:           c.Resumed.Load(),
		NotResumed:        c.ResumeUnknown.Load() + c.ResumeGap.Load() + c.ResumeChanged.Load() + c.ResumeRefused.Load(),
		JobsEnqueued:      c.JobsEnqueued.Load(),
		JobsDone:          c.JobsDone.Load(),
		JobsFailed:        c.JobsFailed.Load(),
		JobsRetried:       c.JobsRetried.Load(),
		JobsDead:          c.JobsDead.Load(),
	}
}

// A counterMetric is a counter of a server that reporters are told the growth
// of.
type counterMetric struct {
	Name   string
	Labels []Label
	Value  func() int64 // only grows
}

// metrics returns what the counters are called.
func (c *counters) metrics() []counterMetric {
	reason := func(s string) []Label { return []Label{{"reason", s}} }
	by := func(s string) []Label { return []Label{{"by", s}} }
	// What ends comes before what begins, so that no moment is reported at
	// which more has ended than begun.
	return []counterMetric{
		{metricClosed, nil, c.Closed.Load},
		{metricAccepted, nil, c.Accepted.Load},
		{metricRefusedConns, nil, c.RefusedConns.Load},
		{metricRefusedHandshakes, reason("malformed"), c.MalformedHandshakes.Load},
		{metricRefusedHandshakes, reason("validator"), c.InvalidHandshakes.Load},
		{metricRefusedHandshakes, reason("timeout"), c.LateHandshakes.Load},
		{metricRefusedHandshakes, reason("rate"), c.LimitedHandshakes.Load},
		{metricViolations, nil, c.Violations.Load},
		{metricSlowClients, nil, c.SlowClients.Load},
		{metricAnswered, nil, c.Answered.Load},
		{metricFailed, nil, c.Failed.Load},
		{metricUnanswerable, nil, c.Unanswerable.Load},
		{metricLost, nil, c.Lost.Load},
		{metricRequests, nil, c.Requests.Load},
		{metricNotifies, nil, c.Notifies.Load},
		{metricSlowHandlers, nil, c.SlowHandlers.Load},
		{metricPanics, nil, c.Panics.Load},
		{metricPushes, nil, c.Pushes.Load},
		{metricDroppedPushes, nil, c.PushesDropped.Load},
		{metricForwards, nil, c.Forwards.Load},
		{metricCalls, nil, c.Calls.Load},
		{metricMultiPushes, nil, c.MultiPushes.Load},
		{metricRateLimited, nil, c.LimitedBySession.Load},
		{metricRefused, by("session"), c.LimitedBySession.Load},
		{metricRefused, by("address"), c.LimitedByAddress.Load},
		{metricRefused, by("server"), c.LimitedByServer.Load},
		{metricRefused, by("pending"), c.LimitedByPending.Load},
		{metricRefused, by("handshake"), c.LimitedHandshakes.Load},
		{metricRefused, by("deadline"), c.Shed.Load},
		{metricResumed, nil, c.Resumed.Load},
		{metricNotResumed, reason(resumeUnknown), c.ResumeUnknown.Load},
		{metricNotResumed, reason(resumeGap), c.ResumeGap.Load},
		{metricNotResumed, reason(resumeChanged), c.ResumeChanged.Load},
		{metricNotResumed, reason(resumeRefused), c.ResumeRefused.Load},
		{metricJobsRetried, nil, c.JobsRetried.Load},
		{metricJobsDead, nil, c.JobsDead.Load},
		{metricJobsEnqueued, nil, c.JobsEnqueued.Load},
		{metricSentPackets, nil, c.sentPackets},
		{metricSentBytes, nil, c.sentBytes},
		{metricReceivedPackets, nil, c.receivedPackets},
		{metricReceivedBytes, nil, c.receivedBytes},
	}
}
