package pitaya

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ClientConfig says how a [Client] behaves. The zero value, or a nil pointer, is a good one. It is not changed, and it
// may be used for any number of clients.
type ClientConfig struct {
	// Handshake is what the client says about itself. Nil: the operating system as platform, and the name of this
	// library as its version. Where Sys.Features is nil, the client announces all that it can do, [FeatureInflate],
	// [FeaturePushCodes] and [FeatureDrain]; an empty list announces nothing.
	Handshake *HandshakeData

	// Serializer is used for arguments, results and error answers. Nil: [JSON] or [Protobuf], whichever the server
	// names; a server that names another one is then an error.
	Serializer Serializer

	// TLS is used by [Dial] for tls and wss. Nil: the defaults of crypto/tls. The server name is taken from the URL
	// unless it is set here.
	TLS *tls.Config

	// Header is sent by [Dial] with the upgrade request of ws and wss, for example an Origin. What the upgrade itself is
	// made of (Upgrade, Connection, and Sec-WebSocket-Key, -Version and -Extensions) is left out.
	Header http.Header

	// Compress makes the client compress the payloads it sends, those that shrink by it. Old servers understand it too.
	Compress bool

	// MaxPacketSize is the largest packet body in bytes that the client takes. Zero: the constant MaxPacketSize. What
	// is larger ends the connection.
	MaxPacketSize int

	// MaxInflatedSize is what a payload may inflate to, in bytes. Zero: 16 MiB. What is larger ends the connection.
	MaxInflatedSize int

	// MaxPushBacklog is how many bytes of pushes may wait for their handlers. Zero: 16 MiB. Reading cannot pause instead,
	// because a handler may wait for an answer; what is more ends the connection with [ErrSlowClient].
	MaxPushBacklog int

	// HandshakeTimeout bounds the handshake, and before it what [Dial] does, each, beside the context. Zero: 10 seconds.
	HandshakeTimeout time.Duration

	// WriteTimeout is how long the server may take nothing while the client writes. Zero: 10 seconds. Then the
	// connection ends: part of a packet may be on the way, so nothing can follow.
	WriteTimeout time.Duration

	// ServerTimeout is how long the server may be silent. Zero: three times the heartbeat interval, which the server
	// sets; negative: forever. Then the connection ends with [ErrHeartbeat].
	ServerTimeout time.Duration

	// RequestTimeout is how long a request waits for its answer, beside its context. Zero: as long as the context says.
	// Then the request fails with an [*Error] with code [CodeClientTimeout]; the connection stays.
	RequestTimeout time.Duration

	// OnPush and OnAnyPush are handlers to start with, as if given to [Client.OnPush] and [Client.OnAnyPush] before the
	// first push can arrive.
	OnPush    map[string]func(payload []byte)
	OnAnyPush func(route string, payload []byte)

	// Resume makes the client ask for a session that outlives its connection, and where the server grants that, connect
	// again by itself: at once, then with growing pauses, each with a random part, until the session cannot be waiting any
	// more. Then Done is closed. A server that does not know resume is met as without it.
	//
	// While the client is away, requests and notifies wait for it to be back, for their contexts to end, or for it to give
	// up. Requests that were unanswered when the connection was lost fail with [ErrConnectionLost] and are not repeated.
	// Pushes go on where they have stopped. Close tells the server that the client does not come back.
	Resume bool

	// Redial makes the next connection for Resume, TLS and upgrade included. Nil: as [Dial] has made the first one, while
	// [NewClient] needs it. It is called by one goroutine at a time.
	Redial func(ctx context.Context) (net.Conn, error)

	// OnDisconnect is called when the connection was lost and the client begins to connect again, and OnReconnect when it
	// has. If resumed is false the server has a new session for the client, to which nothing of the old one applies: a
	// game logs in again. Both are called among the handlers of pushes, in the order in which things happened; what waited
	// for the client is sent meanwhile. They are used with Resume only.
	OnDisconnect func(cause error)
	OnReconnect  func(resumed bool)

	// Logger gets what is ignored, at debug level: answers that nobody waits for any more, pushes without a handler.
	// Payloads are not logged. Nil: nothing is logged.
	Logger *slog.Logger
}

// Defaults of ClientConfig, and limits without a setting.
const (
	clientTimeout  = 10 * time.Second
	clientInflated = 16 << 20
	clientBacklog  = 16 << 20
	// clientVersion must look like no other client's, or servers guess wrongly at what this one can do.
	clientVersion = "pitaya-go"
	// clientQueue is how many bytes of packets wait behind a write in progress before callers wait too.
	clientQueue = 256 << 10
	// clientSpare and clientSparePushes are how much of a buffer and of a queue a client that rests keeps for next time.
	clientSpare       = 16 << 10
	clientSparePushes = 64
	// clientIntervals is how many heartbeat intervals a server may be silent for. It sends one per interval, so
	// the second one missing is not yet a slow network.
	clientIntervals = 3
	// The interval that a server announces is bounded to what does not keep the client busy and does not overflow a
	// time.Duration.
	clientMinInterval = 10 * time.Millisecond
	clientMaxInterval = 365 * 24 * time.Hour
)

