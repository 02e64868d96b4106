package pitaya

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
)

// errGRPCParted ends a connection whose peer has not closed it in time, with nothing left to say.
var errGRPCParted = errors.New("the peer keeps a connection that has ended")

// fill returns the next n bytes, which stay there. It does what is due meanwhile.
func (l *grpcLink) fill(n int) ([]byte, error) {
	for {
		before := l.in.Buffered()
		b, err := l.in.Peek(n)
		if before < n && len(b) > before {
			l.heard = time.Now()
		}
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		if err := l.wake(); err != nil {
			return nil, err
		}
	}
}

// wake does what is due.
func (l *grpcLink) wake() error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.partBy.IsZero() && !now.Before(l.partBy) {
		return errGRPCParted
	}
	next, err := l.end.wakeLocked(now)
	if err != nil {
		return err
	}
	next = earlier(next, l.partBy)
	l.armed = next
	l.nc.SetReadDeadline(next)
	return nil
}

// read reads frames until there is an error. What is wrong with the connection is an *http2Error.
func (l *grpcLink) read() error {
	for {
		b, err := l.fill(http2FrameHeader)
		if err != nil {
			return err
		}
		length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		kind, flags, stream := b[3], b[4], binary.BigEndian.Uint32(b[5:])&http2MaxStream
		if length > http2MaxFrame {
			return http2Errorf(http2FrameSizeError, "frame of %d bytes", length)
		}
		if b, err = l.fill(http2FrameHeader + length); err != nil {
			return err
		}
		if err := l.take(kind, flags, stream, b[http2FrameHeader:]); err != nil {
			return err
		}
		l.in.Discard(http2FrameHeader + length)
	}
}

// take works on one frame.
func (l *grpcLink) take(kind, flags byte, stream uint32, b []byte) error {
	if !l.settled && (kind != http2Settings || flags&http2Ack != 0) {
		return http2Errorf(http2ProtocolError, "the first frame has the type %d", kind)
	}
	if l.block != 0 && (kind != http2Continuation || stream != l.block) {
		return http2Errorf(http2ProtocolError, "frame of the type %d in the midst of headers", kind)
	}
	switch kind {
	case http2Data, http2Headers, http2Priority, http2Reset, http2Continuation:
		if stream == 0 {
			return http2Errorf(http2ProtocolError, "frame of the type %d without a stream", kind)
		}
	case http2Settings, http2Ping, http2GoAway:
		if stream != 0 {
			return http2Errorf(http2ProtocolError, "frame of the type %d on a stream", kind)
		}
	}
	switch kind {
	case http2Data:
		return l.takeData(flags, stream, b)
	case http2Headers:
		return l.takeHeaders(flags, stream, b)
	case http2Continuation:
		if l.block == 0 {
			return http2Errorf(http2ProtocolError, "CONTINUATION without headers")
		}
		return l.takeBlock(flags, b)
	case http2Priority:
		if len(b) != 5 {
			return http2Errorf(http2FrameSizeError, "PRIORITY of %d bytes", len(b))
		}
		return l.wasteful()
	case http2Reset:
		return l.takeReset(stream, b)
	case http2Settings:
		return l.takeSettings(flags, b)
	case http2PushPromise:
		return http2Errorf(http2ProtocolError, "PUSH_PROMISE")
	case http2Ping:
		return l.takePing(flags, b)
	case http2GoAway:
		if len(b) < 8 {
			return http2Errorf(http2FrameSizeError, "GOAWAY of %d bytes", len(b))
		}
		l.end.goAway(binary.BigEndian.Uint32(b)&http2MaxStream, http2Code(binary.BigEndian.Uint32(b[4:])))
		return l.wasteful()
	case http2WindowUpdate:
		return l.takeWindowUpdate(stream, b)
	}
	return l.wasteful()
}

// wasteful counts frames that lead to nothing. A peer may send some.
func (l *grpcLink) wasteful() error {
	if l.waste++; l.waste <= grpcMaxWaste {
		return nil
	}
	if now := time.Now(); now.Sub(l.wasted) >= grpcWasteTime {
		l.waste, l.wasted = 0, now
		return nil
	}
	return http2Errorf(http2EnhanceYourCalm, "more than %d frames that lead to nothing", grpcMaxWaste)
}

