//go:build unix

package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A process is the program, running.
type process struct {
	*exec.Cmd
	lines chan string // of its log; closed at the end
}

// startProcess starts the program without any environment, and waits until it
// is ready. Its log, of at most 1000 lines, is to be read by the caller then.
func startProcess(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	return startProcessEnv(t, binary, nil, args...)
}

// startProcessEnv starts the program with nothing in its environment but env.
func startProcessEnv(t *testing.T, binary string, env []string, args ...string) *process {
	t.Helper()
	p := launch(t, binary, env, args...)
	for line := range p.lines {
		if strings.Contains(line, "all modules started!") {
			return p
		}
		if !slices.ContainsFunc([]string{"listening", "joined the cluster", "connected to NATS", "connection of bindings to etcd"},
			func(s string) bool { return strings.Contains(line, s) }) {
			t.Errorf("log before the program is ready: %s", line)
		}
	}
	t.Fatalf("the program ended: %v", p.Wait())
	return nil
}

// launch starts the program and does not wait.
func launch(t *testing.T, binary string, env []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, args...), lines: make(chan string, 1000)}
	p.Env = append([]string{}, env...)
	p.Dir = t.TempDir()
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() }) // has no effect if it has ended
	go func() {
		defer close(p.lines)
		r := bufio.NewReader(stderr)
		for {
			line, err := r.ReadString('\n')
			if line != "" {
				p.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// end sends a signal, and checks that the program tells the clients, who leave
// then, and ends well and in time. It returns what was logged since the start.
func (p *process) end(t *testing.T, sig os.Signal, clients ...*client) (log []string) {
	t.Helper()
	begin := time.Now()
	if err := p.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if _, err := pitaya.ReadPacket(c, 0); !errors.Is(err, io.EOF) {
			t.Errorf("client got %v, want the end of the stream", err)
		}
		c.Close()
	}
	for line := range p.lines {
		log = append(log, line)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after %v: %v\n%s", sig, err, strings.Join(log, ""))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("after %v it took %v", sig, took)
	}
	return log
}

func build(t *testing.T) (binary string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program")
	}
	binary = filepath.Join(t.TempDir(), "testserver")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func TestProcess(t *testing.T) {
	binary := build(t)
	port := freePorts(t, 2)
	first, second := strconv.Itoa(port), strconv.Itoa(port+1)
	sleep := requestMessage(1, "interopsvc.sleep")
	sleep.Payload = []byte(`{"n":60000}`)

	t.Run("terminate", func(t *testing.T) {
		p := startProcess(t, binary, "-standalone", "-port", first, "-wsport", second)
		c := connectTo(t, protocolTCP, "127.0.0.1:"+first, `{}`)
		c.must("testsvc.testbind", "")
		ws := connectTo(t, protocolWS, "127.0.0.1:"+second, `{}`)
		ws.must("interopsvc.join", "")
		if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		c.must("testsvc.testrequestonlysessionreturnsptr", "")
		log := p.end(t, syscall.SIGTERM, c, ws)
		if len(log) != 1 || !strings.Contains(log[0], "shutting down") {
			t.Errorf("log between start and end: %q, want one line", log)
		}
		if !free(port, 2) {
			t.Error("the ports are still taken")
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		p := startProcess(t, binary, "-suite", "sdk-json", "-port", first)
		ws := connectTo(t, protocolWS, "127.0.0.1:"+first, `{}`)
		ws.must("connector.sendpush", "")
		p.end(t, os.Interrupt, ws, connectTo(t, protocolTCP, "127.0.0.1:"+second, `{}`))
	})
	t.Run("at work", func(t *testing.T) {
		// The handler is given up when the time for the end is over.
		p := startProcess(t, binary, "-standalone", "-port", first, "-pitaya.shutdown.timeout", "200ms")
		connectTo(t, protocolTCP, "127.0.0.1:"+first, `{}`).sendMessage(sleep)
		p.end(t, syscall.SIGTERM)
	})
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run("second "+sig.String(), func(t *testing.T) {
			p := startProcess(t, binary, "-standalone", "-port", first, "-pitaya.shutdown.timeout", "1m")
			c := connectTo(t, protocolTCP, "127.0.0.1:"+first, `{}`)
			c.notify("interopsvc.pushself", `{"route":"begun"}`)
			c.sendMessage(sleep)
			c.wantPush(push{"begun", ""}) // and what was sent with it has arrived
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for line := range p.lines {
				if strings.Contains(line, "shutting down") {
					break
				}
			}
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for range p.lines {
			}
			var exit *exec.ExitError
			if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("got %v, want status 1", err)
			}
		})
	}
	t.Run("unread log", func(t *testing.T) {
		p := exec.Command(binary, "-standalone", "-port", first)
		p.Env = []string{}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p.Stderr = w
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		defer p.Process.Kill()
		w.Close()
		for in := bufio.NewScanner(r); in.Scan() && !strings.Contains(in.Text(), "all modules started!"); {
		}
		r.Close()
		c := connectTo(t, protocolTCP, "127.0.0.1:"+first, `{}`)
		c.request("interopsvc.boom", "") // is logged
		c.Close()
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	})
}
