// Command grpcpeer is the other end in tests of the gRPC transport: a server and a client made with grpc-go, as Pitaya's
// servers are. It listens on a free port of the loopback interface and prints its address as a line of JSON; then it
// executes commands, each a line of JSON, and answers each with one, in any order. It ends with its standard input.
//
// Messages are bytes to it. What its handlers do is said in front of the message: see [server.answer].
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// A command is a line of the standard input. Which fields matter depends on Op.
type command struct {
	ID   int
	Op   string        // invoke, cancel, release, stop, stats
	Addr string        // invoke: of the server
	Path string        // invoke: of the method
	Body []byte        // invoke
	Time time.Duration // invoke: until the deadline; 0 for none
	Call int           // cancel: ID of the invoke
}

// A result is the answer to the command of the same ID.
type result struct {
	ID      int
	Code    uint32   // invoke: status
	Message string   // invoke: text of the status
	Body    []byte   // invoke
	Server  []string // invoke: metadata of the answer, as key=value
	Conns   int64    // stats: connections accepted so far
	Unknown int64    // stats: calls of methods that there are not
	Ended   int64    // stats: handlers whose context ended first
}

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("grpcpeer: ", err)
	}
}

func run() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &server{release: make(chan struct{})}
	g := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.StatsHandler(s), grpc.UnknownServiceHandler(s.unknown))
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "protos.Pitaya",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Call", Handler: s.handle},
			{MethodName: "PushToUser", Handler: s.handle},
			{MethodName: "SessionBindRemote", Handler: s.handle},
			{MethodName: "KickUser", Handler: s.handle},
		},
	}, s)
	go g.Serve(l)
	defer g.Stop()

	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"Addr": l.Addr().String()}); err != nil {
		return err
	}
	var mu sync.Mutex // guards out
	c := &client{conns: make(map[string]*grpc.ClientConn), calls: make(map[int]context.CancelFunc)}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var cmd command
		if err := json.Unmarshal(line, &cmd); err != nil {
			return err
		}
		do := func() result { return result{} }
		switch cmd.Op {
		case "invoke":
			if do, err = c.invoke(cmd); err != nil {
				return err
			}
		case "cancel":
			c.cancel(cmd.Call)
		case "release":
			close(s.release)
		case "stop":
			do = func() result { g.GracefulStop(); return result{} }
		case "stats":
			do = func() result {
				return result{Conns: s.conns.Load(), Unknown: s.unknowns.Load(), Ended: s.ended.Load()}
			}
		default:
			return fmt.Errorf("command %q", cmd.Op)
		}
		go func() {
			r := do()
			r.ID = cmd.ID
			mu.Lock()
			defer mu.Unlock()
			out.Encode(r)
		}()
	}
}

// codec passes messages as they are.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// server is the service, and counts.
type server struct {
	release                chan struct{}
	conns, unknowns, ended atomic.Int64
}

func (s *server) handle(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var body []byte
	if err := decode(&body); err != nil {
		return nil, err
	}
	answer, err := s.answer(ctx, body)
	return &answer, err
}

// answer does what the message says:
//
//	error TEXT     fails with TEXT
//	status N TEXT  fails with the status N
//	big N          answers with N bytes
//	timeout        answers with what is left until the deadline
//	headers        answers with the metadata of the request
//	wait           answers when the command "release" comes
//	anything else  comes back
func (s *server) answer(ctx context.Context, body []byte) ([]byte, error) {
	verb, rest, _ := strings.Cut(string(body), " ")
	switch verb {
	case "error":
		return nil, fmt.Errorf("%s", rest)
	case "status":
		code, text, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(code, 10, 32)
		if err != nil {
			return nil, err
		}
		return nil, status.Error(codes.Code(n), text)
	case "big":
		n, err := strconv.Atoi(rest)
		if err != nil {
			return nil, err
		}
		return make([]byte, n), nil
	case "timeout":
		deadline, ok := ctx.Deadline()
		if !ok {
			return []byte("none"), nil
		}
		return []byte(time.Until(deadline).String()), nil
	case "headers":
		md, _ := metadata.FromIncomingContext(ctx)
		return json.Marshal(md)
	case "wait":
		select {
		case <-s.release:
			return []byte("released"), nil
		case <-ctx.Done():
			s.ended.Add(1)
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return body, nil
}

func (s *server) unknown(any, grpc.ServerStream) error {
	s.unknowns.Add(1)
	return status.Error(codes.Unimplemented, "unknown method")
}

func (s *server) HandleConn(_ context.Context, e stats.ConnStats) {
	if _, ok := e.(*stats.ConnBegin); ok {
		s.conns.Add(1)
	}
}

func (s *server) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *server) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *server) HandleRPC(context.Context, stats.RPCStats)                         {}

// client calls, over one connection for each address.
type client struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
	calls map[int]context.CancelFunc
}

func (c *client) invoke(cmd command) (func() result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cc := c.conns[cmd.Addr]
	if cc == nil {
		var err error
		cc, err = grpc.NewClient("passthrough:///"+cmd.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		c.conns[cmd.Addr] = cc
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.calls[cmd.ID] = cancel
	return func() result {
		defer cancel()
		if cmd.Time != 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, cmd.Time)
			defer stop()
		}
		var answer []byte
		var trailer metadata.MD
		err := cc.Invoke(ctx, cmd.Path, &cmd.Body, &answer, grpc.ForceCodecV2(codec{}), grpc.Trailer(&trailer))
		r := result{Code: uint32(status.Code(err)), Body: answer}
		if err != nil {
			r.Message = status.Convert(err).Message()
		}
		for k, values := range trailer {
			for _, v := range values {
				r.Server = append(r.Server, k+"="+v)
			}
		}
		return r
	}, nil
}

func (c *client) cancel(call int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.calls[call]; cancel != nil {
		cancel()
	}
}
