package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A datagrams is a connection that keeps what is written to it.
type datagrams struct {
	net.Conn // nil: nothing else is called

	mu     sync.Mutex // guards the fields below
	got    []string
	at     []time.Time
	errs   []error // of the next writes; nil is none
	closed bool
}

func (d *datagrams) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.errs) > 0 {
		err := d.errs[0]
		d.errs = d.errs[1:]
		if err != nil {
			return 0, err
		}
	}
	d.got, d.at = append(d.got, string(p)), append(d.at, time.Now())
	return len(p), nil
}

func (d *datagrams) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *datagrams) SetWriteDeadline(time.Time) error { return nil }

func (d *datagrams) dial(context.Context) (net.Conn, error) { return d, nil }

// take returns the datagrams since the last call.
func (d *datagrams) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	got := d.got
	d.got, d.at = nil, nil
	return got
}

// lines are the lines of datagrams.
func lines(datagrams []string) []string {
	if len(datagrams) == 0 {
		return nil
	}
	return strings.Split(strings.Join(datagrams, "\n"), "\n")
}

// statsdOver makes a Statsd that sends to d and ends with the test.
func statsdOver(t *testing.T, cfg pitaya.MetricsConfig, d *datagrams) *pitaya.Statsd {
	t.Helper()
	s, err := pitaya.NewStatsdOver("connector", cfg, slog.New(slog.DiscardHandler), d.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func wantStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What Pitaya sends, over a socket: the lines of spec/metrics.md.
func TestStatsdUDP(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := pitaya.NewStatsd("connector", pitaya.MetricsConfig{Game: "chess", AdditionalLabels: map[string]string{"shard": "0"},
		Statsd: pitaya.StatsdConfig{Host: l.LocalAddr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Gauge("connected_clients", 1)
	s.Observe("response_time_ns", 331898, pitaya.Label{Name: "route", Value: "connector.h.echo"}, pitaya.Label{Name: "status", Value: "ok"},
		pitaya.Label{Name: "type", Value: "handler"}, pitaya.Label{Name: "code", Value: ""})
	s.Observe("handler_delay_ns", 9835, pitaya.Label{Name: "route", Value: "connector.h.echo"}, pitaya.Label{Name: "type", Value: "local"})
	s.Close() // sends what waits
	l.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	n, _, err := l.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	wantStrings(t, "datagram", lines([]string{string(buf[:n])}),
		"pitaya.connected_clients:1|g|#serverType:connector",
		"pitaya.response_time_ns:331898.000000|ms|#serverType:connector,route:connector.h.echo,status:ok,type:handler,code:",
		"pitaya.handler_delay_ns:9835.000000|ms|#serverType:connector,route:connector.h.echo,type:local")
}

func TestStatsdLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	label := func(name, value string) pitaya.Label { return pitaya.Label{Name: name, Value: value} }
	custom := pitaya.CustomMetrics{Histograms: []pitaya.CustomMetric{{Name: "sizes"}}}
	tests := []struct {
		name   string
		cfg    pitaya.MetricsConfig
		report func(s *pitaya.Statsd)
		want   []string
	}{
		{"kinds", pitaya.MetricsConfig{Custom: custom}, func(s *pitaya.Statsd) {
			s.Count("requests", 2.9)
			s.Count("requests", -3)
			s.Gauge("heapsize", 12345678901)
			s.Gauge("heapsize", -0.25)
			s.Observe("channel_capacity", 40, label("channel", "agent_chsend"))
			s.Observe("sizes", 0.5)
			s.Observe("unheard_of", 1.5)
		}, []string{
			"pitaya.requests:2|c|#serverType:connector",
			"pitaya.requests:-3|c|#serverType:connector",
			"pitaya.heapsize:12345678901|g|#serverType:connector",
			"pitaya.heapsize:-0.25|g|#serverType:connector",
			"pitaya.channel_capacity:40|h|#serverType:connector,channel:agent_chsend",
			"pitaya.sizes:0.5|h|#serverType:connector",
			"pitaya.unheard_of:1.500000|ms|#serverType:connector",
		}},
		{"nothing to say", pitaya.MetricsConfig{}, func(s *pitaya.Statsd) {
			s.Count("requests", 0.9)
			s.Count("requests", math.NaN())
			s.Count("requests", 1e300)
			s.Gauge("heapsize", math.Inf(1))
			s.Observe("handler_delay_ns", math.NaN())
			s.Gauge("goroutines", 1)
		}, []string{"pitaya.goroutines:1|g|#serverType:connector"}},
		{"constant labels", pitaya.MetricsConfig{ConstLabels: map[string]string{"env": "prod", "a": "1", "serverType": "x"}}, func(s *pitaya.Statsd) {
			s.Gauge("goroutines", 1, label("own", "2"))
		}, []string{"pitaya.goroutines:1|g|#serverType:connector,a:1,env:prod,own:2"}},
		{"prefix", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Prefix: "my.game."}}, func(s *pitaya.Statsd) {
			s.Gauge("goroutines", 1)
		}, []string{"my.game.goroutines:1|g|#serverType:connector"}},
		{"hostile prefix", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Prefix: "a:b,c|"}}, func(s *pitaya.Statsd) {
			s.Gauge("goroutines", 1)
		}, []string{"a_b_c_goroutines:1|g|#serverType:connector"}},
		{"no name", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{NoPrefix: true}}, func(s *pitaya.Statsd) {
			s.Gauge("", 1)
			s.Gauge("goroutines", 1)
		}, []string{"goroutines:1|g|#serverType:connector"}},
		{"no prefix", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{NoPrefix: true}}, func(s *pitaya.Statsd) {
			s.Gauge("goroutines", 1)
		}, []string{"goroutines:1|g|#serverType:connector"}},
		{"plain", pitaya.MetricsConfig{ConstLabels: map[string]string{"env": "prod"}, Statsd: pitaya.StatsdConfig{Plain: true}}, func(s *pitaya.Statsd) {
			s.Count("requests", 2)
			s.Gauge("heapsize", 5, label("own", "2"))
			s.Gauge("heapsize", -5) // -5|g alone would subtract
			s.Observe("channel_capacity", 40)
			s.Observe("handler_delay_ns", 1)
		}, []string{
			"pitaya.requests:2|c", "pitaya.heapsize:5|g", "pitaya.heapsize:0|g", "pitaya.heapsize:-5|g",
			"pitaya.channel_capacity:40|ms", "pitaya.handler_delay_ns:1.000000|ms",
		}},
		{"hostile names and tags", pitaya.MetricsConfig{ConstLabels: map[string]string{"e:n,v": "a|b"}}, func(s *pitaya.Statsd) {
			s.Gauge("a:b|c@d#e\nf", 1, label("a:b", "c:d|e,f#g\nh\x00\xff\x7f\r"), label("ü", "日本@"), label("long", long))
		}, []string{"pitaya.a_b_c_d_e_f:1|g|#serverType:connector,e_n_v:a_b,a_b:c:d_e_f_g_h____,ü:日本@,long:" + long[:200]}},
		{"series", pitaya.MetricsConfig{Custom: custom}, func(s *pitaya.Statsd) {
			labels := []pitaya.Label{label("by", "session")}
			count := pitaya.MetricSeries(s, "count", "refused", labels...)
			labels[0].Value = "changed"
			count(3.5)
			pitaya.MetricSeries(s, "gauge", "goroutines")(7)
			pitaya.MetricSeries(s, "observe", "handler_delay_ns", label("route", "r"))(7)
			pitaya.MetricSeries(s, "observe", "sizes")(7)
		}, []string{
			"pitaya.refused:3|c|#serverType:connector,by:session",
			"pitaya.goroutines:7|g|#serverType:connector",
			"pitaya.handler_delay_ns:7.000000|ms|#serverType:connector,route:r",
			"pitaya.sizes:7|h|#serverType:connector",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d datagrams
			s := statsdOver(t, tt.cfg, &d)
			tt.report(s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			wantStrings(t, "lines", lines(d.take()), tt.want...)
			if !d.closed {
				t.Error("the connection is still open")
			}
		})
	}
}

