package pitaya_test

import (
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

func TestBindRules(t *testing.T) {
	tests := []struct {
		uid string
		ok  bool
	}{
		{"user", true}, {"a.b", true}, {"who@example.com", true}, {"*x", true}, {"é", true}, {strings.Repeat("u", 256), true},
		{"", false}, {strings.Repeat("u", 257), false}, {"a b", false}, {"a\n", false}, {"a\x00", false}, {"\u00a0", false}, {"a\xff", false},
		{".a", false}, {"a.", false}, {"a..b", false}, {"*", false}, {"a.*", false}, {">", false}, {"a.>.b", false},
	}
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, nil)
		for _, tt := range tests {
			c := s.connect(t)
			synctest.Wait()
			session := s.onlySession(t)
			err := session.Bind(t.Context(), tt.uid)
			if (err == nil) != tt.ok || !tt.ok && !errors.Is(err, pitaya.ErrIllegalUID) {
				t.Errorf("Bind(%q): %v", tt.uid, err)
			}
			if tt.ok {
				if session.UID() != tt.uid || s.SessionByUID(tt.uid) != session {
					t.Errorf("%q leads to %v, uid %q", tt.uid, s.SessionByUID(tt.uid), session.UID())
				}
				if err := session.Bind(t.Context(), "other"); err != pitaya.ErrAlreadyBound {
					t.Errorf("second Bind: %v", err)
				}
			} else if session.UID() != "" || s.SessionByUID(tt.uid) != nil {
				t.Errorf("%q is bound nevertheless", tt.uid)
			}
			c.Close()
			synctest.Wait()
			if s.SessionByUID(tt.uid) != nil || s.SessionByID(session.ID()) != nil {
				t.Errorf("%q leads to a session that has ended", tt.uid)
			}
			if err := session.Bind(t.Context(), "late"); err != pitaya.ErrSessionClosed {
				t.Errorf("Bind after the end: %v", err)
			}
		}
	})
}

func TestBindCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		refuse := ""
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			for i := range 2 {
				name := fmt.Sprint("before", i)
				must(t, s.OnSessionBind(func(ctx context.Context, session *pitaya.Session) error {
					log = append(log, name+" "+session.UID())
					if refuse == name {
						return errors.New(name)
					}
					return nil
				}))
				after := fmt.Sprint("after", i)
				must(t, s.OnAfterSessionBind(func(ctx context.Context, session *pitaya.Session) error {
					log = append(log, after+" "+session.UID())
					if refuse == after {
						return errors.New(after)
					}
					return nil
				}))
			}
		})
		s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		for _, tt := range []struct{ refuse, calls string }{
			{"before0", "before0 u"},
			{"before1", "before0 u,before1 u"},
			{"after0", "before0 u,before1 u,after0 u"},
			{"after1", "before0 u,before1 u,after0 u,after1 u"},
		} {
			log, refuse = nil, tt.refuse
			if err := session.Bind(t.Context(), "u"); err == nil || err.Error() != tt.refuse {
				t.Errorf("%s: %v", tt.refuse, err)
			}
			if got := strings.Join(log, ","); got != tt.calls || session.UID() != "" || s.SessionByUID("u") != nil {
				t.Errorf("%s: calls %s, uid %q", tt.refuse, got, session.UID())
			}
		}
		refuse = ""
		must(t, session.Bind(t.Context(), "u"))
	})
}

// The new session wins, the old one is told, and its end does not take the new
// binding away.
func TestReplaced(t *testing.T) {
	for _, unique := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{NoUniqueSession: !unique}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.bind", bindHandler))
			})
			old := s.connect(t)
			old.bind("u")
			first := s.SessionByUID("u")
			c := s.connect(t)
			c.bind("u")
			if unique {
				if got := string(old.expect(pitaya.PacketKick)); got != `{"reason":"replaced"}` {
					t.Errorf("kick %s", got)
				}
			}
			old.expectClosed()
			old.Close()
			synctest.Wait()
			if now := s.SessionByUID("u"); now == nil || now == first || s.SessionCount() != 1 {
				t.Errorf("%v, %d sessions", now, s.SessionCount())
			}
			if cause := context.Cause(first.Context()); cause != pitaya.ErrReplaced {
				t.Errorf("cause %v", cause)
			}
		})
	}
}

