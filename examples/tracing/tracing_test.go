package main

import (
	"cmp"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// newMemoryTracer returns a Tracer whose spans end up in memory.
func newMemoryTracer(t testing.TB) (pitaya.Tracer, *tracetest.InMemoryExporter) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	t.Cleanup(func() { provider.Shutdown(context.Background()) })
	return newTracer(provider), exporter
}

// TestTracer holds the adapter against the rules of the seam.
func TestTracer(t *testing.T) {
	pitayatest.TestTracer(t, pitayatest.TracerOptions{
		Open: func(t testing.TB) (pitaya.Tracer, func() []pitayatest.Span) {
			tracer, exporter := newMemoryTracer(t)
			return tracer, func() (spans []pitayatest.Span) {
				for _, s := range exporter.GetSpans() {
					span := pitayatest.Span{Name: s.Name, ID: s.SpanContext.SpanID().String(), Attributes: attributes(s)}
					if s.SpanKind == trace.SpanKindServer {
						span.Kind = pitaya.SpanServer
					}
					if s.Parent.HasSpanID() {
						span.Parent = s.Parent.SpanID().String()
					}
					if s.Status.Code == codes.Error {
						span.Err = pitaya.Errorf(span.Attributes["error.type"], "%s", s.Status.Description)
					}
					spans = append(spans, span)
				}
				return spans
			}
		},
	})
}

func attributes(s tracetest.SpanStub) map[string]string {
	m := make(map[string]string)
	for _, a := range s.Attributes {
		m[string(a.Key)] = a.Value.AsString()
	}
	return m
}

// startGame starts a frontend and a backend, and connects a client.
func startGame(t *testing.T, tracer pitaya.Tracer) (*pitayatest.Cluster, *pitayatest.Client) {
	cluster := pitayatest.NewCluster(t)
	setUp := func(srv *pitaya.Server) {
		if err := register(srv); err != nil {
			t.Error(err)
		}
	}
	cluster.NewServer(t, pitaya.Config{Type: "room", ID: "r1", Tracer: tracer}, setUp)
	gate := cluster.NewServer(t, pitaya.Config{Type: "gate", ID: "g1", Frontend: true, Tracer: tracer}, setUp)
	return cluster, gate.Client(t)
}

func TestOneTrace(t *testing.T) {
	tests := []struct {
		name, text, code string
	}{
		{"good", "Ada", ""},
		{"bad", "", CodeNobody},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tracer, exporter := newMemoryTracer(t)
				_, client := startGame(t, tracer)
				if in := (&Greeting{tt.text}); tt.code == "" {
					if got := pitayatest.Request[Greeting](client, "room.hall.greet", in); got.Text != "Hello, Ada!" {
						t.Errorf("got %q", got.Text)
					}
				} else {
					client.ExpectError("room.hall.greet", in, tt.code)
				}
				synctest.Wait()

				spans := exporter.GetSpans()
				byPlace := make(map[string]tracetest.SpanStub)
				for _, s := range spans {
					byPlace[s.Name+" on "+attributes(s)["local.id"]] = s
				}
				root := byPlace["room.hall.greet on g1"]
				id := attributes(root)["request.id"]
				addr := attributes(byPlace["conn write on "])["addr"]
				want := map[string]struct {
					parent     string
					kind       trace.SpanKind
					code       string
					attributes map[string]string
				}{
					"room.hall.greet on g1": {"", trace.SpanKindServer, tt.code, map[string]string{
						"local.id": "g1", "span.kind": "server", "msg.type": "request", "user.id": "", "request.id": id}},
					"RPC Call on g1": {"room.hall.greet on g1", trace.SpanKindClient, tt.code, map[string]string{
						"local.id": "g1", "span.kind": "client", "peer.serverType": "room", "peer.id": "r1"}},
					"room.hall.greet on r1": {"RPC Call on g1", trace.SpanKindServer, tt.code, map[string]string{
						"local.id": "r1", "span.kind": "server", "peer.id": "g1", "peer.service": "gate", "request.id": id}},
					"conn write on ": {"room.hall.greet on g1", trace.SpanKindInternal, "", map[string]string{
						"span.kind": "connection", "addr": addr}},
				}
				if len(spans) != len(want) || len(byPlace) != len(want) || id == "" || addr == "" {
					t.Fatalf("got %d spans, want %d: %v", len(spans), len(want), slices.Collect(maps.Keys(byPlace)))
				}
				for place, w := range want {
					s := byPlace[place]
					if s.SpanContext.TraceID() != root.SpanContext.TraceID() {
						t.Errorf("%s is in another trace", place)
					}
					if got, want := s.Parent.SpanID(), byPlace[w.parent].SpanContext.SpanID(); got != want {
						t.Errorf("%s: the parent is %s, want %s, %q", place, got, want, w.parent)
					}
					if s.InstrumentationScope.Name != "pitaya" || s.SpanKind != w.kind {
						t.Errorf("%s: got the scope %q and the kind %s", place, s.InstrumentationScope.Name, s.SpanKind)
					}
					got := attributes(s)
					if code := got["error.type"]; code != w.code || (s.Status.Code == codes.Error) != (w.code != "") || (len(s.Events) == 1) != (w.code != "") {
						t.Errorf("%s: got the code %q, the status %v and the events %v", place, code, s.Status, s.Events)
					}
					delete(got, "error.type")
					if !maps.Equal(got, w.attributes) {
						t.Errorf("%s: got the attributes %v, want %v", place, got, w.attributes)
					}
				}
			})
		})
	}
}

// PeerRemote hands what has come along to the test.
type PeerRemote struct {
	pitaya.Base
	See func(ctx context.Context)
}

