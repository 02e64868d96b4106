package pitaya_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// What the library makes of TLS at all its ends: as a server for clients and other servers, as a client of servers, etcd
// and NATS.

// A testAuthority issues certificates.
type testAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
}

func newAuthority(t testing.TB) *testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &testAuthority{cert, key, writePEM(t, "ca.pem", "CERTIFICATE", der)}
}

func writePEM(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return file
}

// issue makes a certificate for 127.0.0.1 that is good for servers and clients, unless change says otherwise. Without an
// authority it signs itself.
func (a *testAuthority) issue(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *testAuthority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// badCertificates are changes to certificates that nobody must take. The keys tell whom they are made for.
var badCertificates = []struct {
	name   string
	change func(*x509.Certificate)
	client bool // as a client's it is no better
}{
	{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, true},
	{"not valid yet", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) }, true},
	{"another address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }, false},
	{"a name", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"127.0.0.1", "localhost"} }, false},
	{"the subject's name", func(c *x509.Certificate) { c.IPAddresses, c.Subject.CommonName = nil, "127.0.0.1" }, false},
	{"not for servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, false},
	{"not for clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, true},
}

// tlsCallers are the places where the library is a client of TLS. Each tries to reach an address, trusting what a file or
// the settings say, until it has failed or ctx ends.
var tlsCallers = map[string]func(ctx context.Context, t testing.TB, address string, files pitaya.TLSFiles, config *tls.Config){
	"tls": func(ctx context.Context, t testing.TB, address string, _ pitaya.TLSFiles, config *tls.Config) {
		if c, err := pitaya.Dial(ctx, "tls://"+address, &pitaya.ClientConfig{TLS: config}); err == nil {
			c.Close()
		}
	},
	"wss": func(ctx context.Context, t testing.TB, address string, _ pitaya.TLSFiles, config *tls.Config) {
		if c, err := pitaya.Dial(ctx, "wss://"+address, &pitaya.ClientConfig{TLS: config}); err == nil {
			c.Close()
		}
	},
	"etcd": func(ctx context.Context, t testing.TB, address string, files pitaya.TLSFiles, config *tls.Config) {
		cfg := etcdConfig("https://" + address)
		cfg.TLS, cfg.TLSConfig = files, config
		if err := newEtcdDiscovery(t, cfg).Join(ctx, room("a"), nil); err == nil {
			t.Error("joined nothing")
		}
	},
	"nats": func(ctx context.Context, t testing.TB, address string, files pitaya.TLSFiles, config *tls.Config) {
		cfg := natsAt(natsQuick, "nats://"+address)
		cfg.TLS, cfg.TLSConfig = files, config
		tr := newNATS(t, cfg, cfg)
		if err := tr.Listen(ctx, room("a"), nil); err == nil {
			t.Error("listens to nothing")
		}
	},
	"grpc": func(ctx context.Context, t testing.TB, address string, files pitaya.TLSFiles, config *tls.Config) {
		host, port, err := net.SplitHostPort(address)
		must(t, err)
		tr := grpcCaller(t, pitaya.GRPCConfig{ClientTLS: files, ClientTLSConfig: config})
		doCall(ctx, tr, grpcServerAt("b", host, port), "x")
	},
}

// fakeTLS accepts one connection and does the server's part of the handshake, behind the greeting of NATS if it is to be
// one. ended is closed when that is done, well or not.
func fakeTLS(t testing.TB, kind string, config *tls.Config) (address string, ended <-chan struct{}, err func() error) {
	t.Helper()
	l, lerr := net.Listen("tcp", "127.0.0.1:0")
	must(t, lerr)
	t.Cleanup(func() { l.Close() })
	done := make(chan struct{})
	var result error
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			result = err
			return
		}
		defer c.Close()
		l.Close()
		c.SetDeadline(time.Now().Add(realTime))
		if kind == "nats" {
			port := l.Addr().(*net.TCPAddr).Port
			io.WriteString(c, `INFO {"server_id":"x","version":"2.10.0","proto":1,"host":"127.0.0.1","port":`+strconv.Itoa(port)+
				`,"max_payload":1048576,"headers":true,"tls_required":true}`+"\r\n")
		}
		s := tls.Server(c, config)
		if result = s.Handshake(); result == nil && kind != "grpc" && kind != "etcd" {
			// The client's verdict may come behind the handshake (TLS 1.3, a client's certificate that is not liked).
			if _, err := s.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
				result = err
			}
		}
	}()
	return l.Addr().String(), done, func() error { <-done; return result }
}

