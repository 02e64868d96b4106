package pitaya_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"

	"github.com/pitaya-go/pitaya"
)

// Gob is a serializer for clients that are written in Go.
type Gob struct{}

func (Gob) Name() string { return "gob" }

func (Gob) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func (Gob) Unmarshal(data []byte, v any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

// Clients learn the name of the serializer in the handshake, and must use the
// same one.
func ExampleSerializer() {
	mem := pitaya.ListenMem()
	server, err := pitaya.NewServer(pitaya.Config{Frontend: true, Serializer: Gob{}, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := server.Register(&Hello{}); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	go server.Serve(mem) // beside Config.Listeners

	conn, err := mem.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := pitaya.NewClient(ctx, conn, &pitaya.ClientConfig{Serializer: Gob{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.Handshake().Sys.Serializer)
	var reply Greeting
	err = client.Request(ctx, "Hello.Greet", Greeting{"Ann"}, &reply)
	fmt.Println(reply.Text, err)
	stop()
	<-ended
	// Output:
	// gob
	// Hello, Ann! <nil>
}
