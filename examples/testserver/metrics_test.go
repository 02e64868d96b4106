package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// started is an output that says when the line comes that suites wait for.
type started struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen chan struct{} // closed when it has come
	once sync.Once
}

func (s *started) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	if bytes.Contains(s.text.Bytes(), []byte("all modules started!")) {
		s.once.Do(func() { close(s.seen) })
	}
	return len(b), nil
}

func (s *started) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// The environment variables that the suites use serve metrics for Prometheus, with those of the process among them.
func TestPrometheus(t *testing.T) {
	port := freePorts(t, 2)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &started{seen: make(chan struct{})}
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"-standalone", "-port", strconv.Itoa(port)}, []string{
			"PITAYA_METRICS_PROMETHEUS_ENABLED=true", "PITAYA_METRICS_PROMETHEUS_PORT=" + strconv.Itoa(port+1), "PITAYA_METRICS_GAME=chess",
		}, out)
	}()
	select {
	case <-out.seen:
	case n := <-status:
		t.Fatalf("status %d: %s", n, out)
	}
	c := connectTo(t, protocolTCP, "127.0.0.1:"+strconv.Itoa(port), `{"sys":{}}`)
	c.must("testsvc.testrequestonlysessionreturnsptr", "")

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	const response = `pitaya_handler_response_time_ns_count{code="",game="chess",route="testsvc.testrequestonlysessionreturnsptr",serverType="connector",status="ok",type="handler"} 1`
	var text string
	// The answer is here, and the server may not have noticed yet that it was written.
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text, response) && time.Now().Before(deadline); {
		res, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port+1) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text = string(body)
	}
	for _, line := range []string{
		response, `pitaya_acceptor_connected_clients{game="chess",serverType="connector"} 1`,
		`pitaya_handler_requests{game="chess",serverType="connector"} 1`, "go_goroutines ", "process_start_time_seconds ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	cancel()
	if n := <-status; n != 0 {
		t.Errorf("status %d: %s", n, out)
	}
}
