package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pitaya-go/pitaya"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The other end of a server, for tests, bots and tools. A program connects with
// Dial, to an address of the schemes tcp, tls, ws and wss.
func ExampleClient() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error { return s.Register(&Hello{}) })
	ctx := context.Background()
	client := dial()
	fmt.Println(client.Serializer().Name(), client.Handshake().Code)

	// Errors of the server have its codes, and do not end the connection.
	err := client.Request(ctx, "Hello.Nobody", nil, nil)
	fmt.Println(pitaya.ErrorCode(err) == pitaya.CodeNotFound)
	var reply Greeting
	err = client.Request(ctx, "Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(reply.Text, err)

	// Done is closed when it ends, whoever ended it, and Err says why.
	stop()
	<-client.Done()
	fmt.Println(errors.Is(client.Err(), io.EOF))
	err = client.Request(ctx, "Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(err != nil)
	// Output:
	// json 200
	// true
	// Hello, Ann! <nil>
	// true
	// true
}

// Why a server does not let somebody in, it says in its answer to the handshake.
func ExampleHandshakeError() {
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard, Listeners: []net.Listener{l}})
	if err != nil {
		fmt.Println(err)
		return
	}
	server.AddHandshakeValidator("closed", func(*pitaya.HandshakeData) error { return errors.New("closed until noon") })
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()

	_, err = pitaya.Dial(ctx, "tcp://"+l.Addr().String(), nil)
	var refused *pitaya.HandshakeError
	if errors.As(err, &refused) {
		fmt.Println(refused.Code, refused.Msg)
	}
	stop()
	<-ended
	// Output:
	// 400 closed until noon
}

// With protobuf, arguments and results are messages, and all else is as with
// JSON. The client learns from the server which of the two it is.
func ExampleProtobuf() {
	dial, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		return errors.Join(
			s.SetSerializer(pitaya.Protobuf{}), // or Config.Serializer, or the setting serializertype
			pitaya.Handle(s, "text.twice", func(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
				return wrapperspb.String(in.Value + in.Value), nil
			}),
		)
	})
	defer stop()
	client := dial()
	var out wrapperspb.StringValue
	err := client.Request(context.Background(), "text.twice", wrapperspb.String("ab"), &out)
	fmt.Println(client.Serializer().Name(), out.Value, err)
	// Output:
	// protobuf abab <nil>
}

// Serializers work without a server too.
func ExampleJSON() {
	payload, err := pitaya.JSON{}.Marshal(Greeting{"Ann"})
	fmt.Println(string(payload), err)
	var greeting Greeting
	err = pitaya.JSON{}.Unmarshal([]byte(`{"Text":"Bob"}`), &greeting)
	fmt.Println(greeting.Text, err)
	// Output:
	// {"Text":"Ann"} <nil>
	// Bob <nil>
}

// The end of a server: what was asked for is answered, and connections are
// closed. It returns when that is done, or when its time is over.
func ExampleServer_Shutdown() {
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Logger: discard, Listeners: []net.Listener{mem}})
	if err != nil {
		fmt.Println(err)
		return
	}
	begun, end := make(chan struct{}), make(chan struct{})
	pitaya.Handle(server, "match.play", func(ctx context.Context, _ *struct{}) (*string, error) {
		close(begun)
		<-end
		return new("you win"), nil
	})
	fmt.Println(server.Healthy() != nil, server.IsRunning())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(context.Background()) }()
	<-server.Ready()
	fmt.Println(server.Healthy(), server.IsRunning())
	fmt.Println(errors.Is(server.Run(context.Background()), pitaya.ErrServerRunning))

	conn, err := mem.DialContext(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := pitaya.NewClient(context.Background(), conn, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	result := make(chan string)
	go func() {
		var text string
		err := client.Request(context.Background(), "match.play", struct{}{}, &text)
		result <- fmt.Sprint(text, " ", err)
	}()
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stopped := make(chan error)
	go func() { stopped <- server.Shutdown(ctx) }()
	close(end)
	fmt.Println(<-result)
	fmt.Println(<-stopped, <-ended)
	fmt.Println(errors.Is(server.Serve(mem), pitaya.ErrServerClosed))
	// Output:
	// true false
	// <nil> true
	// true
	// you win <nil>
	// <nil> <nil>
	// true
}
