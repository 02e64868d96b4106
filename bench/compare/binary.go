package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// helloAddr is where examples/hello listens.
const helloAddr = "127.0.0.1:3250"

func binaryRows() []row {
	return []row{{
		name: "binary", bound: 12, title: "examples/hello, stripped: size; p50 and p99 of the time from a start to the first handshake",
		figure: size,
		contenders: []contender{
			{name: "hello", measure: programCost("hello")},
			{name: "hello, nocluster", measure: programCost("hello-nocluster"), checks: []check{atMost(size, 8)}},
		},
	}}
}

// programCost measures how large a program is, and how long it takes to start.
func programCost(name string) func(context.Context, *bed, timing) (sample, error) {
	return func(ctx context.Context, b *bed, d timing) (sample, error) {
		return measureStarts(ctx, filepath.Join(b.programs, name), helloAddr, d)
	}
}

// measureStarts starts a program again and again. It is not pinned: a program starts with all cores, and a command that
// pins it would be a part of its start.
func measureStarts(ctx context.Context, path, addr string, d timing) (s sample, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Size = float64(info.Size())
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		return s, fmt.Errorf("something else listens at %s", addr)
	}
	var times []float64
	var user, system time.Duration
	begin := time.Now()
	for len(times) == 0 || time.Since(begin) < d.warmup+d.duration {
		took, state, err := startOnce(ctx, path, addr)
		if err != nil {
			return s, err
		}
		if time.Since(begin) < d.warmup {
			continue
		}
		times = append(times, float64(took)/1e3)
		user += state.UserTime()
		system += state.SystemTime()
	}
	n := float64(len(times))
	s.User, s.System = float64(user)/1e3/n, float64(system)/1e3/n
	s.CPU = s.User + s.System
	slices.Sort(times)
	s.P50, s.P99 = median(times), times[int(math.Ceil(0.99*n))-1]
	return s, nil
}

// startOnce starts a program, waits for its answer to a handshake, and ends it by an interrupt.
func startOnce(ctx context.Context, path, addr string) (took time.Duration, state *os.ProcessState, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	err = shakeHands(ctx, addr)
	took = time.Since(begin)
	err = errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait())
	return took, cmd.ProcessState, err
}

// shakeHands connects to a server, as soon as that is possible, and waits for its answer to a handshake.
func shakeHands(ctx context.Context, addr string) error {
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			const body = `{"sys":{}}`
			if _, err := c.Write(append([]byte{1, 0, 0, byte(len(body))}, body...)); err != nil {
				return err
			}
			head := make([]byte, 4)
			if _, err := io.ReadFull(c, head); err != nil {
				return err
			}
			if head[0] != 1 {
				return fmt.Errorf("a packet of type %d answers the handshake", head[0])
			}
			return nil
		}
		select {
		case <-time.After(100 * time.Microsecond):
		case <-ctx.Done():
			return err
		}
	}
}