// stream returns a stream that is there, nil if there is none. One that has not been opened is an error.
func (l *grpcLink) stream(id uint32) (*grpcStream, error) {
	l.mu.Lock()
	st := l.Streams[id]
	l.mu.Unlock()
	if st == nil && l.end.idle(id) {
		return nil, http2Errorf(http2ProtocolError, "frame on the stream %d, which is not open", id)
	}
	return st, nil
}

// fault ends a stream because of what the peer did wrong.
func (l *grpcLink) fault(id uint32, st *grpcStream, code http2Code) error {
	if st != nil {
		l.end.reset(st, code)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.queue)
	l.queue = appendHTTP2Reset(l.queue, id, code)
	return l.controlLocked(before)
}

func (l *grpcLink) takeData(flags byte, stream uint32, b []byte) error {
	cost, end := len(b), flags&http2EndStream != 0
	b, err := unpadHTTP2(b, flags)
	if err != nil {
		return err
	}
	st, err := l.stream(stream)
	if err != nil {
		return err
	}
	if l.room -= cost; l.room < 0 {
		return http2Errorf(http2FlowControlError, "more than the window of the connection allows")
	}
	if l.credit += cost; l.credit >= grpcConnWindow/2 {
		l.mu.Lock()
		l.queue = appendHTTP2WindowUpdate(l.queue, 0, l.credit)
		l.kickLocked()
		l.mu.Unlock()
		l.room, l.credit = l.room+l.credit, 0
	}
	if len(b) == 0 && !end {
		if err := l.wasteful(); err != nil {
			return err
		}
	}
	if st == nil {
		return nil // it has ended for this side, which the peer may not have known
	}
	if st.Room -= cost; st.Room < 0 {
		return l.fault(stream, st, http2FlowControlError)
	}
	if st.Left >= 0 {
		if st.Left -= int64(len(b)); st.Left < 0 || end && st.Left > 0 {
			return l.fault(stream, st, http2ProtocolError)
		}
	}
	if st.Credit += cost; st.Credit >= grpcStreamWindow/2 && !end {
		l.mu.Lock()
		if !st.gone {
			l.queue = appendHTTP2WindowUpdate(l.queue, stream, st.Credit)
			l.kickLocked()
		}
		l.mu.Unlock()
		st.Room, st.Credit = st.Room+st.Credit, 0
	}
	return l.end.data(st, b, end)
}

func (l *grpcLink) takeHeaders(flags byte, stream uint32, b []byte) error {
	b, err := unpadHTTP2(b, flags)
	if err != nil {
		return err
	}
	if flags&http2WithWeight != 0 {
		if len(b) < 5 {
			return http2Errorf(http2FrameSizeError, "headers without their priority")
		}
		if binary.BigEndian.Uint32(b)&http2MaxStream == stream {
			return http2Errorf(http2ProtocolError, "stream %d depends on itself", stream)
		}
		b = b[5:]
	}
	l.block, l.ending, l.size, l.pieces = stream, flags&http2EndStream != 0, 0, 0
	l.head = grpcHead{Length: -1}
	return l.takeBlock(flags, b)
}

// takeBlock takes a part of a block of headers. All of it must be decoded, since it changes the table.
func (l *grpcLink) takeBlock(flags byte, b []byte) error {
	l.pieces++
	if l.size += len(b); l.size > 2*l.header || l.pieces > grpcMaxContinued {
		return http2Errorf(http2EnhanceYourCalm, "headers of %d bytes in %d frames", l.size, l.pieces)
	}
	if _, err := l.dec.Write(b); err != nil {
		return http2Errorf(http2CompressionError, "headers: %v", err)
	}
	if flags&http2EndHeaders == 0 {
		return nil
	}
	if err := l.dec.Close(); err != nil {
		return http2Errorf(http2CompressionError, "headers: %v", err)
	}
	id := l.block
	l.block = 0
	l.mu.Lock()
	st := l.Streams[id]
	unread := l.control > grpcMaxControl
	l.mu.Unlock()
	if unread {
		return http2Errorf(http2EnhanceYourCalm, "the peer asks without reading")
	}
	return l.end.headers(id, st, l.ending, &l.head)
}

