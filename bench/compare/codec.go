package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya/internal/load"
)

// line is what the server's handler takes and returns.
type line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// jsonCost measures what encoding/json needs to decode and encode a body of a size once: it is what a handler of JSON
// costs beyond the yardstick, whatever the library. It runs in a process of its own on the server's core, with the
// garbage that it makes.
func jsonCost(size int) func(context.Context, *bed, timing) (sample, error) {
	return func(ctx context.Context, b *bed, d timing) (s sample, err error) {
		out, err := b.command(ctx, b.serverCore, "compare", "-json-cost", fmt.Sprint(size), "-duration", d.duration.String()).Output()
		if err != nil {
			return s, err
		}
		return s, json.Unmarshal(out, &s)
	}
}

// measureJSON is the work of the process.
func measureJSON(w io.Writer, size int, d time.Duration) error {
	body, err := load.Body("json", size)
	if err != nil {
		return err
	}
	const batch = 1000
	var before, after syscall.Rusage
	n := 0
	for round := range 2 { // the first one warms up
		n = 0
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
			return err
		}
		end := time.Now().Add(d)
		if round == 0 {
			end = time.Now().Add(d / 10)
		}
		for time.Now().Before(end) {
			for range batch {
				in := new(line)
				if err := json.Unmarshal(body, in); err != nil {
					return err
				}
				out, err := json.Marshal(in)
				if err != nil {
					return err
				}
				if len(out) != len(body) {
					return fmt.Errorf("%d bytes became %d", len(body), len(out))
				}
			}
			n += batch
		}
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
			return err
		}
	}
	us := func(before, after syscall.Timeval) float64 {
		return float64(after.Nano()-before.Nano()) / 1e3 / float64(n)
	}
	s := sample{User: us(before.Utime, after.Utime), System: us(before.Stime, after.Stime), Cores: 1}
	s.CPU = s.User + s.System
	s.PerSecond = 1e6 / s.CPU
	return json.NewEncoder(w).Encode(s)
}
