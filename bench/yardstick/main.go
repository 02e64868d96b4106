// Command yardstick is the bare server that the benchmarks measure others by: package net, a goroutine and a buffered
// reader of 4 KiB for each connection, the framing of the client protocol, and nothing else. There is no JSON, session,
// route, dispatch, heartbeat or limit. What it costs is what the kernel and Go's network poller cost.
//
// The handshake is answered by fixed bytes, and each data packet by its own body, in which only the type becomes that of
// a response, so that a client of the protocol takes it. Packets that arrive together are answered by one write.
//
// With -json it decodes the body of each request by encoding/json into the struct that the handler of bench/server takes, and
// answers with that struct, encoded again: a server of JSON with nothing else around it.
//
// With -broadcast it is the yardstick of broadcasts: a request on a route that ends in "join" makes its connection a
// member, and each other request is answered, and then each of -at-once pushes of -size bytes is written to each member
// by itself, by one write directly to its socket.
//
// With -ws the connections begin with the upgrade of WebSocket, and packets are in its frames.
//
// With -heartbeat it writes four bytes to each connection every 30 seconds, and does nothing else with them.
//
// It prints the address that it listens on, and ends when its standard input does.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

// Types of packets, and of messages in the first byte of a data packet's body.
const (
	packetHandshake = 1
	packetHeartbeat = 3
	packetData      = 4

	messageResponse = 2 << 1
	messagePush     = 3 << 1
)

const (
	headerSize = 4
	readBuffer = 4 << 10
	pushRoute  = "onbroadcast"
)

// answer is what the handshake is answered with.
const answer = `{"code":200,"sys":{"heartbeat":30,"dict":{},"serializer":"json"}}`

func main() {
	log.SetFlags(0)
	log.SetPrefix("yardstick: ")
	addr := flag.String("addr", "127.0.0.1:0", "`address` to listen on")
	broadcasts := flag.Bool("broadcast", false, "push to the members of a group instead of echoing")
	atOnce := flag.Int("at-once", 1, "`number` of pushes to each member")
	size := flag.Int("size", 64, "`bytes` of each push")
	asJSON := flag.Bool("json", false, "decode and encode the JSON that is echoed")
	ws := flag.Bool("ws", false, "speak WebSocket")
	heartbeats := flag.Bool("heartbeat", false, "write a heartbeat to each connection every 30 seconds")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	if *asJSON && *broadcasts {
		log.Fatal("-json is for echoes, not for -broadcast")
	}
	var g *group
	if *broadcasts {
		g = &group{push: push(*size), atOnce: *atOnce}
	}
	var b *beats
	if *heartbeats {
		b = newBeats()
		go b.run()
	}
	if *ws {
		fmt.Println("ws", l.Addr())
	} else {
		fmt.Println("tcp", l.Addr())
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				log.Fatal(err)
			}
			if b != nil {
				b.add(c, time.Now().Add(interval))
			}
			go serve(c, g, *asJSON, *ws)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

// serve answers what comes on c until it ends. g is nil where packets are echoed, which is done by way of a struct if asJSON
// is set.
func serve(c net.Conn, g *group, asJSON, ws bool) {
	defer c.Close()
	if ws {
		w, err := upgrade(c)
		if err != nil {
			return
		}
		c = w
	}
	if g != nil {
		defer g.leave(c)
	}
	in := bufio.NewReaderSize(c, readBuffer)
	var out []byte
	for {
		head, err := in.Peek(headerSize)
		if err != nil {
			return
		}
		kind, n := head[0], int(head[1])<<16|int(binary.BigEndian.Uint16(head[2:]))
		body, err := in.Peek(headerSize + n)
		if err != nil {
			return // also a packet that is longer than the buffer, which no benchmark sends
		}
		body = body[headerSize:]
		switch {
		case kind == packetHandshake:
			out = appendPacket(out, packetHandshake, []byte(answer))
		case kind == packetData && asJSON:
			if out, err = appendJSON(out, body); err != nil {
				return
			}
		case kind == packetData && n > 0:
			out = appendPacket(out, packetData, body)
			out[len(out)-n] = messageResponse
		}
		joins := g != nil && kind == packetData && bytes.Contains(body, []byte("join"))
		in.Discard(headerSize + n)
		if in.Buffered() == 0 && len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		switch {
		case g == nil || kind != packetData:
		case joins:
			g.join(c)
		default:
			g.broadcast()
		}
	}
}

func appendPacket(dst []byte, kind byte, body []byte) []byte {
	n := len(body)
	return append(append(dst, kind, byte(n>>16), byte(n>>8), byte(n)), body...)
}

// line is what the handler of bench/server takes and returns.
type line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// appendJSON appends the answer to a request with a route in text.
func appendJSON(dst, request []byte) ([]byte, error) {
	_, n := binary.Uvarint(request[min(1, len(request)):])
	route := 1 + n // where its length stands
	if n <= 0 || route >= len(request) || route+1+int(request[route]) > len(request) {
		return dst, errors.New("no request with a route in text")
	}
	l := new(line)
	if err := json.Unmarshal(request[route+1+int(request[route]):], l); err != nil {
		return dst, err
	}
	payload, err := json.Marshal(l)
	if err != nil {
		return dst, err
	}
	size := route + len(payload)
	dst = append(dst, packetData, byte(size>>16), byte(size>>8), byte(size), messageResponse)
	return append(append(dst, request[1:route]...), payload...), nil
}

// push is the packet of a push of JSON with a number of bytes.
func push(size int) []byte {
	payload := fmt.Appendf(nil, `{"name":"n","content":"`)
	payload = append(payload, bytes.Repeat([]byte("x"), max(size-len(payload)-2, 0))...)
	payload = append(payload, `"}`...)
	body := append([]byte{messagePush, byte(len(pushRoute))}, pushRoute...)
	return appendPacket(nil, packetData, append(body, payload...))
}

// A group is all connections that have joined.
type group struct {
	push   []byte
	atOnce int

	mu      sync.Mutex // guards members, and is held while a broadcast is written, as it would be by a server this plain
	members []net.Conn
}

func (g *group) join(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = append(g.members, c)
}

func (g *group) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, m := range g.members {
		if m == c {
			g.members[i] = g.members[len(g.members)-1]
			g.members = g.members[:len(g.members)-1]
			return
		}
	}
}

func (g *group) broadcast() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range g.atOnce {
		for _, c := range g.members {
			c.Write(g.push)
		}
	}
}
