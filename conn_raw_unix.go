//go:build unix

package pitaya

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// rawConn gives access to the file descriptor of a connection that is a plain
// socket; nil for all others. Only the standard library's own types qualify: a
// wrapper may embed one of them and still want its own Read to be called.
func rawConn(nc net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		sc = nc
	case *net.UnixConn:
		sc = nc
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// rawReader waits for readability without a buffer.
type rawReader struct {
	c    *conn
	once func(fd uintptr) bool // tryRead as a value, made once
}

func newRawReader(c *conn) *rawReader {
	r := &rawReader{c: c}
	r.once = r.tryRead
	return r
}

func (r *rawReader) read() (int, error) {
	c := r.c
	for {
		err := c.raw.Read(r.once)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.found() {
			return 0, err
		}
	}
	if c.readN == 0 && c.readErr == nil {
		return 0, io.EOF
	}
	return max(c.readN, 0), c.readErr
}

func (r *rawReader) readNow() int {
	n := 0
	err := r.c.raw.Control(func(fd uintptr) {
		if r.tryRead(fd) {
			n = max(r.c.readN, 0)
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// tryRead reads once without waiting. It reports false when there is nothing
// to read; the buffer goes back to the pool before the wait then, unless it
// holds part of a packet.
//
// There is nothing either behind a read that took less than it could, if what it
// brought can be passed on at once: the wait follows without another read, and
// conn_check.go looks for what that would have found.
func (r *rawReader) tryRead(fd uintptr) bool {
	c := r.c
	for {
		room := c.room()
		n, err := syscall.Read(int(fd), room)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if len(c.in.B) == 0 {
				c.in.free()
				c.in = nil
			}
			return false
		}
		if 0 < n && n < len(room) && len(c.in.B) == 0 && c.takeNow(n) {
			c.in.free()
			c.in = nil
			c.cfg.Checks.expect(c)
			return false
		}
		c.readN, c.readErr = n, err
		return true
	}
}

// unread reports whether a read would bring something, be it the end of the
// stream. It may be called from any goroutine.
func (c *conn) unread() bool {
	there := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		there = err != syscall.EAGAIN && err != syscall.EINTR
	})
	return err == nil && there
}

// rawWriter writes without waiting. Its fields are owned by the one goroutine
// that is writing.
type rawWriter struct {
	buf  []byte
	n    int
	err  error
	once func(fd uintptr) bool // try as a value, made at the first write
}

// tryWrite writes what the socket takes without waiting. It returns how much
// that was; less than all of b without an error means that the socket is full.
func (c *conn) tryWrite(b []byte) (int, error) {
	if c.raw == nil {
		return 0, nil
	}
	w := &c.writer
	if w.once == nil {
		w.once = w.try
	}
	w.buf, w.n, w.err = b, 0, nil
	err := c.raw.Write(w.once)
	w.buf = nil
	if w.err != nil {
		err = w.err
	}
	return w.n, err
}

func (w *rawWriter) try(fd uintptr) bool {
	for w.n < len(w.buf) {
		m, err := syscall.Write(int(fd), w.buf[w.n:])
		switch err {
		case nil:
			w.n += m
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			w.err = err
			return true
		}
	}
	return true
}
