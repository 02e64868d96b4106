package main

import (
	"os"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// start starts the server, and returns how to connect.
func start(t *testing.T, args ...string) (server *exampletest.Program, url, ca, unix string) {
	t.Helper()
	server = exampletest.Start(t, run, append(args, "-listen", "127.0.0.1:0")...)
	tls := server.Expect(`acceptor -connect (tls:\S+) -ca (\S+)`)
	return server, tls[1], tls[2], server.Expect(`acceptor -connect (unix:\S+)`)[1]
}

// Clients come through the gates by TLS and by the Unix socket, and the gates see them come and go.
func TestProgram(t *testing.T) {
	server, url, ca, unix := start(t)
	if got, want := exampletest.Run(t, run, "-connect", url, "-ca", ca), "Hello, Ada!\n"; got != want {
		t.Errorf("by TLS: got %q, want %q", got, want)
	}
	server.Expect(`^here comes 127\.0\.0\.1:\d+$`)
	server.Expect(`^there goes 127\.0\.0\.1:\d+, who sent [1-9]\d* bytes and got [1-9]\d*$`)
	if got, want := exampletest.Run(t, run, "-connect", unix), "Hello, Ada!\n"; got != want {
		t.Errorf("by the Unix socket: got %q, want %q", got, want)
	}
	server.Expect(`^here comes `)
	server.Expect(`^there goes .*, who sent [1-9]\d* bytes and got [1-9]\d*$`)
	server.Stop()
	if _, err := os.Stat(ca); !os.IsNotExist(err) {
		t.Errorf("the program has left %s: %v", ca, err)
	}
}

// Who is denied gets nowhere near the server; the other listener is not concerned.
func TestDeny(t *testing.T) {
	server, url, ca, unix := start(t, "-deny", "10.0.0.0/8,127.0.0.0/8")
	if c, err := dial(t.Context(), url, ca); err == nil {
		c.Close()
		t.Error("a client that is denied got in")
	}
	server.Expect(`^turned away 127\.0\.0\.1:\d+$`)
	exampletest.Run(t, run, "-connect", unix)
}

// The server's limits count connections by the addresses that come through gate and TLS.
func TestLimit(t *testing.T) {
	_, url, ca, unix := start(t)
	var clients []*pitaya.Client
	for range 2 {
		c, err := dial(t.Context(), url, ca)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	if c, err := dial(t.Context(), url, ca); err == nil {
		c.Close()
		t.Error("a third client of the address got in")
	}
	exampletest.Run(t, run, "-connect", unix)
	for _, c := range clients {
		if err := c.Err(); err != nil {
			t.Errorf("one of the two has lost its connection: %v", err)
		}
	}
}
