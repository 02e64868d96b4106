package main

import (
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// Whoever writes a serializer finds most of its mistakes with the suite.
func TestCompact(t *testing.T) {
	pitayatest.TestSerializer(t, pitayatest.SerializerOptions{
		Serializer: Compact{},
		Values: []any{
			&Move{X: -300, Y: 1200},
			&struct{ Name string }{"without a binary form"},
		},
		Garbage: [][]byte{[]byte(`{"x":1`), {1, 2, 3}, {1, 2, 3, 4, 5}},
	})
}

// The program as it is used.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0")
	addr := server.Expect(`examples/serializer -connect (\S+)`)[1]
	got := exampletest.Run(t, run, "-connect", addr)
	const want = "sent fe d4 02 bc, moved to -300,700\nsent fe d4 04 b0, refused with WORLD-EDGE: the world ends at 1000\n"
	if got != want {
		t.Errorf("the client printed\n%s\nwant\n%s", got, want)
	}
}

// A client without the serializer does not take the server's messages for something else.
func TestOtherClient(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0")
	addr := server.Expect(`examples/serializer -connect (\S+)`)[1]
	if c, err := pitaya.Dial(t.Context(), "tcp://"+addr, nil); err == nil {
		c.Close()
		t.Error("a client with the serializers of the library got in")
	}
}
