package ptytest

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/pitaya-go/pitaya/internal/lineedit/vt"
)

// Patience bounds what must happen at once.
const Patience = 20 * time.Second

// A Terminal is a pseudo-terminal with a screen. Its methods are for the goroutine of the test.
type Terminal struct {
	// Slave is what a program has as its standard input and output.
	Slave *os.File
	// Screen shows what the program writes.
	Screen *vt.Screen

	t      testing.TB
	master *os.File
	pump   sync.WaitGroup
}

// Open makes a terminal of a size, which ends with the test.
func Open(t testing.TB, width, height int) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var unlock, number int32
	if err := ioctl(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		t.Fatal(err)
	}
	if err := ioctl(master, syscall.TIOCGPTN, unsafe.Pointer(&number)); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &Terminal{Slave: slave, Screen: vt.New(width, height), t: t, master: master}
	p.setSize(width, height)
	p.pump.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.Screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		slave.Close()
		master.Close()
		p.pump.Wait()
	})
	return p
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = c.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

func (p *Terminal) setSize(width, height int) {
	p.t.Helper()
	size := struct{ rows, cols, x, y uint16 }{uint16(height), uint16(width), 0, 0}
	if err := ioctl(p.master, syscall.TIOCSWINSZ, unsafe.Pointer(&size)); err != nil {
		p.t.Fatal(err)
	}
}

// Resize changes the size of the terminal, of which programs that it controls get a signal.
func (p *Terminal) Resize(width, height int) {
	p.t.Helper()
	p.Screen.Resize(width, height)
	p.setSize(width, height)
}

// Type types.
func (p *Terminal) Type(s string) {
	p.t.Helper()
	if _, err := p.master.WriteString(s); err != nil {
		p.t.Fatal(err)
	}
}

// Mode returns the flags of the terminal that programs set to read key by key.
func (p *Terminal) Mode() uint32 {
	p.t.Helper()
	var t syscall.Termios
	if err := ioctl(p.Slave, syscall.TCGETS, unsafe.Pointer(&t)); err != nil {
		p.t.Fatal(err)
	}
	return t.Lflag
}

// Expect waits until the screen, with what has gone off at its top, contains a text.
func (p *Terminal) Expect(text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%q", text), func() bool { return strings.Contains(p.Screen.All(), text) })
}

// ExpectLast waits until the last row of the screen that is not empty is a text, without the space at its end.
func (p *Terminal) ExpectLast(text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%q in the last row", text), func() bool {
		all := p.Screen.All()
		return all[strings.LastIndexByte(all, '\n')+1:] == text
	})
}

// Until waits until the screen is as it should be.
func (p *Terminal) Until(what string, ok func() bool) {
	p.t.Helper()
	late := time.After(Patience)
	for {
		changed := p.Screen.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late:
			p.t.Fatalf("the terminal does not show %s:\n%s", what, p.Screen.All())
		}
	}
}
