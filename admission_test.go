package pitaya_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestBucket: all at once after a pause, then evenly, and nothing is lost or gained in the long run, even where the
// interval cannot be divided by the limit.
func TestBucket(t *testing.T) {
	for _, tt := range []struct {
		limit    int
		interval time.Duration
	}{{1, time.Second}, {3, time.Second}, {7, 10 * time.Millisecond}, {1000, time.Second}, {1_000_000, 2 * time.Hour}} {
		b := pitaya.TestBucket{Limit: tt.limit, Interval: tt.interval}
		for i := range tt.limit {
			if !b.Take(0) {
				t.Fatalf("%d in %v: refused after %d", tt.limit, tt.interval, i)
			}
		}
		if b.Take(0) {
			t.Fatalf("%d in %v: one too many", tt.limit, tt.interval)
		}
		// Whoever asks without a pause gets the limit in each interval, to the nanosecond.
		now := time.Duration(0)
		for n := range min(10*tt.limit, 100_000) {
			due := (time.Duration(n+1)*tt.interval + time.Duration(tt.limit) - 1) / time.Duration(tt.limit)
			if now = due - 1; b.Take(now) {
				t.Fatalf("%d in %v: number %d came a nanosecond early", tt.limit, tt.interval, n)
			}
			if now = due; !b.Take(now) {
				t.Fatalf("%d in %v: number %d was refused at %v", tt.limit, tt.interval, n, now)
			}
		}
		// A long pause gives the limit back and not more; time does not run backwards.
		now += 1000 * time.Hour
		for range tt.limit {
			if !b.Take(now) {
				t.Fatalf("%d in %v: not full after a pause", tt.limit, tt.interval)
			}
		}
		if b.Take(now) || b.Take(now-time.Hour) {
			t.Fatalf("%d in %v: more than full after a pause", tt.limit, tt.interval)
		}
	}
}

// TestBucketWindow: what has at most the limit in every interval, as Pitaya counts, is never refused; and no span of time
// lets more through than the limit and what comes back in it.
func TestBucketWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		limit, interval := 1+r.IntN(9), time.Duration(1+r.IntN(1000))
		window := pitaya.TestBucket{Limit: limit, Interval: interval}
		flood := pitaya.TestBucket{Limit: limit, Interval: interval}
		var now time.Duration
		var good, passed []time.Duration
		for range 500 {
			now += time.Duration(r.IntN(1 + 2*int(interval)/limit))
			if n := len(good); n < limit || now-good[n-limit] >= interval {
				good = append(good, now)
				if !window.Take(now) {
					t.Fatalf("%d in %v: refused at %v what Pitaya lets pass: %v", limit, interval, now, good)
				}
			}
			if flood.Take(now) {
				passed = append(passed, now)
			}
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				if most := limit + int(passed[j]-passed[i])*limit/int(interval); j-i+1 > most {
					t.Fatalf("%d in %v: %d between %v and %v", limit, interval, j-i+1, passed[i], passed[j])
				}
			}
		}
	}
}

