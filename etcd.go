//go:build !nocluster

package pitaya

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What discovery, groups and bindings share of etcd: the client and its connection, and a lease that is held for as long
// as the process lives.

// Defaults of the settings in [EtcdConfig], [GroupsEtcdConfig] and [BindingEtcdConfig].
const (
	etcdEndpoint    = "localhost:2379"
	etcdPrefix      = "pitaya/"
	etcdDialTimeout = 5 * time.Second
)

const (
	// etcdPing is how often a connection on which nothing arrives is tried, and etcdPong how long the answer may
	// take. Without that, a machine that vanishes is noticed only when TCP gives up. etcd closes connections that
	// ping more often than every 5 s.
	etcdPing = 10 * time.Second
	etcdPong = 5 * time.Second
	// etcdReconnect is the longest pause between two attempts to connect. The client's own grows to two minutes,
	// which would prolong each outage by up to as much.
	etcdReconnect = time.Second
	// etcdFirstRetry is the first pause between attempts of other kinds; it doubles up to a limit.
	etcdFirstRetry = 200 * time.Millisecond
)

// etcdSettings are what the configurations of the users of etcd have in common.
type etcdSettings struct {
	Endpoints   []string
	User        string
	Password    string
	TLSFiles    TLSFiles
	TLS         *tls.Config
	DialTimeout time.Duration
}

// clientConfig checks the settings and turns them into those of the client.
func (s etcdSettings) clientConfig() (clientv3.Config, error) {
	var zero clientv3.Config
	t, err := s.TLSFiles.load(s.TLS)
	if err != nil {
		return zero, fmt.Errorf("pitaya: etcd: %w", err)
	}
	cfg := clientv3.Config{
		Endpoints:            s.Endpoints,
		TLS:                  t,
		DialTimeout:          cmp.Or(max(s.DialTimeout, 0), etcdDialTimeout),
		DialKeepAliveTime:    etcdPing,
		DialKeepAliveTimeout: etcdPong,
	}
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = []string{etcdEndpoint}
	}
	if s.User != "" && s.Password != "" {
		cfg.Username, cfg.Password = s.User, s.Password
	}
	// The client takes the scheme of the first endpoint for all of them. One that says http must not send in the
	// clear what somebody configured to be encrypted.
	scheme := func(endpoint string) string {
		s, _, _ := strings.Cut(endpoint, "://")
		if s == endpoint {
			return ""
		}
		return s
	}
	for _, e := range cfg.Endpoints {
		switch {
		case strings.TrimSpace(e) == "":
			return zero, errors.New("pitaya: etcd: empty endpoint")
		case scheme(e) == "http" && t != nil:
			return zero, fmt.Errorf("pitaya: etcd: endpoint %s is not encrypted, and TLS is configured", e)
		case scheme(e) != scheme(cfg.Endpoints[0]):
			return zero, fmt.Errorf("pitaya: etcd: endpoints %s and %s differ in their scheme", cfg.Endpoints[0], e)
		}
	}
	// The client logs with zap, to standard error where it is not told otherwise. What matters of it comes back as
	// errors and in the state of the connection. The configuration is written as JSON, since a value of zap's types
	// needs an import of zap, and that a requirement in go.mod.
	const silent = `{"level":"fatal","encoding":"json","outputPaths":[],"errorOutputPaths":[]}`
	if err := json.Unmarshal([]byte(silent), &cfg.LogConfig); err != nil {
		return zero, fmt.Errorf("pitaya: etcd: %w", err)
	}
	return cfg, nil
}

// etcdKeys returns the prefix of keys that a configuration asks for.
func etcdKeys(prefix string, none bool) string {
	if none {
		return ""
	}
	return cmp.Or(prefix, etcdPrefix)
}

// etcdTTL returns the time of a lease in whole seconds, as etcd wants it.
func etcdTTL(ttl, byDefault time.Duration) (int64, error) {
	if ttl < 0 {
		return 0, fmt.Errorf("pitaya: etcd: negative TTL %v", ttl)
	}
	return int64((cmp.Or(ttl, byDefault) + time.Second - 1) / time.Second), nil
}

