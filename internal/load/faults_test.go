package load_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load"
)

// fake is a server that answers the handshake, with the interval of heartbeats in seconds, and leaves the rest of a
// connection to f. It returns how to connect to it.
func fake(t *testing.T, heartbeat float64, f func(net.Conn)) func(context.Context) (net.Conn, error) {
	t.Helper()
	body := fmt.Sprintf(`{"code":200,"sys":{"heartbeat":%v,"dict":{},"serializer":"json"}}`, heartbeat)
	return fakeRaw(t, packet(t, pitaya.PacketHandshake, body), func(c net.Conn) {
		if p, err := pitaya.ReadPacket(c, 0); err != nil || p.Type != pitaya.PacketHandshakeAck {
			t.Errorf("after the handshake: %v, %v", p.Type, err)
		}
		f(c)
	})
}

// fakeRaw answers the handshake by any bytes.
func fakeRaw(t *testing.T, answer []byte, f func(net.Conn)) func(context.Context) (net.Conn, error) {
	l := pitaya.ListenMem()
	fakeOn(t, l, answer, f)
	return l.DialContext
}

func fakeOn(t *testing.T, l net.Listener, answer []byte, f func(net.Conn)) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				if p, err := pitaya.ReadPacket(c, 0); err != nil || p.Type != pitaya.PacketHandshake {
					t.Errorf("the first packet: %v, %v", p.Type, err)
				}
				if _, err := c.Write(answer); err == nil {
					f(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
}

func packet(t *testing.T, typ pitaya.PacketType, body string) []byte {
	t.Helper()
	b, err := pitaya.AppendPacket(nil, typ, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantErrors compares the errors of a report, each "kind code", with how often they are to come.
func wantErrors(t *testing.T, rep *load.Report, want map[string]int64) {
	t.Helper()
	got := make(map[string]int64)
	for _, e := range rep.Errors {
		got[strings.TrimSpace(e.Kind+" "+e.Code)] = e.Count
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%d errors %q, want %d; all: %v", got[k], k, n, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("errors %v, want %v", got, want)
	}
}

// A server that ends in the middle is drained: what it has got is answered, and the run ends.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	for _, scenario := range []load.Scenario{load.Echo, load.Idle, load.Mixed} {
		synctest.Test(t, func(t *testing.T) {
			s := newTarget(t, pitaya.Config{}, nil)
			cfg := load.Config{Scenario: scenario, Conns: 3, Duration: time.Hour, Route: "svc.raw"}
			switch scenario {
			case load.Echo:
				cfg.Rate = 10
			case load.Mixed:
				cfg.Script = parseScript(t, "play\n  request svc.raw x\n  sleep 100ms\n")
			}
			time.AfterFunc(2050*time.Millisecond, s.end)
			rep := runLoad(t, s.memory(cfg))
			n, _ := errorCount(rep, "drained")
			if scenario == load.Mixed { // a client of the library that rests sees the end only
				n, _ = errorCount(rep, "disconnect")
			}
			if n != 3 || rep.ErrorSum != 3 {
				t.Errorf("%s: errors %+v, want 3 that are drained", scenario, rep.Errors)
			}
			if rep.Measured.Seconds < 2 || rep.Measured.Seconds > 20 || rep.Total.Answered != rep.Total.Requests {
				t.Errorf("%s: measured %v s, %d of %d answered", scenario, rep.Measured.Seconds, rep.Total.Answered, rep.Total.Requests)
			}
		})
	}
}

// A server that is gone at once, in the middle of all, over sockets.
func TestServerGone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	answer := packet(t, pitaya.PacketHandshake, `{"code":200,"sys":{"heartbeat":30,"dict":{}}}`)
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				c.Write(answer)
				// Handshake, ack and a request; then it is gone.
				for range 3 {
					if _, err := pitaya.ReadPacket(c, 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
	rep := runLoad(t, load.Config{URL: l.Addr().String(), Conns: 5, Duration: time.Hour, Route: "svc.raw"})
	wantErrors(t, rep, map[string]int64{"disconnect EOF": 5, "lost": 5})
	if rep.Measured.Failed != 5 || rep.Measured.Count != 0 || rep.Connections.AtEnd != 0 || !strings.Contains(strings.Join(rep.Notes, " "), "ended early") {
		t.Errorf("%+v, %d connections at the end, notes %q", rep.Measured, rep.Connections.AtEnd, rep.Notes)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, scenario := range load.Scenarios() {
		cfg := load.Config{Scenario: scenario, URL: addr, Conns: 3, Duration: time.Hour, Route: "svc.raw", Sync: "svc.raw", Script: parseScript(t, "play\n  sleep 1s\n")}
		if scenario == load.Connect {
			cfg.Requests = 3 // those who only connect go on trying
		}
		rep := runLoad(t, cfg)
		n, code := errorCount(rep, "connect")
		if n < 3 || code == "" || strings.Contains(code, "127.0.0.1") || rep.ErrorSum != n || rep.Total.Connections != 0 {
			t.Errorf("%s: errors %+v", scenario, rep.Errors)
		}
	}
}

func TestKicked(t *testing.T) {
	t.Parallel()
	s := newTarget(t, pitaya.Config{}, nil)
	rep := runLoad(t, s.memory(load.Config{Conns: 4, Duration: time.Hour, Route: "svc.kick"}))
	wantErrors(t, rep, map[string]int64{"kicked enough": 4, "lost": 4})
	rep = runLoad(t, s.memory(load.Config{Scenario: load.Mixed, Conns: 4, Duration: time.Hour, Script: parseScript(t, "play\n  request svc.kick\n")}))
	wantErrors(t, rep, map[string]int64{"kicked enough": 4, "lost": 4})
}

// Connections that end are opened again, if that is wanted.
func TestReconnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, nil)
		for _, cfg := range []load.Config{{}, {Scenario: load.Mixed, Script: parseScript(t, "play\n  request svc.kick\n")}} {
			cfg.Requests, cfg.Route, cfg.Reconnect = 5, "svc.kick", true
			rep := runLoad(t, s.memory(cfg))
			wantErrors(t, rep, map[string]int64{"kicked enough": 5, "lost": 5})
			if rep.Total.Connections < 5 || rep.Total.Requests != 5 {
				t.Errorf("%+v", rep.Total)
			}
		}
	})
}

