package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// callLog records lifecycle calls.
type callLog struct {
	mu   sync.Mutex
	list []string
}

func (l *callLog) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
}

func (l *callLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.list, " ")
}

// Part is a component that logs its lifecycle.
type Part struct {
	name string
	log  *callLog
	on   map[string]func()
}

func (p *Part) call(step string) {
	p.log.add(p.name + "." + step)
	if f := p.on[step]; f != nil {
		f()
	}
}

func (p *Part) Init()           { p.call("Init") }
func (p *Part) AfterInit()      { p.call("AfterInit") }
func (p *Part) BeforeShutdown() { p.call("BeforeShutdown") }
func (p *Part) Shutdown()       { p.call("Shutdown") }

func (*Part) Echo(ctx context.Context, b []byte) ([]byte, error) { return b, nil }

// gear is a module that logs its lifecycle.
type gear struct {
	*Part
	fail error
}

func (g *gear) Init(context.Context) error     { g.call("Init"); return g.fail }
func (g *gear) Shutdown(context.Context) error { g.call("Shutdown"); return nil }

func TestServerLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(callLog)
		s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			for _, name := range []string{"a", "b"} {
				must(t, s.Register(&Part{name: name, log: log}, pitaya.WithName(name)))
				must(t, s.AddModule("m"+name, &gear{Part: &Part{name: "m" + name, log: log}}))
			}
			must(t, s.AddModuleBefore("first", &gear{Part: &Part{name: "first", log: log}}),
				s.OnSessionClose(func(x *pitaya.Session) { log.add("session:" + context.Cause(x.Context()).Error()) }))
		})
		want := "a.Init b.Init a.AfterInit b.AfterInit first.Init ma.Init mb.Init first.AfterInit ma.AfterInit mb.AfterInit"
		if got := log.String(); got != want {
			t.Errorf("start: %s\nwant %s", got, want)
		}
		c := s.connect(t)
		log.list = nil
		begin := time.Now()
		go c.packets() // and closes, so that nobody lingers
		s.stop(t)
		c.Close()
		want = "session:pitaya: server closed mb.BeforeShutdown ma.BeforeShutdown first.BeforeShutdown mb.Shutdown ma.Shutdown first.Shutdown " +
			"b.BeforeShutdown a.BeforeShutdown b.Shutdown a.Shutdown"
		if got := log.String(); got != want {
			t.Errorf("end: %s\nwant %s", got, want)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("the end took %v", d)
		}
		if err := s.Run(t.Context()); err != pitaya.ErrServerClosed {
			t.Errorf("Run again: %v", err)
		}
		if err := s.Register(&Part{}); err != pitaya.ErrServerClosed {
			t.Errorf("Register after Run: %v", err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown again: %v", err)
		}
		if _, err := s.Mem.DialContext(t.Context()); err == nil {
			t.Error("the listener is still open")
		}
	})
}

// What was started is shut down when the start fails, and the listeners are
// closed.
func TestFailedStart(t *testing.T) {
	for _, how := range []string{"error", "panic", "component", "context"} {
		synctest.Test(t, func(t *testing.T) {
			log := new(callLog)
			mem := pitaya.ListenMem()
			s, err := pitaya.NewServer(pitaya.Config{Frontend: true, Listeners: []net.Listener{mem}, Logger: slog.New(slog.DiscardHandler)})
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			bad := &gear{Part: &Part{name: "bad", log: log, on: map[string]func(){}}}
			part := &Part{name: "a", log: log, on: map[string]func(){}}
			switch how {
			case "error":
				bad.fail = errors.New("no database")
			case "panic":
				bad.on["Init"] = func() { panic("no database") }
			case "component":
				part.on["AfterInit"] = func() { panic("no database") }
			case "context":
				part.on["Init"] = cancel
			}
			must(t, s.Register(part), s.AddModule("good", &gear{Part: &Part{name: "good", log: log}}), s.AddModule("bad", bad))
			err = s.Run(ctx)
			if ended := how == "context"; (err == nil) != ended { // who is told to end and does has not failed
				t.Errorf("%s: Run: %v", how, err)
			}
			want := "a.Init a.AfterInit good.Init bad.Init good.Shutdown a.BeforeShutdown a.Shutdown"
			switch how {
			case "component", "context":
				want = "a.Init a.AfterInit a.BeforeShutdown a.Shutdown"
			}
			if got := log.String(); got != want {
				t.Errorf("%s: %s\nwant %s", how, got, want)
			}
			if _, err := mem.DialContext(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: the listener is still open: %v", how, err)
			}
			if err := s.Shutdown(t.Context()); err != nil && how == "error" {
				t.Logf("Shutdown after a failed start: %v", err)
			}
			select {
			case <-s.Ready():
				t.Error("ready")
			default:
			}
		})
	}
}