// openEtcd makes a client. With a user and password it asks etcd for a token, which takes until etcd is reached, ctx ends
// or the dial timeout passes. Otherwise it connects in the background.
func openEtcd(ctx context.Context, cfg clientv3.Config) (*clientv3.Client, error) {
	// The client lives as long as the context it is given, so it gets one of its own that ends with ctx only while
	// this call lasts.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	cfg.Context = life
	c, err := clientv3.New(cfg)
	if !stop() {
		if err == nil {
			c.Close()
		}
		err = context.Cause(ctx)
	}
	if err != nil {
		end(nil)
		return nil, fmt.Errorf("pitaya: connecting to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	return c, nil
}

// openEtcdStore is openEtcd for settings, and for a client that nobody's call bounds. It also returns the dial timeout.
func openEtcdStore(s etcdSettings) (*clientv3.Client, time.Duration, error) {
	cfg, err := s.clientConfig()
	if err != nil {
		return nil, 0, err
	}
	c, err := openEtcd(context.Background(), cfg)
	return c, cfg.DialTimeout, err
}

// etcdReady reports whether the client is connected. Only the words for the states of a connection can be had without a
// requirement on gRPC.
func etcdReady(c *clientv3.Client) bool { return c.ActiveConnection().GetState().String() == "READY" }

// errEtcdDown fails calls at once: those of the client wait for a connection.
var errEtcdDown = fmt.Errorf("%w: no connection to etcd", ErrUnreachable)

// etcdDown reports whether etcd was tried and not reached, or was lost.
func etcdDown(c *clientv3.Client) bool {
	return c.ActiveConnection().GetState().String() == "TRANSIENT_FAILURE"
}

// whileEtcd returns a context that ends, with errEtcdDown as its cause, when the client has lost etcd: a call that is under
// way then would wait for it to come back until its time is over. The caller ends it.
func whileEtcd(ctx context.Context, c *clientv3.Client) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var look *time.Timer
	look = time.AfterFunc(time.Hour, func() { // begins with Reset, when look is set
		switch {
		case ctx.Err() != nil:
		case etcdDown(c):
			cancel(errEtcdDown)
		default:
			look.Reset(etcdLookInterval)
		}
	})
	look.Reset(etcdLookInterval)
	return ctx, func() {
		cancel(nil)
		look.Stop()
	}
}

// etcdLookInterval is how late a call may notice that etcd is lost.
const etcdLookInterval = 50 * time.Millisecond

// superviseEtcd keeps the connection of a client up until ctx ends, and calls changed with each change. It waits no longer
// than etcdReconnect between attempts to connect.
func superviseEtcd(ctx context.Context, c *clientv3.Client, changed func(ready bool)) {
	conn := c.ActiveConnection()
	wasReady := etcdReady(c)
	for ctx.Err() == nil {
		state := conn.GetState()
		if ready := state.String() == "READY"; ready != wasReady {
			wasReady = ready
			changed(ready)
		}
		switch state.String() {
		case "IDLE":
			conn.Connect()
			conn.WaitForStateChange(ctx, state)
		case "TRANSIENT_FAILURE":
			pause, cancel := context.WithTimeout(ctx, jitter(etcdReconnect))
			if !conn.WaitForStateChange(pause, state) {
				conn.ResetConnectBackoff()
			}
			cancel()
		default:
			conn.WaitForStateChange(ctx, state)
		}
	}
}

// retryPause returns the pause before attempt n+1, where n counts from 0: growing, bounded by longest, with jitter.
func retryPause(n int, longest time.Duration) time.Duration {
	return jitter(min(longest, etcdFirstRetry<<min(n, 16)))
}

// errLeaseGivenUp says that a lease was not granted in as many attempts as were allowed.
var errLeaseGivenUp = errors.New("pitaya: etcd: gave up registering")

// etcdLeaseConfig says how a lease is held.
type etcdLeaseConfig struct {
	Client  *clientv3.Client
	TTL     int64         // seconds
	Timeout time.Duration // of one attempt
	Longest time.Duration // pause between attempts
	Check   time.Duration // pause between looks whether the lease is there, for one whose renewals are far apart; 0: none
	Retries int           // attempts to get a lost lease back; 0: for ever
	// Publish writes what belongs under the lease. It is called again when it has failed, when the lease is another
	// one, and when Wake asks for it.
	Publish func(ctx context.Context, id clientv3.LeaseID) error
	Beat    func() // after each renewal; may be nil
	Log     *slog.Logger
}

// An etcdLease is a lease that is held, and granted anew when it was lost, with everything that belongs under it published
// again. The exported methods are for all goroutines, the others for the one that calls run.
type etcdLease struct {
	cfg    etcdLeaseConfig // immutable
	wake   chan struct{}   // holds a value when Publish is to be called; room for one
	gaveUp chan struct{}   // closed when the retries are used up

	// Owned by try, that is by run once it has been called.
	beats     <-chan *clientv3.LeaseKeepAliveResponse // nil without a lease
	stopBeats context.CancelFunc

	mu      sync.Mutex // guards the fields below
	id      clientv3.LeaseID
	err     error         // of the last attempt
	attempt chan struct{} // closed after the next attempt to begin
}

func newEtcdLease(cfg etcdLeaseConfig) *etcdLease {
	return &etcdLease{
		cfg: cfg, wake: make(chan struct{}, 1), gaveUp: make(chan struct{}), attempt: make(chan struct{}),
		stopBeats: func() {},
	}
}

// Wake asks for another call of publish. The channel it returns is closed when an attempt that began after this call has
// been made, with or without success.
func (l *etcdLease) Wake() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return l.attempt
}

