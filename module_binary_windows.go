package pitaya

import (
	"os"
	"os/exec"
	"syscall"
)

// setBinaryAttr prepares cmd for terminateBinary. Ctrl-Break goes to whole process groups: without one of its own,
// the child could not be sent it alone.
func setBinaryAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// terminateBinary sends Ctrl-Break to a process, which a Go program receives as os.Interrupt. os.Process.Signal cannot: it
// knows only os.Kill on Windows.
func terminateBinary(p *os.Process) error {
	proc := syscall.NewLazyDLL("kernel32.dll").NewProc("GenerateConsoleCtrlEvent")
	if err := proc.Find(); err != nil {
		return err
	}
	if ok, _, err := proc.Call(syscall.CTRL_BREAK_EVENT, uintptr(p.Pid)); ok == 0 {
		return os.NewSyscallError("GenerateConsoleCtrlEvent", err)
	}
	return nil
}
