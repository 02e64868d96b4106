package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// The program as it is used: by both kinds of connection, and with a renewal between.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-tcp", "127.0.0.1:0", "-ws", "127.0.0.1:0")
	dir := server.Expect(`tls -renew (\S+)`)[1]
	byTCP := server.Expect(`tls -connect (tls:\S+) -ca (\S+)`)
	byWS := server.Expect(`tls -connect (wss:\S+) -ca (\S+)`)
	shown := func(name string) {
		t.Helper()
		for _, by := range [][]string{byTCP, byWS} {
			got := exampletest.Run(t, run, "-connect", by[1], "-ca", by[2])
			if !regexp.MustCompile(`^certificate "` + name + `", until .*\nHello, Ada!\n$`).MatchString(got) {
				t.Errorf("%s: the client printed\n%s\nwant the certificate %q and a greeting", by[1], got, name)
			}
		}
	}
	shown("first")

	// Who is connected stays, and whoever comes sees the new certificate.
	pem, err := os.ReadFile(byTCP[2])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	early, err := pitaya.Dial(t.Context(), byTCP[1], &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	exampletest.Run(t, run, "-renew", dir)
	shown("renewed")
	if err := early.Request(t.Context(), "game.hello.greet", "Ada", nil); err != nil {
		t.Errorf("who was connected before: %v", err)
	}

	// A renewal that went wrong: the certificate is still shown.
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half of a k"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown("renewed")
	early.Close()
	server.Stop()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the program has left %s: %v", dir, err)
	}
}

// Who does not trust the certificate does not connect.
func TestUnknownAuthority(t *testing.T) {
	server := exampletest.Start(t, run, "-tcp", "127.0.0.1:0", "-ws", "127.0.0.1:0")
	for _, scheme := range []string{"tls", "wss"} {
		url := server.Expect(`tls -connect (` + scheme + `:\S+) -ca`)[1]
		err := run(t.Context(), []string{"-connect", url}, io.Discard)
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
			t.Errorf("%s: got %v, want that nobody known has signed the certificate", scheme, err)
		}
	}
}

// Files that are no good are found at the start.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key, other := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "other.pem")
	if err := errors.Join(renew(cert, key, "a"), renew(filepath.Join(dir, "unused.pem"), other, "b")); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][2]string{
		"no files":             {filepath.Join(dir, "none.pem"), key},
		"key of another":       {cert, other},
		"the other way around": {key, cert},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it would end at once
		err := run(ctx, []string{"-tcp", "127.0.0.1:0", "-ws", "127.0.0.1:0", "-cert", files[0], "-key", files[1]}, io.Discard)
		if err == nil {
			t.Errorf("%s: the server has started", name)
		}
	}
}
