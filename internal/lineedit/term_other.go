//go:build !linux && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly && !windows

package lineedit

import "os"

// IsTerminal reports whether a file looks like a terminal.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func makeRaw(_, _ *os.File) (restore func() error, err error) { return nil, ErrNoTerminal }

func size(*os.File) (width, height int, err error) { return 0, 0, ErrNoTerminal }

// NotifyResize does nothing.
func NotifyResize(chan<- os.Signal) (stop func()) { return func() {} }

// StopProcess does nothing.
func StopProcess() {}
