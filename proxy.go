// The PROXY protocol, versions 1 and 2: how a load balancer tells the address of the client.
// https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt

package pitaya

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultProxyTimeout is how long a [ProxyListener] waits for a header where its options do not say.
const DefaultProxyTimeout = 10 * time.Second

// ProxyOptions are the settings of a [ProxyListener].
type ProxyOptions struct {
	// Trusted are the networks of the proxies. A connection from anywhere else is an ordinary one: it has no header,
	// its address is the socket's, and if it sends a header nevertheless, that is the beginning of its payload, on
	// which the layer above ends it as on any other malformed packet. Empty: everybody is trusted, so only proxies may
	// be able to reach the port.
	Trusted []netip.Prefix

	// Timeout bounds the wait for the complete header, counted from when reading begins. 0 or less:
	// [DefaultProxyTimeout]. A context given to HandshakeContext may end it earlier.
	Timeout time.Duration
}

// A ProxyListener is a listener behind proxies or load balancers that send a PROXY header, version 1 or 2, in front of
// each connection. RemoteAddr of its connections is the client's address once the header has been read, and LocalAddr
// remains the socket's. A connection from a trusted proxy must begin with a header.
//
// Accept returns at once; the header is read in HandshakeContext of the connection or with its first Read, so a silent
// peer delays nobody. What is not a header ends the connection with an error that wraps [ErrProtocol]. "PROXY UNKNOWN",
// the command LOCAL, with which load balancers check health, and families without an IP address and TCP port (UNSPEC,
// UNIX, UDP) are accepted and leave the socket's address. The extensions of version 2 (TLVs) are skipped.
//
// Put TLS above it with [NewTLSListener], and WebSocket with [NewWSListener].
type ProxyListener struct {
	net.Listener
	trusted []netip.Prefix
	timeout time.Duration
}

// NewProxyListener reads PROXY headers on the connections of l, which is usually one of [ListenTCP] without TLS.
// Closing it closes l.
func NewProxyListener(l net.Listener, o ProxyOptions) *ProxyListener {
	p := &ProxyListener{Listener: l, timeout: o.Timeout}
	if p.timeout <= 0 {
		p.timeout = DefaultProxyTimeout
	}
	for _, prefix := range o.Trusted {
		// Addresses are compared in their IPv4 form where they have one.
		if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		p.trusted = append(p.trusted, prefix)
	}
	return p
}

// Accept waits for the next connection and returns it without reading from it. One that is not from a trusted proxy is
// returned as the listener below has made it.
func (p *ProxyListener) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil || !p.trusts(c.RemoteAddr()) {
		return c, err
	}
	return &proxyConn{Conn: c, timeout: p.timeout}, nil
}

