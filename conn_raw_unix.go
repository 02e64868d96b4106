//go:build unix

package pitaya

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
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

// rawReader waits for readability without a buffer. It is a connection, so that
// it costs none either.
type rawReader conn

func newRawReader(c *conn) *rawReader {
	r := (*rawReader)(c)
	if c.tryRead == nil {
		c.tryRead = r.try
	}
	return r
}

func (r *rawReader) read() (int, error) {
	c := (*conn)(r)
	for {
		err := c.raw.Read(c.tryRead)
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
	err := r.raw.Control(func(fd uintptr) {
		if r.try(fd) {
			n = max(r.readN, 0)
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// try reads once without waiting. It reports false when there is nothing
// to read; the buffer goes back to the pool before the wait then, unless it
// holds part of a packet.
//
// There is nothing either behind a read that took less than it could, if what it
// brought can be passed on at once: the wait follows without another read, and
// conn_check.go looks for what that would have found.
func (r *rawReader) try(fd uintptr) bool {
	c := (*conn)(r)
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

// rawWriter writes without waiting.
type rawWriter struct {
	buf  []byte
	n    int
	err  error
	once func(fd uintptr) bool // try as a value
}

// rawWriters are lent for one write each: few are at it at the same time.
var rawWriters = sync.Pool{New: func() any {
	w := new(rawWriter)
	w.once = w.try
	return w
}}

// tryWrite writes what the socket takes without waiting. It returns how much
// that was; less than all of b without an error means that the socket is full.
func (c *conn) tryWrite(b []byte) (int, error) {
	if c.raw == nil {
		return 0, nil
	}
	w := rawWriters.Get().(*rawWriter)
	w.buf, w.n, w.err = b, 0, nil
	err := c.raw.Write(w.once)
	if w.err != nil {
		err = w.err
	}
	n := w.n
	w.buf, w.err = nil, nil
	rawWriters.Put(w)
	return n, err
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
