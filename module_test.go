package pitaya

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// moduleLog records the calls that modules get.
type moduleLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *moduleLog) add(name, step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, name+"."+step)
}

func (l *moduleLog) want(t *testing.T, calls string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := strings.Fields(calls); !slices.Equal(l.calls, want) {
		t.Errorf("calls\n got %q\nwant %q", l.calls, want)
	}
	l.calls = nil
}

// plainModule has only what a module must have. on is what happens in a step, if anything.
type plainModule struct {
	name string
	log  *moduleLog
	on   map[string]func(context.Context) error
}

func (m *plainModule) step(ctx context.Context, step string) error {
	m.log.add(m.name, step)
	if f := m.on[step]; f != nil {
		return f(ctx)
	}
	return nil
}

func (m *plainModule) Init(ctx context.Context) error     { return m.step(ctx, "Init") }
func (m *plainModule) Shutdown(ctx context.Context) error { return m.step(ctx, "Shutdown") }

// fullModule has the optional methods as well.
type fullModule struct {
	plainModule
	sessions int
}

func (m *fullModule) AfterInit()      { m.step(context.Background(), "AfterInit") }
func (m *fullModule) BeforeShutdown() { m.step(context.Background(), "BeforeShutdown") }
func (m *fullModule) StartDraining()  { m.step(context.Background(), "StartDraining") }
func (m *fullModule) SessionCount() int {
	if m.sessions < 0 {
		panic("cannot count")
	}
	return m.sessions
}

var (
	_ SessionModule = (*fullModule)(nil)
	_ Module        = struct{ ModuleBase }{}
)

// testModules returns a, b, c and d with b having no optional methods; on maps "name.step" to what happens there.
func testModules(t *testing.T, on map[string]func(context.Context) error) (*modules, *moduleLog, *bytes.Buffer) {
	var logged bytes.Buffer
	ms, log := newModules(slog.New(slog.NewTextHandler(&logged, nil))), new(moduleLog)
	for i, name := range []string{"a", "b", "c", "d"} {
		plain := plainModule{name: name, log: log, on: make(map[string]func(context.Context) error)}
		for key, f := range on {
			if owner, step, _ := strings.Cut(key, "."); owner == name {
				plain.on[step] = f
			}
		}
		var m Module = &fullModule{plain, i}
		if name == "b" {
			m = &plain
		}
		if err := ms.addAfter(name, m); err != nil {
			t.Fatal(err)
		}
	}
	return ms, log, &logged
}

func TestModulesOrder(t *testing.T) {
	ctx := t.Context()
	ms, log, _ := testModules(t, nil)
	first := &plainModule{name: "first", log: log}
	if err := ms.addBefore("first", first); err != nil {
		t.Fatal(err)
	}
	if err := ms.beforeShutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := ms.shutdown(ctx); err != nil {
		t.Error(err)
	}
	log.want(t, "")

	if err := ms.start(ctx); err != nil {
		t.Fatal(err)
	}
	log.want(t, "first.Init a.Init b.Init c.Init d.Init a.AfterInit c.AfterInit d.AfterInit")
	if err := ms.start(ctx); err == nil {
		t.Error("modules can be started twice")
	}
	if err := ms.startDraining(ctx); err != nil {
		t.Error(err)
	}
	if n := ms.sessionCount(); n != 3 {
		t.Errorf("session count: got %d, want the largest, 3", n)
	}
	log.want(t, "d.StartDraining c.StartDraining a.StartDraining")
	if err := ms.beforeShutdown(ctx); err != nil {
		t.Error(err)
	}
	log.want(t, "d.BeforeShutdown c.BeforeShutdown a.BeforeShutdown")
	for range 2 {
		if err := ms.shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
	log.want(t, "d.Shutdown c.Shutdown b.Shutdown a.Shutdown first.Shutdown")

	if m, ok := ms.get("first"); !ok || m != Module(first) {
		t.Errorf("get: got %v, %v", m, ok)
	}
	if m, ok := ms.get("second"); ok || m != nil {
		t.Errorf("get of an unknown name: got %v, %v", m, ok)
	}
}

func TestModulesAddErrors(t *testing.T) {
	ms, _, _ := testModules(t, nil)
	tests := []struct {
		name   string
		add    func(string, Module) error
		module Module
		text   string
	}{
		{"", ms.addAfter, ModuleBase{}, "without a name"},
		{"new", ms.addAfter, nil, `"new" is nil`},
		{"a", ms.addAfter, ModuleBase{}, `already is a module "a"`},
		{"d", ms.addBefore, ModuleBase{}, `already is a module "d"`},
	}
	for _, tt := range tests {
		if err := tt.add(tt.name, tt.module); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("add %q: got %v, want %q", tt.name, err, tt.text)
		}
	}
	if err := ms.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ms.addAfter("late", ModuleBase{}); err == nil || !strings.Contains(err.Error(), "started") {
		t.Errorf("add after start: got %v", err)
	}
}

