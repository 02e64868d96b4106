package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/pitaya-go/pitaya"
)

// A frameClient speaks to a server in frames.
type frameClient struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	enc  *hpack.Encoder
	text bytes.Buffer
}

// dialFrames connects, and has sent the preface and settings. The server's first frames are still to be read.
func dialFrames(t testing.TB, to *pitaya.ServerInfo, settings ...http2.Setting) *frameClient {
	t.Helper()
	nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addrOf(to))
	must(t, err)
	t.Cleanup(func() { nc.Close() })
	must(t, nc.SetDeadline(time.Now().Add(realTime)))
	c := &frameClient{Framer: http2.NewFramer(nc, nc), t: t, conn: nc}
	c.enc = hpack.NewEncoder(&c.text)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.AllowIllegalWrites = true
	_, err = io.WriteString(nc, http2.ClientPreface)
	must(t, err, c.WriteSettings(settings...))
	return c
}

// block encodes headers.
func (c *frameClient) block(fields ...string) []byte {
	c.text.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(c.t, c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(c.text.Bytes())
}

// request encodes the headers of a call, and more.
func (c *frameClient) request(more ...string) []byte {
	return c.block(append([]string{":method", "POST", ":scheme", "http", ":path", "/protos.Pitaya/Call", ":authority", "x",
		"content-type", "application/grpc", "te", "trailers"}, more...)...)
}

// open sends the headers of a call.
func (c *frameClient) open(stream uint32) {
	c.t.Helper()
	must(c.t, c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.request(), EndHeaders: true}))
}

// call sends a whole call.
func (c *frameClient) call(stream uint32, body string) {
	c.t.Helper()
	c.open(stream)
	must(c.t, c.WriteData(stream, true, []byte(frameOf(body))))
}

// An answer is what came on a stream, or what ended a connection.
type frameAnswer struct {
	status string // grpc-status, or that of HTTP if there is none
	body   string
	reset  http2.ErrCode
	goAway http2.ErrCode
	closed bool
}

// await reads until a stream has ended, by trailers or a reset, or the connection.
func (c *frameClient) await(stream uint32) (a frameAnswer) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			if isTimeout(err) {
				c.t.Fatalf("stream %d: nothing came", stream)
			}
			a.closed = true
			return a
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			a.goAway = f.ErrCode
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			for _, field := range f.Fields {
				if field.Name == "grpc-status" || field.Name == ":status" && field.Value != "200" {
					a.status = field.Value
				}
			}
			if f.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			if f.StreamID == stream {
				a.body += string(f.Data())
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				a.reset = f.ErrCode
				return a
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				must(c.t, c.WritePing(true, f.Data))
			}
		}
	}
}

// well calls, and sees that the connection is as good as before.
func (c *frameClient) well(stream uint32) {
	c.t.Helper()
	c.call(stream, "abc")
	if a := c.await(stream); a.status != "0" || a.body != frameOf("abc") {
		c.t.Errorf("a call after that: %+v", a)
	}
}

