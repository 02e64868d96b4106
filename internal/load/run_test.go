package load_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load"
	"github.com/pitaya-go/pitaya/internal/load/script"
)

func body(t *testing.T, shape string, size int) []byte {
	t.Helper()
	b, err := load.Body(shape, size)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the generator reports is what the server has counted, over every transport.
func TestEcho(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, s *target, connect func(load.Config) load.Config) {
		rep := runLoad(t, connect(load.Config{Conns: 7, InFlight: 5, Requests: 1000, Route: "svc.echo", Body: body(t, "json", 64), Check: true}))
		stats := s.closed(t)
		noErrors(t, rep)
		if rep.Measured.Count != 1000 || rep.Total.Requests != 1000 || rep.Total.Answered != 1000 || rep.Total.Connections != 7 {
			t.Errorf("measured %d, total %+v; want 1000 and 7 connections", rep.Measured.Count, rep.Total)
		}
		if stats.Requests != 1000 || stats.Answered != 1000 || stats.Accepted != 7 {
			t.Errorf("the server has counted %d requests, %d answers, %d connections", stats.Requests, stats.Answered, stats.Accepted)
		}
		var bars, points int64
		for _, b := range rep.Histogram {
			bars += b.Count
		}
		for _, p := range rep.Series {
			points += p.Count
		}
		if bars != 1000 || points != 1000 {
			t.Errorf("%d in the histogram and %d in the series, want 1000", bars, points)
		}
		if l := rep.Measured.Latency; l.Min <= 0 || l.P50 < l.Min || l.P90 < l.P50 || l.P99 < l.P90 || l.P999 < l.P99 || l.Max < l.P999 {
			t.Errorf("percentiles do not rise: %+v", l)
		}
	})
}

// Bodies of many kinds and sizes come back as they were.
func TestEchoBodies(t *testing.T) {
	t.Parallel()
	s := newTarget(t, pitaya.Config{}, nil)
	for _, tt := range []struct {
		route, shape string
		size         int
	}{{"svc.echo", "json", 1024}, {"svc.raw", "raw", 0}, {"svc.raw", "raw", 300_000}, {"svc.raw", "protobuf", 70_000},
		{"svc.raw", "json-list", 500}, {"svc.raw", "json-nested", 500}} {
		b := body(t, tt.shape, tt.size)
		if len(b) != tt.size {
			t.Errorf("%s: %d bytes, want %d", tt.shape, len(b), tt.size)
		}
		rep := runLoad(t, s.memory(load.Config{Conns: 2, InFlight: 3, Requests: 20, Route: tt.route, Body: b, Check: true}))
		noErrors(t, rep)
		if rep.Measured.Count != 20 {
			t.Errorf("%s of %d bytes: %d came back", tt.shape, tt.size, rep.Measured.Count)
		}
	}
	for _, shape := range []string{"json", "json-list", "json-nested", "xml"} {
		if _, err := load.Body(shape, 5); err == nil {
			t.Errorf("shape %s has a body of 5 bytes", shape)
		}
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, s *target, connect func(load.Config) load.Config) {
		closed := runLoad(t, connect(load.Config{Scenario: load.Notify, Conns: 3, InFlight: 8, Requests: 200, Route: "svc.note", Sync: "svc.raw", Body: []byte("{}")}))
		open := runLoad(t, connect(load.Config{Scenario: load.Notify, Conns: 3, Rate: 10000, Requests: 100, Route: "svc.note", Sync: "svc.raw", Body: []byte("{}")}))
		noErrors(t, closed)
		noErrors(t, open)
		// Both have waited for the answers behind their notifies, so all have been handled.
		s.mu.Lock()
		notified := s.notified
		s.mu.Unlock()
		stats := s.closed(t)
		if closed.Measured.Count != 200 || open.Measured.Count != 100 || notified != 300 || stats.Notifies != 300 {
			t.Errorf("%d and %d measured, %d handled, %d counted by the server; want 200, 100, 300", closed.Measured.Count, open.Measured.Count, notified, stats.Notifies)
		}
		if stats.Requests != closed.Total.Requests+open.Total.Requests {
			t.Errorf("the server has counted %d requests, the generator %d and %d", stats.Requests, closed.Total.Requests, open.Total.Requests)
		}
	})
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, s *target, connect func(load.Config) load.Config) {
		rep := runLoad(t, connect(load.Config{Scenario: load.Broadcast, Conns: 20, AtOnce: 10, Requests: 5, Join: "svc.join", Route: "svc.broadcast",
			PushRoute: "news", Body: load.BroadcastBody(10, 64)}))
		stats := s.closed(t)
		noErrors(t, rep)
		want := load.BroadcastReport{Rounds: 5, AtOnce: 10, Wanted: 1000, Delivered: 1000, LeastPerClient: 50, MostPerClient: 50}
		if *rep.Broadcast != want || rep.Measured.Count != 1000 {
			t.Errorf("got %+v, %d measured; want %+v", *rep.Broadcast, rep.Measured.Count, want)
		}
		if stats.Pushes != 1000 || rep.Total.Pushes != 1000 || stats.Requests != 25 {
			t.Errorf("%d pushes sent, %d received, %d requests; want 1000, 1000, 25", stats.Pushes, rep.Total.Pushes, stats.Requests)
		}
	})
}

