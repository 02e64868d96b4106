package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya/internal/lineedit"
)

// isTerminal reports whether somebody types what is read.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && lineedit.IsTerminal(f)
}

// A prompter gets lines from somebody who types, and runs commands for them.
type prompter interface {
	// readLine shows a prompt and returns the line that is entered, without its line break.
	readLine(ctx context.Context, prompt string) (string, lineedit.Outcome)
	// run runs a command, which Ctrl-C ends. errTwice says that it came twice.
	run(ctx context.Context, c command) error
}

// The prompts: for a command, and for more of one.
const (
	promptFirst = "pitaya> "
	promptMore  = "   ...> "
)

// interactive talks with somebody who types. It returns the exit status.
func (s *shell) interactive(ctx context.Context, p Process, o *options) int {
	s.out.Prompting = true
	in, out := p.Stdin.(*os.File), os.Stdout
	if f, ok := p.Stdout.(*os.File); ok {
		out = f
	}
	var tty *lineedit.Terminal
	if term := p.Getenv("TERM"); term != "dumb" {
		if t, err := lineedit.Open(in, out); err == nil {
			tty = t
		}
	}
	if tty == nil {
		return s.converse(ctx, o.Addr, &plainPrompt{s: s, in: newLineReader(in), out: p.Stdout, interrupts: p.Interrupts})
	}
	t := newTerminal(s, tty, in, out, p.Interrupts)
	defer t.close()
	t.openHistory(o.History, p.Getenv)
	return s.converse(ctx, o.Addr, t)
}

// converse is the conversation, however lines are read.
func (s *shell) converse(ctx context.Context, addr string, p prompter) int {
	if addr != "" {
		c := command{Name: "connect", Args: addr}
		if err := p.run(ctx, c); err == errTwice {
			return exitInterrupted
		} else if err != nil {
			s.out.Error("", c, err)
		}
	} else {
		s.out.Note("help lists the commands; connect ADDRESS comes first", event{Event: "note"})
	}
	text, prompt := "", promptFirst
	interrupts := 0 // Ctrl-C in a row that had nothing to end
	for {
		line, outcome := p.readLine(ctx, prompt)
		switch outcome {
		case lineedit.EOF:
			if ctx.Err() != nil {
				return exitInterrupted
			}
			return exitOK
		case lineedit.Interrupt:
			if text == "" && line == "" {
				interrupts++
				if interrupts > 1 {
					return exitInterrupted
				}
				s.out.Note("Ctrl-C again leaves", event{Event: "note"})
			}
			text, prompt = "", promptFirst
			continue
		}
		interrupts = 0
		text += line + "\n"
		list, open := parse(text, 1)
		if open {
			prompt = promptMore
			continue
		}
		text, prompt = "", promptFirst
		for _, c := range list {
			err := p.run(ctx, c)
			switch {
			case err == errExit:
				return exitOK
			case err == errTwice:
				return exitInterrupted
			case err != nil:
				s.out.Error("", c, err)
				if exitStatus(err) == exitInterrupted {
					interrupts = 1
				}
			}
			if err != nil {
				break
			}
		}
	}
}

// A terminal is somebody at a terminal in raw mode.
type terminal struct {
	s          *shell
	tty        *lineedit.Terminal
	in         *os.File
	interrupts <-chan os.Signal
	resized    chan os.Signal
	stopResize func()
	input      chan []byte   // what is typed; closed at the end of that
	done       chan struct{} // closed by close
	reading    sync.WaitGroup

	// Owned by the goroutine that calls readLine and run.
	decoder lineedit.Decoder
	ahead   []lineedit.Key // typed while a command ran
	ended   bool           // nothing is typed any more

	mu     sync.Mutex // guards editor, which writes what comes meanwhile too
	editor *lineedit.Editor
}

// maxAhead bounds what can be typed ahead, in keys. More stays in the terminal.
const maxAhead = 64 << 10

func newTerminal(s *shell, tty *lineedit.Terminal, in *os.File, out io.Writer, interrupts <-chan os.Signal) *terminal {
	t := &terminal{
		s: s, tty: tty, in: in, interrupts: interrupts,
		resized: make(chan os.Signal, 1), input: make(chan []byte), done: make(chan struct{}),
		editor: lineedit.NewEditor(out),
	}
	t.editor.Complete = s.complete
	t.stopResize = lineedit.NotifyResize(t.resized)
	t.resize()
	s.out.SetAbove(func(text string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.editor.Above(text)
	})
	s.history = func() []string { return t.editor.History.Lines() }
	t.reading.Go(t.read)
	return t
}