// TestGRPCHostileConnection breaks the rules of HTTP/2 in ways that end the connection, with a code that says why.
func TestGRPCHostileConnection(t *testing.T) {
	t.Parallel()
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	const protocol, size, flow, closed, compression, calm = http2.ErrCodeProtocol, http2.ErrCodeFrameSize, http2.ErrCodeFlowControl,
		http2.ErrCodeStreamClosed, http2.ErrCodeCompression, http2.ErrCodeEnhanceYourCalm
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(*frameClient) {
		return func(c *frameClient) { c.WriteRawFrame(kind, flags, stream, []byte(payload)) }
	}
	setting := func(id http2.SettingID, value uint32) func(*frameClient) {
		return func(c *frameClient) { c.WriteSettings(http2.Setting{ID: id, Val: value}) }
	}
	tests := []struct {
		name string
		send func(c *frameClient)
		want http2.ErrCode
	}{
		{"data without a stream", raw(http2.FrameData, 0, 0, "x"), protocol},
		{"data on a stream not open", raw(http2.FrameData, 0, 1, "x"), protocol},
		{"padding longer than data", func(c *frameClient) { c.open(1); raw(http2.FrameData, http2.FlagDataPadded, 1, "\x05abc")(c) }, protocol},
		{"data without its padding", func(c *frameClient) { c.open(1); raw(http2.FrameData, http2.FlagDataPadded, 1, "")(c) }, size},
		{"frame too large", func(c *frameClient) { c.conn.Write([]byte("\x00\x40\x01\x00\x00\x00\x00\x00\x01")) }, size},
		{"headers without a stream", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, ""), protocol},
		{"headers on an even stream", func(c *frameClient) { c.open(2) }, protocol},
		{"streams in the wrong order", func(c *frameClient) { c.call(5, ""); c.open(3) }, closed},
		{"stream opened twice", func(c *frameClient) { c.call(1, ""); c.await(1); c.open(1) }, closed},
		{"headers that depend on themselves", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPriority, 1, "\x00\x00\x00\x01\x00"), protocol},
		{"headers without their priority", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPriority, 1, "\x00"), size},
		{"headers with too much padding", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersPadded, 1, "\x09\x82"), protocol},
		{"frame within headers", func(c *frameClient) { raw(http2.FrameHeaders, 0, 1, "\x82")(c); c.WritePing(false, [8]byte{}) }, protocol},
		{"headers within headers", func(c *frameClient) { raw(http2.FrameHeaders, 0, 1, "\x82")(c); c.open(3) }, protocol},
		{"continuation of another stream", func(c *frameClient) {
			raw(http2.FrameHeaders, 0, 1, "\x82")(c)
			raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, "\x82")(c)
		}, protocol},
		{"continuation of nothing", raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, "\x82"), protocol},
		{"continuations without an end", func(c *frameClient) {
			raw(http2.FrameHeaders, 0, 1, "\x82")(c)
			for range 100 {
				raw(http2.FrameContinuation, 0, 1, "")(c)
			}
		}, calm},
		{"continuations too large", func(c *frameClient) {
			raw(http2.FrameHeaders, 0, 1, "\x82")(c)
			for range 5 {
				raw(http2.FrameContinuation, 0, 1, strings.Repeat("\x82", 16<<10))(c)
			}
		}, calm},
		{"index that HPACK does not have", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\xfe"), compression},
		{"headers cut off", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\x40\x05ab"), compression},
		{"table of HPACK too large", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\x3f\xff\xff\x03"), compression},
		{"priority without a stream", raw(http2.FramePriority, 0, 0, "\x00\x00\x00\x00\x00"), protocol},
		{"priority of a wrong size", raw(http2.FramePriority, 0, 1, "\x00"), size},
		{"reset without a stream", raw(http2.FrameRSTStream, 0, 0, "\x00\x00\x00\x08"), protocol},
		{"reset of a stream not open", raw(http2.FrameRSTStream, 0, 1, "\x00\x00\x00\x08"), protocol},
		{"reset of a wrong size", func(c *frameClient) { c.open(1); raw(http2.FrameRSTStream, 0, 1, "\x00")(c) }, size},
		{"settings on a stream", raw(http2.FrameSettings, 0, 1, ""), protocol},
		{"settings of a wrong size", raw(http2.FrameSettings, 0, 0, "\x00"), size},
		{"acknowledgement with settings", raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "\x00\x03\x00\x00\x00\x01"), size},
		{"push neither on nor off", setting(http2.SettingEnablePush, 2), protocol},
		{"initial window too large", setting(http2.SettingInitialWindowSize, 1<<31), flow},
		{"frames too small", setting(http2.SettingMaxFrameSize, 1), protocol},
		{"frames too large", setting(http2.SettingMaxFrameSize, 1<<24), protocol},
		{"push promise", raw(http2.FramePushPromise, 0x4, 1, "\x00\x00\x00\x02"), protocol},
		{"ping on a stream", raw(http2.FramePing, 0, 1, "12345678"), protocol},
		{"ping of a wrong size", raw(http2.FramePing, 0, 0, "1"), size},
		{"go away on a stream", raw(http2.FrameGoAway, 0, 1, "\x00\x00\x00\x00\x00\x00\x00\x00"), protocol},
		{"go away of a wrong size", raw(http2.FrameGoAway, 0, 0, "\x00"), size},
		{"window by nothing", raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00"), protocol},
		{"window too large", raw(http2.FrameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), flow},
		{"window of a wrong size", raw(http2.FrameWindowUpdate, 0, 0, "\x00"), size},
		{"window of a stream not open", raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01"), protocol},
		{"settings that lead to nothing", func(c *frameClient) { flood(c, http2.FrameSettings, http2.FlagSettingsAck, 0, "") }, calm},
		{"priorities that lead to nothing", func(c *frameClient) { flood(c, http2.FramePriority, 0, 3, "\x00\x00\x00\x00\x00") }, calm},
		{"data without data", func(c *frameClient) { c.open(1); flood(c, http2.FrameData, 0, 1, "") }, calm},
		{"frames of no type", func(c *frameClient) { flood(c, 0x77, 0, 0, "") }, calm},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialFrames(t, to)
			tt.send(c)
			if a := c.await(1 << 20); a.goAway != tt.want || !a.closed {
				t.Errorf("%+v, want the code %v", a, tt.want)
			}
		})
	}
	t.Cleanup(func() {
		if _, err := doCall(context.Background(), grpcCaller(t, pitaya.GRPCConfig{}), to, ""); err != nil {
			t.Errorf("after all that: %v", err)
		}
		_ = srv
	})
}

