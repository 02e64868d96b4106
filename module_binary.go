package pitaya

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// binaryGrace is the default of BinaryOptions.Grace.
	binaryGrace = 15 * time.Second
	// binaryOutputDelay is how long output is read after the child has exited. It ends by itself unless a descendant
	// of the child holds the pipes open, or the log handler is slow.
	binaryOutputDelay = 2 * time.Second
	// binaryMaxLine bounds the memory that a child's output can take: longer lines are logged in pieces.
	binaryMaxLine = 64 << 10
)

// BinaryOptions are the settings of a [Binary]. Nil stands for all defaults.
type BinaryOptions struct {
	// Dir is the working directory of the child. Empty: that of this process.
	Dir string
	// Env is the whole environment of the child, as "key=value". Nil: that of this process.
	// Append to [os.Environ] to add to it.
	Env []string
	// Grace is how long Shutdown waits for the child to end before it kills it. Zero: 15 seconds.
	// A child that saves its state needs more; a shorter one keeps a stuck child from delaying a deploy.
	Grace time.Duration
	// Logger takes the output of the child: lines of its standard output at level Info, of its standard error at level
	// Error. Nil: [slog.Default].
	Logger *slog.Logger
}

// Binary is a [Module] that runs another program, a match server for example, as a child process while the server runs.
//
// Init starts the program, Shutdown asks it to end, with SIGTERM (Ctrl-Break on Windows), and kills it when it does
// not. Its standard input is empty. Each line of its output becomes a log record with the attributes binary, pid and
// line; lines beyond 64 KiB are split, with the attribute continued=true on all pieces but the last.
//
// The server goes on when the child ends early. Watch Done to do something about it.
type Binary struct {
	// Immutable.
	path   string
	args   []string
	o      BinaryOptions
	logger *slog.Logger

	outputDelay time.Duration // binaryOutputDelay, except in tests

	started atomic.Bool   // Init was called
	cmd     *exec.Cmd     // set by Init when the child runs
	done    chan struct{} // closed once the child was waited for, or could not be started
	err     error         // how it ended; valid once done is closed
}

// NewBinary returns a module that runs the program at path with args, which do not include the program's name. A path without
// separators is looked up in PATH. o may be nil.
func NewBinary(path string, args []string, o *BinaryOptions) *Binary {
	b := &Binary{path: path, args: slices.Clone(args), outputDelay: binaryOutputDelay, done: make(chan struct{})}
	if o != nil {
		b.o = *o
	}
	b.logger = cmp.Or(b.o.Logger, slog.Default()).With("binary", filepath.Base(path))
	return b
}

// Done returns a channel that is closed when the child has exited and all its output is logged. If a process that the
// child has started keeps the output open, that is two seconds after the exit.
func (b *Binary) Done() <-chan struct{} { return b.done }

// Err tells how the child has ended: nil for exit status zero, an error that wraps an [*exec.ExitError] for another
// status or a signal, or the error of Init. It is nil before Done is closed.
func (b *Binary) Err() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

// Init starts the child. The context does not bound its life. It may be called once.
func (b *Binary) Init(ctx context.Context) error {
	if b.started.Swap(true) {
		return fmt.Errorf("pitaya: binary %s is started twice", b.path)
	}
	if err := b.start(ctx); err != nil {
		b.err = fmt.Errorf("pitaya: binary %s: %w", b.path, err)
		close(b.done)
		return b.err
	}
	return nil
}

func (b *Binary) start(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stdout, stderr := &lineLogger{level: slog.LevelInfo}, &lineLogger{level: slog.LevelError}
	cmd := exec.Command(b.path, b.args...)
	cmd.Dir, cmd.Env = b.o.Dir, b.o.Env
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = b.outputDelay
	setBinaryAttr(cmd)

	// The loggers may be called from the moment of the start, but want the pid.
	ready := make(chan struct{})
	stdout.ready, stderr.ready = ready, ready
	if err := cmd.Start(); err != nil {
		return err
	}
	logger := b.logger.With("pid", cmd.Process.Pid)
	stdout.logger, stderr.logger = logger, logger
	close(ready)

	b.cmd = cmd
	go func() { // ends with the child, or outputDelay later
		defer close(b.done)
		err := cmd.Wait()
		stdout.flush()
		stderr.flush()
		if errors.Is(err, exec.ErrWaitDelay) {
			logger.Warn("binary has exited, but its output stays open")
			err = nil
		}
		if err != nil {
			b.err = fmt.Errorf("pitaya: binary %s: %w", b.path, err)
		}
	}()
	return nil
}

// Shutdown asks the child to end and waits until it has. After the grace period, or when ctx ends, it kills the child and
// returns an error. A child that ends in time is no error, whatever its status, nor is one that had ended before.
func (b *Binary) Shutdown(ctx context.Context) error {
	if !b.started.Load() {
		return nil
	}
	select {
	case <-b.done:
		return nil
	default:
	}
	why := terminateBinary(b.cmd.Process)
	if why == nil {
		grace := time.NewTimer(cmp.Or(b.o.Grace, binaryGrace))
		defer grace.Stop()
		select {
		case <-b.done:
			return nil
		case <-grace.C:
			why = errors.New("it did not end within the grace period")
		case <-ctx.Done():
			why = context.Cause(ctx)
		}
	}
	// Kill fails only where the child has ended meanwhile.
	killed := b.cmd.Process.Kill() == nil
	<-b.done
	if !killed {
		return nil
	}
	return fmt.Errorf("pitaya: binary %s was killed: %w", b.path, why)
}

// lineLogger logs what is written to it line by line. It is used by one goroutine at a time.
type lineLogger struct {
	level  slog.Level
	ready  <-chan struct{} // logger is set once it is closed
	logger *slog.Logger
	part   []byte // beginning of a line; at most binaryMaxLine bytes
}

// Write never fails, so that the child can always write on.
func (l *lineLogger) Write(p []byte) (int, error) {
	<-l.ready
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		piece := p
		if end >= 0 {
			piece = p[:end]
		}
		room := binaryMaxLine - len(l.part)
		switch {
		case len(piece) > room:
			l.part = append(l.part, piece[:room]...)
			l.log(l.part, true)
			l.part = l.part[:0]
			p = p[room:]
			continue
		case end < 0:
			l.part = append(l.part, piece...)
			return n, nil
		case len(l.part) == 0:
			l.log(piece, false)
		default:
			l.part = append(l.part, piece...)
			l.log(l.part, false)
			l.part = l.part[:0]
		}
		p = p[end+1:]
	}
	return n, nil
}

// flush logs a last line without an end.
func (l *lineLogger) flush() {
	if len(l.part) > 0 {
		l.log(l.part, false)
		l.part = nil
	}
}

func (l *lineLogger) log(line []byte, continued bool) {
	if !continued {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	attrs := []slog.Attr{slog.String("line", string(line))}
	if continued {
		attrs = append(attrs, slog.Bool("continued", true))
	}
	l.logger.LogAttrs(context.Background(), l.level, "binary output", attrs...)
}
