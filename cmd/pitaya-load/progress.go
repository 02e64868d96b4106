package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya/internal/load"
)

const defaultDuration = 10 * time.Second

// progress tells how a run is getting on: on a terminal in one line that is written over, else in plain lines where
// those are wanted.
type progress struct {
	w        io.Writer
	on       bool
	terminal bool
	width    int // of what stands in the line
}

func newProgress(o *options, stderr io.Writer) *progress {
	p := &progress{w: stderr}
	if f, ok := stderr.(*os.File); ok && !o.progress {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	p.on = !o.quiet && (p.terminal || o.progress)
	return p
}

// show is called once per interval.
func (p *progress) show(pt load.Point, s load.Progress) {
	if !p.on {
		return
	}
	text := fmt.Sprintf("%-8s %6.1fs  %d open", s.Phase, pt.T, s.Open)
	if s.Phase == "measure" {
		text += fmt.Sprintf("  %.0f/s  p50 %.2f ms  p99 %.2f ms  max %.2f ms", pt.PerSecond, pt.P50/1000, pt.P99/1000, pt.Max/1000)
	}
	text += fmt.Sprintf("  %d errors", s.Errors)
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	pad := max(p.width-len(text), 0)
	p.width = len(text)
	fmt.Fprint(p.w, "\r"+text+strings.Repeat(" ", pad))
}

// end clears the line.
func (p *progress) end() {
	if p.width > 0 {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.width)+"\r")
	}
}