func (p *PeerRemote) Do(ctx context.Context, _ *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	p.See(ctx)
	return wrapperspb.String("done"), nil
}

// TestPeers crosses to a server that is traced by others: it sends and reads what OpenTelemetry's own propagators make.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer, exporter := newMemoryTracer(t)
		w3c := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
		cluster := pitayatest.NewCluster(t)
		peer := make(chan map[string]any, 1)
		peerServer := cluster.NewServer(t, pitaya.Config{Type: "peer", ID: "p1"}, func(s *pitaya.Server) {
			_ = s.RegisterRemote(&PeerRemote{See: func(ctx context.Context) {
				span, _ := pitaya.GetFromPropagateCtx(ctx, "otel-span").(map[string]any)
				peer <- span
			}}, pitaya.WithName("r"))
		})
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
		var inner trace.SpanContext // of a span that a remote makes with OpenTelemetry itself
		cluster.NewServer(t, pitaya.Config{Type: "own", ID: "o1", Tracer: tracer}, func(s *pitaya.Server) {
			_ = s.RegisterRemote(&PeerRemote{See: func(ctx context.Context) {
				ctx, span := provider.Tracer("game").Start(ctx, "inner")
				defer span.End()
				inner = span.SpanContext()
				if err := s.RPC(ctx, "peer.r.Do", new(wrapperspb.StringValue), nil); err != nil {
					t.Error(err)
				}
			}}, pitaya.WithName("r"))
		})

		ctx, theirs := provider.Tracer("pitaya").Start(context.Background(), "theirs")
		ctx = trace.ContextWithSpanContext(ctx, theirs.SpanContext().WithTraceState(must(trace.ParseTraceState("vendor=1"))))
		carrier := make(map[string]string)
		w3c.Inject(baggage.ContextWithBaggage(ctx, must(baggage.Parse("user=ada"))), propagation.MapCarrier(carrier))
		if err := peerServer.RPC(pitaya.AddToPropagateCtx(context.Background(), "otel-span", carrier), "own.r.Do", new(wrapperspb.StringValue), nil); err != nil {
			t.Fatal(err)
		}
		theirs.End()
		back := make(map[string]string)
		for key, value := range <-peer {
			back[key], _ = value.(string)
		}
		synctest.Wait()
		ctx = w3c.Extract(context.Background(), propagation.MapCarrier(back))
		got := trace.SpanContextFromContext(ctx)
		if got.TraceID() != theirs.SpanContext().TraceID() || got.TraceState().String() != "vendor=1" || back["baggage"] != "user=ada" || !got.IsSampled() {
			t.Errorf("they got %v, in the trace %s", back, theirs.SpanContext().TraceID())
		}
		parents := make(map[trace.SpanID]trace.SpanID)
		for _, s := range exporter.GetSpans() {
			parents[s.SpanContext.SpanID()] = s.Parent.SpanID()
		}
		// theirs, the remote, inner, the call of the peer: what it got is the last of them.
		if parents[got.SpanID()] != inner.SpanID() || parents[parents[inner.SpanID()]] != theirs.SpanContext().SpanID() {
			t.Errorf("the parents are %v; they got %s, theirs is %s", parents, got.SpanID(), theirs.SpanContext().SpanID())
		}
	})
}

// A collector takes what is exported over both protocols.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans map[string]string // service.name by span name
}

func (c *collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		service := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				c.spans[span.GetName()] = service
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// TestProgram runs the program against a collector, and ends it after its first request.
func TestProgram(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			c := &collector{spans: make(map[string]string)}
			if protocol == "grpc" {
				l := must(net.Listen("tcp", "127.0.0.1:0"))
				server := grpc.NewServer()
				collectorpb.RegisterTraceServiceServer(server, c)
				var wg sync.WaitGroup
				wg.Go(func() { server.Serve(l) })
				t.Cleanup(func() { server.Stop(); wg.Wait() })
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
			} else {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					var req collectorpb.ExportTraceServiceRequest
					body, err := io.ReadAll(r.Body)
					if err = cmp.Or(err, proto.Unmarshal(body, &req)); err != nil || r.URL.Path != "/v1/traces" {
						t.Errorf("%s: %v", r.URL, err)
					}
					c.Export(r.Context(), &req)
				}))
				t.Cleanup(server.Close)
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
				t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			}
			t.Setenv("OTEL_SERVICE_NAME", "my game")
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000") // so that only the end of the program exports
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// The answer of the first request ends it.
			if err := run(ctx, "127.0.0.1:0", func(string) { cancel() }); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"room.hall.greet", "RPC Call", "conn write"} {
				if got, ok := c.spans[name]; !ok || got != "my game" {
					t.Errorf("%s: exported %v, of the service %q", name, ok, got)
				}
			}
		})
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		traces     bool
		err        string
	}{
		{"OTEL_SDK_DISABLED", "true", false, ""},
		{"OTEL_TRACES_EXPORTER", "none", false, ""},
		{"OTEL_TRACES_EXPORTER", "otlp", true, ""},
		{"OTEL_TRACES_EXPORTER", "zipkin", false, `OTEL_TRACES_EXPORTER is "zipkin", and can be otlp or none`},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", false, `OTEL_EXPORTER_OTLP_PROTOCOL is "http/json", and can be grpc or http/protobuf`},
	} {
		t.Run(tt.value, func(t *testing.T) {
			t.Setenv(tt.key, tt.value)
			tracer, shutdown, err := setUpTracing(t.Context())
			if err != nil {
				if err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if tt.err != "" || (tracer != nil) != tt.traces {
				t.Errorf("got the tracer %v, want an error %q", tracer, tt.err)
			}
			if err := shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
