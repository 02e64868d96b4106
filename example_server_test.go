package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pitaya-go/pitaya"
)

// runExample runs a server until stop is called. The examples do without a
// network: dial connects a client to a listener in memory.
func runExample(cfg pitaya.Config, setUp func(s *pitaya.Server) error) (dial func() *pitaya.Client, stop func()) {
	mem := pitaya.ListenMem()
	cfg.Frontend = true
	cfg.Logger = discard
	s, err := pitaya.NewServer(cfg)
	if err == nil {
		err = errors.Join(s.AddListener(mem), setUp(s))
	}
	if err != nil {
		fmt.Println(err)
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	dial = func() *pitaya.Client {
		conn, err := mem.DialContext(ctx)
		if err != nil {
			fmt.Println(err)
			return nil
		}
		client, err := pitaya.NewClient(ctx, conn, nil)
		if err != nil {
			fmt.Println(err)
			return nil
		}
		return client
	}
	return dial, func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Println(err)
		}
	}
}

type Hello struct{ pitaya.Base }

type Greeting struct{ Text string }

func (*Hello) Greet(ctx context.Context, in *Greeting) (*Greeting, error) {
	return &Greeting{Text: "Hello, " + in.Text + "!"}, nil
}

// A whole server with a client. Only the listener is unlike that of a program,
// which has [pitaya.ListenTCP] or [pitaya.ListenWS] in its place.
func Example() {
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := errors.Join(server.AddListener(mem), server.Register(&Hello{})); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	conn, err := mem.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := pitaya.NewClient(ctx, conn, nil) // or pitaya.Dial
	if err != nil {
		fmt.Println(err)
		return
	}
	var reply Greeting
	err = client.Request(ctx, "game.Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(reply.Text, err)

	stop()
	fmt.Println(<-ended)
	// Output:
	// Hello, Ann! <nil>
	// <nil>
}

// Mistakes come back from the call that makes them, all at once, and again from
// Run.
func ExampleServer_Run() {
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	server.Register(&Hello{}, pitaya.WithName("hello"))
	server.Register(&Hello{}, pitaya.WithName("hello"))
	fmt.Println(server.Run(context.Background()))
	// Output:
	// pitaya: register *pitaya_test.Hello: there is a service with the name "hello" already
}

// Routes in the dictionary take two bytes on the wire.
func ExampleServer_SetDictionary() {
	dial, stop := runExample(pitaya.Config{Type: "game"}, func(s *pitaya.Server) error {
		return errors.Join(
			s.Register(&Hello{}),
			s.SetDictionary(map[string]uint16{"game.Hello.Greet": 1}),
		)
	})
	defer stop()

	client := dial()
	fmt.Println(client.Handshake().Sys.Dict)
	var reply Greeting
	err := client.Request(context.Background(), "game.Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(reply.Text, err)
	// Output:
	// map[game.Hello.Greet:1]
	// Hello, Ann! <nil>
}

// Validators look at what clients say about themselves when they connect.
func ExampleServer_AddHandshakeValidator() {
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = errors.Join(
		server.AddListener(mem),
		server.AddHandshakeValidator("version", func(h *pitaya.HandshakeData) error {
			if h.Sys.Version != "2.0" {
				return errors.New("please update to version 2.0")
			}
			return nil
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	for _, version := range []string{"1.0", "2.0"} {
		conn, err := mem.DialContext(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		_, err = pitaya.NewClient(ctx, conn, &pitaya.ClientConfig{
			Handshake: &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Version: version}},
		})
		fmt.Println(version, err)
	}
	stop()
	<-ended
	// Output:
	// 1.0 pitaya: server refused the handshake with code 400: please update to version 2.0
	// 2.0 <nil>
}

// Guest is an argument whose field has a name for clients.
type Guest struct {
	Name string `json:"name"`
}

// What a server offers, for tools and for those who write clients.
func ExampleServer_Documentation() {
	server, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = pitaya.Handle(server, "door.knock", func(ctx context.Context, in *Guest) (*[]Guest, error) {
		return &[]Guest{*in}, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	docs, err := server.Documentation(false)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := json.Marshal(docs["handlers"])
	fmt.Println(string(text), err)

	// The same as pages, which are the same for the same routes.
	markdown, err := server.DocsMarkdown()
	fmt.Println(bytes.Contains(markdown, []byte("game.door.knock")), err)
	html, err := server.DocsHTML()
	fmt.Println(bytes.Contains(html, []byte("game.door.knock")), err)

	// Of protobuf messages tools can get the description.
	file, err := pitaya.Descriptor("google.protobuf.StringValue")
	fmt.Println(len(file) > 0, err)
	// Output:
	// {"game.door.knock":{"input":{"name":"string"},"output":[[{"name":"string"}],"error"]}} <nil>
	// true <nil>
	// true <nil>
	// true <nil>
}
