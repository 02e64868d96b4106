package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// A player is a client of the program, as in a terminal.
type player struct {
	*exampletest.Program
	in *io.PipeWriter
}

func newPlayer(t *testing.T, addr, name string) *player {
	r, w := io.Pipe()
	p := &player{in: w}
	p.Program = exampletest.Start(t, func(ctx context.Context, args []string, out io.Writer) error {
		return run(ctx, args, r, out)
	}, "-connect", addr, "-name", name)
	t.Cleanup(func() { w.Close() }) // before the program is stopped
	p.Expect("^Say something")
	return p
}

// types types a line, and expects one that is printed.
func (p *player) types(line, want string) {
	fmt.Fprintln(p.in, line)
	p.Expect(want)
}

// The program as it is used: two people in terminals.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, func(ctx context.Context, args []string, out io.Writer) error {
		return run(ctx, args, nil, out)
	}, "-listen", "127.0.0.1:0")
	addr := server.Expect(`rooms -connect (\S+) -name ada`)[1]
	ada, bob := newPlayer(t, addr, "ada"), newPlayer(t, addr, "bob")

	ada.types("hello?", "^ROOM-NONE: you are in no room$")
	ada.types("/join lobby", "^in lobby: ada$")
	bob.types("/join lobby", "^in lobby: ada, bob$")
	ada.Expect("^bob has come$")
	ada.types("hello", "^ada: hello$")
	bob.Expect("^ada: hello$")
	fmt.Fprintln(bob.in, "/to ada psst")
	ada.Expect("^bob whispers: psst$") // and nobody else
	ada.types("/to eve psst", "^PIT-404: there is no eve here$")
	bob.in.Close()
	ada.Expect("^bob has left$")
	ada.types("/who", "^in lobby: ada$")
}

// hall is a server in memory.
func hall(t *testing.T, ttl time.Duration) (enter func(name, room string) *pitayatest.Client, srv *pitayatest.Server) {
	srv = pitayatest.NewServer(t, pitaya.Config{Type: "hall"}, func(s *pitaya.Server) { newRooms(s, ttl) })
	return func(name, room string) *pitayatest.Client {
		c := srv.Client(t)
		c.Request("hall.player.enter", Name{name}, nil)
		c.Request("hall.room.join", Name{room}, nil)
		return c
	}, srv
}

// Who is in one room does not hear those in others, and who changes the room is told of by both.
func TestRoomsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enter, _ := hall(t, time.Hour)
		ada, bob, eve := enter("ada", "lobby"), enter("bob", "garden"), enter("eve", "garden")
		bob.ExpectPush("onJoin")
		ada.Request("hall.room.say", Words{Text: "hello"}, nil)
		ada.ExpectPush("onSay")
		bob.NoPush()
		bob.Request("hall.room.join", Name{"lobby"}, nil)
		if got := pitayatest.Push[Name](eve, "onLeave"); got.Name != "bob" {
			t.Errorf("%s has left, want bob", got.Name)
		}
		if got := pitayatest.Push[Name](ada, "onJoin"); got.Name != "bob" {
			t.Errorf("%s has come, want bob", got.Name)
		}
		bob.NoPush()
	})
}

// Connections that break leave no members behind, and namesakes stay.
func TestWhoDisconnectsLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enter, _ := hall(t, time.Hour)
		ada := enter("ada", "lobby")
		for range 3 {
			bob := enter("bob", "lobby")
			ada.ExpectPush("onJoin")
			namesake := enter("bob", "lobby")
			ada.ExpectPush("onJoin")
			bob.Close()
			ada.ExpectPush("onLeave")
			who := pitayatest.Request[Members](ada, "hall.room.who", nil)
			if !slices.Equal(who.Names, []string{"ada", "bob"}) {
				t.Errorf("in the room are %v", who.Names)
			}
			namesake.Close()
			ada.ExpectPush("onLeave")
		}
		ada.NoPush()
	})
}

// A room ends when nobody has said anything for its time, to the moment; a new one of the name is empty.
func TestRoomEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enter, srv := hall(t, time.Minute)
		ada := enter("ada", "lobby")
		time.Sleep(time.Minute - time.Nanosecond)
		ada.Request("hall.room.say", Words{Text: "hm"}, nil) // which keeps it
		time.Sleep(time.Minute - time.Nanosecond)
		if n, err := srv.Group(prefix + "lobby").Count(t.Context()); n != 1 || err != nil {
			t.Errorf("%d members and %v, want one", n, err)
		}
		time.Sleep(time.Nanosecond)
		ada.ExpectError("hall.room.say", Words{Text: "anybody?"}, "ROOM-GONE")
		bob := enter("bob", "lobby")
		ada.ExpectError("hall.room.say", Words{Text: "am I in?"}, "ROOM-GONE") // of that one ada is no member
		who := pitayatest.Request[Members](bob, "hall.room.who", nil)
		if !slices.Equal(who.Names, []string{"bob"}) {
			t.Errorf("in the new room are %v", who.Names)
		}
	})
}
