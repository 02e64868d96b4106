package pitaya_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// The end of a stream that comes together with the last message is noticed,
// though the poller tells of both at once, and nothing else ever comes: clients
// of this server hear no heartbeats.
func TestEndBehindMessage(t *testing.T) {
	s, dial := startOn(t, "tcp", pitaya.Config{Heartbeat: -1}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }))
	})
	// Whether the two are seen at once is up to the kernel: of so many, some are.
	for range 20 {
		c := dial().hello()
		x := s.onlySession(t)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.request(1, "test.echo", "a")
		c.message()
		c.request(2, "test.echo", "b")
		must(t, c.Conn.(interface{ CloseWrite() error }).CloseWrite())
		// Whether the second is answered depends on how soon the end is seen.
		if _, err := c.packets(); err != nil {
			t.Fatal(err)
		}
		<-x.Context().Done()
		if cause := context.Cause(x.Context()); cause != io.EOF {
			t.Fatalf("the session ended with %v, want %v", cause, io.EOF)
		}
		c.Close()
	}
}
