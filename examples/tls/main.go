// TLS is a game server on TCP with TLS and on WebSocket with TLS (wss). Its certificate is in two files, and is reloaded when
// they change. Without files it makes a certificate for this machine at the start.
//
//	go run ./examples/tls                                # prints how to connect and how to renew the certificate
//	go run ./examples/tls -cert game.pem -key game.key   # with a certificate of yours
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tls:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tls", flag.ContinueOnError)
	tcpAddr := flags.String("tcp", "localhost:3250", "`address` for clients over TCP with TLS")
	wsAddr := flags.String("ws", "localhost:3251", "`address` for clients over WebSocket with TLS")
	cert := flags.String("cert", "", "`file` with the certificate; empty: one is made for this machine")
	key := flags.String("key", "", "`file` with its key")
	again := flags.String("renew", "", "do nothing but renew the certificate that the server has made in this `folder`")
	connect := flags.String("connect", "", "be a client of the server at this `URL`: tls://host:port or wss://host:port")
	ca := flags.String("ca", "", "`file` with the certificate that the client trusts; empty: those of this system")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case *again != "":
		return renew(filepath.Join(*again, "cert.pem"), filepath.Join(*again, "key.pem"), "renewed")
	case *connect != "":
		return greet(ctx, *connect, *ca, out)
	case *cert == "":
		dir, err := os.MkdirTemp("", "tls-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*cert, *key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		if err := renew(*cert, *key, "first"); err != nil {
			return err
		}
		fmt.Fprintf(out, "A certificate for this machine is in %s; renew it at any time, and connect again:\n\n"+
			"\tgo run ./examples/tls -renew %[1]s\n\n", dir)
	}
	return serve(ctx, *tcpAddr, *wsAddr, *cert, *key, out)
}

// serve is the server.
func serve(ctx context.Context, tcpAddr, wsAddr, cert, key string, out io.Writer) error {
	certs, err := NewReloader(cert, key)
	if err != nil {
		return err
	}
	// Clients must speak TLS 1.2 at least; the listeners see to that, and to the protocols that they can speak above it.
	config := &tls.Config{GetCertificate: certs.GetCertificate}
	tcp, err := pitaya.ListenTCP(tcpAddr, config)
	if err != nil {
		return err
	}
	defer tcp.Close()
	ws, err := pitaya.ListenWS(wsAddr, &pitaya.WSOptions{TLS: config})
	if err != nil {
		return err
	}
	defer ws.Close()
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true, Listeners: []net.Listener{tcp, ws}})
	if err != nil {
		return err
	}
	err = pitaya.Handle(srv, "hello.greet", func(_ context.Context, name *string) (*string, error) {
		return new("Hello, " + *name + "!"), nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The server is ready. In another terminal:\n\n\tgo run ./examples/tls -connect tls://%s -ca %s\n"+
		"\tgo run ./examples/tls -connect wss://%s -ca %[2]s\n\nCtrl-C ends it.\n", tcp.Addr(), cert, ws.Addr())
	return srv.Run(ctx)
}

// greet is the client. It says what certificate it was shown.
func greet(ctx context.Context, url, ca string, out io.Writer) error {
	config := &tls.Config{VerifyConnection: func(state tls.ConnectionState) error { // after all that is verified anyway
		fmt.Fprintf(out, "certificate %q, until %v\n", state.PeerCertificates[0].Subject.CommonName, state.PeerCertificates[0].NotAfter)
		return nil
	}}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("no certificate in %s", ca)
		}
	}
	client, err := pitaya.Dial(ctx, url, &pitaya.ClientConfig{TLS: config})
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
