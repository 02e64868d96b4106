package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// TestGRPCInterop runs the transport against grpc-go, which is what Pitaya's servers are made with: the program in
// internal/grpcpeer.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	program := buildNested(t, "grpcpeer")
	t.Run("Client", func(t *testing.T) { testGRPCInteropClient(t, startGRPCPeer(t, program)) })
	t.Run("KeepAlive", func(t *testing.T) { testGRPCInteropKeepAlive(t, startGRPCPeer(t, program)) })
	t.Run("GracefulStop", func(t *testing.T) { testGRPCInteropStop(t, startGRPCPeer(t, program)) })
	t.Run("Server", func(t *testing.T) { testGRPCInteropServer(t, startGRPCPeer(t, program)) })
	t.Run("Drain", func(t *testing.T) { testGRPCInteropDrain(t, startGRPCPeer(t, program)) })
}

// A grpcPeer is a process of internal/grpcpeer. Its commands and results are described there.
type grpcPeer struct {
	*pitaya.ServerInfo
	in io.WriteCloser

	mu      sync.Mutex // guards the fields below, and writing to in
	last    int
	waiting map[int]chan grpcPeerResult
}

type grpcPeerCommand struct {
	ID   int
	Op   string
	Addr string        `json:",omitempty"`
	Path string        `json:",omitempty"`
	Body []byte        `json:",omitempty"`
	Time time.Duration `json:",omitempty"`
	Call int           `json:",omitempty"`
}

type grpcPeerResult struct {
	ID                    int
	Code                  uint32
	Message               string
	Body                  []byte
	Conns, Unknown, Ended int64
}

func startGRPCPeer(t *testing.T, program string) *grpcPeer {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	line, err := r.ReadBytes('\n')
	var hello struct{ Addr string }
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err != nil {
		in.Close()
		cmd.Wait()
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(hello.Addr)
	p := &grpcPeer{ServerInfo: grpcServerAt("peer-1", host, port), in: in, waiting: make(map[int]chan grpcPeerResult)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(t, r)
	}()
	t.Cleanup(func() {
		in.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("grpcpeer: %v", err)
		}
	})
	return p
}

func (p *grpcPeer) read(t *testing.T, r *bufio.Reader) {
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var res grpcPeerResult
		if err := json.Unmarshal(line, &res); err != nil {
			t.Errorf("grpcpeer: %v", err)
			return
		}
		p.mu.Lock()
		p.waiting[res.ID] <- res
		p.mu.Unlock()
	}
}

// start sends a command and returns its number and a channel for its result.
func (p *grpcPeer) start(t *testing.T, cmd grpcPeerCommand) (int, <-chan grpcPeerResult) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	cmd.ID = p.last
	c := make(chan grpcPeerResult, 1)
	p.waiting[cmd.ID] = c
	line, err := json.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return cmd.ID, c
}

func (p *grpcPeer) do(t *testing.T, cmd grpcPeerCommand) grpcPeerResult {
	t.Helper()
	_, c := p.start(t, cmd)
	return <-c
}

