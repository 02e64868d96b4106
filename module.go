package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A Module is a part of the application that lives as long as the server: a connection pool, a child process, a cache.
// Modules are added before the server runs, under names of their own, and have an order.
//
// When the server starts, it calls Init of all modules in order, and then AfterInit of those that have it, in order.
// If one fails, those already initialised are shut down in reverse order and the server does not start; the failed one
// has to clean up after itself. When the server ends, it calls BeforeShutdown of those that have it, in reverse order,
// and then Shutdown of all in reverse order, whatever errors there are.
//
// Calls to modules never overlap, except SessionCount. A panic counts as an error. The ctx of a call bounds it: a module
// that has not returned a second after its ctx ended is left behind with an error, and not called again.
type Module interface {
	// Init makes the module ready for use. Its ctx is about the call alone: it may end as soon as Init has returned.
	Init(ctx context.Context) error
	// Shutdown releases what the module holds. It is called once, and only after a successful Init. When ctx ends, it
	// has to give up politeness, not cleanliness.
	Shutdown(ctx context.Context) error
}

// Optional methods of modules, found by assertion.
type (
	afterIniter      interface{ AfterInit() }
	beforeShutdowner interface{ BeforeShutdown() }
)

// A SessionModule is a [Module] with sessions of its own, players in matches for example, for which a server that drains
// has to wait.
type SessionModule interface {
	Module
	// StartDraining is called when the server begins to drain. The module should take in no new sessions.
	StartDraining()
	// SessionCount returns the number of sessions that are left. It is called repeatedly while the server drains,
	// which is over when the largest count among the modules and the server itself is zero. It must not block.
	SessionCount() int
}

// ModuleBase has all methods of a module, none of which does anything. Embed it and write those that are needed.
type ModuleBase struct{}

// Init does nothing.
func (ModuleBase) Init(context.Context) error { return nil }

// AfterInit does nothing.
func (ModuleBase) AfterInit() {}

// BeforeShutdown does nothing.
func (ModuleBase) BeforeShutdown() {}

// Shutdown does nothing.
func (ModuleBase) Shutdown(context.Context) error { return nil }

const (
	// modulePatience is how long a module may go on after its ctx has ended.
	modulePatience = time.Second
	// moduleCleanup bounds the shutdown of those modules that were initialised before another one failed. The ctx of the
	// start cannot do it: that it ended may be why the start failed. Long enough for the grace periods of the modules
	// that come with the library.
	moduleCleanup = 30 * time.Second
)

var errModuleStuck = errors.New("still running after its time")

// modules is the ordered list of the modules of one server.
type modules struct {
	logger *slog.Logger // immutable once started

	mu    sync.Mutex // guards the fields below; never held across a callback
	list  []*moduleEntry
	fixed bool // start was called; list does not change any more
}

// moduleEntry belongs to the goroutine that starts and stops the modules, except for name and module, which are
// immutable.
type moduleEntry struct {
	name   string
	module Module

	inited bool // Init succeeded and Shutdown was not called
	ready  bool // AfterInit has returned and BeforeShutdown was not called
}

func newModules(logger *slog.Logger) *modules {
	return &modules{logger: logger}
}

// setLogger sets where panics are logged. It is called before start.
func (m *modules) setLogger(logger *slog.Logger) { m.logger = logger }

// addAfter adds a module behind those already there.
func (m *modules) addAfter(name string, module Module) error {
	return m.add(name, module, false)
}

// addBefore adds a module in front of those already there.
func (m *modules) addBefore(name string, module Module) error {
	return m.add(name, module, true)
}

