package pitaya

import (
	"context"
	"log/slog"
	"maps"
	"sync"
)

// callContext is the context of one handler call: that of the session, or one
// with the route's time limit, and what the call is about. It is one value, so
// that a call costs one allocation however much is asked of its context.
type callContext struct {
	context.Context
	Session *Session
	Route   string // full
	Log     *slog.Logger

	naming sync.Once
	name   string // made by RequestID
}

// RequestID returns the text by which the call can be found in the logs of all
// servers that it leads to. It is made when it is first asked for.
func (c *callContext) RequestID() string {
	c.naming.Do(func() { c.name = newRequestID() })
	return c.name
}

// callKey is the key under which a callContext gives itself.
type callKey struct{}

func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func callFromContext(ctx context.Context) *callContext {
	c, _ := ctx.Value(callKey{}).(*callContext)
	return c
}

// SessionFromContext returns the session whose message is being handled, nil if
// ctx does not come from a handler.
func SessionFromContext(ctx context.Context) *Session {
	if c := callFromContext(ctx); c != nil {
		return c.Session
	}
	return nil
}

// RouteFromContext returns the full route of the message that is being handled,
// "" if ctx does not come from a handler.
func RouteFromContext(ctx context.Context) string {
	if c := callFromContext(ctx); c != nil {
		return c.Route
	}
	return ""
}

// LoggerFromContext returns a logger whose records carry the session, the route
// and the request id (see [GetFromPropagateCtx]) of the message that is being handled; outside of a
// handler, [slog.Default].
func LoggerFromContext(ctx context.Context) *slog.Logger {
	c := callFromContext(ctx)
	if c == nil {
		return slog.Default()
	}
	return c.Log.With("session", c.Session, "route", c.Route, "request", c.RequestID())
}

// propagateKey is the key of the values that travel with RPCs.
type propagateKey struct{}

// AddToPropagateCtx returns a context that carries value under key to the
// servers that RPCs made with it go to, and to those that they call in turn.
// The value must be one that JSON can express; numbers arrive as float64. The
// values of ctx itself stay as they are.
func AddToPropagateCtx(ctx context.Context, key string, value any) context.Context {
	old, _ := ctx.Value(propagateKey{}).(map[string]any)
	values := make(map[string]any, len(old)+1)
	maps.Copy(values, old)
	values[key] = value
	return context.WithValue(ctx, propagateKey{}, values)
}

// Keys of the values that the library itself propagates (cluster protocol,
// section 4).
const (
	propagatedID    = "request.id"
	propagatedRoute = "req-route"
)

// GetFromPropagateCtx returns the value that [AddToPropagateCtx] stored under
// key, here or on a server that called this one; nil if there is none. In a
// handler "request.id" is a text that tells the request from all others, and
// "req-route" its route.
func GetFromPropagateCtx(ctx context.Context, key string) any {
	values, _ := ctx.Value(propagateKey{}).(map[string]any)
	if v, ok := values[key]; ok {
		return v
	}
	if c := callFromContext(ctx); c != nil {
		switch key {
		case propagatedID:
			return c.RequestID()
		case propagatedRoute:
			return c.Route
		}
	}
	return nil
}