func testGRPCInteropClient(t *testing.T, peer *grpcPeer) {
	tr := grpcCaller(t, pitaya.GRPCConfig{})
	t.Run("echo", func(t *testing.T) {
		for _, n := range []int{0, 1, 1 << 16, 1 << 20, pitaya.GRPCMaxMessage} {
			body := strings.Repeat("x", n)
			if got, err := doCall(t.Context(), tr, peer.ServerInfo, body); got != body || err != nil {
				t.Errorf("%d bytes: %d bytes, %v", n, len(got), err)
			}
		}
	})
	t.Run("parallel", func(t *testing.T) {
		var results []<-chan grpcResult
		for i := range 200 {
			results = append(results, goCall(t.Context(), tr, peer.ServerInfo, fmt.Sprint("call ", i)))
		}
		for i, c := range results {
			if r := <-c; string(r.body) != fmt.Sprint("call ", i) || r.err != nil {
				t.Errorf("call %d: %q, %v", i, r.body, r.err)
			}
		}
	})
	for _, tt := range []struct {
		body, want string
		is         error
	}{
		{body: "error plain", want: "Unknown: plain"},
		{body: "error 100% früh\nspät", want: "Unknown: 100% früh\nspät"},
		{body: "status 5 nobody", want: "NotFound: nobody"},
		{body: "status 4 too late", want: "too late", is: pitaya.ErrNoAnswer},
		{body: "status 14 overloaded", want: "overloaded", is: pitaya.ErrNoAnswer},
		{body: "big 4194305", want: "ResourceExhausted"},
	} {
		t.Run(tt.body, func(t *testing.T) {
			_, err := doCall(t.Context(), tr, peer.ServerInfo, tt.body)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %q, %v", err, tt.want, tt.is)
			}
		})
	}
	t.Run("deadline is told", func(t *testing.T) {
		got, err := doCall(t.Context(), tr, peer.ServerInfo, "timeout")
		if d, _ := time.ParseDuration(got); d <= 0 || d > 5*time.Second || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("metadata", func(t *testing.T) {
		got, err := doCall(t.Context(), tr, peer.ServerInfo, "headers")
		var md map[string][]string
		if err := errors.Join(err, json.Unmarshal([]byte(got), &md)); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(md["content-type"]) != "[application/grpc+proto]" || len(md["user-agent"]) != 1 {
			t.Error(got)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		var err error
		eventually(t, func() bool { // on a busy machine a call may end before the peer has seen it
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			_, err = doCall(ctx, tr, peer.ServerInfo, "wait")
			return peer.do(t, grpcPeerCommand{Op: "stats"}).Ended > 0
		})
		if !errors.Is(err, pitaya.ErrNoAnswer) {
			t.Error(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := goCall(ctx, tr, peer.ServerInfo, "wait")
		if _, err := doCall(t.Context(), tr, peer.ServerInfo, "x"); err != nil { // behind it on the connection
			t.Error(err)
		}
		cancel()
		if r := <-c; !errors.Is(r.err, context.Canceled) {
			t.Error(r.err)
		}
	})
	t.Run("notices", func(t *testing.T) {
		// The peer sends back what it gets, so the bodies are answers.
		n := &pitaya.Notice{Kind: pitaya.NoticePush, Server: peer.ServerInfo}
		if err := tr.Notify(t.Context(), n); err != nil {
			t.Error(err)
		}
		n.Body = []byte("status 2 not bound")
		if err := tr.Notify(t.Context(), n); err == nil || !strings.Contains(err.Error(), "not bound") {
			t.Error(err)
		}
		answer, err := proto.Marshal(&pb.KickAnswer{Kicked: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []*pitaya.Notice{{Kind: pitaya.NoticeKick, Body: answer}, {Kind: pitaya.NoticeBind}} {
			n.Server = peer.ServerInfo
			if err := tr.Notify(t.Context(), n); err != nil {
				t.Errorf("kind %d: %v", n.Kind, err)
			}
		}
	})
	if n := peer.do(t, grpcPeerCommand{Op: "stats"}); n.Conns > 2 || n.Unknown > n.Conns+1 {
		t.Errorf("%d connections, %d probes", n.Conns, n.Unknown)
	}
}

// testGRPCInteropKeepAlive tries a connection so often that grpc-go would end it if that were done with pings.
func testGRPCInteropKeepAlive(t *testing.T, peer *grpcPeer) {
	tr, _ := openGRPC(t, "caller", pitaya.GRPCConfig{}, grpcHandler{}, func(tr *pitaya.GRPCTransport) {
		pitaya.SetGRPCProbe(tr, 2*time.Millisecond, 10*time.Second)
	})
	tr.ServerSeen(peer.ServerInfo)
	eventually(t, func() bool { return peer.do(t, grpcPeerCommand{Op: "stats"}).Unknown >= 30 })
	if n := peer.do(t, grpcPeerCommand{Op: "stats"}).Conns; n != 1 {
		t.Errorf("%d connections", n)
	}
	if got, err := doCall(t.Context(), tr, peer.ServerInfo, "x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// testGRPCInteropStop stops a server gracefully while it serves a call.
func testGRPCInteropStop(t *testing.T, peer *grpcPeer) {
	tr := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: time.Minute})
	tr.ServerSeen(peer.ServerInfo)
	c := goCall(t.Context(), tr, peer.ServerInfo, "wait")
	if _, err := doCall(t.Context(), tr, peer.ServerInfo, "x"); err != nil {
		t.Error(err)
	}
	_, stopped := peer.start(t, grpcPeerCommand{Op: "stop"})
	eventually(t, func() bool {
		_, err := doCall(t.Context(), tr, peer.ServerInfo, "x")
		if err != nil && !errors.Is(err, pitaya.ErrUnreachable) {
			t.Errorf("new call: %v", err)
		}
		return err != nil
	})
	peer.do(t, grpcPeerCommand{Op: "release"})
	if r := <-c; string(r.body) != "released" || r.err != nil {
		t.Errorf("call under way: %q, %v", r.body, r.err)
	}
	<-stopped
}

func testGRPCInteropServer(t *testing.T, peer *grpcPeer) {
	cancelled := make(chan func([]byte), 1)
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{
		call: func(body []byte, reply func([]byte)) {
			switch string(body) {
			case "wait":
			case "cancel":
				cancelled <- reply
			case "drop":
				reply(nil)
			case "big":
				reply(make([]byte, pitaya.GRPCMaxMessage+1))
			default:
				go reply(body)
			}
		},
		notice: func(n *pitaya.Notice, reply func([]byte, error)) {
			if n.UID == "u-2" {
				reply(nil, errors.New("100% nobody\nthere"))
				return
			}
			reply(nil, nil)
		},
	}, nil)
	for _, uid := range []string{"u-1", "u-2"} {
		if err := srv.Bind(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	const call = "/protos.Pitaya/Call"
	large := bytes.Repeat([]byte("x"), pitaya.GRPCMaxMessage)
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name    string
		path    string
		body    []byte
		time    time.Duration
		code    uint32
		message string
		want    []byte
	}{
		{name: "echo", body: []byte("abc"), want: []byte("abc")},
		{name: "with a deadline", body: []byte("abc"), time: time.Minute, want: []byte("abc")},
		{name: "empty", want: nil},
		{name: "largest", body: large, want: large},
		{name: "too large", body: append(large[:len(large):len(large)], 'x'), code: 8},
		{name: "too large an answer", body: []byte("big"), code: 8},
		{name: "deadline", body: []byte("wait"), time: 30 * time.Millisecond, code: 4},
		{name: "dropped", body: []byte("drop"), time: time.Hour, code: 13},
		{name: "unknown method", path: "/protos.Pitaya/Nope", code: 12, message: `unknown method "/protos.Pitaya/Nope"`},
		{name: "unknown service", path: "/other.Service/Call", code: 12},
		{name: "health", path: "/grpc.health.v1.Health/Check", want: []byte{8, 1}},
		{name: "push", path: "/protos.Pitaya/PushToUser", body: marshal(&pb.Push{Route: "r", Uid: "u-1"}), want: marshal(&pb.Response{Data: []byte("ack")})},
		{name: "kick", path: "/protos.Pitaya/KickUser", body: marshal(&pb.KickMsg{UserId: "u-1"}), want: marshal(&pb.KickAnswer{Kicked: true})},
		{name: "bind", path: "/protos.Pitaya/SessionBindRemote", body: marshal(&pb.BindMsg{Uid: "u-1", Fid: "f"}), want: marshal(&pb.Response{Data: []byte("ack")})},
		{name: "refused", path: "/protos.Pitaya/PushToUser", body: marshal(&pb.Push{Uid: "u-2"}), code: 2, message: "100% nobody\nthere"},
		{name: "not bound", path: "/protos.Pitaya/KickUser", body: marshal(&pb.KickMsg{UserId: "u-3"}), code: 2, message: `user "u-3" is not bound here`},
		{name: "garbage", path: "/protos.Pitaya/PushToUser", body: []byte{0xff}, code: 13},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := call
			if tt.path != "" {
				path = tt.path
			}
			got := peer.do(t, grpcPeerCommand{Op: "invoke", Addr: addrOf(to), Path: path, Body: tt.body, Time: tt.time})
			if got.Code != tt.code || !bytes.Equal(got.Body, tt.want) || tt.message != "" && got.Message != tt.message {
				t.Errorf("code %d, %q, %d bytes, want %d, %q, %d", got.Code, got.Message, len(got.Body), tt.code, tt.message, len(tt.want))
			}
		})
	}
	t.Run("cancel", func(t *testing.T) {
		id, c := peer.start(t, grpcPeerCommand{Op: "invoke", Addr: addrOf(to), Path: call, Body: []byte("cancel")})
		reply := <-cancelled
		peer.do(t, grpcPeerCommand{Op: "cancel", Call: id})
		if r := <-c; r.Code != 1 {
			t.Errorf("%+v", r)
		}
		reply([]byte("late"))
	})
	t.Run("parallel", func(t *testing.T) {
		var results []<-chan grpcPeerResult
		for i := range 200 {
			_, c := peer.start(t, grpcPeerCommand{Op: "invoke", Addr: addrOf(to), Path: call, Body: fmt.Append(nil, "call ", i)})
			results = append(results, c)
		}
		for i, c := range results {
			if r := <-c; string(r.Body) != fmt.Sprint("call ", i) || r.Code != 0 {
				t.Errorf("call %d: %+v", i, r)
			}
		}
	})
}

// testGRPCInteropDrain drains and closes our server below a grpc-go client.
func testGRPCInteropDrain(t *testing.T, peer *grpcPeer) {
	arrived := make(chan func([]byte), 1)
	srv, to := openGRPC(t, "room-1", pitaya.GRPCConfig{}, grpcHandler{call: func(_ []byte, reply func([]byte)) { arrived <- reply }}, nil)
	invoke := grpcPeerCommand{Op: "invoke", Addr: addrOf(to), Path: "/protos.Pitaya/Call"}
	_, held := peer.start(t, invoke)
	first := <-arrived
	_, open := peer.start(t, invoke)
	<-arrived
	if err := srv.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if r := peer.do(t, invoke); r.Code != 14 {
		t.Errorf("new call: %+v", r)
	}
	first(bytes.Repeat([]byte("x"), 1<<20))
	if err := srv.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if r := <-held; len(r.Body) != 1<<20 || r.Code != 0 {
		t.Errorf("call that was answered: code %d, %s", r.Code, r.Message)
	}
	if r := <-open; r.Code != 13 { // for grpc-go, a stream that was reset
		t.Errorf("call that was not: code %d, %s", r.Code, r.Message)
	}
}
