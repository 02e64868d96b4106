package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/pitaya-go/pitaya"
)

// NamesTracer is a Tracer that keeps the names of spans and what they failed
// with. Those for a collector keep times and attributes as well; see
// examples/tracing for one.
type NamesTracer struct {
	mu    sync.Mutex
	spans []string
}

// namesSpan is a span of NamesTracer. The context carries its parent's place.
type namesSpan struct {
	tracer *NamesTracer
	name   string
	place  pitaya.TraceParent
}

type placeKey struct{}

// Start begins a span, below the one that ctx carries.
func (n *NamesTracer) Start(ctx context.Context, name string, kind pitaya.SpanKind, _ ...pitaya.Label) (context.Context, pitaya.Span) {
	parent, _ := ctx.Value(placeKey{}).(pitaya.TraceParent)
	s := &namesSpan{tracer: n, name: fmt.Sprintf("%s (%s)", name, kind), place: parent.Child()}
	return context.WithValue(ctx, placeKey{}, s.place), s
}

// Inject lets the trace travel to another server.
func (n *NamesTracer) Inject(ctx context.Context, carrier map[string]string) {
	if place, ok := ctx.Value(placeKey{}).(pitaya.TraceParent); ok {
		carrier["traceparent"] = place.String()
	}
}

// Extract takes what has come from one.
func (n *NamesTracer) Extract(ctx context.Context, carrier map[string]string) context.Context {
	place, err := pitaya.ParseTraceParent(carrier["traceparent"])
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, placeKey{}, place)
}

func (s *namesSpan) TraceID() string { return fmt.Sprintf("%x", s.place.TraceID) }

func (s *namesSpan) End(err error) {
	s.tracer.mu.Lock()
	defer s.tracer.mu.Unlock()
	s.tracer.spans = append(s.tracer.spans, fmt.Sprintf("%s %v", s.name, err))
}

// A span is made for each message, and the context of the handler carries it:
// those of the application are its children.
func ExampleTracer() {
	tracer := &NamesTracer{}
	dial, stop := runExample(pitaya.Config{Tracer: tracer}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "shop.buy", func(ctx context.Context, _ *struct{}) (*struct{}, error) {
			parent, _ := ctx.Value(placeKey{}).(pitaya.TraceParent)
			ctx, span := tracer.Start(ctx, "query", pitaya.SpanClient)
			child, _ := ctx.Value(placeKey{}).(pitaya.TraceParent)
			fmt.Println("same trace:", parent.TraceID == child.TraceID, "another span:", parent.SpanID != child.SpanID)
			err := errors.New("database is gone")
			span.End(err)
			return nil, err
		})
	})
	client := dial()
	client.Request(context.Background(), "shop.buy", struct{}{}, nil)
	client.Close()
	stop()
	for _, span := range tracer.spans {
		fmt.Println(span)
	}
	// Output:
	// same trace: true another span: true
	// query (client) database is gone
	// conn write (connection) <nil>
	// shop.buy (server) database is gone
}

// The text by which a trace travels between servers, of whatever make.
func ExampleParseTraceParent() {
	p, err := pitaya.ParseTraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%x\n", p.TraceID)
	child := p.Child()
	fmt.Println(child.TraceID == p.TraceID, child.SpanID == p.SpanID, child.Flags)
	fmt.Println(p)
	// Output:
	// 0af7651916cd43dd8448eb211c80319c
	// true false 1
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
}

// With the handler of the library around that of the program, a plain record
// that is made with the context says whose request it belongs to.
func ExampleLogHandler() {
	plain := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == "request" {
			a.Value = slog.StringValue("…") // another one each time
		}
		return withoutTime(groups, a)
	}})
	logger := slog.New(pitaya.LogHandler(plain)) // for slog.SetDefault
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return pitaya.Handle(s, "shop.buy", func(ctx context.Context, item *string) (*string, error) {
			if err := pitaya.SessionFromContext(ctx).Bind(ctx, "ann"); err != nil {
				return nil, err
			}
			logger.InfoContext(ctx, "sold", "price", 10)
			return item, nil
		})
	})
	defer stop()
	err := dial().Request(context.Background(), "shop.buy", "sword", nil)
	fmt.Println(err)
	// Output:
	// level=INFO msg=sold session.id=1 session.uid=ann route=game.shop.buy request=… price=10
	// <nil>
}

// LoggerFromContext is for those who have no logger of their own: its records
// say the same, and go where those of the server go.
func ExampleLoggerFromContext() {
	options := &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == "request" {
			return slog.Attr{} // another one each time
		}
		return withoutTime(groups, a)
	}}
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{
		Type: "game", Frontend: true, Listeners: []net.Listener{mem}, Logger: slog.New(slog.NewTextHandler(os.Stdout, options)),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	pitaya.HandleNotify(server, "player.cheat", func(ctx context.Context, _ *struct{}) {
		pitaya.LoggerFromContext(ctx).Warn("that was not possible")
		pitaya.SessionFromContext(ctx).Kick(ctx)
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	conn, err := mem.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := pitaya.NewClient(ctx, conn, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client.Notify(ctx, "game.player.cheat", struct{}{})
	<-client.Done()
	stop()
	fmt.Println(<-ended)
	// Output:
	// level=WARN msg="that was not possible" session.id=1 session.uid="" route=game.player.cheat
	// <nil>
}
