package pitaya_test

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A clientOutcome is what a client has made of a stream.
type clientOutcome struct {
	Refused bool // the handshake
	Pushes  []string
	Answers [2]string // of requests 1 and 2
	Err     error     // the kind of it
}

// FuzzClient has a server send anything: as the answer to the handshake if hello says so, and behind a good one if not.
// What the client makes of it must not depend on how the stream is cut, and must be what the packets and messages of it say.
func FuzzClient(f *testing.F) {
	const hello = `{"code":200,"sys":{"dict":{"onPush":2},"heartbeat":30,"serializer":"json"}}`
	for _, s := range []string{
		"", "\x03\x00\x00\x00", "\x02\x00\x00\x00", "\x05\x00\x00\x0e{\"reason\":\"x\"}", "\x05\x00\x00\x00", "\x04\x00\x00\x03\x04\x01a\x04\x00\x00\x03\x04\x02b",
		"\x04\x00\x00\x04\x24\x01{}\x04\x00\x00\x03\x04\x01a", "\x04\x00\x00\x04\x06\x01ax\x04\x00\x00\x04\x07\x00\x02y", "\x04\x00\x00\x03\x04\x09a",
		"\x04\x00\x00\x04\x14\x01xx", "\x04\x00\x00\x05\x16\x01axx", "\x04\x00\x00\x05\x00\x01\x01ax", "\x09\x00\x00\x00", "\x04\xff\xff\xff", "\x01\x00\x00\x02{}",
	} {
		f.Add([]byte(s), false, byte(3))
		f.Add(slices.Concat(packet(pitaya.PacketHandshake, hello), []byte(s)), true, byte(1))
	}
	for _, s := range []string{"{}", `{"code":400,"msg":"no"}`, `{"code":200,"sys":{"dict":{"":1}}}`, `{"code":200,"sys":{"serializer":"x","heartbeat":-1e300}}`, "\x78\x9c"} {
		f.Add(packet(pitaya.PacketHandshake, s), true, byte(2))
	}
	dict := newDictionary(f, map[string]uint16{"onPush": 2})
	f.Fuzz(func(t *testing.T, stream []byte, raw bool, cut byte) {
		if len(stream) > 1<<12 {
			return
		}
		var whole, pieces clientOutcome
		synctest.Test(t, func(t *testing.T) { whole = playClient(t, stream, raw, len(stream)+1, hello) })
		synctest.Test(t, func(t *testing.T) { pieces = playClient(t, stream, raw, 1+int(cut), hello) })
		if whole.Refused != pieces.Refused {
			t.Fatalf("whole: %+v, cut: %+v", whole, pieces)
		}
		if raw {
			return // what the dictionary is, is up to the answer
		}
		want, exact := modelClient(stream, dict)
		if exact && (!reflect.DeepEqual(whole, want) || !reflect.DeepEqual(pieces, want)) {
			t.Fatalf("whole: %+v, cut: %+v, want %+v", whole, pieces, want)
		}
	})
}

// playClient connects a client to a server that sends the stream, and closes.
func playClient(t *testing.T, stream []byte, raw bool, cut int, hello string) (out clientOutcome) {
	near, far := clientPair(t)
	defer far.Close()
	write := func(b []byte) {
		for ; len(b) > 0; b = b[min(len(b), cut):] {
			if _, err := far.Write(b[:min(len(b), cut)]); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // of the bubble: the pieces are read apart
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _, _ = io.Copy(io.Discard, far) }) // what the client sends
	begun := make(chan struct{})
	if raw {
		close(begun)
	} else {
		_, _ = far.Write(packet(pitaya.PacketHandshake, hello))
	}
	wg.Go(func() {
		<-begun
		write(stream)
		far.Close()
	})
	c, err := pitaya.NewClient(t.Context(), near, &pitaya.ClientConfig{
		OnAnyPush: func(route string, b []byte) { out.Pushes = append(out.Pushes, fmt.Sprintf("%s %q", route, b)) },
	})
	if err != nil {
		near.Close()
		return clientOutcome{Refused: true}
	}
	defer c.Close()
	if !raw {
		var asking sync.WaitGroup
		for i := range out.Answers {
			asking.Go(func() {
				b, err := c.RequestRaw(t.Context(), "r.r", nil)
				out.Answers[i] = answerText(b, err)
			})
			synctest.Wait()
		}
		close(begun)
		asking.Wait()
	}
	<-c.Done()
	synctest.Wait()
	out.Err = kindOf(c.Err())
	return out
}

// answerText is what became of a request. An error that is the end of the connection is "".
func answerText(b []byte, err error) string {
	if e, ok := errors.AsType[*pitaya.Error](err); ok {
		return "error " + e.Code
	}
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%q", b)
}

// kindOf returns the sentinel that an end wraps.
func kindOf(err error) error {
	for _, kind := range []error{pitaya.ErrKicked, pitaya.ErrProtocol, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return err
}

// modelClient says what a client makes of a stream behind the handshake. It is not exact if something cannot be inflated:
// who it was for finds that out, and ends the connection while the reader reads on.
func modelClient(stream []byte, dict *pitaya.Dictionary) (out clientOutcome, exact bool) {
	exact = true
	inflated := func(m *pitaya.Message) bool {
		ok := m.Inflate(4<<20) == nil
		exact = exact && ok
		return ok
	}
	for {
		p, rest, err := pitaya.DecodePacket(stream, 0)
		switch {
		case err == io.ErrUnexpectedEOF:
			if out.Err = err; len(stream) == 0 {
				out.Err = io.EOF // between two packets
			}
			return out, exact
		case err != nil:
			out.Err = pitaya.ErrProtocol
			return out, exact
		case p.Type == pitaya.PacketKick:
			out.Err = pitaya.ErrKicked
			return out, exact
		}
		stream = rest
		if p.Type != pitaya.PacketData {
			continue // an ack too: the client knows how to part
		}
		m, err := pitaya.DecodeMessage(p.Body, dict)
		switch {
		case err != nil || m.Type == pitaya.MessageRequest || m.Type == pitaya.MessageNotify:
			out.Err = pitaya.ErrProtocol
			return out, exact
		case m.Type == pitaya.MessagePush:
			if inflated(&m) {
				out.Pushes = append(out.Pushes, fmt.Sprintf("%s %q", m.Route, m.Payload))
			}
		case m.ID == 1 || m.ID == 2:
			if at := &out.Answers[m.ID-1]; *at == "" {
				switch {
				case !inflated(&m):
				case m.Err:
					*at = "error " + pitaya.DecodeErrorPayload(pitaya.JSON{}, m.Payload).Code
				default:
					*at = fmt.Sprintf("%q", m.Payload)
				}
			}
		}
	}
}
