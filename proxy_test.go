package pitaya_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/pitaya-go/pitaya"
)

// handshaker is what connections have whose peer must say something first.
type handshaker interface {
	net.Conn
	HandshakeContext(context.Context) error
}

const v2Signature = "\r\n\r\n\x00\r\nQUIT\n"

func TestProxyVectors(t *testing.T) {
	type vector struct {
		Name     string
		Header   string `json:"header_hex"`
		Accepted bool
		Remote   string `json:"remote_address"`
		First    string `json:"first_packet_hex"`
	}
	// Answered otherwise than the reference does, as the vectors' own notes ask for.
	deviations := map[string]string{
		"v1 UNKNOWN": "load balancers check health with it: accepted, the address is the socket's",
		"v2 LOCAL":   "load balancers check health with it: accepted, the address is the socket's",
	}
	for _, v := range readVectors[vector](t, "proxy_protocol.json") {
		t.Run(v.Name, func(t *testing.T) {
			inner := pitaya.ListenMem()
			defer inner.Close()
			client, below := memPair(t, inner)
			socket := below.RemoteAddr().String()
			l := pitaya.NewProxyListener(&oneConn{below}, pitaya.ProxyOptions{})
			if _, deviates := deviations[v.Name]; deviates {
				if v.Accepted {
					t.Fatal("not a deviation any more")
				}
				v.Accepted, v.Remote, v.First = true, socket, "03000000"
			}
			client.Write(append(unhex(t, v.Header), 3, 0, 0, 0))
			client.(interface{ CloseWrite() error }).CloseWrite()

			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if got := c.RemoteAddr().String(); got != socket {
				t.Errorf("before the header: address %s, want %s", got, socket)
			}
			got, err := io.ReadAll(c)
			if !v.Accepted {
				if !errors.Is(err, pitaya.ErrProtocol) || len(got) > 0 {
					t.Errorf("read %x, %v, want ErrProtocol", got, err)
				}
				if _, err := client.Write([]byte("x")); err == nil {
					t.Error("the connection is still open")
				}
				return
			}
			if err != nil || !bytes.Equal(got, unhex(t, v.First)) {
				t.Errorf("read %x, %v, want %s", got, err, v.First)
			}
			if got := c.RemoteAddr().String(); got != v.Remote {
				t.Errorf("address %s, want %s", got, v.Remote)
			}
		})
	}
}

