//go:build !nocluster

package pitaya

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Leases of NATSJobs. Jobs are asked for one at a time, so that none waits here
// while its lease runs. This is done with the requests of JetStream themselves: the
// iterators of its client take a message that has the headers of a status for one,
// so that somebody could put one into the queue that is never settled.

const (
	// natsJobsPull is how long one request for a job waits, and natsJobsBeat how
	// often JetStream says meanwhile that it is still there.
	natsJobsPull = 30 * time.Second
	natsJobsBeat = 5 * time.Second
	// natsJobsEarly is how much before its time a job counts as due.
	natsJobsEarly = 10 * time.Millisecond
	// natsJobsLeave bounds the giving back of what arrives when nobody waits any
	// more.
	natsJobsLeave = time.Second
)

// What is answered to a message of a consumer.
const (
	natsAckDone     = "+ACK"
	natsAckRelease  = "-NAK"
	natsAckProgress = "+WPI"

	natsAckPrefix = "$JS.ACK." // of the subjects for that
)

// Fetch implements [JobStore].
func (s *NATSJobs) Fetch(ctx context.Context) (JobLease, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("pitaya: job store: %w", err)
		}
		l, err := s.conn.get(ctx)
		if err != nil {
			return nil, err
		}
		var streams *natsJobsStreams
		err = s.use(ctx, func(_ context.Context, _ *natsJobsLink, st *natsJobsStreams) error {
			streams = st
			return nil
		})
		if err != nil {
			return nil, err
		}
		m, err := s.pull(ctx, l)
		switch {
		case errors.Is(err, nats.ErrTimeout): // nothing was due
			continue
		case err != nil:
			return nil, s.wrap(ctx, l, err)
		}
		lease, err := s.newLease(l, streams, m)
		if err != nil {
			return nil, s.wrap(ctx, l, err)
		}
		// What is not due yet is given out again when it is.
		if wait := time.Until(lease.due); wait > natsJobsEarly {
			if err := lease.settle(ctx, natsAckDelay(wait)); err != nil {
				return nil, err
			}
			continue
		}
		return lease, nil
	}
}

// natsAckDelay gives a message back for a time.
func natsAckDelay(d time.Duration) string {
	return fmt.Sprintf(`%s {"delay":%d}`, natsAckRelease, d.Nanoseconds())
}

// pull asks for one message and waits for it: nats.ErrTimeout if none came in the
// time that one request has.
func (s *NATSJobs) pull(ctx context.Context, l *natsJobsLink) (*nats.Msg, error) {
	in := make(chan *nats.Msg, 8)
	sub, err := l.nc.ChanSubscribe(nats.NewInbox(), in)
	if err != nil {
		return nil, err
	}
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
		Beat    time.Duration `json:"idle_heartbeat"`
	}{1, natsJobsPull, natsJobsBeat})
	if err == nil {
		err = l.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.pitaya-jobs-"+s.name+"."+natsJobsConsumer, sub.Subject, request)
	}
	if err != nil {
		sub.Unsubscribe()
		return nil, err
	}
	silence := time.NewTimer(0)
	defer silence.Stop()
	for {
		silence.Reset(2*natsJobsBeat + time.Second)
		select {
		case m := <-in:
			if isNATSJob(m) {
				sub.Unsubscribe()
				return m, nil
			}
			switch m.Header.Get("Status") {
			case "100":
				continue
			case "404", "408":
				err = nats.ErrTimeout
			case "503":
				err = nats.ErrNoResponders
			default: // the consumer was deleted, NATS ends, or too many ask
				l.streams.Store(nil)
				err = fmt.Errorf("%w: JetStream: %s", ErrUnreachable, jobReason(m.Header.Get("Description")))
			}
			sub.Unsubscribe()
			return nil, err
		case <-silence.C:
			s.leave(l, sub, in)
			return nil, fmt.Errorf("%w: JetStream does not answer", ErrUnreachable)
		case <-ctx.Done():
			s.leave(l, sub, in)
			return nil, ctx.Err()
		case <-l.ctx.Done():
			return nil, nats.ErrConnectionClosed
		}
	}
}

// isNATSJob reports whether a message is one of the consumer, and not a word of
// JetStream's, by where it is answered: what is in it can be anything.
func isNATSJob(m *nats.Msg) bool { return strings.HasPrefix(m.Reply, natsAckPrefix) }

// leave takes a request for a job back. A job that is on its way already is given
// back.
func (s *NATSJobs) leave(l *natsJobsLink, sub *nats.Subscription, in <-chan *nats.Msg) {
	if sub.Drain() != nil { // NATS is told to send no more, and what is on the way is let in
		return
	}
	ctx, cancel := l.limit(context.Background(), natsJobsLeave)
	defer cancel()
	l.nc.FlushWithContext(ctx)
	for {
		select {
		case m := <-in:
			if isNATSJob(m) {
				l.nc.RequestWithContext(ctx, m.Reply, []byte(natsAckRelease))
			}
		default:
			return
		}
	}
}

