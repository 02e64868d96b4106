package main

import (
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"
)

// TestMain is a server too, for TestStarts.
func TestMain(m *testing.M) {
	if addr := os.Getenv("BENCH_TEST_SERVER"); addr != "" {
		os.Exit(answerOnce(addr))
	}
	os.Exit(m.Run())
}

func answerOnce(addr string) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 3
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err == nil {
				c.Write([]byte{1, 0, 0, 0})
			}
			defer c.Close()
		}
	}()
	<-ended
	return 0
}

func TestStarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	d := timing{duration: time.Millisecond}
	if _, err := measureStarts(t.Context(), os.Args[0], addr, d); err == nil || !strings.Contains(err.Error(), "something else listens") {
		t.Errorf("an address that is taken: %v", err)
	}
	l.Close()
	t.Setenv("BENCH_TEST_SERVER", addr)
	s, err := measureStarts(t.Context(), os.Args[0], addr, d)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if s.Size != float64(info.Size()) || s.P50 <= 0 || s.P99 < s.P50 || s.CPU <= 0 {
		t.Errorf("got %+v", s)
	}
	if _, err := measureStarts(t.Context(), os.Args[0]+"-not", addr, d); err == nil {
		t.Error("no error where there is no program")
	}
}
