package pitaya

import (
	"context"
	"log/slog"
	"slices"
)

// LoggerFromContext returns a logger whose records carry the session, the route
// and the request id (see [GetFromPropagateCtx]) of the message that is being
// handled, or the latter two of the remote that is being called, and the id of
// its trace if there is one; elsewhere, [slog.Default]. [LogHandler] gives the
// same to records that are made with another logger.
func LoggerFromContext(ctx context.Context) *slog.Logger {
	c := callFromContext(ctx)
	if c == nil {
		return slog.Default()
	}
	return slog.New(&callLogs{base: c.Log.Handler().WithAttrs(c.attributes()), said: true})
}

// LogHandler returns a handler that gives records made with the context of a
// handler or remote what they are about, and passes all on to inner. So with
//
//	slog.SetDefault(slog.New(pitaya.LogHandler(slog.NewJSONHandler(os.Stderr, nil))))
//
// a plain slog.InfoContext(ctx, …) can be found by the request that it belongs
// to, on all servers that this leads to. The attributes stand before those of
// the logger, outside of its groups:
//
//	session   id and uid, as [Session] logs itself; not in a remote
//	route     the full route
//	request   the request's id, the same on all servers that it leads to
//	trace     the id of the trace, if the server has a Tracer or the caller had one
//
// It looks at the context of a record, so it is of no use to slog.Info, which
// has none. What a message contains is in none of them.
func LogHandler(inner slog.Handler) slog.Handler { return &callLogs{base: inner} }

// attributes are what log records say of a call.
func (c *callContext) attributes() []slog.Attr {
	attrs := make([]slog.Attr, 0, 4)
	if c.Session != nil {
		attrs = append(attrs, slog.Any("session", c.Session))
	}
	attrs = append(attrs, slog.String("route", c.Route), slog.String("request", c.RequestID()))
	if id := c.traceID(); id != "" {
		attrs = append(attrs, slog.String("trace", id))
	}
	return attrs
}

// traceID returns the id of the call's trace: that of its span, or, on a server
// without a Tracer, what the caller has sent along.
func (c *callContext) traceID() string {
	if id := spanOf(c.Context).traceID(); id != "" {
		return id
	}
	if text, ok := c.In.carrier()[traceParentKey]; ok {
		if p, err := ParseTraceParent(text); err == nil {
			return p.traceID()
		}
	}
	return ""
}

// callLogs is a [slog.Handler] that adds the attributes of the call in whose
// context a record is made.
type callLogs struct {
	base slog.Handler                      // as it was given
	with []func(slog.Handler) slog.Handler // what WithAttrs and WithGroup have asked for since
	all  slog.Handler                      // base with all of that; nil if it is none
	said bool                              // base says already what the record is about
}

// saidKey marks the context of records that carry the attributes already: a
// handler below that is of this kind too must not say them twice.
type saidKey struct{}

// inner returns the handler for records that get nothing added.
func (h *callLogs) inner() slog.Handler {
	if h.all != nil {
		return h.all
	}
	return h.base
}

// Enabled implements [slog.Handler].
func (h *callLogs) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner().Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *callLogs) Handle(ctx context.Context, r slog.Record) error {
	if h.said {
		return h.inner().Handle(context.WithValue(ctx, saidKey{}, true), r)
	}
	c := callFromContext(ctx)
	if c == nil || ctx.Value(saidKey{}) != nil {
		return h.inner().Handle(ctx, r)
	}
	inner := h.base.WithAttrs(c.attributes())
	for _, f := range h.with {
		inner = f(inner)
	}
	return inner.Handle(context.WithValue(ctx, saidKey{}, true), r)
}

// add returns a handler with one thing more.
func (h *callLogs) add(f func(slog.Handler) slog.Handler) *callLogs {
	more := &callLogs{base: h.base, all: f(h.inner()), said: h.said}
	if !h.said { // else they are never done again
		more.with = append(slices.Clip(h.with), f)
	}
	return more
}

// WithAttrs implements [slog.Handler].
func (h *callLogs) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.add(func(inner slog.Handler) slog.Handler { return inner.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h *callLogs) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.add(func(inner slog.Handler) slog.Handler { return inner.WithGroup(name) })
}
