package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/cli"
)

var updateScripts = flag.Bool("update", false, "write what the scripts of pitaya-cli print into them, instead of comparing")

// cliServer is a server with a listener for each transport of pitaya-cli.
type cliServer struct {
	addrs map[string]string // host:port by scheme
	ca    string            // file with the certificate of tls and wss
}

// cliSchemes are the transports, in the order in which pitaya-cli tries them.
var cliSchemes = []string{"wss", "ws", "tls", "tcp"}

func startForCLI(t *testing.T, args ...string) *cliServer {
	t.Helper()
	o, err := parse(append([]string{"-standalone"}, args...), nil, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	s := &cliServer{addrs: make(map[string]string)}
	cert, ca := certificate(t)
	s.ca = ca
	for _, scheme := range cliSchemes {
		var secure *tls.Config
		if scheme == "wss" || scheme == "tls" {
			secure = &tls.Config{Certificates: []tls.Certificate{cert}}
		}
		var l net.Listener
		if strings.HasPrefix(scheme, "ws") {
			l, err = pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TLS: secure})
		} else {
			l, err = pitaya.ListenTCP("127.0.0.1:0", secure)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.addrs[scheme] = l.Addr().String()
		o.Config.Listeners = append(o.Config.Listeners, l)
	}
	serveOptions(t, o)
	return s
}

// certificate makes a certificate for this machine, and a file that says so.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"game.example"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// A section is a part of a script: what stands behind a line "-- name --".
type section struct{ name, text string }

// A script is a test of pitaya-cli as text, in the manner of txtar: a comment, then sections. They are
//
//	server    flags of the testing server, one on a line
//	args      arguments of pitaya-cli, one on a line; without it: -f, the commands, and the address
//	stdin     what it reads
//	stdout    what it writes, exactly
//	stderr    what it writes there
//	status    its exit status, if not 0
//
// and all others are files. $WORK is the folder they are in, $ADDR the address of the server as a URL, $HOST as host:port,
// $CA the file of its certificate, $SCHEME that of the URL.
type script struct {
	comment  string
	sections []section
}

var sectionLine = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func readScript(t *testing.T, path string) *script {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := new(script)
	at := sectionLine.FindAllStringSubmatchIndex(string(b), -1)
	end := len(b)
	for i := len(at) - 1; i >= 0; i-- {
		m := at[i]
		s.sections = append(s.sections, section{string(b[m[2]:m[3]]), string(b[m[1]:end])})
		end = m[0]
	}
	slices.Reverse(s.sections)
	s.comment = string(b[:end])
	return s
}

func (s *script) section(name string) (string, bool) {
	for _, sec := range s.sections {
		if sec.name == name {
			return sec.text, true
		}
	}
	return "", false
}

func (s *script) set(name, text string) {
	for i := range s.sections {
		if s.sections[i].name == name {
			s.sections[i].text = text
			return
		}
	}
	if text != "" {
		s.sections = append(s.sections, section{name, text})
	}
}

func (s *script) write(t *testing.T, path string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(s.comment)
	for _, sec := range s.sections {
		b.WriteString("-- " + sec.name + " --\n" + sec.text)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

const cliFolder = "../../cmd/pitaya-cli"

// millis are the times in the output of -json.
var millis = regexp.MustCompile(`"ms":[0-9.]+`)

// TestCLIScripts runs the scripts of pitaya-cli against the handlers here, over each transport.
func TestCLIScripts(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join(cliFolder, "testdata", "script", "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := readScript(t, path)
			flags, _ := s.section("server")
			server := startForCLI(t, strings.Fields(flags)...)
			for _, scheme := range cliSchemes {
				t.Run(scheme, func(t *testing.T) {
					s.run(t, path, server, scheme)
				})
			}
		})
	}
}

