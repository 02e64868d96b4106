package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// A Process is what a run of the program has of the process that it is in.
type Process struct {
	Args       []string // without the name of the program
	Getenv     func(string) string
	Stdin      io.Reader
	Stdout     io.Writer
	Stderr     io.Writer
	Interrupts <-chan os.Signal // Ctrl-C; nil: none
}

// Main is the program. It returns the exit status, soon after ctx has ended if not before. A read of Stdin may be left
// waiting then.
func Main(ctx context.Context, p Process) int {
	o, err := parseOptions(p.Args, p.Getenv, p.Stderr)
	switch {
	case errors.Is(err, errHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	out := &output{style: o.Style, shown: o.Shown, out: p.Stdout, err: p.Stderr}
	defer out.End()
	s := newShell(o.Set, out)
	for route, name := range o.PushTypes {
		s.setPushType(route, name)
	}

	if o.Docs {
		return s.oneShot(ctx, p, func(ctx context.Context) error {
			err := s.connect(ctx, o.Addr)
			if err == nil {
				err = s.writeDocs(ctx, o.DocsFormat, o.DocsFile)
			}
			if err != nil {
				s.out.Error("pitaya-cli", command{Name: "docs", Args: o.Addr}, err)
			}
			return err
		})
	}
	if len(o.Sources) == 0 && isTerminal(p.Stdin) {
		defer s.leave()
		return s.interactive(ctx, p, o)
	}
	return s.oneShot(ctx, p, func(ctx context.Context) error { return s.scripts(ctx, p, o) })
}

// oneShot runs something that Ctrl-C ends, and a second one leaves to itself.
func (s *shell) oneShot(ctx context.Context, p Process, f func(context.Context) error) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	for interrupts := 0; ; {
		select {
		case err := <-done:
			s.leave()
			if err == errExit {
				return exitOK
			}
			return exitStatus(err)
		case <-p.Interrupts:
			if interrupts++; interrupts > 1 {
				return exitInterrupted
			}
			cancel()
		}
	}
}

// scripts runs what -e and -f say, or else the standard input.
func (s *shell) scripts(ctx context.Context, p Process, o *options) error {
	if o.Addr != "" {
		c := command{Name: "connect", Args: o.Addr}
		if err := s.run(ctx, c); err != nil {
			s.out.Error("pitaya-cli", c, err)
			return err
		}
	}
	sources := o.Sources
	if len(sources) == 0 {
		sources = []source{{Name: "stdin", File: "-"}}
	}
	var first error
	for _, src := range sources {
		err := s.source(ctx, p, src)
		if err == errExit {
			break
		}
		if err != nil && first == nil {
			first = err
		}
		if err != nil && (!s.set.keepGoing || ctx.Err() != nil) {
			break
		}
	}
	return first
}

func (s *shell) source(ctx context.Context, p Process, src source) error {
	switch src.File {
	case "":
		return s.script(ctx, src.Name, textLines(src.Text))
	case "-":
		return s.script(ctx, "stdin", newLineReader(p.Stdin).next)
	}
	file, err := os.Open(src.File)
	if err != nil {
		err = usagef("%v", err)
		fmt.Fprintf(p.Stderr, "pitaya-cli: %v\n", err)
		return err
	}
	defer file.Close()
	return s.script(ctx, src.Name, newLineReader(file).next)
}
