package pitaya_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// nilError is an error whose nil pointer panics: the commonest mistake with
// error types.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// panicSerializer panics when it meets certain values.
type panicSerializer struct{ pitaya.JSON }

func (s panicSerializer) Marshal(v any) ([]byte, error) {
	if _, ok := v.(*panicValue); ok {
		panic("PANIC TEXT")
	}
	return s.JSON.Marshal(v)
}

func (s panicSerializer) Unmarshal(b []byte, v any) error {
	if _, ok := v.(*panicValue); ok && string(b) == `{"panic":true}` {
		panic("PANIC TEXT")
	}
	return s.JSON.Unmarshal(b, v)
}

type panicValue struct{ Panic bool }

// brokenSerializer panics for everything.
type brokenSerializer struct{ pitaya.JSON }

func (brokenSerializer) Name() string { return "broken" }

func (brokenSerializer) Marshal(any) ([]byte, error) { panic("PANIC TEXT") }

// panicReporter panics for everything.
type panicReporter struct{}

func (panicReporter) Count(string, float64, ...pitaya.Label) { panic("PANIC TEXT") }

func (panicReporter) Gauge(string, float64, ...pitaya.Label) { panic("PANIC TEXT") }

func (panicReporter) Observe(string, float64, ...pitaya.Label) { panic("PANIC TEXT") }

// A reporter or Tracer that is broken panics for each message, and several times. The log says so once a second, or it would
// be the log that takes the server down.
func TestBrokenSeamsLog(t *testing.T) {
	for name, cfg := range map[string]pitaya.Config{
		"reporter": {Reporters: []pitaya.Reporter{panicReporter{}}, Metrics: pitaya.MetricsConfig{Period: time.Hour}},
		"tracer":   {Tracer: panicTracer{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := newLogRecords(slog.LevelError)
				cfg.Logger = slog.New(logs)
				s := startServer(t, cfg, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)))
				})
				c := s.connect(t)
				logged := func() int { return strings.Count(logs.String(), "where="+name) }
				for round := range 3 {
					before := logged()
					for i := range uint64(50) {
						c.request(i+1, "test.echo", "")
						if m := c.message(); m.Err {
							t.Fatalf("answered with %s", m.Payload)
						}
					}
					if n := logged() - before; n > 1 || n == 0 && round > 0 {
						t.Errorf("round %d: %d records", round, n)
					}
					time.Sleep(time.Second)
				}
				if n := s.Stats().Panics; n < 150 {
					t.Errorf("%d panics were counted", n)
				}
				if !strings.Contains(logs.String(), "unlogged=") {
					t.Errorf("the log does not say how many there were:\n%s", logs)
				}
			})
		})
	}
}

// panicTracer panics for everything.
type panicTracer struct{}

func (panicTracer) Start(context.Context, string, pitaya.SpanKind, ...pitaya.Label) (context.Context, pitaya.Span) {
	panic("PANIC TEXT")
}

func (panicTracer) Inject(context.Context, map[string]string) { panic("PANIC TEXT") }

func (panicTracer) Extract(context.Context, map[string]string) context.Context { panic("PANIC TEXT") }

// panicLogs panics for every record.
type panicLogs struct{}

func (panicLogs) Enabled(context.Context, slog.Level) bool { return true }

func (panicLogs) Handle(context.Context, slog.Record) error { panic("PANIC TEXT") }

func (l panicLogs) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l panicLogs) WithGroup(string) slog.Handler { return l }

// wantInternal checks the answer to a request whose handling panicked.
func wantInternal(t testing.TB, m pitaya.Message, log *logRecords) {
	t.Helper()
	text := string(m.Payload)
	if !m.Err || !strings.Contains(text, `"code":"PIT-500"`) || strings.Contains(text, "PANIC") {
		t.Errorf("answer %v %s", m.Err, text)
		return
	}
	_, id, _ := strings.Cut(text, `"request":"`)
	id, _, _ = strings.Cut(id, `"`)
	if logged := log.String(); len(id) < 8 || !strings.Contains(logged, "request="+id) || !strings.Contains(logged, "stack=") {
		t.Errorf("request id %q is not in the log:\n%s", id, logged)
	}
}

