package pitaya

import (
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config holds the settings of a [Server]. The zero value is a working configuration: in every field zero means the
// default that its comment names, and what is on by default is switched off by a field that says so (NoCompression).
// Where zero would be a useful value of its own, a negative one stands for it, as the comment says.
//
// The settings can be filled in code, from a JSON file, from PITAYA_… environment variables and from flags; see
// [Config.Load]. The key of each is in its comment, without the prefix "pitaya."; docs/configuration.md lists them
// all. The seams at the end can be set in code only. A server takes a copy, so a Config may be used again.
type Config struct {
	// File names the JSON file that [Config.Load] reads (config). Empty means none.
	File string

	// The server.

	// Type is the server type: the first part of its routes and, in a cluster, what callers choose a server by
	// (server.type). Empty means "game".
	Type string
	// ID tells the servers of a cluster apart (server.id). Empty means a random id for each server.
	ID string
	// Frontend is whether clients connect to this server (server.frontend).
	Frontend bool
	// Cluster is whether the server joins a cluster, instead of running alone (server.cluster).
	Cluster bool
	// Metadata is what the other servers of the cluster learn about this one (server.metadata).
	Metadata map[string]string
	// Region is the region the server runs in (cluster.info.region). Between servers of one region gRPC uses the
	// inner address. Empty means none.
	Region string

	// Client connections.

	// Heartbeat is how often server and client tell each other that they live (heartbeat.interval). Clients are
	// told whole seconds, so fractions are refused. Zero means 30 s; negative switches heartbeats off.
	Heartbeat time.Duration
	// HandshakeTimeout is how long a new connection may take until it has acknowledged the handshake, PROXY header,
	// TLS and upgrade included (conn.handshaketimeout). Zero means 10 s.
	HandshakeTimeout time.Duration
	// WriteTimeout is how long a client's socket may take nothing before the client is closed as slow
	// (buffer.agent.conntimeout). Zero or less means 10 s.
	WriteTimeout time.Duration
	// SlowClient is what happens when QueueBytes or QueueMessages is exceeded (buffer.agent.slowclient). Zero means
	// [SlowClientClose].
	SlowClient SlowClientPolicy
	// QueueBytes is the budget for what waits to be sent to one client, in bytes (buffer.agent.bytes). A client that
	// is over it and takes nothing for a second is slow; for a burst, one that still takes what it gets may have up
	// to four times as much. One message that is larger passes when nothing else waits. Zero means 1 MiB.
	QueueBytes int
	// QueueMessages bounds the same in messages (buffer.agent.messages). Zero means no bound: a handler that
	// pushes many small messages in a row must not lose its client.
	QueueMessages int
	// MaxPacketSize bounds the body of a packet from a client, in bytes (conn.maxpacketsize). Zero means 1 MiB; the
	// protocol allows up to 2^24-1.
	MaxPacketSize int
	// MaxInflatedSize bounds a compressed message after decompression, in bytes (conn.maxinflatedsize). Zero means
	// 4 MiB.
	MaxInflatedSize int
	// MaxHandshakeSize bounds the handshake of a client, in bytes (conn.maxhandshakesize). Zero means 64 KiB.
	MaxHandshakeSize int
	// MaxConns bounds the open client connections of the server (conn.max). Zero means no bound.
	MaxConns int
	// MaxConnsPerIP bounds them for each address of a client, which over IPv6 is its /64 network
	// (conn.maxperaddress). Zero means no bound, since many players may share one address.
	MaxConnsPerIP int
	// ProxyProtocol is whether connections to the TCP listeners, with TLS or without, begin with a PROXY protocol
	// header, version 1 or 2 (acceptor.proxyprotocol). WebSocket listeners and those of other kinds are left as they
	// are: put a [ProxyListener] below them.
	ProxyProtocol bool
	// TrustedProxies are the networks whose PROXY headers are believed (acceptor.trustedproxies). Empty means every
	// peer, which is safe only where clients cannot connect around the proxy.
	TrustedProxies []netip.Prefix
	// RateLimit bounds what clients may send: by session, by address and in all (conn.ratelimiting). Zero bounds
	// nothing.
	RateLimit RateLimitConfig

	// Messages and handlers.

	// SerializerType chooses the serializer by number (serializertype). Zero means [SerializerJSON]. Serializer
	// goes before it.
	SerializerType SerializerType
	// NoCompression switches off zlib towards clients that can inflate (handler.messages.compression, which is the
	// opposite).
	NoCompression bool
	// PushCodes is whether pushes to a client carry route codes of the dictionary (handler.messages.pushcodes).
	// Zero means [PushCodesAuto].
	PushCodes PushCodes
	// Unordered gives up the order of a session's messages: they are handled at the same time and answered as they
	// are done, as in Pitaya (handler.ordered, which is the opposite).
	Unordered bool
	// HandlerTimeout is the time a handler's context allows for one message (handler.timeout). A request that has waited
	// longer than that before its handler begins is answered with [CodeTimeout], and the handler is not called. Zero means
	// no limit.
	HandlerTimeout time.Duration
	// SlowHandler is the time after which a handler is logged and counted as slow (handler.slow). Zero means 1 s;
	// negative switches it off.
	SlowHandler time.Duration
	// ValidateRequests calls the Validate() error method of requests that have one, before their handler
	// (defaultpipelines.structvalidation.enabled).
	ValidateRequests bool
	// Dispatch bounds how many handlers run at once on the server (concurrency.handler.dispatch). Zero means no
	// bound beyond one per session: a shared bound lets a few slow players stop all others.
	Dispatch int
	// MailboxMessages is how many messages of one session may wait for their handlers before its connection is no
	// longer read (buffer.handler.localprocess). Zero means 64.
	MailboxMessages int
	// RemoteMessages is the same for messages that are forwarded to other servers (buffer.handler.remoteprocess).
	// Zero means 64.
	RemoteMessages int

	// Sessions and groups.

	// MaxUIDLength bounds user ids, in bytes (session.maxuidlength). Zero means 256.
	MaxUIDLength int
	// NoUniqueSession leaves away the kick packet for a session whose user was bound to a newer one: its connection
	// is just closed, and its client may come back by itself. In a cluster it also lets a user be connected to
	// several frontends (session.unique, which is the opposite).
	NoUniqueSession bool
	// Resume lets sessions outlive their connections, for clients that ask for it (session.resume). Zero means that they
	// do not.
	Resume ResumeConfig
	// DrainEnabled makes the end of the server wait until clients have left by themselves (session.drain.enabled).
	DrainEnabled bool
	// DrainTimeout bounds that wait (session.drain.timeout). Zero means 6 h.
	DrainTimeout time.Duration
	// CloseWindow is the longest time over which the sessions are closed at the end of the server, a millisecond for
	// each, so that not all clients connect elsewhere at the same moment (session.drain.closewindow). Zero means 1 s;
	// negative means that all are closed at once.
	CloseWindow time.Duration
	// DrainPeriod is how often the wait is logged (session.drain.period). Zero means 5 s.
	DrainPeriod time.Duration
	// ShutdownTimeout bounds the end of the server, from the end of Run's context on (shutdown.timeout). The drain of
	// DrainTimeout comes before it. Zero means 10 s.
	ShutdownTimeout time.Duration
	// GroupTick is accepted for old configurations and has no effect (groups.memory.tickduration): groups in memory
	// vanish exactly when their time is over.
	GroupTick time.Duration

	// The cluster. Nothing of it is read unless Cluster is set.

	// Etcd configures service discovery in etcd (cluster.sd.etcd).
	Etcd EtcdConfig
	// GroupsEtcd configures the group store in etcd (groups.etcd).
	GroupsEtcd GroupsEtcdConfig
	// BindingEtcd configures the storage of user bindings in etcd (modules.bindingstorage.etcd).
	BindingEtcd BindingEtcdConfig
	// NATSClient configures the calling side of RPC over NATS (cluster.rpc.client.nats).
	NATSClient NATSConfig
	// NATSServer configures the serving side of RPC over NATS (cluster.rpc.server.nats).
	NATSServer NATSConfig
	// GRPC configures RPC over gRPC (cluster.rpc.client.grpc and cluster.rpc.server.grpc).
	GRPC GRPCConfig
	// NoLoopback refuses RPCs to the own server type or id, as Pitaya does. Otherwise they are served in the process
	// (cluster.rpc.server.loopbackenabled, which is the opposite).
	NoLoopback bool

	// Metrics configures what is reported, and where. docs/operations.md lists the metrics.
	Metrics MetricsConfig
	// Worker configures reliable RPC.
	Worker WorkerConfig

	// The seams.

	// Serializer encodes and decodes the payloads of messages. Nil means what SerializerType says.
	Serializer Serializer
	// Logger is where the server logs to. Nil means [slog.Default].
	Logger *slog.Logger
	// Listeners are served by Run and closed at its end. They may be of any kind, several of one kind included.
	Listeners []net.Listener
	// Reporters receive the metrics, besides those that Metrics enables. A registry made by [NewMetrics] can be one; it is
	// for one server at a time, since the gauges of two would take each other's place.
	Reporters []Reporter
	// Tracer makes the spans of the server, and carries traces from server to server. Nil means that there are none:
	// the context of a trace that comes along with a call is passed on as it is. Several servers may share one.
	Tracer Tracer
	// Groups stores the groups. Nil means memory: each server has its own. For a cluster see [NewEtcdGroups].
	Groups GroupStore
	// Discovery is how the servers of the cluster find each other. Nil means etcd, as Etcd says. The server joins and
	// leaves, so each needs one of its own.
	Discovery Discovery
	// Transport carries calls between the servers of the cluster. Nil means NATS, as NATSClient and NATSServer say;
	// see [NewGRPCTransport] for the other. The server closes it, so each needs one of its own.
	Transport Transport
	// Bindings tells which frontend a user is on. Transports that cannot find users by themselves need it, as gRPC
	// does to push to users and to kick them; see [NewEtcdBindings]. Nil means none. The server closes it.
	Bindings BindingStore

	// Jobs keeps the jobs of reliable RPC. Nil means NATS JetStream, as NATSClient and Worker.Namespace say, if Cluster
	// is set, and else memory; it is made when it is first needed. The server does not close one that is given here, so
	// several can share it; close it once they have ended.
	Jobs JobStore

	origins configOrigins // where the settings are from; nil before Bind
}

// ResumeConfig says how long a session waits for its client after a connection was lost, and what is kept for it
// (session.resume). It concerns clients that ask for it in their handshakes, and no others.
type ResumeConfig struct {
	// Window is how long a session waits for its client to come back (window). Clients are told whole seconds, so
	// fractions are refused; at most a day. Zero means that sessions end with their connections.
	Window time.Duration
	// Messages is how many pushes are kept for one client: those that it has not said to have received, which it does at
	// each heartbeat, and those that were pushed while it was away (messages). The oldest that were sent are forgotten
	// first; a client that is missing one of them gets a new session. When more is pushed to a client that is away, its
	// session ends, or with [SlowClientDrop] what is more is dropped. At most 1,048,576. Zero means 1,000.
	Messages int
	// Bytes bounds the same in bytes (bytes). One push that is larger is kept when it is the only one. Zero means
	// 256 KiB.
	Bytes int
	// MaxSessions is how many sessions may wait (maxsessions). When there are more, the one ends that has waited longest
	// of those that had no user when they began to, or of all if each had one. Zero means 10,000.
	MaxSessions int
}

// SlowClientPolicy says what to do with a client that does not read what it is sent.
type SlowClientPolicy int

const (
	// SlowClientClose closes the session with ErrSlowClient.
	SlowClientClose SlowClientPolicy = iota
	// SlowClientDrop drops pushes and counts them. Answers are never dropped, and a socket that takes nothing for
	// WriteTimeout is closed all the same.
	SlowClientDrop
)

// PushCodes says which clients get route codes in pushes. Some client libraries crash on them.
type PushCodes int

const (
	// PushCodesAuto sends codes to clients whose handshake shows that they understand them.
	PushCodesAuto PushCodes = iota
	// PushCodesAlways sends codes to every client.
	PushCodesAlways
	// PushCodesNever sends the full route to every client.
	PushCodesNever
)

// SerializerType is a serializer by the number that configuration files know it by.
type SerializerType int

const (
	SerializerJSON     SerializerType = 1 // [JSON]
	SerializerProtobuf SerializerType = 2 // [Protobuf]
)

// RateLimitConfig bounds what clients may send (conn.ratelimiting). What exceeds a limit is refused, and nothing else
// suffers: a request is answered with [CodeTooManyRequests], in its turn among the answers of its session, and a notify is
// dropped. [Stats] counts both, by the limit. Messages are judged when they arrive, not when they are handled.
//
// All rates are those of token buckets: as many as the limit at once after a pause, and then as many in each interval,
// evenly. What stays within the limit in every interval is never refused.
type RateLimitConfig struct {
	// Limit is how many messages a session may send in Interval (limit); at most 1,000,000. Zero means no limit. Heartbeats
	// and acknowledgements are no messages; of those, far more than any client needs count as refusals.
	Limit int
	// Interval is the time that Limit is for (interval); at most 2 h. Zero means 1 s.
	Interval time.Duration
	// Address is the same for all sessions of an address, which over IPv6 is its /64 network, together
	// (address.limit, address.interval). The address is the client's own where a PROXY or X-Forwarded-For header that is
	// believed tells it. Leave room for players who share one.
	Address Rate
	// Server is the same for all sessions together (server.limit, server.interval).
	Server Rate
	// AddressHandshakes bounds the handshakes from one address (handshakes.address.limit, handshakes.address.interval).
	// One that exceeds it is refused with code 429 in the answer, and its connection is closed.
	AddressHandshakes Rate
	// ServerHandshakes is the same for all clients together (handshakes.limit, handshakes.interval).
	ServerHandshakes Rate
	// Pending is how many requests of one session may be unanswered: waiting, being handled or forwarded (pending). What
	// is more is refused. Zero means no limit; MailboxMessages and RemoteMessages let a client that asks too fast wait
	// instead.
	Pending int
	// Abuse is how many refusals a session may have in a time (abuse.limit, abuse.interval). One more closes it with
	// [ErrTooManyRequests] and a kick that says so. A limit of zero means 1,000, a negative one that nobody is closed; an
	// interval of zero means 10 s.
	Abuse Rate
	// MaxAddresses is how many addresses without a connection are remembered until their time is over (addresses), at
	// some 150 bytes each. When there are more, those that exceeded no limit are forgotten first. Zero means 65,536.
	MaxAddresses int
	// Disabled switches all of these limits off (forcedisable).
	Disabled bool
}

// Rate is a number of times in an interval.
type Rate struct {
	Limit    int           // at most 1,000,000; zero means no limit
	Interval time.Duration // at most 2 h; zero means 1 s
}

func (r Rate) rate() rate { return rate{max(r.Limit, 0), r.Interval} }

// MetricsConfig configures the metrics (metrics).
type MetricsConfig struct {
	// Period is how often gauges are measured and the growth of counters is reported (period). Zero means 15 s.
	Period time.Duration
	// Game is the value of the label "game" of all metrics (game).
	Game string
	// ConstLabels are further labels of all metrics, with their values (constlabels).
	ConstLabels map[string]string
	// AdditionalLabels are labels that each measurement may set, with the values for those that do not
	// (additionallabels).
	AdditionalLabels map[string]string
	// Custom declares the application's own metrics (custom).
	Custom CustomMetrics
	// Prometheus serves the metrics over HTTP, on all addresses of the machine, under /metrics. See [Server.Metrics]
	// for other ways.
	Prometheus PrometheusConfig
	// Statsd sends the metrics over UDP.
	Statsd StatsdConfig
}

// PrometheusConfig configures the listener for Prometheus (metrics.prometheus).
type PrometheusConfig struct {
	Enabled bool // enabled
	Port    int  // port; zero means 9090; negative means a free port, as 0 does in files, flags and the environment
}

// StatsdConfig configures sending to statsd (metrics.statsd).
type StatsdConfig struct {
	Enabled  bool    // enabled
	Host     string  // host, with port; empty means localhost:9125
	Prefix   string  // prefix of each name; empty means "pitaya."
	NoPrefix bool    // leaves the prefix away; an empty prefix in a file or a flag means this
	Rate     float64 // rate: the share of counts and observations that is sent, above 0 and up to 1; zero means 1
	Plain    bool    // plain: leaves the tags away, for servers that do not know DataDog's dialect
}

// CustomMetrics declares metrics of the application (metrics.custom).
type CustomMetrics struct {
	Counters   []CustomMetric `json:"counters,omitempty"`
	Gauges     []CustomMetric `json:"gauges,omitempty"`
	Histograms []CustomMetric `json:"histograms,omitempty"`
	Summaries  []CustomMetric `json:"summaries,omitempty"`
}

// CustomMetric declares one metric. Its full name is pitaya_Subsystem_Name, reporters are told Name.
type CustomMetric struct {
	Subsystem  string     `json:"subsystem,omitempty"`
	Name       string     `json:"name"`
	Help       string     `json:"help,omitempty"`
	Labels     []string   `json:"labels,omitempty"`
	Buckets    []float64  `json:"buckets,omitempty"`    // histograms only: upper bounds, rising; none means 0.005 to 10
	Objectives Objectives `json:"objectives,omitempty"` // summaries only; none means no quantiles
}

// WorkerConfig configures reliable RPC (worker). Jobs are kept in NATS JetStream; the settings for Redis are accepted
// so that the files of other servers load, and have no effect.
type WorkerConfig struct {
	// RedisURL, RedisPool and RedisPassword have no effect (redis.serverurl, redis.pool, redis.password).
	RedisURL      string
	RedisPool     int
	RedisPassword string
	// Namespace keeps the jobs of several games in one NATS apart (namespace).
	Namespace string
	// Concurrency is how many jobs run at once on this server (concurrency). Zero means 1.
	Concurrency int
	// NoRetry gives a failed job up at once (retry.enabled, which is the opposite).
	NoRetry bool
	// RetryMax is how often a failed job is tried again (retry.max). Zero means 2, negative means never.
	RetryMax int
	// RetryExponential is how fast the pauses before retries grow (retry.exponential); [RetryOptions] has the formula.
	// Zero means 5, negative means 0.
	RetryExponential int
	// RetryMinDelay is added to each pause and RetryMaxDelay bounds it (retry.mindelay, retry.maxdelay). Zero means
	// 10 s, negative means none; no bound is a day.
	RetryMinDelay, RetryMaxDelay time.Duration
	// RetryMaxRandom is the longest random addition to the first pause (retry.maxrandom). Zero means none.
	RetryMaxRandom time.Duration
}
