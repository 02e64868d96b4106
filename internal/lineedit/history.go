package lineedit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a history.
const (
	maxHistory     = 1000
	maxHistoryFile = 1 << 20 // bytes; a longer file is cut when it is read
)

// A History is the lines that were entered, the oldest first. With a file it outlives the program; several programs may
// share one. Lines that begin with a space are not kept.
type History struct {
	lines []string
	path  string // empty: no file
}

// OpenHistory reads a history from a file, which need not exist, nor the folder it is in. The file is for its owner alone:
// what is typed may be secret. With an error comes a history that works without a file.
func OpenHistory(path string) (*History, error) {
	h := new(History)
	if err := h.open(path); err != nil {
		return h, fmt.Errorf("history: %w", err)
	}
	h.path = path
	return h, nil
}

func (h *History) open(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		return file.Close()
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", path)
	case info.Mode().Perm()&0o077 != 0:
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		if len(line) > 0 && utf8.Valid(line) && !bytes.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
			h.remember(string(line))
		}
	}
	if len(b) > maxHistoryFile {
		return h.rewrite(path)
	}
	return nil
}

// rewrite replaces the file by what is remembered, in one step.
func (h *History) rewrite(path string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".history-*") // for its owner alone
	if err != nil {
		return err
	}
	_, err = file.WriteString(strings.Join(h.lines, "\n") + "\n")
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// remember adds a line in memory.
func (h *History) remember(line string) bool {
	if line == "" || line[0] == ' ' || len(line) > maxHistoryFile || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return false
	}
	if len(h.lines) == maxHistory {
		h.lines = slices.Delete(h.lines, 0, 1)
	}
	h.lines = append(h.lines, line)
	return true
}

// Add adds a line, to the file as well. Line breaks in it become spaces. An error is one of the file.
func (h *History) Add(line string) error {
	line = strings.ReplaceAll(line, "\n", " ")
	if !h.remember(line) || h.path == "" {
		return nil
	}
	file, err := os.OpenFile(h.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	_, err = file.WriteString(line + "\n")
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Lines returns the lines, the oldest first. It must not be changed.
func (h *History) Lines() []string { return h.lines }
