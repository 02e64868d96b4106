package main

import (
	"fmt"
	"time"
)

// A history is the last that a bot has done and seen.
type history struct {
	report *reporter
	ring   [historySize]historyEntry
	n      int
}

const historySize = 80

type historyEntry struct {
	at   time.Duration
	what string
	seq  int
	id   uint64
}

func (h *history) add(what string) { h.note(what, 0, 0) }

func (h *history) note(what string, seq int, id uint64) {
	h.ring[h.n%historySize] = historyEntry{h.report.Since(), what, seq, id}
	h.n++
}

// lines returns the entries, the oldest first.
func (h *history) lines() []string {
	var lines []string
	for i := max(0, h.n-historySize); i < h.n; i++ {
		e := h.ring[i%historySize]
		s := fmt.Sprintf("%8.3f  %s", e.at.Seconds(), e.what)
		if e.seq > 0 {
			s += fmt.Sprintf("  message %d", e.seq)
		}
		if e.id > 0 {
			s += fmt.Sprintf("  id %d", e.id)
		}
		lines = append(lines, s)
	}
	return lines
}
