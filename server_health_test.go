package pitaya_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// probe asks a handler and returns its answer.
func probe(t testing.TB, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// bodyOf returns the body of an answer of probe.
func bodyOf(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantProbe compares the answer to a probe with a status and with the checks that failed.
func wantProbe(t testing.TB, what string, h http.Handler, status int, failed ...string) {
	t.Helper()
	r := probe(t, h, "GET", "/", "Accept", "application/json")
	var got struct {
		Status string
		Checks []struct {
			Name  string
			OK    bool
			Error string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	var names []string
	for _, c := range got.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
		if c.OK != (c.Error == "") {
			t.Errorf("%s: %+v", what, c)
		}
	}
	if r.StatusCode != status || !slices.Equal(names, failed) || strings.HasPrefix(got.Status, "not ") != (status != 200) {
		t.Errorf("%s: %d %+v, want %d and failures %q", what, r.StatusCode, got, status, failed)
	}
}

// A server that runs alone, from before Run to after it.
func TestHealthLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		srv, err := pitaya.NewServer(pitaya.Config{Frontend: true, Listeners: []net.Listener{l}, Logger: testLogger(t), DrainEnabled: true})
		if err != nil {
			t.Fatal(err)
		}
		initialising, initialised := make(chan struct{}), make(chan struct{})
		if err := srv.AddModule("slow", &gateModule{initialising, initialised}); err != nil {
			t.Fatal(err)
		}
		ready, live := srv.Readyz(), srv.Livez()
		wantProbe(t, "before Run", ready, 503, "running")
		wantProbe(t, "before Run", live, 200)

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- srv.Run(ctx) }()
		<-initialising
		wantProbe(t, "starting", ready, 503, "running")
		wantProbe(t, "starting", live, 200)
		close(initialised)
		<-srv.Ready()
		wantProbe(t, "running", ready, 200)
		wantProbe(t, "running", live, 200)

		// It drains as long as the client stays.
		conn, err := l.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		client, err := pitaya.NewClient(t.Context(), conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		wantProbe(t, "draining", ready, 503, "not draining")
		wantProbe(t, "draining", live, 200)
		client.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantProbe(t, "ended", ready, 503, "running", "not draining")
		wantProbe(t, "ended", live, 503, "not ended")
	})
}

// gateModule tells of its Init and waits in it.
type gateModule struct{ begun, release chan struct{} }

func (m *gateModule) Init(ctx context.Context) error {
	close(m.begun)
	<-m.release
	return nil
}

func (m *gateModule) Shutdown(ctx context.Context) error { return nil }

// A frontend that does not listen is not ready: without a listener, and when one of several has failed.
func TestHealthListeners(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		run := func(listeners ...net.Listener) *pitaya.Server {
			srv, err := pitaya.NewServer(pitaya.Config{Frontend: true, Listeners: listeners, Logger: testLogger(t)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- srv.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				<-ended
			})
			<-srv.Ready()
			return srv
		}
		none := run()
		wantProbe(t, "no listener", none.Readyz(), 503, "listening")
		if none.Healthy() == nil {
			t.Error("healthy without a listener")
		}
		later := pitaya.ListenMem()
		go none.Serve(later)
		synctest.Wait()
		wantProbe(t, "one that came later", none.Readyz(), 200)

		stays, fails := pitaya.ListenMem(), pitaya.ListenMem()
		two := run(stays, fails)
		wantProbe(t, "two listeners", two.Readyz(), 200)
		fails.Close()
		synctest.Wait()
		wantProbe(t, "one of two", two.Readyz(), 503, "listening")
		wantProbe(t, "one of two", two.Livez(), 200)
	})
}

// What the answers look like to the programs that ask.
func TestHealthAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := pitayatest.NewServer(t, pitaya.Config{Logger: testLogger(t)}, nil)
		ready := srv.Readyz()
		stopped, err := pitaya.NewServer(pitaya.Config{})
		if err != nil {
			t.Fatal(err)
		}
		const text, data = "text/plain; charset=utf-8", "application/json"
		for _, tt := range []struct {
			name, method, target, accept string
			h                            http.Handler
			status                       int
			kind, body                   string
		}{
			{"good", "GET", "/readyz", "", ready, 200, text, "ready\n"},
			{"verbose", "GET", "/readyz?verbose", "*/*", ready, 200, text, "ready\n[+] running\n[+] not draining\n[+] listening\n"},
			{"bad", "GET", "/readyz", "", stopped.Readyz(), 503, text, "not ready\n[-] running: pitaya: server is not running\n[+] not draining\n"},
			{"JSON", "GET", "/", "application/json", stopped.Readyz(), 503, data,
				`{"status":"not ready","checks":[{"name":"running","ok":false,"error":"pitaya: server is not running"},{"name":"not draining","ok":true}]}` + "\n"},
			{"a browser's", "GET", "/", "text/html,application/xhtml+xml,*/*;q=0.8", ready, 200, text, "ready\n"},
			{"alive", "GET", "/livez?verbose", "", srv.Livez(), 200, text, "alive\n[+] not ended\n"},
			{"HEAD", "HEAD", "/readyz", "", ready, 200, text, ""},
			{"HEAD of a bad one", "HEAD", "/readyz", "", stopped.Readyz(), 503, text, ""},
			{"POST", "POST", "/readyz", "", ready, 405, text, "GET or HEAD\n"},
		} {
			r := probe(t, tt.h, tt.method, tt.target, "Accept", tt.accept)
			if got := bodyOf(t, r); r.StatusCode != tt.status || got != tt.body || r.Header.Get("Content-Type") != tt.kind {
				t.Errorf("%s: %d %s %q, want %d %s %q", tt.name, r.StatusCode, r.Header.Get("Content-Type"), got, tt.status, tt.kind, tt.body)
			}
			if tt.method != "POST" && r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s may be cached", tt.name)
			}
		}
	})
}

// A server of a cluster is not ready while etcd or NATS is away, and is alive all the time.
func TestHealthOutages(t *testing.T) {
	t.Parallel()
	etcd, nats := startEtcd(t), startNATS(t)
	cfg := pitaya.Config{Type: "gate", Frontend: true, Cluster: true, Logger: testLogger(t), Etcd: etcdConfig(etcd.URL())}
	cfg.Etcd.HeartbeatTTL = time.Minute // the lease does not end meanwhile
	cfg.NATSClient = natsQuick
	cfg.NATSClient.URL = nats.URL()
	cfg.NATSServer = cfg.NATSClient
	srv := pitayatest.NewServer(t, cfg, nil)
	ready := func(want int) func() bool {
		return func() bool { return probe(t, srv.Readyz(), "GET", "/").StatusCode == want }
	}
	wantProbe(t, "at first", srv.Readyz(), 200)
	for _, tt := range []struct {
		server *devtest.Server
		check  string
	}{{nats, "transport"}, {etcd, "discovery"}} {
		tt.server.Stop()
		until(t, tt.check+" is missed", ready(503))
		wantProbe(t, "without "+tt.check, srv.Readyz(), 503, tt.check)
		wantProbe(t, "without "+tt.check, srv.Livez(), 200)
		if err := srv.Healthy(); err == nil {
			t.Errorf("healthy without %s", tt.check)
		}
		tt.server.Start()
		until(t, tt.check+" is back", ready(200))
	}
}