// A Shutdown that comes while the server starts waits for the start to end, and
// everything that was started is shut down.
func TestShutdownWhileStarting(t *testing.T) {
	for _, where := range []string{"component", "module", "last"} {
		synctest.Test(t, func(t *testing.T) {
			log := new(callLog)
			s, err := pitaya.NewServer(pitaya.Config{Logger: slog.New(slog.DiscardHandler)})
			must(t, err)
			slow := map[string]func(){"Init": func() { time.Sleep(time.Second) }}
			part, module, last := &Part{name: "part", log: log}, &Part{name: "module", log: log}, &Part{name: "last", log: log}
			map[string]*Part{"component": part, "module": module, "last": last}[where].on = slow
			must(t, s.Register(part), s.AddModule("module", &gear{Part: module}), s.AddModule("last", &gear{Part: last}))
			ran := make(chan error, 1)
			go func() { ran <- s.Run(t.Context()) }()
			time.Sleep(time.Second / 2)
			begin := time.Now()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("%s: Shutdown: %v", where, err)
			}
			if d := time.Since(begin); d != time.Second/2 {
				t.Errorf("%s: Shutdown took %v", where, d)
			}
			if err := <-ran; err != nil {
				t.Errorf("%s: Run: %v", where, err)
			}
			got := log.String()
			for _, name := range []string{"part", "module", "last"} {
				if strings.Contains(got, name+".Init") != strings.Contains(got, name+".Shutdown") {
					t.Errorf("%s: %s", where, got)
				}
			}
			if strings.LastIndex(got, ".AfterInit") > strings.Index(got, ".Shutdown") {
				t.Errorf("%s: started after the end: %s", where, got)
			}
		})
	}
}

func TestShutdownBeforeRun(t *testing.T) {
	s, err := pitaya.NewServer(pitaya.Config{})
	must(t, err)
	must(t, s.Shutdown(t.Context()))
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run after Shutdown")
	}
}

func TestTakenPort(t *testing.T) {
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	must(t, err)
	defer l.Close()
	if _, err := pitaya.ListenTCP(l.Addr().String(), nil); err == nil {
		t.Error("ListenTCP on a taken port")
	}
	if _, err := pitaya.ListenWS(l.Addr().String(), nil); err == nil {
		t.Error("ListenWS on a taken port")
	}
	if _, err := pitaya.NewServer(pitaya.Config{Listeners: []net.Listener{l}}); err == nil {
		t.Error("a backend with a listener")
	}
}

// Mistaken has every mistake that a handler struct can have.
type Mistaken struct{}

func (*Mistaken) Good(ctx context.Context, b []byte) ([]byte, error)      { return b, nil }
func (*Mistaken) Value(ctx context.Context, in answerArg) ([]byte, error) { return nil, nil }
func (*Mistaken) Variadic(ctx context.Context, in ...[]byte)              {}
func (*Mistaken) Three(ctx context.Context, a, b []byte)                  {}
func (*Mistaken) OneResult(ctx context.Context) error                     { return nil }
func (*Mistaken) NoError(ctx context.Context) ([]byte, string)            { return nil, "" }
func (*Mistaken) Result(ctx context.Context) (int, error)                 { return 0, nil }
func (*Mistaken) Helper(n int) int                                        { return n }

