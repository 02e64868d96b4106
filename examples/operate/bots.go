package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
)

// play is a bot. It plays until ctx ends, and comes back when it is thrown out.
func play(ctx context.Context, addr string, number int) {
	for ctx.Err() == nil {
		// Why it was is nothing to a bot.
		_ = playOnce(ctx, addr, number)
		_ = pause(ctx, time.Second)
	}
}

// botName returns the name of a bot. One of them would like to be more than a name.
func botName(number int) string {
	names := []string{"ada", "grace", "alan", "edsger", "barbara", "donald", "frances", "tony", "margaret", "niklaus"}
	switch {
	case number == 3:
		return "<img/src=x/onerror=alert(1)>"
	case number == 5:
		return sleeper
	case number < len(names):
		return names[number]
	}
	return fmt.Sprintf("%s-%d", names[number%len(names)], number/len(names))
}

func playOnce(ctx context.Context, addr string, number int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	bed := &sleepyConn{Conn: conn, closed: make(chan struct{})}
	defer bed.Close()
	c, err := pitaya.NewClient(ctx, bed, &pitaya.ClientConfig{ServerTimeout: -1})
	if err != nil {
		return err
	}
	defer c.Close()
	name := botName(number)
	if err := c.Request(ctx, "gate.player.enter", &enter{name}, nil); err != nil {
		return err
	}
	if name == sleeper {
		bed.sleep()
		return pause(ctx, 20*time.Second)
	}
	for round := 0; c.Err() == nil; round++ {
		if err := pause(ctx, time.Duration(50+rand.IntN(200))*time.Millisecond); err != nil {
			return err
		}
		// What the answers are is nothing to it either.
		switch rand.IntN(10) {
		case 0:
			_ = c.Request(ctx, "gate.shop.buy", &none{}, nil)
		case 1:
			if number%7 == 0 {
				_ = c.Request(ctx, fmt.Sprint("room.cheat.level", round), nil, nil)
			}
		case 2, 3, 4:
			_ = c.Notify(ctx, "gate.player.move", &move{round})
		default:
			_ = c.Request(ctx, "room.table.play", &move{round}, nil)
		}
	}
	return c.Err()
}

// A sleepyConn stops reading when it is told to, as a client does that hangs.
type sleepyConn struct {
	net.Conn
	asleep atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *sleepyConn) sleep() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4 << 10) // or the kernel reads on for it
	}
	c.asleep.Store(true)
}

// Read implements [net.Conn].
func (c *sleepyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.asleep.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

// Close implements [net.Conn].
func (c *sleepyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
