package devtest

import (
	"net"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// TestServer goes through all that a test can do to a server.
func TestServer(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...string) *Server{"etcd": Etcd, "nats": NATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			u, err := url.Parse(s.URL())
			if err != nil {
				t.Fatal(err)
			}
			listens := func() bool {
				c, err := net.Dial("tcp", u.Host)
				if err == nil {
					c.Close()
				}
				return err == nil
			}
			for _, step := range []struct {
				name string
				do   func()
				want bool
			}{
				{"start", func() {}, true},
				{"stop", s.Stop, false},
				{"stop again", s.Stop, false},
				{"start again", s.Start, true},
				{"pause", s.Pause, true},
				{"kill", s.Kill, false},
				{"start empty", s.StartEmpty, true},
				{"pause again", s.Pause, true},
				{"resume", s.Resume, true},
				{"last stop", s.Stop, false},
			} {
				step.do()
				if got := listens(); got != step.want {
					t.Errorf("%s: listens: got %v, want %v", step.name, got, step.want)
				}
				if s.URL() != u.String() {
					t.Errorf("%s: the address changed from %s to %s", step.name, u, s.URL())
				}
			}
		})
	}
}

// TestTaken: a port that somebody has is named at once.
func TestTaken(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"etcd", "nats"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s := &Server{t: t, kind: kind, address: l.Addr().String()}
			if err := s.start(); err == nil || !strings.Contains(err.Error(), "listen tcp "+s.address) {
				t.Errorf("got %v, want that nobody can listen there", err)
			}
		})
	}
}
