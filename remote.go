package pitaya

import (
	"errors"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// remoteSys is the service that frontends forward client messages to.
const remoteSys = "sys"

var protoType = reflect.TypeFor[proto.Message]()

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
	if !r.components.has(value) {
		r.remote.add(s.Name, value)
	}
	return nil
}

// remoteOf looks at a method's shape (API document, section 2.4) as handlerOf
// does. Handlers that are no remotes have no reason: a component may have both.
func remoteOf(v reflect.Value, m reflect.Method) (e *handlerEntry, reason string) {
	e, reason = handlerOf(v, m)
	switch {
	case e == nil:
		return nil, reason
	case e.Notify || !m.Type.Out(0).Implements(protoType):
		return nil, ""
	case e.Arg == argRaw || e.Arg == argTyped && !m.Type.In(2).Implements(protoType):
		return nil, ""
	}
	return e, ""
}