// TestAddressTable: a flood of addresses costs bounded memory, does not get the record of an abuser forgotten, and is
// forgotten when its time is over.
func TestAddressTable(t *testing.T) {
	const addresses, most = 100_000, 1000
	table := pitaya.NewAddressTable(3, time.Minute, most)
	host := func(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	const abuser = "abuser"
	for i := range 5 {
		if ok := table.Visit(abuser, 0); ok != (i < 3) {
			t.Fatalf("visit %d: %v", i, ok)
		}
	}
	now := time.Duration(0)
	held := held(func() {
		for n := range addresses {
			now += 100 * time.Microsecond // 10 s in all
			if !table.Visit(host(n), now) {
				t.Fatalf("address %d was refused", n)
			}
			if n := table.Len(); n > most {
				t.Fatalf("%d addresses are known", n)
			}
		}
	})
	if table.Len() != most {
		t.Errorf("%d addresses are known after the flood, want %d", table.Len(), most)
	}
	if table.Visit(abuser, now) {
		t.Error("the abuser was forgotten")
	}
	if limit := int64(most * 400); held > limit {
		t.Errorf("%d addresses hold %d bytes, want at most %d", most, held, limit)
	}
	t.Logf("%d addresses hold %d bytes", most, held)
	// Half of the places are for abusers, and they push out each other, the oldest first.
	next := 0
	abuse := func(n int) {
		for range n {
			for range 4 {
				table.Visit(host(next), now)
			}
			next++
		}
	}
	if abuse(most/2 - 1); table.Visit(abuser, now) {
		t.Error("the abuser was forgotten before its turn")
	}
	if abuse(most/2 + 1); !table.Visit(abuser, now) {
		t.Error("more abusers are remembered than half of the places")
	}
	if table.Visit(host(0), now); table.Len() != most {
		t.Errorf("%d addresses are known among abusers, want %d", table.Len(), most)
	}
	now += time.Minute
	if table.Visit("last", now); table.Len() != 1 {
		t.Errorf("%d addresses are known when all others' time is over", table.Len())
	}
}

// limited starts a server with an echo, a notify that is counted, and clients of any address.
func limited(t *testing.T, cfg pitaya.Config, setup func(*pitaya.Server)) (s *testServer, dial func(ip string) *rawClient, notified *atomic.Int64) {
	t.Helper()
	mem := pitaya.ListenMem()
	cfg.Listeners = []net.Listener{pitaya.NewProxyListener(mem, pitaya.ProxyOptions{})}
	notified = new(atomic.Int64)
	s = startServer(t, cfg, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
			pitaya.HandleNotify(s, "test.note", func(context.Context, *struct{}) { notified.Add(1) }))
		if setup != nil {
			setup(s)
		}
	})
	return s, func(ip string) *rawClient {
		t.Helper()
		c, err := mem.DialContext(t.Context())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		family := "TCP4"
		if strings.Contains(ip, ":") {
			family = "TCP6"
		}
		fmt.Fprintf(c, "PROXY %s %s %s 4000 3250\r\n", family, ip, ip)
		return &rawClient{Conn: c, t: t}
	}, notified
}

