package load

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A timerfd is a timer of the system that the runtime's poller waits for, so that waiting holds no thread and is precise
// to some microseconds.
type timerfd struct {
	f   *os.File
	buf [8]byte
}

// Of timerfd_create(2): CLOCK_MONOTONIC, TFD_NONBLOCK and TFD_CLOEXEC.
const (
	clockMonotonic = 1
	timerfdFlags   = syscall.O_NONBLOCK | syscall.O_CLOEXEC
)

// newSleeper returns nil if the system has no such timers.
func newSleeper() sleeper {
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, timerfdFlags, 0)
	if errno != 0 {
		return nil
	}
	return &timerfd{f: os.NewFile(fd, "timerfd")}
}

// sleep waits for d. If the timer fails, which it has no reason to, another one takes its place.
func (t *timerfd) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	value := [2]syscall.Timespec{1: syscall.NsecToTimespec(int64(d))} // no interval, then the time
	raw, err := t.f.SyscallConn()
	if err == nil {
		var errno syscall.Errno
		err = raw.Control(func(fd uintptr) {
			_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&value)), 0, 0, 0)
		})
		if err == nil && errno == 0 {
			_, err = t.f.Read(t.buf[:])
		} else if err == nil {
			err = errno
		}
	}
	if err != nil {
		timerSleeper{}.sleep(d)
	}
}

func (t *timerfd) close() { t.f.Close() }
