package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// processUse returns what this process uses: open descriptors, resident memory in bytes, processor time.
func processUse() (files int, resident uint64, cpu time.Duration) {
	files = -1
	if names, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = len(names) - 1 // without the one of this call
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := bytes.Fields(b); len(fields) > 1 {
			pages, _ := strconv.ParseUint(string(fields[1]), 10, 64)
			resident = pages * uint64(os.Getpagesize())
		}
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return files, resident, cpu
}
