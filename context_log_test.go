package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// inContext gives all records the same context.
type inContext struct {
	slog.Handler
	ctx context.Context
}

func (h inContext) Handle(_ context.Context, r slog.Record) error { return h.Handler.Handle(h.ctx, r) }
func (h inContext) WithAttrs(attrs []slog.Attr) slog.Handler {
	return inContext{h.Handler.WithAttrs(attrs), h.ctx}
}
func (h inContext) WithGroup(name string) slog.Handler {
	return inContext{h.Handler.WithGroup(name), h.ctx}
}

// TestLogHandler holds the handler against the rules of package slog, outside of handlers and in one.
func TestLogHandler(t *testing.T) {
	t.Parallel()
	conform := func(name string, in func(slog.Handler) slog.Handler) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				out.Reset()
				return in(slog.NewJSONHandler(&out, nil))
			}, func(t *testing.T) map[string]any {
				m := make(map[string]any)
				if err := json.Unmarshal(out.Bytes(), &m); err != nil {
					t.Fatal(err)
				}
				if name != "outside" && (m["route"] != "game.h.go" || m["request"] == nil) {
					t.Errorf("got %v", m)
				}
				return m
			})
		})
	}
	conform("outside", pitaya.LogHandler)
	server := pitayatest.NewServer(t, pitaya.Config{Type: "game"}, func(s *pitaya.Server) {
		_ = pitaya.HandleRaw(s, "h.go", func(ctx context.Context, _ []byte) ([]byte, error) {
			conform("in a handler", func(h slog.Handler) slog.Handler { return inContext{pitaya.LogHandler(h), ctx} })
			conform("twice", func(h slog.Handler) slog.Handler {
				return inContext{pitaya.LogHandler(pitaya.LogHandler(h)), ctx}
			})
			return []byte("1"), nil
		})
	})
	server.Client(t).Request("h.go", nil, nil)
}

// Records are said once what they are about, however many handlers of the kind they pass, and outside of groups.
func TestLogHandlerOnce(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	cfg := pitaya.Config{Type: "game", Logger: slog.New(pitaya.LogHandler(pitaya.LogHandler(slog.NewTextHandler(&out, nil)))).WithGroup("g")}
	server := pitayatest.NewServer(t, cfg, func(s *pitaya.Server) {
		_ = pitaya.HandleRaw(s, "h.go", func(ctx context.Context, _ []byte) ([]byte, error) {
			pitaya.LoggerFromContext(ctx).With("a", 1).InfoContext(ctx, "from the context")
			slog.New(cfg.Logger.Handler()).With("a", 1).InfoContext(ctx, "of the program")
			return []byte("1"), nil
		})
	})
	server.Client(t).Request("h.go", nil, nil)
	for _, want := range []string{
		` msg="from the context" g.session.id=1 g.session.uid="" g.route=game.h.go g.request=`,
		` msg="of the program" session.id=1 session.uid="" route=game.h.go request=`,
	} {
		_, line, ok := strings.Cut(out.String(), want)
		line, _, _ = strings.Cut(line, "\n")
		if !ok || strings.Contains(line, "route=") || !strings.HasSuffix(line, " g.a=1") {
			t.Errorf("want %s… once in\n%s", want, out.String())
		}
	}
}

// TestLogHandlerOnServers looks at the records that handlers make, on a frontend and on backends.
func TestLogHandlerOnServers(t *testing.T) {
	t.Parallel()
	for _, traced := range []bool{true, false} {
		t.Run(fmt.Sprint(traced), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out lockedBuffer
				log := slog.New(pitaya.LogHandler(slog.NewJSONHandler(&out, nil)))
				tracer := new(pitayatest.Tracer)
				cluster := pitayatest.NewCluster(t)
				config := func(serverType, id string) pitaya.Config {
					cfg := pitaya.Config{Type: serverType, ID: id, Logger: slog.New(slog.DiscardHandler), Frontend: serverType == "gate"}
					if traced || serverType == "gate" {
						cfg.Tracer = tracer
					}
					return cfg
				}
				cluster.NewServer(t, config("counter", "c1"), func(s *pitaya.Server) {
					remote(s, "c", func(ctx context.Context, in string) (string, error) {
						log.InfoContext(ctx, "remote")
						return in, nil
					})
				})
				cluster.NewServer(t, config("room", "r1"), func(s *pitaya.Server) {
					_ = pitaya.HandleRaw(s, "h.go", func(ctx context.Context, in []byte) ([]byte, error) {
						log.With("a", 1).WithGroup("g").InfoContext(ctx, "backend", "b", 2)
						log.Info("without")
						out, err := rpc(ctx, s, "counter.c.Do", "")
						return []byte(out), err
					})
				})
				gate := cluster.NewServer(t, config("gate", "g1"), func(s *pitaya.Server) {
					_ = pitaya.HandleRaw(s, "h.bind", func(ctx context.Context, in []byte) ([]byte, error) {
						err := pitaya.SessionFromContext(ctx).Bind(ctx, "ada")
						log.InfoContext(ctx, "frontend")
						return []byte("{}"), err
					})
				})
				client := gate.Client(t)
				client.Request("h.bind", "secret", nil)
				client.Request("room.h.go", "secret", nil)
				synctest.Wait()
				traces := make(map[string]string) // by request
				for _, s := range tracer.Spans() {
					if id := s.Attributes["request.id"]; id != "" {
						traces[id] = s.TraceID
					}
				}
				type record struct {
					Msg, Route, Request, Trace string
					Session                    *struct {
						ID  int64
						UID string
					}
					A int
					G *struct{ B int }
				}
				var ids []string
				for line := range strings.Lines(out.String()) {
					if strings.Contains(line, "secret") {
						t.Errorf("%s", line)
					}
					if strings.Count(line, `"route"`) > 1 {
						t.Errorf("said twice: %s", line)
					}
					var r record
					if err := json.Unmarshal([]byte(line), &r); err != nil {
						t.Fatal(err)
					}
					if r.Msg == "without" {
						if r.Route != "" || r.Session != nil {
							t.Errorf("without a context: %s", line)
						}
						continue
					}
					ids = append(ids, r.Request)
					want := map[string]string{"frontend": "gate.h.bind", "backend": "room.h.go", "remote": "counter.c.Do"}[r.Msg]
					if r.Route != want || len(r.Request) != 22 || r.Trace == "" || r.Trace != traces[r.Request] {
						t.Errorf("%s, want the route %s and the trace %q", line, want, traces[r.Request])
					}
					if r.Msg == "remote" != (r.Session == nil) || r.Session != nil && (r.Session.ID == 0 || r.Session.UID != "ada") {
						t.Errorf("session: %s", line)
					}
					if r.Msg == "backend" && (r.A != 1 || r.G == nil || r.G.B != 2) {
						t.Errorf("groups: %s", line)
					}
				}
				if len(ids) != 3 || ids[0] == ids[1] || ids[1] != ids[2] {
					t.Errorf("requests %q", ids)
				}
			})
		})
	}
}
