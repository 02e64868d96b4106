package load

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A loopConn answers the requests written to it, all at once, without a network.
type loopConn struct {
	net.Conn
	in []byte
}

func (c *loopConn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		packet, tail, err := pitaya.DecodePacket(rest, 0)
		if err != nil {
			return 0, err
		}
		rest = tail
		// An answer is the request without its route: a byte of flags, the id, the payload.
		_, size := binary.Uvarint(packet.Body[1:])
		id, message := packet.Body[1:1+size], packet.Body[1+size:]
		payload := message[1+int(message[0]):]
		n := 1 + len(id) + len(payload)
		c.in = append(c.in, byte(pitaya.PacketData), 0, byte(n>>8), byte(n), byte(pitaya.MessageResponse)<<1)
		c.in = append(append(c.in, id...), payload...)
	}
	return len(p), nil
}

func (c *loopConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in)
	c.in = c.in[:copy(c.in, c.in[n:])]
	return n, nil
}

func (c *loopConn) SetReadDeadline(time.Time) error  { return nil }
func (c *loopConn) SetWriteDeadline(time.Time) error { return nil }

// newLoop returns a client whose requests are answered by themselves, with the first of them sent.
func newLoop(tb testing.TB, inFlight int) *client {
	body, err := Body("json", 64)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := &Config{Conns: 1, InFlight: inFlight, Route: "connector.interopsvc.echo", Body: body, Duration: time.Hour,
		Dial: func(context.Context) (net.Conn, error) { return nil, io.EOF }}
	if _, err := cfg.complete(); err != nil {
		tb.Fatal(err)
	}
	r := &run{cfg: cfg, epoch: time.Now(), rec: newRecorder(1, nil)}
	r.load = &echoLoad{run: r}
	r.rec.begin.Store(0)
	r.started.Store(true)
	c := &client{run: r, conn: new(loopConn), srv: new(server), shard: r.rec.shards[0], in: make([]byte, readBuffer)}
	c.pend.limit = 4096
	if err := r.load.prepare(tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.tick(r.now(), true); err != nil {
		tb.Fatal(err)
	}
	return c
}

// turn is what a client does for each batch of answers.
func (c *client) turn(tb testing.TB) {
	now, err := c.fill()
	if err == nil {
		err = c.take(now)
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func TestMessagesDoNotAllocate(t *testing.T) {
	c := newLoop(t, 16)
	for range 10 {
		c.turn(t)
	}
	if n := testing.AllocsPerRun(100, func() { c.turn(t) }); n != 0 {
		t.Errorf("%v allocations for a batch of 16", n)
	}
	if got := c.shard.lat.Count(); got < 16*100 {
		t.Errorf("%d answers are measured", got)
	}
}

// What the generator does for a request, without the system's part, and with that of loopConn.
func BenchmarkRequest(b *testing.B) {
	for _, bb := range []struct {
		name string
		n    int
	}{{"inflight=1", 1}, {"inflight=16", 16}} {
		b.Run(bb.name, func(b *testing.B) {
			c := newLoop(b, bb.n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i += bb.n {
				c.turn(b)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.shard.counts.Answered), "ns/request")
		})
	}
}
