package load_test

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load"
)

// Connections come from as many source addresses as are asked for.
func TestSources(t *testing.T) {
	t.Parallel()
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	hosts := make(map[string]int)
	s := newTarget(t, pitaya.Config{Listeners: []net.Listener{l}}, func(s *target) {
		s.OnSessionClose(func(session *pitaya.Session) {
			host, _, err := net.SplitHostPort(session.RemoteAddr().String())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			hosts[host]++
		})
	})
	rep := runLoad(t, load.Config{Scenario: load.Idle, URL: l.Addr().String(), Conns: 9, Sources: 3, Duration: time.Millisecond})
	noErrors(t, rep)
	s.closed(t)
	if len(hosts) != 3 || hosts["127.0.0.1"] != 3 || hosts["127.0.0.2"] != 3 || hosts["127.0.0.3"] != 3 {
		t.Errorf("connections by source: %v", hosts)
	}
}

func TestOpenFiles(t *testing.T) {
	t.Parallel()
	_, err := load.Run(t.Context(), load.Config{URL: "127.0.0.1:1", Scenario: load.Idle, Conns: 1 << 30, Sources: 1, Duration: 1})
	if err == nil || !strings.Contains(err.Error(), "open files") {
		t.Errorf("got %v", err)
	}
}
