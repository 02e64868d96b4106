package pitayatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A Client is a [pitaya.Client] for tests: its calls fail the test instead of returning errors, and it keeps all pushes
// until the test asks for them. The methods that take a route and no context are for the goroutine of the test; the
// client itself, in the field Client, has calls that return errors, for any goroutine.
//
// Pushes with a handler of their own ([pitaya.Client.OnPush]) are not kept, and [pitaya.Client.OnAnyPush] ends the
// keeping: use the callbacks of [pitaya.ClientConfig] beside it.
//
// Nothing waits for longer than 20 seconds.
type Client struct {
	*pitaya.Client
	t testing.TB

	mu      sync.Mutex // guards the fields below; never held across a callback
	pushes  map[string][][]byte
	changed chan struct{} // closed by the next push
	conn    net.Conn      // the connection
}

func newClient(ctx context.Context, t testing.TB, conn net.Conn, given *pitaya.ClientConfig) (*Client, error) {
	c := &Client{t: t, pushes: make(map[string][][]byte), changed: make(chan struct{})}
	var cfg pitaya.ClientConfig
	if given != nil {
		cfg = *given
	}
	c.conn = conn
	if redial := cfg.Redial; redial != nil {
		cfg.Redial = func(ctx context.Context) (net.Conn, error) {
			conn, err := redial(ctx)
			c.mu.Lock()
			defer c.mu.Unlock()
			if err == nil {
				c.conn = conn
			}
			return conn, err
		}
	}
	also := cfg.OnAnyPush
	cfg.OnAnyPush = func(route string, payload []byte) {
		c.keep(route, payload)
		if also != nil {
			also(route, slices.Clone(payload))
		}
	}
	var err error
	if c.Client, err = pitaya.NewClient(ctx, conn, &cfg); err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, nil
}

// Cut breaks the client's connection without a word to the server, as a network does. A client with
// [pitaya.ClientConfig].Resume makes another one.
func (c *Client) Cut() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	conn.Close()
}

// keep is called for each push, in order.
func (c *Client) keep(route string, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pushes[route] = append(c.pushes[route], payload)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Request makes a request and decodes the answer into out, a pointer. What in and out may be is said at
// [pitaya.Client.Request]. An error fails the test.
func (c *Client) Request(route string, in, out any) {
	c.t.Helper()
	if err := c.request(route, in, out); err != nil {
		c.t.Fatalf("request %s: %v", route, err)
	}
}

func (c *Client) request(route string, in, out any) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	return c.Client.Request(ctx, route, in, out)
}

// Request makes a request and returns the answer. An error fails the test.
func Request[Out any](c *Client, route string, in any) *Out {
	c.t.Helper()
	out := new(Out)
	c.Request(route, in, out)
	return out
}

// ExpectError makes a request that must be answered with an error of the given code.
func (c *Client) ExpectError(route string, in any, code string) *pitaya.Error {
	c.t.Helper()
	err := c.request(route, in, nil)
	coded, ok := errors.AsType[*pitaya.Error](err)
	switch {
	case err == nil:
		c.t.Fatalf("request %s: got an answer, want an error with code %s", route, code)
	case !ok:
		c.t.Fatalf("request %s: got %v, want an error with code %s", route, err, code)
	case coded.Code != code:
		c.t.Fatalf("request %s: got code %s (%v), want %s", route, coded.Code, err, code)
	}
	return coded
}

// Notify sends a message that is not answered. An error fails the test.
func (c *Client) Notify(route string, in any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.Client.Notify(ctx, route, in); err != nil {
		c.t.Fatalf("notify %s: %v", route, err)
	}
}

// ExpectPush returns the payload of the first push on the route that was not asked for yet, and waits for it where
// there is none. Each route has an order of its own: pushes on others may have come before.
func (c *Client) ExpectPush(route string) []byte {
	c.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	done := c.Done()
	for {
		c.mu.Lock()
		changed := c.changed
		if list := c.pushes[route]; len(list) > 0 {
			c.pushes[route] = list[1:]
			c.mu.Unlock()
			return list[0]
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			// What came before the end may still be on its way from the client to here.
			done = nil
			timer.Reset(patience / 10)
		case <-timer.C:
			c.t.Fatalf("no push %s came; %s", route, c.state())
		}
	}
}

// Push is [Client.ExpectPush] for pushes that are decoded, with the serializer of the client.
func Push[T any](c *Client, route string) *T {
	c.t.Helper()
	payload, v := c.ExpectPush(route), new(T)
	if err := c.Serializer().Unmarshal(payload, v); err != nil {
		c.t.Fatalf("push %s: %v in %.200q", route, err, payload)
	}
	return v
}

// NoPush fails the test if a push came that was not asked for yet: on one of the routes, or, without routes, on any. In
// a bubble ([testing/synctest]) it waits until all else rests, so that what is on its way arrives. Elsewhere nothing can
// tell whether something is, and it looks at what has arrived.
func (c *Client) NoPush(routes ...string) {
	c.t.Helper()
	settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, route := range slices.Sorted(maps.Keys(c.pushes)) {
		if list := c.pushes[route]; len(list) > 0 && (len(routes) == 0 || slices.Contains(routes, route)) {
			c.t.Errorf("unexpected push %s, %d of them; the first is %.200q", route, len(list), list[0])
		}
	}
}

// settle waits until all other goroutines of the bubble rest, if there is a bubble. Nothing but the panic tells.
func settle() {
	defer func() {
		if p := recover(); p != nil && !strings.Contains(fmt.Sprint(p), "not in a bubble") {
			panic(p)
		}
	}()
	synctest.Wait()
}

// ExpectKick waits for the server to kick the client, and returns the reason. The test fails if the connection ends in
// another way.
func (c *Client) ExpectKick() (reason string) {
	c.t.Helper()
	if err := c.ExpectClosed(); !errors.Is(err, pitaya.ErrKicked) {
		c.t.Fatalf("the client was not kicked: %v", err)
	}
	return c.KickReason()
}

// ExpectClosed waits for the end of the connection, and returns what [pitaya.Client.Err] says of it.
func (c *Client) ExpectClosed() error {
	c.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.Done():
	case <-timer.C:
		c.t.Fatalf("the connection has not ended within %v; %s", patience, c.state())
	}
	return c.Err()
}

// state describes the client to somebody who wonders why nothing comes.
func (c *Client) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var waiting []string
	for _, route := range slices.Sorted(maps.Keys(c.pushes)) {
		if n := len(c.pushes[route]); n > 0 {
			waiting = append(waiting, fmt.Sprintf("%s (%d)", route, n))
		}
	}
	text := "no other pushes wait"
	if len(waiting) > 0 {
		text = "waiting are pushes " + strings.Join(waiting, ", ")
	}
	if err := c.Err(); err != nil {
		return fmt.Sprintf("%s; the connection has ended: %v", text, err)
	}
	return text + "; the connection is open"
}
