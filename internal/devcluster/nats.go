package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const defaultNATS = "127.0.0.1:4222"

// lameDuck is the command that lets NATS ask its clients to go elsewhere, close their connections within
// lameDuckDuration, and end.
const (
	lameDuck         = "lameduck"
	lameDuckDuration = 2 * time.Second
	lameDuckGrace    = time.Second // before the first connection is closed
)

type natsServer struct {
	server *server.Server
	ended  chan struct{} // closed when server has ended
}

func startNATS(ctx context.Context, set settings) (component, error) {
	opts := &server.Options{}
	if set.natsConfig != "" {
		if err := opts.ProcessConfigFile(set.natsConfig); err != nil {
			return nil, err
		}
	}
	host, port, err := net.SplitHostPort(set.natsAddr)
	if err != nil {
		return nil, err
	}
	opts.Host = host
	if opts.Port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if set.jetStream {
		opts.JetStream, opts.StoreDir = true, set.folder("nats")
	}
	if set.user != "" {
		opts.Username, opts.Password = set.user, set.password
	}
	if set.tlsCert != "" {
		opts.TLS, opts.TLSVerify = true, set.tlsCA != ""
		opts.TLSConfig, err = server.GenTLSConfig(&server.TLSConfigOpts{
			CertFile: set.tlsCert, KeyFile: set.tlsKey, CaFile: set.tlsCA, Verify: set.tlsCA != "",
			MinVersion: tls.VersionTLS12,
		})
		if err != nil {
			return nil, err
		}
	}
	if opts.LameDuckDuration == 0 {
		opts.LameDuckDuration = lameDuckDuration
	}
	if opts.LameDuckGracePeriod == 0 {
		opts.LameDuckGracePeriod = lameDuckGrace
	}
	opts.NoSigs, opts.NoLog = true, !set.verbose
	if err := listens(net.JoinHostPort(host, port)); err != nil {
		return nil, err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	s.ConfigureLogger() // silent with NoLog
	n := &natsServer{server: s, ended: make(chan struct{})}
	go func() {
		defer close(n.ended)
		s.Start()
		s.WaitForShutdown()
	}()
	deadline, _ := ctx.Deadline()
	if !s.ReadyForConnections(time.Until(deadline)) {
		n.stop()
		return nil, errors.New("not ready in time")
	}
	return n, nil
}

// listens reports why nobody can listen on an address. nats-server itself only logs that, and does not become ready.
func listens(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

func (s *natsServer) url() string { return s.server.ClientURL() }

func (s *natsServer) command(line string) bool {
	if line != lameDuck {
		return false
	}
	go s.server.LameDuckShutdown()
	return true
}

func (s *natsServer) done() <-chan struct{} { return s.ended }

func (s *natsServer) stop() {
	s.server.Shutdown()
	<-s.ended
}
