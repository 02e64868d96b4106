package pitaya

import (
	"context"
	"sync/atomic"
)

// A SpanKind says on which side of a message a span is. Its text is that of the
// attribute span.kind.
type SpanKind string

const (
	SpanServer     SpanKind = "server"     // handles a message of a client, or a call from another server
	SpanClient     SpanKind = "client"     // calls another server
	SpanConnection SpanKind = "connection" // writes an answer to a client
)

// Names of the spans that a server makes. The others have the route of the
// message as their name: as the client wrote it on a frontend, as the caller did
// on a server that is called.
const (
	spanNATSCall  = "NATS RPC Call"
	spanGRPCCall  = "GRPC RPC Call"
	spanCall      = "RPC Call" // in memory, and over transports of others
	spanConnWrite = "conn write"
	spanEnqueue   = "job enqueue"
)

// A Tracer makes the spans of a server: what OpenTelemetry and its like show of a
// request on its way through clients, frontends and backends. Config.Tracer nil
// means that there are none, and costs nothing. examples/tracing has one for
// OpenTelemetry, examples/cluster a short one that writes lines. Implementations
// should pass pitayatest.TestTracer.
//
// These are the spans, with their attributes; all values are texts:
//
//	route           a client's message on its frontend, until its answer is written
//	                local.id, span.kind, msg.type, user.id, request.id
//	conn write      the writing of the answer; child of the former
//	                span.kind, addr
//	NATS RPC Call   a call of another server, until its answer is here; also GRPC RPC Call, and RPC Call elsewhere
//	                local.id, span.kind, peer.serverType, peer.id
//	route           a call from another server, until it is answered; child of the caller's
//	                local.id, span.kind, peer.id, peer.service, request.id
//	job enqueue     a reliable RPC, until it is in the queue
//	                local.id, span.kind, job.id, job.route
//	route           one run of a job by a worker; child of the former, on another server as a rule
//	                local.id, span.kind, job.id, job.failures, request.id
//
// The names are what clients and servers write as routes: there is no bound on
// how many there are. Payloads are in no attribute, and the server that cannot
// decode an argument does not quote it in the error of the span.
//
// The methods are called from many goroutines, on the path of messages: they
// must be quick, must not block and must not call the server. A panic of one is
// recovered, and logged once a second; the span is then missing. A Tracer that exports must
// not wait for that in these methods. It belongs to the program, which flushes
// it once [Server.Run] has returned: all spans have ended by then, and the
// library cannot know when the last server that uses it is done.
type Tracer interface {
	// Start begins a span. Its parent is the span that ctx carries, be it from
	// Start or from Extract; without one, it is the first of a new trace. The
	// context that it returns carries the new span and all values of ctx; only
	// values are taken from it, not its end. attributes may be kept only as a
	// copy.
	Start(ctx context.Context, name string, kind SpanKind, attributes ...Label) (context.Context, Span)

	// Inject writes the span that ctx carries into carrier, in the form in which
	// other servers read it: the keys of the W3C, traceparent, tracestate and
	// baggage, for others to understand. Without a span it need not write
	// anything. What came in as tracestate and baggage goes out again, and
	// whether the trace is sampled.
	Inject(ctx context.Context, carrier map[string]string)

	// Extract returns a context that carries what another server has injected,
	// and all values of ctx. What it does not understand, or what is malformed,
	// it ignores: the carrier is what came over the network.
	Extract(ctx context.Context, carrier map[string]string) context.Context
}

// A Span is one of a Tracer's. Its methods may be called from any goroutine.
type Span interface {
	// TraceID returns the id by which the trace is found, as log records show
	// it, also after End; "" if it has none.
	TraceID() string
	// End ends the span. It is called once. The error is why what the span is
	// about has failed, nil if it has not; its code is that of [ErrorCode].
	// Children of the span may end later.
	End(err error)
}

// spans makes the spans of one server and guards it against its Tracer. A nil
// one makes none.
type spans struct {
	Tracer   Tracer
	Local    string      // id of the server
	Panicked func(v any) // is told what the Tracer panicked with
}

