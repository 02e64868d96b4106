package pitaya_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/internal/transporttest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// natsQuick is for tests in which NATS goes away: it is back soon, and so are those who wait for it.
var natsQuick = pitaya.NATSConfig{ReconnectWait: 20 * time.Millisecond, ReconnectJitter: 5 * time.Millisecond}

// natsAt completes settings with an address.
func natsAt(c pitaya.NATSConfig, urls ...string) pitaya.NATSConfig {
	c.URL = strings.Join(urls, ",")
	return c
}

func newNATS(t testing.TB, client, server pitaya.NATSConfig) *pitaya.NATSTransport {
	t.Helper()
	tr, err := pitaya.NewNATSTransport(client, server, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// natsNet makes servers that have the same settings on both sides.
func natsNet(t *testing.T, c pitaya.NATSConfig) *transporttest.Net {
	return transporttest.NewNet(t, func(*pitaya.ServerInfo) pitaya.Transport { return newNATS(t, c, c) })
}

// natsClient is a connection without any of the library's own code.
func natsClient(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// until asks again and again whether something that the other side brings about has happened.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(transporttest.Patience)
	for !happened() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, transporttest.Patience)
		}
		<-tick.C
	}
}

func healthy(tr pitaya.Transport) func() bool { return func() bool { return tr.Healthy() == nil } }

func TestNATSTransport(t *testing.T) {
	t.Parallel()
	for name, two := range map[string]bool{"one connection": false, "two connections": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := natsAt(pitaya.NATSConfig{}, startNATS(t).URL())
			client := server
			if two {
				client.MaxPings = 5
			}
			pitayatest.TestTransport(t, pitayatest.TransportOptions{
				Open: func(t testing.TB) func(*pitaya.ServerInfo) pitaya.Transport {
					return func(*pitaya.ServerInfo) pitaya.Transport { return newNATS(t, client, server) }
				},
			})
		})
	}
}

// TestNATSSubjects compares what is seen on the wire with the vectors.
func TestNATSSubjects(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	n := natsNet(t, natsAt(pitaya.NATSConfig{}, url))
	a := n.Server("front", nil)
	seen := make(chan *nats.Msg, 100)
	nc := natsClient(t, url)
	if _, err := nc.ChanSubscribe(">", seen); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]pitaya.NoticeKind{
		"push": pitaya.NoticePush, "kick": pitaya.NoticeKick, "bindings": pitaya.NoticeBind,
	}
	testVectors(t, "names", func(v struct {
		Kind   string
		Inputs struct {
			UID        string
			ServerType string `json:"server_type"`
			ServerID   string `json:"server_id"`
		}
		Expect string
	}) error {
		kind, ok := strings.CutPrefix(v.Kind, "nats_")
		if !ok {
			return nil // of another transport
		}
		in := v.Inputs
		if kind == "server" {
			a.Start(t.Context(), &pitaya.ServerInfo{Type: in.ServerType, ID: in.ServerID}, []byte("body"))
			m := transporttest.Await(t, seen)
			if m.Reply == "" {
				return errors.New("no reply subject")
			}
			return wantText("subject", m.Subject, v.Expect)
		}
		err := a.Notify(t.Context(), &pitaya.Notice{
			Kind: kinds[strings.TrimPrefix(kind, "user_")], FrontendType: in.ServerType, UID: in.UID,
		})
		if err != nil {
			return err
		}
		return wantText("subject", transporttest.Await(t, seen).Subject, v.Expect)
	})
	testVectors(t, "nats_publish", func(v struct {
		Subject string
		Hex     hexBytes
	}) error {
		parts := strings.Split(v.Subject, "/")
		notice := &pitaya.Notice{Kind: kinds[parts[len(parts)-1]], FrontendType: parts[1], Body: v.Hex}
		if len(parts) > 3 {
			notice.UID = parts[3]
		}
		if err := a.Notify(t.Context(), notice); err != nil {
			return err
		}
		m := transporttest.Await(t, seen)
		if m.Reply != "" {
			return errors.New("has a reply subject")
		}
		return errors.Join(wantText("subject", m.Subject, v.Subject), wantBytes("body", m.Data, v.Hex))
	})
}

func wantText(what, got, want string) error {
	if got != want {
		return fmt.Errorf("%s: got %q, want %q", what, got, want)
	}
	return nil
}

