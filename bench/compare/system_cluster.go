package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/procstat"
)

// A transport is what calls between servers go over.
type transport string

const (
	nats transport = "nats"
	grpc transport = "grpc"
)

// spawnIn starts a program as a part of s, which owns it from then on.
func (b *bed) spawnIn(ctx context.Context, s *system, program string, args ...string) (*process, error) {
	p, err := b.spawn(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	return p, nil
}

// over starts what a transport needs, as a part of s, and returns the flags that name it to the other programs.
func (b *bed) over(ctx context.Context, s *system, t transport) ([]string, error) {
	if t != nats {
		return nil, nil
	}
	p, err := b.spawnIn(ctx, s, "devcluster", "-nats", "127.0.0.1:0", "-stdin")
	if err != nil {
		return nil, err
	}
	text, err := p.line()
	if err != nil {
		return nil, err
	}
	var addr struct{ NATS string }
	if err := json.Unmarshal([]byte(text), &addr); err != nil {
		return nil, fmt.Errorf("devcluster: %w", err)
	}
	return []string{"-nats", addr.NATS}, nil
}

// several makes a start of one that adds processes to a system: if it fails, those that run are ended.
func several(start func(context.Context, *bed, *system) error) func(context.Context, *bed) (*system, error) {
	return func(ctx context.Context, b *bed) (*system, error) {
		s := new(system)
		if err := start(ctx, b, s); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		return s, nil
	}
}

// bareCluster starts the gate and the room that are the yardstick of forwarded requests, and NATS.
func bareCluster(delay time.Duration) func(context.Context, *bed) (*system, error) {
	return several(func(ctx context.Context, b *bed, s *system) error {
		args, err := b.over(ctx, s, nats)
		if err != nil {
			return err
		}
		room, err := b.spawnIn(ctx, s, "gate", append(args[:len(args):len(args)], "-delay", delay.String(), "room")...)
		if err != nil {
			return err
		}
		if _, err := room.line(); err != nil {
			return err
		}
		gate, err := b.spawnIn(ctx, s, "gate", append(args[:len(args):len(args)], "gate")...)
		if err != nil {
			return err
		}
		addrs, err := gate.addresses()
		s.target = addrs["tcp"]
		return err
	})
}

// ourCluster starts a backend and a frontend of the library, and NATS if calls go over that. They are told of each other.
func ourCluster(t transport, delay time.Duration) func(context.Context, *bed) (*system, error) {
	return several(func(ctx context.Context, b *bed, s *system) error {
		args, err := b.over(ctx, s, t)
		if err != nil {
			return err
		}
		profiled := func(part string, more ...string) []string {
			more = append(more, args...)
			if b.profile != "" {
				more = append(more, "-cpuprofile", b.profile+part)
			}
			return more
		}
		room, err := b.spawnIn(ctx, s, "cluster", profiled(".room", "-type", "room", "-delay", delay.String())...)
		if err != nil {
			return err
		}
		gate, err := b.spawnIn(ctx, s, "cluster", profiled("", "-type", "gate", "-frontend")...)
		if err != nil {
			return err
		}
		roomEntry, err := room.entry()
		if err != nil {
			return err
		}
		gateEntry, err := gate.entry()
		if err != nil {
			return err
		}
		if err := errors.Join(room.tell(gateEntry), gate.tell(roomEntry)); err != nil {
			return err
		}
		addrs, err := gate.addresses()
		s.target = addrs["tcp"]
		return err
	})
}

// entry reads the line by which a server of a cluster tells others of itself.
func (p *process) entry() (string, error) {
	s, err := p.line()
	if err != nil {
		return "", err
	}
	entry, ok := strings.CutPrefix(s, "entry ")
	if !ok {
		return "", fmt.Errorf("its first line is no entry: %s", s)
	}
	return entry, nil
}

// tell writes a line.
func (p *process) tell(s string) error {
	_, err := p.in.Write([]byte(s + "\n"))
	return err
}

// calls measures calls between two servers, by the library or by plain clients of a transport. One of them makes them, 50
// at a time, and says how many; there is no load generator.
func calls(by string, t transport) func(context.Context, *bed, timing) (sample, error) {
	return func(ctx context.Context, b *bed, d timing) (s sample, err error) {
		sys := new(system)
		defer func() { err = errors.Join(err, sys.stop()) }()
		args, err := b.over(ctx, sys, t)
		if err != nil {
			return s, err
		}
		args = append(args, "-by", by)
		callee, err := b.spawnIn(ctx, sys, "rpc", append(args[:len(args):len(args)], "callee")...)
		if err != nil {
			return s, err
		}
		text, err := callee.line()
		if err != nil {
			return s, err
		}
		args = append(args, "-callee", text)
		if b.profile != "" {
			args = append(args, "-cpuprofile", b.profile)
		}
		caller, err := b.spawnIn(ctx, sys, "rpc", append(args, "caller")...)
		if err != nil {
			return s, err
		}
		// The first answer says that it has begun.
		if _, err := caller.made(); err != nil {
			return s, err
		}
		if err := wait(ctx, d.warmup); err != nil {
			return s, err
		}
		first, err := sys.look(caller)
		if err != nil {
			return s, err
		}
		if err := wait(ctx, d.duration); err != nil {
			return s, err
		}
		last, err := sys.look(caller)
		if err != nil {
			return s, err
		}
		return newCalls(first, last)
	}
}

// A look is how many calls have been made, and what they have cost, at a time.
type look struct {
	at   time.Time
	made int
	used procstat.Sample
}

func (s *system) look(caller *process) (l look, err error) {
	if l.made, err = caller.made(); err != nil {
		return l, err
	}
	var pids []int
	for _, p := range s.processes {
		pids = append(pids, p.cmd.Process.Pid)
	}
	l.at = time.Now()
	l.used, err = procstat.Sum(pids)
	return l, err
}

// made asks a caller for the number of its calls.
func (p *process) made() (int, error) {
	s, err := p.ask("")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New(s) // what has failed
	}
	return n, nil
}

// newCalls is what has happened between two looks.
func newCalls(first, last look) (s sample, err error) {
	n, seconds := float64(last.made-first.made), last.at.Sub(first.at).Seconds()
	if n == 0 {
		return s, errors.New("no call has been answered")
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / n }
	s.User, s.System = us(last.used.User-first.used.User), us(last.used.System-first.used.System)
	s.CPU, s.PerSecond = s.User+s.System, n/seconds
	s.Cores = (last.used.CPU() - first.used.CPU()).Seconds() / seconds
	return s, nil
}

// wait returns after a time, or when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