// With a rate, that share is sent and says so; gauges all are.
func TestStatsdRate(t *testing.T) {
	t.Parallel()
	var d datagrams
	s := statsdOver(t, pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Rate: 0.25}}, &d)
	count := pitaya.MetricSeries(s, "count", "requests")
	const n = 4000
	for range n / 2 {
		s.Count("requests", 1)
		count(1)
	}
	for range 3 {
		s.Gauge("goroutines", 1)
	}
	s.Close()
	counts, gauges := 0, 0
	for _, l := range lines(d.take()) {
		switch l {
		case "pitaya.requests:1|c|@0.25|#serverType:connector":
			counts++
		case "pitaya.goroutines:1|g|#serverType:connector":
			gauges++
		default:
			t.Fatalf("line %q", l)
		}
	}
	// Seven deviations: once in 10^11 runs.
	if mean, deviation := n/4., math.Sqrt(n*0.25*0.75); math.Abs(float64(counts)-mean) > 7*deviation || gauges != 3 {
		t.Errorf("%d of %d counts and %d of 3 gauges", counts, n, gauges)
	}
}

// Lines gather for a tenth of a second, or until a datagram is full.
func TestStatsdFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d datagrams
		s := statsdOver(t, pitaya.MetricsConfig{}, &d)
		start := time.Now()
		s.Gauge("a", 1)
		time.Sleep(60 * time.Millisecond)
		s.Gauge("b", 2)
		time.Sleep(39 * time.Millisecond)
		synctest.Wait()
		wantStrings(t, "early", d.take())
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if len(d.at) != 1 || d.at[0].Sub(start) != 100*time.Millisecond {
			t.Errorf("sent at %v", d.at)
		}
		wantStrings(t, "the first", d.take(), "pitaya.a:1|g|#serverType:connector\npitaya.b:2|g|#serverType:connector")
		time.Sleep(time.Hour)
		synctest.Wait()
		wantStrings(t, "nothing more", d.take())

		// Each line is 41 bytes with its end: 35 of them fill 1,434, of which the last end is not sent; 34 fit.
		for i := range 100 {
			s.Gauge(fmt.Sprintf("n%05d", i), 1)
		}
		synctest.Wait()
		full := d.take()
		if len(full) != 2 {
			t.Fatalf("%d datagrams at once, want 2", len(full))
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		rest := d.take()
		if len(rest) != 1 {
			t.Fatalf("%d datagrams later, want 1", len(rest))
		}
		all := lines(append(full, rest...))
		for i, p := range full {
			if len(p) > 1432 || len(p)+1+len(all[0]) <= 1432 {
				t.Errorf("datagram %d has %d bytes", i, len(p))
			}
		}
		for i, l := range all {
			if l != fmt.Sprintf("pitaya.n%05d:1|g|#serverType:connector", i) {
				t.Fatalf("line %d is %q", i, l)
			}
		}
		if len(all) != 100 || s.Dropped() != 0 {
			t.Errorf("%d lines, %d dropped", len(all), s.Dropped())
		}

		// A line that no datagram takes does not spoil the others.
		s.Gauge("before", 1)
		var labels []pitaya.Label
		for i := range 20 {
			labels = append(labels, pitaya.Label{Name: fmt.Sprint(i), Value: strings.Repeat("x", 100)})
		}
		s.Gauge("long", 1, labels...)
		s.Gauge("after", 1)
		time.Sleep(time.Second)
		synctest.Wait()
		wantStrings(t, "around a long line", lines(d.take()), "pitaya.before:1|g|#serverType:connector", "pitaya.after:1|g|#serverType:connector")
		if s.Dropped() != 1 {
			t.Errorf("%d dropped, want the long one", s.Dropped())
		}

		s.Gauge("last", 1)
		s.Close()
		wantStrings(t, "at the end", d.take(), "pitaya.last:1|g|#serverType:connector")
		s.Gauge("late", 1)
		s.Close()
		if wantStrings(t, "after the end", d.take()); s.Dropped() != 2 {
			t.Errorf("%d dropped, want the late one too", s.Dropped())
		}
	})
}

