package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// grpcHandler is a TransportHandler of functions. Without one, calls come back as they are and notices are taken.
type grpcHandler struct {
	call   func(body []byte, reply func([]byte))
	notice func(n *pitaya.Notice, reply func([]byte, error))
}

func (h grpcHandler) HandleCall(_ context.Context, body []byte, reply func([]byte)) {
	if h.call == nil {
		reply(body)
		return
	}
	h.call(body, reply)
}

func (h grpcHandler) HandleNotice(n *pitaya.Notice, reply func([]byte, error)) {
	if h.notice == nil {
		reply(nil, nil)
		return
	}
	h.notice(n, reply)
}

// openGRPC returns a transport that was not listening yet when prepare, which may be nil, got it, and its description.
func openGRPC(t testing.TB, id string, cfg pitaya.GRPCConfig, h pitaya.TransportHandler, prepare func(*pitaya.GRPCTransport)) (*pitaya.GRPCTransport, *pitaya.ServerInfo) {
	t.Helper()
	if cfg.Port == 0 {
		cfg.Port = -1
	}
	tr, err := pitaya.NewGRPCTransport(cfg, "", slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(tr)
	}
	if err := tr.Listen(t.Context(), &pitaya.ServerInfo{ID: id, Type: "room"}, h); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil {
			t.Errorf("%s: Close: %v", id, err)
		}
	})
	_, port, err := net.SplitHostPort(tr.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return tr, grpcServerAt(id, "127.0.0.1", port)
}

func grpcServerAt(id, host, port string) *pitaya.ServerInfo {
	return &pitaya.ServerInfo{ID: id, Type: "room", Metadata: pitaya.GRPCMetadata(nil, "", host, port, "", "")}
}

// grpcCaller returns a transport that only calls.
func grpcCaller(t testing.TB, cfg pitaya.GRPCConfig) *pitaya.GRPCTransport {
	t.Helper()
	tr, _ := openGRPC(t, "caller", cfg, grpcHandler{}, nil)
	return tr
}

type grpcResult struct {
	body []byte
	err  error
}

// goCall calls, and returns a channel for the result.
func goCall(ctx context.Context, tr pitaya.Transport, to *pitaya.ServerInfo, body string) <-chan grpcResult {
	c := make(chan grpcResult, 1)
	tr.Call(ctx, to, []byte(body), func(response []byte, err error) { c <- grpcResult{response, err} })
	return c
}

func doCall(ctx context.Context, tr pitaya.Transport, to *pitaya.ServerInfo, body string) (string, error) {
	r := <-goCall(ctx, tr, to, body)
	return string(r.body), r.err
}

func TestGRPCAddress(t *testing.T) {
	t.Parallel()
	type vector struct {
		Name     string
		Own      string `json:"own_region"`
		Metadata map[string]string
		Server   map[string]string `json:"server_metadata"`
		Expect   string
	}
	for _, v := range readVectors[vector](t, "grpc_address.json") {
		want := map[string]string{
			"internal": v.Server["grpcHost"] + ":" + v.Server["grpcPort"],
			"external": v.Server["grpc-external-host"] + ":" + v.Server["grpc-external-port"],
			"none":     "",
		}[v.Expect]
		if got := pitaya.GRPCAddress(v.Own, v.Server); got != want {
			t.Errorf("%s: %q, want %q", v.Name, got, want)
		}
	}
	if got := pitaya.GRPCAddress("", map[string]string{"grpcHost": "::1", "grpcPort": "1"}); got != "[::1]:1" {
		t.Errorf("IPv6: %s", got)
	}
}

