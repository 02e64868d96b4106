package pitaya_test

import (
	"context"
	"net"
	"syscall"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// keepAlive is what a socket does to find a dead peer: 1 for on, seconds until the first probe and between probes, and
// how many stay without an answer.
type keepAlive struct{ on, idle, interval, count int }

func keepAliveOf(t testing.TB, c net.Conn) (k keepAlive) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd uintptr, level, option int) int {
		v, err := syscall.GetsockoptInt(int(fd), level, option)
		if err != nil {
			t.Errorf("option %d: %v", option, err)
		}
		return v
	}
	err = raw.Control(func(fd uintptr) {
		k.on = get(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		k.idle = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		k.interval = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
		k.count = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// acceptedOn is the TCP connection below what l accepts from a client.
func acceptedOn(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for {
		above, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = above.NetConn()
	}
}

// Connections of this package's listeners have Go's keep-alive options, however they come by them; those of a listener
// that the application brings have what it says.
func TestListenKeepAlive(t *testing.T) {
	t.Parallel()
	serverTLS, _ := testTLS(t)
	want := keepAlive{on: 1, idle: 15, interval: 15, count: 9}
	for name, listen := range map[string]func() (net.Listener, error){
		"TCP":            func() (net.Listener, error) { return pitaya.ListenTCP("127.0.0.1:0", nil) },
		"TLS":            func() (net.Listener, error) { return pitaya.ListenTCP("127.0.0.1:0", serverTLS) },
		"all interfaces": func() (net.Listener, error) { return pitaya.ListenTCP(":0", nil) },
		"not inherited": func() (net.Listener, error) {
			lc := net.ListenConfig{KeepAlive: -1}
			l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			return pitaya.NewTCPListener(l), nil
		},
		"WebSocket": func() (net.Listener, error) { return pitaya.ListenWS("127.0.0.1:0", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := listen()
			if err != nil {
				t.Fatal(err)
			}
			if got := keepAliveOf(t, acceptedOn(t, l)); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
	t.Run("the application's", func(t *testing.T) {
		t.Parallel()
		lc := net.ListenConfig{KeepAlive: -1}
		inner, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := pitaya.NewWSListener(inner, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := keepAliveOf(t, acceptedOn(t, l)); got.on != 0 {
			t.Errorf("%+v, want none", got)
		}
	})
}
