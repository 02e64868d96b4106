package pitaya

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// callContext is the context of one call of a handler or remote: that of the
// session or of the call from another server, perhaps with the route's time
// limit, and what the call is about. It is one value, so
// that a call costs one allocation however much is asked of its context.
type callContext struct {
	context.Context
	Session *Session // nil in a remote
	Route   string   // full
	Text    string   // the route as it was received; may be empty if it is Route
	Log     *slog.Logger
	Start   time.Time   // when the client's message arrived at its frontend, or the call here
	In      *propagated // what another server sent along; nil for a message of an own client

	name atomic.Pointer[string]            // made by RequestID; nil before
	tags atomic.Pointer[map[string]string] // set by TagMetrics; nil: those that came along. Never written to.
}

// RequestID returns the text by which the call can be found in the logs of all
// servers that it leads to: that which came along, or one that is made when it
// is first asked for.
func (c *callContext) RequestID() string {
	if name := c.name.Load(); name != nil {
		return *name
	}
	name := c.In.requestID()
	if span := spanOf(c.Context); name == "" && span != nil {
		name = span.RequestID
	}
	if name == "" {
		name = newRequestID()
	}
	if !c.name.CompareAndSwap(nil, &name) {
		return *c.name.Load() // somebody else was first
	}
	return name
}

// TagMetrics says what the call is to be reported with, instead of what came
// along.
func (c *callContext) TagMetrics(tags map[string]string) { c.tags.Store(&tags) }

// MetricTags returns what the call is to be reported with. It must not be
// changed.
func (c *callContext) MetricTags() map[string]string {
	if tags := c.tags.Load(); tags != nil {
		return *tags
	}
	return c.In.tags()
}

// callKey is the key under which a callContext gives itself.
type callKey struct{}

func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// AfterFunc lets package context derive from this one as it would from the inner
// one, which may spare a goroutine.
func (c *callContext) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.Context, f) }

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
