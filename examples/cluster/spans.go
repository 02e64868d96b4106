package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A spanWriter is a Tracer that writes each span that ends as a line of JSON. It shows what a Tracer has to do; one for
// OpenTelemetry is in examples/tracing.
type spanWriter struct {
	mu  sync.Mutex // guards the fields below
	out *bufio.Writer
	err error // why the first line that was not written was not
}

func newSpanWriter(w io.Writer) *spanWriter { return &spanWriter{out: bufio.NewWriter(w)} }

// Close writes what is left, once all servers have ended.
func (t *spanWriter) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.err, t.out.Flush())
}

// A spanLine is a span, and the line that it becomes.
type spanLine struct {
	tracer *spanWriter

	Time       time.Time         `json:"time"` // of its begin
	Took       float64           `json:"took"` // seconds
	Name       string            `json:"name"`
	Kind       pitaya.SpanKind   `json:"kind"`
	Trace      string            `json:"trace"`
	ID         string            `json:"id"`
	Parent     string            `json:"parent,omitempty"`
	Attributes map[string]string `json:"attributes"`
	Error      string            `json:"error,omitempty"`
	Code       string            `json:"code,omitempty"`
}

// carried is what a context carries: the span, and what others want to travel with its trace.
type carried struct {
	span           pitaya.TraceParent
	state, baggage string
}

type carriedKey struct{}

// Start implements [pitaya.Tracer].
func (t *spanWriter) Start(ctx context.Context, name string, kind pitaya.SpanKind, attributes ...pitaya.Label) (context.Context, pitaya.Span) {
	c, _ := ctx.Value(carriedKey{}).(carried)
	s := &spanLine{tracer: t, Time: time.Now(), Name: name, Kind: kind, Attributes: make(map[string]string)}
	if c.span != (pitaya.TraceParent{}) {
		s.Parent = hex.EncodeToString(c.span.SpanID[:])
	}
	c.span = c.span.Child()
	s.Trace, s.ID = hex.EncodeToString(c.span.TraceID[:]), hex.EncodeToString(c.span.SpanID[:])
	for _, a := range attributes {
		s.Attributes[a.Name] = a.Value
	}
	return context.WithValue(ctx, carriedKey{}, c), s
}

// Inject implements [pitaya.Tracer].
func (t *spanWriter) Inject(ctx context.Context, carrier map[string]string) {
	c, _ := ctx.Value(carriedKey{}).(carried)
	for key, value := range map[string]string{"traceparent": c.span.String(), "tracestate": c.state, "baggage": c.baggage} {
		if value != "" {
			carrier[key] = value
		}
	}
}

// Extract implements [pitaya.Tracer].
func (t *spanWriter) Extract(ctx context.Context, carrier map[string]string) context.Context {
	span, err := pitaya.ParseTraceParent(carrier["traceparent"])
	if err != nil {
		return ctx // not a trace; this one begins its own
	}
	return context.WithValue(ctx, carriedKey{}, carried{span, carrier["tracestate"], carrier["baggage"]})
}

// TraceID implements [pitaya.Span].
func (s *spanLine) TraceID() string { return s.Trace }

// End implements [pitaya.Span]. The buffer is written to the file by whoever fills it, which is quick enough for a file.
func (s *spanLine) End(err error) {
	s.Took = time.Since(s.Time).Seconds()
	if err != nil {
		s.Error, s.Code = err.Error(), pitaya.ErrorCode(err)
	}
	line, err := json.Marshal(s)
	t := s.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		_, err = t.out.Write(append(line, '\n'))
	}
	if t.err == nil {
		t.err = err
	}
}
