// RPC between servers over gRPC, section 6 of the cluster protocol: the service protos.Pitaya, all unary. The serving side
// speaks HTTP/2 itself, the calling side by net/http.

package pitaya

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"time"
)

// Names of the methods.
const (
	grpcMethodCall = "/protos.Pitaya/Call"
	grpcMethodPush = "/protos.Pitaya/PushToUser"
	grpcMethodKick = "/protos.Pitaya/KickUser"
	grpcMethodBind = "/protos.Pitaya/SessionBindRemote"

	// grpcMethodHealth is the standard health check. Every gRPC server answers it, if only that it does not know it,
	// which is enough to tell that it lives.
	grpcMethodHealth = "/grpc.health.v1.Health/Check"
)

// Keys of the metadata of a server that say where it listens.
const (
	grpcHostKey         = "grpcHost"
	grpcPortKey         = "grpcPort"
	grpcExternalHostKey = "grpc-external-host"
	grpcExternalPortKey = "grpc-external-port"
	grpcRegionKey       = "region"
)

// Defaults of GRPCConfig.
const (
	grpcDefaultPort    = 3434
	grpcDefaultTimeout = 5 * time.Second
)

// GRPCMetadata returns a copy of metadata, which may be nil, with the five keys that tell other servers where this one
// listens for gRPC: the address for servers of the same region, and the one for all others, which may be empty. The
// result belongs into [Config.Metadata]; without it no server can call this one.
func GRPCMetadata(metadata map[string]string, region, host, port, externalHost, externalPort string) map[string]string {
	m := make(map[string]string, len(metadata)+5)
	maps.Copy(m, metadata)
	m[grpcHostKey], m[grpcPortKey] = host, port
	m[grpcExternalHostKey], m[grpcExternalPortKey] = externalHost, externalPort
	m[grpcRegionKey] = region
	return m
}

// grpcAddress returns where a server in the region own reaches the server with that metadata, host:port, and "" if it
// does not say. Where the outer address is the one to take, the inner one does not stand in for a missing part of it:
// it may be the address of somebody else there.
func grpcAddress(own string, metadata map[string]string) string {
	region, external := metadata[grpcRegionKey], metadata[grpcExternalHostKey]
	host, port := metadata[grpcHostKey], metadata[grpcPortKey]
	if external != "" && (region == "" || region != own) {
		host, port = external, metadata[grpcExternalPortKey]
	}
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// A GRPCTransport is a [Transport] over gRPC, as Pitaya speaks it: servers call each other directly, at the address
// that each one tells in its metadata (see [GRPCMetadata]). It needs no gRPC library.
//
// A message has at most 4 MiB. Connections are encrypted if [GRPCConfig] says how. Nothing in the protocol announces
// that, and Pitaya cannot: all servers of a cluster do it, or none, and then their connections belong into a private
// network. Files are read once, by [NewGRPCTransport]; a configuration in code can renew certificates.
// Each call under way costs its caller a few goroutines, where NATS needs none: HTTP/2 in net/http works that way. The server
// that is called needs none.
//
// Nothing is published, so Notify needs to be told the server of the user: that is what a binding storage is for. A
// server refuses pushes and kicks for users that are not bound to it.
type GRPCTransport struct {
	server *grpcServer
	client *grpcClient
}

// NewGRPCTransport returns a transport for a server in the region given, which may be empty. Nothing is opened before
// [GRPCTransport.Listen]. A negative cfg.Port means a free port. A nil log means [slog.Default].
func NewGRPCTransport(cfg GRPCConfig, region string, log *slog.Logger) (*GRPCTransport, error) {
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, grpcDefaultTimeout)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, grpcDefaultTimeout)
	cfg.Port = cmp.Or(cfg.Port, grpcDefaultPort)
	cfg.MaxConnections = max(cmp.Or(cfg.MaxConnections, grpcMaxServed), 0)
	switch {
	case cfg.RequestTimeout < 0:
		return nil, fmt.Errorf("pitaya: gRPC: request timeout of %v", cfg.RequestTimeout)
	case cfg.DialTimeout < 0:
		return nil, fmt.Errorf("pitaya: gRPC: dial timeout of %v", cfg.DialTimeout)
	case cfg.Port > 1<<16-1:
		return nil, fmt.Errorf("pitaya: gRPC: port %d", cfg.Port)
	}
	calling, err := cfg.ClientTLS.load(cfg.ClientTLSConfig.Clone())
	if err != nil {
		return nil, fmt.Errorf("pitaya: gRPC, calling side: %w", err)
	}
	serving, err := grpcServerTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("pitaya: gRPC, serving side: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	// net/http changes the configurations it is given, so these are not the application's.
	return &GRPCTransport{
		server: newGRPCServer(max(cfg.Port, 0), cfg.MaxConnections, serving, log),
		client: newGRPCClient(cfg, calling, region, log),
	}, nil
}