func TestPanics(t *testing.T) {
	answer := func(ctx context.Context, in *panicValue) (*panicValue, error) { return new(panicValue), nil }
	tests := []struct {
		name string
		cfg  pitaya.Config
		set  func(s *pitaya.Server) error
		in   string
		code string // instead of PIT-500
	}{
		{name: "handler", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { panic("PANIC TEXT") })
		}},
		{name: "concurrent handler", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { panic("PANIC TEXT") }, pitaya.WithConcurrent())
		}},
		{name: "out of range", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(_ context.Context, b []byte) ([]byte, error) { return b[len(b)+1:], nil })
		}},
		{name: "before", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", sleeper(0)),
				s.Before(func(context.Context, any) (context.Context, any, error) { panic("PANIC TEXT") }))
		}},
		{name: "after", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", sleeper(0)),
				s.After(func(context.Context, any, error) (any, error) { panic("PANIC TEXT") }))
		}},
		{name: "unmarshal", cfg: pitaya.Config{Serializer: panicSerializer{}}, in: `{"panic":true}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "marshal", cfg: pitaya.Config{Serializer: panicSerializer{}}, in: `{}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "marshal of the error too", cfg: pitaya.Config{Serializer: brokenSerializer{}}, in: `{}`, set: func(s *pitaya.Server) error {
			return pitaya.Handle(s, "test.it", answer)
		}},
		{name: "text of an error", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { var e *nilError; return nil, e })
		}},
		{name: "text of an error, concurrent", set: func(s *pitaya.Server) error {
			return pitaya.HandleRaw(s, "test.it", func(context.Context, []byte) ([]byte, error) { var e *nilError; return nil, e }, pitaya.WithConcurrent())
		}},
		{name: "bind callback", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", bindHandler),
				s.OnSessionBind(func(context.Context, *pitaya.Session) error { panic("PANIC TEXT") }))
		}, in: "user"},
		{name: "after-bind callback", set: func(s *pitaya.Server) error {
			return errors.Join(pitaya.HandleRaw(s, "test.it", bindHandler),
				s.OnAfterSessionBind(func(context.Context, *pitaya.Session) error { panic("PANIC TEXT") }))
		}, in: "user"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newLogRecords(slog.LevelDebug)
				tt.cfg.Logger = slog.New(log)
				s := startServer(t, tt.cfg, func(s *pitaya.Server) {
					must(t, tt.set(s), pitaya.HandleRaw(s, "other.echo", sleeper(0)))
				})
				c := s.connect(t)
				for i := range 3 {
					c.request(uint64(i+1), "test.it", tt.in)
					wantInternal(t, c.message(), log)
				}
				if s.Stats().Panics < 3 || s.Stats().Failed != 3 {
					t.Errorf("%+v", s.Stats())
				}
			})
		})
	}
}

// A handler that ends its goroutine, as testing.T.FailNow does, does not leave
// its session stuck.
func TestGoexit(t *testing.T) {
	for _, opts := range [][]pitaya.RegisterOption{nil, {pitaya.WithConcurrent()}} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
				must(t, pitaya.HandleRaw(s, "test.exit", func(context.Context, []byte) ([]byte, error) {
					runtime.Goexit()
					return nil, nil
				}, opts...))
			})
			c := s.connect(t)
			c.request(1, "test.exit", "x")
			c.expectClosed()
			c.Close()
			begin := time.Now()
			s.stop(t)
			if d := time.Since(begin); d > time.Second {
				t.Errorf("shutdown took %v", d)
			}
			if st := s.Stats(); st.Requests != st.Lost {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Code of the application that is called outside of requests.
func TestPanicsOutside(t *testing.T) {
	boom := func() { panic("PANIC TEXT") }
	tests := []struct {
		name   string
		cfg    pitaya.Config
		set    func(s *pitaya.Server) error
		answer string // to the handshake
	}{
		{"validator", pitaya.Config{}, func(s *pitaya.Server) error {
			return s.AddHandshakeValidator("v", func(*pitaya.HandshakeData) error { boom(); return nil })
		}, `"code":400`},
		{"close callback", pitaya.Config{}, func(s *pitaya.Server) error {
			return s.OnSessionClose(func(*pitaya.Session) { boom() })
		}, `"code":200`},
		{"reporter", pitaya.Config{Reporters: []pitaya.Reporter{panicReporter{}}}, nil, `"code":200`},
		{"logger", pitaya.Config{Logger: slog.New(panicLogs{})}, nil, `"code":200`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.cfg.Logger == nil {
					tt.cfg.Logger = slog.New(slog.DiscardHandler)
				}
				s := startServer(t, tt.cfg, func(s *pitaya.Server) {
					if tt.set != nil {
						must(t, tt.set(s))
					}
					must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0)), pitaya.HandleRaw(s, "test.fail", func(context.Context, []byte) ([]byte, error) { panic(1) }))
				})
				for range 2 {
					c := s.dial(t)
					c.send(pitaya.PacketHandshake, []byte(`{}`))
					if got := string(c.expect(pitaya.PacketHandshake)); !strings.Contains(got, tt.answer) || strings.Contains(got, "PANIC") {
						t.Errorf("handshake: %s", got)
					}
					if strings.Contains(tt.answer, "400") {
						c.expectClosed()
						continue
					}
					c.send(pitaya.PacketHandshakeAck, nil)
					c.request(1, "test.echo", "x")
					if m := c.message(); m.Err {
						t.Errorf("answer %s", m.Payload)
					}
					c.request(2, "test.fail", "x")
					if m := c.message(); !m.Err {
						t.Errorf("answer %s", m.Payload)
					}
					c.Close()
				}
				synctest.Wait()
				if s.SessionCount() != 0 {
					t.Error("a session is left")
				}
			})
		})
	}
}

// Code of the application that is called during the upgrade.
func TestPanicInUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, &pitaya.WSOptions{CheckOrigin: func(*http.Request) bool { panic("PANIC TEXT") }})
		must(t, err)
		s := startServer(t, pitaya.Config{Listeners: []net.Listener{ws}, Logger: slog.New(slog.DiscardHandler)}, nil)
		c, err := mem.DialContext(t.Context())
		must(t, err)
		io.WriteString(c, wsRequest)
		io.Copy(io.Discard, c)
		synctest.Wait()
		if st := s.Stats(); st.Panics != 1 || st.Open != 0 {
			t.Errorf("%+v", st)
		}
		s.connect(t)
	})
}