// Answers with an error are counted by code, and are not among the latencies.
func TestErrorAnswers(t *testing.T) {
	t.Parallel()
	for _, serializer := range []pitaya.Serializer{pitaya.JSON{}, pitaya.Protobuf{}} {
		s := newTarget(t, pitaya.Config{Serializer: serializer}, nil)
		rep := runLoad(t, s.memory(load.Config{Conns: 2, InFlight: 3, Requests: 60, Route: "svc.fail"}))
		wantErrors(t, rep, map[string]int64{"answer GAME-7": 60})
		if rep.Measured.Count != 0 || rep.Measured.Failed != 60 || rep.Total.Failed != 60 || s.Stats().Failed != 60 {
			t.Errorf("%s: %+v, %+v, the server %d", serializer.Name(), rep.Measured, rep.Total, s.Stats().Failed)
		}
		rep = runLoad(t, s.memory(load.Config{Route: "svc.missing", Requests: 1}))
		wantErrors(t, rep, map[string]int64{"answer PIT-404": 1})
		rep = runLoad(t, s.memory(load.Config{Scenario: load.Mixed, Requests: 3, Script: parseScript(t, "play\n  request svc.fail\n")}))
		wantErrors(t, rep, map[string]int64{"answer GAME-7": 3})
		rep = runLoad(t, s.memory(load.Config{Scenario: load.Mixed, Requests: 3, Script: parseScript(t, "play\n  bind svc.fail\n")}))
		wantErrors(t, rep, map[string]int64{"answer GAME-7": 1, "setup": 1})
	}
}

func TestRateLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{RateLimit: pitaya.RateLimitConfig{Limit: 10}}, nil)
		rep := runLoad(t, s.memory(load.Config{Rate: 20, Duration: 10 * time.Second, Route: "svc.raw", Body: []byte("x")}))
		limited := s.Stats().LimitedBySession
		wantErrors(t, rep, map[string]int64{"answer PIT-429": limited})
		if limited < 80 || rep.Measured.Count+limited != 200 || rep.Measured.Failed != limited {
			t.Errorf("the server has refused %d; %d and %d measured", limited, rep.Measured.Count, rep.Measured.Failed)
		}
	})
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	s := newTarget(t, pitaya.Config{}, nil)
	rep := runLoad(t, s.memory(load.Config{Requests: 30, Route: "svc.other", Body: []byte("x"), Check: true}))
	wantErrors(t, rep, map[string]int64{"mismatch": 30})
	if rep.Measured.Count != 0 || rep.Measured.Failed != 30 {
		t.Errorf("%+v", rep.Measured)
	}
}

// Requests that are not answered are given up after the timeout, and others take their place.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := fake(t, 0, func(c net.Conn) { io.Copy(io.Discard, c) })
		start := time.Now()
		rep := runLoad(t, load.Config{Dial: dial, Conns: 2, InFlight: 3, Duration: 9 * time.Second, Timeout: 2 * time.Second, Route: "a.b"})
		wantErrors(t, rep, map[string]int64{"timeout": rep.Total.Requests})
		if rep.Total.Requests < 2*3*4 || rep.Measured.Failed != rep.Total.Requests {
			t.Errorf("%d requests, %d failed", rep.Total.Requests, rep.Measured.Failed)
		}
		if d := time.Since(start); d > 13*time.Second {
			t.Errorf("it took %v", d)
		}
		rep = runLoad(t, load.Config{Scenario: load.Mixed, Dial: dial, Requests: 3, Timeout: 2 * time.Second,
			Script: parseScript(t, "play\n  request a.b\n  wait x.y 1s\n")})
		wantErrors(t, rep, map[string]int64{"timeout": 3, "wait x.y": 3})
	})
}

// Answers that come after that are counted, and no more.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, func(s *target) {
			err := pitaya.HandleRaw(s.Server, "svc.late", func(context.Context, []byte) ([]byte, error) {
				time.Sleep(1500 * time.Millisecond)
				return []byte("ok"), nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		rep := runLoad(t, s.memory(load.Config{Requests: 3, Timeout: time.Second, Route: "svc.late"}))
		if n, _ := errorCount(rep, "timeout"); n != 3 || rep.Total.Late == 0 || rep.Measured.Count != 0 {
			t.Errorf("%+v, errors %+v, %d measured", rep.Total, rep.Errors, rep.Measured.Count)
		}
	})
}

// A server that says nothing at all is given up after three heartbeats.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := fake(t, 1, func(c net.Conn) { io.Copy(io.Discard, c) })
		for _, scenario := range []load.Scenario{load.Idle, load.Mixed} {
			rep := runLoad(t, load.Config{Scenario: scenario, Dial: dial, Conns: 3, Duration: time.Hour, Script: parseScript(t, "play\n  sleep 1h\n")})
			wantErrors(t, rep, map[string]int64{"silent": 3})
			if s := rep.Measured.Seconds; s < 3 || s > 3.1 {
				t.Errorf("%s: it took %v s", scenario, s)
			}
		}
	})
}

// A server that does not read is given up after the timeout.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		dial := fake(t, 0, func(net.Conn) { <-done })
		defer close(done)
		rep := runLoad(t, load.Config{Dial: dial, Rate: 100, Duration: time.Minute, Timeout: 2 * time.Second, Route: "a.b", Body: make([]byte, 100_000)})
		if n, _ := errorCount(rep, "slow"); n != 1 || rep.Measured.Count != 0 || rep.Measured.Seconds > 10 {
			t.Errorf("errors %+v, after %v s", rep.Errors, rep.Measured.Seconds)
		}
		rep = runLoad(t, load.Config{Dial: dial, InFlight: 100, Duration: time.Minute, Timeout: 2 * time.Second, Route: "a.b", Body: make([]byte, 100_000)})
		wantErrors(t, rep, map[string]int64{"slow": 1, "lost": 100})
	})
}