func TestGRPCMetadata(t *testing.T) {
	t.Parallel()
	own := map[string]string{"stage": "beta"}
	got := pitaya.GRPCMetadata(own, "eu", "10.0.0.1", "3434", "example.org", "443")
	want := map[string]string{
		"stage": "beta", "region": "eu", "grpcHost": "10.0.0.1", "grpcPort": "3434",
		"grpc-external-host": "example.org", "grpc-external-port": "443",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(own) != 1 {
		t.Errorf("%v, from %v", got, own)
	}
}

func TestNewGRPCTransport(t *testing.T) {
	t.Parallel()
	for _, cfg := range []pitaya.GRPCConfig{{RequestTimeout: -1}, {DialTimeout: -1}, {Port: 1 << 16}} {
		if _, err := pitaya.NewGRPCTransport(cfg, "", nil); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	tr, err := pitaya.NewGRPCTransport(pitaya.GRPCConfig{}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if tr.Healthy() == nil || tr.Addr() != nil {
		t.Error("healthy before Listen")
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error("Close without Listen:", err)
	}
}

// TestGRPCNames compares the paths of the requests with the vectors.
func TestGRPCNames(t *testing.T) {
	t.Parallel()
	paths := make(chan string, 1)
	to := rawGRPCServer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/protos.") { // and not a health check
			paths <- r.URL.Path
		}
	})
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	send := map[string]func(){
		"Call":              func() { doCall(t.Context(), tr, to, "") },
		"PushToUser":        func() { tr.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticePush, Server: to}) },
		"SessionBindRemote": func() { tr.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticeBind, Server: to}) },
		"KickUser":          func() { tr.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticeKick, Server: to}) },
	}
	type vector struct {
		Kind   string
		Inputs map[string]string
		Expect string
	}
	for _, v := range readVectors[vector](t, "names.json") {
		if v.Kind != "grpc_method" {
			continue
		}
		rpc := v.Inputs["rpc"]
		if send[rpc] == nil {
			t.Errorf("%s: unknown, or twice", rpc)
			continue
		}
		send[rpc]()
		delete(send, rpc)
		if got := <-paths; got != v.Expect {
			t.Errorf("%s: %s, want %s", rpc, got, v.Expect)
		}
	}
	if len(send) > 0 {
		t.Errorf("%d methods have no vector", len(send))
	}
}

func TestGRPCCall(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	for _, n := range []int{0, 1, 4091, 4096, 1 << 16, 1 << 20, pitaya.GRPCMaxMessage} {
		body := strings.Repeat("x", n)
		if got, err := doCall(t.Context(), tr, to, body); got != body || err != nil {
			t.Errorf("%d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	_, err := doCall(t.Context(), tr, to, strings.Repeat("x", pitaya.GRPCMaxMessage+1))
	if err == nil || !strings.Contains(err.Error(), "ResourceExhausted") {
		t.Errorf("too large a request: %v", err)
	}
	if conns, peers := pitaya.GRPCConns(tr, to.ID); conns != 1 || peers != 1 {
		t.Errorf("%d connections, %d servers known", conns, peers)
	}
}

func TestGRPCLargeAnswer(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) {
		reply(make([]byte, pitaya.GRPCMaxMessage+1))
	}}, nil)
	_, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, "")
	if err == nil || !strings.Contains(err.Error(), "ResourceExhausted") {
		t.Errorf("too large an answer: %v", err)
	}
}

// TestGRPCBodies checks who owns which bytes.
func TestGRPCBodies(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		go func() { <-hold; reply(body) }()
	}}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	body := []byte("first")
	got := make(chan string, 1)
	tr.Call(t.Context(), to, body, func(response []byte, err error) { got <- string(response) })
	copy(body, "other")
	close(hold)
	if s := <-got; s != "first" {
		t.Errorf("the request became %q", s)
	}
}

func TestGRPCParallel(t *testing.T) {
	t.Parallel()
	const calls = 1000
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		go reply(body)
	}}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Minute})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Add(1)
		want := strconv.Itoa(i)
		tr.Call(t.Context(), to, []byte(want), func(response []byte, err error) {
			defer wg.Done()
			if string(response) != want || err != nil {
				t.Errorf("call %s: %q, %v", want, response, err)
			}
		})
	}
	wg.Wait()
}

