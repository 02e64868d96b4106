package pitaya_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/pitaya-go/pitaya"
)

// FuzzGRPCServer sends anything to the serving side, after the preface and settings or instead of them. Whatever it is,
// the connection ends when its peer has ended, and others are served as before.
func FuzzGRPCServer(f *testing.F) {
	srv, to := openGRPC(f, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		if len(body) > 0 && body[0] == 'g' {
			go reply(body)
		} else {
			reply(body)
		}
	}}, nil)
	caller := grpcCaller(f, pitaya.GRPCConfig{RequestTimeout: realTime})
	for _, seed := range grpcFuzzSeeds() {
		f.Add(true, seed)
	}
	f.Add(false, []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(false, []byte(http2.ClientPreface))
	f.Fuzz(func(t *testing.T, begun bool, in []byte) {
		nc, err := net.Dial("tcp", addrOf(to))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(realTime))
		if begun {
			in = append([]byte(http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), in...)
		}
		nc.Write(in) // an error means that the server has had enough
		nc.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
			t.Error("the connection stays open")
		}
		nc.Close()
		if got, err := doCall(context.Background(), caller, to, "well"); got != "well" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		eventually(t, func() bool { return pitaya.GRPCServed(srv) <= 1 })
	})
}

// grpcFuzzSeeds are what clients may say after their settings.
func grpcFuzzSeeds() [][]byte {
	var seeds [][]byte
	add := func(write func(f *http2.Framer, block func(fields ...string) []byte)) {
		var out, text bytes.Buffer
		enc := hpack.NewEncoder(&text)
		framer := http2.NewFramer(&out, nil)
		framer.AllowIllegalWrites = true
		write(framer, func(fields ...string) []byte {
			text.Reset()
			for i := 0; i < len(fields); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return bytes.Clone(text.Bytes())
		})
		seeds = append(seeds, out.Bytes())
	}
	request := []string{":method", "POST", ":scheme", "http", ":path", "/protos.Pitaya/Call", ":authority", "x",
		"content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1S"}
	add(func(f *http2.Framer, block func(...string) []byte) {
		for _, stream := range []uint32{1, 3, 5} {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(request...), EndHeaders: true})
			f.WriteData(stream, stream == 5, []byte(frameOf("go")))
		}
		f.WriteRSTStream(3, http2.ErrCodeCancel)
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("x", "y"), EndHeaders: true, EndStream: true})
	})
	add(func(f *http2.Framer, block func(...string) []byte) {
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}, http2.Setting{ID: http2.SettingHeaderTableSize})
		b := block(request...)
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: b[:9], PadLength: 3})
		f.WriteContinuation(7, true, b[9:])
		f.WriteDataPadded(7, true, []byte(frameOf("answer in pieces")), make([]byte, 7))
		f.WriteWindowUpdate(7, 4)
		f.WriteWindowUpdate(0, 1<<20)
		f.WriteWindowUpdate(7, 1<<20)
	})
	add(func(f *http2.Framer, block func(...string) []byte) {
		f.WriteSettingsAck()
		f.WritePing(false, [8]byte{1})
		f.WritePing(true, [8]byte{2})
		f.WritePriority(9, http2.PriorityParam{StreamDep: 3, Weight: 9})
		f.WriteRawFrame(0x42, 0, 0, []byte("unknown"))
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 9, BlockFragment: block(":method", "GET", ":scheme", "http", ":path", "/"), EndHeaders: true, EndStream: true})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 11, BlockFragment: block(append(request, "content-length", "7")...), EndHeaders: true})
		f.WriteData(11, true, []byte(frameOf("ab")))
		f.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
	})
	add(func(f *http2.Framer, block func(...string) []byte) {
		for i, path := range []string{"/protos.Pitaya/PushToUser", "/grpc.health.v1.Health/Check", "/none"} {
			stream := uint32(2*i + 1)
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(":method", "POST", ":scheme", "http", ":path", path, "content-type", "application/grpc"), EndHeaders: true})
			f.WriteData(stream, true, []byte(frameOf("\x12\x01u")))
		}
	})
	return seeds
}
