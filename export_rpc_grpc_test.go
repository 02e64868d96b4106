package pitaya

import (
	"io"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	GRPCMaxMessage  = grpcMaxMessage
	GRPCMaxStreams  = grpcMaxStreams
	GRPCFrameHeader = grpcFrameHeader
	GRPCMaxWaste    = grpcMaxWaste
	GRPCMaxHandling = grpcMaxHandling
)

func GRPCAddress(own string, metadata map[string]string) string { return grpcAddress(own, metadata) }

func AppendGRPCFrame(dst, message []byte) ([]byte, error) { return appendGRPCFrame(dst, message) }

// ReadGRPCMessage also returns the status code of an error, 0 for errors that are none.
func ReadGRPCMessage(r io.Reader, encoding string) ([]byte, uint32, error) {
	b, err := readGRPCMessage(r, encoding)
	if s, ok := err.(*grpcStatus); ok {
		return b, uint32(s.Code), err
	}
	return b, 0, err
}

// ReadGRPCResponse also returns the status code of an error, 0 for errors that are none.
func ReadGRPCResponse(res *http.Response) ([]byte, uint32, error) {
	b, err := readGRPCResponse(res)
	if s, ok := err.(*grpcStatus); ok {
		return b, uint32(s.Code), err
	}
	return b, 0, err
}

func GRPCTimeout(d time.Duration) string               { return grpcTimeout(d) }
func ParseGRPCTimeout(s string) (time.Duration, error) { return parseGRPCTimeout(s) }
func EncodeGRPCMessage(s string) string                { return encodeGRPCMessage(s) }
func DecodeGRPCMessage(s string) string                { return decodeGRPCMessage(s) }
func GRPCNoticeAnswer(kind NoticeKind, answer []byte) error {
	return grpcNoticeAnswer(kind, answer)
}
func ProtoString(b []byte, field int32) (string, error) {
	return protoString(b, protowire.Number(field))
}

// SetGRPCStreams bounds the calls under way on one connection to a transport.
func SetGRPCStreams(t *GRPCTransport, n int) { t.server.limits.Streams = n }

// SetGRPCTimes sets how long a transport waits for the preface and for the message of a request, how long a connection may
// be quiet before the peer is asked for a sign of life, and how long that may take.
func SetGRPCTimes(t *GRPCTransport, read, ping, pong time.Duration) {
	t.server.limits.Read, t.server.limits.Ping, t.server.limits.Pong = read, ping, pong
}

// SetGRPCWriteTime sets how long a peer may take to accept an answer.
func SetGRPCWriteTime(t *GRPCTransport, d time.Duration) { t.server.limits.Write = d }

// GRPCServed returns the number of connections to a transport.
func GRPCServed(t *GRPCTransport) int {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	return len(t.server.conns)
}
func SetGRPCProbe(t *GRPCTransport, every, d time.Duration) {
	t.client.keepAlive, t.client.pingTimeout = every, d
}

// SetGRPCUnanswered bounds the calls to one server whose answers nobody wants.
func SetGRPCUnanswered(t *GRPCTransport, n int) { t.client.maxUnanswered = n }

// GRPCConns returns the number of connections that may take calls to a server, and the number of servers known.
func GRPCConns(t *GRPCTransport, id string) (conns, peers int) {
	t.client.mu.Lock()
	p := t.client.peers[id]
	peers = len(t.client.peers)
	t.client.mu.Unlock()
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		conns = len(p.conns)
	}
	return conns, peers
}