// outcomes reads n answers and returns their ids in the order in which they came, each with "!" and its code if it is an
// error.
func (c *rawClient) outcomes(n int) string {
	c.t.Helper()
	var list []string
	for range n {
		m := c.message()
		s := fmt.Sprint(m.ID)
		if m.Err {
			var e struct{ Code string }
			must(c.t, json.Unmarshal(m.Payload, &e))
			s += "!" + e.Code
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

// ask sends requests on one route in one write.
func (c *rawClient) ask(route string, ids ...uint64) {
	c.t.Helper()
	var all []byte
	for _, id := range ids {
		body, err := pitaya.AppendMessage(nil, pitaya.Message{ID: id, Route: route, Payload: []byte("{}")}, nil)
		must(c.t, err)
		all = append(all, packet(pitaya.PacketData, string(body))...)
	}
	c.write(all)
}

func wantOutcomes(t testing.TB, c *rawClient, want string) {
	t.Helper()
	if got := c.outcomes(1 + strings.Count(want, " ")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// balanced checks the conservation of requests.
func wantBalance(t testing.TB, s *testServer) pitaya.Stats {
	t.Helper()
	st := s.Stats()
	if st.Requests != st.Answered+st.Failed+st.Unanswerable+st.Lost {
		t.Errorf("requests are missing: %+v", st)
	}
	return st
}

// TestRateLimitAnswers: a client over its limit gets an answer to each request, in order, and the others notice nothing.
func TestRateLimitAnswers(t *testing.T) {
	for _, ws := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			kind := map[bool]string{false: "mem", true: "memws"}[ws]
			var notes atomic.Int64
			cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 4, Interval: time.Second}}
			s, dial := startOn(t, kind, cfg, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
					pitaya.HandleNotify(s, "test.note", func(context.Context, *struct{}) { notes.Add(1) }))
			})
			greedy, other := dial().hello(), dial().hello()
			begin := time.Now()
			greedy.ask("test.echo", 1, 2, 3)
			greedy.request(0, "test.note", "{}") // counts too
			greedy.ask("test.echo", 4, 5)
			greedy.request(0, "test.note", "{}") // one too many
			greedy.ask("nobody.knows", 6)        // nobody asks what it was
			greedy.ask("test.echo", 0, 7)
			wantOutcomes(t, greedy, "1 2 3 4!PIT-429 5!PIT-429 6!PIT-429 7!PIT-429")
			other.ask("test.echo", 1, 2, 3, 4)
			wantOutcomes(t, other, "1 2 3 4")
			if d := time.Since(begin); d != 0 {
				t.Errorf("the answers took %v", d)
			}
			// A quarter of the interval gives a quarter of the limit back.
			time.Sleep(250*time.Millisecond - time.Nanosecond)
			greedy.ask("test.echo", 8)
			wantOutcomes(t, greedy, "8!PIT-429")
			time.Sleep(time.Nanosecond)
			greedy.ask("test.echo", 9, 10)
			wantOutcomes(t, greedy, "9 10!PIT-429")
			synctest.Wait()
			st := wantBalance(t, s)
			if notes.Load() != 1 || st.LimitedBySession != 8 || st.Notifies != 2 || st.Requests != 15 || st.Unanswerable != 1 || st.Answered != 8 {
				t.Errorf("%d notifies; %+v", notes.Load(), st)
			}
		})
	}
}

// TestRateLimitByArrival: what was sent in good time is not refused because it had to wait for a slow handler.
func TestRateLimitByArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := limited(t, pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 2}}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", sleeper(10*time.Second)))
		})
		c := dial("192.0.2.1").hello()
		c.ask("test.slow", 1)
		for id := range uint64(19) {
			time.Sleep(500 * time.Millisecond)
			c.ask("test.echo", id+2)
		}
		wantOutcomes(t, c, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20")
		if st := s.Stats(); st.LimitedBySession != 0 {
			t.Errorf("%+v", st)
		}
		// And a flood is one, however slowly it is handled.
		time.Sleep(time.Second)
		c.ask("test.slow", 1, 2, 3, 4)
		wantOutcomes(t, c, "1 2 3!PIT-429 4!PIT-429")
	})
}

// TestRateLimitDisabled: forcedisable goes before everything, and zero bounds nothing.
func TestRateLimitDisabled(t *testing.T) {
	all := pitaya.Rate{Limit: 1}
	for _, limit := range []pitaya.RateLimitConfig{
		{},
		{Limit: 1, Address: all, Server: all, AddressHandshakes: all, ServerHandshakes: all, Pending: 1, Abuse: all, Disabled: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, dial, notes := limited(t, pitaya.Config{RateLimit: limit}, nil)
			for range 3 {
				c := dial("192.0.2.1").hello()
				c.ask("test.echo", 1, 2, 3, 4, 5)
				c.request(0, "test.note", "{}")
				for range 1000 {
					c.send(pitaya.PacketHeartbeat, nil)
				}
				wantOutcomes(t, c, "1 2 3 4 5")
			}
			synctest.Wait()
			if st := wantBalance(t, s); notes.Load() != 3 || st.Answered != 15 || st.LimitedBySession+st.LimitedHandshakes+st.LimitedByPending != 0 {
				t.Errorf("%d notifies; %+v", notes.Load(), st)
			}
		})
	}
}

