package pitaya

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MemoryJobsOptions are the limits of [MemoryJobs].
type MemoryJobsOptions struct {
	// Lease is how long a lease lasts. Zero means 30 s.
	Lease time.Duration
	// MaxJobs bounds the queue; Enqueue then returns [ErrJobQueueFull]. Zero means
	// 1,000,000.
	MaxJobs int
	// MaxDead bounds the dead jobs; of more, those that died first are forgotten.
	// Zero means 100,000.
	MaxDead int
}

// MemoryJobs is a [JobStore] in the memory of this process: for tests, and for
// what need not outlive the process. Servers that share one share the jobs; it is
// closed by who has made it. Times are exact, and it runs no goroutine.
type MemoryJobs struct {
	opts MemoryJobsOptions // immutable

	mu      sync.Mutex // guards the fields below; never held while waiting
	closed  bool
	changed chan struct{} // closed when the queue has changed, and replaced
	jobs    map[string]*memoryJob
	queue   memoryQueue // of all jobs in the map
	turn    uint64      // of the last job that was put into the order of the queue
	recent  []recentJob // ids that were enqueued within the window, in order
	known   map[string]int
	dead    []DeadJob // in the order of Seq
	seq     uint64    // of the last one that died
}

// memoryJob is guarded by the lock of its store.
type memoryJob struct {
	StoredJob
	at    time.Time // when it can be given out: its time, or the end of its lease
	turn  uint64    // decides between equal times
	lease uint64    // the Turn of the last one who got it; 0: nobody has it
	index int       // in the queue
}

type recentJob struct {
	id string
	at time.Time
}

// memoryQueue is a heap of jobs, the one at the front that can be given out first.
type memoryQueue []*memoryJob

// Len implements [heap.Interface].
func (q memoryQueue) Len() int { return len(q) }

// Less implements [heap.Interface].
func (q memoryQueue) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), cmp.Compare(q[i].turn, q[j].turn)) < 0
}

// Swap implements [heap.Interface].
func (q memoryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements [heap.Interface].
func (q *memoryQueue) Push(x any) {
	j, _ := x.(*memoryJob)
	j.index = len(*q)
	*q = append(*q, j)
}

// Pop implements [heap.Interface].
func (q *memoryQueue) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return j
}

// NewMemoryJobs returns an empty store.
func NewMemoryJobs(opts MemoryJobsOptions) *MemoryJobs {
	opts.Lease = cmp.Or(max(opts.Lease, 0), jobLease)
	opts.MaxJobs = cmp.Or(max(opts.MaxJobs, 0), maxJobs)
	opts.MaxDead = cmp.Or(max(opts.MaxDead, 0), maxDeadJobs)
	return &MemoryJobs{
		opts: opts, changed: make(chan struct{}), jobs: make(map[string]*memoryJob), known: make(map[string]int),
	}
}

// Enqueue implements [JobStore].
func (m *MemoryJobs) Enqueue(ctx context.Context, id string, body []byte) error {
	if err := checkJobCall(ctx, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrJobStoreClosed
	}
	now := time.Now()
	for len(m.recent) > 0 && now.Sub(m.recent[0].at) >= jobIDWindow {
		if old := m.recent[0].id; m.known[old] > 1 {
			m.known[old]--
		} else {
			delete(m.known, old)
		}
		m.recent = m.recent[1:]
	}
	if m.jobs[id] != nil || m.known[id] > 0 {
		return nil
	}
	return m.addLocked(id, body, now)
}

// addLocked puts a job into the queue that is not in it.
func (m *MemoryJobs) addLocked(id string, body []byte, now time.Time) error {
	if len(m.jobs) >= m.opts.MaxJobs {
		return fmt.Errorf("%w: %d jobs", ErrJobQueueFull, len(m.jobs))
	}
	m.recent = append(m.recent, recentJob{id, now})
	m.known[id]++
	j := &memoryJob{StoredJob: StoredJob{ID: id, Body: slices.Clone(body)}, at: now}
	m.turn++
	j.turn = m.turn
	m.jobs[id] = j
	heap.Push(&m.queue, j)
	m.changedLocked()
	return nil
}

func (m *MemoryJobs) changedLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Fetch implements [JobStore].
func (m *MemoryJobs) Fetch(ctx context.Context) (JobLease, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("pitaya: job store: %w", err)
		}
		lease, wait, changed, err := m.fetch()
		if lease != nil || err != nil {
			return lease, err
		}
		var due <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// fetch returns a lease, or else how long it takes until the first job is due, 0
// for no job, and a channel that is closed when that changes.
func (m *MemoryJobs) fetch() (lease JobLease, wait time.Duration, changed <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, 0, nil, ErrJobStoreClosed
	}
	if len(m.queue) == 0 {
		return nil, 0, m.changed, nil
	}
	j, now := m.queue[0], time.Now()
	if wait := j.at.Sub(now); wait > 0 {
		return nil, wait, m.changed, nil
	}
	j.Deliveries++
	m.putLocked(j, now.Add(m.opts.Lease))
	j.lease = j.turn
	job := j.StoredJob
	job.Body = slices.Clone(job.Body)
	return &memoryLease{store: m, job: job, turn: j.lease}, 0, nil, nil
}

// putLocked gives a job another time, behind others of that time.
func (m *MemoryJobs) putLocked(j *memoryJob, at time.Time) {
	m.turn++
	j.at, j.turn = at, m.turn
	heap.Fix(&m.queue, j.index)
}

