package procstat

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ticks is the unit of times in /proc/PID/stat, which the kernel fixes at 100 per second for all that is not itself.
const ticks = 100

// Read reads one process.
func Read(pid int) (Sample, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return Sample{}, fmt.Errorf("process %d: %w", pid, err)
	}
	s, err := parseStat(stat)
	if err != nil {
		return Sample{}, fmt.Errorf("process %d: %w", pid, err)
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return Sample{}, fmt.Errorf("process %d: %w", pid, err)
	}
	s.RSS, s.Anon = field(status, "VmRSS:"), field(status, "RssAnon:")
	// It is only for who may trace the process, and not in every kernel.
	if rollup, err := os.ReadFile(dir + "smaps_rollup"); err == nil {
		s.PSS = field(rollup, "Pss:")
	}
	return s, nil
}

// parseStat reads utime and stime, fields 14 and 15 of proc(5). The second field is the name in brackets, which may hold
// anything, brackets and spaces too.
func parseStat(b []byte) (Sample, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	if end < 0 || len(fields) < 13 {
		return Sample{}, fmt.Errorf("/proc/PID/stat is not understood: %q", b)
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return Sample{}, fmt.Errorf("/proc/PID/stat is not understood: %q", b)
	}
	return Sample{User: time.Duration(user) * time.Second / ticks, System: time.Duration(system) * time.Second / ticks}, nil
}

// field returns the number of bytes in a line like "VmRSS:   123 kB", 0 if there is none.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			if f := bytes.Fields(rest); len(f) == 2 {
				n, err := strconv.ParseInt(string(f[0]), 10, 64)
				if err == nil {
					return n << 10
				}
			}
		}
	}
	return 0
}

// Collect asks a process by SIGUSR1 to collect its garbage, which a server has to be made for: one that does not handle
// the signal is ended by it.
func Collect(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return nil
}
