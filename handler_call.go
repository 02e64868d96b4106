package pitaya

import (
	"context"
	"reflect"
	"sync"
)

// methodCall returns a function that calls a method of recv: one that takes a
// context and perhaps an argument, and returns a result and an error, or
// nothing.
//
// Package reflect looks, at each call, whether an argument that was made of a
// concrete value implements the parameter's interface, and finds the method
// behind a method value; both take longer than the call. So the context is handed
// over as an interface, and the receiver as an argument, out of a frame that is
// used again.
func methodCall(recv reflect.Value, m reflect.Method) func(ctx context.Context, in any) (any, error) {
	if f, ok := recv.Method(m.Index).Interface().(func(context.Context, []byte) ([]byte, error)); ok {
		return rawCall(f)
	}
	hasArg := m.Type.NumIn() > 2
	none := reflect.Value{}
	if hasArg {
		none = reflect.Zero(m.Type.In(2))
	}
	frames := sync.Pool{New: func() any {
		f := new(callFrame)
		f.args[0] = recv
		f.args[1] = reflect.ValueOf(&f.ctx).Elem()
		return f
	}}
	return func(ctx context.Context, in any) (any, error) {
		f := frames.Get().(*callFrame)
		f.ctx = ctx
		args := f.args[:2]
		if hasArg {
			f.args[2] = none
			if in != nil {
				f.args[2] = reflect.ValueOf(in)
			}
			args = f.args[:3]
		}
		out := m.Func.Call(args)
		// Not after a panic: such frames are left to the garbage collector.
		f.ctx, f.args[2] = nil, reflect.Value{}
		frames.Put(f)
		if len(out) == 0 {
			return nil, nil
		}
		var err error
		if !out[1].IsNil() {
			err, _ = out[1].Interface().(error)
		}
		if out[0].IsNil() {
			return nil, err
		}
		return out[0].Interface(), err
	}
}

// A callFrame is what a method is called with.
type callFrame struct {
	ctx  context.Context
	args [3]reflect.Value // receiver; ctx, as an interface; the argument
}

// rawFunc is a handler whose argument and result are bytes.
type rawFunc = func(ctx context.Context, in []byte) ([]byte, error)

// rawCall returns a function that calls f, whose argument and result are bytes.
func rawCall(f func(ctx context.Context, in []byte) ([]byte, error)) func(ctx context.Context, in any) (any, error) {
	return func(ctx context.Context, in any) (any, error) {
		b, _ := in.([]byte)
		out, err := f(ctx, b)
		if out == nil {
			return nil, err
		}
		return out, err
	}
}
