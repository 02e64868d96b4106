package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

func suffix() string { return rand.Text()[:6] }

// A player is the client's side of the game.
type player struct {
	*pitaya.Client
	name string
}

// enter connects, takes a name and joins a room. What is pushed goes to see, as text.
func enter(ctx context.Context, address, name, room string, see func(text string)) (*player, *JoinReply, error) {
	client, err := pitaya.Dial(ctx, "tcp://"+address, &pitaya.ClientConfig{
		OnAnyPush: func(route string, payload []byte) { see(describe(route, payload)) },
	})
	if err != nil {
		return nil, nil, err
	}
	p := &player{Client: client, name: name}
	var reply EnterReply
	if err := client.Request(ctx, "gate.player.enter", &EnterRequest{Name: name}, &reply); err != nil {
		client.Close()
		return nil, nil, err
	}
	joined, err := p.join(ctx, room)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return p, joined, nil
}

func (p *player) join(ctx context.Context, room string) (*JoinReply, error) {
	reply := new(JoinReply)
	return reply, p.Request(ctx, "room.room.join", &JoinRequest{Room: room}, reply)
}

func (p *player) say(ctx context.Context, text string) error {
	return p.Request(ctx, "room.room.say", &SayRequest{Text: text}, nil)
}

// describe puts a push into words.
func describe(route string, payload []byte) string {
	var v struct {
		Name, Text string
		X, Y       int
		Points     int64
	}
	if err := json.Unmarshal(payload, &v); err != nil {
		return fmt.Sprintf("%s: %v", route, err)
	}
	switch route {
	case "onJoin":
		return v.Name + " came in"
	case "onLeave":
		return v.Name + " left"
	case "onMove":
		return fmt.Sprintf("%s moved to %d,%d", v.Name, v.X, v.Y)
	case "onSay":
		return fmt.Sprintf("%s: %s (%d points)", v.Name, v.Text, v.Points)
	}
	return route + " " + string(payload)
}

// bot plays until ctx ends.
func bot(ctx context.Context, o *options, name string, out io.Writer) {
	see := func(text string) { fmt.Fprintf(out, "%s sees: %s\n", name, text) }
	p, joined, err := enter(ctx, dialable(o.Listen), name, o.Room, see)
	if err != nil {
		if ctx.Err() == nil {
			o.Log.Error("bot", "name", name, "err", err)
		}
		return
	}
	defer p.Close()
	fmt.Fprintf(out, "%s is in %s on %s\n", name, joined.Room, joined.Server)
	lines := []string{"hello", "who counts the points?", "another server does", "and which gate are you on?", "any will do"}
	for i := 0; ; i++ {
		err := p.Notify(ctx, "room.room.move", &MoveNotify{X: i % 8, Y: len(name) + i%3})
		if err == nil {
			err = p.say(ctx, lines[i%len(lines)])
		}
		switch {
		case ctx.Err() != nil:
			return
		case pitaya.ErrorCode(err) == CodeNotInRoom: // servers came or went
			_, err = p.join(ctx, o.Room)
		}
		if err != nil {
			o.Log.Error("bot", "name", name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			o.Log.Error("bot", "name", name, "err", p.Err())
			return
		case <-time.After(3 * time.Second):
		}
	}
}

// play is the game in a terminal.
func play(ctx context.Context, o *options, in io.Reader, out io.Writer) error {
	p, joined, err := enter(ctx, o.Connect, o.Name, o.Room, func(text string) { fmt.Fprintln(out, text) })
	if err != nil {
		return err
	}
	defer p.Close()
	show := func(joined *JoinReply) {
		fmt.Fprintf(out, "you are in %s, which %s has, with", joined.Room, joined.Server)
		for _, m := range joined.Members {
			fmt.Fprintf(out, " %s", m.Name)
		}
		fmt.Fprintln(out)
	}
	show(joined)
	fmt.Fprintln(out, "say something, or: /move X Y, /join ROOM, /quit")

	lines := make(chan string)
	go func() { // ends with the input, or with the program
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- strings.TrimSpace(s.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		var line string
		var ok bool
		select {
		case line, ok = <-lines:
		case <-p.Done():
			return p.Err()
		case <-ctx.Done():
			return nil
		}
		var err error
		var move MoveNotify
		switch room, join := strings.CutPrefix(line, "/join "); {
		case !ok || line == "/quit":
			return nil
		case line == "":
		case join:
			if joined, err = p.join(ctx, strings.TrimSpace(room)); err == nil {
				o.Room = joined.Room
				show(joined)
			}
		case strings.HasPrefix(line, "/move "):
			if _, err = fmt.Sscan(line[len("/move "):], &move.X, &move.Y); err == nil {
				err = p.Notify(ctx, "room.room.move", &move)
			}
		case strings.HasPrefix(line, "/"):
			err = fmt.Errorf("there is no %s", line)
		default:
			err = p.say(ctx, line)
			if pitaya.ErrorCode(err) == CodeNotInRoom { // servers came or went
				if _, err = p.join(ctx, o.Room); err == nil {
					err = p.say(ctx, line)
				}
			}
		}
		if err != nil {
			fmt.Fprintln(out, "!", err)
		}
	}
}

// dialable is the address of a listener as a client on this machine dials it.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
