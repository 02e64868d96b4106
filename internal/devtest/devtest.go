// Package devtest runs a real etcd or NATS for a test, each in a process of its own, by the program of internal/devcluster, so
// that the test can stop, kill, pause and start it again. The processes end with the test, and with the test binary, however
// that ends: their standard input is a pipe from it.
package devtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Server is an etcd or a NATS server. Its methods fail the test if they do not succeed, and are for the goroutine
// of the test.
type Server struct {
	t       testing.TB
	kind    string // "etcd" or "nats", the flag and the key of the address
	address string // host and port, the same after each start
	args    []string
	addr    string // URL for clients

	// Of the process, if one is running.
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	paused bool
}

// Etcd starts an etcd with further flags of devcluster, on an empty folder of its own. The test is skipped under -short, which
// is what keeps the run short, and where the folder of devcluster is missing, as in the module zip of a proxy. A program that
// does not build fails the test.
func Etcd(t testing.TB, flags ...string) *Server { return start(t, "etcd", flags) }

// NATS does the same for NATS.
func NATS(t testing.TB, flags ...string) *Server { return start(t, "nats", flags) }

func start(t testing.TB, kind string, flags []string) *Server {
	t.Helper()
	s := &Server{t: t, kind: kind, args: append([]string{"-stdin", "-data", t.TempDir()}, flags...)}
	t.Cleanup(s.Stop)
	// Somebody else may take the port between the choice and the start.
	var err error
	for range 5 {
		s.address = FreeAddress(t)
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// URL is the address for clients.
func (s *Server) URL() string { return s.addr }

// Start starts the server again after Stop or Kill, on the same address and data.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// StartEmpty starts the server again after Stop or Kill, on the same address, without any data.
func (s *Server) StartEmpty() {
	s.t.Helper()
	s.args[slices.Index(s.args, "-data")+1] = s.t.TempDir()
	s.Start()
}

// Stop lets the server end in an orderly way, and waits for that. It does nothing if it has ended.
func (s *Server) Stop() {
	s.t.Helper()
	s.Resume()
	s.wait(func() { s.stdin.Close() })
}

// Kill ends the server as a crash does.
func (s *Server) Kill() {
	s.t.Helper()
	s.wait(func() { s.cmd.Process.Kill() })
}

// Command writes a line to the server that makes it end, and does not wait for that; Stop does.
func (s *Server) Command(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.stdin, line); err != nil {
		s.t.Fatal(err)
	}
}

// Pause makes the process stand still: its connections stay and nothing is answered. The test is skipped where the
// system has no signals for that.
func (s *Server) Pause() {
	s.t.Helper()
	if err := PauseProcess(s.cmd.Process); errors.Is(err, errors.ErrUnsupported) {
		s.t.Skip("no way to pause a process here")
	} else if err != nil {
		s.t.Fatal(err)
	}
	s.paused = true
}

// Resume ends a Pause, if there is one.
func (s *Server) Resume() {
	s.t.Helper()
	if !s.paused {
		return
	}
	s.paused = false
	if err := ResumeProcess(s.cmd.Process); err != nil {
		s.t.Fatal(err)
	}
}

// start starts the process and waits until it takes connections.
func (s *Server) start() error {
	s.t.Helper()
	cmd := exec.Command(binary(s.t), append([]string{"-" + s.kind, s.address}, s.args...)...)
	var logs bytes.Buffer
	cmd.Stderr = io.MultiWriter(&logs, s.t.Output())
	cmd.WaitDelay = 10 * time.Second
	OwnGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.stdin, s.paused = cmd, stdin, false
	// devcluster gives up by itself when the start takes too long.
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		var addrs map[string]string
		if err = json.Unmarshal(line, &addrs); err == nil {
			s.addr = addrs[s.kind]
			return nil
		}
	}
	s.wait(func() { cmd.Process.Kill() })
	return fmt.Errorf("%s on %s: %w\n%s", s.kind, s.address, err, logs.String())
}

// wait calls end and waits for the end of the process. One that does not end is killed, which is a failure.
func (s *Server) wait(end func()) {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	cmd := s.cmd
	end()
	slow := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	cmd.Wait() // the error is how it ended, which is what was asked for
	if !slow.Stop() {
		s.t.Errorf("%s did not end within 30 s", s.kind)
	}
	s.stdin.Close()
	s.cmd, s.stdin, s.paused = nil, nil, false
}

// FreeAddress returns an address nobody listens on. Its port is below those that systems give to outgoing connections:
// while the server is down, a client that tries its port again and again could otherwise get that port itself, and
// connect to itself.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
	t.Fatal("no free port in 100 tries")
	return ""
}

// binary returns the path of the program.
func binary(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("no real etcd or NATS with -short")
	}
	path, err := build()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build builds the program, once for all tests. The go command keeps it in its cache, like a tool, so only the first
// build takes time, and nothing is left behind.
var build = sync.OnceValues(func() (string, error) {
	folder, err := find()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "tool", "-n", "devcluster")
	cmd.Dir = folder
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", folder, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// find returns the folder of the program, which is below one of those above the package that is tested. The error is
// fs.ErrNotExist if there is none.
func find() (string, error) {
	at, err := os.Getwd()
	for err == nil {
		folder := filepath.Join(at, "internal", "devcluster")
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		up := filepath.Dir(at)
		if up == at {
			return "", fmt.Errorf("internal/devcluster: %w", fs.ErrNotExist)
		}
		at = up
	}
	return "", err
}
