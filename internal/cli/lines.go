package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line of commands; no packet holds more.
const maxLine = 32 << 20

// A lineReader reads lines. Reading has a goroutine of its own, so that waiting for it can be given up; it ends with the
// reader below, or with the process.
type lineReader struct {
	in      *bufio.Reader
	pending chan lineRead // has room for one; nil while nothing is being read
}

type lineRead struct {
	line string // with its line break, if it has one
	err  error
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{in: bufio.NewReader(r)} }

// next returns the next line; the last one may have no line break, and then io.EOF follows.
func (r *lineReader) next(ctx context.Context) (string, error) {
	if r.pending == nil {
		r.pending = make(chan lineRead, 1)
		go func(to chan<- lineRead) {
			line, err := r.read()
			to <- lineRead{line, err}
		}(r.pending)
	}
	select {
	case got := <-r.pending:
		r.pending = nil
		return got.line, got.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (r *lineReader) read() (string, error) {
	var b strings.Builder
	for {
		part, err := r.in.ReadSlice('\n')
		b.Write(part)
		switch {
		case err == nil, err == io.EOF && b.Len() > 0:
			return b.String(), nil
		case err != bufio.ErrBufferFull:
			return "", err
		case b.Len() > maxLine:
			return "", fmt.Errorf("a line has more than %d bytes", maxLine)
		}
	}
}

// textLines gives the lines of a text as a lineReader does.
func textLines(text string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if text == "" {
			return "", io.EOF
		}
		line := text
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			line = text[:i+1]
		}
		text = text[len(line):]
		return line, nil
	}
}

// script runs the commands of some lines until one fails, or, with keepGoing, all of them. It tells of errors, and
// returns the first. errExit means that nothing more is to be run.
func (s *shell) script(ctx context.Context, name string, next func(context.Context) (string, error)) error {
	var first error
	var text strings.Builder
	line, begin := 0, 1
	for {
		more, err := next(ctx)
		atEnd := err == io.EOF
		if err != nil && !atEnd {
			if ctx.Err() != nil {
				return &statusError{exitInterrupted, errors.New("interrupted")}
			}
			err = usagef("%s: %v", name, err)
			s.out.Error(name, command{Name: "read"}, err)
			return err
		}
		line++
		text.WriteString(more)
		list, open := parse(text.String(), begin)
		if open && !atEnd {
			continue
		}
		text.Reset()
		begin = line + 1
		for i, c := range list {
			var err error
			if open && i == len(list)-1 {
				err = usagef("a bracket is not closed")
			} else {
				err = s.run(ctx, c)
			}
			if err == errExit {
				if first != nil {
					return first
				}
				return errExit
			}
			if err == nil {
				continue
			}
			s.out.Error(fmt.Sprintf("%s:%d", name, c.Line), c, err)
			if first == nil {
				first = err
			}
			if !s.set.keepGoing || ctx.Err() != nil {
				return err
			}
		}
		if atEnd {
			return first
		}
	}
}
