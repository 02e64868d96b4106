package pitaya

import (
	"errors"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// remoteSys is the service of the library's own remotes.
const remoteSys = "sys"

// protoType is a function, since the linker keeps much of the library of protobuf in
// programs in which a package variable has that type.
func protoType() reflect.Type { return reflect.TypeFor[proto.Message]() }

// registerRemote checks the remotes of a component, and adds it to those whose
// lifecycle methods run. All mistakes are reported, and nothing is added if
// there is one.
func (r *registry) registerRemote(value any, opts []RegisterOption) error {
	var o registration
	for _, opt := range opts {
		opt(&o)
	}
	s, err := o.examine(value, "remote", r.remotes, remoteOf)
	if err != nil {
		return err
	}
	if s.Name == remoteSys {
		s.mistake("the service name %q is taken by the library", s.Name)
	}
	if len(s.errs) > 0 {
		return errors.Join(s.errs...)
	}
	r.remotes[s.Name] = true
	for method, e := range s.Methods {
		e.apply(&o)
		r.remoteMethods[s.Name+"."+method] = e
	}
	if !r.components.has(value) {
		r.remote.add(s.Name, value)
	}
	return nil
}

// remoteRegistry returns the remotes as the handlers of a registry, by their
// short routes. Their full ones begin with the server type.
func (r *registry) remoteRegistry() *registry {
	remotes := newRegistry()
	remotes.serverType = r.serverType
	for short, e := range r.remoteMethods {
		e.Route = r.serverType + "." + short
		remotes.Entries[short] = e
	}
	return remotes
}

// allRemotes returns the remotes by their full routes. It changes nothing, since
// they may be in use.
func (r *registry) allRemotes() map[string]*handlerEntry {
	all := make(map[string]*handlerEntry, len(r.remoteMethods))
	for short, e := range r.remoteMethods {
		all[r.serverType+"."+short] = e
	}
	return all
}

// remoteOf looks at a method's shape (API document, section 2.4) as handlerOf
// does. Handlers that are no remotes have no reason: a component may have both.
func remoteOf(v reflect.Value, m reflect.Method) (e *handlerEntry, reason string) {
	e, reason = handlerOf(v, m)
	switch {
	case e == nil:
		return nil, reason
	case e.Notify || !m.Type.Out(0).Implements(protoType()):
		return nil, ""
	case e.Arg == argRaw || e.Arg == argTyped && !m.Type.In(2).Implements(protoType()):
		return nil, ""
	}
	return e, ""
}