// A socket that takes no more holds up neither the schedule nor other connections, and nothing is lost of what waits.
func TestFullSocket(t *testing.T) {
	t.Parallel()
	const each = 200
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int64
	others := make(chan struct{})
	fakeOn(t, l, packet(t, pitaya.PacketHandshake, `{"code":200,"sys":{"heartbeat":0,"dict":{},"serializer":"json"}}`), func(c net.Conn) {
		if served.Add(1) == 1 {
			<-others // reads nothing until the other one has got all
		} else {
			defer close(others)
		}
		for n := 0; n < each; {
			p, err := pitaya.ReadPacket(c, 0)
			if err != nil {
				t.Errorf("after %d requests: %v", n, err)
				return
			}
			if p.Type != pitaya.PacketData {
				continue
			}
			n++
			m, err := pitaya.DecodeMessage(p.Body, nil)
			if err != nil {
				t.Error(err)
				return
			}
			b, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageResponse, ID: m.ID, Payload: m.Payload}, nil)
			if err != nil {
				t.Error(err)
			}
			if _, err := c.Write(packet(t, pitaya.PacketData, string(b))); err != nil {
				t.Error(err)
			}
		}
		io.Copy(io.Discard, c)
	})
	rep := runLoad(t, load.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
			if err == nil {
				// Much less than what is sent, and more than a segment: with less, acknowledgements take their time.
				err = c.(*net.TCPConn).SetWriteBuffer(256 << 10)
			}
			return c, err
		},
		Conns: 2, Rate: 1000, Requests: 2 * each, MaxPending: each, Timeout: time.Minute, Route: "a.b", Body: make([]byte, 60_000), Check: true,
	})
	wantErrors(t, rep, nil)
	if rep.Measured.Count != 2*each || rep.Measured.Failed != 0 {
		t.Errorf("%+v", rep.Measured)
	}
}

// More than may wait is not sent.
func TestUnsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := fake(t, 0, func(c net.Conn) { io.Copy(io.Discard, c) })
		rep := runLoad(t, load.Config{Dial: dial, Rate: 100, Duration: time.Second, Timeout: 5 * time.Second, Route: "a.b", MaxPending: 32})
		wantErrors(t, rep, map[string]int64{"timeout": 32, "unsent": 68})
		if rep.Measured.Failed != 100 {
			t.Errorf("%d failed", rep.Measured.Failed)
		}
	})
}

// What is not the protocol ends the connection and nothing else.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	data := func(body string) string { return string(packet(t, pitaya.PacketData, body)) }
	for name, bytes := range map[string]string{
		"unknown packet":        "\x09\x00\x00\x00",
		"text":                  "HTTP/1.1 400 Bad Request\r\n\r\n",
		"second handshake":      string(packet(t, pitaya.PacketHandshake, "{}")),
		"short message":         data("\x04"),
		"message type":          data("\x0e\x00"),
		"request":               data("\x00\x01\x01a"),
		"unknown route code":    data("\x07\x12\x34"),
		"answer never made":     data("\x04\x63x"),
		"answer with id 0":      data("\x04\x00x"),
		"id without an end":     data("\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"route that is no text": data("\x06\x02\xff\xfe"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial := fake(t, 0, func(c net.Conn) {
				c.Write([]byte(bytes))
				io.Copy(io.Discard, c)
			})
			rep := runLoad(t, load.Config{Scenario: load.Idle, Dial: dial, Conns: 2, Duration: time.Hour})
			n, code := errorCount(rep, "protocol")
			if n != 2 || rep.ErrorSum != 2 || code == "" {
				t.Errorf("errors %+v", rep.Errors)
			}
		})
	}
}

