package main

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echoServer answers what it is sent, until the end of the test.
func echoServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return l.Addr().String()
}

// TestLink: a link passes bytes, and each fault does what it says.
func TestLink(t *testing.T) {
	t.Parallel()
	l, err := newLink(echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// echo returns what became of a byte within a time.
	echo := func(c net.Conn, within time.Duration) error {
		c.SetDeadline(time.Now().Add(within))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	c := dial()
	if err := echo(c, patience); err != nil {
		t.Fatal(err)
	}

	l.Hang()
	if err := echo(c, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("hanging: got %v", err)
	}
	l.Heal()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("what has hung did not arrive: %v", err)
	}

	l.Slow(30 * time.Millisecond)
	began := time.Now()
	if err := echo(c, patience); err != nil || time.Since(began) < 60*time.Millisecond {
		t.Errorf("slow: %v after %v, want two delays", err, time.Since(began))
	}
	l.Heal()

	l.Reset()
	if err := echo(c, patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reset: got %v", err)
	}
	c = dial()
	if err := echo(c, patience); err != nil {
		t.Errorf("a connection after a reset: %v", err)
	}

	l.Cut()
	if err := echo(c, patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("cut: got %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr); err == nil { // or the reset has come already
		if err := echo(c, patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection while cut: got %v", err)
		}
		c.Close()
	}
	l.Heal()
	l.Lead(echoServer(t))
	if err := echo(dial(), patience); err != nil {
		t.Errorf("after a cut: %v", err)
	}
}