func (p *ProxyListener) trusts(a net.Addr) bool {
	if len(p.trusted) == 0 {
		return true
	}
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, prefix := range p.trusted {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// A proxyConn is a connection from a trusted proxy. Not one byte behind the header is read before it is asked for, so
// once HandshakeContext has returned, the connection below may be used in its place.
type proxyConn struct {
	net.Conn
	timeout time.Duration

	mu     sync.Mutex                  // held while the header is read
	err    error                       // why there is no header; guarded by mu
	done   atomic.Bool                 // the header has been read
	remote atomic.Pointer[net.TCPAddr] // nil: the socket's; set before done
}

// NetConn returns the connection below.
func (c *proxyConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr is the client's address once the header has been read, and before that, without waiting, the proxy's.
func (c *proxyConn) RemoteAddr() net.Addr {
	if a := c.remote.Load(); a != nil {
		return a
	}
	return c.Conn.RemoteAddr()
}

func (c *proxyConn) Read(p []byte) (int, error) {
	if !c.done.Load() {
		if err := c.HandshakeContext(context.Background()); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending direction where the connection below can.
func (c *proxyConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite half-closes c, or says that it cannot.
func closeWrite(c net.Conn) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// HandshakeContext reads the header unless that has been done. If it fails, by the end of ctx or the timeout too, the
// connection is closed and the error stays.
func (c *proxyConn) HandshakeContext(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.done.Load() {
		return c.err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, os.ErrDeadlineExceeded)
	defer cancel()
	var remote *net.TCPAddr
	err := interruptible(ctx, c.Conn, func() (err error) {
		remote, err = readProxyHeader(c.Conn)
		return err
	})
	if err != nil {
		c.Conn.Close()
		c.err = fmt.Errorf("pitaya: proxy header: %w", err)
		return c.err
	}
	c.remote.Store(remote)
	c.done.Store(true)
	return nil
}

// interruptible calls f, which uses c, and closes c when ctx ends before f does: deadlines would be in the way of those
// that the connection's user sets. The result is f's error, or why ctx ended.
func interruptible(ctx context.Context, c net.Conn, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		c.Close()
	})
	err := f()
	if !stop() {
		<-closed
		return context.Cause(ctx)
	}
	return err
}

const (
	proxyV1Signature = "PROXY "
	proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV1Max       = 107 // section 2.1, with CRLF
	proxyV2Header    = 16

	// proxyMin is the length of the shortest header of either version, "PROXY UNKNOWN\r\n": so much can be read before
	// it is known what follows.
	proxyMin = len(proxyV1Signature + "UNKNOWN\r\n")
)

// readProxyHeader reads a header and nothing behind it. Without an address in it the result is nil.
func readProxyHeader(r io.Reader) (*net.TCPAddr, error) {
	buf := make([]byte, proxyV1Max) // also where TLVs are thrown away
	n := 0
	for n < proxyMin {
		m, err := r.Read(buf[n:proxyMin])
		if n += m; n > 0 && !proxyBegins(buf[:n], proxyV1Signature) && !proxyBegins(buf[:n], proxyV2Signature) {
			// At the first byte that tells: those who probe what speaks here wait for the end.
			return nil, fmt.Errorf("%w: no header", ErrProtocol)
		}
		if err != nil && n < proxyMin {
			return nil, proxyReadError(err, n)
		}
	}
	if buf[0] == proxyV1Signature[0] {
		return readProxyV1(r, buf, n)
	}
	return readProxyV2(r, buf, n)
}

// proxyBegins reports whether b, as far as it goes, is what a header with that signature looks like.
func proxyBegins(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

// proxyReadError is the error of an input that ended after n bytes of the header; the end itself is a violation, except
// that before the first byte it is a peer that changed its mind.
func proxyReadError(err error, n int) error {
	if n > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return fmt.Errorf("%w: header incomplete: %w", ErrProtocol, io.ErrUnexpectedEOF)
	}
	return err
}

// readProxyV1 reads what follows the first n bytes of a line such as "PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\n".
func readProxyV1(r io.Reader, buf []byte, n int) (*net.TCPAddr, error) {
	for !bytes.HasSuffix(buf[:n], []byte("\r\n")) {
		if bytes.IndexByte(buf[:n], '\n') >= 0 {
			return nil, fmt.Errorf("%w: malformed line", ErrProtocol)
		}
		// The end is not known, but how much there is before it at least. Addresses have five spaces and something
		// behind each, so most of the line takes a few reads and not one for each byte.
		least := 1
		if !strings.HasPrefix(string(buf[:n]), "PROXY UNKNOWN") && buf[n-1] != '\r' {
			least = 2 + 2*max(0, 5-bytes.Count(buf[:n], []byte(" ")))
		}
		if n+least > proxyV1Max {
			return nil, fmt.Errorf("%w: line too long", ErrProtocol)
		}
		m, err := r.Read(buf[n : n+least])
		if n += m; err != nil && m < least {
			return nil, proxyReadError(err, n)
		}
	}
	line := string(buf[:n-2])
	if line == "PROXY UNKNOWN" || strings.HasPrefix(line, "PROXY UNKNOWN ") {
		return nil, nil // section 2.1: what follows must be ignored
	}
	parts := strings.Split(line, " ")
	if len(parts) != 6 {
		return nil, fmt.Errorf("%w: malformed line", ErrProtocol)
	}
	var addrs [2]netip.AddrPort
	for i := range addrs {
		ip, err := netip.ParseAddr(parts[2+i])
		if err != nil || ip.Zone() != "" || !(parts[1] == "TCP4" && ip.Is4() || parts[1] == "TCP6" && ip.Is6()) {
			return nil, fmt.Errorf("%w: malformed address", ErrProtocol)
		}
		port, err := strconv.ParseUint(parts[4+i], 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != parts[4+i] {
			return nil, fmt.Errorf("%w: malformed port", ErrProtocol)
		}
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return net.TCPAddrFromAddrPort(addrs[0]), nil
}

// Family and transport of version 2, and the lengths of their addresses; section 2.2.
const (
	proxyTCP4 = 0x11
	proxyTCP6 = 0x21

	proxyLen4    = 4 + 4 + 2 + 2
	proxyLen6    = 16 + 16 + 2 + 2
	proxyLenUnix = 108 + 108
)

// readProxyV2 reads what follows the first n bytes of a binary header.
func readProxyV2(r io.Reader, buf []byte, n int) (*net.TCPAddr, error) {
	if m, err := io.ReadFull(r, buf[n:proxyV2Header]); err != nil {
		return nil, proxyReadError(err, n+m)
	}
	command, family := buf[12], buf[13]
	length := int(binary.BigEndian.Uint16(buf[14:]))
	if command != 0x20 && command != 0x21 { // version 2; LOCAL or PROXY
		return nil, fmt.Errorf("%w: version or command unknown", ErrProtocol)
	}
	local := command == 0x20
	least, ok := 0, family&0x0F <= 2 // any, stream, datagram
	switch family >> 4 {
	case 0:
	case 1:
		least = proxyLen4
	case 2:
		least = proxyLen6
	case 3:
		least = proxyLenUnix
	default:
		ok = false
	}
	if !local && (!ok || length < least) {
		return nil, fmt.Errorf("%w: malformed addresses", ErrProtocol)
	}

	var remote *net.TCPAddr
	if !local && (family == proxyTCP4 || family == proxyTCP6) {
		b := buf[:least]
		if m, err := io.ReadFull(r, b); err != nil {
			return nil, proxyReadError(err, proxyV2Header+m)
		}
		length -= least
		size := (least - 4) / 2 // of one address; source, destination, and then their ports
		ip, _ := netip.AddrFromSlice(b[:size])
		remote = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[2*size:])))
	}
	for length > 0 {
		m, err := r.Read(buf[:min(length, len(buf))])
		if length -= m; err != nil && length > 0 {
			return nil, proxyReadError(err, proxyV2Header)
		}
	}
	return remote, nil
}
