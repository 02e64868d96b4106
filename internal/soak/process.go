package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A process is a child: a server, or the etcd or NATS of devcluster. Its standard input is a pipe from here, with which it
// ends.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	line  []byte        // the first line that it has printed
	log   string        // the file with its standard error
	ended chan struct{} // closed when it has
	err   error         // how, set before ended is closed
}

// startProcess starts a program and waits for its first line.
func startProcess(ctx context.Context, name, logFile, program string, args ...string) (*process, error) {
	logs, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	cmd := exec.Command(program, args...)
	cmd.Stderr = logs
	cmd.WaitDelay = 5 * time.Second
	ownGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: cmd, stdin: stdin, log: logFile, ended: make(chan struct{})}
	line := make(chan []byte, 1)
	go func() {
		r := bufio.NewReader(stdout)
		b, _ := r.ReadBytes('\n')
		line <- b
		io.Copy(io.Discard, r)
		p.err = cmd.Wait()
		stdin.Close()
		close(p.ended)
	}()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case p.line = <-line:
		if len(p.line) > 0 {
			return p, nil
		}
		err = errors.New("ended")
	case <-timer.C:
		err = errors.New("not ready within a minute")
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.kill()
	return nil, fmt.Errorf("%s: %w: %s", name, err, tail(logFile))
}

// kill ends the process as a crash does, and waits for that.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// stop asks the process to end by f and waits for that. It reports false for one that had to be killed.
func (p *process) stop(f func(), patience time.Duration) bool {
	f()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		p.kill()
		return false
	}
}

// tail returns the last lines of a file.
func tail(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// buildDevcluster builds the program that runs etcd and NATS, or finds it among what was built.
func buildDevcluster(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "devcluster")
	cmd.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(root))), "internal", "devcluster")
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building internal/devcluster: %w\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// freeAddress returns an address nobody listens on. Its port is below those that systems give to outgoing connections: a
// client that tries the port of a server that is down could otherwise get it itself.
func freeAddress() (string, error) {
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port in 100 tries")
}

// A service is an etcd or a NATS.
type service struct {
	kind, program, address, log string
	args                        []string

	mu   sync.Mutex
	proc *process // nil while it is down
}

func (s *service) start(ctx context.Context) error {
	p, err := startProcess(ctx, s.kind, s.log, s.program, append([]string{"-stdin", "-" + s.kind, s.address}, s.args...)...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	return nil
}

func (s *service) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *service) end(f func(*process)) {
	if p := s.process(); p != nil {
		f(p)
		s.mu.Lock()
		s.proc = nil
		s.mu.Unlock()
	}
}

// A node is one place for a server, in which one process after the other lives.
type node struct {
	kind, place string
	etcd, nats  *link
	doors       []*link // for clients: TCP and WebSocket; none on a backend

	mu          sync.Mutex // guards what follows
	incarnation int
	id          string
	proc        *process
	addrs       serverAddrs
}

// current returns the process of a node, nil if there is none.
func (n *node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// now returns the id of the server and the name of its process.
func (n *node) now() (id, process string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return "", ""
	}
	return n.id, n.proc.name
}

// door returns an address for clients: directly, or through the link. The name of the process is "" if nobody is there.
func (n *node) door(ws, through bool) (addr, process string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return "", ""
	}
	switch {
	case through && ws:
		addr = n.doors[1].Addr
	case through:
		addr = n.doors[0].Addr
	case ws:
		addr = n.addrs.WS
	default:
		addr = n.addrs.TCP
	}
	return addr, n.proc.name
}

// get asks the server on its private port, and decodes the JSON that it answers into v.
func (n *node) get(ctx context.Context, path string, form url.Values, v any) error {
	n.mu.Lock()
	addr := n.addrs.Admin
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return getJSON(ctx, "http://"+addr+path, form, v)
}

func getJSON(ctx context.Context, address string, form url.Values, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Close = true // a connection that stays would count among what the server has open
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(b))
	case v == nil:
		return nil
	}
	return json.Unmarshal(b, v)
}
