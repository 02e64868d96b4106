package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A recorder is a reporter that keeps what it is told.
type recorder struct {
	mu       sync.Mutex
	counts   map[string]float64
	gauges   map[string]float64
	observed map[string][]time.Duration
}

func newRecorder() *recorder {
	return &recorder{counts: make(map[string]float64), gauges: make(map[string]float64), observed: make(map[string][]time.Duration)}
}

// recordedAs is how a time series is written: name{a=b,c=d}, labels in their order.
func recordedAs(name string, labels []pitaya.Label) string {
	var list []string
	for _, l := range labels {
		list = append(list, l.Name+"="+l.Value)
	}
	return name + "{" + strings.Join(list, ",") + "}"
}

func (r *recorder) Count(name string, delta float64, labels ...pitaya.Label) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if delta <= 0 {
		panic(fmt.Sprint("a counter that grows by ", delta))
	}
	r.counts[recordedAs(name, labels)] += delta
}

func (r *recorder) Gauge(name string, value float64, labels ...pitaya.Label) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gauges[recordedAs(name, labels)] = value
}

func (r *recorder) Observe(name string, value float64, labels ...pitaya.Label) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := recordedAs(name, labels)
	r.observed[key] = append(r.observed[key], time.Duration(value))
}

// take returns what was observed of a metric since the last call, one line for each series.
func (r *recorder) take(name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, key := range slices.Sorted(maps.Keys(r.observed)) {
		if labels, ok := strings.CutPrefix(key, name); ok && labels[0] == '{' {
			list = append(list, fmt.Sprint(labels, " ", r.observed[key]))
			delete(r.observed, key)
		}
	}
	return list
}

// number returns a counter or gauge, 0 if there is none.
func (r *recorder) number(series string) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[series] + r.gauges[series]
}

// wantObserved compares what was observed since the last time.
func (r *recorder) wantObserved(t testing.TB, name string, want ...string) {
	t.Helper()
	if got := r.take(name); !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What the frontend reports of its clients' messages: from their arrival until the answer is on the socket, under the
// route as it was written, whatever the handler does meanwhile.
func TestResponseTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := startServer(t, pitaya.Config{Reporters: []pitaya.Reporter{r}, WriteTimeout: 4 * time.Second}, func(s *pitaya.Server) {
			must(t,
				pitaya.HandleRaw(s, "h.work", func(_ context.Context, in []byte) ([]byte, error) {
					time.Sleep(time.Duration(len(in)) * time.Second)
					return in, nil
				}),
				pitaya.HandleRaw(s, "h.fail", func(_ context.Context, in []byte) ([]byte, error) {
					if len(in) == 0 {
						return nil, errors.New("plain")
					}
					return nil, pitaya.Errorf("SHOP-1", "no gold")
				}),
				pitaya.HandleRaw(s, "h.big", func(context.Context, []byte) ([]byte, error) { return make([]byte, 1<<20), nil }),
				s.SetDictionary(map[string]uint16{"h.work": 7}),
			)
		})
		c := s.connect(t)
		answers := func(n int) {
			t.Helper()
			for range n {
				c.message()
			}
			synctest.Wait()
		}
		const metric = "response_time_ns"

		c.request(1, "h.work", "1")
		c.request(2, "conn.h.work", "22") // waits for the first, in its mailbox
		answers(2)
		r.wantObserved(t, metric,
			"{route=conn.h.work,status=ok,type=handler,code=} [3s]",
			"{route=h.work,status=ok,type=handler,code=} [1s]")
		r.wantObserved(t, "handler_delay_ns",
			"{route=conn.h.work,type=local} [1s]",
			"{route=h.work,type=local} [0s]")

		c.request(3, "h.fail", "")
		c.request(4, "h.fail", "x")
		c.request(5, "h.nope", "")
		c.request(6, "elsewhere.h.nope", "")
		answers(4)
		r.wantObserved(t, metric,
			"{route=h.fail,status=failed,type=handler,code=PIT-000} [0s]",
			"{route=h.fail,status=failed,type=handler,code=SHOP-1} [0s]",
			"{route=unknown,status=failed,type=handler,code=PIT-404} [0s]",
			"{route=unknown,status=failed,type=handler,code=PIT-500} [0s]")

		// Notifies, and requests that cannot be answered, are over with their handlers.
		c.request(0, "h.work", "1")
		c.request(0, "h.fail", "")
		c.request(0, "h.nope", "")
		c.request(7, "h.work", "")
		answers(1)
		r.wantObserved(t, metric,
			"{route=h.fail,status=failed,type=handler,code=PIT-000} [1s]",
			"{route=h.work,status=ok,type=handler,code=} [1s 1s]",
			"{route=unknown,status=failed,type=handler,code=PIT-404} [1s]")

		// A client that takes its time.
		c.request(8, "h.big", "")
		c.request(9, "h.work", "")
		time.Sleep(3 * time.Second)
		r.wantObserved(t, metric)
		answers(2)
		r.wantObserved(t, metric,
			"{route=h.big,status=ok,type=handler,code=} [3s]",
			"{route=h.work,status=ok,type=handler,code=} [3s]")

		// One that takes nothing: the answer that could not be written, and not the one behind it.
		c.request(10, "h.big", "")
		synctest.Wait()
		c.request(11, "h.work", "")
		time.Sleep(5 * time.Second)
		r.wantObserved(t, metric, "{route=h.big,status=failed,type=handler,code=PIT-498} [4s]")

		// One that has left before it was answered is reported nowhere.
		d := s.connect(t)
		d.request(1, "h.work", "1")
		synctest.Wait()
		d.Close()
		time.Sleep(2 * time.Second)
		r.wantObserved(t, metric)
		if st := s.Stats(); st.Lost != 1 {
			t.Errorf("%d lost", st.Lost)
		}
	})
}

