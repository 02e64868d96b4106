package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

type answerArg struct {
	N int `json:"n"`
}

func (a *answerArg) Validate() error {
	if a.N < 0 {
		return pitaya.Errorf("APP-NEG", "n is negative")
	}
	return nil
}

// wrapped is an error of the application around a coded one.
func wrapped() error {
	return fmt.Errorf("while saving: %w", pitaya.NewError(errors.New("no gold"), "APP-1", map[string]string{"have": "3"}))
}

// answerHandlers registers handlers for each way in which a request can end.
func answerHandlers(s *pitaya.Server) error {
	raw := func(name string, f func(context.Context, []byte) ([]byte, error), opts ...pitaya.RegisterOption) error {
		return pitaya.HandleRaw(s, "test."+name, f, opts...)
	}
	fail := func(err error) func(context.Context, []byte) ([]byte, error) {
		return func(context.Context, []byte) ([]byte, error) { return nil, err }
	}
	return errors.Join(
		raw("echo", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
		raw("empty", func(context.Context, []byte) ([]byte, error) { return []byte{}, nil }),
		raw("plain", fail(errors.New("plain text"))),
		raw("coded", fail(pitaya.Errorf("APP-2", "coded %d", 7))),
		raw("wrapped", fail(wrapped())),
		raw("joined", fail(errors.Join(errors.New("first"), pitaya.Errorf("APP-3", "second")))),
		raw("blank", fail(errors.New(""))),
		raw("nocode", fail(&pitaya.Error{})),
		raw("huge", fail(errors.New(strings.Repeat("x", pitaya.MaxPacketSize)))),
		raw("utf8", fail(errors.New("bad \xff text"))),
		raw("closed", fail(pitaya.ErrSessionClosed)),
		raw("nil", func(context.Context, []byte) ([]byte, error) { return nil, nil }),
		raw("large", func(context.Context, []byte) ([]byte, error) { return make([]byte, pitaya.MaxPacketSize), nil }),
		raw("panic", func(context.Context, []byte) ([]byte, error) { panic("secret") }),
		raw("bound", fail(errors.New("was called")), pitaya.WithBound()),
		raw("deadline", func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, pitaya.WithTimeout(time.Second)),
		raw("cause", func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, context.Cause(ctx) }, pitaya.WithTimeout(time.Second)),
		raw("bindtwice", func(ctx context.Context, _ []byte) ([]byte, error) {
			s := pitaya.SessionFromContext(ctx)
			return []byte("x"), errors.Join(s.Bind(ctx, "one"), s.Bind(ctx, "two"))
		}),
		raw("baduid", func(ctx context.Context, _ []byte) ([]byte, error) {
			return []byte("x"), pitaya.SessionFromContext(ctx).Bind(ctx, "a b")
		}),
		pitaya.Handle(s, "test.typed", func(_ context.Context, in *answerArg) (*answerArg, error) { return in, nil }),
		pitaya.Handle(s, "test.nilptr", func(context.Context, *answerArg) (*answerArg, error) { return nil, nil }),
		pitaya.Handle(s, "test.badret", func(context.Context, *answerArg) (*chan int, error) { return new(chan int), nil }),
		pitaya.HandleNotify(s, "test.note", func(context.Context, *answerArg) {}),
		s.Before(func(ctx context.Context, in any) (context.Context, any, error) {
			switch pitaya.RouteFromContext(ctx) {
			case "conn.test.before":
				return ctx, in, pitaya.Errorf("APP-B", "before")
			case "conn.test.nocontext":
				return nil, in, nil
			case "conn.test.othertype":
				return ctx, 42, nil
			}
			return ctx, in, nil
		}),
		s.After(func(ctx context.Context, out any, err error) (any, error) {
			switch pitaya.RouteFromContext(ctx) {
			case "conn.test.after":
				return nil, pitaya.Errorf("APP-A", "after")
			case "conn.test.repaired":
				return []byte("repaired"), nil
			case "conn.test.lost":
				return nil, nil
			}
			return out, err
		}),
		raw("before", fail(errors.New("was called"))),
		raw("nocontext", fail(errors.New("was called"))),
		raw("othertype", fail(errors.New("was called"))),
		raw("after", func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil }),
		raw("repaired", fail(errors.New("broken"))),
		raw("lost", func(context.Context, []byte) ([]byte, error) { return []byte("x"), nil }),
	)
}

