package pitaya

import "context"

// A BeforeFunc runs before each handler, with its context and its decoded
// argument: a pointer for a typed handler, a []byte for a raw one, nil for one
// without argument. It returns what the next one, and at last the handler, is
// to get. With an error neither the handler nor any after function runs, and
// the client gets the error.
type BeforeFunc func(ctx context.Context, in any) (context.Context, any, error)

// An AfterFunc runs after each handler, with its result and error, and returns
// what the next one, and at last the client, is to get. It can repair or
// replace an error.
type AfterFunc func(ctx context.Context, out any, err error) (any, error)

// pipeline is what runs around handlers. Immutable while the server runs.
type pipeline struct {
	Before []BeforeFunc
	After  []AfterFunc
}

// validator is honoured on requests when Config.ValidateRequests is set.
type validator interface {
	Validate() error
}

// before runs the functions before a handler.
func (p *pipeline) before(ctx context.Context, in any) (context.Context, any, error) {
	var err error
	for _, f := range p.Before {
		if ctx, in, err = f(ctx, in); err != nil {
			return ctx, in, err
		}
		if ctx == nil {
			return nil, nil, Errorf(CodeInternal, "a function before the handler returned no context")
		}
	}
	return ctx, in, nil
}

// after runs the functions after a handler.
func (p *pipeline) after(ctx context.Context, out any, err error) (any, error) {
	for _, f := range p.After {
		out, err = f(ctx, out, err)
	}
	return out, err
}
