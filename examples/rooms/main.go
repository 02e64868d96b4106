// Rooms is a server with rooms to meet in, made of groups (rooms.go), and a client in the terminal.
//
//	go run ./examples/rooms                                    # the server
//	go run ./examples/rooms -connect localhost:3250 -name ada  # a client; start two, in terminals of their own
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "rooms:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; a client also with its input.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("rooms", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	ttl := flags.Duration("ttl", 10*time.Minute, "`time` that a room lasts in which nobody says anything")
	connect := flags.String("connect", "", "be a client of the server at this `address`")
	name := flags.String("name", "somebody", "`name` of the client")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return play(ctx, *connect, *name, in, out)
	}
	l, err := pitaya.ListenTCP(*listen, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	srv, err := pitaya.NewServer(pitaya.Config{Type: "hall", Frontend: true, Listeners: []net.Listener{l}})
	if err != nil {
		return err
	}
	if err := newRooms(srv, *ttl); err != nil {
		return err
	}
	fmt.Fprintf(out, "The rooms are open. In two other terminals:\n\n"+
		"\tgo run ./examples/rooms -connect %s -name ada\n\tgo run ./examples/rooms -connect %[1]s -name bob\n\nCtrl-C ends the server.\n", l.Addr())
	return srv.Run(ctx)
}

// play is the client: a line of the input is said, or a command.
func play(ctx context.Context, addr, name string, in io.Reader, out io.Writer) error {
	client, err := pitaya.Dial(ctx, "tcp://"+addr, &pitaya.ClientConfig{
		OnAnyPush: func(route string, payload []byte) { fmt.Fprintln(out, describe(route, payload)) },
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Request(ctx, "hall.player.enter", Name{name}, nil); err != nil {
		return err
	}
	fmt.Fprintln(out, "Say something, or: /join ROOM, /leave, /who, /to NAME TEXT")
	lines := make(chan string)
	go func() { // ends with the input, or with the program
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-client.Done():
				return
			}
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if err := do(ctx, client, line, out); err != nil {
				fmt.Fprintf(out, "%s: %v\n", pitaya.ErrorCode(err), err)
			}
		case <-client.Done():
			return client.Err()
		case <-ctx.Done():
			return nil
		}
	}
}

// do does what a line says.
func do(ctx context.Context, client *pitaya.Client, line string, out io.Writer) error {
	command, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	list := func(route string, in any) error {
		var members Members
		err := client.Request(ctx, route, in, &members)
		if err == nil {
			fmt.Fprintf(out, "in %s: %s\n", members.Room, strings.Join(members.Names, ", "))
		}
		return err
	}
	switch command {
	case "":
		return nil
	case "/join":
		return list("hall.room.join", Name{rest})
	case "/who":
		return list("hall.room.who", nil)
	case "/leave":
		return client.Request(ctx, "hall.room.leave", nil, nil)
	case "/to":
		to, text, _ := strings.Cut(rest, " ")
		return client.Request(ctx, "hall.room.whisper", Words{To: to, Text: text}, nil)
	}
	return client.Request(ctx, "hall.room.say", Words{Text: line}, nil)
}

// describe puts a push into words.
func describe(route string, payload []byte) string {
	var v struct{ Name, From, Text string }
	if err := json.Unmarshal(payload, &v); err != nil {
		return err.Error()
	}
	switch route {
	case "onJoin":
		return v.Name + " has come"
	case "onLeave":
		return v.Name + " has left"
	case "onWhisper":
		return v.From + " whispers: " + v.Text
	}
	return v.From + ": " + v.Text
}
