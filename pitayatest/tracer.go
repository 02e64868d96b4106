package pitayatest

import (
	"context"
	"encoding/hex"
	"slices"
	"sync"

	"github.com/pitaya-go/pitaya"
)

// A Tracer is a [pitaya.Tracer] that keeps the spans in memory, for tests that want to see them. It understands the
// three keys of the W3C. The zero value is ready; all servers of a test may share one, and all methods may be called
// from any goroutine.
type Tracer struct {
	mu    sync.Mutex // guards the fields below
	open  int
	ended []Span
}

// A Span is one span as a [Tracer] has kept it.
type Span struct {
	Name       string
	Kind       pitaya.SpanKind
	TraceID    string // hexadecimal
	ID         string // hexadecimal
	Parent     string // ID of the parent; "" of the first span of a trace
	Attributes map[string]string
	Err        error // what the span was ended with
}

// Spans returns the spans that have ended, in the order of their ends.
func (t *Tracer) Spans() []Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.ended)
}

// Open returns how many spans have begun and not ended. Once the servers have ended it is 0.
func (t *Tracer) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// traced is what a context carries: a span of this process or of another, and what travels beside it.
type traced struct {
	parent         pitaya.TraceParent
	state, baggage string
}

type tracedKey struct{}

func tracedFrom(ctx context.Context) traced {
	tr, _ := ctx.Value(tracedKey{}).(traced)
	return tr
}

// Start implements [pitaya.Tracer].
func (t *Tracer) Start(ctx context.Context, name string, kind pitaya.SpanKind, attributes ...pitaya.Label) (context.Context, pitaya.Span) {
	tr := tracedFrom(ctx)
	s := &memSpan{tracer: t, Span: Span{Name: name, Kind: kind, Attributes: make(map[string]string)}}
	if tr.parent != (pitaya.TraceParent{}) {
		s.Parent = hex.EncodeToString(tr.parent.SpanID[:])
	}
	for _, a := range attributes {
		s.Attributes[a.Name] = a.Value
	}
	tr.parent = tr.parent.Child()
	s.Span.TraceID, s.ID = hex.EncodeToString(tr.parent.TraceID[:]), hex.EncodeToString(tr.parent.SpanID[:])
	t.mu.Lock()
	t.open++
	t.mu.Unlock()
	return context.WithValue(ctx, tracedKey{}, tr), s
}

// Inject implements [pitaya.Tracer].
func (t *Tracer) Inject(ctx context.Context, carrier map[string]string) {
	tr := tracedFrom(ctx)
	for key, value := range map[string]string{"traceparent": tr.parent.String(), "tracestate": tr.state, "baggage": tr.baggage} {
		if value != "" {
			carrier[key] = value
		}
	}
}

// Extract implements [pitaya.Tracer].
func (t *Tracer) Extract(ctx context.Context, carrier map[string]string) context.Context {
	tr := tracedFrom(ctx)
	if p, err := pitaya.ParseTraceParent(carrier["traceparent"]); err == nil {
		tr.parent, tr.state = p, carrier["tracestate"]
	}
	tr.baggage = carrier["baggage"]
	return context.WithValue(ctx, tracedKey{}, tr)
}

// memSpan is a span that has begun.
type memSpan struct {
	tracer *Tracer
	Span   // only End writes to it
}

func (s *memSpan) TraceID() string { return s.Span.TraceID }

func (s *memSpan) End(err error) {
	s.tracer.mu.Lock()
	defer s.tracer.mu.Unlock()
	s.tracer.open--
	ended := s.Span
	ended.Err = err
	s.tracer.ended = append(s.tracer.ended, ended)
}
