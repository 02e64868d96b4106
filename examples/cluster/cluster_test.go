package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// A game is the game on several servers, in memory.
type game struct {
	*pitayatest.Cluster
	t     *testing.T
	gates []*pitayatest.Server
	rooms []*pitayatest.Server
}

func newGame(t *testing.T, gates, rooms int) *game {
	g := &game{Cluster: pitayatest.NewCluster(t), t: t}
	g.NewServer(t, pitaya.Config{Type: typeScore, ID: "s0"}, setUp)
	for range rooms {
		g.addRoom()
	}
	for i := range gates {
		cfg := pitaya.Config{Type: typeGate, ID: fmt.Sprint("g", i), Frontend: true}
		g.gates = append(g.gates, g.NewServer(t, cfg, setUp))
	}
	return g
}

// addRoom starts one more server for rooms.
func (g *game) addRoom() {
	cfg := pitaya.Config{Type: typeRoom, ID: fmt.Sprint("r", len(g.rooms))}
	g.rooms = append(g.rooms, g.NewServer(g.t, cfg, setUp))
}

// enter connects a client with a name.
func (g *game) enter(gate int, name string) *pitayatest.Client {
	g.t.Helper()
	c := g.gates[gate].Client(g.t)
	got := pitayatest.Request[EnterReply](c, "gate.player.enter", &EnterRequest{Name: name})
	if want := (EnterReply{You: name, Gate: fmt.Sprint("g", gate)}); *got != want {
		g.t.Fatalf("entered: got %+v, want %+v", *got, want)
	}
	return c
}

// join joins a room, wants to find these people there, and returns the server that has it.
func (g *game) join(c *pitayatest.Client, room string, names ...string) (server string) {
	g.t.Helper()
	reply := pitayatest.Request[JoinReply](c, "room.room.join", &JoinRequest{Room: room})
	var got []string
	for _, m := range reply.Members {
		got = append(got, m.Name)
	}
	if reply.Room != room || strings.Join(got, " ") != strings.Join(names, " ") {
		g.t.Fatalf("in %s are %v, want %v in %s", reply.Room, got, names, room)
	}
	return reply.Server
}

// roomElsewhere returns the name of a room that is on another server.
func (g *game) roomElsewhere(c *pitayatest.Client, server string) string {
	g.t.Helper()
	for i := range 100 {
		room := fmt.Sprint("room ", i)
		reply := pitayatest.Request[JoinReply](c, "room.room.join", &JoinRequest{Room: room})
		if reply.Server != server {
			return room
		}
	}
	g.t.Fatalf("all rooms are on %s", server)
	return ""
}

func wantPush[T comparable](t *testing.T, c *pitayatest.Client, route string, want T) {
	t.Helper()
	if got := pitayatest.Push[T](c, route); *got != want {
		t.Errorf("%s: got %+v, want %+v", route, *got, want)
	}
}

func TestGame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGame(t, 2, 3)
		ann, bob := g.enter(0, "ann"), g.enter(1, "bob")
		server := g.join(ann, "lobby", "ann")
		if got := g.join(bob, "lobby", "ann", "bob"); got != server {
			t.Errorf("from the other gate the lobby is on %s, not on %s", got, server)
		}
		wantPush(t, ann, "onJoin", Member{Name: "bob"})
		bob.NoPush()

		for i, text := range []string{"hello", "again"} {
			points := int64(i + 1)
			if got := pitayatest.Request[SayReply](ann, "room.room.say", &SayRequest{text}); got.Points != points {
				t.Errorf("%d points, want %d", got.Points, points)
			}
			for _, c := range []*pitayatest.Client{ann, bob} {
				wantPush(t, c, "onSay", Said{Name: "ann", Text: text, Points: points})
			}
		}
		bob.Notify("room.room.move", &MoveNotify{X: 3, Y: 4})
		for _, c := range []*pitayatest.Client{ann, bob} {
			wantPush(t, c, "onMove", Member{Name: "bob", X: 3, Y: 4})
		}

		// A room on another server: the one before hears of it.
		other := g.roomElsewhere(bob, server)
		wantPush(t, ann, "onLeave", Left{Name: "bob"})
		bob.Request("room.room.say", &SayRequest{"anybody here?"}, nil)
		wantPush(t, bob, "onSay", Said{Name: "bob", Text: "anybody here?", Points: 1})
		ann.NoPush("onSay")
		g.join(ann, other, "ann", "bob")
		g.join(bob, "lobby", "bob")
		wantPush(t, ann, "onLeave", Left{Name: "bob"})
	})
}

