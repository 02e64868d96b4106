package lineedit

import (
	"errors"
	"os"
)

// ErrNoTerminal means that a file is no terminal, or that this system has no way to set one to raw mode.
var ErrNoTerminal = errors.New("no terminal whose mode can be changed")

// A Terminal is a terminal in raw mode: what is typed arrives key by key, Ctrl-C included.
type Terminal struct {
	in, out *os.File
	restore func() error
}

// Open sets a terminal to raw mode, given the file that is read and the one that is written.
func Open(in, out *os.File) (*Terminal, error) {
	t := &Terminal{in: in, out: out}
	if _, _, err := t.Size(); err != nil {
		return nil, err
	}
	if err := t.Raw(); err != nil {
		return nil, err
	}
	return t, nil
}

// Raw sets the terminal to raw mode again after Restore.
func (t *Terminal) Raw() error {
	if t.restore != nil {
		return nil
	}
	restore, err := makeRaw(t.in, t.out)
	if err != nil {
		return err
	}
	t.restore = restore
	return nil
}

// Restore leaves the terminal as it was found.
func (t *Terminal) Restore() error {
	if t.restore == nil {
		return nil
	}
	err := t.restore()
	t.restore = nil
	return err
}

// Size returns how many columns and rows the terminal has.
func (t *Terminal) Size() (width, height int, err error) { return size(t.out) }
