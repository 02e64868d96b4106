package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// TestBurstOverBudget: a handler that pushes more than the budget in one go,
// before anything was written, does not lose a client that reads: what the
// socket takes counts as taken.
func TestBurstOverBudget(t *testing.T) {
	for _, procs := range []int{1, runtime.GOMAXPROCS(0)} {
		t.Run(fmt.Sprintf("procs=%d", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			tcp, err := pitaya.ListenTCP("127.0.0.1:0", nil)
			if err != nil {
				t.Fatal(err)
			}
			const count, size = 200, 10_000 // 2 MB, the budget is 1 MiB
			startServer(t, pitaya.Config{Listeners: []net.Listener{tcp}}, func(s *pitaya.Server) {
				err := pitaya.HandleRaw(s, "burst.start", func(ctx context.Context, in []byte) ([]byte, error) {
					for i := range count {
						b := bytes.Repeat([]byte{byte(i)}, size)
						if err := pitaya.SessionFromContext(ctx).Push(ctx, "onBurst", b); err != nil {
							return nil, fmt.Errorf("push %d: %w", i, err)
						}
					}
					return in, nil
				})
				if err != nil {
					t.Fatal(err)
				}
			})
			nc, err := net.Dial("tcp", tcp.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			c := &rawClient{Conn: nc, t: t}
			c.handshake(`{"sys":{}}`)
			c.request(1, "burst.start", "done")
			for i := range count {
				m := c.message()
				if m.Type != pitaya.MessagePush || len(m.Payload) != size || m.Payload[0] != byte(i) {
					t.Fatalf("message %d is a %v of %d bytes", i, m.Type, len(m.Payload))
				}
			}
			if m := c.message(); m.Type != pitaya.MessageResponse || string(m.Payload) != "done" {
				t.Errorf("got %v %q", m.Type, m.Payload)
			}
		})
	}
}

// TestSlowAtBudget: a client that takes nothing for a second is slow at the
// budget, not at the room that there is for bursts.
func TestSlowAtBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, size = 100 << 10, 10 << 10
		s := startServer(t, pitaya.Config{QueueBytes: budget, WriteTimeout: time.Hour}, nil)
		s.connect(t)
		synctest.Wait()
		for session := range s.Sessions() {
			pushed := 0
			for session.Push(t.Context(), "news", make([]byte, size)) == nil {
				pushed += size
				time.Sleep(100 * time.Millisecond)
			}
			if err := context.Cause(session.Context()); !errors.Is(err, pitaya.ErrSlowClient) {
				t.Errorf("ended by %v", err)
			}
			// The connection itself holds up to 64 KiB, and a second has room
			// for ten pushes.
			if pushed < budget || pushed > budget+64<<10+11*size {
				t.Errorf("closed after %d bytes", pushed)
			}
		}
	})
}