// Idle connections send heartbeats, each at its time, and nothing else.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{Heartbeat: 30 * time.Second}, nil)
		rep := runLoad(t, s.memory(load.Config{Scenario: load.Idle, Conns: 10, Duration: 10*time.Minute - time.Second}))
		stats := s.closed(t)
		noErrors(t, rep)
		if rep.Connections != (load.Connections{Opened: 10, AtEnd: 10}) || rep.Total.Heartbeats != 10*19 {
			t.Errorf("%+v, %d heartbeats; want 10 connections and 190", rep.Connections, rep.Total.Heartbeats)
		}
		if want := int64(10 * (2 + 19)); stats.ReceivedPackets != want {
			t.Errorf("the server has got %d packets, want %d", stats.ReceivedPackets, want)
		}
		if rep.Measured.Seconds != 599 {
			t.Errorf("measured for %v s", rep.Measured.Seconds)
		}
	})
}

func TestConnect(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, s *target, connect func(load.Config) load.Config) {
		closed := runLoad(t, connect(load.Config{Scenario: load.Connect, Conns: 4, Requests: 50}))
		open := runLoad(t, connect(load.Config{Scenario: load.Connect, Conns: 4, Rate: 10000, Requests: 30}))
		stats := s.closed(t)
		noErrors(t, closed)
		noErrors(t, open)
		if closed.Measured.Count != 50 || open.Measured.Count != 30 || stats.Accepted != 80 {
			t.Errorf("%d and %d connects, %d accepted; want 50, 30, 80", closed.Measured.Count, open.Measured.Count, stats.Accepted)
		}
	})
}

const mixedScript = `
once
  bind svc.join
  request svc.echo {"name":"{{conn}}","content":"{{n}}"}
chat 3
  notify svc.note {}
  request svc.echo {"name":"{{rand 5}}","content":"{{fill 20}}"}
  think 0s 1ms
push 1
  request svc.push
  wait mine 1h
  sleep 1ms
leave 0.5
  disconnect
`

func parseScript(t *testing.T, text string) *script.Script {
	t.Helper()
	sc, err := script.Parse([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func TestMixed(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, s *target, connect func(load.Config) load.Config) {
		rep := runLoad(t, connect(load.Config{Scenario: load.Mixed, Conns: 5, Requests: 200, Script: parseScript(t, mixedScript)}))
		stats := s.closed(t)
		noErrors(t, rep)
		if stats.Requests != rep.Total.Requests || stats.Answered != rep.Total.Answered || stats.Notifies != rep.Total.Notifies ||
			stats.Pushes != rep.Total.Pushes || stats.Accepted != rep.Total.Connections {
			t.Errorf("the generator reports %+v, the server %+v", rep.Total, stats)
		}
		byStep := make(map[string]int64)
		var sum int64
		for _, st := range rep.Steps {
			byStep[st.Step] = st.Count
			sum += st.Count
		}
		// What is played once counts too, also before the load begins: all begin together.
		if byStep["bind svc.join"] != stats.Accepted || byStep["notify svc.note"] != stats.Notifies || byStep["request svc.push"] != stats.Pushes ||
			sum != rep.Measured.Count || stats.Accepted <= 5 || stats.Pushes == 0 {
			t.Errorf("steps %v, measured %d, server %+v", byStep, rep.Measured.Count, stats)
		}
	})
}

// stall is a handler that holds up the 21st message of a session for five seconds.
func stall(t *testing.T) func(*target) {
	return func(s *target) {
		n := 0 // of one session, whose messages are handled one at a time
		if err := pitaya.HandleRaw(s.Server, "svc.stall", func(context.Context, []byte) ([]byte, error) {
			if n++; n == 21 {
				time.Sleep(5 * time.Second)
			}
			return []byte("ok"), nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// A stall of the server is in the latencies of all that was to be sent meanwhile.
func TestScheduleGoesOnThroughStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, stall(t))
		rep := runLoad(t, s.memory(load.Config{Rate: 10, Duration: 10 * time.Second, Route: "svc.stall", Timeout: time.Minute}))
		noErrors(t, rep)
		// 100 requests, one each 100 ms. The 21st waits for 5 s, those behind it for 4.9 s, 4.8 s and so on to 0.1 s, and the
		// others, which include the first, for nothing.
		m := rep.Measured
		if m.Count != 100 || m.PerSecond != 10 || s.Stats().Requests != 100 {
			t.Errorf("%d requests, %v/s, the server has counted %d; want 100, 10/s", m.Count, m.PerSecond, s.Stats().Requests)
		}
		for _, q := range []struct {
			name      string
			got, want float64
		}{{"max", m.Latency.Max, 5e6}, {"p99", m.Latency.P99, 4.9e6}, {"p90", m.Latency.P90, 4e6}, {"p50", m.Latency.P50, 0}, {"mean", m.Latency.Mean, 1.275e6}} {
			if math.Abs(q.got-q.want) > q.want/100+1000 {
				t.Errorf("%s is %v µs, want %v", q.name, q.got, q.want)
			}
		}
	})
}

// The same stall in a closed load is one long latency, and the correction finds what is missing.
func TestCorrectionOfStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, stall(t))
		rep := runLoad(t, s.memory(load.Config{Requests: 50, Route: "svc.stall", Timeout: time.Minute, Correct: 100 * time.Millisecond}))
		noErrors(t, rep)
		m := rep.Measured
		if m.Count != 50 || m.Latency.P90 > 1000 || math.Abs(m.Latency.Max-5e6) > 1000 {
			t.Errorf("%d requests, %+v; want 50 of which one took 5 s", m.Count, m.Latency)
		}
		if got := m.Corrected.P90; math.Abs(got-4.1e6) > 1e5 { // the 90th of 50 and of 49 that are added
			t.Errorf("p90 is %v µs after the correction, want 4.1 s", got)
		}
	})
}