// read passes on what is typed.
func (t *terminal) read() {
	defer close(t.input)
	buf := make([]byte, 4096)
	for {
		n, err := t.in.Read(buf)
		if n > 0 {
			select {
			case t.input <- bytes.Clone(buf[:n]):
			case <-t.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// close leaves the terminal as it was found.
func (t *terminal) close() {
	t.mu.Lock()
	t.editor.Stop()
	t.mu.Unlock()
	t.s.out.SetAbove(nil)
	t.stopResize()
	t.tty.Restore() // who closed the terminal does not miss its mode
	close(t.done)
	if t.in.SetReadDeadline(time.Unix(1, 0)) == nil { // else the reader ends with the process
		t.reading.Wait()
	}
}

// openHistory reads the lines of earlier runs, if there is a file for them.
func (t *terminal) openHistory(path string, getenv func(string) string) {
	if path == "" {
		return
	}
	if path == "auto" {
		dir := getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(dir) {
			home, err := os.UserHomeDir()
			if err != nil {
				t.s.out.Note("history: "+err.Error(), event{Event: "note"})
				return
			}
			dir = filepath.Join(home, ".local", "state")
		}
		path = filepath.Join(dir, "pitaya-cli", "history")
	}
	h, err := lineedit.OpenHistory(path)
	if err != nil {
		t.s.out.Note(err.Error(), event{Event: "note"})
	}
	t.editor.History = h
}

func (t *terminal) resize() {
	w, h, err := t.tty.Size()
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.editor.Resize(w, h)
}

// readLine implements prompter.
func (t *terminal) readLine(ctx context.Context, prompt string) (string, lineedit.Outcome) {
	t.resize()
	t.mu.Lock()
	t.editor.Begin(prompt)
	t.mu.Unlock()
	for {
		for len(t.ahead) > 0 {
			k := t.ahead[0]
			t.ahead = t.ahead[1:]
			if line, outcome := t.key(k); outcome != lineedit.Editing {
				return line, outcome
			}
		}
		t.mu.Lock()
		t.editor.Flush()
		t.mu.Unlock()
		if t.ended || ctx.Err() != nil {
			t.mu.Lock()
			t.editor.Stop()
			t.mu.Unlock()
			return "", lineedit.EOF
		}
		select {
		case b, ok := <-t.input:
			t.ended = !ok
			t.resize() // where no signal tells
			t.ahead = t.decoder.Keys(b)
		case <-t.interrupts:
			t.ahead = []lineedit.Key{{Code: lineedit.CodeCtrl, Rune: 'c'}}
		case <-t.resized:
			t.resize()
		case <-ctx.Done():
		}
	}
}

// key gives the editor a key.
func (t *terminal) key(k lineedit.Key) (string, lineedit.Outcome) {
	t.mu.Lock()
	outcome := t.editor.Key(k)
	line := t.editor.Line()
	t.mu.Unlock()
	switch outcome {
	case lineedit.Entered:
		if err := t.editor.History.Add(line); err != nil {
			t.s.out.Note(err.Error(), event{Event: "note"})
		}
	case lineedit.Suspend:
		t.suspend()
		return "", lineedit.Editing
	}
	return line, outcome
}

// suspend stops the process as Ctrl-Z does elsewhere, and goes on when it is continued.
func (t *terminal) suspend() {
	t.mu.Lock()
	t.editor.Suspend()
	t.mu.Unlock()
	if t.tty.Restore() == nil {
		lineedit.StopProcess()
	}
	if err := t.tty.Raw(); err != nil {
		t.ended = true // the terminal is gone
		return
	}
	t.mu.Lock()
	t.editor.Resume()
	t.mu.Unlock()
	t.resize()
}

// run implements prompter. What is typed while the command runs waits for the next line, but for Ctrl-C.
func (t *terminal) run(ctx context.Context, c command) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- t.s.run(ctx, c) }()
	interrupts := 0
	interrupt := func() {
		interrupts++
		t.ahead = nil
		cancel()
	}
	for {
		input := t.input
		if t.ended || len(t.ahead) > maxAhead {
			input = nil
		}
		select {
		case err := <-done:
			if interrupts > 1 {
				return errTwice
			}
			return err
		case b, ok := <-input:
			t.ended = !ok
			for _, k := range t.decoder.Keys(b) {
				if k.Code == lineedit.CodeCtrl && k.Rune == 'c' {
					interrupt()
				} else {
					t.ahead = append(t.ahead, k)
				}
			}
		case <-t.interrupts:
			interrupt()
		case <-t.resized:
			t.resize()
		}
	}
}

// A plainPrompt is somebody at a terminal that takes whole lines.
type plainPrompt struct {
	s          *shell
	in         *lineReader
	out        io.Writer
	interrupts <-chan os.Signal
}

// readLine implements prompter.
func (p *plainPrompt) readLine(ctx context.Context, prompt string) (string, lineedit.Outcome) {
	io.WriteString(p.out, prompt)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupted := p.onInterrupt(ctx, cancel)
	line, err := p.in.next(ctx)
	cancel()
	if n := <-interrupted; n > 0 {
		io.WriteString(p.out, "\n")
		return "", lineedit.Interrupt
	}
	if err != nil {
		return "", lineedit.EOF
	}
	return strings.TrimRight(line, "\r\n"), lineedit.Entered
}

// run implements prompter.
func (p *plainPrompt) run(ctx context.Context, c command) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupted := p.onInterrupt(ctx, cancel)
	err := p.s.run(ctx, c)
	cancel()
	if n := <-interrupted; n > 1 {
		return errTwice
	}
	return err
}

// onInterrupt calls f when Ctrl-C is pressed. Once ctx has ended, the channel says how often that was.
func (p *plainPrompt) onInterrupt(ctx context.Context, f func()) <-chan int {
	count := make(chan int, 1)
	go func() {
		n := 0
		defer func() { count <- n }()
		for {
			select {
			case <-p.interrupts:
				n++
				f()
			case <-ctx.Done():
				return
			}
		}
	}()
	return count
}