// Every way in which a request can end is exactly one answer.
func TestAnswers(t *testing.T) {
	tests := []struct {
		route, payload string
		want           string // of an answer, or the beginning of the error
	}{
		{"test.echo", "hi", "hi"},
		{"conn.test.echo", "hi", "hi"},
		{"test.echo", "", ""},
		{"test.empty", "x", ""},
		{"test.plain", "", `!{"code":"PIT-000","msg":"plain text"}`},
		{"test.coded", "", `!{"code":"APP-2","msg":"coded 7"}`},
		{"test.wrapped", "", `!{"code":"APP-1","msg":"while saving: no gold","metadata":{"have":"3"}}`},
		{"test.joined", "", `!{"code":"APP-3","msg":"first\nsecond"}`},
		{"test.blank", "", `!{"code":"PIT-000","msg":"unknown error"}`},
		{"test.nocode", "", `!{"code":"PIT-000","msg":"`},
		{"test.huge", "", `!{"code":"PIT-500","msg":"the error is too large`},
		{"test.utf8", "", `!{"code":"PIT-000","msg":"bad \ufffd text"}`},
		{"test.closed", "", `!{"code":"PIT-499"`},
		{"test.nil", "", `!{"code":"PIT-000","msg":"reply must not be null"}`},
		{"test.nilptr", "{}", `!{"code":"PIT-000","msg":"reply must not be null"}`},
		{"test.large", "", `!{"code":"PIT-000","msg":"pitaya: protocol violation: packet too large`},
		{"test.panic", "", `!{"code":"PIT-500","msg":"internal error","metadata":{"request":"`},
		{"test.bound", "", `!{"code":"PIT-401"`},
		{"test.deadline", "", `!{"code":"PIT-408"`},
		{"test.cause", "", `!{"code":"PIT-408"`},
		{"test.bindtwice", "", `!{"code":"PIT-000"`},
		{"test.baduid", "", `!{"code":"PIT-000","msg":"illegal uid`},
		{"test.typed", `{"n":5}`, `{"n":5}`},
		{"test.typed", `null`, `{"n":0}`},
		{"test.typed", ``, `!{"code":"PIT-400"`},
		{"test.typed", `{`, `!{"code":"PIT-400"`},
		{"test.typed", `[1]`, `!{"code":"PIT-400"`},
		{"test.typed", `{"n":1.5}`, `!{"code":"PIT-400"`},
		{"test.typed", `{"n":-1}`, `!{"code":"APP-NEG"`},
		{"test.badret", `{}`, `!{"code":"PIT-000","msg":"json: unsupported type: chan int"}`},
		{"test.note", `{}`, `!{"code":"PIT-400"`},
		{"test.before", "", `!{"code":"APP-B"`},
		{"test.nocontext", "", `!{"code":"PIT-500"`},
		{"test.othertype", "", `!{"code":"PIT-500"`},
		{"test.after", "", `!{"code":"APP-A"`},
		{"test.repaired", "", "repaired"},
		{"test.lost", "", `!{"code":"PIT-000"`},
		{"test.missing", "", `!{"code":"PIT-404"`},
		{"conn.test.missing", "", `!{"code":"PIT-404"`},
		{"missing.echo", "", `!{"code":"PIT-404"`},
		{"test.Echo", "hi", `!{"code":"PIT-404"`},
		{"other.test.echo", "", `!{"code":"PIT-500"`},
		{"", "", `!{"code":"PIT-400"`},
		{"echo", "", `!{"code":"PIT-400","msg":"invalid route"}`},
		{"a.b.c.d", "", `!{"code":"PIT-400","msg":"invalid route"}`},
		{"test.", "", `!{"code":"PIT-400","msg":"route field can not be empty"}`},
		{" .echo", "", `!{"code":"PIT-400","msg":"route field can not be empty"}`},
		{strings.Repeat("x", 255), "", `!{"code":"PIT-400"`},
	}
	for _, concurrent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{ValidateRequests: true, Unordered: concurrent, Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
				must(t, answerHandlers(s))
			})
			for _, tt := range tests {
				c := s.connect(t)
				begin := time.Now()
				c.request(77, tt.route, tt.payload)
				m := c.message()
				got := string(m.Payload)
				if m.Err {
					got = "!" + got
				}
				ok := got == tt.want || strings.HasPrefix(tt.want, "!") && strings.HasPrefix(got, tt.want)
				if m.Type != pitaya.MessageResponse || m.ID != 77 || !ok {
					t.Errorf("%s %q: %v %d %.200s, want %s", tt.route, tt.payload, m.Type, m.ID, got, tt.want)
				}
				if d := time.Since(begin); d > time.Second {
					t.Errorf("%s: answered after %v", tt.route, d)
				}
				c.silent(time.Second)
				c.Close()
			}
			// A response from a client is a request without a route.
			c := s.connect(t)
			c.write(packet(pitaya.PacketData, "\x04\x09payload"))
			if m := c.message(); m.ID != 9 || !m.Err || !strings.Contains(string(m.Payload), "PIT-400") {
				t.Errorf("response: %d %s", m.ID, m.Payload)
			}
			c.Close()
			synctest.Wait()
			n := int64(len(tests) + 1)
			if st := s.Stats(); st.Requests != n || st.Answered+st.Failed != n || st.Lost != 0 || st.Unanswerable != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Nobody is told about a notify, whatever became of it, and request 0 cannot be