func (l *grpcLink) takeReset(stream uint32, b []byte) error {
	if len(b) != 4 {
		return http2Errorf(http2FrameSizeError, "RST_STREAM of %d bytes", len(b))
	}
	st, err := l.stream(stream)
	if err != nil {
		return err
	}
	if st != nil {
		l.end.reset(st, http2Code(binary.BigEndian.Uint32(b)))
	}
	return l.wasteful()
}

func (l *grpcLink) takePing(flags byte, b []byte) error {
	if len(b) != 8 {
		return http2Errorf(http2FrameSizeError, "PING of %d bytes", len(b))
	}
	if flags&http2Ack != 0 {
		l.end.pong([8]byte(b))
		return l.wasteful()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.queue)
	l.queue = append(appendHTTP2Frame(l.queue, 8, http2Ping, http2Ack, 0), b...)
	return l.controlLocked(before)
}

func (l *grpcLink) takeWindowUpdate(stream uint32, b []byte) error {
	if len(b) != 4 {
		return http2Errorf(http2FrameSizeError, "WINDOW_UPDATE of %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b) & http2MaxWindow)
	if stream == 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		switch l.window += n; {
		case n == 0:
			return http2Errorf(http2ProtocolError, "WINDOW_UPDATE by nothing")
		case l.window > http2MaxWindow:
			return http2Errorf(http2FlowControlError, "window of %d bytes", l.window)
		}
		l.pumpLocked()
		return nil
	}
	st, err := l.stream(stream)
	if err != nil || st == nil {
		return err
	}
	l.mu.Lock()
	st.window += n
	wrong := n == 0 || st.window > http2MaxWindow
	if !wrong {
		l.listLocked(st)
		l.pumpLocked()
	}
	l.mu.Unlock()
	switch {
	case n == 0:
		return l.fault(stream, st, http2ProtocolError)
	case wrong:
		return l.fault(stream, st, http2FlowControlError)
	}
	return nil
}

func (l *grpcLink) takeSettings(flags byte, b []byte) error {
	if flags&http2Ack != 0 {
		if len(b) != 0 {
			return http2Errorf(http2FrameSizeError, "acknowledgement of %d bytes", len(b))
		}
		return l.wasteful()
	}
	if len(b)%6 != 0 {
		return http2Errorf(http2FrameSizeError, "SETTINGS of %d bytes", len(b))
	}
	if !l.settled {
		l.settled = true
		if err := l.wake(); err != nil { // from here on other things are due
			return err
		}
	}
	if err := l.wasteful(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	initial := l.initial
	for ; len(b) > 0; b = b[6:] {
		value := binary.BigEndian.Uint32(b[2:])
		switch binary.BigEndian.Uint16(b) {
		case http2SetTableSize:
			l.Enc.tableSize(value)
		case http2SetPush:
			if value > 1 || !l.serves && value != 0 {
				return http2Errorf(http2ProtocolError, "ENABLE_PUSH of %d", value)
			}
		case http2SetStreams:
			l.most = int64(value)
		case http2SetWindow:
			if value > http2MaxWindow {
				return http2Errorf(http2FlowControlError, "initial window of %d bytes", value)
			}
			initial = int64(value)
		case http2SetFrame:
			if value < http2MaxFrame || value > 1<<24-1 {
				return http2Errorf(http2ProtocolError, "frames of %d bytes", value)
			}
			// Larger ones than what must be possible gain nothing here.
		}
	}
	before := len(l.queue)
	l.queue = appendHTTP2Frame(l.queue, 0, http2Settings, http2Ack, 0)
	if err := l.controlLocked(before); err != nil {
		return err
	}
	by := initial - l.initial
	if by == 0 {
		return nil
	}
	l.initial = initial
	for _, st := range l.Streams {
		if st.window += by; st.window > http2MaxWindow {
			return http2Errorf(http2FlowControlError, "window of %d bytes", st.window)
		}
		l.listLocked(st)
	}
	l.pumpLocked()
	return nil
}
