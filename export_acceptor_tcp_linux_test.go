package pitaya

import "net"

// NewTCPListener makes a listener of a socket whose options are not those of ListenTCP, and so not inherited.
func NewTCPListener(l net.Listener) net.Listener {
	return &tcpListener{TCPListener: l.(*net.TCPListener)}
}
