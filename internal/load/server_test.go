package load_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load"
)

// line is what echo takes and gives.
type line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

type bcast struct {
	Count int `json:"count"`
	Size  int `json:"size"`
}

// A target is a server to load: on a listener in memory, or on those that are given.
type target struct {
	*pitaya.Server
	t    testing.TB
	mem  *pitaya.MemListener
	stop context.CancelFunc
	ran  chan error

	mu       sync.Mutex
	notified int
}

// newTarget starts a server that ends with the test.
func newTarget(t testing.TB, cfg pitaya.Config, more func(*target)) *target {
	t.Helper()
	s := &target{t: t, ran: make(chan error, 1)}
	cfg.Type, cfg.Frontend = "connector", true
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	if len(cfg.Listeners) == 0 {
		s.mem = pitaya.ListenMem()
		cfg.Listeners = []net.Listener{s.mem}
	}
	var err error
	if s.Server, err = pitaya.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	s.handlers()
	if more != nil {
		more(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.ran <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-s.ran:
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

// end stops the server, if that has not been done, and waits for it.
func (s *target) end() {
	s.stop()
	if err, ok := <-s.ran; ok && err != nil {
		s.t.Error(err)
	}
	select {
	case <-s.ran:
	default:
		close(s.ran)
	}
}

func (s *target) handlers() {
	group := s.Group("all")
	err := errors.Join(
		group.Create(context.Background(), 0),
		pitaya.Handle(s.Server, "svc.echo", func(_ context.Context, in *line) (*line, error) { return in, nil }),
		pitaya.HandleRaw(s.Server, "svc.raw", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
		pitaya.HandleRaw(s.Server, "svc.other", func(context.Context, []byte) ([]byte, error) { return []byte("other"), nil }),
		pitaya.HandleRaw(s.Server, "svc.fail", func(context.Context, []byte) ([]byte, error) { return nil, pitaya.Errorf("GAME-7", "no") }),
		pitaya.HandleNotify(s.Server, "svc.note", func(context.Context, *struct{}) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.notified++
		}),
		pitaya.HandleRaw(s.Server, "svc.kick", func(ctx context.Context, _ []byte) ([]byte, error) {
			return nil, pitaya.SessionFromContext(ctx).KickReason(ctx, "enough")
		}),
		pitaya.HandleRaw(s.Server, "svc.join", func(ctx context.Context, _ []byte) ([]byte, error) {
			session := pitaya.SessionFromContext(ctx)
			uid := fmt.Sprint("user", session.ID())
			return []byte("ok"), errors.Join(session.Bind(ctx, uid), group.Add(ctx, uid))
		}),
		pitaya.Handle(s.Server, "svc.broadcast", func(ctx context.Context, in *bcast) (*struct{}, error) {
			for range in.Count {
				if err := group.Broadcast(ctx, "", "news", make([]byte, in.Size)); err != nil {
					return nil, err
				}
			}
			return &struct{}{}, nil
		}),
		pitaya.HandleRaw(s.Server, "svc.push", func(ctx context.Context, _ []byte) ([]byte, error) {
			return []byte("ok"), pitaya.SessionFromContext(ctx).Push(ctx, "mine", []byte("x"))
		}),
	)
	if err != nil {
		s.t.Fatal(err)
	}
}

// closed waits until the server has seen the end of all connections, so that its counts are at rest.
func (s *target) closed(t *testing.T) pitaya.Stats {
	t.Helper()
	s.end()
	stats := s.Stats()
	if stats.Open != 0 || stats.Violations != 0 {
		t.Errorf("%d connections are open, %d have broken the protocol", stats.Open, stats.Violations)
	}
	return stats
}

// memory is a Config for the listener in memory.
func (s *target) memory(cfg load.Config) load.Config {
	cfg.Dial = s.mem.DialContext
	return cfg
}

// runLoad runs a load that must be possible.
func runLoad(t *testing.T, cfg load.Config) *load.Report {
	t.Helper()
	rep, err := load.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// noErrors fails the test if the report has errors.
func noErrors(t *testing.T, rep *load.Report) {
	t.Helper()
	if rep.ErrorSum != 0 || len(rep.Errors) != 0 || rep.Measured.Failed != 0 {
		t.Errorf("%d errors: %+v; %d failed", rep.ErrorSum, rep.Errors, rep.Measured.Failed)
	}
}

// errorCount returns how many errors of a kind there are, and the code of the first of them.
func errorCount(rep *load.Report, kind string) (n int64, code string) {
	for _, e := range rep.Errors {
		if e.Kind == kind {
			if n == 0 {
				code = e.Code
			}
			n += e.Count
		}
	}
	return n, code
}

// transports are the ways to reach a server: the listeners it needs, and what the generator needs.
var transports = []struct {
	name   string
	listen func(t *testing.T, secure *tls.Config) (net.Listener, error)
}{
	{"mem", nil},
	{"tcp", func(*testing.T, *tls.Config) (net.Listener, error) { return pitaya.ListenTCP("127.0.0.1:0", nil) }},
	{"tls", func(t *testing.T, c *tls.Config) (net.Listener, error) { return pitaya.ListenTCP("127.0.0.1:0", c) }},
	{"ws", func(*testing.T, *tls.Config) (net.Listener, error) { return pitaya.ListenWS("127.0.0.1:0", nil) }},
	{"wss", func(t *testing.T, c *tls.Config) (net.Listener, error) {
		return pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: c})
	}},
}

// overEach runs a test over every transport. connect says in a Config how to reach the server.
func overEach(t *testing.T, f func(t *testing.T, s *target, connect func(load.Config) load.Config)) {
	cert, pool := certificate(t)
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			if tr.listen == nil {
				s := newTarget(t, pitaya.Config{}, nil)
				f(t, s, s.memory)
				return
			}
			l, err := tr.listen(t, &tls.Config{Certificates: []tls.Certificate{cert}})
			if err != nil {
				t.Fatal(err)
			}
			f(t, newTarget(t, pitaya.Config{Listeners: []net.Listener{l}}, nil), func(cfg load.Config) load.Config {
				cfg.URL = tr.name + "://" + l.Addr().String()
				cfg.TLS = &tls.Config{RootCAs: pool}
				return cfg
			})
		})
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "load"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestMain fails a run that passed but left goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left after the tests:\n\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}