func TestLeaving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGame(t, 3, 2)
		ann, bob, carl, dora := g.enter(0, "ann"), g.enter(1, "bob"), g.enter(2, "carl"), g.enter(1, "dora")
		g.join(ann, "lobby", "ann")
		g.join(bob, "lobby", "ann", "bob")
		g.join(carl, "lobby", "ann", "bob", "carl")
		g.join(dora, "lobby", "ann", "bob", "carl", "dora")
		dora.Request("room.room.leave", nil, nil)
		wantPush(t, ann, "onLeave", Left{Name: "dora"})
		dora.ExpectError("room.room.say", &SayRequest{"hello"}, CodeNotInRoom)

		bob.Close()
		wantPush(t, ann, "onLeave", Left{Name: "bob"})
		g.Kill(g.gates[2])
		wantPush(t, ann, "onLeave", Left{Name: "carl"})

		// Ann comes back on another gate before her first connection is noticed to be dead.
		again := g.enter(1, "ann")
		g.join(again, "lobby", "ann")
		if reason := ann.ExpectKick(); reason == "" {
			t.Error("kicked without a reason")
		}
		synctest.Wait()
		again.Request("room.room.say", &SayRequest{"still here"}, nil)
		again.NoPush("onLeave")
	})
}

// Servers for rooms come: sessions whose rooms have moved are told to join again, and can.
func TestScaleOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGame(t, 1, 1)
		moved := 0
		var clients []*pitayatest.Client
		for i := range 12 {
			c := g.enter(0, fmt.Sprint("p", i))
			g.join(c, fmt.Sprint("room ", i), fmt.Sprint("p", i))
			clients = append(clients, c)
		}
		g.addRoom()
		for i, c := range clients {
			err := c.Client.Request(t.Context(), "room.room.say", &SayRequest{"x"}, nil)
			switch {
			case pitaya.ErrorCode(err) == CodeNotInRoom:
				moved++
				g.join(c, fmt.Sprint("room ", i), fmt.Sprint("p", i))
				c.Request("room.room.say", &SayRequest{"x"}, nil)
			case err != nil:
				t.Error(err)
			}
		}
		if moved == 0 || moved == len(clients) {
			t.Errorf("%d of %d rooms have moved to the new one of two servers", moved, len(clients))
		}
	})
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGame(t, 1, 2)
		stranger := g.gates[0].Client(t)
		stranger.ExpectError("room.room.join", &JoinRequest{"lobby"}, pitaya.CodeUnbound)
		stranger.ExpectError("gate.player.enter", &EnterRequest{"a b"}, pitaya.CodeBadRequest)
		stranger.ExpectError("gate.player.enter", &EnterRequest{strings.Repeat("x", 25)}, pitaya.CodeBadRequest)
		ann := g.enter(0, "ann")
		ann.ExpectError("room.room.join", &JoinRequest{}, pitaya.CodeBadRequest)
		ann.ExpectError("room.room.say", &SayRequest{"hello"}, CodeNotInRoom)
		ann.ExpectError("room.room.say", &SayRequest{}, pitaya.CodeBadRequest)
		ann.ExpectError("score.board.add", nil, pitaya.CodeNotFound) // a remote is not for clients
		ann.Notify("room.room.move", &MoveNotify{1, 2})
		ann.NoPush()
	})
	for _, args := range [][]string{{"-role=king"}, {"-role=client"}, {"-rooms=0"}, {"extra"}, {"-listen=nonsense"}, {"-grpc", "-etcd=:::"}} {
		if err := run(t.Context(), args, nil, nil, io.Discard, io.Discard); err == nil {
			t.Errorf("run %q: no error", args)
		}
	}
}

// output collects what a program writes, and lets a test wait for a text in it.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

// expect waits for a text, and returns what stands behind it in its line.
func (o *output) expect(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		o.mu.Lock()
		all, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if _, rest, ok := strings.Cut(all, text); ok {
			if line, _, ok := strings.Cut(rest, "\n"); ok {
				return line
			}
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no %q in\n%s", text, all)
		}
	}
}

