package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
)

// probed are the transports in the order in which they are tried at an address that names none. Client protocol,
// section 2.5.
var probed = [...]string{"wss", "ws", "tls", "tcp"}

// dialSettings are what making a connection depends on.
type dialSettings struct {
	Timeout    time.Duration // of each transport that is tried
	Insecure   bool          // takes any certificate
	CA         string        // file of certificates that are trusted instead of the system's
	ServerName string        // that the certificate must have, instead of the host of the address
	Path       string        // of WebSocket, where the address has none
	Header     http.Header   // of WebSocket
	Serializer string        // instead of the one that the server names
	Compress   bool
	Handshake  *pitaya.HandshakeData // nil: the client's own
	OnPush     func(route string, payload []byte)

	Resume       bool // connect again when the connection is lost, and go on with the session
	OnDisconnect func(cause error)
	OnReconnect  func(resumed bool)
}

// targets returns the URLs to try for an address: a URL of one transport, or host:port, with or without a path, which
// only WebSocket has.
func targets(addr, path string) ([]string, error) {
	if path != "" && !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if scheme, _, ok := strings.Cut(addr, "://"); ok {
		u, err := url.Parse(addr)
		if err != nil {
			return nil, usagef("%v", err)
		}
		switch scheme {
		case "tcp", "tls":
			if u.Path != "" && u.Path != "/" {
				return nil, usagef("%s has no path", scheme)
			}
		case "ws", "wss":
			if u.Path == "" {
				u.Path = path
			}
		default:
			return nil, usagef("%q is no transport: they are tcp, tls, ws and wss", scheme)
		}
		return []string{u.String()}, nil
	}
	host, rest, hasPath := strings.Cut(addr, "/")
	if hasPath {
		path = "/" + rest
	}
	if h, port, err := net.SplitHostPort(host); err != nil || h == "" || port == "" {
		return nil, usagef("%q is neither host:port nor a URL as in ws://host:port/path", addr)
	}
	var list []string
	for _, scheme := range probed {
		ws := strings.HasPrefix(scheme, "ws")
		if hasPath && !ws {
			continue
		}
		u := scheme + "://" + host
		if ws {
			u += path
		}
		if _, err := url.Parse(u); err != nil {
			return nil, usagef("%v", err)
		}
		list = append(list, u)
	}
	return list, nil
}

// dial connects to an address and returns the URL that worked.
//
// Trying goes on only while it can help: not after the server has refused the handshake, when nobody listens, or when a
// certificate is not trusted. And once a server has shown that it speaks TLS, nothing is sent to it without.
func dial(ctx context.Context, addr string, s *dialSettings) (*pitaya.Client, string, error) {
	list, err := targets(addr, s.Path)
	if err != nil {
		return nil, "", err
	}
	cfg, err := s.client()
	if err != nil {
		return nil, "", err
	}
	var spokeTLS atomic.Bool
	cfg.TLS.VerifyConnection = func(tls.ConnectionState) error {
		spokeTLS.Store(true)
		return nil
	}
	var failed []error
	for _, u := range list {
		if spokeTLS.Load() && (strings.HasPrefix(u, "ws:") || strings.HasPrefix(u, "tcp:")) {
			continue
		}
		c, err := pitaya.Dial(ctx, u, cfg)
		if err == nil {
			return c, u, nil
		}
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, "", fmt.Errorf("%w (-insecure takes any certificate, -ca FILE those of an authority of yours)", err)
		}
		if len(list) == 1 || ctx.Err() != nil || pointless(err) {
			return nil, "", err
		}
		failed = append(failed, err)
	}
	texts := make([]string, len(failed))
	for i, err := range failed {
		texts[i] = "\n  " + describeError(err)
	}
	return nil, "", &noTransportError{addr, texts, failed}
}

// A noTransportError says that no transport worked, and why each did not.
type noTransportError struct {
	addr   string
	texts  []string
	causes []error
}

func (e *noTransportError) Error() string {
	return fmt.Sprintf("no transport works at %s:%s", e.addr, strings.Join(e.texts, ""))
}

func (e *noTransportError) Unwrap() []error { return e.causes }

// pointless reports whether another transport would fail for the same reason.
func pointless(err error) bool {
	if _, ok := errors.AsType[*pitaya.HandshakeError](err); ok {
		return true
	}
	if errors.Is(err, pitaya.ErrKicked) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// client makes the settings of a client. Each call makes its own.
func (s *dialSettings) client() (*pitaya.ClientConfig, error) {
	cfg := &pitaya.ClientConfig{
		Handshake:        s.Handshake,
		Header:           s.Header,
		Compress:         s.Compress,
		HandshakeTimeout: s.Timeout,
		OnAnyPush:        s.OnPush,
		Resume:           s.Resume,
		OnDisconnect:     s.OnDisconnect,
		OnReconnect:      s.OnReconnect,
		TLS: &tls.Config{
			InsecureSkipVerify: s.Insecure, // only where the user asks for it
			ServerName:         s.ServerName,
		},
	}
	switch s.Serializer {
	case "":
	case (pitaya.JSON{}).Name():
		cfg.Serializer = pitaya.JSON{}
	case (pitaya.Protobuf{}).Name():
		cfg.Serializer = pitaya.Protobuf{}
	default:
		return nil, usagef("%q is no serializer: they are json and protobuf", s.Serializer)
	}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, usagef("certificates: %v", err)
		}
		cfg.TLS.RootCAs = x509.NewCertPool()
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("certificates: %s has none in PEM", s.CA)
		}
	}
	return cfg, nil
}