// TestNATSForeign sends a server what no server of the library would.
func TestNATSForeign(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	n := natsNet(t, natsAt(pitaya.NATSConfig{}, url))
	notices := make(chan pitaya.NoticeKind, 100)
	var calls atomic.Int32
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			if calls.Add(1); string(body) == "panic" {
				panic("a mistake of the handler")
			}
			reply(body)
			reply(body) // a second answer goes nowhere
		}
		p.OnNotice = func(n *pitaya.Notice, reply func([]byte, error)) {
			notices <- n.Kind
			switch {
			case reply == nil:
			case string(n.Body) == "refuse":
				reply(nil, pitaya.Errorf("PIT-404", "no such user"))
			case string(n.Body) == "answer":
				reply([]byte{8, 1}, nil)
			default:
				reply(nil, nil)
			}
		}
	})
	if err := a.Bind(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	nc := natsClient(t, url)
	var inbox string
	sub, err := nc.SubscribeSync("pitaya/servers/x/y")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	pending := a.Start(t.Context(), &pitaya.ServerInfo{Type: "x", ID: "y"}, nil)
	m, err := sub.NextMsg(transporttest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	inbox = m.Reply[:strings.LastIndexByte(m.Reply, '.')+1]

	garbage := [][]byte{nil, {0}, {0xff, 0xff, 0xff}, []byte("null"), []byte("panic"), make([]byte, 1<<16)}
	own := "pitaya/servers/front/" + a.Self.ID
	for _, body := range garbage {
		for _, subject := range []string{own, "pitaya/front/bindings", "pitaya/front/user/u/push", "pitaya/front/user/u/kick"} {
			if err := nc.Publish(subject, body); err != nil {
				t.Fatal(err)
			}
		}
		for _, token := range []string{"0", "zzz", "-1", "ZZZZZZZZZZZZZZZZZZZZZZZZ", "%", "*"} {
			if err := nc.Publish(inbox+token, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct{ subject, body, want string }{
		{own, "hello", "hello"},
		// The C++ library waits for answers to these (5.2).
		{"pitaya/front/user/u/push", "", "\x0a\x03ack"},
		{"pitaya/front/user/u/kick", "", "\x0a\x03ack"},
		{"pitaya/front/user/u/kick", "answer", "\x08\x01"},
		{"pitaya/front/user/u/push", "refuse", "\x12\x17\x0a\x07PIT-404\x12\x0cno such user"},
		{"pitaya/front/bindings", "", "\x0a\x03ack"},
		{"pitaya/front/bindings", "\xff", "\x12\x30\x0a\x07PIT-400\x12\x25" + "pitaya: message between servers: bad"},
	} {
		got, err := nc.Request(tt.subject, []byte(tt.body), transporttest.Patience)
		switch {
		case err != nil:
			t.Errorf("%s with %q: %v", tt.subject, tt.body, err)
		case tt.body == "\xff":
			if !strings.Contains(string(got.Data), "PIT-400") {
				t.Errorf("%s with %q: got %q, want PIT-400", tt.subject, tt.body, got.Data)
			}
		case string(got.Data) != tt.want:
			t.Errorf("%s with %q: got %q, want %q", tt.subject, tt.body, got.Data, tt.want)
		}
	}
	if got := int(calls.Load()); got != len(garbage)+1 {
		t.Errorf("%d calls handled, want %d", got, len(garbage)+1)
	}
	counts := make(map[pitaya.NoticeKind]int)
	for len(notices) > 0 {
		counts[<-notices]++
	}
	want := map[pitaya.NoticeKind]int{pitaya.NoticePush: len(garbage) + 2, pitaya.NoticeKick: len(garbage) + 2}
	delete(counts, pitaya.NoticeBind) // as many as happen to be protobuf
	if !maps.Equal(counts, want) {
		t.Errorf("notices: got %v, want %v", counts, want)
	}
	// None of that was the answer; this is.
	m.Respond([]byte("right"))
	if r := transporttest.Await(t, pending); r.Err != nil || string(r.Body) != "right" {
		t.Errorf("got %q, %v", r.Body, r.Err)
	}
}

// TestNATSPushBeforeAnswer: what a server pushes before it answers arrives before the answer.
func TestNATSPushBeforeAnswer(t *testing.T) {
	t.Parallel()
	n := natsNet(t, natsAt(pitaya.NATSConfig{}, startNATS(t).URL()))
	var mu sync.Mutex
	var events []string
	event := func(s string) { mu.Lock(); events = append(events, s); mu.Unlock() }
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, _ func([]byte, error)) { event("push " + string(n.Body)) }
	})
	b := n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			p.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticePush, FrontendType: "front", UID: "u", Body: body})
			reply(body)
		}
	})
	if err := a.Bind(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	var want []string
	var done sync.WaitGroup
	for i := range 500 {
		want = append(want, fmt.Sprint("push ", i), fmt.Sprint("answer ", i))
		done.Add(1)
		a.Call(t.Context(), b.Self, fmt.Append(nil, i), func(response []byte, err error) {
			event("answer " + string(response))
			done.Done()
		})
	}
	done.Wait()
	if !slices.Equal(events, want) {
		t.Errorf("out of order: %.300q", events)
	}
}

