package pitaya

import "time"

// NATSJobsOptions are options of [NATSJobs]. Limits and replicas apply when the
// streams are made, which is when they are first needed and do not exist; operators
// may change them later with the tools of NATS, and nothing here changes them back.
type NATSJobsOptions struct {
	// Namespace keeps the jobs of several games in one NATS apart: up to 64 bytes of
	// UTF-8.
	Namespace string
	// Lease is how long a worker that has vanished keeps a job from others. Zero
	// means 30 s. Of a consumer that exists, its own holds (AckWait).
	Lease time.Duration
	// MaxJobs and MaxBytes bound the queue; Enqueue then returns [ErrJobQueueFull].
	// Zero means 1,000,000, and 256 MiB.
	MaxJobs, MaxBytes int64
	// MaxAge is how old a job in the queue may get. What is older is lost without
	// a word, so zero, which means no bound, is right for most.
	MaxAge time.Duration
	// MaxDead, MaxDeadBytes and MaxDeadAge bound the dead jobs; of more, those that
	// died first are forgotten. Zero means 100,000, 64 MiB, and no bound.
	MaxDead, MaxDeadBytes int64
	MaxDeadAge            time.Duration
	// Replicas is on how many servers of a cluster of NATS the jobs are kept. Zero
	// means 1, which an outage of that server makes wait.
	Replicas int
}