// A spanContext is a context that carries a span: its values are those that the
// Tracer has returned, and its end is that of the context it was made from. A nil
// one is no span.
type spanContext struct {
	context.Context
	RequestID string // of the message that the span is about, "" for others

	values context.Context
	span   Span // nil if the Tracer has failed
	spans  *spans
	ended  atomic.Bool
}

// spanKey is the key under which a spanContext gives itself.
type spanKey struct{}

// spanOf returns the innermost span that ctx carries, or nil.
func spanOf(ctx context.Context) *spanContext {
	c, _ := ctx.Value(spanKey{}).(*spanContext)
	return c
}

// Value implements context.Context.
func (c *spanContext) Value(key any) any {
	if key == (spanKey{}) {
		return c
	}
	return c.values.Value(key)
}

// AfterFunc lets package context derive from this one as it would from the inner
// one, which may spare a goroutine.
func (c *spanContext) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.Context, f) }

// on returns the same span in a context that ends as ctx does. Of a nil one it
// returns ctx.
func (c *spanContext) on(ctx context.Context) context.Context {
	if c == nil {
		return ctx
	}
	return &spanContext{Context: ctx, RequestID: c.RequestID, values: c.values, span: c.span, spans: c.spans}
}

// start begins a span below that of ctx.
func (s *spans) start(ctx context.Context, name string, kind SpanKind, attributes ...Label) *spanContext {
	return s.startAfter(ctx, nil, name, kind, attributes...)
}

// startAfter is start for what another server has begun. A nil carrier is none.
// Attributes that all spans have are added.
func (s *spans) startAfter(ctx context.Context, carrier map[string]string, name string, kind SpanKind, more ...Label) *spanContext {
	c := &spanContext{Context: ctx, values: ctx, spans: s}
	attributes := make([]Label, 0, 2+len(more))
	if kind != SpanConnection {
		attributes = append(attributes, Label{"local.id", s.Local})
	}
	attributes = append(attributes, Label{"span.kind", string(kind)})
	// Routes and ids can come from outside. One of them that is no UTF-8 could
	// cost an exporter all the spans that are sent with it.
	for _, a := range more {
		attributes = append(attributes, Label{a.Name, validText(a.Value)})
	}
	s.guard(func() {
		if len(carrier) > 0 {
			ctx = s.Tracer.Extract(ctx, carrier)
		}
		values, span := s.Tracer.Start(ctx, validText(name), kind, attributes...)
		if values != nil {
			c.values = values
		}
		c.span = span
	})
	return c
}

// guard calls the Tracer.
func (s *spans) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			s.Panicked(v)
		}
	}()
	f()
}

// inject returns what is to travel with a call made with ctx, nil if that is
// nothing.
func (s *spans) inject(ctx context.Context) map[string]string {
	if s == nil {
		return nil
	}
	carrier := make(map[string]string)
	s.guard(func() { s.Tracer.Inject(ctx, carrier) })
	return boundCarrier(carrier)
}

// end ends the span, the first time it is called.
func (c *spanContext) end(err error) {
	if c != nil && c.span != nil && !c.ended.Swap(true) {
		c.spans.guard(func() { c.span.End(err) })
	}
}

// traceID returns the id of the span's trace, "" if there is none.
func (c *spanContext) traceID() (id string) {
	if c != nil && c.span != nil {
		c.spans.guard(func() { id = c.span.TraceID() })
	}
	return id
}

const (
	// maxCarrierValue bounds a value of a trace's context. Baggage may have 8 KiB,
	// says the W3C; nothing else is as long.
	maxCarrierValue = 8 << 10
	// maxCarrierKeys bounds the keys. The W3C has three, other formats up to six.
	maxCarrierKeys = 16
	// maxCarrierKey bounds a key.
	maxCarrierKey = 256
)

// boundCarrier takes out of a trace's context what is too long to be one, and
// returns nil if nothing is left, or if it has too many keys.
func boundCarrier(carrier map[string]string) map[string]string {
	for key, value := range carrier {
		if len(key) > maxCarrierKey || len(value) > maxCarrierValue {
			delete(carrier, key)
		}
	}
	if len(carrier) == 0 || len(carrier) > maxCarrierKeys {
		return nil
	}
	return carrier
}