// Time in the mailbox is observed for each batch that a worker takes, and the wait for a slot is part of the delay.
func TestMailboxTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := startServer(t, pitaya.Config{Reporters: []pitaya.Reporter{r}, Dispatch: 1}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "h.work", func(_ context.Context, in []byte) ([]byte, error) {
				time.Sleep(time.Second)
				return in, nil
			}))
		})
		a, b := s.connect(t), s.connect(t)
		a.request(1, "h.work", "")
		synctest.Wait()
		b.request(1, "h.work", "") // waits for a slot
		synctest.Wait()
		time.Sleep(time.Second / 2)
		b.request(2, "h.work", "") // waits in the mailbox: half a second for the first, one for its handler, and then its slot
		a.message()
		b.message()
		b.message()
		synctest.Wait()
		r.wantObserved(t, "mailbox_time_ns", "{} [0s 0s 1.5s]")
		r.wantObserved(t, "handler_delay_ns", "{route=h.work,type=local} [0s 1s 1.5s]")
		r.wantObserved(t, "response_time_ns", "{route=h.work,status=ok,type=handler,code=} [1s 2s 2.5s]")
	})
}

// Labels are bounded: by routes that clients make up, and by codes that the application makes up.
func TestLabelsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := startServer(t, pitaya.Config{Reporters: []pitaya.Reporter{r}}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "h.code", func(_ context.Context, in []byte) ([]byte, error) {
				return nil, pitaya.Errorf(string(in), "as you like it")
			}))
		})
		c := s.connect(t)
		const n = 2000
		for i := range uint64(n) {
			c.request(3*i+1, fmt.Sprintf("made.up%d", i), "")
			c.message()
			c.request(3*i+2, fmt.Sprintf("type%d.made.up", i), "")
			c.message()
			c.request(3*i+3, "h.code", fmt.Sprintf("APP-%d", i))
			c.message()
		}
		synctest.Wait()
		list := r.take("response_time_ns")
		if len(list) > 100 {
			t.Fatalf("%d series: %q ...", len(list), list[:100])
		}
		observed := 0
		for _, l := range list {
			observed += len(strings.Fields(l[strings.Index(l, "["):]))
		}
		if observed != 3*n {
			t.Errorf("%d observations of %d requests", observed, 3*n)
		}
	})
}

