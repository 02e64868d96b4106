//go:build unix

package pitaya_test

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts the process in a group of its own. When the test binary dies, this group is an orphan, and the system
// wakes and ends what is paused in it, which would not notice the end of its standard input.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func pauseProcess(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