func TestNATSOutage(t *testing.T) {
	t.Parallel()
	server := startNATS(t)
	n := natsNet(t, natsAt(natsQuick, server.URL()))
	notices, held := make(chan string, 10), make(chan struct{}, 10)
	setup := func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, _ func([]byte, error)) { notices <- n.UID }
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			if string(body) == "hold" {
				held <- struct{}{}
				return
			}
			reply(body)
		}
	}
	a, b := n.Server("front", setup), n.Server("back", setup)
	if err := a.Bind(t.Context(), "before"); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(){"stop": server.Stop, "kill": server.Kill} {
		pending := a.Start(t.Context(), b.Self, []byte("hold"))
		transporttest.Await(t, held)
		end()
		if r := transporttest.Await(t, pending); !errors.Is(r.Err, pitaya.ErrNoAnswer) || errors.Is(r.Err, pitaya.ErrUnreachable) {
			t.Errorf("%s: call under way: got %v, want ErrNoAnswer", name, r.Err)
		}
		start := time.Now()
		for range 100 {
			if _, err := a.Ask(t.Context(), b.Self, nil); !errors.Is(err, pitaya.ErrUnreachable) {
				t.Fatalf("%s: call: got %v, want ErrUnreachable", name, err)
			}
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: 100 calls without NATS took %v", name, d)
		}
		if err := a.Healthy(); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Errorf("%s: healthy: got %v, want ErrUnreachable", name, err)
		}
		if err := a.Notify(t.Context(), &pitaya.Notice{FrontendType: "front", UID: "before"}); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Errorf("%s: notice: got %v, want ErrUnreachable", name, err)
		}
		// Users come and go meanwhile.
		if err := errors.Join(a.Bind(t.Context(), "during "+name), a.Bind(t.Context(), "gone"), a.Unbind(t.Context(), "gone")); err == nil {
			t.Errorf("%s: a user with a space was bound", name)
		}
		if err := errors.Join(a.Bind(t.Context(), "during-"+name), a.Bind(t.Context(), "gone"), a.Unbind(t.Context(), "gone")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		server.Start()
		until(t, "reconnect", healthy(a))
		until(t, "reconnect", healthy(b))
		if got, err := a.Ask(t.Context(), b.Self, []byte("again")); err != nil || string(got) != "again" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		for _, uid := range []string{"gone", "before", "during-" + name} {
			if err := b.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticePush, FrontendType: "front", UID: uid}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, uid := range []string{"before", "during-" + name} {
			if got := transporttest.Await(t, notices); got != uid {
				t.Errorf("%s: notice for %q, want %q", name, got, uid)
			}
		}
	}
}

