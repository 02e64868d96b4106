//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// natsBackoff is how often the pause between attempts to connect doubles.
const natsBackoff = 2

// natsAddresses are the servers of one NATS, and how to connect to them. Whoever
// keeps a connection to it has one of these, used by one goroutine at a time.
type natsAddresses struct {
	cfg   NATSConfig // immutable; with its defaults
	known []*url.URL // from the settings; immutable
	told  []*url.URL // further ones, as the last connection knew them
}

// newNATSAddresses checks the settings, so that what is wrong with them comes back
// at once and not as an outage. It reads the files that they name.
func newNATSAddresses(cfg NATSConfig) (*natsAddresses, error) {
	known, err := natsURLs(cfg.URL)
	if err != nil {
		return nil, err
	}
	s := &natsAddresses{cfg: cfg, known: known}
	if _, err := s.options(); err != nil {
		return nil, fmt.Errorf("pitaya: settings of NATS: %w", err)
	}
	return s, nil
}

// connect connects to the first of some servers that it reaches. It gives up when
// ctx ends; the connection does not end with ctx.
func (s *natsAddresses) connect(ctx context.Context, servers []string, more ...nats.Option) (*nats.Conn, error) {
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	dialer := &natsDialer{ctx: ctx, timeout: s.cfg.ConnectTimeout}
	opts = append(opts,
		// Not joined by commas: a password may have one, and would be in the error.
		func(o *nats.Options) error { o.Servers = servers; return nil },
		nats.SkipHostLookup(), // the dialer looks up, and ends with ctx
		nats.SetCustomDialer(dialer))
	nc, err := nats.Connect("", append(opts, more...)...)
	if stopped := dialer.release(); err == nil && !stopped {
		err = ctx.Err()
		nc.Close()
	}
	if err != nil {
		return nil, err
	}
	return nc, nil
}

// learn notes which servers NATS has told of. They are let in as those of the
// settings are.
func (s *natsAddresses) learn(nc *nats.Conn) {
	s.told = nil
	for _, address := range nc.DiscoveredServers() {
		if u, err := url.Parse(address); err == nil {
			u.User = s.known[0].User
			s.told = append(s.told, u)
		}
	}
}

// choice returns the servers to try, in a random order, those of the settings
// first, without the one given.
func (s *natsAddresses) choice(without string) []string {
	var choice, seen []string
	for _, servers := range [][]*url.URL{s.known, s.told} {
		for _, i := range rand.Perm(len(servers)) {
			u := servers[i]
			host := natsHost(u)
			if slices.Contains(seen, host) {
				continue
			}
			seen = append(seen, host)
			if out, err := url.Parse(without); err != nil || natsHost(out) != host {
				choice = append(choice, u.String())
			}
		}
	}
	return choice
}

// failures returns how many attempts count as failed in a row once a connection
// that was made at a time is lost. One that does not last counts as a failure.
func (s *natsAddresses) failures(before int, since time.Time) int {
	if time.Since(since) >= s.cfg.ReconnectWait {
		return 0
	}
	return before + 1
}

// pause waits before the next attempt to connect, longer after more failures, and
// only for the jitter after none: many servers lose their connections at the same
// moment. It returns false if ctx ends.
func (s *natsAddresses) pause(ctx context.Context, failures int) bool {
	jitter := s.cfg.ReconnectJitter
	if s.cfg.TLSConfig != nil || s.cfg.TLS != (TLSFiles{}) {
		jitter = s.cfg.ReconnectJitterTLS
	}
	var wait time.Duration
	if failures > 0 {
		shift := min(failures-1, natsBackoff)
		wait, jitter = s.cfg.ReconnectWait<<shift, jitter<<shift
	}
	if jitter > 0 {
		wait += rand.N(jitter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// options are those of one connection. It reads the files anew, so that renewed
// certificates and credentials are used from the next connection on.
func (s *natsAddresses) options() ([]nats.Option, error) {
	c := &s.cfg
	opts := []nats.Option{
		nats.NoReconnect(),
		nats.DontRandomize(), // choice has the order
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
		config.ServerName = cmp.Or(config.ServerName, s.commonName())
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

// commonName is the name in the certificates of all servers, where the settings
// know only one: servers that NATS tells of come as IP addresses.
func (s *natsAddresses) commonName() string {
	name := s.known[0].Hostname()
	for _, u := range s.known {
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

// hosts returns the servers of the settings for a log, without users and
// passwords.
func (s *natsAddresses) hosts() []string {
	var list []string
	for _, u := range s.known {
		list = append(list, natsHost(u))
	}
	return list
}

// natsHost is what tells servers apart.
func natsHost(u *url.URL) string {
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "4222"))
}

func readable(file string) error {
	f, err := os.Open(file)
	if err == nil {
		f.Close()
	}
	return err
}

// natsDialer makes connections that end with a context, until released: a NATS
// server that accepts and says nothing must not hold up who ends the context.
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
