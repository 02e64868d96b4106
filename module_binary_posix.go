//go:build !windows

package pitaya

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// setBinaryAttr prepares cmd for terminateBinary. Signals need nothing.
func setBinaryAttr(*exec.Cmd) {}

// terminateBinary asks a process to end. One that has already ended is no error.
func terminateBinary(p *os.Process) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