func (s *script) run(t *testing.T, path string, server *cliServer, scheme string) {
	work := t.TempDir()
	expand := strings.NewReplacer("$ADDR", scheme+"://"+server.addrs[scheme], "$HOST", server.addrs[scheme], "$CA", server.ca,
		"$WORK", work, "$SCHEME", scheme).Replace
	hide := strings.NewReplacer(scheme+"://"+server.addrs[scheme], "$ADDR", server.addrs[scheme], "$HOST", server.ca, "$CA",
		work, "$WORK").Replace
	known := []string{"server", "args", "stdin", "stdout", "stderr", "status"}
	for _, sec := range s.sections {
		if !slices.Contains(known, sec.name) {
			if err := os.WriteFile(filepath.Join(work, sec.name), []byte(expand(sec.text)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var args []string
	if text, ok := s.section("args"); ok {
		for line := range strings.Lines(expand(text)) {
			args = append(args, strings.TrimSuffix(line, "\n"))
		}
	} else {
		args = append(args, "-f", filepath.Join(work, "commands"), scheme+"://"+server.addrs[scheme])
	}
	args = append(args, "-ca", server.ca) // flags may follow the address
	stdin, _ := s.section("stdin")
	var stdout, stderr bytes.Buffer
	status := cli.Main(t.Context(), cli.Process{
		Args:   args,
		Getenv: func(string) string { return "" },
		Stdin:  strings.NewReader(expand(stdin)),
		Stdout: &stdout,
		Stderr: &stderr,
	})
	got := map[string]string{
		"stdout": millis.ReplaceAllString(hide(stdout.String()), `"ms":0`),
		"stderr": hide(stderr.String()),
		"status": "",
	}
	if status != 0 {
		got["status"] = strconv.Itoa(status) + "\n"
	}
	for _, name := range []string{"stdout", "stderr", "status"} {
		if *updateScripts {
			s.set(name, got[name])
			continue
		}
		if want, _ := s.section(name); got[name] != want {
			t.Errorf("%s: %s\n%s\nwant\n%s", strings.TrimSpace(s.comment), name, got[name], want)
		}
	}
	if *updateScripts {
		s.write(t, path)
	}
}

// TestCLIProbe is about addresses without a scheme: each transport is found, and nothing is sent in the clear to a server
// that speaks TLS.
func TestCLIProbe(t *testing.T) {
	t.Parallel()
	server := startForCLI(t)
	for _, scheme := range cliSchemes {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			run := func(args ...string) int {
				stdout.Reset()
				stderr.Reset()
				return cli.Main(t.Context(), cli.Process{Args: args, Getenv: func(string) string { return "" }, Stdout: &stdout, Stderr: &stderr})
			}
			addr := server.addrs[scheme]
			if status := run("-ca", server.ca, "-e", "status", addr); status != 0 || !strings.HasPrefix(stdout.String(), "connected to "+scheme+"://"+addr+"\n") {
				t.Errorf("status %d, %s%s", status, stdout.String(), stderr.String())
			}
			if status := run("-insecure", "-e", "status", addr); status != 0 {
				t.Errorf("-insecure: status %d, %s", status, stderr.String())
			}
			secure := scheme == "wss" || scheme == "tls"
			if status := run("-e", "status", addr); secure && (status != 3 || !strings.Contains(stderr.String(), "-insecure takes any certificate")) || !secure && status != 0 {
				t.Errorf("with a certificate that is not trusted: status %d, %s", status, stderr.String())
			}
			if secure {
				if status := run("-ca", server.ca, "-servername", "game.example", "-e", "status", addr); status != 0 {
					t.Errorf("-servername: status %d, %s", status, stderr.String())
				}
				if status := run("-ca", server.ca, "-servername", "other.example", "-e", "status", addr); status != 3 {
					t.Errorf("-servername of another: status %d, %s", status, stderr.String())
				}
			}
			ws := strings.HasPrefix(scheme, "ws")
			if status := run("-ca", server.ca, "-e", "status", addr+"/path"); ws != (status == 0) {
				t.Errorf("with a path: status %d, %s", status, stderr.String())
			}
		})
	}
}

// TestCLIDocs is about the pages that are written about a server.
func TestCLIDocs(t *testing.T) {
	t.Parallel()
	for _, serializer := range []string{"json", "protobuf"} {
		t.Run(serializer, func(t *testing.T) {
			t.Parallel()
			server := startForCLI(t, "-protocli", "-serializer", serializer)
			addr := "tcp://" + server.addrs["tcp"]
			var stdout, stderr bytes.Buffer
			run := func(args ...string) {
				t.Helper()
				p := cli.Process{Args: args, Getenv: func(string) string { return "" }, Stdout: &stdout, Stderr: &stderr}
				if status := cli.Main(t.Context(), p); status != 0 {
					t.Fatalf("status %d, %s", status, stderr.String())
				}
			}
			wants := []string{"connector.protosvc.echo", "TestResponse"}
			if serializer == "protobuf" {
				wants = append(wants, "message TestRequest {") // from its descriptor
			}
			check := func(what, page, begin string) {
				t.Helper()
				if !strings.HasPrefix(page, begin) {
					t.Errorf("%s begins with %.40q", what, page)
				}
				for _, want := range wants {
					if !strings.Contains(page, want) {
						t.Errorf("%s does not contain %q:\n%s", what, want, page)
					}
				}
			}
			run("docs", addr)
			check("Markdown", stdout.String(), "# ")
			file := filepath.Join(t.TempDir(), "page.html")
			run("docs", "-html", "-o", file, addr)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			check("HTML", strings.ToLower(string(b[:20]))+string(b[20:]), "<!doctype html>")
		})
	}
}