// What fails on the way to another server says nothing about the route: else a client that sends more than the transport
// takes would fill the places of the routes that exist.
func TestRoutesAreNotLearnedFromFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := pitaya.NewMemCluster()
		r := newRecorder()
		cfg := pitaya.Config{Cluster: true, ID: "gate", Reporters: []pitaya.Reporter{r}}
		cfg.Discovery, cfg.Transport = cluster.Node()
		cfg.Transport = pickyTransport{cfg.Transport}
		room := pitaya.Config{Cluster: true, ID: "room", Type: "room"}
		room.Discovery, room.Transport = cluster.Node()
		startServer(t, room, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "h.echo", sleeper(0)))
		})
		c := startServer(t, cfg, nil).connect(t)
		for i := range uint64(2000) {
			c.request(i+1, fmt.Sprintf("room.made.up%d", i), tooLong)
			if m := c.message(); !m.Err {
				t.Fatalf("answered with %q", m.Payload)
			}
		}
		c.request(9000, "room.h.echo", "")
		c.message()
		synctest.Wait()
		var got []string
		for _, l := range r.take("response_time_ns") {
			got = append(got, l[:strings.Index(l, " ")])
		}
		want := []string{
			"{route=room.h.echo,status=ok,type=handler,code=}", "{route=room.h.echo,status=ok,type=rpc,code=}",
			"{route=unknown,status=failed,type=handler,code=PIT-000}", "{route=unknown,status=failed,type=rpc,code=PIT-000}",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d series: %q, want %q", len(got), got[:min(len(got), 8)], want)
		}
	})
}

// tooLong is what a pickyTransport does not take.
const tooLong = "too long"

type pickyTransport struct{ pitaya.Transport }

func (t pickyTransport) Call(ctx context.Context, to *pitaya.ServerInfo, body []byte, done func([]byte, error)) {
	if strings.Contains(string(body), tooLong) && done != nil {
		go done(nil, errors.New("the body is too long"))
		return
	}
	t.Transport.Call(ctx, to, body, done)
}

// Tags of the context go before labels of the same name; those that a handler adds count for its own call.
func TestMetricTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := startServer(t, pitaya.Config{Reporters: []pitaya.Reporter{r}}, func(s *pitaya.Server) {
			must(t,
				s.Before(func(ctx context.Context, in any) (context.Context, any, error) {
					return pitaya.AddMetricTagsToPropagateCtx(ctx, map[string]string{"shard": "s1", "zone": "eu"}), in, nil
				}),
				pitaya.HandleRaw(s, "h.same", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
				pitaya.HandleRaw(s, "h.own", func(ctx context.Context, in []byte) ([]byte, error) {
					pitaya.AddToPropagateCtx(ctx, "metric-tags", map[string]any{"route": "mine", "n": 1})
					return in, nil
				}),
			)
		})
		c := s.connect(t)
		c.request(1, "h.same", "")
		c.request(2, "h.own", "")
		c.message()
		c.message()
		synctest.Wait()
		r.wantObserved(t, "response_time_ns",
			"{route=h.same,status=ok,type=handler,code=,shard=s1,zone=eu} [0s]",
			"{route=mine,status=ok,type=handler,code=} [0s]")
	})
}

