package pitaya_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// connModel says what a server must do with the packets of one client.
type connModel struct {
	state      int      // 0: start, 1: handshake, 2: working, 3: over
	answer     []string // the messages that the client must read, in order
	handshakes int      // the answers to handshakes, which may overtake messages
}

// fuzzPackets are the steps of a conversation. Each is one packet and what the
// model makes of it.
var fuzzPackets = []struct {
	name string
	data func(n uint64, arg []byte) []byte
	step func(m *connModel, n uint64, arg []byte)
}{
	{"handshake", func(uint64, []byte) []byte { return handshakeOnly }, func(m *connModel, _ uint64, _ []byte) {
		m.state = 1
		m.handshakes++
	}},
	{"ack", func(uint64, []byte) []byte { return handshakeAck }, func(m *connModel, _ uint64, _ []byte) {
		switch m.state {
		case 0:
			m.state = 3
		case 1:
			m.state = 2
		}
	}},
	{"request", func(n uint64, arg []byte) []byte { return appendRequest(nil, n, "fuzz.echo", arg) }, func(m *connModel, n uint64, arg []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d false %q", n, arg))
		}
	}},
	{"compressed request", func(n uint64, arg []byte) []byte {
		body := binary.AppendUvarint([]byte{0x10}, n)
		return packet(pitaya.PacketData, string(body)+"\x09fuzz.echo"+string(deflated(arg)))
	}, func(m *connModel, n uint64, arg []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d false %q", n, arg))
		}
	}},
	{"coded request", func(n uint64, arg []byte) []byte {
		body := binary.AppendUvarint([]byte{0x01}, n)
		return packet(pitaya.PacketData, string(body)+"\x00\x05"+string(arg))
	}, func(m *connModel, n uint64, arg []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d false %q", n, arg))
		}
	}},
	{"failing request", func(n uint64, arg []byte) []byte { return appendRequest(nil, n, "fuzz.fail", arg) }, func(m *connModel, n uint64, _ []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d true", n))
		}
	}},
	{"unknown route", func(n uint64, arg []byte) []byte { return appendRequest(nil, n, "no.such", arg) }, func(m *connModel, n uint64, _ []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d true", n))
		}
	}},
	{"response", func(n uint64, arg []byte) []byte {
		return packet(pitaya.PacketData, string(binary.AppendUvarint([]byte{0x04}, n))+string(arg))
	}, func(m *connModel, n uint64, _ []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("%d true", n))
		}
	}},
	{"notify", func(_ uint64, arg []byte) []byte { return appendRequest(nil, 0, "fuzz.echo", arg) }, func(m *connModel, _ uint64, _ []byte) { m.working() }},
	{"pushing notify", func(_ uint64, arg []byte) []byte { return appendRequest(nil, 0, "fuzz.push", arg) }, func(m *connModel, _ uint64, arg []byte) {
		if m.working() {
			m.answer = append(m.answer, fmt.Sprintf("push %q", arg))
		}
	}},
	{"heartbeat", func(uint64, []byte) []byte { return []byte{3, 0, 0, 0} }, func(*connModel, uint64, []byte) {}},
	{"kick", func(_ uint64, arg []byte) []byte { return packet(pitaya.PacketKick, string(arg)) }, func(*connModel, uint64, []byte) {}},
	{"leave", func(uint64, []byte) []byte { return appendRequest(nil, 0, "fuzz.leave", nil) }, func(m *connModel, _ uint64, _ []byte) {
		if m.working() {
			m.state = 3
		}
	}},
	{"push from a client", func(_ uint64, arg []byte) []byte { return packet(pitaya.PacketData, "\x06\x01a"+string(arg)) }, violation},
	{"unknown type", func(uint64, []byte) []byte { return []byte{9, 0, 0, 0} }, violation},
	{"oversize", func(uint64, []byte) []byte { return []byte{4, 0xff, 0, 0} }, violation},
	{"empty data", func(uint64, []byte) []byte { return packet(pitaya.PacketData, "") }, violation},
	{"cut message", func(uint64, []byte) []byte { return packet(pitaya.PacketData, "\x00\x01") }, violation},
	{"bad compression", func(_ uint64, arg []byte) []byte { return packet(pitaya.PacketData, "\x12\x09fuzz.echo"+string(arg)) }, violation},
	{"unknown code", func(uint64, []byte) []byte { return packet(pitaya.PacketData, "\x03\xff\xff") }, violation},
	{"bad handshake", func(uint64, []byte) []byte { return packet(pitaya.PacketHandshake, "[") }, func(m *connModel, _ uint64, _ []byte) {
		m.handshakes++
		m.state = 3
	}},
}

// working reports whether data is welcome; where it is not, it is the end.
func (m *connModel) working() bool {
	if m.state != 2 {
		m.state = 3
		return false
	}
	return true
}

func violation(m *connModel, _ uint64, _ []byte) { m.state = 3 }

