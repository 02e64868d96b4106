package pitaya

import (
	"errors"
	"maps"
	"reflect"
	"slices"
)

// Base has the four lifecycle methods of a component, empty. Handler structs
// may embed it and define those that they need; they need not embed it.
//
// Init of all components runs in the order of registration when the server
// starts, then AfterInit of all; at the end BeforeShutdown and then Shutdown of
// all, in reverse order. Components with handlers come first and those that have
// only remotes follow, at the start as at the end. A pointer that is registered
// more than once has one life.
type Base struct{}

func (*Base) Init()           {} // runs first
func (*Base) AfterInit()      {} // runs when Init of all components has run
func (*Base) BeforeShutdown() {} // runs when the server ends and all sessions are closed
func (*Base) Shutdown()       {} // runs last

// component is a registered handler struct, for its lifecycle.
type component struct {
	Name  string
	Value any
}

// components are the registered handler structs of a server.
type components struct {
	list  []component
	begun int // how many had their Init called
}

// add adds a component at the end, unless it is in the list already.
func (cs *components) add(name string, value any) {
	if !cs.has(value) {
		cs.list = append(cs.list, component{Name: name, Value: value})
	}
}

func (cs *components) has(value any) bool {
	return slices.ContainsFunc(cs.list, func(c component) bool { return c.is(value) })
}

func (cs *components) remove(value any) {
	cs.list = slices.DeleteFunc(cs.list, func(c component) bool { return c.is(value) })
}

// is reports whether the component is the given one. That can only be told of
// pointers, and not of those to empty structs, which may all be equal.
func (c component) is(value any) bool {
	v := reflect.ValueOf(value)
	return v.Kind() == reflect.Pointer && v.Type().Elem().Size() > 0 && c.Value == value
}

// The lifecycle methods that a component may have; [Base] has them all.
type (
	componentIniter         interface{ Init() }
	componentAfterIniter    interface{ AfterInit() }
	componentBeforeShutdown interface{ BeforeShutdown() }
	componentShutdowner     interface{ Shutdown() }
)

// start calls Init and then AfterInit of all.
func (cs *components) start(h *sessionHost) error {
	for _, c := range cs.list {
		cs.begun++
		if v, ok := c.Value.(componentIniter); ok {
			if err := h.lifecycle(c, "Init", v.Init); err != nil {
				return err
			}
		}
	}
	for _, c := range cs.list {
		if v, ok := c.Value.(componentAfterIniter); ok {
			if err := h.lifecycle(c, "AfterInit", v.AfterInit); err != nil {
				return err
			}
		}
	}
	return nil
}

// shutdown calls BeforeShutdown and then Shutdown of those whose Init was
// called, in reverse order.
func (cs *components) shutdown(h *sessionHost) error {
	var errs []error
	for i := cs.begun - 1; i >= 0; i-- {
		if v, ok := cs.list[i].Value.(componentBeforeShutdown); ok {
			errs = append(errs, h.lifecycle(cs.list[i], "BeforeShutdown", v.BeforeShutdown))
		}
	}
	for i := cs.begun - 1; i >= 0; i-- {
		if v, ok := cs.list[i].Value.(componentShutdowner); ok {
			errs = append(errs, h.lifecycle(cs.list[i], "Shutdown", v.Shutdown))
		}
	}
	cs.begun = 0
	return errors.Join(errs...)
}

// start starts the components, those with handlers first.
func (r *registry) start(h *sessionHost, inCluster bool) error {
	if err := r.components.start(h); err != nil {
		return err
	}
	if len(r.remotes) > 0 && !inCluster {
		h.Log.Warn("remotes are not served: the server is in no cluster", "services", slices.Sorted(maps.Keys(r.remotes)))
	}
	return r.remote.start(h)
}

// shutdown ends the components that start has begun with.
func (r *registry) shutdown(h *sessionHost) error {
	return errors.Join(r.components.shutdown(h), r.remote.shutdown(h))
}

// lifecycle calls one lifecycle method. A panic is an error that tells what
// happened: it is for Run to return, not for clients.
func (h *sessionHost) lifecycle(c component, method string, f func()) error {
	err := h.guard(method+" of component "+c.Name, func() error {
		f()
		return nil
	})
	return errors.Unwrap(err)
}
