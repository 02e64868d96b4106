package pitaya

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrConnectionLost is wrapped by the error of a request that was unanswered when a client with [ClientConfig].Resume
// lost its connection: whether the server has handled it, nobody knows. It is not made again by itself.
var ErrConnectionLost = errors.New("pitaya: connection lost before the answer")

// clientResume is what a Client has that goes on when its connection is lost. Each connection is a Client of its own,
// below the one that the application knows, which has the handlers and the pushes that wait for them.
type clientResume struct {
	// Immutable.
	c    *Client // the one that the application knows
	ctx  context.Context
	quit context.CancelFunc // ends ctx, which is what giving up does

	received   atomic.Int64   // pushes of the session
	told       atomic.Int64   // how many of them the server was told of last
	toldAt     atomic.Int64   // and when, as time since c.started
	goroutines sync.WaitGroup // the one that connects again

	mu      sync.Mutex    // guards the fields below; taken before the locks of Clients
	link    *Client       // the connection; nil while there is none
	last    *Client       // the connection, or the one before
	token   string        // the one that was got last
	renewed bool          // the server has said that the session is a new one, and the application does not know yet
	over    error         // why the client has given up; nil before
	changed chan struct{} // closed when link or over change, and then another one
}

const (
	// clientFirstPause bounds the pause before the first attempt to connect again: a server that has lost all of its
	// clients gets them back one after the other. Each pause may be twice as long as the one before, up to clientPause.
	clientFirstPause = 100 * time.Millisecond
	clientPause      = 5 * time.Second
	// clientLongestWindow bounds how long a client tries, whatever the server says.
	clientLongestWindow = 24 * time.Hour
	// clientCounts is after how many pushes the server is told their count, if the last time was clientCountPause ago:
	// it keeps all that it does not know to have arrived, and cannot keep much.
	clientCounts     = 100
	clientCountPause = time.Second
)

// resume does the first handshake of a client with Resume.
func (c *Client) resume(ctx context.Context, conn net.Conn) (*Client, error) {
	if c.cfg.Redial == nil {
		conn.Close()
		return nil, errors.New("pitaya: ClientConfig.Resume needs Redial, or Dial instead of NewClient")
	}
	c.again = &clientResume{c: c, changed: make(chan struct{})}
	c.again.ctx, c.again.quit = context.WithCancel(context.Background())
	c.conn, c.in, c.pending = nil, nil, nil
	link, err := c.again.connect(ctx, conn)
	if err != nil {
		c.again.quit()
		return nil, err
	}
	c.again.begin(link)
	return c, nil
}

// connect does the handshake on a connection, which is closed if there is an error. Whatever becomes of it, what the
// server says of resume in its answer counts.
func (r *clientResume) connect(ctx context.Context, conn net.Conn) (*Client, error) {
	link := newClient(conn, &r.c.cfg)
	link.outer = r.c
	err := link.handshake(ctx)
	if link.answer != nil {
		r.answered(link.answer.Sys.Resume)
	}
	if err != nil {
		link.cut()
		return nil, err
	}
	return link, nil
}

// answered takes note of what the server has said of resume.
func (r *clientResume) answered(a *HandshakeResume) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.token = ""
	if a != nil {
		r.token = a.Token
	}
	if a == nil || !a.Resumed {
		r.renewed = true
		r.received.Store(0)
	}
	r.told.Store(r.received.Load())
}

// request returns the user's part of a handshake with the request to be resumable in it.
func (r *clientResume) request(user map[string]any) map[string]any {
	r.mu.Lock()
	token := r.token
	r.mu.Unlock()
	ask := map[string]any{}
	if token != "" {
		ask["token"], ask["received"] = token, r.received.Load()
	}
	user = maps.Clone(user)
	if user == nil {
		user = make(map[string]any)
	}
	user[resumeKey] = ask
	return user
}

// begin makes a connection the client's, whose handshake is done.
func (r *clientResume) begin(link *Client) {
	r.mu.Lock()
	if r.over != nil || r.c.closing() {
		r.mu.Unlock()
		link.goodbye()
		link.Close()
		return
	}
	defer r.mu.Unlock()
	resumed, first := !r.renewed, r.last == nil
	r.link, r.last, r.renewed = link, link, false
	if f := r.c.cfg.OnReconnect; f != nil && !first {
		r.event(func() { f(resumed) }) // before its pushes
	}
	if !first {
		r.c.log.Debug("connected again", "resumed", resumed)
	}
	link.start()
	r.changedLocked()
}

func (r *clientResume) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// event lets the goroutine that handles pushes call f in its turn.
func (r *clientResume) event(f func()) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.queuePushLocked(clientPush{Event: f})
}

// push takes in a push that came by link.
func (r *clientResume) push(link *Client, m Message) error {
	if r.received.Add(1)-r.told.Load() >= clientCounts && link.resumable() &&
		time.Since(r.c.started)-time.Duration(r.toldAt.Load()) >= clientCountPause {
		link.tellCount()
	}
	return r.c.push(m)
}

// tellCount sends a heartbeat before its time. The reader, which calls it, must not wait for the write.
func (c *Client) tellCount() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil || c.closed || c.parting {
		return
	}
	c.out = c.appendHeartbeat(c.out)
	c.goroutines.Go(func() {
		c.mu.Lock()
		c.flushAndUnlock()
	})
}

