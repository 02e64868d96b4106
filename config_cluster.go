package pitaya

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// EtcdConfig configures service discovery in etcd (cluster.sd.etcd).
type EtcdConfig struct {
	// Endpoints are the addresses of etcd (endpoints). Empty means localhost:2379.
	Endpoints []string
	// User and Password log in to etcd, if both are set (user, pass).
	User, Password string
	// TLS names the files for encrypted connections (tls.ca, tls.cert, tls.key). TLSConfig goes before it.
	TLS TLSFiles
	// TLSConfig encrypts the connections. Nil means what TLS says.
	TLSConfig *tls.Config
	// DialTimeout bounds connecting, and the first request for a lease (dialtimeout). Zero means 5 s.
	DialTimeout time.Duration
	// Prefix stands before each key, slash included (prefix). Empty means "pitaya/".
	Prefix string
	// NoPrefix leaves the prefix away. An empty prefix in a file or a flag means this.
	NoPrefix bool
	// HeartbeatTTL is how long a server that died stays listed: the time of its lease, in whole seconds
	// (heartbeat.ttl). Zero means 60 s.
	HeartbeatTTL time.Duration
	// LogHeartbeat logs each renewal of the lease (heartbeat.log).
	LogHeartbeat bool
	// SyncInterval is how often the full list of servers is read, in case an event was missed
	// (syncservers.interval). Zero means 120 s.
	SyncInterval time.Duration
	// SyncParallelism has no effect (syncservers.parallelism): the full list is one read.
	SyncParallelism int
	// RevokeTimeout bounds giving the lease back at the end (revoke.timeout). Zero means 5 s.
	RevokeTimeout time.Duration
	// GrantLeaseTimeout bounds one attempt to register again after the lease was lost (grantlease.timeout). Zero
	// means 60 s.
	GrantLeaseTimeout time.Duration
	// GrantLeaseRetries is how often that is tried before the server gives up and ends (grantlease.maxretries).
	// Zero means for ever: an outage of etcd must not end the servers.
	GrantLeaseRetries int
	// GrantLeaseInterval is the pause between two attempts (grantlease.retryinterval). Zero means 5 s.
	GrantLeaseInterval time.Duration
	// ShutdownDelay is the pause between leaving discovery and closing the transports, in which other servers learn
	// of it (shutdown.delay). Zero means 300 ms; negative means none.
	ShutdownDelay time.Duration
	// IgnoredTypes are server types that this server does not want to know about (servertypesblacklist).
	IgnoredTypes []string
}

// GroupsEtcdConfig configures the group store in etcd (groups.etcd).
type GroupsEtcdConfig struct {
	Endpoints          []string      // endpoints; empty means localhost:2379
	User, Password     string        // user, pass; log in to etcd, if both are set
	TLS                TLSFiles      // tls.ca, tls.cert, tls.key; files for encrypted connections; TLSConfig goes before it
	TLSConfig          *tls.Config   // encrypts the connections; nil means what TLS says
	Prefix             string        // prefix; empty means "pitaya/"
	NoPrefix           bool          // leaves the prefix away; an empty prefix in a file or a flag means this
	DialTimeout        time.Duration // dialtimeout; zero means 5 s
	TransactionTimeout time.Duration // transactiontimeout, for each operation; zero means 5 s
}

// BindingEtcdConfig configures the storage of user bindings in etcd (modules.bindingstorage.etcd).
type BindingEtcdConfig struct {
	Endpoints      []string      // endpoints; empty means localhost:2379
	User, Password string        // user, pass; log in to etcd, if both are set
	TLS            TLSFiles      // tls.ca, tls.cert, tls.key; files for encrypted connections; TLSConfig goes before it
	TLSConfig      *tls.Config   // encrypts the connections; nil means what TLS says
	Prefix         string        // prefix; empty means "pitaya/"; should be that of discovery
	NoPrefix       bool          // leaves the prefix away; an empty prefix in a file or a flag means this
	DialTimeout    time.Duration // dialtimeout; zero means 5 s
	LeaseTTL       time.Duration // leasettl, how long a binding outlives its frontend, in whole seconds; zero means 5 h
}

