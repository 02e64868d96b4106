package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// bench starts the programs.
type bench struct {
	bin      string
	duration time.Duration
}

// Cores, as taskset calls them, and the unit of /proc/PID/stat.
const (
	serverCore = "0"
	loadCore   = "1"
	clockTick  = 10 * time.Millisecond
	warmUp     = 700 * time.Millisecond
)

// A process is one of the programs, which ends when its standard input does.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// processes end together, the last first.
type processes []*process

// start starts a program of the server's side.
func (b *bench) start(ps *processes, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command("taskset", append([]string{"-c", serverCore, filepath.Join(b.bin, name)}, args...)...)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	*ps = append(*ps, p)
	return p, nil
}

// line reads what a program prints, behind a word that it begins with.
func (p *process) line(word string) (string, error) {
	s, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s has ended: %w", filepath.Base(p.cmd.Args[3]), err)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), word)
	if !ok {
		return "", fmt.Errorf("%s printed %q", filepath.Base(p.cmd.Args[3]), s)
	}
	return strings.TrimSpace(rest), nil
}

func (ps *processes) end() {
	for i := len(*ps) - 1; i >= 0; i-- {
		p := (*ps)[i]
		p.stdin.Close()
		p.cmd.Wait()
	}
}

// cpu returns the processor time that all have used.
func (ps processes) cpu() (total time.Duration, err error) {
	for _, p := range ps {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, errors.New("/proc/PID/stat is not as expected")
		}
		for _, f := range fields[11:13] { // user and system
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * clockTick
		}
	}
	return total, nil
}

// nats starts a NATS server and returns its address.
func (b *bench) nats(ps *processes) (string, error) {
	p, err := b.start(ps, "devcluster", "-nats", "127.0.0.1:0", "-stdin")
	if err != nil {
		return "", err
	}
	s, err := p.line("")
	if err != nil {
		return "", err
	}
	var addresses struct{ NATS string }
	err = json.Unmarshal([]byte(s), &addresses)
	return addresses.NATS, err
}

// load runs the generator.
func (b *bench) load(ps processes, addr, route string, args ...string) (o outcome, err error) {
	var pids []string
	for _, p := range ps {
		pids = append(pids, strconv.Itoa(p.cmd.Process.Pid))
	}
	args = append([]string{"-c", loadCore, filepath.Join(b.bin, "pitaya-load"), "-quiet", "-json", "-", "-route", route,
		"-pid", strings.Join(pids, ","), "-warmup", warmUp.String(), "-duration", b.duration.String()}, args...)
	cmd := exec.Command("taskset", append(args, addr)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return o, fmt.Errorf("pitaya-load: %w", err)
	}
	var report struct {
		Measured struct {
			PerSecond float64               `json:"per_second"`
			Latency   struct{ P50 float64 } `json:"latency_us"`
		}
		Server struct {
			CPU float64 `json:"cpu_us_per_operation"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return o, err
	}
	return outcome{CPU: report.Server.CPU, PerSecond: report.Measured.PerSecond, P50: report.Measured.Latency.P50}, nil
}

// yardstick measures the plain TCP echo.
func (b *bench) yardstick(load ...string) (o outcome, err error) {
	var ps processes
	defer ps.end()
	p, err := b.start(&ps, "yardstick")
	if err != nil {
		return o, err
	}
	addr, err := p.line("tcp")
	if err != nil {
		return o, err
	}
	return b.load(ps, addr, "connector.interopsvc.echo", load...)
}

// bare measures the gate and the room without the library.
func (b *bench) bare(delay time.Duration, load ...string) (o outcome, err error) {
	var ps processes
	defer ps.end()
	url, err := b.nats(&ps)
	if err != nil {
		return o, err
	}
	room, err := b.start(&ps, "gate", "-nats", url, "-delay", delay.String(), "room")
	if err != nil {
		return o, err
	}
	if _, err := room.line("ready"); err != nil {
		return o, err
	}
	gate, err := b.start(&ps, "gate", "-nats", url, "gate")
	if err != nil {
		return o, err
	}
	addr, err := gate.line("tcp")
	if err != nil {
		return o, err
	}
	return b.load(ps, addr, "room.room.echo", load...)
}

// cluster measures a frontend and a backend of the library.
func (b *bench) cluster(overNATS bool, delay time.Duration, load ...string) (o outcome, err error) {
	var ps processes
	defer ps.end()
	var over []string
	if overNATS {
		url, err := b.nats(&ps)
		if err != nil {
			return o, err
		}
		over = []string{"-nats", url}
	}
	room, err := b.start(&ps, "cluster", append(over, "-type", "room", "-delay", delay.String())...)
	if err != nil {
		return o, err
	}
	gate, err := b.start(&ps, "cluster", append(over, "-type", "gate", "-frontend")...)
	if err != nil {
		return o, err
	}
	for _, pair := range [][2]*process{{room, gate}, {gate, room}} {
		entry, err := pair[0].line("entry")
		if err != nil {
			return o, err
		}
		if _, err := fmt.Fprintln(pair[1].stdin, entry); err != nil {
			return o, err
		}
	}
	addr, err := gate.line("tcp")
	if err != nil {
		return o, err
	}
	return b.load(ps, addr, "room.room.echo", load...)
}

// calls measures calls from one server to another.
func (b *bench) calls(by string, overNATS bool) (o outcome, err error) {
	var ps processes
	defer ps.end()
	args := []string{"-by", by}
	if overNATS {
		url, err := b.nats(&ps)
		if err != nil {
			return o, err
		}
		args = append(args, "-nats", url)
	}
	callee, err := b.start(&ps, "rpc", append(args, "callee")...)
	if err != nil {
		return o, err
	}
	line, err := callee.line("")
	if err != nil {
		return o, err
	}
	caller, err := b.start(&ps, "rpc", append(args, "-callee", line, "caller")...)
	if err != nil {
		return o, err
	}
	var made [2]int
	var used [2]time.Duration
	var at [2]time.Time
	time.Sleep(warmUp)
	for i := range made {
		if i > 0 {
			time.Sleep(b.duration)
		}
		if _, err := fmt.Fprintln(caller.stdin); err != nil {
			return o, err
		}
		text, err := caller.line("")
		if err != nil {
			return o, err
		}
		if made[i], err = strconv.Atoi(text); err != nil {
			return o, fmt.Errorf("the caller says %q", text)
		}
		at[i] = time.Now()
		if used[i], err = ps.cpu(); err != nil {
			return o, err
		}
	}
	n := float64(made[1] - made[0])
	return outcome{CPU: float64((used[1] - used[0]).Microseconds()) / n, PerSecond: n / at[1].Sub(at[0]).Seconds()}, nil
}
