package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/pitaya-go/pitaya"
)

// hostileText are what somebody might write to be something else where it ends up.
var hostileText = []string{
	"a\nlevel=ERROR msg=forged", "a\r\nforged", "\x1b[2J\x1b]0;title\x07", "a\x00b", "\u2028\u2029\u202e", "\"} forged{\"", "\xff\xfe",
	`a",x="b`, "a\\", "a b", "a\tb", "*", ">", "a.*.b", "a.>", ".a", "a.", "a..b", "../../etc", "\u0085\u00a0",
}

// Whatever clients write as uid, route, handshake or error, a record is one line, without control characters, and JSON is
// JSON.
func TestLogInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var text, lines bytes.Buffer
		options := &slog.HandlerOptions{Level: slog.Level(math.MinInt)}
		log := slog.New(bothHandlers{slog.NewTextHandler(lockedWriter{&mu, &text}, options), slog.NewJSONHandler(lockedWriter{&mu, &lines}, options)})
		s := startServer(t, pitaya.Config{Logger: slog.New(pitaya.LogHandler(log.Handler())), SlowHandler: time.Nanosecond, MaxUIDLength: 1000}, func(s *pitaya.Server) {
			must(t, s.AddHandshakeValidator("v", func(h *pitaya.HandshakeData) error {
				if h.Sys.Platform != "" {
					return errors.New("no " + h.Sys.Platform)
				}
				return nil
			}), pitaya.HandleRaw(s, "test.bind", bindHandler), pitaya.HandleRaw(s, "test.fail", func(ctx context.Context, b []byte) ([]byte, error) {
				time.Sleep(time.Millisecond)
				pitaya.LoggerFromContext(ctx).Info("said", "text", string(b))
				panic(errors.New("failed with " + string(b)))
			}))
		})
		for _, evil := range hostileText {
			c := s.dial(t)
			h, err := json.Marshal(map[string]any{"sys": map[string]string{"platform": evil}, "user": map[string]string{evil: evil}})
			must(t, err)
			c.write(packet(pitaya.PacketHandshake, string(h)))
			c.packets()
			c = s.connect(t)
			c.request(1, "test.bind", evil)
			c.message()
			c.request(2, "test.fail", evil)
			c.message()
			if route := "no." + evil; !strings.Contains(evil, "\xff") {
				c.request(3, route, "")
				c.message()
				c.request(0, evil+".such.thing", "")
			}
			c.write([]byte("\x04\x00\x00\x05\x0e" + "\nx\x00\n"))
			c.packets()
			c.Close()
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		records := 0
		for line := range strings.Lines(text.String()) {
			records++
			if !strings.HasPrefix(line, "time=") || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), unicode.IsControl) {
				t.Errorf("text: %q", line)
			}
		}
		for line := range bytes.Lines(lines.Bytes()) {
			records--
			var record map[string]any
			if err := json.Unmarshal(line, &record); err != nil || record["level"] == nil {
				t.Errorf("JSON: %q: %v", line, err)
			}
		}
		if records != 0 || text.Len() < 1000 {
			t.Errorf("%d records more as text than as JSON, %d bytes", records, text.Len())
		}
	})
}

// bothHandlers gives records to two handlers.
type bothHandlers [2]slog.Handler

func (h bothHandlers) Enabled(context.Context, slog.Level) bool { return true }
func (h bothHandlers) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(h[0].Handle(ctx, r.Clone()), h[1].Handle(ctx, r.Clone()))
}
func (h bothHandlers) WithAttrs(a []slog.Attr) slog.Handler {
	return bothHandlers{h[0].WithAttrs(a), h[1].WithAttrs(a)}
}
func (h bothHandlers) WithGroup(name string) slog.Handler {
	return bothHandlers{h[0].WithGroup(name), h[1].WithGroup(name)}
}

// No uid is a wildcard, an empty part, or anything that ends a line of the protocol of NATS; the session stays unbound.
func TestUIDInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, nil)
		s.connect(t)
		synctest.Wait()
		session := s.onlySession(t)
		harmless := []string{`a",x="b`, "a\\"} // to subjects and keys
		for _, evil := range append(slices.Clone(hostileText), "", "a\r\nPUB x 0\r\n", "a\u2003b", strings.Repeat("a", 257)) {
			if slices.Contains(harmless, evil) {
				continue
			}
			if err := session.Bind(t.Context(), evil); !errors.Is(err, pitaya.ErrIllegalUID) || session.UID() != "" {
				t.Errorf("%q: %v, bound to %q", evil, err, session.UID())
			}
		}
	})
}

// What stands in labels is quoted in the exposition, whatever it is: no line of it is one that a client has written.
func TestMetricsInjection(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, pitaya.MetricsConfig{})
	for _, evil := range hostileText {
		m.Observe("response_time_ns", 1, pitaya.Label{Name: "route", Value: evil + "\npitaya_forged 1\n"}, pitaya.Label{Name: "status", Value: "ok"})
	}
	for line := range strings.Lines(scrape(t, m)) {
		if strings.HasPrefix(line, "pitaya_forged") {
			t.Errorf("line %q", line)
		}
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "pitaya_") && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			t.Errorf("line %q", line)
		}
	}
}

// The limit by address holds for listeners of every kind, and for IPv4 written as IPv6; behind a WebSocket proxy it counts
// what the proxy says, and what a client claims counts for nothing.
func TestAddressLimitOfWebSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := pitaya.ListenMem()
		ws, err := pitaya.NewWSListener(mem, &pitaya.WSOptions{TrustedProxyHops: 1})
		must(t, err)
		s := startServer(t, pitaya.Config{MaxConnsPerIP: 2, Listeners: []net.Listener{ws}}, nil)
		dial := func(forwarded string) bool {
			raw, err := mem.DialContext(t.Context())
			must(t, err)
			t.Cleanup(func() { raw.Close() })
			if _, err := raw.Write([]byte(withHeader("X-Forwarded-For: " + forwarded))); err != nil {
				return false
			}
			peer := &wsPeer{Conn: raw, frame: pitaya.NewWSReader(true, 0)}
			if peer.answered() != nil {
				return false
			}
			c := &rawClient{Conn: peer, t: t}
			c.Write(handshakeOnly) // in vain, if it was refused
			_, err = pitaya.ReadPacket(bufio.NewReader(c), 0)
			return err == nil
		}
		for _, tt := range []struct {
			forwarded string
			want      bool
		}{
			{"9.8.7.6", true}, {"1.1.1.1, 9.8.7.6", true}, {"2.2.2.2, 9.8.7.6", false}, {"::ffff:9.8.7.6", false}, {"9.8.7.6:99", false}, {"9.8.7.6, 9.8.7.5", true},
		} {
			if got := dial(tt.forwarded); got != tt.want {
				t.Errorf("%s: let in %v, want %v", tt.forwarded, got, tt.want)
			}
			synctest.Wait()
		}
		if st := s.Stats(); st.RefusedConns != 3 {
			t.Errorf("%d were refused", st.RefusedConns)
		}
	})
}