// natsLease is a [JobLease] of NATSJobs.
type natsLease struct {
	// Immutable.
	store    *NATSJobs
	link     *natsJobsLink // that the job came by
	job      StoredJob
	due      time.Time // zero: it was due at once
	duration time.Duration
	reply    string // where the message is answered
	seq      uint64 // of the message in the stream

	mu      sync.Mutex // guards the field below
	settled bool
}

// newLease reads a message. What is wrong with it does not matter here: the worker
// looks at the job.
func (s *NATSJobs) newLease(l *natsJobsLink, streams *natsJobsStreams, m *nats.Msg) (*natsLease, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("message of the queue: %w", err)
	}
	j := &natsLease{
		store: s, link: l, duration: streams.lease, reply: m.Reply, seq: meta.Sequence.Stream,
		job: StoredJob{ID: m.Header.Get(natsJobID), Body: m.Data, Failures: natsJobNumber(m.Header, natsJobFailures), Deliveries: int(meta.NumDelivered)},
	}
	if !isJobID(j.job.ID) {
		j.job.ID = fmt.Sprintf("seq-%d", j.seq)
	}
	if ms, err := strconv.ParseInt(m.Header.Get(natsJobDue), 10, 64); err == nil {
		// No job waits for longer than the longest pause, whatever it says.
		if due := time.UnixMilli(ms); time.Until(due) <= maxRetryDelay+time.Minute {
			j.due = due
		}
		j.job.Deliveries = max(j.job.Deliveries-1, 1) // one was too early
	}
	return j, nil
}

// Job implements [JobLease].
func (j *natsLease) Job() StoredJob {
	job := j.job
	job.Body = append([]byte(nil), job.Body...)
	return job
}

// Duration implements [JobLease].
func (j *natsLease) Duration() time.Duration { return j.duration }

// settle answers the message and waits until JetStream knows.
func (j *natsLease) settle(ctx context.Context, answer string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pitaya: job store: %w", err)
	}
	return j.store.use(ctx, func(ctx context.Context, l *natsJobsLink, _ *natsJobsStreams) error {
		_, err := l.nc.RequestWithContext(ctx, j.reply, []byte(answer))
		return err
	})
}

// once calls f, and remembers that it has succeeded.
func (j *natsLease) once(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pitaya: job store: %w", err)
	}
	j.mu.Lock()
	settled := j.settled
	j.mu.Unlock()
	if settled {
		return errLeaseSettled
	}
	if err := f(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.settled = true
	return nil
}

// Extend implements [JobLease].
func (j *natsLease) Extend(ctx context.Context) error { return j.settle(ctx, natsAckProgress) }

// Done implements [JobLease].
func (j *natsLease) Done(ctx context.Context) error {
	return j.once(ctx, func() error { return j.settle(ctx, natsAckDone) })
}

// Release implements [JobLease].
func (j *natsLease) Release(ctx context.Context) error {
	return j.once(ctx, func() error { return j.settle(ctx, natsAckRelease) })
}

// Retry implements [JobLease]. If there is no room for the new message, in a queue
// that is full, the old one is given back instead, and the failure is not counted.
func (j *natsLease) Retry(ctx context.Context, delay time.Duration) error {
	return j.once(ctx, func() error {
		m := j.store.message(natsJobsAgain, j.job.ID, j.job.Body, j.job.Failures+1)
		if delay > 0 {
			m.Header.Set(natsJobDue, strconv.FormatInt(time.Now().Add(delay).UnixMilli(), 10))
		}
		err := j.store.use(ctx, func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams) error {
			return publishJob(ctx, l, streams.queue, j.name("again"), m)
		})
		if errors.Is(err, ErrJobQueueFull) || errors.Is(err, nats.ErrMaxPayload) {
			if delay > 0 {
				return j.settle(ctx, natsAckDelay(delay))
			}
			return j.settle(ctx, natsAckRelease)
		}
		if err != nil {
			return err
		}
		return j.settle(ctx, natsAckDone)
	})
}

// Bury implements [JobLease]. A body that nobody could have enqueued here, because it
// is as large as a message of NATS, is cut.
func (j *natsLease) Bury(ctx context.Context, failed bool, reason string) error {
	return j.once(ctx, func() error {
		failures := j.job.Failures
		if failed {
			failures++
		}
		m := j.store.message(natsJobsDead+j.job.ID, j.job.ID, j.job.Body, failures)
		m.Header.Set(natsJobReason, jobReason(reason))
		err := j.store.use(ctx, func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams) error {
			if most := l.nc.MaxPayload() - natsJobsMargin; int64(len(m.Data)) > most {
				m.Data = m.Data[:max(most, 0)]
			}
			return publishJob(ctx, l, streams.dead, j.name("dead"), m)
		})
		if err != nil {
			return err
		}
		return j.settle(ctx, natsAckDone)
	})
}

// name names what takes the place of the message, so that it does so once.
func (j *natsLease) name(what string) string { return fmt.Sprintf("%s.%s.%d", j.job.ID, what, j.seq) }
