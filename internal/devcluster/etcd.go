package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const defaultEtcd = "127.0.0.1:2379"

type etcdServer struct {
	etcd    *embed.Etcd
	address string
}

func startEtcd(ctx context.Context, set settings) (component, error) {
	scheme := "http"
	cfg := embed.NewConfig()
	if set.tlsCert != "" {
		scheme = "https"
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = set.tlsCert, set.tlsKey
		cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = set.tlsCA, set.tlsCA != ""
	}
	if !set.verbose {
		cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	}
	clients := url.URL{Scheme: scheme, Host: set.etcdAddr}
	peers := url.URL{Scheme: "http", Host: "127.0.0.1:0"} // there are none
	cfg.Dir = set.folder("etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// The only member elects itself. Its election time is also what etcd derives the shortest lease from: with
	// these values one second, which tests of expiry are grateful for.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	// What is written survives the end of the process, a kill included, and need not survive that of the machine.
	cfg.UnsafeNoFsync = true

	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	s := &etcdServer{etcd: etcd}
	select {
	case <-etcd.Server.ReadyNotify():
	case err = <-etcd.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && set.user != "" {
		err = s.enableAuth(ctx, set.user, set.password)
	}
	if err != nil {
		etcd.Close()
		return nil, err
	}
	// With port 0 the listener knows the port; the name of the host stays as it was asked for, for the sake of
	// certificates.
	host, _, err := net.SplitHostPort(set.etcdAddr)
	if err != nil {
		etcd.Close()
		return nil, err
	}
	_, port, err := net.SplitHostPort(etcd.Clients[0].Addr().String())
	if err != nil {
		etcd.Close()
		return nil, err
	}
	s.address = scheme + "://" + net.JoinHostPort(host, port)
	return s, nil
}

// enableAuth makes etcd refuse everybody but the user and root, who may do everything. Data of an earlier run may have
// the accounts already.
func (s *etcdServer) enableAuth(ctx context.Context, user, password string) error {
	if s.etcd.Server.AuthStore().IsAuthEnabled() {
		return nil
	}
	c := v3client.New(s.etcd.Server)
	defer c.Close()
	if _, err := c.RoleAdd(ctx, "root"); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return fmt.Errorf("adding the role of root: %w", err)
	}
	for _, name := range []string{"root", user} {
		if _, err := c.UserAdd(ctx, name, password); err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
			return fmt.Errorf("adding user %q: %w", name, err)
		}
		if _, err := c.UserGrantRole(ctx, name, "root"); err != nil {
			return fmt.Errorf("giving user %q a role: %w", name, err)
		}
	}
	if _, err := c.AuthEnable(ctx); err != nil {
		return fmt.Errorf("switching authentication on: %w", err)
	}
	return nil
}

func (s *etcdServer) url() string { return s.address }

func (s *etcdServer) command(string) bool { return false }

func (s *etcdServer) done() <-chan struct{} { return s.etcd.Server.StopNotify() }

func (s *etcdServer) stop() { s.etcd.Close() }
