package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/pitaya-go/pitaya"
)

// memPair is a connection over l: the client's end and the server's.
func memPair(t testing.TB, l *pitaya.MemListener) (client, server net.Conn) {
	t.Helper()
	client, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestMemConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l := pitaya.ListenMem()
		c1, err = l.DialContext(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		c2, err = l.Accept()
		return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, err
	})
}

func TestMemConnBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		defer l.Close()
		client, server := memPair(t, l)

		// 64 KiB fit without a reader, the next byte does not.
		if n, err := client.Write(make([]byte, 64<<10)); n != 64<<10 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		start := time.Now()
		client.SetWriteDeadline(start.Add(time.Second))
		if n, err := client.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatalf("wrote %d, %v after %v", n, err, time.Since(start))
		}
		client.SetWriteDeadline(time.Time{})

		// A blocked writer goes on when there is room.
		var wrote sync.WaitGroup
		wrote.Go(func() {
			if n, err := client.Write(make([]byte, 100)); n != 100 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		})
		synctest.Wait()
		if n, err := io.ReadFull(server, make([]byte, 64<<10)); err != nil {
			t.Fatalf("read %d, %v", n, err)
		}
		wrote.Wait()
		if n, err := server.Read(make([]byte, 200)); n != 100 || err != nil {
			t.Fatalf("read %d, %v", n, err)
		}
	})
}

func TestMemConnHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		defer l.Close()
		client, server := memPair(t, l)
		io.WriteString(client, "request")
		if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(server); string(b) != "request" || err != nil {
			t.Fatalf("server read %q, %v", b, err)
		}
		if _, err := io.WriteString(client, "more"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		io.WriteString(server, "answer")
		server.Close()
		if b, err := io.ReadAll(client); string(b) != "answer" || err != nil {
			t.Fatalf("client read %q, %v", b, err)
		}
		if _, err := io.WriteString(client, "more"); err == nil {
			t.Error("write to a closed peer succeeded")
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if err := server.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestMemConnCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, who := range []string{"own", "peer"} {
			l := pitaya.ListenMem()
			client, server := memPair(t, l)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := client.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s close: read got no error", who)
				}
			})
			wg.Go(func() {
				if _, err := client.Write(make([]byte, 1<<20)); err == nil {
					t.Errorf("%s close: write got no error", who)
				}
			})
			synctest.Wait()
			map[string]net.Conn{"own": client, "peer": server}[who].Close()
			wg.Wait()
			l.Close()
		}
	})
}

// Writes of several goroutines do not mix, whatever their size.
func TestMemConnWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		defer l.Close()
		client, server := memPair(t, l)
		const writers, size = 4, 200_000
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				if _, err := client.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
					t.Error(err)
				}
			})
		}
		for range writers {
			b := make([]byte, size)
			if _, err := io.ReadFull(server, b); err != nil {
				t.Fatal(err)
			}
			if bytes.Count(b, b[:1]) != size {
				t.Error("two writes were mixed")
			}
		}
		wg.Wait()
	})
}

func TestMemListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		client, server := memPair(t, l)
		for _, a := range []net.Addr{l.Addr(), client.LocalAddr(), server.LocalAddr()} {
			if a.Network() != "mem" {
				t.Errorf("network %q", a.Network())
			}
		}
		if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Errorf("the server sees %q, the client is %q", got, want)
		}

		// A full backlog makes diallers wait, and only as long as their context lasts.
		var waiting []net.Conn
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			c, err := l.DialContext(ctx)
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("dial: %v", err)
				}
				break
			}
			waiting = append(waiting, c)
		}
		if len(waiting) != 128 {
			t.Errorf("%d clients fit the backlog", len(waiting))
		}

		var wg sync.WaitGroup
		wg.Go(func() {
			if c, err := l.DialContext(t.Context()); err == nil {
				t.Error("dialled a listener that closed meanwhile")
				c.Close()
			}
		})
		synctest.Wait()
		l.Close()
		l.Close()
		wg.Wait()
		for _, c := range waiting {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("client that was never accepted: %v", err)
			}
			c.Close()
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if _, err := l.DialContext(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
	})
}

func TestMemListenerCloseUnblocksAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pitaya.ListenMem()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept: %v", err)
			}
		})
		synctest.Wait()
		l.Close()
		wg.Wait()
	})
}

// Diallers race with Close: each has a connection that works or ends, and none hangs.
func TestMemListenerCloseRace(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			l := pitaya.ListenMem()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if c, err := l.DialContext(t.Context()); err == nil {
						if _, err := c.Read(make([]byte, 1)); err != io.EOF {
							t.Errorf("read: %v", err)
						}
						c.Close()
					}
				})
			}
			l.Close()
			wg.Wait()
		})
	}
}

func BenchmarkMemConn(b *testing.B) {
	for _, size := range []int{64, 1024, 32 << 10} {
		b.Run(fmt.Sprintf("echo/size=%d", size), func(b *testing.B) {
			client, server := memPair(b, pitaya.ListenMem())
			var wg sync.WaitGroup
			wg.Go(func() {
				io.Copy(server, server)
			})
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
			client.Close()
			wg.Wait()
		})
	}
}
