package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// A dialer opens connections, up to where the handshake of the protocol begins.
type dialer struct {
	cfg *Config
	u   *url.URL // nil where cfg.Dial does it

	mu   sync.Mutex
	next int // source address
}

// source returns the address to connect from, nil for any. Each source has ports of its own.
func (d *dialer) source() *net.TCPAddr {
	if d.cfg.Sources < 2 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = d.next%d.cfg.Sources + 1
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(d.next))}
}

// dial takes at most the timeout for each of its steps.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	if d.cfg.Dial != nil {
		return d.cfg.Dial(ctx)
	}
	nd := net.Dialer{Timeout: d.cfg.Timeout, KeepAlive: -1, Control: shareports}
	host := d.u.Host
	if a := d.source(); a != nil {
		nd.LocalAddr = a
		host = net.JoinHostPort("127.0.0.1", d.u.Port()) // what localhost may also be has no such sources
	}
	conn, err := nd.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	c, err := d.dress(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// dress puts TLS and WebSocket on a connection.
func (d *dialer) dress(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if d.u.Scheme == "tls" || d.u.Scheme == "wss" {
		cfg := new(tls.Config)
		if d.cfg.TLS != nil {
			cfg = d.cfg.TLS.Clone()
		}
		if cfg.ServerName == "" {
			cfg.ServerName = d.u.Hostname()
		}
		t := tls.Client(conn, cfg)
		ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = t
	}
	if d.u.Scheme == "ws" || d.u.Scheme == "wss" {
		u := *d.u
		u.Scheme = "http"
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		return upgradeWS(ctx, conn, &u, d.cfg.Header, d.cfg.Timeout)
	}
	return conn, nil
}