// TestAbuseCloses: a client that goes on is answered what came before, and kicked with the reason; callbacks and the log
// know why, and a flood of such clients does not flood the log.
func TestAbuseCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLogRecords(slog.LevelWarn)
		causes := make(chan error, 10)
		cfg := pitaya.Config{Logger: slog.New(log), RateLimit: pitaya.RateLimitConfig{Limit: 2, Abuse: pitaya.Rate{Limit: 3, Interval: time.Minute}}}
		s, dial, _ := limited(t, cfg, func(s *pitaya.Server) {
			must(t, s.OnSessionClose(func(s *pitaya.Session) { causes <- context.Cause(s.Context()) }))
		})
		for i := range 5 {
			c := dial("192.0.2.1").hello()
			c.ask("test.echo", 1, 2, 3, 4)
			time.Sleep(time.Second) // the limit comes back, and a thirtieth of one refusal
			c.ask("test.echo", 5, 6, 7, 8, 9, 10, 11)
			wantOutcomes(t, c, "1 2 3!PIT-429 4!PIT-429 5 6 7!PIT-429 8!PIT-429")
			if body := c.expect(pitaya.PacketKick); string(body) != `{"reason":"too many requests"}` {
				t.Errorf("kicked with %q", body)
			}
			c.expectClosed()
			if err := <-causes; !errors.Is(err, pitaya.ErrTooManyRequests) {
				t.Errorf("client %d ended with %v", i, err)
			}
		}
		polite := dial("192.0.2.1").hello()
		for id := range uint64(100) { // one refusal in 21 s is no abuse
			polite.ask("test.echo", 3*id+1, 3*id+2, 3*id+3)
			if got := polite.outcomes(3); strings.Count(got, "PIT-429") != 1 {
				t.Errorf("round %d: %s", id, got)
			}
			time.Sleep(21 * time.Second)
		}
		if st := wantBalance(t, s); st.ClosedForAbuse != 5 || st.Violations != 0 {
			t.Errorf("%+v", st)
		}
		if n := strings.Count(log.String(), "sends too much"); n != 5 {
			t.Errorf("%d records in the log:\n%s", n, log)
		}
	})
}

// TestControlFlood: heartbeats and acknowledgements are not counted as messages, and a flood of them is abuse.
func TestControlFlood(t *testing.T) {
	for _, kind := range []pitaya.PacketType{pitaya.PacketHeartbeat, pitaya.PacketHandshakeAck, pitaya.PacketKick, pitaya.PacketHandshake} {
		synctest.Test(t, func(t *testing.T) {
			cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 1, Abuse: pitaya.Rate{Limit: 50}}}
			s, dial, _ := limited(t, cfg, nil)
			patient, flood := dial("192.0.2.1").hello(), dial("192.0.2.2").hello()
			body := ""
			if kind == pitaya.PacketHandshake {
				body = `{"sys":{}}`
			}
			p := packet(kind, body)
			for range 300 { // ten a second
				patient.write(p)
				time.Sleep(100 * time.Millisecond)
			}
			flood.write([]byte(strings.Repeat(string(p), 149)))
			synctest.Wait()
			if st := s.Stats(); st.Sessions != 2 || st.LimitedBySession == 0 {
				t.Fatalf("%v: %+v", kind, st)
			}
			flood.write([]byte(strings.Repeat(string(p), 10)))
			synctest.Wait()
			if st := s.Stats(); st.Sessions != 1 || st.ClosedForAbuse != 1 {
				t.Errorf("%v: %+v", kind, st)
			}
			list, err := flood.packets()
			if err != nil || len(list) == 0 || list[len(list)-1].Type != pitaya.PacketKick {
				t.Errorf("%v: the flood got %d packets, the last of which is no kick, and %v", kind, len(list), err)
			}
		})
	}
}