// oneConn is a listener with one connection to accept.
type oneConn struct{ c net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.c == nil {
		return nil, net.ErrClosed
	}
	c := l.c
	l.c = nil
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestReadProxyHeader(t *testing.T) {
	v2 := func(command, family byte, length int, rest string) string {
		return v2Signature + string([]byte{command, family, byte(length >> 8), byte(length)}) + rest
	}
	const (
		addr4 = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x10\x00\x01\xbb"
		tlv   = "\x04\x00\x01x"
	)
	addr6 := strings.Repeat("\x20\x01", 8) + strings.Repeat("\x20\x02", 8) + "\x10\x00\x01\xbb"
	tests := []struct {
		name, header string
		want         string // address, or "none", or "malformed"
	}{
		{"v1 longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		{"v1 shortest", "PROXY TCP6 :: :: 0 0\r\n", "[::]:0"},
		{"v1 IPv4 in IPv6", "PROXY TCP6 ::ffff:1.2.3.4 ::ffff:1.2.3.5 9 8\r\n", "1.2.3.4:9"},
		{"v1 UNKNOWN with addresses", "PROXY UNKNOWN ffff:f...f:ffff what ever 65535\r\n", "none"},
		{"v1 UNKNOWN longest", "PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", "none"},
		{"v1 UNKNOWN too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "malformed"},
		{"v1 UNKNOWNX", "PROXY UNKNOWNX\r\n", "malformed"},
		{"v1 UDP4", "PROXY UDP4 1.2.3.4 1.2.3.5 9 8\r\n", "malformed"},
		{"v1 wrong family", "PROXY TCP4 ::1 ::1 9 8\r\n", "malformed"},
		{"v1 wrong family 6", "PROXY TCP6 1.2.3.4 1.2.3.5 9 8\r\n", "malformed"},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 9 8\r\n", "malformed"},
		{"v1 bad destination", "PROXY TCP4 1.2.3.4 1.2.3.256 9 8\r\n", "malformed"},
		{"v1 port too large", "PROXY TCP4 1.2.3.4 1.2.3.5 65536 8\r\n", "malformed"},
		{"v1 port with a sign", "PROXY TCP4 1.2.3.4 1.2.3.5 +1 8\r\n", "malformed"},
		{"v1 port with a zero", "PROXY TCP4 1.2.3.4 1.2.3.5 01 8\r\n", "malformed"},
		{"v1 no port", "PROXY TCP4 1.2.3.4 1.2.3.5 9\r\n", "malformed"},
		{"v1 two spaces", "PROXY TCP4 1.2.3.4  1.2.3.5 9 8\r\n", "malformed"},
		{"v1 space at the end", "PROXY TCP4 1.2.3.4 1.2.3.5 9 8 \r\n", "malformed"},
		{"v1 only LF", "PROXY TCP4 1.2.3.4 1.2.3.5 9 8\n", "malformed"},
		{"v1 no family", "PROXY \r\n", "malformed"},
		{"v1 lower case", "proxy TCP4 1.2.3.4 1.2.3.5 9 8\r\n", "malformed"},
		{"v1 never ends", "PROXY TCP4 " + strings.Repeat("1", 200), "malformed"},
		{"v1 cut", "PROXY TCP4 1.2.3.4", "malformed"},
		{"v2 TCP4", v2(0x21, 0x11, 12, addr4), "10.0.0.1:4096"},
		{"v2 TCP4 with TLVs", v2(0x21, 0x11, 12+300*4, addr4+strings.Repeat(tlv, 300)), "10.0.0.1:4096"},
		{"v2 TCP6", v2(0x21, 0x21, 36, addr6), "[2001:2001:2001:2001:2001:2001:2001:2001]:4096"},
		{"v2 longest", v2(0x21, 0x11, 65535, addr4+strings.Repeat("x", 65523)), "10.0.0.1:4096"},
		{"v2 LOCAL with addresses", v2(0x20, 0x11, 12, addr4), "none"},
		{"v2 LOCAL with anything", v2(0x20, 0xFF, 3, "abc"), "none"},
		{"v2 UNSPEC", v2(0x21, 0x00, 4, tlv), "none"},
		{"v2 UDP4", v2(0x21, 0x12, 12, addr4), "none"},
		{"v2 UDP6", v2(0x21, 0x22, 36, addr6), "none"},
		{"v2 UNIX", v2(0x21, 0x31, 216, strings.Repeat("/", 216)), "none"},
		{"v2 UNIX too short", v2(0x21, 0x31, 215, strings.Repeat("/", 215)), "malformed"},
		{"v2 TCP4 too short", v2(0x21, 0x11, 11, addr4), "malformed"},
		{"v2 TCP6 too short", v2(0x21, 0x21, 35, addr6), "malformed"},
		{"v2 unassigned family", v2(0x21, 0x41, 12, addr4), "malformed"},
		{"v2 unassigned transport", v2(0x21, 0x13, 12, addr4), "malformed"},
		{"v2 unassigned command", v2(0x22, 0x11, 12, addr4), "malformed"},
		{"v2 version 1", v2(0x11, 0x11, 12, addr4), "malformed"},
		{"v2 cut", v2(0x21, 0x11, 12, addr4[:5]), "malformed"},
		{"v2 TLVs cut", v2(0x21, 0x11, 100, addr4), "malformed"},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef", "malformed"},
		{"packet", "\x01\x00\x00\x02{}", "malformed"},
		{"first byte of v2", "\r", "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, cut := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "data with error": iotest.DataErrReader,
			} {
				const payload = "payload"
				in := strings.NewReader(tt.header)
				if tt.want != "malformed" {
					in = strings.NewReader(tt.header + payload)
				}
				addr, err := pitaya.ReadProxyHeader(cut(in))
				got := "none"
				if err != nil {
					got = "malformed"
				} else if addr != nil {
					got = addr.String()
				}
				if got != tt.want || err != nil && !errors.Is(err, pitaya.ErrProtocol) {
					t.Errorf("%s: got %s, %v, want %s", name, got, err, tt.want)
				}
				if err == nil && name != "data with error" && in.Len() != len(payload) { // that one reads ahead
					t.Errorf("%s: %d bytes of payload left, want %d", name, in.Len(), len(payload))
				}
			}
		})
	}
}

// Whoever probes with another protocol is sent away at its first wrong byte, not when enough bytes for a header are in.
func TestProxyFirstByteDecides(t *testing.T) {
	for _, first := range []string{"\x16", "G", "\x01", "PROXZ"} {
		_, err := pitaya.ReadProxyHeader(io.MultiReader(strings.NewReader(first), iotest.ErrReader(errors.New("read on"))))
		if !errors.Is(err, pitaya.ErrProtocol) {
			t.Errorf("%q: %v", first, err)
		}
	}
	if _, err := pitaya.ReadProxyHeader(strings.NewReader("")); err != io.EOF {
		t.Errorf("a peer that leaves: %v", err)
	}
}

func TestProxySilentPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := pitaya.ListenMem()
		l := pitaya.NewProxyListener(inner, pitaya.ProxyOptions{})
		defer l.Close()
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			client, err := inner.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			io.WriteString(client, "PROXY TCP4 1.2.3.4"[:i%18])
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				err := c.(handshaker).HandshakeContext(context.Background())
				if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != pitaya.DefaultProxyTimeout {
					t.Errorf("silent peer: %v after %v", err, time.Since(start))
				}
				if _, again := c.Read(make([]byte, 1)); again != err {
					t.Errorf("then Read: %v", again)
				}
			})
		}
		synctest.Wait()
		client, err := inner.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		io.WriteString(client, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nx")
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil || time.Since(start) != 0 {
			t.Errorf("read %d, %v after %v", n, err, time.Since(start))
		}
		wg.Wait()
	})
}

func TestProxyHandshakeContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := pitaya.ListenMem()
		l := pitaya.NewProxyListener(inner, pitaya.ProxyOptions{})
		defer l.Close()
		client, err := inner.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		start := time.Now()
		if err := c.(handshaker).HandshakeContext(ctx); !errors.Is(err, cause) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection is not closed: %v", err)
		}
	})
}

// Only trusted proxies say what the address is. To others a header is payload.
func TestProxyTrusted(t *testing.T) {
	const header = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n"
	tests := []struct {
		name    string
		trusted []netip.Prefix
		want    bool
	}{
		{"everybody", nil, true},
		{"loopback", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}, true},
		{"loopback as IPv6", []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.1/128")}, true},
		{"others", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inner, err := pitaya.ListenTCP("127.0.0.1:0", nil)
			if err != nil {
				t.Fatal(err)
			}
			l := pitaya.NewProxyListener(inner, pitaya.ProxyOptions{Trusted: tt.trusted})
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(client, header+"payload")
			client.(*net.TCPConn).CloseWrite()
			defer client.Close()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			wantData, wantAddr := "payload", "1.2.3.4:1111"
			if !tt.want {
				wantData, wantAddr = header+"payload", client.LocalAddr().String()
			}
			if err != nil || string(got) != wantData || c.RemoteAddr().String() != wantAddr {
				t.Errorf("%s sent %q, %v; want %s and %q", c.RemoteAddr(), got, err, wantAddr, wantData)
			}
		})
	}
}

func TestProxyBelowTLS(t *testing.T) {
	inner, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	serverTLS, clientTLS := testTLS(t)
	l, err := pitaya.NewTLSListener(pitaya.NewProxyListener(inner, pitaya.ProxyOptions{}), serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(raw, "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		client := tls.Client(raw, clientTLS)
		io.WriteString(client, "payload")
		client.Close()
	})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(handshaker).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.RemoteAddr().String(); got != "1.2.3.4:1111" {
		t.Errorf("address %s", got)
	}
	if got, err := io.ReadAll(c); string(got) != "payload" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	wg.Wait()
}

func TestProxyConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		inner := pitaya.ListenMem()
		l := pitaya.NewProxyListener(inner, pitaya.ProxyOptions{})
		c1, err = inner.DialContext(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		io.WriteString(c1, "PROXY UNKNOWN\r\n")
		c2, err = l.Accept()
		if err == nil {
			// First: a deadline of the past would make its failure final.
			err = c2.(handshaker).HandshakeContext(context.Background())
		}
		return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, err
	})
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\nx"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 1111 2222\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2Signature + "\x21\x11\x00\x0f\x09\x08\x07\x06\x01\x02\x03\x04\x04\xd2\x16\x2e\x04\x00\x00x"))
	f.Add([]byte(v2Signature + "\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, input []byte) {
		whole := bytes.NewReader(input)
		addr, err := pitaya.ReadProxyHeader(whole)
		cut := bytes.NewReader(input)
		addr2, err2 := pitaya.ReadProxyHeader(iotest.OneByteReader(cut))
		if (err == nil) != (err2 == nil) || addr.String() != addr2.String() {
			t.Fatalf("whole: %v, %v; cut: %v, %v", addr, err, addr2, err2)
		}
		if err != nil {
			if len(input) > 0 && !errors.Is(err, pitaya.ErrProtocol) {
				t.Errorf("%v does not wrap ErrProtocol", err)
			}
			return
		}
		if whole.Len() != cut.Len() {
			t.Errorf("whole: %d bytes left, cut: %d", whole.Len(), cut.Len())
		}
		used := input[:len(input)-whole.Len()]
		if v1 := bytes.HasPrefix(used, []byte("PROXY ")); v1 && (bytes.IndexByte(used, '\n') != len(used)-1 || len(used) > 107) ||
			!v1 && len(used) != 16+int(used[14])<<8+int(used[15]) {
			t.Errorf("took %q for a header", used)
		}
	})
}
