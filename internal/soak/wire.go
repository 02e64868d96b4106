package main

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/websocket"

	"github.com/pitaya-go/pitaya"
)

// The bots' side of the protocol. It is not the Client of the library, which forgives what nobody is to see: here each
// packet is looked at.

const (
	wireTimeout  = 15 * time.Second // for the handshake, and for a write
	maxWirePack  = 1 << 22
	bufferedRead = 1 << 10
)

// A wire is one connection after its handshake. Read is for one goroutine, and Write for one; Close is for any.
type wire struct {
	conn   net.Conn // what Read and Write work on; a WebSocket is one too
	raw    net.Conn // below it
	in     *bufio.Reader
	answer pitaya.HandshakeResponse
	closed sync.Once
}

// A hello is what a bot says when it connects.
type hello struct {
	Inflate, Drain bool
	Resume         *resumeAsk // nil: not resumable
}

type resumeAsk struct {
	Token    string `json:"token,omitempty"`
	Received int    `json:"received"`
}

// dialWire connects and does the handshake, up to the acknowledgement.
func dialWire(ctx context.Context, addr string, ws bool, h hello) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, wireTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	w := &wire{conn: raw, raw: raw}
	if ws {
		cfg, err := websocket.NewConfig("ws://"+addr+"/", "http://"+addr+"/")
		if err != nil {
			raw.Close()
			return nil, err
		}
		c, err := websocket.NewClient(cfg, raw)
		if err != nil {
			raw.Close()
			return nil, err
		}
		c.PayloadType, c.MaxPayloadBytes = websocket.BinaryFrame, maxWirePack
		w.conn = c
	}
	w.in = bufio.NewReaderSize(w.conn, bufferedRead)
	if err := w.handshake(h); err != nil {
		raw.Close()
		return nil, err
	}
	return w, nil
}

func (w *wire) handshake(h hello) error {
	features := []string{}
	if h.Inflate {
		features = append(features, pitaya.FeatureInflate)
	}
	if h.Drain {
		features = append(features, pitaya.FeatureDrain)
	}
	user := map[string]any{}
	if h.Resume != nil {
		user["resume"] = h.Resume
	}
	body, err := json.Marshal(map[string]any{"sys": map[string]any{"platform": "soak", "features": features}, "user": user})
	if err != nil {
		return err
	}
	if err := w.Write(appendPacket(nil, pitaya.PacketHandshake, body)); err != nil {
		return err
	}
	for {
		p, err := w.Read()
		if err != nil {
			return err
		}
		switch p.Type {
		case pitaya.PacketHeartbeat:
			continue
		case pitaya.PacketHandshake:
		default:
			return fmt.Errorf("handshake answered by a packet of type %v", p.Type)
		}
		b := p.Body
		if len(b) > 0 && b[0] != '{' {
			z, err := zlib.NewReader(bytes.NewReader(b))
			if err != nil {
				return fmt.Errorf("answer to the handshake: %w", err)
			}
			if b, err = io.ReadAll(io.LimitReader(z, 1<<20)); err != nil {
				return fmt.Errorf("answer to the handshake: %w", err)
			}
		}
		if err := json.Unmarshal(b, &w.answer); err != nil {
			return fmt.Errorf("answer to the handshake: %w", err)
		}
		if w.answer.Code != 200 {
			return fmt.Errorf("handshake refused: %d %s", w.answer.Code, w.answer.Msg)
		}
		return w.Write(appendPacket(nil, pitaya.PacketHandshakeAck, nil))
	}
}

// Read returns the next packet, whose body is the caller's.
func (w *wire) Read() (pitaya.Packet, error) { return pitaya.ReadPacket(w.in, maxWirePack) }

// Write writes whole packets.
func (w *wire) Write(b []byte) error {
	if err := w.raw.SetWriteDeadline(time.Now().Add(wireTimeout)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}

// Close ends the connection: with a reset, if it is to be abrupt.
func (w *wire) Close(abrupt bool) {
	w.closed.Do(func() {
		if tcp, ok := w.raw.(*net.TCPConn); ok && abrupt {
			tcp.SetLinger(0)
		}
		w.raw.Close()
	})
}

// appendPacket appends a packet, which is small enough.
func appendPacket(dst []byte, t pitaya.PacketType, body []byte) []byte {
	b, err := pitaya.AppendPacket(dst, t, body)
	if err != nil {
		panic(err)
	}
	return b
}

// appendMessage appends a message in its packet.
func appendMessage(dst []byte, m pitaya.Message) []byte {
	body, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		panic(err)
	}
	return appendPacket(dst, pitaya.PacketData, body)
}

// appendHeartbeat appends a heartbeat, with the count of pushes if there is one.
func appendHeartbeat(dst []byte, resumable bool, received int) []byte {
	if !resumable {
		return appendPacket(dst, pitaya.PacketHeartbeat, nil)
	}
	return appendPacket(dst, pitaya.PacketHeartbeat, binary.BigEndian.AppendUint32(nil, uint32(received)))
}