// records keeps log records as text.
type records struct {
	mu   sync.Mutex
	text []string
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, string(p))
	return len(p), nil
}

func (r *records) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.text)
}

// An address that cannot be looked up is tried again, with pauses, and what waits is bounded.
func TestStatsdUnresolvable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d datagrams
		var log records
		var mu sync.Mutex
		var attempts []time.Duration
		start, up := time.Now(), 5*time.Minute
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Host: "statsd.example:8125"}},
			slog.New(slog.NewTextHandler(&log, nil)), func(context.Context) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				attempts = append(attempts, time.Since(start))
				if time.Since(start) < up {
					return nil, errors.New("no such host")
				}
				return &d, nil
			})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for time.Since(start) < up {
			s.Gauge("connected_clients", float64(time.Since(start)/time.Second))
			time.Sleep(time.Second)
		}
		if n := len(attempts); n < 8 || n > 14 {
			t.Errorf("%d attempts in %v: %v", n, up, attempts)
		}
		if n := log.count(); n < 4 || n > 6 || !strings.Contains(log.text[0], "no such host") || !strings.Contains(log.text[0], "statsd.example:8125") {
			t.Errorf("%d records in %v: %v", n, up, log.text)
		}
		for time.Since(start) < up+time.Minute+time.Second {
			s.Gauge("connected_clients", float64(time.Since(start)/time.Second))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		got := lines(d.take())
		if dropped := int(s.Dropped()); len(got) == 0 || dropped == 0 || dropped+len(got) != 361 {
			t.Fatalf("%d lines and %d dropped, of 361", len(got), dropped)
		}
		// The newest are there.
		if want := "pitaya.connected_clients:360|g|#serverType:connector"; got[len(got)-1] != want {
			t.Errorf("the last line is %s, want %s", got[len(got)-1], want)
		}
	})
}

