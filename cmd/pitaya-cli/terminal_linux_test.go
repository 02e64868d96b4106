package main

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/pitaya-go/pitaya/internal/ptytest"
)

// A process is the program, running.
type process struct {
	*exec.Cmd
	*ptytest.Terminal // that controls it
}

// sit runs the program at a terminal of its own, which sends it signals.
func sit(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{program(t, args...), ptytest.Open(t, 60, 12)}
	p.Stdin, p.Stdout, p.Stderr = p.Slave, p.Slave, p.Slave
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill() // it has ended, unless the test has failed
		p.Wait()
	})
	return p
}

// wantExit waits for the end, after which the terminal must be as it was.
func (p *process) wantExit(t *testing.T, want int) {
	t.Helper()
	if got := status(t, p.Wait()); got != want {
		t.Errorf("exit status %d, want %d", got, want)
	}
	if mode := p.Mode(); mode&syscall.ECHO == 0 || mode&syscall.ICANON == 0 {
		t.Errorf("the terminal is left in mode %#x", mode)
	}
}

func TestTerminalSession(t *testing.T) {
	t.Parallel()
	p := sit(t)
	p.Expect("help lists the commands; connect ADDRESS comes first\npitaya>")
	p.Type("hel\tset\r")
	p.Expect("pitaya> help set\nset [NAME [VALUE]]\n")
	p.ExpectLast("pitaya>")
	p.Type("exi\t\r")
	p.wantExit(t, 0)
}

func TestTerminalWindowSize(t *testing.T) {
	t.Parallel()
	p := sit(t)
	p.Expect("pitaya>")
	p.Type("wait 0123456789012345678901234567890123456789")
	p.Expect("pitaya> wait 0123456789012345678901234567890123456789")
	p.Resize(31, 12) // with nothing typed since
	p.Expect("pitaya> wait 01234567890123456\n78901234567890123456789")
	p.Type("\x15exit\r")
	p.wantExit(t, 0)
}

func TestTerminalSignals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		typed  string
		prompt string
	}{
		{"while a line is typed", "abc", "pitaya> abc"},
		{"while a command runs", "wait 1h\r", "pitaya> wait 1h"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
				p := sit(t)
				p.Expect("pitaya>")
				p.Type(test.typed)
				p.ExpectLast(test.prompt)
				if err := p.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				p.wantExit(t, 130)
			}
		})
	}
}

// Ctrl-C ends a script, although the terminal is not in raw mode then.
func TestScriptInterrupt(t *testing.T) {
	t.Parallel()
	p := sit(t, "-keep-going", "-e", "status; wait 1h; status", "-e", "status")
	p.Expect("not connected")
	p.Type("\x03")
	p.wantExit(t, 130)
}
