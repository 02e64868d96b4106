package load

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// A server is what the answer to a handshake says, and what follows from it for all connections that got the same one.
type server struct {
	body      []byte // of the answer
	heartbeat time.Duration
	dict      *pitaya.Dictionary
	protobuf  bool // error payloads are protobuf
}

// servers decodes answers, and keeps the last one: the next connection gets the same one as a rule.
type servers struct {
	mu   sync.Mutex
	last *server // the zero of it: none
}

// maxAnswer bounds in bytes what the answer to a handshake may be, inflated.
const maxAnswer = 4 << 20

func (s *servers) decode(body []byte) (*server, error) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last != nil && bytes.Equal(last.body, body) {
		return last, nil
	}
	plain := body
	if len(body) > 2 && body[0] == 0x78 && strings.IndexByte("\x01\x5e\x9c\xda", body[1]) >= 0 {
		m := pitaya.Message{Payload: body, Compressed: true}
		if err := m.Inflate(maxAnswer); err != nil {
			return nil, fmt.Errorf("handshake answer: %w", err)
		}
		plain = m.Payload
	}
	var r pitaya.HandshakeResponse
	if err := json.Unmarshal(plain, &r); err != nil {
		return nil, fmt.Errorf("%w: handshake answer: %v", pitaya.ErrProtocol, err)
	}
	if r.Code != 200 {
		return nil, &pitaya.HandshakeError{Code: r.Code, Msg: r.Msg}
	}
	dict, err := pitaya.NewDictionary(r.Sys.Dict)
	if err != nil {
		return nil, fmt.Errorf("%w: handshake answer: %w", pitaya.ErrProtocol, err)
	}
	srv := &server{body: bytes.Clone(body), dict: dict, protobuf: r.Sys.Serializer == pitaya.Protobuf{}.Name()}
	if h := r.Sys.Heartbeat; h > 0 {
		srv.heartbeat = time.Duration(min(max(h, 0.01), 1e6) * float64(time.Second))
	}
	s.mu.Lock()
	s.last = srv
	s.mu.Unlock()
	return srv, nil
}

// errorCode reads the code out of an error payload; what has none is "unreadable".
func (s *server) errorCode(payload []byte) string {
	var code string
	if s.protobuf {
		var e pb.Error
		if proto.Unmarshal(payload, &e) == nil {
			code = e.GetCode()
		}
	} else {
		var e struct{ Code string }
		if json.Unmarshal(payload, &e) == nil {
			code = e.Code
		}
	}
	if code == "" {
		return "unreadable"
	}
	return code
}

// helloPackets returns the packet of the handshake request.
func helloPacket(cfg *Config) ([]byte, error) {
	body := cfg.Handshake
	if body == nil {
		features := []string{pitaya.FeaturePushCodes, pitaya.FeatureDrain}
		if cfg.Inflate {
			features = append(features, pitaya.FeatureInflate)
		}
		var err error
		body, err = json.Marshal(map[string]any{"sys": map[string]any{
			"platform": runtime.GOOS, "libVersion": clientName, "clientBuildNumber": "", "clientVersion": "", "features": features,
		}})
		if err != nil {
			return nil, err
		}
	}
	return pitaya.AppendPacket(nil, pitaya.PacketHandshake, body)
}

// shake does the handshake on a connection. buf is for reading and may be replaced by a larger one; what has come behind
// the answer is its first n bytes.
func shake(conn net.Conn, hello []byte, s *servers, timeout time.Duration, buf []byte) (srv *server, in []byte, n int, err error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, buf, 0, err
	}
	if _, err := conn.Write(hello); err != nil {
		return nil, buf, 0, err
	}
	for {
		p, rest, err := pitaya.DecodePacket(buf[:n], maxAnswer)
		switch {
		case err == nil && p.Type == pitaya.PacketHandshake:
			srv, err := s.decode(p.Body)
			if err != nil {
				return nil, buf, 0, err
			}
			n = copy(buf, rest)
			if _, err := conn.Write(ackPacket[:]); err != nil {
				return nil, buf, 0, err
			}
			return srv, buf, n, conn.SetDeadline(time.Time{})
		case err == nil && p.Type == pitaya.PacketHeartbeat:
			n = copy(buf, rest)
			continue
		case err == nil && p.Type == pitaya.PacketKick:
			return nil, buf, 0, &kickedError{kickReason(p.Body)}
		case err == nil:
			return nil, buf, 0, fmt.Errorf("%w: %v packet before the handshake answer", pitaya.ErrProtocol, p.Type)
		case !isShort(err):
			return nil, buf, 0, err
		}
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		m, err := conn.Read(buf[n:])
		n += m
		if m == 0 && err != nil {
			return nil, buf, 0, err
		}
	}
}

var (
	ackPacket       = [4]byte{byte(pitaya.PacketHandshakeAck)}
	heartbeatPacket = [4]byte{byte(pitaya.PacketHeartbeat)}
)

// A kickedError is the end of a connection by a kick.
type kickedError struct{ Reason string }

func (e *kickedError) Error() string { return "kicked: " + e.Reason }

// kickReason reads the body of a kick packet.
func kickReason(body []byte) string {
	var kick struct{ Reason string }
	if len(body) == 0 || json.Unmarshal(body, &kick) != nil || kick.Reason == "" {
		return "no reason given"
	}
	return kick.Reason
}

// A template is a message up to its id.
type template struct {
	flag  byte
	hasID bool
	tail  []byte // route and payload
	err   error
}

// newTemplate encodes a message by the library's codec and cuts it where the id goes.
func newTemplate(t pitaya.MessageType, route string, payload []byte, d *pitaya.Dictionary) *template {
	b, err := pitaya.AppendMessage(nil, pitaya.Message{Type: t, Route: route, Payload: payload}, d)
	if err == nil && len(b)+10 > pitaya.MaxPacketSize {
		err = errors.New("the message fits into no packet")
	}
	if err != nil {
		return &template{err: err}
	}
	if t == pitaya.MessageRequest { // an id of 0 takes a byte
		return &template{flag: b[0], hasID: true, tail: b[2:]}
	}
	return &template{flag: b[0], tail: b[1:]}
}

// append appends a data packet with the message. The id of a notify is not used.
func (t *template) append(dst []byte, id uint64) []byte {
	at := len(dst)
	dst = append(dst, byte(pitaya.PacketData), 0, 0, 0, t.flag)
	if t.hasID {
		dst = binary.AppendUvarint(dst, id)
	}
	dst = append(dst, t.tail...)
	n := len(dst) - at - pitaya.PacketHeaderSize
	dst[at+1], dst[at+2], dst[at+3] = byte(n>>16), byte(n>>8), byte(n)
	return dst
}
