package pitaya_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// discard is for tests in which errors are logged on purpose.
var discard = slog.New(slog.DiscardHandler)

// lives records what happens to components and modules.
type lives struct {
	mu    sync.Mutex
	steps []string
}

func (l *lives) add(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, step)
}

func (l *lives) want(t *testing.T, steps string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := strings.Fields(steps); !slices.Equal(l.steps, want) {
		t.Errorf("got\n%q\nwant\n%q", l.steps, want)
	}
}

// Lived is a component, and a module, that records its life. It panics in the
// step panics.
type Lived struct {
	name   string
	lives  *lives
	panics string
}

func (c *Lived) step(step string) {
	c.lives.add(c.name + "." + step)
	if step == c.panics {
		panic(step)
	}
}

func (c *Lived) Init()           { c.step("Init") }
func (c *Lived) AfterInit()      { c.step("AfterInit") }
func (c *Lived) BeforeShutdown() { c.step("BeforeShutdown") }
func (c *Lived) Shutdown()       { c.step("Shutdown") }

func (c *Lived) Get(context.Context, *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{}, nil
}

type livedModule struct{ Lived }

func (m *livedModule) Init(context.Context) error {
	m.step("Init")
	return nil
}

func (m *livedModule) Shutdown(context.Context) error {
	m.step("Shutdown")
	return nil
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	var l lives
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s := startServer(t, pitaya.Config{Logger: logger}, func(s *pitaya.Server) {
		both := &Lived{name: "b", lives: &l}
		err := errors.Join(
			s.RegisterRemote(&Lived{name: "r", lives: &l}, pitaya.WithName("r")),
			s.RegisterRemote(both, pitaya.WithName("b")),
			s.Register(&Lived{name: "a", lives: &l}, pitaya.WithName("a")),
			s.Register(both, pitaya.WithName("b")),
			s.Register(both, pitaya.WithName("c")),
			s.Register(&Shapes{}), // embeds Base
			s.Register(&Twins{}),  // has no lifecycle
			s.AddModule("m", &livedModule{Lived{name: "m", lives: &l}}),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	s.stop(t)
	l.want(t, `a.Init b.Init a.AfterInit b.AfterInit r.Init r.AfterInit m.Init m.AfterInit
		m.BeforeShutdown m.Shutdown
		b.BeforeShutdown a.BeforeShutdown b.Shutdown a.Shutdown r.BeforeShutdown r.Shutdown`)
	if want := `msg="remotes are not served: the server is in no cluster" services="[b r]"` + "\n"; !strings.HasSuffix(log.String(), want) ||
		strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log %q, want %q", log.String(), want)
	}
}

// TestLifecyclePanics finds that a panic at the start is a start that failed,
// and one at the end keeps nobody else from ending.
func TestLifecyclePanics(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ step, want string }{
		{"Init", "a.Init b.Init b.BeforeShutdown a.BeforeShutdown b.Shutdown a.Shutdown"},
		{"AfterInit", "a.Init b.Init c.Init a.AfterInit b.AfterInit c.BeforeShutdown b.BeforeShutdown a.BeforeShutdown c.Shutdown b.Shutdown a.Shutdown"},
		{"BeforeShutdown", "a.Init b.Init c.Init a.AfterInit b.AfterInit c.AfterInit c.BeforeShutdown b.BeforeShutdown a.BeforeShutdown c.Shutdown b.Shutdown a.Shutdown"},
		{"Shutdown", "a.Init b.Init c.Init a.AfterInit b.AfterInit c.AfterInit c.BeforeShutdown b.BeforeShutdown a.BeforeShutdown c.Shutdown b.Shutdown a.Shutdown"},
	} {
		t.Run(tt.step, func(t *testing.T) {
			t.Parallel()
			var l lives
			mem := pitaya.ListenMem()
			s, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard})
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(
				s.AddListener(mem),
				s.Register(&Lived{name: "a", lives: &l}, pitaya.WithName("a")),
				s.Register(&Lived{name: "b", lives: &l, panics: tt.step}, pitaya.WithName("b")),
				s.Register(&Lived{name: "c", lives: &l}, pitaya.WithName("c")),
			)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ran := make(chan error, 1)
			go func() { ran <- s.Run(ctx) }()
			select {
			case <-s.Ready():
				cancel()
				err = <-ran
			case err = <-ran:
			}
			if want := "pitaya: panic in " + tt.step + " of component b: " + tt.step; err == nil || err.Error() != want {
				t.Errorf("Run: %v, want %s", err, want)
			}
			l.want(t, tt.want)
			if _, err := mem.DialContext(t.Context()); err == nil {
				t.Error("the listener is open still")
			}
		})
	}
}

