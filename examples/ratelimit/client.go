package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/pitaya-go/pitaya"
)

// hurry is the client. It speaks the protocol itself, packet by packet, to show what is on the wire: [pitaya.Client] waits for
// the answer of each request, or makes them from several goroutines, where no order is to be seen.
func hurry(ctx context.Context, addr string, burst int, pause time.Duration, out io.Writer) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // which ends a read
	in := bufio.NewReader(conn)

	// The handshake: who the client is, what the server says, and that it was understood.
	hello, err := pitaya.AppendPacket(nil, pitaya.PacketHandshake, []byte(`{"sys":{"platform":"example"}}`))
	if err == nil {
		_, err = conn.Write(hello)
	}
	if err == nil {
		_, err = pitaya.ReadPacket(in, 0)
	}
	if err != nil {
		return err
	}
	send, err := pitaya.AppendPacket(nil, pitaya.PacketHandshakeAck, nil)
	if err != nil {
		return err
	}

	id := 0
	for range 2 {
		for range burst {
			id++
			if send, err = appendRequest(send, id); err != nil {
				return err
			}
		}
		if _, err := conn.Write(send); err != nil { // all at once
			return err
		}
		send = send[:0]
		for answers := 0; answers < burst; {
			p, err := pitaya.ReadPacket(in, 0)
			if err != nil {
				return fmt.Errorf("the server is gone: %w", err)
			}
			switch p.Type {
			case pitaya.PacketData:
				answers++
				text, err := describe(p.Body)
				if err != nil {
					return err
				}
				fmt.Fprintln(out, text)
			case pitaya.PacketKick: // the last one
				fmt.Fprintf(out, "kicked: %s\n", p.Body)
				return nil
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// appendRequest appends a request, packet and all.
func appendRequest(b []byte, id int) ([]byte, error) {
	m, err := pitaya.AppendMessage(nil, pitaya.Message{
		Type: pitaya.MessageRequest, ID: uint64(id), Route: "game.dice.roll", Payload: strconv.AppendInt(nil, int64(id), 10),
	}, nil)
	if err != nil {
		return nil, err
	}
	return pitaya.AppendPacket(b, pitaya.PacketData, m)
}

// describe puts an answer into words. That of a request which was refused is an error like those of handlers, and comes in its
// turn.
func describe(body []byte) (string, error) {
	m, err := pitaya.DecodeMessage(body, nil)
	if err != nil {
		return "", err
	}
	if !m.Err {
		return fmt.Sprintf("request %d: rolled %s", m.ID, m.Payload), nil
	}
	var refusal struct{ Code, Msg string }
	if err := json.Unmarshal(m.Payload, &refusal); err != nil {
		return "", err
	}
	return fmt.Sprintf("request %d: %s, %s", m.ID, refusal.Code, refusal.Msg), nil
}
