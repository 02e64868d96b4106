package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/cli"
	"github.com/pitaya-go/pitaya/internal/ptytest"
)

// A game is a server to try things on.
type game struct {
	addr    string
	waits   chan struct{} // a request has begun to wait
	pushNow chan struct{} // each value makes the server push
	asked   atomic.Int64  // requests for documentation
}

func startGame(t *testing.T) *game {
	g := &game{waits: make(chan struct{}, 10), pushNow: make(chan struct{})}
	var sessions atomic.Pointer[pitaya.Session]
	g.addr = serve(t, pitaya.Config{Resume: pitaya.ResumeConfig{Window: ptytest.Patience}}, func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "room.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }))
		must(t, pitaya.HandleRaw(s, "room.wait", func(ctx context.Context, in []byte) ([]byte, error) {
			g.waits <- struct{}{}
			<-ctx.Done()
			return in, nil
		}, pitaya.WithConcurrent()))
		must(t, pitaya.HandleRaw(s, "room.subscribe", func(ctx context.Context, in []byte) ([]byte, error) {
			sessions.Store(pitaya.SessionFromContext(ctx))
			return []byte(`"ok"`), nil
		}))
		must(t, pitaya.HandleRaw(s, "docs.docs", func(ctx context.Context, in []byte) ([]byte, error) {
			g.asked.Add(1)
			return []byte(`{"handlers":{"game.room.echo":{},"game.room.wait":{},"game.room.subscribe":{}},"remotes":{}}`), nil
		}))
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range g.pushNow {
			sessions.Load().Push(context.Background(), "onChat", []byte(`{"text":"hello there"}`))
		}
	}()
	t.Cleanup(func() {
		close(g.pushNow)
		<-ended
	})
	return g
}

// A run is the program at a terminal.
type run struct {
	*ptytest.Terminal
	t          *testing.T
	interrupts chan os.Signal
	cancel     context.CancelFunc
	done       chan int
}