func TestModulesStartFails(t *testing.T) {
	errBroken := errors.New("broken")
	fail := func(context.Context) error { return errBroken }
	boom := func(context.Context) error { panic(errBroken) }
	leave := func(context.Context) error { runtime.Goexit(); return nil }
	tests := []struct {
		name  string
		on    map[string]func(context.Context) error
		calls string
		texts []string
	}{
		{"first Init", map[string]func(context.Context) error{"a.Init": fail}, "a.Init", []string{`module "a": Init: broken`}},
		{"third Init", map[string]func(context.Context) error{"c.Init": fail},
			"a.Init b.Init c.Init b.Shutdown a.Shutdown", []string{`module "c": Init: broken`}},
		{"third Init panics", map[string]func(context.Context) error{"c.Init": boom},
			"a.Init b.Init c.Init b.Shutdown a.Shutdown", []string{`module "c": Init: panic: broken`}},
		{"third Init ends its goroutine", map[string]func(context.Context) error{"c.Init": leave},
			"a.Init b.Init c.Init b.Shutdown a.Shutdown", []string{`module "c": Init: it ended`}},
		{"Init and Shutdown", map[string]func(context.Context) error{"c.Init": fail, "b.Shutdown": boom, "a.Shutdown": fail},
			"a.Init b.Init c.Init b.Shutdown a.Shutdown",
			[]string{`module "c": Init: broken`, `module "b": Shutdown: panic: broken`, `module "a": Shutdown: broken`}},
		{"AfterInit panics", map[string]func(context.Context) error{"c.AfterInit": boom},
			"a.Init b.Init c.Init d.Init a.AfterInit c.AfterInit a.BeforeShutdown d.Shutdown c.Shutdown b.Shutdown a.Shutdown",
			[]string{`module "c": AfterInit: panic: broken`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ms, log, logged := testModules(t, tt.on)
			err := ms.start(t.Context())
			if err == nil {
				t.Fatal("start succeeds")
			}
			for _, text := range tt.texts {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q lacks %q", err, text)
				}
			}
			if strings.Contains(tt.name, "panic") && !strings.Contains(logged.String(), "module_test.go") {
				t.Errorf("the panic's stack is not logged: %q", logged)
			}
			log.want(t, tt.calls)
			if err := errors.Join(ms.beforeShutdown(t.Context()), ms.shutdown(t.Context())); err != nil {
				t.Error(err)
			}
			log.want(t, "")
		})
	}
}

