package pitaya

import (
	"crypto/rand"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// configPrefix begins the name of every setting, and configEnvPrefix that of every variable.
const (
	configPrefix    = "pitaya."
	configEnvPrefix = "PITAYA_"
)

// A configKey is one row of the table of settings: the only place that knows its names, type, default and help.
type configKey struct {
	name    string // in lower case, without configPrefix
	value   configValue
	help    string
	aliases []string // names of other eras, and documented spellings in mixed case
	pitaya  string   // Pitaya's default where it is another
	secret  bool     // the value is not shown
	address bool     // the value may have a password in it
	unused  bool     // nothing in the library reads it yet, or ever
}

// A configSection is a part of the table, for the reference page.
type configSection struct {
	title string
	keys  []configKey
}

// table returns the settings of c, bound to its fields. Every key is declared here and nowhere else.
func (c *Config) table() []configSection {
	duration := func(p *time.Duration, def time.Duration, zero configZero) configDuration {
		return configDuration{configNumber: configNumber[time.Duration]{p: p, def: def, zero: zero}}
	}
	wholeSeconds := func(p *time.Duration, def time.Duration, zero configZero) configDuration {
		v := duration(p, def, zero)
		v.whole = true
		return v
	}
	bareSeconds := func(p *time.Duration, def time.Duration, zero configZero) configDuration {
		v := duration(p, def, zero)
		v.seconds = true
		return v
	}
	number := func(p *int, def int, zero configZero) configInt {
		return configInt{configNumber: configNumber[int]{p: p, def: def, zero: zero}}
	}
	atMost := func(max int, v configInt) configInt {
		v.max = max
		return v
	}
	limit := func(p *int, def int, zero configZero) configInt { return atMost(maxRateLimit, number(p, def, zero)) }
	interval := func(p *time.Duration, def time.Duration) configDuration {
		v := duration(p, def, zeroRefused)
		v.max = maxRateInterval
		return v
	}
	size := func(p *int, def, max int) configInt {
		return configInt{configNumber: configNumber[int]{p: p, def: def, max: max}, bytes: true}
	}
	on := func(p *bool) configBool { return configBool{p: p} }
	off := func(p *bool) configBool { return configBool{p: p, not: true} }
	text := func(p *string, def string) configText { return configText{p: p, def: def} }
	prefix := func(p *string, no *bool, def string) configText { return configText{p: p, def: def, no: no} }

	nats := func(base, side string, n *NATSConfig, own ...configKey) []configKey {
		keys := []configKey{
			{name: "connect", value: text(&n.URL, "nats://localhost:4222"), address: true, help: "address of NATS for " + side + ", or several with commas between"},
			{name: "connectiontimeout", value: duration(&n.ConnectTimeout, 2*time.Second, zeroRefused), help: "longest time for one attempt to connect"},
			{name: "maxreconnectionretries", value: number(&n.MaxReconnects, 0, zeroForEver), help: "attempts to reconnect; 0: for ever", pitaya: "15"},
			{name: "reconnectwait", value: duration(&n.ReconnectWait, time.Second, zeroRefused), help: "pause between two attempts"},
			{name: "reconnectjitter", value: duration(&n.ReconnectJitter, 100*time.Millisecond, zeroIsNone), help: "longest random addition to the pause; 0: none"},
			{name: "reconnectjittertls", value: duration(&n.ReconnectJitterTLS, time.Second, zeroIsNone), help: "the same for encrypted connections; 0: none"},
			{name: "pinginterval", value: duration(&n.PingInterval, 2*time.Minute, zeroRefused), help: "how often a quiet connection is tried"},
			{name: "maxpingsoutstanding", value: number(&n.MaxPings, 3, zeroRefused), help: "unanswered pings after which the connection counts as lost"},
			{name: "websocketcompression", value: off(&n.NoWebSocketCompression), help: "compress where NATS is reached over WebSocket"},
			{name: "credentials", value: text(&n.CredentialsFile, ""), help: "NATS credentials file"},
			{name: "nkey", value: text(&n.NKeyFile, ""), help: "file with an nkey seed"},
			{name: "token", value: text(&n.Token, ""), help: "authentication token", secret: true},
			{name: "tls.ca", value: text(&n.TLS.CA, ""), help: "PEM file with the authorities to trust"},
			{name: "tls.cert", value: text(&n.TLS.Cert, ""), help: "PEM file with the own certificate"},
			{name: "tls.key", value: text(&n.TLS.Key, ""), help: "PEM file with its key"},
		}
		keys = append(keys, own...)
		for i := range keys {
			keys[i].name = base + "." + keys[i].name
		}
		return keys
	}
	etcd := []string{"localhost:2379"}
	resumeWindow := wholeSeconds(&c.Resume.Window, 0, zeroAsIs)
	resumeWindow.max = maxResumeWindow

	return []configSection{
		{"Server", []configKey{
			{name: "config", value: text(&c.File, ""), help: "JSON file with settings; cannot be set in a file"},
			{name: "server.type", value: configText{p: &c.Type, def: "game", valid: checkServerType}, help: "server type, the first part of routes"},
			{name: "server.id", value: configText{p: &c.ID, valid: checkServerID}, help: "server id; empty: random"},
			{name: "server.frontend", value: on(&c.Frontend), help: "clients connect to this server"},
			{name: "server.cluster", value: on(&c.Cluster), help: "join a cluster"},
			{name: "server.metadata", value: configMap{&c.Metadata}, help: "what other servers learn about this one"},
			{name: "cluster.info.region", value: text(&c.Region, ""), help: "region of the server, for the choice of gRPC addresses"},
		}},
		{"Client connections", []configKey{
			{name: "heartbeat.interval", value: wholeSeconds(&c.Heartbeat, 30*time.Second, zeroIsNone), help: "how often heartbeats are sent, in whole seconds; 0: no heartbeats"},
			{name: "conn.handshaketimeout", value: duration(&c.HandshakeTimeout, 10*time.Second, zeroRefused), help: "longest time from connecting to the end of the handshake"},
			{name: "buffer.agent.conntimeout", value: duration(&c.WriteTimeout, 10*time.Second, zeroIsDefault), help: "longest time a client's socket may take nothing; 0: the default", aliases: []string{"buffer.agent.writetimeout"}},
			{name: "buffer.agent.slowclient", value: configEnum[SlowClientPolicy]{p: &c.SlowClient, words: slowClientWords[:]}, help: "what happens to a client whose queue is full: its session is closed, or pushes to it are dropped"},
			{name: "buffer.agent.bytes", value: size(&c.QueueBytes, 1<<20, 0), help: "bytes that may wait to be sent to a client"},
			{name: "buffer.agent.messages", value: number(&c.QueueMessages, 0, zeroAsIs), help: "messages that may wait to be sent to a client; 0: no bound", pitaya: "100"},
			{name: "conn.maxpacketsize", value: size(&c.MaxPacketSize, 1<<20, 1<<24-1), help: "largest packet from a client"},
			{name: "conn.maxinflatedsize", value: size(&c.MaxInflatedSize, 4<<20, 0), help: "largest message from a client after decompression"},
			{name: "conn.maxhandshakesize", value: size(&c.MaxHandshakeSize, 64<<10, 1<<24-1), help: "largest handshake from a client"},
			{name: "conn.max", value: number(&c.MaxConns, 0, zeroAsIs), help: "open client connections; 0: no bound"},
			{name: "conn.maxperaddress", value: number(&c.MaxConnsPerIP, 0, zeroAsIs), help: "open client connections from one address; 0: no bound"},
			{name: "acceptor.proxyprotocol", value: on(&c.ProxyProtocol), help: "connections to TCP listeners, not to WebSocket ones, begin with a PROXY protocol header"},
			{name: "acceptor.trustedproxies", value: configPrefixes{&c.TrustedProxies}, help: "networks whose PROXY headers are believed; empty: all"},
		}},
		{"What clients may send", []configKey{
			{name: "conn.ratelimiting.limit", value: limit(&c.RateLimit.Limit, 0, zeroAsIs), help: "messages that a session may send in the interval; 0: no limit", pitaya: "20"},
			{name: "conn.ratelimiting.interval", value: interval(&c.RateLimit.Interval, time.Second), help: "the interval"},
			{name: "conn.ratelimiting.address.limit", value: limit(&c.RateLimit.Address.Limit, 0, zeroAsIs), help: "messages from one address in its interval; 0: no limit"},
			{name: "conn.ratelimiting.address.interval", value: interval(&c.RateLimit.Address.Interval, time.Second), help: "the interval"},
			{name: "conn.ratelimiting.server.limit", value: limit(&c.RateLimit.Server.Limit, 0, zeroAsIs), help: "messages from all clients in its interval; 0: no limit"},
			{name: "conn.ratelimiting.server.interval", value: interval(&c.RateLimit.Server.Interval, time.Second), help: "the interval"},
			{name: "conn.ratelimiting.pending", value: number(&c.RateLimit.Pending, 0, zeroAsIs), help: "requests of a session that may be unanswered; 0: no limit"},
			{name: "conn.ratelimiting.handshakes.limit", value: limit(&c.RateLimit.ServerHandshakes.Limit, 0, zeroAsIs), help: "handshakes of all clients in its interval; 0: no limit"},
			{name: "conn.ratelimiting.handshakes.interval", value: interval(&c.RateLimit.ServerHandshakes.Interval, time.Second), help: "the interval"},
			{name: "conn.ratelimiting.handshakes.address.limit", value: limit(&c.RateLimit.AddressHandshakes.Limit, 0, zeroAsIs), help: "handshakes from one address in its interval; 0: no limit"},
			{name: "conn.ratelimiting.handshakes.address.interval", value: interval(&c.RateLimit.AddressHandshakes.Interval, time.Second), help: "the interval"},
			{name: "conn.ratelimiting.abuse.limit", value: limit(&c.RateLimit.Abuse.Limit, 1000, zeroIsNone), help: "refusals in its interval after which a session is closed; 0: never"},
			{name: "conn.ratelimiting.abuse.interval", value: interval(&c.RateLimit.Abuse.Interval, 10*time.Second), help: "the interval"},
			{name: "conn.ratelimiting.addresses", value: number(&c.RateLimit.MaxAddresses, 1<<16, zeroRefused), help: "addresses that are remembered after their last connection has closed"},
			{name: "conn.ratelimiting.forcedisable", value: on(&c.RateLimit.Disabled), help: "none of these limits, whatever they are set to"},
		}},
		{"Messages and handlers", []configKey{
			{name: "serializertype", value: configEnum[SerializerType]{p: &c.SerializerType, first: SerializerJSON, words: serializerWords[:], def: SerializerJSON}, help: "serializer of messages"},
			{name: "handler.messages.compression", value: off(&c.NoCompression), help: "compress towards clients that can inflate"},
			{name: "handler.messages.pushcodes", value: configEnum[PushCodes]{p: &c.PushCodes, words: pushCodesWords[:]}, help: "whether pushes carry route codes: to clients that understand them, to all, to none"},
			{name: "handler.ordered", value: off(&c.Unordered), help: "handle the messages of a session one after another"},
			{name: "handler.timeout", value: duration(&c.HandlerTimeout, 0, zeroAsIs), help: "time that a handler has for one message; 0: no limit"},
			{name: "handler.slow", value: duration(&c.SlowHandler, time.Second, zeroIsNone), help: "time after which a handler is logged and counted as slow; 0: never"},
			{name: "defaultpipelines.structvalidation.enabled", value: on(&c.ValidateRequests), help: "call the Validate method of requests that have one"},
			{name: "concurrency.handler.dispatch", value: number(&c.Dispatch, 0, zeroAsIs), help: "handlers that may run at once; 0: one for each session", pitaya: "25"},
			{name: "buffer.handler.localprocess", value: number(&c.MailboxMessages, 64, zeroRefused), help: "messages of a session that may wait for their handlers", pitaya: "20, shared by all sessions"},
			{name: "buffer.handler.remoteprocess", value: number(&c.RemoteMessages, 64, zeroRefused), help: "messages of a session that may wait to be forwarded", pitaya: "20, shared by all sessions"},
		}},
		{"Sessions and groups", []configKey{
			{name: "session.maxuidlength", value: atMost(2048, number(&c.MaxUIDLength, 256, zeroRefused)), help: "longest user id, in bytes"},
			{name: "session.unique", value: off(&c.NoUniqueSession), help: "a user has one session: an older one is kicked"},
			{name: "session.resume.window", value: resumeWindow, help: "how long a session waits for its client after its connection was lost; 0: sessions end with their connections"},
			{name: "session.resume.messages", value: atMost(maxResumeMessages, number(&c.Resume.Messages, 1000, zeroRefused)), help: "pushes that are kept for a client until it has said that it received them"},
			{name: "session.resume.bytes", value: size(&c.Resume.Bytes, 256<<10, 0), help: "bytes of those pushes"},
			{name: "session.resume.maxsessions", value: number(&c.Resume.MaxSessions, 10_000, zeroRefused), help: "sessions that may wait; beyond it the one ends that has waited longest, of those without a user first"},
			{name: "session.drain.enabled", value: on(&c.DrainEnabled), help: "at the end, wait until clients have left"},
			{name: "shutdown.timeout", value: duration(&c.ShutdownTimeout, 10*time.Second, zeroRefused), help: "longest time for the end of the server, after the drain"},
			{name: "session.drain.timeout", value: duration(&c.DrainTimeout, 6*time.Hour, zeroRefused), help: "longest wait"},
			{name: "session.drain.closewindow", value: duration(&c.CloseWindow, time.Second, zeroIsNone), help: "longest time over which sessions are closed at the end, a millisecond for each; 0: at once"},
			{name: "session.drain.period", value: duration(&c.DrainPeriod, 5*time.Second, zeroRefused), help: "how often the wait is logged"},
			{name: "groups.memory.tickduration", value: duration(&c.GroupTick, 30*time.Second, zeroRefused), help: "accepted for old files: groups in memory vanish exactly when their time is over", unused: true},
			{name: "groups.etcd.endpoints", value: configList{&c.GroupsEtcd.Endpoints, etcd}, address: true, help: "addresses of etcd for groups"},
			{name: "groups.etcd.user", value: text(&c.GroupsEtcd.User, ""), help: "user; used if the password is set too"},
			{name: "groups.etcd.pass", value: text(&c.GroupsEtcd.Password, ""), help: "password", secret: true},
			{name: "groups.etcd.tls.ca", value: text(&c.GroupsEtcd.TLS.CA, ""), help: "PEM file with the authorities to trust"},
			{name: "groups.etcd.tls.cert", value: text(&c.GroupsEtcd.TLS.Cert, ""), help: "PEM file with the own certificate"},
			{name: "groups.etcd.tls.key", value: text(&c.GroupsEtcd.TLS.Key, ""), help: "PEM file with its key"},
			{name: "groups.etcd.prefix", value: prefix(&c.GroupsEtcd.Prefix, &c.GroupsEtcd.NoPrefix, "pitaya/"), help: "prefix of keys, slash included"},
			{name: "groups.etcd.dialtimeout", value: duration(&c.GroupsEtcd.DialTimeout, 5*time.Second, zeroRefused), help: "longest time to connect"},
			{name: "groups.etcd.transactiontimeout", value: duration(&c.GroupsEtcd.TransactionTimeout, 5*time.Second, zeroRefused), help: "longest time for one operation"},
			{name: "modules.bindingstorage.etcd.endpoints", value: configList{&c.BindingEtcd.Endpoints, etcd}, address: true, help: "addresses of etcd for bindings of users"},
			{name: "modules.bindingstorage.etcd.user", value: text(&c.BindingEtcd.User, ""), help: "user; used if the password is set too"},
			{name: "modules.bindingstorage.etcd.pass", value: text(&c.BindingEtcd.Password, ""), help: "password", secret: true},
			{name: "modules.bindingstorage.etcd.tls.ca", value: text(&c.BindingEtcd.TLS.CA, ""), help: "PEM file with the authorities to trust"},
			{name: "modules.bindingstorage.etcd.tls.cert", value: text(&c.BindingEtcd.TLS.Cert, ""), help: "PEM file with the own certificate"},
			{name: "modules.bindingstorage.etcd.tls.key", value: text(&c.BindingEtcd.TLS.Key, ""), help: "PEM file with its key"},
			{name: "modules.bindingstorage.etcd.prefix", value: prefix(&c.BindingEtcd.Prefix, &c.BindingEtcd.NoPrefix, "pitaya/"), help: "prefix of keys, slash included"},
			{name: "modules.bindingstorage.etcd.dialtimeout", value: duration(&c.BindingEtcd.DialTimeout, 5*time.Second, zeroRefused), help: "longest time to connect"},
			{name: "modules.bindingstorage.etcd.leasettl", value: wholeSeconds(&c.BindingEtcd.LeaseTTL, 5*time.Hour, zeroRefused), help: "how long a binding outlives its frontend, in whole seconds"},
		}},
		{"Discovery in etcd", []configKey{
			{name: "cluster.sd.etcd.endpoints", value: configList{&c.Etcd.Endpoints, etcd}, address: true, help: "addresses of etcd"},
			{name: "cluster.sd.etcd.user", value: text(&c.Etcd.User, ""), help: "user; used if the password is set too"},
			{name: "cluster.sd.etcd.pass", value: text(&c.Etcd.Password, ""), help: "password", secret: true},
			{name: "cluster.sd.etcd.tls.ca", value: text(&c.Etcd.TLS.CA, ""), help: "PEM file with the authorities to trust"},
			{name: "cluster.sd.etcd.tls.cert", value: text(&c.Etcd.TLS.Cert, ""), help: "PEM file with the own certificate"},
			{name: "cluster.sd.etcd.tls.key", value: text(&c.Etcd.TLS.Key, ""), help: "PEM file with its key"},
			{name: "cluster.sd.etcd.dialtimeout", value: duration(&c.Etcd.DialTimeout, 5*time.Second, zeroRefused), help: "longest time to connect, and for the first lease"},
			{name: "cluster.sd.etcd.prefix", value: prefix(&c.Etcd.Prefix, &c.Etcd.NoPrefix, "pitaya/"), help: "prefix of keys, slash included"},
			{name: "cluster.sd.etcd.heartbeat.ttl", value: wholeSeconds(&c.Etcd.HeartbeatTTL, time.Minute, zeroRefused), help: "how long a server that died stays listed, in whole seconds"},
			{name: "cluster.sd.etcd.heartbeat.log", value: on(&c.Etcd.LogHeartbeat), help: "log each renewal of the lease"},
			{name: "cluster.sd.etcd.syncservers.interval", value: duration(&c.Etcd.SyncInterval, 2*time.Minute, zeroRefused), help: "how often the full list of servers is read"},
			{name: "cluster.sd.etcd.syncservers.parallelism", value: number(&c.Etcd.SyncParallelism, 10, zeroIsDefault), help: "accepted for old files: the full list is one read", unused: true},
			{name: "cluster.sd.etcd.revoke.timeout", value: duration(&c.Etcd.RevokeTimeout, 5*time.Second, zeroRefused), help: "longest time to give the lease back"},
			{name: "cluster.sd.etcd.grantlease.timeout", value: duration(&c.Etcd.GrantLeaseTimeout, time.Minute, zeroRefused), help: "longest time for one attempt to register again"},
			{name: "cluster.sd.etcd.grantlease.maxretries", value: number(&c.Etcd.GrantLeaseRetries, 0, zeroForEver), help: "attempts before the server gives up; 0: for ever", pitaya: "15"},
			{name: "cluster.sd.etcd.grantlease.retryinterval", value: duration(&c.Etcd.GrantLeaseInterval, 5*time.Second, zeroRefused), help: "pause between two attempts"},
			{name: "cluster.sd.etcd.shutdown.delay", value: duration(&c.Etcd.ShutdownDelay, 300*time.Millisecond, zeroIsNone), help: "pause after leaving discovery; 0: none"},
			{name: "cluster.sd.etcd.servertypesblacklist", value: configList{p: &c.Etcd.IgnoredTypes}, help: "server types to ignore", aliases: []string{"cluster.sd.etcd.servertypeblacklist"}},
		}},
		{"RPC over NATS, calling side", nats("cluster.rpc.client.nats", "calls", &c.NATSClient,
			configKey{name: "requesttimeout", value: duration(&c.NATSClient.RequestTimeout, 5*time.Second, zeroRefused), help: "longest time for a call without a deadline"},
		)},
		{"RPC over NATS, serving side", nats("cluster.rpc.server.nats", "serving calls", &c.NATSServer,
			configKey{name: "buffer.messages", value: number(&c.NATSServer.BufferMessages, 8192, zeroRefused), help: "incoming calls that may wait", pitaya: "75", aliases: []string{"buffer.cluster.rpc.server.nats.messages"}},
			configKey{name: "buffer.push", value: number(&c.NATSServer.BufferPush, 8192, zeroRefused), help: "incoming pushes that may wait", pitaya: "100", aliases: []string{"buffer.cluster.rpc.server.nats.push"}},
			configKey{name: "services", value: number(&c.NATSServer.Services, 30, zeroRefused), help: "accepted for old files: incoming calls do not wait for each other here", aliases: []string{"concurrency.remote.service"}, unused: true},
		)},
		{"RPC over gRPC, and RPC to the own server", []configKey{
			{name: "cluster.rpc.client.grpc.requesttimeout", value: duration(&c.GRPC.RequestTimeout, 5*time.Second, zeroRefused), help: "longest time for a call without a deadline"},
			{name: "cluster.rpc.client.grpc.dialtimeout", value: duration(&c.GRPC.DialTimeout, 5*time.Second, zeroRefused), help: "longest time to connect"},
			{name: "cluster.rpc.client.grpc.lazyconnection", value: on(&c.GRPC.LazyConnection), help: "connect at the first call"},
			{name: "cluster.rpc.client.grpc.tls.ca", value: text(&c.GRPC.ClientTLS.CA, ""), help: "PEM file with the authorities to trust; this or a certificate encrypts calls"},
			{name: "cluster.rpc.client.grpc.tls.cert", value: text(&c.GRPC.ClientTLS.Cert, ""), help: "PEM file with the certificate to show to other servers"},
			{name: "cluster.rpc.client.grpc.tls.key", value: text(&c.GRPC.ClientTLS.Key, ""), help: "PEM file with its key"},
			{name: "cluster.rpc.server.grpc.port", value: atMost(1<<16-1, number(&c.GRPC.Port, 3434, zeroIsNone)), help: "port for calls from other servers; 0: a free one"},
			{name: "cluster.rpc.server.grpc.maxconnections", value: number(&c.GRPC.MaxConnections, 4096, zeroIsNone), help: "connections of other servers to the port; 0: no bound"},
			{name: "cluster.rpc.server.grpc.tls.ca", value: text(&c.GRPC.ServerTLS.CA, ""), help: "PEM file with the authorities of callers; empty: callers need no certificate"},
			{name: "cluster.rpc.server.grpc.tls.cert", value: text(&c.GRPC.ServerTLS.Cert, ""), help: "PEM file with the own certificate, which encrypts the port"},
			{name: "cluster.rpc.server.grpc.tls.key", value: text(&c.GRPC.ServerTLS.Key, ""), help: "PEM file with its key"},
			{name: "cluster.rpc.server.loopbackenabled", value: off(&c.NoLoopback), help: "serve RPCs to the own type or id in the process, instead of refusing them", pitaya: "false"},
		}},
		{"Metrics", []configKey{
			{name: "metrics.period", value: duration(&c.Metrics.Period, 15*time.Second, zeroRefused), help: "how often gauges are measured"},
			{name: "metrics.game", value: text(&c.Metrics.Game, ""), help: `value of the label "game"`},
			{name: "metrics.constlabels", value: configMap{&c.Metrics.ConstLabels}, help: "labels of all metrics, with their values", aliases: []string{"metrics.constLabels", "metrics.consttags", "metrics.constTags", "metrics.tags"}},
			{name: "metrics.additionallabels", value: configMap{&c.Metrics.AdditionalLabels}, help: "labels that a measurement may set, with their values otherwise", aliases: []string{"metrics.additionalLabels", "metrics.additionaltags", "metrics.additionalTags"}},
			{name: "metrics.custom", value: configCustom{&c.Metrics.Custom}, help: "metrics of the application: lists named counters, gauges, histograms, summaries"},
			{name: "metrics.prometheus.enabled", value: on(&c.Metrics.Prometheus.Enabled), help: "serve metrics for Prometheus"},
			{name: "metrics.prometheus.port", value: atMost(1<<16-1, number(&c.Metrics.Prometheus.Port, 9090, zeroIsNone)), help: "port for it; 0: a free one"},
			{name: "metrics.statsd.enabled", value: on(&c.Metrics.Statsd.Enabled), help: "send metrics to statsd"},
			{name: "metrics.statsd.host", value: configText{p: &c.Metrics.Statsd.Host, def: "localhost:9125", valid: checkHostPort}, help: "its address"},
			{name: "metrics.statsd.prefix", value: prefix(&c.Metrics.Statsd.Prefix, &c.Metrics.Statsd.NoPrefix, "pitaya."), help: "prefix of names"},
			{name: "metrics.statsd.rate", value: configShare{&c.Metrics.Statsd.Rate}, help: "share of counts and observations that is sent, up to 1"},
			{name: "metrics.statsd.plain", value: on(&c.Metrics.Statsd.Plain), help: "leave tags away, for servers that do not know DataDog's dialect"},
		}},
		{"Reliable RPC", append([]configKey{
			{name: "worker.namespace", value: configText{p: &c.Worker.Namespace, valid: checkNamespace}, help: "keeps the jobs of several games apart"},
			{name: "worker.concurrency", value: number(&c.Worker.Concurrency, 1, zeroRefused), help: "jobs that run at once on this server"},
			{name: "worker.retry.enabled", value: off(&c.Worker.NoRetry), help: "try failed jobs again"},
			{name: "worker.retry.max", value: number(&c.Worker.RetryMax, 2, zeroIsNone), help: "how often; 0: never"},
			{name: "worker.retry.exponential", value: atMost(maxRetryExponential, number(&c.Worker.RetryExponential, 5, zeroIsNone)), help: "exponent of the number of the retry in the pause before it"},
			{name: "worker.retry.mindelay", value: bareSeconds(&c.Worker.RetryMinDelay, 10*time.Second, zeroIsNone), help: "added to each pause; 0: nothing", aliases: []string{"worker.retry.minDelay"}},
			{name: "worker.retry.maxdelay", value: bareSeconds(&c.Worker.RetryMaxDelay, 10*time.Second, zeroIsNone), help: "longest pause; 0: a day", aliases: []string{"worker.retry.maxDelay"}},
			{name: "worker.retry.maxrandom", value: bareSeconds(&c.Worker.RetryMaxRandom, 0, zeroAsIs), help: "longest random addition to the first pause", aliases: []string{"worker.retry.maxRandom"}},
		}, unusedKeys([]configKey{
			{name: "worker.redis.serverurl", value: text(&c.Worker.RedisURL, "localhost:6379"), address: true, help: "no effect: jobs are kept in NATS", aliases: []string{"worker.redis.url"}},
			{name: "worker.redis.pool", value: number(&c.Worker.RedisPool, 10, zeroRefused), help: "no effect"},
			{name: "worker.redis.password", value: text(&c.Worker.RedisPassword, ""), help: "no effect", secret: true},
		})...)},
	}
}

// unusedKeys marks keys that nothing reads yet.
func unusedKeys(keys []configKey) []configKey {
	for i := range keys {
		keys[i].unused = true
	}
	return keys
}

// keys are the rows of the table without its sections.
func (c *Config) keys() iter.Seq[configKey] {
	return func(yield func(configKey) bool) {
		for _, s := range c.table() {
			for _, k := range s.keys {
				if !yield(k) {
					return
				}
			}
		}
	}
}

var (
	slowClientWords = [...]string{"close", "drop"}
	pushCodesWords  = [...]string{"auto", "always", "never"}
	serializerWords = [...]string{"json", "protobuf"}
	originWords     = [...]string{"default", "code", "file", "environment", "flag"}
)

// String returns the word that stands for p in settings.
func (p SlowClientPolicy) String() string { return enumWord(p, 0, slowClientWords[:]) }

// String returns the word that stands for p in settings.
func (p PushCodes) String() string { return enumWord(p, 0, pushCodesWords[:]) }

// String returns the word that stands for t in settings, which is the serializer's name.
func (t SerializerType) String() string { return enumWord(t, SerializerJSON, serializerWords[:]) }

// String returns "default", "code", "file", "environment" or "flag".
func (o Origin) String() string { return enumWord(o, 0, originWords[:]) }

// withDefaults returns a copy in which zero is replaced by the defaults. It shares no map or slice with c, so nobody
// can change it afterwards. The seams are left alone, except the logger.
func (c Config) withDefaults() Config {
	if c.origins == nil {
		c.record() // before the defaults look as if they had been set
	}
	c.origins = maps.Clone(c.origins)
	for k := range (&c).keys() {
		k.value.fill()
	}
	if c.ID == "" {
		c.ID = rand.Text()
		r := c.origins["server.id"]
		r.text = c.ID
		c.origins["server.id"] = r
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Listeners = slices.Clone(c.Listeners)
	c.Reporters = slices.Clone(c.Reporters)
	return c
}
