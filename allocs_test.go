package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// TestCodecAllocs: packets and messages of all types are written and read without allocations, into a buffer that is there.
func TestCodecAllocs(t *testing.T) {
	payload := []byte(`{"name":"bench","content":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}`)
	for _, typ := range []pitaya.PacketType{
		pitaya.PacketHandshake, pitaya.PacketHandshakeAck, pitaya.PacketHeartbeat, pitaya.PacketData, pitaya.PacketKick,
	} {
		buf := make([]byte, 0, 256)
		packet, err := pitaya.AppendPacket(nil, typ, payload)
		if err != nil {
			t.Fatal(err)
		}
		wantAllocs(t, fmt.Sprint("AppendPacket ", typ), 0, func() {
			if _, err := pitaya.AppendPacket(buf, typ, payload); err != nil {
				t.Fatal(err)
			}
		})
		wantAllocs(t, fmt.Sprint("DecodePacket ", typ), 0, func() {
			if p, _, err := pitaya.DecodePacket(packet, 0); err != nil || p.Type != typ {
				t.Fatal(p, err)
			}
		})
	}
	d := newDictionary(t, map[string]uint16{"room.chat.say": 7})
	for _, m := range []pitaya.Message{
		{Type: pitaya.MessageRequest, ID: 300, Route: "room.chat.say", Payload: payload},
		{Type: pitaya.MessageNotify, Route: "room.chat.say", Payload: payload},
		{Type: pitaya.MessageResponse, ID: 300, Payload: payload},
		{Type: pitaya.MessageResponse, ID: 300, Payload: payload, Err: true},
		{Type: pitaya.MessagePush, Route: "room.chat.say", Payload: payload},
	} {
		for _, dict := range []*pitaya.Dictionary{nil, d} {
			name := fmt.Sprintf("%v, error %v, dictionary %v", m.Type, m.Err, dict != nil)
			buf := make([]byte, 0, 256)
			in, err := pitaya.AppendMessage(nil, m, dict)
			if err != nil {
				t.Fatal(err)
			}
			wantAllocs(t, "AppendMessage "+name, 0, func() {
				if _, err := pitaya.AppendMessage(buf, m, dict); err != nil {
					t.Fatal(err)
				}
			})
			wantAllocs(t, "DecodeMessage "+name, 0, func() {
				if got, err := pitaya.DecodeMessage(in, dict); err != nil || got.Type != m.Type {
					t.Fatal(got, err)
				}
			})
		}
	}
}

// allocsPerRequest counts what the server allocates for a request: over a connection in memory, which is waited for, with a
// client that allocates nothing.
func allocsPerRequest(t *testing.T, c net.Conn, request []byte, answer int) float64 {
	t.Helper()
	in := make([]byte, answer)
	return testing.AllocsPerRun(2000, func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRequestAllocs bounds what the library allocates for a request.
func TestRequestAllocs(t *testing.T) {
	s := startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
		err := pitaya.HandleRaw(s, "echo.raw", func(_ context.Context, in []byte) ([]byte, error) { return in, nil })
		if err == nil {
			err = pitaya.Handle(s, "echo.json", func(_ context.Context, in *benchMessage) (*benchMessage, error) { return in, nil })
		}
		if err == nil {
			err = s.Register(&BenchEcho{}, pitaya.WithName("reflected"))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	payload := []byte(benchPayload(64))
	jsonAllocs := testing.AllocsPerRun(2000, func() {
		var m benchMessage
		if err := json.Unmarshal(payload, &m); err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(&m); err != nil {
			t.Fatal(err)
		}
	})
	for _, tt := range []struct {
		route string
		most  float64
	}{
		{"echo.raw", 3},
		{"echo.json", jsonAllocs + 4},
		{"reflected.JSON", jsonAllocs + 4},
	} {
		c := benchDial(t, s, nil, "mem")
		request := benchRequest(t, tt.route, string(payload))
		body, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageResponse, ID: 1, Payload: payload}, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pitaya.AppendPacket(nil, pitaya.PacketData, body)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: got %q, %v", tt.route, got, err)
		}
		n := allocsPerRequest(t, c, request, len(want))
		t.Logf("%s: %v allocations; JSON itself needs %v", tt.route, n, jsonAllocs)
		if n > tt.most && !raceDetector {
			t.Errorf("%s: %v allocations for a request, at most %v are allowed", tt.route, n, tt.most)
		}
	}
}