// Everywhere a certificate must be in its time, of an authority that is trusted, for servers, and for the host that was
// asked for; and that with the authorities of a file as with a configuration of the application's.
func TestTLSServersThatAreRefused(t *testing.T) {
	t.Parallel()
	own, other := newAuthority(t), newAuthority(t)
	certs := map[string]tls.Certificate{"good": own.issue(t, nil), "of another authority": other.issue(t, nil), "of itself": (*testAuthority)(nil).issue(t, nil)}
	for _, bad := range badCertificates {
		if bad.name != "not for clients" {
			certs[bad.name] = own.issue(t, bad.change)
		}
	}
	for kind, call := range tlsCallers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for name, cert := range certs {
				for _, way := range []string{"file", "configuration", "system"} {
					if way == "system" && name != "good" {
						continue // whose authorities nobody here is
					}
					var files pitaya.TLSFiles
					var config *tls.Config
					if way == "file" && kind != "tls" && kind != "wss" {
						files.CA = own.file
					} else if way != "system" {
						config = &tls.Config{RootCAs: own.pool()}
					} else {
						config = new(tls.Config)
					}
					var offered []uint16
					address, ended, result := fakeTLS(t, kind, &tls.Config{Certificates: []tls.Certificate{cert},
						NextProtos: []string{"h2", "http/1.1"},
						GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
							offered = h.SupportedVersions
							return nil, nil
						}})
					ctx, cancel := context.WithTimeout(t.Context(), realTime)
					go func() { <-ended; cancel() }()
					call(ctx, t, address, files, config)
					err := result()
					cancel()
					if good := name == "good" && way != "system"; (err == nil) != good {
						t.Errorf("%s, trust by %s: the handshake ended with %v", name, way, err)
					}
					if len(offered) == 0 || slices.Min(offered) < tls.VersionTLS12 {
						t.Errorf("%s, trust by %s: the client offers versions %x", name, way, offered)
					}
				}
			}
		})
	}
}

// tlsServers are the places where the library is a server of TLS, with a configuration of the application's. Each returns
// an address, and whether the protocol that is asked for is HTTP/2.
var tlsServers = map[string]func(t testing.TB, config *tls.Config) (address, protocol string){
	"tls": func(t testing.TB, config *tls.Config) (string, string) {
		l, err := pitaya.ListenTCP("127.0.0.1:0", config)
		must(t, err)
		startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, nil)
		return l.Addr().String(), ""
	},
	"wss": func(t testing.TB, config *tls.Config) (string, string) {
		l, err := pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: config})
		must(t, err)
		startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, nil)
		return l.Addr().String(), "http/1.1"
	},
	"grpc": func(t testing.TB, config *tls.Config) (string, string) {
		_, to := openGRPC(t, "b", pitaya.GRPCConfig{ServerTLSConfig: config}, grpcHandler{}, nil)
		return addrOf(to), "h2"
	},
}

// letIn does a handshake with a server and looks whether it stays: a server of TLS 1.3 refuses a client's certificate when
// the client thinks that all is done.
func letIn(t testing.TB, address, protocol string, config *tls.Config) error {
	t.Helper()
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	ctx, cancel := context.WithTimeout(t.Context(), realTime)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(realTime))
	first := map[string]string{"": string(handshakeOnly), "http/1.1": wsRequest, "h2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"}
	if _, err := io.WriteString(conn, first[protocol]); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// Clients must speak TLS 1.2 at least, even where the process allows less to those who do not say.
func TestTLSVersions(t *testing.T) {
	t.Setenv("GODEBUG", "tls10server=1")
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.issue(t, nil)}}
	plain, err := tls.Listen("tcp", "127.0.0.1:0", config) // that the setting is one
	must(t, err)
	defer plain.Close()
	go func() {
		if c, err := plain.Accept(); err == nil {
			io.Copy(c, io.LimitReader(c, 1))
			c.Close()
		}
	}()
	if err := letIn(t, plain.Addr().String(), "", &tls.Config{RootCAs: a.pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err != nil {
		t.Fatalf("crypto/tls alone refuses old versions too: %v", err)
	}
	for kind, open := range tlsServers {
		address, protocol := open(t, config)
		for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			err := letIn(t, address, protocol, &tls.Config{RootCAs: a.pool(), MinVersion: version, MaxVersion: version})
			if (err == nil) != want {
				t.Errorf("%s, %s: %v", kind, tls.VersionName(version), err)
			}
		}
	}
	if config.MinVersion != 0 {
		t.Error("the application's configuration was changed")
	}
}

// Where clients must show certificates, nothing but a good one lets them in.
func TestTLSClientsThatAreRefused(t *testing.T) {
	t.Parallel()
	own, other := newAuthority(t), newAuthority(t)
	certs := map[string][]tls.Certificate{
		"good": {own.issue(t, nil)}, "none": nil, "of another authority": {other.issue(t, nil)}, "of itself": {(*testAuthority)(nil).issue(t, nil)},
	}
	for _, bad := range badCertificates {
		if bad.client {
			certs[bad.name] = []tls.Certificate{own.issue(t, bad.change)}
		}
	}
	config := &tls.Config{Certificates: []tls.Certificate{own.issue(t, nil)}, ClientCAs: own.pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	for kind, open := range tlsServers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			address, protocol := open(t, config)
			for name, cert := range certs {
				for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					client := &tls.Config{RootCAs: own.pool(), MaxVersion: version,
						// Shown even if the server asks for certificates of others.
						GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
							if cert == nil {
								return new(tls.Certificate), nil
							}
							return &cert[0], nil
						}}
					if err := letIn(t, address, protocol, client); (err == nil) != (name == "good") {
						t.Errorf("%s, %s: %v", name, tls.VersionName(version), err)
					}
				}
			}
		})
	}
}