type hiddenPart struct{ Part }

func TestMistakes(t *testing.T) {
	mem := pitaya.ListenMem()
	s, err := pitaya.NewServer(pitaya.Config{Type: "conn", Frontend: true, Listeners: []net.Listener{mem}})
	must(t, err)
	wants := []struct {
		err  error
		want []string
	}{
		{s.Register(&Mistaken{}), []string{"Value", "Variadic", "Three", "OneResult", "NoError", "Result"}},
		{s.Register(&hiddenPart{}), []string{"not exported"}},
		{s.Register(nil), []string{"no component"}},
		{s.Register(Part{}), []string{"register a pointer"}},
		{s.Register(&Part{}, pitaya.WithName("a.b")), []string{"a.b"}},
		{s.Register(&Part{}, pitaya.WithSkip("Nothing")), []string{"Nothing"}},
		{s.Register(&Part{}, pitaya.WithNameFunc(func(string) string { return "" })), []string{"Echo"}},
		{pitaya.HandleRaw(s, "x", sleeper(0)), []string{"invalid route"}},
		{pitaya.HandleRaw(s, "other.a.b", sleeper(0)), []string{`"conn"`}},
		{s.SetDictionary(map[string]uint16{"a": 1, "b": 1}), []string{"1"}},
		{s.AddModule("", nil), []string{"without a name"}},
	}
	must(t, s.Register(&Part{}))
	wants = append(wants, struct {
		err  error
		want []string
	}{s.Register(&Part{}), []string{`"Part" already`}})
	run := s.Run(t.Context())
	if run == nil {
		t.Fatal("Run with mistakes")
	}
	for i, w := range wants {
		if w.err == nil {
			t.Errorf("mistake %d is none", i)
			continue
		}
		for _, text := range w.want {
			if !strings.Contains(w.err.Error(), text) {
				t.Errorf("mistake %d: %q is not in: %v", i, text, w.err)
			}
		}
		if !errors.Is(run, w.err) {
			t.Errorf("mistake %d is not in what Run returned", i)
		}
	}
	if strings.Contains(run.Error(), "Good") || strings.Contains(run.Error(), "Helper") {
		t.Errorf("what is no mistake: %v", run)
	}
	if _, err := mem.DialContext(t.Context()); err == nil {
		t.Error("the listener is still open")
	}
}

// Shutdown answers what was received, and what comes while that is being handled.
func TestShutdownFinishes(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := startOn(t, kind, pitaya.Config{SlowHandler: -1}, func(s *pitaya.Server) {
					must(t, pitaya.HandleRaw(s, "test.slow", sleeper(time.Second)),
						pitaya.HandleRaw(s, "test.beside", sleeper(4*time.Second), pitaya.WithConcurrent()))
				})
				var clients [5]*rawClient
				for i := range clients {
					clients[i] = dial()
					clients[i].SetDeadline(time.Time{})
					clients[i].hello()
					clients[i].request(9, "test.beside", "x")
					clients[i].request(1, "test.slow", "x")
					synctest.Wait() // so that the others wait in the mailbox
					clients[i].request(2, "test.slow", "x")
					clients[i].request(3, "test.slow", "x")
				}
				synctest.Wait()
				begin := time.Now()
				done := make(chan error, 2)
				for range 2 {
					go func() { done <- s.Shutdown(context.Background()) }()
				}
				synctest.Wait()
				for _, c := range clients {
					c.request(4, "test.slow", "late")
				}
				for _, c := range clients {
					list, err := c.packets()
					if err != nil || len(list) != 5 {
						t.Errorf("%d answers, then %v", len(list), err)
					}
					if ws, ok := c.Conn.(*wsPeer); ok && ws.closeCode() != 1001 {
						t.Errorf("close code %d, want 1001", ws.closeCode())
					}
					c.Close()
				}
				for range 2 {
					if err := <-done; err != nil {
						t.Errorf("Shutdown: %v", err)
					}
				}
				if d := time.Since(begin); d != 4*time.Second {
					t.Errorf("it took %v, want 4s", d)
				}
			})
		})
	}
}

