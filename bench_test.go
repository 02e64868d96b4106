package pitaya_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// The benchmarks of whole conversations come with a yardstick: the same framing
// echoed by a bare loop on package net, without sessions, JSON or dispatch. A
// claim about speed is the ratio to the yardstick of the same run.

type benchMessage struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// benchServer starts a server with an echo handler of each kind, and listeners
// of all transports.
func benchServer(b testing.TB) (s *testServer, addr map[string]string) {
	b.Helper()
	serverTLS, _ := testTLS(b)
	addr = make(map[string]string)
	cfg := pitaya.Config{Logger: slog.New(slog.DiscardHandler)}
	for _, transport := range []string{"tcp", "tls", "ws"} {
		var l net.Listener
		var err error
		switch transport {
		case "tcp":
			l, err = pitaya.ListenTCP("127.0.0.1:0", nil)
		case "tls":
			l, err = pitaya.ListenTCP("127.0.0.1:0", serverTLS)
		case "ws":
			l, err = pitaya.ListenWS("127.0.0.1:0", nil)
		}
		if err != nil {
			b.Fatal(err)
		}
		addr[transport] = l.Addr().String()
		cfg.Listeners = append(cfg.Listeners, l)
	}
	s = startServer(b, cfg, func(s *pitaya.Server) {
		err := pitaya.HandleRaw(s, "echo.raw", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil })
		if err == nil {
			err = pitaya.Handle(s, "echo.json", func(ctx context.Context, in *benchMessage) (*benchMessage, error) { return in, nil })
		}
		if err == nil {
			err = s.Register(&BenchEcho{}, pitaya.WithName("reflected"), pitaya.WithNameFunc(strings.ToLower))
		}
		if err == nil {
			err = pitaya.HandleRaw(s, "session.bind", func(ctx context.Context, in []byte) ([]byte, error) {
				return in, pitaya.SessionFromContext(ctx).Bind(ctx, string(in))
			})
		}
		if err != nil {
			b.Fatal(err)
		}
	})
	return s, addr
}

// BenchEcho is an echo handler found by reflection.
type BenchEcho struct{ pitaya.Base }

func (*BenchEcho) JSON(ctx context.Context, in *benchMessage) (*benchMessage, error) { return in, nil }

// benchDial connects and does the handshake.
func benchDial(b testing.TB, s *testServer, addr map[string]string, transport string) net.Conn {
	b.Helper()
	var nc net.Conn
	var err error
	switch transport {
	case "mem":
		nc, err = s.Mem.DialContext(context.Background())
	case "tls":
		// The certificate is made for this run; who answers is not the question.
		nc, err = tls.Dial("tcp", addr[transport], &tls.Config{InsecureSkipVerify: true})
	case "ws":
		if nc, err = net.Dial("tcp", addr[transport]); err == nil {
			nc, err = pitaya.DialWS(context.Background(), nc, &url.URL{Scheme: "ws", Host: addr[transport], Path: "/"}, nil)
		}
	default:
		nc, err = net.Dial("tcp", addr[transport])
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	c := &rawClient{Conn: nc, t: b}
	c.handshake(`{"sys":{}}`)
	return nc
}

func benchRequest(b testing.TB, route, payload string) []byte {
	b.Helper()
	body, err := pitaya.AppendMessage(nil, pitaya.Message{ID: 1, Route: route, Payload: []byte(payload)}, nil)
	if err != nil {
		b.Fatal(err)
	}
	packet, err := pitaya.AppendPacket(nil, pitaya.PacketData, body)
	if err != nil {
		b.Fatal(err)
	}
	return packet
}

// benchPayload is JSON of about size bytes.
func benchPayload(size int) string {
	const frame = `{"name":"bench","content":""}`
	return fmt.Sprintf(`{"name":"bench","content":%q}`, strings.Repeat("x", max(size-len(frame), 0)))
}

// yardstick echoes the body of every data packet, with a goroutine and a
// buffered reader for each connection.
func yardstick(b testing.TB) (addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go yardstickServe(c)
		}
	}()
	return l.Addr().String()
}

func yardstickServe(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 4096)
	var out []byte
	body := make([]byte, 0, 4096)
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(head[:]) & 0xffffff)
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		switch pitaya.PacketType(head[0]) {
		case pitaya.PacketHandshake:
			const answer = `{"code":200,"sys":{"dict":{},"heartbeat":30,"serializer":"json"}}`
			out, _ = pitaya.AppendPacket(out, pitaya.PacketHandshake, []byte(answer))
		case pitaya.PacketData:
			out, _ = pitaya.AppendPacket(out, pitaya.PacketData, body)
		}
		if in.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// roundTrips sends batches of requests and waits for all answers of each.