// A Client is the other end of a server: one connection, from the handshake to its end. It does not reconnect, unless
// [ClientConfig].Resume is set: then what is said here of the connection's end means that it has given up.
//
// Any number of goroutines may call its methods at once, push handlers included. A client that rests has one goroutine,
// which reads; it works on any [net.Conn], and in a [testing/synctest] bubble on one in memory.
//
// Handlers of pushes run one at a time, in the order in which the pushes arrived, in a goroutine of their own and not
// in the one that reads: a handler may make requests and wait for the answers, or close the client. So a push that
// arrived before the answer to a request may be handled after the request has returned.
type Client struct {
	// Immutable.
	again      *clientResume // has the connections, each as a Client of its own, and conn to idle below are unused; nil: this is the connection
	outer      *Client       // the Client that this is a connection of; nil: there is none
	conn       net.Conn
	cfg        ClientConfig // defaults filled in
	answer     *HandshakeResponse
	dict       *Dictionary
	serializer Serializer
	log        *slog.Logger
	drains     bool          // the server may say that it ends
	packetwise bool          // one Write per packet: some servers take one packet per WebSocket message and no more
	done       chan struct{} // closed by end
	started    time.Time
	goroutines sync.WaitGroup // the reader, and a writer while there is one

	// Owned by the handshake, then by the reader.
	in *bufio.Reader

	heard atomic.Int64 // when bytes last came in, as time since started

	// mu guards all that follows; it is never held across I/O or a callback.
	mu      sync.Mutex
	cause   error // why the connection has ended; nil before
	parting bool  // the server ends: it gets an ack as the last packet
	closed  bool  // by Close: nothing is sent and no push is handled any more
	reason  string
	lastID  uint64
	pending map[uint64]chan<- clientReply // each has room for its reply; nil after the end
	ping    *time.Timer                   // sends heartbeats; nil if there are none
	watch   *time.Timer                   // looks for silence; nil if the server may be silent

	// Packets on their way out. Who finds nobody writing writes.
	out     []byte // whole packets
	spare   []byte // the buffer before, for reuse
	writing bool
	room    chan struct{} // closed when out has been taken; nil while nobody waits for that
	idle    chan struct{} // closed when nobody writes any more; nil while nobody waits for that

	// Pushes on their way to their handlers.
	handlers map[string]func(payload []byte)
	anyPush  func(route string, payload []byte)
	pushes   []clientPush
	backlog  int  // bytes in pushes and in the batch that is being handled
	handling bool // a goroutine runs handlers
}

// clientPush is a push that waits for its handler, or something else that has its place among pushes.
type clientPush struct {
	Message
	Event func() // not nil: there is no push
}

// clientReply is what a request ends with: a response, or the cause of the connection's end.
type clientReply struct {
	m   Message
	err error
}

// Handshake returns the server's answer to the handshake, with Resume to the last one. It must not be changed.
func (c *Client) Handshake() *HandshakeResponse { return c.connection().answer }

// Serializer returns the serializer in use, with which handlers of pushes decode payloads.
func (c *Client) Serializer() Serializer { return c.connection().serializer }

// Request sends a request and waits for its answer. The argument is serialized, unless it is a []byte, which is sent as
// it is, or nil, which is an empty payload: right for handlers without argument. The answer is decoded into reply, a
// pointer; into a *[]byte it goes as it is, and a nil reply ignores it.
//
// An answer with the error flag is returned as an [*Error]. Other errors are those of the serializer, of ctx, after
// which an answer that still comes is ignored, and what [Client.Err] says once the connection has ended. If the server
// has announced its end, the error wraps [ErrServerClosed] and nothing was sent: the request may be made on another
// connection, while those made before are still answered on this one. A call can
// outlast ctx while it writes, but not for longer than WriteTimeout.
func (c *Client) Request(ctx context.Context, route string, arg, reply any) error {
	payload, err := c.marshal(arg)
	if err != nil {
		return err
	}
	answer, err := c.RequestRaw(ctx, route, payload)
	if err != nil {
		return err
	}
	switch reply := reply.(type) {
	case nil:
	case *[]byte:
		*reply = answer
	default:
		if err := c.Serializer().Unmarshal(answer, reply); err != nil {
			return fmt.Errorf("pitaya: answer to %s: %w", route, err)
		}
	}
	return nil
}

