//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSJobs is a [JobStore] in NATS JetStream, on files: jobs survive the end of
// workers, of the servers that have enqueued them, and of NATS. It needs a NATS of
// version 2.10 or later, with JetStream switched on.
//
// The queue is the work-queue stream "pitaya-jobs-NAMESPACE" with the durable
// consumer "workers", which all servers share; dead jobs are in the stream
// "pitaya-dead-NAMESPACE". An empty namespace is "_", and bytes that are neither
// letters, digits nor '-' are written as '_' and two hexadecimal digits. Nothing of
// a job but its id is part of a subject.
//
// A lease is the AckWait of the consumer, and Extend its progress. Retry puts a new
// message for the job into the queue and takes the old one out; if the server ends
// between the two, the old one is given out again. The new message is given out at
// once, and back until it is due.
//
// The store has a connection to NATS of its own, which is made by the first call and
// made again whenever it is lost, for ever: NATSConfig.MaxReconnects does not count.
// Without it calls fail at once with [ErrUnreachable].
type NATSJobs struct {
	// Immutable.
	conn *natsJobsConn
	opts NATSJobsOptions
	name string // the namespace as a part of names
}

// Names in NATS.
const (
	natsJobsPrefix   = "pitaya.jobs."
	natsJobsConsumer = "workers"

	natsJobsNew   = ".new"   // jobs that have not failed
	natsJobsAgain = ".retry" // jobs that have
	natsJobsDead  = ".dead." // and the id

	natsJobID       = "Pitaya-Job-Id"
	natsJobFailures = "Pitaya-Job-Failures"
	natsJobDue      = "Pitaya-Job-Due" // milliseconds since 1970
	natsJobReason   = "Pitaya-Job-Reason"
)

// NewNATSJobs returns a store in the NATS of the settings. It does not connect; the
// first call does. A nil logger means [slog.Default]. What has made it closes it.
func NewNATSJobs(cfg NATSConfig, opts NATSJobsOptions, log *slog.Logger) (*NATSJobs, error) {
	if err := checkNamespace(opts.Namespace); err != nil {
		return nil, fmt.Errorf("pitaya: namespace of jobs: %w", err)
	}
	opts.Lease = cmp.Or(max(opts.Lease, 0), jobLease)
	opts.MaxJobs = cmp.Or(max(opts.MaxJobs, 0), maxJobs)
	opts.MaxBytes = cmp.Or(max(opts.MaxBytes, 0), 256<<20)
	opts.MaxDead = cmp.Or(max(opts.MaxDead, 0), maxDeadJobs)
	opts.MaxDeadBytes = cmp.Or(max(opts.MaxDeadBytes, 0), 64<<20)
	opts.Replicas = max(opts.Replicas, 1)
	conn, err := newNATSJobsConn(cfg, cmp.Or(log, slog.Default()))
	if err != nil {
		return nil, err
	}
	return &NATSJobs{conn: conn, opts: opts, name: natsJobsName(opts.Namespace)}, nil
}

// natsJobsName makes a namespace a part of names in NATS. No two namespaces have
// the same.
func natsJobsName(namespace string) string {
	if namespace == "" {
		return "_"
	}
	var b strings.Builder
	for _, c := range []byte(namespace) {
		if c != '_' && strings.IndexByte(jobIDCharacters, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	return b.String()
}

func (s *NATSJobs) subject(kind string) string { return natsJobsPrefix + s.name + kind }

// use calls f with a connection and streams that exist. The context of f ends with
// the call's, with the connection, and when a call has taken as long as one may.
func (s *NATSJobs) use(ctx context.Context, f func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams) error) error {
	l, err := s.conn.get(ctx)
	if err != nil {
		return err
	}
	inner, cancel := l.limit(ctx, s.conn.timeout)
	defer cancel()
	streams, err := s.prepare(inner, l)
	if err == nil {
		err = f(inner, l, streams)
	} else if inner.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: NATS: JetStream does not answer", ErrUnreachable) // nothing was sent yet
	}
	return s.wrap(ctx, l, err)
}

// limit returns a context that ends with ctx, with the link, or after a time.
func (l *natsJobsLink) limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(l.ctx, cancel)
	return inner, func() {
		stop()
		cancel()
	}
}

// wrap makes errors of NATS those of a JobStore.
func (s *NATSJobs) wrap(ctx context.Context, l *natsJobsLink, err error) error {
	api, _ := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil:
		return nil
	case s.conn.life.Err() != nil:
		return ErrJobStoreClosed
	case ctx.Err() != nil:
		return fmt.Errorf("pitaya: job store: %w", ctx.Err())
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrJobNotFound), errors.Is(err, ErrLeaseLost):
		return err
	case l.ctx.Err() != nil:
		return fmt.Errorf("%w: connection to NATS lost", ErrNoAnswer)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w: JetStream does not answer", ErrNoAnswer)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		// They are not there any more, or JetStream is not ready yet.
		l.streams.Store(nil)
		return fmt.Errorf("%w: JetStream: %w", ErrUnreachable, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: this NATS has no JetStream: %w", ErrUnreachable, err)
	case errors.Is(err, nats.ErrConnectionClosed):
		return fmt.Errorf("%w: NATS: %w", ErrUnreachable, err)
	case api != nil && natsJobsFull(api):
		return fmt.Errorf("%w: %w", ErrJobQueueFull, err)
	}
	return fmt.Errorf("pitaya: job store: %w", err)
}