func TestHostileHandshake(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ answer, code string }{
		"refused":    {string(packet(t, pitaya.PacketHandshake, `{"code":400,"msg":"go away"}`)), "go away"},
		"no JSON":    {string(packet(t, pitaya.PacketHandshake, "x")), "handshake answer"},
		"bad zlib":   {string(packet(t, pitaya.PacketHandshake, "\x78\x9cxxxx")), "compressed"},
		"dictionary": {string(packet(t, pitaya.PacketHandshake, `{"code":200,"sys":{"dict":{"a":1,"b":1}}}`)), "dictionary"},
		"data":       {string(packet(t, pitaya.PacketData, "xx")), "before the handshake answer"},
		"kick":       {string(packet(t, pitaya.PacketKick, `{"reason":"full"}`)), "full"},
		"escapes":    {string(packet(t, pitaya.PacketKick, `{"reason":"\u001b[31m\u0000red"}`)), "?[31m?red"},
		"text":       {"SSH-2.0-x\r\n", "unknown packet type"},
		"end":        {"\x01\x00\x00", "EOF"},
		"large":      {"\x01\xff\xff\xff", "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, scenario := range []load.Scenario{load.Idle, load.Connect} {
				cfg := load.Config{Scenario: scenario, Dial: fakeRaw(t, []byte(tt.answer), func(net.Conn) {}), Requests: 1}
				if scenario == load.Idle {
					cfg.Requests, cfg.Duration = 0, time.Hour
				}
				rep := runLoad(t, cfg)
				n, code := errorCount(rep, "handshake")
				if n < 1 || rep.ErrorSum != n || !strings.Contains(code, tt.code) {
					t.Errorf("%s: errors %+v", scenario, rep.Errors)
				}
			}
		})
	}
}

// Pushes of a broadcast that do not come are errors, and end the load; those that nobody asked for are errors too.
func TestBroadcastCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTarget(t, pitaya.Config{}, func(s *target) {
			wrong := func(route string, by int) {
				err := pitaya.Handle(s.Server, route, func(ctx context.Context, in *bcast) (*struct{}, error) {
					for range in.Count + by {
						s.Group("all").Broadcast(ctx, "", "news", []byte("x")) // members of runs before have left
					}
					return &struct{}{}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
			wrong("svc.less", -1)
			wrong("svc.more", 1)
		})
		cfg := load.Config{Scenario: load.Broadcast, Conns: 5, AtOnce: 3, Join: "svc.join", PushRoute: "news", Body: load.BroadcastBody(3, 8), Timeout: 2 * time.Second}
		cfg.Requests, cfg.Route = 10, "svc.less"
		rep := runLoad(t, s.memory(cfg))
		wantErrors(t, rep, map[string]int64{"undelivered": 5})
		if b := rep.Broadcast; b.Rounds != 1 || b.Wanted != 15 || b.Delivered != 10 || b.LeastPerClient != 2 {
			t.Errorf("%+v", *b)
		}
		cfg.Requests, cfg.Route = 1, "svc.more"
		rep = runLoad(t, s.memory(cfg))
		if n, code := errorCount(rep, "extra"); n == 0 || n > 5 || code != "news" || rep.Broadcast.Delivered != 15 {
			t.Errorf("errors %+v, %+v", rep.Errors, *rep.Broadcast)
		}
		// A round that is refused is over.
		cfg.Requests, cfg.Route = 4, "svc.fail"
		rep = runLoad(t, s.memory(cfg))
		wantErrors(t, rep, map[string]int64{"answer GAME-7": 4})
		if rep.Broadcast.Rounds != 4 || rep.Measured.Failed != 4*15 {
			t.Errorf("%+v, %d failed", *rep.Broadcast, rep.Measured.Failed)
		}
		cfg.Join = "svc.fail"
		rep = runLoad(t, s.memory(cfg))
		wantErrors(t, rep, map[string]int64{"answer GAME-7": 5, "setup refused": 5})
	})
}

