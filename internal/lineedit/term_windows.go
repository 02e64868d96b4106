package lineedit

import (
	"os"
	"syscall"
	"unsafe"
)

// Modes of a console, from its documentation.
const (
	enableProcessedInput  = 0x0001
	enableLineInput       = 0x0002
	enableEchoInput       = 0x0004
	enableTerminalInput   = 0x0200 // keys arrive as escape sequences
	enableProcessedOutput = 0x0001
	enableTerminalOutput  = 0x0004 // escape sequences are understood
)

// IsTerminal reports whether a file is a console.
func IsTerminal(f *os.File) bool {
	var mode uint32
	return syscall.GetConsoleMode(syscall.Handle(f.Fd()), &mode) == nil
}

func setConsoleMode(f *os.File, mode uint32) error {
	proc := syscall.NewLazyDLL("kernel32.dll").NewProc("SetConsoleMode")
	if ok, _, err := proc.Call(f.Fd(), uintptr(mode)); ok == 0 {
		return err
	}
	return nil
}

func makeRaw(in, out *os.File) (restore func() error, err error) {
	var oldIn, oldOut uint32
	if syscall.GetConsoleMode(syscall.Handle(in.Fd()), &oldIn) != nil || syscall.GetConsoleMode(syscall.Handle(out.Fd()), &oldOut) != nil {
		return nil, ErrNoTerminal
	}
	raw := oldIn&^(enableProcessedInput|enableLineInput|enableEchoInput) | enableTerminalInput
	if err := setConsoleMode(in, raw); err != nil {
		return nil, err
	}
	if err := setConsoleMode(out, oldOut|enableProcessedOutput|enableTerminalOutput); err != nil { // older than Windows 10
		setConsoleMode(in, oldIn)
		return nil, err
	}
	return func() error {
		err := setConsoleMode(in, oldIn)
		if errOut := setConsoleMode(out, oldOut); err == nil {
			err = errOut
		}
		return err
	}, nil
}

func size(out *os.File) (width, height int, err error) {
	var info struct {
		size, cursor             struct{ x, y int16 }
		attributes               uint16
		left, top, right, bottom int16
		max                      struct{ x, y int16 }
	}
	proc := syscall.NewLazyDLL("kernel32.dll").NewProc("GetConsoleScreenBufferInfo")
	if ok, _, _ := proc.Call(out.Fd(), uintptr(unsafe.Pointer(&info))); ok == 0 {
		return 0, 0, ErrNoTerminal
	}
	return int(info.right-info.left) + 1, int(info.bottom-info.top) + 1, nil
}

// NotifyResize does nothing: a console has no signal for it. The size is asked for with each key.
func NotifyResize(chan<- os.Signal) (stop func()) { return func() {} }

// StopProcess does nothing: there are no jobs.
func StopProcess() {}
