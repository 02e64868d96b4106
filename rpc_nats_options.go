//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// natsDefaults fills in what the settings leave open.
func natsDefaults(c NATSConfig) NATSConfig {
	c.URL = cmp.Or(c.URL, "nats://localhost:4222")
	c.ConnectTimeout = cmp.Or(max(c.ConnectTimeout, 0), 2*time.Second)
	c.ReconnectWait = cmp.Or(max(c.ReconnectWait, 0), time.Second)
	c.ReconnectJitter = max(cmp.Or(c.ReconnectJitter, 100*time.Millisecond), 0)
	c.ReconnectJitterTLS = max(cmp.Or(c.ReconnectJitterTLS, time.Second), 0)
	c.PingInterval = cmp.Or(max(c.PingInterval, 0), 2*time.Minute)
	c.MaxPings = cmp.Or(max(c.MaxPings, 0), 3)
	c.MaxReconnects = max(c.MaxReconnects, 0)
	c.RequestTimeout = cmp.Or(max(c.RequestTimeout, 0), 5*time.Second)
	c.BufferMessages = cmp.Or(max(c.BufferMessages, 0), natsMessages)
	c.BufferPush = cmp.Or(max(c.BufferPush, 0), natsMessages)
	return c
}

// sameNATS reports whether two sides can share a connection.
func sameNATS(a, b NATSConfig) bool {
	for _, c := range []*NATSConfig{&a, &b} {
		// What has nothing to do with the connection.
		c.RequestTimeout, c.BufferMessages, c.BufferPush, c.Services = 0, 0, 0, 0
	}
	return a == b
}

// options are the options of one connection.
func (s *natsSide) options() ([]nats.Option, error) { return natsOptions(&s.cfg, s.servers) }

// natsOptions reads the files anew, so that renewed certificates and credentials
// are used from the next connection on.
func natsOptions(c *NATSConfig, servers []*url.URL) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.NoReconnect(),
		nats.DontRandomize(), // run has the order
		nats.Timeout(c.ConnectTimeout),
		// A NATS server that reads nothing for so long counts as lost; whoever
		// publishes meanwhile may have to wait.
		nats.FlusherTimeout(c.ConnectTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(c.PingInterval),
		nats.MaxPingsOutstanding(c.MaxPings),
		nats.Compression(!c.NoWebSocketCompression),
	}
	if c.CredentialsFile != "" {
		if err := readable(c.CredentialsFile); err != nil {
			return nil, err
		}
		opts = append(opts, nats.UserCredentials(c.CredentialsFile))
	}
	if c.NKeyFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nkey)
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token))
	}
	config, err := c.TLS.load(c.TLSConfig)
	if err != nil {
		return nil, err
	}
	if config != nil {
		config = config.Clone() // it may be the application's
		config.ServerName = cmp.Or(config.ServerName, natsServerName(servers))
		opts = append(opts, nats.Secure(config))
	}
	// Combinations that exclude each other are refused by this.
	var o nats.Options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if c.CredentialsFile != "" && c.NKeyFile != "" {
		return nil, nats.ErrNkeyAndUser
	}
	return opts, nil
}

// natsServerName is the name in the certificates of all servers, where the
// settings know only one: servers that NATS tells of come as IP addresses.
func natsServerName(servers []*url.URL) string {
	name := servers[0].Hostname()
	for _, u := range servers {
		if u.Hostname() != name {
			return ""
		}
	}
	return name
}

// natsURLs returns the addresses of the settings.
func natsURLs(addresses string) (servers []*url.URL, err error) {
	for i, address := range strings.Split(addresses, ",") {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		// The error of url.Parse would show a password.
		u, err := url.Parse(address)
		if err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("pitaya: address %d of NATS is not a URL", i+1)
		}
		servers = append(servers, u)
	}
	return servers, nil
}

// natsHosts returns servers for a log, without users and passwords.
func natsHosts(servers []*url.URL) []string {
	var list []string
	for _, u := range servers {
		list = append(list, natsHost(u))
	}
	return list
}

func readable(file string) error {
	f, err := os.Open(file)
	if err == nil {
		f.Close()
	}
	return err
}

// natsDialer makes connections that end with a context, until released: a NATS
// server that accepts and says nothing must not hold up Close.
type natsDialer struct {
	ctx     context.Context
	timeout time.Duration
	stops   []func() bool // nats.go dials one address after the other
}

// Dial implements [nats.CustomDialer].
func (d *natsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	var nd net.Dialer
	c, err := nd.DialContext(ctx, network, address)
	if err == nil {
		d.stops = append(d.stops, context.AfterFunc(d.ctx, func() { c.Close() }))
	}
	return c, err
}

// release makes the connections independent of the context. It returns false if
// that had ended already.
func (d *natsDialer) release() bool {
	ok := true
	for _, stop := range d.stops {
		ok = stop() && ok
	}
	return ok
}
