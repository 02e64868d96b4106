package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// features tries, on a server of its own that speaks protobuf, what the tag must leave in the program though it is written
// otherwise there, or linked only where it is asked for. It prints a line for each.
func features(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, done := pitaya.ListenMem(), make(chan string, 1)
	s, pages, err := newFeatureServer(l, job{done})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	<-s.Ready()

	if err := tryRequests(ctx, l); err != nil {
		return err
	}
	for _, p := range append(pages, page{"metrics", s.Metrics(), []string{"pitaya_handler_requests{"}}) {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Printf("%s: %v\n", p.name, w.Code == http.StatusOK && containsAll(w.Body.String(), p.want))
	}
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.MetricsAddr().(*net.TCPAddr).Port))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	fmt.Println("metrics over HTTP:", res.StatusCode == http.StatusOK && containsAll(string(body), []string{"pitaya_handler_requests{"}), err)
	http.DefaultClient.CloseIdleConnections()

	if _, err := s.ReliableRPC(ctx, "all.calc.credit", nil, nil, wrapperspb.Int64(1)); err != nil {
		return err
	}
	fmt.Println("job:", <-done)
	return nil
}

// A page is one that a server makes, with what must stand in it.
type page struct {
	name    string
	handler http.Handler
	want    []string
}

// message is what the handlers take.
const message = "google.protobuf.Int64Value"

// newFeatureServer returns a server on l and its pages.
func newFeatureServer(l net.Listener, j pitaya.RPCJob) (*pitaya.Server, []page, error) {
	cfg := pitaya.Config{
		Type: "all", Frontend: true, Serializer: pitaya.Protobuf{}, Listeners: []net.Listener{l},
		Jobs: pitaya.NewMemoryJobs(pitaya.MemoryJobsOptions{}),
	}
	cfg.Metrics.Prometheus = pitaya.PrometheusConfig{Enabled: true, Port: -1}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		return nil, nil, err
	}
	pages := []page{
		{"documentation page", s.DocsHandler(pitaya.DocsOptions{}), []string{"all.calc.double", message}},
		{"debug page", s.DebugHandler(pitaya.DebugOptions{}), []string{"<title>all "}},
	}
	err = errors.Join(
		pitaya.Handle(s, "all.calc.double", func(_ context.Context, in *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
			return wrapperspb.Int64(2 * in.Value), nil
		}),
		pitaya.Handle(s, "all.calc.fail", func(context.Context, *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
			return nil, pitaya.NewError(errors.New("why"), "X-1", map[string]string{"k": "v"})
		}),
		s.RegisterDocs(pitaya.DocsOptions{}), s.RegisterRPCJob(j), s.StartWorker())
	return s, pages, err
}

// tryRequests asks a server for what its handlers and its documentation of routes answer.
func tryRequests(ctx context.Context, l *pitaya.MemListener) error {
	conn, err := l.DialContext(ctx)
	if err != nil {
		return err
	}
	c, err := pitaya.NewClient(ctx, conn, &pitaya.ClientConfig{Serializer: pitaya.Protobuf{}})
	if err != nil {
		return err
	}
	defer c.Close()
	var n wrapperspb.Int64Value
	err = c.Request(ctx, "all.calc.double", wrapperspb.Int64(21), &n)
	fmt.Println("request:", n.Value, err)
	err = c.Request(ctx, "all.calc.fail", wrapperspb.Int64(0), &n)
	if e, ok := errors.AsType[*pitaya.Error](err); ok {
		fmt.Println("error:", e.Code, e.Message, e.Metadata)
	}

	text, err := c.RequestRaw(ctx, "all.docs.docs", nil)
	fmt.Println("docs:", bytes.Contains(text, []byte("all.calc.double")) && bytes.Contains(text, []byte(message)), err)
	name := append([]byte{0x0a, byte(len(message))}, message...) // protos.ProtoNames
	list, err := c.RequestRaw(ctx, "all.docs.descriptors", name)
	want, wantErr := pitaya.Descriptor(message)
	fmt.Println("descriptors:", len(want) > 0 && bytes.Contains(list, want), err, wantErr)
	return nil
}

func containsAll(text string, list []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !strings.Contains(text, s) })
}

// job tells of a job that is done.
type job struct{ done chan<- string }

// ServerDiscovery implements [pitaya.RPCJob].
func (job) ServerDiscovery(string, map[string]any) (string, error) { return "", nil }

// RPC implements [pitaya.RPCJob].
func (j job) RPC(_ context.Context, _, route string, _, arg proto.Message) error {
	j.done <- fmt.Sprintf("%s %T", route, arg)
	return nil
}

// GetArgReply implements [pitaya.RPCJob].
func (job) GetArgReply(string) (arg, reply proto.Message, err error) { return nil, nil, nil }
