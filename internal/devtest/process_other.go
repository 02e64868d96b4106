//go:build !unix

package devtest

import (
	"errors"
	"os"
	"os/exec"
)

// OwnGroup does nothing.
func OwnGroup(*exec.Cmd) {}

// PauseProcess returns errors.ErrUnsupported.
func PauseProcess(*os.Process) error { return errors.ErrUnsupported }

// ResumeProcess returns errors.ErrUnsupported.
func ResumeProcess(*os.Process) error { return errors.ErrUnsupported }
