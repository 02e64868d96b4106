package pitaya_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/pitaya-go/pitaya"
)

// serveExample runs a server with the handlers of Hello on a listener.
func serveExample(l net.Listener) (stop func()) {
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard, Listeners: []net.Listener{l}})
	if err == nil {
		err = server.Register(&Hello{})
	}
	if err != nil {
		fmt.Println(err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	return func() {
		cancel()
		<-ended
	}
}

// greet is a client.
func greet(url string, cfg *pitaya.ClientConfig) {
	ctx := context.Background()
	client, err := pitaya.Dial(ctx, url, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	var reply Greeting
	err = client.Request(ctx, "Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(reply.Text, err)
}

func ExampleListenTCP() {
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err) // the port is taken
		return
	}
	defer serveExample(l)()

	greet("tcp://"+l.Addr().String(), nil)
	// Output:
	// Hello, Ann! <nil>
}

// A certificate makes it TLS. This one is that of package httptest; a program
// loads its own with tls.LoadX509KeyPair.
func ExampleListenTCP_tls() {
	web := httptest.NewTLSServer(nil)
	defer web.Close()

	l, err := pitaya.ListenTCP("127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer serveExample(l)()

	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	greet("tls://"+l.Addr().String(), &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: roots}})
	// Output:
	// Hello, Ann! <nil>
}

func ExampleListenWS() {
	l, err := pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{Path: "/game"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer serveExample(l)()

	greet("ws://"+l.Addr().String()+"/game", nil)
	// Output:
	// Hello, Ann! <nil>
}

// On a mux of one's own, WebSocket clients and a web site share a port.
func ExampleWSListener_ServeHTTP() {
	ws, err := pitaya.ListenWS("", nil) // no port of its own
	if err != nil {
		fmt.Println(err)
		return
	}
	defer serveExample(ws)()

	mux := http.NewServeMux()
	mux.Handle("/ws", ws)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the game's page") })
	web := httptest.NewServer(mux)
	defer web.Close()

	greet("ws://"+strings.TrimPrefix(web.URL, "http://")+"/ws", nil)
	// Output:
	// Hello, Ann! <nil>
}

// CountingListener wraps another listener, and counts its clients.
type CountingListener struct {
	net.Listener
	clients atomic.Int64
}

func (l *CountingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.clients.Add(1)
	}
	return conn, err
}

// Any net.Listener can be served.
func ExampleConfig_listeners() {
	tcp, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	l := &CountingListener{Listener: tcp}
	stop := serveExample(l)
	greet("tcp://"+tcp.Addr().String(), nil)
	greet("tcp://"+tcp.Addr().String(), nil)
	stop()
	fmt.Println("clients:", l.clients.Load())
	_, err = l.Accept()
	fmt.Println("closed:", errors.Is(err, net.ErrClosed))
	// Output:
	// Hello, Ann! <nil>
	// Hello, Ann! <nil>
	// clients: 2
	// closed: true
}

// TLS goes on top of any listener.
func ExampleNewTLSListener() {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := pitaya.NewTLSListener(&CountingListener{Listener: tcp}, &tls.Config{Certificates: web.TLS.Certificates})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer serveExample(l)()

	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	greet("tls://"+tcp.Addr().String(), &pitaya.ClientConfig{TLS: &tls.Config{RootCAs: roots}})
	// Output:
	// Hello, Ann! <nil>
}

// Connections in memory are for tests: nothing of the system takes part.
func ExampleListenMem() {
	mem := pitaya.ListenMem()
	fmt.Println(mem.Addr().Network())
	go func() { // what a server does
		conn, err := mem.Accept()
		if err == nil {
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
	}()
	conn, err := mem.DialContext(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	b, err := io.ReadAll(conn)
	fmt.Println(string(b), err)
	mem.Close()
	_, err = mem.DialContext(context.Background())
	fmt.Println(err != nil)
	// Output:
	// mem
	// hello <nil>
	// true
}