// NATSConfig configures one side of RPC over NATS (cluster.rpc.client.nats or cluster.rpc.server.nats).
type NATSConfig struct {
	// URL is the address of NATS, or several with commas between them (connect). Empty means
	// nats://localhost:4222.
	URL string
	// CredentialsFile is a NATS credentials file (credentials).
	CredentialsFile string
	// NKeyFile is a file with an nkey seed (nkey).
	NKeyFile string
	// Token is an authentication token (token).
	Token string
	// TLS names the files for encrypted connections (tls.ca, tls.cert, tls.key). TLSConfig goes before it.
	TLS TLSFiles
	// TLSConfig encrypts the connection. Nil means what TLS says.
	TLSConfig *tls.Config
	// ConnectTimeout bounds one attempt to connect (connectiontimeout). Zero means 2 s.
	ConnectTimeout time.Duration
	// MaxReconnects is how often a lost connection is tried again (maxreconnectionretries). Zero or less means
	// for ever: an outage of NATS must not end the servers.
	MaxReconnects int
	// ReconnectWait is the pause between two attempts (reconnectwait). Zero means 1 s.
	ReconnectWait time.Duration
	// ReconnectJitter is the longest random addition to it (reconnectjitter). Zero means 100 ms, negative none.
	ReconnectJitter time.Duration
	// ReconnectJitterTLS is the same for encrypted connections (reconnectjittertls). Zero means 1 s, negative none.
	ReconnectJitterTLS time.Duration
	// PingInterval is how often the connection is tried while it is quiet (pinginterval). Zero means 2 min.
	PingInterval time.Duration
	// MaxPings is how many pings may be unanswered before the connection counts as lost (maxpingsoutstanding).
	// Zero means 3.
	MaxPings int
	// NoWebSocketCompression switches off compression where NATS is reached over WebSocket (websocketcompression,
	// which is the opposite).
	NoWebSocketCompression bool

	// RequestTimeout bounds a call whose context has no deadline (requesttimeout). Calling side only. Zero
	// means 5 s.
	RequestTimeout time.Duration

	// BufferMessages is how many incoming calls may wait to be handed on (buffer.messages); see
	// [NATSTransport.Dropped]. Serving side only. Zero means 8192: Pitaya's 75 lose calls in a short burst.
	BufferMessages int
	// BufferPush is the same for pushes and kicks (buffer.push). Serving side only. Zero means 8192.
	BufferPush int
	// Services has no effect (services): incoming calls are handed on in the order of their arrival, without waiting
	// for those before, and whoever handles them decides how many are served at once.
	Services int
}

// TLSFiles names PEM files for encrypted connections to etcd, NATS or other servers. All empty means no encryption, unless the
// address asks for it.
type TLSFiles struct {
	CA   string // certificates of the authorities to trust; empty means those of the system
	Cert string // own certificate; empty means none
	Key  string // key of Cert
}

// load returns the configuration that is given, or else that of the files; nil if there are none. Without a MinVersion it
// is TLS 1.2 or later, whatever GODEBUG says.
func (f TLSFiles) load(given *tls.Config) (*tls.Config, error) {
	if given != nil && given.MinVersion == 0 {
		given = given.Clone()
		given.MinVersion = tls.VersionTLS12
	}
	if given != nil || f == (TLSFiles{}) {
		return given, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("TLS authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TLS authorities: no certificate in %s", f.CA)
		}
	}
	if f.Cert != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// GRPCConfig configures RPC over gRPC.
type GRPCConfig struct {
	// RequestTimeout bounds a call whose context has no deadline (cluster.rpc.client.grpc.requesttimeout).
	// Zero means 5 s.
	RequestTimeout time.Duration
	// DialTimeout bounds connecting to another server (cluster.rpc.client.grpc.dialtimeout). Zero means 5 s.
	DialTimeout time.Duration
	// LazyConnection connects at the first call, not when a server is discovered
	// (cluster.rpc.client.grpc.lazyconnection).
	LazyConnection bool
	// Port is where other servers call this one (cluster.rpc.server.grpc.port). Zero means 3434; negative means a free
	// port, as 0 does in files, flags and the environment.
	Port int
	// MaxConnections bounds the connections of other servers to the port; further ones are closed at once
	// (cluster.rpc.server.grpc.maxconnections). A server has one to each other as a rule, and up to 16 while calls
	// wait for their answers by the thousand. Zero means 4096, negative no bound.
	MaxConnections int
	// ClientTLS names the files for encrypted calls to other servers: the authorities that their certificates are
	// from, and an own certificate to show to them (cluster.rpc.client.grpc.tls.ca, tls.cert, tls.key). The name in a
	// certificate is the host that the server tells in its metadata. ClientTLSConfig goes before it.
	ClientTLS TLSFiles
	// ClientTLSConfig encrypts calls to other servers. Nil means what ClientTLS says.
	ClientTLSConfig *tls.Config
	// ServerTLS names the files for an encrypted port: the certificate of this server and, where only callers with a
	// certificate are let in, the authorities that those are from (cluster.rpc.server.grpc.tls.cert, tls.key, tls.ca).
	// ServerTLSConfig goes before it.
	ServerTLS TLSFiles
	// ServerTLSConfig encrypts the port. Nil means what ServerTLS says.
	ServerTLSConfig *tls.Config
}
