// Acceptor is a game server whose listeners are its own: gate.go has one that turns some clients away, and is put around a TCP
// and a Unix socket. TLS goes on top of it, and the limits of the server hold for whatever comes out.
//
//	go run ./examples/acceptor                            # the server, which prints how to connect
//	go run ./examples/acceptor -deny 127.0.0.0/8,::1/128  # nobody of this machine may come by TLS
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/internal/selfsigned"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "acceptor:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("acceptor", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server, for clients with TLS")
	deny := flags.String("deny", "", "`networks` whose clients are turned away, with commas between")
	connect := flags.String("connect", "", "be a client of the server at this `URL`: tls://host:port or unix:/path")
	ca := flags.String("ca", "", "`file` with the certificate that the client trusts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return greet(ctx, *connect, *ca, out)
	}
	var denied []netip.Prefix
	for text := range strings.SplitSeq(*deny, ",") {
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		denied = append(denied, p)
	}
	// A place for the Unix socket and the certificate, for the user of this program only.
	dir, err := os.MkdirTemp("", "acceptor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return serve(ctx, *listen, denied, dir, out)
}

// serve is the server.
func serve(ctx context.Context, addr string, deny []netip.Prefix, dir string, out io.Writer) error {
	// Layer by layer: sockets, ...
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer tcp.Close()
	unix, err := net.Listen("unix", filepath.Join(dir, "game.sock"))
	if err != nil {
		return err
	}
	defer unix.Close()
	// ... gates around them, ...
	visits := log.New(out, "", 0)
	gate := &Gate{Listener: tcp, Deny: deny, Log: visits}
	back := &Gate{Listener: unix, Log: visits}
	// ... TLS on top of one. It sees the gate's connections, so those who are turned away cost no key exchange. Below
	// WebSocket it would be the same: pitaya.NewWSListener(gate, nil).
	cert, key, err := selfsigned.New("acceptor")
	if err != nil {
		return err
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	front, err := pitaya.NewTLSListener(gate, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}

	srv, err := pitaya.NewServer(pitaya.Config{
		Type: "game", Frontend: true, Listeners: []net.Listener{front, back},
		// The server asks connections for their RemoteAddr, and so knows who they are through all layers. Those of the Unix
		// socket have none and count as one; a listener that knows better gives its connections a RemoteAddr.
		MaxConnsPerIP: 2,
		MaxConns:      100,
	})
	if err != nil {
		return err
	}
	err = pitaya.Handle(srv, "hello.greet", func(_ context.Context, name *string) (*string, error) {
		return new("Hello, " + *name + "!"), nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The server is ready. In another terminal:\n\n"+
		"\tgo run ./examples/acceptor -connect tls://%s -ca %s\n\tgo run ./examples/acceptor -connect unix:%s\n\nCtrl-C ends it.\n",
		tcp.Addr(), ca, unix.Addr())
	return srv.Run(ctx)
}

// greet is the client.
func greet(ctx context.Context, url, ca string, out io.Writer) error {
	client, err := dial(ctx, url, ca)
	if err != nil {
		return err
	}
	defer client.Close()
	var text string
	if err := client.Request(ctx, "game.hello.greet", "Ada", &text); err != nil {
		return err
	}
	fmt.Fprintln(out, text)
	return nil
}

// dial connects. The client's side of an acceptor is a net.Conn.
func dial(ctx context.Context, url, ca string) (*pitaya.Client, error) {
	if path, ok := strings.CutPrefix(url, "unix:"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return pitaya.NewClient(ctx, conn, nil) // which closes conn if it fails
	}
	roots := x509.NewCertPool()
	cert, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(cert) {
		return nil, fmt.Errorf("no certificate in %s", ca)
	}
	return pitaya.Dial(ctx, url, &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: roots}})
}
