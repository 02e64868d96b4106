//go:build unix

package load

import (
	"net"
	"syscall"
)

// A directWriter writes to a connection what goes without waiting, so that whoever keeps a schedule can write and needs
// nobody woken. It is for one goroutine at a time.
type directWriter struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // made once: a function that is handed on is allocated

	b []byte
	n int
}

// newDirectWriter returns nil for a connection that is more than a socket.
func newDirectWriter(conn net.Conn) *directWriter {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	d := &directWriter{raw: raw}
	d.try = func(fd uintptr) bool {
		// An error is left to those who wait: they get it again.
		d.n, _ = syscall.Write(int(fd), d.b)
		return true
	}
	return d
}

// write returns how much was written.
func (d *directWriter) write(b []byte) int {
	d.b, d.n = b, 0
	if d.raw.Write(d.try) != nil { // the deadline has passed, or it is closed
		return 0
	}
	d.b = nil
	return max(d.n, 0)
}