// TestGRPCStreamLimit holds more calls at once than one connection takes, and then more than all connections take.
func TestGRPCStreamLimit(t *testing.T) {
	t.Parallel()
	const limit, conns = 5, 16
	var (
		mu      sync.Mutex
		replies []func([]byte)
		arrived = make(chan int, 3*limit*conns)
	)
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		replies = append(replies, reply)
		arrived <- len(replies)
	}}, func(tr *pitaya.GRPCTransport) { pitaya.SetGRPCStreams(tr, limit) })
	tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Minute})
	answer := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, reply := range replies {
			reply([]byte("done"))
		}
		replies = nil
	}
	// The first calls fill the connections one after another.
	var results []<-chan grpcResult
	for range limit * conns {
		results = append(results, goCall(t.Context(), tr, to, ""))
		<-arrived
	}
	if n, _ := pitaya.GRPCConns(tr, to.ID); n != conns {
		t.Errorf("%d connections for %d calls, want %d", n, limit*conns, conns)
	}
	// The next ones wait for a place.
	for range 2 * limit * conns {
		results = append(results, goCall(t.Context(), tr, to, ""))
	}
	answer()
	for n := limit * conns; n < len(results); n++ {
		<-arrived
		answer()
	}
	for i, c := range results {
		if r := <-c; r.err != nil {
			t.Errorf("call %d: %v", i, r.err)
		}
	}
}

func TestGRPCTimeouts(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func([]byte, func([]byte)) {}}, nil)
	t.Run("of the context", func(t *testing.T) {
		tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Hour})
		eventually(t, func() bool { // on a busy machine a call may end before there is a connection
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := doCall(ctx, tr, to, "")
			return errors.Is(err, pitaya.ErrNoAnswer)
		})
	})
	t.Run("of the settings", func(t *testing.T) {
		tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: 20 * time.Millisecond})
		eventually(t, func() bool {
			_, err := doCall(t.Context(), tr, to, "")
			return errors.Is(err, pitaya.ErrNoAnswer)
		})
	})
	t.Run("passed already", func(t *testing.T) {
		tr := grpcCaller(t, pitaya.GRPCConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), -1)
		defer cancel()
		if _, err := doCall(ctx, tr, to, ""); !errors.Is(err, pitaya.ErrUnreachable) && !errors.Is(err, pitaya.ErrNoAnswer) {
			t.Error(err)
		}
	})
	t.Run("enforced by the server", func(t *testing.T) {
		res := rawGRPCRequest(t, to, "/protos.Pitaya/Call", http.Header{"Grpc-Timeout": {"5m"}}, frameOf(""))
		if res.status != "4" {
			t.Errorf("%+v", res)
		}
	})
}

func TestGRPCCancel(t *testing.T) {
	t.Parallel()
	arrived, late := make(chan func([]byte), 1), make(chan struct{})
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) {
		arrived <- reply
	}}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	c := goCall(ctx, tr, to, "")
	reply := <-arrived
	cancel()
	if r := <-c; !errors.Is(r.err, context.Canceled) || errors.Is(r.err, pitaya.ErrNoAnswer) {
		t.Errorf("%q, %v", r.body, r.err)
	}
	go func() { reply([]byte("late")); reply([]byte("twice")); close(late) }()
	<-late
	// The connection is as good as before.
	c = goCall(t.Context(), tr, to, "")
	(<-arrived)([]byte("well"))
	if r := <-c; string(r.body) != "well" || r.err != nil {
		t.Errorf("%q, %v", r.body, r.err)
	}
	if conns, _ := pitaya.GRPCConns(tr, to.ID); conns != 1 {
		t.Errorf("%d connections", conns)
	}
}

// TestGRPCUnanswered: a server that does not answer costs its callers a bounded number of goroutines.
func TestGRPCUnanswered(t *testing.T) {
	t.Parallel()
	const most, more = 20, 10
	replies := make(chan func([]byte), 2*(most+more))
	_, to := openGRPC(t, "b", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { replies <- reply }}, nil)
	a, _ := openGRPC(t, "a", pitaya.GRPCConfig{RequestTimeout: time.Hour}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
		pitaya.SetGRPCUnanswered(tr, most)
	})
	for range most + more {
		a.Call(t.Context(), to, nil, nil)
	}
	var held []func([]byte)
	for range most {
		held = append(held, transporttest.Await(t, replies))
	}
	// Others are not concerned, and what would have come has come by the time that they have.
	answered := goCall(t.Context(), a, to, "x")
	transporttest.Await(t, replies)([]byte("y"))
	if r := transporttest.Await(t, answered); r.err != nil {
		t.Error(r.err)
	}
	if len(replies) > 0 {
		t.Errorf("%d calls beyond the limit", len(replies))
	}
	// Each that ends, answered or dropped, makes room for another.
	for i, reply := range held {
		reply([][]byte{{}, nil}[i%2])
	}
	for range most {
		until(t, "room for another", func() bool {
			a.Call(t.Context(), to, nil, nil)
			select {
			case reply := <-replies:
				held = append(held, reply)
				return true
			default:
				return false
			}
		})
	}
}