// answered.
func TestUnanswerable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) { must(t, answerHandlers(s)) })
		c := s.connect(t)
		routes := []string{"test.echo", "test.plain", "test.panic", "test.nil", "test.typed", "test.missing", "a", "x.y.z", "test.note", "test.bound"}
		for _, route := range routes {
			c.request(0, route, "x")
			body, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageRequest, Route: route, Payload: []byte("x")}, nil)
			must(t, err)
			c.send(pitaya.PacketData, body)
		}
		c.silent(time.Second)
		n := int64(len(routes))
		if st := s.Stats(); st.Notifies != n || st.Requests != n || st.Unanswerable != n || st.Answered+st.Failed+st.Lost != 0 {
			t.Errorf("%+v", st)
		}
		c.request(1, "test.echo", "x")
		c.message()
	})
}

// The handler's context ends with the session, and its cause tells why.
func TestHandlerContext(t *testing.T) {
	tests := []struct {
		name string
		end  func(t *testing.T, s *testServer, session *pitaya.Session, c *rawClient)
		want error
	}{
		{"client leaves", func(_ *testing.T, _ *testServer, _ *pitaya.Session, c *rawClient) { c.Close() }, io.EOF},
		{"client breaks the protocol", func(_ *testing.T, _ *testServer, _ *pitaya.Session, c *rawClient) { c.write([]byte{9, 0, 0, 0}) }, pitaya.ErrProtocol},
		{"client leaves in a packet", func(_ *testing.T, _ *testServer, _ *pitaya.Session, c *rawClient) {
			c.write([]byte{4, 0, 0})
			c.Close()
		}, pitaya.ErrProtocol},
		{"closed", func(_ *testing.T, _ *testServer, s *pitaya.Session, _ *rawClient) { s.Close() }, pitaya.ErrSessionClosed},
		{"kicked", func(_ *testing.T, _ *testServer, s *pitaya.Session, _ *rawClient) { s.Kick(context.Background()) }, pitaya.ErrKicked},
		{"replaced", func(t *testing.T, s *testServer, session *pitaya.Session, _ *rawClient) {
			must(t, session.Bind(t.Context(), "u"))
			s.connect(t).bind("u")
		}, pitaya.ErrReplaced},
		{"silence", func(*testing.T, *testServer, *pitaya.Session, *rawClient) {}, pitaya.ErrHeartbeat},
		{"slow", func(_ *testing.T, _ *testServer, s *pitaya.Session, _ *rawClient) {
			for s.Push(context.Background(), "x", make([]byte, 100<<10)) == nil {
			}
		}, pitaya.ErrSlowClient},
		{"shutdown without patience", func(t *testing.T, s *testServer, _ *pitaya.Session, _ *rawClient) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			s.Shutdown(ctx)
		}, pitaya.ErrServerClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				s := startServer(t, pitaya.Config{Logger: slog.New(slog.DiscardHandler), SlowHandler: -1}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.bind", bindHandler), pitaya.HandleRaw(s, "test.wait", func(ctx context.Context, b []byte) ([]byte, error) {
						<-ctx.Done()
						ended <- context.Cause(ctx)
						return b, nil
					}))
				})
				c := s.connect(t)
				c.request(1, "test.wait", "x")
				synctest.Wait()
				session := s.onlySession(t)
				tt.end(t, s, session, c)
				if got := <-ended; !errors.Is(got, tt.want) {
					t.Errorf("cause %v, want %v", got, tt.want)
				}
				if got := context.Cause(session.Context()); !errors.Is(got, tt.want) {
					t.Errorf("the session's cause is %v, want %v", got, tt.want)
				}
				synctest.Wait()
				if st := s.Stats(); st.Lost != 1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