func TestModulesShutdownErrors(t *testing.T) {
	errA, errC := errors.New("a fails"), errors.New("c fails")
	ms, log, _ := testModules(t, map[string]func(context.Context) error{
		"a.Shutdown":       func(context.Context) error { return errA },
		"b.Shutdown":       func(context.Context) error { panic("b panics") },
		"c.Shutdown":       func(context.Context) error { return errC },
		"d.BeforeShutdown": func(context.Context) error { panic("d panics") },
		"a.StartDraining":  func(context.Context) error { panic("a panics") },
	})
	if err := ms.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, _ := ms.get("d")
	m.(*fullModule).sessions = -1
	if n := ms.sessionCount(); n != 2 {
		t.Errorf("session count with one that panics: got %d, want 2", n)
	}
	log.want(t, "a.Init b.Init c.Init d.Init a.AfterInit c.AfterInit d.AfterInit")
	if err := ms.startDraining(t.Context()); err == nil || !strings.Contains(err.Error(), `"a": StartDraining: panic: a panics`) {
		t.Errorf("startDraining: got %v", err)
	}
	if err := ms.beforeShutdown(t.Context()); err == nil || !strings.Contains(err.Error(), `"d": BeforeShutdown: panic: d panics`) {
		t.Errorf("beforeShutdown: got %v", err)
	}
	err := ms.shutdown(t.Context())
	if !errors.Is(err, errA) || !errors.Is(err, errC) || !strings.Contains(err.Error(), `"b": Shutdown: panic: b panics`) {
		t.Errorf("shutdown: got %v, want all three errors", err)
	}
	log.want(t, `d.StartDraining c.StartDraining a.StartDraining d.BeforeShutdown c.BeforeShutdown a.BeforeShutdown
		d.Shutdown c.Shutdown b.Shutdown a.Shutdown`)
}

// TestModulesContext has modules that look at their context and one that does not, in each step.
func TestModulesContext(t *testing.T) {
	heed := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	cause := errors.New("enough")
	for _, step := range []string{"Init", "AfterInit", "BeforeShutdown", "Shutdown"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stuck := make(chan struct{})
				ms, log, _ := testModules(t, map[string]func(context.Context) error{
					"c." + step: func(context.Context) error { <-stuck; return nil },
				})
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
				defer cancel()
				begin := time.Now()
				err := ms.start(ctx)
				if err == nil {
					err = errors.Join(ms.beforeShutdown(ctx), ms.shutdown(ctx))
				}
				if !errors.Is(err, cause) || !errors.Is(err, errModuleStuck) || !strings.Contains(err.Error(), `"c": `+step) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(begin); d != time.Minute+modulePatience {
					t.Errorf("took %v, want the context's minute and %v", d, modulePatience)
				}
				log.mu.Lock()
				last := log.calls[len(log.calls)-1]
				if slices.Contains(log.calls, "c.Shutdown") != (step == "Shutdown") {
					t.Errorf("a module that is stuck in %s is called again: %q", step, log.calls)
				}
				log.mu.Unlock()
				if last != "a.Shutdown" {
					t.Errorf("the last call was %s: the others were not shut down", last)
				}
				close(stuck)
			})
		})
	}
	t.Run("heeded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ms, log, _ := testModules(t, map[string]func(context.Context) error{"b.Init": heed})
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				time.Sleep(time.Second)
				cancel(cause)
			}()
			if err := ms.start(ctx); !errors.Is(err, cause) || errors.Is(err, errModuleStuck) {
				t.Errorf("got %v", err)
			}
			log.want(t, "a.Init b.Init a.Shutdown")
		})
	})
	t.Run("over before start", func(t *testing.T) {
		ms, log, _ := testModules(t, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := ms.start(ctx); !errors.Is(err, cause) || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("got %v", err)
		}
		log.want(t, "")
	})
	t.Run("over before shutdown", func(t *testing.T) {
		ms, log, _ := testModules(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		if err := ms.start(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := errors.Join(ms.beforeShutdown(ctx), ms.shutdown(ctx)); err != nil {
			t.Errorf("modules that take no time fail: %v", err)
		}
		log.want(t, fmt.Sprint("a.Init b.Init c.Init d.Init a.AfterInit c.AfterInit d.AfterInit ",
			"d.BeforeShutdown c.BeforeShutdown a.BeforeShutdown d.Shutdown c.Shutdown b.Shutdown a.Shutdown"))
	})
}