// TestGRPCDrop drops a call. Its caller need not wait until the deadline.
func TestGRPCDrop(t *testing.T) {
	t.Parallel()
	_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { reply(nil) }}, nil)
	_, err := doCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Hour}), to, "")
	if !errors.Is(err, pitaya.ErrNoAnswer) || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestGRPCUnreachable(t *testing.T) {
	t.Parallel()
	var logged lockedBuffer
	tr, err := pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: -1}, "", slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close(context.Background()) })
	t.Run("no address", func(t *testing.T) {
		s := &pitaya.ServerInfo{ID: "mute-1", Type: "room", Metadata: map[string]string{"grpcHost": "127.0.0.1"}}
		tr.ServerSeen(s)
		tr.ServerSeen(s)
		for range 2 {
			if _, err := doCall(t.Context(), tr, s, ""); !errors.Is(err, pitaya.ErrUnreachable) {
				t.Error(err)
			}
		}
		if n := strings.Count(logged.String(), "mute-1"); n != 1 {
			t.Errorf("%d log records:\n%s", n, logged.String())
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		s := grpcServerAt("gone-1", "127.0.0.1", port)
		for range 3 { // also while it pauses
			if _, err := doCall(t.Context(), tr, s, ""); !errors.Is(err, pitaya.ErrUnreachable) {
				t.Error(err)
			}
		}
		if err := tr.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticeKick, Server: s}); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Error(err)
		}
		// Nobody told of it, so it is forgotten.
		eventually(t, func() bool { _, peers := pitaya.GRPCConns(tr, s.ID); return peers == 1 })
	})
	t.Run("the transport is closed", func(t *testing.T) {
		_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
		tr := grpcCaller(t, pitaya.GRPCConfig{})
		tr.Close(t.Context())
		if _, err := doCall(t.Context(), tr, to, ""); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Error(err)
		}
	})
}

// eventually asks until the answer is yes. It is for states that settle by themselves and announce nothing.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(realTime)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatal("it did not happen")
		}
	}
}

func TestGRPCServerSeen(t *testing.T) {
	t.Parallel()
	_, first := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { reply([]byte("first")) }}, nil)
	_, second := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { reply([]byte("second")) }}, nil)
	connected := func(tr *pitaya.GRPCTransport, want int) func() bool {
		return func() bool { conns, _ := pitaya.GRPCConns(tr, "room-1"); return conns == want }
	}
	eager, lazy := grpcCaller(t, pitaya.GRPCConfig{}), grpcCaller(t, pitaya.GRPCConfig{LazyConnection: true})
	eager.ServerSeen(first)
	lazy.ServerSeen(first)
	eventually(t, connected(eager, 1))
	if !connected(lazy, 0)() {
		t.Error("a lazy transport has connected")
	}
	for _, tr := range []*pitaya.GRPCTransport{eager, lazy} {
		if got, err := doCall(t.Context(), tr, first, ""); got != "first" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		// What discovery says goes before what a caller may still have.
		tr.ServerSeen(second)
		if got, err := doCall(t.Context(), tr, first, ""); got != "second" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		tr.ServerGone(second)
		if _, peers := pitaya.GRPCConns(tr, "room-1"); peers != 0 {
			t.Error("still known")
		}
	}
	self := grpcServerAt("caller", "127.0.0.1", "1")
	eager.ServerSeen(self)
	if _, peers := pitaya.GRPCConns(eager, "caller"); peers != 0 {
		t.Error("it knows itself")
	}
}

