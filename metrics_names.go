package pitaya

// Names of the metrics that a server reports. The first block is Pitaya's, with
// its meanings; metrics_builtin.go has kind, subsystem and labels of each.
const (
	metricResponseTime     = "response_time_ns"
	metricHandlerDelay     = "handler_delay_ns"
	metricConnectedClients = "connected_clients"
	metricRateLimited      = "exceeded_rate_limiting"
	metricServers          = "count_servers"
	metricChannelCapacity  = "channel_capacity"
	metricDroppedMessages  = "dropped_messages"
	metricBusyWorkers      = "busy_workers"
	metricTotalWorkers     = "total_workers"
	metricGoroutines       = "goroutines"
	metricHeapSize         = "heapsize"
	metricHeapObjects      = "heapobjects"
	metricWorkerJobs       = "worker_jobs_total"
	metricWorkerRetries    = "worker_jobs_retry_total"
	metricWorkerQueue      = "worker_queue_size"

	metricReceivedBytes     = "received_bytes"
	metricSentBytes         = "sent_bytes"
	metricReceivedPackets   = "received_packets"
	metricSentPackets       = "sent_packets"
	metricAccepted          = "accepted_connections"
	metricClosed            = "closed_connections"
	metricRefusedConns      = "refused_connections"
	metricRefusedHandshakes = "refused_handshakes"
	metricSlowClients       = "slow_clients"
	metricViolations        = "violations"
	metricDroppedPushes     = "dropped_pushes"
	metricQueueBytes        = "queue_bytes"
	metricSessionsBound     = "sessions_bound"
	metricSessionsWaiting   = "sessions_waiting"
	metricResumed           = "resumed_sessions"
	metricNotResumed        = "refused_resumes"
	metricRequests          = "requests"
	metricNotifies          = "notifies"
	metricAnswered          = "answered"
	metricFailed            = "failed"
	metricUnanswerable      = "unanswerable"
	metricLost              = "lost"
	metricPanics            = "panics"
	metricSlowHandlers      = "slow_handlers"
	metricPushes            = "pushes"
	metricMailboxTime       = "mailbox_time_ns"
	metricRefused           = "refused"
	metricReconnects        = "reconnects"
	metricForwards          = "forwards"
	metricCalls             = "calls"
	metricMultiPushes       = "multi_pushes"
	metricNATSDropped       = "nats_dropped"
	metricJobsEnqueued      = "jobs_enqueued"
	metricJobsRetried       = "jobs_retried"
	metricJobsDead          = "jobs_dead"
	metricJobTime           = "job_time_ns"

	metricDroppedReports = "dropped_reports" // the registry's own
)

// Kinds of subscriptions of NATS, which are values of labels.
const (
	natsKindCalls   = "calls"
	natsKindBinds   = "bindings"
	natsKindPushes  = "pushes"
	natsKindKicks   = "kicks"
	natsKindAnswers = "answers"
)
