//go:build linux || darwin

package load

import (
	"fmt"
	"syscall"
)

// needFiles makes sure that n connections can be open, raising the soft limit as far as the hard one allows.
func needFiles(n int) error {
	need := uint64(n) + 64 // the program's own, and those that are being closed
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Cur >= need {
		return nil
	}
	if limit.Max >= need {
		limit.Cur = need
		err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
		if err != nil {
			return fmt.Errorf("limit of open files: cannot be raised to %d: %w", need, err)
		}
		return nil
	}
	return fmt.Errorf("%d connections need %d open files, and this process may have %d: raise the hard limit (ulimit -Hn)", n, need, limit.Max)
}
