// Command cluster is a frontend or a backend made with the library, through its public API and with metrics off, for the
// benchmarks of forwarded requests.
//
//	cluster -type room                    a backend
//	cluster -type gate -frontend          a frontend, which prints the address that it listens on
//
// The backend has these handlers:
//
//	room.room.echo      JSON: a struct with two texts, both ways
//	room.room.echoraw   bytes, which no serializer touches
//
// Calls go over NATS (-nats URL) or, without that, over gRPC. Discovery is the benchmark's own and costs nothing: a server
// prints its entry as a line "entry JSON", and is told of the others by the same JSON, a line for each, on its standard
// input. When that ends, the server does.
package main

import (
	"bufio"
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
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/bench/internal/program"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("cluster: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cfg := pitaya.Config{Cluster: true, Logger: program.Logger()}
	flag.StringVar(&cfg.Type, "type", "room", "`type` of the server")
	flag.BoolVar(&cfg.Frontend, "frontend", false, "take clients")
	url := flag.String("nats", "", "`address` of NATS; empty is gRPC")
	delay := flag.Duration("delay", 0, "how `long` the handlers take")
	remoteMessages := flag.Int("remote-messages", 0, "`messages` of one session under way at once; 0 is the library's default")
	profile := flag.String("cpuprofile", "", "`file` for a profile of the processor, from the start to the end")
	flag.Parse()
	cfg.ID = cfg.Type + "-1"
	cfg.RemoteMessages = *remoteMessages
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	peers := &peers{end: stop}
	cfg.Discovery = peers
	if err := program.Connect(&cfg, *url, 0); err != nil {
		return err
	}
	var clients net.Listener
	if cfg.Frontend {
		var err error
		if clients, err = pitaya.ListenTCP("127.0.0.1:0", nil); err != nil {
			return err
		}
		cfg.Listeners = []net.Listener{clients}
	}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	if err := s.Register(&Room{delay: *delay}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)); err != nil {
		return err
	}
	stopProfile, err := program.Profile(*profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	if clients != nil {
		go func() {
			select {
			case <-s.Ready():
				fmt.Println("tcp", clients.Addr())
			case <-ctx.Done():
			}
		}()
	}
	return s.Run(ctx)
}

// Room has the handlers.
type Room struct {
	pitaya.Base
	delay time.Duration
}

// Line is what is echoed.
type Line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// Echo answers with its argument.
func (r *Room) Echo(ctx context.Context, in *Line) (*Line, error) {
	r.wait()
	return in, nil
}

// EchoRaw answers with its argument.
func (r *Room) EchoRaw(ctx context.Context, in []byte) ([]byte, error) {
	r.wait()
	return in, nil
}

func (r *Room) wait() {
	if r.delay > 0 {
		time.Sleep(r.delay)
	}
}

// peers is a [pitaya.Discovery] that is told of others on the standard input.
type peers struct {
	end func() // called when the standard input ends

	mu    sync.Mutex // guards the field below, and is held while it is called
	watch func(pitaya.DiscoveryEvent)
}

// Join implements [pitaya.Discovery].
func (p *peers) Join(_ context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	entry, err := json.Marshal(self)
	if err != nil {
		return err
	}
	fmt.Printf("entry %s\n", entry)
	watch(pitaya.DiscoveryEvent{Change: pitaya.ServerJoined, Server: self})
	p.watch = watch
	go p.read(os.Stdin)
	return nil
}

// read reads the entries of others until there are no more.
func (p *peers) read(r io.Reader) {
	defer p.end()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		other := new(pitaya.ServerInfo)
		if err := json.Unmarshal(lines.Bytes(), other); err != nil {
			log.Print(err)
			return
		}
		p.tell(pitaya.DiscoveryEvent{Change: pitaya.ServerJoined, Server: other})
	}
	if err := lines.Err(); err != nil {
		log.Print(err)
	}
}

func (p *peers) tell(e pitaya.DiscoveryEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch != nil {
		p.watch(e)
	}
}

// Update implements [pitaya.Discovery]. Nobody is told.
func (p *peers) Update(context.Context, *pitaya.ServerInfo) error { return nil }

// Leave implements [pitaya.Discovery].
func (p *peers) Leave(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = nil
	return nil
}

// Healthy implements [pitaya.Discovery].
func (p *peers) Healthy() error { return nil }