// RequestRaw is [Client.Request] with payloads that are serialized already. The answer belongs to the caller.
func (c *Client) RequestRaw(ctx context.Context, route string, payload []byte) ([]byte, error) {
	wait := ctx
	if c.cfg.RequestTimeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, c.cfg.RequestTimeout)
		defer cancel()
	}
	reply := make(chan clientReply, 1)
	on, id, err := c.sendWhereConnected(wait, Message{Type: MessageRequest, Route: route, Payload: payload}, reply)
	if err == nil {
		select {
		case r := <-reply:
			if r.err != nil {
				return nil, on.unanswered(r.err)
			}
			return on.answered(r.m)
		case <-wait.Done():
			on.mu.Lock()
			delete(on.pending, id)
			on.mu.Unlock()
			err = wait.Err()
		}
	}
	switch {
	case err != wait.Err():
		return nil, err
	case ctx.Err() == nil:
		return nil, &Error{
			Code:    CodeClientTimeout,
			Message: fmt.Sprintf("no answer to %s within %v", route, c.cfg.RequestTimeout),
			Err:     err,
		}
	}
	return nil, fmt.Errorf("pitaya: request %s: %w", route, err)
}

// answered makes a result of a response. Inflating is the work of the caller, so that callers share it out among
// processors and the reader goes on.
func (c *Client) answered(m Message) ([]byte, error) {
	if err := c.inflate(&m); err != nil {
		return nil, err
	}
	if m.Err {
		return nil, decodeErrorPayload(c.serializer, m.Payload)
	}
	return m.Payload, nil
}

// Notify sends a message that is not answered. The argument is that of [Client.Request]. Nil means that the message is
// on its way, not that the server got it. Errors are those of the serializer, of ctx, and what [Client.Err] says once the
// connection has ended.
func (c *Client) Notify(ctx context.Context, route string, arg any) error {
	payload, err := c.marshal(arg)
	if err != nil {
		return err
	}
	return c.NotifyRaw(ctx, route, payload)
}

// NotifyRaw is [Client.Notify] with a payload that is serialized already.
func (c *Client) NotifyRaw(ctx context.Context, route string, payload []byte) error {
	_, _, err := c.sendWhereConnected(ctx, Message{Type: MessageNotify, Route: route, Payload: payload}, nil)
	if err != nil && err == ctx.Err() {
		return fmt.Errorf("pitaya: notify %s: %w", route, err)
	}
	return err
}

// OnPush sets the handler of pushes with a route, or removes it if f is nil. It replaces the one before. The payload
// belongs to f; [Client.Serializer] decodes it. f may call anything on the client. A panic in f is not recovered.
//
// The server may push as soon as the handshake is done: handlers that must miss nothing belong into [ClientConfig].
func (c *Client) OnPush(route string, f func(payload []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f == nil {
		delete(c.handlers, route)
		return
	}
	c.handlers[route] = f
}

// OnAnyPush sets the handler of the pushes that have no handler of their own, or removes it if f is nil. The rules are
// those of [Client.OnPush]. Without it these pushes are ignored.
func (c *Client) OnAnyPush(f func(route string, payload []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.anyPush = f
}

// Done is closed when the connection has ended, whoever ended it.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection has ended; it is nil before. It is [ErrSessionClosed] after [Client.Close], and wraps
// [io.EOF] if the server closed the connection, [ErrKicked], [ErrHeartbeat], [ErrSlowClient], [ErrProtocol] or an error
// of the connection.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// KickReason returns the reason that came with a kick; it is empty if there was no kick or no reason.
func (c *Client) KickReason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// Close ends the connection after what is on its way has been written, which takes twice WriteTimeout at most. Requests
// that wait fail with [ErrSessionClosed]; pushes that wait for their handlers are dropped, but a handler that runs may
// do so for longer than Close. Every client should be closed; closing twice, or after the connection has ended, is
// harmless. The error is always nil.
func (c *Client) Close() error {
	if c.again != nil {
		c.again.close()
		return nil
	}
	c.mu.Lock()
	c.closed = true
	for c.writing && c.cause == nil {
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		c.mu.Unlock()
		select {
		case <-idle:
		case <-c.done:
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	c.end(ErrSessionClosed)
	c.goroutines.Wait()
	return nil
}

// end ends the connection, the first time it is called. It does not wait for anybody.
func (c *Client) end(cause error) {
	if c.again != nil {
		c.again.giveUp(cause)
		return
	}
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = cause
	pending := c.pending
	c.pending = nil
	for _, t := range []*time.Timer{c.ping, c.watch} {
		if t != nil {
			t.Stop()
		}
	}
	c.mu.Unlock()
	for _, reply := range pending {
		reply <- clientReply{err: cause}
	}
	close(c.done)
	if c.outer != nil && !errors.Is(cause, ErrSessionClosed) {
		c.cut()
		c.outer.again.lost(c, cause)
		return
	}
	c.conn.Close() // its error says nothing about the cause
}