// lost is called when a connection has ended, but not by Close.
func (r *clientResume) lost(link *Client, cause error) {
	r.mu.Lock()
	if r.link != link || r.over != nil {
		r.mu.Unlock()
		return
	}
	r.link = nil
	r.changedLocked()
	if !link.resumable() || clientGivesUp(cause) {
		r.mu.Unlock()
		r.giveUp(cause)
		return
	}
	r.goroutines.Add(1)
	r.mu.Unlock()
	go func() {
		defer r.goroutines.Done()
		link.goroutines.Wait() // so all that came is counted, and in its place
		// No server lets a session wait for longer; a number of any size would overflow.
		window := time.Duration(min(max(link.answer.Sys.Resume.Window, 1), int(clientLongestWindow/time.Second))) * time.Second
		r.reconnect(cause, window)
	}()
}

// clientGivesUp reports whether a connection has ended in a way that is no reason to make another.
func clientGivesUp(cause error) bool {
	return errors.Is(cause, ErrKicked) || errors.Is(cause, ErrSlowClient) || errors.Is(cause, ErrProtocol)
}

// reconnect makes the next connection, or gives up when the window is over. It ends with Close.
func (r *clientResume) reconnect(cause error, window time.Duration) {
	if f := r.c.cfg.OnDisconnect; f != nil {
		r.event(func() { f(cause) })
	}
	ctx, cancel := context.WithTimeout(r.ctx, window)
	defer cancel()
	for pause := clientFirstPause; ; pause = min(2*pause, clientPause) {
		link, err := r.attempt(ctx, pause/2+rand.N(pause/2))
		if err == nil {
			r.begin(link)
			return
		}
		if refused, ok := errors.AsType[*HandshakeError](err); ok && refused.Code != handshakeBusy || errors.Is(err, ErrKicked) {
			r.giveUp(err)
			return
		}
		if ctx.Err() != nil {
			r.giveUp(fmt.Errorf("pitaya: not connected again within %v: %w", window, cause))
			return
		}
		r.c.log.Debug("not connected again yet", "err", err)
	}
}

// attempt makes one connection, after a pause.
func (r *clientResume) attempt(ctx context.Context, pause time.Duration) (*Client, error) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dialCtx, cancel := context.WithTimeout(ctx, r.c.cfg.HandshakeTimeout)
	defer cancel()
	conn, err := r.c.cfg.Redial(dialCtx)
	if err != nil {
		return nil, err
	}
	return r.connect(ctx, conn)
}

// giveUp ends the client. The first call counts.
func (r *clientResume) giveUp(cause error) {
	r.mu.Lock()
	if r.over != nil {
		r.mu.Unlock()
		return
	}
	r.over = cause
	link := r.link
	r.link = nil
	r.quit()
	r.changedLocked()
	r.mu.Unlock()
	if link != nil {
		link.end(cause)
	}
	r.c.mu.Lock()
	r.c.cause = cause
	r.c.mu.Unlock()
	close(r.c.done)
}

// closing reports whether Close was called.
func (c *Client) closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// close is Close of the client. A connection that is made at this moment is seen
// here, or sees that the client is closing: it is told goodbye in any case.
func (r *clientResume) close() {
	r.c.mu.Lock()
	r.c.closed = true
	r.c.mu.Unlock()
	r.mu.Lock()
	link := r.link
	r.mu.Unlock()
	if link != nil {
		link.goodbye()
		link.Close()
	}
	r.giveUp(ErrSessionClosed)
	r.goroutines.Wait()
}

// send puts a message on its way as Client.send does, on the connection that it returns. It waits while there is none:
// what a connection has not taken is not sent.
func (r *clientResume) send(ctx context.Context, m Message, reply chan<- clientReply) (on *Client, id uint64, err error) {
	var failed *Client
	for {
		r.mu.Lock()
		link, over, changed := r.link, r.over, r.changed
		r.mu.Unlock()
		switch {
		case over != nil:
			return nil, 0, over
		case link != nil && link != failed:
			id, err := link.send(ctx, m, reply)
			if err == nil || ctx.Err() != nil || !link.leaving() {
				return link, id, err
			}
			failed = link
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// sendWhereConnected is send on the connection that there is, or will be.
func (c *Client) sendWhereConnected(ctx context.Context, m Message, reply chan<- clientReply) (on *Client, id uint64, err error) {
	if c.again != nil {
		return c.again.send(ctx, m, reply)
	}
	id, err = c.send(ctx, m, reply)
	return c, id, err
}

// leaving reports whether nothing can be sent any more.
func (c *Client) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil || c.closed || c.parting
}

// unanswered makes the error of a request that was unanswered when the connection ended.
func (c *Client) unanswered(cause error) error {
	if c.outer == nil || errors.Is(cause, ErrSessionClosed) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, cause)
}

// connection returns the Client whose handshake is in force.
func (c *Client) connection() *Client {
	if c.again == nil {
		return c
	}
	c.again.mu.Lock()
	defer c.again.mu.Unlock()
	return c.again.last
}

// resumable reports whether the server has granted resume.
func (c *Client) resumable() bool { return c.outer != nil && c.answer.Sys.Resume != nil }

// appendHeartbeat appends a heartbeat, with the count of pushes if the session is resumable.
func (c *Client) appendHeartbeat(dst []byte) []byte {
	if !c.resumable() {
		return appendEmptyPacket(dst, PacketHeartbeat)
	}
	r := c.outer.again
	n := r.received.Load()
	r.told.Store(n)
	r.toldAt.Store(int64(time.Since(c.outer.started)))
	dst = append(dst, byte(PacketHeartbeat), 0, 0, receivedSize)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// goodbye says that the client does not come back. What is sent behind it is not looked at.
func (c *Client) goodbye() {
	c.mu.Lock()
	if !c.resumable() || c.closed || c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.out = appendEmptyPacket(c.out, PacketKick)
	c.flushAndUnlock()
}

// cut closes the connection without the word of goodbye that WebSocket has.
func (c *Client) cut() {
	if ws, ok := c.conn.(*wsConn); ok {
		ws.NetConn().Close()
		return
	}
	c.conn.Close()
}