// flood sends a frame again and again, more often than is borne. The server may have closed the connection before the end.
func flood(c *frameClient, kind http2.FrameType, flags http2.Flags, stream uint32, payload string) {
	var one bytes.Buffer
	f := http2.NewFramer(&one, nil)
	f.AllowIllegalWrites = true
	f.WriteRawFrame(kind, flags, stream, []byte(payload))
	c.conn.Write(bytes.Repeat(one.Bytes(), 2*pitaya.GRPCMaxWaste+2))
}

// TestGRPCHostileStream breaks the rules in ways that end a stream, and no other.
func TestGRPCHostileStream(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		if string(body) == "wait" {
			go func() { <-hold; reply(nil) }()
			return
		}
		reply(body)
	}}, nil)
	headers := func(end bool, fields ...string) func(*frameClient) {
		return func(c *frameClient) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(fields...), EndHeaders: true, EndStream: end})
		}
	}
	with := func(more ...string) func(*frameClient) {
		return func(c *frameClient) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.request(more...), EndHeaders: true})
		}
	}
	const protocol = http2.ErrCodeProtocol
	tests := []struct {
		name string
		send func(c *frameClient)
		want frameAnswer
	}{
		{"no method", headers(true, ":scheme", "http", ":path", "/x"), frameAnswer{reset: protocol}},
		{"no path", headers(true, ":method", "POST", ":scheme", "http"), frameAnswer{reset: protocol}},
		{"a method twice", headers(true, ":method", "POST", ":method", "POST", ":scheme", "http", ":path", "/x"), frameAnswer{reset: protocol}},
		{"a pseudo-header that there is not", headers(true, ":method", "POST", ":scheme", "http", ":path", "/x", ":way", "y"), frameAnswer{reset: protocol}},
		{"a status in a request", headers(true, ":method", "POST", ":scheme", "http", ":path", "/x", ":status", "200"), frameAnswer{reset: protocol}},
		{"a pseudo-header too late", headers(true, ":method", "POST", ":scheme", "http", "x", "y", ":path", "/x"), frameAnswer{reset: protocol}},
		{"upper case", with("X-Up", "y"), frameAnswer{reset: protocol}},
		{"an empty name", with("", "y"), frameAnswer{reset: protocol}},
		{"connection", with("connection", "close"), frameAnswer{reset: protocol}},
		{"transfer-encoding", with("transfer-encoding", "chunked"), frameAnswer{reset: protocol}},
		{"te", with("te", "gzip"), frameAnswer{reset: protocol}},
		{"content-length that is none", with("content-length", "x"), frameAnswer{reset: protocol}},
		{"less than the content-length", func(c *frameClient) { with("content-length", "9")(c); c.WriteData(1, true, []byte("abc")) }, frameAnswer{reset: protocol}},
		{"more than the content-length", func(c *frameClient) { with("content-length", "2")(c); c.WriteData(1, true, []byte("abc")) }, frameAnswer{reset: protocol}},
		{"trailers that end nothing", func(c *frameClient) {
			c.open(1)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("x", "y"), EndHeaders: true})
		}, frameAnswer{reset: protocol}},
		{"trailers with a method", func(c *frameClient) {
			c.open(1)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(":method", "POST"), EndHeaders: true, EndStream: true})
		}, frameAnswer{reset: protocol}},
		{"a window by nothing", func(c *frameClient) { c.open(1); c.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)) }, frameAnswer{reset: protocol}},
		{"a window too large", func(c *frameClient) { c.open(1); c.WriteWindowUpdate(1, 1<<31-1) }, frameAnswer{reset: http2.ErrCodeFlowControl}},
		{"data after the end", func(c *frameClient) { c.call(1, "wait"); c.WriteData(1, false, []byte("x")) }, frameAnswer{reset: http2.ErrCodeStreamClosed}},
		{"headers after the end", func(c *frameClient) { c.call(1, "wait"); c.open(1) }, frameAnswer{reset: http2.ErrCodeStreamClosed}},
		{"headers too large", func(c *frameClient) {
			big := strings.Repeat("x", 4000)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.request("a", big, "a", big, "a", big, "a", big, "a", big), EndHeaders: true, EndStream: true})
		}, frameAnswer{status: "431"}},
		{"no message", headers(true, ":method", "POST", ":scheme", "http", ":path", "/protos.Pitaya/Call", "content-type", "application/grpc"), frameAnswer{status: "13"}},
		{"trailers without a message", func(c *frameClient) {
			c.open(1)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("x", "y"), EndHeaders: true, EndStream: true})
		}, frameAnswer{status: "13"}},
		{"trailers after a message", func(c *frameClient) {
			c.open(1)
			c.WriteData(1, false, []byte(frameOf("abc")))
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("x", "y"), EndHeaders: true, EndStream: true})
		}, frameAnswer{status: "0", body: frameOf("abc")}},
		{"trailers after a refusal", func(c *frameClient) {
			c.open(1)
			c.WriteData(1, false, []byte("\x07"+frameOf("abc")))
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("x", "y"), EndHeaders: true, EndStream: true})
		}, frameAnswer{status: "13"}},
		{"padding and priority", func(c *frameClient) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.request(), EndHeaders: true, PadLength: 9, Priority: http2.PriorityParam{StreamDep: 7, Weight: 3}})
			c.WriteDataPadded(1, false, []byte(frameOf("abc"))[:4], make([]byte, 200))
			c.WriteDataPadded(1, true, []byte(frameOf("abc"))[4:], make([]byte, 1))
		}, frameAnswer{status: "0", body: frameOf("abc")}},
		{"headers in pieces", func(c *frameClient) {
			b := c.request()
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:1]})
			c.WriteContinuation(1, false, b[1:3])
			c.WriteContinuation(1, true, b[3:])
			c.WriteData(1, true, []byte(frameOf("abc")))
		}, frameAnswer{status: "0", body: frameOf("abc")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dialFrames(t, to)
			tt.send(c)
			if got := c.await(1); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			c.well(3)
		})
	}
}

