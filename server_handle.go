package pitaya

import (
	"context"
	"reflect"
)

// Handle registers one function as the handler of requests on a route of the
// form service.method. The compiler checks what [Server.Register] finds out by
// reflection; both kinds of handlers behave the same.
func Handle[In, Out any](s *Server, route string, f func(ctx context.Context, in *In) (*Out, error), opts ...RegisterOption) error {
	e := typedEntry(func(ctx context.Context, in *In) (any, error) {
		out, err := f(ctx, in)
		if out == nil {
			return nil, err
		}
		return out, err
	})
	e.Out = reflect.TypeFor[*Out]()
	return s.addHandler(route, e, opts)
}

// HandleNotify registers one function as the handler of notifies on a route of
// the form service.method.
func HandleNotify[In any](s *Server, route string, f func(ctx context.Context, in *In), opts ...RegisterOption) error {
	e := typedEntry(func(ctx context.Context, in *In) (any, error) {
		f(ctx, in)
		return nil, nil
	})
	e.Notify = true
	return s.addHandler(route, e, opts)
}

// HandleRaw registers one function as the handler of requests on a route of the
// form service.method. It gets and returns payloads as they are on the wire.
func HandleRaw(s *Server, route string, f func(ctx context.Context, in []byte) ([]byte, error), opts ...RegisterOption) error {
	return s.addHandler(route, &handlerEntry{
		Arg:   argRaw,
		In:    bytesType,
		Out:   bytesType,
		Call:  rawCall(f),
		Raw:   f,
		Check: func(in any) bool { _, ok := in.([]byte); return ok },
	}, opts)
}