// A write may fail because of an earlier datagram, so it is tried again; if it fails then too, the link is made anew.
func TestStatsdWriteErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		d := datagrams{errs: []error{nil, refused, nil, refused, refused}}
		var log records
		dials := 0
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Host: "127.0.0.1:8125"}}, slog.New(slog.NewTextHandler(&log, nil)),
			func(context.Context) (net.Conn, error) { dials++; return &d, nil })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		send := func(name string) {
			s.Gauge(name, 1)
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
		}
		send("a")
		send("b") // once refused
		wantStrings(t, "sent", d.take(), "pitaya.a:1|g|#serverType:connector", "pitaya.b:1|g|#serverType:connector")
		if dials != 1 || log.count() != 0 || s.Dropped() != 0 {
			t.Errorf("%d dials, %d records, %d dropped", dials, log.count(), s.Dropped())
		}
		send("c") // twice refused
		send("d") // waits
		wantStrings(t, "sent meanwhile", d.take())
		if dials != 1 || log.count() != 1 || s.Dropped() != 1 {
			t.Errorf("%d dials, %d records, %d dropped after an error", dials, log.count(), s.Dropped())
		}
		time.Sleep(time.Second)
		send("e")
		wantStrings(t, "sent later", d.take(), "pitaya.d:1|g|#serverType:connector", "pitaya.e:1|g|#serverType:connector")
		time.Sleep(time.Hour)
		send("f")
		if dials != 2 {
			t.Errorf("%d dials, want 2: the address is none that could change", dials)
		}
	})
}

// The address of a name may change, so it is looked up again.
func TestStatsdNameChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var conns []*datagrams
		var fail bool
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{}, slog.New(slog.DiscardHandler), func(context.Context) (net.Conn, error) {
			if fail {
				return nil, errors.New("no such host")
			}
			conns = append(conns, new(datagrams))
			return conns[len(conns)-1], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		send := func() {
			s.Gauge("a", 1)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		send()
		fail = true
		send() // over the old one
		fail = false
		send()
		send()
		var got []int
		for _, c := range conns {
			got = append(got, len(c.got))
		}
		if fmt.Sprint(got) != "[2 1 1]" {
			t.Errorf("datagrams over each connection: %v", got)
		}
		if !conns[0].closed || !conns[1].closed || conns[2].closed {
			t.Error("not just the last connection is open")
		}
	})
}

// Nobody listens: reporting neither waits nor fails, and Close ends at once.
func TestStatsdNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.LocalAddr().String()
	l.Close()
	for _, host := range []string{address, "name.invalid:8125"} {
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{Statsd: pitaya.StatsdConfig{Host: host}}, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 20000 { // more than may wait
			s.Observe("response_time_ns", 1, pitaya.Label{Name: "route", Value: "connector.h.echo"})
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close()
		}()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			t.Fatalf("%s: Close does not return", host)
		}
	}
}

