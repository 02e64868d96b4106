package pitaya_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// testTLS makes a certificate for 127.0.0.1 and the two configurations that go with it.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

func TestListenTCP(t *testing.T) {
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("connection of type %T", c)
	}
	if l, err := pitaya.ListenTCP(l.Addr().String(), nil); err == nil {
		l.Close()
		t.Error("a taken port is no error")
	}
}

func TestListenTCPWithTLS(t *testing.T) {
	serverTLS, clientTLS := testTLS(t)
	l, err := pitaya.ListenTCP("127.0.0.1:0", serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if serverTLS.MinVersion != 0 {
		t.Error("the caller's configuration was changed")
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			var wg sync.WaitGroup
			wg.Go(func() {
				config := clientTLS.Clone()
				config.MinVersion, config.MaxVersion = version, version
				client, err := tls.Dial("tcp", l.Addr().String(), config)
				if (err == nil) != want {
					t.Errorf("dial: %v", err)
				}
				if err == nil {
					io.WriteString(client, "payload")
					client.Close()
				}
			})
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if (err == nil) != want || want && string(got) != "payload" {
				t.Errorf("read %q, %v", got, err)
			}
			c.Close()
			wg.Wait()
		})
	}
}

func TestListenTCPWithoutCertificate(t *testing.T) {
	for name, config := range map[string]*tls.Config{"empty": {}, "only settings": {MinVersion: tls.VersionTLS13}} {
		if l, err := pitaya.ListenTCP("127.0.0.1:0", config); err == nil {
			l.Close()
			t.Errorf("%s: listens", name)
		}
		if l, err := pitaya.NewTLSListener(&oneConn{}, config); err == nil {
			l.Close()
			t.Errorf("%s: TLS above a listener", name)
		}
	}
	if _, err := pitaya.NewTLSListener(&oneConn{}, nil); err == nil {
		t.Error("TLS without a configuration")
	}
	dynamic := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
	if _, err := pitaya.NewTLSListener(&oneConn{}, dynamic); err != nil {
		t.Errorf("certificates on demand: %v", err)
	}
}
