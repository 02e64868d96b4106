package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Limits of what clients may send. Who exceeds one is told so, and nobody else
// is concerned.
func ExampleRateLimitConfig() {
	var server *pitaya.Server
	causes := make(chan error, 1)
	cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{
		Limit: 2, Interval: time.Hour, // of a session
		Address: pitaya.Rate{Limit: 1000, Interval: time.Second}, // of all sessions of an address
		Abuse:   pitaya.Rate{Limit: 1, Interval: time.Hour},      // and then it has to go
	}}
	dial, stop := runExample(cfg, func(s *pitaya.Server) error {
		server = s
		return errors.Join(
			s.Register(&Hello{}),
			s.OnSessionClose(func(session *pitaya.Session) { causes <- context.Cause(session.Context()) }),
		)
	})
	defer stop()

	client := dial()
	for range 4 {
		err := client.Request(context.Background(), "Hello.Greet", Greeting{"Ann"}, nil)
		fmt.Printf("%q\n", pitaya.ErrorCode(err))
	}
	<-client.Done()
	fmt.Println(errors.Is(client.Err(), pitaya.ErrKicked), client.KickReason(), errors.Is(<-causes, pitaya.ErrTooManyRequests))
	stats := server.Stats()
	fmt.Println(stats.LimitedBySession, stats.ClosedForAbuse)
	// Output:
	// ""
	// ""
	// "PIT-429"
	// "PIT-429"
	// true too many requests true
	// 2 1
}

// What a server has done so far is counted, whether there are metrics or not.
func ExampleServer_Stats() {
	var server *pitaya.Server
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return s.Register(&Hello{})
	})
	defer stop()
	client := dial()
	client.Request(context.Background(), "Hello.Greet", Greeting{"Ann"}, nil)
	client.Request(context.Background(), "Hello.Nobody", Greeting{"Ann"}, nil)
	stats := server.Stats()
	fmt.Println(stats.Accepted, stats.Requests, stats.Failed)
	// Output:
	// 1 2 1
}

// Behind a load balancer that speaks the PROXY protocol, the addresses of
// clients are their own. TLS and WebSocket go on top.
func ExampleNewProxyListener() {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	proxied := pitaya.NewProxyListener(tcp, pitaya.ProxyOptions{
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // where the load balancers are
	})
	ws, err := pitaya.NewWSListener(proxied, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ws.Close()

	go func() { // a load balancer, which says who connects
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "PROXY TCP4 203.0.113.7 203.0.113.1 5123 443\r\n")
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: game\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		io.Copy(io.Discard, conn)
	}()
	conn, err := ws.Accept() // a server does this
	if err != nil {
		fmt.Println(err)
		return
	}
	err = conn.(interface{ HandshakeContext(context.Context) error }).HandshakeContext(context.Background())
	fmt.Println(conn.RemoteAddr(), err)
	conn.Close()
	// Output:
	// 203.0.113.7:5123 <nil>
}
