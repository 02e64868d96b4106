// TCP and TLS listeners.

package pitaya

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// ListenTCP listens on the TCP address addr, "host:port" as for [net.Listen]: ":3250" for all interfaces, port 0 for a
// free one that Addr tells. With a configuration clients must speak TLS, see [NewTLSListener]; nil is plain TCP, whose
// connections are of type *net.TCPConn. A taken port or a configuration without certificate is an error here and not
// later.
//
// Keep-alive probes are on (after 15 s, every 15 s, 9 of them) and delays of small packets off, which are Go's defaults. The probes cost nothing in this
// process and find dead peers where heartbeats are switched off.
//
// Errors of Accept other than [net.ErrClosed] pass, such as too many open files or a client that left the queue; call
// it again, but after a pause, because the first of these comes back at once.
func ListenTCP(addr string, tlsConfig *tls.Config) (net.Listener, error) {
	var err error
	if tlsConfig != nil {
		// Before the port is taken.
		if tlsConfig, err = serverTLSConfig(tlsConfig); err != nil {
			return nil, err
		}
	}
	l, err := listenTCP(addr)
	if err != nil {
		return nil, fmt.Errorf("pitaya: %w", err)
	}
	if tlsConfig != nil {
		l = newTLSListener(l, tlsConfig)
	}
	return l, nil
}

// A tlsListener is a listener of this package with TLS on top. It knows what is below, so that PROXY headers can be read
// in front of TLS where a setting asks for it.
type tlsListener struct {
	net.Listener
	inner  net.Listener
	config *tls.Config
}

func newTLSListener(inner net.Listener, config *tls.Config) *tlsListener {
	return &tlsListener{Listener: tls.NewListener(inner, config), inner: inner, config: config}
}

// proxied returns l with PROXY headers read on its connections, if it is a listener on TCP, with TLS or without; any
// other listener as it is.
func proxied(l net.Listener, o ProxyOptions) net.Listener {
	if isTCPListener(l) {
		return NewProxyListener(l, o)
	}
	if t, ok := l.(*tlsListener); ok && isTCPListener(t.inner) {
		return newTLSListener(NewProxyListener(t.inner, o), t.config)
	}
	return l
}

// NewTLSListener puts TLS on the connections of another listener, for instance of a [ProxyListener], whose headers come
// before TLS. Accept returns at once; the TLS handshake runs in HandshakeContext of the connections, which are of type
// *tls.Conn, or with their first Read or Write.
//
// It differs from [tls.NewListener] in what it makes of the configuration, of which it takes a copy: a missing
// certificate is an error, and without a MinVersion clients must speak TLS 1.2 at least, whatever GODEBUG says. The
// protocol negotiates no application layer (ALPN), so NextProtos is best left empty.
func NewTLSListener(inner net.Listener, config *tls.Config) (net.Listener, error) {
	config, err := serverTLSConfig(config)
	if err != nil {
		return nil, err
	}
	return newTLSListener(inner, config), nil
}

// serverTLSConfig returns a checked copy of c with our defaults.
func serverTLSConfig(c *tls.Config) (*tls.Config, error) {
	if c == nil || len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return nil, errors.New("pitaya: TLS configuration has no certificate")
	}
	c = c.Clone()
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	return c, nil
}