// TestGRPCServerGone checks that calls under way are still answered.
func TestGRPCServerGone(t *testing.T) {
	t.Parallel()
	arrived := make(chan func([]byte), 1)
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { arrived <- reply }}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	tr.ServerSeen(to)
	c := goCall(t.Context(), tr, to, "")
	reply := <-arrived
	tr.ServerGone(to)
	reply([]byte("well"))
	if r := <-c; string(r.body) != "well" || r.err != nil {
		t.Errorf("%q, %v", r.body, r.err)
	}
	eventually(t, func() bool { return pitaya.GRPCServed(srv) == 0 })
}

// TestGRPCRestart replaces a server by another one at its address.
func TestGRPCRestart(t *testing.T) {
	t.Parallel()
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprint("lazy=", lazy), func(t *testing.T) {
			old, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
			tr := grpcCaller(t, pitaya.GRPCConfig{LazyConnection: lazy})
			tr.ServerSeen(to)
			if _, err := doCall(t.Context(), tr, to, ""); err != nil {
				t.Fatal(err)
			}
			if err := old.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool {
				_, err := doCall(t.Context(), tr, to, "")
				// A call may meet the connection at its end.
				if !errors.Is(err, pitaya.ErrUnreachable) && !errors.Is(err, pitaya.ErrNoAnswer) {
					t.Errorf("while it is away: %v", err)
				}
				conns, _ := pitaya.GRPCConns(tr, to.ID)
				return conns == 0
			})
			port, _ := strconv.Atoi(to.Metadata["grpcPort"])
			openGRPC(t, "room-1", pitaya.GRPCConfig{Port: port}, grpcHandler{}, nil)
			eventually(t, func() bool {
				_, err := doCall(t.Context(), tr, to, "")
				if err != nil && !errors.Is(err, pitaya.ErrUnreachable) {
					t.Errorf("before it is back: %v", err)
				}
				return err == nil
			})
		})
	}
}

func TestGRPCDrain(t *testing.T) {
	t.Parallel()
	arrived := make(chan func([]byte), 1)
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { arrived <- reply }}, nil)
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	tr.ServerSeen(to)
	if err := srv.Healthy(); err != nil {
		t.Error(err)
	}
	c := goCall(t.Context(), tr, to, "")
	reply := <-arrived
	if err := srv.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if srv.Healthy() == nil {
		t.Error("healthy while draining")
	}
	if _, err := doCall(t.Context(), tr, to, ""); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("call while draining: %v", err)
	}
	// Own calls still work.
	_, other := openGRPC(t, "room-2", pitaya.GRPCConfig{}, grpcHandler{}, nil)
	if _, err := doCall(t.Context(), srv, other, ""); err != nil {
		t.Errorf("own call while draining: %v", err)
	}
	reply([]byte("well"))
	if r := <-c; string(r.body) != "well" || r.err != nil {
		t.Errorf("%q, %v", r.body, r.err)
	}
	if len(arrived) > 0 {
		t.Error("a call came in while draining")
	}
}

// TestGRPCDrainWaits checks that Drain returns only when the handler has what was accepted.
func TestGRPCDrainWaits(t *testing.T) {
	t.Parallel()
	entered, hold := make(chan struct{}), make(chan struct{})
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
		close(entered)
		<-hold
		reply(body)
	}}, nil)
	c := goCall(t.Context(), grpcCaller(t, pitaya.GRPCConfig{}), to, "")
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Drain without time: %v", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- srv.Drain(t.Context()) }()
	select {
	case err := <-drained:
		t.Errorf("drained while the handler is being called: %v", err)
	default:
	}
	close(hold)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if r := <-c; r.err != nil {
		t.Error(r.err)
	}
}

