package pitaya_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// scrapeSamples returns the samples of an exposition by their series, as text.
func scrapeSamples(t testing.TB, m *pitaya.Metrics) map[string]float64 {
	t.Helper()
	return samples(t, strings.NewReader(scrape(t, m)))
}

func samples(t testing.TB, r io.Reader) map[string]float64 {
	t.Helper()
	list := make(map[string]float64)
	for in := bufio.NewScanner(r); in.Scan(); {
		line := in.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list[line[:i]] = v
	}
	return list
}

// The settings open a port for Prometheus. It is there before the clients' ones and ends behind them, so that the end
// of the server can be watched; what it says is exact at the moment of the scrape.
func TestPrometheusListener(t *testing.T) {
	t.Parallel()
	cfg := pitaya.Config{Metrics: pitaya.MetricsConfig{
		Period: time.Hour, Game: "chess", AdditionalLabels: map[string]string{"shard": "none"},
		Prometheus: pitaya.PrometheusConfig{Enabled: true, Port: -1},
	}}
	at, release := make(chan bool), make(chan bool)
	s := startServer(t, cfg, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "h.echo", func(ctx context.Context, in []byte) ([]byte, error) {
			pitaya.AddMetricTagsToPropagateCtx(ctx, map[string]string{"shard": string(in), "stray": "x"})
			return in, nil
		}), pitaya.HandleRaw(s, "h.wait", func(context.Context, []byte) ([]byte, error) {
			at <- true
			<-release
			return nil, nil
		}))
	})
	addr := s.MetricsAddr()
	if addr == nil {
		t.Fatal("no address")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() map[string]float64 {
		t.Helper()
		res, err := client.Get("http://127.0.0.1:" + strconv.Itoa(addr.(*net.TCPAddr).Port) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		return samples(t, res.Body)
	}
	c := s.connect(t)
	for i := range uint64(3) {
		c.request(i+1, "h.echo", "s1")
		c.message()
	}
	const response = `pitaya_handler_response_time_ns_count{code="",game="chess",route="h.echo",serverType="conn",shard="s1",status="ok",type="handler"}`
	until(t, "three responses", func() bool { return get()[response] == 3 })
	got := get()
	const capacity = `pitaya_channel_channel_capacity_count{channel="agent_chsend",game="chess",serverType="conn",shard="none"}`
	for series, want := range map[string]float64{
		`pitaya_handler_requests{game="chess",serverType="conn",shard="none"}`:              3,
		`pitaya_handler_answered{game="chess",serverType="conn",shard="none"}`:              3,
		`pitaya_acceptor_connected_clients{game="chess",serverType="conn",shard="none"}`:    1,
		`pitaya_acceptor_accepted_connections{game="chess",serverType="conn",shard="none"}`: 1,
		`pitaya_acceptor_received_packets{game="chess",serverType="conn",shard="none"}`:     5,
		capacity: -1,
	} {
		if got[series] != want && (want >= 0 || got[series] == 0) {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
	if a, b := get()[capacity], get()[capacity]; a != b {
		t.Errorf("a scrape has made %v observations", b-a)
	}
	if mounted := scrapeSamples(t, s.Metrics()); mounted[response] != 3 {
		t.Errorf("Metrics says %v", mounted[response])
	}

	c.request(9, "h.wait", "")
	<-at
	s.end()
	until(t, "the server ends", func() bool { return s.Healthy() != nil })
	if n := get()[`pitaya_acceptor_connected_clients{game="chess",serverType="conn",shard="none"}`]; n != 1 {
		t.Errorf("%v clients while the server ends", n)
	}
	release <- true
	s.stop(t)
	if _, err := client.Get("http://" + addr.String() + "/metrics"); err == nil {
		t.Error("served after Run has returned")
	}
	if n := scrapeSamples(t, s.Metrics())[`pitaya_acceptor_connected_clients{game="chess",serverType="conn",shard="none"}`]; n != 0 {
		t.Errorf("%v clients at the end", n)
	}
}

// A port that is taken is an error, and nothing is left behind.
// A scrape that is under way when the server ends is waited for, however slow it is; and a connection over which nobody
// asks anything is not.
func TestPrometheusScrapeAtEnd(t *testing.T) {
	t.Parallel()
	s := startServer(t, pitaya.Config{Metrics: pitaya.MetricsConfig{
		Period: time.Hour, Prometheus: pitaya.PrometheusConfig{Enabled: true, Port: -1},
	}}, nil)
	addr := "127.0.0.1:" + strconv.Itoa(s.MetricsAddr().(*net.TCPAddr).Port)
	mute, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	at, release := make(chan bool), make(chan bool)
	defer s.Metrics().OnScrape(func() {
		at <- true
		<-release
	})()
	got := make(chan error, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get("http://" + addr + "/metrics")
		if err == nil {
			res.Body.Close()
		}
		got <- err
	}()
	<-at
	s.end()
	if err := <-got; err == nil {
		t.Error("the server was to lose its patience with the connection")
	}
	select { // Run would return at once if it did not wait
	case err := <-s.ran:
		t.Errorf("Run has returned (%v) before the scrape", err)
		s.ran <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	s.stop(t)
}

// Reporters are told nothing once Run has returned, also by a registry of the application that goes on being scraped.
func TestReportersAfterRun(t *testing.T) {
	t.Parallel()
	m, err := pitaya.NewMetrics("conn", pitaya.MetricsConfig{})
	must(t, err)
	var told atomic.Int64
	at, release := make(chan bool, 1), make(chan bool)
	var hold atomic.Bool
	own := &funcReporter{func() {
		told.Add(1)
		if hold.Swap(false) {
			at <- true
			<-release
		}
	}}
	s := startServer(t, pitaya.Config{
		Metrics: pitaya.MetricsConfig{Period: time.Hour}, Reporters: []pitaya.Reporter{m, own},
	}, nil)
	hold.Store(true)
	scraped := make(chan bool)
	go func() {
		defer close(scraped)
		scrape(t, m)
	}()
	<-at
	s.end()
	select { // Run would return at once if it did not wait
	case err := <-s.ran:
		t.Errorf("Run has returned (%v) before the report", err)
		s.ran <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	s.stop(t)
	<-scraped
	before := told.Load()
	scrape(t, m)
	if n := told.Load() - before; n != 0 {
		t.Errorf("%d reports after Run", n)
	}
}

// A registry that outlives servers, as in a program that restarts them, does not keep them.
func TestRegistryKeepsNoServer(t *testing.T) {
	t.Parallel()
	m, err := pitaya.NewMetrics("conn", pitaya.MetricsConfig{})
	must(t, err)
	freed := make(chan bool)
	func() {
		s, err := pitaya.NewServer(pitaya.Config{Type: "conn", Reporters: []pitaya.Reporter{m}, Logger: testLogger(t)})
		must(t, err)
		runtime.AddCleanup(s, func(c chan bool) { close(c) }, freed)
		ctx, end := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- s.Run(ctx) }()
		<-s.Ready()
		end()
		must(t, <-ran)
	}()
	until(t, "the server is freed", func() bool {
		runtime.GC()
		select {
		case <-freed:
			return true
		default:
			return false
		}
	})
	scrape(t, m)
}

// funcReporter calls a function for each report.
type funcReporter struct{ f func() }

func (r *funcReporter) Count(string, float64, ...pitaya.Label)   { r.f() }
func (r *funcReporter) Gauge(string, float64, ...pitaya.Label)   { r.f() }
func (r *funcReporter) Observe(string, float64, ...pitaya.Label) { r.f() }

func TestPrometheusPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: testLogger(t), Metrics: pitaya.MetricsConfig{
		Prometheus: pitaya.PrometheusConfig{Enabled: true, Port: l.Addr().(*net.TCPAddr).Port},
		Statsd:     pitaya.StatsdConfig{Enabled: true, Host: "127.0.0.1:9"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "port for Prometheus") {
		t.Errorf("Run: %v", err)
	}
}

// The settings send everything to statsd, the last numbers included.
func TestStatsdSetting(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	lines := make(chan string, 1<<12)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(lines)
		b := make([]byte, 1<<16)
		for {
			n, _, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			for l := range strings.SplitSeq(string(b[:n]), "\n") {
				lines <- l
			}
		}
	})
	s := startServer(t, pitaya.Config{Metrics: pitaya.MetricsConfig{
		Period: time.Hour, Statsd: pitaya.StatsdConfig{Enabled: true, Host: pc.LocalAddr().String()},
	}}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "h.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }))
	})
	if n := len(s.Reporters()); n != 1 {
		t.Errorf("%d reporters", n)
	}
	c := s.connect(t)
	c.request(1, "h.echo", "x")
	c.message()
	s.stop(t)
	want := []string{
		`^pitaya\.response_time_ns:\d+\.\d{6}\|ms\|#serverType:conn,route:h\.echo,status:ok,type:handler,code:$`,
		`^pitaya\.handler_delay_ns:\d+\.\d{6}\|ms\|#serverType:conn,route:h\.echo,type:local$`,
		`^pitaya\.requests:1\|c\|#serverType:conn$`,
		`^pitaya\.closed_connections:1\|c\|#serverType:conn$`,
		`^pitaya\.connected_clients:0\|g\|#serverType:conn$`,
	}
	for l := range lines {
		want = slices.DeleteFunc(want, func(w string) bool { return regexp.MustCompile(w).MatchString(l) })
		if len(want) == 0 {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("not sent: %q", want)
	}
	pc.Close()
	for range lines {
	}
	wg.Wait()
}

// Connections to NATS and etcd that come back are counted.
func TestReconnectMetrics(t *testing.T) {
	t.Parallel()
	etcd, nats := startEtcd(t), startNATS(t)
	r := newRecorder()
	cfg := pitaya.Config{
		Type: "gate", ID: "g", Cluster: true, Frontend: true, Logger: testLogger(t),
		Etcd: etcdConfig(etcd.URL()), NATSClient: natsAt(quickNATS(), nats.URL()), NATSServer: natsAt(quickNATS(), nats.URL()),
		Reporters: []pitaya.Reporter{r}, Metrics: pitaya.MetricsConfig{Period: 20 * time.Millisecond},
	}
	cfg.Etcd.Prefix = "reconnects/"
	s := pitayatest.NewServer(t, cfg, nil)
	for i := range 2 {
		nats.Kill()
		nats.Start()
		until(t, "NATS is back", func() bool { return r.number("reconnects{to=nats}") == float64(i+1) && s.Healthy() == nil })
	}
	etcd.Stop()
	until(t, "etcd is away", func() bool { return s.Healthy() != nil })
	etcd.Start()
	until(t, "etcd is back", func() bool { return r.number("reconnects{to=etcd}") == 1 && s.Healthy() == nil })
	if n := r.number("reconnects{to=nats}"); n != 2 {
		t.Errorf("%v connections to NATS were made again", n)
	}
}

func quickNATS() pitaya.NATSConfig {
	return pitaya.NATSConfig{ReconnectWait: 50 * time.Millisecond, ReconnectJitter: -1}
}

// Conservation: whatever clients do, and with the end of the server among it, each connection that was accepted is
// closed and each request has one end, in the numbers of the server and in those of all reporters.
func TestServerConservation(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	m, err := pitaya.NewMetrics("conn", pitaya.MetricsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, pitaya.Config{
		Reporters: []pitaya.Reporter{r, m}, Metrics: pitaya.MetricsConfig{Period: 5 * time.Millisecond},
		QueueBytes: 32 << 10, MaxConns: 20, MailboxMessages: 4, Dispatch: 3,
		Logger: slog.New(slog.DiscardHandler),
	}, func(s *pitaya.Server) {
		must(t,
			pitaya.HandleRaw(s, "h.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
			pitaya.HandleRaw(s, "h.fail", func(context.Context, []byte) ([]byte, error) { return nil, io.EOF }),
			pitaya.HandleRaw(s, "h.panic", func(context.Context, []byte) ([]byte, error) { panic("on purpose") }),
			pitaya.HandleRaw(s, "h.kick", func(ctx context.Context, in []byte) ([]byte, error) {
				return in, pitaya.SessionFromContext(ctx).Kick(ctx)
			}),
			pitaya.HandleRaw(s, "h.flood", func(ctx context.Context, in []byte) ([]byte, error) {
				for range 40 {
					if err := pitaya.SessionFromContext(ctx).Push(ctx, "p", make([]byte, 8<<10)); err != nil {
						return nil, err
					}
				}
				return in, nil
			}),
			pitaya.HandleRaw(s, "h.beside", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }, pitaya.WithConcurrent()),
		)
	})
	routes := []string{"h.echo", "h.echo", "h.echo", "h.beside", "h.fail", "h.panic", "h.kick", "h.flood", "h.nope", "x.y.z", "conn.h.echo"}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !conservationClient(s, random, routes) {
					return
				}
			}
		})
	}
	wg.Go(func() { // scrapes at any moment
		for {
			select {
			case <-stop:
				return
			default:
				scrapeSamples(t, m)
			}
		}
	})
	until(t, "enough of everything", func() bool {
		st := s.Stats()
		return st.Requests > 2000 && st.Closed > 100 && st.Lost > 10 && st.RefusedConns > 0
	})
	s.stop(t) // in the middle
	close(stop)
	wg.Wait()

	st := s.Stats()
	if st.Open != 0 || st.Accepted != st.Closed || st.Sessions != 0 {
		t.Errorf("connections: %+v", st)
	}
	if st.Requests != st.Answered+st.Failed+st.Unanswerable+st.Lost {
		t.Errorf("requests: %+v", st)
	}
	exposed := scrapeSamples(t, m)
	for name, want := range map[string]int64{
		"acceptor_accepted_connections": st.Accepted, "acceptor_closed_connections": st.Closed, "acceptor_refused_connections": st.RefusedConns,
		"acceptor_received_bytes": st.ReceivedBytes, "acceptor_sent_bytes": st.SentBytes, "acceptor_received_packets": st.ReceivedPackets,
		"acceptor_sent_packets": st.SentPackets, "acceptor_slow_clients": st.SlowClients, "acceptor_violations": st.Violations,
		"handler_requests": st.Requests, "handler_answered": st.Answered, "handler_failed": st.Failed, "handler_lost": st.Lost,
		"handler_unanswerable": st.Unanswerable, "handler_notifies": st.Notifies, "handler_panics": st.Panics, "handler_pushes": st.Pushes,
	} {
		_, bare, _ := strings.Cut(name, "_")
		if got := r.number(bare + "{}"); got != float64(want) {
			t.Errorf("%s: a reporter was told %v, want %d", bare, got, want)
		}
		if got := exposed["pitaya_"+name+`{game="",serverType="conn"}`]; got != float64(want) {
			t.Errorf("%s: exposed %v, want %d", name, got, want)
		}
	}
	if n := r.number("connected_clients{}"); n != 0 {
		t.Errorf("%v clients at the end", n)
	}
	// Each answer that is counted was reported at most once; what was lost on the way to the client was not.
	reported := int64(0)
	for _, l := range r.take("response_time_ns") {
		if !strings.Contains(l, "route=unknown") {
			reported += int64(len(strings.Fields(l[strings.Index(l, "["):])))
		}
	}
	if reported > st.Answered+st.Failed+st.Unanswerable+st.Notifies || reported == 0 {
		t.Errorf("%d response times of %+v", reported, st)
	}
}

