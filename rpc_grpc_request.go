package pitaya

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
)

// headers implements grpcEnd.
func (c *grpcServed) headers(id uint32, st *grpcStream, end bool, h *grpcHead) error {
	l := &c.link
	switch {
	case id%2 == 0:
		return http2Errorf(http2ProtocolError, "request on the stream %d", id)
	case st != nil:
		return c.trailers(st, end, h)
	}
	l.mu.Lock()
	switch {
	case id <= c.last:
		recent := slices.Contains(c.recent[:], id)
		l.mu.Unlock()
		if recent {
			return l.wasteful() // trailers of a request that was refused before they came
		}
		return http2Errorf(http2StreamClosed, "headers on the stream %d, which has ended", id)
	case c.gone:
		c.last = id
		l.mu.Unlock()
		return l.wasteful()
	}
	c.last = id
	if len(l.Streams) >= c.s.limits.Streams {
		c.recent[c.ended%len(c.recent)] = id
		c.ended++
		l.mu.Unlock()
		return l.fault(id, nil, http2RefusedStream)
	}
	l.mu.Unlock()
	if !h.TooLarge && h.checkRequest() != "" || end && h.Length > 0 {
		return l.fault(id, nil, http2ProtocolError)
	}
	return c.open(id, end, h)
}

// open begins a request.
func (c *grpcServed) open(id uint32, end bool, h *grpcHead) error {
	l, s := &c.link, c.s
	call := &grpcCall{conn: c, receiving: true, method: h.Path}
	st := &grpcStream{ID: id, Encoding: h.Encoding, Left: h.Length, Served: call}
	call.stream = st
	var status string // of HTTP
	var refusal *grpcStatus
	switch {
	case h.TooLarge:
		status = "431"
	case h.Method != http.MethodPost:
		status = "405"
	case !isGRPCContent(h.ContentType):
		status = "415"
	case h.Path == grpcMethodHealth:
	default:
		if refusal = s.begin(); refusal == nil {
			call.accepted = true
			refusal = call.begin(h, l.heard)
		}
	}
	l.mu.Lock()
	l.addLocked(st)
	switch {
	case status != "":
		c.statusLocked(st, status, func(e *grpcEncoder, b []byte) []byte { return b })
	case refusal != nil:
		c.refuseLocked(st, refusal)
	case !end:
		st.Until = l.heard.Add(s.limits.Read)
		l.armLocked(st.Until)
	}
	gone := st.gone
	l.mu.Unlock()
	if gone || !end {
		return nil
	}
	return c.complete(st)
}

// trailers ends a request by headers, of which nothing is of interest.
func (c *grpcServed) trailers(st *grpcStream, end bool, h *grpcHead) error {
	switch {
	case !c.receives(st):
		return c.link.fault(st.ID, st, http2StreamClosed)
	case !end || h.checkTrailers() != "" || st.Left > 0:
		return c.link.fault(st.ID, st, http2ProtocolError)
	}
	return c.complete(st)
}

// receives reports whether a request is not complete yet.
func (c *grpcServed) receives(st *grpcStream) bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return st.Served.receiving
}

// data implements grpcEnd.
func (c *grpcServed) data(st *grpcStream, b []byte, end bool) error {
	call := st.Served
	if !c.receives(st) {
		return c.link.fault(st.ID, st, http2StreamClosed)
	}
	var refusal *grpcStatus
	if call.accepted {
		refusal = st.In.write(b, st.Encoding)
		if refusal == nil && !(end && call.counted == 0) { // what is complete at once takes no room
			call.counted += int64(len(b))
			if c.s.bytes.Add(int64(len(b))) > grpcMaxReceivingBytes && call.counted > grpcFirstRead {
				refusal = grpcErrorf(grpcResourceExhausted, "too much is being received")
			}
		}
	}
	switch {
	case refusal != nil:
		return c.refuse(st, refusal, end)
	case end:
		return c.complete(st)
	}
	return nil
}

// complete hands a request to the handler.
func (c *grpcServed) complete(st *grpcStream) error {
	l, s, call := &c.link, c.s, st.Served
	if !call.accepted {
		return c.health(st)
	}
	switch err := st.In.end().(type) {
	case nil:
	case *grpcStatus:
		return c.refuse(st, err, true)
	default:
		return c.refuse(st, grpcErrorf(grpcInternal, "request without a message"), true)
	}
	l.mu.Lock()
	if st.gone { // by close
		l.mu.Unlock()
		return nil
	}
	if c.handling >= grpcMaxHandling {
		defer l.mu.Unlock()
		call.receiving = false
		s.received(call.counted)
		c.refuseLocked(st, grpcErrorf(grpcResourceExhausted, "%d requests of one connection are being handled", c.handling))
		return nil
	}
	call.receiving = false
	c.handling++
	st.Until = call.deadline
	l.armLocked(st.Until)
	l.mu.Unlock()
	body := st.In.Bytes
	st.In = grpcMessage{}
	if call.deadline.IsZero() {
		call.Context, call.End = context.WithCancel(context.Background())
	} else {
		call.Context, call.End = context.WithDeadline(context.Background(), call.deadline)
	}
	defer s.received(call.counted)
	c.deliver(call, body)
	return nil
}

// deliver calls the handler.
func (c *grpcServed) deliver(call *grpcCall, body []byte) {
	defer func() {
		if v := recover(); v != nil {
			c.s.log.Error("panic in the handling of a message between servers", "err", v, "stack", string(debug.Stack()))
			call.reply(nil, nil)
		}
	}()
	if err := c.s.deliver(call, call.method, body); err != nil {
		call.reply(nil, err)
	}
}

