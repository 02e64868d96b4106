//go:build !linux

package procstat

// Read reads one process, where the system allows it.
func Read(pid int) (Sample, error) { return Sample{}, ErrUnavailable }

// Collect asks a process to collect its garbage, where that is of use.
func Collect(pid int) error { return ErrUnavailable }