func TestGRPCClose(t *testing.T) {
	t.Parallel()
	t.Run("of the server", func(t *testing.T) {
		arrived := make(chan func([]byte), 2)
		srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { arrived <- reply }}, nil)
		tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Hour})
		answered := goCall(t.Context(), tr, to, "")
		reply := <-arrived
		open := goCall(t.Context(), tr, to, "")
		late := <-arrived
		reply(bytes.Repeat([]byte("x"), 1<<20))
		if err := srv.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r := <-answered; len(r.body) != 1<<20 || r.err != nil {
			t.Errorf("call that was answered: %d bytes, %v", len(r.body), r.err)
		}
		if r := <-open; !errors.Is(r.err, pitaya.ErrNoAnswer) {
			t.Errorf("call that was not answered: %v", r.err)
		}
		late([]byte("to nobody"))
		if err := srv.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if srv.Listen(t.Context(), to, grpcHandler{}) == nil {
			t.Error("Listen after Close")
		}
	})
	t.Run("of the client", func(t *testing.T) {
		arrived := make(chan struct{})
		_, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func([]byte, func([]byte)) { close(arrived) }}, nil)
		tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Hour})
		c := goCall(t.Context(), tr, to, "")
		<-arrived
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r := <-c; !errors.Is(r.err, pitaya.ErrUnreachable) {
			t.Errorf("call under way: %v", r.err)
		}
		if err := tr.Notify(t.Context(), &pitaya.Notice{}); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Errorf("Notify: %v", err)
		}
		if err := tr.Bind(t.Context(), "u-1"); !errors.Is(err, pitaya.ErrUnreachable) {
			t.Errorf("Bind: %v", err)
		}
	})
	t.Run("while calls come in", func(t *testing.T) {
		var closed atomic.Bool
		srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(body []byte, reply func([]byte)) {
			if closed.Load() {
				t.Error("the handler is called after Close")
			}
			reply(body)
		}}, nil)
		tr := grpcCaller(t, pitaya.GRPCConfig{})
		var wg sync.WaitGroup
		stop, started := make(chan struct{}), make(chan struct{}, 8)
		for range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := doCall(t.Context(), tr, to, ""); err == nil && n == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 8 {
			<-started
		}
		if err := srv.Close(t.Context()); err != nil {
			t.Error(err)
		}
		closed.Store(true)
		close(stop)
		wg.Wait()
	})
}