func roundTrips(b *testing.B, c net.Conn, request []byte, inFlight int) {
	batch := []byte(strings.Repeat(string(request), inFlight))
	in := bufio.NewReaderSize(c, 64<<10)
	var head [4]byte
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += inFlight {
		if _, err := c.Write(batch); err != nil {
			b.Fatal(err)
		}
		for range inFlight {
			if _, err := io.ReadFull(in, head[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := in.Discard(int(binary.BigEndian.Uint32(head[:]) & 0xffffff)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	bare := yardstick(b)
	s, addr := benchServer(b)
	for _, size := range []int{64, 1024} {
		for _, inFlight := range []int{1, 16} {
			name := func(what string) string { return fmt.Sprintf("%s/size=%d/inflight=%d", what, size, inFlight) }
			payload := benchPayload(size)
			b.Run(name("yardstick"), func(b *testing.B) {
				c, err := net.Dial("tcp", bare)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				roundTrips(b, c, benchRequest(b, "echo.json", payload), inFlight)
			})
			for _, transport := range []string{"tcp", "ws", "tls", "mem"} {
				for _, handler := range []string{"echo.raw", "echo.json", "reflected.json"} {
					b.Run(name(transport+"/"+handler), func(b *testing.B) {
						c := benchDial(b, s, addr, transport)
						roundTrips(b, c, benchRequest(b, handler, payload), inFlight)
					})
				}
			}
		}
	}
}

func BenchmarkPush(b *testing.B) {
	s, addr := benchServer(b)
	for _, transport := range []string{"tcp", "ws", "mem"} {
		b.Run(transport, func(b *testing.B) {
			c := benchDial(b, s, addr, transport)
			var session *pitaya.Session
			for session = range s.Sessions() {
			}
			payload := []byte(benchPayload(64))
			ctx := context.Background()
			in := bufio.NewReaderSize(c, 64<<10)
			b.ReportAllocs()
			b.ResetTimer()
			// As many at once as the queue of a client may hold.
			const window = 1000
			for n := 0; n < b.N; n += window {
				for range window {
					if err := session.Push(ctx, "onPush", payload); err != nil {
						b.Fatal(err)
					}
				}
				for range window {
					if _, err := pitaya.ReadPacket(in, 0); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			c.Close()
			<-session.Context().Done()
		})
	}
}

// BenchmarkBroadcast measures one delivery: a group send divided by its
// members. The yardstick writes the same bytes to bare connections, one by one.
// Ten thousand members are in memory, since both ends of their sockets would
// need more descriptors than a process has.
func BenchmarkBroadcast(b *testing.B) {
	for _, bb := range []struct {
		transport string
		members   int
	}{{"tcp", 1000}, {"mem", 1000}, {"mem", 10000}} {
		name := fmt.Sprintf("transport=%s/members=%d", bb.transport, bb.members)
		b.Run("yardstick/"+name, func(b *testing.B) { broadcastBare(b, bb.transport, bb.members) })
		b.Run("group/"+name, func(b *testing.B) { broadcastGroup(b, bb.transport, bb.members) })
	}
}

// broadcastPayload is what is sent to each member.
var broadcastPayload = []byte(benchPayload(64))

func broadcastBare(b *testing.B, transport string, members int) {
	var l net.Listener
	mem := pitaya.ListenMem()
	dial := func() (net.Conn, error) { return mem.DialContext(b.Context()) }
	l = mem
	if transport == "tcp" {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		l = tcp
		dial = func() (net.Conn, error) { return net.Dial("tcp", tcp.Addr().String()) }
	}
	defer l.Close()
	readers := newBenchReaders()
	var conns []net.Conn
	for range members {
		dialled := make(chan net.Conn, 1)
		go func() {
			c, err := dial()
			if err != nil {
				b.Error(err)
			}
			dialled <- c
		}()
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		readers.read(b, <-dialled)
	}
	packet := benchRequest(b, "onPush", string(broadcastPayload))
	b.ResetTimer()
	for n := 0; n < b.N; n += members {
		for _, c := range conns {
			if _, err := c.Write(packet); err != nil {
				b.Fatal(err)
			}
		}
		readers.await(b, members*len(packet))
	}
}

func broadcastGroup(b *testing.B, transport string, members int) {
	s, addr := benchServer(b)
	readers := newBenchReaders()
	ctx := b.Context()
	group := s.Group("all")
	if err := group.Create(ctx, 0); err != nil {
		b.Fatal(err)
	}
	for i := range members {
		readers.read(b, benchDial(b, s, addr, transport))
		if err := group.Add(ctx, fmt.Sprint("u", i)); err != nil {
			b.Fatal(err)
		}
	}
	i := 0
	for session := range s.Sessions() {
		if err := session.Bind(ctx, fmt.Sprint("u", i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
	body, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessagePush, Route: "onPush", Payload: broadcastPayload}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += members {
		if err := group.Broadcast(ctx, "", "onPush", broadcastPayload); err != nil {
			b.Fatal(err)
		}
		readers.await(b, members*(len(body)+pitaya.PacketHeaderSize))
	}
}

// BenchmarkStalledMember measures how long a push takes to each of the other 99
// members of a group while one member reads nothing, and while all read. The
// rounds alternate, so both see the same machine; a broadcast waits until all
// but the stalled member have the one before, so neither is a matter of load.
// p99-ratio is the quotient of the two 99th percentiles.
func BenchmarkStalledMember(b *testing.B) {
	const members, round = 100, 20
	// Larger than all pushes together, so that the stalled member stays.
	s, dial := startNarrow(b, pitaya.Config{QueueBytes: 1 << 30, WriteTimeout: -1}, func(s *pitaya.Server) {
		must(b, pitaya.HandleRaw(s, "test.bind", bindHandler))
	})
	ctx := b.Context()
	payload := make([]byte, 4<<10)
	arrived := make(chan time.Duration, members)
	begin := time.Now()
	for i := range members {
		c := dial().hello()
		c.bind(fmt.Sprint("user", i))
		c.SetDeadline(time.Time{})
		if i == 0 {
			continue // nobody reads it
		}
		go func() {
			in := bufio.NewReader(c)
			for {
				p, err := pitaya.ReadPacket(in, 0)
				if err != nil {
					return
				}
				if p.Type == pitaya.PacketData {
					arrived <- time.Since(begin)
				}
			}
		}()
	}
	all, healthy := s.Group("all"), s.Group("healthy")
	must(b, all.Create(ctx, 0), healthy.Create(ctx, 0))
	for i := range members {
		must(b, all.Add(ctx, fmt.Sprint("user", i)))
		if i > 0 {
			must(b, healthy.Add(ctx, fmt.Sprint("user", i)))
		}
	}
	var delays [2][]time.Duration
	push := func(g *pitaya.Group, into *[]time.Duration) {
		sent := time.Since(begin)
		if err := g.Broadcast(ctx, "", "news", payload); err != nil {
			b.Fatal(err)
		}
		for range members - 1 {
			*into = append(*into, <-arrived-sent)
		}
	}
	for range 2 * round { // until the stalled member's socket is full
		push(all, new([]time.Duration))
	}
	rounds := 0
	for b.Loop() {
		// By turns also in which goes first.
		for i := range 2 {
			k := (i + rounds) % 2
			for range round {
				push([]*pitaya.Group{healthy, all}[k], &delays[k])
			}
		}
		rounds++
	}
	if n := s.SessionCount(); n != members {
		b.Fatalf("%d sessions, want %d", n, members)
	}
	percentile := func(d []time.Duration, p int) float64 {
		slices.Sort(d)
		return float64(d[(len(d)-1)*p/100]) / float64(time.Microsecond)
	}
	for k, name := range []string{"without", "with"} {
		b.ReportMetric(percentile(delays[k], 50), "p50-us-"+name)
		b.ReportMetric(percentile(delays[k], 99), "p99-us-"+name)
	}
	b.ReportMetric(percentile(delays[1], 99)/percentile(delays[0], 99), "p99-ratio")
}

// benchReaders are clients that count the bytes they get.
type benchReaders struct {
	got chan int
}

func newBenchReaders() *benchReaders { return &benchReaders{got: make(chan int, 1024)} }

// read reads from c until it is closed.
func (r *benchReaders) read(b testing.TB, c net.Conn) {
	b.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			r.got <- n
		}
	}()
}

// await returns when n bytes have come since the last call.
func (r *benchReaders) await(b testing.TB, n int) {
	for n > 0 {
		n -= <-r.got
	}
	if n < 0 {
		b.Fatal("more bytes than expected")
	}
}