// TestNATSPaused: a NATS server that stands still looks like a slow one.
func TestNATSPaused(t *testing.T) {
	t.Parallel()
	server := startNATS(t)
	n := natsNet(t, natsAt(natsQuick, server.URL()))
	a, b := n.Server("front", nil), n.Server("back", nil)
	server.Pause()
	var ctx context.Context
	until(t, "it stands still", func() bool { // the signal takes a moment
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := a.Ask(ctx, b.Self, []byte("x"))
		if err != nil && !errors.Is(err, pitaya.ErrNoAnswer) {
			t.Fatalf("got %v, want ErrNoAnswer", err)
		}
		return err != nil
	})
	// Once its buffers are full, publishing ends the connection, and Close is not held up.
	body := make([]byte, 1<<20)
	until(t, "the connection counts as lost", func() bool {
		return a.Notify(t.Context(), &pitaya.Notice{FrontendType: "front", UID: "u", Body: body}) != nil
	})
	closed := make(chan error, 1)
	go func() { closed <- a.Close(t.Context()) }()
	if err := transporttest.Await(t, closed); err != nil {
		t.Error(err)
	}
	server.Resume()
	until(t, "connection of the other", healthy(b))
	if got, err := b.Ask(t.Context(), b.Self, []byte("y")); err != nil || string(got) != "y" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

// TestNATSLimit: the settings' time limit ends calls that have none.
func TestNATSLimit(t *testing.T) {
	t.Parallel()
	c := natsAt(pitaya.NATSConfig{RequestTimeout: 30 * time.Millisecond}, startNATS(t).URL())
	n := natsNet(t, c)
	a := n.Server("front", func(p *transporttest.Peer) { p.OnCall = func(context.Context, []byte, func([]byte)) {} })
	start := time.Now()
	if _, err := a.Ask(context.Background(), a.Self, nil); !errors.Is(err, pitaya.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	if d := time.Since(start); d < c.RequestTimeout {
		t.Errorf("failed after %v", d)
	}
}

func TestNATSSlowHandler(t *testing.T) {
	t.Parallel()
	url := startNATS(t).URL()
	c := natsAt(pitaya.NATSConfig{BufferMessages: 10, BufferPush: 10}, url)
	client := c
	client.MaxPings = 7 // a connection of its own: this one has room for calls and pushes only
	entered, block := make(chan struct{}), make(chan struct{})
	var handled atomic.Int64
	n := transporttest.NewNet(t, func(*pitaya.ServerInfo) pitaya.Transport { return newNATS(t, client, c) })
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnNotice = func(*pitaya.Notice, func([]byte, error)) {
			if handled.Add(1) == 1 {
				close(entered)
				<-block // which it must not
			}
		}
	})
	for _, uid := range []string{"slow", "unbound"} {
		if err := a.Bind(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	nc := natsClient(t, url)
	const pushes = 1000
	publish := func(uid string, n int) {
		for range n {
			if err := nc.Publish("pitaya/front/user/"+uid+"/push", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish("slow", 1)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	transporttest.Await(t, entered)
	publish("slow", pushes/2)
	publish("unbound", pushes/2-1)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = pushes - 1 - 20 // one is being handled, and there is room for two times ten
	tr := a.Transport.(*pitaya.NATSTransport)
	until(t, "all have been dropped", func() bool { return tr.Dropped() >= want })
	if err := a.Unbind(t.Context(), "unbound"); err != nil { // those of a user who has gone still count
		t.Fatal(err)
	}
	close(block)
	until(t, "what was kept is handled", func() bool { return handled.Load() == 21 })
	if got := tr.Dropped(); got != want {
		t.Errorf("dropped: got %d, want %d", got, want)
	}
	if got := tr.DroppedOf("pushes"); got != want {
		t.Errorf("dropped pushes: got %d, want %d", got, want)
	}
	publish("slow", 1)
	until(t, "new ones are handled", func() bool { return handled.Load() == 22 })
}

// TestNATSUsers: a user costs two subscriptions and no goroutine.
func TestNATSUsers(t *testing.T) {
	const users = 10_000
	n := natsNet(t, natsAt(natsQuick, startNATS(t).URL()))
	got := make(chan string, 10)
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, _ func([]byte, error)) { got <- n.UID }
	})
	before := runtime.NumGoroutine()
	each := func(do func(ctx context.Context, uid string) error) {
		var wg sync.WaitGroup
		for k := range 10 {
			wg.Go(func() {
				for i := k; i < users; i += 10 {
					if err := do(t.Context(), fmt.Sprint("user-", i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	each(a.Bind)
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines before, %d with %d users", before, n, users)
	}
	for _, uid := range []string{"user-0", "user-9999"} {
		if err := a.Notify(t.Context(), &pitaya.Notice{FrontendType: "front", UID: uid}); err != nil {
			t.Fatal(err)
		}
		if uid != transporttest.Await(t, got) {
			t.Errorf("no notice for %s", uid)
		}
	}
	each(a.Unbind)
}

// TestNATSManyUsers: a frontend with many users is back after an outage, since NATS need not take the subscriptions of all
// of them within the time of one answer.
func TestNATSManyUsers(t *testing.T) {
	t.Parallel()
	const users = 20_000
	server := startNATS(t)
	u, err := url.Parse(server.URL())
	must(t, err)
	proxy := newCutter(t, u.Host)
	var mu sync.Mutex
	most, total := 0, 0 // subscriptions: between two questions of the client, and all
	proxy.Tap(func(sent io.Reader) io.ReadCloser {
		r, w := io.Pipe()
		go func() {
			n := 0
			lines := bufio.NewScanner(io.TeeReader(sent, w))
			for lines.Scan() {
				mu.Lock()
				switch {
				case strings.HasPrefix(lines.Text(), "SUB "):
					n++
					total++
					most = max(most, n)
				case lines.Text() == "PING":
					n = 0
				}
				mu.Unlock()
			}
			w.CloseWithError(io.EOF)
		}()
		return r
	})
	n := natsNet(t, natsAt(natsQuick, "nats://"+proxy.l.Addr().String()))
	got := make(chan string, 10)
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, _ func([]byte, error)) { got <- n.UID }
	})
	var wg sync.WaitGroup
	for k := range 100 {
		wg.Go(func() {
			for i := k; i < users; i += 100 {
				if err := a.Bind(t.Context(), fmt.Sprint("user-", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	server.Stop()
	until(t, "the loss is noticed", func() bool { return a.Healthy() != nil })
	mu.Lock()
	most, total = 0, 0
	mu.Unlock()
	server.Start()
	until(t, "back", healthy(a))
	mu.Lock()
	if total < 2*users || most > users/4 {
		t.Errorf("%d subscriptions for %d users, up to %d without a look at what NATS makes of them", total, users, most)
	}
	mu.Unlock()
	for _, uid := range []string{"user-0", "user-19999"} {
		must(t, a.Notify(t.Context(), &pitaya.Notice{FrontendType: "front", UID: uid}))
		if uid != transporttest.Await(t, got) {
			t.Errorf("no notice for %s", uid)
		}
	}
}

// TestNATSLateStart: servers may be started before NATS.
func TestNATSLateStart(t *testing.T) {
	t.Parallel()
	server := startNATS(t)
	server.Stop()
	c := natsAt(natsQuick, server.URL())
	self := &pitaya.ServerInfo{ID: "a", Type: "front"}

	tr := newNATS(t, c, c)
	ctx, cancel := context.WithCancelCause(t.Context())
	listening := make(chan error, 1)
	go func() { listening <- tr.Listen(ctx, self, transporttest.NewPeer(t, nil, self)) }()
	until(t, "the first attempt fails", func() bool { return errors.Is(tr.Healthy(), nats.ErrNoServers) })
	cancel(context.DeadlineExceeded)
	err := transporttest.Await(t, listening)
	if !errors.Is(err, pitaya.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("without NATS: got %v, want all three reasons", err)
	}
	if err := tr.Listen(t.Context(), self, transporttest.NewPeer(t, nil, self)); err == nil {
		t.Error("Listen again succeeded")
	}
	limited := c
	limited.MaxReconnects = 3
	tr = newNATS(t, limited, c)
	if err := tr.Listen(t.Context(), self, transporttest.NewPeer(t, nil, self)); !errors.Is(err, pitaya.ErrUnreachable) ||
		!strings.Contains(err.Error(), "given up after 3 attempts") {
		t.Errorf("limited attempts: got %v", err)
	}

	tr = newNATS(t, c, c)
	go func() { listening <- tr.Listen(t.Context(), self, transporttest.NewPeer(t, nil, self)) }()
	server.Start()
	if err := transporttest.Await(t, listening); err != nil {
		t.Errorf("with NATS started later: %v", err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNATSSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		c    pitaya.NATSConfig
		want string
	}{
		{"address", pitaya.NATSConfig{URL: "nats://ok:1, nats://u:hunter2@b a d"}, "address 2 of NATS is not a URL"},
		{"no host", pitaya.NATSConfig{URL: "nats://"}, "address 1 of NATS is not a URL"},
		{"credentials", pitaya.NATSConfig{CredentialsFile: filepath.Join(dir, "none")}, "no such file"},
		{"nkey", pitaya.NATSConfig{NKeyFile: empty}, "seed"},
		{"authority", pitaya.NATSConfig{TLS: pitaya.TLSFiles{CA: empty}}, "no certificate in"},
		{"certificate", pitaya.NATSConfig{TLS: pitaya.TLSFiles{Cert: empty, Key: empty}}, "failed to find any PEM data"},
		{"both", pitaya.NATSConfig{CredentialsFile: "testdata/nats/server.creds", NKeyFile: natsSeedFile(t)}, "nkey"},
	} {
		for side, configs := range map[string][2]pitaya.NATSConfig{"client": {tt.c, {}}, "server": {{}, tt.c}} {
			_, err := pitaya.NewNATSTransport(configs[0], configs[1], nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s of the %s: got %v, want %q", tt.name, side, err, tt.want)
			}
		}
	}
}

// natsNKey and natsSeed were made for these tests and open nothing else, like testdata/nats/server.creds, whose
// accounts are in jwt.conf beside it.
const (
	natsNKey = "UBUXOS5JIZDPTUBXFTR34EXYQFXG57FUYV62IR4QLANFLNC23IGBUIHU"
	natsSeed = "SUAE26X4K3QBENOIEUPW2WTOMUHCW2CUMIAIXLI7YKSVAJO3E7SPXRDDWU"
)

func natsSeedFile(t testing.TB) string { return writeFile(t, "seed", natsSeed) }

// writeFile writes a file to a folder of the test and returns its path.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificateFiles writes a certificate for 127.0.0.1 and its key as PEM.
func certificateFiles(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	server, client := testTLS(t)
	cert := server.Certificates[0]
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	certFile = writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	keyFile = writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})))
	return certFile, keyFile, client.RootCAs
}

func TestNATSAccess(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificateFiles(t)
	withUser := func(c pitaya.NATSConfig, address string) pitaya.NATSConfig {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("game", "hunter2")
		return natsAt(c, u.String())
	}
	for _, tt := range []struct {
		name  string
		flags []string
		set   func(c pitaya.NATSConfig, address string) pitaya.NATSConfig
	}{
		{"user", []string{"-user", "game", "-password", "hunter2"}, withUser},
		{"token", []string{"-nats-config", writeFile(t, "c", "authorization { token: s3cr3t }")},
			func(c pitaya.NATSConfig, a string) pitaya.NATSConfig { c.Token = "s3cr3t"; return natsAt(c, a) }},
		{"nkey", []string{"-nats-config", writeFile(t, "c", "authorization { users: [ { nkey: "+natsNKey+" } ] }")},
			func(c pitaya.NATSConfig, a string) pitaya.NATSConfig {
				c.NKeyFile = natsSeedFile(t)
				return natsAt(c, a)
			}},
		{"credentials", []string{"-nats-config", "testdata/nats/jwt.conf"},
			func(c pitaya.NATSConfig, a string) pitaya.NATSConfig {
				c.CredentialsFile = "testdata/nats/server.creds"
				return natsAt(c, a)
			}},
		{"tls files", []string{"-tls-cert", certFile, "-tls-key", keyFile, "-tls-ca", certFile},
			func(c pitaya.NATSConfig, a string) pitaya.NATSConfig {
				c.TLS = pitaya.TLSFiles{CA: certFile, Cert: certFile, Key: keyFile}
				return natsAt(c, a)
			}},
		{"tls config", []string{"-tls-cert", certFile, "-tls-key", keyFile},
			func(c pitaya.NATSConfig, a string) pitaya.NATSConfig {
				c.TLSConfig = &tls.Config{RootCAs: roots}
				return natsAt(c, a)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := startNATS(t, tt.flags...)
			n := natsNet(t, tt.set(natsQuick, server.URL()))
			a := n.Server("front", nil)
			if got, err := a.Ask(t.Context(), a.Self, []byte("x")); err != nil || string(got) != "x" {
				t.Errorf("got %q, %v", got, err)
			}
			// Whoever is refused keeps trying, and says so.
			refused := natsAt(natsQuick, server.URL())
			tr := newNATS(t, refused, refused)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := tr.Listen(ctx, a.Self, a); !errors.Is(err, pitaya.ErrUnreachable) {
				t.Errorf("without access: got %v, want ErrUnreachable", err)
			} else {
				t.Log(err)
			}
		})
	}
}

// TestNATSAccessLost: a server that NATS refuses after an outage lives on, and is back when it is let in again.
func TestNATSAccessLost(t *testing.T) {
	t.Parallel()
	config := writeFile(t, "nats.conf", "authorization { token: one }")
	server := startNATS(t, "-nats-config", config)
	c := natsAt(natsQuick, server.URL())
	c.Token = "one"
	a := natsNet(t, c).Server("front", nil)
	rewrite := func(text string) {
		server.Stop()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		server.Start()
	}
	rewrite("authorization { token: two }")
	until(t, "Healthy tells the reason", func() bool { return errors.Is(a.Healthy(), nats.ErrAuthorization) })
	if _, err := a.Ask(t.Context(), a.Self, nil); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	rewrite("authorization { token: one }")
	until(t, "let in again", healthy(a))
	if _, err := a.Ask(t.Context(), a.Self, nil); err != nil {
		t.Error(err)
	}
}

// TestNATSPermissions: a server that may connect but not listen is of no use.
func TestNATSPermissions(t *testing.T) {
	t.Parallel()
	server := startNATS(t, "-nats-config", writeFile(t, "nats.conf",
		`authorization { users: [ { user: u, password: p, permissions: { subscribe: "_INBOX.>" } } ] }`))
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("u", "p")
	c := natsAt(natsQuick, u.String())
	c.MaxReconnects = 2
	tr := newNATS(t, c, c)
	err = tr.Listen(t.Context(), &pitaya.ServerInfo{ID: "a", Type: "front"}, echoHandler{})
	if !errors.Is(err, nats.ErrPermissionViolation) || strings.Contains(err.Error(), "u:p@") {
		t.Errorf("got %v, want the violation", err)
	}
}

// natsPair starts two NATS servers that pass messages on to each other.
func natsPair(t *testing.T) [2]*devtest.Server {
	t.Helper()
	routes := [2]string{freeAddress(t), freeAddress(t)}
	var pair [2]*devtest.Server
	for i := range pair {
		pair[i] = startNATS(t, "-nats-config", writeFile(t, "nats.conf", fmt.Sprintf(
			"server_name: n%d\ncluster { name: c, listen: %q, routes: [ \"nats-route://%s\" ] }\n",
			i, routes[i], routes[1-i])))
	}
	return pair
}

// TestNATSLameDuck: when a NATS server announces its end, those on it move to another one under load. No call is
// handled twice, and none fails.
func TestNATSLameDuck(t *testing.T) {
	t.Parallel()
	pair := natsPair(t)
	// All begin on the first server; NATS tells them of the second.
	n := natsNet(t, natsAt(natsQuick, pair[0].URL()))
	var mu sync.Mutex
	handled, pushed := make(map[string]int), make(map[string]int)
	lastPush := -1
	a := n.Server("front", func(p *transporttest.Peer) {
		p.OnNotice = func(n *pitaya.Notice, _ func([]byte, error)) {
			mu.Lock()
			defer mu.Unlock()
			pushed[string(n.Body)]++
			var i int
			fmt.Sscan(string(n.Body), &i)
			if i < lastPush {
				t.Errorf("push %d behind %d", i, lastPush)
			}
			lastPush = max(i, lastPush)
		}
	})
	b := n.Server("back", func(p *transporttest.Peer) {
		p.OnCall = func(_ context.Context, body []byte, reply func([]byte)) {
			mu.Lock()
			handled[string(body)]++
			mu.Unlock()
			// Some are answered after the move.
			if rand.IntN(4) == 0 {
				time.AfterFunc(rand.N(50*time.Millisecond), func() { reply(body) })
				return
			}
			reply(body)
		}
	})
	if err := a.Bind(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	nc := natsClient(t, pair[1].URL())
	until(t, "the servers know each other", func() bool {
		_, err := nc.Request("pitaya/servers/back/"+b.Self.ID, []byte("probe"), time.Second)
		return err == nil
	})
	moved := func(p *transporttest.Peer) bool {
		return pitaya.NATSServer(p.Transport.(*pitaya.NATSTransport)) == pair[1].URL()
	}
	if moved(a) || moved(b) {
		t.Fatal("not on the first server")
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	calls, failed := 0, 0
	var under sync.WaitGroup
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for ; ; calls++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			under.Add(1)
			body := fmt.Append(nil, calls)
			a.Call(t.Context(), b.Self, body, func(_ []byte, err error) {
				if err != nil {
					t.Errorf("call %s: %v", body, err)
					failed++
				}
				under.Done()
			})
			if err := nc.Publish("pitaya/front/user/u/push", body); err != nil {
				t.Error(err)
			}
		}
	}()
	until(t, "under load", func() bool { mu.Lock(); defer mu.Unlock(); return len(handled) > 100 })
	pair[0].Command("lameduck")
	until(t, "both have moved", func() bool { return moved(a) && moved(b) })
	mu.Lock()
	enough := len(handled) + 100
	mu.Unlock()
	until(t, "under load still", func() bool { mu.Lock(); defer mu.Unlock(); return len(handled) > enough })
	close(stop)
	<-stopped
	under.Wait()
	pair[0].Stop()
	if _, err := a.Ask(t.Context(), b.Self, []byte("after")); err != nil {
		t.Errorf("without the first server: %v", err)
	}
	until(t, "the last push", func() bool { mu.Lock(); defer mu.Unlock(); return lastPush == calls-1 })
	mu.Lock()
	defer mu.Unlock()
	for body, times := range handled {
		if times != 1 && body != "probe" {
			t.Errorf("call %s was handled %d times", body, times)
		}
	}
	for body, times := range pushed {
		if times != 1 {
			t.Errorf("push %s was handled %d times", body, times)
		}
	}
	t.Logf("%d calls, %d failed, %d pushes of as many arrived", calls, failed, len(pushed))
}

// TestNATSLameDuckAlone: where there is no other server, the connection is used to its end and made again.
func TestNATSLameDuckAlone(t *testing.T) {
	t.Parallel()
	server := startNATS(t)
	n := natsNet(t, natsAt(natsQuick, server.URL()))
	a := n.Server("front", nil)
	server.Command("lameduck")
	until(t, "the end", func() bool { return a.Healthy() != nil })
	server.Stop()
	server.Start()
	until(t, "back", healthy(a))
	if _, err := a.Ask(t.Context(), a.Self, nil); err != nil {
		t.Error(err)
	}
}

// BenchmarkNATSCall is a call there and back, beside the same with nats.go alone. "inflight" are how many calls wait for
// their answers at any time.
func BenchmarkNATSCall(b *testing.B) {
	url := startNATS(b).URL()
	for _, inflight := range []int{1, 64} {
		for _, size := range []int{128, 4096} {
			name := fmt.Sprintf("inflight=%d/size=%d", inflight, size)
			body := make([]byte, size)
			b.Run("over=transport/"+name, func(b *testing.B) {
				c := natsAt(pitaya.NATSConfig{}, url)
				var ends [2]*pitaya.NATSTransport
				infos := [2]*pitaya.ServerInfo{{ID: "a", Type: "front"}, {ID: "b", Type: "back"}}
				for i := range ends {
					tr, err := pitaya.NewNATSTransport(c, c, slog.New(slog.DiscardHandler))
					if err != nil {
						b.Fatal(err)
					}
					if err := tr.Listen(b.Context(), infos[i], echoHandler{}); err != nil {
						b.Fatal(err)
					}
					defer tr.Close(context.Background())
					ends[i] = tr
				}
				free := make(chan error, inflight)
				for range inflight {
					free <- nil
				}
				done := func(_ []byte, err error) { free <- err }
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := <-free; err != nil {
						b.Fatal(err)
					}
					ends[0].Call(ctx, infos[1], body, done)
				}
				for range inflight {
					<-free
				}
			})
			b.Run("over=nats.go/"+name, func(b *testing.B) {
				there, here := natsClient(b, url), natsClient(b, url)
				subject := fmt.Sprint("bench-", rand.Uint64())
				if _, err := there.Subscribe(subject, func(m *nats.Msg) { m.Respond(m.Data) }); err != nil {
					b.Fatal(err)
				}
				if err := there.Flush(); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				// Request waits for the answer, so each call under way takes a goroutine.
				work, errs := make(chan struct{}), make(chan error, inflight)
				for range inflight {
					go func() {
						var err error
						for range work {
							if _, e := here.Request(subject, body, time.Minute); e != nil {
								err = e
							}
						}
						errs <- err
					}()
				}
				for b.Loop() {
					work <- struct{}{}
				}
				close(work)
				for range inflight {
					if err := <-errs; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

type echoHandler struct{}

func (echoHandler) HandleCall(_ context.Context, body []byte, reply func([]byte)) { reply(body) }
func (echoHandler) HandleNotice(*pitaya.Notice, func([]byte, error))              {}
