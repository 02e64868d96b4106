package pitaya

import "errors"

// Base has the four lifecycle methods of a component, empty. Handler structs
// may embed it and define those that they need.
//
// Init of all components runs in the order of registration when the server
// starts, then AfterInit of all; at the end BeforeShutdown and then Shutdown of
// all, in reverse order.
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

// start runs the components up.
func (r *registry) start(h *sessionHost) error { return r.components.start(h) }

// shutdown runs the components down.
func (r *registry) shutdown(h *sessionHost) error { return r.components.shutdown(h) }

// lifecycle calls one lifecycle method.
func (h *sessionHost) lifecycle(c component, method string, f func()) error {
	return h.guard(method+" of component "+c.Name, func() error {
		f()
		return nil
	})
}