// A handler that does not care delays the end by what the context allows.
func TestShutdownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := startServer(t, pitaya.Config{ShutdownTimeout: 3 * time.Second, SlowHandler: -1, MailboxMessages: 2}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.stuck", func(ctx context.Context, b []byte) ([]byte, error) {
				<-release
				return b, nil
			}))
		})
		for range 3 {
			c := s.connect(t)
			go func() { // more than the mailbox holds
				c.Write(appendRequest(appendRequest(appendRequest(appendRequest(nil, 1, "test.stuck", nil), 2, "test.stuck", nil), 3, "test.stuck", nil), 4, "test.stuck", nil))
			}()
		}
		s.connect(t) // does nothing, and never closes
		synctest.Wait()
		begin := time.Now()
		s.end()
		err := <-s.ran
		close(s.ran)
		if d := time.Since(begin); d != 4*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run returned %v after %v", err, d)
		}
		close(release)
	})
}

// Nobody that is accepted while the server ends is left behind.
func TestShutdownRaces(t *testing.T) {
	for _, kind := range []string{"mem", "memws"} {
		for range 100 {
			synctest.Test(t, func(t *testing.T) {
				l, open := listenOn(t, kind)
				s := startServer(t, pitaya.Config{Listeners: []net.Listener{l}}, nil)
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						for {
							c, err := open(t.Context())
							if err != nil {
								return
							}
							c.Write(handshakeAll)
							wg.Go(func() { (&rawClient{Conn: c, t: t}).packets(); c.Close() })
							runtime.Gosched()
						}
					})
				}
				runtime.Gosched()
				begin := time.Now()
				s.stop(t)
				if d := time.Since(begin); d > 2*time.Second {
					t.Errorf("the end took %v", d)
				}
				wg.Wait()
				if st := s.Stats(); st.Open != 0 || st.Sessions != 0 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// sessions is a module with sessions of its own.
type sessions struct {
	pitaya.ModuleBase
	draining chan struct{}
	until    time.Time
}

func (m *sessions) StartDraining() { close(m.draining) }
func (m *sessions) SessionCount() int {
	if time.Now().Before(m.until) {
		return 1
	}
	return 0
}

func TestDrain(t *testing.T) {
	tests := []struct {
		name          string
		client, match time.Duration // when the client leaves and the match ends
		want          time.Duration
	}{
		{"client", 7 * time.Second, 0, 8 * time.Second},
		{"module", 0, 5 * time.Second, 6 * time.Second},
		{"nobody", 0, 0, 0},
		{"too long", time.Hour, 0, 20 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &sessions{draining: make(chan struct{})}
				s := startServer(t, pitaya.Config{DrainEnabled: true, DrainTimeout: 20 * time.Second, DrainPeriod: 2 * time.Second}, func(s *pitaya.Server) {
					must(t, s.AddModule("matches", m), pitaya.HandleRaw(s, "test.echo", sleeper(0)))
				})
				m.until = time.Now().Add(tt.match)
				begin := time.Now()
				if tt.client > 0 {
					c := s.connect(t)
					go func() {
						<-m.draining
						// It is served as ever.
						c.request(1, "test.echo", "x")
						c.message()
						time.Sleep(tt.client)
						c.Close()
					}()
				}
				synctest.Wait()
				s.end()
				synctest.Wait()
				if _, err := s.Mem.DialContext(t.Context()); err == nil {
					t.Error("a draining server accepts")
				}
				err := <-s.ran
				close(s.ran)
				if d := time.Since(begin); err != nil || d < tt.want || d > tt.want+2*time.Second {
					t.Errorf("Run returned %v after %v, want %v", err, d, tt.want)
				}
				time.Sleep(2 * time.Hour) // the client that stayed
			})
		})
	}
}