// removeLocked takes a job out of the queue.
func (m *MemoryJobs) removeLocked(j *memoryJob) {
	heap.Remove(&m.queue, j.index)
	delete(m.jobs, j.ID)
}

// buryLocked adds a dead job.
func (m *MemoryJobs) buryLocked(d DeadJob) {
	m.dead = slices.DeleteFunc(m.dead, func(old DeadJob) bool { return old.ID == d.ID })
	m.seq++
	d.Seq = m.seq
	m.dead = append(m.dead, d)
	if n := len(m.dead) - m.opts.MaxDead; n > 0 {
		m.dead = slices.Delete(m.dead, 0, n)
	}
}

// DeadJobs implements [JobStore].
func (m *MemoryJobs) DeadJobs(ctx context.Context, after uint64, limit int) ([]DeadJob, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("pitaya: job store: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrJobStoreClosed
	}
	i, found := slices.BinarySearchFunc(m.dead, after, func(d DeadJob, seq uint64) int { return cmp.Compare(d.Seq, seq) })
	if found {
		i++
	}
	list := slices.Clone(m.dead[i:min(len(m.dead), i+max(limit, 0))])
	for i := range list {
		list[i].Body = slices.Clone(list[i].Body)
	}
	return list, nil
}

// RequeueDead implements [JobStore].
func (m *MemoryJobs) RequeueDead(ctx context.Context, id string) error {
	return m.withDead(ctx, id, func(d DeadJob) error {
		if m.jobs[id] != nil {
			return nil // somebody has put it there in another way
		}
		return m.addLocked(id, d.Body, time.Now())
	})
}

// DeleteDead implements [JobStore].
func (m *MemoryJobs) DeleteDead(ctx context.Context, id string) error {
	return m.withDead(ctx, id, func(DeadJob) error { return nil })
}

// withDead calls f with the lock held and a dead job, which it then deletes unless
// there is an error.
func (m *MemoryJobs) withDead(ctx context.Context, id string, f func(DeadJob) error) error {
	if err := checkJobCall(ctx, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrJobStoreClosed
	}
	i := slices.IndexFunc(m.dead, func(d DeadJob) bool { return d.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: %s", ErrJobNotFound, id)
	}
	if err := f(m.dead[i]); err != nil {
		return err
	}
	m.dead = slices.Delete(m.dead, i, i+1)
	return nil
}

// Count implements [JobStore].
func (m *MemoryJobs) Count(ctx context.Context) (JobCount, error) {
	if err := ctx.Err(); err != nil {
		return JobCount{}, fmt.Errorf("pitaya: job store: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return JobCount{}, ErrJobStoreClosed
	}
	c := JobCount{Dead: int64(len(m.dead))}
	for _, j := range m.queue {
		if j.Failures > 0 {
			c.Retrying++
		} else {
			c.Queued++
		}
	}
	return c, nil
}

// Close implements [JobStore]. The jobs are gone with the store.
func (m *MemoryJobs) Close(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.changedLocked()
	}
	return nil
}

// memoryLease is a [JobLease] of MemoryJobs.
type memoryLease struct {
	store *MemoryJobs
	job   StoredJob
	turn  uint64 // tells this lease from later ones of the job
}

var errLeaseSettled = errors.New("pitaya: the job was settled already")

// Job implements [JobLease].
func (l *memoryLease) Job() StoredJob {
	job := l.job
	job.Body = slices.Clone(job.Body)
	return job
}

// Duration implements [JobLease].
func (l *memoryLease) Duration() time.Duration { return l.store.opts.Lease }

// settle calls f with the lock held if the job is this lease's. late allows that
// it has run out.
func (l *memoryLease) settle(ctx context.Context, late bool, f func(j *memoryJob)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pitaya: job store: %w", err)
	}
	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrJobStoreClosed
	}
	j := m.jobs[l.job.ID]
	switch {
	case j == nil && late:
		return errLeaseSettled
	case j == nil || !late && (j.lease != l.turn || !time.Now().Before(j.at)):
		return ErrLeaseLost
	}
	f(j)
	m.changedLocked()
	return nil
}

// Extend implements [JobLease].
func (l *memoryLease) Extend(ctx context.Context) error {
	return l.settle(ctx, false, func(j *memoryJob) { l.store.putLocked(j, time.Now().Add(l.store.opts.Lease)) })
}

// Done implements [JobLease].
func (l *memoryLease) Done(ctx context.Context) error {
	return l.settle(ctx, true, func(j *memoryJob) { l.store.removeLocked(j) })
}

// Retry implements [JobLease].
func (l *memoryLease) Retry(ctx context.Context, delay time.Duration) error {
	return l.settle(ctx, false, func(j *memoryJob) {
		j.Failures++
		j.Deliveries, j.lease = 0, 0
		l.store.putLocked(j, time.Now().Add(max(delay, 0)))
	})
}

// Release implements [JobLease].
func (l *memoryLease) Release(ctx context.Context) error {
	return l.settle(ctx, false, func(j *memoryJob) {
		j.lease = 0
		l.store.putLocked(j, time.Now())
	})
}

// Bury implements [JobLease].
func (l *memoryLease) Bury(ctx context.Context, failed bool, reason string) error {
	return l.settle(ctx, false, func(j *memoryJob) {
		d := DeadJob{ID: j.ID, Body: j.Body, Failures: j.Failures, Reason: jobReason(reason), Died: time.Now()}
		if failed {
			d.Failures++
		}
		l.store.removeLocked(j)
		l.store.buryLocked(d)
	})
}
