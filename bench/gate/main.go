// Command gate is the pair of bare servers that the benchmarks measure a cluster by: a gate that clients connect to, and a
// room that answers, with one connection of nats.go each and nothing else.
//
//	gate -nats URL room     answers each message with its bytes
//	gate -nats URL gate     takes clients, and lets the room answer them
//
// The gate has a goroutine and a buffered reader of 4 KiB for each client, and the framing of the client protocol. The
// payload of a request goes to the room as it is, under one inbox for all answers, whose last token says which request it
// is. Answers are written as they come, each by one write, by the goroutine that nats.go has for the inbox. There is no
// JSON, session, dispatch, heartbeat, limit or time limit, and no goroutine or timer for a request.
//
// Each prints a line when it is ready, the gate with the address that it listens on, and ends when its standard input
// does.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Types of packets, and of messages in the first byte of a data packet's body.
const (
	packetHandshake = 1
	packetData      = 4

	messageResponse = 2 << 1
)

const (
	headerSize = 4
	readBuffer = 4 << 10
	subject    = "bench.room"
)

// answer is what the handshake is answered with.
const answer = `{"code":200,"sys":{"heartbeat":30,"dict":{},"serializer":"json"}}`

func main() {
	log.SetFlags(0)
	log.SetPrefix("gate: ")
	url := flag.String("nats", nats.DefaultURL, "`address` of NATS")
	addr := flag.String("addr", "127.0.0.1:0", "`address` for clients")
	delay := flag.Duration("delay", 0, "how `long` the room takes for an answer")
	flag.Parse()
	nc, err := nats.Connect(*url)
	if err != nil {
		log.Fatal(err)
	}
	switch flag.Arg(0) {
	case "room":
		err = room(nc, *delay)
	case "gate":
		err = gate(nc, *addr)
	default:
		err = fmt.Errorf("%q is neither gate nor room", flag.Arg(0))
	}
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, os.Stdin)
	nc.Close()
}

// room answers what comes for it.
func room(nc *nats.Conn, delay time.Duration) error {
	_, err := nc.Subscribe(subject, func(m *nats.Msg) {
		if delay == 0 {
			m.Respond(m.Data)
			return
		}
		time.AfterFunc(delay, func() { m.Respond(m.Data) })
	})
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	fmt.Println("ready")
	return nil
}

// A waiting request is one that the room has yet to answer.
type waiting struct {
	client net.Conn
	id     uint64
}

// table has the requests that wait. Their places in it are the tokens of their inboxes.
type table struct {
	mu   sync.Mutex // guards the fields below
	all  []waiting
	free []int
}

func (t *table) put(w waiting) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.all[i] = w
		return i
	}
	t.all = append(t.all, w)
	return len(t.all) - 1
}

func (t *table) take(i int) waiting {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= len(t.all) {
		return waiting{}
	}
	w := t.all[i]
	t.all[i] = waiting{}
	t.free = append(t.free, i)
	return w
}

// gate takes clients.
func gate(nc *nats.Conn, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	var t table
	inbox := nats.NewInbox() + "."
	var out []byte
	_, err = nc.Subscribe(inbox+"*", func(m *nats.Msg) {
		i, err := strconv.Atoi(m.Subject[len(inbox):])
		if err != nil {
			return
		}
		w := t.take(i)
		if w.client == nil {
			return
		}
		out = append(out[:0], packetData, 0, 0, 0, messageResponse)
		out = append(binary.AppendUvarint(out, w.id), m.Data...)
		n := len(out) - headerSize
		out[1], out[2], out[3] = byte(n>>16), byte(n>>8), byte(n)
		w.client.Write(out)
	})
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go serve(c, nc, inbox, &t)
		}
	}()
	fmt.Println("tcp", l.Addr())
	return nil
}

// serve sends on what comes on c until it ends.
func serve(c net.Conn, nc *nats.Conn, inbox string, t *table) {
	defer c.Close()
	in := bufio.NewReaderSize(c, readBuffer)
	reply := []byte(inbox)
	for {
		head, err := in.Peek(headerSize)
		if err != nil {
			return
		}
		kind, n := head[0], int(head[1])<<16|int(binary.BigEndian.Uint16(head[2:]))
		packet, err := in.Peek(headerSize + n)
		if err != nil {
			return // also a packet that is longer than the buffer, which no benchmark sends
		}
		body := packet[headerSize:]
		switch {
		case kind == packetHandshake:
			out := append([]byte{packetHandshake, 0, 0, byte(len(answer))}, answer...)
			if _, err := c.Write(out); err != nil {
				return
			}
		case kind == packetData:
			id, payload, ok := request(body)
			if !ok {
				return
			}
			token := t.put(waiting{c, id})
			reply = strconv.AppendInt(reply[:len(inbox)], int64(token), 10)
			if err := nc.PublishRequest(subject, string(reply), payload); err != nil {
				return
			}
		}
		in.Discard(headerSize + n)
	}
}

// request takes a request apart. Its route is a text, and leads to the room whatever it says.
func request(body []byte) (id uint64, payload []byte, ok bool) {
	if len(body) == 0 || body[0] != 0 {
		return 0, nil, false
	}
	id, n := binary.Uvarint(body[1:])
	if n <= 0 || len(body) < 2+n {
		return 0, nil, false
	}
	route := 1 + n
	if payload = body[route+1:]; len(payload) < int(body[route]) {
		return 0, nil, false
	}
	return id, payload[body[route]:], true
}
