package pitaya

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// A tcpListener is a listener whose connections have Go's keep-alive options without four system calls for each of them:
// Linux hands those of a listening socket down to the connections that it accepts. What takes its place elsewhere, in
// sandboxes for instance, may not, so the first connection is looked at.
type tcpListener struct {
	*net.TCPListener

	first    sync.Once
	inherits atomic.Bool // set by first
}

// What package net sets where nothing else is asked for, see [net.KeepAliveConfig].
const (
	keepAliveSeconds = 15 // without a word, until the first probe and from one to the next
	keepAliveProbes  = 9  // so many without an answer
)

// A socketOption is one that is a number.
type socketOption struct{ level, option, value int }

func keepAliveOptions() [4]socketOption {
	return [...]socketOption{
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, keepAliveSeconds},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, keepAliveSeconds},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveProbes},
	}
}

// listenTCP is net.Listen for TCP.
func listenTCP(addr string) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1, // package net leaves connections as they are
		Control: func(_, _ string, c syscall.RawConn) error {
			// What a socket does not take its connections will not have, which Accept sees.
			return c.Control(func(fd uintptr) {
				for _, o := range keepAliveOptions() {
					_ = syscall.SetsockoptInt(int(fd), o.level, o.option, o.value)
				}
			})
		},
	}
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &tcpListener{TCPListener: l.(*net.TCPListener)}, nil
}

// isTCPListener reports whether there is nothing but TCP to l.
func isTCPListener(l net.Listener) bool {
	switch l.(type) {
	case *net.TCPListener, *tcpListener:
		return true
	}
	return false
}

// Accept implements [net.Listener].
func (l *tcpListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.first.Do(func() { l.inherits.Store(keepsAlive(c)) })
	if !l.inherits.Load() {
		// As in package net, a connection that is over already says so to who reads from it.
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	}
	return c, nil
}

// keepsAlive reports whether c has the options.
func keepsAlive(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	has := true
	err = raw.Control(func(fd uintptr) {
		for _, o := range keepAliveOptions() {
			v, err := syscall.GetsockoptInt(int(fd), o.level, o.option)
			has = has && err == nil && v == o.value
		}
	})
	return err == nil && has
}
