//go:build !unix

package pitaya

import (
	"net"
	"syscall"
)

// rawConn returns nil: on this system a socket is read and written through
// net.Conn.
func rawConn(net.Conn) syscall.RawConn { return nil }

// newRawReader is never called here.
func newRawReader(c *conn) connReader { return &plainReader{c: c} }

// tryWrite leaves everything to a goroutine that may wait.
func (c *conn) tryWrite([]byte) (int, error) { return 0, nil }

// unread is never asked for: no connection is on the list.
func (c *conn) unread() bool { return false }
