//go:build !linux

package pitaya

import "net"

// listenTCP is net.Listen for TCP, which sets keep-alive options on each connection: not every system hands those of a
// listening socket down.
func listenTCP(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// isTCPListener reports whether there is nothing but TCP to l.
func isTCPListener(l net.Listener) bool {
	_, ok := l.(*net.TCPListener)
	return ok
}
