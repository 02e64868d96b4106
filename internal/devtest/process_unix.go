//go:build unix

package devtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// OwnGroup puts the process in a group of its own. When the test binary dies, this group is an orphan, and the system
// wakes and ends what is paused in it, which would not notice the end of its standard input.
func OwnGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// PauseProcess makes a process stand still. It returns when the process has stopped, as far as the system tells;
// errors.ErrUnsupported if the system has no signals for that.
func PauseProcess(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for !stopped(p.Pid) {
		runtime.Gosched()
	}
	return nil
}

// stopped reports whether no thread of the process runs. Sending the signal does not wait for that. Where there is no
// /proc nothing is known.
func stopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		// The state stands behind the name of the program, which is in parentheses.
		if i := bytes.LastIndexByte(b, ')'); i < 0 || i+2 >= len(b) || !bytes.ContainsAny(b[i+2:i+3], "TtZX") {
			return false
		}
	}
	return true
}

// ResumeProcess lets a process that stands still go on.
func ResumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
