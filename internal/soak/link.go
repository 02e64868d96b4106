package main

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A link is a proxy for TCP, which a fault can be put on. It runs until it is closed.
type link struct {
	Addr string // where it listens

	listener net.Listener
	ctx      context.Context
	quit     context.CancelFunc
	running  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	target string
	refuse bool
	delay  time.Duration
	flow   chan struct{} // nil while bytes pass; else closed when they may pass again
	conns  map[net.Conn]bool
}

func newLink(target string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{Addr: listener.Addr().String(), listener: listener, target: target, conns: make(map[net.Conn]bool)}
	l.ctx, l.quit = context.WithCancel(context.Background())
	l.running.Go(l.accept)
	return l, nil
}

func (l *link) close() {
	l.quit()
	l.listener.Close()
	l.Reset()
	l.running.Wait()
}

// Lead changes what new connections lead to.
func (l *link) Lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// Reset ends all connections, which can be made again at once.
func (l *link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Close()
	}
}

// Cut ends all connections and allows no new ones, until Heal.
func (l *link) Cut() {
	l.mu.Lock()
	l.refuse = true
	l.mu.Unlock()
	l.Reset()
}

// Hang lets nothing pass any more, without ending anything, until Heal.
func (l *link) Hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flow == nil {
		l.flow = make(chan struct{})
	}
}

// Slow delays what passes from now on, until Heal.
func (l *link) Slow(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Heal ends all faults.
func (l *link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse, l.delay = false, 0
	if l.flow != nil {
		close(l.flow)
		l.flow = nil
	}
}

func (l *link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.serve(c) })
	}
}

func (l *link) serve(in net.Conn) {
	defer in.Close()
	if !l.keep(in) {
		return
	}
	defer l.drop(in)
	if l.wait() != nil {
		return
	}
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	out, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(l.ctx, "tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	if !l.keep(out) {
		return
	}
	defer l.drop(out)
	var back sync.WaitGroup
	back.Go(func() { l.copy(in, out) })
	l.copy(out, in)
	back.Wait()
}

// keep notes a connection, unless none is allowed.
func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse || l.ctx.Err() != nil {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		return false
	}
	l.conns[c] = true
	return true
}

func (l *link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// wait returns when bytes may pass.
func (l *link) wait() error {
	l.mu.Lock()
	flow, delay := l.flow, l.delay
	l.mu.Unlock()
	if flow != nil {
		select {
		case <-flow:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	return nil
}

// copy copies until one side ends, and tells the other side. A delay holds for each piece that was read at once, so that it
// bounds what passes as well.
func (l *link) copy(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if l.wait() != nil {
				break
			}
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err == io.EOF {
			if tcp, ok := to.(*net.TCPConn); ok {
				tcp.CloseWrite()
			}
			return
		}
		if err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}