// Starting waits in Init.
type Starting struct {
	pitaya.Base
	begun, leave chan struct{}
}

// Init waits.
func (s *Starting) Init() {
	close(s.begun)
	<-s.leave
}

// Get is a handler.
func (*Starting) Get(context.Context) {}

// TestShutdownDuringStart ends a server while a component is at its Init: the
// end comes behind it, and the rest does not start.
func TestShutdownDuringStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l lives
		s, err := pitaya.NewServer(pitaya.Config{Logger: discard})
		if err != nil {
			t.Fatal(err)
		}
		starting := &Starting{begun: make(chan struct{}), leave: make(chan struct{})}
		if err := errors.Join(s.Register(starting), s.AddModule("m", &livedModule{Lived{name: "m", lives: &l}})); err != nil {
			t.Fatal(err)
		}
		ran, ended := make(chan error, 1), make(chan error, 1)
		go func() { ran <- s.Run(t.Context()) }()
		<-starting.begun
		go func() { ended <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("Shutdown does not wait for the start: %v", err)
		default:
		}
		close(starting.leave)
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		l.want(t, "")
		if s.IsRunning() {
			t.Error("the server says that it runs")
		}
	})
}

// MixedRemote has handlers, remotes, and what is neither.
type MixedRemote struct{}

func (*MixedRemote) Remote(context.Context, *testpb.TestRequest) (*testpb.TestResponse, error) {
	return nil, nil
}
func (*MixedRemote) NoArgument(context.Context) (*testpb.TestResponse, error) { return nil, nil }
func (*MixedRemote) Handler(context.Context, *shapeArg) (*shapeArg, error)    { return nil, nil }
func (*MixedRemote) Raw(context.Context, []byte) ([]byte, error)              { return nil, nil }
func (*MixedRemote) Notify(context.Context)                                   {}

// NearRemote has a method that is nearly a remote.
type NearRemote struct{}

func (*NearRemote) Remote(context.Context, *testpb.TestRequest, bool) (*testpb.TestResponse, error) {
	return nil, nil
}

func TestRegisterRemote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		remote any
		opts   []pitaya.RegisterOption
		want   string
	}{
		{"mixed", &MixedRemote{}, nil, ""},
		{"name of a handler", &MixedRemote{}, []pitaya.RegisterOption{pitaya.WithName("handler")}, ""},
		{"nothing", nil, nil, "pitaya: register: no component given"},
		{"handlers only", &Options{}, nil, "pitaya: register *pitaya_test.Options: it has no method that is a remote"},
		{"near miss", &NearRemote{}, nil,
			"pitaya: register *pitaya_test.NearRemote: method Remote is no remote: it takes more than a context and one argument"},
		{"name of the library", &MixedRemote{}, []pitaya.RegisterOption{pitaya.WithName("sys")},
			`pitaya: register *pitaya_test.MixedRemote: the service name "sys" is taken by the library`},
		{"name of a remote", &MixedRemote{}, []pitaya.RegisterOption{pitaya.WithName("remote")},
			`pitaya: register *pitaya_test.MixedRemote: there is a service with the name "remote" already`},
	} {
		s, err := pitaya.NewServer(pitaya.Config{})
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(
			s.Register(&Options{}, pitaya.WithName("handler")),
			s.RegisterRemote(&MixedRemote{}, pitaya.WithName("remote")),
		)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RegisterRemote(tt.remote, tt.opts...); err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestAddRoute(t *testing.T) {
	t.Parallel()
	choose := func(context.Context, pitaya.Route, []byte, map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
		return nil, nil
	}
	s, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		serverType string
		f          pitaya.RoutingFunc
		want       string
	}{
		{"room", choose, ""},
		{"world", choose, ""},
		{"room", choose, `pitaya: routing to servers of type "room" is set already`},
		{"", choose, `pitaya: routing to servers of type "": empty`},
		{"a.b", choose, `pitaya: routing to servers of type "a.b": contains a dot`},
		{"lobby", nil, `pitaya: routing to servers of type "lobby": no function given`},
	} {
		if err := s.AddRoute(tt.serverType, tt.f); err == nil && tt.want != "" || err != nil && err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.serverType, err, tt.want)
		}
	}
}
