//go:build unix

// Package examples has tests that are the same for all of the programs below this folder.
package examples

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/leaktest"
)

// patience bounds what must happen at once.
const patience = 20 * time.Second

// A program is a server among the examples.
type program struct {
	args    []string       // that make it take any free port
	ready   *regexp.Regexp // of what it prints for its user: how to go on
	running *regexp.Regexp // of what it prints behind that, when a signal ends it in order; nil: ready is late enough
	tcp     *regexp.Regexp // of what it prints: where clients connect to by TCP, without TLS; nil: nowhere
	signals []syscall.Signal
}

// programs are all that build with the library. That of examples/testserver has tests of its processes of its own.
var programs = map[string]program{
	"hello": { // takes no flags, see helloOverlay
		ready:   listening,
		tcp:     listening,
		signals: ctrlC,
	},
	"chat": {
		args:    []string{"-tcp", "127.0.0.1:0", "-ws", "127.0.0.1:0", "-http", "127.0.0.1:0"},
		ready:   regexp.MustCompile(`^page +http://`),
		running: listening,
		tcp:     regexp.MustCompile(`^tcp +(\S+)`),
		signals: ctrlCAndTerm,
	},
	"cluster": {
		args:    []string{"-listen", "127.0.0.1:0", "-quiet"},
		ready:   listening,
		tcp:     listening,
		signals: ctrlCAndTerm,
	},
	"operate": {
		args:    []string{"-listen", "127.0.0.1:0", "-private", "127.0.0.1:0"},
		ready:   regexp.MustCompile(`^ready$`),
		signals: ctrlCAndTerm,
	},
	"acceptor":   small("acceptor", "-listen"),
	"embed":      {args: []string{"-listen", "127.0.0.1:0"}, ready: next("embed"), signals: ctrlCAndTerm},
	"pipeline":   small("pipeline", "-listen"),
	"protobuf":   small("protobuf", "-listen"),
	"ratelimit":  small("ratelimit", "-listen"),
	"rooms":      small("rooms", "-listen"),
	"serializer": small("serializer", "-listen"),
	"testing":    small("testing", "-listen"),
	"tls":        small("tls", "-tcp", "-ws"),
	"worker":     {args: []string{"-every", "10ms"}, ready: regexp.MustCompile(`^mail: receipt for order 5$`), signals: ctrlC},
}

var (
	ctrlC        = []syscall.Signal{syscall.SIGINT}
	ctrlCAndTerm = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	listening    = regexp.MustCompile(`listening.* addr=(\S+)`) // in the log of the library
)

// small is a program that listens where its flags say, prints how to start a client, and listens to Ctrl-C only.
func small(name string, flags ...string) program {
	p := program{ready: next(name), running: listening, signals: ctrlC}
	for _, flag := range flags {
		p.args = append(p.args, flag, "127.0.0.1:0")
	}
	if name != "acceptor" && name != "tls" { // which have TLS
		p.tcp = p.ready
	}
	return p
}

// next is the line with the command that starts a client.
func next(name string) *regexp.Regexp {
	return regexp.MustCompile(`^\tgo run \./examples/` + name + ` -connect (\S+)`)
}

func TestMain(m *testing.M) {
	code := leaktest.Run(m)
	if err := os.RemoveAll(builtIn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// builtIn is the folder with the programs, once they have been built.
var builtIn string

// build builds all programs, once, and returns the folder that they are in, each under its name.
var build = sync.OnceValues(func() (dir string, err error) {
	if builtIn, err = os.MkdirTemp("", "examples-"); err != nil {
		return "", err
	}
	overlay, err := helloOverlay(builtIn)
	if err != nil {
		return "", err
	}
	args := []string{"build", "-ldflags=-s -w", "-overlay", overlay, "-o", builtIn + string(filepath.Separator)}
	for name := range programs {
		args = append(args, "./"+name)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return builtIn, nil
})

// helloOverlay lets hello take free ports: its own may be taken, and the shortest program has no flags.
func helloOverlay(dir string) (file string, err error) {
	path, err := filepath.Abs(filepath.Join("hello", "main.go"))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	port := regexp.MustCompile(`":325[01]"`)
	if n := len(port.FindAll(source, -1)); n != 2 {
		return "", fmt.Errorf("hello has %d ports, want 2", n)
	}
	replaced := filepath.Join(dir, "hello.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: replaced}})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, errors.Join(
		os.WriteFile(replaced, port.ReplaceAll(source, []byte(`"127.0.0.1:0"`)), 0o600),
		os.WriteFile(file, overlay, 0o600),
	)
}

// A process is a program that runs.
type process struct {
	*exec.Cmd
	t     *testing.T
	lines *bufio.Scanner // of what it prints
}

// start starts a program, without anything in its environment, in an empty folder. It ends with the test.
func start(t *testing.T, name string) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the programs")
	}
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p := &process{Cmd: exec.Command(filepath.Join(dir, name), programs[name].args...), t: t, lines: bufio.NewScanner(r)}
	p.Env = []string{}
	p.Dir = t.TempDir()
	p.Stdout, p.Stderr = w, w
	err = p.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { p.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		p.Process.Kill()
		p.Wait() // fails where it has been waited for
	})
	return p
}