func TestGRPCNotices(t *testing.T) {
	t.Parallel()
	encode := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name string
		kind pitaya.NoticeKind
		body proto.Message
		resp []byte
		err  error
		want string // in the error; "" for none
		code string
	}{
		{name: "push", kind: pitaya.NoticePush, body: &pb.Push{Route: "r", Uid: "u-1", Data: []byte("x")}, resp: encode(&pb.Response{Data: []byte("ack")})},
		{name: "push, no answer", kind: pitaya.NoticePush, body: &pb.Push{Uid: "u-1"}},
		{name: "push refused", kind: pitaya.NoticePush, body: &pb.Push{Uid: "u-1"}, err: errors.New("not böund\nhere"), want: "not böund\nhere"},
		{name: "push refused in the answer", kind: pitaya.NoticePush, body: &pb.Push{Uid: "u-1"}, resp: encode(&pb.Response{Error: &pb.Error{Code: "PIT-404", Msg: "who?"}}), want: "who?", code: "PIT-404"},
		{name: "push, garbage", kind: pitaya.NoticePush, body: &pb.Push{Uid: "u-1"}, resp: []byte{0xff}, want: "proto"},
		{name: "kick", kind: pitaya.NoticeKick, body: &pb.KickMsg{UserId: "u-1"}, resp: encode(&pb.KickAnswer{Kicked: true})},
		{name: "kick, no answer", kind: pitaya.NoticeKick, body: &pb.KickMsg{UserId: "u-1"}},
		{name: "not kicked", kind: pitaya.NoticeKick, body: &pb.KickMsg{UserId: "u-1"}, resp: encode(&pb.KickAnswer{}), want: "not kicked"},
		{name: "kick, garbage", kind: pitaya.NoticeKick, body: &pb.KickMsg{UserId: "u-1"}, resp: []byte{0xff}, want: "proto"},
		{name: "bind", kind: pitaya.NoticeBind, body: &pb.BindMsg{Uid: "u-1", Fid: "f-1"}, resp: encode(&pb.Response{Data: []byte("ack")})},
	}
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan *pitaya.Notice, 1)
			srv, to := openGRPC(t, tt.name, pitaya.GRPCConfig{}, grpcHandler{notice: func(n *pitaya.Notice, reply func([]byte, error)) {
				got <- n
				reply(tt.resp, tt.err)
			}}, nil)
			if tt.kind != pitaya.NoticeBind {
				if err := srv.Bind(t.Context(), "u-1"); err != nil {
					t.Fatal(err)
				}
			}
			body := encode(tt.body)
			err := tr.Notify(t.Context(), &pitaya.Notice{Kind: tt.kind, FrontendType: "room", UID: "u-1", Server: to, Body: body})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if tt.code != "" && pitaya.ErrorCode(err) != tt.code {
				t.Errorf("code %s, want %s", pitaya.ErrorCode(err), tt.code)
			}
			n := <-got
			if n.Kind != tt.kind || n.UID != "u-1" || n.FrontendType != "room" || !bytes.Equal(n.Body, body) {
				t.Errorf("%+v", n)
			}
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		if err := tr.Notify(t.Context(), &pitaya.Notice{UID: "u-1"}); err == nil || !strings.Contains(err.Error(), `"u-1"`) {
			t.Error(err)
		}
	})
	t.Run("no kind", func(t *testing.T) {
		if tr.Notify(t.Context(), &pitaya.Notice{Kind: 9, Server: grpcServerAt("x", "127.0.0.1", "1")}) == nil {
			t.Error("sent")
		}
	})
	t.Run("too large", func(t *testing.T) {
		n := &pitaya.Notice{Server: grpcServerAt("x", "127.0.0.1", "1"), Body: make([]byte, pitaya.GRPCMaxMessage+1)}
		if err := tr.Notify(t.Context(), n); err == nil || !strings.Contains(err.Error(), "ResourceExhausted") {
			t.Error(err)
		}
	})
	t.Run("unbound", func(t *testing.T) {
		srv, to := openGRPC(t, "unbound", pitaya.GRPCConfig{}, grpcHandler{}, nil)
		kick := &pitaya.Notice{Kind: pitaya.NoticeKick, UID: "u-1", Server: to, Body: encode(&pb.KickMsg{UserId: "u-1"})}
		if err := tr.Notify(t.Context(), kick); err == nil || !strings.Contains(err.Error(), `"u-1" is not bound here`) {
			t.Error(err)
		}
		if err := errors.Join(srv.Bind(t.Context(), "u-1"), tr.Notify(t.Context(), kick)); err != nil {
			t.Error(err)
		}
		if err := srv.Unbind(t.Context(), "u-1"); err != nil || tr.Notify(t.Context(), kick) == nil {
			t.Errorf("Unbind: %v", err)
		}
		if err := srv.Bind(t.Context(), "a b"); !errors.Is(err, pitaya.ErrIllegalUID) {
			t.Error(err)
		}
	})
}

func BenchmarkGRPCCall(b *testing.B) {
	for _, size := range []int{64, 4096} {
		body := bytes.Repeat([]byte("x"), size)
		_, to := openGRPC(b, "room-1", pitaya.GRPCConfig{}, grpcHandler{}, nil)
		tr := grpcCaller(b, pitaya.GRPCConfig{})
		b.Run(fmt.Sprintf("kind=transport/size=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			done := make(chan error, 1)
			for b.Loop() {
				tr.Call(b.Context(), to, body, func(_ []byte, err error) { done <- err })
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
		// The yardstick: the same bytes in a plain HTTP/2 call.
		plain := rawGRPCServer(b, func(w http.ResponseWriter, r *http.Request) {
			echo, err := readAll(r.Body, int(r.ContentLength))
			if err != nil {
				b.Error(err)
			}
			w.Write(echo)
		})
		url := "http://" + net.JoinHostPort(plain.Metadata["grpcHost"], plain.Metadata["grpcPort"])
		client := http2Client(b)
		b.Run(fmt.Sprintf("kind=http2/size=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				res, err := client.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := readAll(res.Body, int(res.ContentLength)); err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
		})
	}
}