// GaveUp returns a channel that is closed when the retries are used up.
func (l *etcdLease) GaveUp() <-chan struct{} { return l.gaveUp }

// Err returns nil while everything is published under a lease.
func (l *etcdLease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// ID returns the lease, and 0 while there is none.
func (l *etcdLease) ID() clientv3.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *etcdLease) setID(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = id
}

// try makes one attempt, which ends with asked at the latest: a lease if there is none, and then publish. What it starts
// lives until ctx ends.
func (l *etcdLease) try(ctx, asked context.Context) error {
	bounded, cancel := context.WithTimeout(asked, l.cfg.Timeout)
	defer cancel()
	l.mu.Lock()
	over := l.attempt
	l.attempt = make(chan struct{})
	l.mu.Unlock()
	defer close(over)
	err := l.tryOnce(ctx, bounded)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	return err
}

// tryOnce works under bounded; what it starts lives until ctx ends.
func (l *etcdLease) tryOnce(ctx, bounded context.Context) error {
	if id := l.ID(); id != 0 {
		err := l.cfg.Publish(bounded, id)
		if err == nil {
			return nil
		}
		if !l.gone(bounded) { // else nobody has told us yet
			return err
		}
		l.lost()
	}
	granted, err := l.cfg.Client.Grant(bounded, l.cfg.TTL)
	if err != nil {
		return fmt.Errorf("pitaya: etcd: granting a lease: %w", err)
	}
	alive, stop := context.WithCancel(ctx)
	beats, err := l.cfg.Client.KeepAlive(alive, granted.ID)
	if err != nil {
		stop()
		return fmt.Errorf("pitaya: etcd: keeping a lease alive: %w", err)
	}
	l.beats, l.stopBeats = beats, stop
	l.setID(granted.ID)
	return l.cfg.Publish(bounded, granted.ID)
}

// gone asks whether there is a lease that etcd does not know any more.
func (l *etcdLease) gone(ctx context.Context) bool {
	id := l.ID()
	if id == 0 || etcdDown(l.cfg.Client) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	rest, err := l.cfg.Client.TimeToLive(ctx, id)
	return err == nil && rest.TTL <= 0
}

// lost forgets the lease.
func (l *etcdLease) lost() {
	l.stopBeats()
	l.beats, l.stopBeats = nil, func() {}
	l.setID(0)
}

// run holds the lease until ctx ends. It does not revoke it.
func (l *etcdLease) run(ctx context.Context) {
	defer func() { l.stopBeats() }()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	var check <-chan time.Time
	if l.cfg.Check > 0 {
		ticker := time.NewTicker(l.cfg.Check)
		defer ticker.Stop()
		check = ticker.C
	}
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-l.beats:
			if ok {
				if l.cfg.Beat != nil {
					l.cfg.Beat()
				}
				continue
			}
			if ctx.Err() != nil {
				return
			}
			l.cfg.Log.Warn("lease lost, registering again", "lease", l.ID())
			l.lost()
		case <-check:
			if !l.gone(ctx) {
				continue
			}
			l.cfg.Log.Warn("lease revoked, registering again", "lease", l.ID())
			l.lost()
		case <-l.wake:
		case <-retry.C:
		}
		err := l.try(ctx, ctx)
		if err == nil {
			if failures > 0 {
				l.cfg.Log.Info("registered again", "attempts", failures+1)
			}
			failures = 0
			retry.Stop()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if failures == 0 {
			l.cfg.Log.Warn("registering failed, trying again", "err", err)
		}
		failures++
		if l.cfg.Retries > 0 && failures >= l.cfg.Retries && l.ID() == 0 {
			l.cfg.Log.Error("registering failed too often", "attempts", failures, "err", err)
			l.mu.Lock()
			l.err = fmt.Errorf("%w: %w", errLeaseGivenUp, err)
			l.mu.Unlock()
			close(l.gaveUp)
			return
		}
		retry.Reset(retryPause(failures-1, l.cfg.Longest))
	}
}

// revoke gives the lease back, and with it all that is under it. It belongs after run has returned.
func (l *etcdLease) revoke(ctx context.Context, timeout time.Duration) error {
	l.stopBeats()
	id := l.ID()
	if id == 0 {
		return nil
	}
	l.setID(0)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := l.cfg.Client.Revoke(ctx, id); err != nil {
		return fmt.Errorf("pitaya: etcd: revoking the lease: %w", err)
	}
	return nil
}

// etcdAddresses returns the addresses of a client for errors, without users and
// passwords.
func etcdAddresses(c *clientv3.Client) string {
	list := slices.Clone(c.Endpoints())
	for i, e := range list {
		list[i] = e[strings.LastIndexByte(e, '@')+1:]
	}
	return strings.Join(list, ",")
}