// expect waits for a line, and returns what the groups of the expression have found in it.
func (p *process) expect(line *regexp.Regexp) []string {
	p.t.Helper()
	for p.lines.Scan() {
		p.t.Log(p.lines.Text())
		if found := line.FindStringSubmatch(p.lines.Text()); found != nil {
			return found[1:]
		}
	}
	p.t.Fatalf("the program has not printed %s", line)
	return nil
}

// end waits for the program to end as one that has done all.
func (p *process) end() {
	p.t.Helper()
	for p.lines.Scan() {
		p.t.Log(p.lines.Text())
	}
	if err := p.Wait(); err != nil {
		p.t.Errorf("the program ended with %v", err)
	}
	if left, err := os.ReadDir(p.Dir); err != nil || len(left) > 0 {
		p.t.Errorf("the program has left %v behind (%v)", left, err)
	}
}

// TestPrograms starts each program as its user does: it says how to go on, and a signal ends it.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for name, program := range programs {
		for _, sig := range program.signals {
			t.Run(name+"/"+sig.String(), func(t *testing.T) {
				t.Parallel()
				p := start(t, name)
				p.expect(program.ready)
				if program.running != nil {
					p.expect(program.running)
				}
				if err := p.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				p.end()
			})
		}
	}
}

// TestHello does with the README's program what the README says: it is greeted, over TCP and WebSocket.
func TestHello(t *testing.T) {
	t.Parallel()
	p := start(t, "hello")
	for _, scheme := range []string{"tcp://", "ws://"} {
		client, err := pitaya.Dial(t.Context(), scheme+p.expect(programs["hello"].ready)[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var reply struct{ Text string }
		if err := client.Request(t.Context(), "game.Hello.Greet", map[string]string{"Text": "Ada"}, &reply); err != nil {
			t.Fatal(err)
		}
		if reply.Text != "Hello, Ada!" {
			t.Errorf("%s: got %q", scheme, reply.Text)
		}
	}
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.end()
}

// TestSecondSignal ends each program by a second signal. After the first one it waits for a client that was asked for its
// last packet and does not answer.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for name, program := range programs {
		if program.tcp == nil {
			continue
		}
		for _, sig := range program.signals {
			t.Run(name+"/"+sig.String(), func(t *testing.T) {
				t.Parallel()
				secondSignal(t, start(t, name), sig, program.tcp)
			})
		}
	}
}

func secondSignal(t *testing.T, p *process, sig syscall.Signal, address *regexp.Regexp) {
	client := dial(t, p.expect(address)[0])
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	p.expect(regexp.MustCompile("shutting down"))
	// The server asks the client for its last packet, and waits 2 s for that.
	if packet, err := pitaya.ReadPacket(client, 0); err != nil || packet.Type != pitaya.PacketHandshakeAck {
		t.Fatalf("the server says %v, %v", packet.Type, err)
	}
	// The program takes the second signal for the first as long as it has not let go of it, which is soon. So more follow,
	// as from somebody who has no patience.
	ended := make(chan error, 1)
	go func() {
		for p.lines.Scan() {
			t.Logf("after the second signal: %s", p.lines.Text())
		}
		ended <- p.Wait()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.Process.Signal(sig) // fails once it has ended
		case err := <-ended:
			byWhat(t, err, sig)
			return
		}
	}
}

// byWhat checks how a program has ended.
func byWhat(t *testing.T, err error, sig syscall.Signal) {
	t.Helper()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if !failed {
		t.Fatalf("ended with %v, as if there had been one signal", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signal() != sig {
		t.Errorf("ended with %v, want %v", err, sig)
	}
}

// dial connects to an address, and does a handshake that announces "drain".
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	greet(t, c)
	return c
}

// greet does the handshake.
func greet(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	send := func(typ pitaya.PacketType, body string) {
		b, err := pitaya.AppendPacket(nil, typ, []byte(body))
		if err == nil {
			_, err = c.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	send(pitaya.PacketHandshake, `{"sys":{"features":["drain"]}}`)
	if p, err := pitaya.ReadPacket(c, 0); err != nil || p.Type != pitaya.PacketHandshake {
		t.Fatalf("handshake: got %v, %v", p.Type, err)
	}
	send(pitaya.PacketHandshakeAck, "")
}