// The numbers that are reported each period.
func TestPeriodicMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		release := make(chan struct{})
		s := startServer(t, pitaya.Config{
			Reporters: []pitaya.Reporter{r}, Metrics: pitaya.MetricsConfig{Period: 10 * time.Second}, MailboxMessages: 8, QueueMessages: 50,
			QueueBytes: 4 << 20, WriteTimeout: time.Minute,
		}, func(s *pitaya.Server) {
			must(t,
				pitaya.HandleRaw(s, "h.bind", bindHandler),
				pitaya.HandleRaw(s, "h.wait", func(context.Context, []byte) ([]byte, error) { <-release; return nil, nil }),
				pitaya.HandleRaw(s, "h.push", func(ctx context.Context, in []byte) ([]byte, error) {
					for range 20 {
						if err := pitaya.SessionFromContext(ctx).Push(ctx, "p", make([]byte, 64<<10)); err != nil {
							return nil, err
						}
					}
					return in, nil
				}))
		})
		synctest.Wait()
		for _, name := range []string{"goroutines{}", "heapsize{}", "heapobjects{}"} {
			if r.number(name) <= 0 {
				t.Errorf("%s is not reported at once", name)
			}
		}
		r.take("channel_capacity")
		a, b := s.connect(t), s.connect(t)
		a.request(1, "h.bind", "u")
		a.message()
		b.request(1, "h.push", "")
		for i := range uint64(4) {
			a.request(2+i, "h.wait", "")
			synctest.Wait()
		}
		if n := r.number("requests{}"); n != 0 {
			t.Errorf("%v requests before the period is over", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for series, want := range map[string]float64{
			"accepted_connections{}": 2, "closed_connections{}": 0, "connected_clients{}": 2, "sessions_bound{}": 1,
			"requests{}": 3, "answered{}": 2, "pushes{}": 20, "received_packets{}": 10,
			"busy_workers{pool=handler_dispatch}": 1, "total_workers{pool=handler_dispatch}": 2,
		} {
			if got := r.number(series); got != want {
				t.Errorf("%s is %v, want %v", series, got, want)
			}
		}
		if n := r.number("queue_bytes{}"); n < 1<<20 || n > 2<<20 {
			t.Errorf("%v bytes are queued", n)
		}
		st := s.Stats()
		if got := r.number("received_bytes{}"); got != float64(st.ReceivedBytes) || got == 0 {
			t.Errorf("%v bytes received, of %d", got, st.ReceivedBytes)
		}
		if got := r.number("sent_bytes{}"); got != float64(st.SentBytes) || got == 0 {
			t.Errorf("%v bytes sent, of %d", got, st.SentBytes)
		}
		// Three wait behind the one at work, and all pushes and the answer but what fits into the pipe.
		r.wantObserved(t, "channel_capacity",
			"{channel=agent_chsend} [29ns]", "{channel=handler_chlocalprocess} [5ns]", "{channel=handler_chremoteprocess} [64ns]")
		close(release)
		for range 4 {
			a.message()
		}
		a.Close()
		b.Close()
		s.stop(t)
		synctest.Wait()
		st = s.Stats()
		for series, want := range map[string]int64{
			"closed_connections{}": 2, "connected_clients{}": 0, "sessions_bound{}": 0, "lost{}": st.Lost, "answered{}": st.Answered,
			"requests{}": 3 + 3,
		} {
			if got := r.number(series); got != float64(want) {
				t.Errorf("at the end %s is %v, want %v", series, got, want)
			}
		}
		if st.Requests != st.Answered+st.Failed+st.Lost+st.Unanswerable {
			t.Errorf("%+v", st)
		}
	})
}

// Handshakes are counted by why they were refused.
func TestRefusedHandshakeMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		s := startServer(t, pitaya.Config{Reporters: []pitaya.Reporter{r}, HandshakeTimeout: time.Second}, func(s *pitaya.Server) {
			must(t, s.AddHandshakeValidator("version", func(h *pitaya.HandshakeData) error {
				if h.Sys.Version == "old" {
					return errors.New("too old")
				}
				return nil
			}))
		})
		for _, body := range []string{`{`, `{"sys":{"clientVersion":"old"}}`, `{"sys":{"clientVersion":"old"}}`} {
			c := s.dial(t)
			c.send(pitaya.PacketHandshake, []byte(body))
			c.expect(pitaya.PacketHandshake)
		}
		s.dial(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for reason, want := range map[string]float64{"malformed": 1, "validator": 2, "timeout": 1} {
			if got := r.number("refused_handshakes{reason=" + reason + "}"); got != want {
				t.Errorf("%v refused as %s, want %v", got, reason, want)
			}
		}
		if st := s.Stats(); st.RefusedHandshakes != 3 || st.LateHandshakes != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// A request that is reported allocates nothing more than one that is not.
func TestMetricsAllocations(t *testing.T) {
	allocations := func(reporters ...pitaya.Reporter) float64 {
		s := startServer(t, pitaya.Config{Reporters: reporters, Metrics: pitaya.MetricsConfig{Period: time.Hour}}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "h.echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }))
		})
		defer s.stop(t)
		c := s.connect(t)
		defer c.Close()
		request := benchRequest(t, "h.echo", "payload")
		answer := make([]byte, pitaya.PacketHeaderSize+9)
		return testing.AllocsPerRun(500, func() {
			c.write(request)
			if _, err := io.ReadFull(c, answer); err != nil {
				t.Fatal(err)
			}
		})
	}
	m, err := pitaya.NewMetrics("conn", pitaya.MetricsConfig{})
	must(t, err)
	// The race detector makes pools forget at random. Then nothing exact can be said.
	var pool sync.Pool
	forgotten := testing.AllocsPerRun(200, func() {
		for range 8 {
			p, ok := pool.Get().(*[64]byte)
			if !ok {
				p = new([64]byte)
			}
			pool.Put(p)
		}
	})
	if off, on := allocations(), allocations(m); on > off+2*forgotten {
		t.Errorf("%v allocations for a request with metrics, %v without", on, off)
	}
}
