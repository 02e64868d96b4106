// Command server is a server made with the library, through its public API and with metrics off, for the benchmarks: it
// has the testing server's handlers that echo and that push to a group.
//
//	connector.interopsvc.echo        JSON: a struct with two texts, both ways
//	connector.interopsvc.echoproto   the same as a protobuf message with one text (with -serializer protobuf)
//	connector.interopsvc.echoraw     bytes, which no serializer touches
//	connector.interopsvc.join        makes the connection a member of a group
//	connector.interopsvc.broadcast   pushes to the group: so many times, so many bytes
//
// It prints the addresses that it listens on, and ends when its standard input does. SIGUSR1 collects garbage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("server: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cfg := pitaya.Config{Type: "connector", Frontend: true, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	profile := flag.String("cpuprofile", "", "`file` for a profile of the processor, from the start to the end")
	serializer := flag.String("serializer", "json", "`json` or protobuf")
	flag.Parse()
	if *serializer == "protobuf" {
		cfg.Serializer = pitaya.Protobuf{}
	}
	tcp, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	ws, err := pitaya.ListenWS("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	cfg.Listeners = []net.Listener{tcp, ws}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	svc := &Bench{group: s.Group("all")}
	defer svc.broadcasts.Wait()
	err = errors.Join(
		svc.group.Create(context.Background(), 0),
		s.Register(svc, pitaya.WithName("interopsvc"), pitaya.WithNameFunc(strings.ToLower)),
	)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	svc.life = ctx
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	go collectOnSignal(ctx)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	fmt.Println("tcp", tcp.Addr(), "ws", ws.Addr())
	return s.Run(ctx)
}

// Bench has the handlers.
type Bench struct {
	pitaya.Base
	group      *pitaya.Group
	users      atomic.Int64
	life       context.Context // of the broadcasts, which go on after their answer
	broadcasts sync.WaitGroup
}

// Line is what is echoed and pushed.
type Line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Echo answers with its argument.
func (*Bench) Echo(ctx context.Context, in *Line) (*Line, error) { return in, nil }

// EchoProto answers with its argument.
func (*Bench) EchoProto(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return in, nil
}

// EchoRaw answers with its argument.
func (*Bench) EchoRaw(ctx context.Context, in []byte) ([]byte, error) { return in, nil }

// Join makes the session a member of the group, until it ends.
func (s *Bench) Join(ctx context.Context) ([]byte, error) {
	session := pitaya.SessionFromContext(ctx)
	uid := strconv.FormatInt(s.users.Add(1), 10)
	if err := session.Bind(ctx, uid); err != nil {
		return nil, err
	}
	if err := s.group.Add(ctx, uid); err != nil {
		return nil, err
	}
	return []byte(`{}`), session.OnClose(func() { s.group.Remove(s.life, uid) })
}

// Round is the argument of Broadcast.
type Round struct {
	Count int `json:"count"` // of pushes to each member
	Size  int `json:"size"`  // of each, in bytes
}

// Broadcast pushes to all members. The answer does not wait for that.
func (s *Bench) Broadcast(ctx context.Context, in *Round) ([]byte, error) {
	line := &Line{Name: "n"}
	line.Content = strings.Repeat("x", max(in.Size-len(`{"name":"n","content":""}`), 0))
	s.broadcasts.Go(func() {
		for range in.Count {
			s.group.Broadcast(s.life, "", "onbroadcast", line)
		}
	})
	return []byte(`{}`), nil
}