// conservationClient is a client that does something at random, and then leaves in some way. It returns false when
// there is no server any more.
func conservationClient(s *testServer, random *rand.Rand, routes []string) bool {
	nc, err := s.Mem.DialContext(context.Background())
	if err != nil {
		return false
	}
	defer nc.Close()
	var out []byte
	packet := func(t pitaya.PacketType, body []byte) { out, _ = pitaya.AppendPacket(out, t, body) }
	packet(pitaya.PacketHandshake, []byte(`{"sys":{}}`))
	packet(pitaya.PacketHandshakeAck, nil)
	n := random.IntN(60)
	for i := range n {
		m := pitaya.Message{ID: uint64(i), Route: routes[random.IntN(len(routes))], Payload: []byte("x")}
		if random.IntN(10) == 0 {
			m.Type, m.ID = pitaya.MessageNotify, 0
		}
		body, _ := pitaya.AppendMessage(nil, m, nil)
		packet(pitaya.PacketData, body)
	}
	if random.IntN(10) == 0 {
		packet(pitaya.PacketType(99), nil)
	}
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Write(out); err != nil {
		return true
	}
	for range random.IntN(2 * (n + 1)) {
		if _, err := pitaya.ReadPacket(nc, 0); err != nil {
			return true
		}
	}
	return true
}

// docs/operations.md lists all metrics.
func TestMetricsTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Metrics\n")
	if !found {
		t.Fatal("docs/operations.md has no section Metrics")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| ([a-z_]+) \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, fmt.Sprintf("%s %s [%s] %s", m[1], m[2], strings.NewReplacer("`", "", ",", "").Replace(strings.TrimSpace(m[3])), m[4]))
	}
	slices.Sort(documented)
	declared := pitaya.DeclaredMetrics()
	slices.Sort(declared)
	for _, d := range declared {
		if !slices.Contains(documented, d) {
			t.Errorf("not in the table: %s", d)
		}
	}
	for _, d := range documented {
		if !slices.Contains(declared, d) {
			t.Errorf("in the table only: %s", d)
		}
	}
}