// TestGRPCHostileStreams opens more streams than are allowed, and ends others at once: those that were opened in turn are
// answered.
func TestGRPCHostileStreams(t *testing.T) {
	t.Parallel()
	const most = 3
	replies := make(chan func([]byte), most)
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		if string(body) == "wait" {
			replies <- reply
		} else {
			reply(body)
		}
	}}, func(tr *pitaya.GRPCTransport) { pitaya.SetGRPCStreams(tr, most) })
	c := dialFrames(t, to)
	for i := range uint32(most) {
		c.call(2*i+1, "wait")
	}
	c.call(7, "abc")
	if a := c.await(7); a.reset != http2.ErrCodeRefusedStream {
		t.Errorf("one more: %+v", a)
	}
	for i := range uint32(most) {
		must(t, c.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	c.well(9)
	for range most {
		(<-replies)([]byte("late"))
	}
	c.well(11)
}

// TestGRPCRapidReset opens streams and ends them at once, whose calls the handler has not answered.
func TestGRPCRapidReset(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	hold := make(chan struct{})
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		calls.Add(1)
		go func() { <-hold; reply(body) }()
	}}, nil)
	c := dialFrames(t, to)
	n := uint32(pitaya.GRPCMaxHandling + 1000)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			if c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.request(), EndHeaders: true}) != nil ||
				c.WriteData(2*i+1, true, []byte(frameOf(""))) != nil || c.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				return
			}
		}
		c.call(2*n+1, "")
	}()
	a := c.await(2*n + 1)
	<-sent
	if a.status != "8" {
		t.Errorf("one more: %+v", a)
	}
	if n := calls.Load(); n != pitaya.GRPCMaxHandling {
		t.Errorf("%d calls were handled", n)
	}
	// Others are not concerned.
	got := goCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: realTime}), to, "x")
	eventually(t, func() bool { return calls.Load() == pitaya.GRPCMaxHandling+1 })
	close(hold)
	if r := <-got; string(r.body) != "x" || r.err != nil {
		t.Errorf("%q, %v", r.body, r.err)
	}
	eventually(t, func() bool { // and here it ends when the handler has answered
		n++
		c.call(2*n+1, "")
		return c.await(2*n+1).status == "0"
	})
}