// The WebSocket listener on a mux of the application's, beside another
// endpoint.
func TestServeOnMux(t *testing.T) {
	ws, err := pitaya.ListenWS("", &pitaya.WSOptions{Path: "/game"})
	must(t, err)
	mux := http.NewServeMux()
	mux.Handle("/game", ws)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") })
	web := httptest.NewServer(mux)
	defer web.Close()
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) { must(t, pitaya.HandleRaw(s, "test.echo", sleeper(0))) })
	served := make(chan error, 1)
	go func() { served <- s.Serve(ws) }()

	r, err := http.Get(web.URL + "/healthz")
	must(t, err)
	r.Body.Close()
	raw, err := net.Dial("tcp", web.Listener.Addr().String())
	must(t, err)
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(realTime))
	fmt.Fprint(raw, strings.Replace(wsRequest, "/chat", "/game", 1))
	peer := &wsPeer{Conn: raw, frame: pitaya.NewWSReader(true, 0)}
	must(t, peer.answered())
	c := &rawClient{Conn: peer, t: t}
	c.hello()
	c.request(1, "test.echo", "through the mux")
	if m := c.message(); string(m.Payload) != "through the mux" {
		t.Errorf("%q", m.Payload)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.packets()
		c.Close()
	}()
	s.stop(t)
	<-done
	if peer.closeCode() != 1001 {
		t.Errorf("close code %d", peer.closeCode())
	}
	if err := <-served; err != pitaya.ErrServerClosed {
		t.Errorf("Serve: %v", err)
	}
	if err := s.Serve(pitaya.ListenMem()); err != pitaya.ErrServerClosed {
		t.Errorf("Serve after the end: %v", err)
	}
}

// A listener that fails ends its Serve and nothing else.
func TestServeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, pitaya.Config{}, nil)
		mem := pitaya.ListenMem()
		served := make(chan error, 1)
		go func() { served <- s.Serve(mem) }()
		synctest.Wait()
		mem.Close()
		if err := <-served; err == nil || errors.Is(err, pitaya.ErrServerClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		s.connect(t)
	})
}

// On real sockets too nothing is left of a server.
func TestNothingIsLeft(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for _, kind := range []string{"tcp", "tls", "ws", "wss", "proxy"} {
		s, dial := startOn(t, kind, pitaya.Config{}, nil)
		var clients [5]*rawClient
		for i := range clients {
			clients[i] = dial().hello()
		}
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() { c.packets(); c.Close() })
		}
		s.stop(t)
		wg.Wait()
	}
	settle(t, goroutines, files)
}

// oddListener cannot be compared, and its connections have no address.
type oddListener struct {
	net.Listener
	_ []int
}

func (l oddListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return oddConn{c}, err
}

type oddConn struct{ net.Conn }

func (oddConn) RemoteAddr() net.Addr { return nil }

func TestOddListener(t *testing.T) {
	mem := pitaya.ListenMem()
	s := startServer(t, pitaya.Config{Listeners: []net.Listener{oddListener{Listener: mem}}, MaxConnsPerIP: 1}, nil)
	nc, err := mem.DialContext(t.Context())
	must(t, err)
	c := &rawClient{Conn: nc, t: t}
	c.handshake("{}")
	if got := s.SessionCount(); got != 1 {
		t.Errorf("%d sessions", got)
	}
	c.Close()
}

// logFunc is a log handler that is told each record's message.
type logFunc func(msg string)

func (logFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f logFunc) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logFunc) WithGroup(string) slog.Handler      { return f }

// No lock of the server is held while it logs a refusal.
func TestLogHandlerAsksServer(t *testing.T) {
	var s *pitaya.Server
	refused := make(chan bool, 1)
	ts, dial := startOn(t, "tcp", pitaya.Config{MaxConnsPerIP: 1, Logger: slog.New(logFunc(func(msg string) {
		if msg == "connection refused" {
			refused <- s.IsRunning()
		}
	}))}, func(srv *pitaya.Server) { s = srv })
	dial().hello()
	dial()
	if !<-refused {
		t.Error("not running")
	}
	ts.stop(t)
}