// FuzzConn has a client do what it likes, with packets cut anywhere, and checks
// the server against the model. script is read in threes: which packet, how
// much payload, and how far the stream is cut. A patient client reads all that
// it is owed before it sends the packet that ends its connection.
func FuzzConn(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 2, 9, 3, 3, 90, 0, 4, 7, 1, 5, 1, 0, 9, 2, 2}, false, true)
	f.Add([]byte{0, 0, 1, 1, 0, 1, 2, 255, 1, 2, 255, 1, 2, 0, 1, 12, 0, 0, 2, 1, 0}, true, true)
	for i := range fuzzPackets {
		for _, ws := range []bool{false, true} {
			f.Add([]byte{0, 0, 0, 1, 0, 0, 2, 5, 0, byte(i), 7, 2, 2, 5, 0}, ws, i%2 == 0)
			f.Add([]byte{0, 0, 0, 1, 0, 1, 3, 200, 0, byte(i), 0, 0, 0, 0, 0, byte(i), 9, 0}, ws, i%2 == 1)
			f.Add([]byte{byte(i), 7, 2}, ws, true)
		}
	}
	f.Fuzz(func(t *testing.T, script []byte, ws, patient bool) {
		if len(script) > 3*200 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzConn(t, script, ws, patient) })
	})
}

func fuzzConn(t *testing.T, script []byte, ws, patient bool) {
	kind := "mem"
	if ws {
		kind = "memws"
	}
	s, dial := startOn(t, kind, pitaya.Config{MailboxMessages: 7, Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "fuzz.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
			pitaya.HandleRaw(s, "fuzz.fail", func(context.Context, []byte) ([]byte, error) { panic("fuzz") }),
			pitaya.HandleRaw(s, "fuzz.push", func(ctx context.Context, b []byte) ([]byte, error) {
				return b, pitaya.SessionFromContext(ctx).Push(ctx, "onFuzz", b)
			}),
			pitaya.HandleRaw(s, "fuzz.leave", func(ctx context.Context, b []byte) ([]byte, error) {
				return b, pitaya.SessionFromContext(ctx).Close()
			}),
			s.SetDictionary(map[string]uint16{"conn.fuzz.echo": 5}))
	})
	c := dial()
	c.SetDeadline(time.Time{})
	var m connModel
	var stream, last []byte // last ends the connection
	var owed connModel      // before last
	cut := 0
	payload := bytes.Repeat([]byte("0123456789abcdef"), 300)
	for i := 0; i+3 <= len(script) && m.state != 3; i += 3 {
		p := fuzzPackets[int(script[i])%len(fuzzPackets)]
		n := uint64(i/3)*977 + 1 // ids of one byte and of more
		arg := payload[:int(script[i+1])*len(payload)/256]
		owed = m
		p.step(&m, n, arg)
		if m.state == 3 {
			last = p.data(n, arg)
		} else {
			stream = append(stream, p.data(n, arg)...)
			owed = m
		}
		cut += int(script[i+2])
	}
	if last != nil {
		// What is behind the end is nobody's business any more.
		last = appendRequest(last, 1, "fuzz.echo", nil)
	}
	if !patient {
		stream, last, owed = append(stream, last...), nil, connModel{}
	}
	write := func(b []byte) {
		for step := max(1, cut); len(b) > 0; b = b[min(len(b), step):] {
			if _, err := c.Write(b[:min(len(b), step)]); err != nil {
				return
			}
		}
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() { write(stream) })
	var got []string
	handshakes := 0
	take := func(p pitaya.Packet) {
		if p.Type == pitaya.PacketHandshake {
			if handshakes++; handshakes > m.handshakes {
				t.Fatalf("%d answers to %d handshakes", handshakes, m.handshakes)
			}
			return
		}
		got = append(got, fuzzText(t, p))
		if n := len(got); n > len(m.answer) || got[n-1] != m.answer[n-1] {
			t.Fatalf("answer %d is %.80s, the model says %.80q", n, got[n-1], m.answer[min(n-1, len(m.answer)):])
		}
	}
	for len(got) < len(owed.answer) || handshakes < owed.handshakes {
		take(c.next())
	}
	switch {
	case m.state == 3:
		if patient {
			writing.Wait() // what needs no answer may still be on its way
		}
		writing.Go(func() { write(last) })
		list, err := c.packets()
		if err != nil {
			t.Fatalf("the stream ends with %v", err)
		}
		for _, p := range list {
			take(p)
		}
		// Who breaks the protocol behind unanswered requests may lose the
		// answers.
		if patient && (len(got) != len(m.answer) || handshakes != m.handshakes) {
			t.Fatalf("%d answers and %d handshakes, the model says %d and %d", len(got), handshakes, len(m.answer), m.handshakes)
		}
	case patient:
		c.silent(time.Millisecond)
	}
	c.Close()
	synctest.Wait()
	st := s.Stats()
	if st.Open != 0 || st.Sessions != 0 || st.Requests != st.Answered+st.Failed+st.Unanswerable+st.Lost {
		t.Fatalf("%+v", st)
	}
}

// fuzzText is a packet as the model writes it.
func fuzzText(t *testing.T, p pitaya.Packet) string {
	m, err := pitaya.DecodeMessage(p.Body, nil)
	switch {
	case p.Type != pitaya.PacketData || err != nil:
		t.Fatalf("packet %v: %v", p.Type, err)
	case m.Type == pitaya.MessagePush:
		return fmt.Sprintf("push %q", m.Payload)
	case m.Err:
		return fmt.Sprintf("%d true", m.ID)
	}
	return fmt.Sprintf("%d false %q", m.ID, m.Payload)
}

// deflated is b as zlib, however little that gains.
func deflated(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}
