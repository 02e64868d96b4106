package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/pitaya-go/pitaya/internal/load"
)

// fullCore is how much of its core the load generator may use before its limit, and not the server's, shapes the figures.
const fullCore = 0.95

// keptRate is the share of the rate of an open load that must have been reached.
const keptRate = 0.98

// once measures a contender one time.
func (b *bed) once(ctx context.Context, r row, c contender, res *results, d timing) (s sample, err error) {
	d.duration = max(d.duration, r.duration)
	if c.measure != nil {
		return c.measure(ctx, b, d)
	}
	args := []string{"-quiet", "-json", "-", "-max-errors", "-1", "-warmup", d.warmup.String(), "-duration", d.duration.String()}
	args = append(append(args, r.load...), c.load...)
	var want float64
	if c.rate != nil {
		limit, err := res.median(c.rate.of.in(r.name), perSecond)
		if err != nil {
			return s, err
		}
		want = c.rate.share * limit
		args = append(args, "-rate", strconv.FormatFloat(want, 'f', 0, 64))
	}
	sys, err := c.start(ctx, b)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, sys.stop()) }()
	if !slices.ContainsFunc(c.checks, func(ch check) bool { return ch.figure.name == goroutines.name }) {
		sys.goroutines = nil // asking would be a part of what is measured
	}
	args = append(args, "-pid", sys.pids(), sys.target)
	rep, perConn, err := b.load(ctx, sys, args)
	if err != nil {
		return s, err
	}
	s = newSample(rep)
	s.Goroutines = perConn
	if want > 0 && s.PerSecond < keptRate*want {
		s.notes = append(s.notes, fmt.Sprintf("of %s/s only %.0f %% was reached", number(want), 100*s.PerSecond/want))
	}
	return s, nil
}

// load runs the load generator, and meanwhile counts goroutines for each connection where the server tells.
func (b *bed) load(ctx context.Context, sys *system, args []string) (rep *load.Report, perConn float64, err error) {
	before, most := 0, 0
	if sys.goroutines != nil {
		if before, err = sys.goroutines(); err != nil {
			return nil, 0, err
		}
	}
	cmd := b.command(ctx, b.loadCore, "pitaya-load", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// Now and then, so that it costs nothing that could be measured.
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-look.C:
			if sys.goroutines == nil {
				continue
			}
			if n, err := sys.goroutines(); err == nil {
				most = max(most, n)
			}
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("the load generator: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	rep = new(load.Report)
	if err := json.Unmarshal(stdout.Bytes(), rep); err != nil {
		return nil, 0, fmt.Errorf("the load generator's report: %w", err)
	}
	if n := rep.Connections.AtEnd; n > 0 && most > before {
		// In thousandths: a server has some that are not its connections', for a moment, whatever the number of those.
		perConn = math.Round(1000*float64(most-before)/float64(n)) / 1000
	}
	return rep, perConn, nil
}

// newSample takes from a report what is compared.
func newSample(rep *load.Report) sample {
	m := rep.Measured
	s := sample{PerSecond: m.PerSecond, P50: m.Latency.P50, P99: m.Latency.P99, Generator: rep.Generator.Cores}
	if v := rep.Server; v != nil && v.Available {
		s.RSS, s.Cores = v.RSSPerConn, v.Cores
		if v.CPUPerOp != nil {
			ops := float64(m.Count + m.Failed)
			s.CPU, s.User, s.System = *v.CPUPerOp, 1e6*v.UserSeconds/ops, 1e6*v.SystemSecs/ops
		}
	} else if v != nil {
		s.notes = append(s.notes, "no figures of the server: "+v.Note)
	}
	for _, e := range rep.Errors {
		s.notes = append(s.notes, fmt.Sprintf("errors: %s %s", e.Kind, e.Code))
	}
	if c := rep.Connections; c.AtEnd < c.Opened {
		s.notes = append(s.notes, "connections were lost")
	}
	if s.Generator > fullCore {
		s.notes = append(s.notes, "generator at its limit")
	}
	return s
}