// gauges keeps the values of connected_clients.
type gauges struct {
	mu     sync.Mutex
	values []float64
}

func (g *gauges) Count(string, float64, ...pitaya.Label)   {}
func (g *gauges) Observe(string, float64, ...pitaya.Label) {}
func (g *gauges) Gauge(name string, v float64, _ ...pitaya.Label) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if name == "connected_clients" {
		g.values = append(g.values, v)
	}
}

func TestConcurrentLogins(t *testing.T) {
	const logins = 200
	g := new(gauges)
	var closed atomic.Int32
	s, dial := startOn(t, "tcp", pitaya.Config{Reporters: []pitaya.Reporter{g}}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "test.bind", bindHandler), s.OnSessionClose(func(*pitaya.Session) { closed.Add(1) }))
	})
	var clients [logins]*rawClient
	for i := range clients {
		clients[i] = dial().hello()
	}
	var alive atomic.Int32
	var wg sync.WaitGroup
	for _, c := range clients {
		c.request(1, "test.bind", "u")
	}
	last := make(chan *rawClient, logins)
	for _, c := range clients {
		wg.Go(func() {
			list, err := c.packets()
			if err != nil {
				// Closed by us, below: the winner.
				alive.Add(1)
				last <- c
				return
			}
			if p := list[len(list)-1]; p.Type != pitaya.PacketKick || string(p.Body) != `{"reason":"replaced"}` {
				t.Errorf("the last packet is %v %s", p.Type, p.Body)
			}
			c.Close()
		})
	}
	for s.Stats().Open > 1 || closed.Load() < logins-1 {
		runtime.Gosched()
	}
	winner := s.SessionByUID("u")
	if winner == nil || winner.Context().Err() != nil || winner.UID() != "u" || s.SessionCount() != 1 {
		t.Fatalf("winner %v, %d sessions", winner, s.SessionCount())
	}
	g.mu.Lock()
	if n := len(g.values); g.values[n-1] != 1 || slices.Min(g.values) < 0 {
		t.Errorf("the gauge ends with %v, its least value is %v", g.values[n-1], slices.Min(g.values))
	}
	g.mu.Unlock()
	for _, c := range clients {
		c.SetReadDeadline(time.Unix(1, 0))
	}
	wg.Wait()
	if alive.Load() != 1 {
		t.Errorf("%d clients think they are logged in", alive.Load())
	}
}

// Close callbacks run once, own ones first and in order, after the handler that
// is at work, and all of them are kept, from one line of code too.
func TestOnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log []string
		add := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, s)
		}
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			for i := range 2 {
				must(t, s.OnSessionClose(func(session *pitaya.Session) {
					add(fmt.Sprintf("server%d %s %v", i, session.UID(), session.Get("level")))
					if s.SessionByUID(session.UID()) != nil || s.SessionByID(session.ID()) != nil {
						t.Error("the session can still be found")
					}
				}))
			}
			must(t, pitaya.HandleRaw(s, "test.work", func(ctx context.Context, b []byte) ([]byte, error) {
				session := pitaya.SessionFromContext(ctx)
				for i := range 3 {
					must(t, session.OnClose(func() { add(fmt.Sprint("own", i)) }))
				}
				must(t, session.Bind(ctx, "u"), session.Set("level", 7))
				<-ctx.Done()
				time.Sleep(time.Second)
				add("handler done")
				return b, nil
			}))
		})
		c := s.connect(t)
		c.request(1, "test.work", "x")
		synctest.Wait()
		session := s.SessionByUID("u")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { session.Close() })
			wg.Go(func() { session.Kick(t.Context()) })
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(log, ","); got != "handler done,own0,own1,own2,server0 u 7,server1 u 7" {
			t.Error(got)
		}
		if err := session.OnClose(func() {}); err != pitaya.ErrSessionClosed {
			t.Errorf("OnClose after the end: %v", err)
		}
		if err := session.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
}

func TestSessionValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, nil)
		s.connect(t)
		synctest.Wait()
		x := s.onlySession(t)
		type level int16
		must(t, x.Set("int", int64(9007199254740993)), x.Set("neg", int64(-1)), x.Set("max", uint64(math.MaxUint64)), x.Set("float", 0.5),
			x.Set("whole", 3.0), x.Set("text", "5"), x.Set("number", json.Number("9007199254740993")), x.Set("bool", true), x.Set("nil", nil),
			x.Set("level", level(4)), x.Set("min", int64(math.MinInt64)), x.Set("huge", 1e300))
		check := func(name string, got any, gotOK bool, want any) {
			t.Helper()
			if want == nil && gotOK || want != nil && (!gotOK || got != want) {
				t.Errorf("%s: %v (%T), %v, want %v", name, got, got, gotOK, want)
			}
		}
		v1, ok := pitaya.SessionValue[int64](x, "int")
		check("int as int64", v1, ok, int64(9007199254740993))
		v2, ok := pitaya.SessionValue[float64](x, "int")
		check("int as float64, which would round", v2, ok, nil)
		v3, ok := pitaya.SessionValue[int32](x, "int")
		check("int as int32, which is too small", v3, ok, nil)
		v4, ok := pitaya.SessionValue[uint](x, "neg")
		check("negative as uint", v4, ok, nil)
		v5, ok := pitaya.SessionValue[uint64](x, "max")
		check("max as uint64", v5, ok, uint64(math.MaxUint64))
		v6, ok := pitaya.SessionValue[int64](x, "max")
		check("max as int64", v6, ok, nil)
		v7, ok := pitaya.SessionValue[int](x, "float")
		check("half as int", v7, ok, nil)
		v8, ok := pitaya.SessionValue[int8](x, "whole")
		check("3.0 as int8", v8, ok, int8(3))
		v9, ok := pitaya.SessionValue[int](x, "text")
		check("text as int", v9, ok, nil)
		v10, ok := pitaya.SessionValue[int64](x, "number")
		check("json.Number as int64", v10, ok, int64(9007199254740993))
		v11, ok := pitaya.SessionValue[string](x, "bool")
		check("bool as text", v11, ok, nil)
		v12, ok := pitaya.SessionValue[int](x, "nil")
		check("nil as int", v12, ok, nil)
		v13, ok := pitaya.SessionValue[int](x, "none")
		check("missing", v13, ok, nil)
		v14, ok := pitaya.SessionValue[level](x, "level")
		check("own type", v14, ok, level(4))
		v15, ok := pitaya.SessionValue[int](x, "level")
		check("own type as int", v15, ok, 4)
		v16, ok := pitaya.SessionValue[float64](x, "min")
		check("min as float64", v16, ok, float64(math.MinInt64))
		v17, ok := pitaya.SessionValue[uint64](x, "huge")
		check("1e300 as uint64", v17, ok, nil)
		v18, ok := pitaya.SessionValue[float32](x, "huge")
		check("1e300 as float32", v18, ok, nil)

		if err := x.Set("bad", make(chan int)); err == nil || x.Has("bad") {
			t.Errorf("a channel was stored: %v", err)
		}
		if err := x.SetData(map[string]any{"good": 1, "bad": math.NaN()}); err == nil || x.Has("good") {
			t.Errorf("NaN was stored: %v", err)
		}
		if !x.Has("nil") || x.Get("ipversion") != "ipv4" {
			t.Errorf("data %v", x.Data())
		}
		x.Delete("nil")
		data := x.Data()
		data["foreign"] = 1
		if x.Has("nil") || x.Has("foreign") {
			t.Error("Data is no copy")
		}
	})
}