// The schedule of an open load of independent arrivals has the rate that is asked for.
func TestPoisson(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, nil)
		rep := runLoad(t, s.memory(load.Config{Conns: 10, Rate: 100, Poisson: true, Duration: 100 * time.Second, Route: "svc.raw"}))
		noErrors(t, rep)
		if n := rep.Measured.Count; n < 9500 || n > 10500 { // five standard deviations
			t.Errorf("%d requests in 100 s at 100/s", n)
		}
		even := true
		for _, p := range rep.Series {
			even = even && p.Count == 100
		}
		if even {
			t.Error("each second has as many")
		}
	})
}

// Warm-up and ramp are load that is not measured.
func TestPhases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, nil)
		phases := make(map[string]int)
		rep := runLoad(t, s.memory(load.Config{Conns: 10, Ramp: 10 * time.Second, Warmup: 5050 * time.Millisecond, Duration: 20 * time.Second, Rate: 10, Route: "svc.raw",
			Progress: func(_ load.Point, p load.Progress) { phases[p.Phase]++ }}))
		if rep.Measured.Count != 200 || rep.Measured.Seconds != 20 || len(rep.Series) != 20 {
			t.Errorf("%d in %v s, %d points; want 200 in 20 s", rep.Measured.Count, rep.Measured.Seconds, len(rep.Series))
		}
		noErrors(t, rep)
		if rep.Total.Requests <= 250 || rep.Total.Requests >= 350 || phases["connect"] < 8 || phases["warm-up"] != 4 && phases["warm-up"] != 5 || phases["measure"] != 20 {
			t.Errorf("%d requests in all, phases %v", rep.Total.Requests, phases)
		}
	})
}

// The end of the context ends a run with its report.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, scenario := range load.Scenarios() {
			cfg := load.Config{Scenario: scenario, Conns: 4, Duration: time.Hour, Route: "svc.raw", Sync: "svc.raw"}
			switch scenario {
			case load.Echo, load.Connect:
				cfg.Rate = 10
			case load.Notify:
				cfg.Rate, cfg.Route = 10, "svc.note"
			case load.Broadcast:
				continue // without a pause: in a bubble, its rounds take no time for ever
			case load.Mixed:
				cfg.Script = parseScript(t, "play\n  request svc.raw x\n  sleep 100ms\n")
			}
			s := newTarget(t, pitaya.Config{}, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
			start := time.Now()
			rep, err := load.Run(ctx, s.memory(cfg))
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if !rep.Interrupted || rep.Measured.Seconds != 3.5 || time.Since(start) > 5*time.Second {
				t.Errorf("%s: interrupted %v after %v s, ended after %v", scenario, rep.Interrupted, rep.Measured.Seconds, time.Since(start))
			}
			noErrors(t, rep)
			s.end()
		}
	})
}