// TestPendingLimit: requests that wait, that are being handled beside the mailbox and that are under way to other servers
// are all pending; notifies and what was refused are not.
func TestPendingLimit(t *testing.T) {
	for _, kind := range []string{"mailbox", "concurrent", "forwarded"} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			block := func(ctx context.Context, b []byte) ([]byte, error) {
				<-release
				return b, nil
			}
			cluster := pitayatest.NewCluster(t)
			cfg := pitaya.Config{Type: "gate", Frontend: true, Logger: testLogger(t), RateLimit: pitaya.RateLimitConfig{Pending: 3}}
			gate := cluster.NewServer(t, cfg, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "mailbox.block", block), pitaya.HandleRaw(s, "concurrent.block", block, pitaya.WithConcurrent()),
					pitaya.HandleNotify(s, "test.note", func(context.Context, *struct{}) {}))
			})
			room := cluster.NewServer(t, pitaya.Config{Type: "room", Logger: testLogger(t)}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "forwarded.block", block, pitaya.WithConcurrent()))
			})
			_ = room
			nc, err := gate.Listener().DialContext(t.Context())
			must(t, err)
			defer nc.Close()
			c := (&rawClient{Conn: nc, t: t}).hello()
			route := kind + ".block"
			if kind == "forwarded" {
				route = "room." + route
			}
			for range 5 {
				c.request(0, "test.note", "{}")
			}
			c.ask(route, 1, 2, 3, 4, 5)
			synctest.Wait()
			if kind != "mailbox" { // there the refusals wait for their turn
				wantOutcomes(t, c, "4!PIT-429 5!PIT-429")
			}
			release <- struct{}{}
			c.message() // one of the three
			c.ask(route, 6, 7)
			synctest.Wait()
			if kind != "mailbox" {
				wantOutcomes(t, c, "7!PIT-429")
			}
			close(release)
			got := c.outcomes(map[bool]int{true: 6, false: 3}[kind == "mailbox"])
			if kind == "mailbox" && got != "2 3 4!PIT-429 5!PIT-429 6 7!PIT-429" {
				t.Errorf("%s: got %s", kind, got)
			} else if kind != "mailbox" && strings.Contains(got, "!") {
				t.Errorf("%s: got %s", kind, got)
			}
			// All are answered, so as many may be asked again.
			c.ask(route, 8, 9, 10)
			if got := c.outcomes(3); strings.Contains(got, "!") {
				t.Errorf("%s: got %s", kind, got)
			}
			synctest.Wait()
			if st := gate.Stats(); st.LimitedByPending != 3 || st.Requests != st.Answered+st.Failed {
				t.Errorf("%s: %+v", kind, st)
			}
		})
	}
}

// TestAddressLimit: sessions of one address share its rate, as the PROXY header tells it, and others have their own; over
// IPv6 a /64 is one.
func TestAddressLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{Address: pitaya.Rate{Limit: 3, Interval: time.Minute}}}
		s, dial, _ := limited(t, cfg, nil)
		a, b, other := dial("192.0.2.1").hello(), dial("::ffff:192.0.2.1").hello(), dial("192.0.2.2").hello()
		a.ask("test.echo", 1, 2)
		wantOutcomes(t, a, "1 2")
		b.ask("test.echo", 1, 2)
		wantOutcomes(t, b, "1 2!PIT-429")
		a.ask("test.echo", 3)
		wantOutcomes(t, a, "3!PIT-429")
		other.ask("test.echo", 1, 2, 3)
		wantOutcomes(t, other, "1 2 3")
		// It is no use to connect again.
		a.Close()
		b.Close()
		synctest.Wait()
		again := dial("192.0.2.1").hello()
		again.ask("test.echo", 1)
		wantOutcomes(t, again, "1!PIT-429")

		six, neighbour, far := dial("2001:db8::1").hello(), dial("2001:db8::ffff:2").hello(), dial("2001:db8:0:1::1").hello()
		six.ask("test.echo", 1, 2)
		wantOutcomes(t, six, "1 2")
		neighbour.ask("test.echo", 1, 2)
		far.ask("test.echo", 1, 2, 3)
		wantOutcomes(t, neighbour, "1 2!PIT-429")
		wantOutcomes(t, far, "1 2 3")
		if st := wantBalance(t, s); st.LimitedByAddress != 4 {
			t.Errorf("%+v", st)
		}
	})
}

