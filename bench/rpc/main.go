// Command rpc calls from one server to another, for the benchmarks of calls: by the library, and by what they are measured
// with.
//
//	rpc -by pitaya [-nats URL] callee     a server of the library with a remote that answers with its argument
//	rpc -by pitaya [-nats URL] caller     a server of the library that calls it
//	rpc -by plain [-nats URL] callee      Subscribe and Respond of nats.go; without -nats a server of grpc-go
//	rpc -by plain [-nats URL] caller      Request of nats.go; without -nats unary calls of grpc-go
//
// The plain ones send the bytes that the library's have on the wire, as they are.
//
// The callee prints a line of JSON that the caller is given by -callee. The caller calls, -inflight at a time, until its
// standard input ends, and prints how many calls it has made for each line that it reads there.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/bench/internal/program"
	"github.com/pitaya-go/pitaya/internal/pb"
)

const (
	payloadBytes = 64
	route        = "room.room.echo"
	plainSubject = "bench.rpc"
	plainMethod  = "/bench.Echo/Echo"
	timeout      = 5 * time.Second
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("rpc: ")
	var o options
	flag.StringVar(&o.by, "by", "pitaya", "`pitaya` or plain")
	flag.StringVar(&o.nats, "nats", "", "`address` of NATS; empty is gRPC")
	flag.StringVar(&o.callee, "callee", "{}", "the `line` that the callee has printed")
	flag.IntVar(&o.inflight, "inflight", 50, "`calls` at a time")
	profile := flag.String("cpuprofile", "", "`file` for a profile of the processor, from the start to the end")
	flag.Parse()
	stopProfile, err := program.Profile(*profile)
	if err != nil {
		log.Fatal(err)
	}
	defer stopProfile()
	if err := o.run(flag.Arg(0)); err != nil {
		log.Print(err)
	}
}

type options struct {
	by, nats, callee string
	inflight         int
}

func (o *options) run(role string) error {
	type end struct {
		callee func() (line any, close func(), err error)
		caller func(to *pitaya.ServerInfo) (call func() error, close func(), err error)
	}
	ends := map[string]end{
		"pitaya":     {o.pitayaCallee, o.pitayaCaller},
		"plain nats": {o.natsCallee, o.natsCaller},
		"plain":      {o.grpcCallee, o.grpcCaller},
	}
	by := o.by
	if by == "plain" && o.nats != "" {
		by = "plain nats"
	}
	e, ok := ends[by]
	if !ok {
		return fmt.Errorf("calls by %q", o.by)
	}
	switch role {
	case "callee":
		line, end, err := e.callee()
		if err != nil {
			return err
		}
		defer end()
		b, err := json.Marshal(line)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", b)
		io.Copy(io.Discard, os.Stdin)
		return nil
	case "caller":
		to := new(pitaya.ServerInfo)
		if err := json.Unmarshal([]byte(o.callee), to); err != nil {
			return err
		}
		call, end, err := e.caller(to)
		if err != nil {
			return err
		}
		defer end()
		return o.load(call)
	}
	return fmt.Errorf("%q is neither caller nor callee", role)
}

// load makes calls until the standard input ends or one of them fails.
func (o *options) load(call func() error) error {
	var made atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range o.inflight {
		wg.Go(func() {
			for !stop.Load() {
				if err := call(); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				made.Add(1)
			}
		})
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := failed.Load(); err != nil {
			fmt.Println("failed:", *err)
			continue
		}
		fmt.Println(made.Load())
	}
	stop.Store(true)
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return lines.Err()
}

// Envelopes of a call as the library sends it, so that the plain ones carry as many bytes.
func request() ([]byte, error) {
	arg, err := proto.Marshal(argument())
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.Request{
		Type:       pb.RPCType_User,
		Msg:        &pb.Msg{Route: route, Data: arg},
		FrontendID: "caller-1",
		Metadata:   []byte(`{"peer.id":"caller-1","peer.service":"caller","reqTimeout":"5s"}`),
	})
}

func response() ([]byte, error) {
	arg, err := proto.Marshal(argument())
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.Response{Data: arg})
}

func argument() *wrapperspb.StringValue { return wrapperspb.String(strings.Repeat("x", payloadBytes)) }

