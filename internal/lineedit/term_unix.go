//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package lineedit

import (
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := getTermios(f)
	return err == nil
}

func getTermios(f *os.File) (*syscall.Termios, error) {
	t := new(syscall.Termios)
	if err := ioctl(f, ioctlGet, unsafe.Pointer(t)); err != nil {
		return nil, ErrNoTerminal
	}
	return t, nil
}

// ioctl makes the call without File.Fd, which would make reads of the file uninterruptible.
func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = c.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// makeRaw leaves output alone: a line break still goes to the first column.
func makeRaw(in, _ *os.File) (restore func() error, err error) {
	old, err := getTermios(in)
	if err != nil {
		return nil, err
	}
	raw := *old
	raw.Iflag &^= syscall.BRKINT | syscall.ICRNL | syscall.INLCR | syscall.IGNCR | syscall.ISTRIP | syscall.IXON
	raw.Lflag &^= syscall.ECHO | syscall.ECHONL | syscall.ICANON | syscall.ISIG | syscall.IEXTEN
	raw.Cflag &^= syscall.CSIZE | syscall.PARENB
	raw.Cflag |= syscall.CS8
	raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	if err := ioctl(in, ioctlSet, unsafe.Pointer(&raw)); err != nil {
		return nil, err
	}
	return func() error { return ioctl(in, ioctlSet, unsafe.Pointer(old)) }, nil
}

func size(out *os.File) (width, height int, err error) {
	var ws struct{ rows, cols, x, y uint16 }
	if err := ioctl(out, syscall.TIOCGWINSZ, unsafe.Pointer(&ws)); err != nil {
		return 0, 0, ErrNoTerminal
	}
	if ws.cols == 0 || ws.rows == 0 { // a serial line, which does not say
		return 80, 24, nil
	}
	return int(ws.cols), int(ws.rows), nil
}

// NotifyResize makes c receive when the size of the terminal may have changed, until stop is called.
func NotifyResize(c chan<- os.Signal) (stop func()) {
	signal.Notify(c, syscall.SIGWINCH)
	return func() { signal.Stop(c) }
}

// StopProcess does what Ctrl-Z does to programs that leave it to the terminal: it stops all processes of the job, and
// returns when the job goes on. Where nobody could continue it the system ignores that.
func StopProcess() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCONT)
	defer signal.Stop(c)
	if err := syscall.Kill(0, syscall.SIGTSTP); err != nil {
		return
	}
	select {
	case <-c:
	case <-time.After(time.Second): // it was ignored
	}
}