// TestAlone runs the program as the README says first.
func TestAlone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-listen=127.0.0.1:0", "-rooms=2"}, nil, nil, out, t.Output()) }()
	gate := out.expect(t, " is ready for clients at ")
	out.expect(t, "ann sees: ann: hello (1 points)") // whichever of the two came first
	out.expect(t, "bob sees: bob: hello (1 points)")

	// Somebody joins them in a terminal.
	stdin, input := io.Pipe()
	screen := newOutput()
	played := make(chan error, 1)
	go func() {
		played <- run(ctx, []string{"-role=client", "-name=carl", "-connect=" + gate}, nil, stdin, screen, t.Output())
	}()
	screen.expect(t, "with ann bob carl")
	fmt.Fprintln(input, "hi there\n/move 7 8")
	screen.expect(t, "carl: hi there (1 points)")
	screen.expect(t, "carl moved to 7,8") // before the room of another server is joined: there is no order between servers
	fmt.Fprintln(input, "/move x\n/dance\n/join garden\nalone?")
	screen.expect(t, "! there is no /dance")
	screen.expect(t, "you are in garden")
	screen.expect(t, "carl: alone? (2 points)")
	out.expect(t, "bob sees: carl left")
	fmt.Fprintln(input, "/quit")
	if err := <-played; err != nil {
		t.Error(err)
	}
	input.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestProcesses runs the servers as processes of their own, with a real etcd, and NATS or gRPC.
func TestProcesses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("no real etcd and NATS with -short")
	}
	etcd, nats := devtest.Etcd(t).URL(), devtest.NATS(t).URL()
	binary := build(t)
	for name, args := range map[string][]string{
		"nats": {"-etcd=" + etcd, "-nats=" + nats, "-pitaya.cluster.sd.etcd.prefix=nats/"},
		"grpc": {"-etcd=" + etcd, "-grpc", "-pitaya.cluster.sd.etcd.prefix=grpc/", "-pitaya.modules.bindingstorage.etcd.prefix=grpc-users/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := func(role string, more ...string) *output {
				out := newOutput()
				startProgram(t, out, nil, binary, append(append([]string{"-role=" + role}, args...), more...)...)
				return out
			}
			for _, role := range []string{typeScore, typeRoom, typeRoom} {
				program(role).expect(t, "is ready")
			}
			var players []*process
			for _, who := range []string{"ann", "bob"} {
				gate := program(typeGate, "-listen=127.0.0.1:0").expect(t, " is ready for clients at ")
				p := &process{screen: newOutput()}
				p.input = startProgram(t, p.screen, new(bytes.Buffer), binary, "-role=client", "-name="+who, "-connect="+gate)
				p.screen.expect(t, "you are in lobby")
				players = append(players, p)
			}
			ann, bob := players[0], players[1]
			ann.screen.expect(t, "bob came in")
			fmt.Fprintln(bob.input, "hello")
			ann.screen.expect(t, "bob: hello (1 points)")
			fmt.Fprintln(ann.input, "/move 1 2\nhello yourself")
			bob.screen.expect(t, "ann moved to 1,2")
			bob.screen.expect(t, "ann: hello yourself (1 points)")
			fmt.Fprintln(bob.input, "/quit")
			ann.screen.expect(t, "bob left")
		})
	}
}

// build builds the program.
func build(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "cluster")
	if b, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return binary
}

// A process is a client that runs by itself.
type process struct {
	screen *output
	input  io.Writer
}

// startProgram starts a process that ends with the test, in an orderly way: a client with its input, if it has one, and
// a server by a signal.
func startProgram(t *testing.T, out io.Writer, input *bytes.Buffer, binary string, args ...string) io.Writer {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{}, out, t.Output()
	cmd.WaitDelay = 10 * time.Second
	var stdin io.WriteCloser
	if input != nil {
		var err error
		if stdin, err = cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if stdin != nil {
			stdin.Close()
		} else if cmd.Process.Signal(os.Interrupt) != nil { // a system without signals
			cmd.Process.Kill()
			cmd.Wait()
			return
		}
		slow := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		defer slow.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	})
	return stdin
}
