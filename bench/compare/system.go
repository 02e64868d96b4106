package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A bed is where contenders are started: the programs, and the cores that they have.
type bed struct {
	programs   string // the folder
	serverCore int
	loadCore   int
	pinned     bool
	profile    string // file for a profile of our server; empty: none
}

// command is a program of the folder, which may only run on one core.
func (b *bed) command(ctx context.Context, core int, program string, args ...string) *exec.Cmd {
	path := filepath.Join(b.programs, program)
	if !b.pinned {
		return exec.CommandContext(ctx, path, args...)
	}
	return exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(core), path}, args...)...)
}

// A system is the processes of a contender, which run.
type system struct {
	target     string // what the load generator connects to
	processes  []*process
	goroutines func() (int, error) // how many there are; nil where nobody tells
}

// stop ends the processes, the last one first, and waits for them.
func (s *system) stop() error {
	var errs []error
	for _, p := range slices.Backward(s.processes) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// pids are those of all processes, with commas.
func (s *system) pids() string {
	var list []string
	for _, p := range s.processes {
		list = append(list, strconv.Itoa(p.cmd.Process.Pid))
	}
	return strings.Join(list, ",")
}

// A process is a program of the benchmarks: it says that it is ready by a line on its standard output, and ends when its
// standard input does.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	mu     sync.Mutex // held while a line is asked for
}

// How long a program may take until it is ready, and until it has ended.
const (
	startTime = 20 * time.Second
	stopTime  = 10 * time.Second
)

// spawn starts a program on the server's core.
func (b *bed) spawn(ctx context.Context, program string, args ...string) (*process, error) {
	p := &process{cmd: b.command(ctx, b.serverCore, program, args...)}
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = stopTime
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// line reads the next line of the program's output, and ends the program if there is none in time.
func (p *process) line() (string, error) {
	late := time.AfterFunc(startTime, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	s, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("it has not said that it is ready: %w", err)
	}
	return strings.TrimSpace(s), nil
}

// ask writes a line and reads one.
func (p *process) ask(question string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.in, question+"\n"); err != nil {
		return "", err
	}
	return p.line()
}

// said is what the program has written to its standard error. It has ended.
func (p *process) said() string {
	if s := strings.TrimSpace(p.stderr.String()); s != "" {
		return ": " + s
	}
	return ""
}

// stop ends the program and waits for it. What it has complained of is the error.
func (p *process) stop() error {
	p.in.Close()
	late := time.AfterFunc(stopTime, func() { p.cmd.Process.Kill() })
	io.Copy(io.Discard, p.out)
	err := p.cmd.Wait()
	if !late.Stop() && err != nil {
		return fmt.Errorf("did not end within %v, and was killed%s", stopTime, p.said())
	}
	if err != nil || p.stderr.Len() > 0 {
		return fmt.Errorf("ended with %v%s", p.cmd.ProcessState, p.said())
	}
	return nil
}

// bareServer starts the yardstick.
func bareServer(args ...string) func(context.Context, *bed) (*system, error) {
	return func(ctx context.Context, b *bed) (*system, error) {
		p, err := b.spawn(ctx, "yardstick", args...)
		if err != nil {
			return nil, err
		}
		addrs, err := p.addresses()
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
		s := &system{target: addrs["tcp"], processes: []*process{p}}
		if addr, ok := addrs["ws"]; ok {
			s.target = "ws://" + addr + "/"
		}
		return s, nil
	}
}

// ourServer starts the server that is made with the library, of which the load uses one listener: "tcp" or "ws".
func ourServer(listener string, args ...string) func(context.Context, *bed) (*system, error) {
	return func(ctx context.Context, b *bed) (*system, error) {
		if b.profile != "" {
			args = append(args[:len(args):len(args)], "-cpuprofile", b.profile)
		}
		p, err := b.spawn(ctx, "server", args...)
		if err != nil {
			return nil, err
		}
		addrs, err := p.addresses()
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
		s := &system{target: listener + "://" + addrs[listener], processes: []*process{p}, goroutines: p.goroutines}
		if listener == "ws" {
			s.target += "/"
		}
		return s, nil
	}
}

// addresses reads the line with the names and the addresses of listeners.
func (p *process) addresses() (map[string]string, error) {
	s, err := p.line()
	if err != nil {
		return nil, err
	}
	list := make(map[string]string)
	for f := strings.Fields(s); len(f) > 1; f = f[2:] {
		list[f[0]] = f[1]
	}
	return list, nil
}

// goroutines asks our server how many it has.
func (p *process) goroutines() (int, error) {
	s, err := p.ask("goroutines")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimPrefix(s, "goroutines "))
}

// canPin says why programs cannot be pinned to the cores, nil if they can.
func (b *bed) canPin(ctx context.Context) error {
	if b.serverCore == b.loadCore {
		return fmt.Errorf("the server and the load would share core %d", b.serverCore)
	}
	for _, core := range []int{b.serverCore, b.loadCore} {
		out, err := exec.CommandContext(ctx, "taskset", "-c", strconv.Itoa(core), "true").CombinedOutput()
		if err != nil {
			return fmt.Errorf("taskset -c %d: %w %s", core, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// exists says what is missing in the folder of programs.
func (b *bed) exists() error {
	for _, p := range []string{"yardstick", "server", "gate", "cluster", "rpc", "devcluster", "pitaya-load", "hello", "hello-nocluster"} {
		if _, err := os.Stat(filepath.Join(b.programs, p)); err != nil {
			return fmt.Errorf("%w (bench/run builds what is needed)", err)
		}
	}
	return nil
}
