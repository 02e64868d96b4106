// Command server is a server made with the library, through its public API and with metrics off, for the benchmarks: it
// has the testing server's handlers that echo and that push to a group.
//
//	connector.interopsvc.echo        JSON: a struct with two texts, both ways
//	connector.interopsvc.echoproto   a protobuf message with one text (with -serializer protobuf)
//	connector.interopsvc.echoraw     bytes, which no serializer touches
//	connector.reflected.echo         echo, as a method that was found by reflection (Server.Register)
//	connector.reflected.echoraw      echoraw, likewise
//	connector.interopsvc.join        makes the connection a member of a group
//	connector.interopsvc.broadcast   pushes to the group: so many times, so many bytes
//
// It prints the addresses that it listens on, and ends when its standard input does. For each line there it prints how
// many goroutines it has. SIGUSR1 collects garbage.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/bench/internal/program"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("server: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cfg := pitaya.Config{Type: "connector", Frontend: true, Logger: program.Logger()}
	profile := flag.String("cpuprofile", "", "`file` for a profile of the processor, from the start to the end")
	serializer := flag.String("serializer", "json", "`json` or protobuf")
	flag.DurationVar(&cfg.Heartbeat, "heartbeat", 0, "`interval` of heartbeats; 0 is that of the library")
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
	svc := &service{group: s.Group("all")}
	defer svc.broadcasts.Wait()
	const prefix = "connector.interopsvc."
	err = errors.Join(
		svc.group.Create(context.Background(), 0),
		pitaya.Handle(s, prefix+"echo", func(ctx context.Context, in *Line) (*Line, error) { return in, nil }),
		pitaya.Handle(s, prefix+"echoproto", func(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			return in, nil
		}),
		pitaya.HandleRaw(s, prefix+"echoraw", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }),
		pitaya.HandleRaw(s, prefix+"join", svc.join),
		pitaya.HandleRaw(s, prefix+"broadcast", svc.broadcast),
		s.Register(&Reflected{}, pitaya.WithNameFunc(strings.ToLower), pitaya.WithName("reflected")),
	)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	svc.life = ctx
	stopProfile, err := program.Profile(*profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	go collectOnSignal(ctx)
	go func() {
		defer stop()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println("goroutines", runtime.NumGoroutine())
		}
	}()
	fmt.Println("tcp", tcp.Addr(), "ws", ws.Addr())
	return s.Run(ctx)
}

// service has the handlers of the group.
type service struct {
	group      *pitaya.Group
	users      atomic.Int64
	life       context.Context // of the broadcasts, which go on after their answer
	broadcasts sync.WaitGroup
}

// join makes the session a member of the group, until it ends.
func (s *service) join(ctx context.Context, in []byte) ([]byte, error) {
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

// broadcast pushes to all members, as often and as much as its argument says. The answer does not wait for that.
func (s *service) broadcast(ctx context.Context, in []byte) ([]byte, error) {
	var round struct {
		Count int `json:"count"` // of pushes to each member
		Size  int `json:"size"`  // of each, in bytes
	}
	if err := json.Unmarshal(in, &round); err != nil {
		return nil, err
	}
	line := &Line{Name: "n"}
	line.Content = strings.Repeat("x", max(round.Size-len(`{"name":"n","content":""}`), 0))
	s.broadcasts.Go(func() {
		for range round.Count {
			s.group.Broadcast(s.life, "", "onbroadcast", line)
		}
	})
	return []byte(`{}`), nil
}

// Line is what is echoed and pushed.
type Line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Reflected has handlers that are found by reflection.
type Reflected struct{ pitaya.Base }

// Echo answers with its argument.
func (*Reflected) Echo(ctx context.Context, in *Line) (*Line, error) { return in, nil }

// EchoRaw answers with its argument.
func (*Reflected) EchoRaw(ctx context.Context, in []byte) ([]byte, error) { return in, nil }
