//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package lineedit

import "syscall"

const (
	ioctlGet = syscall.TIOCGETA
	ioctlSet = syscall.TIOCSETA
)