func TestKickReason(t *testing.T) {
	for reason, want := range map[string]string{
		"":            `{"reason":""}`,
		"you <cheat>": `{"reason":"you \u003ccheat\u003e"}`,
		"bad \xff":    `{"reason":"bad \ufffd"}`,
		strings.Repeat("x", pitaya.MaxPacketSize): `{"reason":"kicked"}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{}, nil)
			c := s.connect(t)
			synctest.Wait()
			must(t, s.onlySession(t).Push(t.Context(), "last", []byte("words")), s.onlySession(t).KickReason(t.Context(), reason))
			if m := c.message(); string(m.Payload) != "words" {
				t.Errorf("push %q", m.Payload)
			}
			if got := string(c.expect(pitaya.PacketKick)); got != want {
				t.Errorf("kick %.100s, want %s", got, want)
			}
			c.expectClosed()
		})
	}
}

// Nothing comes between the last push and the end.
func TestPushAndClose(t *testing.T) {
	s, dial := startOn(t, "tcp", pitaya.Config{QueueBytes: 64 << 20}, nil)
	for range 50 {
		c := dial().hello()
		session := s.onlySession(t)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for session.Push(t.Context(), "load", []byte("x")) == nil {
				}
			})
		}
		wg.Go(func() {
			if err := session.PushAndClose(t.Context(), "bye", []byte("bye")); err != nil || context.Cause(session.Context()) != pitaya.ErrSessionClosed {
				t.Errorf("%v, the cause is %v", err, context.Cause(session.Context()))
			}
		})
		list, err := c.packets()
		if err != nil || len(list) == 0 {
			t.Fatalf("%d packets, then %v", len(list), err)
		}
		wg.Wait()
		if m, err := pitaya.DecodeMessage(list[len(list)-1].Body, nil); err != nil || m.Route != "bye" {
			t.Errorf("the last packet is a push on %q, %v", m.Route, err)
		}
		if err := session.PushAndClose(t.Context(), "bye", nil); err != pitaya.ErrSessionClosed {
			t.Errorf("again: %v", err)
		}
		c.Close()
		for s.Stats().Open > 0 {
			runtime.Gosched()
		}
	}
}

// The validators run in order; the first that refuses is what the client reads.
func TestValidators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			for _, name := range []string{"c", "a", "b"} {
				must(t, s.AddHandshakeValidator(name, func(h *pitaya.HandshakeData) error {
					calls = append(calls, name)
					if h.User["refuse"] == name {
						return fmt.Errorf("%s says no", name)
					}
					return nil
				}))
			}
		})
		for refuse, want := range map[string]string{"c": "c", "a": "c,a", "b": "c,a,b", "": "c,a,b"} {
			calls = nil
			c := s.dial(t)
			c.send(pitaya.PacketHandshake, []byte(`{"user":{"refuse":"`+refuse+`"}}`))
			var answer pitaya.HandshakeResponse
			must(t, json.Unmarshal(c.expect(pitaya.PacketHandshake), &answer))
			if refuse != "" {
				if answer.Code != 400 || answer.Msg != refuse+" says no" || answer.Sys.Serializer != "json" {
					t.Errorf("%s: %+v", refuse, answer)
				}
				c.expectClosed()
			} else if answer.Code != 200 || answer.Msg != "" {
				t.Errorf("%+v", answer)
			}
			if got := strings.Join(calls, ","); got != want {
				t.Errorf("%q: calls %s, want %s", refuse, got, want)
			}
			c.Close()
		}
		synctest.Wait()
		if st := s.Stats(); st.RefusedHandshakes != 3 || st.Violations != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Two servers in one process share nothing.
func TestTwoServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := startServer(t, pitaya.Config{Heartbeat: 10 * time.Second, Type: "one"}, func(s *pitaya.Server) {
			must(t, s.SetDictionary(map[string]uint16{"one.test.typed": 1}), pitaya.Handle(s, "test.typed", roomTyped))
		})
		two := startServer(t, pitaya.Config{Heartbeat: 20 * time.Second, Type: "two", SerializerType: pitaya.SerializerProtobuf}, func(s *pitaya.Server) {
			must(t, s.SetDictionary(map[string]uint16{"two.test.typed": 9}), pitaya.Handle(s, "test.typed", roomTypedProto))
		})
		a, b := one.dial(t), two.dial(t)
		if got, want := a.handshake("{}"), `{"code":200,"sys":{"dict":{"one.test.typed":1},"heartbeat":10,"serializer":"json"}}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got, want := b.handshake("{}"), `{"code":200,"sys":{"dict":{"two.test.typed":9},"heartbeat":20,"serializer":"protobuf"}}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		a.request(1, "one.test.typed", `{"msg":"hi"}`)
		if m := a.message(); string(m.Payload) != `{"code":200,"msg":"hi"}` {
			t.Errorf("%q", m.Payload)
		}
		in, err := pitaya.Protobuf{}.Marshal(&testpb.TestRequest{Msg: "hi"})
		must(t, err)
		b.request(1, "two.test.typed", string(in))
		var out testpb.TestResponse
		if m := b.message(); (pitaya.Protobuf{}).Unmarshal(m.Payload, &out) != nil || out.Msg != "hi" {
			t.Errorf("%q", m.Payload)
		}
		b.write(packet(pitaya.PacketData, "\x01\x01\x00\x01")) // a code of the other server
		b.expectClosed()
		for c, want := range map[*rawClient]time.Duration{a: 10 * time.Second} {
			begin := time.Now()
			if p, err := pitaya.ReadPacket(c, 0); err != nil || p.Type != pitaya.PacketHeartbeat || time.Since(begin) != want {
				t.Errorf("%v, %v after %v", p.Type, err, time.Since(begin))
			}
		}
	})
}

// What is compressed, and which pushes carry codes, is decided for each client.
func TestPerClient(t *testing.T) {
	dict := map[string]uint16{"onNews": 77}
	for i := range 50 {
		dict[fmt.Sprintf("conn.room.method%d", i)] = uint16(i + 100)
	}
	tests := []struct {
		name, handshake string
		inflates, codes bool
	}{
		{"libpitaya", `{"sys":{"platform":"mac","libVersion":"4.6.2-release","clientBuildNumber":"20","clientVersion":"2.1"}}`, true, false},
		{"go-client", `{"sys":{"platform":"repl","libVersion":"0.3.5-release","clientBuildNumber":"20","clientVersion":"2.1"}}`, true, true},
		{"JavaScript", `{"sys":{"type":"js-websocket","version":"0.0.1"},"user":{}}`, false, true},
		{"unknown", `{"sys":{}}`, false, false},
		{"announced", `{"sys":{"features":["inflate","pushcodes"]}}`, true, true},
	}
	for _, kind := range []string{"mem", "memws"} {
		for _, setting := range []pitaya.PushCodes{pitaya.PushCodesAuto, pitaya.PushCodesAlways, pitaya.PushCodesNever} {
			synctest.Test(t, func(t *testing.T) {
				long := strings.Repeat("all work and no play ", 100)
				s, dial := startOn(t, kind, pitaya.Config{PushCodes: setting}, func(s *pitaya.Server) {
					must(t, s.SetDictionary(dict), pitaya.HandleRaw(s, "test.bind", bindHandler),
						pitaya.HandleRaw(s, "test.long", func(context.Context, []byte) ([]byte, error) { return []byte(long), nil }))
				})
				g := s.Group("all")
				must(t, g.Create(t.Context(), 0))
				d, err := pitaya.NewDictionary(dict)
				must(t, err)
				var clients []*rawClient
				for _, tt := range tests {
					c := dial()
					c.SetDeadline(time.Time{})
					answer := c.handshake(tt.handshake)
					if got := !strings.HasPrefix(answer, "{"); got != tt.inflates {
						t.Errorf("%s: handshake compressed: %v", tt.name, got)
					}
					c.bind(tt.name)
					must(t, g.Add(t.Context(), tt.name))
					clients = append(clients, c)
				}
				must(t, g.Broadcast(t.Context(), "", "onNews", []byte(long)))
				for i, tt := range tests {
					c := clients[i]
					must(t, s.SessionByUID(tt.name).Push(t.Context(), "onNews", []byte(long)))
					c.request(2, "test.long", "")
					for j := range 3 {
						body := c.expect(pitaya.PacketData)
						m, err := pitaya.DecodeMessage(body, d)
						must(t, err)
						if m.Compressed != tt.inflates {
							t.Errorf("%s: message %d compressed: %v", tt.name, j, m.Compressed)
						}
						if m.Compressed {
							r, err := zlib.NewReader(strings.NewReader(string(m.Payload)))
							must(t, err)
							m.Payload, err = io.ReadAll(r)
							must(t, err)
						}
						codes := tt.codes && setting == pitaya.PushCodesAuto || setting == pitaya.PushCodesAlways
						if push := m.Type == pitaya.MessagePush; push != (j < 2) || push && (body[0]&1 == 1) != codes || push && m.Route != "onNews" || string(m.Payload) != long {
							t.Errorf("%s: message %d: %v, flag %x, route %q, %.20q", tt.name, j, m.Type, body[0], m.Route, m.Payload)
						}
					}
				}
			})
		}
	}
}

// All that can be done to a session, by many at once, while clients come and
// go.
func TestSessionStress(t *testing.T) {
	for _, kind := range []string{"tcp", "ws", "mem"} {
		t.Run(kind, func(t *testing.T) {
			g := new(gauges)
			var opened, closed atomic.Int64
			s, dial := startOn(t, kind, pitaya.Config{Reporters: []pitaya.Reporter{g}, Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.bind", bindHandler), s.OnSessionClose(func(*pitaya.Session) { closed.Add(1) }))
			})
			stop := make(chan struct{})
			var workers, clients sync.WaitGroup
			acts := []func(i int, x *pitaya.Session){
				func(_ int, x *pitaya.Session) { x.Push(t.Context(), "r", []byte("x")) },
				func(_ int, x *pitaya.Session) { x.Push(t.Context(), "r", map[string]int{"n": 1}) },
				func(_ int, x *pitaya.Session) { x.Kick(t.Context()) },
				func(_ int, x *pitaya.Session) { x.Close() },
				func(i int, x *pitaya.Session) { x.Bind(t.Context(), fmt.Sprint("u", i%5)) },
				func(i int, x *pitaya.Session) { x.Set("k", i); x.Get("k"); x.Data() },
				func(_ int, x *pitaya.Session) { x.OnClose(func() {}) },
				func(i int, x *pitaya.Session) {
					s.Push(t.Context(), "", []string{fmt.Sprint("u", i%5), "none"}, "r", []byte("y"))
				},
			}
			for w := range 32 {
				workers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						for x := range s.Sessions() {
							acts[w%len(acts)](i, x)
						}
						runtime.Gosched()
					}
				})
			}
			for range 4 {
				clients.Go(func() {
					for range 40 {
						c := dial()
						opened.Add(1)
						if _, err := c.Write(handshakeAll); err == nil {
							c.Write(appendRequest(nil, 1, "test.bind", []byte("u1")))
							if _, err := c.packets(); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
								t.Errorf("the stream ended with %v", err)
							}
						}
						c.Close()
					}
				})
			}
			clients.Wait()
			close(stop)
			workers.Wait()
			for s.Stats().Open > 0 {
				runtime.Gosched()
			}
			s.stop(t)
			st := s.Stats()
			if n := opened.Load(); st.Accepted != n || closed.Load() != n || st.Sessions != 0 || st.Panics != 0 {
				t.Errorf("%d opened, %d closed, %+v", n, closed.Load(), st)
			}
			if g.values[len(g.values)-1] != 0 || slices.Min(g.values) < 0 {
				t.Errorf("the gauge ends with %v", g.values[len(g.values)-1])
			}
		})
	}
}

// Kicks and pushes to users say who was not reached.
func TestUndelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) { must(t, pitaya.HandleRaw(s, "test.bind", bindHandler)) })
		c := s.connect(t)
		c.bind("here")
		for _, tt := range []struct {
			frontend string
			want     []string
		}{{"", []string{"away"}}, {"conn", []string{"away"}}, {"other", []string{"here", "away"}}} {
			var u *pitaya.UndeliveredError
			if err := s.Push(t.Context(), tt.frontend, []string{"here", "away"}, "r", []byte("x")); !errors.As(err, &u) || !slices.Equal(u.UIDs, tt.want) || !errors.Is(err, pitaya.ErrUserNotFound) {
				t.Errorf("push to %q: %v", tt.frontend, err)
			}
		}
		var u *pitaya.UndeliveredError
		// Who is connected here is kicked, whatever the type says.
		if err := s.Kick(t.Context(), "other", []string{"here", "away"}); !errors.As(err, &u) || !slices.Equal(u.UIDs, []string{"away"}) {
			t.Errorf("kick: %v", err)
		}
		if _, err := c.packets(); err != nil || s.SessionByUID("here") != nil {
			t.Error("not kicked")
		}
	})
}

// What clients say of themselves is theirs, whoever else has said the same or something else before.
func TestHandshakeDataIsOwn(t *testing.T) {
	for name, validator := range map[string]bool{"shared": false, "with a validator that changes it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := startOn(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
					if validator {
						must(t, s.AddHandshakeValidator("mark", func(h *pitaya.HandshakeData) error {
							if h.Sys.LibVersion != "" {
								t.Errorf("the validator sees the mark of another session: %+v", h)
							}
							h.Sys.LibVersion = "marked"
							return nil
						}))
					}
				})
				var ids []int64 // of the sessions, in the order of their beginning
				var want []string
				for i := range 160 {
					platform, name := fmt.Sprintf("p%d", i%80), ""
					body := fmt.Sprintf(`{"sys":{"platform":%q,"clientVersion":"1"}}`, platform)
					if i%3 == 0 {
						name = fmt.Sprintf("n%d", i)
						body = fmt.Sprintf(`{"sys":{"platform":%q,"clientVersion":"1"},"user":{"name":%q}}`, platform, name)
					}
					c := dial()
					c.send(pitaya.PacketHandshake, []byte(body))
					c.expect(pitaya.PacketHandshake)
					want = append(want, platform+" "+name)
					for x := range s.Sessions() {
						if !slices.Contains(ids, x.ID()) {
							ids = append(ids, x.ID())
						}
					}
				}
				for i, id := range ids {
					h := s.SessionByID(id).HandshakeData()
					got := h.Sys.Platform + " "
					if name, ok := h.User["name"]; ok {
						got += name.(string)
					}
					if got != want[i] || validator != (h.Sys.LibVersion == "marked") {
						t.Errorf("session %d: %+v, want %s", i, h, want[i])
					}
				}
				if len(ids) != 160 {
					t.Errorf("%d sessions", len(ids))
				}
			})
		})
	}
}

// A session's context is the same for all who ask, and ends with it, whether somebody has asked before or not.
func TestSessionContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan *pitaya.Session, 2)
		s, dial := startOn(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
			must(t, s.OnSessionClose(func(x *pitaya.Session) { ends <- x }))
		})
		asked := dial().hello()
		session := s.onlySession(t)
		const askers = 20
		got := make(chan context.Context, askers)
		for range askers {
			go func() { got <- session.Context() }()
		}
		ctx := session.Context()
		for range askers {
			if other := <-got; other != ctx {
				t.Error("two contexts of one session")
			}
		}
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		asked.Close()
		<-ctx.Done()
		if x := <-ends; x != session || context.Cause(ctx) != io.EOF {
			t.Errorf("ended with %v", context.Cause(ctx))
		}
		dial().hello().Close()
		if late := (<-ends).Context(); late.Err() == nil || context.Cause(late) != io.EOF {
			t.Errorf("asked for after the end: %v", context.Cause(late))
		}
	})
}