func TestTimeoutAnswers(t *testing.T) {
	wait := func(ctx context.Context, b []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{HandlerTimeout: 5 * time.Second, SlowHandler: -1}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.server", wait), pitaya.HandleRaw(s, "test.own", wait, pitaya.WithTimeout(2*time.Second)),
				pitaya.HandleRaw(s, "test.none", func(ctx context.Context, b []byte) ([]byte, error) {
					_, ok := ctx.Deadline()
					return fmt.Append(nil, ok), nil
				}, pitaya.WithTimeout(-1)))
		})
		c := s.connect(t)
		for route, want := range map[string]time.Duration{"test.server": 5 * time.Second, "test.own": 2 * time.Second} {
			begin := time.Now()
			c.request(1, route, "x")
			if m := c.message(); !strings.Contains(string(m.Payload), "PIT-408") || time.Since(begin) != want {
				t.Errorf("%s: %s after %v", route, m.Payload, time.Since(begin))
			}
		}
		c.request(1, "test.none", "x")
		if m := c.message(); string(m.Payload) != "false" {
			t.Errorf("a deadline where none should be: %s", m.Payload)
		}
	})
}

// The counts add up after a storm of good and bad clients.
func TestConservation(t *testing.T) {
	for _, kind := range []string{"tcp", "ws", "mem"} {
		for _, unordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/unordered=%v", kind, unordered), func(t *testing.T) {
				s, dial := startOn(t, kind, pitaya.Config{Unordered: unordered, MailboxMessages: 3, MaxConns: 20, Logger: slog.New(slog.DiscardHandler)}, func(s *pitaya.Server) {
					must(t, answerHandlers(s), pitaya.HandleRaw(s, "test.slow", func(ctx context.Context, b []byte) ([]byte, error) {
						work()
						return b, nil
					}), pitaya.HandleRaw(s, "test.kick", func(ctx context.Context, b []byte) ([]byte, error) {
						return b, pitaya.SessionFromContext(ctx).Kick(ctx)
					}))
				})
				routes := []string{"test.echo", "test.slow", "test.plain", "test.panic", "no.such", "test.kick", "test.echo", "test.slow"}
				var wg sync.WaitGroup
				for w := range 8 {
					wg.Go(func() {
						r := rand.New(rand.NewPCG(1, uint64(w)))
						for range 15 {
							c := dial()
							b := bytesOf(handshakeAll)
							answers := 1 // to the handshake
							for range r.IntN(30) {
								id := uint64(r.IntN(3))
								answers += int(min(id, 1))
								b = appendRequest(b, id, routes[r.IntN(len(routes))], []byte("x"))
							}
							if r.IntN(3) == 0 {
								b = append(b, 9, 9, 9, 9)
							}
							c.Write(b)
							for range r.IntN(answers + 1) {
								if _, err := pitaya.ReadPacket(c, 0); err != nil {
									break
								}
							}
							c.Close()
						}
					})
				}
				wg.Wait()
				for s.Stats().Open > 0 {
					runtime.Gosched()
				}
				s.stop(t)
				st := s.Stats()
				if st.Accepted != st.Open+st.Closed || st.Open != 0 || st.Sessions != 0 {
					t.Errorf("connections do not add up: %+v", st)
				}
				if st.Requests != st.Answered+st.Failed+st.Unanswerable+st.Lost || st.Requests == 0 {
					t.Errorf("requests do not add up: %+v", st)
				}
			})
		}
	}
}

func bytesOf(b []byte) []byte { return append([]byte(nil), b...) }
