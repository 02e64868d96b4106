package pitaya

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Errors of a [JobStore]. They may come wrapped: compare with [errors.Is].
var (
	// ErrJobQueueFull is what a store returns that has as many jobs as it may
	// have. The job was not taken in.
	ErrJobQueueFull = errors.New("pitaya: the job queue is full")
	// ErrJobNotFound is what is returned about a dead job that is not there, or
	// no longer.
	ErrJobNotFound = errors.New("pitaya: job not found")
	// ErrJobStoreClosed is what a store returns that was closed.
	ErrJobStoreClosed = errors.New("pitaya: job store is closed")
	// ErrLeaseLost is what a lease returns that has run out, where the store can
	// tell.
	ErrLeaseLost = errors.New("pitaya: the lease of the job has run out")
)

// A JobStore keeps jobs until they are done: it is what makes a reliable RPC
// reliable. Jobs are texts to it, in the format that [ParseJob] reads; it never
// looks at them.
//
// A job is in one of two places. The queue has those that are to be done: each
// waits for its time, is leased to whoever fetches it, and leaves the queue when
// it is settled. The dead jobs are those that nobody tries any more; they are kept
// for people to look at, as many as the store is told to keep, and each can be put
// into the queue again.
//
// Implementations keep these rules:
//
//   - All methods may be called at any time by any number of goroutines, on any
//     number of servers that share the jobs.
//   - When Enqueue returns nil the job is kept, and is done at least once: nothing
//     but Done, Retry and Bury takes it out of the place where it is. When it
//     returns an error that wraps [ErrUnreachable] or [ErrJobQueueFull] the job was
//     not taken in; after [ErrNoAnswer] and the end of ctx nobody knows. The id of a
//     job that was put into the queue within the last two minutes is no new job:
//     Enqueue returns nil and changes nothing. Ids that are not of 1
//     to 64 letters, digits, '-' and '_' are an error.
//   - Fetch returns one job that is due and leased to nobody, the one first that has
//     been due for longest, and leases it for a time. It waits for one until ctx ends.
//     A job of which a lease has run out is due again, at that moment.
//   - Retry, Release and Extend of a lease that has run out return [ErrLeaseLost] and
//     change nothing, or take effect as if it had not. Done always takes the job out
//     of the queue, because it has been done. Each lease is settled once, by Done,
//     Retry, Release or Bury; further calls after a success are errors or no calls.
//   - A call whose ctx is done before it takes effect changes nothing and returns an
//     error that wraps ctx.Err().
//   - Slices that are passed in are not changed and not kept; those that are returned
//     belong to the caller.
//   - Close ends what the store has started and lets calls that wait return
//     [ErrJobStoreClosed], as all later ones do. Leases that are held run out.
//
// What is in the store may come from elsewhere and be anything; a store that has a
// job without a proper id gives it one. pitayatest.TestJobStore checks the rules.
type JobStore interface {
	// Enqueue puts a job into the queue, due at once.
	Enqueue(ctx context.Context, id string, body []byte) error
	// Fetch leases a job.
	Fetch(ctx context.Context) (JobLease, error)
	// DeadJobs returns up to limit dead jobs in the order in which they died,
	// those after the one whose Seq is given; 0 begins with the first.
	DeadJobs(ctx context.Context, after uint64, limit int) ([]DeadJob, error)
	// RequeueDead moves a dead job into the queue, due at once and as if it had
	// never failed. ErrJobNotFound if there is none of that id.
	RequeueDead(ctx context.Context, id string) error
	// DeleteDead deletes a dead job. ErrJobNotFound if there is none of that id.
	DeleteDead(ctx context.Context, id string) error
	// Count tells how many jobs there are.
	Count(ctx context.Context) (JobCount, error)
	// Close ends the store, for this server.
	Close(ctx context.Context) error
}

// A JobLease is a job that was fetched and that nobody else is given while the
// lease lasts. Its methods may be called from any goroutine.
type JobLease interface {
	// Job returns the job.
	Job() StoredJob
	// Duration returns how long the lease lasts from the fetch on, and from each
	// Extend.
	Duration() time.Duration
	// Extend lets the lease begin anew.
	Extend(ctx context.Context) error
	// Done takes the job out of the queue: it has succeeded.
	Done(ctx context.Context) error
	// Retry notes that the job has failed once more, and lets it be due after the
	// delay. It is due for the first time then: Deliveries begins anew.
	Retry(ctx context.Context, delay time.Duration) error
	// Release gives the job back, due at once, without a failure.
	Release(ctx context.Context) error
	// Bury moves the job to the dead ones. failed says whether it has failed once
	// more; the reason is for people.
	Bury(ctx context.Context, failed bool, reason string) error
}

// StoredJob is a job as a [JobStore] has it.
type StoredJob struct {
	ID         string
	Body       []byte // as it was enqueued
	Failures   int    // how often it has failed
	Deliveries int    // how often it was given out since the last failure, this time included; about that often if the store lost count
}

// DeadJob is a job that is not tried any more.
type DeadJob struct {
	ID       string
	Body     []byte    // as it was enqueued; [ParseJob] reads it
	Failures int       // how often it has failed
	Reason   string    // why it is dead
	Died     time.Time // when that was
	Seq      uint64    // its place in the order of dead jobs, above 0
}

// JobCount is how many jobs a [JobStore] has. Jobs that are leased count.
type JobCount struct {
	Queued   int64 // jobs in the queue that have not failed
	Retrying int64 // jobs in the queue that have failed, and wait to be tried again
	Dead     int64
}

const (
	// maxJobID bounds ids of jobs.
	maxJobID = 64
	// jobIDWindow is how long the id of a job is remembered at least.
	jobIDWindow = 2 * time.Minute
	// maxJobNamespace bounds namespaces.
	maxJobNamespace = 64
	// maxJobReason bounds the reason why a job is dead.
	maxJobReason = 1 << 10
	// Defaults of the options of stores.
	jobLease    = 30 * time.Second
	maxJobs     = 1_000_000
	maxDeadJobs = 100_000
)

// checkJobCall holds what every method of every store refuses before it looks at
// its jobs.
func checkJobCall(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pitaya: job store: %w", err)
	}
	if !isJobID(id) {
		return fmt.Errorf("pitaya: %.80q is no id of a job: it has 1 to %d letters, digits, '-' and '_'", id, maxJobID)
	}
	return nil
}

// isJobID reports whether an id is safe wherever a store may put it.
func isJobID(id string) bool {
	return id != "" && len(id) <= maxJobID && strings.Trim(id, jobIDCharacters) == ""
}

const jobIDCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// jobReason makes a reason what every store can keep: one short line of text.
func jobReason(reason string) string {
	if len(reason) > maxJobReason {
		reason = reason[:maxJobReason]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, ""))
}