// TestAddressLimitForwarded: behind a proxy, the limits by address are those of the client that X-Forwarded-For tells, if the
// listener believes it, and not of what a client writes there itself; else all behind the proxy are one.
func TestAddressLimitForwarded(t *testing.T) {
	one := pitaya.Rate{Limit: 1, Interval: time.Hour}
	for limit, cfg := range map[string]pitaya.Config{
		"messages":    {RateLimit: pitaya.RateLimitConfig{Address: one}},
		"handshakes":  {RateLimit: pitaya.RateLimitConfig{AddressHandshakes: one}},
		"connections": {MaxConnsPerIP: 1},
	} {
		for hops, want := range map[int]string{0: "[yes no no]", 1: "[yes no yes]"} {
			t.Run(fmt.Sprint(limit, " ", hops), func(t *testing.T) {
				l, err := pitaya.ListenWS("127.0.0.1:0", &pitaya.WSOptions{TrustedProxyHops: hops})
				must(t, err)
				cfg := cfg
				cfg.Listeners = []net.Listener{l}
				startServer(t, cfg, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }))
				})
				var got []string
				for _, forwarded := range []string{"192.0.2.2, 192.0.2.1", "192.0.2.1", "192.0.2.2"} {
					answer := "no"
					c, err := pitaya.Dial(t.Context(), "ws://"+l.Addr().String(), &pitaya.ClientConfig{Header: http.Header{"X-Forwarded-For": {forwarded}}})
					if err == nil {
						defer c.Close()
						_, err = c.RequestRaw(t.Context(), "test.echo", nil)
					}
					if err == nil {
						answer = "yes"
					}
					got = append(got, answer)
				}
				if fmt.Sprint(got) != want {
					t.Errorf("let in and answered: %v, want %s", got, want)
				}
			})
		}
	}
}

// TestServerLimit: all clients share the rate of the server, and one that is over its own does not use it up.
func TestServerLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 2, Interval: time.Minute, Server: pitaya.Rate{Limit: 5, Interval: time.Minute}}}
		s, dial, _ := limited(t, cfg, nil)
		for i, want := range []string{"1 2 3!PIT-429 4!PIT-429 5!PIT-429", "1 2 3!PIT-429 4!PIT-429 5!PIT-429", "1 2!PIT-429 3!PIT-429 4!PIT-429 5!PIT-429"} {
			c := dial(fmt.Sprint("192.0.2.", i+1)).hello()
			c.ask("test.echo", 1, 2, 3, 4, 5)
			wantOutcomes(t, c, want)
		}
		if st := wantBalance(t, s); st.LimitedBySession != 9 || st.LimitedByServer != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestHandshakeRate: handshakes beyond the rate of an address or the server get an answer that says so.
func TestHandshakeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{
			AddressHandshakes: pitaya.Rate{Limit: 2, Interval: 10 * time.Second},
			ServerHandshakes:  pitaya.Rate{Limit: 5, Interval: time.Minute},
		}}
		s, dial, _ := limited(t, cfg, func(s *pitaya.Server) {
			must(t, s.OnSessionClose(func(s *pitaya.Session) {
				if err := context.Cause(s.Context()); !errors.Is(err, pitaya.ErrTooManyRequests) && !errors.Is(err, io.EOF) {
					t.Errorf("a session ended with %v", err)
				}
			}))
		})
		try := func(ip string, want int) {
			t.Helper()
			c := dial(ip)
			defer c.Close()
			c.send(pitaya.PacketHandshake, []byte(`{"sys":{}}`))
			var answer pitaya.HandshakeResponse
			must(t, json.Unmarshal(c.expect(pitaya.PacketHandshake), &answer))
			if answer.Code != want {
				t.Errorf("%s: the answer is %+v, want code %d", ip, answer, want)
			}
			if want != 200 {
				c.expectClosed()
			}
		}
		try("192.0.2.1", 200)
		try("192.0.2.1", 200)
		try("192.0.2.1", 429)
		try("192.0.2.2", 200)
		time.Sleep(5 * time.Second)
		try("192.0.2.1", 200)
		try("192.0.2.1", 429)
		try("192.0.2.3", 200)
		try("192.0.2.4", 429) // the server's are used up
		time.Sleep(12 * time.Second)
		try("192.0.2.4", 200)
		try("192.0.2.5", 429)
		// Handshakes on one connection are handshakes too.
		time.Sleep(time.Minute)
		c := dial("192.0.2.9").hello()
		c.write(append(slices.Clone(handshakeOnly), handshakeOnly...))
		c.expect(pitaya.PacketHandshake)
		if body := c.expect(pitaya.PacketHandshake); !strings.Contains(string(body), `"code":429`) {
			t.Errorf("the third handshake is answered with %s", body)
		}
		c.expectClosed()
		synctest.Wait()
		if st := s.Stats(); st.LimitedHandshakes != 5 || st.RefusedHandshakes != 5 || st.ClosedForAbuse != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestAddressesRemembered: connections from many addresses do not get one forgotten that exceeded its rate.
func TestAddressesRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{AddressHandshakes: pitaya.Rate{Limit: 1, Interval: time.Hour}, MaxAddresses: 4}}
		s, dial, _ := limited(t, cfg, nil)
		visit := func(ip string) {
			t.Helper()
			c := dial(ip)
			c.write(handshakeOnly)
			c.expect(pitaya.PacketHandshake)
			c.Close()
			synctest.Wait()
		}
		visit("192.0.2.1")
		visit("192.0.2.1")
		for i := range 100 {
			visit(fmt.Sprint("198.51.100.", i))
		}
		if st := s.Stats(); st.LimitedHandshakes != 1 {
			t.Fatalf("%+v", st)
		}
		visit("198.51.100.99") // still known
		visit("198.51.100.1")  // forgotten
		visit("192.0.2.1")     // not forgotten
		if st := s.Stats(); st.LimitedHandshakes != 3 {
			t.Errorf("%+v", st)
		}
	})
}

// TestShedByAge: a request that has waited longer than its handler may take is answered without being handled; a notify is
// handled all the same.
func TestShedByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int64
		slow := func(ctx context.Context, b []byte) ([]byte, error) {
			handled.Add(1)
			time.Sleep(600 * time.Millisecond) // whatever ctx says
			return b, nil
		}
		s, dial, notes := limited(t, pitaya.Config{HandlerTimeout: time.Second, SlowHandler: time.Second}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", slow), pitaya.HandleRaw(s, "test.patient", slow, pitaya.WithTimeout(-1)),
				pitaya.HandleRaw(s, "test.hasty", slow, pitaya.WithTimeout(100*time.Millisecond)))
		})
		time.Sleep(time.Hour) // times are counted from the start of the server
		c := dial("192.0.2.1").hello()
		begin := time.Now()
		c.ask("test.slow", 1, 2, 3, 4)
		c.request(0, "test.note", "{}")
		c.ask("test.patient", 5)
		c.ask("test.hasty", 6)
		// 1.2 s have passed when it is the third one's turn.
		wantOutcomes(t, c, "1 2 3!PIT-408 4!PIT-408 5 6!PIT-408")
		if d := time.Since(begin); d != 1800*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if st := wantBalance(t, s); st.Shed != 3 || handled.Load() != 3 || notes.Load() != 1 || st.SlowHandlers != 0 {
			t.Errorf("%d handled, %d notifies; %+v", handled.Load(), notes.Load(), st)
		}
	})
}