// health answers the health check of gRPC (grpc.health.v1, HealthCheckResponse): SERVING or NOT_SERVING.
func (c *grpcServed) health(st *grpcStream) error {
	state := byte(1)
	if c.s.healthy() != nil {
		state = 2
	}
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if !st.gone {
		st.Served.receiving = false
		c.answerLocked(st, []byte{1 << 3, state})
	}
	return nil
}

// refuse ends a request with a status. complete says that nothing of it follows.
func (c *grpcServed) refuse(st *grpcStream, status *grpcStatus, complete bool) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if st.gone {
		return nil
	}
	if complete && st.Served.receiving {
		st.Served.receiving = false
		c.s.received(st.Served.counted)
	}
	c.refuseLocked(st, status)
	return nil
}

// refuseLocked ends a call with a status and no message (Trailers-Only).
func (c *grpcServed) refuseLocked(st *grpcStream, status *grpcStatus) {
	c.statusLocked(st, "200", func(e *grpcEncoder, b []byte) []byte {
		b = e.field(b, grpcFieldContentType, "content-type", "application/grpc")
		b = e.literal(b, "grpc-status", strconv.FormatUint(uint64(status.Code), 10))
		if status.Message != "" {
			b = e.literal(b, "grpc-message", encodeGRPCMessage(status.Message))
		}
		if status.Code == grpcUnimplemented {
			b = e.literal(b, "grpc-accept-encoding", "identity")
		}
		return b
	})
}

// statusLocked ends a stream with headers only. A request that is still on its way need not come.
func (c *grpcServed) statusLocked(st *grpcStream, code string, add func(e *grpcEncoder, b []byte) []byte) {
	l := &c.link
	before := len(l.queue)
	l.headersLocked(st.ID, http2EndStream, func(e *grpcEncoder, b []byte) []byte { return add(e, e.status(b, code)) })
	if st.Served.receiving {
		l.queue = appendHTTP2Reset(l.queue, st.ID, http2NoError)
	}
	if !st.Served.replied {
		l.control += len(l.queue) - before // the peer can have as many as it likes; the reader looks at it
	}
	c.removeLocked(st)
	l.kickLocked()
}

// answerLocked ends a call with a message.
func (c *grpcServed) answerLocked(st *grpcStream, message []byte) {
	l := &c.link
	st.Served.answered = true
	l.headersLocked(st.ID, 0, func(e *grpcEncoder, b []byte) []byte {
		return e.field(e.status(b, "200"), grpcFieldContentType, "content-type", "application/grpc")
	})
	l.messageLocked(st, message)
	if !st.gone {
		st.Until = time.Now().Add(c.s.limits.Write)
		l.armLocked(st.Until)
	}
	l.kickLocked()
}

// A grpcCall is a request that the handler is to answer.
type grpcCall struct {
	// Context is the handler's. It does not end when the transport is closed: the caller has not given up then.
	context.Context
	End     context.CancelFunc // nil while the handler does not have the request
	Timeout time.Duration      // that the caller allows; 0 for any

	conn     *grpcServed
	stream   *grpcStream
	method   string
	deadline time.Time // from Timeout
	accepted bool      // it counts as one that is being received; not so health checks
	counted  int64     // bytes that count so

	// Guarded by the lock of the link.
	receiving bool // its message is not complete
	answered  bool // or nobody waits for an answer any more
	replied   bool // the handler has answered
}

// begin begins the time of a request.
func (c *grpcCall) begin(h *grpcHead, now time.Time) *grpcStatus {
	switch c.method {
	case grpcMethodCall, grpcMethodPush, grpcMethodKick, grpcMethodBind:
	default:
		return grpcErrorf(grpcUnimplemented, "unknown method %.100q", c.method)
	}
	if h.Timeout == "" {
		return nil
	}
	timeout, err := parseGRPCTimeout(h.Timeout)
	if err != nil {
		return grpcErrorf(grpcInternal, "%s", err)
	}
	c.Timeout = max(timeout, 1) // some callers send what has passed already
	c.deadline = now.Add(c.Timeout)
	return nil
}

// reply takes the answer.
func (c *grpcCall) reply(body []byte, err error) {
	c.conn.reply(c, body, err)
	c.End()
}

// refuseCall implements callRefuser: the status stands for an answer (cluster protocol, section 6.1).
func (c *grpcCall) refuseCall(err error) { c.reply(nil, grpcErrorf(grpcUnknown, "%s", err)) }

// reply answers a call, if that is of use yet.
func (c *grpcServed) reply(call *grpcCall, body []byte, err error) {
	l, st := &c.link, call.stream
	l.mu.Lock()
	defer l.mu.Unlock()
	if call.replied {
		return // a second answer
	}
	call.replied = true
	c.handling--
	switch {
	case call.answered:
	case err != nil:
		status, ok := errors.AsType[*grpcStatus](err)
		if !ok {
			status = grpcErrorf(grpcUnknown, "%s", err)
		}
		c.refuseLocked(st, status)
	case body == nil:
		l.queue = appendHTTP2Reset(l.queue, st.ID, http2InternalError)
		c.removeLocked(st)
		l.kickLocked()
	case len(body) > grpcMaxMessage:
		c.refuseLocked(st, grpcErrorf(grpcResourceExhausted, "answer of %d bytes, over the limit of %d", len(body), grpcMaxMessage))
	default:
		c.answerLocked(st, body)
	}
}