// grpcServerTLS returns what the port is to be encrypted with, nil if nothing.
func grpcServerTLS(cfg GRPCConfig) (*tls.Config, error) {
	config, err := cfg.ServerTLS.load(cfg.ServerTLSConfig.Clone())
	if err != nil || config == nil {
		return nil, err
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		return nil, errors.New("TLS without a certificate")
	}
	if cfg.ServerTLSConfig == nil && config.RootCAs != nil {
		config.ClientCAs, config.RootCAs = config.RootCAs, nil
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// Listen opens the port on all addresses and serves it.
func (t *GRPCTransport) Listen(ctx context.Context, self *ServerInfo, h TransportHandler) error {
	t.client.setSelf(self.ID)
	return t.server.listen(ctx, self, h)
}

// Addr returns the address the transport listens on, nil before [GRPCTransport.Listen].
func (t *GRPCTransport) Addr() net.Addr { return t.server.addr() }

// Call sends a request. done is always called in a goroutine of its own, which lives as long as the call.
//
// An error wraps [ErrUnreachable] if there is no connection, or the other server refuses requests because it is shutting
// down: the request was not handled. It wraps [ErrNoAnswer] if nobody can know: the deadline passed, or the connection
// was lost. The deadline is that of ctx or else GRPCConfig.RequestTimeout from now, and the other server is told. When ctx is cancelled so is the call, there as well, as far as it has not begun.
//
// A call with a nil done takes the goroutine as well, until the other server answers or the deadline passes. While 4096
// of them are under way to one server, further ones are lost. What is lost is logged, as a sample.
func (t *GRPCTransport) Call(ctx context.Context, to *ServerInfo, body []byte, done func(response []byte, err error)) {
	if done == nil {
		t.client.send(ctx, to, body)
		return
	}
	frame, err := appendGRPCFrame(make([]byte, 0, grpcFrameHeader+len(body)), body)
	call := func() {
		stretch()
		if err != nil {
			done(nil, grpcCallError(to.ID, err))
			return
		}
		done(t.client.invoke(ctx, to, grpcMethodCall, frame))
	}
	if !t.client.start(call) {
		go done(nil, grpcCallError(to.ID, errGRPCClosed))
	}
}

// Ordered returns false. Each request is a stream of its own, which the other server may take up in any order: grpc-go starts a
// goroutine for each.
func (t *GRPCTransport) Ordered() bool { return false }

// callSpan implements callNamer.
func (t *GRPCTransport) callSpan() string { return spanGRPCCall }

// requestTimeout implements callTimer.
func (t *GRPCTransport) requestTimeout() time.Duration { return t.client.cfg.RequestTimeout }

// ready implements readyTeller.
func (t *GRPCTransport) ready(id string) bool { return t.client.ready(id) }

// describe implements selfDescriber: the port may have been chosen by the system.
func (t *GRPCTransport) describe(metadata map[string]string) {
	if metadata[grpcHostKey] == "" || metadata[grpcPortKey] != "" {
		return
	}
	if addr, ok := t.Addr().(*net.TCPAddr); ok {
		metadata[grpcPortKey] = strconv.Itoa(addr.Port)
	}
}

// Bind accepts pushes and kicks for the user from now on.
func (t *GRPCTransport) Bind(_ context.Context, uid string) error { return t.server.bind(uid) }

// Unbind refuses them again.
func (t *GRPCTransport) Unbind(_ context.Context, uid string) error {
	t.server.unbind(uid)
	return nil
}

// ServerSeen connects to the server, unless GRPCConfig.LazyConnection is set, and keeps the connection. A server that
// is known already may have another address now. One without address is logged once and cannot be called.
func (t *GRPCTransport) ServerSeen(s *ServerInfo) { t.client.seen(s) }

// ServerGone ends the connection to the server as soon as the calls under way are done.
func (t *GRPCTransport) ServerGone(s *ServerInfo) { t.client.gone(s.ID) }

// Healthy returns an error while the port is not open. Whether other servers can be reached is a matter of each call.
func (t *GRPCTransport) Healthy() error { return t.server.healthy() }

// Drain closes the port, tells the servers that are connected to call elsewhere, and returns when the handler has all
// that was accepted. Connections stay until the answers are sent.
func (t *GRPCTransport) Drain(ctx context.Context) error { return t.server.drain(ctx) }

// Close closes all connections. Answers that the handler has given are still sent, for a second at most. Other calls end
// without an answer, on either side.
func (t *GRPCTransport) Close(ctx context.Context) error {
	err := t.server.close(ctx)
	return errors.Join(err, t.client.close(ctx))
}
