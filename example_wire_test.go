package pitaya_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/pitaya-go/pitaya"
)

// A connection is a stream of packets, and the body of a data packet is a
// message. This is a request on its way, and what a server makes of it.
func ExampleAppendPacket() {
	message, err := pitaya.AppendMessage(nil, pitaya.Message{
		Type: pitaya.MessageRequest, ID: 300, Route: "room.join", Payload: []byte("{}"),
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	wire, err := pitaya.AppendPacket(nil, pitaya.PacketData, message)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("% x\n", wire[:pitaya.PacketHeaderSize])
	fmt.Printf("% x %s\n", message[:4], message[4:])

	packet, err := pitaya.ReadPacket(bytes.NewReader(wire), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := pitaya.DecodeMessage(packet.Body, nil)
	fmt.Println(packet.Type, m.Type, m.ID, m.Route, string(m.Payload), err)
	// Output:
	// 04 00 00 0f
	// 00 ac 02 09 room.join{}
	// data request 300 room.join {} <nil>
}

// Bytes come in pieces. DecodePacket tells a packet that is not complete from
// one that never will be good.
func ExampleDecodePacket() {
	wire := []byte{3, 0, 0, 0, 4, 0, 0, 2, 'o'} // a heartbeat, and part of a data packet
	for {
		packet, rest, err := pitaya.DecodePacket(wire, 1024)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			fmt.Println(len(rest), "bytes wait for more")
			break
		}
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(packet.Type, len(packet.Body))
		wire = rest
	}
	for _, wire := range [][]byte{{9, 0, 0, 0}, {4, 1, 0, 0}} {
		_, _, err := pitaya.DecodePacket(wire, 1024)
		fmt.Println(errors.Is(err, pitaya.ErrPacketType), errors.Is(err, pitaya.ErrPacketTooLarge), errors.Is(err, pitaya.ErrProtocol))
	}
	// Output:
	// heartbeat 0
	// 5 bytes wait for more
	// true false true
	// false true true
}

// The header says what follows before it is there.
func ExampleDecodePacketHeader() {
	typ, n, err := pitaya.DecodePacketHeader([]byte{byte(pitaya.PacketData), 0, 1, 0})
	fmt.Println(typ, n, err)
	// Output:
	// data 256 <nil>
}

// ReadPacket reads one after the other. The end of a stream is io.EOF between
// packets only.
func ExampleReadPacket() {
	stream := bytes.NewReader([]byte{3, 0, 0, 0, 5, 0, 0, 2, '{'})
	for {
		packet, err := pitaya.ReadPacket(stream, 0)
		if err != nil {
			fmt.Println(errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF))
			return
		}
		fmt.Println(packet.Type)
	}
	// Output:
	// heartbeat
	// false true
}

// With a dictionary, which both ends know from the handshake, a route takes two
// bytes.
func ExampleAppendMessage_dictionary() {
	routes, err := pitaya.NewDictionary(map[string]uint16{"onMove": 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	push := pitaya.Message{Type: pitaya.MessagePush, Route: "onMove", Payload: []byte("!")}
	plain, _ := pitaya.AppendMessage(nil, push, nil)
	short, _ := pitaya.AppendMessage(nil, push, routes)
	fmt.Printf("%q\n%q\n", plain, short)

	m, err := pitaya.DecodeMessage(short, routes)
	fmt.Println(m.Type, m.Route, err)
	_, err = pitaya.DecodeMessage(short, nil)
	fmt.Println(errors.Is(err, pitaya.ErrRouteCode))
	// Output:
	// "\x06\x06onMove!"
	// "\a\x00\a!"
	// push onMove <nil>
	// true
}

func ExampleNewDictionary() {
	routes, err := pitaya.NewDictionary(map[string]uint16{"onMove": 7, "onSay": 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	code, ok := routes.Code("onSay")
	fmt.Println(routes.Len(), code, ok)
	route, ok := routes.Route(7)
	fmt.Println(route, ok)
	fmt.Println(routes.Routes())

	_, err = pitaya.NewDictionary(map[string]uint16{"onMove": 7, "onSay": 7})
	fmt.Println(err != nil)
	// Output:
	// 2 8 true
	// onMove true
	// map[onMove:7 onSay:8]
	// true
}

// A compressed payload is inflated when it is asked for, and never to more than
// the bound.
func ExampleMessage_Inflate() {
	var zipped bytes.Buffer
	z := zlib.NewWriter(&zipped)
	fmt.Fprint(z, "hello hello hello hello")
	z.Close()
	m := pitaya.Message{Type: pitaya.MessagePush, Route: "onSay", Payload: zipped.Bytes(), Compressed: true}
	wire, err := pitaya.AppendMessage(nil, m, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := pitaya.DecodeMessage(wire, nil)
	fmt.Println(got.Compressed, err)
	fmt.Println(errors.Is(got.Inflate(10), pitaya.ErrCompressed))
	err = got.Inflate(1000)
	fmt.Printf("%s, %v, %v\n", got.Payload, got.Compressed, err)
	// Output:
	// true <nil>
	// true
	// hello hello hello hello, false, <nil>
}

// What a client sends is checked before anything is made of it.
func ExampleDecodeMessage_errors() {
	for _, body := range []string{
		"",              // nothing
		"\x0a\x01",      // no such type
		"\x00\x01\xffr", // a route longer than the message
	} {
		_, err := pitaya.DecodeMessage([]byte(body), nil)
		fmt.Println(errors.Is(err, pitaya.ErrInvalidMessage), errors.Is(err, pitaya.ErrMessageType), errors.Is(err, pitaya.ErrProtocol))
	}
	// Output:
	// true false true
	// false true true
	// true false true
}

func ExampleParseRoute() {
	for _, text := range []string{"game.room.join", "room.join", "join"} {
		route, err := pitaya.ParseRoute(text)
		if errors.Is(err, pitaya.ErrRoute) {
			fmt.Println(text, "is no route")
			continue
		}
		fmt.Printf("%q %q %q: %s, %s\n", route.ServerType, route.Service, route.Method, route, route.Short())
	}
	// Output:
	// "game" "room" "join": game.room.join, room.join
	// "" "room" "join": room.join, room.join
	// join is no route
}

// What a client says about itself is JSON.
func ExampleDecodeHandshake() {
	h, err := pitaya.DecodeHandshake([]byte(`{
		"sys": {"platform": "mac", "libVersion": "1.2", "clientBuildNumber": "20", "clientVersion": "2.1"},
		"user": {"language": "de"}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(h.Sys.Platform, h.Sys.Version, h.User["language"])
	// Output:
	// mac 2.1 de
}
