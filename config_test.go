package pitaya_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// bindConfig returns a Config and the flag set it is bound to.
func bindConfig(t testing.TB) (*pitaya.Config, *flag.FlagSet) {
	t.Helper()
	cfg := new(pitaya.Config)
	fs := flag.NewFlagSet("game", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.Bind(fs)
	return cfg, fs
}

// configSetting returns the setting with that key.
func configSetting(t testing.TB, cfg *pitaya.Config, key string) pitaya.Setting {
	t.Helper()
	for _, s := range cfg.Settings() {
		if s.Key == key {
			return s
		}
	}
	t.Fatalf("no setting %s", key)
	return pitaya.Setting{}
}

// configKeys has every name of every era, without "pitaya.", with a value and the field that must have it.
var configKeys = []struct {
	name string
	text string // as a flag and a variable
	json string // in a file; empty: text in quotes
	get  func(*pitaya.Config) any
	want any
}{
	{"serializertype", "2", `2`, func(c *pitaya.Config) any { return c.SerializerType }, pitaya.SerializerProtobuf},
	{"defaultpipelines.structvalidation.enabled", "true", `true`, func(c *pitaya.Config) any { return c.ValidateRequests }, true},
	{"heartbeat.interval", "7s", "", func(c *pitaya.Config) any { return c.Heartbeat }, 7 * time.Second},
	{"handler.messages.compression", "false", `false`, func(c *pitaya.Config) any { return c.NoCompression }, true},
	{"handler.messages.pushcodes", "never", "", func(c *pitaya.Config) any { return c.PushCodes }, pitaya.PushCodesNever},
	{"handler.ordered", "false", `false`, func(c *pitaya.Config) any { return c.Unordered }, true},
	{"handler.timeout", "3s", "", func(c *pitaya.Config) any { return c.HandlerTimeout }, 3 * time.Second},
	{"handler.slow", "250ms", "", func(c *pitaya.Config) any { return c.SlowHandler }, 250 * time.Millisecond},
	{"buffer.agent.messages", "100", `100`, func(c *pitaya.Config) any { return c.QueueMessages }, 100},
	{"buffer.agent.bytes", "64KiB", `65536`, func(c *pitaya.Config) any { return c.QueueBytes }, 64 << 10},
	{"buffer.agent.slowclient", "drop", "", func(c *pitaya.Config) any { return c.SlowClient }, pitaya.SlowClientDrop},
	{"buffer.agent.conntimeout", "4s", "", func(c *pitaya.Config) any { return c.WriteTimeout }, 4 * time.Second},
	{"buffer.agent.writetimeout", "4s", "", func(c *pitaya.Config) any { return c.WriteTimeout }, 4 * time.Second},
	{"buffer.handler.localprocess", "20", `20`, func(c *pitaya.Config) any { return c.MailboxMessages }, 20},
	{"buffer.handler.remoteprocess", "21", `21`, func(c *pitaya.Config) any { return c.RemoteMessages }, 21},
	{"concurrency.handler.dispatch", "25", `25`, func(c *pitaya.Config) any { return c.Dispatch }, 25},
	{"acceptor.proxyprotocol", "true", `true`, func(c *pitaya.Config) any { return c.ProxyProtocol }, true},
	{"acceptor.trustedproxies", "10.0.0.0/8,::1", `["10.0.0.0/8", "::1"]`, func(c *pitaya.Config) any { return c.TrustedProxies },
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
	{"conn.maxpacketsize", "16777215", `16777215`, func(c *pitaya.Config) any { return c.MaxPacketSize }, 1<<24 - 1},
	{"conn.maxinflatedsize", "8MiB", "", func(c *pitaya.Config) any { return c.MaxInflatedSize }, 8 << 20},
	{"conn.maxhandshakesize", "4096", `4096`, func(c *pitaya.Config) any { return c.MaxHandshakeSize }, 4096},
	{"conn.handshaketimeout", "2s", "", func(c *pitaya.Config) any { return c.HandshakeTimeout }, 2 * time.Second},
	{"conn.max", "5000", `5000`, func(c *pitaya.Config) any { return c.MaxConns }, 5000},
	{"conn.maxperaddress", "50", `50`, func(c *pitaya.Config) any { return c.MaxConnsPerIP }, 50},
	{"conn.ratelimiting.limit", "30", `30`, func(c *pitaya.Config) any { return c.RateLimit.Limit }, 30},
	{"conn.ratelimiting.interval", "2s", "", func(c *pitaya.Config) any { return c.RateLimit.Interval }, 2 * time.Second},
	{"conn.ratelimiting.address.limit", "31", `31`, func(c *pitaya.Config) any { return c.RateLimit.Address.Limit }, 31},
	{"conn.ratelimiting.address.interval", "3s", "", func(c *pitaya.Config) any { return c.RateLimit.Address.Interval }, 3 * time.Second},
	{"conn.ratelimiting.server.limit", "32", `32`, func(c *pitaya.Config) any { return c.RateLimit.Server.Limit }, 32},
	{"conn.ratelimiting.server.interval", "4s", "", func(c *pitaya.Config) any { return c.RateLimit.Server.Interval }, 4 * time.Second},
	{"conn.ratelimiting.pending", "33", `33`, func(c *pitaya.Config) any { return c.RateLimit.Pending }, 33},
	{"conn.ratelimiting.handshakes.limit", "34", `34`, func(c *pitaya.Config) any { return c.RateLimit.ServerHandshakes.Limit }, 34},
	{"conn.ratelimiting.handshakes.interval", "5s", "", func(c *pitaya.Config) any { return c.RateLimit.ServerHandshakes.Interval }, 5 * time.Second},
	{"conn.ratelimiting.handshakes.address.limit", "35", `35`, func(c *pitaya.Config) any { return c.RateLimit.AddressHandshakes.Limit }, 35},
	{"conn.ratelimiting.handshakes.address.interval", "6s", "", func(c *pitaya.Config) any { return c.RateLimit.AddressHandshakes.Interval }, 6 * time.Second},
	{"conn.ratelimiting.abuse.limit", "0", `0`, func(c *pitaya.Config) any { return c.RateLimit.Abuse.Limit }, -1},
	{"conn.ratelimiting.abuse.interval", "7s", "", func(c *pitaya.Config) any { return c.RateLimit.Abuse.Interval }, 7 * time.Second},
	{"conn.ratelimiting.addresses", "36", `36`, func(c *pitaya.Config) any { return c.RateLimit.MaxAddresses }, 36},
	{"conn.ratelimiting.forcedisable", "true", `true`, func(c *pitaya.Config) any { return c.RateLimit.Disabled }, true},

	{"server.type", "room", "", func(c *pitaya.Config) any { return c.Type }, "room"},
	{"server.id", "room-1", "", func(c *pitaya.Config) any { return c.ID }, "room-1"},
	{"server.frontend", "true", `true`, func(c *pitaya.Config) any { return c.Frontend }, true},
	{"server.cluster", "true", `true`, func(c *pitaya.Config) any { return c.Cluster }, true},
	{"server.metadata", "Zone=a,build=7", `{"Zone": "a", "build": 7}`, func(c *pitaya.Config) any { return c.Metadata }, map[string]string{"Zone": "a", "build": "7"}},

	{"session.unique", "false", `false`, func(c *pitaya.Config) any { return c.NoUniqueSession }, true},
	{"session.maxuidlength", "64", `64`, func(c *pitaya.Config) any { return c.MaxUIDLength }, 64},
	{"session.resume.window", "30s", "", func(c *pitaya.Config) any { return c.Resume.Window }, 30 * time.Second},
	{"session.resume.messages", "37", `37`, func(c *pitaya.Config) any { return c.Resume.Messages }, 37},
	{"session.resume.bytes", "64KiB", `65536`, func(c *pitaya.Config) any { return c.Resume.Bytes }, 64 << 10},
	{"session.resume.maxsessions", "38", `38`, func(c *pitaya.Config) any { return c.Resume.MaxSessions }, 38},
	{"session.drain.enabled", "true", `true`, func(c *pitaya.Config) any { return c.DrainEnabled }, true},
	{"shutdown.timeout", "3s", "", func(c *pitaya.Config) any { return c.ShutdownTimeout }, 3 * time.Second},
	{"session.drain.timeout", "1h", "", func(c *pitaya.Config) any { return c.DrainTimeout }, time.Hour},
	{"session.drain.period", "1s", "", func(c *pitaya.Config) any { return c.DrainPeriod }, time.Second},
	{"session.drain.closewindow", "2s", "", func(c *pitaya.Config) any { return c.CloseWindow }, 2 * time.Second},

	{"cluster.sd.etcd.endpoints", "a:1,[::1]:2", `["a:1", "[::1]:2"]`, func(c *pitaya.Config) any { return c.Etcd.Endpoints }, []string{"a:1", "[::1]:2"}},
	{"cluster.sd.etcd.user", "u", "", func(c *pitaya.Config) any { return c.Etcd.User }, "u"},
	{"cluster.sd.etcd.pass", "p", "", func(c *pitaya.Config) any { return c.Etcd.Password }, "p"},
	{"cluster.sd.etcd.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.Etcd.TLS.CA }, "ca.pem"},
	{"cluster.sd.etcd.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.Etcd.TLS.Cert }, "c.pem"},
	{"cluster.sd.etcd.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.Etcd.TLS.Key }, "k.pem"},
	{"cluster.sd.etcd.dialtimeout", "1s", "", func(c *pitaya.Config) any { return c.Etcd.DialTimeout }, time.Second},
	{"cluster.sd.etcd.prefix", "game/", "", func(c *pitaya.Config) any { return c.Etcd.Prefix }, "game/"},
	{"cluster.sd.etcd.heartbeat.ttl", "20s", "", func(c *pitaya.Config) any { return c.Etcd.HeartbeatTTL }, 20 * time.Second},
	{"cluster.sd.etcd.heartbeat.log", "true", `true`, func(c *pitaya.Config) any { return c.Etcd.LogHeartbeat }, true},
	{"cluster.sd.etcd.syncservers.interval", "30s", "", func(c *pitaya.Config) any { return c.Etcd.SyncInterval }, 30 * time.Second},
	{"cluster.sd.etcd.syncservers.parallelism", "3", `3`, func(c *pitaya.Config) any { return c.Etcd.SyncParallelism }, 3},
	{"cluster.sd.etcd.revoke.timeout", "1s", "", func(c *pitaya.Config) any { return c.Etcd.RevokeTimeout }, time.Second},
	{"cluster.sd.etcd.grantlease.timeout", "1s", "", func(c *pitaya.Config) any { return c.Etcd.GrantLeaseTimeout }, time.Second},
	{"cluster.sd.etcd.grantlease.maxretries", "15", `15`, func(c *pitaya.Config) any { return c.Etcd.GrantLeaseRetries }, 15},
	{"cluster.sd.etcd.grantlease.retryinterval", "1s", "", func(c *pitaya.Config) any { return c.Etcd.GrantLeaseInterval }, time.Second},
	{"cluster.sd.etcd.shutdown.delay", "10ms", "", func(c *pitaya.Config) any { return c.Etcd.ShutdownDelay }, 10 * time.Millisecond},
	{"cluster.sd.etcd.servertypesblacklist", "a,b", `["a", "b"]`, func(c *pitaya.Config) any { return c.Etcd.IgnoredTypes }, []string{"a", "b"}},
	{"cluster.sd.etcd.servertypeblacklist", "a,b", `["a", "b"]`, func(c *pitaya.Config) any { return c.Etcd.IgnoredTypes }, []string{"a", "b"}},
	{"cluster.info.region", "eu", "", func(c *pitaya.Config) any { return c.Region }, "eu"},

	{"cluster.rpc.client.nats.connect", "nats://n:1", "", func(c *pitaya.Config) any { return c.NATSClient.URL }, "nats://n:1"},
	{"cluster.rpc.client.nats.requesttimeout", "1s", "", func(c *pitaya.Config) any { return c.NATSClient.RequestTimeout }, time.Second},
	{"cluster.rpc.client.nats.connectiontimeout", "1s", "", func(c *pitaya.Config) any { return c.NATSClient.ConnectTimeout }, time.Second},
	{"cluster.rpc.client.nats.maxreconnectionretries", "15", `15`, func(c *pitaya.Config) any { return c.NATSClient.MaxReconnects }, 15},
	{"cluster.rpc.client.nats.websocketcompression", "false", `false`, func(c *pitaya.Config) any { return c.NATSClient.NoWebSocketCompression }, true},
	{"cluster.rpc.client.nats.reconnectjitter", "1s", "", func(c *pitaya.Config) any { return c.NATSClient.ReconnectJitter }, time.Second},
	{"cluster.rpc.client.nats.reconnectjittertls", "2s", "", func(c *pitaya.Config) any { return c.NATSClient.ReconnectJitterTLS }, 2 * time.Second},
	{"cluster.rpc.client.nats.reconnectwait", "3s", "", func(c *pitaya.Config) any { return c.NATSClient.ReconnectWait }, 3 * time.Second},
	{"cluster.rpc.client.nats.pinginterval", "4s", "", func(c *pitaya.Config) any { return c.NATSClient.PingInterval }, 4 * time.Second},
	{"cluster.rpc.client.nats.maxpingsoutstanding", "5", `5`, func(c *pitaya.Config) any { return c.NATSClient.MaxPings }, 5},
	{"cluster.rpc.client.nats.credentials", "c.creds", "", func(c *pitaya.Config) any { return c.NATSClient.CredentialsFile }, "c.creds"},
	{"cluster.rpc.client.nats.nkey", "c.nk", "", func(c *pitaya.Config) any { return c.NATSClient.NKeyFile }, "c.nk"},
	{"cluster.rpc.client.nats.token", "s3cr3t", "", func(c *pitaya.Config) any { return c.NATSClient.Token }, "s3cr3t"},
	{"cluster.rpc.client.nats.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.NATSClient.TLS.CA }, "ca.pem"},
	{"cluster.rpc.client.nats.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.NATSClient.TLS.Cert }, "c.pem"},
	{"cluster.rpc.client.nats.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.NATSClient.TLS.Key }, "k.pem"},
	{"cluster.rpc.server.nats.connect", "nats://n:2", "", func(c *pitaya.Config) any { return c.NATSServer.URL }, "nats://n:2"},
	{"cluster.rpc.server.nats.connectiontimeout", "1s", "", func(c *pitaya.Config) any { return c.NATSServer.ConnectTimeout }, time.Second},
	{"cluster.rpc.server.nats.maxreconnectionretries", "16", `16`, func(c *pitaya.Config) any { return c.NATSServer.MaxReconnects }, 16},
	{"cluster.rpc.server.nats.websocketcompression", "false", `false`, func(c *pitaya.Config) any { return c.NATSServer.NoWebSocketCompression }, true},
	{"cluster.rpc.server.nats.reconnectjitter", "1s", "", func(c *pitaya.Config) any { return c.NATSServer.ReconnectJitter }, time.Second},
	{"cluster.rpc.server.nats.reconnectjittertls", "2s", "", func(c *pitaya.Config) any { return c.NATSServer.ReconnectJitterTLS }, 2 * time.Second},
	{"cluster.rpc.server.nats.reconnectwait", "3s", "", func(c *pitaya.Config) any { return c.NATSServer.ReconnectWait }, 3 * time.Second},
	{"cluster.rpc.server.nats.pinginterval", "4s", "", func(c *pitaya.Config) any { return c.NATSServer.PingInterval }, 4 * time.Second},
	{"cluster.rpc.server.nats.maxpingsoutstanding", "5", `5`, func(c *pitaya.Config) any { return c.NATSServer.MaxPings }, 5},
	{"cluster.rpc.server.nats.credentials", "c.creds", "", func(c *pitaya.Config) any { return c.NATSServer.CredentialsFile }, "c.creds"},
	{"cluster.rpc.server.nats.nkey", "c.nk", "", func(c *pitaya.Config) any { return c.NATSServer.NKeyFile }, "c.nk"},
	{"cluster.rpc.server.nats.token", "s3cr3t", "", func(c *pitaya.Config) any { return c.NATSServer.Token }, "s3cr3t"},
	{"cluster.rpc.server.nats.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.NATSServer.TLS.CA }, "ca.pem"},
	{"cluster.rpc.server.nats.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.NATSServer.TLS.Cert }, "c.pem"},
	{"cluster.rpc.server.nats.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.NATSServer.TLS.Key }, "k.pem"},
	{"cluster.rpc.server.nats.buffer.messages", "80", `80`, func(c *pitaya.Config) any { return c.NATSServer.BufferMessages }, 80},
	{"cluster.rpc.server.nats.buffer.push", "90", `90`, func(c *pitaya.Config) any { return c.NATSServer.BufferPush }, 90},
	{"cluster.rpc.server.nats.services", "40", `40`, func(c *pitaya.Config) any { return c.NATSServer.Services }, 40},
	{"buffer.cluster.rpc.server.nats.messages", "80", `80`, func(c *pitaya.Config) any { return c.NATSServer.BufferMessages }, 80},
	{"buffer.cluster.rpc.server.nats.push", "90", `90`, func(c *pitaya.Config) any { return c.NATSServer.BufferPush }, 90},
	{"concurrency.remote.service", "40", `40`, func(c *pitaya.Config) any { return c.NATSServer.Services }, 40},
	{"cluster.rpc.client.grpc.requesttimeout", "1s", "", func(c *pitaya.Config) any { return c.GRPC.RequestTimeout }, time.Second},
	{"cluster.rpc.client.grpc.dialtimeout", "2s", "", func(c *pitaya.Config) any { return c.GRPC.DialTimeout }, 2 * time.Second},
	{"cluster.rpc.client.grpc.lazyconnection", "true", `true`, func(c *pitaya.Config) any { return c.GRPC.LazyConnection }, true},
	{"cluster.rpc.client.grpc.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.GRPC.ClientTLS.CA }, "ca.pem"},
	{"cluster.rpc.client.grpc.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.GRPC.ClientTLS.Cert }, "c.pem"},
	{"cluster.rpc.client.grpc.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.GRPC.ClientTLS.Key }, "k.pem"},
	{"cluster.rpc.server.grpc.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.GRPC.ServerTLS.CA }, "ca.pem"},
	{"cluster.rpc.server.grpc.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.GRPC.ServerTLS.Cert }, "c.pem"},
	{"cluster.rpc.server.grpc.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.GRPC.ServerTLS.Key }, "k.pem"},
	{"cluster.rpc.server.grpc.port", "3535", `3535`, func(c *pitaya.Config) any { return c.GRPC.Port }, 3535},
	{"cluster.rpc.server.grpc.maxconnections", "12", `12`, func(c *pitaya.Config) any { return c.GRPC.MaxConnections }, 12},
	{"cluster.rpc.server.loopbackenabled", "false", `false`, func(c *pitaya.Config) any { return c.NoLoopback }, true},

	{"groups.memory.tickduration", "1s", "", func(c *pitaya.Config) any { return c.GroupTick }, time.Second},
	{"groups.etcd.endpoints", "a:1,b:2", `["a:1", "b:2"]`, func(c *pitaya.Config) any { return c.GroupsEtcd.Endpoints }, []string{"a:1", "b:2"}},
	{"groups.etcd.user", "u", "", func(c *pitaya.Config) any { return c.GroupsEtcd.User }, "u"},
	{"groups.etcd.pass", "p", "", func(c *pitaya.Config) any { return c.GroupsEtcd.Password }, "p"},
	{"groups.etcd.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.GroupsEtcd.TLS.CA }, "ca.pem"},
	{"groups.etcd.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.GroupsEtcd.TLS.Cert }, "c.pem"},
	{"groups.etcd.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.GroupsEtcd.TLS.Key }, "k.pem"},
	{"groups.etcd.prefix", "g/", "", func(c *pitaya.Config) any { return c.GroupsEtcd.Prefix }, "g/"},
	{"groups.etcd.dialtimeout", "1s", "", func(c *pitaya.Config) any { return c.GroupsEtcd.DialTimeout }, time.Second},
	{"groups.etcd.transactiontimeout", "2s", "", func(c *pitaya.Config) any { return c.GroupsEtcd.TransactionTimeout }, 2 * time.Second},
	{"modules.bindingstorage.etcd.endpoints", "a:1", `"a:1"`, func(c *pitaya.Config) any { return c.BindingEtcd.Endpoints }, []string{"a:1"}},
	{"modules.bindingstorage.etcd.user", "u", "", func(c *pitaya.Config) any { return c.BindingEtcd.User }, "u"},
	{"modules.bindingstorage.etcd.pass", "p", "", func(c *pitaya.Config) any { return c.BindingEtcd.Password }, "p"},
	{"modules.bindingstorage.etcd.tls.ca", "ca.pem", "", func(c *pitaya.Config) any { return c.BindingEtcd.TLS.CA }, "ca.pem"},
	{"modules.bindingstorage.etcd.tls.cert", "c.pem", "", func(c *pitaya.Config) any { return c.BindingEtcd.TLS.Cert }, "c.pem"},
	{"modules.bindingstorage.etcd.tls.key", "k.pem", "", func(c *pitaya.Config) any { return c.BindingEtcd.TLS.Key }, "k.pem"},
	{"modules.bindingstorage.etcd.prefix", "b/", "", func(c *pitaya.Config) any { return c.BindingEtcd.Prefix }, "b/"},
	{"modules.bindingstorage.etcd.dialtimeout", "1s", "", func(c *pitaya.Config) any { return c.BindingEtcd.DialTimeout }, time.Second},
	{"modules.bindingstorage.etcd.leasettl", "1h", "", func(c *pitaya.Config) any { return c.BindingEtcd.LeaseTTL }, time.Hour},

	{"metrics.period", "1s", "", func(c *pitaya.Config) any { return c.Metrics.Period }, time.Second},
	{"metrics.game", "chess", "", func(c *pitaya.Config) any { return c.Metrics.Game }, "chess"},
	{"metrics.constlabels", "Env=prod", `{"Env": "prod"}`, func(c *pitaya.Config) any { return c.Metrics.ConstLabels }, map[string]string{"Env": "prod"}},
	{"metrics.constLabels", "Env=prod", `{"Env": "prod"}`, func(c *pitaya.Config) any { return c.Metrics.ConstLabels }, map[string]string{"Env": "prod"}},
	{"metrics.constTags", "Env=prod", `{"Env": "prod"}`, func(c *pitaya.Config) any { return c.Metrics.ConstLabels }, map[string]string{"Env": "prod"}},
	{"metrics.tags", "Env=prod", `{"Env": "prod"}`, func(c *pitaya.Config) any { return c.Metrics.ConstLabels }, map[string]string{"Env": "prod"}},
	{"metrics.additionallabels", "Shard=", `{"Shard": ""}`, func(c *pitaya.Config) any { return c.Metrics.AdditionalLabels }, map[string]string{"Shard": ""}},
	{"metrics.additionalLabels", "Shard=", `{"Shard": ""}`, func(c *pitaya.Config) any { return c.Metrics.AdditionalLabels }, map[string]string{"Shard": ""}},
	{"metrics.additionalTags", "Shard=", `{"Shard": ""}`, func(c *pitaya.Config) any { return c.Metrics.AdditionalLabels }, map[string]string{"Shard": ""}},
	{"metrics.custom", customText, customText, func(c *pitaya.Config) any { return c.Metrics.Custom }, customWant},
	{"metrics.prometheus.enabled", "true", `true`, func(c *pitaya.Config) any { return c.Metrics.Prometheus.Enabled }, true},
	{"metrics.prometheus.port", "9091", `9091`, func(c *pitaya.Config) any { return c.Metrics.Prometheus.Port }, 9091},
	{"metrics.statsd.enabled", "true", `true`, func(c *pitaya.Config) any { return c.Metrics.Statsd.Enabled }, true},
	{"metrics.statsd.host", "s:1", "", func(c *pitaya.Config) any { return c.Metrics.Statsd.Host }, "s:1"},
	{"metrics.statsd.prefix", "g.", "", func(c *pitaya.Config) any { return c.Metrics.Statsd.Prefix }, "g."},
	{"metrics.statsd.plain", "true", `true`, func(c *pitaya.Config) any { return c.Metrics.Statsd.Plain }, true},
	{"metrics.statsd.rate", "0.5", `0.5`, func(c *pitaya.Config) any { return c.Metrics.Statsd.Rate }, 0.5},

	{"worker.redis.serverurl", "r:1", "", func(c *pitaya.Config) any { return c.Worker.RedisURL }, "r:1"},
	{"worker.redis.url", "r:1", "", func(c *pitaya.Config) any { return c.Worker.RedisURL }, "r:1"},
	{"worker.redis.pool", "12", "", func(c *pitaya.Config) any { return c.Worker.RedisPool }, 12},
	{"worker.redis.password", "p", "", func(c *pitaya.Config) any { return c.Worker.RedisPassword }, "p"},
	{"worker.namespace", "ns", "", func(c *pitaya.Config) any { return c.Worker.Namespace }, "ns"},
	{"worker.concurrency", "4", `4`, func(c *pitaya.Config) any { return c.Worker.Concurrency }, 4},
	{"worker.retry.enabled", "false", `false`, func(c *pitaya.Config) any { return c.Worker.NoRetry }, true},
	{"worker.retry.max", "5", `5`, func(c *pitaya.Config) any { return c.Worker.RetryMax }, 5},
	{"worker.retry.exponential", "2", `2`, func(c *pitaya.Config) any { return c.Worker.RetryExponential }, 2},
	{"worker.retry.mindelay", "3", `3`, func(c *pitaya.Config) any { return c.Worker.RetryMinDelay }, 3 * time.Second},
	{"worker.retry.minDelay", "3s", `3`, func(c *pitaya.Config) any { return c.Worker.RetryMinDelay }, 3 * time.Second},
	{"worker.retry.maxdelay", "30", `30`, func(c *pitaya.Config) any { return c.Worker.RetryMaxDelay }, 30 * time.Second},
	{"worker.retry.maxDelay", "30", `30`, func(c *pitaya.Config) any { return c.Worker.RetryMaxDelay }, 30 * time.Second},
	{"worker.retry.maxrandom", "10", `10`, func(c *pitaya.Config) any { return c.Worker.RetryMaxRandom }, 10 * time.Second},
	{"worker.retry.maxRandom", "10", `10`, func(c *pitaya.Config) any { return c.Worker.RetryMaxRandom }, 10 * time.Second},
}

const customText = `{
	"counters":   [{"Subsystem": "shop", "Name": "sales", "Help": "items sold", "Labels": ["item"]}],
	"gauges":     [{"Name": "rooms"}],
	"histograms": [{"Name": "turn", "Buckets": [0.1, 1, 10]}],
	"summaries":  [{"Name": "score", "Objectives": {"0.5": 0.05, "0.99": 0.001}}]
}`

var customWant = pitaya.CustomMetrics{
	Counters:   []pitaya.CustomMetric{{Subsystem: "shop", Name: "sales", Help: "items sold", Labels: []string{"item"}}},
	Gauges:     []pitaya.CustomMetric{{Name: "rooms"}},
	Histograms: []pitaya.CustomMetric{{Name: "turn", Buckets: []float64{0.1, 1, 10}}},
	Summaries:  []pitaya.CustomMetric{{Name: "score", Objectives: pitaya.Objectives{0.5: 0.05, 0.99: 0.001}}},
}

func TestConfigKeys(t *testing.T) {
	// nested writes key as objects in one another.
	nested := func(key, value string) string {
		parts := strings.Split(key, ".")
		for _, p := range slices.Backward(parts) {
			value = fmt.Sprintf("{%q: %s}", p, value)
		}
		return value
	}
	seen := make(map[string]bool)
	for _, tt := range configKeys {
		key := "pitaya." + tt.name
		seen[key] = true
		value := tt.json
		if value == "" {
			value = fmt.Sprintf("%q", tt.text)
		}
		env := strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		ways := []struct {
			name   string
			origin pitaya.Origin
			source string
			set    func(fs *flag.FlagSet) error
		}{
			{"file nested", pitaya.OriginFile, "settings:1", func(fs *flag.FlagSet) error {
				return pitaya.ReadConfig(fs, strings.NewReader(nested(key, value)))
			}},
			{"file dotted", pitaya.OriginFile, "settings:2", func(fs *flag.FlagSet) error {
				return pitaya.ReadConfig(fs, strings.NewReader(fmt.Sprintf("{\n%q: %s}", key, value)))
			}},
			{"file upper case", pitaya.OriginFile, "settings:1", func(fs *flag.FlagSet) error {
				return pitaya.ReadConfig(fs, strings.NewReader(nested(strings.ToUpper(key), value)))
			}},
			{"file text", pitaya.OriginFile, "settings:1", func(fs *flag.FlagSet) error {
				return pitaya.ReadConfig(fs, strings.NewReader(fmt.Sprintf("{%q: %q}", key, tt.text)))
			}},
			{"env", pitaya.OriginEnv, env, func(fs *flag.FlagSet) error {
				return pitaya.ReadEnv(fs, []string{"PATH=/bin", env + "=" + tt.text})
			}},
			{"flag", pitaya.OriginFlag, "-" + key, func(fs *flag.FlagSet) error {
				return fs.Parse([]string{"-" + key + "=" + tt.text})
			}},
		}
		for _, way := range ways {
			t.Run(tt.name+"/"+way.name, func(t *testing.T) {
				cfg, fs := bindConfig(t)
				if err := way.set(fs); err != nil {
					t.Fatal(err)
				}
				if got := tt.get(cfg); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("the field is %v, want %v", got, tt.want)
				}
				var set []pitaya.Setting
				for _, s := range cfg.Settings() {
					if s.Origin != pitaya.OriginDefault {
						set = append(set, s)
					}
				}
				if len(set) != 1 || set[0].Origin != way.origin || set[0].Source != way.source {
					t.Fatalf("settings that are no defaults: %v, want one from %v %s", set, way.origin, way.source)
				}
				// What is printed can be given back.
				if set[0].Value != "***" {
					again, fs := bindConfig(t)
					if err := fs.Set(key, set[0].Value); err != nil {
						t.Fatal(err)
					}
					if got := tt.get(again); !reflect.DeepEqual(got, tt.want) {
						t.Errorf("read from %q the field is %v, want %v", set[0].Value, got, tt.want)
					}
				}
			})
		}
	}
	for _, s := range new(pitaya.Config).Settings() {
		if !seen[s.Key] && s.Key != "pitaya.config" {
			t.Errorf("%s is not in this table", s.Key)
		}
		for _, a := range s.Aliases {
			if !seen[a] && !seen[strings.Replace(a, "tags", "Tags", 1)] {
				t.Errorf("%s is not in this table", a)
			}
		}
	}
}

// No name may be both a setting and a group of them, or that of two settings, also as a variable.
func TestConfigNames(t *testing.T) {
	names, env := make(map[string]string), make(map[string]string)
	for _, s := range new(pitaya.Config).Settings() {
		if s.Key != strings.ToLower(s.Key) || s.Help == "" || s.Type == "" {
			t.Errorf("%+v", s)
		}
		for _, name := range append([]string{s.Key}, s.Aliases...) {
			name = strings.ToLower(name)
			if k, ok := names[name]; ok && k != s.Key {
				t.Errorf("%s is a name of %s and %s", name, k, s.Key)
			}
			v := strings.ReplaceAll(name, ".", "_")
			if k, ok := env[v]; ok && k != s.Key {
				t.Errorf("%s is a variable of %s and %s", v, k, s.Key)
			}
			names[name], env[v] = s.Key, s.Key
		}
	}
	for name := range names {
		for i := range name {
			if k, ok := names[name[:i]]; ok && name[i] == '.' {
				t.Errorf("%s is below the setting %s", name, k)
			}
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	var zero pitaya.Config
	if err := zero.Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
	cfg := zero.WithDefaults()
	if cfg.Type != "game" || cfg.ID == "" || cfg.Heartbeat != 30*time.Second || cfg.QueueBytes != 1<<20 || cfg.QueueMessages != 0 ||
		cfg.MaxPacketSize != 1<<20 || cfg.SerializerType != pitaya.SerializerJSON || cfg.Logger == nil ||
		!slices.Equal(cfg.Etcd.Endpoints, []string{"localhost:2379"}) || cfg.Metrics.Statsd.Rate != 1 {
		t.Errorf("defaults are %+v", cfg)
	}
	if other := zero.WithDefaults(); other.ID == cfg.ID {
		t.Errorf("two servers have the id %s", cfg.ID)
	}
	for _, s := range cfg.Settings() {
		if s.Origin != pitaya.OriginDefault || s.Value != s.Default && s.Key != "pitaya.server.id" {
			t.Errorf("%v, want the default %s", s, s.Default)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}

	// Off stays off, and prefixes can be left away.
	off := pitaya.Config{
		Heartbeat: -1, SlowHandler: -1, WriteTimeout: -1,
		Etcd: pitaya.EtcdConfig{ShutdownDelay: -1, NoPrefix: true}, NATSClient: pitaya.NATSConfig{MaxReconnects: -1},
	}
	if err := off.Validate(); err != nil {
		t.Error(err)
	}
	off = off.WithDefaults()
	if off.Heartbeat != -1 || off.SlowHandler != -1 || off.WriteTimeout != 10*time.Second || off.Etcd.ShutdownDelay != -1 ||
		off.Etcd.Prefix != "" || off.NATSClient.MaxReconnects != 0 {
		t.Errorf("with defaults: %+v", off)
	}
	if s := configSetting(t, &off, "pitaya.heartbeat.interval"); s.Value != "0s" || s.Origin != pitaya.OriginCode {
		t.Errorf("%v", s)
	}

	// The copy is the server's own.
	shared := pitaya.Config{Metadata: map[string]string{"a": "1"}, Etcd: pitaya.EtcdConfig{Endpoints: []string{"a:1"}}}
	own := shared.WithDefaults()
	shared.Metadata["a"], shared.Etcd.Endpoints[0] = "2", "b:2"
	if own.Metadata["a"] != "1" || own.Etcd.Endpoints[0] != "a:1" {
		t.Errorf("a change from outside reached the copy: %v %v", own.Metadata, own.Etcd.Endpoints)
	}
}

// Flags go before the environment and that before files, in whichever order they are read.
func TestConfigPrecedence(t *testing.T) {
	const key = "pitaya.heartbeat.interval"
	type step struct {
		origin pitaya.Origin
		value  time.Duration
		set    func(fs *flag.FlagSet) error
	}
	steps := []step{
		{pitaya.OriginFile, 2 * time.Second, func(fs *flag.FlagSet) error {
			return pitaya.ReadConfig(fs, strings.NewReader(`{"pitaya.heartbeat.interval": "2s"}`))
		}},
		{pitaya.OriginEnv, 3 * time.Second, func(fs *flag.FlagSet) error {
			return pitaya.ReadEnv(fs, []string{"PITAYA_HEARTBEAT_INTERVAL=3s"})
		}},
		{pitaya.OriginFlag, 4 * time.Second, func(fs *flag.FlagSet) error {
			return fs.Parse([]string{"-pitaya.heartbeat.interval", "4s"})
		}},
	}
	for _, order := range [][]int{{}, {0}, {1}, {2}, {0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}, {0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			cfg := &pitaya.Config{Heartbeat: time.Second}
			fs := flag.NewFlagSet("game", flag.ContinueOnError)
			cfg.Bind(fs)
			origin, value := pitaya.OriginCode, time.Second
			for _, i := range order {
				if err := steps[i].set(fs); err != nil {
					t.Fatal(err)
				}
				if steps[i].origin > origin {
					origin, value = steps[i].origin, steps[i].value
				}
			}
			if s := configSetting(t, cfg, key); cfg.Heartbeat != value || s.Origin != origin {
				t.Errorf("%v, want %v from %v", s, value, origin)
			}
			// What is set in code afterwards counts, and says so.
			cfg.Heartbeat = 9 * time.Second
			if s := configSetting(t, cfg, key); s.Value != "9s" || s.Origin != pitaya.OriginCode {
				t.Errorf("%v after setting the field", s)
			}
		})
	}

	t.Run("later file", func(t *testing.T) {
		cfg, fs := bindConfig(t)
		for _, doc := range []string{`{"pitaya.conn.max": 1, "pitaya.session.unique": false}`, `{"pitaya.conn.max": 2}`} {
			if err := pitaya.ReadConfig(fs, strings.NewReader(doc)); err != nil {
				t.Fatal(err)
			}
		}
		if cfg.MaxConns != 2 || !cfg.NoUniqueSession {
			t.Errorf("got %d, %v", cfg.MaxConns, cfg.NoUniqueSession)
		}
	})
	t.Run("switched on again", func(t *testing.T) {
		cfg := &pitaya.Config{NoCompression: true, Frontend: true}
		fs := flag.NewFlagSet("game", flag.ContinueOnError)
		cfg.Bind(fs)
		err := errors.Join(fs.Parse([]string{"-pitaya.handler.messages.compression"}), pitaya.ReadEnv(fs, []string{"PITAYA_SERVER_FRONTEND=false"}))
		if err != nil || cfg.NoCompression || cfg.Frontend {
			t.Errorf("%v: %v, %v", err, cfg.NoCompression, cfg.Frontend)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	cfg := pitaya.Config{
		Type: "a b", ID: "a..b", Heartbeat: 1500 * time.Millisecond, HandlerTimeout: -1, QueueBytes: -1, MaxPacketSize: 1 << 24,
		SlowClient: 2, SerializerType: 3, PushCodes: -1, TrustedProxies: []netip.Prefix{{}},
		Listeners: nil, Reporters: []pitaya.Reporter{nil},
		RateLimit:   pitaya.RateLimitConfig{Limit: 1_000_001, Server: pitaya.Rate{Limit: -1}, Abuse: pitaya.Rate{Interval: 3 * time.Hour}},
		Etcd:        pitaya.EtcdConfig{Endpoints: []string{" "}, Prefix: "a", NoPrefix: true, Password: "hunter2", TLS: pitaya.TLSFiles{Cert: "c"}},
		GroupsEtcd:  pitaya.GroupsEtcdConfig{TLS: pitaya.TLSFiles{Key: "k"}},
		BindingEtcd: pitaya.BindingEtcdConfig{Password: "hunter2", TLS: pitaya.TLSFiles{Cert: "d"}},
		GRPC:        pitaya.GRPCConfig{Port: 1 << 16, ClientTLS: pitaya.TLSFiles{Cert: "e"}, ServerTLS: pitaya.TLSFiles{Key: "f"}},
		Metrics: pitaya.MetricsConfig{
			ConstLabels: map[string]string{"a.b": ""}, AdditionalLabels: map[string]string{"": ""},
			Prometheus: pitaya.PrometheusConfig{Enabled: true},
			Custom: pitaya.CustomMetrics{
				Gauges: []pitaya.CustomMetric{{Name: "g", Buckets: []float64{1}}},
			},
			Statsd: pitaya.StatsdConfig{Rate: -0.5},
		},
	}
	checkErrorLines(t, cfg.Validate(), []string{
		`code: pitaya.server.type = "a b": must be without white space`,
		`code: pitaya.server.id = "a..b": must be without white space`,
		`pitaya.heartbeat.interval = "1.5s": must be whole seconds`,
		`pitaya.buffer.agent.slowclient = "2": must be one of: close, drop`,
		`pitaya.buffer.agent.bytes = "-1": must be above 0`,
		`pitaya.conn.maxpacketsize = "16MiB": must be at most 16777215`,
		`pitaya.acceptor.trustedproxies = "invalid Prefix": has an invalid network`,
		`pitaya.conn.ratelimiting.limit = "1000001": must be at most 1000000`,
		`pitaya.conn.ratelimiting.server.limit = "-1": must not be below 0`,
		`pitaya.conn.ratelimiting.abuse.interval = "3h": must be at most 2h0m0s`,
		`pitaya.serializertype = "3": must be one of: 1 or json, 2 or protobuf`,
		`pitaya.handler.messages.pushcodes = "-1": must be one of: auto, always, never`,
		`pitaya.handler.timeout = "-1ns": must not be below 0`,
		`pitaya.cluster.sd.etcd.endpoints = "[\" \"]": has an empty element`,
		`pitaya.cluster.sd.etcd.prefix = "a": is set, and switched off by NoPrefix`,
		`pitaya.cluster.rpc.server.grpc.port = "65536": must be at most 65535`,
		`pitaya.metrics.additionallabels = "=": has an empty name`,
		`pitaya.metrics.custom = "{\"gauges\":[{\"name\":\"g\",\"buckets\":[1]}]}": gauges: "g": only histograms have buckets`,
		`pitaya.metrics.statsd.rate = "-0.5": must be above 0 and at most 1`,
		`pitaya.cluster.sd.etcd.tls.cert = "c": certificate and key must be set together`,
		`pitaya.groups.etcd.tls.cert = "": certificate and key must be set together`,
		`pitaya.modules.bindingstorage.etcd.tls.cert = "d": certificate and key must be set together`,
		`pitaya.cluster.rpc.client.grpc.tls.cert = "e": certificate and key must be set together`,
		`pitaya.cluster.rpc.server.grpc.tls.cert = "": certificate and key must be set together`,
		`pitaya.metrics.constlabels = "a.b=": "a.b" is no label for Prometheus`,
		`pitaya.metrics.additionallabels = "=": "" is no label for Prometheus`,
		`Config.Reporters[0] is nil`,
	})

	for name, m := range map[string]pitaya.CustomMetric{
		"name":       {Name: "a-b"},
		"no name":    {Subsystem: "a"},
		"subsystem":  {Subsystem: "a.b", Name: "a"},
		"label":      {Name: "a", Labels: []string{"1"}},
		"quantile":   {Name: "a", Objectives: pitaya.Objectives{1.5: 0.1}},
		"quantile 2": {Name: "a", Objectives: pitaya.Objectives{0.5: -0.1}},
	} {
		cfg := pitaya.Config{Metrics: pitaya.MetricsConfig{Custom: pitaya.CustomMetrics{Summaries: []pitaya.CustomMetric{m}}}}
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	twice := pitaya.CustomMetrics{Gauges: []pitaya.CustomMetric{{Name: "a"}}, Counters: []pitaya.CustomMetric{{Name: "a"}}}
	falling := pitaya.CustomMetrics{Histograms: []pitaya.CustomMetric{{Name: "a", Buckets: []float64{2, 1}}}}
	for _, m := range []pitaya.CustomMetrics{twice, falling} {
		cfg := pitaya.Config{Metrics: pitaya.MetricsConfig{Custom: m}}
		if err := cfg.Validate(); err == nil {
			t.Errorf("%+v: accepted", m)
		}
	}
}

// Nothing that prints a Config prints a password.
func TestConfigSecrets(t *testing.T) {
	const secret = "hunter2"
	cfg := pitaya.Config{
		Etcd:       pitaya.EtcdConfig{Password: secret, Endpoints: []string{"http://u:" + secret + "@e:1"}},
		NATSClient: pitaya.NATSConfig{URL: "nats://" + secret + "@n:1", Token: secret},
		NATSServer: pitaya.NATSConfig{URL: "u:" + secret + "@n:1,n:2", Token: secret},
		Worker:     pitaya.WorkerConfig{RedisURL: "redis://:" + secret + "@r:1", RedisPassword: secret},
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("start", "config", cfg)
	slog.New(slog.NewTextHandler(&out, nil)).Info("start", "config", &cfg)
	fmt.Fprintln(&out, cfg, &cfg)
	fmt.Fprintf(&out, "%v %+v %s", cfg, cfg, &cfg)
	fs := flag.NewFlagSet("game", flag.ContinueOnError)
	fs.SetOutput(&out)
	cfg.Bind(fs)
	fs.Usage()
	if strings.Contains(out.String(), secret) {
		t.Errorf("a password in\n%s", out.String())
	}
	if !strings.Contains(out.String(), "pitaya.cluster.rpc.server.nats.connect = ***@n:1,n:2 (code)") {
		t.Errorf("got\n%s", out.String())
	}
}