func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	good := load.Config{URL: "tcp://127.0.0.1:1", Route: "a.b", Requests: 1}
	for want, change := range map[string]func(*load.Config){
		`no scenario "x"`:             func(c *load.Config) { c.Scenario = "x" },
		"-1 connections":              func(c *load.Config) { c.Conns = -1 },
		"-1 in flight":                func(c *load.Config) { c.InFlight = -1 },
		"a rate of":                   func(c *load.Config) { c.Rate = -1 },
		"idle has no rate":            func(c *load.Config) { c.Scenario, c.Rate, c.Duration = load.Idle, 1, 1 },
		"idle needs a duration":       func(c *load.Config) { c.Scenario = load.Idle },
		"neither a duration":          func(c *load.Config) { c.Requests = 0 },
		"negative times":              func(c *load.Config) { c.Warmup = -1 },
		"an interval of":              func(c *load.Config) { c.Interval = 1 },
		"needs a route":               func(c *load.Config) { c.Route = "" },
		"route: pitaya":               func(c *load.Config) { c.Route = strings.Repeat("a", 256) },
		"route of a request too":      func(c *load.Config) { c.Scenario = load.Notify },
		"fits into no packet":         func(c *load.Config) { c.Body = make([]byte, 1<<24) },
		"needs a script":              func(c *load.Config) { c.Scenario = load.Mixed },
		"no correction":               func(c *load.Config) { c.Rate, c.Correct = 1, 1 },
		"nobody to ask":               func(c *load.Config) { c.Collect = true },
		"it begins with tcp://":       func(c *load.Config) { c.URL = "http://a:1" },
		"host and port":               func(c *load.Config) { c.URL = "tcp://a" },
		"address":                     func(c *load.Config) { c.URL = "tcp://a:b:c" },
		"server must be on 127.0.0.1": func(c *load.Config) { c.URL, c.Sources = "tcp://10.0.0.1:1", 2 },
		"300 source addresses":        func(c *load.Config) { c.Sources = 300 },
		"requests that may wait":      func(c *load.Config) { c.MaxPending = -1 },
		"-1 broadcasts at once":       func(c *load.Config) { c.AtOnce = -1 },
		"-1 requests":                 func(c *load.Config) { c.Requests = -1 },
		"-1 dialers":                  func(c *load.Config) { c.Dialers = -1 },
		"process 1073741824":          func(c *load.Config) { c.PIDs = []int{1 << 30} },
	} {
		cfg := good
		change(&cfg)
		if _, err := load.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A run can be interrupted while its connections have not begun.
func TestInterruptedSetup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		defer close(done)
		for name, dial := range map[string]func(context.Context) (net.Conn, error){
			"handshake": fakeRaw(t, nil, func(net.Conn) { <-done }),
			"join":      fake(t, 0, func(net.Conn) { <-done }),
			"dial": func(ctx context.Context) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		} {
			for _, scenario := range load.Scenarios() {
				if scenario != load.Broadcast && name == "join" {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				begin := time.Now()
				rep, err := load.Run(ctx, load.Config{Scenario: scenario, Dial: dial, Conns: 200, Dialers: 3, Duration: time.Hour, Timeout: time.Hour, Route: "a.b",
					Sync: "a.b", Join: "a.b", Script: parseScript(t, "play\n  request a.b\n")})
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				want := int64(0)
				if name == "join" {
					want = 3 // requests that were made and not answered
				}
				if n, _ := errorCount(rep, "timeout"); !rep.Interrupted || n != want || rep.ErrorSum != want {
					t.Errorf("%s, %s: interrupted %v, errors %+v", name, scenario, rep.Interrupted, rep.Errors)
				}
				if d := time.Since(begin); d > 3*time.Second {
					t.Errorf("%s, %s: it took %v", name, scenario, d)
				}
			}
		}
	})
}