func (g *game) sit(t *testing.T, env map[string]string, args ...string) *run {
	t.Helper()
	r := &run{Terminal: ptytest.Open(t, 80, 24), t: t, interrupts: make(chan os.Signal, 2), done: make(chan int, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	p := cli.Process{Args: append(args, g.addr), Getenv: func(key string) string { return env[key] },
		Stdin: r.Slave, Stdout: r.Slave, Stderr: r.Slave, Interrupts: r.interrupts}
	go func() { r.done <- cli.Main(ctx, p) }()
	t.Cleanup(func() {
		cancel()
		r.wait()
	})
	r.ExpectLast("pitaya>")
	return r
}

// wait waits for the end and returns the exit status.
func (r *run) wait() int {
	status := <-r.done
	r.done <- status
	return status
}

// wantExit waits for the end, after which the terminal must be as it was.
func (r *run) wantExit(status int) {
	r.t.Helper()
	if got := r.wait(); got != status {
		r.t.Errorf("exit status %d, want %d", got, status)
	}
	if mode := r.Mode(); mode&syscall.ECHO == 0 || mode&syscall.ICANON == 0 || mode&syscall.ISIG == 0 {
		r.t.Errorf("the terminal is left in mode %#x", mode)
	}
	r.Until("that pastes are not marked any more", func() bool { return !r.Screen.PasteMarks() })
	if u := r.Screen.Unknown(); len(u) > 0 {
		r.t.Errorf("the terminal got %s", u)
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	r := startGame(t).sit(t, nil)
	if mode := r.Mode(); mode&syscall.ECHO != 0 || mode&syscall.ICANON != 0 {
		t.Errorf("the terminal is in mode %#x", mode)
	}
	r.Type("reques\tgame.room.e\t{\"a\": 1}\r")
	r.Expect("pitaya> request game.room.echo {\"a\": 1}\n{\"a\":1}\npitaya>")
	r.Type("\x1b[A\x1b[D2\r") // the line before, changed
	r.Expect("pitaya> request game.room.echo {\"a\": 12}\n{\"a\":12}\npitaya>")
	r.Type("request room.echo {\r\"b\": [\r2]}; request room.echo 3\r")
	r.Expect("   ...> \"b\": [\n   ...> 2]}; request room.echo 3\n{\"b\":[2]}\n3\npitaya>")
	r.Type("request room.echo \x1b[200~{\n  \"c\": 3\n}\x1b[201~\r") // a paste
	r.Expect("{\"c\":3}\npitaya>")
	r.Type("nonsense; help\r") // what follows is not run
	r.Expect("nonsense; help\nerror: there is no command \"nonsense\"; help lists them\npitaya>")
	r.Type("request r\t\t")
	r.Expect("pitaya> request room.")
	r.Type("\x15history room.echo\r")
	r.Expect("    2  request game.room.echo {\"a\": 12}\n")
	r.ExpectLast("pitaya>")
	r.Type("exit\r")
	r.wantExit(0)
}

// Pushes and the end of the connection appear above what is being typed.
func TestTerminalPush(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("request room.subscribe\r")
	r.Expect("\"ok\"\npitaya>")
	r.Type("request room.echo 世界")
	r.ExpectLast("pitaya> request room.echo 世界")
	g.pushNow <- struct{}{}
	r.Expect("push onChat: {\"text\":\"hello there\"}\npitaya> request room.echo 世界")
	r.Type("\x1b[D!\r")
	r.Expect("{\"text\":\"hello there\"}\npitaya> request room.echo 世!界\n世!界\npitaya>")
	g.pushNow <- struct{}{}
	r.Type("wait onChat; wait onChat; expect {\"text\": \"hello there\"}\r")
	r.Until("three prompts after the waits", func() bool {
		all := r.Screen.All()
		return strings.Count(all, "push onChat") == 2 && strings.HasSuffix(all, "\npitaya>") && strings.Contains(all, "wait onChat; ")
	})
	if all := r.Screen.All(); strings.Contains(all, "error") {
		t.Errorf("screen\n%s", all)
	}
	r.Type("\x04")
	r.wantExit(0)
}

func TestTerminalInterrupt(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("request room.wait\r")
	<-g.waits
	r.Type("request room.echo dropped\r\x03") // what was typed ahead goes too
	r.Expect("pitaya> request room.wait\nerror: interrupted\npitaya>")
	r.Type("abc\x03") // a line is given up
	r.Expect("pitaya> abc^C\npitaya>")
	r.Type("request room.echo [\r\x03") // and one of several
	r.Expect("   ...> ^C\npitaya>")
	r.Type("\x03")
	r.Expect("pitaya> ^C\nCtrl-C again leaves\npitaya>")
	r.Type("status\r") // not in a row
	r.Expect("serializer   json\n")
	r.ExpectLast("pitaya>")
	r.Type("\x03")
	r.Until("the note again", func() bool { return strings.Count(r.Screen.All(), "Ctrl-C again leaves") == 2 })
	r.interrupts <- syscall.SIGINT // by kill
	r.wantExit(130)
}

// Twice Ctrl-C leaves: the first ends the request, the second has nothing more to end.
func TestTerminalInterruptTwice(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("request room.wait\r")
	<-g.waits
	r.Type("\x03")
	r.Expect("error: interrupted\npitaya>")
	r.Type("\x03")
	r.wantExit(130)
}

// What is typed while a command runs waits for the next prompt.
func TestTerminalTypeAhead(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("request -t 100ms room.wait\r")
	<-g.waits
	r.Type("request room.echo ahead\r")
	r.Expect("error: no answer within 100ms\npitaya> request room.echo ahead\nahead\npitaya>")
}

func TestTerminalResize(t *testing.T) {
	t.Parallel()
	r := startGame(t).sit(t, nil)
	r.Type("request room.echo 0123456789")
	r.ExpectLast("pitaya> request room.echo 0123456789")
	r.Resize(21, 10)
	r.Type("x") // no signal comes here: the size is looked up with each key
	r.Expect("pitaya> request room\n.echo 0123456789x")
}

// SIGTERM, which ends the context, leaves the terminal as it was.
func TestTerminalEnd(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("half a line")
	r.ExpectLast("pitaya> half a line")
	r.cancel()
	r.wantExit(130)
	r = g.sit(t, nil)
	r.Type("request room.wait\r")
	<-g.waits
	r.cancel()
	r.wantExit(130)
}

func TestTerminalHistory(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	env := map[string]string{"PITAYA_CLI_HISTORY": "auto", "XDG_STATE_HOME": t.TempDir()}
	r := g.sit(t, env)
	r.Type("request room.echo 1\r request room.echo secret\rexit\r")
	r.wantExit(0)
	b, err := os.ReadFile(filepath.Join(env["XDG_STATE_HOME"], "pitaya-cli", "history"))
	if want := "request room.echo 1\nexit\n"; err != nil || string(b) != want {
		t.Errorf("history file %q, %v; want %q", b, err, want)
	}
	r = g.sit(t, env)
	r.Type("\x12echo\r")
	r.Expect("pitaya> request room.echo 1\n1\npitaya>")
	r.Type("exit\r")
	r.wantExit(0)

	// None is kept where none is asked for, and one that cannot be kept is said so.
	r = g.sit(t, map[string]string{"XDG_STATE_HOME": t.TempDir()}, "-history", t.TempDir())
	r.Expect("history: ")
	r.Type("exit\r")
	r.wantExit(0)
	r = g.sit(t, env, "-history", "")
	r.Type("\x1b[A")
	r.Type("exit\r")
	r.ExpectLast("pitaya> exit")
	r.wantExit(0)
}

// The documentation is asked for once, and silently.
func TestTerminalDocs(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, nil)
	r.Type("routes echo\r")
	r.Expect("game.room.echo()\npitaya>")
	if n := g.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	g.asked.Store(0)
	g.sit(t, nil, "-docs", "off")
	if n := g.asked.Load(); n != 0 {
		t.Errorf("asked %d times with -docs off", n)
	}
}

// Where the terminal can do nothing else plain lines are read.
func TestTerminalDumb(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	r := g.sit(t, map[string]string{"TERM": "dumb"})
	if mode := r.Mode(); mode&syscall.ECHO == 0 {
		t.Errorf("the terminal is in mode %#x", mode)
	}
	r.Type("request room.echo 1\n")
	r.Expect("1\npitaya>")
	r.Type("nonsense\n")
	r.Expect("error: there is no command")
	r.Type("request room.wait\n")
	<-g.waits
	r.interrupts <- syscall.SIGINT
	r.Expect("error: interrupted\npitaya>")
	r.Type("history\n")
	r.Expect("error: there is a history at a terminal only\npitaya>")
	r.interrupts <- syscall.SIGINT
	r.Expect("Ctrl-C again leaves\npitaya>")
	r.interrupts <- syscall.SIGINT
	// The read of a terminal that takes lines goes on; the line lets it end.
	if got := r.wait(); got != 130 {
		t.Errorf("exit status %d", got)
	}
	r.Type("\n")
}

// What becomes of the connection appears above the line too.
func TestTerminalConnection(t *testing.T) {
	t.Parallel()
	g := startGame(t)
	relay := startRelay(t, g.addr)
	g.addr = "tcp://" + relay.Addr().String()
	r := g.sit(t, nil, "-resume")
	r.Type("half")
	r.ExpectLast("pitaya> half")
	relay.cut()
	r.Expect("connecting again\nconnected again, to the session as it was\npitaya> half")
	r.Type("\x15exit\r")
	r.wantExit(0)

	r = g.sit(t, nil)
	r.Type("half")
	r.ExpectLast("pitaya> half")
	relay.cut()
	r.Expect("\ndisconnected: connection ")
	r.ExpectLast("pitaya> half")
	r.Type("\x15request room.echo 1\r")
	r.Expect("error: not connected any more (disconnected: connection ")
	r.Type("\x03")
	r.Type("\x03")
	r.wantExit(130)
}