func (m *modules) add(name string, module Module, front bool) error {
	switch {
	case name == "":
		return errors.New("pitaya: module without a name")
	case module == nil:
		return fmt.Errorf("pitaya: module %q is nil", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fixed {
		return fmt.Errorf("pitaya: module %q is added to a server that has started", name)
	}
	if m.findLocked(name) != nil {
		return fmt.Errorf("pitaya: there already is a module %q", name)
	}
	at := len(m.list)
	if front {
		at = 0
	}
	m.list = slices.Insert(m.list, at, &moduleEntry{name: name, module: module})
	return nil
}

func (m *modules) findLocked(name string) *moduleEntry {
	i := slices.IndexFunc(m.list, func(e *moduleEntry) bool { return e.name == name })
	if i < 0 {
		return nil
	}
	return m.list[i]
}

// get returns the module of that name. It may be called at any time.
func (m *modules) get(name string) (Module, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.findLocked(name); e != nil {
		return e.module, true
	}
	return nil, false
}

// entries returns the list as it is. Once start was called it stays so.
func (m *modules) entries() []*moduleEntry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

// start initialises all modules, once. When it returns an error, nothing is left to be shut down.
// start, beforeShutdown and shutdown are called one after the other.
func (m *modules) start(ctx context.Context) error {
	m.mu.Lock()
	again := m.fixed
	m.fixed = true
	m.mu.Unlock()
	if again {
		return errors.New("pitaya: modules are started twice")
	}
	err := m.initAll(ctx)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moduleCleanup)
	defer cancel()
	return errors.Join(err, m.beforeShutdown(ctx), m.shutdown(ctx))
}

// errNotStarted says that the start was over before a module's turn came.
var errNotStarted = errors.New("not started")

func (m *modules) initAll(ctx context.Context) error {
	for _, e := range m.entries() {
		if ctx.Err() != nil {
			return fmt.Errorf("pitaya: module %q: %w: %w", e.name, errNotStarted, context.Cause(ctx))
		}
		if err := m.call(ctx, e, "Init", e.module.Init); err != nil {
			return err
		}
		e.inited = true
	}
	for _, e := range m.entries() {
		if a, ok := e.module.(afterIniter); ok {
			if err := m.call(ctx, e, "AfterInit", plainStep(a.AfterInit)); err != nil {
				return err
			}
		}
		e.ready = true
	}
	return nil
}

// beforeShutdown announces the end to the modules that were started, in reverse order. It returns all errors.
func (m *modules) beforeShutdown(ctx context.Context) error {
	var errs []error
	for _, e := range slices.Backward(m.entries()) {
		if !e.ready {
			continue
		}
		e.ready = false
		if b, ok := e.module.(beforeShutdowner); ok {
			errs = append(errs, m.call(ctx, e, "BeforeShutdown", plainStep(b.BeforeShutdown)))
		}
	}
	return errors.Join(errs...)
}

// shutdown ends the modules that were initialised, in reverse order. It returns all errors. Modules get their call also
// if ctx has ended, since most have something to release that takes no time.
func (m *modules) shutdown(ctx context.Context) error {
	var errs []error
	for _, e := range slices.Backward(m.entries()) {
		if !e.inited {
			continue
		}
		e.inited = false
		errs = append(errs, m.call(ctx, e, "Shutdown", e.module.Shutdown))
	}
	return errors.Join(errs...)
}

// startDraining tells the session modules, in reverse order, that the server drains. It returns all errors.
func (m *modules) startDraining(ctx context.Context) error {
	var errs []error
	for _, e := range slices.Backward(m.entries()) {
		if s, ok := e.module.(SessionModule); ok && e.ready {
			errs = append(errs, m.call(ctx, e, "StartDraining", plainStep(s.StartDraining)))
		}
	}
	return errors.Join(errs...)
}

// sessionCount returns the largest number of sessions that a module still has.
func (m *modules) sessionCount() int {
	n := 0
	for _, e := range m.entries() {
		if s, ok := e.module.(SessionModule); ok && e.ready {
			n = max(n, m.sessionCountOf(e.name, s))
		}
	}
	return n
}

// sessionCountOf counts none for a module that panics: draining must not wait for it until its end.
func (m *modules) sessionCountOf(name string, s SessionModule) (n int) {
	defer func() {
		if v := recover(); v != nil {
			m.logPanic(name, "SessionCount", v)
			n = 0
		}
	}()
	return s.SessionCount()
}

func plainStep(f func()) func(context.Context) error {
	return func(context.Context) error {
		f()
		return nil
	}
}

// call makes one call to a module, in a goroutine of its own so that it can be left behind.
func (m *modules) call(ctx context.Context, e *moduleEntry, step string, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("it ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				m.logPanic(e.name, step, v)
				err = fmt.Errorf("panic: %v", v)
			}
			done <- err
		}()
		err = f(ctx)
	}()

	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		patience := time.NewTimer(modulePatience)
		defer patience.Stop()
		select {
		case err = <-done:
		case <-patience.C:
			err = fmt.Errorf("%w: %w", errModuleStuck, context.Cause(ctx))
			e.inited, e.ready = false, false
		}
	}
	if err != nil {
		return fmt.Errorf("pitaya: module %q: %s: %w", e.name, step, err)
	}
	return nil
}

func (m *modules) logPanic(name, step string, v any) {
	m.logger.Error("module panicked", "module", name, "step", step, "panic", v, "stack", string(debug.Stack()))
}