// TestGRPCFlowControl reads an answer with windows that open little by little.
func TestGRPCFlowControl(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789", 20_000)
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { reply([]byte(body)) }}, nil)
	c := dialFrames(t, to, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.open(1)
	c.call(3, "") // which another stream must not hold up
	must(t, c.WriteData(1, true, []byte(frameOf(""))))
	var got [4]string
	window, stream := 65535, 0 // what this side has allowed, of which nothing was used
	must(t, c.WriteWindowUpdate(3, 10))
	stream += 10
	step := 1000
	for got[3] != frameOf(body) {
		f, err := c.ReadFrame()
		must(t, err)
		d, ok := f.(*http2.DataFrame)
		if !ok {
			continue
		}
		if d.StreamID != 3 {
			t.Fatalf("data on the stream %d, whose window is closed", d.StreamID)
		}
		n := len(d.Data())
		got[3] += string(d.Data())
		if window, stream = window-n, stream-n; window < 0 || stream < 0 {
			t.Fatalf("%d bytes, beyond the window", n)
		}
		if stream == 0 {
			if got[3] == frameOf(body)[:10] { // by the settings, for all streams
				must(t, c.WriteRSTStream(1, http2.ErrCodeCancel), c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
				stream += 5
				continue
			}
			step *= 2
			must(t, c.WriteWindowUpdate(3, uint32(step)))
			stream += step
		}
		if window < 1000 {
			must(t, c.WriteWindowUpdate(0, 1000))
			window += 1000
		}
	}
	if a := c.await(3); a.status != "0" {
		t.Errorf("%+v", a)
	}
}

// TestGRPCZeroWindow: an answer that the peer does not take is given up, and the connection stays.
func TestGRPCZeroWindow(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
		pitaya.SetGRPCWriteTime(tr, 20*time.Millisecond)
	})
	c := dialFrames(t, to, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.call(1, "abc")
	if a := c.await(1); a.reset != http2.ErrCodeInternal || a.body != "" {
		t.Errorf("%+v", a)
	}
	must(t, c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}))
	c.well(3)
}

// TestGRPCReceiveWindow sends messages that are larger than the windows, within them, and data that nobody wants.
func TestGRPCReceiveWindow(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	t.Run("kept", func(t *testing.T) {
		c := dialFrames(t, to)
		body := frameOf(strings.Repeat("x", pitaya.GRPCMaxMessage))
		c.open(1)
		conn, stream := 65535, 0
		settled := false
		var ended bool
		for !ended {
			f, err := c.ReadFrame()
			must(t, err)
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if n, ok := f.Value(http2.SettingInitialWindowSize); ok {
					stream, settled = int(n), true
				}
			case *http2.WindowUpdateFrame:
				if f.StreamID == 0 {
					conn += int(f.Increment)
				} else {
					stream += int(f.Increment)
				}
			case *http2.MetaHeadersFrame:
				t.Fatalf("answered before the end: %v", f)
			}
			for settled && min(conn, stream) > 0 && !ended {
				n := min(conn, stream, 16<<10, len(body))
				ended = n == len(body)
				must(t, c.WriteData(1, ended, []byte(body[:n])))
				body, conn, stream = body[n:], conn-n, stream-n
			}
		}
		must(t, c.WriteWindowUpdate(0, 1<<30), c.WriteWindowUpdate(1, 1<<30))
		if a := c.await(1); a.status != "0" || len(a.body) != pitaya.GRPCMaxMessage+pitaya.GRPCFrameHeader {
			t.Errorf("status %q, %d bytes", a.status, len(a.body))
		}
	})
	t.Run("after a refusal", func(t *testing.T) {
		// What is sent on streams that have ended opens the window of the connection again.
		c := dialFrames(t, to)
		c.open(1)
		must(t, c.WriteData(1, false, []byte("\x07\x00\x00\x00\x00")))
		if a := c.await(1); a.status != "13" {
			t.Errorf("%+v", a)
		}
		for range 200 {
			must(t, c.WriteData(1, false, make([]byte, 16<<10)))
		}
		c.well(3)
	})
	t.Run("beyond the message", func(t *testing.T) {
		// What is too much is neither kept nor waited for.
		c := dialFrames(t, to)
		out := new(bytes.Buffer)
		f := http2.NewFramer(out, nil)
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.request(), EndHeaders: true})
		f.WriteData(1, false, []byte("\x00\x00\x40\x00\x00"))
		for range 300 {
			f.WriteData(1, false, make([]byte, 16<<10))
		}
		written := make(chan struct{})
		go func() { defer close(written); c.conn.Write(out.Bytes()) }()
		if a := c.await(1); a.status != "13" {
			t.Errorf("%+v", a)
		}
		<-written
		c.well(3)
	})
}

