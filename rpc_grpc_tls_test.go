package pitaya_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// TestGRPCTLS: servers call each other where both encrypt and each trusts what the other shows, and nowhere else.
func TestGRPCTLS(t *testing.T) {
	t.Parallel()
	files, foreign := newTLSFiles(t), newTLSFiles(t)
	authorities := pitaya.TLSFiles{CA: files.CA}
	mutual := pitaya.GRPCConfig{ServerTLS: files}
	oneSided := pitaya.GRPCConfig{ServerTLS: pitaya.TLSFiles{Cert: files.Cert, Key: files.Key}}
	inCode := pitaya.GRPCConfig{
		ServerTLSConfig: tlsConfig(t, files), ServerTLS: pitaya.TLSFiles{Cert: "none"}, // which counts for nothing
		ClientTLSConfig: tlsConfig(t, files), ClientTLS: pitaya.TLSFiles{CA: "none"},
	}
	named := tlsConfig(t, files)
	named.ServerName = "elsewhere.example"
	before := []*tls.Config{inCode.ServerTLSConfig.Clone(), inCode.ClientTLSConfig.Clone()}
	for _, tt := range []struct {
		name           string
		caller, server pitaya.GRPCConfig
		ok             bool
	}{
		{"both show certificates", pitaya.GRPCConfig{ClientTLS: files}, mutual, true},
		{"the server shows one", pitaya.GRPCConfig{ClientTLS: authorities}, oneSided, true},
		{"configured in code", inCode, inCode, true},
		{"plain caller", pitaya.GRPCConfig{}, oneSided, false},
		{"plain server", pitaya.GRPCConfig{ClientTLS: files}, pitaya.GRPCConfig{}, false},
		{"caller without certificate", pitaya.GRPCConfig{ClientTLS: authorities}, mutual, false},
		{"caller of strangers", pitaya.GRPCConfig{ClientTLS: pitaya.TLSFiles{CA: files.CA, Cert: foreign.Cert, Key: foreign.Key}}, mutual, false},
		{"server of strangers", pitaya.GRPCConfig{ClientTLS: foreign}, oneSided, false},
		{"server of another name", pitaya.GRPCConfig{ClientTLSConfig: named}, oneSided, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, to := openGRPC(t, "b", tt.server, grpcHandler{}, nil)
			got, err := doCall(t.Context(), grpcCaller(t, tt.caller), to, "x")
			if tt.ok && (err != nil || got != "x") {
				t.Errorf("got %q, %v", got, err)
			}
			if !tt.ok && !errors.Is(err, pitaya.ErrUnreachable) {
				t.Errorf("got %q, %v, want ErrUnreachable", got, err)
			}
		})
	}
	for i, c := range []*tls.Config{inCode.ServerTLSConfig, inCode.ClientTLSConfig} {
		if !reflect.DeepEqual(c.NextProtos, before[i].NextProtos) {
			t.Errorf("the application's configuration has changed: %q", c.NextProtos)
		}
	}
}

// tlsConfig is the configuration that the files stand for.
func tlsConfig(t *testing.T, files pitaya.TLSFiles) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(pem)
	return c
}

func TestGRPCTLSSettings(t *testing.T) {
	t.Parallel()
	files := newTLSFiles(t)
	none := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name string
		cfg  pitaya.GRPCConfig
		want string
	}{
		{"authorities", pitaya.GRPCConfig{ClientTLS: pitaya.TLSFiles{CA: none}}, "calling side: TLS authorities"},
		{"certificate", pitaya.GRPCConfig{ServerTLS: pitaya.TLSFiles{Cert: files.Cert, Key: none}}, "serving side: TLS certificate"},
		{"no certificate", pitaya.GRPCConfig{ServerTLS: pitaya.TLSFiles{CA: files.CA}}, "without a certificate"},
		{"none in code", pitaya.GRPCConfig{ServerTLSConfig: new(tls.Config)}, "without a certificate"},
	} {
		if _, err := pitaya.NewGRPCTransport(tt.cfg, "", nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestGRPCTLSNotHTTP2: an encrypted port answers no other protocol, and takes nobody's time for ever.
func TestGRPCTLSNotHTTP2(t *testing.T) {
	t.Parallel()
	files := newTLSFiles(t)
	_, to := openGRPC(t, "b", pitaya.GRPCConfig{ServerTLS: files}, grpcHandler{}, nil)
	c, err := net.Dial("tcp", addrOf(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config := tlsConfig(t, files)
	config.ServerName = "127.0.0.1"
	conn := tls.Client(c, config) // which asks for no protocol
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if n, err := conn.Read(answer); err == nil {
		t.Errorf("%d bytes of an answer", n)
	}

	// A server that says nothing holds up a call no longer than connecting may take.
	silent := rawListener(t, func(_ int, c net.Conn) { c.Read(make([]byte, 1<<10)); c.Read(make([]byte, 1)) })
	tr := grpcCaller(t, pitaya.GRPCConfig{ClientTLS: files, DialTimeout: 50 * time.Millisecond})
	if _, err := doCall(t.Context(), tr, silent, "x"); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}
