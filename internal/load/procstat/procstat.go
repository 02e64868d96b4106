// Package procstat reads from the system what another process uses: processor time and memory.
package procstat

import (
	"errors"
	"time"
)

// ErrUnavailable is the error of [Read] and [Collect] on systems where other processes cannot be looked at.
var ErrUnavailable = errors.New("figures of other processes are not available on this system (only on Linux, from /proc)")

// A Sample is what one process, or several added up, have used up to a moment, and the memory they hold then.
type Sample struct {
	User, System time.Duration // processor time since the start of the process, in steps of 10 ms
	RSS          int64         // resident memory in bytes
	Anon         int64         // the part of RSS that is no file: heap and stacks
	PSS          int64         // resident memory in bytes where pages that processes share are divided among them; 0 if unknown
}

// CPU returns all processor time.
func (s Sample) CPU() time.Duration { return s.User + s.System }

// Sum reads several processes and adds them up.
func Sum(pids []int) (Sample, error) {
	var sum Sample
	for _, pid := range pids {
		s, err := Read(pid)
		if err != nil {
			return Sample{}, err
		}
		sum.User += s.User
		sum.System += s.System
		sum.RSS += s.RSS
		sum.Anon += s.Anon
		sum.PSS += s.PSS
	}
	return sum, nil
}