// TestGRPCPings: pings and settings are acknowledged, as long as somebody reads that.
func TestGRPCPings(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	t.Run("answered", func(t *testing.T) {
		c := dialFrames(t, to)
		must(t, c.WritePing(false, [8]byte{1, 2, 3}), c.WriteSettings())
		acks := 0
		for pong := false; !pong || acks < 2; {
			f, err := c.ReadFrame()
			must(t, err)
			switch f := f.(type) {
			case *http2.PingFrame:
				pong = f.IsAck() && f.Data == [8]byte{1, 2, 3}
			case *http2.SettingsFrame:
				if f.IsAck() {
					acks++
				}
			}
		}
	})
	t.Run("of one that does not read", func(t *testing.T) {
		c := dialFrames(t, to)
		var pings bytes.Buffer
		f := http2.NewFramer(&pings, nil)
		for range 1000 {
			f.WritePing(false, [8]byte{})
		}
		must(t, c.conn.SetDeadline(time.Now().Add(realTime)))
		for {
			if _, err := c.conn.Write(pings.Bytes()); err != nil {
				if isTimeout(err) || errors.Is(err, context.DeadlineExceeded) {
					t.Error("the connection stays open")
				}
				return
			}
		}
	})
}

// TestGRPCUnreadRefusals: a peer that is refused without reading is ended, before what it is told fills the memory.
func TestGRPCUnreadRefusals(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	c := dialFrames(t, to)
	must(t, c.conn.SetDeadline(time.Now().Add(realTime)))
	for stream := uint32(1); ; stream += 2 {
		b := c.block(":method", "POST", ":scheme", "http", ":path", "/nothing", "content-type", "application/grpc")
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b, EndHeaders: true, EndStream: true}); err != nil {
			if isTimeout(err) {
				t.Error("the connection stays open")
			}
			return
		}
	}
}

// TestGRPCTableSize uses a table of HPACK that is smaller than usual.
func TestGRPCTableSize(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	c := dialFrames(t, to)
	c.well(1)
	c.well(3)
	c.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(0)
	must(t, c.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	c.well(5)
	c.well(7)
	must(t, c.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 1 << 20}))
	c.well(9)
}

// TestGRPCGoAway: a server that drains tells when, answers what came before, and closes the connection then.
func TestGRPCGoAway(t *testing.T) {
	t.Parallel()
	replies := make(chan func([]byte), 1)
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { replies <- reply }}, nil)
	c := dialFrames(t, to)
	c.call(1, "")
	reply := <-replies
	must(t, srv.Drain(t.Context()))
	var lasts []uint32
	for len(lasts) < 2 {
		f, err := c.ReadFrame()
		must(t, err)
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			lasts = append(lasts, f.LastStreamID)
			if len(lasts) == 1 { // in time: it is answered, if only by a refusal
				c.call(3, "")
			}
		case *http2.PingFrame:
			must(t, c.WritePing(true, f.Data))
		}
	}
	if lasts[0] != 1<<31-1 || lasts[1] != 3 {
		t.Errorf("the last streams are %d", lasts)
	}
	c.call(5, "") // too late: nothing is done with it
	reply([]byte("abc"))
	if a := c.await(1); a.status != "0" || a.body != frameOf("abc") {
		t.Errorf("%+v", a)
	}
	if a := c.await(5); !a.closed || a.status != "" {
		t.Errorf("the stream that came too late: %+v", a)
	}
	if len(replies) > 0 {
		t.Error("it was handled")
	}
}