// natsJobsFull reports whether JetStream has no room.
func natsJobsFull(err *jetstream.APIError) bool {
	switch err.ErrorCode {
	case 10023, 10028, 10047: // resources of the server: any, memory, storage
		return true
	case 10077: // the stream has not taken the message: for its limits, or another reason
		return strings.HasPrefix(err.Description, "maximum ")
	}
	return false
}

// prepare returns the streams, which it makes if they do not exist.
func (s *NATSJobs) prepare(ctx context.Context, l *natsJobsLink) (*natsJobsStreams, error) {
	if streams := l.streams.Load(); streams != nil {
		return streams, nil
	}
	select {
	case l.setup <- struct{}{}:
		defer func() { <-l.setup }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if streams := l.streams.Load(); streams != nil {
		return streams, nil // somebody else was first
	}
	streams := new(natsJobsStreams)
	var err error
	streams.queue, err = s.stream(ctx, l, jetstream.StreamConfig{
		Name:        "pitaya-jobs-" + s.name,
		Description: "jobs of reliable RPC",
		Subjects:    []string{s.subject(natsJobsNew), s.subject(natsJobsAgain)},
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew,
		MaxMsgs:     s.opts.MaxJobs,
		MaxBytes:    s.opts.MaxBytes,
		MaxAge:      s.opts.MaxAge,
		Duplicates:  natsJobsWindow(s.opts.MaxAge),
		Replicas:    s.opts.Replicas,
	})
	if err != nil {
		return nil, err
	}
	streams.dead, err = s.stream(ctx, l, jetstream.StreamConfig{
		Name:              "pitaya-dead-" + s.name,
		Description:       "jobs of reliable RPC that have failed for good",
		Subjects:          []string{s.subject(natsJobsDead) + "*"},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           s.opts.MaxDead,
		MaxBytes:          s.opts.MaxDeadBytes,
		MaxAge:            s.opts.MaxDeadAge,
		Duplicates:        natsJobsWindow(s.opts.MaxDeadAge),
		Replicas:          s.opts.Replicas,
	})
	if err != nil {
		return nil, err
	}
	consumer, err := streams.queue.Consumer(ctx, natsJobsConsumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = streams.queue.CreateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       natsJobsConsumer,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       s.opts.Lease,
			MaxDeliver:    -1, // the workers count
			MaxAckPending: -1, // jobs that wait to be tried again are among them
			MaxWaiting:    natsJobsWaiting,
		})
		if errors.Is(err, jetstream.ErrConsumerExists) { // another server was first
			consumer, err = streams.queue.Consumer(ctx, natsJobsConsumer)
		}
	}
	if err != nil {
		return nil, err
	}
	config := consumer.CachedInfo().Config
	if config.AckPolicy != jetstream.AckExplicitPolicy || config.AckWait <= 0 {
		return nil, fmt.Errorf("the consumer %s of the stream of jobs is none that workers can use", natsJobsConsumer)
	}
	if streams.lease = config.AckWait; streams.lease != s.opts.Lease {
		s.conn.log.Info("leases of jobs last as long as the consumer in NATS says", "lease", streams.lease, "setting", s.opts.Lease)
	}
	l.streams.Store(streams)
	return streams, nil
}

// natsJobsWaiting is how many jobs may be asked for at once, by all servers.
const natsJobsWaiting = 1 << 12

// natsJobsWindow is how long ids are remembered; not longer than messages may live.
func natsJobsWindow(age time.Duration) time.Duration {
	if age > 0 {
		return min(age, jobIDWindow)
	}
	return jobIDWindow
}

// stream returns a stream, which it makes if it does not exist.
func (s *NATSJobs) stream(ctx context.Context, l *natsJobsLink, config jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := l.js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = l.js.CreateStream(ctx, config)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another server was first, with other options
			stream, err = l.js.Stream(ctx, config.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", config.Name, err)
	}
	if has := stream.CachedInfo().Config; has.Retention != config.Retention {
		return nil, fmt.Errorf("stream %s: its retention is %v and must be %v", config.Name, has.Retention, config.Retention)
	}
	return stream, nil
}

// publish puts a message into one of the streams and waits until it is kept. One
// whose name was used lately is not put there again.
func publishJob(ctx context.Context, l *natsJobsLink, stream jetstream.Stream, name string, m *nats.Msg) error {
	_, err := l.js.PublishMsg(ctx, m, jetstream.WithMsgID(name), jetstream.WithExpectStream(stream.CachedInfo().Config.Name))
	return err
}

