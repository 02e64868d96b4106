package main

import (
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// A Gate is a net.Listener around another one, of whatever kind. It turns away clients from networks that are denied, and
// notes who comes and what they have sent and got when they leave.
type Gate struct {
	net.Listener // Addr and Close are those of the listener below
	Deny         []netip.Prefix
	Log          *log.Logger
}

// Accept is called again and again by one goroutine, so it must not wait for a client: what a connection has to do first
// belongs into its own Read. Errors are passed on as they are. The server ends with net.ErrClosed, which Close below causes,
// and tries again after a pause with any other.
func (g *Gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.denied(conn.RemoteAddr()) {
			g.Log.Printf("turned away %s", conn.RemoteAddr())
			conn.Close()
			continue // the next one, please
		}
		g.Log.Printf("here comes %s", conn.RemoteAddr())
		return &visitor{Conn: conn, log: g.Log}, nil
	}
}

// denied reports whether an address is one of those that may not come. Not all have an IP address: those of Unix sockets are
// empty.
func (g *Gate) denied(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap() // an IPv4 address may come as ::ffff:192.0.2.1
	return slices.ContainsFunc(g.Deny, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// A visitor is a connection that counts. It has RemoteAddr, deadlines and all else from the connection below, and that is all
// that the server needs of it.
type visitor struct {
	net.Conn
	log       *log.Logger
	sent, got atomic.Int64 // one goroutine may read while another writes
	left      sync.Once    // Close may come from several sides
}

func (v *visitor) Read(b []byte) (int, error) {
	n, err := v.Conn.Read(b)
	v.sent.Add(int64(n))
	return n, err
}

func (v *visitor) Write(b []byte) (int, error) {
	n, err := v.Conn.Write(b)
	v.got.Add(int64(n))
	return n, err
}

func (v *visitor) Close() error {
	err := v.Conn.Close()
	v.left.Do(func() {
		v.log.Printf("there goes %s, who sent %d bytes and got %d", v.RemoteAddr(), v.sent.Load(), v.got.Load())
	})
	return err
}