// A link that hangs holds nobody up; the oldest lines give way.
func TestStatsdHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d datagrams
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{}, slog.New(slog.DiscardHandler), func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		const n = 50000
		for i := range n {
			s.Gauge(fmt.Sprintf("n%05d", i), 1)
		}
		if time.Since(start) != 0 {
			t.Errorf("reporting took %v", time.Since(start))
		}
		if dropped := s.Dropped(); dropped < n-257*35 || dropped > n-256*34 {
			t.Errorf("%d of %d dropped", dropped, n)
		}
		s.Close()
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		if s.Dropped() != n || len(d.take()) != 0 {
			t.Errorf("%d of %d dropped at the end", s.Dropped(), n)
		}
	})
}

// Close while the address is being looked up gives up on that, and tries once more.
func TestStatsdCloseEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d datagrams
		dials := 0
		s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{}, slog.New(slog.DiscardHandler), func(ctx context.Context) (net.Conn, error) {
			if dials++; dials == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &d, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Gauge("a", 1)
		synctest.Wait()
		s.Close()
		if wantStrings(t, "lines", d.take(), "pitaya.a:1|g|#serverType:connector"); s.Dropped() != 0 {
			t.Errorf("%d dropped", s.Dropped())
		}
	})
}

// Many goroutines report: each line is whole, and none is lost.
func TestStatsdConcurrent(t *testing.T) {
	t.Parallel()
	var d datagrams
	s := statsdOver(t, pitaya.MetricsConfig{}, &d)
	const workers, each = 8, 250 // less than what may wait
	var wg sync.WaitGroup
	for w := range workers {
		series := pitaya.MetricSeries(s, "count", "calls", pitaya.Label{Name: "w", Value: fmt.Sprint(w)})
		wg.Go(func() {
			for range each {
				s.Count("calls", 1, pitaya.Label{Name: "w", Value: fmt.Sprint(w)})
				series(1)
			}
		})
	}
	wg.Wait()
	s.Close()
	got := make(map[string]int)
	for _, line := range lines(d.take()) {
		got[line]++
	}
	sent := 0
	for w := range workers {
		sent += got[fmt.Sprintf("pitaya.calls:1|c|#serverType:connector,w:%d", w)]
	}
	if sent != 2*workers*each || len(got) != workers || s.Dropped() != 0 {
		t.Errorf("%d lines of %d kinds, %d dropped, want %d of %d", sent, len(got), s.Dropped(), 2*workers*each, workers)
	}
}

func TestStatsdErrors(t *testing.T) {
	t.Parallel()
	_, err := pitaya.NewStatsd("connector", pitaya.MetricsConfig{
		AdditionalLabels: map[string]string{"": ""},
		Statsd:           pitaya.StatsdConfig{Host: "here", Rate: 1.5, Prefix: "a", NoPrefix: true},
	})
	checkErrorLines(t, err, []string{
		`pitaya.metrics.additionallabels = "=": has an empty name`,
		`pitaya.metrics.statsd.host = "here": must be host:port`,
		`pitaya.metrics.statsd.prefix = "a": is set, and switched off by NoPrefix`,
		`pitaya.metrics.statsd.rate = "1.5": must be above 0 and at most 1`,
	})
}

// A report costs no allocation while datagrams have gone out before.
func TestStatsdAllocs(t *testing.T) {
	s, err := pitaya.NewStatsdOver("connector", pitaya.MetricsConfig{}, slog.New(slog.DiscardHandler),
		func(context.Context) (net.Conn, error) { return nil, os.ErrNotExist })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	labels := []pitaya.Label{{Name: "route", Value: "connector.h.echo"}, {Name: "status", Value: "ok"}}
	observe := pitaya.MetricSeries(s, "observe", "response_time_ns", labels...)
	for range 20000 { // all buffers are made
		s.Gauge("goroutines", 1, labels...)
	}
	wantAllocs(t, "by labels", 0, func() { s.Observe("response_time_ns", 1e6, labels...) })
	wantAllocs(t, "resolved", 0, func() { observe(1e6) })
}