// message makes a message for a job.
func (s *NATSJobs) message(kind, id string, body []byte, failures int) *nats.Msg {
	m := nats.NewMsg(s.subject(kind))
	m.Header.Set(natsJobID, id)
	if failures > 0 {
		m.Header.Set(natsJobFailures, strconv.Itoa(failures))
	}
	m.Data = body
	return m
}

// natsJobsMargin is what messages of a job may have beside its body.
const natsJobsMargin = 4 << 10

// Enqueue implements [JobStore]. A job may be nearly as large as NATS lets a message
// be, which is 1 MiB unless it is told otherwise; 4 KiB are for what the store adds.
func (s *NATSJobs) Enqueue(ctx context.Context, id string, body []byte) error {
	if err := checkJobCall(ctx, id); err != nil {
		return err
	}
	return s.use(ctx, func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams) error {
		if most := l.nc.MaxPayload() - natsJobsMargin; int64(len(body)) > most {
			return fmt.Errorf("a job of %d bytes, and NATS lets it have %d", len(body), most)
		}
		return publishJob(ctx, l, streams.queue, id, s.message(natsJobsNew, id, body, 0))
	})
}

// DeadJobs implements [JobStore]. Each job is read by itself.
func (s *NATSJobs) DeadJobs(ctx context.Context, after uint64, limit int) (list []DeadJob, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("pitaya: job store: %w", err)
	}
	err = s.use(ctx, func(context.Context, *natsJobsLink, *natsJobsStreams) error { return nil })
	for err == nil && len(list) < limit {
		var m *jetstream.RawStreamMsg
		err = s.use(ctx, func(ctx context.Context, _ *natsJobsLink, streams *natsJobsStreams) (err error) {
			m, err = streams.dead.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(s.subject(natsJobsDead)+"*"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				m, err = nil, nil
			}
			return err
		})
		if err != nil || m == nil {
			break
		}
		after = m.Sequence
		list = append(list, DeadJob{
			ID:       strings.TrimPrefix(m.Subject, s.subject(natsJobsDead)),
			Body:     m.Data,
			Failures: natsJobNumber(m.Header, natsJobFailures),
			Reason:   jobReason(m.Header.Get(natsJobReason)),
			Died:     m.Time,
			Seq:      m.Sequence,
		})
	}
	return list, err
}

// natsJobNumber reads a number that may be anything.
func natsJobNumber(h nats.Header, key string) int {
	n, err := strconv.Atoi(h.Get(key))
	if err != nil || n < 0 {
		return 0
	}
	return min(n, math.MaxInt32) // one more is a number too
}

// RequeueDead implements [JobStore].
func (s *NATSJobs) RequeueDead(ctx context.Context, id string) error {
	return s.withDead(ctx, id, func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams, m *jetstream.RawStreamMsg) error {
		name := fmt.Sprintf("%s.back.%d", id, m.Sequence)
		return publishJob(ctx, l, streams.queue, name, s.message(natsJobsNew, id, m.Data, 0))
	})
}

// DeleteDead implements [JobStore].
func (s *NATSJobs) DeleteDead(ctx context.Context, id string) error {
	return s.withDead(ctx, id, func(context.Context, *natsJobsLink, *natsJobsStreams, *jetstream.RawStreamMsg) error { return nil })
}

// withDead calls f with a dead job, which it then deletes unless there is an error.
func (s *NATSJobs) withDead(ctx context.Context, id string, f func(context.Context, *natsJobsLink, *natsJobsStreams, *jetstream.RawStreamMsg) error) error {
	if err := checkJobCall(ctx, id); err != nil {
		return err
	}
	return s.use(ctx, func(ctx context.Context, l *natsJobsLink, streams *natsJobsStreams) error {
		m, err := streams.dead.GetLastMsgForSubject(ctx, s.subject(natsJobsDead)+id)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return fmt.Errorf("%w: %s", ErrJobNotFound, id)
		}
		if err != nil {
			return err
		}
		if err := f(ctx, l, streams, m); err != nil {
			return err
		}
		err = streams.dead.DeleteMsg(ctx, m.Sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			return nil // somebody else was quicker
		}
		return err
	})
}

// Count implements [JobStore].
func (s *NATSJobs) Count(ctx context.Context) (n JobCount, err error) {
	if err := ctx.Err(); err != nil {
		return n, fmt.Errorf("pitaya: job store: %w", err)
	}
	err = s.use(ctx, func(ctx context.Context, _ *natsJobsLink, streams *natsJobsStreams) error {
		queue, err := streams.queue.Info(ctx, jetstream.WithSubjectFilter(natsJobsPrefix+s.name+".*"))
		if err != nil {
			return err
		}
		dead, err := streams.dead.Info(ctx)
		if err != nil {
			return err
		}
		n = JobCount{
			Queued:   int64(queue.State.Subjects[s.subject(natsJobsNew)]),
			Retrying: int64(queue.State.Subjects[s.subject(natsJobsAgain)]),
			Dead:     int64(dead.State.Msgs),
		}
		return nil
	})
	return n, err
}

// Close implements [JobStore].
func (s *NATSJobs) Close(context.Context) error {
	s.conn.close()
	return nil
}
