package pitaya_test

import (
	"context"
	"io"
	"runtime"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// A client that leaves between two packets breaks no rule; within one it does.
func TestClientLeaves(t *testing.T) {
	for _, kind := range []string{"tcp", "tls", "ws", "mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			s, dial := startOn(t, kind, pitaya.Config{}, nil)
			for _, tt := range []struct {
				behind string
				want   error
			}{{"", io.EOF}, {"\x03\x00\x00\x00\x04\x00", pitaya.ErrTruncated}} {
				c := dial().hello()
				x := s.onlySession(t)
				c.write([]byte(tt.behind))
				c.Close()
				<-x.Context().Done()
				for s.Stats().Open > 0 {
					runtime.Gosched()
				}
				if got := context.Cause(x.Context()); got != tt.want {
					t.Errorf("after %q: %v, want %v", tt.behind, got, tt.want)
				}
			}
			if got := s.Stats().Violations; got != 1 {
				t.Errorf("%d violations, want 1", got)
			}
		})
	}
}
