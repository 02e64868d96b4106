package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pitaya-go/pitaya"
)

// otelTracer is a [pitaya.Tracer] on top of OpenTelemetry. The contexts that it makes are OpenTelemetry's own, so a
// handler begins spans of its own with a trace.Tracer, and reads and sets baggage, as everywhere else.
type otelTracer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
}

// newTracer returns a Tracer whose spans go to a provider.
func newTracer(provider trace.TracerProvider) pitaya.Tracer {
	return &otelTracer{
		provider.Tracer("pitaya"),
		propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
}

// Start implements [pitaya.Tracer].
func (t *otelTracer) Start(ctx context.Context, name string, kind pitaya.SpanKind, labels ...pitaya.Label) (context.Context, pitaya.Span) {
	attributes := make([]attribute.KeyValue, len(labels))
	for i, l := range labels {
		attributes[i] = attribute.String(l.Name, l.Value)
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(otelKind(kind)), trace.WithAttributes(attributes...))
	return ctx, otelSpan{span}
}

func otelKind(kind pitaya.SpanKind) trace.SpanKind {
	switch kind {
	case pitaya.SpanServer:
		return trace.SpanKindServer
	case pitaya.SpanClient:
		return trace.SpanKindClient
	}
	return trace.SpanKindInternal
}

// Inject implements [pitaya.Tracer].
func (t *otelTracer) Inject(ctx context.Context, carrier map[string]string) {
	t.propagator.Inject(ctx, propagation.MapCarrier(carrier))
}

// Extract implements [pitaya.Tracer].
func (t *otelTracer) Extract(ctx context.Context, carrier map[string]string) context.Context {
	return t.propagator.Extract(ctx, propagation.MapCarrier(carrier))
}

// otelSpan is a [pitaya.Span].
type otelSpan struct{ trace.Span }

// TraceID implements [pitaya.Span].
func (s otelSpan) TraceID() string { return s.SpanContext().TraceID().String() }

// End implements [pitaya.Span]. The code goes where OpenTelemetry has the class of an error.
func (s otelSpan) End(err error) {
	if err != nil {
		s.RecordError(err)
		s.SetAttributes(attribute.String("error.type", pitaya.ErrorCode(err)))
		s.SetStatus(codes.Error, err.Error())
	}
	s.Span.End()
}

// setUpTracing returns a Tracer that exports to a collector, as the OTEL_* variables say: where and how
// (OTEL_EXPORTER_OTLP_*), in what batches (OTEL_BSP_*), how many traces (OTEL_TRACES_SAMPLER), and in whose name
// (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES). With OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none the Tracer is
// nil: nothing is traced.
//
// The function that it returns exports what is left, and ends the exporter. It is called when the servers have ended, or
// the last spans are lost.
func setUpTracing(ctx context.Context) (tracer pitaya.Tracer, shutdown func(context.Context) error, err error) {
	exports := cmp.Or(os.Getenv("OTEL_TRACES_EXPORTER"), "otlp")
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || exports == "none" {
		return nil, func(context.Context) error { return nil }, nil
	}
	if exports != "otlp" {
		return nil, nil, fmt.Errorf("OTEL_TRACES_EXPORTER is %q, and can be otlp or none", exports)
	}
	var exporter sdktrace.SpanExporter
	switch protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "grpc"); protocol {
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	case "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	default:
		err = fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q, and can be grpc or http/protobuf", protocol)
	}
	if err != nil {
		return nil, nil, err
	}
	described, err := resource.New(ctx, resource.WithFromEnv())
	if err == nil {
		described, err = resource.Merge(resource.Default(), described)
	}
	if err != nil {
		return nil, nil, errors.Join(err, exporter.Shutdown(ctx))
	}
	// A collector that is away is worth a line, and nothing else.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { slog.Warn("tracing", "err", err) }))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))
	return newTracer(provider), provider.Shutdown, nil
}
