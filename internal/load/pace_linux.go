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
	raw syscall.RawConn
	set func(fd uintptr) // made once: a function that is handed on is allocated

	value [2]syscall.Timespec // what it is set to: no interval, then the time
	errno syscall.Errno
	buf   [8]byte
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
	t := &timerfd{f: os.NewFile(fd, "timerfd")}
	var err error
	if t.raw, err = t.f.SyscallConn(); err != nil {
		t.f.Close()
		return nil
	}
	t.set = func(fd uintptr) {
		_, _, t.errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&t.value)), 0, 0, 0)
	}
	return t
}

// sleep waits for d. If the timer fails, which it has no reason to, another one takes its place.
func (t *timerfd) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t.value[1] = syscall.NsecToTimespec(int64(d))
	err := t.raw.Control(t.set)
	if err == nil && t.errno != 0 {
		err = t.errno
	}
	if err == nil {
		_, err = t.f.Read(t.buf[:])
	}
	if err != nil {
		timerSleeper{}.sleep(d)
	}
}

func (t *timerfd) close() { t.f.Close() }