// natsCallee answers by nats.go.
func (o *options) natsCallee() (any, func(), error) {
	answer, err := response()
	if err != nil {
		return nil, nil, err
	}
	nc, err := nats.Connect(o.nats)
	if err != nil {
		return nil, nil, err
	}
	if _, err := nc.Subscribe(plainSubject, func(m *nats.Msg) { m.Respond(answer) }); err != nil {
		return nil, nil, err
	}
	return struct{}{}, nc.Close, nc.Flush()
}

func (o *options) natsCaller(*pitaya.ServerInfo) (func() error, func(), error) {
	body, err := request()
	if err != nil {
		return nil, nil, err
	}
	nc, err := nats.Connect(o.nats)
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		_, err := nc.Request(plainSubject, body, timeout)
		return err
	}, nc.Close, nil
}

// grpcCallee answers by grpc-go.
func (o *options) grpcCallee() (any, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	b, err := response()
	if err != nil {
		return nil, nil, err
	}
	answer := wrapperspb.Bytes(b[2:]) // the tag and the length are its own
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return answer, decode(new(wrapperspb.BytesValue))
			},
		}},
	}, nil)
	go s.Serve(l)
	return pitaya.ServerInfo{ID: "callee-1", Hostname: l.Addr().String()}, s.Stop, nil
}

func (o *options) grpcCaller(to *pitaya.ServerInfo) (func() error, func(), error) {
	b, err := request()
	if err != nil {
		return nil, nil, err
	}
	body := wrapperspb.Bytes(b[2:])
	cc, err := grpc.NewClient(to.Hostname, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		return cc.Invoke(ctx, plainMethod, body, new(wrapperspb.BytesValue))
	}, func() { cc.Close() }, nil
}

// Room has the remote.
type Room struct{ pitaya.Base }

// Echo answers with its argument.
func (*Room) Echo(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return in, nil
}

// start runs a server of the library. others is who else is in the cluster.
func (o *options) start(serverType string, frontend bool, others ...*pitaya.ServerInfo) (*pitaya.Server, *pitaya.ServerInfo, func(), error) {
	d := &peers{others: others}
	cfg := pitaya.Config{Type: serverType, ID: serverType + "-1", Frontend: frontend, Cluster: true, Logger: program.Logger(), Discovery: d}
	if err := program.Connect(&cfg, o.nats, timeout); err != nil {
		return nil, nil, nil, err
	}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := s.RegisterRemote(&Room{}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)); err != nil {
		return nil, nil, nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case err := <-ended:
		stop()
		return nil, nil, nil, cmp.Or(err, context.Canceled)
	case <-s.Ready():
	}
	return s, d.self, func() {
		stop()
		if err := <-ended; err != nil {
			log.Print(err)
		}
	}, nil
}

func (o *options) pitayaCallee() (any, func(), error) {
	_, self, end, err := o.start("room", false)
	return self, end, err
}

func (o *options) pitayaCaller(to *pitaya.ServerInfo) (func() error, func(), error) {
	s, _, end, err := o.start("caller", true, to)
	if err != nil {
		return nil, nil, err
	}
	arg := argument()
	return func() error {
		var reply wrapperspb.StringValue
		if err := s.RPC(context.Background(), route, &reply, arg); err != nil {
			return err
		}
		if len(reply.Value) != payloadBytes {
			return fmt.Errorf("answer of %d bytes", len(reply.Value))
		}
		return nil
	}, end, nil
}

// peers is a [pitaya.Discovery] that knows the others from the start.
type peers struct {
	others []*pitaya.ServerInfo
	self   *pitaya.ServerInfo
}

// Join implements [pitaya.Discovery].
func (p *peers) Join(_ context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	p.self = self
	for _, s := range append(p.others, self) {
		watch(pitaya.DiscoveryEvent{Change: pitaya.ServerJoined, Server: s})
	}
	return nil
}

// Update implements [pitaya.Discovery]. Nobody is told.
func (p *peers) Update(context.Context, *pitaya.ServerInfo) error { return nil }

// Leave implements [pitaya.Discovery].
func (p *peers) Leave(context.Context) error { return nil }

// Healthy implements [pitaya.Discovery].
func (p *peers) Healthy() error { return nil }
