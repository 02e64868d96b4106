package cli_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Once a server has spoken TLS, or shown a certificate that is not trusted, nothing is sent to it in the clear.
func TestNothingInTheClear(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var mu sync.Mutex
	var first []byte // byte of each connection
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := &firstByte{Conn: c, seen: func(b byte) {
				mu.Lock()
				defer mu.Unlock()
				first = append(first, b)
			}}
			if s := tls.Server(r, cfg); s.Handshake() == nil {
				s.Read(make([]byte, 1)) // what it wants is not spoken here
			}
			c.Close()
		}
	}()
	defer func() {
		l.Close()
		<-ended
	}()
	for _, test := range []struct {
		args []string
		want int // connections
	}{
		{nil, 1},
		{[]string{"-insecure"}, 2}, // wss and tls
	} {
		status, out := runs(t, append(test.args, l.Addr().String(), "-handshake", `{"user":{"token":"secret"}}`, "-e", "status")...)
		if status != 3 {
			t.Errorf("%q: status %d: %s", test.args, status, out)
		}
		mu.Lock()
		if want := slices.Repeat([]byte{0x16}, test.want); string(first) != string(want) {
			t.Errorf("%q: the connections began with % x, want % x", test.args, first, want)
		}
		first = nil
		mu.Unlock()
	}
}

// firstByte shows the first byte that is read.
type firstByte struct {
	net.Conn
	seen func(byte) // nil once it has been called
}

func (c *firstByte) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.seen != nil {
		c.seen(p[0])
		c.seen = nil
	}
	return n, err
}

// A server that accepts and says nothing costs the time of each transport, and no more.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	must(t, err)
	defer l.Close()
	status, out := runs(t, "-connect-timeout", "30ms", l.Addr().String(), "-e", "status")
	if status != 3 || strings.Count(out, "127.0.0.1") < 5 {
		t.Errorf("status %d: %s", status, out)
	}
}

// A relay passes on bytes to a server, until it is cut.
type relay struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns []net.Conn
	all   sync.WaitGroup
}

func startRelay(t *testing.T, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{Listener: l, to: strings.TrimPrefix(to, "tcp://")}
	r.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", r.to)
			if err != nil {
				c.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, c, s)
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{c, s}, {s, c}} {
				r.all.Go(func() {
					io.Copy(pair[0], pair[1])
					pair[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		r.all.Wait()
	})
	return r
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// With -resume the session outlives its connection; without it the script ends.
func TestResume(t *testing.T) {
	t.Parallel()
	var r *relay
	var cuts atomic.Int64
	addr := serve(t, pitaya.Config{Resume: pitaya.ResumeConfig{Window: 20 * time.Second}}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "room.set", func(ctx context.Context, in []byte) ([]byte, error) {
			return in, pitaya.SessionFromContext(ctx).Set("k", string(in))
		}))
		must(t, pitaya.HandleRaw(s, "room.get", func(ctx context.Context, _ []byte) ([]byte, error) {
			v, _ := pitaya.SessionFromContext(ctx).Get("k").(string)
			return []byte(v), nil
		}))
		must(t, pitaya.HandleRaw(s, "room.cut", func(ctx context.Context, _ []byte) ([]byte, error) {
			cuts.Add(1)
			r.cut()
			return nil, nil
		}))
	})
	r = startRelay(t, addr)
	script := "status; request room.set kept; ! request room.cut; request room.get; expect text kept"
	status, out := runs(t, "-resume", "tcp://"+r.Addr().String(), "-e", script)
	if status != 0 || !strings.Contains(out, "resume       for 20s") {
		t.Errorf("status %d:\n%s", status, out)
	}
	status, out = runs(t, "tcp://"+r.Addr().String(), "-e", script)
	if status != 4 || strings.Contains(out, "again") || cuts.Load() != 2 {
		t.Errorf("without -resume: status %d:\n%s", status, out)
	}
}
