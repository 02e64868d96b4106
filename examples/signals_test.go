//go:build unix

// Package examples has a test that is the same for all of the programs below this folder.
package examples

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// patience bounds what must happen at once.
const patience = 20 * time.Second

// programs are the servers among the examples. That of examples/testserver has tests of its processes of its own.
var programs = map[string]struct {
	args    []string       // that make it take any free port
	address *regexp.Regexp // of what it prints: where clients connect to by TCP
	signals []syscall.Signal
}{
	"hello": { // takes no flags, see helloOverlay, and listens to Ctrl-C only
		address: regexp.MustCompile(`listening.* addr=(\S+)`),
		signals: []syscall.Signal{syscall.SIGINT},
	},
	"chat": {
		args:    []string{"-tcp", "127.0.0.1:0", "-ws", "127.0.0.1:0", "-http", "127.0.0.1:0"},
		address: regexp.MustCompile(`^tcp +(\S+)`),
		signals: []syscall.Signal{syscall.SIGINT, syscall.SIGTERM},
	},
	"cluster": {
		args:    []string{"-listen", "127.0.0.1:0", "-quiet"},
		address: regexp.MustCompile(`listening.* addr=(\S+)`),
		signals: []syscall.Signal{syscall.SIGINT, syscall.SIGTERM},
	},
}

// TestSecondSignal ends each program by a second signal. After the first one it waits for a client that was asked for its
// last packet and does not answer.
func TestSecondSignal(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs")
	}
	dir := t.TempDir()
	for name, p := range programs {
		binary := build(t, name, dir)
		for _, sig := range p.signals {
			t.Run(name+"/"+sig.String(), func(t *testing.T) { secondSignal(t, sig, p.address, binary, p.args...) })
		}
	}
}

// build builds a program.
func build(t *testing.T, name, dir string) (binary string) {
	t.Helper()
	binary = filepath.Join(dir, name)
	args := []string{"build", "-o", binary}
	if name == "hello" {
		args = append(args, "-overlay", helloOverlay(t, dir))
	}
	if out, err := exec.Command("go", append(args, "./"+name)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return binary
}

// helloOverlay lets hello take free ports: its own may be taken, and the shortest program has no flags.
func helloOverlay(t *testing.T, dir string) (file string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("hello", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`":325[01]"`)
	if n := len(port.FindAll(source, -1)); n != 2 {
		t.Fatalf("hello has %d ports, want 2", n)
	}
	replaced := filepath.Join(dir, "hello.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: replaced}})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "overlay.json")
	for name, b := range map[string][]byte{replaced: port.ReplaceAll(source, []byte(`"127.0.0.1:0"`)), file: overlay} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// secondSignal starts a program, and ends it.
func secondSignal(t *testing.T, sig syscall.Signal, address *regexp.Regexp, binary string, args ...string) {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{}
	cmd.Dir = t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	defer cmd.Wait() // fails where it has been waited for
	defer cmd.Process.Kill()

	lines := bufio.NewScanner(r)
	client := clientOf(t, lines, address)
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() && !strings.Contains(lines.Text(), "shutting down") {
	}
	// The server asks the client for its last packet, and waits 2 s for that.
	if p, err := pitaya.ReadPacket(client, 0); err != nil || p.Type != pitaya.PacketHandshakeAck {
		t.Fatalf("the server says %v, %v", p.Type, err)
	}
	// The program takes the second signal for the first as long as it has not let go of it, which is soon. So more follow,
	// as from somebody who has no patience.
	ended := make(chan error, 1)
	go func() {
		for lines.Scan() {
			t.Logf("after the second signal: %s", lines.Text())
		}
		ended <- cmd.Wait()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			cmd.Process.Signal(sig) // fails once it has ended
			continue
		case err = <-ended:
		}
		break
	}
	exit, failed := errors.AsType[*exec.ExitError](err)
	if !failed {
		t.Fatalf("ended with %v, as if there had been one signal", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signal() != sig {
		t.Errorf("ended with %v, want %v", err, sig)
	}
}

// clientOf connects to the address that the program prints, and does a handshake that announces "drain".
func clientOf(t *testing.T, lines *bufio.Scanner, address *regexp.Regexp) net.Conn {
	t.Helper()
	for lines.Scan() {
		t.Log(lines.Text())
		found := address.FindStringSubmatch(lines.Text())
		if found == nil {
			continue
		}
		c, err := net.Dial("tcp", found[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		greet(t, c)
		return c
	}
	t.Fatal("no address for clients was printed")
	return nil
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