// TestShedForwarded: what its frontend has given up is not handled by the backend.
func TestShedForwarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int64
		slow := func(ctx context.Context, b []byte) ([]byte, error) {
			handled.Add(1)
			time.Sleep(3 * time.Second)
			return b, nil
		}
		cluster := pitayatest.NewCluster(t)
		cfg := pitaya.Config{Type: "gate", Frontend: true, Logger: testLogger(t)}
		cfg.NATSClient.RequestTimeout = 5 * time.Second
		gate := cluster.NewServer(t, cfg, nil)
		room := cluster.NewServer(t, pitaya.Config{Type: "room", SlowHandler: -1, Logger: testLogger(t)}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", slow), pitaya.HandleRaw(s, "test.hasty", slow, pitaya.WithTimeout(2*time.Second)))
		})
		nc, err := gate.Listener().DialContext(t.Context())
		must(t, err)
		defer nc.Close()
		c := (&rawClient{Conn: nc, t: t}).hello()
		c.ask("room.test.slow", 1)
		c.ask("room.test.hasty", 2) // has waited for 3 s
		c.ask("room.test.slow", 3)
		c.ask("room.test.slow", 4) // 6 s
		wantOutcomes(t, c, "1 2!PIT-408")
		if got := c.outcomes(2); strings.Count(got, "PIT-408") != 2 {
			t.Errorf("got %s", got)
		}
		time.Sleep(time.Minute)
		if st := room.Stats(); st.Shed != 2 || handled.Load() != 2 {
			t.Errorf("%d handled; %+v", handled.Load(), st)
		}
	})
}

// TestRateLimitShutdown: a server that ends answers all that it has received, what exceeds a limit too.
func TestRateLimitShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 3, Pending: 10, Address: pitaya.Rate{Limit: 5}, AddressHandshakes: pitaya.Rate{Limit: 5}}}
		s, dial, _ := limited(t, cfg, func(s *pitaya.Server) { must(t, pitaya.HandleRaw(s, "test.slow", sleeper(time.Second))) })
		c := dial("192.0.2.1").hello()
		c.ask("test.slow", 1, 2, 3, 4, 5)
		synctest.Wait()
		ended := make(chan error)
		go func() { ended <- s.Shutdown(context.Background()) }()
		wantOutcomes(t, c, "1 2 3 4!PIT-429 5!PIT-429")
		c.expectClosed()
		must(t, <-ended)
		if st := wantBalance(t, s); st.Lost != 0 || st.Open != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// BenchmarkRateLimit compares a request without limits with one under all of them.
func BenchmarkRateLimit(b *testing.B) {
	plenty := pitaya.Rate{Limit: 1_000_000, Interval: 10 * time.Millisecond}
	for _, tt := range []struct {
		name  string
		limit pitaya.RateLimitConfig
	}{
		{"off", pitaya.RateLimitConfig{}},
		{"session", pitaya.RateLimitConfig{Limit: plenty.Limit, Interval: plenty.Interval}},
		{"all", pitaya.RateLimitConfig{Limit: plenty.Limit, Interval: plenty.Interval, Address: plenty, Server: plenty, Pending: 1000}},
		{"refused", pitaya.RateLimitConfig{Limit: 1, Interval: time.Hour, Abuse: pitaya.Rate{Limit: -1}}},
	} {
		for _, inFlight := range []int{1, 16} {
			b.Run(fmt.Sprintf("limits=%s/inflight=%d", tt.name, inFlight), func(b *testing.B) {
				l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
				must(b, err)
				cfg := pitaya.Config{Logger: slog.New(slog.DiscardHandler), RateLimit: tt.limit, Listeners: []net.Listener{l}}
				startServer(b, cfg, func(s *pitaya.Server) {
					must(b, pitaya.HandleRaw(s, "echo.raw", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }))
				})
				c := benchDial(b, nil, map[string]string{"tcp": l.Addr().String()}, "tcp")
				roundTrips(b, c, benchRequest(b, "echo.raw", "0123456789"), inFlight)
			})
		}
	}
}
